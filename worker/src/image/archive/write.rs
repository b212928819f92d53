//! From a plan to a file or a directory.

use crate::image::sha::Sha;
use crate::image::tape::{END, Head, Kind, encode, padding};
use crate::image::unpack::components;
use proto::error::Class;
use proto::id::{BlobId, OciDigest};
use proto::tree::Mtime;
use proto::wire::build::{ArchiveData, ArchiveEntry};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Gives a blob's bytes.
pub type Open<'o> = dyn FnMut(&BlobId) -> io::Result<Box<dyn Read + Send>> + 'o;

/// Why an archive was not written. What there is of it is worthless.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The bytes could not be written.
    #[error("Writing {}: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A blob could not be read.
    #[error("Reading {path} of the archive: {source}")]
    Read {
        /// Its path in the archive.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A blob is not what the plan says.
    #[error("{path} of the archive is not what it should be: expected {expected}, got {actual}")]
    WrongBytes {
        /// Its path in the archive.
        path: String,
        /// Size and digest.
        expected: String,
        /// Size and digest.
        actual: String,
    },
    /// A plan with a path that leads out.
    #[error("The archive's plan has the path `{0}`")]
    Path(String),
}

impl WriteError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Write { .. } => Class::User,
            Self::Read { .. } => Class::Unavailable,
            Self::WrongBytes { .. } => Class::Corrupt,
            Self::Path(_) => Class::Bug,
        }
    }
}

fn size_of(data: &ArchiveData) -> u64 {
    match data {
        ArchiveData::Inline(bytes) => bytes.len() as u64,
        ArchiveData::Blob(_, size, _) => *size,
        ArchiveData::Directory => 0,
    }
}

/// What stands before an entry's bytes in the tar; after them stand zeros up to the next multiple of
/// 512, and after the last entry 1024 more.
pub fn head(entry: &ArchiveEntry) -> Vec<u8> {
    let (kind, mode) = match entry.data {
        ArchiveData::Directory => (Kind::Dir, 0o755),
        ArchiveData::Blob(..) => (Kind::File, 0o444),
        ArchiveData::Inline(_) => (Kind::File, 0o644),
    };
    encode(&Head {
        path: entry.path.clone().into_bytes(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        link: Vec::new(),
        size: size_of(&entry.data),
        device: (0, 0),
        xattrs: Vec::new(),
    })
}

/// Writes the archive as a tar to `out`, which messages call `to`. Every blob is compared with its
/// digest; on an error the file must be thrown away.
pub fn write_tar(
    plan: &[ArchiveEntry],
    open: &mut Open<'_>,
    out: &mut dyn Write,
    to: &Path,
) -> Result<(), WriteError> {
    let failed = |source| WriteError::Write { path: to.to_owned(), source };
    for entry in plan {
        out.write_all(&head(entry)).map_err(failed)?;
        copy(entry, open, out, to)?;
        out.write_all(&END[..padding(size_of(&entry.data))]).map_err(failed)?;
    }
    out.write_all(&END).and_then(|()| out.flush()).map_err(failed)
}

/// Writes the archive as a directory (`tar=false`). What is there already is replaced file by file.
pub fn write_dir(plan: &[ArchiveEntry], open: &mut Open<'_>, dir: &Path) -> Result<(), WriteError> {
    for entry in plan {
        let names = components(entry.path.as_bytes());
        let names = names.map_err(|_| WriteError::Path(entry.path.clone()))?;
        let mut path = dir.to_owned();
        names.iter().for_each(|n| path.push(std::ffi::OsStr::from_bytes(n.as_bytes())));
        let failed = |source| WriteError::Write { path: path.clone(), source };
        if entry.data == ArchiveData::Directory {
            std::fs::create_dir_all(&path).map_err(failed)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        // Written beside, so that what has the name is always whole.
        let mut beside = path.clone().into_os_string();
        beside.push(".part");
        let mut file = File::create(&beside).map_err(failed)?;
        let written = copy(entry, open, &mut file, &path)
            .and_then(|()| std::fs::rename(&beside, &path).map_err(failed));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written?;
    }
    Ok(())
}

fn copy(
    entry: &ArchiveEntry,
    open: &mut Open<'_>,
    out: &mut dyn Write,
    to: &Path,
) -> Result<(), WriteError> {
    let failed = |source| WriteError::Write { path: to.to_owned(), source };
    let unread = |source| WriteError::Read { path: entry.path.clone(), source };
    let (blob, size, digest) = match &entry.data {
        ArchiveData::Directory => return Ok(()),
        ArchiveData::Inline(bytes) => return out.write_all(bytes).map_err(failed),
        ArchiveData::Blob(blob, size, digest) => (blob, *size, digest),
    };
    let mut content = open(blob).map_err(unread)?;
    let (mut sha, mut copied) = (Sha::new(), 0u64);
    let mut piece = vec![0; 1 << 20];
    // One byte more than there should be, to see that there is none.
    while copied <= size {
        let n = match content.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unread(e)),
        };
        copied += n as u64;
        if copied > size {
            break;
        }
        sha.update(&piece[..n]);
        out.write_all(&piece[..n]).map_err(failed)?;
    }
    compare(entry, (size, *digest), (copied, sha.finish()))
}

fn compare(
    entry: &ArchiveEntry,
    expected: (u64, OciDigest),
    actual: (u64, OciDigest),
) -> Result<(), WriteError> {
    if expected == actual {
        return Ok(());
    }
    let say = |(size, digest): (u64, OciDigest)| format!("{size} bytes of {digest}");
    let (expected, actual) = (say(expected), say(actual));
    Err(WriteError::WrongBytes { path: entry.path.clone(), expected, actual })
}
