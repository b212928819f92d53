//! The algebra of directories: select, graft, apply. Pure: it reads nodes through
//! [`Nodes`], which answers at once or names what has to be fetched, and it returns the nodes that
//! it made. No file byte is ever touched.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod apply;
mod archive;
pub mod change;
pub mod clamp;
pub mod diff;
pub mod edit;
pub mod glob;
pub mod graft;
pub mod listed;
pub mod mode;
mod nodes;
pub mod owner;
pub mod parts;
pub mod pattern;
pub mod select;
#[cfg(test)]
mod tests;

pub(crate) use nodes::{DirNode, dir};
pub use nodes::{Gap, Made, Nodes, TreeError, root};
