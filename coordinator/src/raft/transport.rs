//! How members reach each other.

use super::driver::NodeId;

/// Carries messages to other members. Of no message is it said when or whether it arrives; those to
/// one node should mostly stay in order.
///
/// Neither call may wait for the network: what there is no room for is dropped. What comes in at the
/// other end goes to [`RaftLog::step`](super::RaftLog::step).
pub trait Transport: Send {
    /// Sends a small message: at most 1 MiB. When the node can't be reached, tell
    /// [`RaftLog::report_unreachable`](super::RaftLog::report_unreachable).
    fn send(&self, to: NodeId, message: Vec<u8>);

    /// Sends a snapshot, which can have 1 GiB and should not hold up what is sent by
    /// [`Transport::send`]. Tell [`RaftLog::report_snapshot`](super::RaftLog::report_snapshot) in any
    /// case: until then the node gets nothing else, for a minute.
    fn send_snapshot(&self, to: NodeId, message: Vec<u8>);
}
