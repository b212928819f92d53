//! One state of a cache mount.

use crate::tree::{Nodes, TreeError, root};
use proto::id::{Millis, RootId, WorkerId};
use proto::mount::Measured;
use rkyv::{Archive, Deserialize, Serialize};

/// Measures a tree. Reads its root only.
pub fn measure(nodes: &dyn Nodes, tree: &RootId) -> Result<Measured, TreeError> {
    let sum = root(nodes, tree)?.dir.summary;
    Ok(Measured { tree: *tree, bytes: sum.bytes, files: sum.entries })
}

/// One state of a cache mount. Never changes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Generation {
    /// Counted from 1 on in each mount; a later one has a higher number.
    pub number: u64,
    /// Its files.
    pub tree: RootId,
    /// The generation that its writer began with; `None` when it began with nothing.
    pub parent: Option<u64>,
    /// Bytes of its files, each name of a linked file counted.
    pub bytes: u64,
    /// Its files and directories.
    pub files: u64,
    /// When it was made.
    pub created: Millis,
    /// Who made its files.
    pub writer: WorkerId,
    /// How it came to be.
    pub how: How,
}

/// How a generation came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum How {
    /// A step's tree as it left it.
    Committed,
    /// A step's tree united with that of another one, which was faster.
    Merged {
        /// The generation of the other one.
        theirs: u64,
    },
    /// The files of an earlier generation, because somebody asked for them.
    RolledBack {
        /// The earlier one.
        to: u64,
    },
    /// From elsewhere: the files that a mount begins with, those of another scope or farm.
    Imported,
}
