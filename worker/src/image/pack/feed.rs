//! Reads what an archive is made of from the store: small blobs many at a time, large ones piece by
//! piece.

use super::PackError;
use super::walk::{Content, Form, walk};
use crate::image::tape::{END, Head, encode, padding};
use bytes::Bytes;
use cache::store::{Source, StoreError};
use proto::id::{BlobId, RootId};
use proto::limit;
use std::io::Read;
use std::sync::mpsc::SyncSender;

/// Some bytes of the archive, in order.
pub type Batch = Vec<Bytes>;

/// Bytes of one piece of a large file.
const PIECE: usize = 1 << 20;

/// Blobs that are read at once.
const BLOBS_AT_ONCE: usize = 1024;

/// Why the feeder stopped.
pub enum Stopped {
    /// It could not go on.
    Failed(PackError),
    /// Nobody takes its batches any more.
    Unwanted,
}

impl<E: Into<PackError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Sends the whole archive of these trees, each under its prefix, end included.
pub fn feed(
    store: &dyn Source,
    roots: &[(Vec<u8>, RootId, Form)],
    to: SyncSender<Batch>,
) -> Result<(), Stopped> {
    let mut feeder = Feeder { store, to, parts: Vec::new(), wanted: Vec::new(), bytes: 0 };
    let mut unwanted = false;
    for (prefix, root, form) in roots {
        let walked = walk(store, root, *form, prefix, &mut |head, content| {
            feeder.entry(head, content).map_err(|stopped| match stopped {
                Stopped::Failed(error) => error,
                Stopped::Unwanted => {
                    unwanted = true;
                    PackError::Stopped
                }
            })
        });
        match walked {
            Err(_) if unwanted => return Err(Stopped::Unwanted),
            walked => walked?,
        }
    }
    feeder.parts.push(Part::Ready(Bytes::from_static(&END)));
    feeder.flush()
}

enum Part {
    Ready(Bytes),
    /// The next of the wanted blobs.
    Wanted,
}

struct Feeder<'s> {
    store: &'s dyn Source,
    to: SyncSender<Batch>,
    parts: Vec<Part>,
    wanted: Vec<Content>,
    bytes: usize,
}

impl Feeder<'_> {
    fn entry(&mut self, head: &Head, content: Option<Content>) -> Result<(), Stopped> {
        let encoded = encode(head);
        self.bytes += encoded.len();
        self.parts.push(Part::Ready(encoded.into()));
        let Some((blob, size)) = content.filter(|(_, size)| *size > 0) else { return Ok(()) };
        if size > limit::PACKED_BLOB_BYTES_MAX as u64 {
            self.flush()?;
            self.large(&blob, size)?;
        } else {
            self.wanted.push((blob, size));
            self.parts.push(Part::Wanted);
            self.bytes += size as usize;
        }
        let fill = padding(size);
        if fill > 0 {
            self.parts.push(Part::Ready(Bytes::from_static(&END[..fill])));
        }
        if self.bytes >= limit::BATCH_BYTES || self.wanted.len() >= BLOBS_AT_ONCE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        let wanted = std::mem::take(&mut self.wanted);
        let ids: Vec<BlobId> = wanted.iter().map(|(id, _)| *id).collect();
        let blobs = if ids.is_empty() { Vec::new() } else { self.store.read_many(&ids)? };
        for ((id, size), bytes) in wanted.iter().zip(&blobs) {
            check_size(id, *size, bytes.len() as u64)?;
        }
        let mut blobs = blobs.into_iter();
        let parts = std::mem::take(&mut self.parts).into_iter();
        let batch: Batch = parts
            .filter_map(|part| match part {
                Part::Ready(bytes) => Some(bytes),
                Part::Wanted => blobs.next(),
            })
            .collect();
        self.bytes = 0;
        self.send(batch)
    }

    fn large(&mut self, blob: &BlobId, size: u64) -> Result<(), Stopped> {
        let mut content = self.store.stream(blob)?;
        let mut sent = 0;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let limited = content.by_ref().take(PIECE as u64);
            read_all(limited, &mut piece).map_err(|e| read_error(blob, e))?;
            if piece.is_empty() {
                return Ok(check_size(blob, size, sent)?);
            }
            sent += piece.len() as u64;
            if sent > size {
                return Ok(check_size(blob, size, sent)?);
            }
            self.send(vec![piece.into()])?;
        }
    }

    fn send(&self, batch: Batch) -> Result<(), Stopped> {
        self.to.send(batch).map_err(|_| Stopped::Unwanted)
    }
}

fn read_all(mut from: impl Read, into: &mut Vec<u8>) -> std::io::Result<usize> {
    from.read_to_end(into)
}

/// A wrong size would shift all that follows in the archive.
fn check_size(blob: &BlobId, expected: u64, actual: u64) -> Result<(), StoreError> {
    if expected == actual {
        return Ok(());
    }
    let detail = format!("it has {actual} bytes, and its tree says {expected}");
    Err(StoreError::Corrupt { what: format!("Blob {blob}"), detail })
}

/// An error of a blob's stream as an error of the store, which it is.
pub(crate) fn read_error(blob: &BlobId, source: std::io::Error) -> StoreError {
    match source.downcast::<StoreError>() {
        Ok(error) => error,
        Err(source) => {
            StoreError::Io { action: "Reading", path: format!("blob {blob}").into(), source }
        }
    }
}
