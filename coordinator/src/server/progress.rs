//! What a build's client is told.

use super::now;
use proto::id::Millis;
use proto::wire::build::{Event, Progress, Summary, ToClient, Vertex, VertexId};
use proto::wire::worker::Moved;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::sync::mpsc;

/// Vertices that are not steps begin here.
const INTERNAL: u32 = 1 << 24;

/// Tells one client what happens in its build.
pub struct Reporter {
    out: mpsc::Sender<ToClient>,
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
    /// Tells whoever is at the other end of `out`.
    pub fn new(out: mpsc::Sender<ToClient>) -> Self {
        Self { out, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Says something that must arrive: waits when the client is slow.
    pub async fn say(&self, message: ToClient) {
        // A client that is gone hears nothing; its build is cancelled elsewhere.
        let _ = self.out.send(message).await;
    }

    /// Says something that can be left out when the client is slow.
    pub fn hint(&self, event: Event) {
        let _ = self.out.try_send(ToClient::Event(event));
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

    /// Work of our own has ended.
    pub async fn end(&self, id: VertexId, error: Option<String>) {
        self.change(id, "", |v| {
            v.completed = Some(now());
            v.error = error;
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
        self.say(ToClient::Event(Event::Vertex(vertex))).await;
    }

    /// Bytes were moved for a vertex.
    pub fn moved(&self, vertex: VertexId, moved: Moved) {
        let Moved { what, current, total, done } = moved;
        let at = now();
        let started = *self.state().transfers.entry((vertex, what.clone())).or_insert(at);
        let completed = done.then_some(at);
        self.hint(Event::Progress(Progress { vertex, what, current, total, started, completed }));
    }

    /// Counts steps for the summary.
    pub fn count(&self, count: impl FnOnce(&mut Summary)) {
        count(&mut self.state().summary);
    }

    /// What the build did so far.
    pub fn summary(&self) -> Summary {
        self.state().summary
    }
}
