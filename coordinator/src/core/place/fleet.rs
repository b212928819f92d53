//! The workers, and lists of those with room: one *fleet* for each set of platforms.

use super::arena::{Arena, ClassIx, FleetIx, Number, WorkerIx};
use super::demand::{Size, Takes};
use super::search::Search;
use super::worker::{FreeKey, Head, Running, Worker};
use crate::core::WorkId;
use proto::id::WorkerId;
use proto::limit;
use proto::platform::Platform;
use proto::wire::worker::Capacity;
use std::collections::{BTreeMap, BTreeSet};

/// How well a fleet runs what is for a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// By itself.
    Native,
    /// With an emulator.
    Emulated,
    /// Not at all: for what is only moved there.
    Foreign,
}

/// Workers that run the same platforms.
#[derive(Debug)]
pub struct Fleet {
    pub platforms: Vec<Platform>,
    pub members: BTreeSet<(u64, WorkerIx)>,
    /// Those with room for a RUN.
    free: BTreeSet<FreeKey>,
    /// Those with room for a pull or a download.
    connections: BTreeSet<FreeKey>,
    /// Made when it is needed for the first time, and when workers came or went.
    search: Option<Search>,
    places: BTreeMap<WorkerIx, u32>,
    /// Those that take work at all.
    open: BTreeSet<WorkerIx>,
    /// The classes that it can do work of.
    pub classes: Vec<(ClassIx, Tier)>,
}

impl Fleet {
    /// How well it runs a platform.
    pub fn tier(&self, platform: &Platform) -> Tier {
        match self.platforms.first() {
            _ if !self.platforms.contains(platform) => Tier::Foreign,
            Some(own) if own.runs(platform) => Tier::Native,
            _ => Tier::Emulated,
        }
    }

    /// Workers with room for something of that kind, the best first.
    pub fn best(&self, takes: Takes) -> impl Iterator<Item = WorkerIx> {
        let list = match takes {
            Takes::Slot => &self.free,
            Takes::Connection => &self.connections,
        };
        list.iter().map(|key| key.3)
    }
}

/// All workers.
#[derive(Debug, Default)]
pub struct Fleets {
    pub workers: Arena<WorkerIx, Worker>,
    pub fleets: Arena<FleetIx, Fleet>,
    /// By the workers' numbers.
    heads: Vec<Head>,
    by_id: BTreeMap<WorkerId, WorkerIx>,
    by_order: BTreeMap<u64, WorkerIx>,
}

impl Fleets {
    /// The worker of that name.
    pub fn find(&self, id: &WorkerId) -> Option<WorkerIx> {
        self.by_id.get(id).copied()
    }

    /// The worker with that hash of its name, which had that number some time ago.
    pub fn by_order(&self, order: u64, at: WorkerIx) -> Option<WorkerIx> {
        match self.heads.get(at.slot()) {
            Some(head) if head.order == order && self.workers.get(at).is_some() => Some(at),
            _ => self.by_order.get(&order).copied(),
        }
    }

    /// What most looks at a worker need.
    pub fn head(&self, at: WorkerIx) -> &Head {
        &self.heads[at.slot()]
    }

    /// The fleet of these platforms; a new one, when there is none.
    pub fn fleet(&mut self, capacity: &Capacity) -> (FleetIx, bool) {
        let count = capacity.platforms.len().min(limit::WORKER_PLATFORMS_MAX);
        let platforms = &capacity.platforms[..count];
        if let Some((at, _)) = self.fleets.iter().find(|(_, f)| f.platforms == platforms) {
            return (at, false);
        }
        let fleet = Fleet {
            platforms: platforms.to_vec(),
            members: BTreeSet::new(),
            free: BTreeSet::new(),
            connections: BTreeSet::new(),
            search: None,
            places: BTreeMap::new(),
            open: BTreeSet::new(),
            classes: Vec::new(),
        };
        (self.fleets.insert(fleet), true)
    }

    /// A worker comes.
    pub fn insert(&mut self, worker: Worker) -> WorkerIx {
        let (id, order, fleet) = (worker.id.clone(), worker.order, worker.fleet);
        let head = worker.head();
        let at = self.workers.insert(worker);
        self.heads.resize(self.heads.len().max(at.slot() + 1), head);
        self.by_id.insert(id, at);
        self.by_order.insert(order, at);
        self.join(at, order, fleet);
        at
    }

    fn join(&mut self, at: WorkerIx, order: u64, fleet: FleetIx) {
        let fleet = &mut self.fleets[fleet];
        fleet.members.insert((order, at));
        fleet.search = None;
        self.refresh(at);
    }

    /// A worker goes. Answers what it was, and its fleet's number when that is gone as well.
    pub fn remove(&mut self, at: WorkerIx) -> (Worker, Option<FleetIx>) {
        let gone = self.part(at);
        let worker = self.workers.remove(at);
        self.by_id.remove(&worker.id);
        self.by_order.remove(&worker.order);
        (worker, gone)
    }

    fn part(&mut self, at: WorkerIx) -> Option<FleetIx> {
        let worker = &mut self.workers[at];
        let (order, of, keys) = (worker.order, worker.fleet, std::mem::take(&mut worker.keys));
        let fleet = &mut self.fleets[of];
        fleet.members.remove(&(order, at));
        fleet.open.remove(&at);
        fleet.search = None;
        replace(&mut fleet.free, keys.free, None);
        replace(&mut fleet.connections, keys.connection, None);
        fleet.members.is_empty().then(|| {
            self.fleets.remove(of);
            of
        })
    }

    /// A worker runs other platforms than before. Answers the number of a fleet that is gone.
    pub fn transfer(&mut self, at: WorkerIx, fleet: FleetIx) -> Option<FleetIx> {
        let gone = self.part(at);
        self.workers[at].fleet = fleet;
        self.join(at, self.workers[at].order, fleet);
        gone
    }

    /// Work begins.
    pub fn begin(&mut self, at: WorkerIx, work: WorkId, running: Running) {
        self.workers[at].begin(work, running);
        self.refresh(at);
    }

    /// Work has ended.
    pub fn end(&mut self, at: WorkerIx, work: WorkId) {
        self.workers[at].end(work);
        self.refresh(at);
    }

    /// Brings the lists up to what the worker has left.
    pub fn refresh(&mut self, at: WorkerIx) {
        let worker = &mut self.workers[at];
        worker.room = worker.account();
        let (old, keys) = (worker.keys, worker.list_keys(at));
        worker.keys = keys;
        self.heads[at.slot()] = worker.head();
        let fleet = &mut self.fleets[worker.fleet];
        replace(&mut fleet.free, old.free, keys.free);
        replace(&mut fleet.connections, old.connection, keys.connection);
        if old.open != keys.open {
            match keys.open {
                true => fleet.open.insert(at),
                false => fleet.open.remove(&at),
            };
        }
        if let (Some(search), Some(place)) = (&mut fleet.search, fleet.places.get(&at)) {
            search.set(*place, worker.peak());
        }
    }

    /// The fleet's tree of workers.
    pub fn search(&mut self, at: FleetIx) -> &Search {
        let Self { workers, fleets, .. } = self;
        let Fleet { members, search, places, .. } = &mut fleets[at];
        if search.is_none() {
            *places = BTreeMap::new();
        }
        search.get_or_insert_with(|| {
            let new = Search::new(members.iter().map(|(_, w)| (*w, workers[*w].peak())));
            places.extend(new.places());
            new
        })
    }

    /// Whether any worker of a fleet has room for work of a size when it does nothing else.
    pub fn could(&mut self, at: FleetIx, size: &Size) -> bool {
        match size.takes {
            Takes::Connection => {
                let members = &self.fleets[at].members;
                members.iter().any(|(_, w)| self.workers[*w].is_open())
            }
            Takes::Slot if size.is_plain() => !self.fleets[at].open.is_empty(),
            Takes::Slot => {
                let size = *size;
                self.search(at).all(move |peak| peak.could(&size)).next().is_some()
            }
        }
    }
}

fn replace(list: &mut BTreeSet<FreeKey>, old: Option<FreeKey>, new: Option<FreeKey>) {
    if old != new {
        old.map(|key| list.remove(&key));
        list.extend(new);
    }
}
