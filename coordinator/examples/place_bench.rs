//! How fast work is placed, and what a piece of work weighs, in a large farm.
//!
//! ```text
//! cargo run --release -p coordinator --example place_bench [WORKERS [STEPS [BUILDS]]]
//! ```
//!
//! Without a number of builds it is measured with 1, 100 and 10,000, each in a process of its own.
//! All steps are ready at once. A decision is one step placed and, later, ended: the workers are
//! filled, then each step that ends makes room for the next one, until all are done. Time is
//! virtual; steps take 1 to 60 s. Each step has a base image that many workers come to have, the
//! layer of its stage, and one of its own. Seconds are those of the processor, so that it does not
//! matter what else runs.

use coordinator::core::WorkId;
use coordinator::core::place::{Demand, Expected, Flow, Input, InputId, Memory, Placer, Takes};
use proto::id::{BuildId, Millis, RootId, TreeId, WorkerId};
use proto::platform::Platform;
use proto::wire::worker::{Capacity, Fetched, Pressure};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLOTS: u32 = 8;
const IMAGES: u64 = 50;
const STEPS_PER_STAGE: u64 = 20;
const TOOK_MS_MAX: u64 = 60_000;

fn main() {
    let numbers: Vec<u64> =
        std::env::args().skip(1).map(|n| n.parse().expect("a number")).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (workers, steps) = (number(0, 10_000), number(1, 1_000_000));
    if let Some(builds) = numbers.get(2) {
        return report(workers, steps, *builds);
    }
    println!("{workers} workers of {SLOTS} slots, {steps} steps");
    for builds in [1, 100, 10_000] {
        let program = std::env::current_exe().expect("this program");
        let all = [workers, steps, builds].map(|n| n.to_string());
        let status = std::process::Command::new(program).args(all).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

fn report(workers: u64, steps: u64, builds: u64) {
    let figures = measure(workers, steps, builds);
    let per_second = |time: Duration| steps as f64 / time.as_secs_f64();
    println!(
        "{builds:6} builds: {:8.0} decisions/s, {:8.0} steps/s become ready, {:4} bytes/step",
        per_second(figures.placing),
        per_second(figures.readying),
        figures.bytes / steps,
    );
}

struct Figures {
    readying: Duration,
    placing: Duration,
    bytes: u64,
}

fn measure(workers: u64, steps: u64, builds: u64) -> Figures {
    let mut placer = Placer::new();
    let mut now = Millis(1_000_000);
    for n in 0..workers {
        let id = WorkerId::parse(&format!("w{n}")).expect("a worker id");
        placer.worker(&id, capacity());
    }
    let before = resident();
    let mut readying = Duration::ZERO;
    for at in (0..steps).step_by(1000) {
        let some: Vec<Demand> = (at..steps.min(at + 1000)).map(|n| demand(n, builds)).collect();
        let start = processor_time();
        for (n, demand) in (at..).zip(&some) {
            placer.ready(now, WorkId(n), demand);
        }
        readying += processor_time() - start;
    }
    let bytes = resident().saturating_sub(before);

    // What ends in each of the next milliseconds.
    let mut ends: Vec<Vec<WorkId>> = vec![Vec::new(); TOOK_MS_MAX as usize + 1];
    let slot = |at: u64| (at % (TOOK_MS_MAX + 1)) as usize;
    let (mut placed, mut ended) = (0, 0);
    let start = processor_time();
    while ended < steps {
        for work in std::mem::take(&mut ends[slot(now.0)]) {
            placer.ended(now, work);
            ended += 1;
            while let Some((work, _)) = placer.next(now) {
                ends[slot(now.0 + took_ms(work.0))].push(work);
                placed += 1;
            }
        }
        while let Some((work, _)) = placer.next(now) {
            ends[slot(now.0 + took_ms(work.0))].push(work);
            placed += 1;
        }
        now.0 += 1;
    }
    assert_eq!(placed, steps, "all steps are placed");
    Figures { readying, placing: processor_time() - start, bytes }
}

fn capacity() -> Capacity {
    Capacity {
        platforms: vec![Platform::parse("linux/amd64").expect("a platform")],
        slots: SLOTS,
        cpu_millis: SLOTS * 1000,
        memory_bytes: u64::from(SLOTS) << 32,
        disk_free_bytes: 1 << 40,
        pressure: Pressure::default(),
        takes_work: true,
        is_alone: false,
        fetched: Fetched::default(),
    }
}

fn demand(n: u64, builds: u64) -> Demand {
    let build = n % builds;
    let stage = n / builds / STEPS_PER_STAGE * builds + build;
    let input = |kind: u64, n: u64, bytes| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&scatter(n * 3 + kind).to_be_bytes());
        Input { id: InputId::tree(&RootId(TreeId::from_bytes(id))), bytes }
    };
    Demand {
        flow: Flow {
            project: format!("project {}", build % 100).into(),
            user: format!("user {}", build % 1000).into(),
            build: BuildId::parse(&format!("b{build}")).expect("a build id"),
            priority: (build % 3) as u8,
        },
        takes: Takes::Slot,
        platform: Platform::parse("linux/amd64").expect("a platform"),
        cpu_millis: 0,
        memory: Memory::Share,
        path_ms: scatter(n) % 600_000,
        expected: Expected { wall_ms: took_ms(n), deviation_ms: 1000 },
        inputs: vec![
            input(0, stage % IMAGES, 300 << 20),
            input(1, stage, 50 << 20),
            input(2, n, 5 << 20),
        ],
    }
}

fn took_ms(n: u64) -> u64 {
    1000 + scatter(n ^ 0x5555) % (TOOK_MS_MAX - 1000)
}

/// A number that looks like chance (SplitMix64).
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How long this thread had a processor (Documentation/scheduler/sched-stats.rst).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("Linux with schedstat");
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kilobytes << 10
}
