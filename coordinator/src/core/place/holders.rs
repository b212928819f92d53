//! Which worker has which input, as far as is known.
//!
//! What is known may be wrong: a worker drops what it has no room for. Then the input is moved, as
//! if nothing had been known.

use super::arena::{Arena, InputIx, WorkerIx};
use super::demand::InputId;
use hashbrown::HashTable;
use std::collections::VecDeque;

/// Pairs of worker and input that are remembered, at 200 bytes at most (of an input that one worker
/// has). What was learnt first is forgotten first.
pub const HELD_MAX: usize = 1 << 20;

/// A worker, by its name's hash: so it has what it had when it comes back, perhaps under another
/// number. The number is the one that it had when this was learnt.
pub type Holder = (u64, WorkerIx);

#[derive(Debug)]
struct Entry {
    id: InputId,
    held: Held,
    /// Pieces of work that need it.
    needed: u32,
}

/// Who has one input, in the order of their hashes. Most inputs have one holder, a few have all
/// workers. Hashes are spread evenly, so many holders stand on shelves of equal spans of hashes, of
/// which none gets long: what is popular takes no longer than other things.
#[derive(Debug)]
enum Held {
    Few(Vec<Holder>),
    Many { shelves: Box<[Vec<Holder>]>, count: usize },
}

/// How many holders stand on one shelf, on average. On more than that there are more shelves.
const SHELF: usize = 32;

impl Held {
    const NOBODY: Self = Self::Few(Vec::new());

    fn len(&self) -> usize {
        match self {
            Self::Few(holders) => holders.len(),
            Self::Many { count, .. } => *count,
        }
    }

    fn shelves(&self) -> &[Vec<Holder>] {
        match self {
            Self::Few(holders) => std::slice::from_ref(holders),
            Self::Many { shelves, .. } => shelves,
        }
    }

    /// The shelf of a hash.
    fn shelf(&mut self, order: u64) -> &mut Vec<Holder> {
        match self {
            Self::Few(holders) => holders,
            Self::Many { shelves, .. } => &mut shelves[share_of(order, shelves.len())],
        }
    }

    fn has(&self, order: u64) -> bool {
        let shelves = self.shelves();
        place(&shelves[share_of(order, shelves.len())], order).is_ok()
    }

    /// Adds a worker. Answers whether it is new.
    fn add(&mut self, holder: Holder) -> bool {
        let shelf = self.shelf(holder.0);
        match place(shelf, holder.0) {
            Ok(at) => {
                shelf[at].1 = holder.1;
                return false;
            }
            Err(at) => {
                if shelf.is_empty() {
                    // Most have one.
                    shelf.reserve_exact(1);
                }
                shelf.insert(at, holder);
            }
        }
        if let Self::Many { count, .. } = self {
            *count += 1;
        }
        if self.len() > 2 * SHELF * self.shelves().len() {
            self.spread();
        }
        true
    }

    /// Puts the holders on as many shelves as they need.
    fn spread(&mut self) {
        let count = self.len();
        let mut shelves = vec![Vec::with_capacity(2 * SHELF); count / SHELF];
        let spans = shelves.len();
        for holder in self.shelves().iter().flatten() {
            shelves[share_of(holder.0, spans)].push(*holder);
        }
        *self = Self::Many { shelves: shelves.into(), count };
    }

    /// Takes a worker out. Answers whether it was there.
    fn remove(&mut self, order: u64) -> bool {
        let shelf = self.shelf(order);
        let Ok(at) = place(shelf, order) else { return false };
        shelf.remove(at);
        if let Self::Many { count, .. } = self {
            *count -= 1;
            if *count == 0 {
                *self = Self::NOBODY;
            }
        }
        true
    }

    /// All of them. Each `from` begins with another one.
    fn from(&self, from: u64) -> impl Iterator<Item = Holder> {
        let shelves = self.shelves();
        let (before, after) = shelves.split_at(share_of(from, shelves.len()));
        let (first, after) = after.split_first().expect("a share of them is less than all");
        // Within a span, a hash stands for what lies above its shelf's begin.
        let within = from.wrapping_mul(shelves.len() as u64);
        let (last, first) = first.split_at(share_of(within, first.len()));
        first
            .iter()
            .chain(after.iter().flatten())
            .chain(before.iter().flatten())
            .chain(last)
            .copied()
    }
}

/// The place of a worker on a shelf, or the one that it would have.
fn place(shelf: &[Holder], order: u64) -> Result<usize, usize> {
    shelf.binary_search_by_key(&order, |(order, _)| *order)
}

/// The place in a list of so many that is as far from its begin as a number is from 0.
fn share_of(number: u64, count: usize) -> usize {
    ((u128::from(number) * count as u128) >> 64) as usize
}

/// Who has what.
#[derive(Debug, Default)]
pub struct Holders {
    entries: Arena<InputIx, Entry>,
    /// The entries by their ids: looked up, and never walked over.
    by_id: HashTable<InputIx>,
    /// What was learnt, the oldest first. Some of it does not hold any more.
    learnt: VecDeque<(InputIx, u64)>,
    held: usize,
}

impl Holders {
    /// The number of an input, until as many calls of [`Holders::release`].
    pub fn need(&mut self, id: InputId) -> InputIx {
        let at = self.entry(id);
        self.entries[at].needed += 1;
        at
    }

    fn entry(&mut self, id: InputId) -> InputIx {
        if let Some(at) = self.find(id) {
            return at;
        }
        let Self { entries, by_id, .. } = self;
        let at = entries.insert(Entry { id, held: Held::NOBODY, needed: 0 });
        by_id.insert_unique(id.number(), at, |at| entries[*at].id.number());
        at
    }

    fn find(&self, id: InputId) -> Option<InputIx> {
        self.by_id.find(id.number(), |at| self.entries[*at].id == id).copied()
    }

    /// A piece of work does not need it any more.
    pub fn release(&mut self, at: InputIx) {
        self.entries[at].needed -= 1;
        self.drop_unused(at);
    }

    fn drop_unused(&mut self, at: InputIx) {
        let entry = &self.entries[at];
        if entry.needed == 0 && entry.held.len() == 0 {
            let id = self.entries.remove(at).id;
            if let Ok(found) = self.by_id.find_entry(id.number(), |other| *other == at) {
                found.remove();
            }
        }
    }

    /// A worker has it.
    pub fn add(&mut self, at: InputIx, holder: Holder) {
        if self.entries[at].held.add(holder) {
            self.learnt.push_back((at, holder.0));
            self.held += 1;
            self.bound();
        }
    }

    /// Forgets what is too much. Where a number was used again, another input is forgotten.
    fn bound(&mut self) {
        while self.held > HELD_MAX
            && let Some((at, order)) = self.learnt.pop_front()
        {
            self.drop_holder(at, order);
        }
        if self.learnt.len() > 2 * HELD_MAX {
            let holds = |(at, order): &(InputIx, u64)| {
                self.entries.get(*at).is_some_and(|entry| entry.held.has(*order))
            };
            self.learnt.retain(holds);
        }
    }

    fn drop_holder(&mut self, at: InputIx, order: u64) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        if entry.held.remove(order) {
            self.held -= 1;
            self.drop_unused(at);
        }
    }

    /// Whoever needs it or not: a worker has it.
    pub fn holds(&mut self, id: InputId, holder: Holder) {
        let at = self.need(id);
        self.add(at, holder);
        self.release(at);
    }

    /// The worker with this hash of its name does not have it any more.
    pub fn lost(&mut self, id: InputId, order: u64) {
        if let Some(at) = self.find(id) {
            self.drop_holder(at, order);
        }
    }

    /// Nobody has it as it is now.
    pub fn outdated(&mut self, id: InputId) {
        let Some(at) = self.find(id) else { return };
        let held = std::mem::replace(&mut self.entries[at].held, Held::NOBODY);
        self.held -= held.len();
        self.drop_unused(at);
    }

    /// Whether the worker with this hash of its name has it.
    pub fn has(&self, at: InputIx, order: u64) -> bool {
        self.entries[at].held.has(order)
    }

    /// The workers that have it. Each `from` begins with another one.
    pub fn of(&self, at: InputIx, from: u64) -> impl Iterator<Item = Holder> {
        self.entries[at].held.from(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::place::arena::Number;
    use proptest::prelude::*;
    use proto::id::{RootId, TreeId};

    fn input(n: u8) -> InputId {
        InputId::tree(&RootId(TreeId::from_bytes([n; 32])))
    }

    /// Workers: more than one shelf takes.
    const COUNT: u64 = 400;

    proptest! {
        #[test]
        fn it_knows_what_a_set_knows(
            steps in prop::collection::vec((0u8..4, 0u64..COUNT, any::<bool>()), 0..1500),
            spread in prop::sample::select(vec![1, u64::MAX / COUNT]),
        ) {
            let (mut holders, mut set) = (Holders::default(), std::collections::BTreeSet::new());
            let needed = holders.need(input(1));
            for (comes, n, outdated) in steps {
                let order = n * spread;
                match (comes > 0, outdated && n == 0) {
                    (_, true) => {
                        holders.outdated(input(1));
                        set.clear();
                    }
                    (true, _) => {
                        holders.holds(input(1), (order, WorkerIx::from_slot(n as usize)));
                        set.insert(order);
                    }
                    (false, _) => {
                        holders.lost(input(1), order);
                        set.remove(&order);
                    }
                }
                prop_assert_eq!(holders.has(needed, order), set.contains(&order));
                let mut all: Vec<u64> = holders.of(needed, order).map(|(o, _)| o).collect();
                all.sort_unstable();
                prop_assert!(all.iter().eq(set.iter()));
                prop_assert_eq!(holders.held, set.len());
            }
            holders.outdated(input(1));
            holders.release(needed);
            prop_assert!(holders.by_id.is_empty() && holders.entries.is_empty());
        }
    }
}
