//! One member of the log, as a machine that is fed and asked: no threads, no clock, no network.
//!
//! [`Driver`] owns raft's node, the store and the applied state. Its inputs are
//!
//! * [`tick`](Driver::tick): a tenth of a second has passed;
//! * [`receive`](Driver::receive), [`unreachable`](Driver::unreachable),
//!   [`snapshot_sent`](Driver::snapshot_sent): the network has something;
//! * [`propose`](Driver::propose), [`read`](Driver::read), [`change`](Driver::change),
//!   [`resign`](Driver::resign): somebody wants something.
//!
//! After any number of them, [`poll`](Driver::poll) does what is to be done and gives [`Output`]s,
//! in the order in which they are to be done. Only it writes to the store: however many entries came
//! in, they cost one sync. When it fails the driver is of no more use, and nothing that it has not
//! given out yet may be sent: see [`DriverError`].
//!
//! **Order** ([`ready`]). What may leave at once leaves; then the store has what raft wants kept, and
//! only then leaves what promises that it is kept; then what is committed is applied, and only then
//! answered.
//!
//! What raft 0.7.0 does that must be seen to is said where it is seen to, and listed in
//! `docs/decisions/0014-the-log-holds-facts.md`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod chance;
mod compact;
mod election;
mod id;
pub mod inbound;
mod machine;
mod membership;
mod output;
mod proposals;
mod reads;
mod ready;
mod replica;
pub(super) mod session;
pub mod store;

pub use id::{EntryId, Incarnation, NodeId};
pub use inbound::{BadMessage, Checked};
pub use machine::{Machine, RestoreError, Shared};
pub use membership::{Change, Membership};
pub use output::{ChangeError, Leadership, Output, ProposeError, ReadError, Role, Token};
pub use proposals::Proposal;
pub use store::{Durability, Store, StoreError, Write};

use election::Election;
use proposals::Proposals;
use proto::error::Class;
use proto::limit;
use raft::{RawNode, SnapshotStatus, StateRole};
use reads::Reads;
use replica::Replica;
use std::collections::BTreeMap;
use store::Seam;

/// Ticks between two heartbeats of a leader.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a heartbeat after which a follower may ask for votes; up to twice as many.
const ELECTION_TICKS: usize = 10;
/// Bytes of entries in one message. A larger entry goes alone.
const MESSAGE_BYTES: u64 = 64 << 10;
/// Messages with entries that are under way to one node without an answer.
const MESSAGES_IN_FLIGHT: usize = 256;
/// Bytes of entries that are applied at once.
const APPLY_BYTES: u64 = 4 << 20;
/// Ticks after which a snapshot of which nothing was heard counts as lost.
const SNAPSHOT_TICKS: u32 = 600;

/// When the log is cut off, and how much of it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A snapshot is taken after so many entries.
    pub snapshot_entries: u64,
    /// And after so many bytes of them.
    pub snapshot_bytes: u64,
    /// So many entries before the snapshot stay, for members that are a little behind.
    pub keep_entries: u64,
    /// At most so many stay for a member that is alive and further behind. Then it gets the snapshot.
    pub keep_entries_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            snapshot_entries: 10_000,
            snapshot_bytes: 16 << 20,
            keep_entries: 1_000,
            keep_entries_max: 20_000,
        }
    }
}

/// How a driver is to work.
#[derive(Clone)]
pub struct Config {
    /// Who it is.
    pub node: NodeId,
    /// What its election timeouts are made of. Another one for each node and each start.
    pub seed: u64,
    /// When the log is cut off.
    pub limits: Limits,
    /// Where raft tells what it does.
    pub logger: slog::Logger,
}

/// Why a driver has stopped, for good.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state of a snapshot can't be restored.
    #[error("The snapshot of the log up to entry {index} can't be read: {error}")]
    Restore {
        /// The last entry that is in it.
        index: u64,
        /// Why.
        error: RestoreError,
    },
    /// The state is too large for a snapshot.
    #[error(
        "The state that the log has led to takes {bytes} bytes, more than the {} that a snapshot can \
         have. This is a fault of Slipway: it keeps in the log what belongs into the store",
        limit::LOG_SNAPSHOT_BYTES_MAX
    )]
    TooLarge {
        /// The size of the state.
        bytes: usize,
    },
    /// An entry is committed that this version can't read.
    #[error(
        "Entry {index} of the log was written by a later version of Slipway. Use that version for \
         this coordinator too"
    )]
    Version {
        /// The entry.
        index: u64,
    },
    /// Raft gave up, or the machine did.
    #[error(
        "The log can't go on: {detail}. Start this coordinator again. If it ends in the same way, \
         this is a fault of Slipway, or the log is damaged. {}",
        store::REBUILD
    )]
    Raft {
        /// Its words.
        detail: String,
    },
}

impl DriverError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Store(StoreError::Full { .. }) => Class::Busy,
            Self::Store(StoreError::Io { .. }) => Class::Unavailable,
            Self::Store(StoreError::Damaged { .. }) | Self::Raft { .. } => Class::Corrupt,
            Self::Restore { .. } | Self::Version { .. } => Class::User,
            Self::TooLarge { .. } => Class::Bug,
        }
    }

    fn raft(error: &raft::Error) -> Self {
        Self::Raft { detail: error.to_string() }
    }
}

/// One member of the log. See the [module](self).
pub struct Driver<S: Store, M: Machine> {
    raw: RawNode<Seam<S>>,
    me: Incarnation,
    replica: Replica<M>,
    limits: Limits,
    election: Election,
    proposals: Proposals,
    reads: Reads,
    /// The snapshots that are under way, and for how many ticks.
    snapshots: BTreeMap<NodeId, u32>,
}

/// What takes the outputs.
type Out<'a> = &'a mut dyn FnMut(Output);

impl<S: Store, M: Machine> Driver<S, M> {
    /// A driver for what the store has: the machine, to which nothing was applied yet, gets the
    /// snapshot at once and what was committed since with the first [`poll`](Self::poll).
    pub fn new(config: Config, store: S, machine: Shared<M>) -> Result<Self, DriverError> {
        let me = Incarnation { node: config.node, boot: store.boot() };
        let mut replica = Replica::new(machine);
        if store.snapshot_metadata().index > 0 {
            let snapshot = store.snapshot()?;
            let index = snapshot.get_metadata().index;
            replica.restore(&snapshot).map_err(|error| DriverError::Restore { index, error })?;
        }
        let raft_config = raft::Config {
            id: config.node.get(),
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: replica.index(),
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: MESSAGES_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: limit::LOG_BYTES_IN_FLIGHT_MAX as u64,
            max_committed_size_per_ready: APPLY_BYTES,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&raft_config, Seam::new(store), &config.logger)
            .map_err(|error| DriverError::raft(&error))?;
        Ok(Self {
            raw,
            me,
            replica,
            limits: config.limits,
            election: Election::new(config.seed),
            proposals: Proposals::default(),
            reads: Reads::default(),
            snapshots: BTreeMap::new(),
        })
    }

    /// Who this is, and in which life.
    pub fn me(&self) -> Incarnation {
        self.me
    }

    /// The index up to which everything is applied.
    pub fn applied(&self) -> u64 {
        self.replica.index()
    }

    /// The members, as of the last entry that was applied.
    pub fn members(&self) -> Membership {
        Membership::of(&self.raw.raft.prs().conf().to_conf_state())
    }

    /// A tenth of a second has passed. Ticks that were missed must not be made up for: they would
    /// take the leader for lost whose messages wait to be read.
    pub fn tick(&mut self) {
        self.raw.raft.set_randomized_election_timeout(self.election.timeout());
        self.raw.tick();
        self.snapshots.values_mut().for_each(|ticks| *ticks += 1);
        let lost = self.snapshots.iter().find(|(_, ticks)| **ticks > SNAPSHOT_TICKS);
        if let Some(node) = lost.map(|(node, _)| *node) {
            self.snapshot_sent(node, false);
        }
    }

    /// A message has come in.
    pub fn receive(&mut self, message: Checked) -> Result<(), DriverError> {
        match self.raw.step(*message.0) {
            // Who is no member any more may not know it yet.
            Ok(()) | Err(raft::Error::StepPeerNotFound) => Ok(()),
            Err(error) => Err(DriverError::raft(&error)),
        }
    }

    /// A message to that node could not be sent.
    pub fn unreachable(&mut self, node: NodeId) {
        self.raw.report_unreachable(node.get());
    }

    /// What came of a snapshot for that node: whether the node has it. Until then the node gets
    /// nothing else.
    pub fn snapshot_sent(&mut self, node: NodeId, arrived: bool) {
        if self.snapshots.remove(&node).is_some() {
            let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            self.raw.report_snapshot(node.get(), status);
        }
    }

    /// Does what is to be done, and tells `out`. After an error the driver must be dropped.
    pub fn poll(&mut self, out: Out<'_>) -> Result<(), DriverError> {
        loop {
            self.settle(out);
            self.admit_proposals(out);
            self.admit_change(out);
            self.leave_joint();
            self.admit_reads(out);
            if self.raw.has_ready() {
                self.cycle(out)?;
            } else if !self.stand_alone()? {
                return self.compact_if_due();
            }
        }
    }

    /// After a panic: what the store did, if that is why.
    pub fn take_failed(&self) -> Option<StoreError> {
        self.raw.store().take_failed()
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether the leader has committed an entry of its term, and so knows all that is committed.
    fn is_settled_leader(&self) -> bool {
        self.is_leader() && self.raw.raft.commit_to_current_term()
    }
}
