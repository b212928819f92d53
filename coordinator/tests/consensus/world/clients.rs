//! Who wants something of the log, and what is made of the answers.

use super::World;
use crate::oracle::Violation;
use crate::tape::{Fact, encode};
use coordinator::raft::{Change, EntryId, Proposal, ProposeError, Token};

/// What a client wants.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub facts: Vec<Fact>,
    pub padding: usize,
    /// It may have happened.
    pub id: Option<EntryId>,
}

pub(super) enum Asked {
    Entries(Wish),
    Read { visible: usize },
    Change,
}

impl World {
    /// A client comes to some node, mostly to one that leads.
    pub fn client(&mut self) -> Result<(), Violation> {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.running(*at)).collect();
        let leading: Vec<usize> = running.iter().copied().filter(|at| self.leads(*at)).collect();
        let among = if self.chance.happens(100) { &running } else { &leading };
        let Some(at) = self.chance.one_of(among).copied() else { return Ok(()) };
        if self.chance.happens(300) {
            return self.read(at);
        }
        let old = !self.wishes.is_empty() && self.chance.happens(500);
        let wish = match old {
            true => self.wishes.remove(0),
            false => {
                let facts = (0..1 + self.chance.below(3)).map(|_| self.number()).collect();
                let padding = if self.chance.happens(30) { 60_000 } else { 0 };
                Wish { facts, padding, id: None }
            }
        };
        self.ask(at, wish);
        Ok(())
    }

    pub(super) fn ask(&mut self, at: usize, wish: Wish) {
        let token = Token(self.number());
        let entries = wish.facts.iter().map(|fact| encode(*fact, wish.padding)).collect();
        let proposal = Proposal::new(entries).expect("a small proposal");
        let proposal = match wish.id {
            Some(id) => {
                self.counts.again += 1;
                proposal.again(id)
            }
            None => proposal,
        };
        let node = &mut self.nodes[at];
        let Some(up) = &mut node.up else { return };
        up.driver.propose(token, proposal);
        self.asked.insert((node.id, token), Asked::Entries(wish));
    }

    fn read(&mut self, at: usize) -> Result<(), Violation> {
        let visible = self.oracle.visible();
        if self.faults.reads_at_once {
            return match self.leads(at) {
                true => self.has_read(at, visible),
                false => Ok(()),
            };
        }
        let token = Token(self.number());
        let node = &mut self.nodes[at];
        let Some(up) = &mut node.up else { return Ok(()) };
        up.driver.read(token);
        self.asked.insert((node.id, token), Asked::Read { visible });
        Ok(())
    }

    /// Asks the leader, if there is one, to change members.
    pub fn change(&mut self, changes: &[Change]) {
        let token = Token(self.number());
        let Some(at) = self.leading() else { return };
        let node = &mut self.nodes[at];
        let Some(up) = &mut node.up else { return };
        up.driver.change(token, changes.to_vec());
        self.asked.insert((node.id, token), Asked::Change);
    }

    /// Asks the leader, if there is one, to hand over the lead.
    pub fn resign(&mut self) {
        if let Some(at) = self.leading()
            && let Some(up) = &mut self.nodes[at].up
        {
            up.driver.resign();
        }
    }

    pub(super) fn compared(&self, at: usize) -> usize {
        self.nodes[at].up.as_ref().map_or(0, |up| up.compared)
    }

    pub(super) fn proposed(
        &mut self,
        at: usize,
        wish: Wish,
        result: Result<u64, ProposeError>,
    ) -> Result<(), Violation> {
        let again = self.chance.happens(700);
        match result {
            Ok(_) => {
                let applied = self.compared(at);
                return self.oracle.acknowledge(&wish.facts, applied);
            }
            Err(ProposeError::Unknown { id }) => {
                self.counts.unknown += 1;
                let id = wish.id.or(Some(id)).filter(|_| !self.faults.forgets_ids);
                if again {
                    self.wishes.push(Wish { id, ..wish });
                }
            }
            Err(_) if again => self.wishes.push(wish),
            Err(_) if wish.id.is_none() && !self.faults.forgets_ids => {
                self.oracle.refuse(&wish.facts);
            }
            Err(_) => {}
        }
        Ok(())
    }

    pub(super) fn has_read(&mut self, at: usize, visible: usize) -> Result<(), Violation> {
        self.counts.reads += 1;
        match self.compared(at) >= visible {
            true => Ok(()),
            false => Err(Violation::Stale { node: self.nodes[at].id }),
        }
    }
}
