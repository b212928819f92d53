//! Slipway's decisions: Dockerfile, graph, placement.

pub mod core;


