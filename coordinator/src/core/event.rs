//! All that the core can see, and all that it can ask for.

use super::facts::Leased;
use super::place::{Input, Waiting};
use super::plan::Plan;
use proto::error::Failure;
use proto::id::{BlobId, BuildId, ContentKey, DefKey, LeaseEpoch, Millis, RootId, Scope, WorkerId};
use proto::record::{Alias, Cost, Record};
use proto::step::StepId;
use proto::wire::build::Traffic;
use proto::wire::worker::{Capacity, Lease, Report, RunTask};
use std::sync::Arc;

/// A row of the table of work: one definition in one scope, whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A build's graph is known.
    Submitted {
        /// The build.
        build: BuildId,
        /// What it is.
        plan: Arc<Plan>,
    },
    /// Layers of a build that was [`Effect::Ready`] cannot be had: their steps run again.
    Lost {
        /// The build.
        build: BuildId,
        /// The layers.
        layers: Vec<RootId>,
        /// What happened, in words.
        what: String,
    },
    /// Nobody waits for the build any more.
    Ended {
        /// The build.
        build: BuildId,
    },
    /// The answer to [`Effect::FindAliases`].
    Aliases {
        /// The build that asked.
        build: BuildId,
        /// For each definition asked for, in order.
        found: Vec<Option<AliasHit>>,
    },
    /// The answer to [`Effect::Evaluate`].
    Evaluated {
        /// The work.
        work: WorkId,
        /// What came out.
        outcome: Result<Evaluated, Trouble>,
        /// What was moved for it.
        traffic: Traffic,
    },
    /// The answer to [`Effect::Root`].
    Rooted {
        /// The work.
        work: WorkId,
        /// Its merged root.
        outcome: Result<RootId, Trouble>,
    },
    /// The answer to [`Effect::Record`].
    Recorded {
        /// The work.
        work: WorkId,
        /// Whether it was kept.
        outcome: Result<(), Trouble>,
    },
    /// A worker says that it is there, and what it is doing.
    Worker {
        /// Who.
        worker: WorkerId,
        /// What it can do.
        capacity: Capacity,
        /// The leases that it works on.
        running: Vec<LeaseEpoch>,
        /// What came out of leases.
        reports: Vec<Report>,
    },
    /// All builds of an earlier life that go on have been submitted again.
    Resumed,
    /// A worker is gone.
    WorkerLost {
        /// Who.
        worker: WorkerId,
    },
    /// A worker gets nothing new from now on, or does again, whether it is there or not.
    Cordoned {
        /// Who.
        worker: WorkerId,
        /// Whether it is cordoned.
        cordoned: bool,
    },
    /// What a project weighs beside the others: twice as much gets twice as many slots when all of
    /// them want more. 1, if nobody says.
    Weight {
        /// The project.
        project: String,
        /// Its weight.
        weight: u32,
    },
    /// What the newest generation of a cache mount weighs.
    Mount {
        /// Whose it is.
        scope: Scope,
        /// Its id.
        id: String,
        /// Bytes.
        bytes: u64,
    },
    /// Time has passed: [`super::Core::next_timeout`] has come.
    Tick,
}

/// A record, and how a definition leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasHit {
    /// What the definition led to.
    pub alias: Alias,
    /// The record.
    pub record: Record,
}

/// Why work could not go on.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// It failed, and would fail again.
    Failed(Failure),
    /// Something that an earlier step made is gone from the store.
    Lost(String),
    /// The layers that the step itself came to cannot be had.
    Gone(String),
}

/// What came of a look at a step whose inputs are known.
#[derive(Debug, Clone)]
pub enum Evaluated {
    /// There is a record.
    Hit {
        /// The step's key.
        key: ContentKey,
        /// The record.
        record: Record,
    },
    /// It was algebra, and is done.
    Made {
        /// The step's key; none for what has no record.
        key: Option<ContentKey>,
        /// The layers that it adds.
        layers: Vec<RootId>,
        /// The merged root.
        root: RootId,
        /// What the person is told of it.
        remark: Option<String>,
    },
    /// A worker has to do it.
    Miss {
        /// The step's key.
        key: ContentKey,
        /// The task, when it is a RUN.
        run: Option<Box<RunTask>>,
        /// The trees that it needs, as far as their sizes are known.
        inputs: Vec<Input>,
    },
}

/// A step that could begin, and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// The row.
    pub work: WorkId,
    /// The builds that wait for it, and which of their steps it is.
    pub steps: Vec<(BuildId, StepId)>,
    /// What for.
    pub why: Waiting,
}

/// Something that is to be done outside of the core.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Look up what these definitions led to. Answered by [`Event::Aliases`].
    FindAliases {
        /// The build.
        build: BuildId,
        /// Its scope.
        scope: Scope,
        /// The definitions.
        keys: Vec<DefKey>,
    },
    /// Compute the step's content key, look for a record, and do it when it is algebra.
    Evaluate {
        /// The work.
        work: WorkId,
        /// Its scope.
        scope: Scope,
        /// Its graph.
        plan: Arc<Plan>,
        /// Its place in the graph.
        step: StepId,
        /// The states of its inputs, in order.
        inputs: Vec<TreeState>,
        /// Whether a record counts.
        refresh: bool,
    },
    /// Put the layers upon the base. Answered by [`Event::Rooted`].
    Root {
        /// The work.
        work: WorkId,
        /// Its graph.
        plan: Arc<Plan>,
        /// The base; none for the empty root.
        base: Option<RootId>,
        /// The layers, lowest first.
        layers: Vec<RootId>,
    },
    /// Keep the record. Answered by [`Event::Recorded`].
    Record {
        /// The work.
        work: WorkId,
        /// Its scope.
        scope: Scope,
        /// Its key.
        key: ContentKey,
        /// What to keep.
        record: Record,
        /// By which definition to find it.
        alias: Option<(DefKey, Alias)>,
        /// The lease under which it was made: whose log goes with it.
        lease: Option<LeaseEpoch>,
    },
    /// Tell the worker what it should be doing: all of it.
    Desire {
        /// Who.
        worker: WorkerId,
        /// All its leases.
        leases: Vec<Lease>,
        /// Leases of before the coordinator was started again whose steps are not known again yet:
        /// they go on.
        keep: Vec<LeaseEpoch>,
    },
    /// Write down that a lease was given. Before anybody is told.
    Granted {
        /// The lease.
        epoch: LeaseEpoch,
        /// What it is for.
        leased: Leased,
        /// How long the step had waited for a worker, in milliseconds.
        waited_ms: u64,
    },
    /// Write down that a lease is over.
    Released {
        /// The lease.
        epoch: LeaseEpoch,
    },
    /// Tell who waits for the build.
    Notify {
        /// The build.
        build: BuildId,
        /// The step.
        step: StepId,
        /// What happened.
        notice: Notice,
    },
    /// The build's targets are there.
    Ready {
        /// The build.
        build: BuildId,
        /// For each target, in order.
        targets: Vec<TargetState>,
    },
    /// The build failed.
    Fail {
        /// The build.
        build: BuildId,
        /// The step, when one failed.
        step: Option<StepId>,
        /// Why.
        failure: Failure,
    },
}

/// A tree in the middle of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeState {
    /// The merged root.
    pub root: RootId,
    /// Its layers, lowest first, those of the base image too.
    pub layers: Vec<RootId>,
    /// The records that it came from: definition and version.
    pub sources: Vec<(DefKey, u64)>,
}

/// What a target came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetState {
    /// For each step of the target's chain that adds a layer, lowest first: the layer and when it
    /// was made. The base image's layers are not among them.
    pub layers: Vec<(StepId, RootId, Millis)>,
    /// The merged root, when the build needs it.
    pub root: Option<RootId>,
}

/// What is worth telling about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It began.
    Started {
        /// The lease, when a worker does it.
        lease: Option<LeaseEpoch>,
    },
    /// An earlier result was taken.
    Cached {
        /// What it had cost.
        cost: Cost,
        /// What it had written.
        log: Option<BlobId>,
    },
    /// It is done.
    Done {
        /// The layers that it adds.
        layers: Vec<RootId>,
    },
    /// What is to be told of it, among what it writes.
    Remark(String),
    /// A worker moved something for it.
    Moved(Traffic),
    /// It failed.
    Failed(Failure),
    /// It will run again: a worker or its result was lost, or it failed with what another build's
    /// client has.
    Again(String),
    /// The build is over: nothing more will be noticed. Not from the core.
    Over,
}
