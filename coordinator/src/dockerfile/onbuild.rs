//! The triggers that a base image left for the images built on it.

use super::build::{Line, Parsed};
use super::error::{ParseError, Problem};
use super::instruction::Instruction;
use super::lexer::{Fault, Reader};
use super::stage::check_source;
use super::text::shown;
use proto::error::SourceRange;
use proto::limit::DOCKERFILE_BYTES_MAX;

/// Reads one trigger, as an image config keeps it. `at` is the FROM that sets it off: the trigger
/// has no place of its own in the Dockerfile, and errors show the FROM.
///
/// A trigger is one instruction with its heredocs, other than FROM. It is read with the escape
/// character `\`, whatever the Dockerfile's is, but for a directive in the trigger itself.
pub fn parse_trigger(text: &str, at: &SourceRange) -> Result<Instruction, ParseError> {
    read(text, at).map_err(|problem| ParseError { problem, at: Some(at.clone()) })
}

fn read(text: &str, at: &SourceRange) -> Result<Instruction, Problem> {
    if text.len() > DOCKERFILE_BYTES_MAX {
        return Err(Problem::TooManyBytes(text.len()));
    }
    let problem = |fault: Fault| fault.problem;
    let not_one = || Problem::Trigger(shown(text));
    let mut reader = Reader::new(text.as_bytes());
    let logical = reader.next().map_err(problem)?.ok_or_else(not_one)?;
    let line = Line::cut(&logical, reader.escape())?;
    let keyword = line.keyword.to_owned();
    let markers = line.markers()?;
    let heredocs = reader.heredocs(markers, 1).map_err(problem)?;
    let kind = match line.parse(heredocs)? {
        Parsed::From(_) => return Err(Problem::OnbuildForbidden("FROM")),
        Parsed::Other(kind) => kind,
    };
    if reader.next().map_err(problem)?.is_some() {
        return Err(not_one());
    }
    check_source(&kind, reader.escape())?;
    let text = logical.text.trim().to_owned();
    Ok(Instruction { kind, keyword, text, comments: logical.comments, at: at.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::instruction::Kind;
    use super::*;

    fn trigger(text: &str) -> Result<Instruction, Problem> {
        let at = SourceRange { file: "f".to_owned(), first_line: 7, last_line: 8 };
        match parse_trigger(text, &at) {
            Ok(instruction) => {
                assert_eq!(instruction.at, at);
                Ok(instruction)
            }
            Err(error) => {
                assert_eq!(error.at, Some(at));
                Err(error.problem)
            }
        }
    }

    #[test]
    fn a_trigger_is_one_instruction() {
        let kind = |text| trigger(text).map(|found| found.kind.name());
        assert_eq!(kind("RUN a"), Ok("RUN"));
        assert_eq!(kind(" env a=b \n\n# end\n"), Ok("ENV"));
        assert_eq!(kind("COPY <<E /x\na\nE"), Ok("COPY"));
        assert_eq!(kind("FROM a"), Err(Problem::OnbuildForbidden("FROM")));
        assert_eq!(kind("RUN a\nRUN b"), Err(Problem::Trigger("RUN a\u{fffd}RUN b".to_owned())));
        assert_eq!(kind(""), Err(Problem::Trigger(String::new())));
        assert_eq!(kind("COPY a"), Err(Problem::NoDestination("COPY")));
        assert_eq!(kind("RUN <<E\na\n"), Err(Problem::OpenHeredoc("E".to_owned())));
    }

    #[test]
    fn what_onbuild_keeps_is_read_again() {
        let text = "FROM a\nonbuild\trun --network=none <<E cat \\\n && b\n\t1\nE\n";
        let file = super::super::parse(text.as_bytes(), "f").unwrap();
        let Kind::Onbuild(text) = &file.stages[0].instructions[0].kind else { panic!() };
        assert_eq!(text, "run --network=none <<E cat  && b\n\t1\nE");
        let Kind::Run(run) = trigger(text).unwrap().kind else { panic!() };
        assert_eq!(run.heredocs[0].text, b"\t1\n");
    }
}
