//! Reads a directory from disk.

use super::paths::{Part, Wanted};
use super::stat_cache::{Known, Stamp, StatCache};
use super::{Found, Kind, ScanError, Scanned, Top, assemble, mtime, xattrs};
use crate::tree::pattern::{Level, Patterns};
use bytes::Bytes;
use proto::id::BlobId;
use proto::limit;
use proto::path::FileName;
use proto::tree::{Meta, Xattrs};
use rayon::prelude::*;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What to scan, and how.
pub struct Scan<'a> {
    /// The directory.
    pub base: &'a Path,
    /// What it is itself.
    pub top: Top,
    /// What of it.
    pub wanted: &'a Wanted,
    /// What is left out.
    pub ignore: Option<&'a Patterns>,
    /// What files hashed to before.
    pub cache: &'a StatCache,
    /// Takes the bytes of small files that had to be read, as they come. May block.
    pub read: &'a (dyn Fn(BlobId, Bytes) + Sync),
    /// Counts files as they are found.
    pub seen: &'a (dyn Fn() + Sync),
}

/// What a scan found.
pub struct Outcome {
    /// The tree.
    pub tree: Scanned,
    /// What is now known of its files.
    pub known: HashMap<Vec<u8>, Known>,
}

impl Scan<'_> {
    /// Reads the directory. Blocks; uses all processors.
    pub fn run(&self) -> Result<Outcome, ScanError> {
        let fd = open_dir(CWD, self.base.as_os_str().as_bytes(), OFlags::empty())
            .map_err(|source| self.io("Opening", b"", source))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| self.io("Reading", b"", e.into()))?;
        let state = self.ignore.map(Patterns::root);
        let known = Mutex::new(HashMap::new());
        let found = self.dir(&fd, b"", state.as_ref(), &known)?;
        let tree = assemble(self.base.to_owned(), meta(&stat), self.top, found);
        Ok(Outcome { tree, known: known.into_inner().unwrap_or_else(|p| p.into_inner()) })
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        self.base.join(OsStr::from_bytes(path))
    }

    fn io(&self, action: &'static str, path: &[u8], source: io::Error) -> ScanError {
        ScanError::Io { action, path: self.path(path), source }
    }

    fn dir(
        &self,
        fd: &OwnedFd,
        path: &[u8],
        above: Option<&Level>,
        known: &Mutex<HashMap<Vec<u8>, Known>>,
    ) -> Result<Vec<Found>, ScanError> {
        let io = |e: rustix::io::Errno| self.io("Reading", path, e.into());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(fd).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push((name.to_vec(), entry.file_type()));
            }
        }
        // Large directories and their files are worth several threads; the order is restored when
        // the node is made.
        let look = |(name, kind): (Vec<u8>, FileType)| {
            let child = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            self.entry(fd, &name, child, kind, above, known).transpose()
        };
        names.into_par_iter().with_min_len(16).filter_map(look).collect()
    }

    /// One entry; `None` when it is not looked at.
    fn entry(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        kind: FileType,
        above: Option<&Level>,
        known: &Mutex<HashMap<Vec<u8>, Known>>,
    ) -> Result<Option<Found>, ScanError> {
        let part = self.wanted.part(&path);
        if part == Part::Nothing {
            return Ok(None);
        }
        let ignore = self.ignore.zip(above);
        let level = match kind {
            FileType::Directory => ignore.map(|(patterns, above)| patterns.directory(above, name)),
            _ if ignore.is_some_and(|(patterns, above)| patterns.file(above, name)) => {
                return Ok(None);
            }
            _ => None,
        };
        // An ignored directory is entered only for what is excepted in it.
        let ignored = level.as_ref().is_some_and(Level::is_match);
        let hopeless = |(patterns, level): (&Patterns, &Level)| !patterns.may_except_below(level);
        if ignored && self.ignore.zip(level.as_ref()).is_some_and(hopeless) {
            return Ok(None);
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away between the listing and now, as temporary files do.
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.io("Reading", &path, e.into())),
        };
        let name = FileName::new(name)
            .map_err(|source| ScanError::Name { path: self.path(&path), source })?;
        // Only files and directories have any that a container's file may have.
        let mut xattrs = Xattrs::default();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let child = open_dir(dir, name.as_bytes(), OFlags::NOFOLLOW)
                    .map_err(|source| self.io("Opening", &path, source))?;
                xattrs = Xattrs::new(self.xattrs(&child, &path)?);
                let inside = self.dir(&child, &path, level.as_ref(), known)?;
                if (ignored || part == Part::Way) && inside.is_empty() {
                    return Ok(None);
                }
                Kind::Dir(inside)
            }
            _ if part == Part::Way => return Ok(None),
            FileType::RegularFile => {
                let file = self.file(dir, &name, &path, &stat, known)?;
                xattrs = Xattrs::new(file.xattrs);
                Kind::File { size: file.stamp.size, inode: several(&stat), blob: file.blob }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name.as_bytes(), Vec::new())
                    .map_err(|e| self.io("Reading", &path, e.into()))?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => self.socket(&stat),
            FileType::CharacterDevice => Kind::Char(device(&stat)),
            FileType::BlockDevice => Kind::Block(device(&stat)),
            FileType::Unknown => return Err(ScanError::Special { path: self.path(&path) }),
        };
        (self.seen)();
        Ok(Some(Found { name, meta: Meta { xattrs, ..meta(&stat) }, kind }))
    }

    /// A socket is a file without bytes: BuildKit's clients send it as one, with its mode.
    fn socket(&self, stat: &Stat) -> Kind {
        let blob = BlobId::of(b"");
        (self.read)(blob, Bytes::new());
        Kind::File { size: 0, inode: several(stat), blob }
    }

    fn xattrs(&self, fd: impl AsFd, path: &[u8]) -> Result<xattrs::List, ScanError> {
        xattrs::read(fd).map_err(|e| self.io("Reading the extended attributes of", path, e.into()))
    }

    /// What is known of a file, which is read if it is not known yet.
    fn file(
        &self,
        dir: &OwnedFd,
        name: &FileName,
        path: &[u8],
        stat: &Stat,
        known: &Mutex<HashMap<Vec<u8>, Known>>,
    ) -> Result<Known, ScanError> {
        let stamp = stamp(stat);
        let now = match self.cache.get(path, &stamp) {
            Some(known) => known.clone(),
            None => {
                let file = self.open(dir, name, path)?;
                let xattrs = self.xattrs(&file, path)?;
                Known { stamp, blob: self.hash(file, path, stat)?, xattrs }
            }
        };
        known.lock().unwrap_or_else(|p| p.into_inner()).insert(path.to_vec(), now.clone());
        Ok(now)
    }

    fn open(&self, dir: &OwnedFd, name: &FileName, path: &[u8]) -> Result<File, ScanError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let io = |e: rustix::io::Errno| self.io("Opening", path, e.into());
        let fd = rustix::fs::openat(dir, name.as_bytes(), flags, Mode::empty()).map_err(io)?;
        // A device that took the file's place may have no end.
        let mode = rustix::fs::fstat(&fd).map_err(io)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::RegularFile {
            return Err(ScanError::Changed { path: self.path(path) });
        }
        Ok(File::from(fd))
    }

    fn hash(&self, file: File, path: &[u8], stat: &Stat) -> Result<BlobId, ScanError> {
        // One that grows all the time ends here, too.
        let mut file = file.take((stat.st_size as u64).saturating_add(1));
        let io = |e| self.io("Reading", path, e);
        let changed = || ScanError::Changed { path: self.path(path) };
        if stat.st_size as usize <= limit::PACKED_BLOB_BYTES_MAX {
            let mut bytes = Vec::with_capacity(stat.st_size as usize);
            file.read_to_end(&mut bytes).map_err(io)?;
            if bytes.len() as u64 != stat.st_size as u64 {
                return Err(changed());
            }
            let id = BlobId::of(&bytes);
            (self.read)(id, bytes.into());
            return Ok(id);
        }
        let (id, size) = crate::store::hash_file(&mut file).map_err(io)?;
        if size == stat.st_size as u64 { Ok(id) } else { Err(changed()) }
    }
}

/// Opens a directory; with `NOFOLLOW` not one that was swapped for a link meanwhile.
fn open_dir(at: impl AsFd, name: &[u8], follow: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// Device and inode of what has several names.
fn several(stat: &Stat) -> Option<(u64, u64)> {
    (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino))
}

/// The number of the device that a node stands for: all that is sent of it.
fn device(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}

/// Owners are the client's own business: BuildKit's clients do not send them.
fn meta(stat: &Stat) -> Meta {
    let mtime = mtime(stat.st_mtime, stat.st_mtime_nsec as u32);
    Meta { mode: (stat.st_mode & 0o7777) as u16, uid: 0, gid: 0, mtime, xattrs: Xattrs::default() }
}

fn stamp(stat: &Stat) -> Stamp {
    let nanos = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
    }
}
