//! Directories as values: which of their files are meant.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod glob;
pub mod pattern;
