//! Snapshots of the applied state, and the log that they make superfluous.

use super::{Driver, DriverError, Machine, Store};
use proto::limit::LOG_SNAPSHOT_BYTES_MAX;

impl<S: Store, M: Machine> Driver<S, M> {
    /// Takes a snapshot when the log has grown, or when a member needs a newer one than there is:
    /// it gets it with the next heartbeat.
    pub(super) fn compact_if_due(&mut self) -> Result<(), DriverError> {
        let (entries, bytes) = self.replica.since_snapshot;
        let grown = entries >= self.limits.snapshot_entries || bytes >= self.limits.snapshot_bytes;
        let wanted = self.raw.store().take_wanted();
        let last = self.raw.store().store.snapshot_metadata().index;
        if !(grown || wanted) || self.replica.index() <= last {
            return Ok(());
        }
        let members = self.raw.raft.prs().conf().to_conf_state();
        let snapshot = self.replica.snapshot(members);
        let bytes = snapshot.data.len();
        if bytes > LOG_SNAPSHOT_BYTES_MAX {
            return Err(DriverError::TooLarge { bytes });
        }
        let (first, hard) = (self.first_to_keep(), self.raw.raft.hard_state());
        self.raw.mut_store().store.compact(&snapshot, first, &hard)?;
        self.replica.since_snapshot = (0, 0);
        Ok(())
    }

    /// From which index on the log stays. On the leader, what a member that is alive lacks stays
    /// too, up to a limit.
    fn first_to_keep(&self) -> u64 {
        let next = self.replica.index() + 1;
        let mut first = next.saturating_sub(self.limits.keep_entries);
        if self.is_leader() {
            let lowest = next.saturating_sub(self.limits.keep_entries_max);
            let alive = self.raw.raft.prs().iter().filter(|(_, progress)| progress.recent_active);
            let needed = alive.map(|(_, progress)| progress.matched + 1).min();
            first = first.min(needed.unwrap_or(first)).max(lowest);
        }
        first.max(self.raw.store().store.first())
    }
}
