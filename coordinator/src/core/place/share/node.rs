//! One node of the tree of shares, and what stands in line there.

use super::super::arena::{ClassIx, NodeIx};
use super::works::Works;
use crate::core::WorkId;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Virtual time.
pub(super) type Tag = u64;

/// The order among siblings: by tag, then by who waits for longer, then by name (its hash).
pub(super) type Key = (Tag, u64, u64, NodeIx);

/// Where a piece of work stands among all others. Smaller is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub(super) nodes: [(Tag, u64, u64); 4],
    pub(super) path: Reverse<u64>,
    pub(super) work: WorkId,
}

/// What stands in line at a node, in one class.
#[derive(Debug)]
pub(super) enum Line {
    Nodes(BTreeSet<Key>),
    Works(Works),
}

impl Line {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.is_empty(),
            Self::Works(works) => works.is_empty(),
        }
    }
}

/// A lane, project, user or build. Each decision looks at one of each, and with thousands of builds
/// they are in no cache of the processor: what it looks at takes two lines of memory, of which one is
/// enough when work ends.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Node {
    pub parent: Option<NodeIx>,
    /// Children, or pieces of work that have not ended.
    pub refs: u32,
    pub weight: u32,
    /// Whether it has never waited.
    pub is_new: bool,
    /// Whether any of its children rests.
    pub has_resting: bool,
    pub tag: Tag,
    /// What it was charged too little (or too much, below zero), in virtual time.
    pub debt: i64,
    /// Since when it waits.
    pub since: u64,
    /// Where children begin.
    pub clock: Tag,
    /// The tag of the child that was served last.
    pub served: Tag,
    /// The weights of the children that wait, together.
    pub waiting: u64,
    /// Mostly one: work of one build asks for about the same.
    pub lines: SmallVec<[(ClassIx, Line); 1]>,
    /// A hash of the name.
    pub order: u64,
    pub more: Box<More>,
}

const _: () = assert!(size_of::<Node>() == 128);

/// What most decisions do not look at.
#[derive(Debug)]
pub(super) struct More {
    /// Children that have nothing any more, and got more than their share: they are remembered
    /// until the clock has come to their tags.
    pub resting: BTreeSet<(Tag, NodeIx)>,
    /// The tag under which it rests.
    pub rests: Option<Tag>,
    pub name: Arc<str>,
    pub children: BTreeMap<Arc<str>, NodeIx>,
}

impl Node {
    pub fn new(parent: Option<NodeIx>, name: Arc<str>, weight: u32) -> Self {
        Self {
            parent,
            order: order(&name),
            weight,
            has_resting: false,
            tag: 0,
            debt: 0,
            since: 0,
            is_new: true,
            clock: 0,
            served: 0,
            waiting: 0,
            refs: 0,
            lines: SmallVec::new(),
            more: Box::new(More {
                resting: BTreeSet::new(),
                rests: None,
                name,
                children: BTreeMap::new(),
            }),
        }
    }

    pub fn line(&self, class: ClassIx) -> Option<&Line> {
        self.lines.iter().find(|(c, _)| *c == class).map(|(_, line)| line)
    }

    pub fn line_mut(&mut self, class: ClassIx) -> Option<&mut Line> {
        self.lines.iter_mut().find(|(c, _)| *c == class).map(|(_, line)| line)
    }

    /// A child has nothing any more, and rests until the clock has come to `tag`.
    pub fn lay_down(&mut self, tag: Tag, child: NodeIx) {
        self.more.resting.insert((tag, child));
        self.has_resting = true;
    }

    /// It rests no longer.
    pub fn get_up(&mut self, tag: Tag, child: NodeIx) {
        self.more.resting.remove(&(tag, child));
        self.has_resting = !self.more.resting.is_empty();
    }

    /// The resting child whose time comes first.
    pub fn first_resting(&self) -> Option<(Tag, NodeIx)> {
        if self.has_resting { self.more.resting.first().copied() } else { None }
    }

    pub fn key(&self, at: NodeIx) -> Key {
        (self.tag, self.since, self.order, at)
    }
}

/// A number that is about as good as the name to tell siblings apart by, and shorter.
pub fn order(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}
