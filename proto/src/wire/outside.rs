//! Caches outside of the farm: at a registry, or in a directory of the client's. A build takes
//! records from them (`--cache-from`) and gives its own to them (`--cache-to`).
//!
//! What lies in one is documented in `docs/cache-format.md`. These are the same things for those
//! who need not know how they are written.

use crate::id::{BuildId, ContentKey, DefKey, Millis, OciDigest, RootId};
use crate::record::{Alias, Cost, Record};
use crate::step::PackedRef;
use crate::wire::build::{ArchiveEntry, Packing};
use rkyv::{Archive, Deserialize, Serialize};

/// A cache that a build takes records from.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheFrom {
    /// Where it is.
    pub place: CachePlace,
    /// As the person named it.
    pub name: String,
}

/// Where a cache is that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CachePlace {
    /// At a registry, under this full reference.
    Registry(String),
    /// A directory of the client's: its number among those that the client reads from.
    Client(u32),
}

/// A cache that a build gives its records to.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheTo {
    /// The full reference at a registry; none for a directory of the client's.
    pub reference: Option<String>,
    /// As the person named it.
    pub name: String,
    /// Which steps.
    pub mode: CacheMode,
    /// How layers are packed that are not packed yet.
    pub packing: Packing,
    /// Whether the build succeeds when the cache cannot be written.
    pub may_fail: bool,
}

/// Which steps a cache has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CacheMode {
    /// Those whose layers are in the image.
    Min,
    /// All of the build.
    Max,
}

/// A record, and the definition that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CachedRecord {
    /// What was to be done.
    pub definition: DefKey,
    /// On what it was done.
    pub content: ContentKey,
    /// The version of the record.
    pub version: u64,
    /// The inputs that have records: definition and version.
    pub inputs: Vec<(DefKey, u64)>,
    /// The layers that came out, lowest first.
    pub layers: Vec<RootId>,
    /// When it was made.
    pub created: Millis,
    /// What it took.
    pub cost: Cost,
}

impl CachedRecord {
    /// What is told to others of a record.
    pub fn new(definition: DefKey, alias: &Alias, record: &Record) -> Self {
        Self {
            definition,
            content: alias.key,
            version: record.version,
            inputs: alias.inputs.clone(),
            layers: record.layers.clone(),
            created: record.created,
            cost: record.cost,
        }
    }

    /// How the record is found by its definition.
    pub fn alias(&self) -> Alias {
        Alias { key: self.content, version: self.version, inputs: self.inputs.clone() }
    }

    /// The record. Logs stay with who made it.
    pub fn record(&self) -> Record {
        Record {
            layers: self.layers.clone(),
            created: self.created,
            log: None,
            cost: self.cost,
            producer: None,
            version: self.version,
        }
    }
}

/// A layer in a cache: its files, packed as for an image, and its tree, which says exactly what
/// they are.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CachedLayer {
    /// The diff tree.
    pub tree: RootId,
    /// SHA-256 of the files' tar.
    pub diff_id: OciDigest,
    /// The tar, packed.
    pub files: PackedRef,
    /// The tree's nodes, packed.
    pub nodes: PackedRef,
}

/// What a cache has.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheContent {
    /// The records.
    pub records: Vec<CachedRecord>,
    /// The layers that they name, each once.
    pub layers: Vec<CachedLayer>,
}

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheExport {
    /// The build, whose client's logins count.
    pub build: BuildId,
    /// Where to, and how.
    pub to: CacheTo,
    /// The records.
    pub records: Vec<CachedRecord>,
    /// Of their layers, those that lie in other caches already, and where.
    pub known: Vec<(CachedLayer, CachePlace)>,
}

/// A cache that was written.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CacheWritten {
    /// At its registry.
    Pushed(OciDigest),
    /// For the client to write into its directory.
    Files {
        /// What stands in it.
        entries: Vec<ArchiveEntry>,
        /// Blobs that the client has in the directories that it read from: digest and size.
        own: Vec<(OciDigest, u64)>,
    },
    /// Not, and the build goes on without it.
    Failed,
}
