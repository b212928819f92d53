//! Slipway's bytes: keep, find, move.
//!
//! [`store`] is one machine's store; [`tree`] is the algebra of directories and [`mounts`] that of
//! cache mounts, both pure; [`scan`] reads a directory from disk; [`net`] is how parts of a farm
//! talk; [`cluster`] makes one store of many machines'; [`chunk`] moves large blobs without what the
//! other end has of them; [`meter`] counts what is moved; [`crash`] is for tests.

pub mod chunk;
pub mod cluster;
pub mod crash;
pub mod flight;
pub mod meter;
pub mod mounts;
pub mod net;
pub mod scan;
pub mod store;
pub mod tree;
