//! The coordinator's decisions: a state machine without IO, clock or chance.
//!
//! [`Core::apply`] takes an [`Event`] and adds [`Effect`]s to a list; whoever runs the core does
//! the effects, whose answers come back as events. Effects can be repeated without harm.
//!
//! **One table for identical work**: a row for each (scope, definition), whichever builds it is
//! in. A row that is found to have the content of another one that is under way follows that one.
//! Graphs are never merged: each build keeps its own, and the rows only say what they wait for.
//!
//! **Work is demanded from the targets backwards.** A row whose definition led to a record before
//! ([`AliasHit`]) needs none of its inputs. Else the inputs' merged roots are demanded, then the
//! content key is known, and then there is a record, or it is algebra, or a worker does it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod demand;
pub mod event;
pub mod facts;
mod invariant;
mod lease;
mod lost;
pub mod members;
mod orphans;
pub mod place;
pub mod plan;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod work;

pub use event::{
    AliasHit, Effect, Evaluated, Event, Notice, TargetState, TreeState, Trouble, Waits, WorkId,
};
pub use plan::{Imports, Owner, Plan, StepKeys};
pub use view::Runs;

use cache::mounts;
use facts::{Facts, MountKey};
use orphans::Orphans;
use place::{History, InputId, Placer};
use proto::error::Failure;
use proto::id::{BuildId, ContentKey, DefKey, LeaseEpoch, Millis, RootId, Scope, WorkerId};
use proto::record::{Alias, Record};
use proto::step::{Op, StepId};
use proto::tree::{self, Meta, Mtime, Presence, Root};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use work::{Job, Made, Phase, RootPhase, Want, Work};

/// The coordinator's state.
#[derive(Debug, Default)]
pub struct Core {
    works: BTreeMap<WorkId, Work>,
    by_def: BTreeMap<(Scope, DefKey), WorkId>,
    by_content: BTreeMap<(Scope, ContentKey), WorkId>,
    builds: BTreeMap<BuildId, Build>,
    workers: BTreeSet<WorkerId>,
    /// Decides where the rows go that a worker could begin.
    placer: Placer,
    /// How long steps took, and what they used.
    history: History,
    leases: BTreeMap<LeaseEpoch, WorkId>,
    /// The same by worker.
    held: BTreeSet<(WorkerId, LeaseEpoch)>,
    /// Leases of an earlier life, whose steps are not known again yet.
    orphans: Orphans,
    /// Bytes of the newest generations of cache mounts.
    mounts: BTreeMap<InputId, u64>,
    last_work: u64,
    last_epoch: u64,
    last_version: u64,
}

#[derive(Debug)]
struct Build {
    plan: Arc<Plan>,
    /// For each step of the graph, its row.
    works: Vec<WorkId>,
    /// Whether its targets were reported, or it failed.
    over: bool,
}

/// The root without anything in it.
pub fn empty_root() -> Root {
    let meta = Meta::root_owned(0o755, Mtime::default());
    Root { meta, dir: tree::empty_dir().dir, presence: Presence::Merge }
}

/// What one event leads to.
struct Turn<'a> {
    now: Millis,
    out: &'a mut Vec<Effect>,
    /// Rows to look at again.
    agenda: BTreeSet<WorkId>,
    /// Builds whose targets may have come.
    builds: BTreeSet<BuildId>,
    /// Rows that a worker could begin, and that others want than before.
    queue: BTreeSet<WorkId>,
}

impl Core {
    /// A core that knows of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A core that goes on from what is written down. Its builds are still to be submitted again.
    pub fn from_facts(facts: &Facts) -> Self {
        let bytes = |(key, mount): (&MountKey, &mounts::History)| {
            Some((InputId::cache_mount(&key.scope, &key.id), mount.head()?.bytes))
        };
        Self {
            orphans: Orphans::new(&facts.leases),
            mounts: facts.mounts.iter().filter_map(bytes).collect(),
            last_epoch: facts.last_epoch.0,
            last_version: facts.clock.0.saturating_mul(1000),
            ..Self::default()
        }
    }

    /// The same, which knows how long steps took in an earlier life.
    pub fn with_history(self, history: History) -> Self {
        Self { history, ..self }
    }

    /// How long steps took, and what they used.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Takes note of an event; adds what has to be done to `out`.
    pub fn apply(&mut self, now: Millis, event: Event, out: &mut Vec<Effect>) {
        let (agenda, builds, queue) = Default::default();
        let mut turn = Turn { now, out, agenda, builds, queue };
        match event {
            Event::Submitted { build, plan } => self.submitted(&mut turn, build, plan),
            Event::Lost { build, layers, what } => self.lost(&mut turn, &build, &layers, &what),
            Event::Ended { build } => self.ended(&mut turn, &build),
            Event::Aliases { build, found } => self.aliases(&mut turn, &build, found),
            Event::Evaluated { work, outcome, traffic } => {
                self.moved(&mut turn, work, traffic);
                self.evaluated(&mut turn, work, outcome);
            }
            Event::Rooted { work, outcome } => self.rooted(&mut turn, work, outcome),
            Event::Recorded { work, outcome } => self.recorded(&mut turn, work, outcome),
            Event::Worker { worker, capacity, running, reports } => {
                self.worker(&mut turn, worker, capacity, running, reports);
            }
            Event::WorkerLost { worker } => self.worker_lost(&mut turn, &worker),
            Event::Cordoned { worker, cordoned } => self.placer.cordon(&worker, cordoned),
            Event::Weight { project, weight } => self.placer.weight(&project, weight),
            Event::Mount { scope, id, bytes } => {
                let mount = InputId::cache_mount(&scope, &id);
                match bytes {
                    0 => drop(self.mounts.remove(&mount)),
                    _ => drop(self.mounts.insert(mount, bytes)),
                }
            }
            Event::Resumed => self.orphans.resumed(now),
            Event::Tick => {}
        }
        self.expire_orphans(&mut turn);
        while let Some(work) = turn.agenda.pop_first() {
            self.look(&mut turn, work);
        }
        self.finish_builds(&mut turn);
        self.place(&mut turn);
    }

    /// A build comes in: its steps join the rows that there are, or become rows.
    fn submitted(&mut self, turn: &mut Turn<'_>, build: BuildId, plan: Arc<Plan>) {
        let paths = plan.paths(|shape| Some(self.history.get(shape)?.expected()));
        let mut works: Vec<WorkId> = Vec::with_capacity(plan.graph.steps.len());
        for (index, step) in plan.graph.steps.iter().enumerate() {
            let keys = plan.keys[index];
            let id = *self.by_def.entry((plan.scope.clone(), keys.work)).or_insert_with(|| {
                self.last_work += 1;
                let inputs = step.inputs.iter().map(|i| works[i.index()]).collect();
                let id = WorkId(self.last_work);
                let at = StepId(index as u32);
                self.works.insert(id, new_work(plan.clone(), at, keys, inputs));
                id
            });
            let work = self.works.get_mut(&id).expect("just found or made");
            work.members.insert(build.clone(), StepId(index as u32));
            if work.path < paths[index] {
                work.path = paths[index];
                turn.queue.insert(work.leader().unwrap_or(id));
            }
            works.push(id);
        }
        let keys = plan.keys.iter().filter_map(|k| k.alias.filter(|_| k.trusted)).collect();
        turn.out.push(Effect::FindAliases {
            build: build.clone(),
            scope: plan.scope.clone(),
            keys,
        });
        self.builds.insert(build, Build { plan, works, over: false });
    }

    /// The records that the build's definitions led to before are known.
    fn aliases(&mut self, turn: &mut Turn<'_>, build: &BuildId, found: Vec<Option<AliasHit>>) {
        let Some(b) = self.builds.get(build).filter(|b| !b.over) else { return };
        let (plan, works) = (b.plan.clone(), b.works.clone());
        let asked = plan.keys.iter().enumerate().filter(|(_, k)| k.trusted && k.alias.is_some());
        // A definition counts when its inputs' definitions lead to what it was made from. Inputs
        // of which nothing is known do not speak against it.
        let mut versions: BTreeMap<DefKey, Option<u64>> = BTreeMap::new();
        for ((index, keys), hit) in asked.zip(found) {
            let Some(hit) = hit else { continue };
            let same = |(def, version): &(DefKey, u64)| {
                versions.get(def).is_none_or(|known| *known == Some(*version))
            };
            let counts = hit.alias.inputs.iter().all(same);
            let def = keys.alias.expect("asked for");
            versions.insert(def, counts.then_some(hit.record.version));
            let work = self.works.get_mut(&works[index]).expect("rows live as long as builds");
            if counts && matches!(work.phase, Phase::Idle) {
                work.alias = Some(hit);
            }
        }
        turn.builds.insert(build.clone());
        for target in &plan.graph.targets {
            if plan.roots {
                self.want(turn, works[target.step.index()], build, Want::Root);
            }
            for step in plan.chain(target.step) {
                if plan.adds_layer(step) {
                    self.want(turn, works[step.index()], build, Want::Layers);
                }
            }
        }
    }

    /// A build needs something of a row.
    fn want(&mut self, turn: &mut Turn<'_>, id: WorkId, build: &BuildId, want: Want) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if work.wanted.get(build).is_some_and(|w| *w >= want) {
            return;
        }
        work.wanted.insert(build.clone(), want);
        turn.agenda.insert(id);
        turn.queue.insert(work.leader().unwrap_or(id));
        match &work.phase {
            // It failed with what another client has.
            Phase::Failed(_) if work.hangs_on_client() => work.phase = Phase::Idle,
            Phase::Failed(failure) => {
                let failure = failure.clone();
                self.fail_build(turn, build, Some(id), failure);
            }
            Phase::Leased(_, epoch, _) => {
                let lease = Some(*epoch);
                self.notify_one(turn, id, build, Notice::Started { lease });
            }
            _ => {}
        }
    }

    /// Looks whether a row can go on.
    fn look(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let Some(work) = self.works.get(&id) else { return };
        let Some(want) = work.want() else { return };
        match &work.phase {
            Phase::Idle => self.begin(turn, id),
            Phase::Blocked => {
                self.want_inputs(turn, id);
                self.evaluate(turn, id);
            }
            Phase::Done(_) if want == Want::Root && work.root == RootPhase::Unknown => {
                self.find_root(turn, id);
            }
            // Something below was made again: whoever waits above can see all of it now.
            Phase::Done(_) => {
                let waits =
                    |p: &&WorkId| matches!(self.works[*p].phase, Phase::Blocked | Phase::Done(_));
                turn.agenda.extend(work.parents.iter().filter(waits));
            }
            Phase::Evaluating
            | Phase::Follows(_)
            | Phase::Ready(_)
            | Phase::Leased(..)
            | Phase::Recording(_)
            | Phase::Failed(_) => {}
        }
    }

    /// A row is needed for the first time.
    fn begin(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let there = |root: RootId, layers: Vec<RootId>| {
            let made = Made { layers, created: turn.now, version: None, producer: None };
            (Phase::Done(made), RootPhase::Known(root))
        };
        let op = &work.plan.graph.steps[work.step.index()].op;
        match op {
            Op::Scratch => (work.phase, work.root) = there(empty_root().seal().0, Vec::new()),
            Op::Local(local) => (work.phase, work.root) = there(local.root, vec![local.root]),
            _ => {
                if let Some(hit) = work.alias.take() {
                    work.cost = hit.record.cost;
                    work.found = Some(hit.alias);
                    self.hit(turn, id, &hit.record);
                    return;
                }
                work.phase = Phase::Blocked;
            }
        }
        self.wake(turn, id);
    }

    /// A record was found.
    fn hit(&mut self, turn: &mut Turn<'_>, id: WorkId, record: &Record) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.phase = Phase::Done(Made::of(record));
        work.cost = record.cost;
        if let Some(producer) = &record.producer {
            record.layers.iter().for_each(|l| self.placer.holds(producer, InputId::tree(l)));
        }
        self.notify(turn, id, &Notice::Cached { cost: record.cost, log: record.log });
        self.wake(turn, id);
    }

    /// What a row needs of its inputs, for each build that needs the row.
    fn want_inputs(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let Some(work) = self.works.get(&id) else { return };
        let (inputs, builds) =
            (work.inputs.clone(), work.wanted.keys().cloned().collect::<Vec<_>>());
        let merge = matches!(work.op(), Op::Merge);
        for (index, input) in inputs.into_iter().enumerate() {
            // A merge adds the layer of its second input to whatever the first one is.
            let want = match (merge, index) {
                (true, 0) => continue,
                (true, _) => Want::Layers,
                (false, _) => Want::Root,
            };
            builds.iter().for_each(|b| self.want(turn, input, b, want));
            if let Some(input) = self.works.get_mut(&input) {
                input.parents.insert(id);
            }
        }
    }

    /// Goes on when all inputs are there.
    fn evaluate(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let work = &self.works[&id];
        if matches!(work.op(), Op::Merge) {
            let Some(made) = work.inputs.get(1).and_then(|i| self.works[i].made()).cloned() else {
                return;
            };
            self.works.get_mut(&id).expect("looked at").phase = Phase::Done(made);
            self.wake(turn, id);
            return;
        }
        let Some(inputs) = work.inputs.iter().map(|i| self.state(*i)).collect() else { return };
        turn.out.push(Effect::Evaluate {
            work: id,
            scope: work.plan.scope.clone(),
            plan: work.plan.clone(),
            step: work.step,
            inputs,
            refresh: work.refresh() || work.lost > 0,
        });
        self.works.get_mut(&id).expect("looked at").phase = Phase::Evaluating;
    }

    /// The tree that a row has come to, when all of it is known.
    fn state(&self, id: WorkId) -> Option<TreeState> {
        let top = self.works.get(&id)?;
        let root = top.root()?;
        let (mut layers, mut sources) = (Vec::new(), Vec::new());
        let mut at = id;
        loop {
            let work = self.works.get(&at)?;
            layers.extend(work.made()?.layers.iter().rev().copied());
            if at == id || matches!(self.works[&id].op(), Op::Merge) {
                sources.extend(work.source());
            }
            match work.plan.base(work.step) {
                Some(_) => at = *work.inputs.first()?,
                None => break,
            }
        }
        if let (Op::Merge, Some(link)) = (top.op(), top.inputs.get(1)) {
            sources.extend(self.works.get(link)?.source());
        }
        layers.reverse();
        Some(TreeState { root, layers, sources })
    }

    /// A row that is done needs its merged root.
    fn find_root(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let work = &self.works[&id];
        let Some(made) = work.made() else { return };
        let (layers, plan) = (made.layers.clone(), work.plan.clone());
        let base = match work.plan.base(work.step) {
            None => None,
            Some(_) => {
                let base = work.inputs[0];
                let builds: Vec<BuildId> = work.wanted.keys().cloned().collect();
                builds.iter().for_each(|b| self.want(turn, base, b, Want::Root));
                let base = self.works.get_mut(&base).expect("rows live as long as builds");
                base.parents.insert(id);
                match base.root() {
                    Some(root) => Some(root),
                    None => return,
                }
            }
        };
        self.works.get_mut(&id).expect("looked at").root = RootPhase::Asked;
        turn.out.push(Effect::Root { work: id, plan, base, layers });
    }

    fn evaluated(&mut self, turn: &mut Turn<'_>, id: WorkId, outcome: Result<Evaluated, Trouble>) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if !matches!(work.phase, Phase::Evaluating) {
            return;
        }
        match outcome {
            Err(trouble) => self.trouble(turn, id, trouble),
            Ok(Evaluated::Hit { key, record }) => {
                self.find(id, key, record.version);
                self.hit(turn, id, &record);
            }
            Ok(Evaluated::Made { key, layers, root, remark }) => {
                work.root = RootPhase::Known(root);
                work.started.get_or_insert(turn.now);
                self.notify(turn, id, &Notice::Started { lease: None });
                if let Some(remark) = remark {
                    self.notify(turn, id, &Notice::Remark(remark));
                }
                self.made(turn, id, key, layers, None);
            }
            Ok(Evaluated::Miss { key, run, inputs }) => {
                let place = (work.plan.scope.clone(), key);
                let leader = self.by_content.get(&place).copied().filter(|l| *l != id);
                match leader.filter(|_| !work.refresh()) {
                    Some(leader) => {
                        work.phase = Phase::Follows(leader);
                        self.works.get_mut(&leader).expect("in the table").followers.insert(id);
                        turn.queue.insert(leader);
                    }
                    None => {
                        work.content = Some(key);
                        self.by_content.insert(place, id);
                        self.make_ready(turn, id, Job { key, run, inputs });
                    }
                }
            }
        }
    }

    /// A row's definition leads to this record.
    fn find(&mut self, id: WorkId, key: ContentKey, version: u64) {
        let sources = |i: &WorkId| self.state(*i).map_or(Vec::new(), |s| s.sources);
        let inputs = self.works[&id].inputs.iter().flat_map(sources).collect();
        let work = self.works.get_mut(&id).expect("looked at");
        work.found = Some(Alias { key, version, inputs });
    }

    /// A step's layers are there: they are recorded, unless nothing is to be kept of them.
    fn made(
        &mut self,
        turn: &mut Turn<'_>,
        id: WorkId,
        key: Option<ContentKey>,
        layers: Vec<RootId>,
        by: Option<(WorkerId, LeaseEpoch)>,
    ) {
        let (producer, lease) = by.unzip();
        self.last_version = (self.last_version + 1).max(turn.now.0.saturating_mul(1000));
        let version = self.last_version;
        if let Some(key) = key {
            self.find(id, key, version);
        }
        let Some(work) = self.works.get_mut(&id) else { return };
        let created = turn.now;
        let version = key.map(|_| version);
        let made = Made { layers: layers.clone(), created, version, producer: producer.clone() };
        let Some((key, version)) = key.zip(version) else {
            work.phase = Phase::Done(made);
            self.notify(turn, id, &Notice::Done { layers });
            self.wake(turn, id);
            return;
        };
        let cost = work.cost;
        let record = Record { layers, created, log: None, cost, producer, version };
        // Others never find by a definition what was made upon records that they do not trust.
        let told = !matches!(work.plan.imports, Imports::Foreign(_));
        let alias = work.keys.alias.filter(|_| told).zip(work.found.clone());
        work.phase = Phase::Recording(made);
        let scope = work.plan.scope.clone();
        turn.out.push(Effect::Record { work: id, scope, key, record, alias, lease });
    }

    fn recorded(&mut self, turn: &mut Turn<'_>, id: WorkId, outcome: Result<(), Trouble>) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let Phase::Recording(made) = &work.phase else { return };
        let made = made.clone();
        if let Err(trouble) = outcome {
            self.trouble(turn, id, trouble);
            return;
        }
        self.drop_content(id);
        let layers = made.layers.clone();
        self.works.get_mut(&id).expect("looked at").phase = Phase::Done(made);
        self.notify(turn, id, &Notice::Done { layers });
        self.wake(turn, id);
    }

    fn rooted(&mut self, turn: &mut Turn<'_>, id: WorkId, outcome: Result<RootId, Trouble>) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if work.root != RootPhase::Asked {
            return;
        }
        match outcome {
            Ok(root) => {
                work.root = RootPhase::Known(root);
                turn.agenda.extend(&work.parents);
                turn.builds.extend(work.wanted.keys().cloned());
            }
            Err(trouble) => {
                work.root = RootPhase::Unknown;
                self.trouble(turn, id, trouble);
            }
        }
    }

    /// Tells those who wait for a row that it has got somewhere.
    fn wake(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        let Some(work) = self.works.get_mut(&id) else { return };
        turn.agenda.insert(id);
        turn.agenda.extend(&work.parents);
        turn.builds.extend(work.wanted.keys().cloned());
        let followers = std::mem::take(&mut work.followers);
        let Some(made) = work.made().cloned() else { return };
        let found = work.found.clone();
        for follower in followers {
            if let Some(found) = &found {
                self.find(follower, found.key, found.version);
            }
            if let Some(work) = self.works.get_mut(&follower) {
                work.phase = Phase::Done(made.clone());
                let layers = made.layers.clone();
                self.notify(turn, follower, &Notice::Done { layers });
                self.wake(turn, follower);
            }
        }
    }

    /// A row failed, and with it all builds that need it.
    fn fail(&mut self, turn: &mut Turn<'_>, id: WorkId, failure: Failure) {
        self.drop_content(id);
        let Some(work) = self.works.get_mut(&id) else { return };
        work.phase = Phase::Failed(failure.clone());
        let followers = std::mem::take(&mut work.followers);
        let builds: Vec<BuildId> = work.wanted.keys().cloned().collect();
        self.notify(turn, id, &Notice::Failed(failure.clone()));
        for follower in followers {
            self.fail(turn, follower, failure.clone());
        }
        for build in builds {
            self.fail_build(turn, &build, Some(id), failure.clone());
        }
    }

    /// Whether a build still waits for something.
    fn lives(&self, build: &BuildId) -> bool {
        self.builds.get(build).is_some_and(|b| !b.over)
    }

    fn fail_build(
        &mut self,
        turn: &mut Turn<'_>,
        build: &BuildId,
        work: Option<WorkId>,
        failure: Failure,
    ) {
        let Some(b) = self.builds.get_mut(build).filter(|b| !b.over) else { return };
        b.over = true;
        let step = work.and_then(|w| self.works[&w].members.get(build).copied());
        turn.out.push(Effect::Fail { build: build.clone(), step, failure });
        self.unwant(turn, build);
    }

    /// The row has no content any more that others could follow.
    fn drop_content(&mut self, id: WorkId) {
        self.unqueue(id);
        let Some(work) = self.works.get_mut(&id) else { return };
        let Some(key) = work.content.take() else { return };
        let place = (work.plan.scope.clone(), key);
        if self.by_content.get(&place) == Some(&id) {
            self.by_content.remove(&place);
        }
    }

    /// Reports the builds whose targets are all there now.
    fn finish_builds(&mut self, turn: &mut Turn<'_>) {
        for id in std::mem::take(&mut turn.builds) {
            let Some(build) = self.builds.get(&id).filter(|b| !b.over) else { continue };
            let Some(targets) = self.targets(build) else { continue };
            self.builds.get_mut(&id).expect("just seen").over = true;
            turn.out.push(Effect::Ready { build: id, targets });
        }
    }

    fn targets(&self, build: &Build) -> Option<Vec<TargetState>> {
        let target = |target: &proto::step::Target| {
            let mut layers = Vec::new();
            for step in build.plan.chain(target.step) {
                let made = self.works[&build.works[step.index()]].made();
                if build.plan.adds_layer(step) {
                    let made = made?;
                    layers.extend(made.layers.iter().map(|l| (step, *l, made.created)));
                }
            }
            let top = &self.works[&build.works[target.step.index()]];
            let root = if build.plan.roots { Some(top.root()?) } else { None };
            Some(TargetState { layers, root })
        };
        build.plan.graph.targets.iter().map(target).collect()
    }

    /// Nobody waits for the build any more.
    fn ended(&mut self, turn: &mut Turn<'_>, build: &BuildId) {
        self.unwant(turn, build);
        let Some(Build { works, .. }) = self.builds.remove(build) else { return };
        for id in works {
            let Some(work) = self.works.get_mut(&id) else { continue };
            work.members.remove(build);
            if work.members.is_empty() {
                self.forget(turn, id);
            }
        }
    }

    fn forget(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        self.revoke(turn, id);
        self.drop_content(id);
        let Some(work) = self.works.remove(&id) else { return };
        self.by_def.remove(&(work.plan.scope.clone(), work.keys.work));
        for input in &work.inputs {
            if let Some(input) = self.works.get_mut(input) {
                input.parents.remove(&id);
            }
        }
        if let Phase::Follows(leader) = work.phase
            && let Some(leader) = self.works.get_mut(&leader)
        {
            leader.followers.remove(&id);
        }
        for follower in work.followers {
            if let Some(follower) = self.works.get_mut(&follower) {
                follower.phase = Phase::Blocked;
            }
            turn.agenda.insert(follower);
        }
    }

    /// The build needs nothing any more; what nobody else needs is stopped.
    fn unwant(&mut self, turn: &mut Turn<'_>, build: &BuildId) {
        let Some(b) = self.builds.get(build) else { return };
        for id in b.works.clone() {
            let Some(work) = self.works.get_mut(&id) else { continue };
            work.wanted.remove(build);
            turn.queue.insert(work.leader().unwrap_or(id));
            if work.wanted.is_empty() {
                self.stop(turn, id);
            }
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>, id: WorkId) {
        if self.works[&id].followers.iter().any(|f| !self.works[f].wanted.is_empty()) {
            return;
        }
        self.revoke(turn, id);
        let Some(work) = self.works.get_mut(&id) else { return };
        match &work.phase {
            Phase::Ready(_) | Phase::Blocked => {
                work.phase = Phase::Idle;
                self.drop_content(id);
            }
            Phase::Follows(leader) => {
                let leader = *leader;
                work.phase = Phase::Idle;
                let Some(leading) = self.works.get_mut(&leader) else { return };
                leading.followers.remove(&id);
                if leading.wanted.is_empty() {
                    self.stop(turn, leader);
                }
            }
            _ => {}
        }
    }

    fn notify(&self, turn: &mut Turn<'_>, id: WorkId, notice: &Notice) {
        for build in self.works[&id].wanted.keys() {
            self.notify_one(turn, id, build, notice.clone());
        }
    }

    fn notify_one(&self, turn: &mut Turn<'_>, id: WorkId, build: &BuildId, notice: Notice) {
        if let Some(step) = self.works[&id].members.get(build) {
            turn.out.push(Effect::Notify { build: build.clone(), step: *step, notice });
        }
    }
}

fn new_work(plan: Arc<Plan>, step: StepId, keys: StepKeys, inputs: Vec<WorkId>) -> Work {
    Work {
        plan,
        step,
        keys,
        inputs,
        parents: BTreeSet::new(),
        members: BTreeMap::new(),
        wanted: BTreeMap::new(),
        alias: None,
        found: None,
        content: None,
        phase: Phase::Idle,
        root: RootPhase::Unknown,
        followers: BTreeSet::new(),
        lost: 0,
        path: 0,
        queued: None,
        asked: None,
        started: None,
        cost: Default::default(),
    }
}
