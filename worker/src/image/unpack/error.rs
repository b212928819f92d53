//! Why a layer or an archive could not be unpacked.

use super::decode::Format;
use super::name::BadName;
use crate::image::tape::TapeError;
use cache::store::StoreError;
use proto::error::Class;
use proto::id::OciDigest;
use proto::limit;

/// Why a layer or an archive could not be unpacked. Nothing of it is left but blobs, which are
/// collected when nobody needs them.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The bytes are no archive that can be unpacked.
    #[error("{what} cannot be unpacked: {why}")]
    Archive {
        /// What was unpacked, as messages name it.
        what: String,
        /// What is wrong with it.
        why: BadArchive,
    },
    /// The bytes are an archive, but not the one that was promised.
    #[error("{what} unpacks to {actual}, and its image's config says {expected}")]
    DiffId {
        /// What was unpacked.
        what: String,
        /// The diff id that the image's config has.
        expected: OciDigest,
        /// The SHA-256 of the bytes.
        actual: OciDigest,
    },
    /// A hard link leads to a file of a layer below, and no layers below were given.
    #[error("{what} links to `{path}` of the layers below, which are not at hand")]
    NeedsLower {
        /// What was unpacked.
        what: String,
        /// The file.
        path: String,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UnpackError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Archive { .. } => Class::User,
            Self::DiffId { .. } => Class::Corrupt,
            Self::NeedsLower { .. } => Class::Bug,
            Self::Store(e) => e.class(),
        }
    }
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum BadArchive {
    /// The tar format is broken.
    #[error("{0}")]
    Tape(#[from] TapeError),
    /// The compression is broken.
    #[error("its {format} data is broken: {detail}")]
    Compression {
        /// Which.
        format: Format,
        /// The decompressor's words.
        detail: String,
    },
    /// The bytes could not be read at all.
    #[error("it cannot be read: {0}")]
    Read(std::io::Error),
    /// A name that leads nowhere, or out.
    #[error("the name `{path}` is refused: {why}")]
    Name {
        /// The name.
        path: String,
        /// What is wrong with it.
        why: BadName,
    },
    /// A name below something that is no directory.
    #[error("`{path}` lies below something that is not a directory")]
    BelowFile {
        /// The name.
        path: String,
    },
    /// A name that leads through symlinks without end.
    #[error("`{path}` leads through more than {max} symbolic links", max = limit::SYMLINKS_FOLLOWED_MAX)]
    Loop {
        /// The name.
        path: String,
    },
    /// A hard link without a file.
    #[error("`{path}` is a hard link to `{target}`, which {why}")]
    Link {
        /// The link.
        path: String,
        /// What it should be a name of.
        target: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A value that no file system takes.
    #[error("`{path}` has {what}")]
    Value {
        /// The name.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// More than a layer may hold.
    #[error("it holds more than {0}")]
    TooMuch(&'static str),
    /// It unpacks to much more than any real layer.
    #[error(
        "it unpacks to over {unpacked} bytes from {packed}, more than {max} times as much: \
         it looks like a bomb",
        max = limit::LAYER_EXPANSION_MAX
    )]
    Bomb {
        /// Bytes read.
        packed: u64,
        /// Bytes made of them.
        unpacked: u64,
    },
}
