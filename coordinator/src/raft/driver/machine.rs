//! The state that entries make: kept in memory, shared with those who read it.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A state machine that every node feeds with the same entries in the same order.
///
/// It must be deterministic: no clock, no chance, no order of a hash map. Times and names that it
/// needs are in the entries, put there by who proposed them. An entry that makes no sense to it
/// must leave it as it is, since it is in the log of all nodes for good.
///
/// Durable are the log and the snapshots, never the machine: a start restores the last snapshot and
/// applies again what came after it.
pub trait Machine: Send + Sync + 'static {
    /// Takes an entry. Indices rise and have gaps: not everything in the log is for the machine.
    fn apply(&mut self, index: u64, entry: &[u8]);

    /// All of the state. The same state has the same bytes on all nodes.
    fn snapshot(&self) -> Vec<u8>;

    /// Becomes what [`Machine::snapshot`] of another node, or of an earlier time, was taken of.
    /// With an error the node stops.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError>;
}

/// Why a snapshot can't be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(pub String);

/// A machine that the log writes and others read.
///
/// Reads share it, and wait while a batch of entries is applied: microseconds. What is read is what
/// this node knows; on a leader, and after
/// [`read_barrier`](crate::raft::Log::read_barrier), that is everything.
#[derive(Debug)]
pub struct Shared<M>(Arc<RwLock<M>>);

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> Shared<M> {
    /// Shares a machine that nothing was applied to.
    pub fn new(machine: M) -> Self {
        Self(Arc::new(RwLock::new(machine)))
    }

    /// Looks at the machine. Must be quick, and must not look again inside of `look`.
    pub fn read<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        look(&self.lock_read())
    }

    // A machine that panicked half-way ends the driver, which is all that writes: what is read
    // afterwards is read by who is about to end.
    fn lock_read(&self) -> RwLockReadGuard<'_, M> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(in crate::raft) fn write(&self) -> RwLockWriteGuard<'_, M> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
