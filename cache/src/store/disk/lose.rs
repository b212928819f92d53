//! What happens when bytes turn out to be gone or wrong.
//!
//! The blob is forgotten, and with it every tree that is no longer whole, and every row that names
//! one of them (images stay: they are what a person asked to keep, and `verify` tells of them).
//! So what is asked for next is missing, not broken, and its producer makes it again.

use super::Inner;
use super::batch::Sync;
use super::rocks::Cf;
use super::value::{Place, key};
use crate::store::{Persisted, StoreError, Table};
use proto::id::{BlobId, TreeId};
use proto::tree::AnyNode;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;

/// What is wrong with some bytes.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no file.
    Gone,
    /// The file ends too early, or too late: its size, or where it ended.
    Size(u64),
    /// The file ends in the middle.
    Short,
    /// They hash to this.
    Hash(BlobId),
    /// The disk can't read them any more.
    Unreadable(io::Error),
    /// Something else: nothing is known of the bytes.
    Other(io::Error),
}

/// `EIO`: the disk, not the caller, is at fault.
const EIO: i32 = 5;

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::UnexpectedEof => Self::Short,
            _ if error.raw_os_error() == Some(EIO) => Self::Unreadable(error),
            _ => Self::Other(error),
        }
    }
}

impl Fault {
    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Self::Gone => "its file is gone".to_owned(),
            Self::Size(size) => format!("its file ends at {size} bytes"),
            Self::Short => "its file ends too early".to_owned(),
            Self::Hash(hashed) => format!("its bytes hash to {hashed}"),
            Self::Unreadable(error) => format!("the disk can't read it: {error}"),
            Self::Other(error) => error.to_string(),
        }
    }
}

/// What is to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub blobs: HashMap<BlobId, Place>,
    pub trees: HashSet<TreeId>,
}

impl Lost {
    fn blob(id: &BlobId, place: Place) -> Self {
        Self { blobs: HashMap::from([(*id, place)]), ..Self::default() }
    }
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dropped {
    pub blobs: u64,
    pub trees: u64,
    pub rows: u64,
}

impl Inner {
    /// Forgets a blob whose bytes are not there or wrong, and answers the error for who read it.
    /// The caller holds neither the blob's lock nor the gate.
    pub fn fault(&self, id: &BlobId, place: Place, fault: Fault) -> StoreError {
        let path = match place {
            Place::Packed(span) => self.segments.path(span.segment),
            Place::File { .. } => self.files.path(id),
        };
        if let Fault::Other(error) = fault {
            return StoreError::io("Reading", &path)(error);
        }
        let detail = fault.describe();
        tracing::warn!(blob = %id, path = %path.display(), %detail, "A blob is damaged");
        let lost = match (place, &fault) {
            (Place::Packed(span), Fault::Gone) => self.lose_segment(span.segment),
            (Place::Packed(_), _) => self.lose(Lost::blob(id, place)),
            (Place::File { .. }, _) => self.lose_file(id, place),
        };
        match lost {
            Err(error) => return error,
            Ok(dropped) => tracing::warn!(?dropped, "What needed the damaged blob was forgotten"),
        }
        if let Err(error) = self.look_for(&[*id]) {
            tracing::debug!(%error, "The others could not be asked for a damaged blob");
        }
        if let Fault::Gone = fault {
            return StoreError::NoBlob(*id);
        }
        let detail = format!("{detail} (in {}). It was put aside", path.display());
        StoreError::Corrupt { what: format!("Blob {id}"), detail }
    }

    /// Forgets a large blob and puts its file aside, unless another one took its place meanwhile.
    pub fn lose_file(&self, id: &BlobId, place: Place) -> Result<Dropped, StoreError> {
        let _lock = self.files.lock(id);
        if File::open(self.files.path(id)).is_ok_and(|file| self.files.is_verified(id, &file)) {
            return Ok(Dropped::default());
        }
        let dropped = self.lose(Lost::blob(id, place))?;
        if dropped.blobs > 0 {
            self.files.put_aside(id);
        }
        Ok(dropped)
    }

    /// Forgets all blobs of a segment whose file is gone.
    fn lose_segment(&self, segment: u32) -> Result<Dropped, StoreError> {
        let mut lost = Lost::default();
        self.index.scan(Cf::Blob, &[], |key, value| {
            if let (Ok(id), Some(place @ Place::Packed(span))) =
                (key.try_into().map(BlobId::from_bytes), Place::from_bytes(value))
                && span.segment == segment
            {
                lost.blobs.insert(id, place);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.lose(lost)
    }

    /// Forgets a tree node that is damaged.
    pub fn lose_tree(&self, id: &TreeId) -> Result<Dropped, StoreError> {
        self.lose(Lost { trees: HashSet::from([*id]), ..Lost::default() })
    }

    /// Forgets blobs and trees, those that are still as they were found, and all that needs them.
    /// Nobody looks anything up meanwhile: it can take a moment in a large store.
    pub fn lose(&self, mut lost: Lost) -> Result<Dropped, StoreError> {
        let _gate = self.gate_alone();
        let ids: Vec<BlobId> = lost.blobs.keys().copied().collect();
        for (id, now) in ids.iter().zip(self.index.blobs(&ids)?) {
            if now != lost.blobs.get(id).copied() {
                lost.blobs.remove(id);
            }
        }
        if lost.blobs.is_empty() && lost.trees.is_empty() {
            return Ok(Dropped::default());
        }
        let mut moved = 0;
        if self.farm.is_joined() {
            // Others have them, or are asked next.
            moved = self.move_elsewhere(std::mem::take(&mut lost.blobs))?;
            if lost.trees.is_empty() {
                return Ok(Dropped { blobs: moved, ..Dropped::default() });
            }
            self.farm.note_lack();
        }
        self.trees_above(&mut lost)?;
        let mut dropped = Dropped { rows: self.lose_rows(&lost)?, ..Dropped::default() };
        dropped.trees = self.delete_trees(lost.trees)?;
        dropped.blobs = moved + lost.blobs.len() as u64;
        let mut batch = self.index.batch();
        for (id, place) in &lost.blobs {
            self.delete_blob(&mut batch, id, place)?;
        }
        batch.commit(Sync::No)?;
        Ok(dropped)
    }

    /// Adds all trees that name something lost, at any depth.
    pub fn trees_above(&self, lost: &mut Lost) -> Result<(), StoreError> {
        let mut parents: HashMap<TreeId, Vec<TreeId>> = HashMap::new();
        let mut found: Vec<TreeId> = lost.trees.iter().copied().collect();
        self.each_node(|id, node| {
            let Some(node) = node else {
                found.push(id);
                return;
            };
            if node.blobs().iter().any(|(blob, _)| lost.blobs.contains_key(blob)) {
                found.push(id);
            }
            for dir in node.dirs() {
                parents.entry(dir.tree).or_default().push(id);
            }
        })?;
        while let Some(id) = found.pop() {
            lost.trees.insert(id);
            found.extend(parents.remove(&id).into_iter().flatten());
        }
        Ok(())
    }

    /// Reads all tree nodes; None for those that are damaged or whose encoding is gone.
    fn each_node(&self, mut each: impl FnMut(TreeId, Option<AnyNode>)) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        self.index.scan(Cf::Tree, &[], |key, value| {
            if let Ok(id) = key.try_into().map(TreeId::from_bytes) {
                ids.push((id, super::value::Head::from_bytes(value)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (id, head) in ids {
            let bytes = match head.map(|head| head.blob) {
                None => None,
                Some(None) => self.index.node(&id)?,
                Some(Some(blob)) => self.read_quietly(&blob)?,
            };
            let bytes = bytes.filter(|bytes| proto::tree::node_id(bytes) == id);
            each(id, bytes.and_then(|bytes| AnyNode::decode(&bytes).ok()));
        }
        Ok(())
    }

    /// A blob's bytes, if they are there and right. Forgets nothing.
    pub fn read_quietly(&self, id: &BlobId) -> Result<Option<bytes::Bytes>, StoreError> {
        let bytes = match self.index.blob(id)? {
            None => None,
            Some(Place::Packed(span)) => self.segments.read(&span).ok(),
            Some(Place::File { .. }) => std::fs::read(self.files.path(id)).ok(),
        };
        Ok(bytes.filter(|bytes| BlobId::of(bytes) == *id).map(bytes::Bytes::from))
    }

    /// Deletes trees, those with the most levels below them first.
    pub fn delete_trees(&self, ids: HashSet<TreeId>) -> Result<u64, StoreError> {
        let ids: Vec<TreeId> = ids.into_iter().collect();
        let heads = self.index.heads(&ids)?;
        let mut trees: Vec<_> = heads.into_iter().zip(ids).collect();
        // A head that can't be read has an unknown height: first, since nothing may be above it.
        trees.sort_unstable_by_key(|(head, _)| {
            std::cmp::Reverse(head.as_ref().map_or(u16::MAX, |head| head.height))
        });
        for some in trees.chunks(1024) {
            let mut batch = self.index.batch();
            for (head, id) in some {
                match head {
                    Some(head) => batch.delete_tree(id, head),
                    None => batch.delete_bad_tree(id),
                }
                self.nodes.remove(id);
            }
            batch.commit(Sync::No)?;
        }
        Ok(trees.len() as u64)
    }

    /// Deletes the rows, but images, that name something lost.
    pub fn lose_rows(&self, lost: &Lost) -> Result<u64, StoreError> {
        let mut rows = Vec::new();
        self.index.scan(Cf::Table, &[key::ROW], |row, value| {
            let names = match key::row_of(row) {
                Some((Table::Image | Table::Build | Table::Trace, _)) | None => None,
                Some((table, own)) => table.names(own, value).ok(),
            };
            if names.is_some_and(|names| {
                names.blobs.iter().any(|(blob, _)| lost.blobs.contains_key(blob))
                    || names.trees.iter().any(|tree| lost.trees.contains(tree))
            }) {
                rows.push(row.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut batch = self.index.batch();
        for row in &rows {
            batch.delete(Cf::Table, row);
            batch.delete(Cf::Table, &key::used(row));
        }
        batch.commit(Sync::No)?;
        Ok(rows.len() as u64)
    }
}
