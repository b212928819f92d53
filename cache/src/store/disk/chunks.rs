//! Of which chunks large blobs are made, and where a chunk is.
//!
//! Two kinds of rows: for a blob the list of its chunks, and for each chunk in each blob where in
//! it the chunk lies. Both come together, in one write, and go with the blob, in the write that
//! takes it away: so none names a blob that is not here. They keep nothing alive, and nothing is
//! cut before somebody asks for the chunks.
//!
//! Small blobs are cut again each time.

use super::batch::{Batch, Sync};
use super::lose::Fault;
use super::rocks::Cf;
use super::value::{Piece, Place, key};
use super::{Inner, lock};
use crate::chunk::ChunkPlace;
use crate::chunk::cut::{CutError, cut};
use crate::store::{Persisted, StoreError};
use proto::chunk::{ChunkList, ChunkListError};
use proto::id::BlobId;
use proto::limit;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

/// Bytes of the index for one chunk, about.
const ROW_BYTES: u64 = 150;

/// Chunks that are looked up at once, while nothing is deleted.
const FIND_AT_ONCE: usize = 1024;

const TURNS: usize = 16;

/// Who cuts which blob: who wants the chunks of one that is being cut waits for them.
#[derive(Default)]
pub(super) struct Cutting([Mutex<()>; TURNS]);

impl Cutting {
    fn turn(&self, id: &BlobId) -> MutexGuard<'_, ()> {
        lock(&self.0[usize::from(id.as_bytes()[2]) % TURNS])
    }
}

impl Inner {
    /// See [`crate::store::Store::chunks`].
    pub fn chunks(&self, id: &BlobId) -> Result<ChunkList, StoreError> {
        let size = match self.find(id)? {
            Place::File { size } => size,
            Place::Packed(span) => {
                let bytes = self.read_packed(id, span)?;
                return cut(&bytes[..]).map_err(|error| match error {
                    CutError::List(why) => StoreError::Uncut { blob: *id, why },
                    CutError::Io(error) => StoreError::io("Cutting", &self.root)(error),
                });
            }
        };
        if let Some(list) = self.noted_chunks(id, size)? {
            return Ok(list);
        }
        let _turn = self.cutting.turn(id);
        if let Some(list) = self.noted_chunks(id, size)? {
            return Ok(list);
        }
        let list = self.cut_file(id, size)?;
        match self.note_chunks(&list) {
            // It is known now, only not for later.
            Err(StoreError::Full { detail, .. }) => {
                tracing::debug!(blob = %id, %detail, "Not noted")
            }
            other => other?,
        }
        Ok(list)
    }

    /// The list that is known of a blob, if there is one that can be read.
    fn noted_chunks(&self, id: &BlobId, size: u64) -> Result<Option<ChunkList>, StoreError> {
        let value = self.index.get(Cf::Table, &key::chunks(id))?;
        let list = value.and_then(|value| ChunkList::decode(&value).ok());
        Ok(list.filter(|list| (list.blob(), list.size()) == (*id, size)))
    }

    fn cut_file(&self, id: &BlobId, size: u64) -> Result<ChunkList, StoreError> {
        if size > limit::CHUNKED_BLOB_BYTES_MAX {
            let why = ChunkListError::TooLarge { bytes: size };
            return Err(StoreError::Uncut { blob: *id, why });
        }
        let file = self.open_file(id, size)?;
        let fault = |fault| self.fault(id, Place::File { size }, fault);
        let list = cut(&file).map_err(|error| match error {
            CutError::Io(error) => fault(error.into()),
            CutError::List(why) => StoreError::Uncut { blob: *id, why },
        })?;
        if list.blob() != *id {
            return Err(fault(Fault::Hash(list.blob())));
        }
        self.files.note_verified(id, &file);
        Ok(list)
    }

    /// See [`crate::store::Store::note_chunks`].
    pub fn note_chunks(&self, list: &ChunkList) -> Result<(), StoreError> {
        let id = list.blob();
        let _room = self.reserve(1, ROW_BYTES * list.chunks().len() as u64)?;
        // Else two lists of one blob could be noted at once, and one of them never go.
        let _lock = self.files.lock(&id);
        let _gate = self.gate();
        let here = self.index.blob(&id)? == Some(Place::File { size: list.size() });
        if !here || self.noted_chunks(&id, list.size())?.is_some() {
            return Ok(());
        }
        self.step("index chunks");
        let mut batch = self.index.batch();
        self.forget_chunks(&mut batch, &id)?;
        // Of one that is there twice the first counts: it comes last.
        for chunk in list.chunks().iter().rev() {
            let piece = Piece { offset: chunk.offset, len: chunk.len };
            batch.put(Cf::Table, &key::chunk(&chunk.id, &id), &piece.to_bytes());
        }
        batch.put(Cf::Table, &key::chunks(&id), &list.encode());
        batch.commit(Sync::No)
    }

    /// Takes away what is known of a blob's chunks.
    fn forget_chunks(&self, batch: &mut Batch<'_>, id: &BlobId) -> Result<(), StoreError> {
        let own = key::chunks(id);
        let Some(value) = self.index.get(Cf::Table, &own)? else {
            return Ok(());
        };
        match ChunkList::decode(&value) {
            Ok(list) => {
                let keys = list.chunks().iter().map(|chunk| key::chunk(&chunk.id, id));
                keys.for_each(|row| batch.delete(Cf::Table, &row));
            }
            Err(_) => self.index.scan(Cf::Table, &[key::CHUNK], |row, _| {
                if key::chunk_of(row).is_some_and(|(_, blob)| blob == *id) {
                    batch.delete(Cf::Table, row);
                }
                Ok(ControlFlow::Continue(()))
            })?,
        }
        batch.delete(Cf::Table, &own);
        Ok(())
    }

    /// Takes away a blob that is at `place`, and what is known of its chunks.
    pub fn delete_blob(
        &self,
        batch: &mut Batch<'_>,
        id: &BlobId,
        place: &Place,
    ) -> Result<(), StoreError> {
        batch.delete_blob(id, place);
        match place {
            Place::File { .. } => self.forget_chunks(batch, id),
            Place::Packed(_) => Ok(()),
        }
    }

    /// See [`crate::store::Store::find_chunks`].
    pub fn find_chunks(&self, ids: &[BlobId]) -> Result<Vec<Option<ChunkPlace>>, StoreError> {
        let place = |(row, value): (Vec<u8>, Vec<u8>)| {
            let (_, blob) = key::chunk_of(&row)?;
            let Piece { offset, len } = Piece::from_bytes(&value)?;
            Some(ChunkPlace { blob, offset, len })
        };
        let mut places: Vec<Option<ChunkPlace>> = Vec::with_capacity(ids.len());
        for some in ids.chunks(FIND_AT_ONCE) {
            let _gate = self.gate();
            let prefixes: Vec<_> = some.iter().map(key::chunks_named).collect();
            let rows = self.index.first_rows(Cf::Table, &prefixes)?;
            let found: Vec<_> = rows.into_iter().map(|row| row.and_then(place)).collect();
            self.touches.blobs(found.iter().flatten().map(|place| &place.blob));
            places.extend(found);
        }
        Ok(places)
    }

    /// See [`crate::store::Store::read_chunk`].
    pub fn read_chunk(&self, id: &BlobId, at: &ChunkPlace) -> Result<Vec<u8>, StoreError> {
        let place = self.find(&at.blob)?;
        let absent = || StoreError::NoChunk { chunk: *id, at: *at };
        let end = at.offset.checked_add(at.len.into()).filter(|end| *end <= place.size());
        if end.is_none() || at.len as usize > limit::CHUNK_BYTES_MAX {
            return Err(absent());
        }
        let bytes = match place {
            Place::File { size } => {
                let mut bytes = vec![0; at.len as usize];
                let read = self.open_file(&at.blob, size)?.read_exact_at(&mut bytes, at.offset);
                read.map_err(|error| self.fault(&at.blob, place, error.into()))?;
                bytes
            }
            Place::Packed(span) => {
                let whole = self.read_packed(&at.blob, span)?;
                whole[at.offset as usize..][..at.len as usize].to_vec()
            }
        };
        if BlobId::of(&bytes) == *id {
            return Ok(bytes);
        }
        if let Some(fault) = self.check_blob(&at.blob, &place) {
            return Err(self.fault(&at.blob, place, fault));
        }
        self.forget_wrong(id, at)?;
        Err(absent())
    }

    /// The blob is right, and the chunk is not in it: what is known of its chunks is wrong if it
    /// says otherwise.
    fn forget_wrong(&self, id: &BlobId, at: &ChunkPlace) -> Result<(), StoreError> {
        let _lock = self.files.lock(&at.blob);
        let _gate = self.gate();
        let value = self.index.get(Cf::Table, &key::chunk(id, &at.blob))?;
        let said = Piece { offset: at.offset, len: at.len };
        if value.and_then(|value| Piece::from_bytes(&value)) != Some(said) {
            return Ok(());
        }
        tracing::warn!(blob = %at.blob, "What was known of a blob's chunks was wrong");
        let mut batch = self.index.batch();
        self.forget_chunks(&mut batch, &at.blob)?;
        batch.delete(Cf::Table, &key::chunk(id, &at.blob));
        batch.commit(Sync::No)
    }

    /// What is wrong with a row of chunks, if anything.
    pub fn chunk_row_fault(&self, row: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let fault = |text: &str| Ok(Some(text.to_owned()));
        if let Some(blob) = key::chunks_of(row) {
            return match ChunkList::decode(value) {
                Ok(list) if list.blob() == blob => {
                    let place = Some(Place::File { size: list.size() });
                    if self.index.blob(&blob)? == place { Ok(None) } else { fault(NO_BLOB) }
                }
                _ => fault("it can't be read"),
            };
        }
        match (key::chunk_of(row), Piece::from_bytes(value)) {
            (Some((_, blob)), Some(_)) if self.index.has(Cf::Table, &key::chunks(&blob))? => {
                Ok(None)
            }
            (Some(_), Some(_)) => fault("the list that it belongs to is not here"),
            _ => fault("it can't be read"),
        }
    }

    /// Deletes what is known of chunks where it is wrong.
    pub fn sweep_chunks(&self) -> Result<(), StoreError> {
        let _gate = self.gate_alone();
        let mut batch = self.index.batch();
        let mut listed = HashSet::new();
        self.index.scan(Cf::Table, &[key::CHUNKS], |row, value| {
            match (key::chunks_of(row), self.chunk_row_fault(row, value)?) {
                (Some(blob), None) => drop(listed.insert(blob)),
                _ => batch.delete(Cf::Table, row),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.index.scan(Cf::Table, &[key::CHUNK], |row, value| {
            let fine = key::chunk_of(row).is_some_and(|(_, blob)| listed.contains(&blob));
            if !fine || Piece::from_bytes(value).is_none() {
                batch.delete(Cf::Table, row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        batch.commit(Sync::No)
    }
}

const NO_BLOB: &str = "the blob that it is of is not here";
