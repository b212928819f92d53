//! What must be true whatever happens.

use crate::tape::Fact;
use coordinator::raft::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// What was not true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A term had two leaders.
    TwoLeaders { term: u64 },
    /// A node applied something else than another one, or in another order.
    Diverged { node: NodeId, position: usize },
    /// An entry was applied twice.
    Doubled { fact: Fact },
    /// An entry was acknowledged that was not applied where it was acknowledged, or is gone.
    Lost { fact: Fact },
    /// A read did not see what was acknowledged before it.
    Stale { node: NodeId },
    /// An entry is there that was said to be appended nowhere.
    Undead { fact: Fact },
    /// Raft found something that can't be.
    Panicked { what: String },
    /// With everything well again the log stood still.
    Stuck { why: &'static str },
}

/// All that is known of what happened.
#[derive(Debug, Default)]
pub struct Oracle {
    leaders: BTreeMap<u64, NodeId>,
    /// What is committed, for good.
    history: Vec<(u64, Fact)>,
    places: BTreeMap<Fact, usize>,
    acknowledged: BTreeSet<Fact>,
    /// How much of the history was acknowledged.
    visible: usize,
    refused: BTreeSet<Fact>,
}

impl Oracle {
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// Whether some node has applied it.
    pub fn has(&self, fact: Fact) -> bool {
        self.places.contains_key(&fact)
    }

    pub fn facts(&self) -> usize {
        self.history.len()
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub fn leads(&mut self, node: NodeId, term: u64) -> Result<(), Violation> {
        match *self.leaders.entry(term).or_insert(node) {
            first if first != node => Err(Violation::TwoLeaders { term }),
            _ => Ok(()),
        }
    }

    /// A node has applied this, from that position on.
    pub fn applied(
        &mut self,
        node: NodeId,
        from: usize,
        facts: &[(u64, Fact)],
    ) -> Result<(), Violation> {
        for (position, (index, fact)) in (from..).zip(facts) {
            match self.history.get(position) {
                Some(known) if known == &(*index, *fact) => {}
                Some(_) => return Err(Violation::Diverged { node, position }),
                None => {
                    if self.places.insert(*fact, position).is_some() {
                        return Err(Violation::Doubled { fact: *fact });
                    }
                    self.history.push((*index, *fact));
                }
            }
        }
        Ok(())
    }

    /// These were acknowledged by a node that has applied so much of the history.
    pub fn acknowledge(&mut self, facts: &[Fact], applied: usize) -> Result<(), Violation> {
        for fact in facts {
            match self.places.get(fact) {
                Some(place) if *place < applied => self.visible = self.visible.max(place + 1),
                _ => return Err(Violation::Lost { fact: *fact }),
            }
            self.acknowledged.insert(*fact);
        }
        Ok(())
    }

    /// These were said to be appended nowhere, and are not tried again.
    pub fn refuse(&mut self, facts: &[Fact]) {
        self.refused.extend(facts);
    }

    /// How much of the history a read must see that begins now.
    pub fn visible(&self) -> usize {
        self.visible
    }

    /// At the end, when all nodes have applied everything.
    pub fn check_end(&self, nodes: &[(NodeId, Vec<(u64, Fact)>)]) -> Result<(), Violation> {
        for (node, facts) in nodes {
            if *facts != self.history {
                return Err(Violation::Diverged { node: *node, position: facts.len() });
            }
        }
        if let Some(fact) = self.acknowledged.iter().find(|fact| !self.places.contains_key(fact)) {
            return Err(Violation::Lost { fact: *fact });
        }
        match self.refused.iter().find(|fact| self.places.contains_key(fact)) {
            Some(fact) => Err(Violation::Undead { fact: *fact }),
            None => Ok(()),
        }
    }
}
