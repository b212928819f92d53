//! The log of decisions: what must outlive its leader.
//!
//! [`Log`] takes entries, keeps them on most of its members, and gives them to a [`Machine`] on each
//! of them, in one order. What an entry says is the machine's business. There are two logs:
//!
//! * [`RaftLog`]: the replicated one, by the `raft` crate, with a [`RocksStore`] on each member;
//! * [`MemoryLog`]: that of a farm of one process, which keeps nothing
//!   (`docs/decisions/0004-the-embedded-farm-keeps-no-log.md`).
//!
//! [`driver`] is a member as a machine without threads and clock: read it first. [`node`] runs it in
//! a thread.

pub mod driver;
mod log;
mod memory;
pub mod node;
pub mod rocks;
mod trace;
mod transport;

pub use driver::{
    BadMessage, Change, ChangeError, Checked, Config, Driver, DriverError, Durability, EntryId,
    Incarnation, Leadership, Limits, Machine, Membership, NodeId, Output, Proposal, ProposeError,
    ReadError, RestoreError, Role, Shared, Store, StoreError, Token, Write,
};
pub use log::{Log, Stopped};
pub use memory::MemoryLog;
pub use node::{RaftLog, StepError};
pub use rocks::{Beginning, ClusterId, Identity, OpenError, RocksStore};
pub use transport::Transport;
