//! Bad input, and what must come of it.
//!
//! A [`Target`] is something that reads bytes from outside. It is given inputs without an end: seeds
//! (good ones), and what [`Mutator`] makes of them. Nothing may panic, hang or take memory without a
//! bound; beyond that each target says what must hold of what it read.
//!
//! Runs are by seed: the same number gives the same inputs on every machine. A failure prints the
//! seed of its input, and `fuzz TARGET --only SEED` runs that one alone.

mod chance;
mod mutate;
pub mod target;

pub use chance::Chance;
pub use mutate::Mutator;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Longer inputs are cut: long ones find little that short ones do not, and cost time.
pub const INPUT_BYTES_MAX: usize = 16 << 10;

/// Something that reads bytes from outside.
pub trait Target: Sync {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Good inputs, to begin with.
    fn seeds(&self) -> Vec<Vec<u8>>;

    /// Pieces of text or bytes that mean something to it.
    fn words(&self) -> &'static [&'static [u8]];

    /// Reads an input, and panics if something is wrong with what came of it. Answers whether the
    /// input was accepted.
    fn run(&self, input: &[u8]) -> bool;
}

/// What one run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Inputs that were read.
    pub executions: u64,
    /// Those of them that were accepted.
    pub accepted: u64,
    /// How long the slowest one took.
    pub slowest: Duration,
    /// Which one that was.
    pub slowest_seed: u64,
}

/// An input that should not do what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The target.
    pub target: &'static str,
    /// The seed of the input.
    pub seed: u64,
    /// The input.
    pub input: Vec<u8>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: String = self.input.escape_ascii().take(2000).map(char::from).collect();
        write!(
            f,
            "{} fails with the seed {} ({} bytes): {shown}",
            self.target,
            self.seed,
            self.input.len()
        )
    }
}

/// The input of a seed number.
pub fn input(target: &dyn Target, seeds: &[Vec<u8>], seed: u64) -> Vec<u8> {
    // The seeds themselves come first, as they are.
    if let Some(own) = usize::try_from(seed).ok().and_then(|at| seeds.get(at)) {
        return own.clone();
    }
    let mut input = Mutator::new(seed, target.words()).mutate(seeds);
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Runs a target with the seeds of a range, as long as `more` says so.
pub fn run(
    target: &dyn Target,
    range: std::ops::Range<u64>,
    mut more: impl FnMut(&Report) -> bool,
) -> Result<Report, Finding> {
    let seeds = target.seeds();
    let mut report = Report::default();
    for seed in range {
        let input = input(target, &seeds, seed);
        let start = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| target.run(&input))) {
            Ok(accepted) => report.accepted += u64::from(accepted),
            Err(_) => return Err(Finding { target: target.name(), seed, input }),
        }
        let took = start.elapsed();
        if took > report.slowest {
            (report.slowest, report.slowest_seed) = (took, seed);
        }
        report.executions += 1;
        if !more(&report) {
            break;
        }
    }
    Ok(report)
}
