//! Cache nodes with stores on disk, over streams in memory.

use crate::common::{Tree, content_key, def_key, has_record, options, record, tree};
use cache::cluster::Cluster;
use cache::cluster::member::Member;
use cache::net::blobs::Blobs;
use cache::net::serve::{Rights, serve};
use cache::net::{Dial, NetError, Stream, local};
use cache::store::{DiskStore, Store};
use proto::id::{BlobId, CacheId, Scope};
use proto::record::Alias;
use proto::wire::blob::PutRecord;
use proto::wire::cluster::{CacheNode, CacheState, Map};
use proto::wire::{Binary, Opened};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn binary() -> Binary {
    Binary { version: "test".into(), modified_ms: 0 }
}

/// A machine that others reach.
pub struct Machine {
    pub store: Arc<DiskStore>,
    up: AtomicBool,
    streams: Mutex<Vec<AbortHandle>>,
}

struct Dialer {
    to: Arc<Machine>,
    rights: Rights,
}

impl Dial for Dialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(async {
            if !self.to.up.load(Ordering::SeqCst) {
                let source = std::io::ErrorKind::ConnectionRefused.into();
                return Err(NetError::Unreachable { to: "a test's node".into(), source });
            }
            let (dialer, mut listener) = local::pair();
            let stream = dialer.dial().await?;
            let (store, rights) = (self.to.store.clone(), self.rights);
            let served = tokio::spawn(async move {
                let mut stream = listener.accept().await.unwrap();
                stream.accept().await.unwrap();
                stream.to.send(&Opened::Ready { binary: binary() }).await.unwrap();
                let _ = serve(store, stream, rights).await;
            });
            self.to.streams.lock().unwrap().push(served.abort_handle());
            Ok(stream)
        })
    }
}

/// A cache node.
pub struct CacheBox {
    pub machine: Arc<Machine>,
    pub member: Arc<Member>,
    pub dir: PathBuf,
    running: AbortHandle,
}

/// A farm of some nodes.
pub struct Farm {
    pub nodes: Vec<CacheBox>,
    /// Who writes and reads, with all rights.
    pub cluster: Arc<Cluster>,
    machines: Arc<Mutex<Vec<Arc<Machine>>>>,
    map: watch::Sender<Arc<Map>>,
    temp: TempDir,
}

pub fn name(at: usize) -> CacheId {
    CacheId::parse(&format!("cache-{at}")).unwrap()
}

fn cluster(
    machines: &Arc<Mutex<Vec<Arc<Machine>>>>,
    map: watch::Receiver<Arc<Map>>,
    rights: Rights,
) -> Arc<Cluster> {
    let machines = machines.clone();
    let connect = move |node: &CacheNode| -> Arc<dyn Dial> {
        let at: usize = node.address.parse().unwrap();
        Arc::new(Dialer { to: machines.lock().unwrap()[at].clone(), rights })
    };
    Arc::new(Cluster::new(Box::new(connect), binary(), map))
}

impl Farm {
    /// `count` nodes that serve, with so many copies of each blob.
    pub async fn new(count: usize, replicas: u8) -> Self {
        let map = watch::Sender::new(Arc::new(Map { epoch: 1, replicas, nodes: Vec::new() }));
        let machines = Arc::default();
        let cluster = cluster(&machines, map.subscribe(), Rights::Coordinator);
        let temp = tempfile::tempdir().unwrap();
        let mut farm = Self { nodes: Vec::new(), cluster, machines, map, temp };
        for _ in 0..count {
            farm.add(CacheState::Serving);
        }
        for at in 0..count {
            farm.settled(at).await;
        }
        farm
    }

    /// One node more; answers its number.
    pub fn add(&mut self, state: CacheState) -> usize {
        let at = self.nodes.len();
        let dir = self.temp.path().join(at.to_string());
        let store = Arc::new(DiskStore::open(&dir, options()).unwrap());
        let (up, streams) = (AtomicBool::new(true), Mutex::default());
        let machine = Arc::new(Machine { store: store.clone(), up, streams });
        self.machines.lock().unwrap().push(machine.clone());
        self.change(|map| {
            map.nodes.push(CacheNode { id: name(at), address: at.to_string(), state });
        });
        let own = cluster(&self.machines, self.map.subscribe(), Rights::Node);
        let member = Member::join(store, own, name(at));
        let run = member.clone();
        let running = tokio::spawn(async move { run.run().await }).abort_handle();
        self.nodes.push(CacheBox { machine, member, dir, running });
        at
    }

    fn change(&self, change: impl FnOnce(&mut Map)) {
        self.map.send_modify(|map| {
            let mut next = Map::clone(map);
            next.epoch += 1;
            change(&mut next);
            *map = Arc::new(next);
        });
    }

    pub fn set(&self, at: usize, state: CacheState) {
        self.change(|map| {
            let node = map.nodes.iter_mut().find(|node| node.id == name(at)).unwrap();
            node.state = state;
        });
    }

    pub fn remove(&self, at: usize) {
        self.change(|map| map.nodes.retain(|node| node.id != name(at)));
    }

    /// It is cut off: no stream is left, and none can be opened.
    pub fn fail(&self, at: usize) {
        let machine = &self.nodes[at].machine;
        machine.up.store(false, Ordering::SeqCst);
        machine.streams.lock().unwrap().drain(..).for_each(|stream| stream.abort());
        self.set(at, CacheState::Down);
    }

    pub fn heal(&self, at: usize) {
        self.nodes[at].machine.up.store(true, Ordering::SeqCst);
        self.set(at, CacheState::Syncing);
    }

    /// Waits until a node has all that the latest map wants it to have.
    pub async fn settled(&self, at: usize) {
        let epoch = self.map.borrow().epoch;
        let mut synced = self.nodes[at].member.synced();
        let waited = tokio::time::timeout(PATIENCE, synced.wait_for(|is| *is >= epoch)).await;
        waited.expect("the node has what it should have in time").unwrap();
    }

    /// A node that was catching up has done so, and serves.
    pub async fn serves(&self, at: usize) {
        self.settled(at).await;
        self.set(at, CacheState::Serving);
    }

    pub fn store(&self, at: usize) -> Arc<DiskStore> {
        self.nodes[at].machine.store.clone()
    }

    /// How many nodes have a blob.
    pub fn copies(&self, id: &BlobId) -> usize {
        let has = |node: &&CacheBox| node.machine.store.sizes(&[*id]).unwrap()[0].is_some();
        self.nodes.iter().filter(has).count()
    }

    /// Puts a tree with its blobs, and a record of it, as a worker and the coordinator do.
    pub async fn put(&self, seed: u64, sizes: &[usize]) -> Tree {
        let tree = tree(seed, sizes);
        for blob in &tree.blobs {
            self.cluster.put_blobs(std::slice::from_ref(blob)).await.unwrap();
        }
        self.cluster.put_nodes(tree.nodes.clone()).await.unwrap();
        self.cluster.put_record(result(seed, &tree, 1)).await.unwrap();
        tree
    }

    /// Whether a node, asked alone, knows the record.
    pub fn knows(&self, at: usize, seed: u64) -> bool {
        has_record(&*self.store(at), seed)
    }

    /// All files of a tree can be read.
    pub async fn read(&self, tree: &Tree) {
        for (id, bytes) in &tree.blobs {
            assert_eq!(&self.cluster.get_blobs(&[*id]).await.unwrap()[0], bytes);
        }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| node.running.abort());
    }
}

pub fn result(seed: u64, tree: &Tree, version: u64) -> PutRecord {
    let (key, record) = (content_key(seed), record(vec![tree.root], None, version));
    let alias = Some((def_key(seed), Alias { key, version, inputs: Vec::new() }));
    PutRecord { scope: Scope::trusted(), key, record, alias }
}

/// Waits until something is so. Nobody tells when it is.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain waited until {what}");
}

/// Does something that blocks.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A store as another node reaches it; and how many bytes it has answered.
pub fn peer(store: Arc<DiskStore>) -> (Blobs, Arc<AtomicUsize>) {
    let answered = Arc::new(AtomicUsize::new(0));
    (Blobs::new(Arc::new(Counting { store, answered: answered.clone() }), binary()), answered)
}

struct Counting {
    store: Arc<DiskStore>,
    answered: Arc<AtomicUsize>,
}

impl Dial for Counting {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (store, (read, write)) = (self.store.clone(), tokio::io::split(far));
            tokio::spawn(async move {
                let mut stream = Stream::new(read, write);
                stream.accept().await.unwrap();
                stream.to.send(&Opened::Ready { binary: binary() }).await.unwrap();
                let _ = serve(store, stream, Rights::Node).await;
            });
            let (read, write) = tokio::io::split(near);
            Ok(Stream::new(Counted(read, self.answered.clone()), write))
        })
    }
}

struct Counted<R>(R, Arc<AtomicUsize>);

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buffer);
        self.1.fetch_add(buffer.filled().len() - before, Ordering::SeqCst);
        polled
    }
}
