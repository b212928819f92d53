//! Slipway's decisions: Dockerfile, graph, placement.
//!
//! [`dockerfile`] reads texts, [`graph`] makes steps of them, [`core`] decides what is done when and
//! where, [`images`] which image has which name: all four are pure. [`raft`](crate::raft) keeps what was decided, on one machine or on
//! several. [`server`] does the rest.

pub mod core;
pub mod dockerfile;
pub mod explain;
pub mod graph;
pub mod images;
pub mod raft;
pub mod server;
