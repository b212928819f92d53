//! What is always true of a placer. Called after every event in simulation.

use super::arena::Number;
use super::{Placer, Spot, State};
use std::collections::{BTreeMap, BTreeSet};

impl Placer {
    /// Checks everything that must hold; answers what does not.
    pub fn broken_invariants(&self) -> Vec<String> {
        let mut broken = Vec::new();
        self.invariant_work_is_where_it_says(&mut broken);
        self.invariant_room_follows_from_assignments(&mut broken);
        self.invariant_classes_count_their_work(&mut broken);
        self.invariant_patience_has_an_end(&mut broken);
        broken.extend(self.shares.broken_invariants());
        broken
    }

    fn invariant_work_is_where_it_says(&self, broken: &mut Vec<String>) {
        if self.by_work.len() != self.items.len() {
            broken.push(format!("{} items for {} works", self.items.len(), self.by_work.len()));
        }
        let lines = self.classes.all.iter().flat_map(|(at, class)| {
            let lines = self.shares.lines(class.lane, at).into_iter();
            lines.flat_map(move |(build, line)| line.into_iter().map(move |i| (i, build, at)))
        });
        let queued: BTreeSet<_> = lines.collect();
        let mut running = 0;
        for (work, at) in &self.by_work {
            let item = &self.items[*at];
            let there = match item.state {
                _ if item.work != *work => false,
                State::Queued => queued.contains(&(*at, item.build, item.class)),
                State::Misfit => self.classes.all[item.class].misfits.contains_key(work),
                State::Parked { spot: Spot::Holder(w), turn, .. } => {
                    self.fleets.workers[w].parked.contains(&(turn, *at))
                }
                State::Parked { spot: Spot::Native, turn, .. } => {
                    self.classes.all[item.class].for_native.contains(&(turn, *at))
                }
                State::Running { worker, .. } => {
                    running += 1;
                    self.fleets.workers[worker].find(*work).is_ok()
                }
            };
            if !there {
                broken.push(format!("{work:?} is not where it says: {item:?}"));
            }
        }
        let assigned: usize = self.fleets.workers.iter().map(|(_, w)| w.running.len()).sum();
        if assigned != running {
            broken.push(format!("{assigned} assignments for {running} works"));
        }
    }

    /// Unless a worker has become smaller, no more is taken than there is.
    fn invariant_room_follows_from_assignments(&self, broken: &mut Vec<String>) {
        for (at, worker) in self.fleets.workers.iter() {
            let listed = worker.keys == worker.list_keys(at);
            if worker.room != worker.account() || !listed || *self.fleets.head(at) != worker.head()
            {
                broken.push(format!("{} is not listed with the room that it has", worker.id));
            }
            let reserved = worker.reserved.map(|class| self.classes.all[class].reserved);
            if reserved.is_some_and(|other| other != Some(at)) {
                broken.push(format!("{} is kept free for nobody", worker.id));
            }
        }
    }

    fn invariant_classes_count_their_work(&self, broken: &mut Vec<String>) {
        let mut counts: BTreeMap<_, (u32, u32)> = BTreeMap::new();
        for (_, item) in self.items.iter() {
            if !matches!(item.state, State::Running { .. }) {
                let count = counts.entry(item.class).or_default();
                count.0 += 1;
                count.1 += u32::from(item.state == State::Queued);
            }
        }
        for (at, class) in self.classes.all.iter() {
            let count = counts.remove(&at).unwrap_or_default();
            if count != (class.members, class.queued) || class.members == 0 {
                broken.push(format!("class {} has {count:?}, not {class:?}", at.slot()));
            }
            let open = matches!(class.door, super::class::Door::Open { .. }) && class.queued > 0;
            if open != self.classes.open.contains(&at) {
                broken.push(format!("class {} is open, or not: {class:?}", at.slot()));
            }
        }
        if !counts.is_empty() {
            broken.push(format!("there is work of no class: {counts:?}"));
        }
    }

    fn invariant_patience_has_an_end(&self, broken: &mut Vec<String>) {
        let parked = self.items.iter().filter_map(|(_, item)| match item.state {
            State::Parked { until, .. } => Some((until, item.work)),
            State::Queued | State::Misfit | State::Running { .. } => None,
        });
        let mut parked: Vec<_> = parked.collect();
        parked.sort();
        if !self.deadlines.iter().copied().eq(parked.iter().copied()) {
            broken.push(format!("{:?} are not the deadlines of {parked:?}", self.deadlines));
        }
    }
}
