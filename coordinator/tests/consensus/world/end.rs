//! After all trouble: whether the log goes on, and what it has come to.

use super::clients::{Asked, Wish};
use super::{Faults, TICK, World};
use crate::oracle::Violation;

impl World {
    /// Everything is well again: then the log goes on, and all nodes come to the same.
    pub fn end(&mut self) -> Result<(), Violation> {
        let Faults { honesty, reads_at_once, forgets_ids, .. } = self.faults;
        self.faults = Faults { honesty, reads_at_once, forgets_ids, ..Faults::NONE };
        self.cuts.clear();
        self.nodes.iter_mut().for_each(|node| node.idle_until = 0);
        let mut last = None;
        for _ in 0..2000 * TICK {
            self.step()?;
            if last.is_some_and(|fact| self.oracle.has(fact)) {
                let alike = |at| self.compared(at) == self.oracle.facts();
                if self.asked.is_empty() && (0..self.nodes.len()).all(alike) {
                    return self.finish();
                }
                continue;
            }
            let waits = self.asked.values().any(|asked| match asked {
                Asked::Entries(wish) => Some(wish.facts[0]) == last,
                _ => false,
            });
            if !waits && let Some(at) = (0..self.nodes.len()).find(|at| self.leads(*at)) {
                let fact = self.number();
                last = Some(fact);
                self.ask(at, Wish { facts: vec![fact], padding: 0, id: None });
            }
        }
        match self.asked.is_empty() {
            true => Err(Violation::Stuck { why: "there is no agreement" }),
            false => Err(Violation::Stuck { why: "somebody was not answered" }),
        }
    }

    fn finish(&mut self) -> Result<(), Violation> {
        let tapes = self.nodes.iter().filter_map(|node| {
            let up = node.up.as_ref()?;
            Some((node.id, up.tape.read(|tape| tape.facts.clone())))
        });
        self.counts.terms = self.oracle.terms();
        self.counts.facts = self.oracle.facts();
        self.counts.acknowledged = self.oracle.acknowledged();
        self.oracle.check_end(&tapes.collect::<Vec<_>>())
    }
}
