//! Finding a worker with room among many: a tree of what the workers below each node have at most.
//!
//! Where none of the maxima is reached there is no need to look further down. Usually a search
//! looks at about as many nodes as the tree is deep; when the maxima are those of different
//! workers, it may look at all. So it is used where the best workers of the lists have no room, and
//! never again for the same want before something has changed.

use super::arena::WorkerIx;
use super::demand::{Memory, Size, Takes};

/// What one worker has, or what several of them have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Free slots.
    pub slots: u32,
    /// Free processors, in thousandths.
    pub cpu_millis: u32,
    /// Free bytes of memory.
    pub memory_bytes: u64,
    /// Whether there is one slot's share of processors left.
    pub cpu_share: bool,
    /// Whether there is one slot's share of memory left.
    pub memory_share: bool,
    /// Whether there is half of the memory left.
    pub memory_half: bool,
    /// Slots, free or not.
    pub slots_in_all: u32,
    /// Processors, free or not.
    pub cpu_in_all: u32,
    /// Memory, free or not.
    pub memory_in_all: u64,
    /// The slots of all of them together.
    pub slots_sum: u64,
    /// When the first of what runs is expected to end: milliseconds since 1970.
    pub soonest: u64,
}

impl Peak {
    /// Nothing at all.
    pub const NONE: Self = Self {
        slots: 0,
        cpu_millis: 0,
        memory_bytes: 0,
        cpu_share: false,
        memory_share: false,
        memory_half: false,
        slots_in_all: 0,
        cpu_in_all: 0,
        memory_in_all: 0,
        slots_sum: 0,
        soonest: u64::MAX,
    };

    fn with(&self, other: &Self) -> Self {
        Self {
            slots: self.slots.max(other.slots),
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            cpu_share: self.cpu_share | other.cpu_share,
            memory_share: self.memory_share | other.memory_share,
            memory_half: self.memory_half | other.memory_half,
            slots_in_all: self.slots_in_all.max(other.slots_in_all),
            cpu_in_all: self.cpu_in_all.max(other.cpu_in_all),
            memory_in_all: self.memory_in_all.max(other.memory_in_all),
            slots_sum: self.slots_sum + other.slots_sum,
            soonest: self.soonest.min(other.soonest),
        }
    }

    /// Whether there may be room now. Of one worker: whether there is.
    pub fn fits(&self, size: &Size) -> bool {
        let cpu = match size.cpu_millis {
            0 => self.cpu_share,
            millis => millis <= self.cpu_millis,
        };
        let memory = match size.memory {
            Memory::Share => self.memory_share,
            Memory::Learnt(bytes) => bytes <= self.memory_bytes || self.memory_half,
            Memory::Asked(bytes) => bytes <= self.memory_bytes,
        };
        size.takes == Takes::Slot && self.slots > 0 && cpu && memory
    }

    /// Whether there may be room when nothing else runs. Of one worker: whether there will be.
    pub fn could(&self, size: &Size) -> bool {
        let memory = match size.memory {
            Memory::Share | Memory::Learnt(_) => true,
            Memory::Asked(bytes) => bytes <= self.memory_in_all,
        };
        self.slots_in_all > 0 && size.cpu_millis <= self.cpu_in_all && memory
    }
}

/// The tree. Workers stand in the order that they are given in.
#[derive(Debug)]
pub struct Search {
    workers: Vec<WorkerIx>,
    /// Node 1 is the root, those below `n` are `2 * n` and `2 * n + 1`; the last half are workers.
    nodes: Vec<Peak>,
    leaves: usize,
}

impl Search {
    /// A tree of these workers.
    pub fn new(workers: impl IntoIterator<Item = (WorkerIx, Peak)>) -> Self {
        let (workers, peaks): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        let leaves = workers.len().next_power_of_two();
        let mut nodes = vec![Peak::NONE; leaves];
        nodes.extend(&peaks);
        nodes.resize(2 * leaves, Peak::NONE);
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node].with(&nodes[2 * node + 1]);
        }
        Self { workers, nodes, leaves }
    }

    /// The workers' places.
    pub fn places(&self) -> impl Iterator<Item = (WorkerIx, u32)> {
        self.workers.iter().copied().zip(0..)
    }

    /// The worker at that place has this now.
    pub fn set(&mut self, place: u32, peak: Peak) {
        let mut node = self.leaves + place as usize;
        self.nodes[node] = peak;
        while node > 1 {
            node /= 2;
            let both = self.nodes[2 * node].with(&self.nodes[2 * node + 1]);
            if self.nodes[node] == both {
                return;
            }
            self.nodes[node] = both;
        }
    }

    /// What there is at most.
    pub fn top(&self) -> &Peak {
        &self.nodes[1]
    }

    /// The workers of whom something holds, in order. It must hold of what several workers have at
    /// most, if it holds of one of them.
    pub fn all<'s>(&'s self, holds: impl Fn(&Peak) -> bool + 's) -> impl Iterator<Item = WorkerIx> {
        let mut next = vec![1];
        std::iter::from_fn(move || {
            while let Some(node) = next.pop() {
                match (holds(&self.nodes[node]), node >= self.leaves) {
                    (true, true) => return self.workers.get(node - self.leaves).copied(),
                    (true, false) => next.extend([2 * node + 1, 2 * node]),
                    (false, _) => {}
                }
            }
            None
        })
    }
}
