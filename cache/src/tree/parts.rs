//! What an archive unpacks to: trees to be put into ADD's destination one after the other, and hard
//! links to be made there.
//!
//! An archive is unpacked before anybody knows where it goes to. One tree says all of it as long as
//! what an entry does depends on no earlier one. Where a file below a symbolic link of the same
//! archive goes only the destination says, and what a hard link to an older file is, too: there a
//! new part begins.
//!
//! Nearly every archive is one tree, and its root is the archive's. Several parts are a root that is
//! [`Presence::Opaque`], with one directory for each part, named by its number.
//!
//! In a tree of an archive a directory is
//!
//! * [`Presence::Merge`] when its entry stands before everything in it,
//! * [`Presence::Implicit`] when it has no entry,
//! * [`Presence::Opaque`] when its entry stands after everything in it.
//!
//! The tree itself is the first of these when the archive has an entry for the destination, else the
//! second.

use super::apply::implied_meta;
use super::nodes::{DirNode, TreeError, Work, root};
use proto::id::RootId;
use proto::path::{FileName, NameError};
use proto::tree::{Dir, DirRef, Entry, Meta, Node, Presence, Root, Sealed};

/// One part of an archive.
#[derive(Debug, Clone)]
pub enum Part {
    /// A tree to be put into the destination; with metadata for the destination itself when the
    /// archive has an entry for it.
    Tree(Option<Meta>, DirRef),
    /// A hard link to be made: directories with one entry each, the last with the link.
    Link(DirRef),
}

/// A hard link to something in the destination.
#[derive(Debug, Clone)]
pub struct HardLink {
    /// Where it is, below the destination.
    pub names: Vec<FileName>,
    /// What the file that it is a name of gets.
    pub meta: Meta,
    /// The file, as the archive names it.
    pub target: Vec<u8>,
}

impl Part {
    /// The part of a link, and the nodes that it consists of, children first. None for a link that
    /// has no name.
    pub fn link(link: &HardLink) -> Option<(Self, Vec<Vec<u8>>)> {
        let (name, above) = link.names.split_last()?;
        let node = Node::Symlink(link.target.clone());
        let mut entry = Entry { name: name.clone(), meta: link.meta.clone(), node };
        let mut nodes = Vec::new();
        let mut seal = |entry| {
            let Sealed { dir, bytes } = Dir::new(vec![entry]).seal();
            nodes.push(bytes);
            dir
        };
        for name in above.iter().rev() {
            let node = Node::Dir(seal(entry), Presence::Implicit);
            entry = Entry { name: name.clone(), meta: implied_meta(), node };
        }
        let dir = seal(entry);
        Some((Self::Link(dir), nodes))
    }
}

/// The root of an archive of several parts, and the nodes that it consists of besides those of the
/// parts, children first.
pub fn seal(parts: &[Part]) -> Result<(RootId, Vec<Vec<u8>>), NameError> {
    let mut entries = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let name = FileName::new(format!("{number:010}").as_bytes())?;
        let (meta, dir, presence) = match part {
            Part::Tree(Some(meta), dir) => (meta.clone(), dir, Presence::Merge),
            Part::Tree(None, dir) => (implied_meta(), dir, Presence::Implicit),
            Part::Link(dir) => (implied_meta(), dir, Presence::Opaque),
        };
        entries.push(Entry { name, meta, node: Node::Dir(*dir, presence) });
    }
    let list = Dir::new(entries).seal();
    let root = Root { meta: implied_meta(), dir: list.dir, presence: Presence::Opaque };
    let (id, bytes) = root.seal();
    Ok((id, vec![list.bytes, bytes]))
}

/// The parts of an archive, in order.
pub(super) fn parts(work: &Work<'_>, archive: &RootId) -> Result<Vec<Part>, TreeError> {
    let Root { meta, dir, presence } = root(work.nodes, archive)?;
    let tree = |meta: &Meta, dir, presence| match presence {
        Presence::Merge | Presence::Unlisted => Part::Tree(Some(meta.clone()), dir),
        Presence::Implicit => Part::Tree(None, dir),
        Presence::Opaque => Part::Link(dir),
    };
    if presence != Presence::Opaque {
        return Ok(vec![tree(&meta, dir, presence)]);
    }
    let of_entry = |entry: &Entry| match entry.node {
        Node::Dir(dir, presence) => Ok(tree(&entry.meta, dir, presence)),
        _ => Err(TreeError::WrongKind(archive.0)),
    };
    work.dir(&dir.tree)?.entries().iter().map(of_entry).collect()
}

/// The link of a [`Part::Link`].
pub(super) fn hard_link(work: &Work<'_>, part: &DirRef) -> Result<HardLink, TreeError> {
    let mut names = Vec::new();
    let mut at: DirNode = work.dir(&part.tree)?;
    loop {
        let [entry] = at.entries() else { return Err(TreeError::WrongKind(part.tree)) };
        names.push(entry.name.clone());
        match &entry.node {
            Node::Dir(dir, _) => at = work.dir(&dir.tree)?,
            Node::Symlink(target) => {
                return Ok(HardLink { names, meta: entry.meta.clone(), target: target.clone() });
            }
            _ => return Err(TreeError::WrongKind(part.tree)),
        }
    }
}
