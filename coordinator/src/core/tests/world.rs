//! A simulated world around the core: effects are answered in any order, workers come and go, builds
//! are cancelled, results get lost. Everything follows from the seed.

use crate::core::facts::{Fact, Facts};
use crate::core::place::Input;
use crate::core::*;
use crate::graph::keys::{self, Joined, Selections};
use proto::error::Class;
use proto::id::{OciDigest, TreeId};
use proto::platform::Platform;
use proto::record::Cost;
use proto::step::*;
use proto::wire::build::Traffic;
use proto::wire::worker::{Capacity, Fetched, Lease, Outcome, Pressure, Report, Task};
use std::collections::VecDeque;

/// A small generator (SplitMix64), so that a seed is all that a run depends on.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

pub fn root_id(parts: &[&[u8]]) -> RootId {
    RootId(TreeId::from_bytes(hash(parts)))
}

pub fn step(op: Op, inputs: Vec<StepId>) -> Step {
    Step {
        op,
        inputs,
        name: String::new(),
        platform: Platform::host(),
        at: None,
        cache: CacheUse::Use,
        needs: Needs::default(),
    }
}

pub fn image(name: &str) -> Op {
    let manifest = OciDigest::from_bytes(hash(&[name.as_bytes()]));
    Op::Image(ImageOp { reference: name.to_owned(), manifest, origin: ImageOrigin::Registry })
}

pub fn run(text: &str) -> Op {
    Op::Run(RunOp {
        args: vec![text.to_owned()],
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
        network: NetworkMode::Default,
        security: SecurityMode::Sandbox,
        mounts: Vec::new(),
        hostname: String::new(),
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_bytes: 0,
        cgroup_parent: String::new(),
        devices: Vec::new(),
        proxy_env: Vec::new(),
    })
}

pub fn run_with_cache(text: &str, id: &str) -> Op {
    let Op::Run(mut op) = run(text) else { unreachable!("a RUN") };
    let cache = CacheMount {
        id: id.to_owned(),
        sharing: Sharing::Shared,
        merge: None,
        source: String::new(),
        read_only: false,
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    op.mounts.push(Mount { target: "/c".into(), input: None, kind: MountKind::Cache(cache) });
    Op::Run(op)
}

/// A repository that it takes the client's agent to reach.
pub fn git() -> Op {
    let commit = "c0ffee".to_owned();
    Op::Git(GitOp {
        remote: "git@host:a/b".to_owned(),
        reference: commit.clone(),
        commit,
        subdir: String::new(),
        keep_git_dir: false,
        submodules: false,
    })
}

pub fn copy() -> Op {
    let path = "/x".to_owned();
    let source =
        CopySource { input: 1, path, pattern: false, unpack: Unpack::Never, checked: true };
    Op::Copy(CopyOp {
        sources: vec![source],
        dest: "/y".into(),
        chown: None,
        chmod: None,
        parents: false,
        exclude: Vec::new(),
    })
}

pub fn plan(steps: Vec<Step>, target: StepId, roots: bool, nonce: &str) -> Arc<Plan> {
    let target = Target {
        platform: Platform::host(),
        step: target,
        config: String::new(),
        base: None,
        history: Vec::new(),
        epoch: None,
    };
    let graph = Graph { steps, targets: vec![target] };
    let keys = keys::keys(&graph, &Selections::new(), nonce, Joined::WithOthers);
    Arc::new(Plan {
        graph,
        keys,
        scope: Scope::trusted(),
        owner: Owner::only(),
        roots,
        priority: 0,
        resources: Default::default(),
        imports: Imports::None,
    })
}

#[derive(Debug, PartialEq)]
pub enum End {
    Ready,
    Failed,
}

/// What stands around the core.
pub struct World {
    pub core: Core,
    pub chance: Chance,
    pub now: u64,
    /// Answers that are on their way.
    pub pending: Vec<Event>,
    /// How many RUNs each worker does at once.
    pub slots: u32,
    /// What each worker was last told to do.
    pub desired: BTreeMap<WorkerId, Vec<Lease>>,
    /// Workers that are short of something, or cordoned.
    pub pressed: BTreeSet<WorkerId>,
    pub cordoned: BTreeSet<WorkerId>,
    pub records: BTreeMap<ContentKey, Record>,
    pub aliases: BTreeMap<DefKey, Alias>,
    pub ended: BTreeMap<BuildId, End>,
    /// How often each RUN was begun, by its content.
    pub executions: BTreeMap<[u8; 32], u32>,
    pub contents: BTreeMap<LeaseEpoch, [u8; 32]>,
    /// What is written down: all that the next life of the core knows.
    pub facts: Facts,
    /// What was submitted and has not ended.
    pub plans: BTreeMap<BuildId, Arc<Plan>>,
    /// What workers have reported and were not told that it was taken note of.
    pub reported: BTreeMap<LeaseEpoch, (WorkerId, Report)>,
    /// Workers that have not come back since the core began anew.
    pub away: BTreeSet<WorkerId>,
    pub faults: bool,
    pub trace: VecDeque<String>,
}

impl World {
    pub fn new(seed: u64, faults: bool) -> Self {
        Self {
            core: Core::new(),
            chance: Chance(seed),
            now: 1_000_000,
            pending: Vec::new(),
            slots: 2,
            desired: BTreeMap::new(),
            pressed: BTreeSet::new(),
            cordoned: BTreeSet::new(),
            records: BTreeMap::new(),
            aliases: BTreeMap::new(),
            ended: BTreeMap::new(),
            executions: BTreeMap::new(),
            contents: BTreeMap::new(),
            facts: Facts::default(),
            plans: BTreeMap::new(),
            reported: BTreeMap::new(),
            away: BTreeSet::new(),
            faults,
            trace: VecDeque::new(),
        }
    }

    pub fn apply(&mut self, event: Event) {
        self.now += 1;
        self.trace.push_back(format!("{event:?}").chars().take(300).collect());
        if self.trace.len() > 30 {
            self.trace.pop_front();
        }
        match &event {
            Event::Submitted { build, plan } => {
                drop(self.plans.insert(build.clone(), plan.clone()))
            }
            Event::Ended { build } => drop(self.plans.remove(build)),
            _ => {}
        }
        let mut out = Vec::new();
        self.core.apply(Millis(self.now), event, &mut out);
        let broken = self.core.broken_invariants();
        assert!(broken.is_empty(), "{broken:#?}\nafter {:#?}", self.trace);
        for effect in &out {
            match effect.clone() {
                Effect::Granted { epoch, leased, .. } => {
                    self.facts.apply(Fact::Leased { epoch, leased });
                }
                Effect::Released { epoch } => self.facts.apply(Fact::Released { epoch }),
                _ => {}
            }
        }
        out.into_iter().for_each(|effect| self.effect(effect));
    }

    /// The coordinator is killed and started again. Its workers go on.
    pub fn restart(&mut self) {
        self.core = Core::from_facts(&self.facts);
        self.pending.clear();
        // What ended and is not known to have ends once more.
        self.ended.retain(|build, _| !self.plans.contains_key(build));
        for (build, plan) in self.plans.clone() {
            self.pending.push(Event::Submitted { build, plan });
        }
        self.pending.push(Event::Resumed);
        self.away = self.desired.keys().cloned().collect();
    }

    pub fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::FindAliases { build, keys, .. } => {
                let find = |def: &DefKey| {
                    let alias = self.aliases.get(def)?.clone();
                    let record = self.records.get(&alias.key)?.clone();
                    Some(AliasHit { alias, record })
                };
                let found = keys.iter().map(find).collect();
                self.pending.push(Event::Aliases { build, found });
            }
            Effect::Evaluate { work, plan, step, inputs, refresh, .. } => {
                let outcome = self.evaluate(&plan, step, &inputs, refresh);
                let traffic = Traffic::default();
                self.pending.push(Event::Evaluated { work, outcome, traffic });
            }
            Effect::Root { work, base, layers, .. } => {
                let mut root = base.unwrap_or_else(|| empty_root().seal().0);
                for layer in layers {
                    root = root_id(&[root.0.as_bytes(), layer.0.as_bytes()]);
                }
                self.pending.push(Event::Rooted { work, outcome: Ok(root) });
            }
            Effect::Record { work, key, record, alias, .. } => {
                if self.records.get(&key).is_none_or(|old| old.version <= record.version) {
                    self.records.insert(key, record);
                }
                if let Some((def, alias)) = alias {
                    self.aliases.insert(def, alias);
                }
                self.pending.push(Event::Recorded { work, outcome: Ok(()) });
            }
            Effect::Desire { worker, leases, keep } => self.desire(worker, leases, &keep),
            Effect::Granted { .. } | Effect::Released { .. } => {}
            Effect::Notify { .. } => {}
            Effect::Ready { build, .. } => {
                assert!(self.ended.insert(build.clone(), End::Ready).is_none(), "ended twice");
                self.pending.push(Event::Ended { build });
            }
            Effect::Fail { build, .. } => {
                assert!(self.ended.insert(build.clone(), End::Failed).is_none(), "ended twice");
                self.pending.push(Event::Ended { build });
            }
        }
    }

    pub fn evaluate(
        &mut self,
        plan: &Plan,
        id: StepId,
        inputs: &[TreeState],
        refresh: bool,
    ) -> Result<Evaluated, Trouble> {
        if self.faults && self.chance.one_in(60) && !inputs.is_empty() {
            return Err(Trouble::Lost("A tree is gone".to_owned()));
        }
        let step = &plan.graph.steps[id.index()];
        let mut parts: Vec<&[u8]> = inputs.iter().map(|i| &i.root.0.as_bytes()[..]).collect();
        let text = format!("{:?}", step.op);
        parts.push(text.as_bytes());
        let key = ContentKey::from_bytes(hash(&parts));
        if let (Some(record), false) = (self.records.get(&key), refresh) {
            return Ok(Evaluated::Hit { key, record: record.clone() });
        }
        if plan.needs_worker(id) {
            let run = step.op.is_run().then(|| {
                let Op::Run(op) = step.op.clone() else { unreachable!("a RUN") };
                let binds = vec![];
                let root = inputs[0].root;
                Box::new(proto::wire::worker::RunTask {
                    op,
                    layers: inputs[0].layers.clone(),
                    root,
                    binds,
                    fresh_caches: refresh,
                    resources: Default::default(),
                })
            });
            let layers = inputs.iter().flat_map(|input| &input.layers);
            let size = |l: &RootId| u64::from(l.0.as_bytes()[0]) << 20;
            let inputs = layers.map(|l| Input { id: InputId::tree(l), bytes: size(l) }).collect();
            return Ok(Evaluated::Miss { key, run, inputs });
        }
        let layer = root_id(&[key.as_bytes()]);
        let root = root_id(&[inputs[0].root.0.as_bytes(), layer.0.as_bytes()]);
        Ok(Evaluated::Made { key: Some(key), layers: vec![layer], root, remark: None })
    }

    pub fn desire(&mut self, worker: WorkerId, mut leases: Vec<Lease>, keep: &[LeaseEpoch]) {
        let before = self.desired.get(&worker).cloned().unwrap_or_default();
        let known: BTreeSet<LeaseEpoch> = leases.iter().map(|l| l.epoch).collect();
        let kept = before.iter().filter(|b| keep.contains(&b.epoch) && !known.contains(&b.epoch));
        leases.extend(kept.cloned());
        self.reported.retain(|epoch, (holder, _)| {
            *holder != worker || leases.iter().any(|lease| lease.epoch == *epoch)
        });
        for lease in &leases {
            if before.iter().any(|b| b.epoch == lease.epoch) {
                continue;
            }
            let content = match &lease.task {
                Task::Run(run) => hash(&[run.root.0.as_bytes(), run.op.args[0].as_bytes()]),
                other => hash(&[format!("{other:?}").as_bytes()]),
            };
            *self.executions.entry(content).or_default() += 1;
            self.contents.insert(lease.epoch, content);
        }
        self.desired.insert(worker, leases);
    }

    pub fn worker_state(&mut self, worker: &WorkerId, reports: Vec<Report>) {
        self.away.remove(worker);
        let leases = self.desired.get(worker).cloned().unwrap_or_default();
        for report in reports {
            self.reported.insert(report.epoch, (worker.clone(), report));
        }
        let own = self.reported.values().filter(|(holder, _)| holder == worker);
        let reports: Vec<Report> = own.map(|(_, report)| report.clone()).collect();
        let waits = |l: &&Lease| !reports.iter().any(|r| r.epoch == l.epoch);
        let running = leases.iter().filter(waits).map(|l| l.epoch).collect();
        let pressure = Pressure { memory: self.pressed.contains(worker), disk: false };
        let capacity = Capacity { pressure, ..capacity(self.slots) };
        self.apply(Event::Worker { worker: worker.clone(), capacity, running, reports });
    }

    /// A worker gets short of something or is cordoned, or not any more.
    pub fn trouble(&mut self, worker: WorkerId) {
        let (kind, begins) = (self.chance.one_in(2), self.chance.one_in(2));
        let set = if kind { &mut self.pressed } else { &mut self.cordoned };
        match begins {
            true => set.insert(worker.clone()),
            false => set.remove(&worker),
        };
        match kind {
            true => self.worker_state(&worker, Vec::new()),
            false => self.apply(Event::Cordoned { worker, cordoned: begins }),
        }
    }

    /// Nothing is on its way: time passes, or what is amiss is mended. Answers whether something
    /// happened.
    pub fn idle(&mut self) -> bool {
        if let Some(timeout) = self.core.next_timeout() {
            self.now = self.now.max(timeout.0);
            self.apply(Event::Tick);
            return true;
        }
        if let Some(worker) = self.pressed.pop_first() {
            self.worker_state(&worker, Vec::new());
            return true;
        }
        // Who has a report that nobody has taken note of says it again.
        if let Some((worker, _)) = self.reported.values().next().cloned() {
            self.worker_state(&worker, Vec::new());
            return true;
        }
        let Some(worker) = self.cordoned.pop_first() else { return false };
        self.apply(Event::Cordoned { worker, cordoned: false });
        true
    }

    /// One thing happens: an answer arrives, a lease ends, or something goes wrong.
    pub fn step(&mut self) -> bool {
        if let Some(back) = self.away.first().cloned().filter(|_| self.chance.one_in(4)) {
            self.worker_state(&back, Vec::new());
            return true;
        }
        let busy: Vec<(WorkerId, LeaseEpoch, Task)> = self
            .desired
            .iter()
            .filter(|(w, _)| !self.away.contains(*w))
            .flat_map(|(w, ls)| ls.iter().map(move |l| (w.clone(), l.epoch, l.task.clone())))
            .filter(|(_, epoch, _)| !self.reported.contains_key(epoch))
            .collect();
        if self.faults && self.chance.one_in(25) && self.desired.len() > 1 {
            let lost = self.desired.keys().nth(self.chance.below(self.desired.len()));
            let lost = lost.expect("there are some").clone();
            self.desired.remove(&lost);
            self.reported.retain(|_, (holder, _)| *holder != lost);
            self.apply(Event::WorkerLost { worker: lost.clone() });
            // It comes back empty-handed, and a report of what it did before is fenced.
            let stale = busy.iter().find(|(w, ..)| *w == lost).map(|(_, epoch, _)| Report {
                epoch: *epoch,
                outcome: Outcome::Done(vec![root_id(&[b"stale"])]),
                cost: Cost::default(),
                traffic: Traffic::default(),
            });
            self.worker_state(&lost, stale.into_iter().collect());
            return true;
        }
        if self.faults && self.chance.one_in(25) && !self.desired.is_empty() {
            let worker = self.desired.keys().nth(self.chance.below(self.desired.len()));
            let worker = worker.expect("there are some").clone();
            self.trouble(worker);
            return true;
        }
        let answers = self.pending.len();
        match self.chance.below(answers + busy.len()) {
            _ if answers + busy.len() == 0 && !self.away.is_empty() => {}
            _ if answers + busy.len() == 0 => return self.idle(),
            at if at < answers => {
                let event = self.pending.swap_remove(at);
                self.apply(event);
            }
            at => {
                let (worker, epoch, task) = busy[at - answers].clone();
                let outcome = match &task {
                    Task::Run(run) if run.op.args[0].contains("fail") => {
                        Outcome::Failed(Failure::new(Class::User, "exit code 1"))
                    }
                    Task::Git(_) if self.chance.one_in(2) => {
                        Outcome::Failed(Failure::new(Class::User, "no key is taken"))
                    }
                    _ => Outcome::Done(vec![root_id(&[&self.contents[&epoch], b"layer"])]),
                };
                let wall_ms = self.chance.below(3) as u64 * 1000;
                let cost = Cost { wall_ms, ..Cost::default() };
                let traffic = Traffic::default();
                let report = Report { epoch, outcome, cost, traffic };
                self.worker_state(&worker, vec![report]);
            }
        }
        true
    }

    pub fn run_to_end(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 200_000, "it goes on for ever: {:#?}", self.trace);
        }
    }
}

pub fn capacity(slots: u32) -> Capacity {
    Capacity {
        platforms: vec![Platform::host()],
        slots,
        cpu_millis: slots * 1000,
        memory_bytes: u64::from(slots) << 32,
        disk_free_bytes: 1 << 40,
        pressure: Pressure::default(),
        takes_work: true,
        is_alone: false,
        fetched: Fetched::default(),
    }
}

pub fn build_id(n: usize) -> BuildId {
    BuildId::parse(&format!("b{n}")).expect("a build id")
}

pub fn worker_id(n: usize) -> WorkerId {
    WorkerId::parse(&format!("w{n}")).expect("a worker id")
}

/// Stages of RUNs and COPYs over few texts, so that builds have much in common.
pub fn random_plan(chance: &mut Chance, nonce: &str, failing: bool) -> Arc<Plan> {
    let mut steps = vec![step(Op::Scratch, vec![]), step(image("base"), vec![])];
    let mut ends = vec![StepId(0), StepId(1)];
    if failing {
        steps.push(step(git(), vec![]));
        ends.push(StepId(2));
    }
    for _ in 0..1 + chance.below(4) {
        let mut at = ends[chance.below(ends.len())];
        for _ in 0..chance.below(5) {
            let (op, inputs) = match chance.below(4) {
                0 => (copy(), vec![at, ends[chance.below(ends.len())]]),
                1 if failing && chance.one_in(8) => (run("fail"), vec![at]),
                1 if chance.one_in(2) => (run_with_cache("cached", "c"), vec![at]),
                n => (run(&format!("run {}", chance.below(3) + n)), vec![at]),
            };
            let mut new = step(op, inputs);
            if chance.one_in(12) {
                new.cache = CacheUse::Refresh;
            }
            steps.push(new);
            at = StepId(steps.len() as u32 - 1);
        }
        ends.push(at);
    }
    let roots = chance.one_in(3);
    plan(steps, *ends.last().expect("there are some"), roots, nonce)
}

/// RUNs that wait for nothing but a worker.
pub fn runs(texts: &[&str]) -> Vec<Step> {
    let mut steps = vec![step(Op::Scratch, vec![])];
    steps.extend(texts.iter().map(|text| step(run(text), vec![StepId(0)])));
    steps
}

/// A plan whose targets are all steps but the first.
pub fn all_targets(steps: Vec<Step>) -> Plan {
    let count = steps.len() as u32;
    let mut plan = Arc::unwrap_or_clone(plan(steps, StepId(1), false, ""));
    let first = plan.graph.targets[0].clone();
    let targets = (1..count).map(|n| Target { step: StepId(n), ..first.clone() });
    plan.graph.targets = targets.collect();
    plan
}

impl World {
    /// A world with one worker of so many slots.
    pub fn with_slots(slots: u32) -> Self {
        let mut world = Self { slots, ..Self::new(1, false) };
        world.worker_state(&worker_id(0), Vec::new());
        world
    }

    /// The worker gets nothing new, or does again.
    pub fn cordon(&mut self, cordoned: bool) {
        self.apply(Event::Cordoned { worker: worker_id(0), cordoned });
    }

    /// Answers all that is on its way; no lease ends.
    pub fn settle(&mut self) {
        while !self.pending.is_empty() {
            let event = self.pending.remove(0);
            self.apply(event);
        }
    }

    /// The commands that run.
    pub fn running(&self) -> Vec<String> {
        let leases = self.desired.values().flatten();
        let text = |lease: &Lease| match &lease.task {
            Task::Run(run) => run.op.args[0].clone(),
            other => format!("{other:?}"),
        };
        let mut texts: Vec<String> = leases.map(text).collect();
        texts.sort();
        texts
    }

    /// All that runs has ended, after so long.
    pub fn end_all(&mut self, wall_ms: u64) {
        self.now += wall_ms;
        let contents = self.contents.clone();
        let made = |lease: &Lease| root_id(&[&contents[&lease.epoch], b"layer"]);
        self.report_all(wall_ms, |lease| Outcome::Done(vec![made(lease)]));
        self.settle();
    }

    /// All that runs has failed. What that leads to is still to be answered.
    pub fn fail_all(&mut self) {
        self.report_all(1, |_| Outcome::Failed(Failure::new(Class::User, "it failed")));
    }

    fn report_all(&mut self, wall_ms: u64, outcome: impl Fn(&Lease) -> Outcome) {
        for (worker, leases) in self.desired.clone() {
            let report = |lease: &Lease| Report {
                epoch: lease.epoch,
                outcome: outcome(lease),
                cost: Cost { wall_ms, ..Cost::default() },
                traffic: Traffic::default(),
            };
            let reports = leases.iter().map(report).collect();
            self.worker_state(&worker, reports);
        }
    }

    /// The builds whose clients are asked for what runs.
    pub fn asked(&self) -> Vec<BuildId> {
        self.desired.values().flatten().map(|lease| lease.build.clone()).collect()
    }
}
