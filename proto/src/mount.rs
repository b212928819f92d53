//! Cache mounts, as workers and the coordinator speak of them.
//!
//! A step that runs under a lease begins to use a mount ([`Ask::Begin`]), and is answered the
//! generation that it begins with. What it left is committed ([`Ask::Commit`]); what the coordinator
//! decides may be that it is to be united with what others left meanwhile ([`Decision::Merge`]),
//! which the worker does, and says so ([`Ask::Merged`]). The decisions are made by
//! `cache::mounts::History`.

// rkyv's derive makes types for variants with named fields, and gives their fields no docs.
#![allow(missing_docs)]

use crate::error::Class;
use crate::id::{Millis, RootId, WorkerId};
use crate::step::Sharing;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// What a step's tree becomes when another step was faster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum Policy {
    /// Both are kept, file by file.
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

/// A tree, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Measured {
    /// The tree.
    pub tree: RootId,
    /// Bytes of its files, each name of a linked file counted.
    pub bytes: u64,
    /// Its files and directories.
    pub files: u64,
}

/// How a step uses a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Use {
    /// How it shares it.
    pub sharing: Sharing,
    /// What becomes of its changes when another step was faster.
    pub policy: Policy,
    /// With which files it begins.
    pub start: Start,
}

/// With which files a step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Start {
    /// Those of the head.
    Head,
    /// None, although there may be some (`--no-cache`): what it leaves takes the place of all.
    Empty,
}

/// How a step left a mount.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Ended {
    /// The generation that it began with, as its worker has it; `None`: with nothing.
    pub base: Option<u64>,
    /// Its tree, admitted and durable.
    pub mine: Measured,
    /// Who ran it.
    pub writer: WorkerId,
    /// When.
    pub at: Millis,
}

/// What becomes of a step's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Decision {
    /// It is the new head, under this number.
    Fast(u64),
    /// It has to be united with the head first.
    Merge(Merge),
    /// It holds what is there already.
    Unchanged,
    /// It is not kept.
    Dropped(Dropped),
    /// Nobody uses the mount under this lease, or not like this. Nothing was changed.
    Stale,
}

/// A union that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Merge {
    /// The tree that the step began with; `None`: with nothing.
    pub base: Option<RootId>,
    /// The head's number.
    pub onto: u64,
    /// The head's tree.
    pub theirs: RootId,
    /// The step's tree.
    pub mine: RootId,
}

/// Why a tree is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Dropped {
    /// Another step was faster, and the mount is private or its policy says so.
    Moved,
    /// It began with a generation that was rolled back, and would bring its files back.
    RolledBack,
}

/// What a worker asks about the mount of a step that it runs. Asking again what was answered already
/// changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Ask {
    /// The step begins: [`Answer::Begun`], once it is its turn.
    Begin(Use),
    /// The step ended, and left this tree, which is durable: [`Answer::Decided`].
    Commit {
        /// The generation that it began with; none when it began with nothing.
        base: Option<u64>,
        /// Its tree.
        mine: Measured,
    },
    /// The union that was asked for is made, and durable: [`Answer::Decided`].
    Merged {
        /// The generation that the tree was united with.
        onto: u64,
        /// The union.
        union: Measured,
    },
    /// The step uses it no more: [`Answer::Released`].
    Release,
}

/// What the coordinator answers.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// The generation that the step begins with; none when there is none, or when it begins with
    /// nothing.
    Begun(Option<(u64, RootId)>),
    /// What becomes of its tree.
    Decided(Decision),
    /// It is released.
    Released,
    /// The coordinator cannot say, or the lease is over: the step does without the mount's files,
    /// and what it leaves is not kept. In words, why.
    Refused(String),
}
