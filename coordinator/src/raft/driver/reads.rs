//! Reads that see all that was acknowledged before them, by raft's ReadIndex: the leader notes how
//! far the log is committed, makes sure by a heartbeat that it still leads, and answers when it has
//! applied that far.
//!
//! * Raft drops such a question without a word while the leader has not committed an entry of its
//!   term. So it is asked later.
//! * Raft counts the heartbeats' answers by the context of the question. One that is used twice may
//!   be answered by what was sent for the first time, and the read be stale. So a context is used
//!   once in the life of the cluster, and questions from other members are not taken
//!   ([`inbound`](super::inbound)).
//! * Raft forgets the questions when the leader steps down. So they are answered then.

use super::id::{EntryId, NodeId};
use super::output::{Output, ReadError, Token};
use super::{Driver, Machine, Out, Store};
use raft::ReadState;
use std::collections::{BTreeMap, VecDeque};

/// Who wants to read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The number of the last question.
    last: u64,
    new: Vec<Token>,
    /// Asked of raft: by the number of the question.
    asked: BTreeMap<u64, Vec<Token>>,
    /// Confirmed: to be answered when that index is applied.
    confirmed: VecDeque<(u64, Vec<Token>)>,
}

impl Reads {
    /// How many wait.
    pub fn len(&self) -> usize {
        let asked: usize = self.asked.values().map(Vec::len).sum();
        self.new.len() + asked
    }

    /// The lead was lost.
    pub fn lose(&mut self, leader: Option<NodeId>, out: Out<'_>) {
        let lost = std::mem::take(&mut self.asked).into_values().flatten();
        lost.for_each(|token| turn_away(token, leader, out));
    }

    /// Raft has confirmed some.
    pub fn confirm(&mut self, states: Vec<ReadState>) {
        for ReadState { index, request_ctx } in states {
            let number = EntryId::from_bytes(&request_ctx).map(|id| id.number);
            if let Some(tokens) = number.and_then(|number| self.asked.remove(&number)) {
                self.confirmed.push_back((index, tokens));
            }
        }
    }

    /// Answers those who waited for this index to be applied.
    pub fn applied(&mut self, index: u64, out: Out<'_>) {
        // Indices rise: commits do.
        while self.confirmed.front().is_some_and(|(needed, _)| *needed <= index) {
            let (_, tokens) = self.confirmed.pop_front().unwrap_or_default();
            let answer = |token| out(Output::Readable { token, result: Ok(index) });
            tokens.into_iter().for_each(answer);
        }
    }
}

fn turn_away(token: Token, leader: Option<NodeId>, out: Out<'_>) {
    out(Output::Readable { token, result: Err(ReadError::NotLeader { leader }) });
}

impl<S: Store, M: Machine> Driver<S, M> {
    /// Wants to know when everything that was acknowledged until now is applied here. Answered by
    /// [`Output::Readable`].
    pub fn read(&mut self, token: Token) {
        self.reads.new.push(token);
    }

    /// Asks raft: one question for all who came together.
    pub(super) fn admit_reads(&mut self, out: Out<'_>) {
        if self.reads.new.is_empty() {
            return;
        }
        if !self.is_leader() {
            let leader = NodeId::new(self.raw.raft.leader_id);
            let tokens = std::mem::take(&mut self.reads.new);
            tokens.into_iter().for_each(|token| turn_away(token, leader, out));
            return;
        }
        if !self.is_settled_leader() {
            return;
        }
        self.reads.last += 1;
        let number = self.reads.last;
        let known = |raft: &raft::Raft<_>| raft.pending_read_count() + raft.ready_read_count();
        let before = known(&self.raw.raft);
        self.raw.read_index(EntryId { by: self.me, number }.to_bytes());
        if known(&self.raw.raft) > before {
            let tokens = std::mem::take(&mut self.reads.new);
            self.reads.asked.insert(number, tokens);
        }
    }
}
