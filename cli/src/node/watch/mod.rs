//! What watches a role's process: `/healthz`, `/readyz` and `/metrics`.
//!
//! *Healthy* is a process that can do its work, or will: one that is not is to be started again.
//! *Ready* is a role that serves now:
//!
//! - a coordinator has its log, and has taken up the builds of before its start;
//! - a worker is connected to the coordinator, and takes work;
//! - a cache node has what it should have: the coordinator's map calls it serving.
//!
//! The names of the metrics are in `docs/metrics.md`; a test holds the two together.

mod process;
mod shelves;
#[cfg(test)]
mod tests;

use super::cache::Shelved;
use super::coordinator::Desk;
use super::worker::Hired;
use ops::config::Config;
use ops::http::{Page, Pages, serve};
use ops::identity::Role;
use process::ProcessMetrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proto::wire::cluster::CacheState;
use shelves::{CacheNodes, FarmBytes, StoreMetrics};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One label.
type Label = [(&'static str, &'static str); 1];

/// A role that runs in this process, as whoever watches it sees it.
pub enum Part {
    /// A coordinator.
    Coordinator(Arc<Desk>),
    /// A cache node.
    Cache(Shelved),
    /// A worker.
    Worker(Hired),
}

impl Part {
    fn role(&self) -> Role {
        match self {
            Self::Coordinator(_) => Role::Coordinator,
            Self::Cache(_) => Role::Cache,
            Self::Worker(_) => Role::Worker,
        }
    }

    /// Why it will not work again by itself, if so.
    fn is_alive(&self) -> Result<(), &'static str> {
        match self {
            Self::Coordinator(desk) => desk.coordinator().is_alive(),
            Self::Cache(_) | Self::Worker(_) => Ok(()),
        }
    }

    /// Why it does not serve, if it does not.
    pub fn is_ready(&self) -> Result<(), &'static str> {
        match self {
            Self::Coordinator(desk) => desk.coordinator().is_ready(),
            Self::Worker(hired) => hired.worker.is_ready(),
            Self::Cache(shelved) => match shelved.state() {
                Some(CacheState::Serving) => Ok(()),
                Some(CacheState::Syncing) => Err("catching up: it gets what it lacks"),
                Some(CacheState::Leaving) => Err("leaving: it takes nothing new"),
                Some(CacheState::Down) => Err("the coordinator calls it down"),
                None => Err("the coordinator does not know it yet"),
            },
        }
    }
}

/// What is told of this process.
pub struct Watch {
    parts: Vec<Part>,
    metrics: Metrics,
}

/// The metrics of this process.
struct Metrics {
    registry: Registry,
    process: ProcessMetrics,
    ready: Family<Label, Gauge>,
    caches: Option<CacheNodes>,
    stores: StoreMetrics,
    farm_bytes: Option<FarmBytes>,
}

impl Metrics {
    /// Those of a process with these roles, before its parts have added theirs.
    fn new(roles: &[Role]) -> Self {
        let mut registry = Registry::default();
        let process = ProcessMetrics::register(&mut registry);
        let ready = Family::<Label, Gauge>::default();
        let help = "1 while the role serves, as /readyz has it";
        registry.register("slipway_ready", help, ready.clone());
        for role in roles {
            drop(ready.get_or_create(&[("role", role.as_str())]));
        }
        let is_coordinator = roles.contains(&Role::Coordinator);
        let caches = is_coordinator.then(|| CacheNodes::register(&mut registry));
        let stores = StoreMetrics::register(&mut registry, roles);
        let is_worker = roles.contains(&Role::Worker);
        let farm_bytes = is_worker.then(|| FarmBytes::register(&mut registry));
        Self { registry, process, ready, caches, stores, farm_bytes }
    }
}

impl Watch {
    /// Tells of these parts.
    pub fn new(parts: Vec<Part>) -> Self {
        let roles: Vec<Role> = parts.iter().map(Part::role).collect();
        let mut metrics = Metrics::new(&roles);
        for part in &parts {
            match part {
                Part::Coordinator(desk) => {
                    desk.coordinator().tally().register(&mut metrics.registry);
                }
                Part::Worker(hired) => hired.worker.tally().register(&mut metrics.registry),
                Part::Cache(_) => {}
            }
        }
        Self { parts, metrics }
    }

    /// How each role is by `look`, a line for each; bad when one is not well.
    fn state(&self, good: &str, look: impl Fn(&Part) -> Result<(), &'static str>) -> Page {
        let (mut text, mut all_good) = (String::new(), true);
        for part in &self.parts {
            let line = match look(part) {
                Ok(()) => writeln!(text, "{}: {good}", part.role()),
                Err(why) => {
                    all_good = false;
                    writeln!(text, "{}: not {good}: {why}", part.role())
                }
            };
            line.expect("a String takes everything");
        }
        if all_good { Page::good(text) } else { Page::bad(text) }
    }

    async fn metrics(&self) -> Page {
        let metrics = &self.metrics;
        metrics.process.measure();
        for part in &self.parts {
            let ready = i64::from(part.is_ready().is_ok());
            metrics.ready.get_or_create(&[("role", part.role().as_str())]).set(ready);
            match part {
                Part::Coordinator(desk) => {
                    if let Err(e) = desk.coordinator().measure().await {
                        tracing::debug!("the coordinator's figures are those of before: {e}");
                    }
                    if let Some(caches) = &metrics.caches {
                        caches.measure(&desk.membership().rows());
                    }
                }
                Part::Cache(shelved) => metrics.stores.measure(Role::Cache, &shelved.store),
                Part::Worker(hired) => {
                    hired.worker.measure();
                    metrics.stores.measure(Role::Worker, &hired.store);
                    if let Some(bytes) = &metrics.farm_bytes {
                        bytes.measure(&hired.exchanged);
                    }
                }
            }
        }
        let mut text = String::new();
        match encode(&mut text, &metrics.registry) {
            Ok(()) => Page::metrics(text),
            Err(e) => Page::bad(format!("Writing the metrics failed: {e}\n")),
        }
    }
}

impl Pages for Watch {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/healthz" => Some(self.state("healthy", Part::is_alive)),
            "/readyz" => Some(self.state("ready", Part::is_ready)),
            "/metrics" => Some(self.metrics().await),
            _ => None,
        }
    }
}

/// Serves what there is to see, where the settings say. A port that is taken is told and does not
/// keep the roles from their work.
pub async fn start(watch: Watch, config: &Config, tasks: &mut JoinSet<()>) {
    let Some(address) = config.http_listen else { return };
    match bind(address).await {
        Ok(listener) => {
            tracing::info!(%address, "health and metrics are served");
            tasks.spawn(serve(listener, Arc::new(watch)));
        }
        Err(e) => tracing::error!(
            %address,
            "Health and metrics are not served: listening failed: {e}. Set `listen` in the section \
             [http] of the settings (SLIPWAY_HTTP_LISTEN) to another address, or to `off`"
        ),
    }
}

async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
