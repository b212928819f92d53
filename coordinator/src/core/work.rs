//! One row of the table of work.

use super::event::{AliasHit, WorkId};
use super::place::Input;
use super::plan::{Plan, StepKeys};
use proto::error::Failure;
use proto::id::{BuildId, ContentKey, DefKey, LeaseEpoch, Millis, RootId, WorkerId};
use proto::record::{Alias, Cost, Record};
use proto::step::{CacheUse, Op, Step, StepId, is_by_ssh};
use proto::wire::worker::RunTask;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is needed of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// The layers that it adds.
    Layers,
    /// The merged root.
    Root,
}

/// Where a step stands.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Nobody needs it so far.
    Idle,
    /// It waits for its inputs' roots.
    Blocked,
    /// Its key is computed and looked up; algebra is done.
    Evaluating,
    /// A worker has to do it.
    Ready(Job),
    /// The same content is being worked on by another row.
    Follows(WorkId),
    /// A worker does it.
    Leased(Job, LeaseEpoch, WorkerId),
    /// It is done, and being recorded.
    Recording(Made),
    /// It is done.
    Done(Made),
    /// It failed.
    Failed(Failure),
}

/// What a worker has to do.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub key: ContentKey,
    /// The RUN with its inputs; none for fetches, which need nothing but their definition.
    pub run: Option<Box<RunTask>>,
    /// What has to be on its worker.
    pub inputs: Vec<Input>,
}

/// What came out of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub layers: Vec<RootId>,
    pub created: Millis,
    /// The version of its record, when it has one.
    pub version: Option<u64>,
    pub producer: Option<WorkerId>,
}

impl Made {
    pub fn of(record: &Record) -> Self {
        Self {
            layers: record.layers.clone(),
            created: record.created,
            version: Some(record.version),
            producer: record.producer.clone(),
        }
    }
}

/// What is known of a step's merged root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootPhase {
    Unknown,
    Asked,
    Known(RootId),
}

/// One row.
#[derive(Debug)]
pub(super) struct Work {
    pub plan: Arc<Plan>,
    pub step: StepId,
    pub keys: StepKeys,
    /// The rows of its inputs, in order.
    pub inputs: Vec<WorkId>,
    /// The rows that wait for it.
    pub parents: BTreeSet<WorkId>,
    /// The builds whose graphs it is in, and where.
    pub members: BTreeMap<BuildId, StepId>,
    /// The builds that need it, and what of it.
    pub wanted: BTreeMap<BuildId, Want>,
    /// What its definition led to before, when that still counts.
    pub alias: Option<AliasHit>,
    /// How its definition leads to what it is done with.
    pub found: Option<Alias>,
    /// The content that it is ready for, leased or being recorded under.
    pub content: Option<ContentKey>,
    pub phase: Phase,
    pub root: RootPhase,
    /// Rows with the same content that take what comes out of this one.
    pub followers: BTreeSet<WorkId>,
    /// Workers that were lost while they did it, and results that were lost later.
    pub lost: u32,
    /// How long the path from it on is expected to be, in milliseconds.
    pub path: u64,
    /// For which build, and with how long a path, it waits for a worker.
    pub queued: Option<(BuildId, u64)>,
    /// The build whose client its present or last lease asks.
    pub asked: Option<BuildId>,
    /// When it was begun.
    pub started: Option<Millis>,
    pub cost: Cost,
}

impl Work {
    pub fn op(&self) -> &Op {
        &self.definition().op
    }

    pub fn definition(&self) -> &Step {
        &self.plan.graph.steps[self.step.index()]
    }

    /// Whether what comes of it may hang on whose client is asked, although it is the same step: with
    /// one agent a repository can be reached, and with another one not. So it may with secrets, but
    /// a RUN that fails mostly fails with all of them, and would do so for each build in turn.
    pub fn hangs_on_client(&self) -> bool {
        matches!(self.op(), Op::Git(git) if is_by_ssh(&git.remote))
    }

    pub fn refresh(&self) -> bool {
        self.definition().cache == CacheUse::Refresh
    }

    pub fn want(&self) -> Option<Want> {
        self.wanted.values().copied().max()
    }

    /// The row whose work it takes, when it is not its own.
    pub fn leader(&self) -> Option<WorkId> {
        match self.phase {
            Phase::Follows(leader) => Some(leader),
            _ => None,
        }
    }

    pub fn made(&self) -> Option<&Made> {
        match &self.phase {
            Phase::Done(made) => Some(made),
            _ => None,
        }
    }

    pub fn root(&self) -> Option<RootId> {
        match self.root {
            RootPhase::Known(root) => Some(root),
            RootPhase::Unknown | RootPhase::Asked => None,
        }
    }

    /// The row in one line, for traces.
    #[cfg(test)]
    pub fn line(&self, id: WorkId) -> String {
        let phase = format!("{:?}", self.phase);
        let op = format!("{:?}", self.op());
        let first = |text: &str| text.split(['(', ' ']).next().unwrap_or_default().to_owned();
        let inputs: Vec<u64> = self.inputs.iter().map(|i| i.0).collect();
        let parents: Vec<u64> = self.parents.iter().map(|i| i.0).collect();
        format!(
            "{} {} {} root {:?} of {inputs:?} for {parents:?} wanted {:?} followers {:?} lost {}",
            id.0,
            first(&op),
            first(&phase),
            self.root.clone(),
            self.wanted,
            self.followers,
            self.lost
        )
    }

    /// By which definition, and in which version, what it made is known.
    pub fn source(&self) -> Option<(DefKey, u64)> {
        Some((self.keys.alias?, self.made()?.version?))
    }
}
