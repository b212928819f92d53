//! How the farm is at a moment: for `slipway top`, and for whoever watches it.

use super::tally::{Tally, reason};
use super::{Coordinator, Server};
use crate::core::place::{Waiting, WorkerView};
use crate::core::{Core, Runs, Waits};
use proto::error::Failure;
use proto::id::{BuildId, Millis};
use proto::limit::OVERVIEW_ROWS_MAX;
use proto::step::StepId;
use proto::wire::overview::{BuildNow, Overview, StepRuns, StepWaits, WorkerNow, WorkerState};
use std::sync::Arc;

/// Builds that are named of those which wait for one step.
const BUILDS_TOLD: usize = 16;

/// What is seen of the core.
struct Seen {
    at: Millis,
    workers: Vec<WorkerView>,
    running: Vec<Runs>,
    waiting: Vec<(Waits, Millis, String)>,
    counts: (u64, u64),
}

fn see(core: &Core, at: Millis) -> Seen {
    let running = core.running();
    let waiting = core.waiting(at);
    let counts = (running.len() as u64, waiting.len() as u64);
    let told = waiting.into_iter().take(OVERVIEW_ROWS_MAX);
    let waiting = told.filter_map(|waits| {
        let (since, name) = core.waits_for(&waits)?;
        Some((waits, since, name))
    });
    Seen {
        at,
        workers: core.workers(),
        waiting: waiting.collect(),
        running: running.into_iter().take(OVERVIEW_ROWS_MAX).collect(),
        counts,
    }
}

/// `is_there` says whether its connection stands.
fn state(worker: &WorkerView, is_there: bool) -> WorkerState {
    let pressure = worker.capacity.pressure;
    match () {
        () if !is_there => WorkerState::Away,
        () if !worker.capacity.takes_work => WorkerState::Draining,
        () if worker.cordoned => WorkerState::Cordoned,
        () if pressure.memory => WorkerState::ShortOfMemory,
        () if pressure.disk => WorkerState::ShortOfDisk,
        () => WorkerState::Open,
    }
}

/// How a worker is, as a metric has it.
fn label(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Open => "open",
        WorkerState::Cordoned => "cordoned",
        WorkerState::Draining => "draining",
        WorkerState::ShortOfMemory | WorkerState::ShortOfDisk => "pressure",
        WorkerState::Away => "away",
    }
}

fn worker(view: WorkerView, is_there: bool) -> WorkerNow {
    WorkerNow {
        state: state(&view, is_there),
        id: view.id,
        platforms: view.capacity.platforms,
        slots: view.capacity.slots,
        slots_used: view.slots_used,
        fetches: view.fetches,
        memory_bytes: view.capacity.memory_bytes,
        memory_taken: view.memory_taken,
        disk_free_bytes: view.capacity.disk_free_bytes,
    }
}

/// The builds of a row, each once.
fn builds(steps: &[(BuildId, StepId)]) -> Vec<BuildId> {
    let mut builds: Vec<BuildId> = steps.iter().map(|(build, _)| build.clone()).collect();
    builds.sort();
    builds.dedup();
    builds.truncate(BUILDS_TOLD);
    builds
}

impl Coordinator {
    /// How the farm is at the moment.
    pub async fn overview(&self) -> Result<Overview, Failure> {
        let seen = self.0.look(see).await?;
        let all = self.0.builds.running();
        let build_count = all.len() as u64;
        let of = |build: &Arc<super::build::Build>| {
            let row = build.row();
            let summary = build.reporter.summary();
            BuildNow {
                id: build.id.clone(),
                who: build.who.name.clone(),
                description: row.description.clone(),
                started: row.started,
                steps_done: summary.steps,
                steps_cached: summary.cached,
            }
        };
        let runs = |runs: Runs| StepRuns {
            builds: builds(&runs.steps),
            name: runs.name,
            worker: runs.worker,
            since: runs.since,
        };
        let waits = |(waits, since, name): (Waits, Millis, String)| StepWaits {
            builds: builds(&waits.steps),
            name,
            since,
            reason: reason(&waits.why).to_owned(),
            why: waits.why.to_string(),
        };
        Ok(Overview {
            at: seen.at,
            workers: self.told(seen.workers).take(OVERVIEW_ROWS_MAX).collect(),
            running: seen.running.into_iter().map(runs).collect(),
            waiting: seen.waiting.into_iter().map(waits).collect(),
            builds: all.iter().take(OVERVIEW_ROWS_MAX).map(of).collect(),
            running_count: seen.counts.0,
            waiting_count: seen.counts.1,
            build_count,
        })
    }

    /// The workers that are there, by name.
    pub async fn workers(&self) -> Result<Vec<WorkerNow>, Failure> {
        let seen = self.0.look(|core, _| core.workers()).await?;
        Ok(self.told(seen).collect())
    }

    fn told(&self, workers: Vec<WorkerView>) -> impl Iterator<Item = WorkerNow> {
        workers.into_iter().map(|view| {
            let is_there = self.0.workers.is_connected(&view.id);
            worker(view, is_there)
        })
    }

    /// What is counted of it.
    pub fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// Brings the gauges up to how things are.
    pub async fn measure(&self) -> Result<(), Failure> {
        let look = |core: &Core, at| {
            let why: Vec<Waiting> = core.waiting(at).into_iter().map(|w| w.why).collect();
            (core.workers(), why, core.running().len())
        };
        let (workers, why, leases) = self.0.look(look).await?;
        let tally = &self.0.tally;
        tally.set_waiting(why.iter());
        let is_there = |view: &WorkerView| self.0.workers.is_connected(&view.id);
        tally.set_workers(workers.iter().map(|view| label(state(view, is_there(view)))));
        tally.leases_live.set(leases as i64);
        tally.slots.set(workers.iter().map(|w| i64::from(w.capacity.slots)).sum());
        tally.slots_used.set(workers.iter().map(|w| i64::from(w.slots_used)).sum());
        tally.builds_running.set(self.active() as i64);
        Ok(())
    }

    /// Why it cannot work, if it cannot: whoever runs it starts it again then.
    pub fn is_alive(&self) -> Result<(), &'static str> {
        match self.0.decides() {
            true => Ok(()),
            false => Err("it makes no more decisions: its log could not be written to"),
        }
    }

    /// Why it does not serve builds, if it does not.
    pub fn is_ready(&self) -> Result<(), &'static str> {
        self.is_alive()?;
        match self.0.has_resumed() {
            true => Ok(()),
            false => Err("the builds of before its start are still being taken up again"),
        }
    }
}

impl Server {
    fn has_resumed(&self) -> bool {
        *self.resumed.borrow()
    }
}
