//! Why work waits.

use super::farm::*;
use crate::core::WorkId;
use crate::core::place::*;
use proto::id::Millis;
use proto::wire::worker::Capacity;

#[test]
fn no_worker_is_there() {
    let mut farm = Farm::new();
    farm.ready(1, plain());
    assert_eq!(farm.place(), []);
    assert_eq!(farm.why(1), Some(Waiting::NoWorker));
    assert_eq!(farm.why(2), None, "nobody knows it");
}

#[test]
fn no_worker_runs_the_platform() {
    let mut farm = Farm::of(&[("a", 1), ("b", 1)]);
    farm.ready(1, Demand { platform: platform("linux/riscv64"), ..plain() });
    assert_eq!(farm.place(), []);
    let platform = platform("linux/riscv64");
    assert_eq!(farm.why(1), Some(Waiting::NoPlatform { platform, workers: 2 }));
}

#[test]
fn none_has_both() {
    let mut farm = Farm::new();
    farm.worker("processors", Capacity { cpu_millis: 16_000, ..capacity(1) });
    farm.worker("memory", Capacity { memory_bytes: 64 * GIB, ..capacity(1) });
    let (cpu_millis, memory) = (8000, Memory::Asked(32 * GIB));
    farm.ready(1, Demand { cpu_millis, memory, ..plain() });
    assert_eq!(farm.place(), []);
    let largest = Amount::Memory(4 * GIB);
    let too_large = Waiting::TooLarge { needs: Amount::Memory(32 * GIB), largest };
    assert_eq!(farm.why(1), Some(too_large), "of those with eight processors");
    farm.ready(2, Demand { cpu_millis: 32_000, ..plain() });
    assert_eq!(farm.place(), []);
    let (needs, largest) = (Amount::Cpu(32_000), Amount::Cpu(16_000));
    assert_eq!(farm.why(2), Some(Waiting::TooLarge { needs, largest }));
}

#[test]
fn all_are_busy() {
    let mut farm = Farm::of(&[("a", 1), ("b", 1)]);
    (1..=5).for_each(|n| farm.ready(n, plain()));
    assert_eq!(farm.works(), [1, 2]);
    assert_eq!(farm.why(1), None, "it runs");
    farm.now += 400;
    assert_eq!(farm.why(3), Some(Waiting::Busy { workers: 2, before: 0, in_ms: 600 }));
    assert_eq!(farm.why(5), Some(Waiting::Busy { workers: 2, before: 2, in_ms: 1600 }));
}

#[test]
fn a_project_has_its_share() {
    let mut farm = Farm::of(&[("a", 4)]);
    (1..=6).for_each(|n| farm.ready(n, run("greedy", "u", "b1")));
    assert_eq!(farm.works(), [1, 2, 3, 4]);
    farm.ready(10, run("late", "u", "b2"));
    let share = farm.why(6).expect("it waits");
    let whose = "Project greedy".to_owned();
    assert!(
        matches!(&share, Waiting::Share { whose: w, slots: 4, .. } if *w == whose),
        "{share:?}"
    );
    assert!(matches!(farm.why(10), Some(Waiting::Busy { before: 0, .. })));
}

#[test]
fn a_user_has_its_share_of_a_project() {
    let mut farm = Farm::of(&[("a", 4)]);
    (1..=6).for_each(|n| farm.ready(n, run("p", "greedy", "b1")));
    assert_eq!(farm.works(), [1, 2, 3, 4]);
    farm.ready(10, run("p", "late", "b2"));
    let share = farm.why(6).expect("it waits").to_string();
    assert!(share.starts_with("User greedy of project p has its share"), "{share}");
}

#[test]
fn a_worker_is_kept_free() {
    let mut farm = Farm::of(&[("a", 2)]);
    farm.ready(0, plain());
    assert_eq!(farm.works(), [0]);
    farm.ready(1, Demand { cpu_millis: 2000, ..run("q", "u", "large") });
    let mut before = 0;
    while !matches!(farm.why(1), Some(Waiting::Room { .. })) {
        before += 1;
        assert!(before < 200, "{:?}", farm.why(1));
        farm.ready(before + 1, plain());
        farm.now += 100;
        let running = farm.works();
        running.into_iter().for_each(|work| farm.ended(work));
    }
    assert_eq!(before, u64::from(BYPASS_MAX));
    let (worker, in_ms) = (id("a"), 0);
    let why = farm.why(1);
    assert!(matches!(&why, Some(Waiting::Room { worker: w, .. }) if *w == worker), "{why:?}");
    farm.ready(1000, plain());
    assert_eq!(farm.place(), [], "nothing passes any more");
    farm.ended(0);
    assert_eq!(farm.place(), placed(&[(1, "a")]), "in {in_ms} ms");
    farm.ended(1);
    assert_eq!(farm.works(), [1000]);
}

/// What is kept free for the first of a class is not kept from others for ever when somebody larger
/// gets before it.
#[test]
fn a_worker_is_kept_free_for_whoever_goes_first() {
    let mut farm = Farm::of(&[("small", 4), ("large", 5)]);
    farm.placer.cordon(&id("large"), true);
    farm.ready(0, plain());
    assert_eq!(farm.works(), [0]);
    let asks = |gib| Demand { memory: Memory::Asked(gib * GIB), ..run("q", "u", "b1") };
    farm.ready(1, asks(16));
    let mut work = 100;
    while !matches!(farm.why(1), Some(Waiting::Room { .. })) {
        work += 1;
        farm.ready(work, plain());
        farm.now += 100;
        let running = farm.works();
        running.into_iter().for_each(|work| farm.ended(work));
        assert!(work < 300, "{:?}", farm.why(1));
    }
    // The only worker that is larger is busy.
    for busy in [50, 51] {
        farm.placer.adopt(farm.now(), WorkId(busy), &plain(), &id("large"));
    }
    farm.placer.cordon(&id("large"), false);
    assert_eq!(farm.place(), []);
    // Of the same class and build, with a longer path, and too large for what is kept free.
    farm.ready(2, Demand { path_ms: 9000, ..asks(18) });
    farm.ended(0);
    assert_eq!(farm.place(), [], "it goes first");
    farm.ready(52, Demand { memory: Memory::Asked(14 * GIB), ..plain() });
    assert_eq!(farm.place(), placed(&[(52, "small")]), "nothing is kept free there any more");
    [50, 51].into_iter().for_each(|work| farm.ended(work));
    assert_eq!(farm.place(), placed(&[(2, "large")]));
    farm.ended(52);
    assert_eq!(farm.place(), placed(&[(1, "small")]));
}

#[test]
fn all_that_wait_are_told_once() {
    let mut farm = Farm::of(&[("a", 1)]);
    (1..=3).for_each(|n| farm.ready(n, plain()));
    farm.ready(4, Demand { platform: platform("linux/s390x"), ..plain() });
    assert_eq!(farm.works(), [1]);
    farm.now += 500;
    farm.ready(5, plain());
    farm.now += 500;
    let since = |ms: u64| {
        let waiting = farm.placer.waiting(farm.now(), Millis(farm.now - ms));
        waiting.into_iter().map(|(work, why)| (work.0, why)).collect::<Vec<_>>()
    };
    let works: Vec<u64> = since(1000).into_iter().map(|(work, _)| work).collect();
    assert_eq!(works, [2, 3, 4]);
    for (work, why) in since(0) {
        assert_eq!(Some(why), farm.why(work), "{work}");
    }
}
