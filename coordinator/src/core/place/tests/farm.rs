//! A farm to try things with.

use crate::core::WorkId;
use crate::core::place::*;
use proto::id::{BuildId, Millis, RootId, TreeId, WorkerId};
use proto::platform::Platform;
use proto::wire::worker::{Capacity, Fetched, Pressure};

pub const GIB: u64 = 1 << 30;

/// A small generator (SplitMix64), so that a seed is all that a run depends on.
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

pub fn platform(text: &str) -> Platform {
    Platform::parse(text).expect("a platform")
}

pub fn id(name: &str) -> WorkerId {
    WorkerId::parse(name).expect("a worker id")
}

/// A worker of so many slots, with a processor and 4 GiB for each.
pub fn capacity(slots: u32) -> Capacity {
    Capacity {
        platforms: vec![platform("linux/amd64")],
        slots,
        cpu_millis: slots * 1000,
        memory_bytes: u64::from(slots) * 4 * GIB,
        disk_free_bytes: 100 * GIB,
        pressure: Pressure::default(),
        takes_work: true,
        is_alone: false,
        fetched: Fetched::default(),
    }
}

/// A RUN of build `build` of user `user` of project `project`, one second long.
pub fn run(project: &str, user: &str, build: &str) -> Demand {
    Demand {
        flow: Flow {
            project: project.into(),
            user: user.into(),
            build: BuildId::parse(build).expect("a build id"),
            priority: 0,
        },
        takes: Takes::Slot,
        platform: platform("linux/amd64"),
        cpu_millis: 0,
        memory: Memory::Share,
        path_ms: 1000,
        expected: Expected { wall_ms: 1000, deviation_ms: 0 },
        inputs: Vec::new(),
    }
}

pub fn plain() -> Demand {
    run("p", "u", "b")
}

pub fn input(n: u8, bytes: u64) -> Input {
    Input { id: InputId::tree(&RootId(TreeId::from_bytes([n; 32]))), bytes }
}

/// A placer, its time, and checks after everything that happens.
#[derive(Default)]
pub struct Farm {
    pub placer: Placer,
    pub now: u64,
}

impl Farm {
    pub fn new() -> Self {
        Self { placer: Placer::new(), now: 1_000_000 }
    }

    /// A farm with workers of so many slots.
    pub fn of(workers: &[(&str, u32)]) -> Self {
        let mut farm = Self::new();
        workers.iter().for_each(|(name, slots)| farm.worker(name, capacity(*slots)));
        farm
    }

    pub fn now(&self) -> Millis {
        Millis(self.now)
    }

    pub fn check(&self) {
        let broken = self.placer.broken_invariants();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    pub fn worker(&mut self, name: &str, capacity: Capacity) {
        self.placer.worker(&id(name), capacity);
        self.check();
    }

    pub fn ready(&mut self, work: u64, demand: Demand) {
        self.placer.ready(self.now(), WorkId(work), &demand);
        self.check();
    }

    pub fn ended(&mut self, work: u64) {
        assert!(self.placer.ended(self.now(), WorkId(work)), "{work} is assigned");
        self.check();
    }

    /// The next piece of work that is placed, and where.
    pub fn next(&mut self) -> Option<(u64, String)> {
        let next = self.placer.next(self.now());
        self.check();
        next.map(|(work, worker)| (work.0, worker.to_string()))
    }

    /// All work that can be placed now, and where.
    pub fn place(&mut self) -> Vec<(u64, String)> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The work that can be placed now.
    pub fn works(&mut self) -> Vec<u64> {
        self.place().into_iter().map(|(work, _)| work).collect()
    }

    /// Why work waits.
    pub fn why(&self, work: u64) -> Option<Waiting> {
        self.placer.why(self.now(), WorkId(work))
    }
}

/// What was placed, as it is compared with.
pub fn placed(all: &[(u64, &str)]) -> Vec<(u64, String)> {
    all.iter().map(|(work, worker)| (*work, (*worker).to_owned())).collect()
}
