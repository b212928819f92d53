//! Putting a blob together from its chunks, in order.

use super::plan::{Step, plan};
use crate::store::{BlobWriter, Pin, Store, StoreError};
use bytes::Bytes;
use proto::chunk::ChunkList;
use proto::id::BlobId;
use proto::limit;
use std::io::Write;
use std::sync::Arc;

/// Bytes that are copied before whoever waits for them hears of it.
const COPY_BYTES: u64 = 8 << 20;

/// A blob on its way into a store. Its methods block. Dropped before [`Assembly::finish`], it
/// leaves nothing.
pub struct Assembly {
    store: Arc<dyn Store>,
    list: Arc<ChunkList>,
    steps: Vec<Step>,
    writer: Box<dyn BlobWriter>,
    /// Which chunk comes next.
    next: usize,
    /// The one that came last.
    last: Bytes,
    /// Bytes that came from elsewhere.
    pushed: u64,
    /// What is here is to stay until it was copied.
    _pin: Pin,
}

/// How far copying came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// There is more to copy.
    Pause,
    /// The chunk at this place has to come from elsewhere.
    Missing(u32),
    /// All chunks were written.
    End,
}

impl Assembly {
    /// Begins to put a blob together, and looks what of it is here.
    pub fn begin(store: Arc<dyn Store>, list: Arc<ChunkList>) -> Result<Self, StoreError> {
        let pin = store.pin();
        let mut ids: Vec<BlobId> = list.chunks().iter().map(|chunk| chunk.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let places = store.find_chunks(&ids)?;
        let have = |id: &BlobId| ids.binary_search(id).ok().and_then(|i| places[i]);
        let steps = plan(&list, have);
        let writer = store.writer()?;
        Ok(Self { store, list, steps, writer, next: 0, last: Bytes::new(), pushed: 0, _pin: pin })
    }

    /// Which chunks have to come from elsewhere, as far as is known now.
    pub fn missing(&self) -> Vec<u32> {
        let missing = |(_, step): &(u32, &Step)| **step == Step::Fetch;
        (0..).zip(&self.steps).skip(self.next).filter(missing).map(|(index, _)| index).collect()
    }

    /// Copies what is here, up to the next chunk that is not.
    pub fn copy(&mut self) -> Result<Until, StoreError> {
        let mut copied = 0;
        while let Some(step) = self.steps.get(self.next) {
            if copied >= COPY_BYTES {
                return Ok(Until::Pause);
            }
            let bytes = match step {
                Step::Fetch => return Ok(Until::Missing(self.next as u32)),
                Step::Repeat => self.last.clone(),
                Step::Here(place) => {
                    match self.store.read_chunk(&self.list.chunks()[self.next].id, place) {
                        Ok(bytes) => bytes,
                        // Damaged, or gone in spite of the pin: it can come from elsewhere.
                        Err(error) => {
                            tracing::debug!(%error, "A chunk that was here is not");
                            self.steps[self.next] = Step::Fetch;
                            return Ok(Until::Missing(self.next as u32));
                        }
                    }
                }
            };
            copied += bytes.len() as u64;
            self.write(bytes)?;
        }
        Ok(Until::End)
    }

    /// Takes the next chunk, which came from elsewhere. The caller has verified it.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.pushed += bytes.len() as u64;
        self.write(bytes)
    }

    fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.writer.write_all(&bytes).map_err(|error| match error.downcast::<StoreError>() {
            Ok(error) => error,
            Err(source) => {
                let path = format!("blob {}", self.list.blob()).into();
                StoreError::Io { action: "Writing", path, source }
            }
        })?;
        self.last = bytes;
        self.next += 1;
        Ok(())
    }

    /// Keeps the blob, if all chunks together are it, and notes its chunks. Answers how many bytes
    /// of it did not come from elsewhere.
    pub fn finish(self) -> Result<u64, StoreError> {
        self.writer.finish(Some(self.list.blob()))?;
        if let Err(error) = self.store.note_chunks(&self.list) {
            tracing::debug!(blob = %self.list.blob(), %error, "Its chunks were not noted");
        }
        Ok(self.list.size() - self.pushed)
    }

    /// Keeps what came so far as a blob of its own, if it is mostly from elsewhere: who sends the
    /// blob again need not send that. Nothing refers to it, so that the next collection takes it.
    pub fn keep_part(self) -> Result<(), StoreError> {
        let written = self.list.prefix(self.next, self.list.blob()).size();
        if written <= limit::WHOLE_BLOB_BYTES_MAX || self.pushed < written / 2 {
            return Ok(());
        }
        let (part, _) = self.writer.finish(None)?;
        self.store.note_chunks(&self.list.prefix(self.next, part))
    }
}
