//! Brings a tree of this machine's own store to the farm's: a context that came as an archive.

use super::ScanError;
use crate::cluster::Cluster;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use proto::id::{BlobId, RootId, TreeId};
use proto::limit;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of one piece of a large blob.
const PIECE: u64 = 1 << 20;

/// Sees to it that the farm has all of a tree of the store `own`. `sent` counts bytes as they are
/// sent.
pub async fn send_stored(
    blobs: &Arc<Cluster>,
    own: &Arc<dyn Store>,
    root: RootId,
    sent: &AtomicU64,
) -> Result<(), ScanError> {
    let sending = Sending { blobs, own, sent };
    let absent = sending.absent(root).await?;
    let (mut nodes, mut bytes) = (Vec::new(), 0);
    for some in absent.chunks(limit::FIND_MISSING_MAX) {
        let some = some.to_vec();
        let read = move |own: &dyn Store| read_nodes(own, &some);
        let (encoded, named) = sending.read(read).await?;
        sending.send(named).await?;
        for node in encoded {
            bytes += node.len();
            nodes.push(node);
            if bytes >= limit::BATCH_BYTES {
                blobs.put_nodes(std::mem::take(&mut nodes)).await?;
                bytes = 0;
            }
        }
    }
    if !nodes.is_empty() {
        blobs.put_nodes(nodes).await?;
    }
    Ok(())
}

/// Nodes as they are encoded, and the blobs that they name, with their sizes.
type Nodes = (Vec<Vec<u8>>, BTreeMap<BlobId, u64>);

fn read_nodes(own: &dyn Store, ids: &[TreeId]) -> Result<Nodes, StoreError> {
    let mut named = BTreeMap::new();
    let mut encoded = Vec::with_capacity(ids.len());
    for id in ids {
        named.extend(own.node(id)?.blobs());
        encoded.push(own.node_bytes(id)?.to_vec());
    }
    Ok((encoded, named))
}

/// The directories in some nodes.
fn below(own: &dyn Store, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
    let mut found = Vec::new();
    for id in ids {
        found.extend(own.node(id)?.dirs().iter().map(|dir| dir.tree));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

struct Sending<'s> {
    blobs: &'s Arc<Cluster>,
    own: &'s Arc<dyn Store>,
    sent: &'s AtomicU64,
}

impl Sending<'_> {
    /// Reads from the own store, which blocks.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let own = self.own.clone();
        let reading = tokio::task::spawn_blocking(move || read(&*own));
        reading.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// The nodes that the farm has not, children before parents. Below a node that it has, it has
    /// everything.
    async fn absent(&self, root: RootId) -> Result<Vec<TreeId>, ScanError> {
        let mut is_absent: HashMap<TreeId, bool> = HashMap::new();
        // A node may be in several places; its parents all stand above the deepest one.
        let mut deepest: HashMap<TreeId, usize> = HashMap::new();
        let mut level = vec![root.0];
        for depth in 0.. {
            let unknown: Vec<TreeId> =
                level.iter().filter(|id| !is_absent.contains_key(*id)).copied().collect();
            for some in unknown.chunks(limit::FIND_MISSING_MAX) {
                let (_, missing) = self.blobs.missing(Vec::new(), some.to_vec()).await?;
                is_absent.extend(some.iter().map(|id| (*id, false)));
                is_absent.extend(missing.into_iter().map(|id| (id, true)));
            }
            level.retain(|id| is_absent[id]);
            if level.is_empty() {
                break;
            }
            deepest.extend(level.iter().map(|id| (*id, depth)));
            level = self.read(move |own| below(own, &level)).await?;
        }
        let mut order: Vec<(usize, TreeId)> =
            deepest.into_iter().map(|(id, depth)| (depth, id)).collect();
        order.sort_unstable_by_key(|(depth, id)| (Reverse(*depth), *id));
        Ok(order.into_iter().map(|(_, id)| id).collect())
    }

    /// Sends what the farm lacks of these blobs.
    async fn send(&self, named: BTreeMap<BlobId, u64>) -> Result<(), ScanError> {
        let ids: Vec<BlobId> = named.keys().copied().collect();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for some in ids.chunks(limit::FIND_MISSING_MAX) {
            let (missing, _) = self.blobs.missing(some.to_vec(), Vec::new()).await?;
            for id in missing {
                let size = named[&id];
                if size > limit::PACKED_BLOB_BYTES_MAX as u64 {
                    self.send_large(id, size).await?;
                    continue;
                }
                bytes += size;
                batch.push(id);
                if bytes >= limit::BATCH_BYTES as u64 {
                    self.send_small(std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { self.send_small(batch).await }
    }

    async fn send_small(&self, ids: Vec<BlobId>) -> Result<(), ScanError> {
        let read = |own: &dyn Store| Ok(own.read_many(&ids)?.into_iter().zip(ids));
        let pairs: Vec<(BlobId, Bytes)> =
            self.read(read).await?.map(|(bytes, id)| (id, bytes)).collect();
        let moved = self.blobs.put_blobs(&pairs).await?;
        self.sent.fetch_add(moved, Ordering::Relaxed);
        Ok(())
    }

    async fn send_large(&self, id: BlobId, size: u64) -> Result<(), ScanError> {
        let opened = self.read(move |own| own.open(&id, 0)).await?;
        let reader = Arc::new(Mutex::new(opened));
        let next = || {
            let reader = reader.clone();
            let read = move || {
                let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                let mut piece = Vec::with_capacity(PIECE as usize);
                reader.by_ref().take(PIECE).read_to_end(&mut piece)?;
                Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
            };
            async move {
                let read: std::io::Result<Option<Bytes>> = tokio::task::spawn_blocking(read)
                    .await
                    .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
                if let Ok(Some(piece)) = &read {
                    self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                read
            }
        };
        Ok(self.blobs.put_large(id, size, next).await?)
    }
}
