//! Builds on simulated workers, with a clock of their own: how long they take beside the least that
//! they could take. Everything follows from the seeds.

use coordinator::core::WorkId;
use coordinator::core::place::{Demand, Expected, Flow, Input, InputId, Memory, Placer, Takes};
use proto::id::{BuildId, Millis, RootId, TreeId, WorkerId};
use proto::platform::Platform;
use proto::wire::worker::{Capacity, Fetched, Pressure};
use std::collections::BTreeSet;

/// Bytes that a worker gets in a millisecond: what the placer takes for granted.
const BYTES_PER_MS: u64 = 100_000;

/// A small generator (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A step: how long it takes, what it needs, and how many bytes it makes.
#[derive(Clone, Default)]
struct Step {
    build: u64,
    ms: u64,
    needs: Vec<usize>,
    bytes: u64,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Result {
    ms: u64,
    moved: u64,
    /// Where each step ran.
    places: Vec<usize>,
}

/// Steps on workers of so many slots.
struct Simulation {
    steps: Vec<Step>,
    placer: Placer,
    slots: Vec<u32>,
    now: u64,
    done: BTreeSet<usize>,
    /// What ends when.
    ends: BTreeSet<(u64, usize)>,
    places: Vec<usize>,
    has: BTreeSet<(usize, usize)>,
    moved: u64,
    paths: Vec<u64>,
}

fn worker(n: usize) -> WorkerId {
    WorkerId::parse(&format!("w{n}")).expect("a worker id")
}

fn input(step: usize, bytes: u64) -> Input {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(step as u64).to_le_bytes());
    Input { id: InputId::tree(&RootId(TreeId::from_bytes(id))), bytes }
}

fn capacity(slots: u32) -> Capacity {
    Capacity {
        platforms: vec![Platform::host()],
        slots,
        cpu_millis: slots * 1000,
        memory_bytes: u64::from(slots) << 32,
        disk_free_bytes: 1 << 40,
        pressure: Pressure::default(),
        takes_work: true,
        is_alone: false,
        fetched: Fetched::default(),
    }
}

impl Simulation {
    fn new(steps: Vec<Step>, slots: &[u32]) -> Self {
        let mut paths: Vec<u64> = vec![0; steps.len()];
        for at in (0..steps.len()).rev() {
            paths[at] += steps[at].ms;
            for need in &steps[at].needs {
                paths[*need] = paths[*need].max(paths[at]);
            }
        }
        let mut placer = Placer::new();
        for (n, slots) in slots.iter().enumerate() {
            placer.worker(&worker(n), capacity(*slots));
        }
        Self {
            places: vec![0; steps.len()],
            steps,
            placer,
            slots: slots.to_vec(),
            now: 0,
            done: BTreeSet::new(),
            ends: BTreeSet::new(),
            has: BTreeSet::new(),
            moved: 0,
            paths,
        }
    }

    fn is_ready(&self, step: usize) -> bool {
        self.steps[step].needs.iter().all(|need| self.done.contains(need))
    }

    fn ready(&mut self, at: usize) {
        let step = &self.steps[at];
        let demand = Demand {
            flow: Flow {
                project: "p".into(),
                user: "u".into(),
                build: BuildId::parse(&format!("b{}", step.build)).expect("a build id"),
                priority: 0,
            },
            takes: Takes::Slot,
            platform: Platform::host(),
            cpu_millis: 0,
            memory: Memory::Share,
            path_ms: self.paths[at],
            expected: Expected { wall_ms: step.ms, deviation_ms: 0 },
            inputs: step.needs.iter().map(|need| input(*need, self.steps[*need].bytes)).collect(),
        };
        self.placer.ready(Millis(self.now), WorkId(at as u64), &demand);
    }

    fn place(&mut self) {
        while let Some((work, to)) = self.placer.next(Millis(self.now)) {
            let at = work.0 as usize;
            let to: usize = to.as_str()[1..].parse().expect("a number");
            let lacks = |need: &&usize| !self.has.contains(&(to, **need));
            let needs = self.steps[at].needs.clone();
            let bytes: u64 = needs.iter().filter(lacks).map(|need| self.steps[*need].bytes).sum();
            self.has.extend(needs.iter().map(|need| (to, *need)));
            self.moved += bytes;
            self.places[at] = to;
            self.ends.insert((self.now + bytes / BYTES_PER_MS + self.steps[at].ms, at));
        }
    }

    fn end(&mut self, at: usize) {
        self.placer.ended(Millis(self.now), WorkId(at as u64));
        self.done.insert(at);
        let own = (self.places[at], at);
        self.has.insert(own);
        self.placer.holds(&worker(own.0), input(at, 0).id);
        let next = (at + 1..self.steps.len()).filter(|n| self.steps[*n].needs.contains(&at));
        for step in next.filter(|step| self.is_ready(*step)).collect::<Vec<_>>() {
            self.ready(step);
        }
    }

    fn run(mut self) -> Result {
        let ready: Vec<usize> = (0..self.steps.len()).filter(|at| self.is_ready(*at)).collect();
        ready.into_iter().for_each(|at| self.ready(at));
        loop {
            self.place();
            let broken = self.placer.broken_invariants();
            assert!(broken.is_empty(), "{broken:#?}");
            let timeout = self.placer.next_timeout().map(|t| t.0);
            match self.ends.first().copied() {
                Some((at, _)) if timeout.is_some_and(|t| t < at) => {
                    self.now = timeout.expect("just seen");
                }
                Some((at, step)) => {
                    self.now = at;
                    self.ends.remove(&(at, step));
                    self.end(step);
                }
                None => break,
            }
        }
        assert_eq!(self.done.len(), self.steps.len(), "all steps are done");
        Result { ms: self.now, moved: self.moved, places: self.places }
    }

    /// No schedule takes less: not less than the longest path, and not less than all work on all
    /// slots.
    fn lower_bound(&self) -> u64 {
        let slots: u64 = self.slots.iter().map(|slots| u64::from(*slots)).sum();
        let work: u64 = self.steps.iter().map(|step| step.ms).sum();
        self.longest_path().max(work.div_ceil(slots))
    }

    fn longest_path(&self) -> u64 {
        self.paths.iter().copied().max().unwrap_or(0)
    }
}

/// Stages of several builds: chains of steps that begin with an image or with an earlier stage, and
/// take files of others.
fn random_builds(seed: u64, bytes: u64) -> Vec<Step> {
    let mut chance = Chance(seed);
    let mut steps: Vec<Step> = Vec::new();
    for build in 0..1 + chance.below(4) {
        let first = steps.len();
        for _ in 0..2 + chance.below(8) {
            let base = match chance.below(3) {
                0 if steps.len() > first => {
                    vec![first + chance.below((steps.len() - first) as u64) as usize]
                }
                _ => Vec::new(),
            };
            let mut needs = base;
            for _ in 0..1 + chance.below(6) {
                if steps.len() > first && chance.below(4) == 0 {
                    needs.push(first + chance.below((steps.len() - first) as u64) as usize);
                }
                let (ms, bytes) = (100 + chance.below(10_000), chance.below(bytes + 1));
                steps.push(Step { build, ms, needs, bytes });
                needs = vec![steps.len() - 1];
            }
        }
    }
    steps
}

#[test]
fn independent_steps_get_as_much_faster_as_there_are_workers() {
    for workers in [1, 2, 4, 8, 16] {
        let steps = vec![Step { ms: 1000, ..Step::default() }; 16];
        let simulation = Simulation::new(steps, &vec![1; workers]);
        let least = simulation.lower_bound();
        let result = simulation.run();
        assert_eq!(result.ms, 16_000 / workers as u64, "{workers} workers");
        assert_eq!(result.ms, least);
    }
}

#[test]
fn the_critical_path_is_not_kept_waiting() {
    // A chain of ten steps of 2 s among sixty steps of 1 s that nothing waits for, on four slots:
    // whoever lets the chain wait for a moment takes longer than 20 s.
    let (mut steps, mut last) = (Vec::new(), None);
    for n in 0..60 {
        steps.push(Step { ms: 1000, ..Step::default() });
        if n % 6 == 5 {
            steps.push(Step { ms: 2000, needs: last.into_iter().collect(), ..Step::default() });
            last = Some(steps.len() - 1);
        }
    }
    let simulation = Simulation::new(steps, &[2, 2]);
    let (path, least) = (simulation.longest_path(), simulation.lower_bound());
    assert_eq!((path, least), (20_000, 20_000));
    assert_eq!(simulation.run().ms, least);
}

#[test]
fn chains_stay_where_they_began_when_moving_is_dear() {
    // Four chains of eight, each step with 1 GB for the next one: ten seconds to move.
    let mut steps: Vec<Step> = Vec::new();
    for chain in 0..4 {
        for n in 0..8 {
            let needs = if n == 0 { vec![] } else { vec![steps.len() - 1] };
            steps.push(Step { build: chain, ms: 3000, needs, bytes: 1_000_000_000 });
        }
    }
    let result = Simulation::new(steps, &[1; 4]).run();
    assert_eq!((result.ms, result.moved), (24_000, 0));
    for chain in result.places.chunks(8) {
        assert!(chain.iter().all(|place| place == &chain[0]), "{:?}", result.places);
    }
}

#[test]
fn stages_spread_when_moving_is_cheap() {
    // Eight stages on one base that takes half a second to move: seven workers get it.
    let mut steps = vec![Step { ms: 1000, bytes: 50_000_000, ..Step::default() }];
    let stage = Step { ms: 10_000, needs: vec![0], ..Step::default() };
    steps.extend(vec![stage; 8]);
    let result = Simulation::new(steps, &[1; 8]).run();
    assert_eq!((result.ms, result.moved), (11_500, 7 * 50_000_000));
}

/// What nothing has to be moved for is done in the time that Graham's bound allows ("Bounds on
/// multiprocessing timing anomalies", 1969): nobody is idle while something could begin. On average
/// it is close to the least.
#[test]
fn builds_take_little_more_than_the_least_time() {
    let (mut took, mut least) = (0, 0);
    for seed in 0..200 {
        let slots: &[u32] = [&[1, 1, 1][..], &[2, 2], &[4, 1, 1], &[8]][seed as usize % 4];
        let simulation = Simulation::new(random_builds(seed, 0), slots);
        let (path, lower) = (simulation.longest_path(), simulation.lower_bound());
        let work: u64 = simulation.steps.iter().map(|step| step.ms).sum();
        let count: u64 = slots.iter().map(|slots| u64::from(*slots)).sum();
        let graham = work / count + path - path / count + 1;
        let result = simulation.run();
        assert!(result.ms <= graham, "seed {seed}: {} ms, at most {graham}", result.ms);
        took += result.ms;
        least += lower;
    }
    assert!(took * 100 <= least * 105, "{took} ms in all; at least {least}");
}

/// With layers to move, the farm is still close to what it would be if moving took no time, and
/// moves far less than if work went anywhere.
#[test]
fn layers_are_moved_only_where_it_pays() {
    let (mut took, mut least, mut moved, mut needed) = (0, 0, 0, 0);
    for seed in 0..200 {
        let simulation = Simulation::new(random_builds(seed, 400_000_000), &[2, 2, 2, 2]);
        least += simulation.lower_bound();
        let bytes = |step: &Step| -> u64 {
            step.needs.iter().map(|need| simulation.steps[*need].bytes).sum()
        };
        needed += simulation.steps.iter().map(bytes).sum::<u64>();
        let result = simulation.run();
        took += result.ms;
        moved += result.moved;
    }
    assert!(took * 100 <= least * 115, "{took} ms in all; {least} if moving took no time");
    assert!(moved * 4 <= needed, "{moved} bytes were moved, of {needed}");
}

#[test]
fn a_simulation_is_the_same_again() {
    let run = || Simulation::new(random_builds(7, 400_000_000), &[2, 1, 1]).run();
    assert_eq!(run(), run());
}
