//! A worker and its coordinator.
//!
//! One message each way, `Synchronize` as Buildbarn has it: the worker says what it is doing, the
//! coordinator says what it should be doing. Both are whole states, so that a lost message or a
//! new leader changes nothing: whatever is not wanted any more is stopped, whatever is wanted is
//! started, and a report is repeated until the coordinator has it.

use crate::error::Failure;
use crate::id::{BuildId, LeaseEpoch, Millis, RootId, WorkerId};
use crate::platform::Platform;
use crate::record::Cost;
use crate::step::{GitOp, HttpOp, ImageOp, Needs, PackedRef, RunOp};
use crate::wire::build::{Login, Stream};
use rkyv::{Archive, Deserialize, Serialize};

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// What it is doing, and what it has done.
    State(WorkerState),
    /// A piece of a running step's log.
    Log {
        /// The lease.
        lease: LeaseEpoch,
        /// Where the step wrote to.
        stream: Stream,
        /// When.
        at: Millis,
        /// What.
        data: Vec<u8>,
    },
    /// Bytes moved for a lease.
    Progress {
        /// The lease.
        lease: LeaseEpoch,
        /// What is moved.
        what: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all; 0 when not known.
        total: u64,
        /// Whether it has ended.
        done: bool,
    },
    /// Something that only the build's client has is needed. Answered under the same number.
    Ask(u64, BuildId, crate::wire::build::Ask),
}

/// What a coordinator says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToWorker {
    /// What it should be doing: all leases that it holds. What is not among them is stopped; a
    /// report for what is not among them has been taken note of.
    Desired(Vec<Lease>),
    /// The answer to [`ToCoordinator::Ask`] of that number.
    Answer(u64, crate::wire::build::Answer),
}

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WorkerState {
    /// Who it is.
    pub worker: WorkerId,
    /// What it runs without an emulator, and with one.
    pub platforms: Vec<Platform>,
    /// How many RUNs it can do at once.
    pub slots: u32,
    /// The leases that it works on.
    pub running: Vec<LeaseEpoch>,
    /// What came out of leases, until they are no longer desired.
    pub reports: Vec<Report>,
}

/// The right, and the duty, to do something.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Lease {
    /// Its number: a report under another one changes nothing.
    pub epoch: LeaseEpoch,
    /// The build that secrets and logins are asked for from.
    pub build: BuildId,
    /// What is to be done.
    pub task: Task,
    /// What it may use.
    pub needs: Needs,
    /// The platform.
    pub platform: Platform,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Task {
    /// A RUN.
    Run(Box<RunTask>),
    /// An image's layers, pulled and unpacked.
    Image(ImageOp),
    /// A file from a web server.
    Http(HttpOp),
    /// A commit of a git repository.
    Git(GitOp),
}

/// A RUN with its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RunTask {
    /// The command.
    pub op: RunOp,
    /// The layers of its root, lowest first, each with no implicit directories.
    pub layers: Vec<RootId>,
    /// The merged root that they make.
    pub root: RootId,
    /// What the mounts show, in the order of the command's mounts: none for those without input.
    pub binds: Vec<Option<Bind>>,
    /// Whether cache mounts begin empty (`--no-cache`).
    pub fresh_caches: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Bind {
    /// This tree.
    Dir(RootId),
    /// The one file, named `file`, of this tree.
    File(RootId),
}

/// What came out of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Report {
    /// The lease.
    pub epoch: LeaseEpoch,
    /// What came out.
    pub outcome: Outcome,
    /// What it used.
    pub cost: Cost,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// Layers, lowest first, durable in the store.
    Done(Vec<RootId>),
    /// It failed, and would fail again.
    Failed(Failure),
    /// Something that an earlier step made is gone from the store; in words.
    Lost(String),
    /// It was stopped, because it was not wanted any more.
    Stopped,
}

/// A reference resolved: what [`ImageOp`] needs to name it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The image.
    pub op: ImageOp,
    /// The platform that it is for.
    pub platform: Platform,
    /// Its config, as JSON.
    pub config: String,
    /// The packed layers that its manifest names, lowest first.
    pub layers: Vec<PackedRef>,
}

/// Logins asked for, to hand to a registry client.
pub type LoginAnswer = Option<Login>;
