//! What is counted of a coordinator's work. The names are in `docs/metrics.md`.

use crate::core::place::Waiting;
use crate::core::{Effect, Notice};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use proto::error::{Class, Failure};
use std::time::Duration;

/// One label.
type Label = [(&'static str, &'static str); 1];

const STEP_OUTCOMES: [&str; 4] = ["done", "cached", "failed", "again"];
const BUILD_OUTCOMES: [&str; 3] = ["done", "failed", "cancelled"];
const REASONS: [&str; 10] = [
    "no_worker",
    "no_platform",
    "too_large",
    "cordoned",
    "pressure",
    "inputs",
    "native",
    "room",
    "share",
    "busy",
];
const WORKER_STATES: [&str; 5] = ["open", "cordoned", "draining", "pressure", "away"];

/// Why a step waits, as a label's value.
pub fn reason(waiting: &Waiting) -> &'static str {
    match waiting {
        Waiting::NoWorker => "no_worker",
        Waiting::NoPlatform { .. } => "no_platform",
        Waiting::TooLarge { .. } => "too_large",
        Waiting::Cordoned { .. } => "cordoned",
        Waiting::Pressure { .. } => "pressure",
        Waiting::Inputs { .. } => "inputs",
        Waiting::Native { .. } => "native",
        Waiting::Room { .. } => "room",
        Waiting::Share { .. } => "share",
        Waiting::Busy { .. } => "busy",
    }
}

/// Counters, and gauges that are set when somebody asks.
#[derive(Debug, Clone)]
pub struct Tally {
    builds: Family<Label, Counter>,
    build_seconds: Histogram,
    steps: Family<Label, Counter>,
    leases: Counter,
    wait_seconds: Histogram,
    pub(super) builds_running: Gauge,
    pub(super) leases_live: Gauge,
    pub(super) waiting: Family<Label, Gauge>,
    pub(super) workers: Family<Label, Gauge>,
    pub(super) slots: Gauge,
    pub(super) slots_used: Gauge,
}

impl Default for Tally {
    fn default() -> Self {
        let tally = Self {
            builds: Family::default(),
            // 100 ms to about an hour.
            build_seconds: Histogram::new(exponential_buckets(0.1, 2.0, 16)),
            steps: Family::default(),
            leases: Counter::default(),
            // 1 ms to about a quarter of an hour.
            wait_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 11)),
            builds_running: Gauge::default(),
            leases_live: Gauge::default(),
            waiting: Family::default(),
            workers: Family::default(),
            slots: Gauge::default(),
            slots_used: Gauge::default(),
        };
        // What has not happened yet is told, too: a rate needs a beginning.
        BUILD_OUTCOMES.iter().for_each(|o| drop(tally.builds.get_or_create(&[("outcome", *o)])));
        STEP_OUTCOMES.iter().for_each(|o| drop(tally.steps.get_or_create(&[("outcome", *o)])));
        tally.set_waiting(std::iter::empty());
        tally.set_workers(std::iter::empty());
        tally
    }
}

impl Tally {
    /// Lets them be asked for.
    pub fn register(&self, registry: &mut Registry) {
        let builds = "Builds that have ended, by how";
        registry.register("slipway_builds", builds, self.builds.clone());
        let seconds = "How long builds took, in seconds";
        registry.register("slipway_build_seconds", seconds, self.build_seconds.clone());
        let running = "Builds that are under way";
        registry.register("slipway_builds_running", running, self.builds_running.clone());
        let steps = "Steps of builds, by what became of them";
        registry.register("slipway_steps", steps, self.steps.clone());
        let leases = "Steps that were given to workers";
        registry.register("slipway_leases_granted", leases, self.leases.clone());
        let live = "Steps that workers have at the moment";
        registry.register("slipway_leases", live, self.leases_live.clone());
        let waiting = "Steps that could begin and have waited for a second at least, by why";
        registry.register("slipway_steps_waiting", waiting, self.waiting.clone());
        let wait = "How long steps waited for a worker, in seconds";
        registry.register("slipway_step_wait_seconds", wait, self.wait_seconds.clone());
        let workers = "Workers that are there, by how they are";
        registry.register("slipway_workers", workers, self.workers.clone());
        let slots = "Slots of all workers";
        registry.register("slipway_slots", slots, self.slots.clone());
        let used = "Slots of all workers in which a RUN is";
        registry.register("slipway_slots_used", used, self.slots_used.clone());
    }

    /// Takes note of what the core has decided.
    pub fn count(&self, effect: &Effect) {
        let step = |outcome| {
            self.steps.get_or_create(&[("outcome", outcome)]).inc();
        };
        match effect {
            Effect::Granted { waited_ms, .. } => {
                self.leases.inc();
                self.wait_seconds.observe(*waited_ms as f64 / 1000.0);
            }
            Effect::Notify { notice: Notice::Done { .. }, .. } => step("done"),
            Effect::Notify { notice: Notice::Cached { .. }, .. } => step("cached"),
            Effect::Notify { notice: Notice::Failed(_), .. } => step("failed"),
            Effect::Notify { notice: Notice::Again(_), .. } => step("again"),
            _ => {}
        }
    }

    /// A build has ended.
    pub fn build(&self, failure: Option<&Failure>, took: Duration) {
        let outcome = outcome(failure);
        self.builds.get_or_create(&[("outcome", outcome)]).inc();
        self.build_seconds.observe(took.as_secs_f64());
    }

    /// How many steps wait, by why.
    pub(super) fn set_waiting<'w>(&self, all: impl Iterator<Item = &'w Waiting>) {
        set(&self.waiting, "reason", &REASONS, all.map(reason));
    }

    /// How the workers are.
    pub(super) fn set_workers(&self, states: impl Iterator<Item = &'static str>) {
        set(&self.workers, "state", &WORKER_STATES, states);
    }
}

/// How a build ended, in a word.
pub fn outcome(failure: Option<&Failure>) -> &'static str {
    match failure {
        None => "done",
        Some(failure) if failure.class == Class::Cancelled => "cancelled",
        Some(_) => "failed",
    }
}

/// Sets gauges to how often each value is among `found`.
fn set(
    gauges: &Family<Label, Gauge>,
    label: &'static str,
    values: &[&'static str],
    found: impl Iterator<Item = &'static str>,
) {
    let mut counts = vec![0; values.len()];
    for value in found {
        if let Some(at) = values.iter().position(|v| *v == value) {
            counts[at] += 1;
        }
    }
    for (value, count) in values.iter().zip(counts) {
        gauges.get_or_create(&[(label, *value)]).set(count);
    }
}
