//! The display as text that only grows, for files, pipes and CI: every line says its vertex
//! (`#5 …`), and everything that steps write is there.
//!
//! Steps that run side by side would mix their lines beyond recognition. So one step is followed
//! at a time and the others' lines wait; which one, goes as in BuildKit: what has ended comes
//! first, then the one that is followed, until another one has waited for long or says more.
//! Lines end here with a carriage return, too: nothing can be written over.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod step;
#[cfg(test)]
mod tests;

use super::model::{Model, Node, Phase};
use proto::id::Millis;
use proto::wire::build::{Event, VertexId};
use std::collections::{BTreeMap, BTreeSet};
use step::{Out, Step};

/// A step that has something to say waits no longer than this, in milliseconds.
const WAIT_MAX: u64 = 10_000;
/// How long one step is followed while others wait, in milliseconds; a step that says more than
/// the others is followed longer.
const FOLLOW: f64 = 5_000.0;
/// A step whose waiting log has so many bytes waits no longer.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// What has been told, and what waits.
#[derive(Default)]
pub struct Plain {
    steps: BTreeMap<VertexId, Step>,
    /// Those that have something to say.
    waiting: BTreeSet<VertexId>,
    followed: Option<VertexId>,
    numbers: u32,
    /// The last line of the followed step has not ended.
    mid_line: bool,
}

impl Plain {
    /// Takes note of an event that `model` has taken.
    pub fn note(&mut self, now: Millis, model: &Model, event: &Event) {
        let id = match event {
            Event::Vertex(vertex) => vertex.id,
            Event::Progress(progress) => progress.vertex,
            Event::Log { vertex, .. } => *vertex,
            Event::Warning(_) => return,
        };
        let Some(node) = model.node(id) else { return };
        let step = self.steps.entry(id).or_insert_with(|| Step::new(now));
        if step.note(now, node, event) {
            self.waiting.insert(id);
        }
    }

    /// Whether something waits for its turn.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes what is due.
    pub fn write(&mut self, now: Millis, model: &Model, text: &mut String) {
        self.ended(now, model, text);
        if self.waiting.is_empty() {
            // Nobody speaks, but which step runs is worth a line.
            let running = model.running().values().next();
            if let (None, Some(id)) = (self.followed, running) {
                self.step(now, model, *id, text);
            }
            return;
        }
        if let Some(id) = self.followed.filter(|id| self.waiting.contains(id)) {
            self.step(now, model, id, text);
        }
        if let Some(id) = self.next(now) {
            self.step(now, model, id, text);
        }
    }

    /// Writes all that waits, as the build has ended.
    pub fn finish(&mut self, now: Millis, model: &Model, text: &mut String) {
        let untold = |id: &&VertexId| self.steps.get(id).is_some_and(|step| !step.end_told());
        self.waiting.extend(model.begun().iter().filter(untold));
        self.ended(now, model, text);
        for id in std::mem::take(&mut self.waiting) {
            self.step(now, model, id, text);
        }
        self.out(text).end_line();
    }

    /// Writes what steps say that have ended, the followed one first.
    fn ended(&mut self, now: Millis, model: &Model, text: &mut String) {
        let ended = self.waiting.iter().filter_map(|id| match model.node(*id)?.phase {
            Phase::Ended { completed, .. } => Some((self.followed != Some(*id), completed, *id)),
            Phase::Waiting | Phase::Running { .. } => None,
        });
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        for (_, _, id) in ended {
            self.step(now, model, id, text);
        }
    }

    /// The step to go over to, if any.
    fn next(&self, now: Millis) -> Option<VertexId> {
        let speed = |id| self.steps.get(&id).map_or(0.0, |step| step.speed(now));
        let others = || self.waiting.iter().copied().filter(|id| Some(*id) != self.followed);
        let overdue = others().find(|id| self.steps.get(id).is_some_and(|s| s.overdue(now)));
        if overdue.is_some() {
            return overdue;
        }
        let loudest = others().max_by(|a, b| speed(*a).total_cmp(&speed(*b)).then(b.cmp(a)));
        let Some(followed) = self.followed else { return loudest };
        let all: f64 = others().map(speed).sum::<f64>() + speed(followed);
        let others_share = if all > 0.0 { 1.0 - speed(followed) / all } else { 1.0 };
        let since = self.steps.get(&followed).map_or(0, |step| step.speaking(now));
        loudest.filter(|_| since as f64 * others_share > FOLLOW)
    }

    /// Writes what a step has to say, and follows it from now on, unless it has ended.
    fn step(&mut self, now: Millis, model: &Model, id: VertexId, text: &mut String) {
        self.waiting.remove(&id);
        let Some(node) = model.node(id) else { return };
        self.follow(id, node, text);
        let Some(step) = self.steps.get_mut(&id) else { return };
        step.write(now, model, node, &mut Out { text, mid_line: &mut self.mid_line });
        if node.has_ended() {
            self.followed = None;
        }
    }

    /// The lines from here on are this step's.
    fn follow(&mut self, id: VertexId, node: &Node, text: &mut String) {
        if self.followed == Some(id) {
            return;
        }
        if let Some(last) = self.followed.and_then(|last| self.steps.get_mut(&last)) {
            last.leave(&mut Out { text, mid_line: &mut self.mid_line });
        }
        if self.numbers > 0 {
            self.out(text).line(format_args!(""));
        }
        self.followed = Some(id);
        let Some(step) = self.steps.get_mut(&id) else { return };
        step.enter(&mut self.numbers, node, &mut Out { text, mid_line: &mut self.mid_line });
    }

    fn out<'a>(&'a mut self, text: &'a mut String) -> Out<'a> {
        Out { text, mid_line: &mut self.mid_line }
    }
}
