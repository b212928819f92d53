//! What is counted of a worker's work. The names are in `docs/metrics.md`.

use super::{Machine, Worker};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use proto::record::Cost;
use proto::wire::worker::{Outcome, Task};

const KINDS: [&str; 4] = ["run", "image", "http", "git"];
const OUTCOMES: [&str; 4] = ["done", "failed", "lost", "stopped"];
const RESOURCES: [&str; 2] = ["memory", "disk"];

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// Counters, and gauges that are set when somebody asks.
#[derive(Debug, Clone)]
pub struct Tally {
    steps: Family<Labels, Counter>,
    seconds: Family<Label, Histogram, fn() -> Histogram>,
    running: Family<Label, Gauge>,
    calls: Gauge,
    slots: Gauge,
    memory: Gauge,
    disk_free: Gauge,
    pressure: Family<Label, Gauge>,
    draining: Gauge,
}

/// 10 ms to about three hours.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 11))
}

impl Default for Tally {
    fn default() -> Self {
        let tally = Self {
            steps: Family::default(),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            running: Family::default(),
            calls: Gauge::default(),
            slots: Gauge::default(),
            memory: Gauge::default(),
            disk_free: Gauge::default(),
            pressure: Family::default(),
            draining: Gauge::default(),
        };
        // What has not happened yet is told, too: a rate needs a beginning.
        for kind in KINDS {
            drop(tally.running.get_or_create(&[("kind", kind)]));
            drop(tally.seconds.get_or_create(&[("kind", kind)]));
            for outcome in OUTCOMES {
                drop(tally.steps.get_or_create(&[("kind", kind), ("outcome", outcome)]));
            }
        }
        RESOURCES.iter().for_each(|r| drop(tally.pressure.get_or_create(&[("resource", *r)])));
        tally
    }
}

/// What kind of work it is.
fn kind(task: &Task) -> &'static str {
    match task {
        Task::Run(_) => "run",
        Task::Image(_) => "image",
        Task::Http(_) => "http",
        Task::Git(_) => "git",
    }
}

/// Work that is counted as under way until this is dropped.
pub(super) struct Running {
    kind: &'static str,
    running: Family<Label, Gauge>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.get_or_create(&[("kind", self.kind)]).dec();
    }
}

impl Tally {
    /// Lets them be asked for.
    pub fn register(&self, registry: &mut Registry) {
        let steps = "Steps that this worker has ended, by kind and by what came of them";
        registry.register("slipway_worker_steps", steps, self.steps.clone());
        let seconds = "How long steps took on this worker, in seconds";
        registry.register("slipway_worker_step_seconds", seconds, self.seconds.clone());
        let running = "Steps that this worker does";
        registry.register("slipway_worker_steps_running", running, self.running.clone());
        let calls = "Other work that this worker does: look-ups, packing of layers, outputs";
        registry.register("slipway_worker_calls_running", calls, self.calls.clone());
        let slots = "RUNs that this worker does at once";
        registry.register("slipway_worker_slots", slots, self.slots.clone());
        let memory = "Bytes of memory that RUNs can use together";
        registry.register("slipway_worker_memory_bytes", memory, self.memory.clone());
        let disk = "Bytes that are free on the disk that this worker works on";
        registry.register("slipway_worker_disk_free_bytes", disk, self.disk_free.clone());
        let pressure = "1 while this worker is short of a resource, and so gets no new work";
        registry.register("slipway_worker_pressure", pressure, self.pressure.clone());
        let draining = "1 while this worker takes no new work because it is about to end";
        registry.register("slipway_worker_draining", draining, self.draining.clone());
    }

    /// Work begins.
    pub(super) fn begin(&self, task: &Task) -> Running {
        let kind = kind(task);
        self.running.get_or_create(&[("kind", kind)]).inc();
        Running { kind, running: self.running.clone() }
    }

    /// Work has ended.
    pub(super) fn end(&self, running: Running, outcome: &Outcome, cost: &Cost) {
        let outcome = match outcome {
            Outcome::Done(_) => "done",
            Outcome::Failed(_) => "failed",
            Outcome::Lost(_) => "lost",
            Outcome::Stopped => "stopped",
        };
        self.steps.get_or_create(&[("kind", running.kind), ("outcome", outcome)]).inc();
        let seconds = cost.wall_ms as f64 / 1000.0;
        self.seconds.get_or_create(&[("kind", running.kind)]).observe(seconds);
    }

    fn measure(&self, machine: &Machine) {
        let capacity = machine.capacity();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.calls.set(machine.calls().len() as i64);
        self.slots.set(i64::from(capacity.slots));
        self.memory.set(bytes(capacity.memory_bytes));
        self.disk_free.set(bytes(capacity.disk_free_bytes));
        let short = [capacity.pressure.memory, capacity.pressure.disk];
        for (resource, short) in RESOURCES.iter().zip(short) {
            self.pressure.get_or_create(&[("resource", *resource)]).set(i64::from(short));
        }
        self.draining.set(i64::from(!capacity.takes_work));
    }
}

impl Worker {
    /// What is counted of it.
    pub fn tally(&self) -> &Tally {
        &self.machine.tally
    }

    /// Brings the gauges up to how things are.
    pub fn measure(&self) {
        self.machine.tally.measure(&self.machine);
    }

    /// Why it gets no work, if it gets none.
    pub fn is_ready(&self) -> Result<(), &'static str> {
        let capacity = self.machine.capacity();
        match () {
            () if !self.machine.link.is_connected() => Err("not connected to the coordinator"),
            () if !capacity.takes_work => Err("draining: it takes no new work"),
            () => Ok(()),
        }
    }
}
