//! What stores and cache nodes tell.

use super::Label;
use super::process::set;
use cache::cluster::through::Exchanged;
use cache::store::{Collected, DiskStore};
use coordinator::server::CacheRow;
use ops::identity::Role;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proto::wire::cluster::CacheState;
use std::sync::atomic::Ordering::Relaxed;

type Labels = [(&'static str, &'static str); 2];

const STATES: [(CacheState, &str); 4] = [
    (CacheState::Serving, "serving"),
    (CacheState::Syncing, "syncing"),
    (CacheState::Leaving, "leaving"),
    (CacheState::Down, "down"),
];

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The cache nodes, as a coordinator knows them.
pub struct CacheNodes {
    nodes: Family<Label, Gauge>,
    held: Gauge,
    budget: Gauge,
}

impl CacheNodes {
    /// Lets them be asked for.
    pub fn register(registry: &mut Registry) -> Self {
        let this =
            Self { nodes: Family::default(), held: Gauge::default(), budget: Gauge::default() };
        let help = "Cache nodes of the farm, by how they are";
        registry.register("slipway_cache_nodes", help, this.nodes.clone());
        let help = "Bytes that all cache nodes hold, as they said last";
        registry.register("slipway_cache_held_bytes", help, this.held.clone());
        let help = "Bytes that all cache nodes may hold";
        registry.register("slipway_cache_budget_bytes", help, this.budget.clone());
        this.measure(&[]);
        this
    }

    /// Brings them up to how things are.
    pub fn measure(&self, rows: &[CacheRow]) {
        for (state, name) in STATES {
            let count = rows.iter().filter(|row| row.state == state).count();
            self.nodes.get_or_create(&[("state", name)]).set(count as i64);
        }
        self.held.set(bytes(rows.iter().map(|row| row.bytes.0).sum()));
        self.budget.set(bytes(rows.iter().map(|row| row.bytes.1).sum()));
    }
}

/// The stores of this process, by the role that they are of.
pub struct StoreMetrics {
    held: Family<Label, Gauge>,
    budget: Family<Label, Gauge>,
    collections: Family<Label, Counter>,
    evicted: Family<Labels, Counter>,
    freed: Family<Label, Counter>,
}

impl StoreMetrics {
    /// Lets them be asked for, when one of the roles has a store.
    pub fn register(registry: &mut Registry, roles: &[Role]) -> Self {
        let this = Self {
            held: Family::default(),
            budget: Family::default(),
            collections: Family::default(),
            evicted: Family::default(),
            freed: Family::default(),
        };
        if !roles.iter().any(|role| matches!(role, Role::Cache | Role::Worker)) {
            return this;
        }
        let help = "Bytes of disk that a store takes";
        registry.register("slipway_store_held_bytes", help, this.held.clone());
        let help = "Bytes of disk above which a store evicts what was used least";
        registry.register("slipway_store_budget_bytes", help, this.budget.clone());
        let help = "Times that a store was collected";
        registry.register("slipway_store_collections", help, this.collections.clone());
        let help = "Things that collections took away, by kind";
        registry.register("slipway_store_evicted", help, this.evicted.clone());
        let help = "Bytes of disk that collections freed";
        registry.register("slipway_store_evicted_bytes", help, this.freed.clone());
        let have_one = roles.iter().filter(|role| matches!(role, Role::Cache | Role::Worker));
        have_one.for_each(|role| this.set(*role, 0, 0, &Collected::default()));
        this
    }

    /// Brings those of one store up to how things are.
    pub fn measure(&self, role: Role, store: &DiskStore) {
        let (held, budget) = (store.held_bytes(), store.budget_bytes().unwrap_or(0));
        self.set(role, held, budget, &store.collected());
    }

    fn set(&self, role: Role, held: u64, budget: u64, gone: &Collected) {
        let label = [("store", role.as_str())];
        self.held.get_or_create(&label).set(bytes(held));
        self.budget.get_or_create(&label).set(bytes(budget));
        set(&self.collections.get_or_create(&label), gone.collections);
        set(&self.freed.get_or_create(&label), gone.freed_bytes);
        let kinds = [
            ("record", gone.records),
            ("row", gone.rows),
            ("tree", gone.trees),
            ("blob", gone.blobs),
        ];
        for (kind, count) in kinds {
            let label = [("store", role.as_str()), ("kind", kind)];
            set(&self.evicted.get_or_create(&label), count);
        }
    }
}

/// What a worker moves between its own store and the farm.
pub struct FarmBytes(Family<Label, Counter>);

impl FarmBytes {
    /// Lets them be asked for.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self(Family::default());
        let help = "Bytes of blobs that a worker fetched from the farm, and sent to it";
        registry.register("slipway_worker_farm_bytes", help, this.0.clone());
        this.measure(&Exchanged::default());
        this
    }

    /// Brings them up to how things are.
    pub fn measure(&self, exchanged: &Exchanged) {
        let both = [("fetched", &exchanged.fetched), ("sent", &exchanged.sent)];
        for (direction, bytes) in both {
            let counter = self.0.get_or_create(&[("direction", direction)]);
            set(&counter, bytes.load(Relaxed));
        }
    }
}
