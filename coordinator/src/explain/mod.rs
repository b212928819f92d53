//! Why a step ran: what of it differs from what was built before (`slipway explain`).
//!
//! Pure. Of each build a [`Trace`] is kept: what enters the keys of its steps, as names and hashes,
//! and the trees of the files that they took. [`counterpart`] finds for a step the one of an earlier
//! build that is nearest to it, and [`compare`] the first thing in which the two differ. Which file
//! it is, is looked up then, in the two trees.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod difference;
mod nearest;
mod sketch;
#[cfg(test)]
mod tests;
mod trace;

pub use difference::{At, Difference, Trees, Turn, compare};
pub use nearest::{counterpart, rank};
pub use sketch::{Around, trace};
pub use trace::{Field, Input, Kind, Origin, Sketch, Takes, Trace, TraceError, Variable, Verdict};
