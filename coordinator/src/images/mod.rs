//! The image store: which image has which name, whom a text means, how large things are. Pure.
//!
//! Names belong to a scope: whoever has one sees its names and, where it has none of its own, those
//! of the trusted scope of the project (`docs/decisions/0018-image-names-belong-to-scopes.md`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod meant;
mod naming;
mod size;

pub use meant::{Meant, find, listed, remove};
pub use naming::{Change, Known, name, seen};
pub use size::disk_size;
