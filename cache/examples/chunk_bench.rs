//! What of a large blob moves, and how fast: `cargo run --release -p cache --example chunk_bench [DIR]`.
//!
//! Works in a new directory under DIR (the current one if not given), which it deletes again. The
//! streams are in memory: what is measured is what the two ends do.

use cache::chunk::cut::cut;
use cache::chunk::{Moved, fetch};
use cache::net::blobs::Blobs;
use cache::net::local::{self, Dialer};
use cache::net::serve::{Rights, serve};
use cache::store::{DiskStore, Options, Store};
use proto::id::BlobId;
use proto::wire::{Binary, Opened};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

const SIZE: usize = 1 << 30;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let base = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    let old = content(1, SIZE);
    let start = Instant::now();
    let chunks = cut(&old[..])?.chunks().len();
    println!("{chunks} chunks of {} KiB: cut at {}", (SIZE / chunks) >> 10, speed(start));
    for spots in [1, 10, 100] {
        let path = dir.path().join(spots.to_string());
        println!("A hundredth changes, in {spots} places:");
        versions(&path, &old, spots).await?;
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn speed(start: Instant) -> String {
    format!("{:.0} MB/s", SIZE as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Bytes that can't be compressed.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The same with a hundredth inserted, in so many places.
fn changed(old: &[u8], spots: usize) -> Vec<u8> {
    let mut new = Vec::with_capacity(SIZE + SIZE / 50);
    for (n, piece) in old.chunks(SIZE.div_ceil(spots)).enumerate() {
        let (before, after) = piece.split_at(piece.len() / 3);
        new.extend_from_slice(before);
        new.extend(content(100 + n as u64, SIZE / 100 / spots));
        new.extend_from_slice(after);
    }
    new
}

async fn versions(path: &Path, old: &[u8], spots: usize) -> Result<(), Failure> {
    let open = |name: &str| -> Result<Arc<dyn Store>, Failure> {
        std::fs::create_dir_all(path)?;
        Ok(Arc::new(DiskStore::open(&path.join(name), Options::default())?))
    };
    let (here, there, back) = (open("here")?, open("there")?, open("back")?);
    let new = changed(old, spots);
    for (name, bytes) in [("all of the old one", old), ("the new one", &new)] {
        let id = put(&there, bytes)?;
        let (from, to) = (blobs(&there), blobs(&back));
        let start = Instant::now();
        let moved = fetch(&here, vec![from], id, bytes.len() as u64).await?;
        tell(&format!("fetched {name}"), start, moved);
        let start = Instant::now();
        tell(&format!("put {name}"), start, to.put_chunked(&here, id).await?);
    }
    Ok(())
}

fn tell(what: &str, start: Instant, moved: Moved) {
    let share = moved.moved as f64 * 100.0 / (moved.moved + moved.reused) as f64;
    println!("  {what:<30} {share:>7.2} % moved, at {}", speed(start));
}

fn put(store: &Arc<dyn Store>, bytes: &[u8]) -> Result<BlobId, Failure> {
    let mut writer = store.writer()?;
    writer.write_all(bytes)?;
    Ok(writer.finish(None)?.0)
}

/// Serves a store.
fn blobs(store: &Arc<dyn Store>) -> Blobs {
    let binary = Binary { version: "bench".into(), modified_ms: 0 };
    let (dialer, mut listener): (Dialer, _) = local::pair();
    let (store, ready) = (store.clone(), binary.clone());
    tokio::spawn(async move {
        while let Some(mut stream) = listener.accept().await {
            let (store, ready) = (store.clone(), ready.clone());
            tokio::spawn(async move {
                stream.accept().await?;
                stream.to.send(&Opened::Ready { binary: ready }).await?;
                serve(store, stream, Rights::Coordinator).await
            });
        }
    });
    Blobs::new(Arc::new(dialer), binary)
}
