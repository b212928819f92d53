//! Slipway's bytes: keep, find, move.
//!
//! [`store`] is one machine's store; [`tree`] is the algebra of directories, pure.

pub mod store;
pub mod tree;
