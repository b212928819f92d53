//! Lists for people: the first of many.

use proto::path::FileName;
use std::fmt;

/// How many of a list's items are kept.
pub const TOLD_MAX: usize = 100;

/// The first [`TOLD_MAX`] items, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    first: Vec<T>,
    count: u64,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self { first: Vec::new(), count: 0 }
    }
}

impl<T> Told<T> {
    /// The first of them.
    pub fn first(&self) -> &[T] {
        &self.first
    }

    /// How many there are in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn tell(&mut self, item: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(item());
        }
    }
}

/// Where a walk is, from the mount's top on.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<FileName>);

impl Path {
    pub fn push(&mut self, name: &FileName) {
        self.0.push(name.clone());
    }

    pub fn pop(&mut self) {
        self.0.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            write!(f, "{slash}{name}")?;
        }
        Ok(())
    }
}
