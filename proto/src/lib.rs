//! What Slipway's machines must agree on, bit for bit.
//!
//! This crate does no IO: it reads no clock, no file and no socket. It holds the names of things
//! ([`id`]), their canonical encodings ([`canon`], [`tree`], [`chunk`], [`step`], [`key`]), the
//! messages ([`wire`]) and the bounds of everything ([`limit`]).
//!
//! Read first: [`tree::Dir`], the Merkle node that every directory is, and [`key`]: what enters
//! which key.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod canon;
pub mod chunk;
pub mod error;
pub mod id;
pub mod key;
pub mod limit;
pub mod mount;
pub mod path;
pub mod platform;
pub mod record;
pub mod reference;
pub mod secret;
pub mod step;
pub mod tree;
pub mod wire;
