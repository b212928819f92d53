//! Images from the store to a registry: what is there is not sent, what another repository of the
//! same registry has is mounted, the rest is sent, several blobs at a time; manifests come last, so
//! that nobody ever sees one without its layers.

use super::manifest::ImageSet;
use super::registry::{Content, Reference, RegistryError, Session, Uploaded, repository_of};
use super::{Progress, blocking, rows};
use bytes::Bytes;
use cache::meter::{self, Carried, Kind};
use cache::store::{OciBlob, Store};
use futures_util::StreamExt;
use futures_util::stream::{self, TryStreamExt};
use proto::id::{BlobId, OciDigest};
use reqwest::Body;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Blobs that are sent at the same time. Docker's default.
const UPLOADS: usize = 5;

/// Bytes of one piece on its way, and how many wait.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of what the name stands for now.
    pub digest: OciDigest,
    /// How each blob came to be there.
    pub blobs: BTreeMap<OciDigest, Uploaded>,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In memory.
    Here(Bytes),
    /// In the store: the blob and its size.
    Stored(BlobId, u64),
}

/// Pushes images to the registry that the reference names, under its tag; by digest only when
/// `by_digest` says so or there is no tag.
pub async fn push(
    store: &Arc<dyn Store>,
    session: &Session,
    reference: &Reference,
    set: &ImageSet,
    by_digest: bool,
    progress: &Progress,
) -> Result<Pushed, RegistryError> {
    let _pin = store.pin();
    let mut wanted: BTreeMap<OciDigest, Source> = BTreeMap::new();
    for image in &set.images {
        for layer in &image.layers {
            wanted.insert(layer.part.digest, Source::Stored(layer.blob, layer.part.size));
        }
        wanted.insert(image.config.digest, Source::Here(image.config.bytes.clone()));
    }
    let absent = BTreeSet::new();
    let blobs = blobs(store, session, reference, wanted, &absent, progress).await?;
    let top = set.top();
    if set.index.is_some() {
        for image in &set.images {
            let (kind, bytes) = (&image.manifest.media_type, image.manifest.bytes.clone());
            session.push_manifest(reference, true, kind, bytes).await?;
        }
    }
    session.push_manifest(reference, by_digest, &top.media_type, top.bytes.clone()).await?;
    Ok(Pushed { digest: top.digest, blobs })
}

/// Sees to it that the reference's repository has these blobs. It is not asked for those of which it
/// has said that they are `absent`.
pub async fn blobs(
    store: &Arc<dyn Store>,
    session: &Session,
    reference: &Reference,
    wanted: BTreeMap<OciDigest, Source>,
    absent: &BTreeSet<OciDigest>,
    progress: &Progress,
) -> Result<BTreeMap<OciDigest, Uploaded>, RegistryError> {
    let push = Push { store, session, reference, absent, progress };
    let push = &push;
    let upload = |(digest, source)| async move {
        Ok::<_, RegistryError>((digest, push.blob(digest, source).await?))
    };
    stream::iter(wanted).map(upload).buffer_unordered(UPLOADS).try_collect().await
}

/// Where blobs go.
struct Push<'p> {
    store: &'p Arc<dyn Store>,
    session: &'p Session,
    reference: &'p Reference,
    absent: &'p BTreeSet<OciDigest>,
    progress: &'p Progress,
}

impl Push<'_> {
    async fn blob(&self, digest: OciDigest, source: Source) -> Result<Uploaded, RegistryError> {
        let Self { store, session, reference, absent, progress } = *self;
        let size = match &source {
            Source::Here(bytes) => bytes.len() as u64,
            Source::Stored(_, size) => *size,
        };
        let (known, own) = (store.clone(), repository_of(reference));
        let row = blocking(move || rows::oci_blob(&*known, &digest)).await?;
        let same_registry = format!("{}/", reference.registry());
        let other = row.as_ref().and_then(|row| row.repository.as_deref()).filter(|r| *r != own);
        let other = other.and_then(|repository| repository.strip_prefix(&same_registry));
        let make = || match &source {
            Source::Here(bytes) => Body::from(bytes.clone()),
            Source::Stored(blob, _) => body(store.clone(), *blob, digest, size, progress.clone()),
        };
        progress(&digest, 0, size);
        let (content, is_absent) = (Content { size, stream: &make }, absent.contains(&digest));
        let done = session.push_blob(reference, &digest, other, is_absent, content).await?;
        progress(&digest, size, size);
        if let Source::Stored(blob, size) = source {
            let (store, repository) = (store.clone(), Some(own));
            let row = OciBlob { blob, size, repository };
            blocking(move || rows::put_oci_blob(&*store, &digest, row)).await?;
        }
        Ok(done)
    }
}

/// A blob's bytes as a request's body. A store that fails ends the request with its error.
fn body(
    store: Arc<dyn Store>,
    blob: BlobId,
    digest: OciDigest,
    size: u64,
    progress: Progress,
) -> Body {
    let (pieces, to_send) = mpsc::channel(PIECES);
    let counted = Carried::here();
    let reading = counted.clone();
    tokio::task::spawn_blocking(move || reading.within(|| read(&*store, &blob, &pieces)));
    let state = (to_send, 0);
    Body::wrap_stream(stream::unfold(state, move |(mut to_send, mut sent)| {
        let (progress, counted) = (progress.clone(), counted.clone());
        async move {
            let piece = to_send.recv().await?;
            if let Ok(bytes) = &piece {
                sent += bytes.len() as u64;
                counted.within(|| meter::add(Kind::Pushed, bytes.len() as u64));
                progress(&digest, sent, size);
            }
            Some((piece, (to_send, sent)))
        }
    }))
}

/// Reads a blob piece by piece, until nobody takes them any more.
fn read(store: &dyn Store, blob: &BlobId, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    let mut content = match store.open(blob, 0) {
        Ok(content) => content,
        Err(e) => return drop(pieces.blocking_send(Err(io::Error::other(e)))),
    };
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = content.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let ended = matches!(read, Ok(0));
        // Who sends may have given up.
        if ended || pieces.blocking_send(read.map(|_| piece.into())).is_err() {
            return;
        }
    }
}
