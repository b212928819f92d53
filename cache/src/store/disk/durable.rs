//! From visible to durable: one round of syncing for all who wait for one.
//!
//! A round syncs the files of blobs that were added since the last one, then writes to the index,
//! with a sync, how far it came. The index is written in order, so that everything before is safe
//! too. Who asks while a round runs waits for the next one, which all of them share.
//!
//! When the disk refuses a sync, what it was asked to keep may be lost, and asking again would get
//! a yes without meaning: so the store takes nothing more, until it was opened again and has
//! checked what was not yet safe.

use super::files::Shard;
use super::{Inner, batch::Sync, lock, value};
use crate::store::StoreError;
use proto::id::BlobId;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};

/// Threads that sync files at the same time.
const SYNC_THREADS: usize = 8;

/// What is not durable yet, and who waits for it.
#[derive(Default)]
pub(super) struct Durable {
    rounds: Mutex<Rounds>,
    ended: Condvar,
    poison: OnceLock<String>,
    large: Mutex<HashSet<BlobId>>,
    shards: Mutex<BTreeSet<Shard>>,
    segments_dir: AtomicBool,
    /// How many of the writes to the index a round covered.
    synced: AtomicU64,
    /// Held by a round, and by who deletes segments.
    files: Mutex<()>,
}

#[derive(Default)]
struct Rounds {
    begun: u64,
    done: u64,
    running: bool,
}

impl Durable {
    /// Notes a blob whose file is new.
    pub fn note_large(&self, id: BlobId) {
        lock(&self.shards).insert(super::files::shard_of(&id));
        lock(&self.large).insert(id);
    }

    /// Notes a segment that comes.
    pub fn note_segments_dir(&self) {
        self.segments_dir.store(true, Ordering::SeqCst);
    }

    /// Keeps rounds away from the segments.
    pub fn hold_files(&self) -> MutexGuard<'_, ()> {
        lock(&self.files)
    }

    /// What poisoned the store.
    pub fn poison(&self) -> Option<&String> {
        self.poison.get()
    }
}

impl Inner {
    /// Refuses when the disk has failed.
    pub fn check_poison(&self) -> Result<(), StoreError> {
        match self.durable.poison() {
            Some(detail) => {
                Err(StoreError::Poisoned { path: self.root.clone(), detail: detail.clone() })
            }
            None => Ok(()),
        }
    }

    /// See [`crate::store::Store::barrier`].
    pub fn barrier(&self) -> Result<(), StoreError> {
        let durable = &self.durable;
        let mut rounds = lock(&durable.rounds);
        let need = rounds.begun + 1;
        loop {
            self.check_poison()?;
            if rounds.done >= need {
                return Ok(());
            }
            if rounds.running {
                rounds = durable.ended.wait(rounds).unwrap_or_else(|e| e.into_inner());
                continue;
            }
            rounds.running = true;
            rounds.begun += 1;
            let mine = rounds.begun;
            drop(rounds);
            let result = self.round();
            rounds = lock(&durable.rounds);
            rounds.running = false;
            if result.is_ok() {
                rounds.done = mine;
            }
            durable.ended.notify_all();
            return result;
        }
    }

    fn round(&self) -> Result<(), StoreError> {
        let durable = &self.durable;
        let writes = self.index.writes.load(Ordering::SeqCst);
        if writes == durable.synced.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _files = durable.hold_files();
        let segments = self.segments.unsynced();
        let large: Vec<BlobId> = std::mem::take(&mut *lock(&durable.large)).into_iter().collect();
        let shards = std::mem::take(&mut *lock(&durable.shards));
        self.step("sync segments");
        for (id, _) in &segments {
            let path = self.segments.path(*id);
            let file = self.segments.file(*id).map_err(|e| self.poisoned(&path, e))?;
            (self.hooks().sync)(&file).map_err(|e| self.poisoned(&path, e))?;
        }
        self.step("sync large");
        self.sync_large(&large)?;
        for shard in shards {
            self.sync_dir(&self.files.shard_path(shard))?;
        }
        if durable.segments_dir.swap(false, Ordering::SeqCst) {
            self.sync_dir(self.segments.dir())?;
        }
        self.step("sync index");
        self.round_index(&segments, &large)?;
        durable.synced.store(writes, Ordering::SeqCst);
        self.measure_index();
        Ok(())
    }

    fn sync_large(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        let one = |id: &BlobId| {
            let path = self.files.path(id);
            match File::open(&path) {
                Ok(file) => (self.hooks().sync)(&file).map_err(|e| self.poisoned(&path, e)),
                // Collected or put aside meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(self.poisoned(&path, error)),
            }
        };
        let share = ids.len().div_ceil(SYNC_THREADS).max(8);
        if ids.len() <= share {
            return ids.iter().try_for_each(one);
        }
        std::thread::scope(|scope| {
            let some = |ids| scope.spawn(move || <[BlobId]>::iter(ids).try_for_each(one));
            let threads: Vec<_> = ids.chunks(share).map(some).collect();
            threads.into_iter().try_for_each(|t| t.join().expect("syncing does not panic"))
        })
    }

    /// Makes durable which files there are in a directory.
    pub fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        let synced = File::open(path).and_then(|dir| (self.hooks().sync)(&dir));
        synced.map_err(|e| self.poisoned(path, e))
    }

    /// Writes how far the round came; with a sync, which carries all earlier writes.
    fn round_index(&self, segments: &[(u32, u64)], large: &[BlobId]) -> Result<(), StoreError> {
        let mut batch = self.index.batch();
        for (id, len) in segments {
            if self.segments.mark_synced(*id, *len) {
                batch.put_segment(*id, value::SegmentRow { synced: *len });
            }
        }
        for id in large {
            batch.delete(super::rocks::Cf::State, &value::state::unsynced(id));
        }
        self.uses.flush(&mut batch);
        let written = if batch.is_empty() {
            self.index.db.flush_wal(true).map_err(|e| self.index.error(e))
        } else {
            batch.commit(Sync::Yes)
        };
        if let Err(StoreError::Index { detail, .. }) = &written {
            let _ = self.durable.poison.set(format!("syncing the index: {detail}"));
            self.forget_boot();
        }
        written
    }

    /// Notes that the disk refused, for good.
    fn poisoned(&self, path: &Path, error: io::Error) -> StoreError {
        let detail = format!("syncing {}: {error}", path.display());
        tracing::error!(%detail, "The store takes nothing more");
        let _ = self.durable.poison.set(detail.clone());
        self.forget_boot();
        StoreError::Poisoned { path: self.root.clone(), detail }
    }
}
