//! The union of two trees that were made of one base: what both of two writers kept.
//!
//! # The rule
//!
//! Name by name, from the top on:
//!
//! * What both sides have alike is taken, unseen: directories with the same id are not read.
//! * What one side changed or added is taken.
//! * What one side deleted and the other left alone stays or goes as [`Deletes`] says. What one
//!   side deleted and the other changed stays.
//! * Changed by both to different files: the newer one is taken; of one time the larger, of one
//!   size the one with the greater blob id, then by what is left ([`super::order`]). Content and
//!   metadata of a file are always of one side. This does not ask who is who, so the result
//!   does not depend on it. For paths with rules of their own see [`Action`].
//! * Directories of both sides are united by the same rule, and so are their owners and modes; a
//!   directory that nobody changed stays as it is.
//! * A directory of one side and something else of the other: the side that changed is taken. When
//!   both did, the directory: it holds more. With it come the files of the base's directory, except
//!   those that the rule for deletions takes.
//!
//! # What holds
//!
//! With the base fixed, all trees are ordered by "has at least the changes of", and the union is
//! the least upper bound. So, for trees that were admitted:
//!
//! * it is **commutative**, **associative** and **idempotent**: writers that began with one
//!   generation give one result, in whatever order they end, and merging a tree again changes
//!   nothing;
//! * with [`Deletes::Follow`] the base itself changes nothing: a tree united with an unchanged one
//!   is that tree. With [`Deletes::Keep`] it is that tree and what it had deleted.
//!
//! Exceptions: under [`Action::Newer`] a file that is older than the base's counts as unchanged, so
//! that the base does change something. Paths under [`Action::Theirs`] are associative and
//! idempotent, but the first writer wins. Paths under [`Action::Lines`] obey all of it as long as
//! texts only grow, and no text is over [`super::LINES_BYTES_MAX`].
//!
//! Writers that began with different generations lose no path that they added, until somebody who
//! has seen it deletes it; but which of two contents of a path is kept may depend on their order.

use super::policy::{Action, Deletes};
use super::rules::{Here, Rules};
use super::walk::{Loaded, Names, merged_root};
use super::{lines, order};
use crate::tree::{Made, Nodes, TreeError};
use bytes::Bytes;
use proto::id::{BlobId, RootId};
use proto::tree::{Dir, DirRef, Entry, Meta, Node, Presence, Root};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The union of two trees.
#[derive(Debug)]
pub struct United {
    /// The tree.
    pub tree: RootId,
    /// The nodes that are new, children first.
    pub made: Made,
    /// The blobs that are new, small ones. They have to be in the store before the nodes.
    pub blobs: Vec<(BlobId, Bytes)>,
    /// How many paths both sides had changed to something different, directories not counted.
    pub conflicts: u64,
}

/// The union of `theirs` and `mine`, which were both made of `base` (`None`: of nothing). All
/// three were [admitted](super::admit()). The bytes of texts that are united by lines are asked
/// for.
pub fn union(
    nodes: &dyn Nodes,
    rules: &Rules,
    base: Option<&RootId>,
    theirs: &RootId,
    mine: &RootId,
) -> Result<United, TreeError> {
    let (made, blobs) = (Made::default(), BTreeMap::new());
    let mut work = Work { nodes, rules, made, blobs, conflicts: 0 };
    let tree = if theirs == mine { *theirs } else { work.roots(base, theirs, mine)? };
    let Work { made, blobs, conflicts, .. } = work;
    Ok(United { tree, made, blobs: blobs.into_iter().collect(), conflicts })
}

struct Work<'a> {
    nodes: &'a dyn Nodes,
    rules: &'a Rules,
    made: Made,
    blobs: BTreeMap<BlobId, Bytes>,
    conflicts: u64,
}

/// What a side made of a name. The greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Did {
    /// Less than nothing: it is gone, which does not count.
    Lost,
    /// Nothing.
    Kept,
    /// It is gone, which counts.
    Deleted,
    /// It is another.
    Changed,
}

impl Work<'_> {
    fn roots(
        &mut self,
        base: Option<&RootId>,
        theirs: &RootId,
        mine: &RootId,
    ) -> Result<RootId, TreeError> {
        let base = base.map(|id| merged_root(self.nodes, id)).transpose()?;
        let (t, m) = (merged_root(self.nodes, theirs)?, merged_root(self.nodes, mine)?);
        let start = self.rules.paths.start();
        let below = base.as_ref().map(|base| &base.dir);
        let dir = self.dirs(&start, below, Some(&t.dir), Some(&m.dir))?;
        let meta = metas(base.as_ref().map(|base| &base.meta), &t.meta, &m.meta).clone();
        Ok(self.made.root(&Root { meta, dir, presence: Presence::Merge }))
    }

    /// The union of two directories. `None` is an empty one.
    fn dirs(
        &mut self,
        here: &Here,
        base: Option<&DirRef>,
        theirs: Option<&DirRef>,
        mine: Option<&DirRef>,
    ) -> Result<DirRef, TreeError> {
        if let (Some(theirs), true) = (theirs, theirs == mine) {
            return Ok(*theirs);
        }
        let b = Loaded::read(self.nodes, base)?;
        let t = Loaded::read(self.nodes, theirs)?;
        let m = Loaded::read(self.nodes, mine)?;
        let mut entries = Vec::with_capacity(t.entries().len().max(m.entries().len()));
        for [b, t, m] in Names::new([b.entries(), t.entries(), m.entries()]) {
            entries.extend(self.name(here, b, t, m)?);
        }
        // What is one side's need not be made again.
        for (side, loaded) in [(theirs, &t), (mine, &m)] {
            if let Some(side) = side.filter(|_| entries == loaded.entries()) {
                return Ok(*side);
            }
        }
        Ok(self.made.dir(Dir::new(entries)))
    }

    fn name(
        &mut self,
        here: &Here,
        base: Option<&Entry>,
        theirs: Option<&Entry>,
        mine: Option<&Entry>,
    ) -> Result<Option<Entry>, TreeError> {
        if theirs == mine {
            return Ok(theirs.cloned());
        }
        match (theirs, mine) {
            (Some(t), Some(m)) if t.as_dir().is_some() && m.as_dir().is_some() => {
                self.both_dirs(here, base, t, m).map(Some)
            }
            (Some(dir), other) | (other, Some(dir)) if dir.as_dir().is_some() => {
                self.one_dir(here, base, dir, other)
            }
            (Some(t), Some(m)) => self.leaves(here, base, t, m).map(Some),
            (Some(one), None) | (None, Some(one)) => Ok(self.one_leaf(here, base, one)),
            (None, None) => Ok(None),
        }
    }

    fn both_dirs(
        &mut self,
        here: &Here,
        base: Option<&Entry>,
        theirs: &Entry,
        mine: &Entry,
    ) -> Result<Entry, TreeError> {
        let here = self.rules.paths.enter(here, theirs.name.as_bytes())?;
        let base = base.filter(|base| base.as_dir().is_some());
        let below = base.and_then(Entry::as_dir);
        let dir = self.dirs(&here, below, theirs.as_dir(), mine.as_dir())?;
        let meta = metas(base.map(|base| &base.meta), &theirs.meta, &mine.meta).clone();
        Ok(Entry { name: theirs.name.clone(), meta, node: Node::Dir(dir, Presence::Merge) })
    }

    /// One side has a directory, the other something else, or nothing.
    fn one_dir(
        &mut self,
        here: &Here,
        base: Option<&Entry>,
        dir: &Entry,
        other: Option<&Entry>,
    ) -> Result<Option<Entry>, TreeError> {
        let deletes = self.rules.deletes();
        let Some(base) = base.filter(|base| base.as_dir().is_some()) else {
            return Ok(Some(dir.clone()));
        };
        if other.is_none() && deletes == Deletes::Keep {
            return Ok(Some(dir.clone()));
        }
        if dir == base {
            return Ok(other.cloned());
        }
        // The other side had the directory too, before it took its place. What that leaves of it
        // is its part in the union; a directory that adds nothing to it was not changed.
        let left = match deletes {
            Deletes::Keep => base.clone(),
            Deletes::Follow => {
                let node = Node::Dir(self.made.dir(Dir::default()), Presence::Merge);
                Entry { node, ..base.clone() }
            }
        };
        let whole = self.both_dirs(here, Some(base), dir, &left)?;
        if whole == left {
            return Ok(other.cloned());
        }
        self.conflicts += u64::from(other.is_some());
        Ok(Some(whole))
    }

    /// One side has something that is no directory, the other nothing.
    fn one_leaf(&self, here: &Here, base: Option<&Entry>, one: &Entry) -> Option<Entry> {
        let action = self.rules.paths.action(here, one.name.as_bytes());
        let gone = match (self.rules.deletes(), base) {
            (Deletes::Keep, _) => Did::Lost,
            (Deletes::Follow, None) => Did::Kept,
            (Deletes::Follow, Some(_)) => Did::Deleted,
        };
        (did(action, base, one) >= gone).then(|| one.clone())
    }

    /// Both sides have something that is no directory, and not the same.
    fn leaves(
        &mut self,
        here: &Here,
        base: Option<&Entry>,
        theirs: &Entry,
        mine: &Entry,
    ) -> Result<Entry, TreeError> {
        let action = self.rules.paths.action(here, theirs.name.as_bytes());
        let (t, m) = (did(action, base, theirs), did(action, base, mine));
        let one = match t.cmp(&m) {
            Ordering::Greater => theirs,
            Ordering::Less => mine,
            Ordering::Equal => {
                self.conflicts += u64::from(t == Did::Changed);
                return self.both_changed(action.filter(|_| t == Did::Changed), base, theirs, mine);
            }
        };
        Ok(one.clone())
    }

    fn both_changed(
        &mut self,
        action: Option<Action>,
        base: Option<&Entry>,
        theirs: &Entry,
        mine: &Entry,
    ) -> Result<Entry, TreeError> {
        match action {
            Some(Action::Theirs) => return Ok(theirs.clone()),
            Some(Action::Lines) => {
                if let Some(united) = self.lines(base, theirs, mine)? {
                    return Ok(united);
                }
            }
            Some(Action::Skip | Action::Newer) | None => {}
        }
        let newer = order::leaves(theirs, mine).is_gt();
        Ok(if newer { theirs } else { mine }.clone())
    }

    /// The union by lines; `None` when it is none of texts, or of too large ones.
    fn lines(
        &mut self,
        base: Option<&Entry>,
        theirs: &Entry,
        mine: &Entry,
    ) -> Result<Option<Entry>, TreeError> {
        let node = match (&theirs.node, &mine.node) {
            (Node::File { blob, size, .. }, Node::File { blob: other, .. }) if blob == other => {
                Node::File { blob: *blob, size: *size, link: None }
            }
            (Node::File { .. }, Node::File { .. }) => {
                match self.texts(base.map(|base| &base.node), &theirs.node, &mine.node)? {
                    Some(united) => united,
                    None => return Ok(None),
                }
            }
            // Of a text and something else the text is kept, so that no line is lost.
            (Node::File { .. }, _) => return Ok(Some(theirs.clone())),
            (_, Node::File { .. }) => return Ok(Some(mine.clone())),
            _ => return Ok(None),
        };
        let newer = order::metas(&theirs.meta, &mine.meta).is_gt();
        let meta = if newer { &theirs.meta } else { &mine.meta }.clone();
        Ok(Some(Entry { name: theirs.name.clone(), meta, node }))
    }

    fn texts(
        &mut self,
        base: Option<&Node>,
        theirs: &Node,
        mine: &Node,
    ) -> Result<Option<Node>, TreeError> {
        let mut texts = [const { Bytes::new() }; 3];
        for (text, node) in texts.iter_mut().zip([base, Some(theirs), Some(mine)]) {
            match node {
                Some(Node::File { size, .. }) if *size > lines::LINES_BYTES_MAX as u64 => {
                    return Ok(None);
                }
                Some(Node::File { blob, .. }) => *text = self.nodes.blob(blob)?,
                _ => {}
            }
        }
        let Some(text) = lines::union(&texts[0], &texts[1], &texts[2]) else { return Ok(None) };
        let (blob, size) = (BlobId::of(&text), text.len() as u64);
        self.blobs.insert(blob, text.into());
        Ok(Some(Node::File { blob, size, link: None }))
    }
}

fn did(action: Option<Action>, base: Option<&Entry>, now: &Entry) -> Did {
    let is_old = match base {
        None => false,
        Some(base) if action == Some(Action::Newer) && base.as_dir().is_none() => {
            order::leaves(now, base).is_le()
        }
        Some(base) => base == now,
    };
    if is_old { Did::Kept } else { Did::Changed }
}

/// Owner, mode and time of a directory: of the side that changed them, or the newer ones.
fn metas<'m>(base: Option<&Meta>, theirs: &'m Meta, mine: &'m Meta) -> &'m Meta {
    if base == Some(mine) || base != Some(theirs) && order::metas(theirs, mine).is_gt() {
        theirs
    } else {
        mine
    }
}
