//! Rows that a worker could begin, and what they ask of one.

use super::event::{Waits, WorkId};
use super::place::{Demand, Flow, Input, InputId, Memory, Takes};
use super::plan::unknown;
use super::work::{Job, Phase};
use super::{Core, Turn};
use proto::id::{BuildId, Millis, WorkerId};
use proto::record::Cost;
use proto::step::{MountKind, Op};

/// What waits for a shorter time is not worth telling.
const WAIT_TOLD_MS: u64 = 1000;

impl Core {
    /// A row can begin as soon as there is a worker for it.
    pub(super) fn make_ready(&mut self, turn: &mut Turn<'_>, id: WorkId, job: Job) {
        let work = self.works.get_mut(&id).expect("in the table");
        work.phase = Phase::Ready(job);
        work.queued = None;
        turn.queue.insert(id);
    }

    /// Tells the placer of rows that can begin, or that others want than before.
    pub(super) fn queue(&mut self, turn: &mut Turn<'_>) {
        for id in std::mem::take(&mut turn.queue) {
            let Some(work) = self.works.get(&id) else { continue };
            let Phase::Ready(job) = &work.phase else { continue };
            let Some(build) = self.beneficiary(id).cloned() else {
                self.unqueue(id);
                continue;
            };
            let queued = Some((build, self.path(id)));
            if work.queued == queued {
                continue;
            }
            let inputs = job.inputs.clone();
            if self.adopt(turn, id) {
                continue;
            }
            self.works.get_mut(&id).expect("just seen").queued = queued;
            let demand = self.demand(id, inputs);
            self.placer.ready(turn.now, id, &demand);
        }
    }

    /// A row cannot begin any more.
    pub(super) fn unqueue(&mut self, id: WorkId) {
        self.placer.withdraw(id);
        if let Some(work) = self.works.get_mut(&id) {
            work.queued = None;
        }
    }

    /// The build in whose name a row is done: of those that need it or one of its followers the most
    /// important one, and of several the one that comes first by name.
    pub(super) fn beneficiary(&self, id: WorkId) -> Option<&BuildId> {
        let work = &self.works[&id];
        let followers = work.followers.iter().flat_map(|f| self.works[f].wanted.keys());
        let priority = |build: &BuildId| self.builds.get(build).map_or(0, |b| b.plan.priority);
        let all = work.wanted.keys().chain(followers);
        all.min_by(|a, b| priority(b).cmp(&priority(a)).then(a.cmp(b)))
    }

    fn path(&self, id: WorkId) -> u64 {
        let work = &self.works[&id];
        let followers = work.followers.iter().map(|f| self.works[f].path);
        followers.fold(work.path, u64::max)
    }

    /// In whose name a row is done is written down, as for one that is queued.
    pub(super) fn name_beneficiary(&mut self, id: WorkId) {
        let queued = self.beneficiary(id).cloned().map(|build| (build, self.path(id)));
        self.works.get_mut(&id).expect("in the table").queued = queued;
    }

    /// What a row that is queued asks for.
    pub(super) fn demand(&mut self, id: WorkId, mut inputs: Vec<Input>) -> Demand {
        let work = &self.works[&id];
        let (build, path_ms) = work.queued.clone().expect("it is queued");
        let (step, limit) = (work.definition(), work.plan.resources.memory_bytes);
        let known = work.keys.shape.and_then(|shape| self.history.look_up(&shape));
        let peak = known.map_or(0, |known| known.memory_peak_bytes);
        let memory = match (step.needs.memory_bytes, peak, limit) {
            (asked @ 1.., ..) => Memory::Asked(asked),
            (0, 0, 0) => Memory::Share,
            (0, 0, limit) => Memory::Learnt(limit),
            (0, peak, 0) => Memory::Learnt(peak),
            (0, peak, limit) => Memory::Learnt(peak.min(limit)),
        };
        if let Op::Run(run) = &step.op {
            // One that nobody has used yet is empty wherever it is used.
            let cache = |id: &str| {
                let id = InputId::cache_mount(&work.plan.scope, id);
                Some(Input { id, bytes: *self.mounts.get(&id)? })
            };
            let caches = run.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Cache(of) => cache(&of.id),
                _ => None,
            });
            inputs.extend(caches);
        }
        let plan = self.builds.get(&build).map_or(&work.plan, |b| &b.plan);
        Demand {
            flow: Flow {
                project: plan.owner.project.clone(),
                user: plan.owner.user.clone(),
                build,
                priority: plan.priority,
            },
            takes: if step.op.is_run() { Takes::Slot } else { Takes::Connection },
            platform: step.platform.clone(),
            cpu_millis: step.needs.cpu_millis,
            memory,
            path_ms,
            expected: known.map_or_else(|| unknown(&step.op), |known| known.expected()),
            inputs,
        }
    }

    /// A worker does a row, and used this for it. With an emulator it takes too long to learn from.
    pub(super) fn learn(&mut self, id: WorkId, cost: &Cost) {
        let shape = self.works.get(&id).and_then(|work| work.keys.shape);
        if let Some(shape) = shape.filter(|_| !self.placer.is_emulated(id)) {
            self.history.learn(shape, cost);
        }
    }

    /// A RUN has ended at a worker: what it wrote into cache mounts is there.
    pub(super) fn caches_are_at(&mut self, id: WorkId, worker: &WorkerId) {
        let work = &self.works[&id];
        let Op::Run(run) = work.op() else { return };
        for mount in &run.mounts {
            if let MountKind::Cache(cache) = &mount.kind
                && !cache.read_only
            {
                self.placer.renewed(worker, InputId::cache_mount(&work.plan.scope, &cache.id));
            }
        }
    }

    /// The steps that could begin for more than a second, and why they have not.
    pub fn waiting(&self, now: Millis) -> Vec<Waits> {
        let since = Millis(now.0.saturating_sub(WAIT_TOLD_MS));
        let waits = |(id, why)| Waits { work: id, steps: self.steps_of(id), why };
        self.placer.waiting(now, since).into_iter().map(waits).collect()
    }

    /// When [`super::Event::Tick`] is due, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Millis> {
        [self.placer.next_timeout(), self.orphans.timeout()].into_iter().flatten().min()
    }
}
