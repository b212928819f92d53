//! Who leads, and what follows from its changing.

use super::chance::Chance;
use super::output::{Leadership, Output, Role};
use super::{Driver, membership::Membership};
use super::{DriverError, ELECTION_TICKS, Machine, NodeId, Out, Store};
use raft::StateRole;
use raft::eraftpb::ConfChangeV2;

/// What this node last said of who leads, and how long it waits for a leader.
pub(super) struct Election {
    chance: Chance,
    timeout: usize,
    pub known: Leadership,
}

impl Election {
    pub fn new(seed: u64) -> Self {
        let known = Leadership { term: 0, role: Role::Follower, leader: None };
        let mut election = Self { chance: Chance::new(seed), timeout: 0, known };
        election.draw();
        election
    }

    /// Ticks after which a node that hears of no leader asks for votes. Raft draws its own from the
    /// thread's generator, which no seed reaches; this takes its place before each tick.
    pub fn timeout(&self) -> usize {
        self.timeout
    }

    fn draw(&mut self) {
        self.timeout = self.chance.within(ELECTION_TICKS..2 * ELECTION_TICKS);
    }
}

impl<S: Store, M: Machine> Driver<S, M> {
    /// Who leads now.
    pub fn leadership(&self) -> Leadership {
        let raft = &self.raw.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        Leadership { term: raft.term, role, leader: NodeId::new(raft.leader_id) }
    }

    /// Sees to what follows from a change of leader.
    pub(super) fn settle(&mut self, out: Out<'_>) {
        let (before, now) = (self.election.known, self.leadership());
        if before == now {
            return;
        }
        self.election.known = now;
        self.election.draw();
        if before.role == Role::Leader && (now.role != Role::Leader || now.term != before.term) {
            self.proposals.lose(out);
            self.reads.lose(now.leader, out);
            self.snapshots.clear();
        }
        out(Output::Leadership(now));
    }

    /// The only voter need not wait for anybody. Whether it stood for election.
    pub(super) fn stand_alone(&mut self) -> Result<bool, DriverError> {
        let Membership { voters, outgoing, .. } = self.members();
        let alone = outgoing.is_empty() && voters.iter().eq([&self.me.node]);
        if self.is_leader() || !alone {
            return Ok(false);
        }
        self.raw.campaign().map_err(|error| DriverError::raft(&error))?;
        Ok(self.is_leader())
    }

    /// A leader whose predecessor began to remove it stops leading when it comes to that. Raft lets it
    /// lead on, and panics with its next commit.
    pub(super) fn step_down_before(&mut self, change: &ConfChangeV2) {
        if self.is_leader() && self.members().loses_vote(self.me.node, change) {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Hands the lead to the voter that has most of the log, so that the log does not stand still
    /// until this one is missed. Whether there is anybody to take it; who asked waits until this node
    /// does not lead any more, but not for long.
    pub fn resign(&mut self) -> bool {
        let raft = &self.raw.raft;
        let voters = self.members().voters;
        let alive = raft.prs().iter().filter(|(_, progress)| progress.recent_active);
        let alive = alive.filter_map(|(id, progress)| Some((NodeId::new(*id)?, progress.matched)));
        let others = alive.filter(|(id, _)| *id != self.me.node && voters.contains(id));
        // The order of raft's map is nobody's business.
        let best = others.max_by_key(|(id, matched)| (*matched, std::cmp::Reverse(*id)));
        match best {
            Some((node, _)) if self.is_leader() => {
                self.raw.transfer_leader(node.get());
                true
            }
            _ => false,
        }
    }
}
