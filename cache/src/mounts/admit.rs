//! What of a step's tree enters a generation.
//!
//! All of it, but for a few things that a cache which others read must not hold. They are told
//! ([`Refused`]), so that nobody looks for them in vain:
//!
//! * devices and sockets;
//! * the set-id bits and capabilities of files (the files stay, without them; set-group-id on a
//!   directory says who owns what is made in it, and stays too);
//! * files of logins ([`super::secrets`]).
//!
//! And changes to what the rules skip ([`super::Action::Skip`]) do not count: such a path is in a
//! generation as it was in the one that the step began with, or it is not in it. A directory in
//! which nothing else happened keeps its time, so that a lock that came and went is no change.
//!
//! Owners are kept as they are. Names of one inode get a group that is named by what the file is
//! ([`group`]), so that in trees of two writers one group is always one file.
//!
//! Only what differs from the base is visited.

use super::policy::Action;
use super::rules::{Here, Rules};
use super::told::{Path, Told};
use super::walk::{Loaded, Names, merged_root};
use crate::tree::mode::{SET_GID, SET_UID};
use crate::tree::{Made, Nodes, TreeError};
use proto::id::RootId;
use proto::tree::{CAPABILITY, Dir, DirRef, Entry, LinkId, Meta, Node, Presence, Root, Xattrs};

/// A tree that may become a generation.
#[derive(Debug)]
pub struct Admitted {
    /// The tree.
    pub tree: RootId,
    /// The nodes that are new, children first.
    pub made: Made,
    /// What did not enter.
    pub refused: Told<Refused>,
}

/// Something of a step's tree that did not enter a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where, from the mount's top on.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// Why something does not enter a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Why {
    /// The file is kept without these bits or capabilities.
    #[error("a cache gives nobody another's rights: kept without set-id bits and capabilities")]
    Privileged,
    /// A device.
    #[error("a cache holds no devices")]
    Device,
    /// A socket.
    #[error("a cache holds no sockets: nobody listens at them any more")]
    Socket,
    /// A name of [`super::secrets`].
    #[error("files of this name hold logins; give them to the step by `--mount=type=secret`")]
    Secret,
}

/// What of `mine` may become a generation, when the step began with `base` (`None`: with nothing).
/// Admitting again what was admitted changes nothing.
pub fn admit(
    nodes: &dyn Nodes,
    rules: &Rules,
    base: Option<&RootId>,
    mine: &RootId,
) -> Result<Admitted, TreeError> {
    if base == Some(mine) {
        return Ok(Admitted { tree: *mine, made: Made::default(), refused: Told::default() });
    }
    let base = base.map(|id| merged_root(nodes, id)).transpose()?;
    let mine = merged_root(nodes, mine)?;
    let mut work = Work { nodes, rules, made: Made::default(), refused: Told::default() };
    let mut path = Path::default();
    let below = base.as_ref().map(|base| &base.dir);
    let start = rules.paths.start();
    let (dir, skipped) = work.dir(&start, &mut path, below, &mine.dir)?;
    let mut meta = mine.meta;
    work.strip_dir(&path, &mut meta);
    if let Some(base) = base.filter(|b| skipped && is_untouched(b, (&meta, &dir))) {
        meta = base.meta;
    }
    let tree = work.made.root(&Root { meta, dir, presence: Presence::Merge });
    Ok(Admitted { tree, made: work.made, refused: work.refused })
}

/// The group of the names of one file: the same for the same file, whoever linked it, and another
/// for any other file.
pub fn group(meta: &Meta, node: &Node) -> Option<LinkId> {
    let Node::File { blob, size, link: Some(_) } = node else { return None };
    let numbers = [
        &size.to_le_bytes()[..],
        &meta.mode.to_le_bytes(),
        &meta.uid.to_le_bytes(),
        &meta.gid.to_le_bytes(),
        &meta.mtime.seconds.to_le_bytes(),
        &meta.mtime.nanos.to_le_bytes(),
    ];
    let mut parts = vec![&b"cache mount"[..], blob.as_bytes()];
    parts.extend(numbers);
    parts.extend(meta.xattrs.iter().flat_map(|(name, value)| [name, value]));
    Some(LinkId::of(&parts))
}

/// Whether nothing but a directory's time differs from what it was.
fn is_untouched(base: &Root, (meta, dir): (&Meta, &DirRef)) -> bool {
    base.dir == *dir && Meta { mtime: base.meta.mtime, ..meta.clone() } == base.meta
}

struct Work<'a> {
    nodes: &'a dyn Nodes,
    rules: &'a Rules,
    made: Made,
    refused: Told<Refused>,
}

impl Work<'_> {
    /// What of a directory's entries enters; and whether something in it was left as it was.
    fn dir(
        &mut self,
        here: &Here,
        path: &mut Path,
        base: Option<&DirRef>,
        mine: &DirRef,
    ) -> Result<(DirRef, bool), TreeError> {
        if base == Some(mine) {
            return Ok((*mine, false));
        }
        let [old, new] = [base, Some(mine)].map(|dir| Loaded::read(self.nodes, dir));
        let (old, new) = (old?, new?);
        let (mut entries, mut skipped) = (Vec::new(), false);
        for [old, new] in Names::new([old.entries(), new.entries()]) {
            let kept = match new {
                Some(new) if old != Some(new) => {
                    path.push(&new.name);
                    let kept = self.entry(here, path, old, new)?;
                    path.pop();
                    kept
                }
                Some(new) => Some(new.clone()),
                None => match old {
                    Some(old) if self.is_skipped(here, old)? => Some(old.clone()),
                    _ => None,
                },
            };
            skipped |= kept.as_ref() == old && old != new;
            entries.extend(kept);
        }
        let dir = if entries == new.entries() { *mine } else { self.made.dir(Dir::new(entries)) };
        Ok((dir, skipped))
    }

    fn is_skipped(&self, here: &Here, entry: &Entry) -> Result<bool, TreeError> {
        let (paths, name) = (&self.rules.paths, entry.name.as_bytes());
        let action = match entry.node {
            Node::Dir(..) => paths.action_on(&paths.enter(here, name)?),
            _ => paths.action(here, name),
        };
        Ok(action == Some(Action::Skip))
    }

    /// What a name that was changed stands for in the generation.
    fn entry(
        &mut self,
        here: &Here,
        path: &mut Path,
        old: Option<&Entry>,
        new: &Entry,
    ) -> Result<Option<Entry>, TreeError> {
        if self.is_skipped(here, new)? {
            return Ok(old.cloned());
        }
        let why = match &new.node {
            Node::Linked(_, what) => {
                let new = Entry { node: what.clone().alone(), ..new.clone() };
                return self.entry(here, path, old, &new);
            }
            Node::Dir(dir, _) => return self.subdir(here, path, old, new, dir).map(Some),
            Node::Char(..) | Node::Block(..) => Why::Device,
            Node::Socket => Why::Socket,
            Node::File { .. } if self.rules.paths.is_secret(here, new.name.as_bytes()) => {
                Why::Secret
            }
            _ => return Ok(Some(self.leaf(path, new))),
        };
        self.refuse(path, why);
        Ok(old.cloned())
    }

    fn subdir(
        &mut self,
        here: &Here,
        path: &mut Path,
        old: Option<&Entry>,
        new: &Entry,
        dir: &DirRef,
    ) -> Result<Entry, TreeError> {
        let here = self.rules.paths.enter(here, new.name.as_bytes())?;
        let below = old.and_then(Entry::as_dir);
        let (dir, skipped) = self.dir(&here, path, below, dir)?;
        let mut meta = new.meta.clone();
        self.strip_dir(path, &mut meta);
        if let (true, Some(old), Some(below)) = (skipped, old, below) {
            let base = Root { meta: old.meta.clone(), dir: *below, presence: Presence::Merge };
            if is_untouched(&base, (&meta, &dir)) {
                return Ok(old.clone());
            }
        }
        Ok(Entry { name: new.name.clone(), meta, node: Node::Dir(dir, Presence::Merge) })
    }

    fn leaf(&mut self, path: &Path, new: &Entry) -> Entry {
        let mut entry = new.clone();
        if let Node::File { .. } = entry.node {
            let has = entry.meta.xattrs.iter().any(|(name, _)| name == CAPABILITY);
            if has || entry.meta.mode & (SET_UID | SET_GID) != 0 {
                entry.meta.mode &= !(SET_UID | SET_GID);
                let rest = entry.meta.xattrs.iter().filter(|(name, _)| *name != CAPABILITY);
                entry.meta.xattrs = Xattrs::new(rest.map(|(k, v)| (k.to_vec(), v.to_vec())));
                self.refuse(path, Why::Privileged);
            }
        }
        let named = group(&entry.meta, &entry.node);
        entry.node = entry.node.with_link(named);
        entry
    }

    fn strip_dir(&mut self, path: &Path, meta: &mut Meta) {
        if meta.mode & SET_UID != 0 {
            meta.mode &= !SET_UID;
            self.refuse(path, Why::Privileged);
        }
    }

    fn refuse(&mut self, path: &Path, why: Why) {
        self.refused.tell(|| Refused { path: path.to_string(), why });
    }
}
