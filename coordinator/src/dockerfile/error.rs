//! Why a text is no Dockerfile, where, and what to do about it.

use super::directive::Key;
use super::expand::ExpandError;
use super::flag::FlagError;
use super::lint::CheckError;
use super::mount::MountError;
use super::value::DurationError;
use proto::error::{Class, Failure, SourceRange};
use proto::limit;

/// Why a Dockerfile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ParseError {
    /// What is wrong.
    pub problem: Problem,
    /// Where, when it is wrong at one place.
    pub at: Option<SourceRange>,
}

/// What is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No byte at all.
    #[error("The Dockerfile is empty")]
    Empty,
    /// Comments and blank lines only.
    #[error("The Dockerfile has no instruction")]
    NoInstruction,
    /// No FROM.
    #[error("The Dockerfile has no build stage, because it has no FROM")]
    NoStage,
    /// An instruction other than ARG before the first FROM.
    #[error("{0} stands before the first FROM, where there is no build stage yet")]
    BeforeFrom(String),
    /// [`limit::DOCKERFILE_BYTES_MAX`].
    #[error("The Dockerfile has {0} bytes; at most {max} are read", max = limit::DOCKERFILE_BYTES_MAX)]
    TooManyBytes(usize),
    /// [`limit::DOCKERFILE_LINE_BYTES_MAX`].
    #[error(
        "The line is too long: it has {bytes} bytes, and must have fewer than {max}",
        max = limit::DOCKERFILE_LINE_BYTES_MAX
    )]
    LongLine {
        /// Its length.
        bytes: usize,
    },
    /// [`limit::DOCKERFILE_INSTRUCTIONS_MAX`].
    #[error(
        "The Dockerfile has more than {max} instructions",
        max = limit::DOCKERFILE_INSTRUCTIONS_MAX
    )]
    TooManyInstructions,
    /// [`limit::DOCKERFILE_WORDS_MAX`].
    #[error("{0} has more than {max} words", max = limit::DOCKERFILE_WORDS_MAX)]
    TooManyWords(&'static str),
    /// Bytes that are not UTF-8, outside of comments and of COPY and ADD heredocs.
    #[error("The instruction is not valid UTF-8")]
    NotUtf8,
    /// A NUL byte, outside of comments and of COPY and ADD heredocs.
    #[error("The instruction contains a NUL byte (\\x00)")]
    Nul,
    /// A directive that stands twice.
    #[error("The directive `{0}` is given twice")]
    DirectiveTwice(Key),
    /// A value of `# escape=` that is none.
    #[error("`{0}` cannot be the escape character; only `\\` and the backtick can")]
    EscapeDirective(String),
    /// A value of `# check=` that is none.
    #[error("The directive `check` is not valid: {0}")]
    Check(CheckError),
    /// An instruction that there is not.
    #[error("Unknown instruction `{name}`")]
    UnknownInstruction {
        /// As it is written.
        name: String,
        /// The one that is meant.
        near: Option<&'static str>,
    },
    /// A flag of an instruction.
    #[error("{instruction}: {why}")]
    Flag {
        /// The instruction.
        instruction: &'static str,
        /// What is wrong with it.
        why: FlagError,
    },
    /// Flags that end inside of a letter.
    #[error("The flags cannot be read: {0}")]
    Flags(FlagError),
    /// No argument, where one is needed.
    #[error("{0} needs at least one argument")]
    NoArgument(&'static str),
    /// No argument, where one is needed that may hold blanks.
    #[error("{0} needs exactly one argument")]
    OneArgument(&'static str),
    /// COPY or ADD of one word.
    #[error("{0} needs at least two arguments, the last of which is the destination")]
    NoDestination(&'static str),
    /// FROM of two words, or of four.
    #[error("FROM needs one argument, or three: `FROM image AS name`")]
    FromArguments,
    /// A stage's name that is none.
    #[error(
        "`{0}` cannot be the name of a build stage: a name begins with a letter, followed by \
         letters, digits, `-`, `_` and `.`"
    )]
    StageName(String),
    /// `ENV name`.
    #[error("{0} needs a name and a value: `{0} name=value`")]
    NoValue(&'static str),
    /// `ENV a=b c`.
    #[error("{instruction}: `{word}` has no `=`; every word must be of the form `name=value`")]
    NoEquals {
        /// The instruction.
        instruction: &'static str,
        /// The word.
        word: String,
    },
    /// `ENV =b`.
    #[error("{0}: the name before the `=` is blank")]
    BlankName(&'static str),
    /// A JSON array of other things than strings.
    #[error("{0}: a JSON array must hold strings only")]
    NotStrings(&'static str),
    /// SHELL in another form.
    #[error("SHELL needs a JSON array: `SHELL [\"/bin/sh\", \"-c\"]`")]
    ShellForm,
    /// A heredoc without its end.
    #[error("The heredoc `{0}` is not terminated: no line of its own says `{0}`")]
    OpenHeredoc(String),
    /// A heredoc whose name cannot be read.
    #[error("The name of a heredoc cannot be read. {0}")]
    HeredocName(ExpandError),
    /// A heredoc as the destination of COPY or ADD.
    #[error("{0}: a heredoc cannot be the destination")]
    HeredocDestination(&'static str),
    /// `COPY --from=$name`.
    #[error(
        "COPY: `--from={0}` holds a variable, a quote or an escape, which are not expanded there"
    )]
    CopyFrom(String),
    /// ONBUILD of ONBUILD.
    #[error("ONBUILD cannot be the trigger of another ONBUILD")]
    OnbuildChain,
    /// ONBUILD of FROM or MAINTAINER.
    #[error("{0} cannot be the trigger of ONBUILD")]
    OnbuildForbidden(&'static str),
    /// A trigger from an image that is not one instruction.
    #[error("The ONBUILD trigger `{0}` must be a single instruction")]
    Trigger(String),
    /// `HEALTHCHECK NONE` and more.
    #[error("HEALTHCHECK NONE takes no further arguments")]
    HealthcheckNone,
    /// Neither `CMD` nor `NONE`.
    #[error("HEALTHCHECK cannot be of the type `{0}`, only CMD or NONE")]
    HealthcheckType(String),
    /// `HEALTHCHECK CMD` of nothing.
    #[error("HEALTHCHECK CMD needs a command")]
    HealthcheckCommand,
    /// A time of HEALTHCHECK.
    #[error("HEALTHCHECK: `--{flag}` {why}")]
    HealthcheckTime {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        why: DurationError,
    },
    /// `--retries`.
    #[error("HEALTHCHECK: `--retries={0}` is not a number of 0 to 2147483647")]
    HealthcheckRetries(String),
    /// VOLUME of an empty text.
    #[error("VOLUME: a volume's path cannot be empty")]
    BlankVolume,
    /// `RUN --mount` and `RUN --device`.
    #[error("RUN: {0}")]
    Mount(MountError),
    /// `RUN --network`.
    #[error("RUN: `{0}` is no network mode; there are default, none and host")]
    Network(String),
    /// `RUN --security`.
    #[error("RUN: `{0}` is no security mode; there are sandbox and insecure")]
    Security(String),
}

impl Problem {
    /// Whether a line cannot be cut into words, whatever instruction it is.
    pub(super) fn is_of_words(&self) -> bool {
        matches!(self, Self::NoEquals { .. } | Self::NoValue(_))
    }

    /// What to do about it, where the message does not say so already.
    pub fn hint(&self) -> Option<String> {
        let mean = |near: &str| Some(format!("Did you mean `{near}`?"));
        match self {
            Self::Empty | Self::NoInstruction | Self::NoStage => {
                Some("Begin with `FROM image`, or with `FROM scratch`".to_owned())
            }
            Self::BeforeFrom(_) => Some("Only ARG can stand before the first FROM".to_owned()),
            Self::UnknownInstruction { near: Some(near), .. } => mean(near),
            Self::UnknownInstruction { near: None, .. } => {
                Some("If it belongs to the line above, end that line with a `\\`".to_owned())
            }
            Self::Flag { why: FlagError::Unknown { near: Some(near), .. }, .. } => {
                mean(&format!("--{near}"))
            }
            Self::Mount(why) => why.hint(),
            Self::LongLine { .. } => Some("Cut it with a `\\` at the line's end".to_owned()),
            Self::CopyFrom(_) => Some(
                "Name a stage with `FROM ${name} AS alias`, where global ARGs are expanded, and \
                 copy from that"
                    .to_owned(),
            ),
            Self::OpenHeredoc(_) => Some(
                "If the `<<` is not meant as a heredoc, put it in quotes or take away the blank \
                 before it"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl ParseError {
    /// The lines that BuildKit names to programs; it has none for some errors, and counts from 0
    /// what is wrong in a directive.
    pub fn lines_as_told(&self) -> Option<(u32, u32)> {
        let at = self.at.as_ref()?;
        match self.problem {
            Problem::Check(_) | Problem::CopyFrom(_) => None,
            Problem::DirectiveTwice(_) | Problem::EscapeDirective(_) => {
                Some((at.first_line - 1, at.first_line - 1))
            }
            _ => Some((at.first_line, at.last_line)),
        }
    }

    /// Whose trouble it is: always the author's of the Dockerfile.
    pub fn class(&self) -> Class {
        Class::User
    }

    /// The error as it travels to the person, with the lines of `text`, the Dockerfile.
    pub fn failure(&self, text: &[u8]) -> Failure {
        let mut failure = Failure::new(self.class(), self.to_string());
        failure.hint = self.problem.hint();
        if let Some(at) = &self.at {
            failure.excerpt = excerpt(text, at);
            failure = failure.at(at.clone());
        }
        failure
    }
}

/// The lines of `text` at a place, each with its number; not more than a few, and no line longer
/// than a few hundred characters.
pub fn excerpt(text: &[u8], at: &SourceRange) -> Vec<(u32, String)> {
    const LINES_MAX: usize = 12;
    const CHARS_MAX: usize = 300;
    let lines = text.split(|b| *b == b'\n').zip(1u32..);
    lines
        .skip(at.first_line.saturating_sub(1) as usize)
        .take_while(|(_, number)| *number <= at.last_line)
        .take(LINES_MAX)
        .map(|(line, number)| {
            let cut = &line[..line.len().min(4 * CHARS_MAX)];
            let text = String::from_utf8_lossy(cut);
            (number, text.trim_end_matches('\r').chars().take(CHARS_MAX).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_lines() {
        let error =
            super::super::parse(b"FROM a\nRUN b \\\n  c\nFOO x\n", "Dockerfile").unwrap_err();
        let failure = error.failure(b"FROM a\nRUN b \\\n  c\nFOO x\n");
        assert_eq!(failure.to_string(), "Dockerfile:4: Unknown instruction `FOO`");
        assert_eq!(failure.excerpt, [(4, "FOO x".to_owned())]);
        assert_eq!(failure.class, Class::User);
    }

    #[test]
    fn an_excerpt_is_short() {
        let at = SourceRange { file: "f".to_owned(), first_line: 2, last_line: 1000 };
        let text = format!("a\n{}\r\n{}", "x".repeat(9999), "b\n".repeat(99));
        let lines = excerpt(text.as_bytes(), &at);
        assert_eq!((lines.len(), lines[0].0, lines[0].1.len()), (12, 2, 300));
        assert_eq!(lines[1], (3, "b".to_owned()));
        assert_eq!(excerpt(b"", &at), []);
    }
}
