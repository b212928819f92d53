//! Images: registries, layers, manifests, archives.
//!
//! * [`registry`] speaks the OCI distribution protocol; [`pull`] and [`push`] move blobs with it.
//! * [`tape`] reads and writes the tar format; [`unpack`] makes diff trees of layers, [`pack`] makes
//!   layers of diff trees.
//! * [`manifest`] makes configs, manifests and indexes; [`archive`] writes and reads files that hold
//!   whole images; [`layout`] takes single images from directories of clients.
//! * [`artifact`] is the form of caches outside of the farm.
//!
//! Bytes from a registry or an archive are kept under the BLAKE3 name that all of Slipway uses, and
//! found by their SHA-256 through the store's table `OciBlob`. Nothing is kept before its SHA-256
//! was compared with what it was asked for by.

pub mod archive;
pub mod artifact;
mod below;
pub mod layout;
pub mod local;
pub mod manifest;
pub mod pack;
pub mod pull;
pub mod push;
pub mod registry;
pub(crate) mod rows;
pub mod sha;
pub mod tape;
pub mod unpack;

use bytes::Bytes;
use cache::meter::Carried;
use cache::store::{Store, StoreError};
use proto::id::{BlobId, OciDigest};
use proto::limit;
use std::sync::Arc;

/// Called with a blob's digest, the bytes of it that were moved, and all that it has.
pub type Progress = Arc<dyn Fn(&OciDigest, u64, u64) + Send + Sync>;

/// Runs something that blocks, off the runtime's own threads.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let counted = Carried::here();
    joined(tokio::task::spawn_blocking(|| counted.within(work))).await
}

/// What a task on a thread of its own comes to. A panic in it goes on here.
async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is ending, and nobody will see the answer.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Keeps bytes of any size that are in memory.
pub(crate) fn put_any(store: &dyn Store, blob: BlobId, bytes: Bytes) -> Result<(), StoreError> {
    if bytes.len() <= limit::PACKED_BLOB_BYTES_MAX {
        return store.put_blobs(&[(blob, bytes)]);
    }
    let mut writer = store.writer()?;
    std::io::Write::write_all(&mut writer, &bytes).map_err(unpack::write_error)?;
    writer.finish(Some(blob)).map(drop)
}
