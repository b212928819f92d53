//! Opening a store: who may, what an earlier process left, what a loss of power took.
//!
//! Three ways in which the last process can have ended, told by the file `state`:
//!
//! * It closed the store: everything is safe, nothing is to be done.
//! * It was killed, under the same boot of the machine: everything that it wrote is still visible,
//!   since the kernel has it. Some of it is not safe from a loss of power; the next barrier sees to
//!   that.
//! * The machine went down: bytes that were not safe may be gone or wrong. Those are hashed, and
//!   what is not what its name says is forgotten, with all that needs it.

use super::batch::Sync;
use super::files::{Files, hash_all, make_dir, shard_of};
use super::lose::Lost;
use super::rocks::{Cf, DAMAGED, Index, Make};
use super::segment::{Extent, Segments};
use super::space::Space;
use super::value::{Place, SegmentRow, state};
use super::{Inner, Options, chunks, durable, gc, nodes, touch, uses};
use crate::store::{Persisted, StoreError, lock};
use proto::error::Class;
use proto::id::BlobId;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

/// The version of everything on disk.
const FORMAT: &str = "slipway store 1\n";

/// Entries of a store's directory.
const OURS: [&str; 8] =
    ["lock", "format", "state", "index", "segments", "blobs", "tmp", "quarantine"];

/// Whether an entry of a store's directory is one that a store has.
pub(super) fn is_ours(path: &Path) -> bool {
    OURS.iter().any(|ours| path.file_name().is_some_and(|name| name == *ours))
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "The store at {} is in use by {holder}. Stop that one, or use another directory",
        path.display()
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// The directory has other things in it.
    #[error(
        "{} is no store, and not empty: it has `{entry}`. Give an empty or a new directory",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something that no store has.
        entry: String,
    },
    /// Another version of Slipway made it.
    #[error(
        "The store at {} has the format `{found}`, this version of Slipway reads `{}`. \
         Use the version that made it, or another directory; a cache is filled again by itself",
        path.display(), FORMAT.trim_end()
    )]
    Format {
        /// The store.
        path: PathBuf,
        /// What its file `format` says.
        found: String,
    },
    /// RocksDB can't open the index.
    #[error("The index of the store at {} can't be opened: {detail}", path.display())]
    Index {
        /// The store.
        path: PathBuf,
        /// RocksDB's words, and what to do.
        detail: String,
    },
    /// Something on the way failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Locked { .. } => Class::Busy,
            Self::Foreign { .. } | Self::Format { .. } => Class::User,
            Self::Index { .. } => Class::Corrupt,
            Self::Store(error) => error.class(),
        }
    }
}

/// How the last process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    Closed,
    Killed,
    PowerLost,
    /// The note of it is damaged, so that the worst is taken for true.
    Unreadable,
}

impl Past {
    /// Whether what was not made durable may be gone.
    fn is_unsafe(self) -> bool {
        matches!(self, Self::PowerLost | Self::Unreadable)
    }
}

/// Opens the store at `root`, or makes it.
pub(super) fn open(root: &Path, options: Options) -> Result<Inner, OpenError> {
    make_dir(root)?;
    let root = &root.canonicalize().map_err(StoreError::io("Opening", root))?;
    check_format(root)?;
    let lock = take_lock(root)?;
    let make = check_format(root)?;
    let session = std::process::id().to_string();
    lay_out(root, &session)?;
    let index = Index::open(&root.join("index"), make).map_err(|e| index_error(root, e))?;
    if make == Make::New {
        // Last, so that a store is one only when all of it is there.
        write_whole(root, "format", FORMAT)?;
    }
    let past = match make {
        Make::New => Past::Closed,
        _ => past(root),
    };
    if past != Past::Closed {
        tracing::info!(path = %root.display(), ?past, "The store was not closed");
    }
    let extents = extents(&index, &root.join("segments"))?;
    let inner = Inner {
        segments: Segments::new(root.join("segments"), options.segment_bytes, extents),
        files: Files::new(root, &session),
        touches: touch::Touches::default(),
        uses: uses::Uses::default(),
        durable: durable::Durable::default(),
        space: Space::new(root, options.limit, options.keep_free),
        nodes: nodes::NodeCache::new(options.node_cache_bytes),
        farm: super::elsewhere::Farm::default(),
        cutting: chunks::Cutting::default(),
        gate: RwLock::default(),
        collecting: Mutex::default(),
        collected: Mutex::default(),
        wake: gc::Wake::default(),
        index_bytes: AtomicU64::new(0),
        note_was_damaged: AtomicBool::new(past == Past::Unreadable),
        root: root.to_owned(),
        options,
        index,
        _lock: lock,
    };
    inner.measure_index();
    inner.recover(past)?;
    Ok(inner)
}

fn index_error(root: &Path, error: rocksdb::Error) -> OpenError {
    let detail = error.into_string();
    // A file that is gone is as bad as one that is wrong.
    let broken = !detail.contains("No space left") && !detail.contains("While lock file");
    let advice = if broken { DAMAGED } else { "" };
    OpenError::Index { path: root.to_owned(), detail: format!("{detail}{advice}") }
}

fn check_format(root: &Path) -> Result<Make, OpenError> {
    match fs::read_to_string(root.join("format")) {
        Ok(found) if found == FORMAT => return Ok(Make::Existing),
        Ok(found) => {
            let found = found.trim_end().chars().take(80).collect();
            return Err(OpenError::Format { path: root.to_owned(), found });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("Reading", &root.join("format"))(error).into()),
    }
    for entry in fs::read_dir(root).map_err(StoreError::io("Reading", root))? {
        let entry = entry.map_err(StoreError::io("Reading", root))?.file_name();
        if !OURS.iter().any(|ours| entry == *ours) {
            let entry = entry.to_string_lossy().into_owned();
            return Err(OpenError::Foreign { path: root.to_owned(), entry });
        }
    }
    Ok(Make::New)
}

/// Takes the lock, or says who has it.
fn take_lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(StoreError::io("Opening", &path))?;
    if !lock(&file).map_err(StoreError::io("Locking", &path))? {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        let holder = match pid.trim().parse::<u32>() {
            Ok(pid) => format!("process {pid}"),
            Err(_) => "another process".to_owned(),
        };
        return Err(OpenError::Locked { path: root.to_owned(), holder });
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(StoreError::io("Writing", &path))?;
    Ok(file)
}

/// Makes the directories, and sweeps what was unfinished.
fn lay_out(root: &Path, session: &str) -> Result<(), StoreError> {
    let closed = fs::set_permissions(root, fs::Permissions::from_mode(0o700));
    closed.map_err(StoreError::io("Closing to others", root))?;
    let tmp = root.join("tmp");
    match fs::remove_dir_all(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("Sweeping", &tmp)(error));
        }
        _ => make_dir(&tmp.join(session))?,
    }
    make_dir(&root.join("segments"))?;
    make_dir(&root.join("quarantine"))?;
    let blobs = root.join("blobs");
    if !blobs.join("ff").exists() {
        for shard in 0..=255u8 {
            make_dir(&blobs.join(format!("{shard:02x}")))?;
        }
        sync_dir(&blobs)?;
        sync_dir(root)?;
    }
    Ok(())
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(StoreError::io("Syncing", path))
}

/// Writes a small file so that it is there with this text, or not at all.
fn write_whole(root: &Path, name: &str, text: &str) -> Result<(), StoreError> {
    let temp = root.join("tmp").join(name);
    let write = || -> io::Result<()> {
        let mut file = File::create(&temp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp, root.join(name))
    };
    write().map_err(StoreError::io("Writing", &root.join(name)))?;
    sync_dir(root)
}

/// The running boot of the machine; None when the kernel does not say.
fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn past(root: &Path) -> Past {
    let state = match fs::read(root.join("state")) {
        Ok(state) => state,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Past::PowerLost,
        Err(_) => return Past::Unreadable,
    };
    let state = String::from_utf8_lossy(&state);
    match (state.trim(), boot_id()) {
        ("closed", _) => Past::Closed,
        (state, Some(boot)) if state == format!("open {boot}") => Past::Killed,
        (state, _) if state.starts_with("open ") => Past::PowerLost,
        _ => Past::Unreadable,
    }
}

/// What there is of each segment. Files that the index does not know are swept: they are ones that
/// were just begun, or just emptied.
fn extents(index: &Index, dir: &Path) -> Result<BTreeMap<u32, Extent>, StoreError> {
    let mut extents = BTreeMap::new();
    index.scan(Cf::State, &[state::SEGMENT], |key, value| {
        if let Some(id) = state::number(&key[1..]) {
            let synced = SegmentRow::from_bytes(value).map_or(0, |row| row.synced);
            extents.insert(id, Extent { len: 0, synced });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for entry in fs::read_dir(dir).map_err(StoreError::io("Reading", dir))? {
        let entry = entry.map_err(StoreError::io("Reading", dir))?;
        let id = entry.file_name().to_str().and_then(Segments::parse_name);
        match id.and_then(|id| extents.get_mut(&id)) {
            Some(extent) => {
                let metadata =
                    entry.metadata().map_err(StoreError::io("Reading", &entry.path()))?;
                extent.len = metadata.len();
            }
            None if id.is_some() => {
                fs::remove_file(entry.path()).map_err(StoreError::io("Sweeping", &entry.path()))?;
            }
            // `verify` tells of files that are none of ours.
            None => {}
        }
    }
    for extent in extents.values_mut() {
        extent.synced = extent.synced.min(extent.len);
    }
    Ok(extents)
}

impl Inner {
    fn recover(&self, past: Past) -> Result<(), StoreError> {
        if past == Past::Closed {
            return self.note_open();
        }
        // The writes of the process before are not safe either.
        self.index.writes.fetch_add(1, Ordering::SeqCst);
        self.finish_deletions()?;
        let unsynced = self.unsynced_files()?;
        if past.is_unsafe() {
            let lost = self.unsafe_bytes(&unsynced)?;
            let dropped = self.lose(lost)?;
            tracing::warn!(?dropped, "Power was lost: what was not safe was checked");
            self.sweep_files()?;
        }
        self.sweep_segments()?;
        for id in unsynced {
            self.durable.note_large(id);
        }
        self.durable.note_segments_dir();
        if past.is_unsafe() {
            // What was found right is made safe, so that it need not be looked at again.
            self.barrier()?;
        }
        self.note_open()
    }

    /// Deletes files that were to be deleted, and files that never became blobs.
    fn finish_deletions(&self) -> Result<(), StoreError> {
        for kind in [state::DOOMED, state::UNSYNCED] {
            let mut batch = self.index.batch();
            for id in self.state_ids(kind)? {
                let here = self.index.blob(&id)?.is_some();
                if !here {
                    self.files.unlink(&id)?;
                }
                if !here || kind == state::DOOMED {
                    batch.delete(Cf::State, &[&[kind][..], id.as_bytes()].concat());
                }
            }
            batch.commit(Sync::No)?;
        }
        Ok(())
    }

    fn state_ids(&self, kind: u8) -> Result<Vec<BlobId>, StoreError> {
        let mut ids = Vec::new();
        self.index.scan(Cf::State, &[kind], |key, _| {
            ids.extend(key[1..].try_into().map(BlobId::from_bytes));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ids)
    }

    fn unsynced_files(&self) -> Result<Vec<BlobId>, StoreError> {
        self.state_ids(state::UNSYNCED)
    }

    /// Of what was not safe from a loss of power, what is not what its name says.
    fn unsafe_bytes(&self, unsynced: &[BlobId]) -> Result<Lost, StoreError> {
        let mut lost = Lost::default();
        for id in unsynced {
            if let Some(place @ Place::File { size }) = self.index.blob(id)?
                && !self.is_file_right(id, size)
            {
                lost.blobs.insert(*id, place);
            }
        }
        let extents = self.segments.extents();
        self.index.scan(Cf::Blob, &[], |key, value| {
            if let (Ok(id), Some(place @ Place::Packed(span))) =
                (key.try_into().map(BlobId::from_bytes), Place::from_bytes(value))
            {
                let safe = extents.get(&span.segment).is_some_and(|e| span.end() <= e.synced);
                if !safe && self.segments.read(&span).ok().is_none_or(|b| BlobId::of(&b) != id) {
                    lost.blobs.insert(id, place);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(lost)
    }

    fn is_file_right(&self, id: &BlobId, size: u64) -> bool {
        let hashed = File::open(self.files.path(id)).and_then(|file| hash_all(&file));
        hashed.is_ok_and(|hashed| hashed == (*id, size))
    }

    /// Deletes the files of blobs that the index does not know: those that were just made or
    /// deleted, and whose entry in the log was lost.
    fn sweep_files(&self) -> Result<(), StoreError> {
        for shard in 0..=255u8 {
            let path = self.files.shard_path(shard);
            for entry in fs::read_dir(&path).map_err(StoreError::io("Reading", &path))? {
                let name = entry.map_err(StoreError::io("Reading", &path))?.file_name();
                let id = name.to_str().and_then(|name| BlobId::parse(name).ok());
                if let Some(id) = id
                    && shard_of(&id) == shard
                    && self.index.blob(&id)?.is_none()
                {
                    self.files.unlink(&id)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets segments whose files are gone and that no blob is in.
    fn sweep_segments(&self) -> Result<(), StoreError> {
        for (id, _) in self.segments.extents().iter().filter(|(_, extent)| extent.len == 0) {
            let live = super::lock(&self.index.totals).live.get(id).copied().unwrap_or_default();
            if live.number == 0 && !self.segments.path(*id).exists() {
                let mut batch = self.index.batch();
                batch.delete_segment(*id);
                batch.commit(Sync::No)?;
                self.segments.remove(*id).map_err(StoreError::io("Sweeping", &self.root))?;
            }
        }
        Ok(())
    }

    /// Notes that the store is open under this boot of the machine.
    fn note_open(&self) -> Result<(), StoreError> {
        let state = format!("open {}\n", boot_id().unwrap_or_else(|| "unknown".to_owned()));
        if fs::read_to_string(self.root.join("state")).is_ok_and(|old| old == state) {
            return Ok(());
        }
        write_whole(&self.root, "state", &state)
    }

    /// Has the next start check all that is not known to be safe, as after a loss of power.
    pub fn forget_boot(&self) {
        let _ = fs::remove_file(self.root.join("state"));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, path = %self.root.display(), "The store could not be closed");
        }
    }
}

impl Inner {
    /// Makes all durable and says so. What fails here is found at the next start.
    fn close(&self) -> Result<(), StoreError> {
        self.check_poison()?;
        let mut batch = self.index.batch();
        self.uses.flush(&mut batch);
        if !batch.is_empty() {
            batch.commit(Sync::No)?;
        }
        self.barrier()?;
        // Else the next start would have to replay the log.
        self.index.flush()?;
        let _ = fs::remove_dir_all(self.root.join("tmp"));
        make_dir(&self.root.join("tmp"))?;
        write_whole(&self.root, "state", "closed\n")
    }
}
