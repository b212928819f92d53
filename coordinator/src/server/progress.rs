//! What a build's client is told.

use super::audience::Audience;
use super::locked;
use super::now;
use proto::error::Failure;
use proto::id::Millis;
use proto::wire::build::{Event, Progress, Summary, Traffic, Vertex, VertexId, Warning};
use proto::wire::worker::Moved;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Vertices that are not steps begin here.
const INTERNAL: u32 = 1 << 24;

/// Tells one client what happens in its build.
pub struct Reporter {
    audience: Arc<Audience>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vertices: HashMap<VertexId, Vertex>,
    internal: u32,
    transfers: HashMap<(VertexId, String), Millis>,
    traffic: Traffic,
}

impl Reporter {
    /// Tells this audience.
    pub fn new(audience: Arc<Audience>) -> Self {
        Self { audience, state: Mutex::default() }
    }

    /// Tells of something that is not as it was meant to be, and no reason to fail.
    pub async fn warn(&self, message: String) {
        let (rule, detail, url) = Default::default();
        let warning = Warning { rule, message, detail, url, at: None, excerpt: Vec::new() };
        self.audience.say(Event::Warning(warning)).await;
    }

    /// How all vertices stand.
    pub fn standing(&self) -> Vec<Vertex> {
        let mut all: Vec<Vertex> = self.state().vertices.values().cloned().collect();
        all.sort_by_key(|vertex| (vertex.started, vertex.id));
        all
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Work of our own begins: `[internal] load metadata for …`.
    pub async fn begin(&self, name: &str) -> VertexId {
        let id = {
            let mut state = self.state();
            state.internal += 1;
            VertexId(INTERNAL + state.internal)
        };
        self.change(id, name, |v| v.started = Some(now())).await;
        id
    }

    /// Work of our own has ended so.
    pub async fn end<T>(&self, id: VertexId, result: &Result<T, Failure>) {
        self.change(id, "", |v| {
            v.completed = Some(now());
            v.error = result.as_ref().err().map(Failure::to_string);
        })
        .await;
    }

    /// Changes a vertex and tells of it. `name` is for one that is new.
    pub async fn change(&self, id: VertexId, name: &str, change: impl FnOnce(&mut Vertex)) {
        let vertex = {
            let mut state = self.state();
            let vertex = state.vertices.entry(id).or_insert_with(|| Vertex {
                id,
                name: name.to_owned(),
                inputs: Vec::new(),
                started: None,
                completed: None,
                cached: false,
                saved_ms: 0,
                error: None,
            });
            change(vertex);
            vertex.clone()
        };
        self.audience.say(Event::Vertex(vertex)).await;
    }

    /// Bytes were moved for a vertex.
    pub fn moved(&self, vertex: VertexId, moved: Moved) {
        let Moved { what, current, total, done } = moved;
        let at = now();
        let started = *self.state().transfers.entry((vertex, what.clone())).or_insert(at);
        let completed = done.then_some(at);
        let progress = Progress { vertex, what, current, total, started, completed };
        self.audience.hint(Event::Progress(progress));
    }

    /// Adds to what was moved.
    pub fn traffic(&self, traffic: Traffic) {
        self.state().traffic += traffic;
    }

    /// What the build did so far, by how its steps stand.
    pub fn summary(&self) -> Summary {
        let state = self.state();
        let mut summary = Summary { traffic: state.traffic, ..Summary::default() };
        let steps = state.vertices.values().filter(|vertex| vertex.id.0 < INTERNAL);
        for step in steps.filter(|step| step.completed.is_some() && step.error.is_none()) {
            summary.steps += 1;
            summary.cached += u32::from(step.cached);
            summary.saved_ms = summary.saved_ms.saturating_add(step.saved_ms);
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::error::Class;
    use proto::id::BuildId;

    #[tokio::test]
    async fn a_summary_has_the_steps_that_are_done() {
        let id = BuildId::parse("0123456789ab").unwrap();
        let reporter = Reporter::new(Arc::new(Audience::new(id, 1, None)));
        let own = reporter.begin("[internal] load metadata").await;
        reporter.end(own, &Ok(())).await;
        let ended = |v: &mut Vertex| v.completed = Some(now());
        reporter.change(VertexId(1), "RUN one", ended).await;
        let found = |v: &mut Vertex| {
            (v.completed, v.cached, v.saved_ms) = (Some(now()), true, 500);
        };
        reporter.change(VertexId(2), "RUN two", found).await;
        let failure: Result<(), _> = Err(Failure::new(Class::User, "exit code 1"));
        reporter.end(VertexId(3), &failure).await;
        let counts = |summary: Summary| (summary.steps, summary.cached, summary.saved_ms);
        assert_eq!(counts(reporter.summary()), (2, 1, 500));
        reporter.change(VertexId(2), "", |v| v.completed = None).await;
        assert_eq!(counts(reporter.summary()), (1, 0, 0));
    }
}
