//! Workers and leases: who may do what.

use super::event::{Effect, Notice, Trouble};
use super::place::{Candidate, FETCHES_MAX, Place, assign};
use super::work::{Phase, Todo};
use super::{Core, Turn, WorkId};
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch, WorkerId};
use proto::limit;
use proto::platform::Platform;
use proto::step::Op;
use proto::wire::worker::{Lease, Outcome, Report, Task};
use std::collections::BTreeSet;

/// A worker that is there.
#[derive(Debug)]
pub(super) struct Worker {
    pub slots: u32,
    pub platforms: Vec<Platform>,
}

impl Core {
    /// A worker says what it is doing; it is told what it should be doing when that differs.
    pub(super) fn worker(
        &mut self,
        turn: &mut Turn<'_>,
        worker: WorkerId,
        slots: u32,
        platforms: Vec<Platform>,
        running: Vec<LeaseEpoch>,
        reports: Vec<Report>,
    ) {
        let new = self.workers.insert(worker.clone(), Worker { slots, platforms }).is_none();
        let reported: BTreeSet<LeaseEpoch> = reports.iter().map(|r| r.epoch).collect();
        for report in reports {
            self.reported(turn, &worker, report);
        }
        let wanted: BTreeSet<LeaseEpoch> = self.leases_of(&worker).map(|(e, _)| e).collect();
        let does: BTreeSet<LeaseEpoch> = running.into_iter().collect();
        if new || !reported.is_empty() || wanted != does {
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
        let Phase::Leased(todo, _, holder) = &work.phase else { return };
        if holder != worker {
            return;
        }
        let todo = todo.clone();
        work.cost = report.cost;
        // Whatever comes of it, it is not leased any more.
        work.phase = Phase::Blocked;
        self.drop_lease(worker, report.epoch);
        match report.outcome {
            Outcome::Done(layers) => {
                let by = Some((worker.clone(), report.epoch));
                self.made(turn, id, Some(todo.key), layers, by);
            }
            Outcome::Failed(failure) => self.fail(turn, id, failure),
            Outcome::Lost(what) => self.trouble(turn, id, Trouble::Lost(what)),
            Outcome::Stopped => self.again(turn, id, todo, "It was stopped by its worker"),
        }
    }

    fn drop_lease(&mut self, worker: &WorkerId, epoch: LeaseEpoch) {
        self.leases.remove(&epoch);
        self.held.remove(&(worker.clone(), epoch));
    }

    /// A lease ended without a result: the step goes to another worker, but not for ever.
    fn again(&mut self, turn: &mut Turn<'_>, id: WorkId, todo: Todo, why: &str) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.lost += 1;
        if work.lost > limit::REWINDS_MAX {
            let message = format!("{why}, {} times in a row", work.lost);
            self.fail(turn, id, Failure::new(Class::Unavailable, message));
            return;
        }
        work.phase = Phase::Ready(todo);
        self.ready.insert(id);
        self.notify(turn, id, &Notice::Again(why.to_owned()));
    }

    pub(super) fn worker_lost(&mut self, turn: &mut Turn<'_>, worker: &WorkerId) {
        let held: Vec<(LeaseEpoch, WorkId)> = self.leases_of(worker).collect();
        self.workers.remove(worker);
        for (epoch, id) in held {
            self.drop_lease(worker, epoch);
            if let Phase::Leased(todo, ..) = &self.works[&id].phase {
                let todo = todo.clone();
                self.again(turn, id, todo, "Its worker was lost");
            }
        }
    }

    /// Takes a lease back.
    pub(super) fn revoke(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if let Phase::Leased(todo, epoch, worker) = &work.phase {
            let (todo, epoch, worker) = (todo.clone(), *epoch, worker.clone());
            work.phase = Phase::Ready(todo);
            self.drop_lease(&worker, epoch);
            self.ready.insert(id);
            self.desire(turn, &worker);
        }
    }

    fn desire(&self, turn: &mut Turn<'_>, worker: &WorkerId) {
        let lease = |(epoch, id): (LeaseEpoch, WorkId)| self.lease(epoch, id);
        let leases = self.leases_of(worker).filter_map(lease).collect();
        turn.out.push(Effect::Desire { worker: worker.clone(), leases });
    }

    fn lease(&self, epoch: LeaseEpoch, id: WorkId) -> Option<Lease> {
        let work = &self.works[&id];
        let Phase::Leased(todo, ..) = &work.phase else { return None };
        let step = work.definition();
        let task = match (&step.op, &todo.run) {
            (Op::Run(_), Some(run)) => Task::Run(run.clone()),
            (Op::Image(image), _) => Task::Image(image.clone()),
            (Op::Http(http), _) => Task::Http(http.clone()),
            (Op::Git(git), _) => Task::Git(git.clone()),
            _ => return None,
        };
        let build = self.asker(id)?;
        Some(Lease { epoch, build, task, needs: step.needs, platform: step.platform.clone() })
    }

    /// The build whose client is asked for secrets and logins: the oldest that needs the row or
    /// one of its followers.
    fn asker(&self, id: WorkId) -> Option<BuildId> {
        let work = &self.works[&id];
        let follower = |f: &WorkId| self.works[f].wanted.keys().next();
        work.wanted.keys().next().or_else(|| work.followers.iter().find_map(follower)).cloned()
    }

    /// Gives what is ready to workers that are free.
    pub(super) fn place(&mut self, turn: &mut Turn<'_>) {
        let ready = self.ready.iter().filter(|id| self.asker(**id).is_some());
        let candidates: Vec<Candidate> = ready.map(|id| self.candidate(*id)).collect();
        if candidates.is_empty() {
            return;
        }
        let places = self.workers.keys().map(|w| self.place_of(w)).collect();
        let mut changed = BTreeSet::new();
        for (id, worker) in assign(candidates, places) {
            self.last_epoch = self.last_epoch.max(turn.now.0) + 1;
            let epoch = LeaseEpoch(self.last_epoch);
            let work = self.works.get_mut(&id).expect("a candidate");
            let Phase::Ready(todo) = &work.phase else { continue };
            work.phase = Phase::Leased(todo.clone(), epoch, worker.clone());
            work.started.get_or_insert(turn.now);
            self.leases.insert(epoch, id);
            self.held.insert((worker.clone(), epoch));
            self.ready.remove(&id);
            self.notify(turn, id, &Notice::Started { lease: Some(epoch) });
            for follower in self.works[&id].followers.clone() {
                self.notify(turn, follower, &Notice::Started { lease: Some(epoch) });
            }
            changed.insert(worker);
        }
        changed.iter().for_each(|worker| self.desire(turn, worker));
    }

    fn candidate(&self, id: WorkId) -> Candidate {
        let work = &self.works[&id];
        let priority = |build: &BuildId| self.builds.get(build).map_or(0, |b| b.plan.priority);
        let base = work.inputs.first().and_then(|i| self.works[i].made());
        Candidate {
            work: id,
            slot: work.op().is_run(),
            platform: work.definition().platform.clone(),
            priority: work.wanted.keys().map(priority).max().unwrap_or(0),
            path: work.path,
            near: base.and_then(|made| made.producer.clone()),
        }
    }

    fn place_of(&self, id: &WorkerId) -> Place {
        let worker = &self.workers[id];
        let runs = |(_, w): &(LeaseEpoch, WorkId)| self.works[w].op().is_run();
        let (runs, fetches): (Vec<_>, Vec<_>) = self.leases_of(id).partition(runs);
        Place {
            worker: id.clone(),
            platforms: worker.platforms.clone(),
            slots: worker.slots.saturating_sub(runs.len() as u32),
            fetches: FETCHES_MAX.saturating_sub(fetches.len() as u32),
        }
    }
}
