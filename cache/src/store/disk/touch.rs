//! What was used since when, as far as collection has to know.
//!
//! Time is a count of pins taken. A thing is protected when it was touched at or after the time of
//! the oldest pin that lives; a running collection counts as a pin. While neither lives nothing is
//! noted, so that a store that nobody pins costs no memory.
//!
//! Blobs are noted by eight bytes of their hash: who makes two collide only keeps one too many.

use super::lock;
use proto::id::{BlobId, TreeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SHARDS: usize = 16;

/// Notes in one map above which those that no pin needs are dropped.
const NOTES: usize = 1 << 14;

/// A count of pins taken.
type Epoch = u32;

/// The notes.
#[derive(Default)]
pub(super) struct Touches {
    pins: Arc<Pins>,
    blobs: [Mutex<Notes<u64>>; SHARDS],
    trees: Mutex<Notes<TreeId>>,
    keys: Mutex<Notes<Vec<u8>>>,
    /// Trees touched since a collection asked last. None while none runs.
    fresh: Mutex<Option<HashSet<TreeId>>>,
}

/// When things were touched last.
struct Notes<K> {
    map: HashMap<K, Epoch>,
    purge_at: usize,
}

impl<K> Default for Notes<K> {
    fn default() -> Self {
        Self { map: HashMap::new(), purge_at: NOTES }
    }
}

impl<K: Hash + Eq> Notes<K> {
    fn note(&mut self, key: K, now: Epoch, oldest: impl FnOnce() -> Epoch) {
        self.map.insert(key, now);
        if self.map.len() > self.purge_at {
            let oldest = oldest();
            self.map.retain(|_, epoch| *epoch >= oldest);
            self.purge_at = NOTES.max(2 * self.map.len());
        }
    }
}

#[derive(Default)]
struct Pins {
    live: AtomicUsize,
    table: Mutex<Table>,
    released: AtomicUsize,
}

#[derive(Default)]
struct Table {
    epoch: Epoch,
    pins: BTreeMap<Epoch, usize>,
}

/// Keeps what is touched as long as it lives.
pub(super) struct PinGuard {
    pins: Arc<Pins>,
    epoch: Epoch,
    holder: Holder,
}

/// Who holds a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Caller,
    Collection,
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let mut table = lock(&self.pins.table);
        if let Some(count) = table.pins.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                table.pins.remove(&self.epoch);
            }
        }
        self.pins.live.fetch_sub(1, Ordering::SeqCst);
        if self.holder == Holder::Caller {
            self.pins.released.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn prefix(id: &[u8; 32]) -> u64 {
    u64::from_le_bytes(id[..8].try_into().expect("eight of 32 bytes"))
}

/// The part of a blob's id that notes and marks are kept by.
pub(super) fn blob_prefix(id: &BlobId) -> u64 {
    prefix(id.as_bytes())
}

impl Touches {
    /// Takes a pin.
    pub fn pin(&self) -> PinGuard {
        self.pin_for(Holder::Caller)
    }

    fn pin_for(&self, holder: Holder) -> PinGuard {
        let mut table = lock(&self.pins.table);
        if table.pins.is_empty() {
            self.forget();
        }
        table.epoch += 1;
        let epoch = table.epoch;
        *table.pins.entry(epoch).or_default() += 1;
        self.pins.live.fetch_add(1, Ordering::SeqCst);
        PinGuard { pins: self.pins.clone(), epoch, holder }
    }

    /// How many pins callers gave back so far: so that a collection that could free nothing is not
    /// tried again before one was.
    pub fn released(&self) -> usize {
        self.pins.released.load(Ordering::SeqCst)
    }

    /// Drops all notes: nobody needs them.
    fn forget(&self) {
        for shard in &self.blobs {
            *lock(shard) = Notes::default();
        }
        *lock(&self.trees) = Notes::default();
        *lock(&self.keys) = Notes::default();
    }

    fn noting(&self) -> Option<Epoch> {
        if self.pins.live.load(Ordering::SeqCst) == 0 {
            return None;
        }
        Some(lock(&self.pins.table).epoch)
    }

    /// The time of the oldest pin.
    fn oldest(&self) -> Epoch {
        let table = lock(&self.pins.table);
        table.pins.first_key_value().map_or(Epoch::MAX, |(epoch, _)| *epoch)
    }

    pub fn blobs<'a>(&self, ids: impl IntoIterator<Item = &'a BlobId>) {
        let Some(now) = self.noting() else {
            return;
        };
        for id in ids {
            let prefix = blob_prefix(id);
            let mut shard = lock(&self.blobs[prefix as usize % SHARDS]);
            shard.note(prefix, now, || self.oldest());
        }
    }

    pub fn trees<'a>(&self, ids: impl IntoIterator<Item = &'a TreeId>) {
        let Some(now) = self.noting() else {
            return;
        };
        let mut trees = lock(&self.trees);
        let mut fresh = lock(&self.fresh);
        for id in ids {
            trees.note(*id, now, || self.oldest());
            if let Some(fresh) = fresh.as_mut() {
                fresh.insert(*id);
            }
        }
    }

    /// Notes records and rows by their keys in the index.
    pub fn key(&self, key: &[u8]) {
        if let Some(now) = self.noting() {
            lock(&self.keys).note(key.to_vec(), now, || self.oldest());
        }
    }

    /// Begins a collection: what is touched from now on is protected too. The caller holds off all
    /// who look things up, so that each of them comes wholly before or wholly after.
    pub fn begin(&self) -> Collecting<'_> {
        let guard = self.pin_for(Holder::Collection);
        *lock(&self.fresh) = Some(HashSet::new());
        Collecting { touches: self, oldest: self.oldest(), _guard: guard }
    }
}

/// What a running collection asks.
pub(super) struct Collecting<'a> {
    touches: &'a Touches,
    oldest: Epoch,
    _guard: PinGuard,
}

impl Collecting<'_> {
    pub fn has_blob(&self, id: &BlobId) -> bool {
        let prefix = blob_prefix(id);
        let shard = lock(&self.touches.blobs[prefix as usize % SHARDS]);
        shard.map.get(&prefix).is_some_and(|epoch| *epoch >= self.oldest)
    }

    pub fn has_key(&self, key: &[u8]) -> bool {
        lock(&self.touches.keys).map.get(key).is_some_and(|epoch| *epoch >= self.oldest)
    }

    /// All protected trees.
    pub fn trees(&self) -> Vec<TreeId> {
        let trees = lock(&self.touches.trees);
        trees.map.iter().filter(|(_, epoch)| **epoch >= self.oldest).map(|(id, _)| *id).collect()
    }

    /// Trees that were touched since this was asked last.
    pub fn fresh_trees(&self) -> HashSet<TreeId> {
        lock(&self.touches.fresh).as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        *lock(&self.touches.fresh) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u8) -> BlobId {
        BlobId::of(&[n])
    }

    #[test]
    fn only_what_was_touched_under_a_living_pin_is_protected() {
        let touches = Touches::default();
        touches.blobs([&blob(0)]);
        let first = touches.pin();
        touches.blobs([&blob(1)]);
        let second = touches.pin();
        touches.blobs([&blob(2)]);
        drop(first);
        let collecting = touches.begin();
        touches.blobs([&blob(3)]);
        let protected: Vec<u8> = (0..5).filter(|n| collecting.has_blob(&blob(*n))).collect();
        assert_eq!(protected, [2, 3]);
        drop(collecting);
        drop(second);
        assert_eq!(touches.released(), 2);
        let collecting = touches.begin();
        assert!(!collecting.has_blob(&blob(2)));
    }

    #[test]
    fn notes_that_no_pin_needs_are_dropped() {
        let touches = Touches::default();
        let mut pin = touches.pin();
        for round in 0..20u32 {
            let ids: Vec<_> = (0..40_000u32)
                .map(|n| BlobId::of(&(u64::from(round) << 32 | u64::from(n)).to_le_bytes()))
                .collect();
            touches.blobs(&ids);
            pin = touches.pin();
        }
        let notes: usize = touches.blobs.iter().map(|s| lock(s).map.len()).sum();
        assert!(notes <= SHARDS * NOTES, "{notes}");
        drop(pin);
    }

    #[test]
    fn fresh_trees_are_told_once() {
        let touches = Touches::default();
        let (a, b) = (TreeId::from_bytes([1; 32]), TreeId::from_bytes([2; 32]));
        let _pin = touches.pin();
        touches.trees([&a]);
        let collecting = touches.begin();
        assert_eq!(collecting.trees(), [a]);
        touches.trees([&b]);
        assert_eq!(collecting.fresh_trees(), HashSet::from([b]));
        assert!(collecting.fresh_trees().is_empty());
    }
}
