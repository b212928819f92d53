//! What a log is, whatever keeps it.

use super::driver::{
    Change, ChangeError, EntryId, Leadership, Membership, ProposeError, ReadError,
};
use futures::future::BoxFuture;
use tokio::sync::watch;

/// A log of entries, which are applied to the [`Machine`](super::Machine) that it was started with.
///
/// Only the leader takes entries, reads and changes of members; the others say who leads. A future
/// that is dropped stops nothing: what it asked for may still happen.
pub trait Log: Send + Sync {
    /// Appends entries, of at most 64 KiB each, together and in this order. Returns when the last of
    /// them is on most members and applied here: its index, or a later one at which it was found to
    /// be applied already.
    ///
    /// Calls of many callers share one write to the disk, so that one at a time is the slow way.
    fn propose(&self, entries: Vec<Vec<u8>>) -> BoxFuture<'_, Result<u64, ProposeError>>;

    /// Appends those of the entries of which nothing came yet, after [`ProposeError::Unknown`] with
    /// this id: each of them is applied once, whichever calls appended it. The entries must be the
    /// same. An id is remembered until its node starts again or has proposed some thousand entries
    /// more; then the answer is [`ProposeError::Unknown`] again.
    fn propose_again(
        &self,
        id: EntryId,
        entries: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<u64, ProposeError>>;

    /// Returns when everything that was acknowledged by anybody before the call is applied here, and
    /// up to which index that is. A new leader waits for this before it relies on its machine.
    fn read_barrier(&self) -> BoxFuture<'_, Result<u64, ReadError>>;

    /// Changes members: several at once all together. Returns the members after the change.
    fn change_membership(
        &self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Membership, ChangeError>>;

    /// The index up to which everything is applied here.
    fn watch_applied(&self) -> watch::Receiver<u64>;

    /// Who leads.
    fn watch_leader(&self) -> watch::Receiver<Leadership>;

    /// Whether the log has stopped. After [`Stopped::Failed`] the process should end: what this node
    /// has promised may be lost.
    fn watch_stopped(&self) -> watch::Receiver<Option<Stopped>>;

    /// Hands the lead to another member, if there is one, and stops. Returns when nothing runs or
    /// writes any more.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Why a log takes nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Somebody asked for it.
    Asked,
    /// It can't go on: why, and what to do.
    Failed(String),
}
