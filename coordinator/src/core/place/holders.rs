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
    /// In order.
    holders: Vec<Holder>,
    /// Pieces of work that need it.
    needed: u32,
}

impl Entry {
    /// The place of a worker, or the one that it would have. Hashes are spread evenly, so it is
    /// not far from where it is guessed to be; what is popular has too many holders to halve them
    /// again and again.
    fn find(&self, order: u64) -> Result<usize, usize> {
        let (all, count) = (&self.holders, self.holders.len());
        let guess = share_of(order, count);
        let (mut low, mut high, mut step) = (guess, guess, 8);
        while low > 0 && all[low].0 > order {
            (low, step) = (low.saturating_sub(step), step * 2);
        }
        while high < count && all[high].0 < order {
            (high, step) = (high + step, step * 2);
        }
        let near = &all[low..count.min(high + 1)];
        let found = near.binary_search_by_key(&order, |(order, _)| *order);
        found.map(|at| low + at).map_err(|at| low + at)
    }
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
        let at = entries.insert(Entry { id, holders: Vec::new(), needed: 0 });
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
        if entry.needed == 0 && entry.holders.is_empty() {
            let id = self.entries.remove(at).id;
            if let Ok(found) = self.by_id.find_entry(id.number(), |other| *other == at) {
                found.remove();
            }
        }
    }

    /// A worker has it.
    pub fn add(&mut self, at: InputIx, holder: Holder) {
        let entry = &mut self.entries[at];
        match entry.find(holder.0) {
            Ok(place) => entry.holders[place].1 = holder.1,
            Err(place) => {
                if entry.holders.is_empty() {
                    // Most have one.
                    entry.holders.reserve_exact(1);
                }
                entry.holders.insert(place, holder);
                self.learnt.push_back((at, holder.0));
                self.held += 1;
                self.bound();
            }
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
                self.entries.get(*at).is_some_and(|entry| entry.find(*order).is_ok())
            };
            self.learnt.retain(holds);
        }
    }

    fn drop_holder(&mut self, at: InputIx, order: u64) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        if let Ok(place) = entry.find(order) {
            entry.holders.remove(place);
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
        let holders = std::mem::take(&mut self.entries[at].holders);
        self.held -= holders.len();
        self.drop_unused(at);
    }

    /// Whether the worker with this hash of its name has it.
    pub fn has(&self, at: InputIx, order: u64) -> bool {
        self.entries[at].find(order).is_ok()
    }

    /// The workers that have it. Each `from` begins with another one.
    pub fn of(&self, at: InputIx, from: u64) -> impl Iterator<Item = Holder> {
        let holders = &self.entries[at].holders;
        let start = share_of(from, holders.len());
        holders[start..].iter().chain(&holders[..start]).copied()
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

    proptest! {
        #[test]
        fn it_knows_what_a_set_knows(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, any::<bool>()), 0..200),
            spread in prop::sample::select(vec![1, 0x0400_0000_0000_0000]),
        ) {
            let (mut holders, mut set) = (Holders::default(), std::collections::BTreeSet::new());
            let needed = holders.need(input(1));
            for (comes, n, outdated) in steps {
                let order = n * spread;
                match (comes, outdated && n == 0) {
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
                for n in 0..40 {
                    prop_assert_eq!(holders.has(needed, n * spread), set.contains(&(n * spread)));
                }
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
