//! The coordinator at work: runs the core, does its effects, and talks to clients and workers.
//!
//! One task owns the [`Core`]; everybody else sends it events. Effects are tasks of their own,
//! whose answers come back as events.

mod effects;
mod export;
mod library;
mod logs;
mod members;
mod narrate;
mod plan;
mod progress;
mod session;
mod workers;

use crate::core::{Core, Event};
use cache::cluster::Cluster;
use cache::net::{NetError, Stream};
use library::Library;
use logs::LogHub;
use proto::id::{BuildId, Millis};
use proto::platform::Platform;
use session::Builds;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use workers::Workers;

pub use members::{CacheRow, Membership};
pub use session::{BuildRow, RowStep};
pub use workers::WorkerRow;

/// Events that wait for the core before whoever sends one waits.
const INBOX: usize = 4096;

/// A coordinator. Clones are the same one.
#[derive(Clone)]
pub struct Coordinator(Arc<Server>);

struct Server {
    inbox: mpsc::Sender<Event>,
    library: Library,
    builds: Builds,
    workers: Workers,
    logs: LogHub,
    /// What BUILDPLATFORM is.
    platform: Platform,
}

/// The time now.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as u64)
}

impl Coordinator {
    /// Starts a coordinator that keeps everything in the farm's store.
    pub fn start(store: Arc<Cluster>, platform: Platform) -> Self {
        let library = Library::new(store);
        let (inbox, events) = mpsc::channel(INBOX);
        let server = Arc::new(Server {
            inbox,
            library,
            builds: Builds::default(),
            workers: Workers::default(),
            logs: LogHub::default(),
            platform,
        });
        tokio::spawn(run_core(server.clone(), events));
        Self(server)
    }

    /// Serves one client's build, until it has ended or the client is gone.
    pub async fn serve_build(&self, stream: Stream) -> Result<(), NetError> {
        session::serve(self.0.clone(), stream).await
    }

    /// Serves one worker, until it is gone.
    pub async fn serve_worker(&self, stream: Stream) -> Result<(), NetError> {
        workers::serve(self.0.clone(), stream).await
    }

    /// The workers that are there.
    pub fn workers(&self) -> Vec<WorkerRow> {
        self.0.workers.rows()
    }

    /// How many builds are under way.
    pub fn active(&self) -> usize {
        self.0.builds.count()
    }

    /// The builds that are under way, and the last ones that have ended, the newest first.
    pub async fn builds(&self, count: u32) -> Result<Vec<BuildRow>, NetError> {
        session::history(&self.0, count).await
    }

    /// Cancels a build; answers whether there was one of that name.
    pub async fn cancel(&self, build: &BuildId) -> bool {
        self.0.builds.cancel(build)
    }
}

/// Runs the core: the only place where its state changes.
async fn run_core(server: Arc<Server>, mut events: mpsc::Receiver<Event>) {
    let mut core = Core::new();
    let mut last = Millis(0);
    let mut effects = Vec::new();
    while let Some(event) = events.recv().await {
        // Time never goes back, whatever the clock does.
        last = last.max(now());
        core.apply(last, event, &mut effects);
        debug_assert!(core.broken_invariants().is_empty(), "{:?}", core.broken_invariants());
        for effect in effects.drain(..) {
            effects::run(&server, effect);
        }
    }
}

impl Server {
    async fn tell(&self, event: Event) {
        // The core lives as long as the server: it cannot be gone.
        let _ = self.inbox.send(event).await;
    }
}
