//! One worker: what it can do, what it does, what is left.

use super::arena::{ClassIx, FleetIx, ItemIx, WorkerIx};
use super::demand::{Memory, Size, Takes};
use super::search::Peak;
use crate::core::WorkId;
use proto::id::{Millis, WorkerId};
use proto::limit;
use proto::wire::worker::{Capacity, Fetched};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Pulls and downloads that one worker does at once, beside its RUNs.
pub const FETCHES_MAX: u32 = 6;

/// How many bytes a worker is taken to get from other machines in a second, before anything was
/// measured: a bit less than 1 Gbit/s carries.
pub const BANDWIDTH_PRIOR: u64 = 100_000_000;

/// What is less was over too soon to tell how fast it was.
const SAMPLE_BYTES_MIN: u64 = 1 << 20;

/// Memory of a worker that does not say how much it has.
const MEMORY_UNKNOWN: u64 = u64::MAX / 4;

/// Slots, connections, processors and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    pub slots: u32,
    pub connections: u32,
    pub cpu_millis: u32,
    pub memory_bytes: u64,
}

/// What a worker has in all, and what one slot's share of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub all: Room,
    pub cpu_share: u32,
    pub memory_share: u64,
    /// Whether what is too large gets all there is.
    is_alone: bool,
}

impl Totals {
    pub fn of(capacity: &Capacity) -> Self {
        let slots = capacity.slots.min(limit::WORKER_SLOTS_MAX);
        let cpu_millis = match capacity.cpu_millis {
            0 => slots.saturating_mul(1000),
            millis => millis,
        };
        let memory_bytes = match capacity.memory_bytes {
            0 => MEMORY_UNKNOWN,
            bytes => bytes,
        };
        let all = Room { slots, connections: FETCHES_MAX, cpu_millis, memory_bytes };
        let by = slots.max(1);
        Self {
            all,
            cpu_share: cpu_millis / by,
            memory_share: memory_bytes / u64::from(by),
            is_alone: capacity.is_alone,
        }
    }

    /// What work of a size takes up here.
    pub fn taken(&self, size: &Size) -> Room {
        if size.takes == Takes::Connection {
            return Room { connections: 1, ..Room::default() };
        }
        let cpu_millis = match size.cpu_millis {
            0 => self.cpu_share,
            millis => millis,
        };
        let memory_bytes = match size.memory {
            Memory::Share => self.memory_share,
            Memory::Learnt(bytes) => bytes.min(self.all.memory_bytes / 2),
            Memory::Asked(bytes) => bytes,
        };
        let room = Room { slots: 1, connections: 0, cpu_millis, memory_bytes };
        match self.is_alone {
            true => Room {
                cpu_millis: cpu_millis.min(self.all.cpu_millis),
                memory_bytes: memory_bytes.min(self.all.memory_bytes),
                ..room
            },
            false => room,
        }
    }

    /// How many slots' shares that is, in thousandths: of what it takes most of, and one at least.
    pub fn shares_milli(&self, size: &Size) -> u64 {
        let taken = self.taken(size);
        let cpu = u64::from(taken.cpu_millis) * 1000 / u64::from(self.cpu_share.max(1));
        let memory = match size.memory {
            Memory::Asked(bytes) => {
                (u128::from(bytes) * 1000 / u128::from(self.memory_share.max(1))) as u64
            }
            Memory::Share | Memory::Learnt(_) => 0,
        };
        cpu.max(memory).max(1000)
    }
}

/// Work that a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    pub taken: Room,
    pub began: Millis,
    /// When it is expected to have ended.
    pub ends: Millis,
}

impl Running {
    /// How long it still takes: what is overdue is taken to be overdue for as long again.
    pub fn left_ms(&self, now: Millis) -> u64 {
        self.ends.0.abs_diff(now.0)
    }
}

/// A place in a list of workers with room: the emptiest first, then the fastest to reach.
pub type FreeKey = (Reverse<u32>, Reverse<u32>, u64, WorkerIx);

/// Where a worker stands in the lists of its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys {
    /// Among those with room for a RUN.
    pub free: Option<FreeKey>,
    /// Among those with room for a pull or a download.
    pub connection: Option<FreeKey>,
    /// Among those that take RUNs at all.
    pub open: bool,
}

/// What most looks at a worker need, small enough that those of all workers stay at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// A hash of its name.
    pub order: u64,
    pub fleet: FleetIx,
    /// Whether it gets new work, and is not kept free for somebody.
    pub is_open: bool,
    /// How many plain RUNs it could begin.
    pub plain: u32,
    /// How many pulls or downloads it could begin.
    pub connections: u32,
    /// Bytes that it gets from other machines in a second.
    pub bandwidth: u64,
    /// When the first of its RUNs is expected to end.
    pub soonest: Millis,
}

/// A worker that is there.
#[derive(Debug)]
pub struct Worker {
    pub id: WorkerId,
    /// A hash of its name: the order among equals.
    pub order: u64,
    pub fleet: FleetIx,
    pub capacity: Capacity,
    pub totals: Totals,
    pub cordoned: bool,
    /// In order of the works' numbers.
    pub running: Vec<(WorkId, Running)>,
    /// Work that waits for it, in the order in which it began to.
    pub parked: BTreeSet<(u64, ItemIx)>,
    /// The class for whose first work room is made here.
    pub reserved: Option<ClassIx>,
    /// Bytes that it gets from other machines in a second.
    pub bandwidth: u64,
    /// What is left, whoever may have it.
    pub room: Room,
    /// Where it stands in the lists of its fleet.
    pub keys: Keys,
}

impl Worker {
    pub fn new(id: WorkerId, fleet: FleetIx, capacity: Capacity) -> Self {
        let totals = Totals::of(&capacity);
        Self {
            order: super::share::order(id.as_str()),
            id,
            fleet,
            capacity,
            totals,
            cordoned: false,
            running: Vec::new(),
            parked: BTreeSet::new(),
            reserved: None,
            bandwidth: BANDWIDTH_PRIOR,
            room: totals.all,
            keys: Keys::default(),
        }
    }

    /// Whether it gets new work at all.
    pub fn is_open(&self) -> bool {
        let pressure = self.capacity.pressure;
        self.capacity.takes_work && !self.cordoned && !pressure.memory && !pressure.disk
    }

    /// What is left for a class.
    pub fn room_for(&self, class: ClassIx) -> Room {
        match self.is_open() && self.reserved.is_none_or(|other| other == class) {
            true => self.room,
            false => Room::default(),
        }
    }

    /// Whether there is room now.
    pub fn fits(&self, class: ClassIx, size: &Size) -> bool {
        covers(&self.room_for(class), &self.totals.taken(size))
    }

    /// Whether there is room when it does nothing else.
    pub fn could(&self, size: &Size) -> bool {
        covers(&self.totals.all, &self.totals.taken(size))
    }

    /// How many plain RUNs it could begin.
    pub fn plain(&self) -> u32 {
        let room = match self.is_open() && self.reserved.is_none() {
            true => self.room,
            false => return 0,
        };
        let cpu = room.cpu_millis / self.totals.cpu_share.max(1);
        let memory = room.memory_bytes / self.totals.memory_share.max(1);
        room.slots.min(cpu).min(u32::try_from(memory).unwrap_or(u32::MAX))
    }

    /// What is left of the totals besides what runs, from what runs: nothing is counted up or
    /// down, so that nothing can be counted wrong.
    pub fn account(&self) -> Room {
        let mut room = self.totals.all;
        for (_, running) in &self.running {
            let taken = &running.taken;
            room.slots = room.slots.saturating_sub(taken.slots);
            room.connections = room.connections.saturating_sub(taken.connections);
            room.cpu_millis = room.cpu_millis.saturating_sub(taken.cpu_millis);
            room.memory_bytes = room.memory_bytes.saturating_sub(taken.memory_bytes);
        }
        room
    }

    /// Where it stands in the lists of its fleet, by what is left.
    pub fn list_keys(&self, at: WorkerIx) -> Keys {
        let is_open = self.is_open();
        let room = match is_open && self.reserved.is_none() {
            true => self.room,
            false => Room::default(),
        };
        let speed = Reverse(self.bandwidth.ilog2());
        let key = |count| (Reverse(count), speed, self.order, at);
        Keys {
            free: (room.slots > 0).then(|| key(self.plain())),
            connection: (room.connections > 0).then(|| key(room.connections)),
            open: is_open && self.totals.all.slots > 0,
        }
    }

    /// What most looks need.
    pub fn head(&self) -> Head {
        let runs = self.running.iter().filter(|(_, r)| r.taken.slots > 0);
        let is_open = self.is_open() && self.reserved.is_none();
        Head {
            order: self.order,
            fleet: self.fleet,
            is_open,
            plain: self.plain(),
            connections: if is_open { self.room.connections } else { 0 },
            bandwidth: self.bandwidth,
            soonest: runs.map(|(_, r)| r.ends).min().unwrap_or(Millis(u64::MAX)),
        }
    }

    /// For the search.
    pub fn peak(&self) -> Peak {
        let runs = self.running.iter().filter(|(_, r)| r.taken.slots > 0);
        let ends = runs.map(|(_, r)| r.ends.0);
        let soonest = ends.min().unwrap_or(u64::MAX);
        if !self.is_open() {
            return Peak::NONE;
        }
        let (all, room) = (self.totals.all, self.room);
        // All that one has that is alone is enough for anything.
        let (cpu, memory) = match self.totals.is_alone {
            true => (u32::MAX, u64::MAX),
            false => (all.cpu_millis, all.memory_bytes),
        };
        let free = Peak {
            slots_in_all: all.slots,
            cpu_in_all: cpu,
            memory_in_all: memory,
            slots_sum: u64::from(all.slots),
            ..Peak::NONE
        };
        match self.reserved {
            Some(_) => free,
            None => Peak {
                slots: room.slots,
                cpu_millis: if room.cpu_millis == all.cpu_millis { cpu } else { room.cpu_millis },
                memory_bytes: match room.memory_bytes == all.memory_bytes {
                    true => memory,
                    false => room.memory_bytes,
                },
                cpu_share: room.cpu_millis >= self.totals.cpu_share,
                memory_share: room.memory_bytes >= self.totals.memory_share,
                memory_half: room.memory_bytes >= all.memory_bytes / 2,
                soonest,
                ..free
            },
        }
    }

    /// How long it takes until there is room for work of a size, when nothing new comes before it
    /// but `others` that wait for a slot already.
    pub fn room_in_ms(&self, now: Millis, size: &Size, others: usize) -> u64 {
        let (mut room, taken) = (self.room, self.totals.taken(size));
        if covers(&room, &taken) && others == 0 {
            return 0;
        }
        let mut left: Vec<(u64, Room)> =
            self.running.iter().map(|(_, r)| (r.left_ms(now), r.taken)).collect();
        left.sort_unstable_by_key(|(ms, _)| *ms);
        let (mut others, mut last) = (others, 0);
        for (ms, ended) in left {
            if covers(&room, &taken) && others == 0 {
                break;
            }
            others = others.saturating_sub(ended.slots as usize);
            room.slots += ended.slots;
            room.connections += ended.connections;
            room.cpu_millis = room.cpu_millis.saturating_add(ended.cpu_millis);
            room.memory_bytes = room.memory_bytes.saturating_add(ended.memory_bytes);
            last = ms;
        }
        last
    }

    /// Work begins.
    pub fn begin(&mut self, work: WorkId, running: Running) {
        match self.find(work) {
            Ok(place) => self.running[place].1 = running,
            Err(place) => self.running.insert(place, (work, running)),
        }
    }

    /// Work has ended.
    pub fn end(&mut self, work: WorkId) {
        if let Ok(place) = self.find(work) {
            self.running.remove(place);
        }
    }

    /// Whether it does this work, and its place among what it does.
    pub fn find(&self, work: WorkId) -> Result<usize, usize> {
        self.running.binary_search_by_key(&work, |(work, _)| *work)
    }

    /// It has moved more than it had before: how fast tells how fast it will be.
    pub fn measure(&mut self, fetched: Fetched) {
        let before = self.capacity.fetched;
        let bytes = fetched.bytes.saturating_sub(before.bytes);
        let ms = fetched.ms.saturating_sub(before.ms);
        if bytes < SAMPLE_BYTES_MIN || ms == 0 {
            return;
        }
        let rate = bytes.saturating_mul(1000) / ms;
        self.bandwidth = (self.bandwidth - self.bandwidth / 4).saturating_add(rate / 4).max(1);
    }
}

/// Whether what is taken is there.
fn covers(room: &Room, taken: &Room) -> bool {
    taken.slots <= room.slots
        && taken.connections <= room.connections
        && taken.cpu_millis <= room.cpu_millis
        && taken.memory_bytes <= room.memory_bytes
}
