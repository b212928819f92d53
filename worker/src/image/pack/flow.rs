//! An archive on its way from the store to the store: one thread reads, one hashes and cuts blocks,
//! some compress, and the caller's hashes and writes what comes out, in order. A few blocks for each
//! thread are in memory, never more.

use super::PackError;
use super::compress::block_bytes;
use super::cut::Cutter;
use super::feed::{Batch, Stopped, feed, read_error};
use super::known::{Blocks, Packed, Places};
use super::walk::Form;
use crate::image::sha::Sha;
use crate::image::unpack::{decoder, write_error};
use cache::meter::Carried;
use cache::store::{BlobWriter, Compression, PackedLayer, Source, Store};
use proto::id::{BlobId, OciDigest, RootId};
use std::io::{BufReader, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of one piece of a layer that is packed anew.
const PIECE: usize = 1 << 20;

/// Batches that wait between reading and hashing.
const BATCHES: usize = 2;

/// The diff id of the layer that `diff` makes: nothing is compressed, nothing is kept.
pub fn diff_id(store: &dyn Store, diff: &RootId) -> Result<OciDigest, PackError> {
    let mut sha = Sha::new();
    archive(&store, &[(Vec::new(), *diff, Form::Layer)], &mut |batch| {
        batch.iter().for_each(|bytes| sha.update(bytes));
        Ok(())
    })?;
    Ok(sha.finish())
}

/// Hands the archive of these trees to `take`, batch by batch. Another thread reads ahead.
pub fn archive(
    store: &dyn Source,
    roots: &[(Vec<u8>, RootId, Form)],
    take: &mut dyn FnMut(Batch) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let (to, batches) = sync_channel(BATCHES);
    let counted = Carried::here();
    std::thread::scope(|scope| {
        let feeding = scope.spawn(move || counted.within(|| feed(store, roots, to)));
        let taken = batches.iter().try_for_each(take);
        drop(batches);
        let fed = feeding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match fed {
            Err(Stopped::Failed(error)) => Err(error),
            Err(Stopped::Unwanted) | Ok(()) => taken,
        }
    })
}

/// A block, and where to send what becomes of it.
type Job = (Vec<u8>, SyncSender<Packed>);

/// Packs the layer that `diff` makes into the store.
pub fn pack(
    store: &dyn Store,
    diff: &RootId,
    compression: Compression,
    threads: usize,
) -> Result<(OciDigest, PackedLayer), PackError> {
    let roots = [(Vec::new(), *diff, Form::Layer)];
    let source = |take: &mut Take<'_>| archive(&store, &roots, take);
    compress(store, &source, compression, threads)
}

/// Packs a layer that is packed already in another way: the same bytes, compressed otherwise.
pub fn repack(
    store: &dyn Store,
    layer: &BlobId,
    compression: Compression,
    threads: usize,
) -> Result<(OciDigest, PackedLayer), PackError> {
    let source = |take: &mut Take<'_>| {
        let packed = BufReader::with_capacity(PIECE, store.open(layer, 0)?);
        let failed = |e| PackError::Store(read_error(layer, e));
        let (_, mut plain) = decoder(packed).map_err(failed)?;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            if plain.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(failed)? == 0 {
                return Ok(());
            }
            take(vec![piece.into()])?;
        }
    };
    compress(store, &source, compression, threads)
}

/// Takes the next bytes of an archive.
type Take<'t> = dyn FnMut(Batch) -> Result<(), PackError> + 't;

/// Gives all bytes of an archive.
type Giver<'s> = dyn Fn(&mut Take<'_>) -> Result<(), PackError> + Sync + 's;

fn compress(
    store: &dyn Store,
    source: &Giver<'_>,
    compression: Compression,
    threads: usize,
) -> Result<(OciDigest, PackedLayer), PackError> {
    let threads = if compression == Compression::None { 1 } else { threads };
    let (jobs, to_do) = sync_channel::<Job>(threads);
    let (order, in_order) = sync_channel(threads + 2);
    let to_do = Mutex::new(to_do);
    let mut sink = Sink { writer: store.writer()?, sha: Sha::new(), places: Places::default() };
    // Blocks and files that are not on this machine are fetched by the thread that needs them.
    let counted = Carried::here();
    let (cut, written) = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (to_do, counted) = (&to_do, counted.clone());
            let pack = move || work(to_do, Blocks::new(store, compression));
            scope.spawn(move || counted.within(pack));
        }
        let line = Line { sha: Sha::new(), jobs, order };
        let cut = || cut(source, Cutter::new(block_bytes(compression)), line);
        let cutting = scope.spawn(|| counted.within(cut));
        let written = in_order.iter().try_for_each(|block| sink.take(block));
        drop(in_order);
        let cut = cutting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (cut, written)
    });
    // The first cause is said: when writing failed, cutting stopped because of it.
    written?;
    let diff_id = cut?;
    let Sink { writer, sha, places } = sink;
    let (blob, size) = writer.finish(None)?;
    let packed = PackedLayer { digest: sha.finish(), blob, size };
    places.remember(store, &packed)?;
    Ok((diff_id, packed))
}

/// Hands on all blocks of an archive. Answers its digest.
fn cut(source: &Giver<'_>, mut cutter: Cutter, mut line: Line) -> Result<OciDigest, PackError> {
    source(&mut |batch| {
        for bytes in batch {
            line.sha.update(&bytes);
            cutter.push(&bytes);
            while let Some(block) = cutter.next() {
                line.send(block)?;
            }
        }
        Ok(())
    })?;
    let rest = cutter.rest();
    if !rest.is_empty() {
        line.send(rest)?;
    }
    Ok(line.sha.finish())
}

fn work(to_do: &Mutex<Receiver<Job>>, mut blocks: Blocks<'_>) {
    loop {
        let job = to_do.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok((block, done)) = job else { return };
        // Nobody waits any more only when all is being given up.
        let _ = done.send(blocks.pack(block));
    }
}

/// Hands blocks on: to be packed by whoever is free, and to be written in their order.
struct Line {
    sha: Sha,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Packed>>,
}

impl Line {
    fn send(&mut self, block: Vec<u8>) -> Result<(), PackError> {
        let (done, result) = sync_channel(1);
        let sent = self.order.send(result).is_ok() && self.jobs.send((block, done)).is_ok();
        if sent { Ok(()) } else { Err(PackError::Stopped) }
    }
}

/// Hashes and writes packed blocks.
struct Sink {
    writer: Box<dyn BlobWriter>,
    sha: Sha,
    places: Places,
}

impl Sink {
    fn take(&mut self, block: Receiver<Packed>) -> Result<(), PackError> {
        let block = block.recv().map_err(|_| PackError::Stopped)?;
        self.sha.update(&block.bytes);
        self.places.add(&block);
        self.writer.write_all(&block.bytes).map_err(write_error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cache::meter::{self, Kind};
    use cache::store::StoreError;
    use cache::store::memory::MemoryStore;
    use proto::id::TreeId;
    use proto::path::FileName;
    use proto::tree::{AnyNode, Dir, Entry, Meta, Mtime, Node, Presence, Root};
    use std::sync::Arc;

    /// A store of which small blobs come from afar.
    struct Far(MemoryStore);

    impl Source for Far {
        fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
            self.0.node(id)
        }

        fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
            let blobs = self.0.read_many(ids)?;
            meter::add(Kind::Fetched, blobs.iter().map(|blob| blob.len() as u64).sum());
            Ok(blobs)
        }

        fn stream(&self, id: &BlobId) -> Result<Box<dyn Read + Send>, StoreError> {
            self.0.open(id, 0)
        }
    }

    fn tree(store: &MemoryStore, text: &'static str) -> RootId {
        let blob = BlobId::of(text.as_bytes());
        store.put_blobs(&[(blob, text.into())]).unwrap();
        let meta = Meta::root_owned(0o644, Mtime::default());
        let node = Node::File { blob, size: text.len() as u64, link: None };
        let name = FileName::new(b"f").unwrap();
        let dir = Dir::new(vec![Entry { name, meta: meta.clone(), node }]).seal();
        let (id, bytes) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
        store.put_nodes(&[dir.bytes, bytes]).unwrap();
        id
    }

    #[tokio::test]
    async fn what_its_threads_fetch_is_counted_for_the_work() {
        let packing = async {
            let far = Far(MemoryStore::new());
            let roots = [(Vec::new(), tree(&far.0, "seven b"), Form::Layer)];
            let source = |take: &mut Take<'_>| archive(&far, &roots, take);
            compress(&MemoryStore::new(), &source, Compression::Gzip(6), 2).unwrap();
        };
        assert_eq!(meter::count(packing).await.1.inputs, 7);
    }
}
