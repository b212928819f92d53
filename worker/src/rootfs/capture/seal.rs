//! The second look: contents are hashed, what is the same as below is dropped, nodes are made.

use super::super::fold::Fold;
use super::super::materialize::own_meta;
use super::super::nodes::NewNodes;
use super::super::{RootfsError, at, load_dir};
use super::WrittenAs;
use super::scan::{Found, Links, What};
use bytes::Bytes;
use cache::store::{Store, StoreError, hash_file};
use cache::tree::listed::{self, Change, Missed, relink};
use proto::id::{BlobId, RootId, TreeId};
use proto::limit;
use proto::path::FileName;
use proto::tree::{
    AnyNode, Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Summary,
};
use rustix::fs::AtFlags;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How many files one thread hashes at a time.
const FILES_AT_ONCE: usize = 64;

pub(super) struct Seal<'a> {
    store: &'a dyn Store,
    top: &'a Path,
    links: Links,
    written: WrittenAs,
    /// What was hashed under another name.
    hashed: Mutex<HashMap<u64, (BlobId, u64)>>,
    made: NewNodes<'a>,
    missed: Mutex<Missed>,
}

pub(super) enum Job {
    /// `hides` when nothing of the directory below shows through.
    Dir {
        place: Place,
        hides: bool,
        meta: Meta,
        entries: Vec<Found>,
        below: Below,
    },
    Files {
        dir: Arc<Open>,
        files: Vec<Found>,
        below: Option<Arc<AnyNode>>,
    },
}

pub(super) enum Place {
    Top(OwnedFd),
    In { above: Arc<Open>, name: FileName },
}

/// What lies under a directory's name in the tree below.
pub(super) enum Below {
    /// A directory, with its metadata: none for `/`, which is never dropped.
    Dir(TreeId, Option<Meta>),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// An open directory.
pub(super) struct Open {
    fd: OwnedFd,
    above: Option<(Arc<Open>, FileName)>,
}

pub(super) enum Frame {
    Files(Vec<Entry>),
    Dir { dir: Arc<Open>, meta: Meta, below: Below, entries: Vec<Entry> },
}

pub(super) enum Out {
    Files(Vec<Entry>),
    /// A directory that changed nothing.
    Same(FileName),
    Dir(Option<FileName>, Meta, DirRef, Presence),
}

/// The job for the whole upper directory.
pub(super) fn root_job(fd: OwnedFd, entries: Vec<Found>, meta: &Meta, below: &Root) -> Job {
    let below = Below::Dir(below.dir.tree, None);
    Job::Dir { place: Place::Top(fd), hides: false, meta: meta.clone(), entries, below }
}

impl Fold for Seal<'_> {
    type Job = Job;
    type Frame = Frame;
    type Out = Out;

    fn enter(&self, job: Job) -> Result<(Frame, Vec<Job>), RootfsError> {
        match job {
            Job::Files { dir, files, below } => {
                Ok((Frame::Files(self.hash(&dir, files, below.as_deref())?), Vec::new()))
            }
            Job::Dir { place, hides, meta, entries, below } => {
                self.enter_dir(place, hides, meta, entries, below)
            }
        }
    }

    fn leave(&self, frame: Frame, outs: Vec<Out>) -> Result<Out, RootfsError> {
        match frame {
            Frame::Files(entries) => Ok(Out::Files(entries)),
            Frame::Dir { dir, meta, below, entries } => {
                self.leave_dir(&dir, meta, &below, entries, outs)
            }
        }
    }
}

impl<'a> Seal<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        top: &'a Path,
        links: Links,
        written: WrittenAs,
    ) -> Self {
        let (hashed, made, missed) = (Mutex::default(), NewNodes::new(store), Mutex::default());
        Self { store, top, links, written, hashed, made, missed }
    }

    /// Puts what is left of the nodes, with the root that `root` makes of the top directory.
    /// Answers the root, how much it holds, and what of it no image gets.
    pub(super) fn finish(
        self,
        out: Out,
        root: impl FnOnce(DirRef) -> Root,
    ) -> Result<(RootId, Summary, Missed), RootfsError> {
        let Out::Dir(_, _, dir, _) = out else {
            return Err(RootfsError::Changed { path: self.top.to_owned() });
        };
        let (id, bytes) = root(dir).seal();
        self.made.finish(bytes)?;
        let missed = self.missed.into_inner().unwrap_or_else(|p| p.into_inner());
        Ok((id, dir.summary, missed))
    }

    /// The group of what has other names.
    fn link(&self, inode: Option<u64>) -> Option<LinkId> {
        self.links.get(&inode?).copied()
    }

    fn note_missed(&self, dir: &Open, name: &FileName) {
        let path = path(Path::new("/"), dir, Some(name)).into_os_string().into_vec();
        self.missed.lock().unwrap_or_else(|p| p.into_inner()).add(path);
    }

    fn enter_dir(
        &self,
        place: Place,
        hides: bool,
        meta: Meta,
        found: Vec<Found>,
        below: Below,
    ) -> Result<(Frame, Vec<Job>), RootfsError> {
        let dir = match place {
            Place::Top(fd) => Open { fd, above: None },
            Place::In { above, name } => {
                let fd = at::open_dir(&above.fd, name.as_bytes())
                    .map_err(RootfsError::io("Opening", self.shown(&above, Some(&name))))?;
                Open { fd, above: Some((above, name)) }
            }
        };
        let dir = Arc::new(dir);
        let node = match &below {
            Below::Dir(tree, _) => Some(load_dir(self.store, tree)?),
            Below::Other | Below::Nothing => None,
        };
        let lower = node.as_deref().and_then(as_dir);
        let hidden = if hides { self.open_up(&dir, &found, lower)? } else { Vec::new() };
        let mut sorted = Sorted::default();
        for found in found {
            let link = self.link(found.inode);
            sorted.add(found, link, &dir, hides, lower);
        }
        let Sorted { mut jobs, files, mut others, gone } = sorted;
        // A whiteout of nothing says nothing.
        for name in &gone {
            self.unlink(&dir, name, AtFlags::empty())?;
        }
        let is_touched = !gone.is_empty() || !hidden.is_empty();
        others.extend(hidden);
        if is_touched {
            self.restore_time(&dir, &meta)?;
        }
        let mut files = files.into_iter().peekable();
        while files.peek().is_some() {
            let some = files.by_ref().take(FILES_AT_ONCE).collect();
            jobs.push(Job::Files { dir: dir.clone(), files: some, below: node.clone() });
        }
        Ok((Frame::Dir { dir, meta, below, entries: others }, jobs))
    }

    /// Makes a directory that hides the one below (one that was removed and made again, say) into one
    /// that lies upon it, with whiteouts for what it has not: those are the answer. So what it has can
    /// be compared with what was there, as BuildKit does, and equal changes have equal diffs, whether
    /// overlayfs marked the directory or not.
    fn open_up(
        &self,
        dir: &Open,
        found: &[Found],
        lower: Option<&Dir>,
    ) -> Result<Vec<Entry>, RootfsError> {
        let name = std::str::from_utf8(at::OPAQUE).expect("it is text");
        match rustix::fs::fremovexattr(&dir.fd, name) {
            // Only the highest of the directories that hide something has the mark.
            Ok(()) | Err(rustix::io::Errno::NODATA) => {}
            Err(e) => {
                return Err(RootfsError::io("Setting an attribute of", self.shown(dir, None))(e));
            }
        }
        let Some(lower) = lower else { return Ok(Vec::new()) };
        let names = found.len();
        let found: HashSet<&FileName> = found.iter().map(|found| &found.name).collect();
        let hidden = lower.entries().iter().filter(|entry| !found.contains(&entry.name));
        let all = names + hidden.clone().count();
        if all > limit::DIR_ENTRIES_MAX {
            return Err(RootfsError::Limit {
                path: self.shown(dir, None),
                why: format!(
                    "it has {names} entries, and with those that were there before and are gone {all}, \
                     more than {}",
                    limit::DIR_ENTRIES_MAX
                ),
            });
        }
        let white_out = |entry: &Entry| {
            at::white_out(&dir.fd, entry.name.as_bytes())
                .map_err(RootfsError::io("Making", self.shown(dir, Some(&entry.name))))?;
            let meta = Meta::root_owned(0, Mtime::default());
            Ok(Entry { name: entry.name.clone(), meta, node: Node::Whiteout })
        };
        hidden.map(white_out).collect()
    }

    fn leave_dir(
        &self,
        dir: &Open,
        meta: Meta,
        below: &Below,
        mut entries: Vec<Entry>,
        outs: Vec<Out>,
    ) -> Result<Out, RootfsError> {
        let mut same = Vec::new();
        for out in outs {
            match out {
                Out::Files(files) => entries.extend(files),
                Out::Same(name) => same.push((name, AtFlags::REMOVEDIR)),
                Out::Dir(name, meta, dir, presence) => {
                    let name = name.expect("only the top has no name");
                    entries.push(Entry { name, meta, node: Node::Dir(dir, presence) });
                }
            }
        }
        if let Below::Dir(tree, _) = below {
            let node = load_dir(self.store, tree)?;
            let lower = as_dir(&node).ok_or(RootfsError::Kind(*tree))?;
            entries.retain_mut(|entry| {
                let Some(lower) = lower.get(entry.name.as_bytes()) else { return true };
                match change(entry, lower, self.written) {
                    Change::None => {
                        same.push((entry.name.clone(), AtFlags::empty()));
                        return false;
                    }
                    Change::Names(link) => *entry = relink(entry.name.clone(), link),
                    Change::Unlisted(what) => {
                        if listed::is_lost(&what, &lower.node) {
                            self.note_missed(dir, &entry.name);
                        }
                        entry.node = Node::Unlisted(what);
                    }
                    Change::All => {}
                }
                true
            });
        }
        for (name, flags) in &same {
            self.unlink(dir, name, *flags)?;
        }
        if !same.is_empty() {
            self.restore_time(dir, &meta)?;
        }
        let name = dir.above.as_ref().map(|(_, name)| name.clone());
        let mut presence = Presence::Merge;
        if let (Below::Dir(_, Some(lower)), Some(name)) = (below, &name) {
            presence = match (listed::presence(&meta, &own_meta(lower), &entries), self.written) {
                (None, _) => return Ok(Out::Same(name.clone())),
                (Some(presence), WrittenAs::StepRoot) => presence,
                (Some(_), WrittenAs::Directory) => Presence::Merge,
            };
        }
        let sealed = Dir::new(entries).seal();
        self.put_node(sealed.bytes)?;
        Ok(Out::Dir(name, meta, sealed.dir, presence))
    }

    fn unlink(&self, dir: &Open, name: &FileName, flags: AtFlags) -> Result<(), RootfsError> {
        rustix::fs::unlinkat(&dir.fd, name.as_bytes(), flags)
            .map_err(RootfsError::io("Removing", self.shown(dir, Some(name))))
    }

    fn restore_time(&self, dir: &Open, meta: &Meta) -> Result<(), RootfsError> {
        rustix::fs::futimens(&dir.fd, &at::timestamps(meta.mtime))
            .map_err(RootfsError::io("Setting the time of", self.shown(dir, None)))
    }

    fn put_node(&self, bytes: Vec<u8>) -> Result<(), RootfsError> {
        if bytes.len() > limit::NODE_BYTES_MAX {
            let why = format!("its list of entries takes {} bytes", bytes.len());
            return Err(RootfsError::Limit { path: self.top.to_owned(), why });
        }
        self.made.put(bytes)
    }

    /// Hashes files and puts into the store what is not the same as below.
    fn hash(
        &self,
        dir: &Arc<Open>,
        files: Vec<Found>,
        below: Option<&AnyNode>,
    ) -> Result<Vec<Entry>, RootfsError> {
        let below = below.and_then(as_dir);
        let mut batch = Batch { store: self.store, blobs: Vec::new(), bytes: 0 };
        let mut entries = Vec::with_capacity(files.len());
        for Found { name, meta, what, inode } in files {
            let What::File { size } = what else { continue };
            let known = inode.and_then(|inode| self.hashed().get(&inode).copied());
            let (blob, size) = match known {
                Some(known) => known,
                None => {
                    let lower = below.and_then(|dir| dir.get(name.as_bytes()));
                    let there = match lower.map(|entry| &entry.node) {
                        Some(Node::File { blob, size: s, .. }) if *s == size => Some(*blob),
                        _ => None,
                    };
                    self.hash_one(dir, &name, size, there, &mut batch)?
                }
            };
            if let Some(inode) = inode {
                self.hashed().insert(inode, (blob, size));
            }
            let link = self.link(inode);
            entries.push(Entry { name, meta, node: Node::File { blob, size, link } });
        }
        batch.put()?;
        Ok(entries)
    }

    fn hash_one(
        &self,
        dir: &Open,
        name: &FileName,
        size: u64,
        there: Option<BlobId>,
        batch: &mut Batch<'_>,
    ) -> Result<(BlobId, u64), RootfsError> {
        let shown = || self.shown(dir, Some(name));
        let open =
            || at::open_file(&dir.fd, name.as_bytes()).map_err(RootfsError::io("Opening", shown()));
        if size <= limit::PACKED_BLOB_BYTES_MAX as u64 {
            let mut data = Vec::with_capacity(size as usize + 1);
            let mut file = open()?.take(size + 1);
            file.read_to_end(&mut data).map_err(RootfsError::io("Reading", shown()))?;
            if data.len() as u64 != size {
                return Err(RootfsError::Changed { path: shown() });
            }
            let id = BlobId::of(&data);
            if there != Some(id) {
                batch.add(id, data.into())?;
            }
            return Ok((id, size));
        }
        if let Some(there) = there {
            let (id, hashed) =
                hash_file(&mut open()?).map_err(RootfsError::io("Reading", shown()))?;
            if id == there {
                return Ok((id, hashed));
            }
        }
        let path = at::proc_path(dir.fd.as_fd(), name.as_bytes());
        self.store.adopt(&path).map_err(|e| match e {
            StoreError::Io { action, source, .. } => {
                RootfsError::Io { action, path: shown(), source }
            }
            other => other.into(),
        })
    }

    fn hashed(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (BlobId, u64)>> {
        self.hashed.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn shown(&self, dir: &Open, name: Option<&FileName>) -> PathBuf {
        path(self.top, dir, name)
    }
}

fn path(top: &Path, dir: &Open, name: Option<&FileName>) -> PathBuf {
    let mut names: Vec<String> = name.iter().map(|n| n.to_string()).collect();
    let mut next = &dir.above;
    while let Some((above, name)) = next {
        names.push(name.to_string());
        next = &above.above;
    }
    names.iter().rev().fold(top.to_owned(), |path, name| path.join(name))
}

/// A directory's entries by what has to be done with them.
#[derive(Default)]
struct Sorted {
    jobs: Vec<Job>,
    files: Vec<Found>,
    others: Vec<Entry>,
    gone: Vec<FileName>,
}

impl Sorted {
    fn add(
        &mut self,
        found: Found,
        link: Option<LinkId>,
        dir: &Arc<Open>,
        hides: bool,
        below: Option<&Dir>,
    ) {
        let Found { name, meta, what, inode } = found;
        let lower = below.and_then(|dir| dir.get(name.as_bytes()));
        let node = match what {
            What::Dir { opaque, entries } => {
                let below = match lower {
                    Some(Entry { meta, node: Node::Dir(dir, _), .. }) => {
                        Below::Dir(dir.tree, Some(meta.clone()))
                    }
                    Some(_) => Below::Other,
                    None => Below::Nothing,
                };
                let place = Place::In { above: dir.clone(), name };
                let hides = opaque || hides;
                self.jobs.push(Job::Dir { place, hides, meta, entries, below });
                return;
            }
            What::File { .. } => {
                self.files.push(Found { name, meta, what, inode });
                return;
            }
            What::Whiteout if lower.is_none() => {
                self.gone.push(name);
                return;
            }
            What::Whiteout => Node::Whiteout,
            What::Symlink(target) => Node::Symlink(target),
            What::Char(major, minor) => Node::Char(major, minor),
            What::Block(major, minor) => Node::Block(major, minor),
            What::Fifo => Node::Fifo,
            What::Socket => Node::Socket,
        };
        self.others.push(Entry { name, meta, node: node.with_link(link) });
    }
}

/// What an entry does to the one below. overlayfs takes a file that it copies up away from its other
/// names; and whoever gives it new ones has it copied up.
fn change(entry: &Entry, lower: &Entry, written: WrittenAs) -> Change {
    match (listed::change(entry, &own_meta(&lower.meta), &lower.node), written) {
        (Change::Names(link), WrittenAs::Directory) => {
            let has_new = link.is_some() && link != lower.node.link();
            if has_new { Change::All } else { Change::None }
        }
        (Change::Unlisted(_), WrittenAs::Directory) => Change::All,
        (change, _) => change,
    }
}

fn as_dir(node: &AnyNode) -> Option<&Dir> {
    match node {
        AnyNode::Dir(dir) => Some(dir),
        AnyNode::Root(_) => None,
    }
}

struct Batch<'a> {
    store: &'a dyn Store,
    blobs: Vec<(BlobId, Bytes)>,
    bytes: usize,
}

impl Batch<'_> {
    fn add(&mut self, id: BlobId, data: Bytes) -> Result<(), RootfsError> {
        self.bytes += data.len();
        self.blobs.push((id, data));
        if self.bytes >= limit::BATCH_BYTES { self.put() } else { Ok(()) }
    }

    fn put(&mut self) -> Result<(), RootfsError> {
        if !self.blobs.is_empty() {
            self.store.put_blobs(&self.blobs)?;
            self.blobs.clear();
            self.bytes = 0;
        }
        Ok(())
    }
}
