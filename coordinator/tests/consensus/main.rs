//! The log under everything that can go wrong: three nodes in one thread, with simulated time, disks
//! and network, from fixed seeds. And the same without simulation, in threads.
//!
//! A simulation that fails says its seed, and what happened. `SLIPWAY_SEEDS=FIRST..END` takes other
//! seeds: one to look at, or a hundred thousand over night.

mod alone;
mod chance;
mod disk;
mod members;
mod oracle;
mod simulation;
mod tape;
mod threads;
mod world;

use std::ops::Range;

/// The seeds of a simulation that must keep all promises.
fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(wanted) = std::env::var("SLIPWAY_SEEDS") else { return usual };
    let wanted = wanted.split_once("..").map(|(first, end)| (first.parse(), end.parse()));
    let Some((Ok(first), Ok(end))) = wanted else { panic!("SLIPWAY_SEEDS is no FIRST..END") };
    first..end
}
