//! Where work goes: an example for each rule.

use super::farm::*;
use crate::core::WorkId;
use crate::core::place::*;
use proto::id::Millis;
use proto::wire::worker::{Capacity, Fetched, Pressure};

fn with(change: impl FnOnce(&mut Demand)) -> Demand {
    let mut demand = plain();
    change(&mut demand);
    demand
}

#[test]
fn the_longest_path_goes_first_then_the_oldest() {
    let mut farm = Farm::of(&[("a", 1)]);
    farm.ready(1, with(|d| d.path_ms = 1000));
    farm.ready(3, with(|d| d.path_ms = 5000));
    farm.ready(2, with(|d| d.path_ms = 5000));
    for expected in [2, 3, 1] {
        assert_eq!(farm.works(), [expected]);
        farm.ended(expected);
    }
}

#[test]
fn the_emptiest_worker_gets_it() {
    let mut farm = Farm::of(&[("a", 1), ("b", 3)]);
    (1..=4).for_each(|n| farm.ready(n, plain()));
    let got: Vec<String> = farm.place().into_iter().map(|(_, w)| w).collect();
    assert_eq!(got[..2], ["b", "b"], "three are free, then two");
    assert_eq!(got.iter().filter(|w| *w == "a").count(), 1);
}

#[test]
fn work_stays_where_its_inputs_are() {
    let mut farm = Farm::of(&[("a", 4), ("b", 1)]);
    farm.placer.holds(&id("b"), input(1, 0).id);
    farm.ready(1, with(|d| d.inputs = vec![input(1, GIB)]));
    assert_eq!(farm.place(), placed(&[(1, "b")]));
    farm.ended(1);
    farm.placer.lost(&id("b"), input(1, 0).id);
    farm.ready(2, with(|d| d.inputs = vec![input(1, GIB)]));
    assert_eq!(farm.place(), placed(&[(2, "a")]), "it is not there any more");
    farm.ended(2);
    farm.ready(3, with(|d| d.inputs = vec![input(1, GIB)]));
    farm.worker("c", capacity(8));
    assert_eq!(farm.place(), placed(&[(3, "a")]), "what was needed there stays there");
}

#[test]
fn who_has_more_of_the_inputs_is_nearer() {
    let mut farm = Farm::of(&[("a", 1), ("b", 1)]);
    farm.placer.holds(&id("a"), input(1, 0).id);
    farm.placer.holds(&id("b"), input(2, 0).id);
    farm.ready(1, with(|d| d.inputs = vec![input(1, GIB), input(2, 2 * GIB)]));
    assert_eq!(farm.place(), placed(&[(1, "b")]));
}

#[test]
fn a_worker_that_is_reached_faster_is_nearer() {
    let mut farm = Farm::of(&[("a", 1), ("b", 1)]);
    let mut fast = capacity(1);
    fast.fetched = Fetched { bytes: 10 * GIB, ms: 1000 };
    for name in ["a", "b"] {
        let mut farm_worker = Farm::of(&[("a", 1), ("b", 1)]);
        farm_worker.worker(name, fast.clone());
        farm_worker.ready(1, with(|d| d.inputs = vec![input(1, GIB)]));
        assert_eq!(farm_worker.place(), placed(&[(1, name)]));
    }
    // What was measured before it was known tells nothing.
    farm.worker("c", fast);
    let slow = Fetched { bytes: 11 * GIB, ms: 1_000_000 };
    farm.worker("c", Capacity { fetched: slow, ..capacity(1) });
    farm.ready(1, with(|d| d.inputs = vec![input(1, GIB)]));
    assert_ne!(farm.place()[0].1, "c");
}

/// Worker `a` has an input of 1 GiB, which takes ten seconds to move, and is busy for as long as is
/// said; worker `b` is idle.
fn holder_busy_for(ms: u64) -> Farm {
    let mut farm = Farm::of(&[("a", 1)]);
    farm.placer.holds(&id("a"), input(1, 0).id);
    farm.ready(1, with(|d| d.expected.wall_ms = ms));
    assert_eq!(farm.works(), [1]);
    farm.worker("b", capacity(1));
    farm.ready(2, with(|d| d.inputs = vec![input(1, GIB)]));
    farm
}

#[test]
fn waiting_for_the_inputs_holder_is_chosen_when_moving_takes_longer() {
    let mut farm = holder_busy_for(4000);
    assert_eq!(farm.place(), []);
    let why = farm.why(2).expect("it waits");
    assert_eq!(why, Waiting::Inputs { worker: id("a"), in_ms: 4000, moving_ms: 10_737 });
    farm.now += 2000;
    farm.ended(1);
    assert_eq!(farm.place(), placed(&[(2, "a")]));
    assert_eq!(farm.placer.next_timeout(), None);
}

#[test]
fn moving_is_chosen_when_waiting_takes_longer() {
    let mut farm = holder_busy_for(40_000);
    assert_eq!(farm.place(), placed(&[(2, "b")]));
}

#[test]
fn waiting_ends_at_the_expected_time() {
    let mut farm = holder_busy_for(4000);
    assert_eq!(farm.place(), []);
    assert_eq!(farm.placer.next_timeout(), Some(Millis(farm.now + 4000)));
    farm.now += 3999;
    assert_eq!(farm.place(), []);
    farm.now += 1;
    assert_eq!(farm.place(), placed(&[(2, "b")]), "it moves, and does not wait a second time");
}

#[test]
fn nobody_waits_for_a_worker_that_takes_nothing() {
    for what in 0..3 {
        let mut farm = holder_busy_for(4000);
        assert_eq!(farm.place(), []);
        match what {
            0 => drop(farm.placer.worker_gone(farm.now(), &id("a"))),
            1 => farm.placer.cordon(&id("a"), true),
            _ => farm.worker("a", Capacity { takes_work: false, ..capacity(1) }),
        }
        assert_eq!(farm.place(), placed(&[(2, "b")]));
    }
}

#[test]
fn no_more_wait_for_a_worker_than_it_has_slots() {
    let mut farm = holder_busy_for(4000);
    farm.ready(3, with(|d| d.inputs = vec![input(1, GIB)]));
    assert_eq!(farm.place(), placed(&[(3, "b")]));
}

#[test]
fn an_emulator_is_used_when_waiting_takes_longer() {
    let arm = |n: u64| {
        let mut demand = with(|d| d.platform = platform("linux/arm64"));
        demand.expected.wall_ms = n;
        demand
    };
    let mut farm = Farm::new();
    let platforms = vec![platform("linux/amd64"), platform("linux/arm64")];
    farm.worker("emulates", Capacity { platforms, ..capacity(4) });
    let platforms = vec![platform("linux/arm64")];
    farm.worker("native", Capacity { platforms, ..capacity(1) });
    farm.ready(1, arm(60_000));
    assert_eq!(farm.place(), placed(&[(1, "native")]));
    // One second becomes five: that is sooner than in a minute.
    farm.ready(2, arm(1000));
    assert_eq!(farm.place(), placed(&[(2, "emulates")]));
    assert!(farm.placer.is_emulated(WorkId(2)) && !farm.placer.is_emulated(WorkId(1)));
    // One minute becomes five: waiting for a minute is better.
    farm.ready(3, arm(60_000));
    assert_eq!(farm.place(), []);
    let native = Waiting::Native { platform: platform("linux/arm64"), in_ms: 60_000 };
    assert_eq!(farm.why(3), Some(native));
    farm.now += 30_000;
    farm.ended(1);
    assert_eq!(farm.place(), placed(&[(3, "native")]));
    // But not for longer than that.
    farm.ready(4, arm(60_000));
    assert_eq!(farm.place(), []);
    farm.now += 60_000;
    assert_eq!(farm.place(), placed(&[(4, "emulates")]));
}

#[test]
fn a_platform_that_the_own_one_runs_needs_no_emulator() {
    let mut farm = Farm::new();
    let platforms = vec![platform("linux/amd64"), platform("linux/386")];
    farm.worker("a", Capacity { platforms, ..capacity(1) });
    let platforms = vec![platform("linux/arm64"), platform("linux/386")];
    farm.worker("b", Capacity { platforms, ..capacity(8) });
    farm.ready(1, with(|d| d.platform = platform("linux/386")));
    assert_eq!(farm.place(), placed(&[(1, "a")]));
}

#[test]
fn fetches_take_no_slot_and_go_anywhere() {
    let fetch = |text| {
        with(|d| {
            d.takes = Takes::Connection;
            d.platform = platform(text);
        })
    };
    let mut farm = Farm::of(&[("a", 1)]);
    farm.ready(1, plain());
    assert_eq!(farm.works(), [1]);
    let all: Vec<u64> = (2..10).collect();
    all.iter().for_each(|n| farm.ready(*n, fetch("linux/arm64")));
    assert_eq!(farm.works(), all[..FETCHES_MAX as usize]);
    farm.ended(2);
    assert_eq!(farm.works(), [8]);
    // Where its platform is native there is who needs it.
    farm.worker("b", Capacity { platforms: vec![platform("linux/arm64")], ..capacity(1) });
    farm.ready(20, fetch("linux/arm64"));
    let places = farm.place();
    assert_eq!(places, placed(&[(9, "b"), (20, "b")]));
}

#[test]
fn processors_and_memory_are_not_given_away_twice() {
    let mut farm = Farm::of(&[("a", 4)]);
    farm.ready(1, with(|d| d.cpu_millis = 3000));
    farm.ready(2, plain());
    farm.ready(3, plain());
    assert_eq!(farm.works(), [1, 2], "three processors and one");
    farm.ended(1);
    farm.ready(4, with(|d| d.memory = Memory::Asked(8 * GIB)));
    farm.ready(5, plain());
    assert_eq!(farm.works(), [3, 4], "4, 4 and 8 GiB");
}

#[test]
fn a_larger_worker_is_found_among_many() {
    let mut farm = Farm::new();
    (0..40).for_each(|n| farm.worker(&format!("w{n}"), capacity(4)));
    let large = Capacity { slots: 1, memory_bytes: 64 * GIB, ..capacity(4) };
    farm.worker("large", large);
    farm.ready(1, with(|d| d.memory = Memory::Asked(32 * GIB)));
    assert_eq!(farm.place(), placed(&[(1, "large")]));
    // And again when something else has changed meanwhile.
    farm.ended(1);
    farm.worker("w99", capacity(4));
    farm.ready(2, with(|d| d.memory = Memory::Asked(32 * GIB)));
    assert_eq!(farm.place(), placed(&[(2, "large")]));
}

#[test]
fn what_was_used_before_is_a_guess() {
    let mut farm = Farm::of(&[("a", 4)]);
    // 4 GiB are a slot's share, but this uses 1 GiB: eight of them would fit.
    farm.ready(1, with(|d| d.memory = Memory::Asked(13 * GIB)));
    (2..5).for_each(|n| farm.ready(n, with(|d| d.memory = Memory::Learnt(GIB))));
    assert_eq!(farm.works(), [1, 2, 3, 4]);
    (1..5).for_each(|n| farm.ended(n));
    // However much it is: two of them find room.
    (5..8).for_each(|n| farm.ready(n, with(|d| d.memory = Memory::Learnt(100 * GIB))));
    assert_eq!(farm.works(), [5, 6]);
}

#[test]
fn work_too_large_for_all_waits_for_a_larger_worker_and_stops_nobody() {
    let mut farm = Farm::of(&[("a", 4)]);
    farm.ready(1, with(|d| d.memory = Memory::Asked(17 * GIB)));
    // In the same band: it must not wait behind the first.
    farm.ready(2, with(|d| d.memory = Memory::Asked(16 * GIB)));
    assert_eq!(farm.works(), [2]);
    let largest = Amount::Memory(16 * GIB);
    let too_large = Waiting::TooLarge { needs: Amount::Memory(17 * GIB), largest };
    assert_eq!(farm.why(1), Some(too_large));
    farm.worker("b", capacity(8));
    assert_eq!(farm.place(), placed(&[(1, "b")]));
}

#[test]
fn a_worker_that_is_alone_takes_what_is_too_large_for_it() {
    let mut farm = Farm::new();
    farm.worker("a", Capacity { is_alone: true, ..capacity(2) });
    farm.ready(1, with(|d| d.memory = Memory::Asked(64 * GIB)));
    farm.ready(2, with(|d| d.cpu_millis = 64_000));
    farm.ready(3, plain());
    for work in [1, 2, 3] {
        assert_eq!(farm.works(), [work], "it has all there is for itself");
        farm.ended(work);
    }
    farm.worker("a", capacity(2));
    farm.ready(4, with(|d| d.cpu_millis = 64_000));
    assert_eq!(farm.works(), [0; 0], "it is not alone any more");
    farm.worker("a", Capacity { is_alone: true, ..capacity(2) });
    assert_eq!(farm.works(), [4]);
}

#[test]
fn a_worker_under_pressure_gets_no_more() {
    let mut farm = Farm::of(&[("a", 2)]);
    farm.ready(1, plain());
    farm.ready(2, plain());
    farm.works();
    farm.ended(1);
    for (memory, disk) in [(true, false), (false, true)] {
        let pressure = Pressure { memory, disk };
        farm.worker("a", Capacity { pressure, ..capacity(2) });
        farm.ready(3, plain());
        assert_eq!(farm.place(), []);
        assert_eq!(farm.why(3), Some(Waiting::Pressure { workers: 1, memory, disk }));
    }
    farm.worker("a", capacity(2));
    assert_eq!(farm.works(), [3]);
}

#[test]
fn cordoned_and_draining_workers_get_nothing_new() {
    let mut farm = Farm::of(&[("a", 1)]);
    farm.placer.cordon(&id("a"), true);
    for (work, path_ms) in [(1, 10), (2, 100_000), (3, 10_000)] {
        farm.ready(work, with(|d| d.path_ms = path_ms));
        assert_eq!(farm.place(), []);
        assert_eq!(farm.why(work), Some(Waiting::Cordoned { workers: 1 }));
    }
    farm.placer.cordon(&id("a"), false);
    for work in [2, 3, 1] {
        assert_eq!(farm.works(), [work]);
        farm.ended(work);
    }
    // Also when it comes back.
    farm.placer.cordon(&id("a"), true);
    farm.placer.worker_gone(farm.now(), &id("a"));
    farm.worker("a", capacity(1));
    farm.ready(9, plain());
    assert_eq!(farm.place(), []);
    farm.placer.withdraw(WorkId(9));
    farm.placer.cordon(&id("a"), false);
    farm.worker("a", Capacity { takes_work: false, ..capacity(2) });
    farm.ready(2, plain());
    assert_eq!(farm.place(), []);
    assert_eq!(farm.why(2), Some(Waiting::Cordoned { workers: 1 }));
}

#[test]
fn a_smaller_worker_keeps_what_it_has_and_gets_nothing_until_there_is_room() {
    let mut farm = Farm::of(&[("a", 3)]);
    (1..=4).for_each(|n| farm.ready(n, plain()));
    assert_eq!(farm.works(), [1, 2, 3]);
    farm.worker("a", capacity(1));
    farm.ended(1);
    farm.ended(2);
    assert_eq!(farm.place(), []);
    farm.ended(3);
    assert_eq!(farm.works(), [4]);
}

#[test]
fn the_work_of_a_lost_worker_is_told_and_can_be_placed_again() {
    let mut farm = Farm::of(&[("a", 2), ("b", 1)]);
    farm.placer.holds(&id("a"), input(1, 0).id);
    (1..=2).for_each(|n| farm.ready(n, with(|d| d.inputs = vec![input(1, GIB)])));
    assert_eq!(farm.place(), placed(&[(1, "a"), (2, "a")]));
    let lost = farm.placer.worker_gone(farm.now(), &id("a"));
    farm.check();
    assert_eq!(lost, [WorkId(1), WorkId(2)]);
    assert!(farm.placer.is_empty());
    farm.ready(1, plain());
    assert_eq!(farm.place(), placed(&[(1, "b")]));
    // It has what it had when it comes back.
    farm.worker("c", capacity(4));
    farm.worker("a", capacity(1));
    farm.ready(2, with(|d| d.inputs = vec![input(1, GIB)]));
    assert_eq!(farm.place(), placed(&[(2, "a")]));
}

#[test]
fn running_work_is_adopted() {
    let mut farm = Farm::of(&[("a", 1)]);
    assert!(!farm.placer.adopt(farm.now(), WorkId(1), &plain(), &id("b")), "nobody knows it");
    assert!(farm.placer.adopt(farm.now(), WorkId(1), &plain(), &id("a")));
    assert!(!farm.placer.adopt(farm.now(), WorkId(1), &plain(), &id("a")), "it is its already");
    farm.check();
    farm.ready(2, plain());
    assert_eq!(farm.place(), []);
    assert_eq!(farm.placer.assigned(WorkId(1)), Some(&id("a")));
    farm.ended(1);
    assert_eq!(farm.works(), [2]);
}

#[test]
fn the_newest_generation_of_a_cache_mount_is_at_one_worker() {
    let mut farm = Farm::of(&[("a", 1), ("b", 1), ("c", 1)]);
    let cache = InputId::cache_mount(&proto::id::Scope::trusted(), "go");
    let needs = || with(|d| d.inputs = vec![Input { id: cache, bytes: GIB }]);
    for (work, name) in [(1, "c"), (2, "b"), (3, "a")] {
        farm.placer.renewed(&id(name), cache);
        farm.ready(work, needs());
        assert_eq!(farm.place(), placed(&[(work, name)]));
        farm.ended(work);
    }
}

#[test]
fn a_new_demand_takes_the_place_of_the_old_one() {
    let mut farm = Farm::of(&[("a", 1)]);
    farm.ready(1, plain());
    farm.ready(2, plain());
    farm.ready(2, with(|d| d.path_ms = 9000));
    assert_eq!(farm.works(), [2]);
    farm.ready(2, plain());
    assert_eq!(farm.placer.assigned(WorkId(2)), Some(&id("a")), "nothing changes what runs");
    farm.placer.withdraw(WorkId(1));
    farm.check();
    farm.ended(2);
    assert_eq!(farm.place(), []);
    assert!(farm.placer.is_empty());
}
