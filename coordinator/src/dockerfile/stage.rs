//! A Dockerfile's stages.

use super::directive::Escape;
use super::expand::Word;
use super::instruction::{ArgItem, Instruction};
use super::lint;
use proto::error::SourceRange;

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character.
    pub escape: Escape,
    /// The value of `# syntax=…`.
    pub syntax: Option<String>,
    /// What `# check=…` says.
    pub checks: lint::Config,
    /// The ARGs before the first FROM, in order.
    pub args: Vec<GlobalArg>,
    /// The stages, in order: at least one.
    pub stages: Vec<Stage>,
    /// The places of empty lines inside of continued instructions: for the checks.
    pub empty_continuations: Vec<SourceRange>,
}

/// An ARG before the first FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArg {
    /// Its names.
    pub items: Vec<ArgItem>,
    /// The comments above it.
    pub comments: Vec<String>,
    /// Where it stands.
    pub at: SourceRange,
}

/// The name of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageName {
    /// In small letters: the one that counts.
    pub lower: String,
    /// As it is written.
    pub written: String,
}

/// From one FROM to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, when it has one.
    pub name: Option<StageName>,
    /// The stage, image or named context that it begins with, or `scratch`.
    pub base: Word,
    /// `--platform`.
    pub platform: Option<Word>,
    /// `FROM` and `AS` as they are written.
    pub keywords: (String, Option<String>),
    /// What the comment above says about it.
    pub doc: Option<String>,
    /// The comments above its FROM.
    pub comments: Vec<String>,
    /// Where its FROM stands.
    pub at: SourceRange,
    /// Its instructions, in order.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// Its name in small letters, when it has one.
    pub fn lower_name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.lower.as_str())
    }
}

impl Dockerfile {
    /// The stage of a name, in any case; the last one of several. What `--target` and
    /// `COPY --from` ask for.
    pub fn stage_named(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        self.stages.iter().rposition(|stage| stage.lower_name() == Some(&lower))
    }
}

/// What the comments above something say about `name`: `# name text`.
pub(super) fn doc(comments: &[String], name: &str) -> Option<String> {
    let of_line = |line: &String| {
        line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned).filter(|doc| !doc.is_empty())
    };
    if name.is_empty() { None } else { comments.iter().find_map(of_line) }
}
