//! Writes to the index, counted.

use super::rocks::{Cf, Index};
use super::value::{Head, Place, SegmentRow, state};
use crate::store::{Persisted, StoreError};
use proto::id::{BlobId, TreeId};
use rocksdb::{WriteBatch, WriteOptions};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::Ordering;

/// A number of things and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    /// How many.
    pub number: i64,
    /// Their bytes in all.
    pub bytes: i64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, more: Self) {
        self.number += more.number;
        self.bytes += more.bytes;
    }
}

impl Count {
    fn one(bytes: u64) -> Self {
        Self { number: 1, bytes: bytes as i64 }
    }

    fn minus(self) -> Self {
        Self { number: -self.number, bytes: -self.bytes }
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let half = |at: usize| bytes[at..at + 8].try_into().ok().map(i64::from_le_bytes);
        Some(Self { number: half(0)?, bytes: half(8)? })
    }
}

/// The merge of two counters; None when either is none.
pub(super) fn add_counters(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut sum = Count::decode(a)?;
    sum += Count::decode(b)?;
    Some(sum.encode().to_vec())
}

/// What is in the store, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// Packed blobs.
    pub packed: Count,
    /// Blobs that are files.
    pub large: Count,
    /// Tree nodes.
    pub trees: Count,
    /// For each segment, the blobs in it.
    pub live: BTreeMap<u32, Count>,
}

impl Totals {
    /// Reads the counters of the index.
    pub fn load(index: &Index) -> Result<Self, rocksdb::Error> {
        let state = index.cf(Cf::State);
        let counter = |key: &[u8]| {
            let value = index.db.get_cf(state, key)?;
            Ok::<_, rocksdb::Error>(value.and_then(|v| Count::decode(&v)).unwrap_or_default())
        };
        let mut totals = Self {
            packed: counter(state::PACKED)?,
            large: counter(state::LARGE)?,
            trees: counter(state::TREES)?,
            live: BTreeMap::new(),
        };
        for item in index.db.prefix_iterator_cf(state, state::LIVE) {
            let (key, value) = item?;
            let Some(rest) = key.strip_prefix(state::LIVE) else {
                break;
            };
            if let (Some(segment), Some(count)) = (state::number(rest), Count::decode(&value)) {
                totals.live.insert(segment, count);
            }
        }
        Ok(totals)
    }

    pub fn add(&mut self, more: &Totals) {
        self.packed += more.packed;
        self.large += more.large;
        self.trees += more.trees;
        for (segment, count) in &more.live {
            *self.live.entry(*segment).or_default() += *count;
        }
    }

    pub fn count_blob(&mut self, place: &Place, sign: Sign) {
        let one = sign.of(Count::one(place.size()));
        match place {
            Place::Packed(span) => {
                self.packed += one;
                *self.live.entry(span.segment).or_default() += one;
            }
            Place::File { .. } => self.large += one,
        }
    }

    pub fn count_tree(&mut self, head: &Head, sign: Sign) {
        self.trees += sign.of(Count::one(head.len.into()));
    }
}

/// Comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    fn of(self, count: Count) -> Count {
        match self {
            Sign::Plus => count,
            Sign::Minus => count.minus(),
        }
    }
}

/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// It outlives the process, not the power.
    No,
    /// With it, all writes before it outlive the power.
    Yes,
}

/// Writes that happen together or not at all.
pub(super) struct Batch<'a> {
    index: &'a Index,
    ops: WriteBatch,
    delta: Totals,
}

impl Index {
    pub fn batch(&self) -> Batch<'_> {
        Batch { index: self, ops: WriteBatch::default(), delta: Totals::default() }
    }
}

impl Batch<'_> {
    pub fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.ops.put_cf(self.index.cf(cf), key, value);
    }

    pub fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.ops.delete_cf(self.index.cf(cf), key);
    }

    /// Adds a blob that is not there.
    pub fn put_blob(&mut self, id: &BlobId, place: &Place) {
        self.delta.count_blob(place, Sign::Plus);
        self.put(Cf::Blob, id.as_bytes(), &place.to_bytes());
    }

    /// Takes away a blob that is at `place`.
    pub fn delete_blob(&mut self, id: &BlobId, place: &Place) {
        self.delta.count_blob(place, Sign::Minus);
        self.delete(Cf::Blob, id.as_bytes());
    }

    /// Changes where a blob is.
    pub fn move_blob(&mut self, id: &BlobId, from: &Place, to: &Place) {
        self.delta.count_blob(from, Sign::Minus);
        self.put_blob(id, to);
    }

    /// Adds a tree that is not there, with its encoding unless that is a blob.
    pub fn put_tree(&mut self, id: &TreeId, head: &Head, bytes: Option<&[u8]>) {
        self.delta.count_tree(head, Sign::Plus);
        if let Some(bytes) = bytes {
            self.put(Cf::Node, id.as_bytes(), bytes);
        }
        self.put(Cf::Tree, id.as_bytes(), &head.to_bytes());
    }

    /// Takes away a tree that is there.
    pub fn delete_tree(&mut self, id: &TreeId, head: &Head) {
        self.delta.count_tree(head, Sign::Minus);
        self.delete(Cf::Node, id.as_bytes());
        self.delete(Cf::Tree, id.as_bytes());
    }

    /// Takes away a tree of which nothing can be read, so that it can't be counted.
    pub fn delete_bad_tree(&mut self, id: &TreeId) {
        self.delete(Cf::Node, id.as_bytes());
        self.delete(Cf::Tree, id.as_bytes());
    }

    pub fn put_segment(&mut self, id: u32, row: SegmentRow) {
        self.put(Cf::State, &state::segment(id), &row.to_bytes());
    }

    /// Takes away a segment in which no blob is.
    pub fn delete_segment(&mut self, id: u32) {
        self.delete(Cf::State, &state::segment(id));
        self.delete(Cf::State, &state::live(id));
    }

    /// Puts other counters in the place of all that are there.
    pub fn set_counters(&mut self, totals: &Totals) {
        let now = super::lock(&self.index.totals).clone();
        for id in now.live.keys().filter(|id| !totals.live.contains_key(id)) {
            self.delete(Cf::State, &state::live(*id));
        }
        let fixed = [
            (state::PACKED, totals.packed),
            (state::LARGE, totals.large),
            (state::TREES, totals.trees),
        ];
        for (key, count) in fixed {
            self.put(Cf::State, key, &count.encode());
        }
        for (id, count) in &totals.live {
            self.put(Cf::State, &state::live(*id), &count.encode());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Writes, and counts.
    pub fn commit(mut self, sync: Sync) -> Result<(), StoreError> {
        let state = self.index.cf(Cf::State);
        let mut merge = |key: &[u8], count: Count| {
            if count != Count::default() {
                self.ops.merge_cf(state, key, count.encode());
            }
        };
        merge(state::PACKED, self.delta.packed);
        merge(state::LARGE, self.delta.large);
        merge(state::TREES, self.delta.trees);
        for (segment, count) in &self.delta.live {
            merge(&state::live(*segment), *count);
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Yes);
        self.index.db.write_opt(self.ops, &options).map_err(|e| self.index.error(e))?;
        if sync == Sync::No {
            self.index.writes.fetch_add(1, Ordering::SeqCst);
        }
        super::lock(&self.index.totals).add(&self.delta);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up() {
        let a = Count { number: 3, bytes: 300 };
        let b = Count { number: -1, bytes: -50 };
        let sum = add_counters(&a.encode(), &b.encode()).unwrap();
        assert_eq!(Count::decode(&sum), Some(Count { number: 2, bytes: 250 }));
        assert_eq!(add_counters(&a.encode(), b"short"), None);
    }
}
