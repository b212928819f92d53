//! Leases of an earlier life of the coordinator: workers go on with them, and they belong to steps
//! again as soon as it is known what those make.

use super::event::Effect;
use super::facts::Leased;
use super::work::Phase;
use super::{Core, Turn, WorkId};
use proto::id::{ContentKey, LeaseEpoch, Millis, Scope, WorkerId};
use std::collections::BTreeMap;

/// How long leases wait for their steps once all builds are known again, in milliseconds.
const WAIT_MS: u64 = 120_000;

/// Leases whose steps are not known again yet.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    leases: BTreeMap<LeaseEpoch, Leased>,
    by_content: BTreeMap<(Scope, ContentKey), LeaseEpoch>,
    /// When those that are left are given up.
    until: Option<Millis>,
}

impl Orphans {
    /// Those that are written down.
    pub fn new(leases: &BTreeMap<LeaseEpoch, Leased>) -> Self {
        let content = leases.iter().map(|(epoch, l)| ((l.scope.clone(), l.key), *epoch)).collect();
        Self { leases: leases.clone(), by_content: content, until: None }
    }

    /// All builds are known again.
    pub fn resumed(&mut self, now: Millis) {
        self.until = Some(Millis(now.0 + WAIT_MS));
    }

    /// When those that are left are given up, if there are any.
    pub fn timeout(&self) -> Option<Millis> {
        self.until.filter(|_| !self.leases.is_empty())
    }

    /// The lease under which this content is being made.
    pub fn find(&self, scope: &Scope, key: ContentKey) -> Option<(LeaseEpoch, &WorkerId)> {
        let epoch = self.by_content.get(&(scope.clone(), key))?;
        Some((*epoch, &self.leases[epoch].worker))
    }

    /// Whether the lease is one of them.
    pub fn has(&self, epoch: LeaseEpoch) -> bool {
        self.leases.contains_key(&epoch)
    }

    /// Whether a worker has one of a scope.
    pub fn has_of(&self, worker: &WorkerId, scope: &Scope) -> bool {
        self.leases.values().any(|leased| leased.worker == *worker && leased.scope == *scope)
    }

    /// Those of one worker.
    pub fn of<'o>(&'o self, worker: &'o WorkerId) -> impl Iterator<Item = LeaseEpoch> + 'o {
        let own = self.leases.iter().filter(move |(_, leased)| leased.worker == *worker);
        own.map(|(epoch, _)| *epoch)
    }

    /// Takes one out.
    pub fn take(&mut self, epoch: LeaseEpoch) -> Option<Leased> {
        let leased = self.leases.remove(&epoch)?;
        let content = (leased.scope.clone(), leased.key);
        if self.by_content.get(&content) == Some(&epoch) {
            self.by_content.remove(&content);
        }
        Some(leased)
    }
}

impl Core {
    /// The row whose content a lease of an earlier life makes, if it waits for that.
    fn claimant(&self, leased: &Leased) -> Option<WorkId> {
        self.by_content.get(&(leased.scope.clone(), leased.key)).copied()
    }

    /// Rows that waited for a worker to come back are looked at again.
    pub(super) fn call_claimants(&self, turn: &mut Turn<'_>, worker: &WorkerId) {
        let leases = self.orphans.of(worker).map(|epoch| &self.orphans.leases[&epoch]);
        turn.queue.extend(leases.filter_map(|leased| self.claimant(leased)));
    }

    /// Leases of an earlier life end without a step.
    pub(super) fn drop_orphans(&mut self, turn: &mut Turn<'_>, epochs: Vec<LeaseEpoch>) {
        for epoch in epochs {
            let Some(leased) = self.orphans.take(epoch) else { continue };
            turn.out.push(Effect::Released { epoch });
            turn.queue.extend(self.claimant(&leased));
        }
    }

    /// What nobody has asked for again is stopped.
    pub(super) fn expire_orphans(&mut self, turn: &mut Turn<'_>) {
        if self.orphans.timeout().is_none_or(|until| until > turn.now) {
            return;
        }
        let all: Vec<LeaseEpoch> = self.orphans.leases.keys().copied().collect();
        let workers: Vec<WorkerId> = self.workers.iter().cloned().collect();
        self.drop_orphans(turn, all);
        workers.iter().for_each(|worker| self.desire(turn, worker));
    }

    /// A row that could begin is under way already, by a lease of an earlier life: it takes that
    /// one. Answers whether it is so, or will be when its worker comes back.
    pub(super) fn adopt(&mut self, turn: &mut Turn<'_>, id: WorkId) -> bool {
        let work = &self.works[&id];
        let Phase::Ready(job) = &work.phase else { return false };
        let Some((epoch, worker)) = self.orphans.find(&work.plan.scope, job.key) else {
            return false;
        };
        let (worker, job) = (worker.clone(), job.clone());
        if !self.workers.contains(&worker) {
            return true;
        }
        self.orphans.take(epoch);
        let inputs = job.inputs.clone();
        self.name_beneficiary(id);
        let demand = self.demand(id, inputs);
        self.placer.adopt(turn.now, id, &demand, &worker);
        self.lease_to(turn, id, worker.clone(), epoch);
        self.desire(turn, &worker);
        true
    }
}
