//! Which work goes to which worker: a state machine without IO, clock or chance.
//!
//! Whoever owns a [`Placer`] tells it of workers ([`Placer::worker`], [`Placer::worker_gone`]) and
//! of work ([`Placer::ready`], [`Placer::withdraw`], [`Placer::ended`]), then calls
//! [`Placer::next`] until it answers nothing, and again at [`Placer::next_timeout`]. Work that
//! `next` answers is assigned: it takes room at its worker until it has ended. What room there is
//! follows from the assignments, and is never counted by itself.
//!
//! 1. **Whose turn**: fair queueing among projects, users and builds, the longest path first within
//!    a build ([`share`]).
//! 2. **Where**: the worker that can begin it the soonest, counting the bytes that it lacks over its
//!    bandwidth, and the emulator that it needs ([`choose`]). Waiting for a worker that has the
//!    inputs is chosen only when it is expected to be cheaper than moving them, and ends at the
//!    expected time; moving is what happens then.
//! 3. **Not past anybody for ever**: work for which there is no room lets others pass, but not more
//!    than [`BYPASS_MAX`] times: then a worker is kept free for it (as in Lifka, "The ANL/IBM SP
//!    scheduling system", 1995, where that is called backfilling with a reservation).
//!
//! A decision looks at a bounded number of workers: for each of the [`choose::INPUTS_LOOKED`]
//! largest inputs up to [`choose::HOLDERS_LOOKED`] of those that have it, and for each set of
//! platforms that workers have the [`choose::BEST_LOOKED`] with the most room. Of the work, only the
//! first of each class ([`class`]) is looked at.

mod arena;
mod choose;
mod class;
mod demand;
mod fleet;
mod history;
mod holders;
mod invariant;
mod members;
mod next;
mod search;
mod share;
#[cfg(test)]
mod tests;
mod view;
mod waiting;
mod why;
mod worker;

pub use choose::{BEST_LOOKED, EMULATED_FACTOR, HOLDERS_LOOKED, INPUTS_LOOKED};
pub use demand::{Demand, Flow, INPUT_BYTES_PRIOR, INPUTS_MAX, Input, InputId, Memory, Takes};
pub use history::{Expected, History, HistoryError, HistoryRows, Known};
pub use next::BYPASS_MAX;
pub use view::WorkerView;
pub use waiting::{Amount, Waiting};
pub use worker::FETCHES_MAX;

use super::WorkId;
use arena::{Arena, ClassIx, InputIx, ItemIx, NodeIx, WorkerIx};
use class::Classes;
use demand::Size;
use fleet::{Fleets, Tier};
use holders::Holders;
use proto::id::{Millis, WorkerId};
use share::Shares;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// The highest priority. Each level doubles the build's part of its user's share.
pub const PRIORITY_MAX: u8 = 8;

/// Work, from when it is ready until it has ended.
#[derive(Debug)]
struct Item {
    work: WorkId,
    class: ClassIx,
    build: NodeIx,
    size: Size,
    path: u64,
    expected: Expected,
    /// The largest first; none any more once it is assigned.
    inputs: Box<[(InputIx, u64)]>,
    since: Millis,
    /// Whether it may wait for something better than what there is.
    patient: bool,
    state: State,
}

/// Where work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits for its turn.
    Queued,
    /// It is too large for each worker that takes any.
    Misfit,
    /// It waits for something better than what there is.
    Parked { spot: Spot, until: Millis, moving_ms: u64, turn: u64 },
    /// It is assigned.
    Running { worker: WorkerIx, began: Millis, charged_ms: u64, tier: Tier },
}

/// What work waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// The worker that has its inputs.
    Holder(WorkerIx),
    /// Any worker that needs no emulator.
    Native,
}

/// Decides which work goes to which worker.
#[derive(Debug, Default)]
pub struct Placer {
    items: Arena<ItemIx, Item>,
    by_work: BTreeMap<WorkId, ItemIx>,
    shares: Shares,
    classes: Classes,
    fleets: Fleets,
    holders: Holders,
    /// When the patience of work ends that waits for something better.
    deadlines: BTreeSet<(Millis, WorkId)>,
    /// Workers that work waits for, and that got room.
    awake: BTreeSet<(u64, WorkerIx)>,
    /// Classes with work that waits for a worker without emulator, of which one got room.
    awake_native: BTreeSet<ClassIx>,
    /// Workers that get nothing new, whether they are there or not.
    cordoned: BTreeSet<WorkerId>,
    last_turn: u64,
}

impl Placer {
    /// A placer that knows of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Work can begin as soon as there is a place for it. If it is known already this is what it
    /// asks for now; if it is assigned already, nothing changes.
    pub fn ready(&mut self, now: Millis, work: WorkId, demand: &Demand) {
        let known = self.by_work.get(&work).map(|at| &self.items[*at]);
        let (since, patient) = match known {
            Some(Item { state: State::Running { .. }, .. }) => return,
            Some(item) => (item.since, item.patient),
            None => (now, true),
        };
        self.withdraw(work);
        let at = self.enter(since, work, demand);
        self.items[at].patient = patient;
        self.queue(at);
    }

    fn enter(&mut self, since: Millis, work: WorkId, demand: &Demand) -> ItemIx {
        let weight = 1 << demand.flow.priority.min(PRIORITY_MAX);
        let build = self.shares.enter(&Classes::lane(demand), &demand.flow, weight);
        let lane = self.shares.lane_of(build);
        let class = self.classes.enter(demand, lane, &mut self.fleets);
        let mut inputs = demand.inputs.clone();
        inputs.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.id.cmp(&b.id)));
        inputs.truncate(INPUTS_MAX);
        let inputs = inputs.iter().map(|i| (self.holders.need(i.id), i.bytes)).collect();
        let item = Item {
            work,
            class,
            build,
            size: Size::of(demand),
            path: demand.path_ms,
            expected: demand.expected,
            inputs,
            since,
            patient: true,
            state: State::Queued,
        };
        let at = self.items.insert(item);
        self.by_work.insert(work, at);
        at
    }

    /// Lets it wait for its turn.
    fn queue(&mut self, at: ItemIx) {
        let item = &mut self.items[at];
        item.state = State::Queued;
        self.shares.insert(item.since.0, item.build, item.class, item.path, item.work, at);
        self.classes.queued(item.class, &item.size);
    }

    /// Takes it out of whatever it waits in.
    fn unqueue(&mut self, at: ItemIx) {
        let item = &self.items[at];
        let (class, work) = (item.class, item.work);
        match item.state {
            State::Queued => {
                self.shares.remove(item.build, class, item.path, work, at);
                self.classes.all[class].queued -= 1;
                if self.classes.all[class].queued == 0 {
                    self.classes.open.remove(&class);
                    self.unreserve(class);
                }
            }
            State::Misfit => drop(self.classes.all[class].misfits.remove(&work)),
            State::Parked { spot, until, turn, .. } => {
                self.deadlines.remove(&(until, work));
                match spot {
                    Spot::Holder(w) => self.fleets.workers[w].parked.remove(&(turn, at)),
                    Spot::Native => self.classes.all[class].for_native.remove(&(turn, at)),
                };
            }
            State::Running { .. } => {}
        }
    }

    /// Work is not wanted any more, or cannot begin any more. Nothing happens to what is assigned.
    pub fn withdraw(&mut self, work: WorkId) {
        let Some(at) = self.by_work.get(&work).copied() else { return };
        if matches!(self.items[at].state, State::Running { .. }) {
            return;
        }
        self.unqueue(at);
        let item = self.items.remove(at);
        self.by_work.remove(&work);
        self.leave_class(item.class);
        item.inputs.iter().for_each(|(input, _)| self.holders.release(*input));
        self.shares.release(item.build);
    }

    fn leave_class(&mut self, class: ClassIx) {
        if self.classes.leave(class, &mut self.fleets) {
            self.awake_native.remove(&class);
        }
    }

    /// Assigned work has ended, however it did. Answers whether it was assigned.
    pub fn ended(&mut self, now: Millis, work: WorkId) -> bool {
        let Entry::Occupied(entry) = self.by_work.entry(work) else { return false };
        let at = *entry.get();
        let State::Running { worker, began, charged_ms, .. } = self.items[at].state else {
            return false;
        };
        entry.remove();
        let item = self.items.remove(at);
        let shares = self.fleets.workers[worker].totals.shares_milli(&item.size);
        let cost = now.since(began).saturating_mul(shares) / 1000;
        self.shares.settle(item.build, charged_ms, cost);
        self.shares.release(item.build);
        self.fleets.end(worker, work);
        self.grown(worker);
        true
    }

    /// Work is being done by a worker that nobody assigned it to here: it was, before this placer
    /// was made. Answers whether the worker is known, and the work was not assigned already.
    pub fn adopt(&mut self, now: Millis, work: WorkId, demand: &Demand, worker: &WorkerId) -> bool {
        let Some(to) = self.fleets.find(worker) else { return false };
        let known = self.by_work.get(&work);
        if known.is_some_and(|at| matches!(self.items[*at].state, State::Running { .. })) {
            return false;
        }
        self.ready(now, work, demand);
        self.assign(now, self.by_work[&work], to);
        true
    }

    /// A project's weight among the others; 1 if nothing else was said.
    pub fn weight(&mut self, project: &str, weight: u32) {
        self.shares.set_weight(project, weight);
    }

    /// When [`Placer::next`] is to be called even if nothing happens.
    pub fn next_timeout(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Which worker it is assigned to.
    pub fn assigned(&self, work: WorkId) -> Option<&WorkerId> {
        let item = &self.items[*self.by_work.get(&work)?];
        match item.state {
            State::Running { worker, .. } => Some(&self.fleets.workers[worker].id),
            State::Queued | State::Misfit | State::Parked { .. } => None,
        }
    }

    /// Whether it is assigned to a worker that needs an emulator for it.
    pub fn is_emulated(&self, work: WorkId) -> bool {
        let item = self.by_work.get(&work).map(|at| &self.items[*at]);
        let state = item.map(|item| item.state);
        matches!(state, Some(State::Running { tier: Tier::Emulated, .. }))
    }

    /// Since when work waits, if it does.
    pub fn waits_since(&self, work: WorkId) -> Option<Millis> {
        let item = &self.items[*self.by_work.get(&work)?];
        (!matches!(item.state, State::Running { .. })).then_some(item.since)
    }

    /// How many pieces of work are known: they wait, or are assigned.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no work is known.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
