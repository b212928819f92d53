//! Why a root file system could not be made, mounted or read back.

use cache::store::StoreError;
use proto::error::Class;
use proto::id::{RootId, TreeId};
use std::io;
use std::path::{Path, PathBuf};

/// Why a root file system could not be made, mounted or read back.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted: `Creating`, `Reading`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store failed, or a blob or tree is not in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Directories inside directories, beyond what a tree may hold.
    #[error(
        "{} lies deeper than {max} directories, which is the limit",
        path.display(),
        max = proto::limit::TREE_DEPTH_MAX
    )]
    TooDeep {
        /// The directory that is too deep.
        path: PathBuf,
    },
    /// More entries in a directory than a tree node may hold, or a value beyond its limit.
    #[error("{} cannot be kept: {why}", path.display())]
    Limit {
        /// The file or directory.
        path: PathBuf,
        /// Which limit it breaks.
        why: String,
    },
    /// A tree node of the wrong kind: a root where a directory should be, or the reverse.
    #[error("Tree {0} is not of the kind that its parent says")]
    Kind(TreeId),
    /// The kernel would not mount the layers.
    #[error("Mounting an overlay file system of {layers} layers: {source}")]
    Mount {
        /// How many directories were to be put upon each other.
        layers: usize,
        /// Why not.
        source: io::Error,
    },
    /// What a name leads to changed its kind while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Another process works in the directory.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A layer is not in the cache under that name.
    #[error("Layer {0} is not materialised")]
    NoLayer(RootId),
    /// A thread that worked on a tree panicked.
    #[error("A thread that worked on a tree panicked")]
    Panicked,
}

impl RootfsError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Store(e) => e.class(),
            Self::Io { source, .. } | Self::Mount { source, .. } => class_of(source),
            Self::TooDeep { .. } | Self::Limit { .. } => Class::User,
            Self::Kind(_) => Class::Corrupt,
            Self::Changed { .. } | Self::NoLayer(_) | Self::Panicked => Class::Bug,
            Self::InUse { .. } => Class::Busy,
        }
    }

    /// Names what was done and where, for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |e| Self::Io { action, path: path.as_ref().to_owned(), source: e.into() }
    }
}

/// Whose trouble an operating system's refusal is.
pub(crate) fn class_of(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::Busy,
        io::ErrorKind::PermissionDenied => Class::Denied,
        _ => Class::Unavailable,
    }
}
