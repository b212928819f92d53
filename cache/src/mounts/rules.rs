//! Which rules a cache mount has: found by where it is mounted, or else by its id.

mod table;
mod walk;

use super::policy::{Action, Deletes, Trim};
use crate::tree::pattern::Patterns;
use proto::mount::Policy;
pub use table::TABLE;
use table::{SIDE_FILES, UNKNOWN};
pub(super) use walk::{Here, PathRules};

/// What is known of one tool's cache.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The tool.
    pub tool: &'static str,
    /// Where its cache is.
    pub places: &'static [Place],
    /// What ids of its mounts begin with.
    pub ids: &'static [&'static str],
    /// What becomes of two steps' changes.
    pub policy: Policy,
    /// What becomes of what a step deleted, in a union.
    pub deletes: Deletes,
    /// Paths with rules of their own, from the cache's top on, in a union. Of several patterns that
    /// match one path the first counts.
    pub paths: &'static [(Action, &'static str)],
    /// Directories that are whole or not at all: what the tool unpacked, repositories. Their files
    /// are neither trimmed one by one, nor do rules for names apply to them.
    pub packages: &'static [&'static str],
    /// What goes first when the mount is over its cap.
    pub trim: Trim,
    /// Why, in a sentence.
    pub why: &'static str,
}

/// A run of names in a mount's target: `top` leads to the cache's top, and `inside` goes on from
/// there. So `("cargo", "registry")` finds `/usr/local/cargo/registry/index`, a part of the cache
/// whose top is `/usr/local/cargo`; a directory `cargo` with anything else in it is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Names that end at the cache's top; empty where `inside` says enough.
    pub top: &'static str,
    /// Names that follow; empty where `top` says enough.
    pub inside: &'static str,
}

/// The rules for one cache mount.
#[derive(Debug, Clone)]
pub struct Rules {
    row: Row,
    policy: Policy,
    deletes: Deletes,
    pub(super) paths: PathRules,
}

impl Rules {
    /// The rules for the mount with this id and target (absolute). An id that nobody gave is the
    /// target.
    pub fn of(id: &str, target: &str) -> Self {
        let found = by_path(target).or_else(|| by_path(id));
        let (row, below) = match found {
            Some(found) => found,
            None => (by_id(id).unwrap_or(&UNKNOWN), Vec::new()),
        };
        let paths = PathRules::new(row, &below, &names(target));
        Self { row: *row, policy: row.policy, deletes: row.deletes, paths }
    }

    /// The same with another policy, as the Dockerfile may ask. A union of files that no row has
    /// rules for is one by the ordinary rule alone.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, paths: self.paths.with_policy(policy), ..self }
    }

    /// The tool that the mount belongs to; `None` when nothing is known of it.
    pub fn tool(&self) -> Option<&'static str> {
        (!self.row.tool.is_empty()).then_some(self.row.tool)
    }

    /// What becomes of two steps' changes.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// What becomes of what a step deleted, in a union.
    pub fn deletes(&self) -> Deletes {
        self.deletes
    }

    /// What goes first when the mount is over its cap.
    pub fn trim(&self) -> Trim {
        self.row.trim
    }

    /// Rules made by hand.
    #[cfg(test)]
    pub(super) fn test(row: Row) -> Self {
        let paths = PathRules::new(&row, &[], &[]);
        Self { row, policy: row.policy, deletes: row.deletes, paths }
    }
}

fn names(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty()).collect()
}

/// The row with a place in the path, and the names between the cache's top and the path's end. Of
/// several the one whose top is the deepest.
fn by_path(path: &str) -> Option<(&'static Row, Vec<&str>)> {
    let path = names(path);
    let places = TABLE.iter().flat_map(|row| row.places.iter().map(move |place| (row, place)));
    let tops = places.filter_map(|(row, place)| Some((top_in(&path, place)?, row)));
    let (top, row) = tops.max_by_key(|(top, _)| *top)?;
    Some((row, path[top..].to_vec()))
}

/// How many names of the path lead to the top of the cache.
fn top_in(path: &[&str], place: &Place) -> Option<usize> {
    let top = names(place.top);
    let all: Vec<&str> = top.iter().copied().chain(names(place.inside)).collect();
    let at = path.windows(all.len()).rposition(|run| run == all)?;
    Some(at + top.len())
}

/// The row that a part of the id begins with the name of: `cargo-registry-linux/amd64` is one of
/// `cargo-registry`. Of several the longest.
fn by_id(id: &str) -> Option<&'static Row> {
    let is_end = |rest: &str| rest.is_empty() || rest.starts_with(['-', '_', '.', ':', ' ', '@']);
    let begins = |part: &str, name: &str| part.strip_prefix(name).is_some_and(is_end);
    let named = |name: &str| id.split('/').any(|part| begins(part, name));
    let rows = TABLE.iter().flat_map(|row| row.ids.iter().map(move |name| (name, row)));
    let found = rows.filter(|(name, _)| named(name)).max_by_key(|(name, _)| name.len());
    Some(found?.1)
}

/// Patterns of the tables, which the tests read.
fn patterns<'p>(texts: impl IntoIterator<Item = &'p str>) -> Patterns {
    Patterns::new(texts).expect("a pattern of the tables")
}
