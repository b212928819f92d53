//! The first look: all names and metadata of the upper directory, and which names share an inode.

use super::super::fold::{self, Fold};
use super::super::{RootfsError, at};
use proto::limit;
use proto::path::FileName;
use proto::tree::{LinkId, Meta, Xattrs};
use rustix::fs::FileType;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// One name that was found.
pub(super) struct Found {
    pub name: FileName,
    pub meta: Meta,
    pub what: What,
    /// When it has other names.
    pub inode: Option<u64>,
}

/// What lies under the name.
pub(super) enum What {
    Dir { opaque: bool, entries: Vec<Found> },
    File { size: u64 },
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    Whiteout,
}

/// The group of each inode that has several names in the directory.
pub(super) type Links = HashMap<u64, LinkId>;

/// The extended attributes that are a file's own.
pub(super) fn own(all: Vec<(Vec<u8>, Vec<u8>)>) -> Xattrs {
    Xattrs::new(all.into_iter().filter(|(name, _)| at::is_own_xattr(name)))
}

pub(super) fn scan(top: OwnedFd, path: &Path) -> Result<(Vec<Found>, Links), RootfsError> {
    let work = Scan { top: path, inodes: Mutex::default() };
    let found = fold::fold(&work, Job { place: Place::Top(top), depth: 0 }, fold::threads())?;
    let inodes = work.inodes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let groups = inodes.into_iter().filter(|(_, names)| names.len() > 1);
    let links = groups.map(|(inode, mut names)| {
        names.sort();
        let parts: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        (inode, LinkId::of(&parts))
    });
    let What::Dir { entries, .. } = found.what else {
        return Err(RootfsError::Changed { path: path.to_owned() });
    };
    Ok((entries, links.collect()))
}

struct Scan<'a> {
    top: &'a Path,
    /// The paths of each file whose inode has more than one name.
    inodes: Mutex<HashMap<u64, Vec<Vec<u8>>>>,
}

struct Job {
    place: Place,
    depth: usize,
}

enum Place {
    Top(OwnedFd),
    In { above: Arc<Open>, found: Found },
}

/// An open directory and its path in the upper directory.
struct Open {
    fd: OwnedFd,
    path: Vec<u8>,
}

impl Fold for Scan<'_> {
    type Job = Job;
    /// The directory itself, its entries that are no directories.
    type Frame = (Found, Vec<Found>);
    type Out = Found;

    fn enter(&self, job: Job) -> Result<(Self::Frame, Vec<Job>), RootfsError> {
        let (open, this) = match job.place {
            Place::Top(fd) => (Open { fd, path: Vec::new() }, top()),
            Place::In { above, found } => {
                let mut path = above.path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(found.name.as_bytes());
                if job.depth > limit::TREE_DEPTH_MAX {
                    return Err(RootfsError::TooDeep { path: self.shown(&path) });
                }
                let fd = at::open_dir(&above.fd, found.name.as_bytes())
                    .map_err(RootfsError::io("Opening", self.shown(&path)))?;
                (Open { fd, path }, found)
            }
        };
        let open = Arc::new(open);
        let failed = || RootfsError::io("Reading", self.shown(&open.path));
        let names = at::names(&open.fd).map_err(failed())?;
        if names.len() > limit::DIR_ENTRIES_MAX {
            return Err(RootfsError::Limit {
                path: self.shown(&open.path),
                why: format!(
                    "it has {} entries, more than {}",
                    names.len(),
                    limit::DIR_ENTRIES_MAX
                ),
            });
        }
        let (mut jobs, mut files) = (Vec::new(), Vec::new());
        for name in names {
            let found = self.look(&open, &name)?;
            match found.what {
                What::Dir { .. } => {
                    let place = Place::In { above: open.clone(), found };
                    jobs.push(Job { place, depth: job.depth + 1 });
                }
                _ => files.push(found),
            }
        }
        Ok(((this, files), jobs))
    }

    fn leave(&self, (this, files): Self::Frame, dirs: Vec<Found>) -> Result<Found, RootfsError> {
        let What::Dir { opaque, .. } = this.what else { return Ok(this) };
        let mut entries = files;
        entries.extend(dirs);
        Ok(Found { what: What::Dir { opaque, entries }, ..this })
    }
}

impl Scan<'_> {
    fn look(&self, dir: &Open, name: &[u8]) -> Result<Found, RootfsError> {
        let path = || {
            let sep: &[u8] = if dir.path.is_empty() { b"" } else { b"/" };
            [dir.path.as_slice(), sep, name].concat()
        };
        let failed = || RootfsError::io("Reading", self.shown(&path()));
        let stat = at::stat(&dir.fd, name).map_err(failed())?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let name_ok = FileName::new(name)
            .map_err(|e| RootfsError::Limit { path: self.shown(&path()), why: e.to_string() })?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
            let meta = Meta::root_owned(0, Default::default());
            return Ok(Found { name: name_ok, meta, what: What::Whiteout, inode: None });
        }
        let xattrs = at::all_xattrs(dir.fd.as_fd(), name).map_err(failed())?;
        let opaque = xattrs.iter().any(|(name, value)| name == at::OPAQUE && value == b"y");
        let has_others = kind != FileType::Directory && stat.st_nlink > 1;
        let inode = has_others.then_some(stat.st_ino);
        if let Some(inode) = inode {
            let mut inodes = self.inodes.lock().unwrap_or_else(|p| p.into_inner());
            inodes.entry(inode).or_default().push(path());
        }
        let what = match kind {
            FileType::Directory => What::Dir { opaque, entries: Vec::new() },
            FileType::RegularFile => What::File { size: stat.st_size as u64 },
            FileType::Symlink => What::Symlink(at::read_link(&dir.fd, name).map_err(failed())?),
            FileType::CharacterDevice => What::Char(major, minor),
            FileType::BlockDevice => What::Block(major, minor),
            FileType::Fifo => What::Fifo,
            FileType::Socket => What::Socket,
            _ => return Err(RootfsError::Changed { path: self.shown(&path()) }),
        };
        Ok(Found { name: name_ok, meta: at::meta(&stat, own(xattrs)), what, inode })
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.top.join(String::from_utf8_lossy(path).as_ref())
    }
}

/// Stands for the upper directory itself, whose metadata are read apart.
fn top() -> Found {
    let name = FileName::new(b"top").expect("a name");
    let meta = Meta::root_owned(0, Default::default());
    Found { name, meta, what: What::Dir { opaque: false, entries: Vec::new() }, inode: None }
}
