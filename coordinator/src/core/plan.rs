//! A build as the core sees it: its graph with the steps' keys, and what it is for.

use proto::id::{DefKey, Scope};
use proto::step::{Graph, Op, StepId};
use proto::wire::build::Resources;

/// A build's graph with its keys.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The graph.
    pub graph: Graph,
    /// For each step.
    pub keys: Vec<StepKeys>,
    /// Who may use and write its records.
    pub scope: Scope,
    /// Whether the targets' merged roots are needed, or only their layers.
    pub roots: bool,
    /// How much it matters: builds with a higher number go first.
    pub priority: u8,
    /// Limits that the build asks for.
    pub resources: Resources,
}

/// The keys of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepKeys {
    /// What joins it to the same work of other builds.
    pub work: DefKey,
    /// By what a record can be found before the inputs are known, and is found later; none when
    /// no record is kept (sources that are there at once, merges).
    pub alias: Option<DefKey>,
    /// Whether earlier results of the definition count. They do not when the step, or anything
    /// that it needs, is to be made anew.
    pub trusted: bool,
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

    /// For each step, how many RUNs stand between it and the end of the longest path that leads
    /// on from it, itself included.
    pub fn paths(&self) -> Vec<u64> {
        let mut paths = vec![0; self.graph.steps.len()];
        for (index, step) in self.graph.steps.iter().enumerate().rev() {
            paths[index] += u64::from(step.op.is_run());
            for input in &step.inputs {
                paths[input.index()] = paths[input.index()].max(paths[index]);
            }
        }
        paths
    }

    /// Whether the step needs a worker when no record is found.
    pub fn needs_worker(&self, step: StepId) -> bool {
        matches!(
            self.graph.steps[step.index()].op,
            Op::Run(_) | Op::Image(_) | Op::Http(_) | Op::Git(_)
        )
    }
}
