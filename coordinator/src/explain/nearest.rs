//! Which earlier step a step is compared with.

use super::difference::At;
use super::trace::{Kind, Sketch, Trace};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Earlier builds of the same thing, the nearest first: those that have the most steps in common
/// with it, and of those the latest. What has nothing in common with it is left out.
pub fn rank(mut earlier: Vec<Trace>, now: &Trace) -> Vec<Trace> {
    let keys: BTreeSet<_> = visible(now).map(|step| step.key).collect();
    let names: BTreeSet<_> = visible(now).map(|step| step.name.as_str()).collect();
    let score = |trace: &Trace| -> usize {
        let one = |step: &Sketch| {
            2 * usize::from(keys.contains(&step.key))
                + usize::from(names.contains(step.name.as_str()))
        };
        visible(trace).map(one).sum()
    };
    earlier.retain(|trace| score(trace) > 0);
    earlier.sort_by_cached_key(|trace| (Reverse(score(trace)), Reverse(trace.started)));
    earlier
}

fn visible(trace: &Trace) -> impl Iterator<Item = &Sketch> {
    trace.steps.iter().filter(|step| !step.name.is_empty())
}

/// The step of earlier builds, the nearest first, that a step is compared with. Of each build it is
/// the one of the same name, else of the same text or shape in the same stage, else the one in the
/// same place; and of those the one that differs in the fewest things.
pub fn counterpart<'t>(earlier: &'t [Trace], now: At<'_>) -> Option<At<'t>> {
    let step = now.sketch();
    let own = Label::of(&step.name);
    // COPYs have one shape, whatever they copy.
    let has_shape = matches!(step.kind, Kind::Run | Kind::Image { .. });
    let in_stage = |other: &Sketch| Label::of(&other.name).stage == own.stage;
    let same_name = |other: &Sketch| other.name == step.name;
    let same_text = |other: &Sketch| Label::of(&other.name).text == own.text && in_stage(other);
    let same_shape = |other: &Sketch| has_shape && other.shape == step.shape && in_stage(other);
    let same_place = |other: &Sketch| {
        let other = Label::of(&other.name);
        own.place.is_some() && (other.stage, other.place) == (own.stage, own.place)
    };
    let rules: [&dyn Fn(&Sketch) -> bool; 4] = [&same_name, &same_text, &same_shape, &same_place];
    let found = earlier.iter().filter_map(|trace| {
        let find = |rule: &&dyn Fn(&Sketch) -> bool| {
            trace.steps.iter().position(|step| !step.name.is_empty() && rule(step))
        };
        rules.iter().find_map(find).map(|step| At { trace, step })
    });
    found.min_by_key(|other| other.distance(now))
}

/// The parts of a name such as `[builder 3/5] RUN make`.
struct Label<'n> {
    stage: Option<&'n str>,
    place: Option<&'n str>,
    text: &'n str,
}

impl<'n> Label<'n> {
    fn of(name: &'n str) -> Self {
        let cut = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let Some((label, text)) = cut else { return Self { stage: None, place: None, text: name } };
        let (stage, place) = label.rsplit_once(' ').unwrap_or(("", label));
        let place = place.split('/').next();
        Self { stage: Some(stage.trim_end()), place, text }
    }
}
