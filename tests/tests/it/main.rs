//! All scenarios: one binary, one module each.

mod seeds;
