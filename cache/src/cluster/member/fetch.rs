//! Getting blobs from other nodes.

use super::{Member, SyncError};
use crate::chunk::{self, FetchError};
use crate::net::NetError;
use crate::net::blobs::Blobs;
use crate::net::serve::blocking;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use futures::stream::{StreamExt, iter};
use proto::id::BlobId;
use proto::limit;
use std::io::Write;
use tokio::sync::mpsc;

/// Transfers that are under way at the same time.
const TRANSFERS: usize = 4;

/// Small blobs that one request asks for.
const BLOBS_AT_ONCE: usize = 4096;

/// What could not be had.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub count: usize,
    pub last: String,
}

impl Left {
    fn add(&mut self, id: &BlobId, why: impl std::fmt::Display) {
        self.count += 1;
        self.last = format!("blob {id}: {why}");
    }

    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        if other.count > 0 {
            self.last = other.last;
        }
    }
}

impl Member {
    /// Gets blobs, each with its size, that `peer` has, or anybody. Fails only when the own store
    /// does.
    pub(super) async fn fetch(
        &self,
        peer: Option<&Blobs>,
        blobs: &[(BlobId, u64)],
    ) -> Result<Left, StoreError> {
        let small = |(_, size): &(BlobId, u64)| *size <= limit::PACKED_BLOB_BYTES_MAX as u64;
        let (small, large): (Vec<(BlobId, u64)>, Vec<_>) = blobs.iter().copied().partition(small);
        let mut left = Left::default();
        let batches = in_batches(&small);
        let mut small = iter(batches)
            .map(|ids| async move { self.fetch_small(peer, &ids).await })
            .buffer_unordered(TRANSFERS);
        while let Some(some) = small.next().await {
            left.merge(some?);
        }
        let mut large = iter(large)
            .map(|(id, size)| async move { self.fetch_large(peer, id, size).await })
            .buffer_unordered(TRANSFERS);
        while let Some(one) = large.next().await {
            left.merge(one?);
        }
        Ok(left)
    }

    fn sources(&self, peer: Option<&Blobs>, id: &BlobId) -> Vec<Blobs> {
        peer.cloned().into_iter().chain(self.farm.others(id, &self.id)).collect()
    }

    async fn fetch_small(&self, peer: Option<&Blobs>, ids: &[BlobId]) -> Result<Left, StoreError> {
        if let Some(peer) = peer
            && let Ok(got) = peer.get_blobs(ids).await
        {
            self.put(ids.iter().copied().zip(got).collect()).await?;
            return Ok(Left::default());
        }
        let mut left = Left::default();
        'blobs: for id in ids {
            let mut failed = NetError::Closed;
            for source in self.sources(None, id) {
                match source.get_blobs(&[*id]).await {
                    Ok(mut got) => {
                        self.put(vec![(*id, got.remove(0))]).await?;
                        continue 'blobs;
                    }
                    Err(error) => failed = error,
                }
            }
            left.add(id, failed);
        }
        Ok(left)
    }

    async fn put(&self, blobs: Vec<(BlobId, Bytes)>) -> Result<(), StoreError> {
        let store = self.store.clone();
        blocking(move || store.put_blobs(&blobs)).await
    }

    async fn fetch_large(
        &self,
        peer: Option<&Blobs>,
        id: BlobId,
        size: u64,
    ) -> Result<Left, StoreError> {
        let mut left = Left::default();
        let sources = self.sources(peer, &id);
        if size > limit::CHUNKED_BLOB_BYTES_MAX {
            let mut failed = NetError::Closed;
            for source in sources {
                match self.fetch_whole(&source, id).await? {
                    Ok(()) => return Ok(left),
                    Err(error) => failed = error,
                }
            }
            left.add(&id, failed);
            return Ok(left);
        }
        match chunk::fetch(&self.as_store(), sources, id, size).await {
            Ok(_) => {}
            Err(FetchError::Store(error)) => return Err(error),
            Err(error) => left.add(&id, error),
        }
        Ok(left)
    }

    /// Gets a blob that is too large for a list of chunks.
    async fn fetch_whole(
        &self,
        source: &Blobs,
        id: BlobId,
    ) -> Result<Result<(), NetError>, StoreError> {
        let (pieces, mut queue) = mpsc::channel::<Bytes>(4);
        let store = self.store.clone();
        let writing = blocking(move || -> Result<_, StoreError> {
            let mut writer = store.writer()?;
            while let Some(piece) = queue.blocking_recv() {
                writer.write_all(&piece).map_err(|source| StoreError::Io {
                    action: "Writing",
                    path: format!("blob {id}").into(),
                    source,
                })?;
            }
            Ok(writer)
        });
        let reading = async move {
            let take = |piece: Bytes| {
                let pieces = pieces.clone();
                // Whoever writes them has gone only when the disk failed, and says so.
                async move {
                    pieces.send(piece).await.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
                }
            };
            source.get_large(id, 0, take).await
        };
        let (writer, read) = futures::future::join(writing, reading).await;
        let writer = writer?;
        if let Err(error) = read {
            return Ok(Err(error));
        }
        match blocking(move || writer.finish(Some(id))).await {
            Ok(_) => Ok(Ok(())),
            Err(error @ StoreError::WrongBytes { .. }) => {
                Ok(Err(NetError::Unexpected(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

impl Left {
    /// Nothing is left, or an error that says what.
    pub fn into_result(self) -> Result<(), SyncError> {
        match self.count {
            0 => Ok(()),
            left => Err(SyncError::Left { left, last: self.last }),
        }
    }
}

/// Small blobs in batches of a good size.
fn in_batches(blobs: &[(BlobId, u64)]) -> Vec<Vec<BlobId>> {
    let mut batches: Vec<Vec<BlobId>> = Vec::new();
    let mut bytes = u64::MAX;
    for (id, size) in blobs {
        let full = batches.last().is_none_or(|batch| batch.len() >= BLOBS_AT_ONCE);
        if full || bytes.saturating_add(*size) > limit::BATCH_BYTES as u64 {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += *size;
        batches.last_mut().expect("just made").push(*id);
    }
    batches
}
