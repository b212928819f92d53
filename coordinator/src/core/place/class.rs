//! Work that asks for about the same: as long as there is no room for the first of a class, nobody
//! looks at the others.
//!
//! A class is what is taken up, for which platform, and how much of it in bands of a quarter. So
//! there are at most a few thousand, whatever is asked for, and usually one for each platform. Those
//! without work are forgotten.

use super::arena::{Arena, ClassIx, FleetIx, ItemIx, NodeIx, WorkerIx};
use super::demand::{Demand, Size, Takes};
use super::fleet::{Fleet, Fleets, Tier};
use crate::core::WorkId;
use proto::platform::Platform;
use std::collections::{BTreeMap, BTreeSet};

/// Workers that got room, remembered by name; when there are more, all are looked at.
const HINTS_MAX: usize = 4;

type Name = (Takes, Platform, (u8, u8, u8));

/// Whether it is worth looking for room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// It is: at these workers, or anywhere.
    Open { hints: Vec<WorkerIx>, anywhere: bool },
    /// It is not: there was no room for this.
    Closed(Size),
}

impl Door {
    const WIDE: Self = Self::Open { hints: Vec::new(), anywhere: true };
}

/// A class.
#[derive(Debug)]
pub struct Class {
    pub takes: Takes,
    pub platform: Platform,
    /// The least that any work in it asks for.
    pub floor: Size,
    /// Its lane in the tree of shares.
    pub lane: NodeIx,
    /// Work that waits, in whatever way.
    pub members: u32,
    /// Work that waits for its turn.
    pub queued: u32,
    pub door: Door,
    /// Work that is too large for each worker that takes any.
    pub misfits: BTreeMap<WorkId, ItemIx>,
    /// Work that waits for a worker that needs no emulator, in the order in which it began to.
    pub for_native: BTreeSet<(u64, ItemIx)>,
    /// How often work that stood behind its first was placed before it.
    pub passed: u32,
    /// The worker where room is made for its first.
    pub reserved: Option<WorkerIx>,
    /// The workers that can do it.
    pub fleets: Vec<(Tier, FleetIx)>,
}

/// All classes with work.
#[derive(Debug, Default)]
pub struct Classes {
    pub all: Arena<ClassIx, Class>,
    by_name: BTreeMap<Name, ClassIx>,
    /// Those with work that waits for its turn, and perhaps room for it.
    pub open: BTreeSet<ClassIx>,
}

impl Classes {
    /// The lane that work belongs to: who waits for one platform does not compete for another.
    pub fn lane(demand: &Demand) -> String {
        match demand.takes {
            Takes::Slot => demand.platform.to_string(),
            Takes::Connection => String::new(),
        }
    }

    /// The class of work, which joins it.
    pub fn enter(&mut self, demand: &Demand, lane: NodeIx, fleets: &mut Fleets) -> ClassIx {
        let size = Size::of(demand);
        let name = (demand.takes, demand.platform.clone(), size.band());
        let at = match self.by_name.get(&name) {
            Some(at) => *at,
            None => {
                let class = Class {
                    takes: demand.takes,
                    platform: demand.platform.clone(),
                    floor: size.floor(),
                    lane,
                    members: 0,
                    queued: 0,
                    door: Door::WIDE,
                    misfits: BTreeMap::new(),
                    for_native: BTreeSet::new(),
                    passed: 0,
                    reserved: None,
                    fleets: Vec::new(),
                };
                let at = self.all.insert(class);
                self.by_name.insert(name, at);
                fleets.fleets.iter_mut().for_each(|(f, fleet)| self.know(at, f, fleet));
                at
            }
        };
        self.all[at].members += 1;
        at
    }

    /// The class may be able to use a fleet.
    fn know(&mut self, at: ClassIx, f: FleetIx, fleet: &mut Fleet) {
        let class = &mut self.all[at];
        let tier = fleet.tier(&class.platform);
        if class.takes == Takes::Connection || tier != Tier::Foreign {
            class.fleets.push((tier, f));
            fleet.classes.push((at, tier));
        }
    }

    /// There is a new fleet.
    pub fn new_fleet(&mut self, f: FleetIx, fleet: &mut Fleet) {
        let all: Vec<ClassIx> = self.all.iter().map(|(at, _)| at).collect();
        all.into_iter().for_each(|at| self.know(at, f, fleet));
    }

    /// A fleet is gone.
    pub fn fleet_gone(&mut self, fleet: FleetIx) {
        for at in self.all.iter().map(|(at, _)| at).collect::<Vec<_>>() {
            self.all[at].fleets.retain(|(_, f)| *f != fleet);
        }
    }

    /// A piece of work leaves. A class without work is forgotten; answers whether it was.
    pub fn leave(&mut self, at: ClassIx, fleets: &mut Fleets) -> bool {
        let class = &mut self.all[at];
        class.members -= 1;
        if class.members > 0 {
            return false;
        }
        let class = self.all.remove(at);
        self.open.remove(&at);
        self.by_name.remove(&(class.takes, class.platform, class.floor.band()));
        for (_, f) in class.fleets {
            fleets.fleets[f].classes.retain(|(c, _)| *c != at);
        }
        true
    }

    /// Work in it waits for its turn.
    pub fn queued(&mut self, at: ClassIx, size: &Size) {
        let class = &mut self.all[at];
        class.queued += 1;
        let opens = match &class.door {
            Door::Open { .. } => true,
            Door::Closed(refused) => class.queued == 1 || size.may_fit_before(refused),
        };
        if opens {
            self.open_wide(at);
        }
    }

    /// There may be room anywhere.
    pub fn open_wide(&mut self, at: ClassIx) {
        let class = &mut self.all[at];
        class.door = Door::WIDE;
        if class.queued > 0 {
            self.open.insert(at);
        }
    }

    /// There may be room at a worker.
    pub fn open_at(&mut self, at: ClassIx, worker: WorkerIx) {
        let class = &mut self.all[at];
        match &mut class.door {
            Door::Open { hints, anywhere: false } if hints.contains(&worker) => {}
            Door::Open { hints, anywhere: false } if hints.len() < HINTS_MAX => hints.push(worker),
            Door::Open { anywhere, .. } => *anywhere = true,
            Door::Closed(_) => {
                class.door = Door::Open { hints: vec![worker], anywhere: false };
            }
        }
        if class.queued > 0 {
            self.open.insert(at);
        }
    }

    /// There is no room for its first.
    pub fn close(&mut self, at: ClassIx, refused: Size) {
        self.all[at].door = Door::Closed(refused);
        self.open.remove(&at);
    }
}
