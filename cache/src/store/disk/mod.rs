//! The store of one machine: RocksDB for what is small, files for bytes.
//!
//! ```text
//! lock              held while the store is open, with the holder's process id
//! format            the version of all that is below
//! state             whether the store was closed in order, and under which boot of the machine
//! index/            RocksDB: what is where, trees, records, tables
//! segments/N.seg    blobs of up to 256 KiB, one behind the other
//! blobs/ab/HASH     larger blobs
//! tmp/SESSION/      unfinished files; swept when the store is opened
//! quarantine/       what was found damaged
//! ```
//!
//! **Order.** Bytes are written before the index names them; the index is written in order, without
//! waiting for the disk. So after a crash of the process everything that was visible still is, and
//! what is not named is dead weight. A [barrier](crate::store::Store::barrier) makes the bytes safe
//! first and the index after them ([`durable`]). After a loss of power the start looks at what was
//! not yet safe, and drops what is not what its name says ([`recover`]).
//!
//! **Whole trees.** A node is there only while all that it names is: putting checks, collection
//! deletes from the top down, and a blob that is lost takes the trees above it along ([`lose`]).
//!
//! **Locks**, in the order in which they may be taken: the turn to cut a blob into chunks, the lock
//! of a large blob, `gate`, the tail of the segments. `gate` is shared by who looks something up
//! and relies on its being there, and held alone by who deletes. Everything else is held for moments
//! and calls nobody.

mod adopt;
mod batch;
mod checksum;
mod chunks;
mod durable;
mod elsewhere;
mod files;
mod gc;
mod lose;
mod nodes;
mod options;
mod part;
mod place;
mod read;
mod recover;
mod repair;
mod rocks;
mod scrub;
mod segment;
mod space;
mod tables;
#[cfg(test)]
mod tests;
mod touch;
mod usage;
mod uses;
mod value;
mod write;

pub use elsewhere::{Found, Mending, Others, Released};
pub use gc::{Budget, Collected, Prune, Report};
#[doc(hidden)]
pub use options::Hooks;
pub use options::Options;
pub use part::{Page, Part, Taken, digest, item_key, key_after, value_hash};
pub use recover::OpenError;
pub use repair::Repaired;
pub use scrub::{Damage, Damaged, Phase, Progress};
pub use usage::{Amount, Usage};

use super::{BlobWriter, Pin, Row, Store, StoreError, Table};
use crate::chunk::ChunkPlace;
use bytes::Bytes;
use proto::chunk::ChunkList;
use proto::id::{BlobId, ContentKey, DefKey, Scope, TreeId};
use proto::record::{Alias, Record};
use proto::tree::{AnyNode, Meta};
use proto::wire::blob::{Entry, Forgotten, Range};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The store of one machine. See [`Store`] for what it promises.
pub struct DiskStore {
    inner: Arc<Inner>,
    _collector: Option<gc::Collector>,
}

/// What the store and all that it handed out share. The last of them closes it.
struct Inner {
    root: PathBuf,
    options: Options,
    index: rocks::Index,
    segments: segment::Segments,
    files: files::Files,
    touches: touch::Touches,
    uses: uses::Uses,
    durable: durable::Durable,
    space: space::Space,
    nodes: nodes::NodeCache,
    farm: elsewhere::Farm,
    cutting: chunks::Cutting,
    gate: RwLock<()>,
    collecting: Mutex<gc::Turn>,
    collected: Mutex<Collected>,
    wake: gc::Wake,
    index_bytes: AtomicU64,
    /// Whether the file `state` could not be read when the store was opened, which writes it anew.
    note_was_damaged: AtomicBool,
    _lock: File,
}

/// Locks; what a panic in another thread left is still whole, since nothing here panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Inner {
    fn hooks(&self) -> &Hooks {
        &self.options.hooks
    }

    /// Comes to a step that a crash could come before.
    fn step(&self, name: &'static str) {
        (self.options.hooks.step)(name);
    }

    /// Held by who relies on something's being there.
    fn gate(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Held by who deletes.
    fn gate_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Bytes on disk.
    fn held(&self) -> u64 {
        let large = lock(&self.index.totals).large.bytes.max(0) as u64;
        self.segments.bytes() + large + self.index_bytes.load(Ordering::Relaxed)
    }

    fn measure_index(&self) {
        self.index_bytes.store(self.index.disk_bytes(), Ordering::Relaxed);
    }
}

impl DiskStore {
    /// Opens the store at `path`, or makes one there. What an earlier process left unfinished is
    /// swept. Only one process can have it open.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let inner = Arc::new(recover::open(path, options)?);
        let collector = inner.options.automatic.then(|| gc::Collector::start(&inner));
        Ok(Self { inner, _collector: collector })
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.inner.root
    }

    /// Bytes of disk that the store takes.
    pub fn held_bytes(&self) -> u64 {
        self.inner.held()
    }

    /// Bytes of disk that it may take: above that it is collected. None when it is not.
    pub fn budget_bytes(&self) -> Option<u64> {
        self.inner.options.budget
    }

    /// What collections have taken away since the store was opened.
    pub fn collected(&self) -> Collected {
        *lock(&self.inner.collected)
    }

    /// What the store holds.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage()
    }

    /// Deletes what `budget` leaves no room for, and what nothing refers to. Safe beside all other
    /// calls; a second collection waits for the first.
    pub fn collect(&self, budget: Budget) -> Result<Report, StoreError> {
        self.inner.collect(budget)
    }

    /// Collects as a person asks for it.
    pub fn prune(&self, prune: Prune) -> Result<Report, StoreError> {
        self.inner.collect(prune.into())
    }

    /// Reads and checks everything. Changes nothing. Works beside all other calls, which can be
    /// slower meanwhile.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Damage>, StoreError> {
        self.inner.verify(progress)
    }

    /// Drops what [`DiskStore::verify`] found damaged, and what needs it, so that it is made again.
    pub fn repair(&self, damages: &[Damage]) -> Result<Repaired, StoreError> {
        self.inner.repair(damages)
    }
}

/// A store that is a part of a farm's.
impl DiskStore {
    /// From now on the store is one of several that together are a farm's: its trees can name blobs
    /// that others have. Only the first call counts.
    pub fn join(&self, others: Arc<dyn Others>) {
        self.inner.join(others);
    }

    /// What is to be done about it, once.
    pub fn take_mending(&self) -> Mending {
        self.inner.take_mending()
    }

    /// Things of a part from one key up to another (an empty one stands for the end), at most
    /// `most`.
    pub fn page(
        &self,
        part: Part<'_>,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Page, StoreError> {
        self.inner.page(part, from, to, most)
    }

    /// What there is from one key up to another, cut into ranges to compare, at most
    /// `limit::RANGES_MAX`; and where to go on, if that is not all.
    pub fn ranges(
        &self,
        part: Part<'_>,
        from: &[u8],
        to: &[u8],
    ) -> Result<(Vec<Range>, Option<Vec<u8>>), StoreError> {
        self.inner.ranges(part, from, to)
    }

    /// Whether there is the same in a range.
    pub fn is_same(&self, part: Part<'_>, range: &Range) -> Result<bool, StoreError> {
        self.inner.is_same(part, range)
    }

    /// Those of these records, aliases and rows that are here, up to `limit::ENTRIES_BYTES` bytes.
    pub fn entries(&self, keys: &[Vec<u8>]) -> Result<Vec<Entry>, StoreError> {
        self.inner.entries(keys)
    }

    /// Takes a record, an alias or a row from another node.
    pub fn take_entry(&self, entry: &Entry) -> Result<Taken, StoreError> {
        self.inner.take_entry(entry)
    }

    /// Takes tree nodes from another node that has them whole, children first. Answers how many
    /// were passed over, because something below them is not here.
    pub fn take_nodes(&self, nodes: &[Vec<u8>]) -> Result<usize, StoreError> {
        Inner::take_nodes(&self.inner, nodes)
    }

    /// Which of these trees are not here. They do not count as used.
    pub fn lacking_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
        self.inner.lacking_trees(ids)
    }

    /// Deletes records, aliases and rows that have these values, unless they are in use. Answers
    /// how many.
    pub fn forget(&self, entries: &[Forgotten]) -> Result<u64, StoreError> {
        self.inner.forget(entries)
    }

    /// Blobs that hold the encodings of trees that are here: every node has them.
    pub fn encodings(&self) -> Result<std::collections::HashSet<BlobId>, StoreError> {
        self.inner.encodings()
    }

    /// Deletes blobs that others have, unless they are in use.
    pub fn release(&self, ids: &[BlobId]) -> Result<Released, StoreError> {
        self.inner.release(ids)
    }

    /// Looks whether the others have those of these blobs that are not here; those that nobody has
    /// are lost, with all that needs them.
    pub fn look_for(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        self.inner.look_for(ids)
    }

    /// Of these blobs, those that are not here and that somebody else may have are to be mended
    /// again. Answers how many.
    pub fn mend_again(&self, ids: &[BlobId]) -> Result<usize, StoreError> {
        self.inner.mend_again(ids)
    }

    /// Puts back what was taken of [`Mending::blobs`] and not mended.
    pub fn mend_later(&self, blobs: &[(BlobId, u64)]) {
        self.inner.mend_later(blobs);
    }

    /// Blobs that are noted to be elsewhere, from an id on, at most `most`.
    pub fn elsewhere_from(&self, from: &BlobId, most: usize) -> Result<Vec<BlobId>, StoreError> {
        self.inner.elsewhere_from(from, most)
    }

    /// Reads and checks blobs from an id on, up to about `bytes` bytes. Damaged ones are dropped,
    /// to be mended. Answers where to go on, if that was not all.
    pub fn check_from(&self, from: &BlobId, bytes: u64) -> Result<Option<BlobId>, StoreError> {
        self.inner.check_from(from, bytes)
    }
}

impl Store for DiskStore {
    fn missing_blobs(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, StoreError> {
        self.inner.missing_blobs(ids)
    }

    fn missing_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
        self.inner.missing_trees(ids)
    }

    fn put_blobs(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), StoreError> {
        Inner::put_blobs(&self.inner, blobs)
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.inner.check_poison()?;
        Ok(Box::new(write::Writer::new(self.inner.clone())))
    }

    fn adopt(&self, file: &Path) -> Result<(BlobId, u64), StoreError> {
        Inner::adopt(&self.inner, file)
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, StoreError> {
        Ok(self.inner.find(id)?.size())
    }

    fn read(&self, id: &BlobId) -> Result<Bytes, StoreError> {
        self.inner.sought(&[*id], self.inner.read(id))
    }

    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        self.inner.sought(ids, self.inner.read_many(ids))
    }

    fn open(&self, id: &BlobId, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        self.inner.sought(&[*id], Inner::stream(&self.inner, id, offset))
    }

    fn place(&self, id: &BlobId, meta: &Meta, dest: &Path) -> Result<(), StoreError> {
        self.inner.place(id, meta, dest)
    }

    fn chunks(&self, id: &BlobId) -> Result<ChunkList, StoreError> {
        self.inner.sought(&[*id], self.inner.chunks(id))
    }

    fn note_chunks(&self, list: &ChunkList) -> Result<(), StoreError> {
        self.inner.note_chunks(list)
    }

    fn find_chunks(&self, ids: &[BlobId]) -> Result<Vec<Option<ChunkPlace>>, StoreError> {
        self.inner.find_chunks(ids)
    }

    fn read_chunk(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError> {
        Ok(self.inner.read_chunk(id, at)?.into())
    }

    fn put_nodes(&self, nodes: &[Vec<u8>]) -> Result<(), StoreError> {
        Inner::put_nodes(&self.inner, nodes)
    }

    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
        self.inner.node(id)
    }

    fn node_bytes(&self, id: &TreeId) -> Result<Bytes, StoreError> {
        self.inner.node_bytes(id)
    }

    fn records(
        &self,
        scope: &Scope,
        keys: &[ContentKey],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.records(scope, keys)
    }

    fn aliases(&self, scope: &Scope, keys: &[DefKey]) -> Result<Vec<Option<Alias>>, StoreError> {
        self.inner.aliases(scope, keys)
    }

    fn put_record(
        &self,
        scope: &Scope,
        key: &ContentKey,
        record: &Record,
        alias: Option<(&DefKey, &Alias)>,
    ) -> Result<(), StoreError> {
        self.inner.put_record(scope, key, record, alias)
    }

    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.row(table, key)
    }

    fn put_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.inner.put_row(table, key, value)
    }

    fn delete_row(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        self.inner.delete_row(table, key)
    }

    fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.inner.rows(table, prefix)
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.inner.barrier()
    }

    fn sizes(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>, StoreError> {
        let places = self.inner.index.blobs(ids)?;
        Ok(places.into_iter().map(|place| Some(place?.size())).collect())
    }

    fn disk(&self) -> Option<&DiskStore> {
        Some(self)
    }

    fn pin(&self) -> Pin {
        Pin::new(self.inner.touches.pin())
    }
}
