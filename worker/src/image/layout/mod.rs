//! Images in OCI layouts of clients. The client finds out which files an image needs ([`choose`]),
//! and sends the directory `blobs/sha256` with these files in it and no others; whoever needs one of
//! them takes it from there ([`files`]), and believes nothing but its digest.

mod choose;
pub mod files;
#[cfg(test)]
mod tests;

pub use choose::{Chosen, Which, choose};

use cache::store::StoreError;
use proto::error::Class;
use proto::id::OciDigest;
use std::io;
use std::path::{Path, PathBuf};

/// Where a layout has its files, each named by its digest in hexadecimal.
pub const BLOBS: &str = "blobs/sha256";

/// Why an image of a layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The directory is none.
    #[error("{} is no OCI layout: it has no `index.json`", .0.display())]
    NoLayout(PathBuf),
    /// No image is the one that is meant.
    #[error("The layout has no image with the tag `{tag}`: {}", tags(.there))]
    NoTag {
        /// The tag.
        tag: String,
        /// The tags that there are.
        there: Vec<String>,
    },
    /// A file that is named is not there.
    #[error("The layout has no `{0}`")]
    Missing(String),
    /// A file that is not what its name says.
    #[error("`{path}` of the layout is damaged: expected {expected}, got {actual}")]
    Damaged {
        /// Its path in the layout.
        path: String,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A document that cannot be used.
    #[error("`{path}` of the layout cannot be used: {why}")]
    Document {
        /// Its path in the layout.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read.
    #[error("Reading {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LayoutError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Damaged { .. } => Class::Corrupt,
            Self::Store(e) => e.class(),
            Self::NoLayout(_)
            | Self::NoTag { .. }
            | Self::Missing(_)
            | Self::Document { .. }
            | Self::Read { .. } => Class::User,
        }
    }
}

fn tags(there: &[String]) -> String {
    match there {
        [] => "none of its images has one".to_owned(),
        there => format!("there are {}", there.join(", ")),
    }
}

/// Where a file is in a layout.
pub(super) fn path_of(digest: &OciDigest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// Reads a directory of a layout on this machine.
fn unreadable(layout: &Path, path: &str) -> impl FnOnce(io::Error) -> LayoutError {
    let path = layout.join(path);
    move |source| LayoutError::Read { path, source }
}
