//! Looking at everything.
//!
//! Nothing is changed, and nothing is held for long, so that a store in use can be verified. What
//! looks damaged is looked at again: it may have been deleted or moved in between.

use super::batch::{Sign, Totals};
use super::files::hash_all;
use super::lose::Fault;
use super::rocks::{Cf, DAMAGED};
use super::segment::Segments;
use super::value::{Elsewhere, Head, Place, key, state};
use super::{Inner, checksum};
use crate::store::{Persisted, StoreError, Table};
use proto::id::{BlobId, TreeId};
use proto::record::{Alias, Record};
use proto::tree::{AnyNode, node_id};
use rayon::prelude::*;
use std::fmt;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Things that are looked at together.
const BATCH: usize = 1024;

/// What is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damaged {
    /// The index itself.
    Index,
    /// A blob.
    Blob(BlobId),
    /// A tree node.
    Tree(TreeId),
    /// A step record: its key in the index.
    Record(Vec<u8>),
    /// An alias of a record: its key in the index.
    Alias(Vec<u8>),
    /// What is known of a blob's chunks: its key in the index.
    Chunks(Vec<u8>),
    /// A row of a table: the table, where it is known, and the key in the index.
    Row(Option<Table>, Vec<u8>),
    /// A file that belongs to nothing.
    Stray,
    /// How much the store counts that it has.
    Counters,
    /// The note of how the store was closed last, found when it was opened.
    State,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub what: Damaged,
    /// The file in which it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

impl Damage {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self.what {
            Damaged::Index => DAMAGED.trim_start_matches([' ', '.']),
            Damaged::Row(Some(Table::Image), _) => {
                "Repair takes the image away; build or pull it again"
            }
            Damaged::Chunks(_) => {
                "Repair takes it away; the blob is cut again when it is asked for"
            }
            Damaged::Stray => "Repair puts the file aside",
            Damaged::Counters => "Repair counts again",
            Damaged::State => {
                "Everything was checked when the store was opened; repair takes note of it"
            }
            _ => "Repair takes it away, and what needs it; the next build makes it again",
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Damaged::Index => write!(f, "The index")?,
            Damaged::Blob(id) => write!(f, "Blob {id}")?,
            Damaged::Tree(id) => write!(f, "Tree node {id}")?,
            Damaged::Record(_) => write!(f, "A step record")?,
            Damaged::Alias(_) => write!(f, "An alias of a step record")?,
            Damaged::Chunks(_) => write!(f, "What is known of a blob's chunks")?,
            Damaged::Row(Some(table), _) => write!(f, "A row of table {table:?}")?,
            Damaged::Row(None, _) => write!(f, "A row of no table")?,
            Damaged::Stray => write!(f, "A file that belongs to nothing")?,
            Damaged::Counters => write!(f, "The count of what is here")?,
            Damaged::State => write!(f, "The note of how the store was closed")?,
        }
        write!(f, " ({}): {}", self.path.display(), self.detail)
    }
}

/// What is being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// RocksDB's files.
    Index,
    /// Blobs; counted in bytes.
    Blobs,
    /// Tree nodes.
    Trees,
    /// Records, aliases, rows, and what is known of chunks.
    Tables,
    /// Files that may belong to nothing.
    Files,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being looked at.
    pub phase: Phase,
    /// How many, or how many bytes, were looked at.
    pub done: u64,
    /// Of how many, about.
    pub total: u64,
}

/// A running verification.
struct Scrub<'a> {
    inner: &'a Inner,
    progress: &'a mut dyn FnMut(Progress),
    damages: Vec<Damage>,
}

impl Inner {
    /// See [`super::DiskStore::verify`].
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Damage>, StoreError> {
        let mut scrub = Scrub { inner: self, progress, damages: Vec::new() };
        if self.note_was_damaged.load(Ordering::Relaxed) {
            let detail = "it said nothing that this version writes".to_owned();
            scrub.add(Damaged::State, self.root.join("state"), detail);
        }
        scrub.tell(Phase::Index, 0, 1);
        if let Err(detail) = checksum::verify(&self.index, &self.files.temp_path()) {
            scrub.add(Damaged::Index, self.index.path.clone(), detail);
        }
        let looked = scrub.look();
        let damages = scrub.damages;
        match looked {
            // A damaged index is found again by who reads it; what was found so far is the answer.
            Err(StoreError::Index { .. }) if damages.iter().any(|d| d.what == Damaged::Index) => {}
            other => other?,
        }
        Ok(damages)
    }

    /// Counts what is in the index. The caller holds the gate alone.
    pub fn count(&self) -> Result<Totals, StoreError> {
        let mut totals = Totals::default();
        self.index.scan(Cf::Blob, &[], |_, value| {
            if let Some(place) = Place::from_bytes(value) {
                totals.count_blob(&place, Sign::Plus);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.index.scan(Cf::Tree, &[], |_, value| {
            if let Some(head) = Head::from_bytes(value) {
                totals.count_tree(&head, Sign::Plus);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(totals)
    }

    /// What is wrong with a blob's bytes at `place`, if anything.
    pub fn check_blob(&self, id: &BlobId, place: &Place) -> Option<Fault> {
        let hashed = match place {
            Place::Packed(span) => self.segments.read(span).map(|bytes| BlobId::of(&bytes)),
            Place::File { size } => {
                let hash = || {
                    let file = File::open(self.files.path(id))?;
                    hash_all(&file)
                };
                match hash() {
                    Ok((_, is)) if is != *size => return Some(Fault::Size(is)),
                    other => other.map(|(id, _)| id),
                }
            }
        };
        match hashed {
            Ok(hashed) if hashed == *id => None,
            Ok(hashed) => Some(Fault::Hash(hashed)),
            Err(error) => Some(error.into()),
        }
    }
}

impl Inner {
    /// Checks blobs from an id on, up to about `bytes` bytes, and drops the damaged ones. Answers
    /// where to go on.
    pub fn check_from(&self, from: &BlobId, bytes: u64) -> Result<Option<BlobId>, StoreError> {
        let (mut some, mut seen, mut next) = (Vec::new(), 0, None);
        self.index.range(Cf::Blob, from.as_bytes(), &[], |key, value| {
            if let (Ok(id), Some(place)) =
                (key.try_into().map(BlobId::from_bytes), Place::from_bytes(value))
            {
                if seen >= bytes {
                    next = Some(id);
                    return Ok(ControlFlow::Break(()));
                }
                seen += place.size().max(1);
                some.push((id, place));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (id, place) in some {
            let Some(fault) = self.check_blob(&id, &place) else { continue };
            // It may have been moved or deleted in between.
            if self.index.blob(&id)? == Some(place) && self.check_blob(&id, &place).is_some() {
                let error = self.fault(&id, place, fault);
                tracing::warn!(%error, "Found by looking");
            }
        }
        Ok(next)
    }
}

impl Scrub<'_> {
    fn tell(&mut self, phase: Phase, done: u64, total: u64) {
        (self.progress)(Progress { phase, done, total: total.max(done) });
    }

    fn add(&mut self, what: Damaged, path: PathBuf, detail: String) {
        self.damages.push(Damage { what, path, detail });
    }

    fn look(&mut self) -> Result<(), StoreError> {
        self.blobs()?;
        self.trees()?;
        self.tables()?;
        self.files()?;
        self.counters()
    }

    fn blobs(&mut self) -> Result<(), StoreError> {
        let totals = super::lock(&self.inner.index.totals).clone();
        let total = (totals.packed.bytes + totals.large.bytes).max(0) as u64;
        let (mut done, mut some) = (0, Vec::new());
        self.inner.index.scan(Cf::Blob, &[], |id, place| {
            let Ok(id) = id.try_into().map(BlobId::from_bytes) else {
                let path = self.inner.index.path.clone();
                self.add(Damaged::Row(None, id.to_vec()), path, "a blob without a name".to_owned());
                return Ok(ControlFlow::Continue(()));
            };
            some.push((Place::from_bytes(place), id));
            if some.len() == BATCH {
                done += self.some_blobs(&mut some)?;
                self.tell(Phase::Blobs, done, total);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        done += self.some_blobs(&mut some)?;
        self.tell(Phase::Blobs, done, total);
        Ok(())
    }

    /// Looks at some blobs, those in segments in the order in which they lie there. Answers how
    /// many bytes they have.
    fn some_blobs(&mut self, some: &mut Vec<(Option<Place>, BlobId)>) -> Result<u64, StoreError> {
        some.sort_unstable_by_key(|(place, _)| match place {
            Some(Place::Packed(span)) => Some(*span),
            _ => None,
        });
        let inner = self.inner;
        let check = |(place, id): &(Option<Place>, BlobId)| {
            let place = place.as_ref();
            place.is_none_or(|place| inner.check_blob(id, place).is_some()).then_some(*id)
        };
        let suspects: Vec<BlobId> = some.par_iter().filter_map(check).collect();
        let bytes = some.iter().filter_map(|(place, _)| Some(place.as_ref()?.size())).sum();
        some.clear();
        for id in suspects {
            self.suspect(&id)?;
        }
        Ok(bytes)
    }

    /// Looks again at a blob that looked damaged.
    fn suspect(&mut self, id: &BlobId) -> Result<(), StoreError> {
        loop {
            let index = &self.inner.index;
            let Some(value) = index.get(Cf::Blob, id.as_bytes())? else {
                return Ok(());
            };
            let Some(place) = Place::from_bytes(&value) else {
                let path = index.path.clone();
                self.add(Damaged::Blob(*id), path, "its place can't be read".to_owned());
                return Ok(());
            };
            let Some(fault) = self.inner.check_blob(id, &place) else {
                return Ok(());
            };
            if index.blob(id)? == Some(place) {
                let path = match place {
                    Place::Packed(span) => self.inner.segments.path(span.segment),
                    Place::File { .. } => self.inner.files.path(id),
                };
                self.add(Damaged::Blob(*id), path, fault.describe());
                return Ok(());
            }
        }
    }

    fn trees(&mut self) -> Result<(), StoreError> {
        let total = super::lock(&self.inner.index.totals).trees.number.max(0) as u64;
        let mut done = 0;
        for cf in [Cf::Tree, Cf::Node] {
            self.inner.index.scan(cf, &[], |id, _| {
                let Ok(id) = id.try_into().map(TreeId::from_bytes) else {
                    let path = self.inner.index.path.clone();
                    let what = Damaged::Row(None, id.to_vec());
                    self.add(what, path, "a tree without a name".to_owned());
                    return Ok(ControlFlow::Continue(()));
                };
                let wrong = match cf {
                    Cf::Tree => self.tree(&id)?,
                    _ if self.inner.index.has(Cf::Tree, id.as_bytes())? => None,
                    _ => Some("its encoding is there, its head is not".to_owned()),
                };
                if let Some(detail) = wrong
                    && self.inner.index.has(cf, id.as_bytes())?
                {
                    self.add(Damaged::Tree(id), self.inner.index.path.clone(), detail);
                }
                if cf == Cf::Tree {
                    done += 1;
                    if done % BATCH as u64 == 0 {
                        self.tell(Phase::Trees, done, total);
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        self.tell(Phase::Trees, done, total);
        Ok(())
    }

    /// What is wrong with a tree node, if anything.
    fn tree(&self, id: &TreeId) -> Result<Option<String>, StoreError> {
        let index = &self.inner.index;
        let wrong = |detail: String| Ok(Some(detail));
        let Some(head) = index.head(id)? else {
            return wrong("what is known of it can't be read".to_owned());
        };
        let bytes = match head.blob {
            Some(blob) => self.inner.read_quietly(&blob)?,
            None => index.node(id)?,
        };
        let Some(bytes) = bytes else {
            return wrong("its encoding is gone".to_owned());
        };
        if node_id(&bytes) != *id {
            return wrong(format!("its bytes hash to {}", node_id(&bytes)));
        }
        let node = match AnyNode::decode(&bytes) {
            Ok(node) => node,
            Err(error) => return wrong(error.to_string()),
        };
        if head.len as usize != bytes.len() || head.dir_ref(*id) != node.dir_ref(*id) {
            return wrong("what is known of it is not what it says".to_owned());
        }
        self.wholeness(&head, &node)
    }

    /// What a node names that is not here or not as it says.
    fn wholeness(&self, head: &Head, node: &AnyNode) -> Result<Option<String>, StoreError> {
        let blobs = node.blobs();
        let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
        for ((id, size), known) in blobs.iter().zip(self.inner.known_sizes(&ids)?) {
            if known != Some(*size) {
                return Ok(Some(format!("blob {id} of {size} bytes, which it names, is not here")));
            }
        }
        let dirs = node.dirs();
        let ids: Vec<_> = dirs.iter().map(|dir| dir.tree).collect();
        let mut height = 0;
        for (dir, child) in dirs.iter().zip(self.inner.index.heads(&ids)?) {
            match child {
                Some(child) if child.dir_ref(dir.tree) == Some(*dir) => {
                    height = height.max(child.height.saturating_add(1));
                }
                _ => return Ok(Some(format!("tree {}, which it names, is not here", dir.tree))),
            }
        }
        let wrong = (height != head.height).then(|| "its height is not what it says".to_owned());
        Ok(wrong)
    }

    fn tables(&mut self) -> Result<(), StoreError> {
        let mut done = 0;
        self.inner.index.scan(Cf::Table, &[], |row, value| {
            if let Some((what, detail)) = self.row(row, value)?
                && self.inner.index.get(Cf::Table, row)?.as_deref() == Some(value)
            {
                self.add(what, self.inner.index.path.clone(), detail);
            }
            done += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        self.tell(Phase::Tables, done, done);
        Ok(())
    }

    /// What is wrong with a record, an alias or a row, if anything.
    fn row(&self, row: &[u8], value: &[u8]) -> Result<Option<(Damaged, String)>, StoreError> {
        let unread = || "it can't be read".to_owned();
        let own = row.to_vec();
        Ok(match row.first() {
            Some(&key::RECORD) => {
                let fine = key::scope_of(row).is_some() && Record::from_bytes(value).is_some();
                (!fine).then(|| (Damaged::Record(own), unread()))
            }
            Some(&key::ALIAS) => match (key::scope_of(row), Alias::from_bytes(value)) {
                (Some(scope), Some(alias)) => {
                    let here = self.inner.index.has(Cf::Table, &key::record(&scope, &alias.key))?;
                    let detail = "the record that it leads to is not here".to_owned();
                    (!here).then_some((Damaged::Alias(own), detail))
                }
                _ => Some((Damaged::Alias(own), unread())),
            },
            Some(&key::ROW) => match key::row_of(row) {
                Some((table, name)) => {
                    let refused = self.inner.row_refused(table, name, value)?;
                    refused.map(|why| (Damaged::Row(Some(table), own), why))
                }
                None => Some((Damaged::Row(None, own), unread())),
            },
            Some(&(key::CHUNKS | key::CHUNK)) => {
                self.inner.chunk_row_fault(row, value)?.map(|why| (Damaged::Chunks(own), why))
            }
            Some(&key::USED) if value.len() == 8 => None,
            Some(&key::ELSEWHERE) if row.len() == 33 && Elsewhere::from_bytes(value).is_some() => {
                None
            }
            _ => Some((Damaged::Row(None, own), unread())),
        })
    }

    fn files(&mut self) -> Result<(), StoreError> {
        let root = &self.inner.root;
        let mut done = 0;
        for path in list(root)? {
            if !super::recover::is_ours(&path) {
                self.stray(path);
            }
        }
        for path in list(&root.join("tmp"))? {
            if path.file_name() != self.inner.files.session() {
                self.stray(path);
            }
        }
        for path in list(self.inner.segments.dir())? {
            done += 1;
            let id = path.file_name().and_then(|name| Segments::parse_name(name.to_str()?));
            let known = match id {
                Some(id) => self.inner.index.has(Cf::State, &state::segment(id))?,
                None => false,
            };
            if !known && path.exists() {
                self.stray(path);
            }
        }
        for shard in list(&root.join("blobs"))? {
            for path in list(&shard)? {
                done += 1;
                if !self.is_blob(&path)? {
                    self.stray(path);
                }
            }
        }
        self.tell(Phase::Files, done, done);
        Ok(())
    }

    fn stray(&mut self, path: PathBuf) {
        self.add(Damaged::Stray, path, "nothing in the index names it".to_owned());
    }

    /// Whether the index knows a file among the blobs.
    fn is_blob(&self, path: &Path) -> Result<bool, StoreError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| BlobId::parse(name).ok()) else {
            return Ok(false);
        };
        if self.inner.files.path(&id) != path {
            return Ok(false);
        }
        // Who makes it holds the lock until the index names it.
        let _lock = self.inner.files.lock(&id);
        let index = &self.inner.index;
        Ok(matches!(index.blob(&id)?, Some(Place::File { .. }))
            || index.has(Cf::State, &state::doomed(&id))?
            || !path.exists())
    }

    fn counters(&mut self) -> Result<(), StoreError> {
        let _gate = self.inner.gate_alone();
        let mut counted = self.inner.count()?;
        let mut noted = super::lock(&self.inner.index.totals).clone();
        for totals in [&mut counted, &mut noted] {
            totals.live.retain(|_, count| *count != Default::default());
        }
        if counted != noted {
            let detail = format!("{noted:?} is noted, {counted:?} is there");
            self.add(Damaged::Counters, self.inner.index.path.clone(), detail);
        }
        Ok(())
    }
}

/// The entries of a directory.
fn list(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(StoreError::io("Reading", path))?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}
