//! A worker at work: takes leases and calls, and reports.
//!
//! One message each way says everything (`proto::wire::worker`): [`table`] decides what is started
//! and stopped, the rest does it.

mod caches;
mod calls;
mod export;
pub mod git;
mod images;
mod kept;
mod link;
mod load;
mod logs;
mod mask;
mod original;
mod outside;
mod run;
pub mod ssh;
mod stop;
mod table;
mod tally;
mod web;

use crate::image::pack::Packer;
use crate::image::pull::Puller;
use crate::image::registry::{Registry, RegistryConfig};
use crate::rootfs::{LayerCache, Stack};
use crate::sandbox::{self, HelperProgram, Runtime, Sandbox};
use cache::meter;
use cache::net::{NetError, Sender, Stream};
use cache::store::Store;
use caches::Caches;
use link::Link;
use load::{Load, Probe};
use proto::error::{Class, Failure};
use proto::id::{LeaseEpoch, Millis, RootId, WorkerId};
use proto::platform::Platform;
use proto::record::Cost;
use proto::step::NetworkMode;
use proto::wire::worker::{
    Capacity, Lease, Outcome, Pressure, Report, Task, ToCoordinator, ToWorker, WorkerState,
};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stop::Stop;
use table::Table;
use tokio::sync::{Notify, mpsc};

pub use tally::Tally;
pub use web::modified;

/// How often a worker looks what its machine is short of.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a worker that has nothing left to do waits for the coordinator to hear of it.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);

/// How a worker is set up.
pub struct Settings {
    /// Who it is.
    pub id: WorkerId,
    /// Where other workers get blobs from it ([`WorkerState::address`]); empty when they do not.
    pub address: String,
    /// A folder for its layers and containers, on a file system that overlayfs can use.
    pub dir: PathBuf,
    /// How many RUNs it does at once.
    pub slots: u32,
    /// How many threads layers are packed and unpacked with.
    pub processors: usize,
    /// The program that makes containers on its behalf.
    pub helper: HelperProgram,
    /// Who makes the containers.
    pub runtime: Runtime,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// Bytes that layers may take as directories, besides those in use.
    pub rootfs_budget: u64,
    /// How many files a container's process may have open: the soft limit.
    pub open_files: u64,
    /// Whether steps that ask for no network of their own are in the host's.
    pub host_network: bool,
    /// The platforms that it runs programs of: the machine's own first.
    pub platforms: Vec<Platform>,
    /// What a cache mount may hold, in bytes; none for no limit.
    pub cache_mount_cap: Option<u64>,
    /// Whether it is the only worker of its farm. Then there is nobody to leave work to: it takes
    /// what is too large for it, and goes on when the machine is short of memory or disk.
    pub is_alone: bool,
}

/// A worker. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct Worker {
    machine: Arc<Machine>,
}

/// What a worker's tasks work with.
pub(crate) struct Machine {
    id: WorkerId,
    address: String,
    slots: u32,
    cpu_millis: u32,
    platforms: Vec<Platform>,
    is_alone: bool,
    probe: Probe,
    load: Mutex<Load>,
    /// Whether it is about to end.
    drains: AtomicBool,
    /// What it can do may have changed.
    changed: Notify,
    store: Arc<dyn Store>,
    layers: LayerCache,
    sandbox: Sandbox,
    caches: Caches,
    packer: Packer,
    puller: Puller,
    host_network: bool,
    registry: Registry,
    link: Link,
    web: web::Web,
    /// For what lives as long as a task.
    scratch: PathBuf,
    table: Mutex<Table<Stop>>,
    calls: Mutex<HashMap<u64, tokio::task::AbortHandle>>,
    /// Something was ended.
    ended: Notify,
    tally: Tally,
}

/// The time now.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as u64)
}

impl Worker {
    /// Opens it, after taking away what an earlier process that was killed left behind.
    pub async fn open(settings: Settings, store: Arc<dyn Store>) -> Result<Self, Failure> {
        let open = move || Machine::open(settings, store);
        let machine = crate::image::blocking(open).await?;
        machine.sandbox.warm_up();
        Ok(Self { machine: Arc::new(machine) })
    }

    /// Its containers.
    pub fn sandbox(&self) -> &Sandbox {
        &self.machine.sandbox
    }

    /// The network of a container that asks for this one.
    pub fn network(&self, asked: NetworkMode) -> NetworkMode {
        self.machine.network(asked)
    }

    /// Its layers as directories.
    pub fn layers(&self) -> &LayerCache {
        &self.machine.layers
    }

    /// What these diff trees make, lowest first, as they come from a registry or a build: ready to
    /// be mounted.
    pub async fn stack_of(&self, layers: &[RootId]) -> Result<Stack, Failure> {
        let (store, layers) = (self.machine.store.clone(), layers.to_vec());
        crate::image::blocking(move || images::chain(&*store, &layers)).await
    }

    /// Works for the coordinator at the other end of the stream, until it is gone. What is under way
    /// then goes on, and is told of on the next stream.
    pub async fn serve(&self, stream: Stream) -> Result<(), NetError> {
        let Stream { to, mut from } = stream;
        let (out, messages) = mpsc::channel(link::OUTBOX);
        let link = &self.machine.link;
        let writer = tokio::spawn(write(to, messages));
        link.connect(out).await;
        link.say(self.machine.state()).await;
        let hear = async {
            loop {
                match from.next::<ToWorker>().await {
                    Ok(Some((message, _))) => self.hear(message).await,
                    Ok(None) => break Ok(()),
                    Err(e) => break Err(e),
                }
            }
        };
        let result = tokio::select! {
            result = hear => result,
            never = self.machine.watch(link) => match never {},
        };
        link.disconnect();
        // Whoever called has gone, and calls again.
        self.machine.calls().drain().for_each(|(_, task)| task.abort());
        self.machine.ended.notify_waiters();
        writer.abort();
        result
    }

    /// Takes no new work from now on; what is under way goes on.
    pub fn drain(&self) {
        self.machine.drains.store(true, Ordering::Relaxed);
        self.machine.changed.notify_one();
    }

    /// Takes no new work, and waits until nothing is under way and the coordinator knows what came of
    /// it, if it can be reached. `told` hears how many steps and how much other work is left, each
    /// time that changes.
    pub async fn drained(&self, mut told: impl FnMut(usize, usize)) {
        self.drain();
        let machine = &self.machine;
        let mut last = None;
        let ended = machine.until(|machine| {
            let steps = machine.table().running().count();
            let left = (steps, machine.calls().len());
            if left != (0, 0) && last != Some(left) {
                told(left.0, left.1);
                last = Some(left);
            }
            left == (0, 0)
        });
        ended.await;
        let heard = machine.until(|machine| machine.table().reports().next().is_none());
        if tokio::time::timeout(REPORTED_WITHIN, heard).await.is_err() {
            tracing::warn!("the coordinator does not hear what came of the last steps");
        }
    }

    /// Stops all that is under way, and waits until it has ended: no container, mount or control
    /// group is left then.
    pub async fn stop(&self) {
        self.machine.stop_all();
        while self.machine.table().running().next().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn hear(&self, message: ToWorker) {
        let machine = &self.machine;
        match message {
            ToWorker::Desired { leases, keep } => {
                let started = machine.table().desire(leases, &keep, Stop::stop);
                machine.ended.notify_waiters();
                for lease in started {
                    machine.start(lease);
                }
                let held = machine.held();
                machine.link.keep_logs(|epoch| held.contains(epoch));
                // A report that came before the coordinator knew what it is for is said again.
                if machine.table().reports().next().is_some() {
                    let state = machine.state();
                    machine.link.say(state).await;
                }
            }
            ToWorker::Heard(heard) => machine.say_again(&heard).await,
            ToWorker::Answer(number, answer) => machine.link.answered(number, answer),
            ToWorker::Mount(number, answer) => machine.link.answered_mount(number, answer),
            ToWorker::Call(number, call) => calls::start(machine, number, *call),
            ToWorker::CancelCall(number) => {
                if let Some(task) = machine.calls().remove(&number) {
                    task.abort();
                    machine.ended.notify_waiters();
                }
            }
        }
    }
}

async fn write(
    mut to: Sender,
    mut messages: mpsc::Receiver<ToCoordinator>,
) -> Result<(), NetError> {
    while let Some(message) = messages.recv().await {
        to.send(&message).await?;
    }
    Ok(())
}

impl Machine {
    fn open(settings: Settings, store: Arc<dyn Store>) -> Result<Self, Failure> {
        let layers = LayerCache::open(&settings.dir, store.clone(), settings.rootfs_budget)
            .map_err(|e| Failure::new(e.class(), e.to_string()))?;
        let config = sandbox::Config {
            dir: settings.dir.join("sandbox"),
            helper: settings.helper,
            runtime: settings.runtime,
            slots: settings.slots as usize,
            open_files: settings.open_files,
        };
        let network = match settings.host_network {
            true => sandbox::DefaultNetwork::Host,
            false => sandbox::DefaultNetwork::Own,
        };
        let sandbox = Sandbox::open_with(config, layers.clone(), network);
        let sandbox = sandbox.map_err(|e| e.failure())?;
        if let Some(why) = sandbox.without_limits() {
            tracing::warn!(why, "containers run without limits");
        }
        let scratch = settings.dir.join("scratch");
        match std::fs::remove_dir_all(&scratch) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("Emptying {} failed: {e}", scratch.display());
                return Err(Failure::new(Class::Unavailable, message));
            }
            _ => {}
        }
        let group = sandbox.memory_group().map(PathBuf::from);
        let probe = Probe::new(settings.dir.clone(), group, settings.is_alone);
        let load = Mutex::new(probe.look(Pressure::default()));
        let registry = Registry::new(settings.registry);
        let link = Link::new(registry.clone());
        Ok(Self {
            link: link.clone(),
            id: settings.id,
            address: settings.address,
            slots: settings.slots,
            cpu_millis: (settings.processors as u32).saturating_mul(1000),
            platforms: settings.platforms,
            is_alone: settings.is_alone,
            probe,
            load,
            drains: AtomicBool::new(false),
            changed: Notify::new(),
            caches: Caches::new(caches::Options {
                store: store.clone(),
                layers: layers.clone(),
                link,
                dir: settings.dir.join("caches"),
                cap: settings.cache_mount_cap,
                is_alone: settings.is_alone,
            }),
            packer: Packer::new(store.clone(), settings.processors),
            puller: Puller::new(store.clone(), settings.processors),
            host_network: settings.host_network,
            registry,
            web: web::Web::default(),
            store,
            layers,
            sandbox,
            scratch,
            table: Mutex::default(),
            calls: Mutex::default(),
            ended: Notify::new(),
            tally: Tally::default(),
        })
    }

    fn network(&self, asked: NetworkMode) -> NetworkMode {
        match asked {
            NetworkMode::Default if self.host_network => NetworkMode::Host,
            other => other,
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table<Stop>> {
        self.table.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<u64, tokio::task::AbortHandle>> {
        self.calls.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn load(&self) -> std::sync::MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Waits until something is so. It is looked at each time that something has ended.
    async fn until(&self, mut is: impl FnMut(&Self) -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if is(self) {
                return;
            }
            ended.await;
        }
    }

    /// Tells the coordinator when what the worker can do has changed, for as long as it is asked to.
    async fn watch(&self, link: &Link) -> Infallible {
        let mut told = self.capacity();
        loop {
            let wait = self.changed.notified();
            if self.is_alone {
                // It says nothing of what its machine is short of.
                wait.await;
            } else if tokio::time::timeout(LOOK_EVERY, wait).await.is_err() {
                let before = self.load().pressure;
                // Files in memory, and a system call that waits for no disk.
                let load = self.probe.look(before);
                *self.load() = load;
            }
            let now = self.capacity();
            if (now.pressure, now.takes_work) != (told.pressure, told.takes_work) {
                link.say(self.state()).await;
                told = now;
            }
        }
    }

    /// What it can do.
    fn capacity(&self) -> Capacity {
        let load = *self.load();
        Capacity {
            platforms: self.platforms.clone(),
            slots: self.slots,
            cpu_millis: self.cpu_millis,
            memory_bytes: load.memory_bytes,
            disk_free_bytes: load.disk_free_bytes,
            pressure: load.pressure,
            takes_work: !self.drains.load(Ordering::Relaxed),
            is_alone: self.is_alone,
            fetched: self.store.fetched(),
        }
    }

    /// Everything that the coordinator has to know.
    fn state(&self) -> ToCoordinator {
        let table = self.table();
        ToCoordinator::State(WorkerState {
            worker: self.id.clone(),
            address: self.address.clone(),
            capacity: self.capacity(),
            running: table.running().map(|(epoch, _)| *epoch).collect(),
            reports: table.reports().cloned().collect(),
        })
    }

    /// The leases that are under way, or whose reports wait to be taken note of.
    fn held(&self) -> BTreeSet<LeaseEpoch> {
        let table = self.table();
        let reported = table.reports().map(|report| report.epoch);
        table.running().map(|(epoch, _)| *epoch).chain(reported).collect()
    }

    /// Tells a coordinator that has come back what it has not heard of running steps' logs, and then
    /// what came of those that have ended meanwhile.
    async fn say_again(self: &Arc<Self>, heard: &[(LeaseEpoch, u64)]) {
        let heard: HashMap<LeaseEpoch, u64> = heard.iter().copied().collect();
        let machine = self.clone();
        let replayed = tokio::task::spawn_blocking(move || {
            for epoch in machine.held() {
                machine.link.replay(epoch, heard.get(&epoch).copied().unwrap_or(0));
            }
        });
        if let Err(e) = replayed.await {
            tracing::error!("saying logs again failed: {e}");
        }
        self.link.say(self.state()).await;
    }

    fn stop_all(&self) {
        self.table().running().for_each(|(_, stop)| stop.stop());
        self.calls().drain().for_each(|(_, task)| task.abort());
    }

    fn start(self: &Arc<Self>, lease: Lease) {
        let stop = Stop::default();
        self.table().begin(lease.epoch, stop.clone());
        let (machine, link) = (self.clone(), self.link.clone());
        tokio::spawn(async move {
            let epoch = lease.epoch;
            let running = machine.tally.begin(&lease.task);
            let work = machine.work(&link, &stop, lease);
            let ((outcome, cost), traffic) = meter::count(work).await;
            machine.tally.end(running, &outcome, &cost);
            machine.table().end(Report { epoch, outcome, cost, traffic });
            machine.ended.notify_waiters();
            // With what the next step needs under way, nobody waits for it.
            machine.sandbox.warm_up();
            let state = machine.state();
            link.say(state).await;
        });
    }

    async fn work(self: &Arc<Self>, link: &Link, stop: &Stop, lease: Lease) -> (Outcome, Cost) {
        self.store.know_peers(&lease.peers);
        if let Task::Run(task) = lease.task.clone() {
            return run::run(self, link, stop, &lease, *task).await;
        }
        let began = Instant::now();
        let done = stop.race(self.source(link, &lease)).await;
        let outcome = match done {
            Some(Ok(layers)) => Outcome::Done(layers),
            Some(Err(failure)) => Outcome::Failed(failure),
            None => Outcome::Stopped,
        };
        let wall_ms = began.elapsed().as_millis() as u64;
        (outcome, Cost { wall_ms, ..Cost::default() })
    }

    /// Files from elsewhere.
    async fn source(self: &Arc<Self>, link: &Link, lease: &Lease) -> Result<Vec<RootId>, Failure> {
        let (told, epoch) = (link.clone(), lease.epoch);
        let told = move |moved| told.hint(ToCoordinator::Progress { lease: epoch, moved });
        match &lease.task {
            Task::Image(op) => {
                images::layers(self, link, &lease.build, op, &lease.platform, told).await
            }
            Task::Http(op) => Ok(vec![web::file(self, op, told).await?]),
            Task::Git(op) => Ok(vec![git::checkout(self, link, &lease.build, op).await?]),
            Task::Run(_) => Err(Failure::new(Class::Bug, "A RUN is no source")),
        }
    }
}
