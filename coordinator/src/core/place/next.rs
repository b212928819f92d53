//! One decision after the other.

use super::arena::{ClassIx, FleetIx, ItemIx, WorkerIx};
use super::choose::{BEST_LOOKED, Choice, EMULATED_FACTOR};
use super::class::Door;
use super::demand::Takes;
use super::fleet::Tier;
use super::share::Rank;
use super::worker::Running;
use super::{Item, Placer, Spot, State};
use crate::core::WorkId;
use proto::id::{Millis, WorkerId};

/// How often work for which there is no room is passed by work that stands behind it, before a
/// worker is kept free for it.
pub const BYPASS_MAX: u32 = 32;

/// How many workers are looked at for one that can be kept free.
const RESERVE_LOOKED: usize = 32;

impl Placer {
    /// The next piece of work that can begin, and the worker that it goes to; it is assigned from
    /// now on. None when nothing can begin.
    pub fn next(&mut self, now: Millis) -> Option<(WorkId, WorkerId)> {
        self.end_patience(now);
        loop {
            if let Some((item, worker)) = self.awaited() {
                return Some(self.give(now, item, worker));
            }
            let (item, rank) = self.turn()?;
            match self.choose(now, item) {
                Choice::Go(worker) => {
                    let passed = self.passes(item, &rank, worker);
                    let given = self.give(now, item, worker);
                    passed.into_iter().for_each(|class| self.count_passed(now, class));
                    return Some(given);
                }
                Choice::Wait { spot, ms, moving_ms } => self.park(now, item, spot, ms, moving_ms),
                Choice::Full => {
                    let Item { class, size, .. } = self.items[item];
                    let kept = self.classes.all[class].reserved;
                    if kept.is_some_and(|w| !self.fleets.workers[w].could(&size)) {
                        // It was for something smaller, which does not go first any more.
                        self.unreserve(class);
                    }
                    self.classes.close(class, size);
                }
                Choice::Never => {
                    self.unqueue(item);
                    let Item { class, work, .. } = self.items[item];
                    self.items[item].state = State::Misfit;
                    self.classes.all[class].misfits.insert(work, item);
                }
            }
        }
    }

    /// Work that has waited long enough for something better takes what there is.
    fn end_patience(&mut self, now: Millis) {
        while let Some((until, work)) = self.deadlines.first().copied()
            && until <= now
        {
            let at = self.by_work[&work];
            self.unqueue(at);
            self.items[at].patient = false;
            self.queue(at);
            self.classes.open_wide(self.items[at].class);
        }
    }

    fn park(&mut self, now: Millis, at: ItemIx, spot: Spot, ms: u64, moving_ms: u64) {
        self.unqueue(at);
        self.last_turn += 1;
        let (turn, until) = (self.last_turn, Millis(now.0.saturating_add(ms.max(1))));
        let item = &mut self.items[at];
        item.state = State::Parked { spot, until, moving_ms, turn };
        self.deadlines.insert((until, item.work));
        match spot {
            Spot::Holder(w) => self.fleets.workers[w].parked.insert((turn, at)),
            Spot::Native => self.classes.all[item.class].for_native.insert((turn, at)),
        };
    }

    /// Work that waits for just what has become free.
    fn awaited(&mut self) -> Option<(ItemIx, WorkerIx)> {
        while let Some((order, worker)) = self.awake.first().copied() {
            let has = &self.fleets.workers[worker];
            let fits = |(_, at): &&(u64, ItemIx)| {
                let item = &self.items[*at];
                has.fits(item.class, &item.size)
            };
            if let Some((_, item)) = has.parked.iter().find(fits) {
                return Some((*item, worker));
            }
            self.awake.remove(&(order, worker));
        }
        loop {
            let first = |class: &ClassIx| {
                let (turn, item) = self.classes.all[*class].for_native.first()?;
                Some((*turn, *item, *class))
            };
            let (_, item, class) = self.awake_native.iter().filter_map(first).min()?;
            match self.native_with_room(class, item) {
                Some(worker) => return Some((item, worker)),
                None => self.awake_native.remove(&class),
            };
        }
    }

    /// The best worker without emulator that has room.
    fn native_with_room(&mut self, class: ClassIx, at: ItemIx) -> Option<WorkerIx> {
        let size = self.items[at].size;
        let mut found = Vec::new();
        for (_, fleet) in self.native_fleets(class) {
            found.extend(self.fleets.fleets[fleet].best(Takes::Slot).take(BEST_LOOKED));
            found.extend(self.fleets.search(fleet).all(|peak| peak.fits(&size)).next());
        }
        let item = &self.items[at];
        let offers = found.into_iter().filter_map(|w| self.offer(item, w, Tier::Native));
        offers.min().map(|(.., worker)| worker)
    }

    pub(super) fn native_fleets(&self, class: ClassIx) -> Vec<(Tier, FleetIx)> {
        let fleets = self.classes.all[class].fleets.iter();
        fleets.filter(|(tier, _)| *tier == Tier::Native).copied().collect()
    }

    /// The work whose turn it is, among the first of each class that there may be room for.
    fn turn(&self) -> Option<(ItemIx, Rank)> {
        let first = |class: &ClassIx| self.shares.first(self.classes.all[*class].lane, *class);
        self.classes.open.iter().filter_map(first).min_by_key(|(_, rank)| *rank)
    }

    /// Assigns work.
    fn give(&mut self, now: Millis, at: ItemIx, to: WorkerIx) -> (WorkId, WorkerId) {
        self.assign(now, at, to);
        (self.items[at].work, self.fleets.workers[to].id.clone())
    }

    pub(super) fn assign(&mut self, now: Millis, at: ItemIx, to: WorkerIx) {
        let worker = &self.fleets.workers[to];
        let (order, totals) = (worker.order, worker.totals);
        let item = &mut self.items[at];
        let (class, build, work, size) = (item.class, item.build, item.work, item.size);
        let inputs = std::mem::take(&mut item.inputs);
        let (shares, expected) = (totals.shares_milli(&size), item.expected);
        let tier = self.tier(class, to).unwrap_or(Tier::Foreign);
        let times = if tier == Tier::Emulated { EMULATED_FACTOR } else { 1 };
        let charged_ms = expected.wall_ms.saturating_mul(times).saturating_mul(shares) / 1000;
        let ends = Millis(now.0.saturating_add(expected.most_ms().saturating_mul(times)));
        self.shares.charge(build, charged_ms);
        self.unqueue(at);
        self.items[at].state = State::Running { worker: to, began: now, charged_ms, tier };
        for (input, _) in inputs {
            self.holders.add(input, (order, to));
            self.holders.release(input);
        }
        let running = Running { taken: totals.taken(&size), began: now, ends };
        self.fleets.begin(to, work, running);
        self.classes.all[class].passed = 0;
        self.unreserve(class);
        self.leave_class(class);
    }

    /// The classes that work passes by going to a worker: their first is before it, and could run
    /// there if there were room for it.
    fn passes(&self, at: ItemIx, rank: &Rank, to: WorkerIx) -> Vec<ClassIx> {
        let is_passed = |class_ix: &ClassIx| {
            let class = &self.classes.all[*class_ix];
            let waits = matches!(class.door, Door::Closed(_)) && class.reserved.is_none();
            let first = || self.shares.first(class.lane, *class_ix);
            *class_ix != self.items[at].class
                && (class.takes, waits) == (Takes::Slot, true)
                && first().is_some_and(|(first, before)| {
                    before < *rank && self.fleets.workers[to].could(&self.items[first].size)
                })
        };
        let fleet = &self.fleets.fleets[self.fleets.head(to).fleet];
        fleet.classes.iter().map(|(class, _)| *class).filter(is_passed).collect()
    }

    fn count_passed(&mut self, now: Millis, class_ix: ClassIx) {
        let class = &mut self.classes.all[class_ix];
        class.passed += 1;
        if class.passed >= BYPASS_MAX
            && let Some((first, _)) = self.shares.first(class.lane, class_ix)
        {
            self.reserve(now, class_ix, first);
        }
    }

    /// Keeps a worker free for the first of a class: the one that will have room the soonest.
    fn reserve(&mut self, now: Millis, class: ClassIx, first: ItemIx) {
        let size = self.items[first].size;
        let mut best = None;
        for (tier, fleet) in self.classes.all[class].fleets.clone() {
            let could: Vec<WorkerIx> =
                self.fleets.search(fleet).all(|p| p.could(&size)).take(RESERVE_LOOKED).collect();
            let free = could.into_iter().filter(|w| self.fleets.workers[*w].reserved.is_none());
            let soon = free.map(|w| {
                let worker = &self.fleets.workers[w];
                (tier, worker.room_in_ms(now, &size, 0), worker.order, w)
            });
            best = soon.chain(best).min();
        }
        let Some((.., at)) = best else { return };
        self.classes.all[class].reserved = Some(at);
        self.fleets.workers[at].reserved = Some(class);
        for (_, item) in self.fleets.workers[at].parked.clone() {
            self.unqueue(item);
            self.queue(item);
        }
        self.fleets.refresh(at);
        self.grown(at);
    }

    /// Nothing is kept free for a class any more.
    pub(super) fn unreserve(&mut self, class: ClassIx) {
        if let Some(at) = self.classes.all[class].reserved.take() {
            self.fleets.workers[at].reserved = None;
            self.fleets.refresh(at);
            self.grown(at);
        }
    }
}
