//! What is given bad input.

mod cache;
mod chunks;
mod dockerfile;
mod expand;
mod frames;
mod ignore;
mod layer;
mod tree;

use super::Target;

/// All targets.
pub const ALL: [&dyn Target; 8] = [
    &dockerfile::Dockerfile,
    &expand::Expand,
    &ignore::Ignore,
    &tree::Tree,
    &frames::Frames,
    &layer::Layer,
    &chunks::Chunks,
    &cache::Cache,
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static dyn Target> {
    ALL.into_iter().find(|target| target.name() == name)
}
