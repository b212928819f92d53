//! Files of this machine on their way to the farm's store.

use crate::error::user;
use bytes::Bytes;
use cache::cluster::Cluster;
use cache::store::hash_file;
use proto::error::Failure;
use proto::id::BlobId;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;

/// Bytes of a file that are sent at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Puts a file into the farm's store, if it is not there. `name` is what messages call it.
pub async fn upload(blobs: &Arc<Cluster>, mut file: File, name: &str) -> Result<BlobId, Failure> {
    let hash = move || {
        file.rewind()?;
        let (id, size) = hash_file(&mut file)?;
        file.rewind()?;
        Ok((file, id, size))
    };
    let hashed = tokio::task::spawn_blocking(hash).await.map_err(|e| user(e.to_string()))?;
    let unread = |e: std::io::Error| user(format!("Reading {name} failed: {e}"));
    let (file, id, size) = hashed.map_err(unread)?;
    if blobs.missing(vec![id], Vec::new()).await?.0.is_empty() {
        return Ok(id);
    }
    let file = Arc::new(file);
    let next = || {
        let file = file.clone();
        let read = move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
            (&*file).take(PIECE_BYTES).read_to_end(&mut piece)?;
            Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
        };
        async move {
            let piece = tokio::task::spawn_blocking(read).await;
            piece.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        }
    };
    blobs.put_large(id, size, next).await?;
    Ok(id)
}
