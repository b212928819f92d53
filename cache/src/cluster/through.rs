//! A machine's own store with the farm's behind it: what a worker works with.
//!
//! Bytes that are read are fetched into the own store first, and stay there for the next step. What
//! a step makes goes into the own store, and from there to the farm when the tree that names it is
//! put: so a tree that was put is whole for everybody. Trees are the farm's alone; the latest ones
//! are remembered decoded.
//!
//! All methods block: they are not for the runtime's own threads.

use super::Cluster;
use crate::chunk::{self, ChunkPlace, FetchError};
use crate::flight::Turns;
use crate::meter::Carried;
use crate::net::NetError;
use crate::net::blobs::Blobs;
use crate::net::chunks::PutError;
use crate::store::{BlobWriter, Pin, Row, Store, StoreError, Table};
use bytes::Bytes;
use proto::chunk::ChunkList;
use proto::error::Class;
use proto::id::{BlobId, ContentKey, DefKey, RootId, Scope, TreeId};
use proto::limit::{BATCH_BYTES, CHUNKED_BLOB_BYTES_MAX, PACKED_BLOB_BYTES_MAX, PEERS_MAX};
use proto::record::{Alias, Record};
use proto::tree::{AnyNode, Meta, node_id};
use proto::wire::blob;
use proto::wire::worker::{Fetched, Peer};
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Bytes of decoded nodes that are remembered, about.
const NODE_BYTES: u64 = 256 << 20;

/// Bytes that a decoded entry of a directory takes, about.
const ENTRY_BYTES: u64 = 160;

/// Nodes that are fetched at once when a whole tree is wanted.
const NODES_AT_ONCE: usize = 2048;

/// Small blobs that one request asks for.
const BLOBS_AT_ONCE: usize = 4096;

/// Requests for blobs that are under way at a time for one tree.
const REQUESTS: usize = 4;

/// Bytes of one piece of a large blob on its way to the farm.
const PIECE: usize = 1 << 20;

/// Bytes that came from the farm and went to it.
#[derive(Debug, Default)]
pub struct Exchanged {
    /// Bytes of blobs that came.
    pub fetched: AtomicU64,
    /// Bytes of blobs that went.
    pub sent: AtomicU64,
    fetching: Mutex<Fetching>,
}

/// When something was fetched.
#[derive(Debug, Default)]
struct Fetching {
    /// How many threads do, and since when at least one has.
    now: Option<(u32, Instant)>,
    /// How long at least one has, before.
    earlier: Duration,
}

/// Something is being fetched.
struct IsFetching<'e>(&'e Exchanged);

impl Exchanged {
    fn since(&self) -> std::sync::MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> IsFetching<'_> {
        let mut since = self.since();
        let (count, begun) = since.now.unwrap_or_else(|| (0, Instant::now()));
        since.now = Some((count + 1, begun));
        IsFetching(self)
    }

    fn came(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    fn went(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was fetched, and how long that took.
    fn so_far(&self) -> Fetched {
        let since = self.since();
        let now = since.now.map_or(Duration::ZERO, |(_, begun)| begun.elapsed());
        let ms = (since.earlier + now).as_millis() as u64;
        Fetched { bytes: self.fetched.load(Ordering::Relaxed), ms }
    }
}

impl Drop for IsFetching<'_> {
    fn drop(&mut self) {
        let mut since = self.0.since();
        since.now = match since.now {
            Some((count @ 2.., begun)) => Some((count - 1, begun)),
            Some((_, begun)) => {
                since.earlier += begun.elapsed();
                None
            }
            None => None,
        };
    }
}

/// A machine's own store with the farm's behind it.
pub struct Through {
    own: Arc<dyn Store>,
    farm: Arc<Cluster>,
    runtime: Handle,
    nodes: quick_cache::sync::Cache<TreeId, Arc<AnyNode>, Weight>,
    exchanged: Arc<Exchanged>,
    /// Large blobs that are being fetched: who comes second waits.
    fetching: Turns<BlobId>,
    peers: Option<Peers>,
}

/// How one reaches another worker.
pub type ConnectPeer = dyn Fn(&Peer) -> Blobs + Send + Sync;

/// Other workers that made something that was needed here lately.
struct Peers {
    connect: Box<ConnectPeer>,
    known: Mutex<Vec<(Peer, Blobs)>>,
}

impl Peers {
    /// Only the latest are asked: those of earlier steps may be gone.
    fn know(&self, peers: &[Peer]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let client = |peer: &Peer| match known.iter().find(|(other, _)| other == peer) {
            Some((_, client)) => client.clone(),
            None => (self.connect)(peer),
        };
        let latest = peers.iter().take(PEERS_MAX).map(|peer| (peer.clone(), client(peer)));
        *known = latest.collect();
    }

    fn sources(&self) -> Vec<Blobs> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(_, client)| client.clone()).collect()
    }
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<TreeId, Arc<AnyNode>> for Weight {
    fn weight(&self, _: &TreeId, node: &Arc<AnyNode>) -> u64 {
        let entries = match &**node {
            AnyNode::Dir(dir) => dir.entries().len() as u64,
            AnyNode::Root(_) => 1,
        };
        (entries + 2) * ENTRY_BYTES
    }
}

impl Through {
    /// `own` with `farm` behind it. Called on a runtime's thread: its runtime does the work.
    pub fn new(own: Arc<dyn Store>, farm: Arc<Cluster>) -> Self {
        let items = (NODE_BYTES / 4096) as usize;
        let nodes = quick_cache::sync::Cache::with_weighter(items, NODE_BYTES, Weight);
        let exchanged = Arc::default();
        let (runtime, fetching) = (Handle::current(), Turns::default());
        Self { own, farm, runtime, nodes, exchanged, fetching, peers: None }
    }

    /// The same, where large blobs come from other workers, too.
    pub fn with_peers(self, connect: Box<ConnectPeer>) -> Self {
        Self { peers: Some(Peers { connect, known: Mutex::default() }), ..self }
    }

    /// Bytes that came and went so far.
    pub fn exchanged(&self) -> Arc<Exchanged> {
        self.exchanged.clone()
    }

    fn wait<T>(
        &self,
        what: impl FnOnce() -> String,
        work: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, StoreError> {
        self.runtime.block_on(work).map_err(|e| error(what(), e))
    }

    /// Nodes, in the order asked for.
    fn get_nodes(&self, ids: &[TreeId]) -> Result<Vec<Arc<AnyNode>>, StoreError> {
        let mut nodes: Vec<Option<Arc<AnyNode>>> =
            ids.iter().map(|id| self.nodes.get(id)).collect();
        let mut away: Vec<TreeId> =
            ids.iter().zip(&nodes).filter(|(_, node)| node.is_none()).map(|(id, _)| *id).collect();
        away.dedup();
        for some in away.chunks(NODES_AT_ONCE) {
            let what = || format!("Tree {}", some[0]);
            let got = self.runtime.block_on(self.farm.get_nodes(some));
            let got = got.map_err(|e| match lost(&e) {
                true => StoreError::NoTree(some[0]),
                false => error(what(), e),
            })?;
            for (id, node) in some.iter().zip(got) {
                self.nodes.insert(*id, node.clone());
                for (_, place) in ids.iter().zip(&mut nodes).filter(|(other, _)| *other == id) {
                    *place = Some(node.clone());
                }
            }
        }
        Ok(nodes.into_iter().flatten().collect())
    }

    /// Fetches blobs that are not here.
    fn fetch(&self, blobs: &BTreeMap<BlobId, u64>) -> Result<(), StoreError> {
        let ids: Vec<BlobId> = blobs.keys().copied().collect();
        let away = self.own.missing_blobs(&ids)?;
        if away.is_empty() {
            return Ok(());
        }
        let _fetching = self.exchanged.begin();
        let (small, large): (Vec<_>, Vec<_>) =
            away.into_iter().partition(|id| blobs[id] <= PACKED_BLOB_BYTES_MAX as u64);
        let mut batches: Vec<Vec<BlobId>> = Vec::new();
        let mut bytes = u64::MAX;
        for id in small {
            let full = batches.last().is_none_or(|batch| batch.len() >= BLOBS_AT_ONCE);
            if full || bytes + blobs[&id] > BATCH_BYTES as u64 {
                batches.push(Vec::new());
                bytes = 0;
            }
            bytes += blobs[&id];
            batches.last_mut().expect("just made").push(id);
        }
        for some in batches.chunks(REQUESTS) {
            let asked = some.iter().map(|ids| self.farm.get_blobs(ids));
            let got = self.runtime.block_on(futures::future::join_all(asked));
            for (ids, got) in some.iter().zip(got) {
                let got = got.map_err(|e| match lost(&e) {
                    true => StoreError::NoBlob(ids[0]),
                    false => error("Small blobs".into(), e),
                })?;
                let pairs: Vec<_> = ids.iter().copied().zip(got).collect();
                let bytes: usize = pairs.iter().map(|(_, bytes)| bytes.len()).sum();
                self.exchanged.came(bytes as u64);
                self.own.put_blobs(&pairs)?;
            }
        }
        large.iter().try_for_each(|id| self.fetch_large(id, blobs[id]))
    }

    fn fetch_large(&self, id: &BlobId, size: u64) -> Result<(), StoreError> {
        let _turn = self.fetching.enter(*id);
        if self.own.missing_blobs(&[*id])?.is_empty() {
            return Ok(());
        }
        if size > CHUNKED_BLOB_BYTES_MAX {
            return self.fetch_whole(id);
        }
        let mut sources = self.farm.sources(id);
        sources.extend(self.peers.iter().flat_map(Peers::sources));
        let fetched = chunk::fetch(&self.own, sources, *id, size);
        let moved = self.runtime.block_on(fetched).map_err(|e| match e {
            FetchError::Store(error) => error,
            FetchError::Lost { .. } => {
                tracing::info!("{e}");
                StoreError::NoBlob(*id)
            }
            FetchError::TooLarge { .. } => too_large(id, &e),
        })?;
        self.exchanged.came(moved.moved);
        Ok(())
    }

    /// Fetches a blob that is too large for a list of chunks, from one node after the other.
    fn fetch_whole(&self, id: &BlobId) -> Result<(), StoreError> {
        let (pieces, mut queue) = tokio::sync::mpsc::channel::<Bytes>(4);
        let (farm, id) = (self.farm.clone(), *id);
        let fetching =
            self.runtime.spawn(
                Carried::here().with(async move {
                    let take = |piece: Bytes| {
                        let pieces = pieces.clone();
                        // Whoever writes them has gone only when the disk failed, and says so.
                        async move {
                            pieces.send(piece).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
                        }
                    };
                    farm.get_large(id, 0, take).await
                }),
            );
        let mut writer = self.own.writer()?;
        let mut written = Ok(());
        while let Some(piece) = queue.blocking_recv() {
            self.exchanged.came(piece.len() as u64);
            written = writer.write_all(&piece);
            if written.is_err() {
                break;
            }
        }
        drop(queue);
        let fetched = self.runtime.block_on(fetching).expect("fetching does not panic");
        written.map_err(|source| StoreError::Io {
            action: "Writing",
            path: format!("blob {id}").into(),
            source,
        })?;
        fetched.map_err(|e| match lost(&e) {
            true => StoreError::NoBlob(id),
            false => error(format!("Blob {id}"), e),
        })?;
        writer.finish(Some(id)).map(drop)
    }

    /// Makes sure that a blob is here.
    fn here(&self, id: &BlobId) -> Result<(), StoreError> {
        if self.own.missing_blobs(&[*id])?.is_empty() {
            return Ok(());
        }
        let sizes =
            self.wait(|| format!("Blob {id}"), async { self.farm.sizes(&[*id], None).await })?;
        let size = sizes[0].ok_or(StoreError::NoBlob(*id))?;
        self.fetch(&BTreeMap::from([(*id, size)]))
    }

    /// Sends to the farm what it lacks of these blobs.
    fn send(&self, blobs: BTreeMap<BlobId, u64>) -> Result<(), StoreError> {
        let ids: Vec<BlobId> = blobs.keys().copied().collect();
        let what = || "What the farm has".to_owned();
        let (away, _) = self.wait(what, self.farm.missing(ids, Vec::new()))?;
        let (small, large): (Vec<_>, Vec<_>) =
            away.into_iter().partition(|id| blobs[id] <= PACKED_BLOB_BYTES_MAX as u64);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for id in small {
            if !batch.is_empty() && bytes + blobs[&id] > BATCH_BYTES as u64 {
                self.send_small(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += blobs[&id];
            batch.push(id);
        }
        if !batch.is_empty() {
            self.send_small(&batch)?;
        }
        large.iter().try_for_each(|id| self.send_large(id, blobs[id]))
    }

    fn send_small(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        let pairs: Vec<_> = ids.iter().copied().zip(self.own.read_many(ids)?).collect();
        let sent = self.wait(|| "Small blobs".to_owned(), self.farm.put_blobs(&pairs))?;
        self.exchanged.went(sent);
        Ok(())
    }

    fn send_large(&self, id: &BlobId, size: u64) -> Result<(), StoreError> {
        if size > CHUNKED_BLOB_BYTES_MAX {
            return self.send_whole(id, size);
        }
        let put = self.runtime.block_on(self.farm.put_chunked(&self.own, *id));
        let moved = put.map_err(|e| match e {
            PutError::Source(error) => error,
            PutError::Net(e) => error(format!("Blob {id}"), e),
        })?;
        self.exchanged.went(moved.moved);
        Ok(())
    }

    /// Sends a blob that is too large for a list of chunks.
    fn send_whole(&self, id: &BlobId, size: u64) -> Result<(), StoreError> {
        let reader = Arc::new(Mutex::new(self.own.open(id, 0)?));
        let next = || {
            let reader = reader.clone();
            async move {
                let read = move || {
                    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut piece = Vec::with_capacity(PIECE);
                    reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
                    Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
                };
                let piece = tokio::task::spawn_blocking(read).await;
                piece.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            }
        };
        self.wait(|| format!("Blob {id}"), self.farm.put_large(*id, size, next))?;
        self.exchanged.went(size);
        Ok(())
    }
}

fn too_large(id: &BlobId, error: &FetchError) -> StoreError {
    StoreError::Io {
        action: "Fetching",
        path: format!("blob {id}").into(),
        source: io::Error::other(error.to_string()),
    }
}

/// Whether the farm has answered that it does not have something.
fn lost(error: &NetError) -> bool {
    matches!(error, NetError::Refused(failure)
        if matches!(failure.class, Class::Unavailable | Class::Corrupt))
}

fn error(what: String, error: NetError) -> StoreError {
    match error.class() {
        Class::Corrupt => StoreError::Corrupt { what, detail: error.to_string() },
        _ => StoreError::Io {
            action: "Exchanging with the farm",
            path: what.into(),
            source: io::Error::other(error.to_string()),
        },
    }
}

/// The farm's table that stands for one of the own, if there is one.
fn shared(table: Table, value: Option<&[u8]>) -> Option<blob::Table> {
    match table {
        Table::Image => Some(blob::Table::Image),
        Table::Unpacked => Some(blob::Table::Unpacked),
        // Where a layer is packed is this machine's business, which diff id it has is everybody's.
        Table::Layer => {
            let packed = value.and_then(|value| {
                crate::store::Persisted::from_bytes(value)
                    .map(|layer: crate::store::LayerBlob| layer.packed.is_some())
            });
            (packed != Some(true)).then_some(blob::Table::Layer)
        }
        Table::OciBlob | Table::Block | Table::CacheMount | Table::Build | Table::Trace => None,
    }
}

fn coordinators_only() -> StoreError {
    StoreError::Io {
        action: "Recording",
        path: "a result".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    }
}

impl Store for Through {
    fn missing_blobs(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, StoreError> {
        self.own.missing_blobs(ids)
    }

    fn missing_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
        let what = || "What the farm has".to_owned();
        Ok(self.wait(what, self.farm.missing(Vec::new(), ids.to_vec()))?.1)
    }

    fn put_blobs(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), StoreError> {
        self.own.put_blobs(blobs)
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.own.writer()
    }

    fn adopt(&self, file: &Path) -> Result<(BlobId, u64), StoreError> {
        self.own.adopt(file)
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, StoreError> {
        match self.own.blob_size(id) {
            Err(StoreError::NoBlob(_)) => {
                let asked = self.wait(|| format!("Blob {id}"), self.farm.sizes(&[*id], None))?;
                asked[0].ok_or(StoreError::NoBlob(*id))
            }
            other => other,
        }
    }

    fn read(&self, id: &BlobId) -> Result<Bytes, StoreError> {
        self.here(id)?;
        self.own.read(id)
    }

    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        // All of them are small, whatever their sizes are.
        self.fetch(&ids.iter().map(|id| (*id, 0)).collect())?;
        self.own.read_many(ids)
    }

    fn open(&self, id: &BlobId, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        self.here(id)?;
        self.own.open(id, offset)
    }

    fn place(&self, id: &BlobId, meta: &Meta, dest: &Path) -> Result<(), StoreError> {
        match self.own.place(id, meta, dest) {
            Err(StoreError::NoBlob(_)) => {
                self.here(id)?;
                self.own.place(id, meta, dest)
            }
            other => other,
        }
    }

    fn chunks(&self, id: &BlobId) -> Result<ChunkList, StoreError> {
        self.here(id)?;
        self.own.chunks(id)
    }

    fn note_chunks(&self, list: &ChunkList) -> Result<(), StoreError> {
        self.own.note_chunks(list)
    }

    fn find_chunks(&self, ids: &[BlobId]) -> Result<Vec<Option<ChunkPlace>>, StoreError> {
        self.own.find_chunks(ids)
    }

    fn read_chunk(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError> {
        self.own.read_chunk(id, at)
    }

    fn prefetch(&self, root: &RootId) -> Result<(), StoreError> {
        let (mut level, mut seen) = (vec![root.0], HashSet::from([root.0]));
        let mut blobs = BTreeMap::new();
        while !level.is_empty() {
            let mut below = Vec::new();
            for node in self.get_nodes(&level)? {
                blobs.extend(node.blobs());
                below.extend(node.dirs().iter().map(|dir| dir.tree));
            }
            below.retain(|id| seen.insert(*id));
            level = below;
        }
        self.fetch(&blobs)
    }

    fn put_nodes(&self, nodes: &[Vec<u8>]) -> Result<(), StoreError> {
        let (mut decoded, mut blobs) = (Vec::with_capacity(nodes.len()), BTreeMap::new());
        for bytes in nodes {
            let id = node_id(bytes);
            let node = AnyNode::decode(bytes).map_err(|e| StoreError::Node(id, e))?;
            blobs.extend(node.blobs());
            decoded.push((id, Arc::new(node)));
        }
        if !blobs.is_empty() {
            self.send(blobs)?;
        }
        let what = || format!("Tree {}", decoded[0].0);
        self.wait(what, self.farm.put_nodes(nodes.to_vec()))?;
        for (id, node) in decoded {
            self.nodes.insert(id, node);
        }
        Ok(())
    }

    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
        let node = self.get_nodes(&[*id])?.remove(0);
        // Who reads a directory soon reads those in it.
        let mut below: Vec<TreeId> = node.dirs().iter().map(|dir| dir.tree).collect();
        below.retain(|id| self.nodes.get(id).is_none());
        below.sort_unstable();
        below.dedup();
        below.truncate(NODES_AT_ONCE);
        if below.len() > 1 {
            self.get_nodes(&below)?;
        }
        Ok(node)
    }

    fn node_bytes(&self, id: &TreeId) -> Result<Bytes, StoreError> {
        Ok(match &*self.get_nodes(&[*id])?[0] {
            AnyNode::Dir(dir) => dir.seal().bytes.into(),
            AnyNode::Root(root) => root.seal().1.into(),
        })
    }

    fn records(&self, _: &Scope, keys: &[ContentKey]) -> Result<Vec<Option<Record>>, StoreError> {
        Ok(vec![None; keys.len()])
    }

    fn aliases(&self, _: &Scope, keys: &[DefKey]) -> Result<Vec<Option<Alias>>, StoreError> {
        Ok(vec![None; keys.len()])
    }

    fn put_record(
        &self,
        _: &Scope,
        _: &ContentKey,
        _: &Record,
        _: Option<(&DefKey, &Alias)>,
    ) -> Result<(), StoreError> {
        Err(coordinators_only())
    }

    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if !matches!(table, Table::Image | Table::Unpacked)
            && let Some(value) = self.own.row(table, key)?
        {
            return Ok(Some(value));
        }
        match shared(table, None) {
            Some(shared) => self.wait(|| "A row".to_owned(), self.farm.row(shared, key)),
            None => Ok(None),
        }
    }

    fn put_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if !matches!(table, Table::Image | Table::Unpacked) {
            self.own.put_row(table, key, value)?;
        }
        let Some(shared) = shared(table, Some(value)) else { return Ok(()) };
        self.wait(|| "A row".to_owned(), self.farm.put_row(shared, key, value))
    }

    fn delete_row(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        match shared(table, None) {
            Some(shared) if table != Table::Layer => {
                let there = self.row(table, key)?.is_some();
                self.wait(|| "A row".to_owned(), self.farm.delete_row(shared, key))?;
                Ok(there)
            }
            _ => self.own.delete_row(table, key),
        }
    }

    fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let own = match table {
            Table::Image | Table::Unpacked => Vec::new(),
            _ => self.own.rows(table, prefix)?,
        };
        match shared(table, None) {
            // What is known here says more.
            Some(shared) if own.is_empty() => {
                self.wait(|| "Rows".to_owned(), self.farm.rows(shared, prefix))
            }
            _ => Ok(own),
        }
    }

    fn sizes(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.wait(|| "What the farm has".to_owned(), self.farm.sizes(ids, None))
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.wait(|| "What was sent".to_owned(), self.farm.barrier())
    }

    fn know_peers(&self, peers: &[Peer]) {
        if let Some(known) = self.peers.as_ref().filter(|_| !peers.is_empty()) {
            known.know(peers);
        }
    }

    fn fetched(&self) -> Fetched {
        self.exchanged.so_far()
    }

    fn publish(&self, blobs: &[(BlobId, u64)]) -> Result<(), StoreError> {
        self.send(blobs.iter().copied().collect())
    }

    fn pin(&self) -> Pin {
        self.own.pin()
    }
}
