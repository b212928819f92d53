//! The workers and what they do, for people. Nothing of this is needed to decide.

use super::{Placer, State};
use crate::core::WorkId;
use proto::id::{Millis, WorkerId};
use proto::wire::worker::Capacity;

/// A worker that is there, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Who it is.
    pub id: WorkerId,
    /// What it said last.
    pub capacity: Capacity,
    /// Whether an operator wants that it gets nothing new.
    pub cordoned: bool,
    /// Slots that RUNs have.
    pub slots_used: u32,
    /// Pulls and downloads that it does.
    pub fetches: u32,
    /// Bytes of memory that what runs was given.
    pub memory_taken: u64,
}

impl Placer {
    /// The workers that are there, by name.
    pub fn workers(&self) -> Vec<WorkerView> {
        let view = |worker: &super::worker::Worker| {
            let (mut slots_used, mut fetches, mut memory_taken) = (0, 0, 0u64);
            for (_, running) in &worker.running {
                slots_used += running.taken.slots;
                fetches += running.taken.connections;
                memory_taken = memory_taken.saturating_add(running.taken.memory_bytes);
            }
            // Of a worker that does not say how much it has nobody knows what is taken.
            let is_known = worker.capacity.memory_bytes > 0;
            WorkerView {
                id: worker.id.clone(),
                capacity: worker.capacity.clone(),
                cordoned: worker.cordoned,
                slots_used,
                fetches,
                memory_taken: if is_known { memory_taken } else { 0 },
            }
        };
        let mut all: Vec<WorkerView> = self.fleets.workers.iter().map(|(_, w)| view(w)).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Since when work is being done, if it is.
    pub fn running_since(&self, work: WorkId) -> Option<Millis> {
        match self.items[*self.by_work.get(&work)?].state {
            State::Running { began, .. } => Some(began),
            State::Queued | State::Misfit | State::Parked { .. } => None,
        }
    }

    /// Since when work could begin, whether it has or not.
    pub fn ready_since(&self, work: WorkId) -> Option<Millis> {
        Some(self.items[*self.by_work.get(&work)?].since)
    }
}
