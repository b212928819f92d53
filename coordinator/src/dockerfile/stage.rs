//! A Dockerfile's stages.

use super::directive::Escape;
use super::error::{ParseError, Problem};
use super::expand::{Expander, Word};
use super::instruction::{ArgItem, Instruction, Kind};
use super::lint;
use super::text::shown;
use proto::error::SourceRange;
use std::collections::BTreeMap;

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character.
    pub escape: Escape,
    /// The value of `# syntax=…`.
    pub syntax: Option<String>,
    /// What `# check=…` says; it does not count where the build says otherwise, so that it may be
    /// wrong.
    pub checks: Result<lint::Config, ParseError>,
    /// The ARGs before the first FROM, in order.
    pub args: Vec<GlobalArg>,
    /// The stages, in order: at least one, where it can be built.
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
    /// Whether the names in all `COPY --from` stand as they are: variables, quotes and escapes are
    /// not resolved there, in whatever stage it is.
    pub fn check_sources(&self) -> Result<(), ParseError> {
        let instructions = self.stages.iter().flat_map(|stage| &stage.instructions);
        for Instruction { kind, at, .. } in instructions {
            let fault = |problem| ParseError { problem, at: Some(at.clone()) };
            check_source(kind, self.escape).map_err(fault)?;
        }
        Ok(())
    }

    /// The stage of a name, in any case; the last one of several. What `--target` and
    /// `COPY --from` ask for.
    pub fn stage_named(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        self.stages.iter().rposition(|stage| stage.lower_name() == Some(&lower))
    }

    /// The stages by their names in small letters; the last one of several. To ask often.
    pub fn stages_by_name(&self) -> BTreeMap<&str, usize> {
        let names = self.stages.iter().zip(0..);
        names.filter_map(|(stage, at)| Some((stage.lower_name()?, at))).collect()
    }
}

/// Whether the name in a `COPY --from` stands as it is.
pub(super) fn check_source(kind: &Kind, escape: Escape) -> Result<(), Problem> {
    let Kind::Copy(copy) = kind else { return Ok(()) };
    let Some(from) = copy.from.as_deref() else { return Ok(()) };
    let expanded = Expander::new(escape, &|_| None).word(&Word::new(from));
    match expanded.is_ok_and(|expanded| expanded == from) {
        true => Ok(()),
        false => Err(Problem::CopyFrom(shown(from))),
    }
}

/// What the comments above something say about names: `# name text`. The first one about a name
/// counts.
pub(super) struct Docs<'c>(BTreeMap<&'c str, &'c str>);

impl<'c> Docs<'c> {
    pub(super) fn new(comments: &'c [String]) -> Self {
        let mut docs = BTreeMap::new();
        for (name, text) in comments.iter().filter_map(|comment| comment.split_once(' ')) {
            docs.entry(name).or_insert(text);
        }
        Self(docs)
    }

    pub(super) fn about(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| (*text).to_owned())
    }
}
