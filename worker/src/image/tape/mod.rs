//! The tar format, as far as images need it: ustar with the extended headers of POSIX.1-2001 (pax)
//! and GNU.
//!
//! The layout of a header and its checksum are the `tar` crate's; the rest is here, because the
//! crate's iterator reads extended headers of any size into memory, cuts attributes at newlines,
//! and does not know sparse files in pax form.
//!
//! Sources: POSIX.1-2024 `pax`, “ustar Interchange Format” and “pax Header Block”; GNU tar manual,
//! “Basic Tar Format” and “Storing Sparse Files”; `SCHILY.xattr` is star's, as containerd uses it.

mod field;
mod pax;
mod read;
mod sparse;
mod write;

pub use read::Reader;
pub use write::{END, encode, padding};

use proto::tree::Mtime;
use std::io;

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// One more name of a file: [`Head::link`].
    HardLink,
    /// A symbolic link to [`Head::link`].
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// What stands before an entry's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The name as it stands there: not checked for anything.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The time of last change.
    pub mtime: Mtime,
    /// Where a link leads; else empty. Not checked for anything.
    pub link: Vec<u8>,
    /// Bytes of content, holes of sparse files included. 0 for all but files.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why bytes are no tar archive.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// It ends in the middle of something.
    #[error("it ends in the middle of {0}")]
    Truncated(&'static str),
    /// What should be a header is none.
    #[error("there is no tar header at byte {0}")]
    NoHeader(u64),
    /// A field that cannot be read.
    #[error("the header at byte {at} has a bad {field}")]
    Field {
        /// Which.
        field: &'static str,
        /// Where the header begins.
        at: u64,
    },
    /// An entry of a kind that image layers do not have.
    #[error(
        "the entry at byte {at} is of the unknown kind `{kind}`: pack it again, with files, \
         directories, links and devices only",
        kind = .kind.escape_ascii()
    )]
    Kind {
        /// The type flag.
        kind: u8,
        /// Where the header begins.
        at: u64,
    },
    /// An extended header that is larger than any real one.
    #[error("the extended header at byte {at} has {size} bytes; at most {max} are read", max = crate::image::tape::EXTENDED_BYTES_MAX)]
    TooLong {
        /// Where the header begins.
        at: u64,
        /// How many it says.
        size: u64,
    },
    /// The bytes could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes of one extended header (a long name, or pax records): what Go's `archive/tar`, and so
/// Docker and containerd, read at most.
pub const EXTENDED_BYTES_MAX: u64 = 1 << 20;
