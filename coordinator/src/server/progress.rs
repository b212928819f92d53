//! What a build's client is told.

use super::audience::Audience;
use super::now;
use proto::error::Failure;
use proto::id::Millis;
use proto::wire::build::{Event, Progress, Summary, Traffic, Vertex, VertexId};
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
    summary: Summary,
}

impl Reporter {
    /// Tells this audience.
    pub fn new(audience: Arc<Audience>) -> Self {
        Self { audience, state: Mutex::default() }
    }

    /// How all vertices stand.
    pub fn standing(&self) -> Vec<Vertex> {
        let mut all: Vec<Vertex> = self.state().vertices.values().cloned().collect();
        all.sort_by_key(|vertex| (vertex.started, vertex.id));
        all
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
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

    /// Counts steps for the summary.
    pub fn count(&self, count: impl FnOnce(&mut Summary)) {
        count(&mut self.state().summary);
    }

    /// Adds to what was moved.
    pub fn traffic(&self, traffic: Traffic) {
        self.state().summary.traffic += traffic;
    }

    /// What the build did so far.
    pub fn summary(&self) -> Summary {
        self.state().summary
    }
}
