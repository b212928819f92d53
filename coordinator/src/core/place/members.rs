//! Workers come, change and go, and what that means for work that waits.

use super::Placer;
use super::arena::{ClassIx, FleetIx, WorkerIx};
use super::class::Class;
use super::demand::InputId;
use super::fleet::Tier;
use super::share::order;
use super::worker::{Totals, Worker};
use crate::core::WorkId;
use proto::id::{Millis, WorkerId};
use proto::wire::worker::Capacity;

impl Placer {
    /// A worker is there, and can do this.
    pub fn worker(&mut self, id: &WorkerId, capacity: Capacity) {
        let Some(at) = self.fleets.find(id) else {
            let fleet = self.fleet(&capacity);
            let cordoned = self.cordoned.contains(id);
            let worker = Worker { cordoned, ..Worker::new(id.clone(), fleet, capacity) };
            let at = self.fleets.insert(worker);
            self.fits_anew(at);
            self.grown(at);
            return;
        };
        let worker = &mut self.fleets.workers[at];
        worker.measure(capacity.fetched);
        let was = std::mem::replace(&mut worker.capacity, capacity);
        let new = &worker.capacity;
        let same_platforms = was.platforms == new.platforms;
        // All but what a transfer took and the room on its disk.
        let room = |c: &Capacity| {
            (c.slots, c.cpu_millis, c.memory_bytes, c.pressure, c.takes_work, c.is_alone)
        };
        if same_platforms && room(&was) == room(new) {
            return self.fleets.refresh(at);
        }
        worker.totals = Totals::of(&worker.capacity);
        self.upset(at);
        if !same_platforms {
            let capacity = self.fleets.workers[at].capacity.clone();
            let fleet = self.fleet(&capacity);
            if let Some(gone) = self.fleets.transfer(at, fleet) {
                self.classes.fleet_gone(gone);
            }
        }
        self.fleets.refresh(at);
        self.fits_anew(at);
        self.grown(at);
        self.give_up_native();
    }

    fn fleet(&mut self, capacity: &Capacity) -> FleetIx {
        let (fleet, new) = self.fleets.fleet(capacity);
        if new {
            self.classes.new_fleet(fleet, &mut self.fleets.fleets[fleet]);
        }
        fleet
    }

    /// A worker gets nothing new from now on, or does again, whether it is there or not.
    pub fn cordon(&mut self, id: &WorkerId, cordoned: bool) {
        match cordoned {
            true => drop(self.cordoned.insert(id.clone())),
            false => drop(self.cordoned.remove(id)),
        }
        let Some(at) = self.fleets.find(id) else { return };
        if self.fleets.workers[at].cordoned == cordoned {
            return;
        }
        self.fleets.workers[at].cordoned = cordoned;
        self.upset(at);
        self.fleets.refresh(at);
        self.fits_anew(at);
        self.grown(at);
        self.give_up_native();
    }

    /// A worker is gone. Answers the work that was assigned to it: it is not any more.
    pub fn worker_gone(&mut self, now: Millis, id: &WorkerId) -> Vec<WorkId> {
        let Some(at) = self.fleets.find(id) else { return Vec::new() };
        let works: Vec<WorkId> =
            self.fleets.workers[at].running.iter().map(|(work, _)| *work).collect();
        for work in &works {
            self.ended(now, *work);
        }
        self.upset(at);
        let (worker, gone) = self.fleets.remove(at);
        self.awake.remove(&(worker.order, at));
        if let Some(fleet) = gone {
            self.classes.fleet_gone(fleet);
        }
        self.give_up_native();
        works
    }

    /// Nobody waits for a worker without emulator when there is none.
    fn give_up_native(&mut self) {
        let wait = |(at, class): (ClassIx, &Class)| {
            (!class.for_native.is_empty()).then_some((at, class.floor))
        };
        for (class, floor) in self.classes.all.iter().filter_map(wait).collect::<Vec<_>>() {
            let mut native = self.native_fleets(class).into_iter();
            if !native.any(|(_, fleet)| self.fleets.could(fleet, &floor)) {
                for (_, item) in self.classes.all[class].for_native.clone() {
                    self.unqueue(item);
                    self.queue(item);
                }
            }
        }
    }

    /// What was decided with a view to a worker does not hold any more.
    fn upset(&mut self, at: WorkerIx) {
        let worker = &mut self.fleets.workers[at];
        let (parked, reserved) = (worker.parked.clone(), worker.reserved);
        let fleet = worker.fleet;
        for (_, item) in parked {
            self.unqueue(item);
            self.queue(item);
        }
        reserved.into_iter().for_each(|class| self.unreserve(class));
        for (class, _) in self.fleets.fleets[fleet].classes.clone() {
            self.classes.open_wide(class);
        }
    }

    /// Work that no worker was large enough for may have found one.
    fn fits_anew(&mut self, at: WorkerIx) {
        let fleet = self.fleets.workers[at].fleet;
        for (class, _) in self.fleets.fleets[fleet].classes.clone() {
            let misfits = std::mem::take(&mut self.classes.all[class].misfits);
            misfits.into_values().for_each(|item| self.queue(item));
        }
    }

    /// A worker has more room than before.
    pub(super) fn grown(&mut self, at: WorkerIx) {
        let worker = &self.fleets.workers[at];
        if !worker.parked.is_empty() {
            self.awake.insert((worker.order, at));
        }
        for (class_ix, tier) in &self.fleets.fleets[worker.fleet].classes {
            let class = &self.classes.all[*class_ix];
            if !worker.fits(*class_ix, &class.floor) {
                continue;
            }
            if *tier == Tier::Native && !class.for_native.is_empty() {
                self.awake_native.insert(*class_ix);
            }
            self.classes.open_at(*class_ix, at);
        }
    }

    /// A worker that is there has an input.
    pub fn holds(&mut self, worker: &WorkerId, input: InputId) {
        if let Some(at) = self.fleets.find(worker) {
            self.holders.holds(input, (self.fleets.workers[at].order, at));
        }
    }

    /// A worker does not have an input any more.
    pub fn lost(&mut self, worker: &WorkerId, input: InputId) {
        self.holders.lost(input, order(worker.as_str()));
    }

    /// A worker has made an input anew: what others have is not it any more.
    pub fn renewed(&mut self, worker: &WorkerId, input: InputId) {
        self.holders.outdated(input);
        self.holds(worker, input);
    }
}
