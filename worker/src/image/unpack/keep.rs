//! Contents of files on their way into the store: small ones in batches, by another thread; large
//! ones piece by piece.

use super::error::BadArchive;
use super::stream::is_bomb;
use bytes::Bytes;
use cache::store::{Store, StoreError};
use proto::id::BlobId;
use proto::limit;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender};

/// Blobs that go into the store together.
pub type Batch = Vec<(BlobId, Bytes)>;

/// Bytes of one piece of a large file.
const PIECE: usize = 1 << 20;

/// Puts batches into the store until there are no more.
pub fn keep(store: &dyn Store, batches: Receiver<Batch>) -> Result<(), StoreError> {
    batches.iter().try_for_each(|batch| store.put_blobs(&batch))
}

/// Takes the contents of files.
pub struct Keeper<'s> {
    store: &'s dyn Store,
    batches: SyncSender<Batch>,
    batch: Batch,
    bytes: usize,
    /// Bytes of all files so far, holes included.
    total: u64,
}

/// Why a content was not kept.
pub enum NotKept {
    Bad(BadArchive),
    Store(StoreError),
    /// The other thread has stopped, and knows why.
    Stopped,
}

impl<'s> Keeper<'s> {
    /// Hands batches to who calls [`keep`].
    pub fn new(store: &'s dyn Store, batches: SyncSender<Batch>) -> Self {
        Self { store, batches, batch: Vec::new(), bytes: 0, total: 0 }
    }

    /// Takes a content of `size` bytes. `packed` tells how many packed bytes were read so far, so
    /// that a hole of a sparse file cannot fill the disk.
    pub fn take<R: Read>(
        &mut self,
        content: &mut R,
        size: u64,
        packed: impl Fn(&R) -> u64,
    ) -> Result<BlobId, NotKept> {
        self.total = self.total.saturating_add(size);
        if is_bomb(packed(content), self.total) {
            let (packed, unpacked) = (packed(content), self.total);
            // What is not in holes was weighed already, when it was decompressed.
            return Err(NotKept::Bad(BadArchive::Bomb { packed, unpacked }));
        }
        if size <= limit::PACKED_BLOB_BYTES_MAX as u64 {
            return self.take_small(content, size as usize);
        }
        let mut writer = self.store.writer().map_err(NotKept::Store)?;
        let mut piece = vec![0; PIECE.min(size as usize)];
        let mut left = size;
        while left > 0 {
            let part = left.min(piece.len() as u64) as usize;
            content.read_exact(&mut piece[..part]).map_err(|e| NotKept::Bad(cut(e)))?;
            let failed = |e| NotKept::Store(write_error(e));
            io::Write::write_all(&mut writer, &piece[..part]).map_err(failed)?;
            left -= part as u64;
        }
        let (blob, _) = writer.finish(None).map_err(NotKept::Store)?;
        Ok(blob)
    }

    fn take_small(&mut self, content: &mut impl Read, size: usize) -> Result<BlobId, NotKept> {
        let mut bytes = vec![0; size];
        content.read_exact(&mut bytes).map_err(|e| NotKept::Bad(cut(e)))?;
        let blob = BlobId::of(&bytes);
        self.batch.push((blob, bytes.into()));
        self.bytes += size;
        if self.bytes >= limit::BATCH_BYTES || self.batch.len() >= 1024 {
            self.flush()?;
        }
        Ok(blob)
    }

    fn flush(&mut self) -> Result<(), NotKept> {
        self.bytes = 0;
        self.batches.send(std::mem::take(&mut self.batch)).map_err(|_| NotKept::Stopped)
    }

    /// Hands over the last batch.
    pub fn finish(mut self) -> Result<(), NotKept> {
        self.flush()
    }
}

fn cut(e: io::Error) -> BadArchive {
    use crate::image::tape::TapeError;
    match e.kind() {
        io::ErrorKind::UnexpectedEof => TapeError::Truncated("a file").into(),
        _ => BadArchive::Read(e),
    }
}

/// An error of a blob's writer as an error of the store, which it is.
pub fn write_error(source: io::Error) -> StoreError {
    match source.downcast::<StoreError>() {
        Ok(error) => error,
        Err(source) => StoreError::Io { action: "Writing", path: "a blob".into(), source },
    }
}
