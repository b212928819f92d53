//! Slipway's bytes: keep, find, move.
//!
//! [`store`] is one machine's store; [`tree`] is the algebra of directories, pure; [`scan`] reads a
//! directory from disk; [`net`] is how parts of a farm talk; [`chunk`] moves large blobs without
//! what the other end has of them; [`crash`] is for tests.

pub mod chunk;
pub mod crash;
pub mod net;
pub mod scan;
pub mod store;
pub mod tree;
