//! The log of a member on disk: a RocksDB of its own, with its own policy of syncing.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `log` | index, big endian | the entry, as raft encodes it |
//! | `default` | [`value::Key`] | who it is, term and vote, bounds of the log, the snapshot |
//!
//! What belongs together is one batch: entries, term and vote, and the bounds that they lead to. Where
//! the log begins and ends is never looked for, since a search would wade through what was deleted.
//! The terms of all entries are in memory, so that they are all read once, and checked, when the log
//! is opened.

mod open;
#[cfg(test)]
mod tests;
mod value;

pub use open::{Beginning, OpenError};
pub use value::{ClusterId, Identity};

use super::driver::{Durability, Store, StoreError, Write};
use prost::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot, SnapshotMetadata};
use rocksdb::{ColumnFamily, DB, ReadOptions, WriteBatch, WriteOptions};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use value::{Bounds, Key, index_key};

/// The column family of the entries.
const LOG: &str = "log";

/// The log of one member on disk. See [`Store`] for what it promises.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
    identity: Identity,
    boot: u64,
    hard: HardState,
    metadata: SnapshotMetadata,
    bounds: Bounds,
    /// The terms of the entries, from the first one on.
    terms: VecDeque<u64>,
}

impl RocksStore {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    fn log(&self) -> &ColumnFamily {
        log_of(&self.db)
    }

    fn error(&self, error: rocksdb::Error) -> StoreError {
        store_error(&self.path, error)
    }

    fn damaged(&self, detail: String) -> StoreError {
        StoreError::Damaged { path: self.path.display().to_string(), detail }
    }

    /// Reads a part of the log, entry by entry.
    fn read(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(Entry, usize) -> bool,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(index_key(range.start));
        options.set_iterate_upper_bound(index_key(range.end));
        let mut rows = self.db.iterator_cf_opt(self.log(), options, rocksdb::IteratorMode::Start);
        for index in range {
            let missing = || self.damaged(format!("entry {index} is missing"));
            let (key, value) = rows.next().ok_or_else(missing)?.map_err(|e| self.error(e))?;
            if *key != index_key(index) {
                return Err(missing());
            }
            let entry = Entry::decode(&*value).ok().filter(|entry| entry.index == index);
            let entry = entry.ok_or_else(|| self.damaged(format!("entry {index} is no entry")))?;
            if !each(entry, value.len()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        mut batch: WriteBatch,
        durability: Durability,
        hard: &HardState,
        bounds: Bounds,
    ) -> Result<(), StoreError> {
        batch.put(Key::Hard.name(), hard.encode_to_vec());
        batch.put(Key::Bounds.name(), bounds.to_bytes());
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db.write_opt(batch, &options).map_err(|e| self.error(e))?;
        self.hard = hard.clone();
        self.bounds = bounds;
        Ok(())
    }
}

fn log_of(db: &DB) -> &ColumnFamily {
    db.cf_handle(LOG).expect("all column families were opened")
}

fn put_snapshot(batch: &mut WriteBatch, snapshot: &Snapshot) {
    batch.put(Key::Metadata.name(), snapshot.get_metadata().encode_to_vec());
    batch.put(Key::Snapshot.name(), &snapshot.data);
}

/// What RocksDB said, and what it means.
fn store_error(path: &Path, error: rocksdb::Error) -> StoreError {
    let (path, detail) = (path.display().to_string(), error.into_string());
    if detail.contains("No space left") || detail.contains("quota exceeded") {
        StoreError::Full { path, detail }
    } else if detail.starts_with("Corruption") {
        StoreError::Damaged { path, detail }
    } else {
        StoreError::Io { path, detail }
    }
}

impl Store for RocksStore {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn hard_state(&self) -> HardState {
        self.hard.clone()
    }

    fn snapshot_metadata(&self) -> &SnapshotMetadata {
        &self.metadata
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let data = self.db.get(Key::Snapshot.name()).map_err(|e| self.error(e))?;
        let data = data.ok_or_else(|| self.damaged("its snapshot is missing".to_owned()))?;
        Ok(Snapshot { data, metadata: Some(self.metadata.clone()) })
    }

    fn first(&self) -> u64 {
        self.bounds.before + 1
    }

    fn last(&self) -> u64 {
        self.bounds.last
    }

    fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.bounds.before)? {
            0 => Some(self.bounds.before_term),
            n => self.terms.get(n as usize - 1).copied(),
        }
    }

    fn entries(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        self.read(range, |entry, len| {
            bytes += len as u64;
            let fits = entries.is_empty() || bytes <= max_bytes;
            if fits {
                entries.push(entry);
            }
            fits
        })?;
        Ok(entries)
    }

    fn write(&mut self, write: &Write<'_>) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let mut bounds = self.bounds;
        if let Some(snapshot) = write.snapshot {
            put_snapshot(&mut batch, snapshot);
            batch.delete_range_cf(self.log(), index_key(self.first()), index_key(self.last() + 1));
            let metadata = snapshot.get_metadata();
            bounds = Bounds::at(metadata.index, metadata.term);
        }
        if let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) {
            if first.index <= bounds.before || first.index > bounds.last + 1 {
                let detail = format!("entry {} does not follow {}", first.index, bounds.last);
                return Err(self.damaged(detail));
            }
            for entry in write.entries {
                batch.put_cf(self.log(), index_key(entry.index), entry.encode_to_vec());
            }
            if last.index < bounds.last {
                let (from, to) = (index_key(last.index + 1), index_key(bounds.last + 1));
                batch.delete_range_cf(self.log(), from, to);
            }
            bounds.last = last.index;
        }
        self.commit(batch, write.durability, write.hard, bounds)?;
        if let Some(snapshot) = write.snapshot {
            self.metadata = snapshot.get_metadata().clone();
            self.terms.clear();
        }
        if let Some(first) = write.entries.first() {
            self.terms.truncate((first.index - self.first()) as usize);
            self.terms.extend(write.entries.iter().map(|entry| entry.term));
        }
        Ok(())
    }

    fn compact(
        &mut self,
        snapshot: &Snapshot,
        first: u64,
        hard: &HardState,
    ) -> Result<(), StoreError> {
        let term = first.checked_sub(1).and_then(|before| Some((before, self.term(before)?)));
        let Some((before, before_term)) = term else {
            return Err(self.damaged(format!("entry {first} is not in it")));
        };
        let mut batch = WriteBatch::default();
        put_snapshot(&mut batch, snapshot);
        batch.delete_range_cf(self.log(), index_key(self.first()), index_key(first));
        let dropped = (first - self.first()) as usize;
        let bounds = Bounds { before, before_term, last: self.bounds.last };
        self.commit(batch, Durability::Synced, hard, bounds)?;
        self.metadata = snapshot.get_metadata().clone();
        self.terms.drain(..dropped);
        Ok(())
    }
}
