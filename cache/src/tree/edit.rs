//! A merged tree that is being changed: loads what it must, and says at the end what the new tree
//! is and what the change was.

use super::listed::{self, Change as Listed, Missed};
use super::mode::SET_GID;
use super::nodes::{DirNode, Made, Nodes, TreeError, Work, root};
use proto::id::RootId;
use proto::limit;
use proto::path::FileName;
use proto::tree::{Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root};
use std::collections::{BTreeMap, BTreeSet};

/// What came out of a step: the tree after it, and its layer.
#[derive(Debug)]
pub struct Change {
    /// The merged root after the step.
    pub root: RootId,
    /// The layer.
    pub diff: RootId,
    /// All nodes that are new, children first.
    pub made: Made,
    /// What of it no image gets.
    pub missed: Missed,
}

/// A merged tree that is being changed.
pub struct Editor<'n> {
    pub(super) work: Work<'n>,
    root: EditDir,
    root_meta: Meta,
    /// Whether what is made belongs to nobody in particular, and so to the group of a set-group-id
    /// directory that it is made in.
    pub(super) inherits_group: bool,
}

/// A directory whose entries are loaded.
pub(super) struct EditDir {
    pub meta: Meta,
    /// The directory as it was; `None` when it is new.
    base: Option<Base>,
    slots: BTreeMap<FileName, Slot>,
    /// Names under which there was another directory: a new one takes its place, with all in it.
    hidden: BTreeSet<FileName>,
    pub touched: bool,
}

/// A directory as it was.
struct Base {
    dir: DirRef,
    node: DirNode,
}

enum Slot {
    /// As it was.
    Kept(Entry),
    /// New, or in place of another.
    Put(Entry),
    /// A directory that was opened.
    Open(Box<EditDir>),
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory.
    Dir,
    /// Anything else.
    Other(Entry),
}

pub(super) fn show(parts: &[FileName]) -> String {
    parts.iter().map(|p| format!("/{p}")).collect::<String>()
}

impl EditDir {
    /// Puts an entry, in place of what has its name.
    pub fn put(&mut self, entry: Entry) {
        self.hide(&entry.name);
        self.slots.insert(entry.name.clone(), Slot::Put(entry));
    }

    /// Makes a new directory, in place of what has its name.
    pub fn put_dir(&mut self, name: FileName, meta: Meta) {
        self.hide(&name);
        self.slots.insert(name, Slot::Open(Box::new(EditDir::new(meta))));
    }

    fn hide(&mut self, name: &FileName) {
        let was_dir = match self.slots.get(name) {
            Some(Slot::Kept(entry)) => entry.as_dir().is_some(),
            Some(Slot::Open(dir)) => dir.base.is_some(),
            Some(Slot::Put(_)) | None => false,
        };
        if was_dir {
            self.hidden.insert(name.clone());
        }
    }

    /// Whether the name stands for something that was put.
    pub fn is_new(&self, name: &[u8]) -> bool {
        matches!(self.slots.get(name), Some(Slot::Put(_)))
    }

    /// Gives all names of a file that were put, here and below, other metadata.
    pub fn describe_links(
        &mut self,
        work: &Work<'_>,
        link: LinkId,
        meta: &Meta,
        look_at: &mut dyn FnMut(usize) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        look_at(self.slots.len())?;
        let holds_new = |slot: &Slot| match slot {
            Slot::Kept(_) => false,
            Slot::Put(entry) => entry.as_dir().is_some_and(|dir| dir.summary.remade),
            Slot::Open(_) => true,
        };
        let dirs = self.slots.iter().filter(|(_, slot)| holds_new(slot));
        for name in dirs.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if let Some(dir) = self.child(work, name.as_bytes())? {
                dir.describe_links(work, link, meta, look_at)?;
            }
        }
        for slot in self.slots.values_mut() {
            if let Slot::Put(entry) = slot
                && entry.node.link() == Some(link)
            {
                entry.meta = meta.clone();
            }
        }
        Ok(())
    }

    fn open(work: &Work<'_>, meta: Meta, base: DirRef) -> Result<Self, TreeError> {
        let entries = work.dir(&base.tree)?;
        let slot = |e: &Entry| (e.name.clone(), Slot::Kept(e.clone()));
        let slots = entries.entries().iter().map(slot).collect();
        let base = Some(Base { dir: base, node: entries });
        Ok(Self { meta, base, slots, hidden: BTreeSet::new(), touched: false })
    }

    pub fn new(meta: Meta) -> Self {
        let (slots, hidden) = (BTreeMap::new(), BTreeSet::new());
        Self { meta, base: None, slots, hidden, touched: true }
    }

    /// The sub-directory of that name, opened; `None` when the name stands for anything else.
    pub fn child(
        &mut self,
        work: &Work<'_>,
        name: &[u8],
    ) -> Result<Option<&mut EditDir>, TreeError> {
        let Some(slot) = self.slots.get_mut(name) else { return Ok(None) };
        if let Slot::Kept(entry) | Slot::Put(entry) = slot {
            let Node::Dir(dir, _) = entry.node else { return Ok(None) };
            let kept = matches!(slot, Slot::Kept(_));
            let (Slot::Kept(entry) | Slot::Put(entry)) = slot else { return Ok(None) };
            let mut opened = EditDir::open(work, entry.meta.clone(), dir)?;
            if !kept {
                opened.base = None;
                opened.touched = true;
                opened.slots.values_mut().for_each(|s| {
                    if let Slot::Kept(entry) = s {
                        *s = Slot::Put(entry.clone());
                    }
                });
            }
            *slot = Slot::Open(Box::new(opened));
        }
        match slot {
            Slot::Open(dir) => Ok(Some(dir)),
            Slot::Kept(_) | Slot::Put(_) => Ok(None),
        }
    }

    /// What the name stands for.
    pub fn get(&self, name: &[u8]) -> Found {
        match self.slots.get(name) {
            None => Found::Nothing,
            Some(Slot::Open(_)) => Found::Dir,
            Some(Slot::Kept(e) | Slot::Put(e)) if e.as_dir().is_some() => Found::Dir,
            Some(Slot::Kept(e) | Slot::Put(e)) => Found::Other(e.clone()),
        }
    }

    /// Names the directory in the merged tree; and what the layer has in it, when it was touched.
    fn seal(&self, sealing: &mut Sealing) -> (DirRef, Option<Dir>) {
        let (mut merged, mut diff) = (Vec::new(), Vec::new());
        for (name, slot) in &self.slots {
            let presence = match self.hidden.contains(name) {
                true => Presence::Opaque,
                false => Presence::Merge,
            };
            match slot {
                Slot::Kept(entry) => merged.push(entry.clone()),
                Slot::Put(entry) => {
                    merged.push(entry.clone());
                    let mut entry = entry.clone();
                    if let Node::Dir(_, of_layer) = &mut entry.node {
                        *of_layer = presence;
                    }
                    diff.extend(sealing.leaf(entry, self.below(name)));
                }
                Slot::Open(dir) => {
                    sealing.path.push(name.clone());
                    let (whole, change) = dir.seal(sealing);
                    sealing.path.pop();
                    let meta = dir.meta.clone();
                    let entry = |dir, presence| Entry {
                        name: name.clone(),
                        meta: meta.clone(),
                        node: Node::Dir(dir, presence),
                    };
                    merged.push(entry(whole, Presence::Merge));
                    let Some(change) = change else { continue };
                    let presence = match (self.below(name), presence) {
                        (Some(below), Presence::Merge) if dir.base.is_some() => {
                            listed::presence(&meta, &below.meta, change.entries())
                        }
                        _ => Some(presence),
                    };
                    diff.extend(presence.map(|presence| entry(sealing.made.dir(change), presence)));
                }
            }
        }
        if let (false, true, Some(base)) = (self.touched, diff.is_empty(), &self.base) {
            return (base.dir, None);
        }
        let whole = sealing.made.dir(Dir::new(merged));
        (whole, (self.touched || !diff.is_empty()).then(|| Dir::new(diff)))
    }

    /// What was under the name.
    fn below(&self, name: &FileName) -> Option<&Entry> {
        self.base.as_ref().and_then(|base| base.node.get(name.as_bytes()))
    }
}

impl<'n> Editor<'n> {
    /// Opens a merged tree.
    pub fn open(nodes: &'n dyn Nodes, id: &RootId) -> Result<Self, TreeError> {
        let Root { meta, dir, .. } = root(nodes, id)?;
        let work = Work::new(nodes);
        let root = EditDir::open(&work, meta.clone(), dir)?;
        Ok(Self { work, root, root_meta: meta, inherits_group: true })
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.root.slots.is_empty()
    }

    fn dir(&mut self, path: &[FileName]) -> Result<Option<&mut EditDir>, TreeError> {
        let mut at = &mut self.root;
        for name in path {
            match at.child(&self.work, name.as_bytes())? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// What the path stands for, without following symlinks.
    pub fn look(&mut self, path: &[FileName]) -> Result<Found, TreeError> {
        let Some((name, parents)) = path.split_last() else { return Ok(Found::Dir) };
        Ok(self.dir(parents)?.map_or(Found::Nothing, |dir| dir.get(name.as_bytes())))
    }

    /// The path with all symlinks followed inside the root, the last one too, as
    /// `continuity/fs.RootPath` does: what is not there stays as it is written.
    pub fn resolve(&mut self, path: &[u8]) -> Result<Vec<FileName>, TreeError> {
        let whole = || String::from_utf8_lossy(path).into_owned();
        resolve(path, |at, name| {
            let mut full = at.to_vec();
            full.push(name.clone());
            Ok(match self.look(&full)? {
                Found::Other(Entry { node, .. }) => node.symlink().map(<[u8]>::to_vec),
                _ => None,
            })
        })
        .map_err(|e| match e {
            TreeError::SymlinkLoop(_) => TreeError::SymlinkLoop(whole()),
            e => e,
        })
    }

    /// Makes the directory and all above it that are not there, with `meta`; in a set-group-id
    /// directory as mkdir(2) does.
    pub fn mkdir_all(&mut self, path: &[FileName], meta: &Meta) -> Result<(), TreeError> {
        if path.len() > limit::TREE_DEPTH_MAX {
            return Err(TreeError::BadPath(show(path), "it is too deep".to_owned()));
        }
        let Self { work, root: at, inherits_group, .. } = self;
        let mut at = at;
        for (depth, name) in path.iter().enumerate() {
            match at.get(name.as_bytes()) {
                Found::Dir => {}
                Found::Other(_) => return Err(TreeError::NotADirectory(show(&path[..=depth]))),
                Found::Nothing => {
                    let mut meta = meta.clone();
                    if at.meta.mode & SET_GID != 0 {
                        meta.mode |= SET_GID;
                        meta.gid = if *inherits_group { at.meta.gid } else { meta.gid };
                    }
                    at.put_dir(name.clone(), meta);
                }
            }
            let next = at.child(work, name.as_bytes())?;
            at = next.ok_or_else(|| TreeError::NotADirectory(show(&path[..=depth])))?;
        }
        Ok(())
    }

    /// Puts an entry into a directory that is there, in place of what has its name.
    pub fn put(&mut self, parent: &[FileName], entry: Entry) -> Result<(), TreeError> {
        let dir = self.dir(parent)?.ok_or_else(|| TreeError::NotADirectory(show(parent)))?;
        dir.put(entry);
        Ok(())
    }

    /// The metadata of a directory that is there, to change; the directory counts as changed.
    pub fn meta_mut(&mut self, path: &[FileName]) -> Result<&mut Meta, TreeError> {
        let dir = self.dir(path)?.ok_or_else(|| TreeError::NotADirectory(show(path)))?;
        dir.touched = true;
        Ok(&mut dir.meta)
    }

    /// The entry's bytes that a path leads to, for small files.
    pub fn read(&mut self, path: &[u8]) -> Result<Option<bytes::Bytes>, TreeError> {
        let at = self.resolve(path)?;
        match self.look(&at)? {
            Found::Other(Entry { node: Node::File { blob, .. }, .. }) => {
                Ok(Some(self.work.nodes.blob(&blob)?))
            }
            _ => Ok(None),
        }
    }

    /// The directory at a path that is there, and what it needs to be changed.
    pub(super) fn open_dir(
        &mut self,
        path: &[FileName],
    ) -> Result<(&mut EditDir, &mut Work<'n>), TreeError> {
        let Self { work, root, .. } = self;
        let mut at = root;
        for name in path {
            let next = at.child(work, name.as_bytes())?;
            at = next.ok_or_else(|| TreeError::NotADirectory(show(path)))?;
        }
        Ok((at, work))
    }

    /// Names the result.
    pub fn finish(self) -> Change {
        let Self { work: Work { made, .. }, root, root_meta, .. } = self;
        let mut sealing = Sealing { made, path: Vec::new(), missed: Missed::default() };
        let (dir, change) = root.seal(&mut sealing);
        let Sealing { mut made, missed, .. } = sealing;
        let whole = Root { meta: root_meta, dir, presence: Presence::Merge };
        let change = made.dir(change.unwrap_or_default());
        // As with a RUN, what happens to `/` itself is no part of the layer, and so does not outlive it.
        let meta = Meta::root_owned(0o755, Mtime::default());
        let diff = Root { meta, dir: change, presence: Presence::Implicit };
        Change { root: made.root(&whole), diff: made.root(&diff), made, missed }
    }
}

/// The result while it is named.
struct Sealing {
    made: Made,
    /// The directory that is being named.
    path: Vec<FileName>,
    missed: Missed,
}

impl Sealing {
    /// An entry as the layer has it; none when it is as it was.
    fn leaf(&mut self, entry: Entry, below: Option<&Entry>) -> Option<Entry> {
        let Some(below) = below else { return Some(entry) };
        match listed::change(&entry, &below.meta, &below.node) {
            Listed::None => None,
            Listed::All => Some(entry),
            Listed::Names(link) => Some(listed::relink(entry.name, link)),
            Listed::Unlisted(what) => {
                if listed::is_lost(&what, &below.node) {
                    let above = self.path.iter().flat_map(|name| [b"/", name.as_bytes()]);
                    let path = above.chain([&b"/"[..], entry.name.as_bytes()]);
                    self.missed.add(path.collect::<Vec<_>>().concat());
                }
                Some(Entry { node: Node::Unlisted(what), ..entry })
            }
        }
    }
}

/// Follows symlinks inside a root. `link` answers the target when the name in that directory is a
/// symlink.
pub(super) fn resolve(
    path: &[u8],
    mut link: impl FnMut(&[FileName], &FileName) -> Result<Option<Vec<u8>>, TreeError>,
) -> Result<Vec<FileName>, TreeError> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let mut parts_left: Vec<Vec<u8>> =
        path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut at: Vec<FileName> = Vec::new();
    let mut followed = 0;
    while let Some(part) = parts_left.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.pop();
                continue;
            }
            _ => {}
        }
        let name = FileName::new(&part).map_err(|e| TreeError::BadPath(shown(), e.to_string()))?;
        let Some(target) = link(&at, &name)? else {
            at.push(name);
            continue;
        };
        followed += 1;
        if followed > limit::SYMLINKS_FOLLOWED_MAX {
            return Err(TreeError::SymlinkLoop(shown()));
        }
        if target.starts_with(b"/") {
            at.clear();
        }
        parts_left.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
    }
    Ok(at)
}
