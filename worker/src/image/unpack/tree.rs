//! The diff tree of an archive while it is being read: every name so far, in memory. No IO but
//! what looking into the layers below needs.

use super::error::BadArchive;
use super::name::{BadName, Mark, components, mark};
use cache::store::StoreError;
use proto::id::BlobId;
use proto::limit;
use proto::path::FileName;
use proto::tree::{Entry, LinkId, Meta, Node, Xattrs};
use std::collections::BTreeMap;

/// The layers below, merged: where a hard link may lead.
pub trait Lower: Sync {
    /// What has this name there.
    fn find(&self, path: &[FileName]) -> Result<Option<Entry>, StoreError>;
}

/// A place in [`Growing::slots`].
pub(super) type SlotId = u32;

/// A tree that grows.
pub(super) struct Growing {
    /// A directory's children stand behind it. What was replaced stays as [`Slot::Gone`].
    pub slots: Vec<Slot>,
    /// How many names each group of hard links has.
    pub groups: Vec<u32>,
    /// The metadata that the last link to a group gave it: names of one file have the same, and both
    /// containerd and Docker change them with each link that they read.
    pub described: BTreeMap<u32, Meta>,
    /// Whether names like `.wh.x` have a meaning.
    pub marks: bool,
    /// Whether any entry depends on the layers below.
    pub depends: bool,
    /// Entries of the archive so far.
    pub entries: u64,
    memory: u64,
}

/// One file or directory.
pub(super) enum Slot {
    Dir(DirSlot),
    Leaf(Leaf),
    Gone,
}

/// A directory.
#[derive(Default)]
pub(super) struct DirSlot {
    /// None when only something in it was named.
    pub meta: Option<Meta>,
    pub opaque: bool,
    pub children: BTreeMap<FileName, Child>,
}

/// What a directory says of a name.
#[derive(Clone, Copy, Default)]
pub(super) struct Child {
    /// What has the name in this archive.
    pub slot: Option<SlotId>,
    /// Whether what the layers below have of this name is taken away.
    pub hides: bool,
}

/// Anything but a directory.
#[derive(Clone)]
pub(super) struct Leaf {
    pub meta: Meta,
    pub node: LeafNode,
    pub group: Option<Group>,
}

/// What a leaf is. [`Node`] has directories too, which take three times the room.
#[derive(Clone)]
pub(super) enum LeafNode {
    File(BlobId, u64),
    Symlink(Box<[u8]>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl LeafNode {
    /// What becomes of a file's metadata by a hard link to it. Of a symlink containerd changes all
    /// but the mode, which it has not; go-archive, which unpacks for ADD, the owner alone.
    fn linked(&self, file: &Meta, link: &Meta, layer: bool) -> Result<Meta, BadArchive> {
        let Meta { uid, gid, mtime, .. } = *link;
        if let Self::Symlink(_) = self {
            let mtime = if layer { mtime } else { file.mtime };
            return Ok(Meta { uid, gid, mtime, ..file.clone() });
        }
        let both = file.xattrs.iter().chain(link.xattrs.iter());
        let xattrs = Xattrs::new(both.map(|(name, value)| (name.to_vec(), value.to_vec())));
        if xattrs.len() > limit::XATTRS_MAX {
            return Err(BadArchive::TooMuch("the extended attributes that one file can have"));
        }
        Ok(Meta { xattrs, ..link.clone() })
    }
}

/// Names of one file.
#[derive(Clone, Copy)]
pub(super) enum Group {
    /// In this archive, by number.
    Own(u32),
    /// One that the layers below have already.
    Below(LinkId),
}

/// Why an entry could not be taken.
pub(super) enum Refused {
    Bad(BadArchive),
    /// It links to this file of the layers below, and they were not given.
    NeedsLower(String),
    Store(StoreError),
}

impl From<BadArchive> for Refused {
    fn from(bad: BadArchive) -> Self {
        Self::Bad(bad)
    }
}

/// What one entry takes in memory, besides its name and attributes.
const ENTRY_MEMORY: u64 = 200;

/// Directories on the way to a place, the root first.
type Way = Vec<SlotId>;

impl Growing {
    pub fn new(marks: bool) -> Self {
        let root = Slot::Dir(DirSlot::default());
        Self {
            slots: vec![root],
            groups: vec![],
            described: BTreeMap::new(),
            marks,
            depends: false,
            entries: 0,
            memory: 0,
        }
    }

    /// Checks a name, and counts it.
    pub fn name(&mut self, path: &[u8]) -> Result<Vec<FileName>, BadArchive> {
        self.count()?;
        let named = |why| BadArchive::Name { path: show(path), why };
        components(path).map_err(named)
    }

    /// Counts an entry.
    pub fn count(&mut self) -> Result<(), BadArchive> {
        self.entries += 1;
        if self.entries > limit::LAYER_ENTRIES_MAX {
            return Err(BadArchive::TooMuch("20 million entries"));
        }
        Ok(())
    }

    /// A tree that grows after this one, of the same archive.
    pub fn next(&self) -> Self {
        Self { entries: self.entries, memory: self.memory, ..Self::new(self.marks) }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        matches!(&self.slots[0], Slot::Dir(dir) if dir.meta.is_none() && dir.children.is_empty())
    }

    /// A directory's own entry, which may stand after what is in it.
    pub fn put_dir_late(&mut self, names: &[FileName], meta: Meta) -> Result<(), BadArchive> {
        let parent = self.parent_of(names)?;
        let old = names.last().and_then(|name| self.child(parent, name).slot);
        if let Some(Slot::Dir(dir)) = old.map(|id| &mut self.slots[id as usize]) {
            dir.opaque |= dir.meta.is_none();
        }
        self.put_dir(names, meta)
    }

    /// A directory's own entry.
    pub fn put_dir(&mut self, names: &[FileName], meta: Meta) -> Result<(), BadArchive> {
        self.charge(&meta)?;
        let Some(name) = names.last() else {
            self.dir_mut(0).meta = Some(meta);
            return Ok(());
        };
        if self.marks && mark(name) != Mark::None {
            // A mark is a mark, whatever kind of file it is.
            return self.put_mark(names);
        }
        let parent = self.parent_of(names)?;
        let old = self.child(parent, name).slot;
        match old.map(|id| (id, &mut self.slots[id as usize])) {
            Some((_, Slot::Dir(dir))) => dir.meta = Some(meta),
            _ => {
                let slot = Slot::Dir(DirSlot { meta: Some(meta), ..DirSlot::default() });
                self.place(parent, name, slot)?;
            }
        }
        Ok(())
    }

    /// A file, link or device. A later entry takes the place of an earlier one.
    pub fn put_leaf(&mut self, names: &[FileName], leaf: Leaf) -> Result<(), BadArchive> {
        let Some(name) = names.last() else {
            let why = BadName::Component(proto::path::NameError::Empty);
            return Err(BadArchive::Name { path: "/".into(), why });
        };
        self.charge(&leaf.meta)?;
        if let LeafNode::Symlink(target) = &leaf.node {
            self.remember(target.len() as u64)?;
        }
        let parent = self.parent_of(names)?;
        self.place(parent, name, Slot::Leaf(leaf)).map(drop)
    }

    /// Whether the name is a mark of a layer, which [`Growing::put_mark`] takes.
    pub fn is_mark(&self, names: &[FileName]) -> bool {
        self.marks && names.last().is_some_and(|name| mark(name) != Mark::None)
    }

    /// A whiteout or an opaque directory's mark. It is about the layers below only, so that it
    /// does not matter what this archive has of the same name, or when.
    pub fn put_mark(&mut self, names: &[FileName]) -> Result<(), BadArchive> {
        let Some(name) = names.last() else { return Ok(()) };
        match mark(name) {
            Mark::None | Mark::Ignored => {}
            Mark::Opaque => {
                let dir = self.parent_of(names)?;
                self.dir_mut(dir).opaque = true;
            }
            Mark::Whiteout(hidden) => {
                let named = |why: proto::path::NameError| BadArchive::Name {
                    path: show_names(names),
                    why: why.into(),
                };
                let hidden = FileName::new(hidden).map_err(named)?;
                let dir = self.parent_of(names)?;
                self.remember(ENTRY_MEMORY + hidden.as_bytes().len() as u64)?;
                self.dir_mut(dir).children.entry(hidden).or_default().hides = true;
            }
        }
        Ok(())
    }

    /// One more name of a file, with the metadata of its own entry.
    pub fn put_link(
        &mut self,
        names: &[FileName],
        target: &[u8],
        meta: &Meta,
        lower: Option<&dyn Lower>,
    ) -> Result<(), Refused> {
        let bad = |why| BadArchive::Link { path: show_names(names), target: show(target), why };
        let targets =
            components(target).map_err(|why| BadArchive::Name { path: show(target), why })?;
        let Some(last) = targets.last() else {
            return Err(bad("is a directory").into());
        };
        let dir = self.walk(&targets, false)?;
        let slot = dir.and_then(|dir| self.child(dir, last).slot);
        let leaf = match slot {
            Some(slot) => self.link_to(slot, meta)?.ok_or_else(|| bad("is a directory"))?,
            None => {
                let mut leaf = self.link_below(&targets, lower, &bad)?;
                self.describe(&mut leaf, meta)?;
                leaf
            }
        };
        Ok(self.put_leaf(names, leaf)?)
    }

    /// One more name of a file of this archive, for a place. None when it is a directory.
    pub fn link_to(&mut self, slot: SlotId, meta: &Meta) -> Result<Option<Leaf>, BadArchive> {
        let Slot::Leaf(leaf) = &mut self.slots[slot as usize] else { return Ok(None) };
        if leaf.group.is_none() {
            self.groups.push(1);
            leaf.group = Some(Group::Own(self.groups.len() as u32 - 1));
        }
        let mut leaf = leaf.clone();
        self.describe(&mut leaf, meta)?;
        Ok(Some(leaf))
    }

    /// Gives all names of a file the metadata of the newest one.
    fn describe(&mut self, leaf: &mut Leaf, newest: &Meta) -> Result<(), BadArchive> {
        self.charge(newest)?;
        match leaf.group {
            Some(Group::Own(group)) => {
                self.groups[group as usize] += 1;
                let before = self.described.get(&group).unwrap_or(&leaf.meta);
                let meta = leaf.node.linked(before, newest, self.marks)?;
                self.described.insert(group, meta);
            }
            // Its other names are in the layers below, and stay as they are.
            Some(Group::Below(_)) => {}
            None => leaf.meta = leaf.node.linked(&leaf.meta, newest, self.marks)?,
        }
        Ok(())
    }

    /// Counts what a hard link takes that is no part of a tree.
    pub fn charge_link(
        &mut self,
        names: &[FileName],
        target: &[u8],
        meta: &Meta,
    ) -> Result<(), BadArchive> {
        let names = names.iter().map(|name| ENTRY_MEMORY + name.as_bytes().len() as u64);
        self.remember(names.sum::<u64>() + target.len() as u64)?;
        self.charge(meta)
    }

    /// The file of the layers below that a link names. When it has only one name so far, that name
    /// joins this layer, so that both can be in one group.
    fn link_below(
        &mut self,
        targets: &[FileName],
        lower: Option<&dyn Lower>,
        bad: &dyn Fn(&'static str) -> BadArchive,
    ) -> Result<Leaf, Refused> {
        let lower = lower.ok_or_else(|| Refused::NeedsLower(show_names(targets)))?;
        let entry = lower.find(targets).map_err(Refused::Store)?;
        let entry = entry.ok_or_else(|| bad("is neither in the layer nor in the ones below"))?;
        self.depends = true;
        let link = entry.node.link();
        let node = match entry.node.with_link(None) {
            Node::File { blob, size, .. } => LeafNode::File(blob, size),
            Node::Symlink(target) => LeafNode::Symlink(target.into()),
            Node::Char(major, minor) => LeafNode::Char(major, minor),
            Node::Block(major, minor) => LeafNode::Block(major, minor),
            Node::Fifo => LeafNode::Fifo,
            _ => return Err(bad("is no file that can have several names").into()),
        };
        let mut leaf = Leaf { meta: entry.meta, node, group: None };
        if let Some(link) = link {
            leaf.group = Some(Group::Below(link));
        } else {
            self.groups.push(1);
            leaf.group = Some(Group::Own(self.groups.len() as u32 - 1));
            self.put_leaf(targets, leaf.clone())?;
        }
        Ok(leaf)
    }

    /// The directory that something with this name lies in. What is missing on the way is made.
    fn parent_of(&mut self, names: &[FileName]) -> Result<SlotId, BadArchive> {
        Ok(self.walk(names, true)?.expect("it was made where it was missing"))
    }

    /// The directory that something with this name lies in. Symlinks of the archive are followed,
    /// inside it, as a container engine follows them on disk.
    fn walk(&mut self, names: &[FileName], make: bool) -> Result<Option<SlotId>, BadArchive> {
        let parents = &names[..names.len() - 1];
        let mut way: Way = vec![0];
        let mut parts: Vec<Vec<u8>> = parents.iter().rev().map(|n| n.as_bytes().to_vec()).collect();
        let mut followed = 0;
        while let Some(part) = parts.pop() {
            let here = *way.last().expect("the root stays");
            let name = match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    way.truncate((way.len() - 1).max(1));
                    continue;
                }
                part => FileName::new(part)
                    .map_err(|why| BadArchive::Name { path: show_names(names), why: why.into() })?,
            };
            if way.len() > limit::TREE_DEPTH_MAX {
                return Err(BadArchive::Name { path: show_names(names), why: BadName::Deep });
            }
            let slot = self.child(here, &name).slot;
            match slot.map(|id| (id, &self.slots[id as usize])) {
                Some((id, Slot::Dir(_))) => way.push(id),
                Some((_, Slot::Leaf(Leaf { node: LeafNode::Symlink(target), .. }))) => {
                    followed += 1;
                    if followed > limit::SYMLINKS_FOLLOWED_MAX {
                        return Err(BadArchive::Loop { path: show_names(names) });
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    parts.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                Some(_) => return Err(BadArchive::BelowFile { path: show_names(names) }),
                None if !make => return Ok(None),
                None => {
                    let slot = Slot::Dir(DirSlot::default());
                    way.push(self.place(here, &name, slot)?);
                }
            }
        }
        Ok(way.pop())
    }

    fn place(&mut self, dir: SlotId, name: &FileName, slot: Slot) -> Result<SlotId, BadArchive> {
        self.remember(ENTRY_MEMORY + name.as_bytes().len() as u64)?;
        let id = SlotId::try_from(self.slots.len()).map_err(|_| BadArchive::TooMuch("entries"))?;
        self.slots.push(slot);
        let parent = self.dir_mut(dir);
        if parent.children.len() >= limit::DIR_ENTRIES_MAX && !parent.children.contains_key(name) {
            return Err(BadArchive::TooMuch("a million entries in one directory"));
        }
        let old = parent.children.entry(name.clone()).or_default().slot.replace(id);
        if let Some(old) = old {
            self.forget(old);
        }
        Ok(id)
    }

    /// Takes something away that was replaced, with all that is in it.
    fn forget(&mut self, slot: SlotId) {
        let mut gone = vec![slot];
        while let Some(slot) = gone.pop() {
            match std::mem::replace(&mut self.slots[slot as usize], Slot::Gone) {
                Slot::Dir(dir) => gone.extend(dir.children.values().filter_map(|c| c.slot)),
                Slot::Leaf(Leaf { group: Some(Group::Own(group)), .. }) => {
                    self.groups[group as usize] -= 1;
                }
                Slot::Leaf(_) | Slot::Gone => {}
            }
        }
    }

    fn child(&self, dir: SlotId, name: &FileName) -> Child {
        match &self.slots[dir as usize] {
            Slot::Dir(dir) => dir.children.get(name).copied().unwrap_or_default(),
            _ => Child::default(),
        }
    }

    fn dir_mut(&mut self, slot: SlotId) -> &mut DirSlot {
        match &mut self.slots[slot as usize] {
            Slot::Dir(dir) => dir,
            _ => unreachable!("only directories are walked into"),
        }
    }

    fn charge(&mut self, meta: &Meta) -> Result<(), BadArchive> {
        let attributes = meta.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len());
        self.remember(attributes.sum::<usize>() as u64)
    }

    fn remember(&mut self, bytes: u64) -> Result<(), BadArchive> {
        self.memory += bytes;
        if self.memory > limit::LAYER_TREE_BYTES_MAX {
            return Err(BadArchive::TooMuch("1 GiB of names and metadata"));
        }
        Ok(())
    }
}

/// A name as messages show it.
pub(super) fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars().take(256).flat_map(char::escape_debug).collect()
}

fn show_names(names: &[FileName]) -> String {
    show(&names.iter().map(FileName::as_bytes).collect::<Vec<_>>().join(&b'/'))
}
