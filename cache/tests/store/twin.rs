//! The same operations on the real store and on its twin give the same answers.

use crate::common::{blob, content, content_key, def_key, dir, file, meta, open, record};
use bytes::Bytes;
use cache::chunk::ChunkPlace;
use cache::chunk::cut::cut;
use cache::store::memory::MemoryStore;
use cache::store::{
    Compression, DiskStore, Image, ImageLayer, LayerBlob, OciBlob, PackedBlock, PackedLayer,
    Persisted, Store, StoreError, Table,
};
use proptest::prelude::*;
use proto::chunk::ChunkList;
use proto::id::{BlobId, OciDigest, RootId, Scope, TreeId};
use proto::platform::Platform;
use proto::record::Alias;
use proto::tree::{AnyNode, Dir, Entry, Node, Presence, Root};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::LazyLock;

/// One operation. Numbers name blobs, trees, keys and scopes from small pools, so that operations
/// meet each other.
#[derive(Debug, Clone)]
enum Op {
    Missing(Vec<u8>),
    MissingTrees(Vec<u8>),
    Put(Vec<u8>),
    PutWrong(u8),
    Write(u8, Option<u8>),
    Abandon(u8),
    Adopt(u8),
    Size(u8),
    Read(u8),
    ReadMany(Vec<u8>),
    Stream(u8, u32),
    Place(u8),
    Chunks(u8),
    NoteChunks(u8),
    FindChunks(u8),
    ReadChunk { blob: u8, of: u8, chunk: u8 },
    Nodes(Vec<u8>),
    BadNode(Vec<u8>),
    Node(u8),
    PutRecord { scope: u8, key: u8, layers: Vec<u8>, version: u8, alias: Option<u8> },
    Records { scope: u8, keys: Vec<u8> },
    Aliases { scope: u8, keys: Vec<u8> },
    PutRow { table: u8, key: u8, names: Vec<u8> },
    BadRow { table: u8, value: Vec<u8> },
    Row { table: u8, key: u8 },
    Rows { table: u8, prefix: bool },
    DeleteRow { table: u8, key: u8 },
    Barrier,
    Reopen,
}

const BLOBS: u8 = 12;
const TREES: u8 = 10;
const KEYS: u8 = 5;

fn op() -> impl Strategy<Value = Op> {
    let b = || 0..BLOBS;
    let t = || 0..TREES;
    let k = || 0..KEYS;
    let many = |n: u8| prop::collection::vec(0..n, 0..6);
    let table = || 0..Table::ALL.len() as u8;
    prop_oneof![
        1 => many(BLOBS).prop_map(Op::Missing),
        1 => many(TREES).prop_map(Op::MissingTrees),
        4 => many(BLOBS).prop_map(Op::Put),
        1 => b().prop_map(Op::PutWrong),
        1 => (b(), prop::option::of(b())).prop_map(|(blob, expected)| Op::Write(blob, expected)),
        1 => b().prop_map(Op::Abandon),
        2 => b().prop_map(Op::Adopt),
        1 => b().prop_map(Op::Size),
        1 => b().prop_map(Op::Read),
        1 => many(BLOBS).prop_map(Op::ReadMany),
        1 => (b(), any::<u32>()).prop_map(|(blob, at)| Op::Stream(blob, at)),
        1 => b().prop_map(Op::Place),
        1 => b().prop_map(Op::Chunks),
        1 => b().prop_map(Op::NoteChunks),
        2 => b().prop_map(Op::FindChunks),
        1 => (b(), b(), any::<u8>()).prop_map(|(blob, of, chunk)| Op::ReadChunk { blob, of, chunk }),
        6 => many(TREES).prop_map(Op::Nodes),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Op::BadNode),
        2 => t().prop_map(Op::Node),
        3 => (0..3u8, k(), many(TREES), 0..4u8, prop::option::of(k())).prop_map(
            |(scope, key, layers, version, alias)| {
                Op::PutRecord { scope, key, layers, version, alias }
            }
        ),
        2 => (0..3u8, many(KEYS)).prop_map(|(scope, keys)| Op::Records { scope, keys }),
        1 => (0..3u8, many(KEYS)).prop_map(|(scope, keys)| Op::Aliases { scope, keys }),
        3 => (table(), k(), many(TREES.min(BLOBS)))
            .prop_map(|(table, key, names)| Op::PutRow { table, key, names }),
        1 => (table(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(table, value)| Op::BadRow { table, value }),
        1 => (table(), k()).prop_map(|(table, key)| Op::Row { table, key }),
        1 => (table(), any::<bool>()).prop_map(|(table, prefix)| Op::Rows { table, prefix }),
        1 => (table(), k()).prop_map(|(table, key)| Op::DeleteRow { table, key }),
        1 => Just(Op::Barrier),
        1 => Just(Op::Reopen),
    ]
}

/// Blobs of all kinds: empty, small, just packed, just not, several pieces of a writer; and one that
/// has chunks of two others, one of which is there twice.
static POOL: LazyLock<Vec<(BlobId, Bytes)>> = LazyLock::new(|| {
    let sizes = [0, 1, 100, 5_000, 256 << 10, (256 << 10) + 1, 300_000, 1 << 20, 2_500_000];
    let mut pool: Vec<_> =
        (0..BLOBS - 1).map(|n| blob(n.into(), sizes[usize::from(n) % sizes.len()])).collect();
    let mixed = [&pool[8].1[..], &pool[7].1[..], &pool[8].1[..]].concat();
    pool.push((BlobId::of(&mixed), mixed.into()));
    pool
});

/// The lists of the pool's chunks.
static LISTS: LazyLock<Vec<ChunkList>> =
    LazyLock::new(|| POOL.iter().map(|(_, bytes)| cut(&bytes[..]).unwrap()).collect());

/// Another list of the same blob, which is as right.
fn other_list(n: u8) -> ChunkList {
    let pieces: Vec<_> = POOL[usize::from(n)].1.chunks(200_000).collect();
    let chunks = pieces.iter().map(|piece| (BlobId::of(piece), piece.len() as u32));
    ChunkList::new(id_of(n), bytes_of(n).len() as u64, chunks).unwrap()
}

static NODES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..TREES).map(make_node).collect());

fn bytes_of(n: u8) -> Bytes {
    POOL[usize::from(n)].1.clone()
}

fn id_of(n: u8) -> BlobId {
    POOL[usize::from(n)].0
}

fn node_of(n: u8) -> Vec<u8> {
    NODES[usize::from(n)].clone()
}

/// A tree over the blobs and the trees with smaller numbers; some lie about what they name.
fn make_node(n: u8) -> Vec<u8> {
    if n == TREES - 1 {
        let AnyNode::Dir(below) = AnyNode::decode(&make_node(2)).unwrap() else {
            panic!("tree 2 is a directory");
        };
        let (meta, presence) = (meta(0o755), Presence::Merge);
        return Root { meta, dir: below.seal().dir, presence }.seal().1;
    }
    let mut entries: Vec<Entry> = Vec::new();
    for i in 0..n % 4 {
        let number = (n * 3 + i) % BLOBS;
        let mut entry = file(&format!("f{i}"), &(id_of(number), bytes_of(number)));
        if n == 7
            && let Node::File { size, .. } = &mut entry.node
        {
            *size += 1;
        }
        entries.push(entry);
    }
    for below in [n / 2, n / 3] {
        if below < n {
            let AnyNode::Dir(node) = AnyNode::decode(&make_node(below)).unwrap() else {
                panic!("only the last tree is a root");
            };
            let mut child = node.seal().dir;
            if n == 6 {
                child.summary.entries += 1;
            }
            entries.push(dir(&format!("d{below}"), child));
        }
    }
    if n == 5 {
        // A node that is too large for the index.
        entries.extend((0..900).map(|i| file(&format!("many{i}"), &blob(1, 100))));
    }
    Dir::new(entries).seal().bytes
}

fn tree_of(n: u8) -> TreeId {
    proto::tree::node_id(&node_of(n))
}

fn scope(n: u8) -> Scope {
    Scope::parse(["trusted", "dev/ann", "branch/x"][usize::from(n)]).unwrap()
}

fn row_key(table: Table, key: u8) -> Vec<u8> {
    match table {
        Table::OciBlob | Table::Unpacked => vec![key; 32],
        Table::Layer => LayerBlob::key(&RootId(tree_of(key)), Compression::Gzip(1)),
        Table::Block => PackedBlock::key(&id_of(key), Compression::Zstd(3)),
        Table::Image | Table::CacheMount | Table::Build | Table::Trace => {
            format!("key{key}").into_bytes()
        }
    }
}

fn row_value(table: Table, names: &[u8]) -> Vec<u8> {
    let first = names.first().copied().unwrap_or(0);
    let digest = OciDigest::from_bytes([first; 32]);
    let (blob, size) = (id_of(first), bytes_of(first).len() as u64 + u64::from(first == 3));
    match table {
        Table::Image => Image {
            id: digest,
            platform: Platform::parse("linux/amd64").unwrap(),
            config: blob,
            layers: names.iter().skip(1).map(|n| layer(*n)).collect(),
            tagged_ms: 1,
            created_ms: 2,
            size: 3,
            references: Vec::new(),
            archive: None,
        }
        .to_bytes(),
        Table::OciBlob => OciBlob { blob, size, repository: None }.to_bytes(),
        Table::Layer => {
            let packed = (first % 2 == 0).then_some(PackedLayer { digest, blob, size });
            LayerBlob { diff_id: digest, packed }.to_bytes()
        }
        Table::Block => PackedBlock { layer: blob, size, at: 1, hash: blob, len: 2 }.to_bytes(),
        Table::Unpacked | Table::CacheMount => tree_of(first % TREES).as_bytes().to_vec(),
        Table::Build | Table::Trace => names.to_vec(),
    }
}

fn layer(n: u8) -> ImageLayer {
    let diff_id = OciDigest::from_bytes([n; 32]);
    let diff = (!n.is_multiple_of(3)).then(|| RootId(tree_of(n % TREES)));
    ImageLayer { diff_id, diff, original: Some(("type".to_owned(), diff_id, 1)) }
}

/// What an operation answered, for comparison.
fn answer<T: Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

fn short(bytes: &[u8]) -> (usize, BlobId) {
    (bytes.len(), BlobId::of(bytes))
}

fn run(store: &dyn Store, op: &Op, scratch: &Path) -> String {
    let ids = |list: &[u8]| -> Vec<BlobId> { list.iter().map(|n| id_of(*n)).collect() };
    let table = |n: u8| Table::ALL[usize::from(n)];
    match op {
        Op::Missing(list) => answer(store.missing_blobs(&ids(list))),
        Op::MissingTrees(list) => {
            answer(store.missing_trees(&list.iter().map(|n| tree_of(*n)).collect::<Vec<_>>()))
        }
        Op::Put(list) => {
            let blobs: Vec<_> = list.iter().map(|n| (id_of(*n), bytes_of(*n))).collect();
            answer(store.put_blobs(&blobs))
        }
        Op::PutWrong(n) => {
            let good = (id_of(0), bytes_of(0));
            let bad = (id_of(*n), content(u64::MAX, 7).into());
            answer(store.put_blobs(&[good, bad]))
        }
        Op::Write(n, expected) => {
            let mut writer = store.writer().unwrap();
            bytes_of(*n).chunks(70_001).for_each(|piece| writer.write_all(piece).unwrap());
            answer(writer.finish(expected.map(id_of)))
        }
        Op::Abandon(n) => {
            let mut writer = store.writer().unwrap();
            answer(writer.write_all(&bytes_of(*n)).map_err(|e| panic!("{e}")))
        }
        Op::Adopt(n) => {
            let path = scratch.join("adopt");
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, bytes_of(*n)).unwrap();
            answer(store.adopt(&path))
        }
        Op::Size(n) => answer(store.blob_size(&id_of(*n))),
        Op::Read(n) => answer(store.read(&id_of(*n)).map(|bytes| short(&bytes))),
        Op::ReadMany(list) => {
            let read = store.read_many(&ids(list));
            answer(read.map(|all| all.iter().map(|b| short(b)).collect::<Vec<_>>()))
        }
        Op::Stream(n, at) => {
            let at = u64::from(*at) % (bytes_of(*n).len() as u64 + 2);
            answer(store.open(&id_of(*n), at).map(|mut stream| {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                short(&bytes)
            }))
        }
        Op::Place(n) => {
            let path = scratch.join("placed");
            let _ = std::fs::remove_file(&path);
            let placed = store.place(&id_of(*n), &meta(0o751), &path);
            answer(placed.map(|()| short(&std::fs::read(&path).unwrap())))
        }
        Op::Chunks(n) => answer(store.chunks(&id_of(*n))),
        Op::NoteChunks(n) => answer(store.note_chunks(&other_list(*n))),
        Op::FindChunks(n) => {
            let (list, other) = (&LISTS[usize::from(*n)], other_list(*n));
            let chunks = list.chunks().iter().chain(other.chunks());
            let ids: Vec<_> = chunks.map(|chunk| chunk.id).chain([id_of(*n)]).collect();
            answer(store.find_chunks(&ids))
        }
        Op::ReadChunk { blob, of, chunk } => {
            let chunks = LISTS[usize::from(*of)].chunks();
            let Some(chunk) = chunks.get(usize::from(*chunk) % chunks.len().max(1)) else {
                return String::new();
            };
            let at = ChunkPlace { blob: id_of(*blob), offset: chunk.offset, len: chunk.len };
            answer(store.read_chunk(&chunk.id, &at).map(|bytes| short(&bytes)))
        }
        Op::Nodes(list) => {
            answer(store.put_nodes(&list.iter().map(|n| node_of(*n)).collect::<Vec<_>>()))
        }
        Op::BadNode(bytes) => answer(store.put_nodes(&[node_of(0), bytes.clone()])),
        Op::Node(n) => {
            let node = answer(store.node(&tree_of(*n)).map(|node| format!("{node:?}").len()));
            node + &answer(store.node_bytes(&tree_of(*n)).map(|bytes| short(&bytes)))
        }
        Op::PutRecord { scope: s, key, layers, version, alias } => {
            let layers = layers.iter().map(|n| RootId(tree_of(*n))).collect();
            let record = record(layers, Some(id_of(*key)), (*version).into());
            let key = content_key((*key).into());
            let to = Alias { key, version: record.version, inputs: Vec::new() };
            let def = alias.map(|n| def_key(n.into()));
            answer(store.put_record(&scope(*s), &key, &record, def.as_ref().map(|d| (d, &to))))
        }
        Op::Records { scope: s, keys } => {
            let keys: Vec<_> = keys.iter().map(|n| content_key((*n).into())).collect();
            answer(store.records(&scope(*s), &keys))
        }
        Op::Aliases { scope: s, keys } => {
            let keys: Vec<_> = keys.iter().map(|n| def_key((*n).into())).collect();
            answer(store.aliases(&scope(*s), &keys))
        }
        Op::PutRow { table: t, key, names } => {
            let (key, value) = (row_key(table(*t), *key), row_value(table(*t), names));
            answer(store.put_row(table(*t), &key, &value))
        }
        Op::BadRow { table: t, value } => answer(store.put_row(table(*t), &[1; 32], value)),
        Op::Row { table: t, key } => answer(store.row(table(*t), &row_key(table(*t), *key))),
        Op::Rows { table: t, prefix } => {
            let prefix = if *prefix { &row_key(table(*t), 1)[..4] } else { &[] };
            answer(store.rows(table(*t), prefix))
        }
        Op::DeleteRow { table: t, key } => {
            answer(store.delete_row(table(*t), &row_key(table(*t), *key)))
        }
        Op::Barrier | Op::Reopen => answer(store.barrier()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_answer_alike(ops in prop::collection::vec(op(), 1..80)) {
        // In memory, where nothing waits for a disk.
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = temp.path().join("store");
        let twin = MemoryStore::new();
        let mut store: Option<DiskStore> = Some(open(&path));
        for (i, op) in ops.iter().enumerate() {
            let real = run(store.as_ref().unwrap(), op, temp.path());
            let expected = run(&twin, op, temp.path());
            prop_assert_eq!(real, expected, "operation {} is {:?}", i, op);
            if matches!(op, Op::Reopen) {
                store = None;
                prop_assert!(store.is_none());
                store = Some(open(&path));
            }
        }
        let damages = store.unwrap().verify(&mut |_| {}).unwrap();
        prop_assert!(damages.is_empty(), "{:?}", damages);
    }
}
