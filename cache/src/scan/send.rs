//! Brings a directory into a store: offers names, sends what nobody has.

use super::stat_cache::StatCache;
use super::walk::{Outcome, Scan};
use super::{ScanError, Scanned, Top};
use crate::cluster::Cluster;
use crate::scan::paths::Wanted;
use crate::tree::pattern::Patterns;
use bytes::Bytes;
use proto::id::{BlobId, RootId, TreeId};
use proto::limit;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The directory's tree, which the store has now.
    pub root: RootId,
    /// Files in it.
    pub files: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes that had to be sent.
    pub sent: u64,
}

/// Bytes that are read but not yet sent.
const IN_FLIGHT_BYTES: usize = 32 << 20;

/// Scans the part of `base` that is wanted and sees to it that the store has all of it. `sent`
/// counts bytes as they are sent. Statistics of files are kept under `stats`.
pub async fn send(
    blobs: &Arc<Cluster>,
    base: &Path,
    top: Top,
    patterns: &[String],
    ignore: Option<Arc<Patterns>>,
    stats: Option<&Path>,
    sent: Arc<AtomicU64>,
) -> Result<Sent, ScanError> {
    let base = base.canonicalize().map_err(|source| ScanError::Io {
        action: "Opening",
        path: base.to_owned(),
        source,
    })?;
    let wanted = Wanted::resolve(&base, patterns);
    let complete = wanted == Wanted::All;
    let mut cache = stats.map_or_else(StatCache::default, |dir| StatCache::load(dir, &base));
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();

    // Small files go to the store while the scan goes on: their bytes are at hand only once.
    let (sink, pieces) = mpsc::channel::<(BlobId, Bytes)>(IN_FLIGHT_BYTES / (64 << 10));
    let early = tokio::spawn(send_small(blobs.clone(), pieces, sent.clone()));
    let scan = tokio::task::spawn_blocking(move || {
        let read = |id, bytes| drop(sink.blocking_send((id, bytes)));
        let scan = Scan {
            base: &base,
            top,
            wanted: &wanted,
            ignore: ignore.as_deref(),
            cache: &cache,
            read: &read,
            seen: &|| {},
        };
        (scan.run(), cache)
    });
    let (outcome, returned) =
        scan.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    cache = returned;
    let Outcome { tree, known } = outcome?;
    early.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
    offer(blobs, &tree, &sent).await?;
    if let Err(e) = cache.store(known, began.as_nanos() as i128, complete) {
        tracing::debug!("keeping what is known of the context failed: {e}");
    }
    let Scanned { root, file_count, bytes, .. } = tree;
    Ok(Sent { root, files: file_count, bytes, sent: sent.load(Ordering::Relaxed) })
}

/// Sends small files in batches, those that the store has not.
async fn send_small(
    blobs: Arc<Cluster>,
    mut pieces: mpsc::Receiver<(BlobId, Bytes)>,
    sent: Arc<AtomicU64>,
) -> Result<(), ScanError> {
    let (mut batch, mut bytes) = (HashMap::new(), 0);
    loop {
        let piece = pieces.recv().await;
        let end = piece.is_none();
        if let Some((id, data)) = piece {
            bytes += data.len();
            batch.insert(id, data);
        }
        if !batch.is_empty() && (end || bytes >= limit::BATCH_BYTES || batch.len() >= 4096) {
            send_missing(&blobs, std::mem::take(&mut batch), &sent).await?;
            bytes = 0;
        }
        if end {
            return Ok(());
        }
    }
}

async fn send_missing(
    blobs: &Arc<Cluster>,
    mut batch: HashMap<BlobId, Bytes>,
    sent: &AtomicU64,
) -> Result<(), ScanError> {
    let (missing, _) = blobs.missing(batch.keys().copied().collect(), Vec::new()).await?;
    let send: Vec<_> = missing.iter().filter_map(|id| batch.remove_entry(id)).collect();
    if !send.is_empty() {
        blobs.put_blobs(&send).await?;
        let bytes: usize = send.iter().map(|(_, b)| b.len()).sum();
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Offers the tree from the root down; below a node that the store has, it has everything.
async fn offer(blobs: &Arc<Cluster>, tree: &Scanned, sent: &AtomicU64) -> Result<(), ScanError> {
    let by_id: HashMap<TreeId, usize> =
        tree.nodes.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let mut level = vec![tree.root.0];
    let mut absent: HashSet<TreeId> = HashSet::new();
    while !level.is_empty() {
        let mut next = Vec::new();
        for some in level.chunks(limit::FIND_MISSING_MAX) {
            let (_, missing) = blobs.missing(Vec::new(), some.to_vec()).await?;
            for id in missing.into_iter().filter(|id| absent.insert(*id)) {
                next.extend(tree.nodes[by_id[&id]].1.dirs.iter().copied());
            }
        }
        next.sort_unstable();
        next.dedup();
        level = next;
    }
    if absent.is_empty() {
        return Ok(());
    }
    let named = tree.nodes.iter().filter(|(id, _)| absent.contains(id));
    let mut wanted: Vec<BlobId> = named.flat_map(|(_, parts)| parts.blobs.clone()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for some in wanted.chunks(limit::FIND_MISSING_MAX) {
        let (missing, _) = blobs.missing(some.to_vec(), Vec::new()).await?;
        send_files(blobs, tree, missing, sent).await?;
    }
    let mut nodes = Vec::new();
    let mut given = HashSet::new();
    for (id, parts) in &tree.nodes {
        if absent.contains(id) && given.insert(*id) {
            nodes.push(parts.bytes.clone());
        }
    }
    Ok(blobs.put_nodes(nodes).await?)
}

/// Reads files again and sends them.
async fn send_files(
    blobs: &Arc<Cluster>,
    tree: &Scanned,
    missing: Vec<BlobId>,
    sent: &AtomicU64,
) -> Result<(), ScanError> {
    let (mut batch, mut bytes) = (HashMap::new(), 0);
    for id in missing {
        let (path, size) = &tree.files[&id];
        if *size as usize > limit::PACKED_BLOB_BYTES_MAX {
            send_large(blobs, id, path, *size, sent).await?;
            continue;
        }
        let data = read_again(path.clone(), id).await?;
        bytes += data.len();
        batch.insert(id, data);
        if bytes >= limit::BATCH_BYTES || batch.len() >= 4096 {
            send_missing(blobs, std::mem::take(&mut batch), sent).await?;
            bytes = 0;
        }
    }
    if batch.is_empty() { Ok(()) } else { send_missing(blobs, batch, sent).await }
}

async fn read_again(path: PathBuf, id: BlobId) -> Result<Bytes, ScanError> {
    let reading = move || match std::fs::read(&path) {
        Ok(bytes) if BlobId::of(&bytes) == id => Ok(Bytes::from(bytes)),
        Ok(_) => Err(ScanError::Changed { path }),
        Err(source) => Err(ScanError::Io { action: "Reading", path, source }),
    };
    tokio::task::spawn_blocking(reading)
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

async fn send_large(
    blobs: &Arc<Cluster>,
    id: BlobId,
    path: &Path,
    size: u64,
    sent: &AtomicU64,
) -> Result<(), ScanError> {
    let open = File::open(path);
    let file =
        open.map_err(|source| ScanError::Io { action: "Opening", path: path.to_owned(), source })?;
    let file = Arc::new(std::sync::Mutex::new(file));
    let next = || {
        let file = file.clone();
        let read = move || {
            let mut piece = Vec::with_capacity(1 << 20);
            let file = file.lock().unwrap_or_else(|p| p.into_inner());
            (&*file).take(1 << 20).read_to_end(&mut piece)?;
            Ok(if piece.is_empty() { None } else { Some(Bytes::from(piece)) })
        };
        async move {
            let piece: std::io::Result<Option<Bytes>> = tokio::task::spawn_blocking(read)
                .await
                .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
            if let Ok(Some(bytes)) = &piece {
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            piece
        }
    };
    Ok(blobs.put_large(id, size, next).await?)
}
