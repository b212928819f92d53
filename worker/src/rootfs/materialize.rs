//! A diff tree made real: a directory with the form that overlayfs takes for a layer.
//!
//! Whiteouts become character devices 0:0, opaque directories carry `trusted.overlay.opaque=y`
//! (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"). Everything else
//! is exactly as the tree says: mode, owner, time, attributes, and which names share an inode.

use super::at;
use super::fold::{self, Fold};
use super::{RootfsError, load_dir, load_root};
use cache::store::{Store, StoreError};
use proto::id::{RootId, TreeId};
use proto::limit;
use proto::path::FileName;
use proto::tree::{AnyNode, Entry, Meta, Node, OneFile, Presence, Xattrs};
use rustix::fs::{FileType, Mode};
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How many files one thread makes at a time.
const FILES_AT_ONCE: usize = 128;

/// Makes the empty directory `dest` into what the diff says. `/` itself gets the metadata of the
/// diff's root, which only matters where nothing lies above.
///
/// A directory that is only [`Presence::Implicit`] gets the metadata that its entry carries;
/// [`super::resolve`] puts the right ones there, and files in the place of [`Node::Relink`].
pub(crate) fn materialize(
    store: &dyn Store,
    diff: &RootId,
    dest: &Path,
) -> Result<(), RootfsError> {
    let root = load_root(store, diff)?;
    let fd = at::open_host_dir(dest).map_err(RootfsError::io("Opening", dest))?;
    let top = fd.try_clone().map_err(RootfsError::io("Opening", dest))?;
    let work = Materialize { store, dest, top, links: Mutex::default() };
    let job = Job::Dir(DirJob {
        at: Place::Root(fd),
        meta: root.meta,
        tree: root.dir.tree,
        opaque: false,
        depth: 0,
    });
    fold::fold(&work, job, fold::threads())
}

/// Makes one entry, which is not a directory and has no other names, in an open directory.
pub(crate) fn make_entry(
    store: &dyn Store,
    dir: BorrowedFd<'_>,
    entry: &Entry,
) -> Result<(), RootfsError> {
    let name = entry.name.as_bytes();
    let failed = |e: std::io::Error| RootfsError::Io {
        action: "Creating",
        path: PathBuf::from(entry.name.to_string()),
        source: e,
    };
    let special = |kind: FileType, device: u64| -> Result<(), RootfsError> {
        let mode = Mode::from_raw_mode(entry.meta.mode.into());
        rustix::fs::mknodat(dir, name, kind, mode, device).map_err(|e| failed(e.into()))?;
        at::set_meta(dir, name, &entry.meta, false).map_err(failed)
    };
    match &entry.node {
        Node::File { blob, .. } => {
            store.place(blob, &own_meta(&entry.meta), &at::proc_path(dir, name))?;
            Ok(())
        }
        Node::Symlink(target) => {
            rustix::fs::symlinkat(target.as_slice(), dir, name).map_err(|e| failed(e.into()))?;
            at::set_meta(dir, name, &entry.meta, true).map_err(failed)
        }
        Node::Char(major, minor) => {
            special(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
        }
        Node::Block(major, minor) => {
            special(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
        }
        Node::Fifo => special(FileType::Fifo, 0),
        Node::Socket => special(FileType::Socket, 0),
        Node::Linked(_, what) => {
            make_entry(store, dir, &Entry { node: what.clone().alone(), ..entry.clone() })
        }
        Node::Whiteout => at::white_out(dir, name).map_err(failed),
        Node::Dir(dir, _) => Err(RootfsError::Kind(dir.tree)),
        Node::Relink(_) | Node::Unlisted(_) => {
            let why = "it is what a layer means, and not what is there".to_owned();
            Err(RootfsError::Limit { path: entry.name.to_string().into(), why })
        }
    }
}

/// The metadata without what belongs to the host and to overlayfs.
pub(crate) fn own_meta(meta: &Meta) -> std::borrow::Cow<'_, Meta> {
    use std::borrow::Cow;
    if meta.xattrs.iter().all(|(name, _)| at::is_own_xattr(name)) {
        return Cow::Borrowed(meta);
    }
    let own = meta.xattrs.iter().filter(|(name, _)| at::is_own_xattr(name));
    let xattrs = Xattrs::new(own.map(|(n, v)| (n.to_vec(), v.to_vec())));
    Cow::Owned(Meta { xattrs, ..meta.clone() })
}

struct Materialize<'a> {
    store: &'a dyn Store,
    dest: &'a Path,
    top: OwnedFd,
    /// Where the first name of each file with several is. Held while that name is made, so
    /// that whoever finds it finds the file too.
    links: Mutex<HashMap<OneFile, Vec<FileName>>>,
}

enum Job {
    Dir(DirJob),
    Files { dir: Arc<Made>, node: Arc<AnyNode>, range: Range<usize> },
}

struct DirJob {
    at: Place,
    meta: Meta,
    tree: TreeId,
    opaque: bool,
    depth: usize,
}

enum Place {
    Root(OwnedFd),
    In(Arc<Made>, FileName),
}

/// A directory that was made and still wants its metadata.
struct Made {
    fd: OwnedFd,
    /// Its name and the directory above, up to the root.
    above: Option<(Arc<Made>, FileName)>,
}

impl Made {
    /// The names that lead here from the root.
    fn path(&self) -> Vec<FileName> {
        let mut names = Vec::new();
        let mut next = &self.above;
        while let Some((above, name)) = next {
            names.push(name.clone());
            next = &above.above;
        }
        names.reverse();
        names
    }
}

enum Frame {
    Files,
    Dir { made: Arc<Made>, meta: Meta, opaque: bool },
}

impl Fold for Materialize<'_> {
    type Job = Job;
    type Frame = Frame;
    type Out = ();

    fn enter(&self, job: Job) -> Result<(Frame, Vec<Job>), RootfsError> {
        match job {
            Job::Dir(job) => self.enter_dir(job),
            Job::Files { dir, node, range } => {
                let AnyNode::Dir(entries) = &*node else { return Ok((Frame::Files, Vec::new())) };
                for entry in &entries.entries()[range] {
                    self.make(&dir, entry)?;
                }
                Ok((Frame::Files, Vec::new()))
            }
        }
    }

    fn leave(&self, frame: Frame, _: Vec<()>) -> Result<(), RootfsError> {
        match frame {
            Frame::Files => Ok(()),
            Frame::Dir { made, meta, opaque } => at::set_dir_meta(&made.fd, &meta, opaque)
                .map_err(RootfsError::io("Setting the metadata of", self.shown(&made, None))),
        }
    }
}

impl Materialize<'_> {
    fn enter_dir(&self, job: DirJob) -> Result<(Frame, Vec<Job>), RootfsError> {
        let made = match job.at {
            Place::Root(fd) => Made { fd, above: None },
            Place::In(above, name) => {
                let shown = || self.shown(&above, Some(&name));
                if job.depth > limit::TREE_DEPTH_MAX {
                    return Err(RootfsError::TooDeep { path: shown() });
                }
                let fd = at::make_dir(&above.fd, name.as_bytes())
                    .map_err(RootfsError::io("Creating", shown()))?;
                Made { fd, above: Some((above, name)) }
            }
        };
        let (made, node) = (Arc::new(made), load_dir(self.store, &job.tree)?);
        let AnyNode::Dir(dir) = &*node else { return Err(RootfsError::Kind(job.tree)) };
        let mut jobs = Vec::new();
        for entry in dir.entries() {
            if let Node::Dir(below, presence) = &entry.node {
                jobs.push(Job::Dir(DirJob {
                    at: Place::In(made.clone(), entry.name.clone()),
                    meta: entry.meta.clone(),
                    tree: below.tree,
                    opaque: *presence == Presence::Opaque,
                    depth: job.depth + 1,
                }));
            }
        }
        let count = dir.entries().len();
        if jobs.len() < count {
            jobs.extend((0..count).step_by(FILES_AT_ONCE).map(|from| Job::Files {
                dir: made.clone(),
                node: node.clone(),
                range: from..(from + FILES_AT_ONCE).min(count),
            }));
        }
        Ok((Frame::Dir { made, meta: job.meta, opaque: job.opaque }, jobs))
    }

    fn make(&self, dir: &Arc<Made>, entry: &Entry) -> Result<(), RootfsError> {
        match (&entry.node, entry.one_file()) {
            (Node::Dir(..), _) => Ok(()),
            (_, Some(file)) => self.make_linked(dir, entry, file),
            _ => make_entry(self.store, dir.fd.as_fd(), entry)
                .map_err(|e| self.placed(e, dir, &entry.name)),
        }
    }

    fn make_linked(
        &self,
        dir: &Arc<Made>,
        entry: &Entry,
        file: OneFile,
    ) -> Result<(), RootfsError> {
        let mut links = self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(first) = links.get(&file).cloned() else {
            make_entry(self.store, dir.fd.as_fd(), entry)
                .map_err(|e| self.placed(e, dir, &entry.name))?;
            let mut path = dir.path();
            path.push(entry.name.clone());
            links.insert(file, path);
            return Ok(());
        };
        drop(links);
        let link = || -> std::io::Result<()> {
            let (name, above) = first.split_last().expect("a path has a name");
            let mut from = self.top.try_clone()?;
            for step in above {
                from = at::open_dir(&from, step.as_bytes())?;
            }
            let none = rustix::fs::AtFlags::empty();
            let (old, new) = (name.as_bytes(), entry.name.as_bytes());
            Ok(rustix::fs::linkat(&from, old, &dir.fd, new, none)?)
        };
        link().map_err(RootfsError::io("Linking", self.shown(dir, Some(&entry.name))))
    }

    /// Puts the whole path into an error that knows only the name.
    fn placed(&self, error: RootfsError, dir: &Made, name: &FileName) -> RootfsError {
        match error {
            RootfsError::Io { action, source, .. }
            | RootfsError::Store(StoreError::Io { action, source, .. }) => {
                RootfsError::Io { action, path: self.shown(dir, Some(name)), source }
            }
            other => other,
        }
    }

    fn shown(&self, dir: &Made, name: Option<&FileName>) -> PathBuf {
        let names = dir.path();
        let names = names.iter().chain(name).map(|n| n.to_string());
        names.fold(self.dest.to_owned(), |path, name| path.join(name))
    }
}
