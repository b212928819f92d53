//! Caches outside of the farm as OCI artifacts: `docs/cache-format.md`.
//!
//! [`document`] is the manifest and the config, which are pure; [`nodes`] is the exact form of a
//! layer's tree. How they move is [`push`](super::push)'s and [`pull`](super::pull)'s business.

pub mod document;
pub mod nodes;

pub use document::{BadArtifact, Written};

use super::unpack::{BadArchive, UnpackError};
use cache::store::StoreError;
use proto::error::Class;
use proto::id::RootId;

/// Why a layer of a cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Its files could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Its tree cannot be read.
    #[error("The tree of the layer {tree} cannot be read: {why}")]
    Nodes {
        /// The tree.
        tree: RootId,
        /// What is wrong.
        why: BadArchive,
    },
    /// Its tree is another one.
    #[error("The layer is not the tree {tree} that its record names")]
    OtherTree {
        /// The tree that it should be.
        tree: RootId,
    },
    /// The store could not do it, or its files are not those of its tree.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Unpack(e) => e.class(),
            Self::Nodes { .. } | Self::OtherTree { .. } => Class::Corrupt,
            Self::Store(e) => e.class(),
        }
    }
}
