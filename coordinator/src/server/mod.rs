//! The coordinator at work: runs the core, does its effects, and talks to clients and workers.
//!
//! One task owns the [`Core`]; everybody else sends it events. Effects are tasks of their own,
//! whose answers come back as events.

mod asks;
mod audience;
mod build;
mod durations;
mod effects;
mod errands;
mod explain;
mod export;
mod gallery;
mod history;
mod ledger;
mod library;
mod logs;
mod look;
mod members;
mod mounts;
mod narrate;
mod narrow;
mod orders;
mod outside;
mod overview;
mod plan;
mod progress;
mod session;
mod tally;
mod workers;

use crate::core::facts::Fact;
pub use crate::core::facts::Who;
pub use crate::core::members::Leaving;
use crate::core::{Core, Effect, Event};
use build::Builds;
use cache::cluster::Cluster;
use cache::flight::Flights;
use cache::net::{NetError, Stream};
use errands::Errands;
use gallery::Gallery;
use library::Library;
use logs::LogHub;
use look::Mail;
use mounts::Mounts;
use proto::error::Failure;
use proto::id::{BuildId, Millis, RootId, Scope};
use proto::platform::Platform;
use proto::wire::admin::StepReason;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use workers::Workers;

pub use errands::{Heard, Person, Question};
pub use gallery::Images;
pub use history::{BuildRow, RowStep};
pub use ledger::Ledger;
pub use members::{CacheOrder, CacheRow, Membership};
pub use mounts::MountRow;
pub use orders::{Duties, Order, fact as order_fact};
pub use tally::Tally;
pub use workers::Caller;

/// Events that wait for the core before whoever sends one waits.
const INBOX: usize = 4096;

/// A coordinator. Clones are the same one.
#[derive(Clone)]
pub struct Coordinator(Arc<Server>);

struct Server {
    inbox: mpsc::Sender<Mail>,
    library: Library,
    builds: Builds,
    errands: Errands,
    gallery: Gallery,
    workers: Workers,
    logs: LogHub,
    traces: explain::Traces,
    mounts: Mounts,
    /// Layers of caches outside that are being fetched, for whichever build.
    fetching: Flights<(Scope, RootId)>,
    ledger: Ledger,
    /// Whether builds outlive the process: whether the ledger's log does.
    keeps_facts: bool,
    /// How long a build outlives its client.
    grace: Duration,
    /// How long a worker may be gone before what it does goes on elsewhere.
    lost_after: Duration,
    /// Whether the builds of an earlier life are known again.
    resumed: watch::Sender<bool>,
    /// What BUILDPLATFORM is.
    platform: Platform,
    tally: Tally,
}

/// How a coordinator is set up.
pub struct Settings {
    /// The farm's store.
    pub store: Arc<Cluster>,
    /// Where facts are kept; none for a farm whose builds end with its process.
    pub ledger: Option<Ledger>,
    /// How long a build outlives its client.
    pub grace: Duration,
    /// How long a worker may be gone before what it does goes on elsewhere.
    pub lost_after: Duration,
    /// What BUILDPLATFORM is.
    pub platform: Platform,
    /// The file in which is written down how long steps took.
    pub durations: PathBuf,
    /// What projects weigh beside each other; 1 for those that are not named.
    pub weights: BTreeMap<String, u32>,
}

/// The time now.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as u64)
}

/// Takes the lock. Who panicked with it has left nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what takes long, where nobody waits for it but who asked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

impl Coordinator {
    /// Starts a coordinator. Builds that were under way when it ended go on.
    pub fn start(settings: Settings) -> Self {
        let Settings { store, ledger, grace, lost_after, platform, durations, weights } = settings;
        let (inbox, events) = mpsc::channel(INBOX);
        let keeps_facts = ledger.is_some();
        let server = Arc::new(Server {
            inbox,
            library: Library::new(store),
            builds: Builds::default(),
            errands: Errands::default(),
            gallery: Gallery::default(),
            workers: Workers::new(),
            logs: LogHub::default(),
            traces: explain::Traces::default(),
            mounts: Mounts::new(),
            fetching: Flights::default(),
            ledger: ledger.unwrap_or_else(Ledger::in_memory),
            keeps_facts,
            grace,
            lost_after,
            resumed: watch::Sender::new(!keeps_facts),
            platform,
            tally: Tally::default(),
        });
        let core = server.ledger.read(Core::from_facts).with_history(durations::load(&durations));
        tokio::spawn(run_core(server.clone(), core, weights, events));
        tokio::spawn(durations::keep(server.clone(), durations));
        if keeps_facts {
            workers::expect(&server);
            tokio::spawn(session::resume(server.clone()));
        }
        Self(server)
    }

    /// Serves one client's build, until it has ended or the client is gone.
    pub async fn serve_build(&self, stream: Stream, who: Who) -> Result<(), NetError> {
        session::serve(self.0.clone(), stream, who).await
    }

    /// Serves one worker, until it is gone. `who` is none for a farm of one process.
    pub async fn serve_worker(&self, stream: Stream, who: Option<Caller>) -> Result<(), NetError> {
        workers::serve(self.0.clone(), stream, who).await
    }

    /// The image store as those of a scope see it.
    pub fn images(&self, scope: Scope) -> Images {
        Images::new(self.0.clone(), scope)
    }

    /// How many builds are under way.
    pub fn active(&self) -> usize {
        self.0.builds.running().len()
    }

    /// The builds that are under way, and the last ones that have ended, the newest first.
    pub async fn builds(&self, count: u32) -> Result<Vec<BuildRow>, NetError> {
        history::history(&self.0, count).await
    }

    /// For each step of a build whether it ran, and why.
    pub async fn explain(&self, row: &BuildRow) -> Result<Vec<StepReason>, Failure> {
        explain::explain(&self.0, row).await
    }

    /// Cancels all builds.
    pub fn cancel_all(&self) {
        for build in self.0.builds.running() {
            build.cancel();
        }
    }

    /// Cancels a build; answers whether there was one of that name.
    pub async fn cancel(&self, build: &BuildId) -> bool {
        self.0.builds.cancel(build)
    }
}

/// Events that are taken at once: what follows from them is written down together.
const AT_ONCE: usize = 256;

/// Runs the core: the only place where its state changes. What follows from events leaves this
/// process only when the facts among it are written down.
async fn run_core(
    server: Arc<Server>,
    mut core: Core,
    weights: BTreeMap<String, u32>,
    mut events: mpsc::Receiver<Mail>,
) {
    let mut last = server.ledger.read(|facts| facts.clock);
    let (mut taken, mut effects) = (Vec::new(), Vec::new());
    for (worker, order) in server.ledger.orders() {
        if order == Order::Cordoned {
            server.workers.cordon(&worker, true);
            core.apply(last, Event::Cordoned { worker, cordoned: true }, &mut effects);
        }
    }
    for (project, weight) in weights {
        core.apply(last, Event::Weight { project, weight }, &mut effects);
    }
    while next_events(&mut events, &mut taken, core.next_timeout()).await {
        for mail in taken.drain(..) {
            let event = match mail {
                Mail::Event(event) => *event,
                Mail::Look(look) => {
                    look(&core, look::time(last));
                    continue;
                }
            };
            // Time never goes back, whatever the clock does.
            last = last.max(now());
            core.apply(last, event, &mut effects);
            debug_assert!(core.broken_invariants().is_empty(), "{:?}", core.broken_invariants());
        }
        let facts: Vec<Fact> = effects.iter().filter_map(fact).collect();
        if let Err(e) = server.ledger.note(&facts).await {
            // Nothing that was decided without being written down may be done: the process ends,
            // and the next one knows what this one had written.
            tracing::error!("{e}; no more decisions are made");
            return;
        }
        if facts.iter().any(|fact| matches!(fact, Fact::Released { .. })) {
            server.mounts.changed();
        }
        for effect in effects.drain(..) {
            server.tally.count(&effect);
            effects::run(&server, effect);
        }
    }
}

/// The fact that an effect stands for.
fn fact(effect: &Effect) -> Option<Fact> {
    match effect {
        Effect::Granted { epoch, leased, .. } => {
            Some(Fact::Leased { epoch: *epoch, leased: leased.clone() })
        }
        Effect::Released { epoch } => Some(Fact::Released { epoch: *epoch }),
        _ => None,
    }
}

/// Waits for events, or until the time has come; says no when nobody can send any more.
async fn next_events(
    events: &mut mpsc::Receiver<Mail>,
    taken: &mut Vec<Mail>,
    timeout: Option<Millis>,
) -> bool {
    let take = events.recv_many(taken, AT_ONCE);
    let Some(timeout) = timeout else { return take.await > 0 };
    let wait = Duration::from_millis(timeout.since(now()));
    match tokio::time::timeout(wait, take).await {
        Ok(count) => count > 0,
        Err(_) => {
            taken.push(Mail::Event(Box::new(Event::Tick)));
            true
        }
    }
}

/// How long a farm's client may take nothing of what it is told before it is taken for gone.
const PATIENCE: Duration = Duration::from_secs(5);

impl Server {
    /// How long a client may take nothing. Where builds end with their clients one may be halted for
    /// as long as its user likes.
    fn patience(&self) -> Option<Duration> {
        (!self.grace.is_zero()).then_some(PATIENCE)
    }

    async fn tell(&self, event: Event) {
        // The core lives as long as the server: it cannot be gone.
        let _ = self.inbox.send(Mail::Event(Box::new(event))).await;
    }
}
