//! Three nodes that crash, stall, and hear each other badly.

use crate::disk::Honesty;
use crate::oracle::Violation;
use crate::world::{Counts, Faults, World};

/// Everything at once, but nothing all the time.
const ROUGH: Faults = Faults {
    loss: 50,
    repeat: 30,
    delay: 8,
    crash: 20,
    fail: 15,
    stall: 15,
    cut: 30,
    heal: 100,
    resign: 20,
    ..Faults::NONE
};

/// Ticks of a simulation before all is well again.
const TICKS: u64 = 400;

fn run(seed: u64, faults: Faults) -> (Result<Counts, Violation>, String) {
    let mut world = World::new(seed, 3, faults);
    let result = clients(&mut world).and_then(|()| world.end());
    (result.map(|()| world.counts.clone()), world.trace())
}

fn clients(world: &mut World) -> Result<(), Violation> {
    for step in 0..TICKS * 10 {
        world.step()?;
        if step % 4 == 0 {
            world.client()?;
        }
    }
    Ok(())
}

fn all_is_well(seeds: std::ops::Range<u64>, faults: Faults) -> Counts {
    let mut counts = Counts::default();
    for seed in seeds {
        match run(seed, faults) {
            (Ok(one), _) => counts.add(&one),
            (Err(violation), trace) => panic!("{trace}{violation:?}"),
        }
    }
    counts
}

/// Whether some seed leads to such a violation.
fn caught(faults: Faults, expected: impl Fn(&Violation) -> bool) {
    let mut others = Vec::new();
    for seed in 0..400 {
        match run(seed, faults).0 {
            Err(violation) if expected(&violation) => {
                println!("seed {seed}: {violation:?}");
                return;
            }
            Err(violation) => others.push(violation),
            Ok(_) => {}
        }
    }
    panic!("the checks do not find what is wrong, but {others:?}");
}

#[test]
fn a_rough_world_keeps_all_promises() {
    let seeds = crate::seeds(0..200);
    let all = seeds.end - seeds.start >= 200;
    let counts = all_is_well(seeds, ROUGH);
    println!("{counts:?}");
    let Counts { crashes, failed_writes, unsynced_lost, cut_off, unknown, again, .. } = counts;
    let Counts { reads, snapshots, terms, acknowledged, .. } = counts;
    let wrong = [crashes, failed_writes, unsynced_lost, cut_off, unknown, again];
    let happened = wrong.into_iter().chain([reads, snapshots, terms, acknowledged]);
    assert!(!all || happened.min() > Some(100), "{counts:?}");
}

#[test]
fn a_calm_world_elects_once() {
    let counts = all_is_well(0..10, Faults::NONE);
    assert_eq!((counts.terms, counts.unknown), (10, 0));
}

#[test]
fn a_seed_has_one_history() {
    let (first, second) = (run(7, ROUGH), run(7, ROUGH));
    assert!(first.1.lines().count() > 100, "{}", first.1);
    assert_eq!(first.1, second.1);
    assert_ne!(first.1.replace("seed 7", ""), run(8, ROUGH).1.replace("seed 8", ""));
}

#[test]
fn acknowledging_before_it_is_safe_is_caught() {
    let faults = Faults { honesty: Honesty::Late, ..ROUGH };
    caught(faults, |violation| matches!(violation, Violation::Diverged { .. }));
}

#[test]
fn forgotten_votes_are_caught() {
    let faults = Faults { honesty: Honesty::ForgetsVotes, ..ROUGH };
    caught(faults, |violation| matches!(violation, Violation::TwoLeaders { .. }));
}

#[test]
fn reads_without_a_barrier_are_caught() {
    let faults = Faults { reads_at_once: true, ..ROUGH };
    caught(faults, |violation| matches!(violation, Violation::Stale { .. }));
}

#[test]
fn proposing_again_as_something_new_is_caught() {
    let faults = Faults { forgets_ids: true, ..ROUGH };
    caught(faults, |violation| matches!(violation, Violation::Doubled { .. }));
}
