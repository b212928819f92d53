//! Slipway's bytes: keep, find, move.
//!
//! [`store`] is one machine's store; [`tree`] is the algebra of directories, pure; [`mounts`] is what
//! becomes of cache mounts that several machines use, pure; [`scan`] reads a directory from disk;
//! [`net`] is how parts of a farm talk; [`crash`] is for tests.

pub mod crash;
pub mod mounts;
pub mod net;
pub mod scan;
pub mod store;
pub mod tree;
