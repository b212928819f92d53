//! Figures of the store on this machine: `cargo run --release -p cache --example store_bench [DIR]`.
//!
//! Works in a new directory under DIR (the current one if not given), which it deletes again.

use bytes::Bytes;
use cache::store::disk::Prune;
use cache::store::{DiskStore, Options, Store};
use proto::id::BlobId;
use proto::path::FileName;
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use std::path::{Path, PathBuf};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

const FILES: usize = 20_000;
const DIRS: usize = 400;
const FILE_BYTES: usize = 235_000_000 / FILES;
const IDS: usize = 1_000_000;

fn main() -> Result<(), Failure> {
    let base = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    ingest_and_place(dir.path())?;
    large(dir.path())?;
    lookups(dir.path())?;
    Ok(())
}

/// Prints what `work` took, per thing if there are several.
fn timed<T>(
    what: &str,
    count: usize,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let start = Instant::now();
    let result = work()?;
    let time = start.elapsed();
    let each = time.as_secs_f64() * 1e6 / count as f64;
    if count > 1 {
        println!("{what:<60} {:>9.1} ms {each:>8.2} us each", time.as_secs_f64() * 1e3);
    } else {
        println!("{what:<60} {:>9.1} ms", time.as_secs_f64() * 1e3);
    }
    Ok(result)
}

/// Bytes that no two files share and that can't be compressed.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn meta() -> Meta {
    Meta::root_owned(0o644, Mtime { seconds: 1_700_000_000, nanos: 123_456_789 })
}

/// One root, directories under it, files in those.
fn tree(blobs: &[(BlobId, Bytes)]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut nodes = Vec::new();
    let mut dirs = Vec::new();
    for (number, files) in blobs.chunks(FILES / DIRS).enumerate() {
        let mut entries = Vec::new();
        for (i, (blob, bytes)) in files.iter().enumerate() {
            let name = FileName::new(format!("file{i:05}.txt").as_bytes())?;
            let node = Node::File { blob: *blob, size: bytes.len() as u64, link: None };
            entries.push(Entry { name, meta: meta(), node });
        }
        let sealed = Dir::new(entries).seal();
        let name = FileName::new(format!("dir{number:04}").as_bytes())?;
        let node = Node::Dir(sealed.dir, Presence::Merge);
        dirs.push(Entry { name, meta: meta(), node });
        nodes.push(sealed.bytes);
    }
    let top = Dir::new(dirs).seal();
    let root = Root { meta: meta(), dir: top.dir, presence: Presence::Merge };
    nodes.push(top.bytes);
    nodes.push(root.seal().1);
    Ok(nodes)
}

fn ingest_and_place(dir: &Path) -> Result<(), Failure> {
    let path = dir.join("store");
    let store = timed("open, new", 1, || Ok(DiskStore::open(&path, Options::default())?))?;
    let blobs: Vec<(BlobId, Bytes)> = (0..FILES)
        .map(|i| {
            let bytes = content(i as u64, FILE_BYTES);
            (BlobId::of(&bytes), bytes.into())
        })
        .collect();
    let nodes = tree(&blobs)?;
    println!("-- {FILES} files of {FILE_BYTES} bytes in {DIRS} directories");
    timed("ingest: put, nodes, barrier", FILES, || {
        timed("  put in batches of 4 MiB", FILES, || {
            blobs.chunks((4 << 20) / FILE_BYTES).try_for_each(|some| store.put_blobs(some))?;
            Ok(())
        })?;
        timed("  nodes", nodes.len(), || Ok(store.put_nodes(&nodes)?))?;
        timed("  barrier", 1, || Ok(store.barrier()?))
    })?;
    timed("put again", FILES, || {
        blobs.chunks((4 << 20) / FILE_BYTES).try_for_each(|some| store.put_blobs(some))?;
        Ok(())
    })?;
    timed("barrier, nothing new", 1, || Ok(store.barrier()?))?;
    let ids: Vec<BlobId> = blobs.iter().map(|(id, _)| *id).collect();
    timed("read one by one", FILES, || {
        ids.iter().try_for_each(|id| store.read(id).map(|_| ()))?;
        Ok(())
    })?;
    timed("read many, 300 at once", FILES, || {
        ids.chunks(300).try_for_each(|some| store.read_many(some).map(|_| ()))?;
        Ok(())
    })?;
    for round in 1..=3 {
        for threads in [1, 2] {
            let what = format!("place, {threads} threads, round {round}");
            with_dirs(dir, |out| timed(&what, FILES, || place_all(&store, &ids, out, threads)))?;
        }
        let what = format!("for comparison: std::fs::write, 1 thread, round {round}");
        with_dirs(dir, |out| timed(&what, FILES, || write_all(&blobs, out)))?;
    }
    let damages = timed("verify", 1, || Ok(store.verify(&mut |_| {})?))?;
    assert!(damages.is_empty(), "{damages:?}");
    timed("close", 1, || {
        drop(store);
        Ok(())
    })?;
    let store = timed("open", 1, || Ok(DiskStore::open(&path, Options::default())?))?;
    timed("usage", 1, || Ok(store.usage()?))?;
    let report = timed("prune all", FILES, || Ok(store.prune(Prune::All)?))?;
    assert_eq!(report.packed.number, FILES as u64);
    Ok(())
}

/// Works in a directory with directories, which is deleted again.
fn with_dirs(dir: &Path, work: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let out = dir.join("out");
    std::fs::create_dir(&out)?;
    for i in 0..DIRS {
        std::fs::create_dir(out.join(i.to_string()))?;
    }
    work(&out)?;
    Ok(std::fs::remove_dir_all(out)?)
}

fn write_all(blobs: &[(BlobId, Bytes)], out: &Path) -> Result<(), Failure> {
    for (i, (_, bytes)) in blobs.iter().enumerate() {
        std::fs::write(out.join(format!("{}/{i}", i % DIRS)), bytes)?;
    }
    Ok(())
}

fn place_all(store: &DiskStore, ids: &[BlobId], out: &Path, threads: usize) -> Result<(), Failure> {
    let meta = meta();
    let failed = std::thread::scope(|scope| {
        let some = |t: usize| {
            let meta = &meta;
            scope.spawn(move || {
                let mine = ids.iter().enumerate().skip(t).step_by(threads);
                mine.map(|(i, id)| store.place(id, meta, &out.join(format!("{}/{i}", i % DIRS))))
                    .find_map(Result::err)
            })
        };
        let running: Vec<_> = (0..threads).map(some).collect();
        running.into_iter().find_map(|thread| thread.join().expect("placing does not panic"))
    });
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn large(dir: &Path) -> Result<(), Failure> {
    println!("-- one file of 1 GiB");
    let store = DiskStore::open(&dir.join("large"), Options::default())?;
    let file = dir.join("gigabyte");
    let piece = content(1, 1 << 24);
    std::fs::write(&file, piece.repeat(64))?;
    let (id, _) = timed("adopt", 1, || Ok(store.adopt(&file)?))?;
    timed("barrier", 1, || Ok(store.barrier()?))?;
    timed("stream", 1, || Ok(std::io::copy(&mut store.open(&id, 0)?, &mut std::io::sink())?))?;
    timed("place: a copy, since the adopted file lives", 1, || {
        Ok(store.place(&id, &meta(), &dir.join("a"))?)
    })?;
    std::fs::remove_file(&file)?;
    timed("place: a link, after hashing it anew", 1, || {
        Ok(store.place(&id, &meta(), &dir.join("b"))?)
    })?;
    drop(store);
    std::fs::remove_dir_all(dir.join("large"))?;
    Ok(())
}

fn lookups(dir: &Path) -> Result<(), Failure> {
    println!("-- {IDS} blobs of 16 bytes");
    let path = dir.join("many");
    let store = DiskStore::open(&path, Options::default())?;
    let blob = |i: usize| {
        let bytes = content(i as u64, 16);
        (BlobId::of(&bytes), Bytes::from(bytes))
    };
    let all: Vec<_> = (0..IDS).map(blob).collect();
    timed("put, 1,000 at once", IDS, || {
        all.chunks(1000).try_for_each(|some| store.put_blobs(some))?;
        Ok(())
    })?;
    timed("barrier", 1, || Ok(store.barrier()?))?;
    let here: Vec<BlobId> = all.iter().step_by(100).map(|(id, _)| *id).collect();
    let gone: Vec<BlobId> = (0..10_000).map(|i| blob(IDS + i).0).collect();
    for round in ["first", "again"] {
        let what = format!("missing_blobs of 10,000 that are here, {round}");
        timed(&what, here.len(), || {
            assert!(store.missing_blobs(&here)?.is_empty());
            Ok(())
        })?;
        let what = format!("missing_blobs of 10,000 that are not, {round}");
        timed(&what, gone.len(), || {
            assert_eq!(store.missing_blobs(&gone)?.len(), gone.len());
            Ok(())
        })?;
    }
    timed("put one by one", 10_000, || {
        (0..10_000).try_for_each(|i| store.put_blobs(&[blob(2 * IDS + i)]))?;
        Ok(())
    })?;
    timed("put one, barrier", 100, || {
        for i in 0..100 {
            store.put_blobs(&[blob(3 * IDS + i)])?;
            store.barrier()?;
        }
        Ok(())
    })?;
    timed("read one by one", here.len(), || {
        here.iter().try_for_each(|id| store.read(id).map(|_| ()))?;
        Ok(())
    })?;
    timed("close", 1, || {
        drop(store);
        Ok(())
    })?;
    let store = timed("open", 1, || Ok(DiskStore::open(&path, Options::default())?))?;
    timed("put one by one", 10_000, || {
        (0..10_000).try_for_each(|i| store.put_blobs(&[blob(4 * IDS + i)]))?;
        Ok(())
    })?;
    timed("read one by one", here.len(), || {
        here.iter().try_for_each(|id| store.read(id).map(|_| ()))?;
        Ok(())
    })?;
    timed("missing_blobs of 10,000 that are here, after opening", here.len(), || {
        assert!(store.missing_blobs(&here)?.is_empty());
        Ok(())
    })?;
    let usage = store.usage()?;
    println!("index: {} bytes for {} blobs", usage.index_disk_bytes, usage.packed.number);
    Ok(())
}
