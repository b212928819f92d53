//! An archive that ADD unpacks, as the parts that it comes to ([`cache::tree::parts`]).

use super::error::BadArchive;
use super::name::{BadName, below};
use super::tree::{Growing, Leaf, LeafNode, Slot, SlotId, show};
use cache::tree::parts::HardLink;
use proto::limit;
use proto::path::FileName;
use proto::tree::Meta;

/// The parts so far.
pub(super) struct Parts {
    done: Vec<Part>,
    /// The tree that grows.
    now: Growing,
}

/// One part.
pub(super) enum Part {
    Tree(Growing),
    Link(HardLink),
}

/// What an entry's name leads to.
enum Place {
    /// To the destination itself. BuildKit takes nothing of an entry named `.`.
    Base {
        dot: bool,
    },
    Below(Vec<FileName>),
}

impl Parts {
    pub fn new() -> Self {
        Self { done: Vec::new(), now: Growing::new(false) }
    }

    /// Entries of the archive so far.
    pub fn entries(&self) -> u64 {
        self.now.entries
    }

    /// The parts, in order.
    pub fn finish(mut self) -> Vec<Part> {
        if self.done.is_empty() || !self.now.is_empty() {
            self.done.push(Part::Tree(self.now));
        }
        self.done
    }

    /// A directory's own entry.
    pub fn put_dir(&mut self, path: &[u8], meta: Meta) -> Result<(), BadArchive> {
        let names = match self.place(path)? {
            Place::Base { dot: true } => return Ok(()),
            Place::Base { dot: false } => return self.now.put_dir(&[], meta),
            Place::Below(names) => names,
        };
        if !self.is_plain(&names) || matches!(self.slot(&names), Some((_, Slot::Leaf(_)))) {
            self.cut()?;
        }
        self.now.put_dir_late(&names, meta)
    }

    /// A file, symlink or device. `leaf` reads it, unless nothing becomes of it.
    pub fn put_leaf<E: From<BadArchive>>(
        &mut self,
        path: &[u8],
        leaf: impl FnOnce() -> Result<Leaf, E>,
    ) -> Result<(), E> {
        let Some(names) = self.file_place(path)? else { return Ok(()) };
        let mut leaf = leaf()?;
        if let LeafNode::Symlink(_) = leaf.node {
            // So file systems have it, whatever the archive says.
            leaf.meta.mode = 0o777;
        }
        if !self.is_free(&names) {
            self.cut()?;
        }
        Ok(self.now.put_leaf(&names, leaf)?)
    }

    /// A hard link.
    pub fn put_link(&mut self, path: &[u8], target: &[u8], meta: Meta) -> Result<(), BadArchive> {
        let Some(names) = self.file_place(path)? else { return Ok(()) };
        let bad = |why| BadArchive::Link { path: show(path), target: show(target), why };
        let targets = below(target).map_err(|why| BadArchive::Name { path: show(target), why })?;
        if targets.is_empty() {
            return Err(bad("is a directory"));
        }
        if targets.starts_with(&names) {
            return Err(bad("it takes the place of"));
        }
        let slot = match self.is_free(&names) && self.is_plain(&targets) {
            true => self.slot(&targets),
            false => None,
        };
        if let Some((slot, Slot::Leaf(_))) = slot {
            let leaf = self.now.link_to(slot, &meta)?.ok_or_else(|| bad("is a directory"))?;
            return self.now.put_leaf(&names, leaf);
        }
        if target.len() > limit::LINK_TARGET_BYTES_MAX {
            return Err(bad("is longer than a path can be"));
        }
        self.cut()?;
        self.now.charge_link(&names, target, &meta)?;
        self.push(Part::Link(HardLink { names, meta, target: target.to_vec() }))
    }

    /// Begins a new part: what comes next depends on what came so far.
    fn cut(&mut self) -> Result<(), BadArchive> {
        if self.now.is_empty() {
            return Ok(());
        }
        let next = self.now.next();
        let now = std::mem::replace(&mut self.now, next);
        self.push(Part::Tree(now))
    }

    fn push(&mut self, part: Part) -> Result<(), BadArchive> {
        if self.done.len() + 1 >= limit::DIR_ENTRIES_MAX {
            return Err(BadArchive::TooMuch("a million entries that depend on others of it"));
        }
        self.done.push(part);
        Ok(())
    }

    fn place(&mut self, path: &[u8]) -> Result<Place, BadArchive> {
        self.now.count()?;
        let names = below(path).map_err(|why| BadArchive::Name { path: show(path), why })?;
        if !names.is_empty() {
            return Ok(Place::Below(names));
        }
        // `/` and `..` are the destination too, and count.
        let mut depth = 0i64;
        let up = path.split(|b| *b == b'/').any(|part| {
            depth += match part {
                b"" | b"." => 0,
                b".." => -1,
                _ => 1,
            };
            depth < 0
        });
        Ok(Place::Base { dot: !path.starts_with(b"/") && !up })
    }

    /// Where something goes that is no directory. None when nothing becomes of it.
    fn file_place(&mut self, path: &[u8]) -> Result<Option<Vec<FileName>>, BadArchive> {
        match self.place(path)? {
            Place::Below(names) => Ok(Some(names)),
            Place::Base { dot: true } => Ok(None),
            Place::Base { dot: false } => {
                Err(BadArchive::Name { path: show(path), why: BadName::Destination })
            }
        }
    }

    /// Whether a file can be put there without a new part.
    fn is_free(&self, names: &[FileName]) -> bool {
        self.is_plain(names) && !matches!(self.slot(names), Some((_, Slot::Dir(_))))
    }

    /// Whether all directories above are directories of this part, to which nothing happened since
    /// something was put into them.
    fn is_plain(&self, names: &[FileName]) -> bool {
        let mut at = Some(0);
        for name in &names[..names.len().saturating_sub(1)] {
            let Some(id) = at else { return true };
            at = match &self.now.slots[id as usize] {
                Slot::Dir(dir) if !dir.opaque => {
                    dir.children.get(name).and_then(|child| child.slot)
                }
                _ => return false,
            };
        }
        at.is_none_or(|id| match &self.now.slots[id as usize] {
            Slot::Dir(dir) => !dir.opaque,
            _ => false,
        })
    }

    /// What has the name in this part.
    fn slot(&self, names: &[FileName]) -> Option<(SlotId, &Slot)> {
        let mut id = 0;
        for name in names {
            let Slot::Dir(dir) = &self.now.slots[id as usize] else { return None };
            id = dir.children.get(name)?.slot?;
        }
        Some((id, &self.now.slots[id as usize]))
    }
}
