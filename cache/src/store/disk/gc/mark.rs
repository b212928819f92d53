//! Marking what stays.

use super::Budget;
use super::plan::{self, Candidate, Rank};
use crate::store::disk::Inner;
use crate::store::disk::rocks::Cf;
use crate::store::disk::touch::{Collecting, blob_prefix};
use crate::store::disk::uses::Uses;
use crate::store::disk::value::key;
use crate::store::meta::mount_number;
use crate::store::{Persisted, StoreError, Table};
use proto::id::{BlobId, Millis, TreeId};
use proto::record::Record;
use proto::tree::{AnyNode, node_id};
use std::collections::{HashMap, HashSet};

/// Bytes that each blob or node costs beside its own, about.
const OVERHEAD: u64 = 128;

/// What is marked.
pub(in crate::store::disk) struct Marker<'a> {
    inner: &'a Inner,
    trees: HashSet<TreeId>,
    /// By [`blob_prefix`]: two blobs with one prefix are both kept.
    blobs: HashSet<u64>,
    /// Bytes of all of them.
    pub bytes: u64,
    broken: Vec<TreeId>,
}

/// What something keeps alive.
#[derive(Debug, Default)]
struct Things {
    blobs: Vec<BlobId>,
    trees: Vec<TreeId>,
}

/// What came of marking something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marked {
    Yes,
    /// It is larger than the room that was left. Nothing of it is marked.
    NoRoom,
    /// It is not whole. Nothing of it is marked.
    Broken,
}

/// What was marked for one candidate, to be undone if the whole of it does not fit.
#[derive(Default)]
struct Undo {
    blobs: Vec<u64>,
    trees: Vec<TreeId>,
    bytes: u64,
}

/// What is kept of records and rows, and what goes.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Keys of records and rows that go.
    pub dropped: Vec<Vec<u8>>,
    /// Those of them that were whole, and had to go all the same.
    pub evicted: HashSet<Vec<u8>>,
}

impl<'a> Marker<'a> {
    pub fn new(inner: &'a Inner) -> Self {
        let (trees, blobs, broken) = Default::default();
        Self { inner, trees, blobs, bytes: 0, broken }
    }

    pub fn has_tree(&self, id: &TreeId) -> bool {
        self.trees.contains(id)
    }

    pub fn has_blob(&self, id: &BlobId) -> bool {
        self.blobs.contains(&blob_prefix(id))
    }

    /// Trees that were found damaged.
    pub fn take_broken(&mut self) -> Vec<TreeId> {
        std::mem::take(&mut self.broken)
    }

    /// Marks all that stays, and says which records and rows go.
    pub(super) fn choose(
        &mut self,
        collecting: &Collecting<'_>,
        budget: Budget,
    ) -> Result<Choice, StoreError> {
        let mut kept_rows = self.mark_images()?;
        self.mark_trees(collecting.trees())?;
        let mut candidates = self.candidates(collecting)?;
        plan::sort(&mut candidates);
        let now = (self.inner.hooks().now)();
        let unused_for = budget.unused_for.map(|time| time.as_millis() as u64);
        let mut choice = Choice::default();
        for candidate in candidates {
            if kept_rows.remove(&candidate.key) {
                continue;
            }
            let room = match candidate.rank {
                Rank::Pinned => u64::MAX,
                Rank::CacheMount | Rank::Other | Rank::Earlier => budget.bytes,
            };
            let marked = match plan::is_old(&candidate, now, unused_for) {
                true => Marked::NoRoom,
                false => {
                    let things = self.things(&candidate.key)?;
                    self.mark(things, room)?
                }
            };
            if marked == Marked::NoRoom {
                choice.evicted.insert(candidate.key.clone());
            }
            if marked != Marked::Yes {
                choice.dropped.push(candidate.key);
            }
        }
        Ok(choice)
    }

    /// Marks what images keep; answers the rows of [`Table::OciBlob`] among it.
    pub fn mark_images(&mut self) -> Result<HashSet<Vec<u8>>, StoreError> {
        let mut kept = HashSet::new();
        for (row, value) in self.inner.table(key::ROW)? {
            let Some((Table::Image, own)) = key::row_of(&row) else {
                continue;
            };
            let Ok(names) = Table::Image.names(own, &value) else {
                continue;
            };
            // What of an image is damaged does not take the rest along.
            self.mark_trees(names.trees)?;
            let blobs = names.blobs.into_iter().map(|(blob, _)| blob).collect();
            self.mark(Things { blobs, trees: Vec::new() }, u64::MAX)?;
            for layer in names.layers {
                let row = key::row(Table::OciBlob, layer.as_bytes());
                let things = self.things(&row)?;
                if self.mark(things, u64::MAX)? == Marked::Yes {
                    kept.insert(row);
                }
            }
        }
        Ok(kept)
    }

    /// Marks trees that are there, each for itself.
    pub fn mark_trees(&mut self, ids: impl IntoIterator<Item = TreeId>) -> Result<(), StoreError> {
        for id in ids {
            self.mark(Things { blobs: Vec::new(), trees: vec![id] }, u64::MAX)?;
        }
        Ok(())
    }

    /// All records and rows that are collected by last use.
    fn candidates(&self, collecting: &Collecting<'_>) -> Result<Vec<Candidate>, StoreError> {
        let uses = Uses::load(&self.inner.index)?;
        let mut candidates = Vec::new();
        for kind in [key::RECORD, key::ROW] {
            let keys: Vec<Vec<u8>> = self.inner.table(kind)?.into_keys().collect();
            let heads = heads(&keys);
            for key in keys {
                let rank = match key::row_of(&key) {
                    Some((Table::Image | Table::Build, _)) => continue,
                    _ if collecting.has_key(&key) => Rank::Pinned,
                    Some((Table::CacheMount, own)) => match heads.contains(own) {
                        true => Rank::CacheMount,
                        false => Rank::Earlier,
                    },
                    _ => Rank::Other,
                };
                let used = uses.get(&key).copied().unwrap_or(Millis(0));
                candidates.push(Candidate { key, rank, used });
            }
        }
        Ok(candidates)
    }

    /// What a record or row keeps. One that can't be read, or is gone, keeps what can't be marked.
    fn things(&self, key: &[u8]) -> Result<Option<Things>, StoreError> {
        let Some(value) = self.inner.index.get(Cf::Table, key)? else {
            return Ok(None);
        };
        if let Some((table, own)) = key::row_of(key) {
            return Ok(table.names(own, &value).ok().map(|names| Things {
                blobs: names.blobs.into_iter().map(|(blob, _)| blob).collect(),
                trees: names.trees,
            }));
        }
        let Some(record) = Record::from_bytes(&value) else {
            return Ok(None);
        };
        // A record without its log is still good.
        let log = match record.log {
            Some(log) if self.inner.known_sizes(&[log])?[0].is_some() => Some(log),
            _ => None,
        };
        let trees = record.layers.iter().map(|layer| layer.0).collect();
        Ok(Some(Things { blobs: log.into_iter().collect(), trees }))
    }

    /// Marks things and all below them, if the whole of it is here and fits in `room` bytes along
    /// with all that is marked already.
    fn mark(&mut self, things: impl Into<Option<Things>>, room: u64) -> Result<Marked, StoreError> {
        let Some(things) = things.into() else {
            return Ok(Marked::Broken);
        };
        let mut undo = Undo { bytes: self.bytes, ..Undo::default() };
        let marked = self.mark_all(things, room, &mut undo)?;
        if marked != Marked::Yes {
            undo.blobs.iter().for_each(|blob| {
                self.blobs.remove(blob);
            });
            undo.trees.iter().for_each(|tree| {
                self.trees.remove(tree);
            });
            self.bytes = undo.bytes;
        }
        Ok(marked)
    }

    fn mark_all(
        &mut self,
        things: Things,
        room: u64,
        undo: &mut Undo,
    ) -> Result<Marked, StoreError> {
        for blob in things.blobs {
            let here = self.inner.index.blob(&blob)?.map(|place| place.size());
            match here {
                Some(size) => self.mark_blob(&blob, size, undo),
                None if self.inner.elsewhere(&[blob])?[0].is_some() => {
                    self.mark_elsewhere(&blob, undo);
                }
                None => return Ok(Marked::Broken),
            }
        }
        let mut stack = things.trees;
        while let Some(id) = stack.pop() {
            if self.bytes > room {
                return Ok(Marked::NoRoom);
            }
            if !self.trees.insert(id) {
                continue;
            }
            undo.trees.push(id);
            let Some(node) = self.read_node(&id, undo)? else {
                return Ok(Marked::Broken);
            };
            self.mark_blobs(node.blobs(), undo)?;
            stack.extend(node.dirs().iter().map(|dir| dir.tree));
        }
        Ok(if self.bytes > room { Marked::NoRoom } else { Marked::Yes })
    }

    /// Marks the blobs of a node. In a farm those that are elsewhere take no room here.
    fn mark_blobs(&mut self, blobs: Vec<(BlobId, u64)>, undo: &mut Undo) -> Result<(), StoreError> {
        if !self.inner.farm.is_joined() {
            blobs.iter().for_each(|(blob, size)| self.mark_blob(blob, *size, undo));
            return Ok(());
        }
        let ids: Vec<BlobId> = blobs.iter().map(|(blob, _)| *blob).collect();
        for (id, place) in ids.iter().zip(self.inner.index.blobs(&ids)?) {
            match place {
                Some(place) => self.mark_blob(id, place.size(), undo),
                None => self.mark_elsewhere(id, undo),
            }
        }
        Ok(())
    }

    fn mark_elsewhere(&mut self, id: &BlobId, undo: &mut Undo) {
        let prefix = blob_prefix(id);
        if self.blobs.insert(prefix) {
            undo.blobs.push(prefix);
        }
    }

    fn mark_blob(&mut self, id: &BlobId, size: u64, undo: &mut Undo) {
        let prefix = blob_prefix(id);
        if self.blobs.insert(prefix) {
            undo.blobs.push(prefix);
            self.bytes = self.bytes.saturating_add(size + OVERHEAD);
        }
    }

    /// A tree's node, past the cache of those in use.
    fn read_node(&mut self, id: &TreeId, undo: &mut Undo) -> Result<Option<AnyNode>, StoreError> {
        let Some(head) = self.inner.index.head(id)? else {
            return Ok(None);
        };
        let bytes = match head.blob {
            None => self.inner.index.node(id)?,
            Some(blob) => {
                self.mark_blob(&blob, head.len.into(), undo);
                self.inner.read_quietly(&blob)?
            }
        };
        self.bytes = self.bytes.saturating_add(u64::from(head.len) + OVERHEAD);
        let right = bytes.filter(|bytes| node_id(bytes) == *id);
        let node = right.and_then(|bytes| AnyNode::decode(&bytes).ok());
        if node.is_none() {
            self.broken.push(*id);
        }
        Ok(node)
    }
}

/// The keys of the newest generation of each cache mount.
fn heads(keys: &[Vec<u8>]) -> HashSet<Vec<u8>> {
    let mut heads: HashMap<&[u8], (u64, &[u8])> = HashMap::new();
    for key in keys {
        let Some((Table::CacheMount, own)) = key::row_of(key) else { continue };
        let (mount, number) = mount_number(own);
        let head = heads.entry(mount).or_insert((number, own));
        if number > head.0 {
            *head = (number, own);
        }
    }
    heads.into_values().map(|(_, own)| own.to_vec()).collect()
}
