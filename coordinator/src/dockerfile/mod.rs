//! A Dockerfile's text to typed instructions: what BuildKit's built-in front end (v1.26) reads, it
//! reads alike.
//!
//! Pure: no file is opened here, and no clock, environment or chance is asked. Read first:
//! [`parse`], then [`Dockerfile`] and [`Instruction`]. The way of a text:
//!
//! | step | module |
//! |---|---|
//! | bytes to logical lines: comments, continuations, directives | `lexer`, [`directive`] |
//! | a line to its name, flags and words; heredocs | `flag`, `words`, [`heredoc`] |
//! | words to typed instructions | `build`, [`instruction`], [`mount`], [`stage`] |
//! | triggers of base images | [`onbuild`] |
//! | variables, when the build's arguments are known | [`expand`] |
//! | values after expansion: ports, signals, modes, URLs | [`value`], [`source`], [`path`] |
//! | what is run, and what the image's history says | [`run`], [`history`] |
//! | advice | [`lint`], [`suggest`] |
//!
//! Sources: moby/buildkit, `frontend/dockerfile/{parser,instructions,shell,linter,dockerfile2llb}`.
//! Where this front end differs, it says so at the place:
//!
//! - bytes that are not UTF-8 and NUL bytes are refused in instructions, because no step could use
//!   them (BuildKit fails later, and less clearly);
//! - flags may hold any characters (BuildKit garbles those that are not ASCII);
//! - there are bounds for what a text may cost: [`proto::limit`], [`expand::NESTING_MAX`],
//!   [`expand::GROWTH_BYTES_MAX`];
//! - Windows is no target.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod build;
mod csv;
pub mod directive;
pub mod error;
pub mod expand;
mod flag;
pub mod heredoc;
pub mod history;
pub mod instruction;
mod lexer;
pub mod lint;
pub mod mount;
pub mod onbuild;
pub mod path;
pub mod run;
pub mod source;
pub mod stage;
pub mod suggest;
mod text;
pub mod value;
mod words;

pub use csv::CsvError;
pub use directive::Escape;
pub use error::{ParseError, Problem};
pub use expand::{ExpandError, Expander, Word};
pub use flag::FlagError;
pub(crate) use flag::first_garbled;
pub use instruction::{Instruction, Kind};
pub use stage::{Dockerfile, Stage};

use build::{Line, Parsed};
use lexer::{Fault, Logical, Reader};
use proto::error::SourceRange;
use proto::limit::{DOCKERFILE_BYTES_MAX, DOCKERFILE_INSTRUCTIONS_MAX};
use stage::GlobalArg;

/// Reads a Dockerfile. `file` is its name as the person gave it: it appears in errors only.
pub fn parse(text: &[u8], file: &str) -> Result<Dockerfile, ParseError> {
    let whole = |problem| ParseError { problem, at: None };
    if text.is_empty() {
        return Err(whole(Problem::Empty));
    }
    if text.len() > DOCKERFILE_BYTES_MAX {
        return Err(whole(Problem::TooManyBytes(text.len())));
    }
    let mut reader = Reader::new(text);
    let mut parser = Parser::new(text, file)?;
    let mut has_instruction = false;
    while let Some(logical) = reader.next().map_err(|fault| placed(file, fault))? {
        has_instruction = true;
        parser.line(&mut reader, logical).map_err(|fault| placed(file, fault))?;
    }
    if !has_instruction {
        return Err(whole(Problem::NoInstruction));
    }
    let mut dockerfile = parser.dockerfile;
    if dockerfile.stages.is_empty() {
        return Err(whole(Problem::NoStage));
    }
    dockerfile.escape = reader.escape();
    dockerfile.syntax = reader.syntax().map(str::to_owned);
    Ok(dockerfile)
}

fn placed(file: &str, fault: Fault) -> ParseError {
    let Fault { problem, first, last } = fault;
    ParseError { problem, at: Some(range(file, first, last)) }
}

fn range(file: &str, first_line: u32, last_line: u32) -> SourceRange {
    SourceRange { file: file.to_owned(), first_line, last_line }
}

/// Collects what the lines say.
struct Parser<'f> {
    file: &'f str,
    dockerfile: Dockerfile,
    instructions: usize,
}

impl<'f> Parser<'f> {
    fn new(text: &[u8], file: &'f str) -> Result<Self, ParseError> {
        let checks = match directive::check(text) {
            None => lint::Config::default(),
            Some((value, line)) => lint::Config::parse(&value).map_err(|why| {
                let problem = Problem::Check(why);
                placed(file, Fault { problem, first: line, last: line })
            })?,
        };
        let dockerfile = Dockerfile {
            escape: Escape::default(),
            syntax: None,
            checks,
            args: Vec::new(),
            stages: Vec::new(),
            empty_continuations: Vec::new(),
        };
        Ok(Self { file, dockerfile, instructions: 0 })
    }

    fn line(&mut self, reader: &mut Reader<'_>, logical: Logical) -> Result<(), Fault> {
        let (first, end) = (logical.first, logical.last);
        let fault = |problem| Fault { problem, first, last: end };
        self.instructions += 1;
        if self.instructions > DOCKERFILE_INSTRUCTIONS_MAX {
            return Err(fault(Problem::TooManyInstructions));
        }
        if logical.has_empty_line {
            self.dockerfile.empty_continuations.push(range(self.file, end, end));
        }
        let line = Line::cut(&logical, reader.escape()).map_err(fault)?;
        let keyword = line.keyword.to_owned();
        let markers = line.markers().map_err(fault)?;
        let heredocs = reader.heredocs(markers, first)?;
        let last = reader.line_number();
        let parsed = line.parse(heredocs).map_err(|problem| Fault { problem, first, last })?;
        let at = range(self.file, first, last);
        match parsed {
            Parsed::From(from) => self.stage(from, keyword, logical, at),
            Parsed::Other(kind) => self.instruction(kind, keyword, logical, at).map_err(fault)?,
        }
        Ok(())
    }

    fn stage(&mut self, from: build::From, keyword: String, logical: Logical, at: SourceRange) {
        let comments = logical.comments;
        let name = from.name.as_ref().map_or("", |name| &name.lower);
        self.dockerfile.stages.push(Stage {
            doc: stage::Docs::new(&comments).about(name),
            name: from.name,
            base: from.base,
            platform: from.platform,
            keywords: (keyword, from.as_keyword),
            comments,
            at,
            instructions: Vec::new(),
        });
    }

    fn instruction(
        &mut self,
        kind: Kind,
        keyword: String,
        logical: Logical,
        at: SourceRange,
    ) -> Result<(), Problem> {
        let comments = logical.comments;
        match (self.dockerfile.stages.last_mut(), kind) {
            (Some(stage), kind) => {
                let text = logical.text.trim().to_owned();
                stage.instructions.push(Instruction { kind, keyword, text, comments, at });
            }
            (None, Kind::Arg(items)) => {
                self.dockerfile.args.push(GlobalArg { items, comments, at });
            }
            (None, kind) => return Err(Problem::BeforeFrom(kind.name().to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
