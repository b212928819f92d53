//! The keys of a graph's steps.

use crate::core::StepKeys;
use crate::core::plan::is_for_workers;
use proto::id::ContentDigest;
use proto::key::{DefInput, def_key, shape_key};
use proto::step::{CacheUse, Graph, Op, StepId};
use std::collections::BTreeMap;

/// What a step selects of a local context: by the step and the place among its inputs.
pub type Selections = BTreeMap<(StepId, usize), ContentDigest>;

/// The inputs for which [`keys`] needs a selection: steps that take local files, with the place of
/// those files among their inputs.
pub fn local_inputs(graph: &Graph) -> Vec<(StepId, usize)> {
    let mut out = Vec::new();
    for (index, step) in graph.steps.iter().enumerate() {
        for (place, input) in step.inputs.iter().enumerate() {
            let is_local = matches!(graph.steps[input.index()].op, Op::Local(_));
            // A root that is a local directory counts in full.
            if is_local && place > 0 {
                out.push((StepId(index as u32), place));
            }
        }
    }
    out
}

/// Which steps of a build are done together with the same ones of other builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Those that take earlier results.
    WithOthers,
    /// None: what counts for this build does not count for others.
    Alone,
}

/// The keys of each step. `nonce` is the build's own, for steps that are not joined.
pub fn keys(graph: &Graph, selections: &Selections, nonce: &str, joined: Joined) -> Vec<StepKeys> {
    let mut keys: Vec<StepKeys> = Vec::with_capacity(graph.steps.len());
    let mut plain = Vec::with_capacity(graph.steps.len());
    for (index, step) in graph.steps.iter().enumerate() {
        let id = StepId(index as u32);
        let refresh = step.cache == CacheUse::Refresh;
        let input = |place: usize, input: &StepId, own: &dyn Fn(usize) -> _| match (
            selections.get(&(id, place)),
            &graph.steps[input.index()].op,
        ) {
            (Some(digest), _) => DefInput::Selection(*digest),
            (None, Op::Local(local)) => {
                DefInput::Selection(ContentDigest::from_bytes(*local.root.0.as_bytes()))
            }
            (None, _) => DefInput::Step(own(input.index())),
        };
        let inputs = |own: &dyn Fn(usize) -> _| -> Vec<DefInput> {
            step.inputs.iter().enumerate().map(|(place, i)| input(place, i, own)).collect()
        };
        let own = refresh || joined == Joined::Alone;
        let work = match &step.op {
            // A local tree is known by its own name: the same one serves several builds.
            Op::Local(local) => proto::id::DefKey::from_bytes(*local.root.0.as_bytes()),
            _ => def_key(step, &inputs(&|i| keys[i].work), own.then_some(nonce)),
        };
        let alias = def_key(step, &inputs(&|i| plain[i]), None);
        let trusted = !refresh && step.inputs.iter().all(|i| keys[i.index()].trusted);
        let kept = !matches!(step.op, Op::Scratch | Op::Local(_) | Op::Merge | Op::Inline(_));
        let shape = is_for_workers(&step.op).then(|| shape_key(step));
        keys.push(StepKeys { work, alias: kept.then_some(alias), trusted, shape });
        plain.push(alias);
    }
    keys
}
