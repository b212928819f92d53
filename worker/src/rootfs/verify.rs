//! Looks whether a layer's directory is what its tree says.

use super::fold::{self, Fold};
use super::materialize::own_meta;
use super::{RootfsError, at, load_dir, load_root};
use cache::store::{Store, hash_file};
use proto::id::{RootId, TreeId};
use proto::path::FileName;
use proto::tree::{AnyNode, Entry, Node, OneFile, Presence, Xattrs};
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// No more differences than this are told of one layer.
const TOLD: usize = 20;

/// How the directory at `path` differs from the diff, in sentences; none when it does not. The
/// metadata of the directory itself are not looked at: they mean nothing.
pub(crate) fn differences(
    store: &dyn Store,
    diff: &RootId,
    path: &Path,
) -> Result<Vec<String>, RootfsError> {
    let root = load_root(store, diff)?;
    let fd = at::open_host_dir(path).map_err(RootfsError::io("Opening", path))?;
    let work = Verify { store, found: Mutex::default(), inodes: Mutex::default() };
    let open = Arc::new(Open { fd, path: PathBuf::from("/") });
    fold::fold(&work, Job { at: Place::Top(open), tree: root.dir.tree }, fold::threads())?;
    Ok(work.found.into_inner().unwrap_or_else(|p| p.into_inner()))
}

struct Verify<'a> {
    store: &'a dyn Store,
    found: Mutex<Vec<String>>,
    /// The inode of each file with several names, and the file that each inode is.
    inodes: Mutex<Inodes>,
}

#[derive(Default)]
struct Inodes {
    of_file: HashMap<OneFile, (u64, usize)>,
    /// By the files' numbers in that list.
    seen: HashMap<u64, Option<usize>>,
}

struct Job {
    at: Place,
    tree: TreeId,
}

enum Place {
    Top(Arc<Open>),
    In(Arc<Open>, FileName),
}

struct Open {
    fd: OwnedFd,
    path: PathBuf,
}

impl Fold for Verify<'_> {
    type Job = Job;
    type Frame = ();
    type Out = ();

    fn enter(&self, job: Job) -> Result<((), Vec<Job>), RootfsError> {
        let open = match job.at {
            Place::Top(open) => open,
            Place::In(above, name) => {
                let path = above.path.join(name.to_string());
                match at::open_dir(&above.fd, name.as_bytes()) {
                    Ok(fd) => Arc::new(Open { fd, path }),
                    Err(e) => {
                        self.tell(&path, &format!("cannot be opened: {e}"));
                        return Ok(((), Vec::new()));
                    }
                }
            }
        };
        let node = load_dir(self.store, &job.tree)?;
        let AnyNode::Dir(dir) = &*node else { return Err(RootfsError::Kind(job.tree)) };
        let names = at::names(&open.fd).map_err(RootfsError::io("Reading", &open.path))?;
        for name in names.iter().filter(|name| dir.get(name).is_none()) {
            let name = String::from_utf8_lossy(name);
            self.tell(&open.path.join(name.as_ref()), "should not be there");
        }
        let mut jobs = Vec::new();
        for entry in dir.entries() {
            if let Err(why) = self.check(&open, entry) {
                self.tell(&open.path.join(entry.name.to_string()), &why);
            } else if let Node::Dir(below, _) = &entry.node {
                let at = Place::In(open.clone(), entry.name.clone());
                jobs.push(Job { at, tree: below.tree });
            }
        }
        Ok(((), jobs))
    }

    fn leave(&self, (): (), _: Vec<()>) -> Result<(), RootfsError> {
        Ok(())
    }
}

impl Verify<'_> {
    fn tell(&self, path: &Path, why: &str) {
        let mut found = self.found.lock().unwrap_or_else(|p| p.into_inner());
        if found.len() < TOLD {
            found.push(format!("{} {why}", path.display()));
        }
    }

    fn check(&self, dir: &Open, entry: &Entry) -> Result<(), String> {
        let name = entry.name.as_bytes();
        let stat = at::stat(&dir.fd, name).map_err(|e| e.to_string())?;
        self.check_kind(dir, entry, &stat)?;
        if entry.node == Node::Whiteout {
            return Ok(());
        }
        let xattrs = at::all_xattrs(dir.fd.as_fd(), name).map_err(|e| e.to_string())?;
        let opaque = xattrs.iter().any(|(name, value)| name == at::OPAQUE && value == b"y");
        if opaque != matches!(entry.node, Node::Dir(_, Presence::Opaque)) {
            return Err("is opaque where it should not be, or the reverse".to_owned());
        }
        let own = xattrs.into_iter().filter(|(name, _)| at::is_own_xattr(name));
        let mut meta = at::meta(&stat, Xattrs::new(own));
        let want = own_meta(&entry.meta);
        if entry.node.symlink().is_some() {
            meta.mode = want.mode;
        }
        if meta != *want {
            return Err(format!("has {meta:?} for {want:?}"));
        }
        Ok(())
    }

    fn check_kind(&self, dir: &Open, entry: &Entry, stat: &Stat) -> Result<(), String> {
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = FileType::from_raw_mode(stat.st_mode);
        // overlayfs makes all whiteouts names of one.
        if !matches!(entry.node, Node::Dir(..) | Node::Whiteout) {
            self.check_names(entry, stat)?;
        }
        let right = match (&entry.node.clone().with_link(None), kind) {
            (Node::File { .. }, FileType::RegularFile) => return self.check_file(dir, entry),
            (Node::Symlink(target), FileType::Symlink) => {
                let there = at::read_link(&dir.fd, entry.name.as_bytes());
                there.map_err(|e| e.to_string())? == *target
            }
            (Node::Char(major, minor), FileType::CharacterDevice)
            | (Node::Block(major, minor), FileType::BlockDevice) => device == (*major, *minor),
            (Node::Whiteout, FileType::CharacterDevice) => device == (0, 0),
            (Node::Dir(..), FileType::Directory)
            | (Node::Fifo, FileType::Fifo)
            | (Node::Socket, FileType::Socket) => true,
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("is not {:?}", entry.node)) }
    }

    fn check_names(&self, entry: &Entry, stat: &Stat) -> Result<(), String> {
        let mut inodes = self.inodes.lock().unwrap_or_else(|p| p.into_inner());
        let count = inodes.of_file.len();
        let file = entry.one_file();
        let file = file.map(|file| *inodes.of_file.entry(file).or_insert((stat.st_ino, count)));
        let other = file.is_some_and(|(inode, _)| inode != stat.st_ino);
        let number = file.map(|(_, number)| number);
        let before = inodes.seen.insert(stat.st_ino, number);
        let shared = before.is_some_and(|before| before != number || number.is_none());
        drop(inodes);
        if other || shared {
            return Err("shares its inode with other names than it should".to_owned());
        }
        Ok(())
    }

    fn check_file(&self, dir: &Open, entry: &Entry) -> Result<(), String> {
        let Node::File { blob, size, .. } = &entry.node else { return Ok(()) };
        let read = || hash_file(&mut at::open_file(&dir.fd, entry.name.as_bytes())?);
        match read().map_err(|e| e.to_string())? {
            (id, len) if id == *blob && len == *size => Ok(()),
            (id, len) => Err(format!("holds {len} bytes of {id}, not {size} of {blob}")),
        }
    }
}
