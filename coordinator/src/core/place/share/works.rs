//! The work of one build that waits for its turn, in order.

use super::super::arena::ItemIx;
use crate::core::WorkId;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The order in a build: the longest path first.
pub type WorkKey = (Reverse<u64>, WorkId, ItemIx);

/// How many of the first stand by themselves at most. When there are more, or none any more, half as
/// many move.
const FRONT_MAX: usize = 64;

/// A set of which mostly the first is taken. With thousands of builds each decision looks at another
/// one, of which nothing is in any cache of the processor: the first few stand side by side, so that
/// it takes one line of memory instead of a way through a tree.
#[derive(Debug)]
pub struct Works {
    /// The first ones, the very first last. Empty only if there are none at all.
    front: Vec<WorkKey>,
    /// All others, in a pointer's room: a node has no more.
    #[allow(clippy::box_collection)]
    rest: Option<Box<BTreeSet<WorkKey>>>,
}

impl Works {
    /// A set of one.
    pub fn one(key: WorkKey) -> Self {
        Self { front: vec![key], rest: None }
    }

    /// The first.
    pub fn first(&self) -> Option<&WorkKey> {
        self.front.last()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &WorkKey> {
        self.front.iter().rev().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Adds one.
    pub fn insert(&mut self, key: WorkKey) {
        if let (Some(rest), Some(last)) = (&mut self.rest, self.front.first())
            && *last < key
        {
            rest.insert(key);
            return;
        }
        if self.front.len() == FRONT_MAX {
            let moved = self.front.drain(..FRONT_MAX / 2);
            self.rest.get_or_insert_default().extend(moved);
            return self.insert(key);
        }
        let Err(at) = self.front.binary_search_by(|other| key.cmp(other)) else { return };
        self.front.insert(at, key);
    }

    /// Takes one away, if it is there.
    pub fn remove(&mut self, key: &WorkKey) {
        // The first is what mostly goes, and the others are in other lines of memory.
        if self.front.last() == Some(key) {
            self.front.pop();
        } else if let Ok(at) = self.front.binary_search_by(|other| key.cmp(other)) {
            self.front.remove(at);
        } else if let Some(rest) = &mut self.rest {
            rest.remove(key);
        }
        if self.front.is_empty()
            && let Some(rest) = &mut self.rest
        {
            self.front.extend(std::iter::from_fn(|| rest.pop_first()).take(FRONT_MAX / 2));
            self.front.reverse();
        }
        self.rest.take_if(|rest| rest.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::arena::Number;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_set(steps in prop::collection::vec((any::<bool>(), 0u64..300), 0..1000)) {
            let key = |n: u64| (Reverse(n % 7), WorkId(n), ItemIx::from_slot(n as usize));
            let (mut works, mut set) = (Works { front: Vec::new(), rest: None }, BTreeSet::new());
            for (adds, n) in steps {
                if adds {
                    works.insert(key(n));
                    set.insert(key(n));
                } else {
                    // The first goes more often than any other.
                    let gone = if n % 3 > 0 { set.first().copied() } else { None };
                    let gone = gone.unwrap_or(key(n));
                    works.remove(&gone);
                    set.remove(&gone);
                }
                prop_assert_eq!(works.first(), set.first());
                prop_assert_eq!(works.is_empty(), set.is_empty());
                prop_assert!(works.front.len() <= FRONT_MAX);
            }
            prop_assert!(works.iter().eq(&set));
        }
    }
}
