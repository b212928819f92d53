//! How a farm is at a moment: what `slipway top` shows.

use crate::id::{BuildId, Millis, WorkerId};
use crate::platform::Platform;
use rkyv::{Archive, Deserialize, Serialize};

/// How a farm is. Of each kind at most [`crate::limit::OVERVIEW_ROWS_MAX`] rows are told; the counts
/// are of all.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Overview {
    /// When it was so.
    pub at: Millis,
    /// The workers that are there, by name.
    pub workers: Vec<WorkerNow>,
    /// Steps that workers do, the oldest first.
    pub running: Vec<StepRuns>,
    /// Steps that could begin for more than a second and wait.
    pub waiting: Vec<StepWaits>,
    /// Builds that are under way.
    pub builds: Vec<BuildNow>,
    /// How many steps workers do.
    pub running_count: u64,
    /// How many steps wait.
    pub waiting_count: u64,
    /// How many builds are under way.
    pub build_count: u64,
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum WorkerState {
    /// It gets work.
    Open,
    /// An operator wants that it gets nothing new.
    Cordoned,
    /// It is about to end, and takes nothing new.
    Draining,
    /// It is short of memory, and gets nothing new until it is not.
    ShortOfMemory,
    /// It is short of room on its disk, and gets nothing new until it is not.
    ShortOfDisk,
    /// Its connection broke: when it does not come back soon, what it does is done elsewhere.
    Away,
}

impl WorkerState {
    /// In a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "serving",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::ShortOfMemory => "short of memory",
            Self::ShortOfDisk => "short of disk",
            Self::Away => "away",
        }
    }
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WorkerNow {
    /// Who it is.
    pub id: WorkerId,
    /// How it is.
    pub state: WorkerState,
    /// What it runs.
    pub platforms: Vec<Platform>,
    /// RUNs that it can do at once.
    pub slots: u32,
    /// RUNs that it does.
    pub slots_used: u32,
    /// Pulls and downloads that it does.
    pub fetches: u32,
    /// Bytes of memory that RUNs can use together; 0: not known.
    pub memory_bytes: u64,
    /// Bytes of it that what runs was given.
    pub memory_taken: u64,
    /// Bytes that are free on its disk; 0: not known.
    pub disk_free_bytes: u64,
}

/// A step that a worker does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepRuns {
    /// The builds that wait for it.
    pub builds: Vec<BuildId>,
    /// Its name.
    pub name: String,
    /// Who does it.
    pub worker: WorkerId,
    /// Since when.
    pub since: Millis,
}

/// A step that could begin, and waits.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepWaits {
    /// The builds that wait for it.
    pub builds: Vec<BuildId>,
    /// Its name.
    pub name: String,
    /// Since when it could begin.
    pub since: Millis,
    /// What for, in a word: `busy`, `share`. The words are those of the metric
    /// `slipway_steps_waiting`.
    pub reason: String,
    /// What for, in a sentence.
    pub why: String,
}

/// A build that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BuildNow {
    /// Its name.
    pub id: BuildId,
    /// Whose it is.
    pub who: String,
    /// What the person calls it.
    pub description: String,
    /// When it began.
    pub started: Millis,
    /// Steps that are done, those with earlier results among them.
    pub steps_done: u32,
    /// Steps whose earlier results were taken.
    pub steps_cached: u32,
}
