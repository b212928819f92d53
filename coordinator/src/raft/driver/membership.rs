//! Who has the log: voters, learners, and how they change.

use super::id::NodeId;
use super::output::ChangeError;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};
use std::collections::BTreeSet;

/// The members of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Whose votes count: most of them decide.
    pub voters: BTreeSet<NodeId>,
    /// Who gets all entries, and has no vote.
    pub learners: BTreeSet<NodeId>,
    /// While a change of several members is under way: who had votes before. Decisions need most of
    /// these too. Empty else.
    pub outgoing: BTreeSet<NodeId>,
}

/// One change of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new node gets all entries, without a vote.
    AddLearner(NodeId),
    /// A learner that has nearly all entries gets a vote.
    Promote(NodeId),
    /// A member that is not the leader is none any more, for good: its id never comes back.
    Remove(NodeId),
}

/// How a leader reaches another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It has not answered lately.
    Silent,
    /// It answers, and lacks many entries.
    Behind,
    /// It answers, and has nearly all entries.
    UpToDate,
}

impl Change {
    /// The node that it is about.
    pub fn node(self) -> NodeId {
        match self {
            Self::AddLearner(node) | Self::Promote(node) | Self::Remove(node) => node,
        }
    }
}

impl Membership {
    pub(super) fn of(state: &ConfState) -> Self {
        let nodes = |ids: &[u64]| ids.iter().filter_map(|id| NodeId::new(*id)).collect();
        Self {
            voters: nodes(&state.voters),
            // Voters never become learners, so that none wait to be one.
            learners: nodes(&state.learners),
            outgoing: nodes(&state.voters_outgoing),
        }
    }

    /// All members.
    pub fn all(&self) -> BTreeSet<NodeId> {
        [&self.voters, &self.learners, &self.outgoing].into_iter().flatten().copied().collect()
    }

    /// Whether a change of several members is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a node has no vote any more after a change.
    pub(super) fn loses_vote(&self, node: NodeId, change: &ConfChangeV2) -> bool {
        if change.leave_joint() {
            return !self.voters.contains(&node);
        }
        // Who is dropped by several changes together votes until the joint configuration is left.
        let dropped = |single: &ConfChangeSingle| {
            single.node_id == node.get() && single.change_type != ConfChangeType::AddNode as i32
        };
        change.enter_joint().is_none() && change.changes.iter().any(dropped)
    }

    /// Checks what `leader` is asked to change. `reach` says how it reaches the other members.
    pub(super) fn plan(
        &self,
        leader: NodeId,
        changes: &[Change],
        reach: impl Fn(NodeId) -> Reach,
    ) -> Result<ConfChangeV2, ChangeError> {
        let nodes: BTreeSet<NodeId> = changes.iter().map(|change| change.node()).collect();
        if changes.is_empty() || nodes.len() < changes.len() {
            return Err(ChangeError::Contradictory);
        }
        let members = self.all();
        for change in changes {
            match change {
                Change::AddLearner(node) if members.contains(node) => {
                    return Err(ChangeError::Member { node: *node });
                }
                Change::Promote(node) if !self.learners.contains(node) => {
                    return Err(ChangeError::NotLearner { node: *node });
                }
                Change::Promote(node) if reach(*node) != Reach::UpToDate => {
                    return Err(ChangeError::Behind { node: *node });
                }
                Change::Remove(node) if *node == leader => return Err(ChangeError::Leader),
                Change::Remove(node) if !members.contains(node) => {
                    return Err(ChangeError::NotMember { node: *node });
                }
                Change::AddLearner(_) | Change::Promote(_) | Change::Remove(_) => {}
            }
        }
        let voters = self.voters_after(changes);
        let answers = |node: &&NodeId| **node == leader || reach(**node) != Reach::Silent;
        match voters.iter().filter(answers).count() * 2 > voters.len() {
            true => Ok(encode(changes)),
            false => Err(ChangeError::Standstill),
        }
    }

    fn voters_after(&self, changes: &[Change]) -> BTreeSet<NodeId> {
        let mut voters = self.voters.clone();
        for change in changes {
            match change {
                Change::AddLearner(_) => {}
                Change::Promote(node) => {
                    voters.insert(*node);
                }
                Change::Remove(node) => {
                    voters.remove(node);
                }
            }
        }
        voters
    }
}

/// One change is made at once, several by way of a joint configuration.
fn encode(changes: &[Change]) -> ConfChangeV2 {
    let single = |change: &Change| {
        let kind = match change {
            Change::AddLearner(_) => ConfChangeType::AddLearnerNode,
            Change::Promote(_) => ConfChangeType::AddNode,
            Change::Remove(_) => ConfChangeType::RemoveNode,
        };
        ConfChangeSingle { change_type: kind as i32, node_id: change.node().get() }
    };
    // Raft can leave a joint configuration by itself, and says that it may forget to: so it is told.
    let transition = match changes.len() {
        1 => ConfChangeTransition::Auto,
        _ => ConfChangeTransition::Explicit,
    };
    let changes = changes.iter().map(single).collect();
    ConfChangeV2 { transition: transition as i32, changes, ..ConfChangeV2::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn members(voters: &[u64], learners: &[u64]) -> Membership {
        let set = |ids: &[u64]| ids.iter().map(|id| n(*id)).collect();
        Membership { voters: set(voters), learners: set(learners), outgoing: BTreeSet::new() }
    }

    #[test]
    fn a_vote_is_lost_with_the_last_configuration_that_has_it() {
        let loses = |members: &Membership, node, changes: &[Change]| {
            members.loses_vote(n(node), &encode(changes))
        };
        let alone = members(&[1, 2], &[]);
        assert!(loses(&alone, 1, &[Change::Remove(n(1))]));
        assert!(!loses(&alone, 1, &[Change::Remove(n(2))]));
        assert!(!loses(&alone, 1, &[Change::Remove(n(1)), Change::AddLearner(n(3))]));
        let joint = Membership { outgoing: alone.voters, ..members(&[2, 3], &[]) };
        assert!(joint.loses_vote(n(1), &ConfChangeV2::default()));
        assert!(!joint.loses_vote(n(2), &ConfChangeV2::default()));
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let reach = |node| if node == n(3) { Reach::UpToDate } else { Reach::Behind };
        let plan = |changes: &[Change]| {
            members(&[1, 2], &[3, 4]).plan(n(1), changes, reach).map(|c| c.changes.len())
        };
        use Change::{AddLearner, Promote, Remove};
        assert_eq!(plan(&[]), Err(ChangeError::Contradictory));
        assert_eq!(plan(&[AddLearner(n(5)), Remove(n(5))]), Err(ChangeError::Contradictory));
        assert_eq!(plan(&[AddLearner(n(4))]), Err(ChangeError::Member { node: n(4) }));
        assert_eq!(plan(&[Promote(n(2))]), Err(ChangeError::NotLearner { node: n(2) }));
        assert_eq!(plan(&[Promote(n(4))]), Err(ChangeError::Behind { node: n(4) }));
        assert_eq!(plan(&[Remove(n(1))]), Err(ChangeError::Leader));
        assert_eq!(plan(&[Remove(n(9))]), Err(ChangeError::NotMember { node: n(9) }));
        assert_eq!(plan(&[Promote(n(3)), Remove(n(2)), AddLearner(n(5))]), Ok(3));
    }

    #[test]
    fn most_voters_must_be_there_afterwards() {
        let reach = |node| if node == n(3) { Reach::Silent } else { Reach::UpToDate };
        let plan = |changes: &[Change]| members(&[1, 2, 3], &[4]).plan(n(1), changes, reach);
        assert_eq!(plan(&[Change::Remove(n(2))]), Err(ChangeError::Standstill));
        assert!(plan(&[Change::Remove(n(3))]).is_ok());
        assert!(plan(&[Change::Remove(n(2)), Change::Promote(n(4))]).is_ok());
    }
}
