//! What is known of a build: its vertices, what they move, and the ends of their logs.
//!
//! [`Model::apply`] takes events in the order in which the coordinator sent them. The vertex comes
//! before what is said of it; what is said of an unknown one is left out. Times of events are of
//! the coordinator's clock, `now` is of ours: [`Model`] learns the difference.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod tests;

use super::tail::{Limits, Tail};
use super::text;
use proto::id::Millis;
use proto::wire::build::{Event, Progress, Vertex, VertexId, Warning};
use std::collections::BTreeMap;

/// A build, as far as it is known.
pub struct Model {
    tails: Limits,
    began: Millis,
    /// How far our clock is ahead of the coordinator's. Messages take time, so each one only says
    /// what it is at most.
    skew: Option<i128>,
    nodes: BTreeMap<VertexId, Node>,
    /// Those that have begun, in that order.
    order: Vec<VertexId>,
    /// Those of them that have not ended, by their place in `order`.
    running: BTreeMap<usize, VertexId>,
    ended: usize,
    warnings: Vec<Warning>,
    ending: Option<(Ending, Millis)>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has a result.
    Finished,
    /// Something failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

/// A vertex.
#[derive(Default)]
pub struct Node {
    /// Its name, harmless and on one line.
    pub name: String,
    /// How far it is.
    pub phase: Phase,
    /// What it moves, in the order in which that began.
    pub transfers: Vec<Transfer>,
    /// The end of its log, while it runs and when it failed.
    pub tail: Option<Box<Tail>>,
    by_what: BTreeMap<String, usize>,
    place: Option<usize>,
}

/// How far a vertex is. Times are the coordinator's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Phase {
    /// Not begun.
    #[default]
    Waiting,
    /// At work.
    Running {
        /// Since when.
        started: Millis,
    },
    /// At an end.
    Ended {
        /// When it began.
        started: Millis,
        /// When it ended.
        completed: Millis,
        /// In which way.
        how: End,
    },
}

/// In which way a vertex ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The work was done.
    Done,
    /// An earlier result was taken.
    Cached,
    /// The work failed; why, on one line.
    Failed(String),
    /// The work was stopped.
    Cancelled,
}

/// Bytes on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// What they are, harmless and on one line.
    pub what: String,
    /// Bytes so far.
    pub current: u64,
    /// Bytes in all; 0 when not known.
    pub total: u64,
    /// When it began.
    pub started: Millis,
    /// When it ended.
    pub completed: Option<Millis>,
}

impl Model {
    /// A build that is asked for now, of whose logs so much is kept.
    pub fn new(now: Millis, tails: Limits) -> Self {
        Self {
            tails,
            began: now,
            skew: None,
            nodes: BTreeMap::new(),
            order: Vec::new(),
            running: BTreeMap::new(),
            ended: 0,
            warnings: Vec::new(),
            ending: None,
        }
    }

    /// Takes an event that came in `now`.
    pub fn apply(&mut self, now: Millis, event: &Event) {
        match event {
            Event::Vertex(vertex) => {
                self.heard(now, [vertex.started, vertex.completed]);
                self.vertex(now, vertex);
            }
            Event::Progress(progress) => {
                self.heard(now, [Some(progress.started), progress.completed]);
                self.progress(now, progress);
            }
            Event::Log { vertex, at, data, .. } => {
                self.heard(now, [Some(*at), None]);
                if let Some(node) = self.nodes.get_mut(vertex) {
                    node.log(*at, data, self.tails);
                }
            }
            Event::Warning(warning) => {
                if !self.warnings.contains(warning) {
                    self.warnings.push(warning.clone());
                }
            }
        }
    }

    /// The build has ended: no vertex is at work any more.
    pub fn end(&mut self, now: Millis, ending: Ending) {
        let completed = self.remote(now);
        for id in std::mem::take(&mut self.running).into_values() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let Phase::Running { started } = node.phase else { continue };
            let how = if ending == Ending::Finished { End::Done } else { End::Cancelled };
            node.enter(Phase::Ended { started, completed: completed.max(started), how });
            self.ended += 1;
        }
        self.ending = Some((ending, now));
    }

    fn heard(&mut self, now: Millis, times: [Option<Millis>; 2]) {
        for time in times.into_iter().flatten() {
            let ahead = i128::from(now.0) - i128::from(time.0);
            self.skew = Some(self.skew.map_or(ahead, |known| known.min(ahead)));
        }
    }

    /// A time of ours on the coordinator's clock.
    fn remote(&self, now: Millis) -> Millis {
        let time = i128::from(now.0) - self.skew.unwrap_or(0);
        Millis(u64::try_from(time.max(0)).unwrap_or(u64::MAX))
    }

    fn vertex(&mut self, now: Millis, vertex: &Vertex) {
        let at = self.remote(now);
        let node = self.nodes.entry(vertex.id).or_default();
        node.name = text::one_line(&vertex.name);
        let phase = Phase::of(vertex, at);
        if !node.phase.can_become(&phase) {
            return;
        }
        let had_ended = node.has_ended();
        node.enter(phase);
        if node.phase == Phase::Waiting {
            return;
        }
        let place = *node.place.get_or_insert_with(|| {
            self.order.push(vertex.id);
            self.order.len() - 1
        });
        let ends = node.has_ended();
        self.ended = self.ended + usize::from(ends) - usize::from(had_ended);
        if ends {
            self.running.remove(&place);
        } else {
            self.running.insert(place, vertex.id);
        }
    }

    fn progress(&mut self, now: Millis, progress: &Progress) {
        let at = self.remote(now);
        let Some(node) = self.nodes.get_mut(&progress.vertex) else { return };
        let ended = node.has_ended().then_some(at);
        let index = *node.by_what.entry(progress.what.clone()).or_insert_with(|| {
            node.transfers.push(Transfer {
                what: text::one_line(&progress.what),
                current: 0,
                total: 0,
                started: progress.started,
                completed: None,
            });
            node.transfers.len() - 1
        });
        let transfer = &mut node.transfers[index];
        transfer.current = progress.current;
        transfer.total = progress.total;
        transfer.completed = progress.completed.or(transfer.completed).or(ended);
    }

    /// How long the build has taken so far, in milliseconds.
    pub fn elapsed(&self, now: Millis) -> u64 {
        self.ending.map_or(now, |(_, ended)| ended).since(self.began)
    }

    /// How long something has taken that began at `started`, in milliseconds.
    pub fn spent(&self, now: Millis, started: Millis, completed: Option<Millis>) -> u64 {
        completed.unwrap_or_else(|| self.remote(now)).since(started)
    }

    /// How the build ended, if it did.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.map(|(ending, _)| ending)
    }

    /// How many vertices have ended, and how many are known.
    pub fn counts(&self) -> (usize, usize) {
        (self.ended, self.nodes.len())
    }

    /// A vertex.
    pub fn node(&self, id: VertexId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Those that have begun, in that order.
    pub fn begun(&self) -> &[VertexId] {
        &self.order
    }

    /// Those that are at work, each with its place among those that have begun.
    pub fn running(&self) -> &BTreeMap<usize, VertexId> {
        &self.running
    }

    /// Those that failed, in the order in which they began.
    pub fn failed(&self) -> impl Iterator<Item = &Node> {
        let nodes = self.order.iter().filter_map(|id| self.nodes.get(id));
        nodes.filter(|n| matches!(&n.phase, Phase::Ended { how: End::Failed(_), .. }))
    }

    /// The remarks, each once.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl Node {
    /// Whether it is at an end.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// The place among its transfers of what moves.
    pub fn place_of(&self, what: &str) -> Option<usize> {
        self.by_what.get(what).copied()
    }

    /// When it began.
    pub fn started(&self) -> Option<Millis> {
        match self.phase {
            Phase::Waiting => None,
            Phase::Running { started } | Phase::Ended { started, .. } => Some(started),
        }
    }

    fn enter(&mut self, phase: Phase) {
        if let Phase::Ended { completed, how, .. } = &phase {
            for transfer in &mut self.transfers {
                transfer.completed.get_or_insert(*completed);
            }
            if !matches!(how, End::Failed(_)) {
                self.tail = None;
            }
        }
        self.phase = phase;
    }

    fn log(&mut self, at: Millis, data: &[u8], limits: Limits) {
        let wanted = match &self.phase {
            Phase::Waiting | Phase::Running { .. } => true,
            Phase::Ended { how, .. } => matches!(how, End::Failed(_)),
        };
        if wanted {
            self.tail.get_or_insert_with(|| Box::new(Tail::new(limits))).write(at, data);
        }
    }
}

impl Phase {
    /// What a vertex says of itself, at the coordinator's time `at`.
    fn of(vertex: &Vertex, at: Millis) -> Self {
        // With an error or an earlier result there is nothing left to do, said or not.
        let over = match (&vertex.error, vertex.cached) {
            (Some(_), _) => Some(at),
            (None, true) => Some(vertex.started.unwrap_or(at)),
            (None, false) => None,
        };
        let Some(completed) = vertex.completed.or(over) else {
            return vertex.started.map_or(Self::Waiting, |started| Self::Running { started });
        };
        let how = match &vertex.error {
            Some(error) if says_cancelled(error) => End::Cancelled,
            Some(error) => End::Failed(text::one_line(error)),
            None if vertex.cached => End::Cached,
            None => End::Done,
        };
        let started = vertex.started.unwrap_or(completed);
        Self::Ended { started, completed: completed.max(started), how }
    }

    /// A vertex goes only forward, but one whose worker was lost begins again.
    fn can_become(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Waiting, _) | (_, Self::Ended { .. }) => true,
            (_, Self::Waiting) => false,
            (Self::Running { .. }, Self::Running { .. }) => true,
            (Self::Ended { completed, .. }, Self::Running { started }) => started > completed,
        }
    }
}

/// Whether an error says that the work was stopped because the build was (BuildKit's is
/// `context canceled`).
fn says_cancelled(error: &str) -> bool {
    let error = error.trim_end_matches(|c: char| c.is_whitespace() || c == '.');
    ["cancelled", "canceled"].iter().any(|word| error.ends_with(word))
}
