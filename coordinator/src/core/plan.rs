//! A build as the core sees it: its graph with the steps' keys, and what it is for.

use super::place::Expected;
use proto::id::{BuildId, DefKey, Scope, ShapeKey};
use proto::step::{Graph, Op, StepId};
use proto::wire::build::Resources;
use rkyv::{Archive, Deserialize, Serialize};
use std::sync::Arc;

/// How long the algebra of a COPY or a WORKDIR takes, in milliseconds, where paths are compared.
const ALGEBRA_MS: u64 = 1;

/// A build's graph with its keys.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Plan {
    /// The graph.
    pub graph: Graph,
    /// For each step.
    pub keys: Vec<StepKeys>,
    /// Who may use and write its records.
    pub scope: Scope,
    /// On whose behalf workers are busy with it.
    #[rkyv(with = rkyv::with::Skip)]
    pub owner: Owner,
    /// Whether the targets' merged roots are needed, or only their layers.
    pub roots: bool,
    /// How much it matters among the builds of its user: each level doubles its part of what that
    /// user gets ([`super::place::Flow::priority`]).
    pub priority: u8,
    /// Limits that the build asks for.
    pub resources: Resources,
    /// Records that count for it beside those of the farm.
    pub imports: Imports,
}

/// Records that a build's client names, and that the farm has not seen made. They count for this
/// build alone, so that its steps are joined with nobody's by their definitions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub enum Imports {
    /// There are none.
    #[default]
    None,
    /// Those of this build, on the farm of one machine: what is made upon them is found again as
    /// everything else.
    Own(BuildId),
    /// Those of this build, on a farm of many: what is made upon them is found by its content
    /// only, never by a definition whose results others did not make.
    Foreign(BuildId),
}

impl Imports {
    /// The build that has them.
    pub fn build(&self) -> Option<&BuildId> {
        match self {
            Self::None => None,
            Self::Own(build) | Self::Foreign(build) => Some(build),
        }
    }
}

/// Who a build belongs to. Projects share the farm by weight, and the users of a project alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The project.
    pub project: Arc<str>,
    /// The user, within the project.
    pub user: Arc<str>,
}

impl Owner {
    /// The one to whom everything belongs where there is nobody else.
    pub fn only() -> Self {
        Self { project: "default".into(), user: "default".into() }
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::only()
    }
}

/// The keys of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepKeys {
    /// What joins it to the same work of other builds.
    pub work: DefKey,
    /// By what a record can be found before the inputs are known, and is found later; none when
    /// no record is kept (sources that are there at once, merges).
    pub alias: Option<DefKey>,
    /// Whether earlier results of the definition count. They do not when the step, or anything
    /// that it needs, is to be made anew.
    pub trusted: bool,
    /// By what is known how long it takes; none when no worker does it.
    pub shape: Option<ShapeKey>,
}

impl Plan {
    /// The steps from the lowest to `step` that a target's image is made of: the base of each is
    /// its first input.
    pub fn chain(&self, step: StepId) -> Vec<StepId> {
        let mut chain = vec![step];
        let mut at = step;
        while let Some(base) = self.base(at) {
            chain.push(base);
            at = base;
        }
        chain.reverse();
        chain
    }

    /// The step whose root this step works on.
    pub fn base(&self, step: StepId) -> Option<StepId> {
        let step = &self.graph.steps[step.index()];
        if step.op.is_source() { None } else { step.inputs.first().copied() }
    }

    /// Whether the step adds a layer to an image: all but the empty root and base images, whose
    /// layers stay as they are.
    pub fn adds_layer(&self, step: StepId) -> bool {
        !matches!(self.graph.steps[step.index()].op, Op::Scratch | Op::Image(_))
    }

    /// For each step, how many milliseconds are expected from its beginning to the end of the
    /// longest path that leads on from it. `known` is what is expected of a shape.
    pub fn paths(&self, known: impl Fn(&ShapeKey) -> Option<Expected>) -> Vec<u64> {
        let mut paths = vec![0u64; self.graph.steps.len()];
        for (index, step) in self.graph.steps.iter().enumerate().rev() {
            let shape = self.keys[index].shape;
            let expected = shape.map(|s| known(&s).unwrap_or_else(|| unknown(&step.op)).wall_ms);
            paths[index] = paths[index].saturating_add(expected.unwrap_or(ALGEBRA_MS));
            for input in &step.inputs {
                paths[input.index()] = paths[input.index()].max(paths[index]);
            }
        }
        paths
    }

    /// Whether the step needs a worker when no record is found.
    pub fn needs_worker(&self, step: StepId) -> bool {
        is_for_workers(&self.graph.steps[step.index()].op)
    }
}

/// Whether a worker does such a step.
pub fn is_for_workers(op: &Op) -> bool {
    matches!(op, Op::Run(_) | Op::Image(_) | Op::Http(_) | Op::Git(_))
}

/// What is expected of a step of which nothing is known.
pub fn unknown(op: &Op) -> Expected {
    if op.is_run() { Expected::RUN } else { Expected::FETCH }
}
