//! Slipway's decisions: Dockerfile, graph, placement.
//!
//! [`dockerfile`] reads texts, [`graph`] makes steps of them, [`core`] decides what is done when and
//! where: all three are pure. [`server`] does the rest.

pub mod core;
pub mod dockerfile;
pub mod graph;
pub mod server;
