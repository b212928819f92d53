//! What a driver answers, and what it asks for.

use super::id::{EntryId, NodeId};
use super::membership::Membership;
use proto::error::Class;

/// What a caller is answered by: its own number, given with the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Something that a driver asks for, or tells. To be done in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this to that node. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// For the receiver's [`inbound::check`](super::inbound::check).
        message: Vec<u8>,
    },
    /// Send this, which can be large, to that node, and say what came of it:
    /// [`Driver::snapshot_sent`](super::Driver::snapshot_sent).
    SendSnapshot {
        /// The receiver.
        to: NodeId,
        /// For the receiver's [`inbound::check`](super::inbound::check).
        message: Vec<u8>,
    },
    /// The answer to [`Driver::propose`](super::Driver::propose).
    Proposed {
        /// Whose.
        token: Token,
        /// The index at which the last entry was applied.
        result: Result<u64, ProposeError>,
    },
    /// The answer to [`Driver::read`](super::Driver::read).
    Readable {
        /// Whose.
        token: Token,
        /// Everything that was acknowledged before the question has been applied here. The index of
        /// the last of it.
        result: Result<u64, ReadError>,
    },
    /// The answer to [`Driver::change`](super::Driver::change).
    Changed {
        /// Whose.
        token: Token,
        /// The members after the change.
        result: Result<Membership, ChangeError>,
    },
    /// The node's part has changed.
    Leadership(Leadership),
    /// All entries up to this index have been applied.
    Applied(u64),
}

/// A node's part in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It decides what is in the log. Before it relies on the state that it has applied it must wait
    /// for a [`read_barrier`](crate::raft::Log::read_barrier).
    Leader,
}

/// Who leads, as far as a node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The term; each has at most one leader.
    pub term: u64,
    /// This node's part.
    pub role: Role,
    /// The leader, when there is one that this node knows of.
    pub leader: Option<NodeId>,
}

/// Appended to texts about a node that does not lead.
fn instead(leader: &Option<NodeId>) -> String {
    match leader {
        Some(leader) => format!("node {leader} leads, ask that one"),
        None => "no leader is known, ask again in a second".to_owned(),
    }
}

/// Why entries were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead. Nothing was appended.
    #[error("This coordinator does not lead: {}", instead(leader))]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// Leadership was lost before the entries were committed: they may be in the log or not.
    /// Proposing them again under this id
    /// ([`propose_again`](crate::raft::Log::propose_again)) applies each of them once.
    #[error(
        "This coordinator lost its lead while {id} was under way, which may have happened or not. \
         Look at the state, or propose it again under the same id"
    )]
    Unknown {
        /// The id of the first entry.
        id: EntryId,
    },
    /// Nothing can be appended that is so large. Nothing was appended.
    #[error(
        "{what} of {found} is too large for the log, which takes {limit}. Put large things into the \
         store, and their names into the log"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// There are no entries in the proposal.
    #[error("The proposal has no entries")]
    Empty,
    /// The log has stopped. What was under way may have happened or not.
    #[error("The log has stopped: start this coordinator again")]
    Stopped,
}

impl ProposeError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotLeader { .. } | Self::Unknown { .. } | Self::Stopped => Class::Unavailable,
            Self::TooLarge { .. } | Self::Empty => Class::Bug,
        }
    }
}

/// Why a read can't be answered for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead, or lost its lead before others confirmed it.
    #[error("This coordinator does not lead: {}", instead(leader))]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// The log has stopped.
    #[error("The log has stopped: start this coordinator again")]
    Stopped,
}

/// Why members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead. Nothing was changed.
    #[error("This coordinator does not lead: {}", instead(leader))]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// Leadership was lost on the way: the change may come or not.
    #[error(
        "This coordinator lost its lead while the members were changed. Look at them, and ask again \
         if the change is not there"
    )]
    Unknown,
    /// Another change is under way, or the leader is new and has not yet committed anything.
    #[error("The members are being changed, or the leader is new. Ask again in a second")]
    Busy,
    /// No change, or two for one node.
    #[error("Give one change or several, each for another node")]
    Contradictory,
    /// The node is a member already.
    #[error("Node {node} is a member already")]
    Member {
        /// The node.
        node: NodeId,
    },
    /// The node is no member.
    #[error("Node {node} is no member")]
    NotMember {
        /// The node.
        node: NodeId,
    },
    /// Only a learner can get a vote.
    #[error("Node {node} is no learner. Add it as a learner first")]
    NotLearner {
        /// The node.
        node: NodeId,
    },
    /// The learner lacks too many entries: with its vote counted the log could stand still.
    #[error("Node {node} has not caught up, or can't be reached. Ask again when it has")]
    Behind {
        /// The node.
        node: NodeId,
    },
    /// Afterwards most voters would be such as have not answered lately.
    #[error(
        "After that most voters would be nodes that can't be reached, and the log would stand still. \
         Start them first, or remove those that are gone"
    )]
    Standstill,
    /// The leader can't be removed.
    #[error("The leader can't be removed. Stop it, and ask the next leader")]
    Leader,
    /// This log has one member and keeps nothing: it is that of an embedded farm.
    #[error("A farm of one process has no other members. Set up a cluster: slipway farm init")]
    Embedded,
    /// The log has stopped. What was under way may have happened or not.
    #[error("The log has stopped: start this coordinator again")]
    Stopped,
}

impl ChangeError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotLeader { .. } | Self::Unknown | Self::Stopped => Class::Unavailable,
            Self::Busy | Self::Behind { .. } | Self::Standstill => Class::Busy,
            Self::Contradictory
            | Self::Member { .. }
            | Self::NotMember { .. }
            | Self::NotLearner { .. }
            | Self::Leader
            | Self::Embedded => Class::User,
        }
    }
}
