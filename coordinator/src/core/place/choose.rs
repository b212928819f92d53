//! Where work can begin the soonest.
//!
//! What it costs to do work at a worker is the time until there is room, the time that the bytes
//! take which the worker lacks, and, with an emulator, the time that it takes longer. Staying where
//! the inputs are is worth waiting for as long as it is the cheaper way: that is delay scheduling
//! (Zaharia et al., "Delay scheduling", EuroSys 2010) with the wait taken from what is expected
//! instead of from a setting.

use super::arena::{ClassIx, FleetIx, ItemIx, WorkerIx};
use super::class::Door;
use super::demand::Takes;
use super::fleet::Tier;
use super::{Item, Placer, Spot};
use proto::id::Millis;
use std::cmp::Reverse;

/// How many inputs are looked at for who has them: the largest.
pub const INPUTS_LOOKED: usize = 4;

/// How many workers are looked at that have one input. Work looks at others than its neighbour.
pub const HOLDERS_LOOKED: usize = 4;

/// How many workers with the most room are looked at, for each set of platforms.
pub const BEST_LOOKED: usize = 4;

/// How much longer a program is taken to run with an emulator. QEMU's user mode translates: five
/// times is what compilers take at least.
pub const EMULATED_FACTOR: u64 = 5;

/// What takes no longer than this is not worth waiting for.
const MOVING_MS_MIN: u64 = 100;

/// Where work goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// There.
    Go(WorkerIx),
    /// Nowhere yet: it waits for something better, because what there is costs so much.
    Wait { spot: Spot, ms: u64, moving_ms: u64 },
    /// There is no room.
    Full,
    /// There is no room, and will not be: it is too large for each worker that takes any.
    Never,
}

/// A worker with room, the best first: by what it costs, then by how empty it is.
pub(super) type Offer = (u64, Reverse<u32>, u64, WorkerIx);

/// A few workers, each once.
#[derive(Debug, Default)]
struct Few {
    workers: [Option<(WorkerIx, Tier)>; INPUTS_LOOKED * HOLDERS_LOOKED],
    count: usize,
}

impl Few {
    fn add(&mut self, one: (WorkerIx, Tier)) {
        if !self.workers[..self.count].contains(&Some(one)) {
            self.workers[self.count] = Some(one);
            self.count += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (WorkerIx, Tier)> {
        self.workers[..self.count].iter().filter_map(|one| *one)
    }
}

impl Placer {
    pub(super) fn choose(&mut self, now: Millis, at: ItemIx) -> Choice {
        let item = &self.items[at];
        let holders = self.holders(item);
        let mut best = self.best_offer(item, &holders);
        if best.is_none() {
            best = self.searched_offer(at);
        }
        let Some(offer) = best else {
            return if self.is_possible(at) { Choice::Full } else { Choice::Never };
        };
        let item = &self.items[at];
        if !item.patient || item.size.takes == Takes::Connection || offer.0 <= MOVING_MS_MIN {
            return Choice::Go(offer.3);
        }
        let holder = self.best_holder(now, item, &holders, offer.0);
        let holder = holder.map(|(cost, ms, w)| (cost, ms, Spot::Holder(w)));
        let native = self.native_wait(now, at, offer.3).map(|ms| (ms, ms, Spot::Native));
        let wait = [holder, native].into_iter().flatten().min_by_key(|(cost, ..)| *cost);
        match wait.filter(|(cost, ..)| *cost < offer.0) {
            Some((_, ms, spot)) => Choice::Wait { spot, ms, moving_ms: offer.0 },
            None => Choice::Go(offer.3),
        }
    }

    /// The best of the few workers with room that are looked at.
    fn best_offer(&self, item: &Item, holders: &Few) -> Option<Offer> {
        let class = &self.classes.all[item.class];
        let mut best = None;
        let mut look = |worker: WorkerIx, tier: Tier| {
            let offer = self.offer(item, worker, tier);
            best = [best, offer].into_iter().flatten().min();
        };
        for (tier, fleet) in &class.fleets {
            let fleet = &self.fleets.fleets[*fleet];
            fleet.best(class.takes).take(BEST_LOOKED).for_each(|w| look(w, *tier));
        }
        if let Door::Open { hints, .. } = &class.door {
            for worker in hints {
                self.tier(item.class, *worker).into_iter().for_each(|t| look(*worker, t));
            }
        }
        if let Some(worker) = class.reserved {
            self.tier(item.class, worker).into_iter().for_each(|t| look(worker, t));
        }
        holders.iter().for_each(|(worker, tier)| look(worker, tier));
        best
    }

    /// Some worker with room, wherever, unless all have been looked at.
    fn searched_offer(&mut self, at: ItemIx) -> Option<Offer> {
        let (class, size) = (self.items[at].class, self.items[at].size);
        let anywhere = matches!(self.classes.all[class].door, Door::Open { anywhere: true, .. });
        // Who has room for something plain is in the lists.
        if !anywhere || size.takes == Takes::Connection || size.is_plain() {
            return None;
        }
        let fleets = self.classes.all[class].fleets.clone();
        let found: Vec<(WorkerIx, Tier)> = fleets
            .into_iter()
            .filter_map(|(tier, fleet)| {
                let search = self.fleets.search(fleet);
                Some((search.all(|peak| peak.fits(&size)).next()?, tier))
            })
            .collect();
        let item = &self.items[at];
        found.into_iter().filter_map(|(worker, tier)| self.offer(item, worker, tier)).min()
    }

    fn is_possible(&mut self, at: ItemIx) -> bool {
        let (class, size) = (self.items[at].class, self.items[at].size);
        let fleets: Vec<FleetIx> = self.classes.all[class].fleets.iter().map(|f| f.1).collect();
        fleets.into_iter().any(|fleet| self.fleets.could(fleet, &size))
    }

    pub(super) fn tier(&self, class: ClassIx, worker: WorkerIx) -> Option<Tier> {
        let fleet = self.fleets.head(worker).fleet;
        let fleets = &self.classes.all[class].fleets;
        fleets.iter().find(|(_, f)| *f == fleet).map(|(tier, _)| *tier)
    }

    /// What it costs to begin at a worker now, if there is room.
    pub(super) fn offer(&self, item: &Item, at: WorkerIx, tier: Tier) -> Option<Offer> {
        let head = self.fleets.head(at);
        let fits = match item.size.takes {
            Takes::Slot if item.size.is_plain() && head.plain > 0 => true,
            Takes::Slot if item.size.is_plain() && head.is_open => false,
            Takes::Connection => head.connections > 0,
            Takes::Slot => self.fleets.workers[at].fits(item.class, &item.size),
        };
        let cost = || match item.size.takes {
            // It is better off near those who will need it.
            Takes::Connection => tier as u64,
            Takes::Slot => self.moving_ms(item, at).saturating_add(slower_ms(item, tier)),
        };
        fits.then(|| (cost(), Reverse(head.plain), head.order, at))
    }

    /// How long the inputs take that a worker lacks.
    fn moving_ms(&self, item: &Item, at: WorkerIx) -> u64 {
        let head = self.fleets.head(at);
        let lacks = |(input, _): &&(_, u64)| !self.holders.has(*input, head.order);
        let bytes = item.inputs.iter().filter(lacks).map(|(_, bytes)| *bytes);
        let bytes = bytes.fold(0, u64::saturating_add);
        (u128::from(bytes) * 1000 / u128::from(head.bandwidth.max(1))) as u64
    }

    /// Workers that have the largest inputs, not all of them, and not the same ones for each.
    fn holders(&self, item: &Item) -> Few {
        // A multiple of the golden ratio: neighbours begin far from each other.
        let from = item.work.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut few = Few::default();
        for (input, _) in item.inputs.iter().take(INPUTS_LOOKED) {
            // Some that had it may be gone.
            let known = self.holders.of(*input, from).take(4 * HOLDERS_LOOKED);
            let there = known.filter_map(|(order, at)| self.fleets.by_order(order, at));
            let fit = there.filter_map(|worker| Some((worker, self.tier(item.class, worker)?)));
            fit.take(HOLDERS_LOOKED).for_each(|one| few.add(one));
        }
        few
    }

    /// The worker with inputs that has no room, for which waiting costs the least, and less than
    /// `most`: what it costs in all, how long until there is room, and which.
    fn best_holder(
        &self,
        now: Millis,
        item: &Item,
        holders: &Few,
        most: u64,
    ) -> Option<(u64, u64, WorkerIx)> {
        let wait = |(at, tier): (WorkerIx, Tier)| {
            let head = self.fleets.head(at);
            let soonest = head.soonest.0.abs_diff(now.0);
            let slower = slower_ms(item, tier);
            // Most can be left aside without looking any further.
            if !head.is_open || head.plain > 0 || soonest.saturating_add(slower) >= most {
                return None;
            }
            let more = self.moving_ms(item, at).saturating_add(slower);
            let worker = &self.fleets.workers[at];
            let others = worker.parked.len();
            let crowded = others >= worker.totals.all.slots as usize;
            if more >= most || crowded || !worker.could(&item.size) {
                return None;
            }
            let plain = others == 0 && item.size.is_plain();
            let ms = if plain { soonest } else { worker.room_in_ms(now, &item.size, others) };
            Some((ms.saturating_add(more), ms, head.order, at))
        };
        let best = holders.iter().filter_map(wait).min();
        best.map(|(cost, ms, _, at)| (cost, ms, at))
    }

    /// How long it takes until a worker has room that needs no emulator, when the best one that
    /// has room now needs one and none without has any. As if those that wait for one already took
    /// turns.
    fn native_wait(&mut self, now: Millis, at: ItemIx, offered: WorkerIx) -> Option<u64> {
        let (class, size) = (self.items[at].class, self.items[at].size);
        if self.tier(class, offered) != Some(Tier::Emulated) {
            return None;
        }
        let mut tops = Vec::new();
        for (_, fleet) in self.native_fleets(class) {
            if self.fleets.fleets[fleet].best(Takes::Slot).next().is_some() {
                return None;
            }
            if self.fleets.could(fleet, &size) {
                tops.push(*self.fleets.search(fleet).top());
            }
        }
        let soonest = tops.iter().map(|top| top.soonest).min()?;
        let slots = tops.iter().map(|top| top.slots_sum).sum::<u64>().max(1);
        let waiting = self.classes.all[class].for_native.len() as u64;
        let queue = waiting.saturating_mul(self.items[at].expected.wall_ms) / slots;
        Some(soonest.abs_diff(now.0).saturating_add(queue))
    }
}

/// How much longer work takes with an emulator.
fn slower_ms(item: &Item, tier: Tier) -> u64 {
    match tier {
        Tier::Emulated => item.expected.wall_ms.saturating_mul(EMULATED_FACTOR - 1),
        Tier::Native | Tier::Foreign => 0,
    }
}
