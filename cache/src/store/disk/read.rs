//! Finding and reading blobs. Every byte is hashed before it is believed.

use super::Inner;
use super::files::hash_all;
use super::lose::Fault;
use super::value::{Place, Span};
use crate::store::StoreError;
use bytes::Bytes;
use proto::id::BlobId;
use rayon::prelude::*;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes between two blobs of a segment that are read along rather than skipped.
const GAP_BYTES: u64 = 32 << 10;

/// Bytes of a segment that are read at once.
const RUN_BYTES: u64 = 4 << 20;

/// Bytes above which a piece is hashed by all processors.
const PARALLEL_BYTES: usize = 256 << 10;

impl Inner {
    /// Where a blob is. It counts as used.
    pub fn find(&self, id: &BlobId) -> Result<Place, StoreError> {
        let _gate = self.gate();
        let place = self.index.blob(id)?.ok_or(StoreError::NoBlob(*id))?;
        self.touches.blobs([id]);
        Ok(place)
    }

    /// See [`crate::store::Store::missing_blobs`].
    pub fn missing_blobs(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, StoreError> {
        let _gate = self.gate();
        let places = self.index.blobs(ids)?;
        let here = ids.iter().zip(&places).filter(|(_, place)| place.is_some());
        self.touches.blobs(here.map(|(id, _)| id));
        let missing = ids.iter().zip(&places).filter(|(_, place)| place.is_none());
        Ok(missing.map(|(id, _)| *id).collect())
    }

    /// See [`crate::store::Store::read`].
    pub fn read(&self, id: &BlobId) -> Result<Bytes, StoreError> {
        match self.find(id)? {
            Place::Packed(span) => Ok(self.read_packed(id, span)?.into()),
            Place::File { size } => {
                let file = self.open_file(id, size)?;
                let mut bytes = vec![0; size as usize];
                let read = file.read_exact_at(&mut bytes, 0);
                read.map_err(|e| self.fault(id, Place::File { size }, Fault::from(e)))?;
                let hashed = blake3::Hasher::new().update_rayon(&bytes).finalize();
                if BlobId::from(hashed) != *id {
                    return Err(self.fault(id, Place::File { size }, Fault::Hash(hashed.into())));
                }
                Ok(bytes.into())
            }
        }
    }

    /// A packed blob's bytes, verified.
    pub fn read_packed(&self, id: &BlobId, mut span: Span) -> Result<Vec<u8>, StoreError> {
        loop {
            let fault = match self.segments.read(&span) {
                Ok(bytes) => match BlobId::of(&bytes) {
                    hashed if hashed == *id => return Ok(bytes),
                    hashed => {
                        self.files.put_bytes_aside(id, &bytes);
                        Fault::Hash(hashed)
                    }
                },
                Err(error) => Fault::from(error),
            };
            // Its segment may have been written anew since the look-up.
            match self.find(id)? {
                Place::Packed(now) if now != span => span = now,
                place => return Err(self.fault(id, place, fault)),
            }
        }
    }

    /// See [`crate::store::Store::read_many`].
    pub fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        let places = {
            let _gate = self.gate();
            let places = self.index.blobs(ids)?;
            self.touches.blobs(ids);
            places
        };
        let mut spans = Vec::with_capacity(ids.len());
        let mut bytes: Vec<Option<Bytes>> = vec![None; ids.len()];
        for (i, place) in places.into_iter().enumerate() {
            match place.ok_or(StoreError::NoBlob(ids[i]))? {
                Place::Packed(span) => spans.push((span, i)),
                Place::File { .. } => bytes[i] = Some(self.read(&ids[i])?),
            }
        }
        spans.sort_unstable();
        let read: Result<Vec<_>, StoreError> =
            runs(&spans).into_par_iter().map(|run| self.read_run(ids, &spans[run])).collect();
        for (i, blob) in read?.into_iter().flatten() {
            bytes[i] = Some(blob);
        }
        Ok(bytes.into_iter().map(|b| b.expect("each blob is a file or in a run")).collect())
    }

    /// Reads blobs that lie near each other at once; those that are not what they should be, again
    /// one by one.
    fn read_run(
        &self,
        ids: &[BlobId],
        run: &[(Span, usize)],
    ) -> Result<Vec<(usize, Bytes)>, StoreError> {
        let (first, last) = (run[0].0, run[run.len() - 1].0);
        let whole = Span { len: (last.end() - u64::from(first.offset)) as u32, ..first };
        let all = self.segments.read(&whole).map(Bytes::from).ok();
        let one = |(span, i): &(Span, usize)| {
            let at = (span.offset - first.offset) as usize;
            let blob = all.as_ref().map(|all| all.slice(at..at + span.len as usize));
            match blob.filter(|b| BlobId::of(b) == ids[*i]) {
                Some(blob) => Ok((*i, blob)),
                None => Ok((*i, self.read_packed(&ids[*i], *span)?.into())),
            }
        };
        run.iter().map(one).collect()
    }

    /// Opens a large blob's file, whose size is right.
    pub fn open_file(&self, id: &BlobId, size: u64) -> Result<File, StoreError> {
        let fault = |fault| self.fault(id, Place::File { size }, fault);
        let file = File::open(self.files.path(id)).map_err(|e| fault(e.into()))?;
        let is = file.metadata().map_err(|e| fault(e.into()))?.len();
        if is != size {
            return Err(fault(Fault::Size(is)));
        }
        Ok(file)
    }

    /// Hashes a large blob's file, unless it was hashed since it changed last.
    pub fn verify_file(&self, id: &BlobId, size: u64, file: &File) -> Result<(), StoreError> {
        if self.files.is_verified(id, file) {
            return Ok(());
        }
        let fault = |fault| self.fault(id, Place::File { size }, fault);
        let (hashed, _) = hash_all(file).map_err(|e| fault(e.into()))?;
        if hashed != *id {
            return Err(fault(Fault::Hash(hashed)));
        }
        self.files.note_verified(id, file);
        Ok(())
    }

    /// See [`crate::store::Store::open`].
    pub fn stream(
        inner: &Arc<Self>,
        id: &BlobId,
        offset: u64,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        match inner.find(id)? {
            Place::Packed(span) => {
                let mut cursor = Cursor::new(inner.read_packed(id, span)?);
                cursor.set_position(offset);
                Ok(Box::new(cursor))
            }
            Place::File { size } => {
                let file = inner.open_file(id, size)?;
                // Only who reads all of it can hash it on the way.
                let hasher = if offset == 0 && !inner.files.is_verified(id, &file) {
                    Some(blake3::Hasher::new())
                } else {
                    inner.verify_file(id, size, &file)?;
                    None
                };
                Ok(Box::new(Stream {
                    inner: inner.clone(),
                    id: *id,
                    file,
                    size,
                    at: offset,
                    hasher,
                }))
            }
        }
    }
}

/// Groups sorted spans that are read at once.
fn runs(spans: &[(Span, usize)]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, (span, _)) in spans.iter().enumerate() {
        if let Some(run) = runs.last_mut() {
            let (first, last) = (spans[run.start].0, spans[run.end - 1].0);
            let near = span.segment == first.segment
                && u64::from(span.offset) <= last.end() + GAP_BYTES
                && span.end() <= u64::from(first.offset) + RUN_BYTES;
            // Behind the end of a longer one before it: only the very same blob can be so.
            if near && span.end() >= last.end() {
                run.end = i + 1;
                continue;
            }
        }
        runs.push(i..i + 1);
    }
    runs
}

/// A large blob, hashed on the way.
struct Stream {
    inner: Arc<Inner>,
    id: BlobId,
    file: File,
    size: u64,
    at: u64,
    hasher: Option<blake3::Hasher>,
}

impl Stream {
    fn fault(&self, fault: Fault) -> io::Error {
        let place = Place::File { size: self.size };
        io::Error::new(io::ErrorKind::InvalidData, self.inner.fault(&self.id, place, fault))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.at >= self.size {
            if let Some(hasher) = self.hasher.take() {
                let hashed = BlobId::from(hasher.finalize());
                if hashed != self.id {
                    return Err(self.fault(Fault::Hash(hashed)));
                }
                self.inner.files.note_verified(&self.id, &self.file);
            }
            return Ok(0);
        }
        let want = buffer.len().min((self.size - self.at) as usize);
        let n = match self.file.read_at(&mut buffer[..want], self.at) {
            Ok(0) => return Err(self.fault(Fault::Size(self.at))),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.fault(error.into())),
        };
        if let Some(hasher) = &mut self.hasher {
            if n >= PARALLEL_BYTES {
                hasher.update_rayon(&buffer[..n]);
            } else {
                hasher.update(&buffer[..n]);
            }
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(segment: u32, offset: u32, len: u32) -> Span {
        Span { segment, offset, len }
    }

    #[test]
    fn near_spans_are_read_at_once() {
        let far = 1 << 20;
        let spans = [
            span(0, 0, 10),
            span(0, 10, 10),
            span(0, 10, 10),
            span(0, 50, 10),
            span(0, far, 10),
            span(1, far + 10, 10),
        ];
        let spans: Vec<_> = spans.into_iter().zip(0..).collect();
        assert_eq!(runs(&spans), [0..4, 4..5, 5..6]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn a_run_is_bounded() {
        let spans: Vec<_> = (0..100u32).map(|i| (span(0, i * 100_000, 100_000), 0)).collect();
        let runs = runs(&spans);
        assert!(runs.iter().all(|run| run.len() * 100_000 <= RUN_BYTES as usize));
        assert_eq!(runs.iter().map(ExactSizeIterator::len).sum::<usize>(), 100);
    }
}
