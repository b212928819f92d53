//! Taking blobs.

use super::Inner;
use super::batch::Sync;
use super::files::{HASH_BYTES, Temp};
use super::rocks::Cf;
use super::space::Reservation;
use super::value::{Place, SegmentRow, state};
use crate::store::{BlobWriter, StoreError};
use bytes::Bytes;
use proto::id::BlobId;
use proto::limit::PACKED_BLOB_BYTES_MAX;
use rayon::prelude::*;
use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

/// Bytes below which hashing in parallel costs more than it saves.
const PARALLEL_BYTES: usize = 128 << 10;

/// Bytes that a writer gathers before it hashes and writes them.
const GATHER_BYTES: usize = 1 << 20;

impl Inner {
    /// See [`crate::store::Store::put_blobs`].
    pub fn put_blobs(inner: &Arc<Self>, blobs: &[(BlobId, Bytes)]) -> Result<(), StoreError> {
        check_hashes(blobs)?;
        let is_small = |blob: &&(BlobId, Bytes)| blob.1.len() <= PACKED_BLOB_BYTES_MAX;
        let (small, large): (Vec<_>, Vec<_>) = blobs.iter().partition(is_small);
        let small: Vec<_> = small.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
        if !small.is_empty() {
            inner.put_packed(&small)?;
        }
        for (id, bytes) in large {
            let mut writer = Box::new(Writer::new(inner.clone()));
            writer.take(bytes)?;
            writer.finish(Some(*id))?;
        }
        Ok(())
    }

    /// Asks for room; when there is none and the store may, collects and asks again.
    pub fn reserve(&self, number: usize, bytes: u64) -> Result<Reservation<'_>, StoreError> {
        self.reserve_beside(number, bytes, 0)
    }

    /// As [`Inner::reserve`], for who has written `unfinished` bytes already.
    fn reserve_beside(
        &self,
        number: usize,
        bytes: u64,
        unfinished: u64,
    ) -> Result<Reservation<'_>, StoreError> {
        self.check_poison()?;
        let held = self.held() + unfinished;
        if self.options.budget.is_some_and(|budget| held + bytes > budget) {
            self.wake.wake();
        }
        match self.space.reserve(number, bytes, held) {
            Ok(reservation) => Ok(reservation),
            Err(why) if self.options.automatic && self.make_room(unfinished + bytes)? => self
                .space
                .reserve(number, bytes, self.held() + unfinished)
                .map_err(|_| self.space.full(why, bytes)),
            Err(why) => Err(self.space.full(why, bytes)),
        }
    }

    /// Takes small blobs whose hashes are right.
    pub fn put_packed(&self, blobs: &[(BlobId, &[u8])]) -> Result<(), StoreError> {
        let bytes = blobs.iter().map(|(_, b)| b.len() as u64).sum();
        let _room = self.reserve(blobs.len(), bytes)?;
        let _gate = self.gate();
        let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
        self.touches.blobs(&ids);
        let mut tail = self.segments.tail();
        let here = self.index.blobs(&ids)?;
        let mut seen = HashSet::new();
        let new: Vec<_> = blobs
            .iter()
            .zip(here)
            .filter(|((id, _), here)| here.is_none() && seen.insert(*id))
            .map(|(blob, _)| *blob)
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.step("append");
        let slices: Vec<_> = new.iter().map(|(_, bytes)| *bytes).collect();
        let spans = self.segments.append(&mut tail, &slices, |id| self.begin_segment(id))?;
        self.step("index packed");
        let mut batch = self.index.batch();
        for ((id, _), span) in new.iter().zip(spans) {
            batch.put_blob(id, &Place::Packed(span));
        }
        batch.commit(Sync::No)
    }

    /// Makes a segment known before its file is there.
    pub fn begin_segment(&self, id: u32) -> Result<(), StoreError> {
        self.durable.note_segments_dir();
        let mut batch = self.index.batch();
        batch.put_segment(id, SegmentRow { synced: 0 });
        batch.commit(Sync::No)
    }

    /// Whether the blob is there, as a file of that size. The caller holds the blob's lock.
    pub fn has_file(&self, id: &BlobId, size: u64) -> Result<bool, StoreError> {
        let _gate = self.gate();
        if self.index.blob(id)? != Some(Place::File { size }) {
            return Ok(false);
        }
        self.touches.blobs([id]);
        Ok(std::fs::symlink_metadata(self.files.path(id)).is_ok_and(|m| m.len() == size))
    }

    /// Takes a large blob: `install` makes its file. The caller holds the blob's lock, and has seen
    /// that the blob is not there.
    pub fn put_file(
        &self,
        id: &BlobId,
        size: u64,
        install: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut batch = self.index.batch();
        batch.put(Cf::State, &state::unsynced(id), &[]);
        batch.commit(Sync::No)?;
        self.step("install");
        install()?;
        self.durable.note_large(*id);
        self.step("index large");
        let _gate = self.gate();
        self.touches.blobs([id]);
        let place = Place::File { size };
        let mut batch = self.index.batch();
        match self.index.blob(id)? {
            // The file was gone, or not whole: now it is back.
            Some(old) => batch.move_blob(id, &old, &place),
            None => batch.put_blob(id, &place),
        }
        batch.commit(Sync::No)
    }

    /// Takes a finished file as a blob.
    fn put_temp(&self, id: &BlobId, size: u64, temp: Temp) -> Result<(), StoreError> {
        let _lock = self.files.lock(id);
        if self.has_file(id, size)? {
            return Ok(());
        }
        let path = self.files.path(id);
        self.put_file(id, size, || {
            let file = temp.rename(&path)?;
            self.files.note_verified(id, &file);
            Ok(())
        })
    }
}

fn check_hashes(blobs: &[(BlobId, Bytes)]) -> Result<(), StoreError> {
    let check = |(id, bytes): &(BlobId, Bytes)| {
        let hashed = if bytes.len() > HASH_BYTES {
            blake3::Hasher::new().update_rayon(bytes).finalize().into()
        } else {
            BlobId::of(bytes)
        };
        check_name(Some(*id), hashed)
    };
    if blobs.iter().map(|(_, b)| b.len()).sum::<usize>() < PARALLEL_BYTES {
        return blobs.iter().try_for_each(check);
    }
    // The first error in the order of the blobs, as if they had been looked at one by one.
    let wrong = blobs.par_iter().map(check).find_first(Result::is_err);
    wrong.unwrap_or(Ok(()))
}

fn check_name(expected: Option<BlobId>, hashed: BlobId) -> Result<(), StoreError> {
    match expected.filter(|e| *e != hashed) {
        Some(named) => {
            let (named, hashed) = (named.to_string(), hashed.to_string());
            Err(StoreError::WrongBytes { named, hashed })
        }
        None => Ok(()),
    }
}

/// Takes one blob, piece by piece: a small one in memory, a larger one into an unfinished file.
pub(super) struct Writer {
    inner: Arc<Inner>,
    gathered: Vec<u8>,
    large: Option<Large>,
}

struct Large {
    temp: Temp,
    hasher: blake3::Hasher,
    size: u64,
}

impl Writer {
    pub fn new(inner: Arc<Inner>) -> Self {
        Self { inner, gathered: Vec::new(), large: None }
    }

    fn take(&mut self, mut data: &[u8]) -> Result<(), StoreError> {
        while !data.is_empty() {
            let room = GATHER_BYTES - self.gathered.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.gathered.extend_from_slice(now);
            data = later;
            if self.gathered.len() == GATHER_BYTES {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Hashes and writes what was gathered.
    fn spill(&mut self) -> Result<(), StoreError> {
        let large = match &mut self.large {
            Some(large) => large,
            None => {
                let temp = self.inner.files.temp()?;
                let hasher = blake3::Hasher::new();
                self.large.insert(Large { temp, hasher, size: 0 })
            }
        };
        let len = self.gathered.len() as u64;
        let _room = self.inner.reserve_beside(1, len, large.size)?;
        large.hasher.update_rayon(&self.gathered);
        let written = (&large.temp.file).write_all(&self.gathered);
        written.map_err(StoreError::io("Writing", large.temp.path()))?;
        large.size += len;
        self.gathered.clear();
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.take(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Writer {
    fn finish(mut self: Box<Self>, expected: Option<BlobId>) -> Result<(BlobId, u64), StoreError> {
        if self.large.is_none() && self.gathered.len() <= PACKED_BLOB_BYTES_MAX {
            let id = BlobId::of(&self.gathered);
            check_name(expected, id)?;
            self.inner.put_packed(&[(id, &self.gathered)])?;
            return Ok((id, self.gathered.len() as u64));
        }
        if !self.gathered.is_empty() || self.large.is_none() {
            self.spill()?;
        }
        let Large { temp, hasher, size } =
            self.large.take().expect("a blob that is not small was spilled");
        let id = hasher.finalize().into();
        check_name(expected, id)?;
        self.inner.put_temp(&id, size, temp)?;
        Ok((id, size))
    }
}
