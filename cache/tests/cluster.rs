//! Several cache nodes as one store, over real streams: what is put where, and what happens when a
//! node is gone.

use bytes::Bytes;
use cache::cluster::Cluster;
use cache::cluster::through::Through;
use cache::net::serve::{Rights, serve};
use cache::net::{Dial, NetError, Stream, local};
use cache::scan;
use cache::store::memory::MemoryStore;
use cache::store::{Store, StoreError, Table};
use proto::id::{BlobId, CacheId, ContentKey, DefKey, Millis, RootId, Scope};
use proto::path::FileName;
use proto::record::{Alias, Record};
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use proto::wire::blob::PutRecord;
use proto::wire::cluster::{CacheNode, CacheState, Map};
use proto::wire::{Binary, Opened};
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

fn binary() -> Binary {
    Binary { version: "test".into(), modified_ms: 0 }
}

/// A cache node: its store, and whether it can be reached.
struct Machine {
    store: Arc<MemoryStore>,
    up: AtomicBool,
    streams: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Machine {
    /// It is cut off: no stream is left, and none can be opened.
    fn fail(&self) {
        self.up.store(false, Ordering::SeqCst);
        self.streams.lock().unwrap().drain(..).for_each(|stream| stream.abort());
    }
}

struct Dialer(Arc<Machine>);

impl Dial for Dialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(async {
            if !self.0.up.load(Ordering::SeqCst) {
                let source = std::io::ErrorKind::ConnectionRefused.into();
                return Err(NetError::Unreachable { to: "a test's node".into(), source });
            }
            let (dialer, mut listener) = local::pair();
            let stream = dialer.dial().await?;
            let store = self.0.store.clone();
            let served = tokio::spawn(async move {
                let mut stream = listener.accept().await.unwrap();
                stream.accept().await.unwrap();
                stream.to.send(&Opened::Ready { binary: binary() }).await.unwrap();
                let _ = serve(store, stream, Rights::Coordinator).await;
            });
            self.0.streams.lock().unwrap().push(served.abort_handle());
            Ok(stream)
        })
    }
}

/// A farm's store of some nodes.
struct Farm {
    machines: Vec<Arc<Machine>>,
    map: watch::Sender<Arc<Map>>,
    cluster: Arc<Cluster>,
}

fn farm(count: usize, replicas: u8) -> Farm {
    let machine = |_| {
        let (store, up) = (Arc::default(), AtomicBool::new(true));
        Arc::new(Machine { store, up, streams: Mutex::default() })
    };
    let machines: Vec<Arc<Machine>> = (0..count).map(machine).collect();
    let node = |at| CacheNode {
        id: CacheId::parse(&format!("cache-{at}")).unwrap(),
        address: format!("{at}"),
        state: CacheState::Serving,
    };
    let map = Map { epoch: 1, replicas, nodes: (0..count).map(node).collect() };
    let (map, watched) = watch::channel(Arc::new(map));
    let dialled = machines.clone();
    let connect = move |node: &CacheNode| -> Arc<dyn Dial> {
        Arc::new(Dialer(dialled[node.address.parse::<usize>().unwrap()].clone()))
    };
    let cluster = Arc::new(Cluster::new(Box::new(connect), binary(), watched));
    Farm { machines, map, cluster }
}

impl Farm {
    fn set(&self, at: usize, state: CacheState) {
        self.map.send_modify(|map| {
            let mut next = Map::clone(map);
            next.epoch += 1;
            next.nodes[at].state = state;
            *map = Arc::new(next);
        });
    }

    fn copies(&self, id: &BlobId) -> usize {
        let has = |m: &&Arc<Machine>| m.store.missing_blobs(&[*id]).unwrap().is_empty();
        self.machines.iter().filter(has).count()
    }
}

fn blobs(count: u32) -> Vec<(BlobId, Bytes)> {
    let blob = |n: u32| {
        let bytes = Bytes::from(format!("blob {n}"));
        (BlobId::of(&bytes), bytes)
    };
    (0..count).map(blob).collect()
}

/// A tree of one file.
fn tree(blob: BlobId, size: u64) -> (RootId, Vec<Vec<u8>>) {
    let meta = Meta::root_owned(0o644, Mtime::default());
    let name = FileName::new(b"file").unwrap();
    let entry = Entry { name, meta, node: Node::File { blob, size, link: None } };
    let dir = Dir::new(vec![entry]).seal();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (root, bytes) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
    (root, vec![dir.bytes, bytes])
}

fn result(tree: RootId, version: u64) -> PutRecord {
    let (key, def) = (ContentKey::from_bytes([1; 32]), DefKey::from_bytes([2; 32]));
    let record = Record {
        layers: vec![tree],
        created: Millis(1),
        log: None,
        cost: Default::default(),
        producer: None,
        version,
    };
    let alias = Some((def, Alias { key, version, inputs: Vec::new() }));
    PutRecord { scope: Scope::trusted(), key, record, alias }
}

#[tokio::test]
async fn each_blob_is_on_as_many_nodes_as_there_are_to_be_copies() {
    let farm = farm(4, 2);
    let all = blobs(300);
    farm.cluster.put_blobs(&all).await.unwrap();
    let large = Bytes::from(vec![7; 1 << 20]);
    let id = BlobId::of(&large);
    let mut pieces = [Some(large.clone()), None].into_iter();
    let next = || std::future::ready(Ok(pieces.next().unwrap()));
    farm.cluster.put_large(id, large.len() as u64, next).await.unwrap();
    assert!(all.iter().all(|(id, _)| farm.copies(id) == 2));
    assert_eq!(farm.copies(&id), 2);
    let ids: Vec<BlobId> = all.iter().map(|(id, _)| *id).collect();
    let unknown = BlobId::of(b"unknown");
    let (missing, _) =
        farm.cluster.missing([&ids[..], &[unknown]].concat(), Vec::new()).await.unwrap();
    assert_eq!(missing, [unknown]);
    let sizes = farm.cluster.sizes(&[ids[0], unknown], None).await.unwrap();
    assert_eq!(sizes, [Some(all[0].1.len() as u64), None]);
    let got = farm.cluster.get_blobs(&ids).await.unwrap();
    assert!(got.iter().zip(&all).all(|(got, (_, put))| got == put));
}

#[tokio::test]
async fn with_a_node_gone_everything_is_read_and_written_as_before() {
    let farm = farm(3, 2);
    let all = blobs(100);
    farm.cluster.put_blobs(&all).await.unwrap();
    let (tree, nodes) = tree(all[0].0, all[0].1.len() as u64);
    farm.machines.iter().for_each(|m| m.store.put_blobs(&all[..1]).unwrap());
    farm.cluster.put_nodes(nodes).await.unwrap();
    farm.machines[1].fail();
    let ids: Vec<BlobId> = all.iter().map(|(id, _)| *id).collect();
    assert_eq!(farm.cluster.get_blobs(&ids).await.unwrap().len(), 100);
    assert_eq!(farm.cluster.get_nodes(&[tree.0]).await.unwrap().len(), 1);
    let (missing, lacking) = farm.cluster.missing(ids, vec![tree.0]).await.unwrap();
    assert!(missing.is_empty() && lacking.is_empty());
    let more: Vec<_> = blobs(200).split_off(100);
    farm.cluster.put_blobs(&more).await.unwrap();
    assert!(more.iter().all(|(id, _)| farm.copies(id) == 2), "others stand in for it");
}

#[tokio::test]
async fn a_large_blob_goes_on_where_its_node_broke_off() {
    let farm = farm(2, 2);
    let large: Bytes = (0..6u32 << 20).map(|n| (n >> 12) as u8).collect::<Vec<u8>>().into();
    let id = BlobId::of(&large);
    for machine in &farm.machines {
        let mut writer = machine.store.writer().unwrap();
        std::io::Write::write_all(&mut writer, &large).unwrap();
        writer.finish(Some(id)).unwrap();
    }
    let got = Mutex::new(Vec::new());
    let take = |piece: Bytes| {
        let mut got = got.lock().unwrap();
        if got.is_empty() {
            // Whichever of them it came from.
            let busy = |m: &&Arc<Machine>| !m.streams.lock().unwrap().is_empty();
            farm.machines.iter().find(busy).unwrap().fail();
        }
        got.extend_from_slice(&piece);
        std::future::ready(Ok(()))
    };
    assert_eq!(farm.cluster.get_large(id, 0, take).await.unwrap(), large.len() as u64);
    assert_eq!(BlobId::of(&got.into_inner().unwrap()), id);
}

#[tokio::test]
async fn a_record_counts_when_all_that_serve_know_it() {
    let farm = farm(2, 2);
    let all = blobs(1);
    let (tree, nodes) = tree(all[0].0, all[0].1.len() as u64);
    farm.cluster.put_blobs(&all).await.unwrap();
    farm.set(1, CacheState::Down);
    farm.cluster.put_nodes(nodes.clone()).await.unwrap();
    let put = result(tree, 5);
    farm.cluster.put_record(put.clone()).await.unwrap();
    let (scope, key) = (put.scope.clone(), put.key);
    let known = async || farm.cluster.records(&scope, vec![key]).await.unwrap()[0].is_some();
    assert!(known().await);
    // Back, without what it missed: it must not be believed, and the record must not be lost.
    farm.set(1, CacheState::Serving);
    assert!(!known().await);
    // What it refuses tells that it lacks something.
    farm.cluster.put_record(put.clone()).await.unwrap();
    assert_eq!(farm.cluster.stale().await[0].as_str(), "cache-1");
    farm.set(1, CacheState::Syncing);
    assert!(known().await);
    farm.machines[1].store.put_nodes(&nodes).unwrap();
    farm.set(1, CacheState::Serving);
    farm.cluster.put_record(result(tree, 6)).await.unwrap();
    assert!(known().await);
    let def = DefKey::from_bytes([2; 32]);
    let alias = farm.cluster.aliases(&scope, vec![def]).await.unwrap();
    assert_eq!(alias[0].as_ref().map(|alias| alias.version), Some(6));
}

#[tokio::test]
async fn without_any_node_the_error_says_what_to_look_at() {
    let farm = farm(2, 2);
    farm.set(0, CacheState::Down);
    farm.set(1, CacheState::Down);
    let Err(NetError::Refused(failure)) = farm.cluster.put_blobs(&blobs(1)).await else {
        panic!("it was put nowhere")
    };
    assert!(failure.hint.unwrap().contains("slipway node ls"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_worker_makes_another_one_has() {
    let farm = farm(2, 2);
    let own: [Arc<MemoryStore>; 2] = Default::default();
    let [a, b] = own.clone().map(|own| Arc::new(Through::new(own, farm.cluster.clone())));
    let work = move || {
        let small = blobs(50);
        a.put_blobs(&small).unwrap();
        let mut writer = a.writer().unwrap();
        std::io::Write::write_all(&mut writer, &vec![9; 3 << 20]).unwrap();
        let (large, size) = writer.finish(None).unwrap();
        let (first, nodes) = tree(small[0].0, small[0].1.len() as u64);
        a.put_nodes(&nodes).unwrap();
        let (second, nodes) = tree(large, size);
        a.put_nodes(&nodes).unwrap();
        a.put_row(Table::Unpacked, &[3; 32], second.0.as_bytes()).unwrap();
        a.barrier().unwrap();
        let twice = 2 * (small[0].1.len() as u64 + size);
        assert_eq!(a.exchanged().sent.load(Ordering::Relaxed), twice, "a copy for each node");

        assert!(b.missing_trees(&[first.0, second.0]).unwrap().is_empty());
        b.prefetch(&first).unwrap();
        assert_eq!(own[1].missing_blobs(&[small[0].0, small[1].0, large]).unwrap().len(), 2);
        let mut bytes = Vec::new();
        b.open(&large, 0).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(BlobId::of(&bytes), large);
        assert_eq!(b.exchanged().fetched.load(Ordering::Relaxed), small[0].1.len() as u64 + size);
        let row = b.row(Table::Unpacked, &[3; 32]).unwrap();
        assert_eq!(row.as_deref(), Some(&second.0.as_bytes()[..]));
        let dir = b.node(&first.0).unwrap().dirs()[0].tree;
        assert!(b.node_bytes(&dir).is_ok());
        assert!(matches!(b.open(&small[1].0, 0), Err(StoreError::NoBlob(_))));
        assert!(matches!(
            b.node(&RootId(proto::id::TreeId::from_bytes([8; 32])).0),
            Err(StoreError::NoTree(_))
        ));
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// A directory with another one, and its encoding.
fn around(name: &str, inner: proto::tree::DirRef, file: (BlobId, u64)) -> proto::tree::Sealed {
    let entry = |name: &str, mode, node| Entry {
        name: FileName::new(name.as_bytes()).unwrap(),
        meta: Meta::root_owned(mode, Mtime::default()),
        node,
    };
    let (blob, size) = file;
    let file = entry("file", 0o4755, Node::File { blob, size, link: None });
    Dir::new(vec![entry(name, 0o755, Node::Dir(inner, Presence::Merge)), file]).seal()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_tree_is_sent_whole_and_once() {
    let farm = farm(2, 2);
    let own: Arc<MemoryStore> = Arc::default();
    let small = blobs(1)[0].clone();
    own.put_blobs(std::slice::from_ref(&small)).unwrap();
    let mut writer = own.writer().unwrap();
    std::io::Write::write_all(&mut writer, &vec![9; 3 << 20]).unwrap();
    let (large, size) = writer.finish(None).unwrap();
    // The innermost directory is in two places, one much deeper than the other.
    let small_file = (small.0, small.1.len() as u64);
    let innermost = Dir::new(Vec::new()).seal();
    let shared = around("empty", innermost.dir, (large, size));
    let deep = around("deep", shared.dir, small_file);
    let deeper = around("deeper", deep.dir, small_file);
    let top = around("shared", shared.dir, small_file);
    let both = around("top", top.dir, small_file);
    let entry = |name: &str, dir| Entry {
        name: FileName::new(name.as_bytes()).unwrap(),
        meta: Meta::root_owned(0o755, Mtime::default()),
        node: Node::Dir(dir, Presence::Merge),
    };
    let dir =
        Dir::new(vec![entry("a", shared.dir), entry("b", deeper.dir), entry("c", both.dir)]).seal();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (root, encoded) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
    let nodes = [innermost, shared, deep, deeper, top, both, dir].map(|sealed| sealed.bytes);
    own.put_nodes(&[&nodes[..], &[encoded]].concat()).unwrap();

    let (own, sent): (Arc<dyn Store>, _) = (own, AtomicU64::new(0));
    scan::send_stored(&farm.cluster, &own, root, &sent).await.unwrap();
    assert_eq!((farm.copies(&small.0), farm.copies(&large)), (2, 2));
    assert!(farm.cluster.missing(Vec::new(), vec![root.0]).await.unwrap().1.is_empty());
    let once = sent.load(Ordering::Relaxed);
    assert!(once >= size, "{once}");
    scan::send_stored(&farm.cluster, &own, root, &sent).await.unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), once, "what the farm has is not sent again");
}
