//! What becomes of a step's changes when the head has moved while it ran.

use proto::error::Class;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// What a step's tree becomes when another step was faster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum Policy {
    /// Both are kept, file by file ([`super::union()`]).
    Union,
    /// It takes the head's place as a whole.
    LastWriter,
    /// It is dropped.
    Discard,
}

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`merge={0}` is no way to merge a cache mount; write `union` (both steps' files are kept), \
     `last` (the last step's files are kept) or `discard` (the first step's files are kept)"
)]
pub struct PolicyError(String);

impl PolicyError {
    /// Whose trouble it is: the author's of the Dockerfile.
    pub fn class(&self) -> Class {
        Class::User
    }
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 3] = [Policy::Union, Policy::LastWriter, Policy::Discard];

    /// Reads what people write: `union`, `last` or `discard`.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| PolicyError(text.chars().take(80).collect()))
    }

    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Union => "union",
            Policy::LastWriter => "last",
            Policy::Discard => "discard",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a union makes of a path that one side deleted and the other left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deletes {
    /// It stays: what one step cleans up, another may have found worth keeping.
    Keep,
    /// It goes, as it would in a directory that both work in.
    Follow,
}

/// What a union does with paths that a pattern names, in place of its ordinary rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Locks, temporary files, logs: no step's changes to it are kept ([`super::admit()`]).
    Skip,
    /// A text that only grows: changed by both, it has the lines of both.
    Lines,
    /// A file about the whole cache: the newest is kept, whoever wrote it, even the unchanged one.
    Newer,
    /// One of several files that belong together: changed by both, the head's is kept, so that all
    /// of them come from one step.
    Theirs,
}

/// What goes first when a mount is over its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trim {
    /// The oldest files and packages: the tool takes what is left for a smaller cache.
    Oldest,
    /// Everything: with some of its files gone the cache would be a broken one.
    Everything,
}
