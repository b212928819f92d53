//! Where a driver keeps its log, and how raft reads it.

use super::id::NodeId;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, StorageError};
use std::cell::Cell;
use std::ops::Range;

/// Whether a write must have reached the disk when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it has returned, the write and all before it survive a loss of power.
    Synced,
    /// It may be lost, as long as nothing that came after it survives. Until then it can be read.
    Lazy,
}

/// What a driver has written: all of it or nothing.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Takes the place of the snapshot and of the whole log.
    pub snapshot: Option<&'a Snapshot>,
    /// Appended; from the index of the first of them on, what was there goes. Without gaps.
    pub entries: &'a [Entry],
    /// Term, vote, and how far the log is committed.
    pub hard: &'a HardState,
    /// Whether it must be safe at once.
    pub durability: Durability,
}

/// Why a store could not be read or written. A driver that gets one stops for good: what it has
/// promised to others may be lost, and going on would break the promise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error(
        "The log at {path} can't be written: {detail}. Make room on its disk, and start this \
         coordinator again: all that it has acknowledged is safe"
    )]
    Full {
        /// The directory.
        path: String,
        /// What the system said.
        detail: String,
    },
    /// The disk failed.
    #[error(
        "The log at {path} failed: {detail}. Look at the disk. When it is sound, start this \
         coordinator again; else remove its node from the cluster and join a new one"
    )]
    Io {
        /// The directory.
        path: String,
        /// What the system said.
        detail: String,
    },
    /// What is there is not what was written.
    #[error("The log at {path} is damaged: {detail}. {}", REBUILD)]
    Damaged {
        /// The directory.
        path: String,
        /// What does not fit.
        detail: String,
    },
}

/// What to do about a log that can't be trusted any more.
pub(in crate::raft) const REBUILD: &str = "\
    A log can't be mended, and must not be cut short: it has promised to keep what it had. If the \
    cluster has other coordinators, remove this node there, move the directory away and join as a \
    new node. If this is the only one, restore the directory from a backup, or begin a new cluster \
    with `slipway farm init`: images, records and blobs are in the caches and stay";

/// A durable log with one snapshot. Empty, it is that of a node that is to join.
///
/// Its indices run from `first` to `last` without gaps; before `first` stands what the snapshot has.
pub trait Store: Send {
    /// How often the log was opened, with this time. Durable before the log can be used.
    fn boot(&self) -> u64;

    /// What was last written of term, vote and commit.
    fn hard_state(&self) -> HardState;

    /// Index, term and members of the snapshot; all of it empty when there is none.
    fn snapshot_metadata(&self) -> &SnapshotMetadata;

    /// The snapshot.
    fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// The index of the first entry, if there is one; else of the next one.
    fn first(&self) -> u64;

    /// The index of the last entry; `first - 1` when there is none.
    fn last(&self) -> u64;

    /// The term of an entry, from `first - 1` to `last`.
    fn term(&self, index: u64) -> Option<u64>;

    /// The entries of a part of `first..last + 1`, in order: as many as have `max_bytes`, but one at
    /// least.
    fn entries(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, StoreError>;

    /// Writes all of it or nothing.
    fn write(&mut self, write: &Write<'_>) -> Result<(), StoreError>;

    /// Takes another snapshot, up to whose index the log is applied, and drops the entries below
    /// `first`, which is at most one above that index. Durable.
    fn compact(
        &mut self,
        snapshot: &Snapshot,
        first: u64,
        hard: &HardState,
    ) -> Result<(), StoreError>;
}

/// What the store of each of a new log's voters begins with: a snapshot of nothing at index 1, so
/// that whoever joins later gets a snapshot and with it the members.
pub fn beginning(voters: &[NodeId]) -> (Snapshot, HardState) {
    let voters = voters.iter().map(|node| node.get()).collect();
    let conf_state = Some(ConfState { voters, ..ConfState::default() });
    let metadata = Some(SnapshotMetadata { conf_state, index: 1, term: 1 });
    let hard = HardState { term: 1, vote: 0, commit: 1 };
    (Snapshot { data: Vec::new(), metadata }, hard)
}

/// A store as raft wants to see it.
pub(super) struct Seam<S> {
    pub store: S,
    /// Raft asked for a snapshot that there is not; see [`Seam::take_wanted`].
    wanted: Cell<bool>,
    /// Why the store could not be read, of which raft makes a panic.
    failed: Cell<Option<StoreError>>,
}

impl<S: Store> Seam<S> {
    pub fn new(store: S) -> Self {
        Self { store, wanted: Cell::new(false), failed: Cell::new(None) }
    }

    /// Whether a newer snapshot is needed than there is. Asks once.
    pub fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    /// Why raft has panicked, if that is because the store could not be read.
    pub fn take_failed(&self) -> Option<StoreError> {
        self.failed.take()
    }

    fn unreadable(&self, error: StoreError) -> raft::Error {
        let text = error.to_string();
        self.failed.set(Some(error));
        raft::Error::Store(StorageError::Other(text.into()))
    }
}

impl<S: Store> raft::Storage for Seam<S> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        // The members are those of the snapshot: what changed them since is applied again.
        let members = self.store.snapshot_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.store.hard_state(), members))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.store.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.store.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        self.store.entries(low..high, max_bytes).map_err(|error| self.unreadable(error))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = match index < self.store.first() {
            true => StorageError::Compacted,
            false => StorageError::Unavailable,
        };
        self.store.term(index).ok_or(missing.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.store.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.store.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let metadata = self.store.snapshot_metadata();
        // A node drops a snapshot of which it is no member, and would be sent it again and again.
        let members = super::Membership::of(metadata.get_conf_state()).all();
        let has_receiver = NodeId::new(to).is_some_and(|to| members.contains(&to));
        if metadata.index == 0 || metadata.index < request_index || !has_receiver {
            self.wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        self.store.snapshot().map_err(|error| self.unreadable(error))
    }
}
