//! Workers and leases: who may do what.

use super::event::{Effect, Notice, Trouble};
use super::facts::Leased;
use super::place::InputId;
use super::work::{Job, Phase};
use super::{Core, Turn, WorkId};
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch, Scope, WorkerId};
use proto::limit;
use proto::step::{Op, StepId};
use proto::wire::build::Traffic;
use proto::wire::worker::{Capacity, Lease, Outcome, Report, Task};
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// A worker says what it is doing; it is told what it should be doing when that differs.
    pub(super) fn worker(
        &mut self,
        turn: &mut Turn<'_>,
        worker: WorkerId,
        capacity: Capacity,
        running: Vec<LeaseEpoch>,
        reports: Vec<Report>,
    ) {
        let new = self.workers.insert(worker.clone());
        self.placer.worker(&worker, capacity);
        if new {
            self.call_claimants(turn, &worker);
        }
        // A report for a lease whose step is not known again yet is said once more later.
        let reports: Vec<Report> =
            reports.into_iter().filter(|r| !self.orphans.has(r.epoch)).collect();
        let reported = !reports.is_empty();
        for report in reports {
            self.reported(turn, &worker, report);
        }
        let wanted: BTreeSet<LeaseEpoch> = self.leases_of(&worker).map(|(e, _)| e).collect();
        let mut does: BTreeSet<LeaseEpoch> = running.into_iter().collect();
        does.retain(|epoch| !self.orphans.has(*epoch));
        if new || reported || wanted != does {
            self.desire(turn, &worker);
        }
    }

    fn leases_of(&self, worker: &WorkerId) -> impl Iterator<Item = (LeaseEpoch, WorkId)> {
        let from = (worker.clone(), LeaseEpoch(0));
        let held = self.held.range(from..).take_while(move |(w, _)| w == worker);
        held.map(|(_, epoch)| (*epoch, self.leases[epoch]))
    }

    fn reported(&mut self, turn: &mut Turn<'_>, worker: &WorkerId, report: Report) {
        // A lease that was given to somebody else since, or was taken back, is not this worker's.
        let Some(id) = self.leases.get(&report.epoch).copied() else { return };
        let Some(work) = self.works.get_mut(&id) else { return };
        let Phase::Leased(job, _, holder) = &work.phase else { return };
        if holder != worker {
            return;
        }
        let job = job.clone();
        work.cost = report.cost;
        // Whatever comes of it, it is not leased any more.
        work.phase = Phase::Blocked;
        if matches!(report.outcome, Outcome::Done(_)) {
            self.learn(id, &report.cost);
        }
        self.moved(turn, id, report.traffic);
        self.drop_lease(turn, id, worker, report.epoch);
        self.caches_are_at(id, worker);
        match report.outcome {
            Outcome::Done(layers) => {
                layers.iter().for_each(|layer| self.placer.holds(worker, InputId::tree(layer)));
                let by = Some((worker.clone(), report.epoch));
                self.made(turn, id, Some(job.key), layers, by);
            }
            Outcome::Failed(failure) => self.failed(turn, id, job, failure),
            Outcome::Lost(what) => self.trouble(turn, id, Trouble::Lost(what)),
            Outcome::Stopped => self.again(turn, id, job, "It was stopped by its worker"),
        }
    }

    /// Bytes were moved for a row: each build that takes what comes out of it is told so, once.
    pub(super) fn moved(&self, turn: &mut Turn<'_>, id: WorkId, traffic: Traffic) {
        if traffic == Traffic::default() {
            return;
        }
        let steps: BTreeMap<BuildId, StepId> = self.steps_of(id).into_iter().collect();
        for (build, step) in steps {
            turn.out.push(Effect::Notify { build, step, notice: Notice::Moved(traffic) });
        }
    }

    fn drop_lease(
        &mut self,
        turn: &mut Turn<'_>,
        id: WorkId,
        worker: &WorkerId,
        epoch: LeaseEpoch,
    ) {
        turn.out.push(Effect::Released { epoch });
        self.placer.ended(turn.now, id);
        self.leases.remove(&epoch);
        self.held.remove(&(worker.clone(), epoch));
    }

    /// A worker could not do a row. If that may be because of what the client has that was asked, only
    /// that client's build fails, and the row is tried with the client of the next one.
    fn failed(&mut self, turn: &mut Turn<'_>, id: WorkId, job: Job, failure: Failure) {
        let asked = self.works[&id].asked.clone();
        let is_other = |build: &BuildId| Some(build) != asked.as_ref() && self.lives(build);
        let others = self.steps_of(id).iter().any(|(build, _)| is_other(build));
        let Some(asked) = asked.filter(|_| others && self.works[&id].hangs_on_client()) else {
            return self.fail(turn, id, failure);
        };
        self.make_ready(turn, id, job);
        let is_asked = |row: &WorkId| self.works[row].wanted.contains_key(&asked);
        let row = self.rows_of(id).find(is_asked).filter(|_| self.lives(&asked));
        if let Some(row) = row {
            self.notify_one(turn, row, &asked, Notice::Failed(failure.clone()));
            self.fail_build(turn, &asked, Some(row), failure);
        }
        let why = "It failed with the ssh agent of another build's client";
        self.notify(turn, id, &Notice::Again(why.to_owned()));
    }

    /// A lease ended without a result: the step goes to another worker, but not for ever.
    fn again(&mut self, turn: &mut Turn<'_>, id: WorkId, job: Job, why: &str) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.lost += 1;
        if work.lost > limit::REWINDS_MAX {
            let message = format!("{why}, {} times in a row", work.lost);
            self.fail(turn, id, Failure::new(Class::Unavailable, message));
            return;
        }
        self.make_ready(turn, id, job);
        self.notify(turn, id, &Notice::Again(why.to_owned()));
    }

    pub(super) fn worker_lost(&mut self, turn: &mut Turn<'_>, worker: &WorkerId) {
        let held: Vec<(LeaseEpoch, WorkId)> = self.leases_of(worker).collect();
        self.workers.remove(worker);
        self.placer.worker_gone(turn.now, worker);
        let orphans = self.orphans.of(worker).collect();
        self.drop_orphans(turn, orphans);
        for (epoch, id) in held {
            self.drop_lease(turn, id, worker, epoch);
            if let Phase::Leased(job, ..) = &self.works[&id].phase {
                let job = job.clone();
                self.again(turn, id, job, "Its worker was lost");
            }
        }
    }

    /// Takes a lease back. The row could begin again, and does not wait for that yet.
    pub(super) fn revoke(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if let Phase::Leased(job, epoch, worker) = &work.phase {
            let (job, epoch, worker) = (job.clone(), *epoch, worker.clone());
            work.phase = Phase::Ready(job);
            self.drop_lease(turn, id, &worker, epoch);
            self.desire(turn, &worker);
        }
    }

    pub(super) fn desire(&self, turn: &mut Turn<'_>, worker: &WorkerId) {
        let lease = |(epoch, id): (LeaseEpoch, WorkId)| self.lease(epoch, id);
        let leases = self.leases_of(worker).filter_map(lease).collect();
        let keep = self.orphans.of(worker).collect();
        turn.out.push(Effect::Desire { worker: worker.clone(), leases, keep });
    }

    fn lease(&self, epoch: LeaseEpoch, id: WorkId) -> Option<Lease> {
        let work = &self.works[&id];
        let Phase::Leased(job, ..) = &work.phase else { return None };
        let step = work.definition();
        let task = match (&step.op, &job.run) {
            (Op::Run(_), Some(run)) => Task::Run(run.clone()),
            (Op::Image(image), _) => Task::Image(image.clone()),
            (Op::Http(http), _) => Task::Http(http.clone()),
            (Op::Git(git), _) => Task::Git(git.clone()),
            _ => return None,
        };
        let build = self.asker(id)?;
        // Who runs the core knows where workers are.
        let peers = Vec::new();
        Some(Lease {
            epoch,
            build,
            task,
            needs: step.needs,
            platform: step.platform.clone(),
            peers,
        })
    }

    /// A row, and those that follow it.
    fn rows_of(&self, id: WorkId) -> impl Iterator<Item = WorkId> {
        [id].into_iter().chain(self.works[&id].followers.iter().copied())
    }

    /// The build whose client is asked for secrets and logins: the oldest that needs the row or
    /// one of its followers. It stays the same as long as that one does.
    fn asker(&self, id: WorkId) -> Option<BuildId> {
        let asked = self.works[&id].asked.as_ref();
        let builds = self.rows_of(id).flat_map(|row| self.works[&row].wanted.keys());
        builds.min_by_key(|build| (!self.lives(build), Some(*build) != asked)).cloned()
    }

    /// Whether a worker has a lease of a step of a build of which `is` says that it is one. Any
    /// lease of an earlier life in the build's scope counts for as long as nobody knows its step.
    pub fn has_lease(
        &self,
        worker: &WorkerId,
        build: &BuildId,
        scope: &Scope,
        is: impl Fn(&Op) -> bool,
    ) -> bool {
        let is_it = |(_, id): (LeaseEpoch, WorkId)| {
            is(self.works[&id].op()) && self.steps_of(id).iter().any(|(of, _)| of == build)
        };
        self.leases_of(worker).any(is_it) || self.orphans.has_of(worker, scope)
    }

    /// Gives what is ready to workers that are free.
    pub(super) fn place(&mut self, turn: &mut Turn<'_>) {
        self.queue(turn);
        let mut changed = BTreeSet::new();
        while let Some((id, worker)) = self.placer.next(turn.now) {
            self.last_epoch = self.last_epoch.max(turn.now.0) + 1;
            let epoch = LeaseEpoch(self.last_epoch);
            let work = &self.works[&id];
            let Phase::Ready(job) = &work.phase else { unreachable!("it was ready: {work:?}") };
            let (worker_, scope, key) = (worker.clone(), work.plan.scope.clone(), job.key);
            let leased = Leased { worker: worker_, scope, key, at: turn.now };
            let since = self.placer.ready_since(id).unwrap_or(turn.now);
            let waited_ms = turn.now.since(since);
            turn.out.push(Effect::Granted { epoch, leased, waited_ms });
            self.lease_to(turn, id, worker.clone(), epoch);
            changed.insert(worker);
        }
        changed.iter().for_each(|worker| self.desire(turn, worker));
    }

    /// A row is leased from now on.
    pub(super) fn lease_to(
        &mut self,
        turn: &mut Turn<'_>,
        id: WorkId,
        worker: WorkerId,
        epoch: LeaseEpoch,
    ) {
        let asked = self.asker(id);
        let work = self.works.get_mut(&id).expect("what waits is in the table");
        work.asked = asked;
        let Phase::Ready(job) = &work.phase else { unreachable!("it was ready: {work:?}") };
        work.phase = Phase::Leased(job.clone(), epoch, worker.clone());
        work.queued = None;
        work.started.get_or_insert(turn.now);
        self.leases.insert(epoch, id);
        self.held.insert((worker, epoch));
        self.notify(turn, id, &Notice::Started { lease: Some(epoch) });
        for follower in self.works[&id].followers.clone() {
            self.notify(turn, follower, &Notice::Started { lease: Some(epoch) });
        }
    }
}
