//! All scenarios: one binary, one module each.

mod programs;
mod seeds;
