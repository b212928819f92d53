//! Layers from a registry or a client's layout into the store, and into diff trees.

use super::below::Below;
use super::layout::{LayoutError, files};
use super::registry::{
    Endpoint, LayerRef, Reference, RegistryError, Resolved, Session, repository_of,
};
use super::sha::Sha;
use super::unpack::{Reading, UnpackError, unpack, write_error};
use super::{Progress, blocking, joined, rows};
use bytes::Bytes;
use cache::flight::Flights;
use cache::store::{OciBlob, Store, StoreError};
use futures_util::future::try_join_all;
use proto::error::Class;
use proto::id::{BlobId, OciDigest, RootId};
use proto::step::PackedRef;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

/// Layers that are downloaded at the same time. Docker's default is 3, containerd's is no bound.
const DOWNLOADS: usize = 4;

/// Pieces that wait between a connection and the store.
const PIECES: usize = 16;

/// Why an image's layers did not come.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give them.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout does not have them.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// They could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Registry(e) => e.class(),
            Self::Layout(e) => e.class(),
            Self::Unpack(e) => e.class(),
            Self::Store(e) => e.class(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(e) => e.hint(),
            Self::Layout(_) | Self::Unpack(_) | Self::Store(_) => None,
        }
    }
}

/// Where packed layers come from.
#[derive(Clone, Copy)]
enum Origin<'o> {
    /// A registry.
    Registry(&'o Session, &'o Reference),
    /// The files of a layout, and what it goes by.
    Layout(RootId, &'o str),
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(_, reference) => reference.fmt(f),
            Self::Layout(_, name) => name.fmt(f),
        }
    }
}

/// Pulls layers, each once however many ask for it at the same time.
pub struct Puller {
    store: Arc<dyn Store>,
    pulling: Flights<OciDigest>,
    unpacking: Flights<OciDigest>,
    downloads: Semaphore,
    processors: Semaphore,
}

impl Puller {
    /// Pulls into this store, and unpacks up to `processors` layers at the same time.
    pub fn new(store: Arc<dyn Store>, processors: usize) -> Self {
        Self {
            store,
            pulling: Flights::default(),
            unpacking: Flights::default(),
            downloads: Semaphore::new(DOWNLOADS),
            processors: Semaphore::new(processors.max(1)),
        }
    }

    /// The right to unpack something, for as long as it is held.
    pub async fn processor(&self) -> SemaphorePermit<'_> {
        self.processors.acquire().await.expect("it is never closed")
    }

    /// A packed layer, or any other blob, of the reference's repository. One that is here is not
    /// asked for; who may not see it must be turned away when the reference is resolved.
    pub async fn blob(
        &self,
        session: &Session,
        reference: &Reference,
        part: &PackedRef,
        progress: &Progress,
    ) -> Result<OciBlob, RegistryError> {
        let (_one, _pin) = (self.pulling.enter(part.digest).await, self.store.pin());
        let (store, digest) = (self.store.clone(), part.digest);
        if let Some(row) = blocking(move || rows::oci_blob(&*store, &digest)).await? {
            progress(&part.digest, part.size, part.size);
            return Ok(row);
        }
        let _slot = self.downloads.acquire().await.expect("it is never closed");
        let endpoints = session.endpoints(reference)?;
        let mut failed = None;
        for endpoint in &endpoints {
            match self.fetch(session, endpoint, reference, part, progress).await {
                Ok(row) => return Ok(row),
                Err(e @ RegistryError::Store(_)) => return Err(e),
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.expect("there is always the registry itself"))
    }

    async fn fetch(
        &self,
        session: &Session,
        endpoint: &Endpoint,
        reference: &Reference,
        part: &PackedRef,
        progress: &Progress,
    ) -> Result<OciBlob, RegistryError> {
        let what = format!("layer {} of {reference}", part.digest.short());
        let mut download = session.download(endpoint, reference, part.digest, what);
        let (pieces, to_write) = mpsc::channel(PIECES);
        let (store, digest) = (self.store.clone(), part.digest);
        let writing = tokio::task::spawn_blocking(move || write(&*store, to_write, &digest));
        let mut at = 0;
        progress(&part.digest, 0, part.size);
        loop {
            let Some(piece) = download.next().await? else {
                if at == part.size {
                    break;
                }
                download.broken(format!("it ended {} bytes early", part.size - at)).await?;
                continue;
            };
            at += piece.len() as u64;
            if at > part.size {
                let detail = format!("its manifest says {} bytes, more came", part.size);
                return Err(download.wrong(detail));
            }
            progress(&part.digest, at, part.size);
            // The writer stops early only when the store failed; it says why below.
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        let written = joined(writing).await?;
        let (blob, size) = written
            .map_err(|actual| download.wrong(format!("expected {}, got {actual}", part.digest)))?;
        let row = OciBlob { blob, size, repository: Some(repository_of(reference)) };
        let (store, kept) = (self.store.clone(), row.clone());
        blocking(move || rows::put_oci_blob(&*store, &digest, kept)).await?;
        Ok(row)
    }

    /// A packed layer, or any other file of a layout, once it is known to be what its name says.
    pub async fn file(
        &self,
        layout: RootId,
        digest: OciDigest,
        progress: &Progress,
    ) -> Result<OciBlob, LayoutError> {
        let (_one, _pin) = (self.pulling.enter(digest).await, self.store.pin());
        let (store, progress) = (self.store.clone(), progress.clone());
        blocking(move || match rows::oci_blob(&*store, &digest)? {
            Some(row) => {
                progress(&digest, row.size, row.size);
                Ok(row)
            }
            None => files::take(&*store, layout, &digest, &progress),
        })
        .await
    }

    /// The diff trees of an image's layers, lowest first: those that are not here are pulled and
    /// unpacked, several at a time. Visible in the store, and durable after its barrier.
    pub async fn layers(
        &self,
        session: &Session,
        image: &Resolved,
        progress: &Progress,
    ) -> Result<Vec<RootId>, PullError> {
        let origin = Origin::Registry(session, &image.reference);
        self.layers_of(origin, &image.layers, progress).await
    }

    /// The same of an image of a layout, which goes by `name`.
    pub async fn layers_of_layout(
        &self,
        layout: RootId,
        name: &str,
        layers: &[LayerRef],
        progress: &Progress,
    ) -> Result<Vec<RootId>, PullError> {
        self.layers_of(Origin::Layout(layout, name), layers, progress).await
    }

    async fn layers_of(
        &self,
        origin: Origin<'_>,
        layers: &[LayerRef],
        progress: &Progress,
    ) -> Result<Vec<RootId>, PullError> {
        let _pin = self.store.pin();
        let one = |layer| self.layer(origin, layer, progress);
        let roots = try_join_all(layers.iter().map(one)).await?;
        let mut done: Vec<RootId> = Vec::with_capacity(roots.len());
        for (root, layer) in roots.into_iter().zip(layers) {
            // One that links into the layers below had to wait for them.
            let root = match root {
                Some(root) => root,
                None => {
                    let row = self.packed(origin, &layer.part, progress).await?;
                    self.unpack(origin, layer, row, Some(done.clone())).await?
                }
            };
            done.push(root);
        }
        Ok(done)
    }

    /// One layer's tree. None when it needs the layers below.
    async fn layer(
        &self,
        origin: Origin<'_>,
        layer: &LayerRef,
        progress: &Progress,
    ) -> Result<Option<RootId>, PullError> {
        let _one = self.unpacking.enter(layer.diff_id).await;
        let (store, diff_id) = (self.store.clone(), layer.diff_id);
        if let Some(root) = blocking(move || rows::unpacked(&*store, &diff_id)).await? {
            return Ok(Some(root));
        }
        let row = self.packed(origin, &layer.part, progress).await?;
        match self.unpack(origin, layer, row, None).await {
            Ok(root) => Ok(Some(root)),
            Err(PullError::Unpack(UnpackError::NeedsLower { .. })) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn packed(
        &self,
        origin: Origin<'_>,
        part: &PackedRef,
        progress: &Progress,
    ) -> Result<OciBlob, PullError> {
        match origin {
            Origin::Registry(session, reference) => {
                Ok(self.blob(session, reference, part, progress).await?)
            }
            Origin::Layout(files, _) => Ok(self.file(files, part.digest, progress).await?),
        }
    }

    async fn unpack(
        &self,
        origin: Origin<'_>,
        layer: &LayerRef,
        row: OciBlob,
        below: Option<Vec<RootId>>,
    ) -> Result<RootId, PullError> {
        let _one = self.processor().await;
        let what = format!("Layer {} of {origin}", layer.part.digest.short());
        let (store, diff_id) = (self.store.clone(), layer.diff_id);
        blocking(move || {
            let store = &*store;
            let below = below.as_ref().map(|layers| Below { store, layers });
            let lower = below.as_ref().map(|below| below as _);
            let reading = Reading::Layer { diff_id: Some(diff_id), lower };
            let done = unpack(store, &what, store.open(&row.blob, 0)?, reading)?;
            if !done.depends {
                rows::put_unpacked(store, &diff_id, done.root)?;
            }
            Ok(done.root)
        })
        .await
    }
}

/// Writes what comes, and keeps it if it has this digest. The inner error is the digest it had.
fn write(
    store: &dyn Store,
    mut pieces: mpsc::Receiver<Bytes>,
    expected: &OciDigest,
) -> Result<Result<(BlobId, u64), OciDigest>, StoreError> {
    let (mut writer, mut sha) = (store.writer()?, Sha::new());
    while let Some(piece) = pieces.blocking_recv() {
        sha.update(&piece);
        writer.write_all(&piece).map_err(write_error)?;
    }
    let actual = sha.finish();
    if actual != *expected {
        return Ok(Err(actual));
    }
    writer.finish(None).map(Ok)
}
