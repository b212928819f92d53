//! What is under way, for whoever looks from outside. Nothing of this is needed to decide.

use super::place::WorkerView;
use super::{AliasHit, Core, Waits, WorkId};
use proto::id::{BuildId, LeaseEpoch, Millis, WorkerId};
use proto::record::Record;
use proto::step::StepId;

/// A step that a worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// Its lease.
    pub epoch: LeaseEpoch,
    /// Who has it.
    pub worker: WorkerId,
    /// Since when.
    pub since: Millis,
    /// The builds that wait for it, and which of their steps it is.
    pub steps: Vec<(BuildId, StepId)>,
    /// Its name in one of them.
    pub name: String,
}

impl Core {
    /// The workers that are there, by name.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.placer.workers()
    }

    /// What workers do, in the order in which they were given it.
    pub fn running(&self) -> Vec<Runs> {
        let runs = |(worker, epoch): &(WorkerId, LeaseEpoch)| {
            let id = *self.leases.get(epoch)?;
            let work = self.works.get(&id)?;
            Some(Runs {
                epoch: *epoch,
                worker: worker.clone(),
                since: self.placer.running_since(id).or(work.started)?,
                steps: self.steps_of(id),
                name: work.definition().name.clone(),
            })
        };
        let mut all: Vec<Runs> = self.held.iter().filter_map(runs).collect();
        all.sort_by_key(|runs| runs.epoch);
        all
    }

    /// How many steps a worker has, those of an earlier life of the coordinator among them.
    pub fn steps_at(&self, worker: &WorkerId) -> usize {
        let from = (worker.clone(), LeaseEpoch(0));
        let held = self.held.range(from..).take_while(|(w, _)| w == worker).count();
        held + self.orphans.of(worker).count()
    }

    /// Since when a row could begin, and what it is called in one of its builds.
    pub fn waits_for(&self, waits: &Waits) -> Option<(Millis, String)> {
        let since = self.placer.ready_since(waits.work)?;
        Some((since, self.works.get(&waits.work)?.definition().name.clone()))
    }

    /// The records that the steps of a build have come to, of those that were looked at.
    pub fn records(&self, build: &BuildId) -> Vec<(StepId, AliasHit)> {
        let Some(build) = self.builds.get(build) else { return Vec::new() };
        let record = |(index, id): (usize, &WorkId)| {
            let work = &self.works[id];
            let (made, alias) = (work.made()?, work.found.clone()?);
            let record = Record {
                layers: made.layers.clone(),
                created: made.created,
                log: None,
                cost: work.cost,
                producer: made.producer.clone(),
                version: made.version?,
            };
            Some((StepId(index as u32), AliasHit { alias, record }))
        };
        build.works.iter().enumerate().filter_map(record).collect()
    }

    /// The builds that need a row or one that follows it, and which of their steps it is.
    pub(super) fn steps_of(&self, id: WorkId) -> Vec<(BuildId, StepId)> {
        let Some(work) = self.works.get(&id) else { return Vec::new() };
        let rows = work.followers.iter().filter_map(|f| self.works.get(f)).chain([work]);
        let steps = rows.flat_map(|row| {
            let wanted = row.wanted.keys();
            wanted.filter_map(|build| Some((build.clone(), *row.members.get(build)?)))
        });
        steps.collect()
    }
}
