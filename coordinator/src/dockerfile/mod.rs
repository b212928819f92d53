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
    let reading = read(text, file);
    reading.whole()?;
    Ok(reading.dockerfile)
}

/// What could be read of a Dockerfile.
#[derive(Debug)]
pub struct Reading {
    /// All of it, or what stands before the error. It may have no stage.
    pub dockerfile: Dockerfile,
    /// Why the rest could not be read.
    pub error: Option<ParseError>,
    /// The instruction that is the error, when it can be told from others.
    pub failed: Option<Failed>,
}

impl Reading {
    /// The Dockerfile, when it can be built.
    pub fn whole(&self) -> Result<&Dockerfile, ParseError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None if self.dockerfile.stages.is_empty() => {
                Err(ParseError { problem: Problem::NoStage, at: None })
            }
            None => Ok(&self.dockerfile),
        }
    }
}

/// An instruction that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its name as it is written.
    pub keyword: String,
    /// What stands behind its name and its flags.
    pub words: Vec<String>,
    /// The comments above it.
    pub comments: Vec<String>,
    /// Where it stands.
    pub at: SourceRange,
}

/// As [`parse`], for who looks at files that cannot be built, too.
pub fn read(text: &[u8], file: &str) -> Reading {
    let mut reader = Reader::new(text);
    let mut parser = Parser::new(text, file);
    let error = read_all(text, &mut reader, &mut parser).err();
    let Parser { mut dockerfile, failed, .. } = parser;
    dockerfile.escape = reader.escape();
    dockerfile.syntax = reader.syntax().map(str::to_owned);
    Reading { dockerfile, error, failed }
}

fn read_all(
    text: &[u8],
    reader: &mut Reader<'_>,
    parser: &mut Parser<'_>,
) -> Result<(), ParseError> {
    let file = parser.file;
    let whole = |problem| ParseError { problem, at: None };
    if text.is_empty() {
        return Err(whole(Problem::Empty));
    }
    if text.len() > DOCKERFILE_BYTES_MAX {
        return Err(whole(Problem::TooManyBytes(text.len())));
    }
    while let Some(logical) = reader.next().map_err(|fault| placed(file, fault))? {
        parser.line(reader, logical).map_err(|fault| placed(file, fault))?;
    }
    match parser.instructions {
        0 => {
            let last = reader.line_number();
            Err(placed(file, Fault { problem: Problem::NoInstruction, first: last, last }))
        }
        _ => Ok(()),
    }
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
    failed: Option<Failed>,
}

impl<'f> Parser<'f> {
    fn new(text: &[u8], file: &'f str) -> Self {
        let checks = match directive::check(text) {
            None => Ok(lint::Config::default()),
            Some((value, line)) => lint::Config::parse(&value).map_err(|why| {
                let problem = Problem::Check(why);
                placed(file, Fault { problem, first: line, last: line })
            }),
        };
        let dockerfile = Dockerfile {
            escape: Escape::default(),
            syntax: None,
            checks,
            args: Vec::new(),
            stages: Vec::new(),
            empty_continuations: Vec::new(),
        };
        Self { file, dockerfile, instructions: 0, failed: None }
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
        let at = range(self.file, first, last);
        let args = line.args;
        let problem = match line.parse(heredocs) {
            Ok(Parsed::From(from)) => {
                self.stage(from, keyword, logical, at);
                return Ok(());
            }
            Ok(Parsed::Other(kind)) if self.may_stand_here(&kind) => {
                self.instruction(kind, keyword, logical, at);
                return Ok(());
            }
            Ok(Parsed::Other(kind)) => Problem::BeforeFrom(kind.name().to_owned()),
            Err(problem) => problem,
        };
        // What lies in the way of the words is found before any instruction is understood.
        if !problem.is_of_words() {
            let words = args.split_whitespace().map(str::to_owned).collect();
            self.failed = Some(Failed { keyword, words, comments: logical.comments.clone(), at });
        }
        Err(Fault { problem, first, last })
    }

    fn may_stand_here(&self, kind: &Kind) -> bool {
        !self.dockerfile.stages.is_empty() || matches!(kind, Kind::Arg(_))
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

    fn instruction(&mut self, kind: Kind, keyword: String, logical: Logical, at: SourceRange) {
        let comments = logical.comments;
        match (self.dockerfile.stages.last_mut(), kind) {
            (Some(stage), kind) => {
                let text = logical.text.trim().to_owned();
                stage.instructions.push(Instruction { kind, keyword, text, comments, at });
            }
            (None, Kind::Arg(items)) => {
                self.dockerfile.args.push(GlobalArg { items, comments, at });
            }
            (None, _) => unreachable!("only ARG may stand before the first FROM"),
        }
    }
}

#[cfg(test)]
mod tests;
