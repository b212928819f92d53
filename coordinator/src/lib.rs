//! Slipway's decisions: Dockerfile, graph, placement.
