//! The store at the other end of a stream, for whoever blocks.

use super::NetError;
use crate::cluster::Cluster;
use crate::store::{Source, StoreError};
use bytes::Bytes;
use proto::error::Class;
use proto::id::{BlobId, TreeId};
use proto::tree::AnyNode;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Nodes that were fetched ahead and not asked for yet: more are not kept.
const AHEAD_MAX: usize = 4096;

/// Pieces of a large blob that wait for their reader.
const PIECES: usize = 4;

/// Reads from a store at the other end of a stream. Its methods block: not for the runtime's own
/// threads.
pub struct Remote {
    blobs: Arc<Cluster>,
    runtime: Handle,
    /// Who reads a directory soon reads those in it: they are fetched together.
    ahead: Mutex<HashMap<TreeId, Arc<AnyNode>>>,
}

impl Remote {
    /// Reads by `blobs`. Called on a runtime's thread: its runtime does the work.
    pub fn new(blobs: &Arc<Cluster>) -> Self {
        Self { blobs: blobs.clone(), runtime: Handle::current(), ahead: Mutex::default() }
    }

    fn taken(&self, id: &TreeId) -> Option<Arc<AnyNode>> {
        self.ahead.lock().unwrap_or_else(|p| p.into_inner()).remove(id)
    }

    fn fetch_ahead(&self, node: &AnyNode) -> Result<(), StoreError> {
        let mut wanted: Vec<TreeId> = node.dirs().iter().map(|d| d.tree).collect();
        wanted.sort_unstable();
        wanted.dedup();
        {
            let ahead = self.ahead.lock().unwrap_or_else(|p| p.into_inner());
            wanted.retain(|id| !ahead.contains_key(id));
            wanted.truncate(AHEAD_MAX.saturating_sub(ahead.len()));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let failed = |e| error(&format!("Tree {}", wanted[0]), e);
        let nodes = self.runtime.block_on(self.blobs.get_nodes(&wanted)).map_err(failed)?;
        let mut ahead = self.ahead.lock().unwrap_or_else(|p| p.into_inner());
        ahead.extend(wanted.into_iter().zip(nodes));
        Ok(())
    }
}

impl Source for Remote {
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
        let node = match self.taken(id) {
            Some(node) => node,
            None => {
                let failed = |e| error(&format!("Tree {id}"), e);
                self.runtime.block_on(self.blobs.get_nodes(&[*id])).map_err(failed)?.remove(0)
            }
        };
        self.fetch_ahead(&node)?;
        Ok(node)
    }

    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        self.runtime.block_on(self.blobs.get_blobs(ids)).map_err(|e| error("Small blobs", e))
    }

    fn stream(&self, id: &BlobId) -> Result<Box<dyn Read + Send>, StoreError> {
        let (pieces, queue) = mpsc::channel(PIECES);
        let (blobs, id) = (self.blobs.clone(), *id);
        self.runtime.spawn(async move {
            let take = |piece: Bytes| {
                let pieces = pieces.clone();
                async move {
                    // A reader that has gone wants no more of it.
                    pieces.send(Ok(piece)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
                }
            };
            let end = match blobs.get_large(id, 0, take).await {
                Ok(_) => Ok(Bytes::new()),
                Err(e) => Err(io::Error::other(error(&format!("Blob {id}"), e))),
            };
            let _ = pieces.send(end).await;
        });
        let hasher = Box::new(blake3::Hasher::new());
        Ok(Box::new(Pieces { queue, current: Bytes::new(), hasher, id, ended: false }))
    }
}

/// A large blob on its way.
struct Pieces {
    queue: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    hasher: Box<blake3::Hasher>,
    id: BlobId,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            self.current = match self.queue.blocking_recv() {
                Some(piece) => piece?,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            self.hasher.update(&self.current);
            self.ended = self.current.is_empty();
            if self.ended && BlobId::from(self.hasher.finalize()) != self.id {
                let (what, detail) = (format!("Blob {}", self.id), "other bytes came".to_owned());
                return Err(io::Error::other(StoreError::Corrupt { what, detail }));
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

fn error(what: &str, error: NetError) -> StoreError {
    if error.class() == Class::Corrupt {
        return StoreError::Corrupt { what: what.to_owned(), detail: error.to_string() };
    }
    let source = io::Error::other(error.to_string());
    StoreError::Io { action: "Fetching", path: what.into(), source }
}
