//! What a piece of work asks of a worker.

use super::history::Expected;
use proto::canon;
use proto::id::{BuildId, RootId, Scope};
use proto::platform::Platform;
use std::sync::Arc;

/// How many inputs of one piece of work are looked at: the largest ones. What the others weigh is
/// little beside them, and the same on every worker that lacks them.
pub const INPUTS_MAX: usize = 8;

/// What an input is taken to weigh whose size nobody knows.
pub const INPUT_BYTES_PRIOR: u64 = 16 << 20;

/// Something that lies on a worker's disk, or has to be moved there: a layer, a tree that is bound,
/// a generation of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputId([u8; 32]);

impl InputId {
    /// A tree.
    pub fn tree(root: &RootId) -> Self {
        Self(*root.0.as_bytes())
    }

    /// A part of it, which is as evenly spread as a hash: it is one, or comes from one.
    pub(super) fn number(self) -> u64 {
        let (first, _) = self.0.split_first_chunk().expect("8 of 32 bytes");
        u64::from_le_bytes(*first)
    }

    /// The newest generation of a cache mount.
    pub fn cache_mount(scope: &Scope, id: &str) -> Self {
        Self(canon::hash("slipway 2026-11 place of a cache mount", |c| {
            c.text(scope.as_str()).text(id);
        }))
    }
}

/// An input, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Which.
    pub id: InputId,
    /// How much there is to move where it is not.
    pub bytes: u64,
}

/// What a piece of work takes up at a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takes {
    /// A slot, processors and memory: a RUN.
    Slot,
    /// A connection: a pull or a download.
    Connection,
}

/// How much memory it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    /// One slot's share of the worker's memory.
    Share,
    /// What it used before, in bytes. A guess, for the kernel counts files that were read as well:
    /// it never makes work too large for a worker, and never takes more than half of one.
    Learnt(u64),
    /// What the person asks for, in bytes.
    Asked(u64),
}

/// On whose behalf it is done. Projects share the farm by their weights, the users of a project
/// share alike, and the builds of a user by their priorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The project.
    pub project: Arc<str>,
    /// The user, within the project.
    pub user: Arc<str>,
    /// The build.
    pub build: BuildId,
    /// The build's priority: each level above 0 doubles its part of what its user gets. Levels
    /// above [`super::PRIORITY_MAX`] are that one.
    pub priority: u8,
}

/// What a piece of work asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// On whose behalf.
    pub flow: Flow,
    /// What it takes up.
    pub takes: Takes,
    /// The platform that it needs. What takes a connection only can be done anywhere.
    pub platform: Platform,
    /// Processors, in thousandths; 0: one slot's share.
    pub cpu_millis: u32,
    /// Memory.
    pub memory: Memory,
    /// How many milliseconds are expected from its beginning to the end of the longest path that
    /// leads on from it: within a build the longest goes first.
    pub path_ms: u64,
    /// How long it is expected to take.
    pub expected: Expected,
    /// What has to be on its worker.
    pub inputs: Vec<Input>,
}

/// The part of a demand that decides whether a worker has room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size {
    pub takes: Takes,
    pub cpu_millis: u32,
    pub memory: Memory,
}

impl Size {
    pub fn of(demand: &Demand) -> Self {
        match demand.takes {
            Takes::Slot => {
                Self { takes: Takes::Slot, cpu_millis: demand.cpu_millis, memory: demand.memory }
            }
            Takes::Connection => {
                Self { takes: Takes::Connection, cpu_millis: 0, memory: Memory::Share }
            }
        }
    }

    /// Whether it asks for no more than any slot has.
    pub fn is_plain(&self) -> bool {
        self.cpu_millis == 0 && self.memory == Memory::Share
    }

    /// Whether there may be room for it where there is none for the other.
    pub fn may_fit_before(&self, other: &Self) -> bool {
        let memory = match (self.memory, other.memory) {
            (Memory::Learnt(own), Memory::Learnt(others))
            | (Memory::Asked(own), Memory::Asked(others)) => own < others,
            (own, others) => own != others,
        };
        memory || self.cpu_millis < other.cpu_millis
    }

    /// Sizes in the same band differ by less than a quarter.
    pub fn band(&self) -> (u8, u8, u8) {
        let (kind, bytes) = match self.memory {
            Memory::Share => (0, 0),
            Memory::Learnt(bytes) => (1, bytes),
            Memory::Asked(bytes) => (2, bytes),
        };
        (band(u64::from(self.cpu_millis)), kind, band(bytes))
    }

    /// The least of its band.
    pub fn floor(&self) -> Self {
        let least = |n: u64| band_floor(band(n));
        let memory = match self.memory {
            Memory::Share => Memory::Share,
            Memory::Learnt(bytes) => Memory::Learnt(least(bytes)),
            Memory::Asked(bytes) => Memory::Asked(least(bytes)),
        };
        Self { cpu_millis: least(u64::from(self.cpu_millis)) as u32, memory, ..*self }
    }
}

/// Four bands for each power of two; 0 alone for none.
fn band(n: u64) -> u8 {
    match n {
        0..=3 => n as u8,
        n => {
            let octave = n.ilog2();
            (octave * 4 - 4 + (n >> (octave - 2) & 3) as u32) as u8
        }
    }
}

/// The least number in a band.
fn band_floor(band: u8) -> u64 {
    match band {
        0..=3 => u64::from(band),
        band => {
            let (octave, quarter) = (u32::from(band) / 4 + 1, u64::from(band) % 4);
            (4 + quarter) << (octave - 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_in_order_and_a_quarter_wide() {
        let mut last = 0;
        for n in (0..2000).chain([1 << 30, (1 << 30) + (1 << 28), u64::MAX]) {
            let b = band(n);
            assert!(b >= last, "{n}");
            let floor = band_floor(b);
            assert!(floor <= n && n - floor <= floor / 4, "{n} in {b} from {floor}");
            assert_eq!(band(floor), b, "{n}");
            last = b;
        }
    }
}
