//! The first look: all names and metadata of the upper directory, and which names share an inode.

use super::super::fold::{self, Fold};
use super::super::materialize::own_meta;
use super::super::{RootfsError, at, load_dir};
use super::as_dir;
use cache::store::{Store, hash_file};
use proto::id::{BlobId, TreeId};
use proto::limit;
use proto::path::FileName;
use proto::tree::{AnyNode, Entry, LinkId, Meta, Node, Xattrs};
use rustix::fs::FileType;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// One name that was found.
pub(super) struct Found {
    pub name: FileName,
    pub meta: Meta,
    pub what: What,
}

/// What lies under the name.
pub(super) enum What {
    Dir {
        opaque: bool,
        entries: Vec<Found>,
    },
    /// `inode` when the file has other names; `same` when this name is known to be as below.
    File {
        size: u64,
        inode: Option<u64>,
        same: bool,
    },
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    Whiteout,
}

/// The files with several names, by their inodes.
pub(super) struct Links {
    /// The group of each that has several new names.
    pub groups: HashMap<u64, LinkId>,
    /// What each holds that is as below under one of its names: the store has it.
    pub below: HashMap<u64, (BlobId, u64)>,
}

/// The extended attributes that are a file's own.
pub(super) fn own(all: Vec<(Vec<u8>, Vec<u8>)>) -> Xattrs {
    Xattrs::new(all.into_iter().filter(|(name, _)| at::is_own_xattr(name)))
}

/// Looks at the upper directory. Names that are as in `below` are of no group of links.
pub(super) fn scan(
    store: &dyn Store,
    top: OwnedFd,
    path: &Path,
    below: Option<TreeId>,
) -> Result<(Vec<Found>, Links), RootfsError> {
    let work = Scan { store, top: path, inodes: Mutex::default() };
    let job = Job { place: Place::Top(top, below), depth: 0 };
    let found = fold::fold(&work, job, fold::threads())?;
    let inodes = work.inodes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let What::Dir { entries, .. } = found.what else {
        return Err(RootfsError::Changed { path: path.to_owned() });
    };
    Ok((entries, links(inodes)))
}

fn links(inodes: HashMap<u64, Names>) -> Links {
    let mut links = Links { groups: HashMap::new(), below: HashMap::new() };
    for (inode, Names { mut new, below }) in inodes {
        links.below.extend(below.map(|content| (inode, content)));
        if new.len() > 1 {
            new.sort();
            let parts: Vec<&[u8]> = new.iter().map(Vec::as_slice).collect();
            links.groups.insert(inode, LinkId::of(&parts));
        }
    }
    links
}

struct Scan<'a> {
    store: &'a dyn Store,
    top: &'a Path,
    /// Each file whose inode has more than one name.
    inodes: Mutex<HashMap<u64, Names>>,
}

/// The names of one file.
#[derive(Default)]
struct Names {
    /// The paths of those that are not as below.
    new: Vec<Vec<u8>>,
    /// What the file holds, when one of its names is as below.
    below: Option<(BlobId, u64)>,
}

struct Job {
    place: Place,
    depth: usize,
}

enum Place {
    Top(OwnedFd, Option<TreeId>),
    In { above: Arc<Open>, found: Found },
}

/// An open directory, its path in the upper directory, and what it lies upon without hiding it.
struct Open {
    fd: OwnedFd,
    path: Vec<u8>,
    below: Option<Arc<AnyNode>>,
}

impl Open {
    fn join(&self, name: &[u8]) -> Vec<u8> {
        let sep: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        [self.path.as_slice(), sep, name].concat()
    }

    fn lower(&self, name: &FileName) -> Option<&Entry> {
        as_dir(self.below.as_deref()?)?.get(name.as_bytes())
    }
}

impl Fold for Scan<'_> {
    type Job = Job;
    /// The directory itself, its entries that are no directories.
    type Frame = (Found, Vec<Found>);
    type Out = Found;

    fn enter(&self, job: Job) -> Result<(Self::Frame, Vec<Job>), RootfsError> {
        let (open, this) = match job.place {
            Place::Top(fd, below) => {
                let below = below.map(|tree| load_dir(self.store, &tree)).transpose()?;
                (Open { fd, path: Vec::new(), below }, top())
            }
            Place::In { above, found } => {
                let path = above.join(found.name.as_bytes());
                if job.depth > limit::TREE_DEPTH_MAX {
                    return Err(RootfsError::TooDeep { path: self.shown(&path) });
                }
                let fd = at::open_dir(&above.fd, found.name.as_bytes())
                    .map_err(RootfsError::io("Opening", self.shown(&path)))?;
                let below = match (&found.what, above.lower(&found.name).map(|l| &l.node)) {
                    (What::Dir { opaque: false, .. }, Some(Node::Dir(dir, _))) => {
                        Some(load_dir(self.store, &dir.tree)?)
                    }
                    _ => None,
                };
                (Open { fd, path, below }, found)
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
        let path = || dir.join(name);
        let failed = || RootfsError::io("Reading", self.shown(&path()));
        let stat = at::stat(&dir.fd, name).map_err(failed())?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let name_ok = FileName::new(name)
            .map_err(|e| RootfsError::Limit { path: self.shown(&path()), why: e.to_string() })?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
            let meta = Meta::root_owned(0, Default::default());
            return Ok(Found { name: name_ok, meta, what: What::Whiteout });
        }
        let xattrs = at::all_xattrs(dir.fd.as_fd(), name).map_err(failed())?;
        let opaque = xattrs.iter().any(|(name, value)| name == at::OPAQUE && value == b"y");
        let meta = at::meta(&stat, own(xattrs));
        let what = match kind {
            FileType::Directory => What::Dir { opaque, entries: Vec::new() },
            FileType::RegularFile => {
                let size = stat.st_size as u64;
                let inode = (stat.st_nlink > 1).then_some(stat.st_ino);
                let same = match inode {
                    Some(inode) => self.note(dir, &name_ok, &meta, inode, size)?,
                    None => false,
                };
                What::File { size, inode, same }
            }
            FileType::Symlink => What::Symlink(at::read_link(&dir.fd, name).map_err(failed())?),
            FileType::CharacterDevice => What::Char(major, minor),
            FileType::BlockDevice => What::Block(major, minor),
            FileType::Fifo => What::Fifo,
            FileType::Socket => What::Socket,
            _ => return Err(RootfsError::Changed { path: self.shown(&path()) }),
        };
        Ok(Found { name: name_ok, meta, what })
    }

    /// Notes one of a file's several names. Answers whether it is as below.
    fn note(
        &self,
        dir: &Open,
        name: &FileName,
        meta: &Meta,
        inode: u64,
        size: u64,
    ) -> Result<bool, RootfsError> {
        let known = self.inodes().get(&inode).and_then(|names| names.below);
        let below = self.as_below(dir, name, meta, size, known)?;
        let mut inodes = self.inodes();
        let names = inodes.entry(inode).or_default();
        match below {
            Some(_) => names.below = below,
            None => names.new.push(dir.join(name.as_bytes())),
        }
        Ok(below.is_some())
    }

    /// What the file holds, if all of it is as below. `known` is what it is known to hold.
    fn as_below(
        &self,
        dir: &Open,
        name: &FileName,
        meta: &Meta,
        size: u64,
        known: Option<(BlobId, u64)>,
    ) -> Result<Option<(BlobId, u64)>, RootfsError> {
        let Some(lower) = dir.lower(name) else { return Ok(None) };
        let Node::File { blob, size: lower_size, .. } = lower.node else { return Ok(None) };
        if lower_size != size || *own_meta(&lower.meta) != *meta {
            return Ok(None);
        }
        let want = Some((blob, size));
        if known == want {
            return Ok(want);
        }
        let shown = || self.shown(&dir.join(name.as_bytes()));
        let mut file =
            at::open_file(&dir.fd, name.as_bytes()).map_err(RootfsError::io("Opening", shown()))?;
        let read = hash_file(&mut file).map_err(RootfsError::io("Reading", shown()))?;
        Ok(want.filter(|want| *want == read))
    }

    fn inodes(&self) -> MutexGuard<'_, HashMap<u64, Names>> {
        self.inodes.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.top.join(String::from_utf8_lossy(path).as_ref())
    }
}

/// Stands for the upper directory itself, whose metadata are read apart.
fn top() -> Found {
    let name = FileName::new(b"top").expect("a name");
    let meta = Meta::root_owned(0, Default::default());
    Found { name, meta, what: What::Dir { opaque: false, entries: Vec::new() } }
}
