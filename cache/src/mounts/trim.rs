//! A mount's cap: what is over it goes, the oldest first.
//!
//! What goes at once is a *piece*: a file with all of its names, or a package with all that is in
//! it ([`super::Row::packages`]); pieces that share an inode go together. A piece is as old as its
//! newest file, or as the package's own directory when that is newer: what a tool touches when it
//! uses it stays longer. Of one age, the first by path goes first. Nothing more goes than must, and
//! directories that are left empty go too. Symlinks, pipes and empty files take no room, and stay.

use super::policy::Trim;
use super::rules::{Here, Rules};
use super::told::{Path, Told};
use super::walk::{Loaded, merged_root};
use crate::tree::{Made, Nodes, TreeError};
use proto::id::RootId;
use proto::tree::{Dir, DirRef, Entry, LinkId, Mtime, Node, Presence, Root};
use std::collections::BTreeMap;

/// A tree within its cap.
#[derive(Debug)]
pub struct Trimmed {
    /// The tree.
    pub tree: RootId,
    /// The nodes that are new, children first.
    pub made: Made,
    /// Bytes of its files, each inode counted once where the files were looked at.
    pub bytes: u64,
    /// The files and packages that went: paths from the mount's top on.
    pub removed: Told<String>,
    /// Their bytes.
    pub removed_bytes: u64,
}

/// The tree without its oldest files, so that what is left has at most `cap` bytes. Reads the whole
/// tree when it is over the cap, and only its root when it is not.
pub fn trim(
    nodes: &dyn Nodes,
    rules: &Rules,
    tree: &RootId,
    cap: u64,
) -> Result<Trimmed, TreeError> {
    let root = merged_root(nodes, tree)?;
    let (mut made, mut removed) = (Made::default(), Told::default());
    // Every name of an inode is counted here: there are fewer bytes, if anything.
    let bytes = root.dir.summary.bytes;
    if bytes <= cap {
        return Ok(Trimmed { tree: *tree, made, bytes, removed, removed_bytes: 0 });
    }
    let mut survey = Survey { nodes, rules, pieces: Vec::new(), groups: BTreeMap::new() };
    let start = rules.paths.start();
    survey.dir(&start, &root.dir)?;
    let bytes = survey.bytes();
    if bytes <= cap {
        return Ok(Trimmed { tree: *tree, made, bytes, removed, removed_bytes: 0 });
    }
    let (dir, removed_bytes) = match rules.trim() {
        Trim::Oldest => {
            let (goes, removed_bytes) = survey.oldest(bytes - cap);
            let mut cut = Cut { nodes, rules, goes: goes.into_iter(), made, removed };
            let dir = cut.dir(&start, &mut Path::default(), &root.dir)?;
            (made, removed) = (cut.made, cut.removed);
            (dir, removed_bytes)
        }
        Trim::Everything => {
            let top = Loaded::read(nodes, Some(&root.dir))?;
            top.entries().iter().for_each(|entry| removed.tell(|| entry.name.to_string()));
            (None, bytes)
        }
    };
    let dir = dir.unwrap_or_else(|| made.dir(Dir::default()));
    let tree = made.root(&Root { dir, ..root });
    Ok(Trimmed { tree, made, bytes: bytes - removed_bytes, removed, removed_bytes })
}

/// What goes at once.
struct Piece {
    age: Mtime,
    /// Bytes of its files that have one name.
    bytes: u64,
}

/// All pieces of a tree, in the order of a walk.
struct Survey<'a> {
    nodes: &'a dyn Nodes,
    rules: &'a Rules,
    pieces: Vec<Piece>,
    /// The bytes of each file that has several names, and the pieces that it is in.
    groups: BTreeMap<LinkId, (u64, Vec<usize>)>,
}

impl Survey<'_> {
    fn dir(&mut self, here: &Here, dir: &DirRef) -> Result<(), TreeError> {
        for entry in Loaded::read(self.nodes, Some(dir))?.entries() {
            match &entry.node {
                Node::Dir(below, _) => {
                    let here = self.rules.paths.enter(here, entry.name.as_bytes())?;
                    if here.in_package() {
                        self.pieces.push(Piece { age: entry.meta.mtime, bytes: 0 });
                        self.package(&here, below)?;
                    } else {
                        self.dir(&here, below)?;
                    }
                }
                Node::File { .. } => {
                    self.pieces.push(Piece { age: entry.meta.mtime, bytes: 0 });
                    self.file(entry);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds all files below a directory to the last piece.
    fn package(&mut self, here: &Here, dir: &DirRef) -> Result<(), TreeError> {
        for entry in Loaded::read(self.nodes, Some(dir))?.entries() {
            match &entry.node {
                Node::Dir(below, _) => {
                    let here = self.rules.paths.enter(here, entry.name.as_bytes())?;
                    self.package(&here, below)?;
                }
                _ => self.file(entry),
            }
        }
        Ok(())
    }

    /// Adds a file to the last piece.
    fn file(&mut self, entry: &Entry) {
        let Node::File { size, link, .. } = entry.node else { return };
        let last = self.pieces.len() - 1;
        let piece = &mut self.pieces[last];
        piece.age = piece.age.max(entry.meta.mtime);
        match link {
            None => piece.bytes = piece.bytes.saturating_add(size),
            Some(link) => self.groups.entry(link).or_insert((size, Vec::new())).1.push(last),
        }
    }

    fn bytes(&self) -> u64 {
        let linked = self.groups.values().map(|(size, _)| *size);
        self.pieces.iter().map(|piece| piece.bytes).chain(linked).fold(0, u64::saturating_add)
    }

    /// Which pieces go so that `least` bytes go, and how many bytes that are.
    fn oldest(self, least: u64) -> (Vec<bool>, u64) {
        let first = self.firsts();
        let mut clusters: BTreeMap<usize, (Mtime, u64)> = BTreeMap::new();
        for (at, Piece { age, bytes }) in self.pieces.iter().enumerate() {
            let (oldest, sum) = clusters.entry(first[at]).or_insert((*age, 0));
            *oldest = (*oldest).max(*age);
            *sum = sum.saturating_add(*bytes);
        }
        for (size, members) in self.groups.values() {
            let cluster = members.first().and_then(|at| clusters.get_mut(&first[*at]));
            let Some((_, sum)) = cluster else { continue };
            *sum = sum.saturating_add(*size);
        }
        let mut order: Vec<_> = clusters.iter().filter(|(_, (_, bytes))| *bytes > 0).collect();
        order.sort_by_key(|(first, (age, _))| (*age, **first));
        let (mut goes, mut sum) = (vec![false; self.pieces.len()], 0u64);
        for (first, (_, bytes)) in order {
            if sum >= least {
                break;
            }
            goes[*first] = true;
            sum = sum.saturating_add(*bytes);
        }
        (first.iter().map(|first| goes[*first]).collect(), sum)
    }

    /// For each piece the first one that it shares an inode with, directly or through others.
    fn firsts(&self) -> Vec<usize> {
        fn find(first: &mut [usize], mut at: usize) -> usize {
            while first[at] != at {
                first[at] = first[first[at]];
                at = first[at];
            }
            at
        }
        let mut first: Vec<usize> = (0..self.pieces.len()).collect();
        for (_, members) in self.groups.values() {
            for pair in members.windows(2) {
                let (a, b) = (find(&mut first, pair[0]), find(&mut first, pair[1]));
                first[a.max(b)] = a.min(b);
            }
        }
        (0..first.len()).map(|at| find(&mut first, at)).collect()
    }
}

/// Takes pieces away.
struct Cut<'a> {
    nodes: &'a dyn Nodes,
    rules: &'a Rules,
    /// Whether each piece goes, in the order of [`Survey::pieces`].
    goes: std::vec::IntoIter<bool>,
    made: Made,
    removed: Told<String>,
}

impl Cut<'_> {
    /// The directory without what goes; `None` when that was all.
    fn dir(
        &mut self,
        here: &Here,
        path: &mut Path,
        dir: &DirRef,
    ) -> Result<Option<DirRef>, TreeError> {
        let node = Loaded::read(self.nodes, Some(dir))?;
        let mut entries = Vec::with_capacity(node.entries().len());
        for entry in node.entries() {
            path.push(&entry.name);
            entries.extend(self.entry(here, path, entry)?);
            path.pop();
        }
        if entries == node.entries() {
            return Ok(Some(*dir));
        }
        Ok((!entries.is_empty()).then(|| self.made.dir(Dir::new(entries))))
    }

    fn entry(
        &mut self,
        here: &Here,
        path: &mut Path,
        entry: &Entry,
    ) -> Result<Option<Entry>, TreeError> {
        match &entry.node {
            Node::Dir(below, _) => {
                let here = self.rules.paths.enter(here, entry.name.as_bytes())?;
                if !here.in_package() {
                    let dir = self.dir(&here, path, below)?;
                    let node = dir.map(|dir| Node::Dir(dir, Presence::Merge));
                    return Ok(node.map(|node| Entry { node, ..entry.clone() }));
                }
            }
            Node::File { .. } => {}
            _ => return Ok(Some(entry.clone())),
        }
        if self.goes.next() != Some(true) {
            return Ok(Some(entry.clone()));
        }
        self.removed.tell(|| path.to_string());
        Ok(None)
    }
}
