//! Entries and changes of members, from the asking to the answer.
//!
//! Raft drops proposals for several reasons, under one name, and replaces a change of members by an
//! empty entry without a word. So each reason is looked at before, and what would be dropped waits or
//! is refused.

use super::id::{EntryId, Incarnation, NodeId};
use super::membership::{Change, Membership, Reach};
use super::output::{ChangeError, Output, ProposeError, Token};
use super::{Driver, Machine, Out, Store};
use proto::limit;
use raft::eraftpb::{ConfChangeV2, Entry, Message, MessageType};
use std::collections::{BTreeMap, VecDeque};

/// A learner that lacks at most so many entries can get a vote.
const PROMOTE_LAG: u64 = 1000;

/// Entries to be appended together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    entries: Vec<Vec<u8>>,
    id: Option<EntryId>,
}

impl Proposal {
    /// A proposal of these entries, in this order.
    pub fn new(entries: Vec<Vec<u8>>) -> Result<Self, ProposeError> {
        let too_large = |what, found, limit| Err(ProposeError::TooLarge { what, found, limit });
        let largest = entries.iter().map(Vec::len).max().ok_or(ProposeError::Empty)?;
        if largest > limit::LOG_ENTRY_BYTES_MAX {
            return too_large("An entry in bytes", largest, limit::LOG_ENTRY_BYTES_MAX);
        }
        if entries.len() > limit::LOG_PROPOSAL_ENTRIES_MAX {
            let limit = limit::LOG_PROPOSAL_ENTRIES_MAX;
            return too_large("A proposal in entries", entries.len(), limit);
        }
        let bytes = entries.iter().map(Vec::len).sum();
        if bytes > limit::LOG_PROPOSAL_BYTES_MAX {
            return too_large("A proposal in bytes", bytes, limit::LOG_PROPOSAL_BYTES_MAX);
        }
        Ok(Self { entries, id: None })
    }

    /// The same entries as in an earlier proposal, whose fate is unknown: those of them that were
    /// applied are not applied again.
    pub fn again(self, id: EntryId) -> Self {
        Self { id: Some(id), ..self }
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(Vec::len).sum()
    }

    pub(in crate::raft) fn into_parts(self) -> (Option<EntryId>, Vec<Vec<u8>>) {
        (self.id, self.entries)
    }
}

/// Who waits for a proposal to be applied.
#[derive(Debug)]
struct Waiting {
    token: Token,
    first: EntryId,
    entries: usize,
}

/// The change of members that is under way.
#[derive(Debug)]
struct Changing {
    token: Token,
    id: EntryId,
}

/// What was proposed and what is to be.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// The number of the last entry.
    last: u64,
    /// Not yet given to raft.
    queue: VecDeque<(Token, Proposal)>,
    queued_bytes: usize,
    /// Given to raft: by the id of the last entry.
    waiting: BTreeMap<EntryId, Vec<Waiting>>,
    in_flight: usize,
    asked: VecDeque<(Token, Vec<Change>)>,
    changing: Option<Changing>,
}

impl Proposals {
    fn next_id(&mut self, by: Incarnation, entries: usize) -> EntryId {
        let number = self.last + 1;
        self.last += entries as u64;
        EntryId { by, number }
    }

    /// An entry was applied: those whose last one it is have their answer.
    pub fn applied(&mut self, id: EntryId, index: u64, out: Out<'_>) {
        for Waiting { token, entries, .. } in self.waiting.remove(&id).unwrap_or_default() {
            self.in_flight -= entries;
            out(Output::Proposed { token, result: Ok(index) });
        }
    }

    /// An entry was refused: nobody can say any more whether it was applied before.
    pub fn refused(&mut self, id: EntryId, out: Out<'_>) {
        let with_it = |waiting: &Waiting| waiting.first <= id;
        // Of proposals that overlap, each has another last entry.
        for waiting in self.waiting.range_mut(id..).map(|(_, waiting)| waiting) {
            for Waiting { token, first, entries } in waiting.extract_if(.., |w| with_it(w)) {
                self.in_flight -= entries;
                out(Output::Proposed { token, result: Err(ProposeError::Unknown { id: first }) });
            }
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
    }

    /// Members were changed, by the entry that has this id.
    pub fn changed(&mut self, id: Option<EntryId>, result: Result<&Membership, ()>, out: Out<'_>) {
        let Some(changing) = &self.changing else { return };
        let result = match result {
            // It goes on by itself.
            Ok(members) if members.is_joint() => return,
            Ok(members) => Ok(members.clone()),
            Err(()) if id == Some(changing.id) => Err(ChangeError::Contradictory),
            Err(()) => return,
        };
        out(Output::Changed { token: changing.token, result });
        self.changing = None;
    }

    /// The lead was lost: nobody here will hear what becomes of what is under way.
    pub fn lose(&mut self, out: Out<'_>) {
        for Waiting { token, first, .. } in
            std::mem::take(&mut self.waiting).into_values().flatten()
        {
            let result = Err(ProposeError::Unknown { id: first });
            out(Output::Proposed { token, result });
        }
        self.in_flight = 0;
        if let Some(Changing { token, .. }) = self.changing.take() {
            out(Output::Changed { token, result: Err(ChangeError::Unknown) });
        }
    }

    /// Answers those whose question has not gone anywhere.
    fn turn_away(&mut self, leader: Option<NodeId>, out: Out<'_>) {
        self.queued_bytes = 0;
        for (token, _) in self.queue.drain(..) {
            out(Output::Proposed { token, result: Err(ProposeError::NotLeader { leader }) });
        }
        for (token, _) in self.asked.drain(..) {
            out(Output::Changed { token, result: Err(ChangeError::NotLeader { leader }) });
        }
    }
}

impl<S: Store, M: Machine> Driver<S, M> {
    /// Wants entries appended. Answered by [`Output::Proposed`].
    pub fn propose(&mut self, token: Token, proposal: Proposal) {
        self.proposals.queued_bytes += proposal.bytes();
        self.proposals.queue.push_back((token, proposal));
    }

    /// Wants members changed: several at once by way of a joint configuration, in which most of the
    /// old and most of the new voters have to agree. Answered by [`Output::Changed`].
    pub fn change(&mut self, token: Token, changes: Vec<Change>) {
        self.proposals.asked.push_back((token, changes));
    }

    /// Whether more questions may be asked. Else they had better wait where they are.
    pub fn has_room(&self) -> bool {
        self.proposals.queued_bytes < limit::LOG_BYTES_IN_FLIGHT_MAX
            && self.proposals.queue.len() < limit::LOG_ENTRIES_IN_FLIGHT_MAX
            && self.reads.len() < limit::LOG_ENTRIES_IN_FLIGHT_MAX
    }

    /// Gives raft what there is room for.
    pub(super) fn admit_proposals(&mut self, out: Out<'_>) {
        if !self.is_leader() {
            let leader = NodeId::new(self.raw.raft.leader_id);
            return self.proposals.turn_away(leader, out);
        }
        // Until the lead is handed over, or is not.
        if self.raw.raft.lead_transferee.is_some() {
            return;
        }
        while let Some((_, proposal)) = self.proposals.queue.front() {
            let (bytes, entries) = (proposal.bytes(), proposal.entries.len());
            let under_way = self.raw.raft.uncommitted_size();
            let fits = under_way == 0 || under_way + bytes <= limit::LOG_BYTES_IN_FLIGHT_MAX;
            let in_flight = self.proposals.in_flight;
            if !fits || in_flight > 0 && in_flight + entries > limit::LOG_ENTRIES_IN_FLIGHT_MAX {
                return;
            }
            self.proposals.queued_bytes -= bytes;
            let Some((token, proposal)) = self.proposals.queue.pop_front() else { return };
            self.append(token, proposal, out);
        }
    }

    fn append(&mut self, token: Token, proposal: Proposal, out: Out<'_>) {
        let (id, entries) = proposal.into_parts();
        let count = entries.len();
        let first = id.unwrap_or_else(|| self.proposals.next_id(self.me, count));
        let last = first.number.saturating_add(count as u64 - 1);
        // Nothing was ever proposed under that: it would be taken for what is proposed next.
        if first.by == self.me && last > self.proposals.last {
            let result = Err(ProposeError::Unknown { id: first });
            return out(Output::Proposed { token, result });
        }
        let nth = |n: u64| EntryId { number: first.number.saturating_add(n), ..first };
        let entry = |(n, data)| Entry { data, context: nth(n).to_bytes(), ..Entry::default() };
        let message = Message {
            msg_type: MessageType::MsgPropose as i32,
            from: self.me.node.get(),
            entries: (0..).zip(entries).map(entry).collect(),
            ..Message::default()
        };
        match self.raw.step(message) {
            Ok(()) => {
                let waiting = Waiting { token, first, entries: count };
                self.proposals.in_flight += count;
                self.proposals
                    .waiting
                    .entry(EntryId { number: last, ..first })
                    .or_default()
                    .push(waiting);
            }
            // It was not appended, for a reason that was not there a moment ago.
            Err(_) => {
                let result = Err(ProposeError::NotLeader { leader: None });
                out(Output::Proposed { token, result });
            }
        }
    }

    /// Gives raft a change of members.
    pub(super) fn admit_change(&mut self, out: Out<'_>) {
        while let Some((token, changes)) = self.proposals.asked.pop_front() {
            let id = self.proposals.next_id(self.me, 1);
            match self.plan_change(&changes).and_then(|plan| self.append_change(id, plan)) {
                Ok(()) => self.proposals.changing = Some(Changing { token, id }),
                Err(error) => out(Output::Changed { token, result: Err(error) }),
            }
        }
    }

    fn plan_change(&self, changes: &[Change]) -> Result<ConfChangeV2, ChangeError> {
        let (raft, members) = (&self.raw.raft, self.members());
        let busy = self.proposals.changing.is_some()
            || members.is_joint()
            || raft.has_pending_conf()
            || raft.lead_transferee.is_some();
        if busy || !self.is_settled_leader() {
            return Err(ChangeError::Busy);
        }
        let committed = raft.raft_log.committed;
        members.plan(self.me.node, changes, |node| match raft.prs().get(node.get()) {
            // A node that never answered counts as alive, and as having nothing.
            Some(progress) if !progress.recent_active || progress.matched == 0 => Reach::Silent,
            Some(progress) if progress.matched + PROMOTE_LAG >= committed => Reach::UpToDate,
            Some(_) => Reach::Behind,
            None => Reach::Silent,
        })
    }

    fn append_change(&mut self, id: EntryId, change: ConfChangeV2) -> Result<(), ChangeError> {
        let proposed = self.raw.propose_conf_change(id.to_bytes(), change);
        proposed.map_err(|_| ChangeError::Busy)
    }

    /// Ends a change of several members, whoever began it: the new configuration alone counts.
    pub(super) fn leave_joint(&mut self) {
        let raft = &self.raw.raft;
        if self.is_settled_leader() && !raft.has_pending_conf() && self.members().is_joint() {
            // When it is dropped, since the lead is being handed over, the next one does it.
            let _ = self.raw.propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
    }
}
