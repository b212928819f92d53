//! Step records: what came out of a step.

use crate::id::{BlobId, ContentKey, DefKey, Millis, RootId, WorkerId};
use rkyv::{Archive, Deserialize, Serialize};

/// What a step made, under its [`ContentKey`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Record {
    /// The layers that it adds, lowest first: one for a step, all of them for an image.
    pub layers: Vec<RootId>,
    /// When it was made. Part of the image: a hit gives the same image id.
    pub created: Millis,
    /// What it wrote to its standard output and error.
    pub log: Option<BlobId>,
    /// How long it took.
    pub cost: Cost,
    /// Who made it.
    pub producer: Option<WorkerId>,
    /// Its place in the sequence of decisions. A later result for the same key has a higher one.
    pub version: u64,
}

/// What a step used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Cost {
    /// Milliseconds from start to end.
    pub wall_ms: u64,
    /// Milliseconds of processor time.
    pub cpu_ms: u64,
    /// The most bytes of memory at once.
    pub memory_peak_bytes: u64,
}

/// Which record a definition led to, and from which inputs: so that a record can be found before
/// its inputs are known, and is not taken when they have changed since.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Alias {
    /// The record.
    pub key: ContentKey,
    /// The record's version when the alias was written.
    pub version: u64,
    /// The inputs that were used: definition and version.
    pub inputs: Vec<(DefKey, u64)>,
}
