//! What always holds, whatever happens.

use super::farm::*;
use crate::core::WorkId;
use crate::core::place::*;
use proptest::prelude::*;
use proto::id::Millis;
use proto::wire::worker::{Capacity, Pressure};
use std::collections::BTreeMap;

/// A placer in a world that keeps its own books.
struct World {
    farm: Farm,
    chance: Chance,
    workers: BTreeMap<u64, Capacity>,
    cordoned: BTreeMap<u64, bool>,
    waiting: BTreeMap<u64, Demand>,
    /// Where it runs, and what it takes there.
    running: BTreeMap<u64, (u64, Taken)>,
    last: u64,
}

fn name(worker: u64) -> String {
    format!("w{worker}")
}

/// Slots, processors, memory and connections.
type Taken = (u32, u32, u64, u32);

/// What a demand takes at a worker, counted independently.
fn takes(capacity: &Capacity, demand: &Demand) -> Taken {
    if demand.takes == Takes::Connection {
        return (0, 0, 0, 1);
    }
    let cpu = match demand.cpu_millis {
        0 => capacity.cpu_millis / capacity.slots,
        millis => millis,
    };
    let memory = match demand.memory {
        Memory::Share => capacity.memory_bytes / u64::from(capacity.slots),
        Memory::Learnt(bytes) => bytes.min(capacity.memory_bytes / 2),
        Memory::Asked(bytes) => bytes,
    };
    match capacity.is_alone {
        true => (1, cpu.min(capacity.cpu_millis), memory.min(capacity.memory_bytes), 0),
        false => (1, cpu, memory, 0),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            farm: Farm::new(),
            chance: Chance(seed),
            workers: BTreeMap::new(),
            cordoned: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            last: 0,
        }
    }

    fn random_capacity(&mut self) -> Capacity {
        let slots = 1 + self.chance.below(4) as u32;
        let sets: [&[&str]; 4] = [
            &["linux/amd64"],
            &["linux/arm64"],
            &["linux/amd64", "linux/arm64"],
            &["linux/arm64", "linux/amd64"],
        ];
        let platforms = sets[self.chance.below(4) as usize].iter().map(|p| platform(p)).collect();
        Capacity {
            platforms,
            cpu_millis: slots * 1000 + 1000 * self.chance.below(3) as u32,
            memory_bytes: (1 + self.chance.below(16)) * 2 * GIB,
            pressure: Pressure {
                memory: self.chance.below(10) == 0,
                disk: self.chance.below(10) == 0,
            },
            takes_work: self.chance.below(10) != 0,
            is_alone: self.chance.below(10) == 0,
            ..capacity(slots)
        }
    }

    fn random_demand(&mut self) -> Demand {
        let n = |chance: &mut Chance, below| chance.below(below);
        let chance = &mut self.chance;
        let mut demand = run(
            &format!("p{}", n(chance, 3)),
            &format!("u{}", n(chance, 2)),
            &format!("b{}", n(chance, 4)),
        );
        demand.flow.priority = n(chance, 3) as u8;
        if n(chance, 6) == 0 {
            demand.takes = Takes::Connection;
        }
        if n(chance, 3) == 0 {
            demand.platform = platform("linux/arm64");
        }
        if n(chance, 4) == 0 {
            demand.cpu_millis = 500 * (1 + n(chance, 10) as u32);
        }
        demand.memory = match n(chance, 6) {
            0 => Memory::Asked((1 + n(chance, 20)) * GIB + n(chance, GIB)),
            1 => Memory::Learnt((1 + n(chance, 40)) * GIB / 2),
            _ => Memory::Share,
        };
        demand.path_ms = n(chance, 5) * 1000;
        demand.expected = Expected { wall_ms: n(chance, 20) * 500, deviation_ms: n(chance, 500) };
        for _ in 0..n(chance, 4) {
            demand.inputs.push(input(n(chance, 6) as u8, n(chance, 3) * GIB));
        }
        demand
    }

    fn step(&mut self) {
        self.farm.now += self.chance.below(2000);
        match self.chance.below(20) {
            0..=1 => {
                let worker = self.chance.below(5);
                let capacity = self.random_capacity();
                self.farm.worker(&name(worker), capacity.clone());
                self.workers.insert(worker, capacity);
            }
            2 => {
                let worker = self.chance.below(5);
                self.workers.remove(&worker);
                let lost = self.farm.placer.worker_gone(self.farm.now(), &id(&name(worker)));
                let held = self.running.iter().filter(|(_, (w, _))| *w == worker);
                assert!(held.map(|(work, _)| WorkId(*work)).eq(lost.iter().copied()));
                self.running.retain(|_, (w, _)| *w != worker);
            }
            3 => {
                let (worker, cordoned) = (self.chance.below(5), self.chance.below(2) == 0);
                self.farm.placer.cordon(&id(&name(worker)), cordoned);
                self.cordoned.insert(worker, cordoned);
            }
            4 => {
                let work = 1 + self.chance.below(self.last);
                self.farm.placer.withdraw(WorkId(work));
                self.waiting.remove(&work);
            }
            5..=12 => {
                self.last += 1;
                let work = match self.chance.below(8) {
                    0 => 1 + self.chance.below(self.last),
                    _ => self.last,
                };
                let demand = self.random_demand();
                self.farm.ready(work, demand.clone());
                if !self.running.contains_key(&work) {
                    self.waiting.insert(work, demand);
                }
            }
            13..=18 => {
                let at = self.chance.below(self.running.len() as u64) as usize;
                if let Some(work) = self.running.keys().nth(at).copied() {
                    self.running.remove(&work);
                    self.farm.ended(work);
                }
            }
            _ => {
                let worker = self.chance.below(5);
                self.farm.placer.renewed(&id(&name(worker)), input(1, 0).id);
            }
        }
        self.farm.check();
    }

    /// Places all that can be placed: each where there is room for it.
    fn place(&mut self) {
        while let Some((work, worker)) = self.farm.next() {
            let worker: u64 = worker[1..].parse().expect("a number");
            let demand = self.waiting.remove(&work).expect("what is placed was waiting");
            let capacity = &self.workers[&worker];
            assert!(self.is_open(worker), "{worker} takes nothing");
            let runs = capacity.platforms.contains(&demand.platform);
            assert!(runs || demand.takes == Takes::Connection, "{worker} cannot run it");
            assert!(self.has_room(worker, &demand), "{worker} has more than it can do");
            self.running.insert(work, (worker, takes(capacity, &demand)));
        }
    }

    fn is_open(&self, worker: u64) -> bool {
        let capacity = &self.workers[&worker];
        let cordoned = self.cordoned.get(&worker).copied().unwrap_or(false);
        capacity.takes_work && !cordoned && capacity.pressure == Pressure::default()
    }

    fn has_room(&self, worker: u64, demand: &Demand) -> bool {
        let capacity = &self.workers[&worker];
        let taken = takes(capacity, demand);
        let own = self.running.values().filter(|(w, _)| *w == worker).map(|(_, taken)| *taken);
        let sum = own.fold(taken, |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2, a.3 + b.3));
        let slot = sum.0 <= capacity.slots
            && sum.1 <= capacity.cpu_millis
            && sum.2 <= capacity.memory_bytes;
        match demand.takes {
            Takes::Slot => slot,
            Takes::Connection => sum.3 <= FETCHES_MAX,
        }
    }

    /// Whether something that waits could begin somewhere now.
    fn could_begin(&self, demand: &Demand) -> bool {
        self.workers.iter().any(|(worker, capacity)| {
            let runs = capacity.platforms.contains(&demand.platform);
            let can = runs || demand.takes == Takes::Connection;
            can && self.is_open(*worker) && self.has_room(*worker, demand)
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens: what is placed has room, nothing that could begin is left waiting without a
    /// reason, and nothing is lost.
    #[test]
    fn room_is_kept_and_used_and_nothing_is_lost(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
            world.place();
            for (work, demand) in &world.waiting {
                let why = world.farm.why(*work).expect("it waits");
                let better = matches!(why, Waiting::Inputs { .. } | Waiting::Native { .. });
                // A place is kept free for one of the work of about that size, which goes first.
                let is_plain = demand.cpu_millis == 0 && demand.memory == Memory::Share;
                let reserved = world.waiting.keys().any(|w| {
                    matches!(world.farm.why(*w), Some(Waiting::Room { .. }))
                });
                if is_plain && !better && !reserved {
                    prop_assert!(!world.could_begin(demand), "{work} waits: {why}");
                }
                prop_assert!(!why.to_string().is_empty());
            }
            let waiting = world.farm.placer.waiting(world.farm.now(), Millis(u64::MAX));
            prop_assert!(waiting.iter().map(|(w, _)| w.0).eq(world.waiting.keys().copied()));
        }
        // With one worker that can do all of it, all of it is done.
        for worker in 0..5 {
            let farm = &mut world.farm;
            farm.placer.worker_gone(farm.now(), &id(&name(worker)));
        }
        world.running.clear();
        world.workers.clear();
        world.cordoned.clear();
        let all = Capacity {
            platforms: vec![platform("linux/amd64"), platform("linux/arm64")],
            memory_bytes: 100 * GIB,
            cpu_millis: 10_000,
            ..capacity(2)
        };
        world.farm.worker(&name(9), all.clone());
        world.workers.insert(9, all);
        let mut rounds = 0;
        while !world.waiting.is_empty() {
            let waited = world.waiting.len();
            world.place();
            let idle = world.running.is_empty();
            let why = world.farm.placer.waiting(world.farm.now(), Millis(u64::MAX));
            prop_assert!(!idle || world.waiting.len() < waited, "{why:?}");
            for work in std::mem::take(&mut world.running).into_keys() {
                world.farm.ended(work);
            }
            rounds += 1;
            prop_assert!(rounds < 1000);
        }
        prop_assert!(world.farm.placer.is_empty());
    }

    /// The same things at the same time in any order lead to the same decisions.
    #[test]
    fn order_of_arrival_within_a_moment_does_not_matter(seed in any::<u64>()) {
        let mut world = World::new(seed);
        let mut workers: Vec<(String, Capacity)> =
            (0..8).map(|n| (name(n), world.random_capacity())).collect();
        let mut works: Vec<(u64, Demand)> = (1..60).map(|n| (n, world.random_demand())).collect();
        let mut holds: Vec<(u64, u8)> =
            (0..10).map(|_| (world.chance.below(8), world.chance.below(6) as u8)).collect();
        // A build has one priority.
        works.iter_mut().for_each(|(_, demand)| demand.flow.priority = 0);
        let mut decided = Vec::new();
        for _ in 0..4 {
            let mut farm = Farm::new();
            workers.iter().for_each(|(name, capacity)| farm.worker(name, capacity.clone()));
            holds.iter().for_each(|(w, n)| farm.placer.holds(&id(&name(*w)), input(*n, 0).id));
            works.iter().for_each(|(work, demand)| farm.ready(*work, demand.clone()));
            let mut all = farm.place();
            // Ends in an order that depends on nothing but the work.
            for round in 0..20 {
                let mut running: Vec<u64> = all.iter().map(|(work, _)| *work).collect();
                running.retain(|w| farm.placer.assigned(WorkId(*w)).is_some());
                running.sort_unstable();
                farm.now += 700;
                running.iter().step_by(2).for_each(|work| farm.ended(*work));
                all.extend(farm.place());
                all.push((round, String::new()));
            }
            decided.push(all);
            world.chance.shuffle(&mut workers);
            world.chance.shuffle(&mut works);
            world.chance.shuffle(&mut holds);
        }
        for other in &decided {
            let differs = other.iter().zip(&decided[0]).position(|(a, b)| a != b);
            prop_assert_eq!(differs.map(|at| (&other[..=at], &decided[0][at])), None);
        }
    }
}
