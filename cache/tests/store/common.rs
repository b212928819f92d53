//! What the tests of the store put into it.

use bytes::Bytes;
use cache::store::{DiskStore, Options, Store};
use proto::id::{BlobId, ContentKey, DefKey, Millis, RootId, Scope};
use proto::path::FileName;
use proto::record::{Alias, Cost, Record};
use proto::tree::{Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root};
use std::path::Path;

/// Bytes that are the same for the same seed, and can't be compressed.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn blob(seed: u64, len: usize) -> (BlobId, Bytes) {
    let bytes = content(seed, len);
    (BlobId::of(&bytes), bytes.into())
}

pub fn meta(mode: u16) -> Meta {
    Meta::root_owned(mode, Mtime { seconds: 1_600_000_000, nanos: 987_654_321 })
}

pub fn options() -> Options {
    Options::default().keep_free(0)
}

pub fn open(path: &Path) -> DiskStore {
    DiskStore::open(path, options()).expect("the store opens")
}

fn entry(name: &str, node: Node) -> Entry {
    Entry { name: FileName::new(name.as_bytes()).unwrap(), meta: meta(0o644), node }
}

pub fn file(name: &str, blob: &(BlobId, Bytes)) -> Entry {
    entry(name, Node::File { blob: blob.0, size: blob.1.len() as u64, link: None })
}

pub fn dir(name: &str, dir: DirRef) -> Entry {
    entry(name, Node::Dir(dir, Presence::Merge))
}

/// A tree of three levels and what it is made of: children before parents.
pub struct Tree {
    pub blobs: Vec<(BlobId, Bytes)>,
    pub nodes: Vec<Vec<u8>>,
    pub root: RootId,
}

/// A tree of some files, all of its own; `sizes` are theirs.
pub fn tree(seed: u64, sizes: &[usize]) -> Tree {
    let blobs: Vec<_> =
        sizes.iter().zip(0..).map(|(size, i)| blob(seed * 1_000 + i, *size)).collect();
    let mut nodes = Vec::new();
    let mut dirs = Vec::new();
    for (i, some) in blobs.chunks(4).enumerate() {
        let files = some.iter().enumerate().map(|(j, blob)| file(&format!("f{j}"), blob));
        let sealed = Dir::new(files.collect()).seal();
        dirs.push(dir(&format!("d{i}"), sealed.dir));
        nodes.push(sealed.bytes);
    }
    let top = Dir::new(dirs).seal();
    let (root, bytes) = Root { meta: meta(0o755), dir: top.dir, presence: Presence::Merge }.seal();
    nodes.push(top.bytes);
    nodes.push(bytes);
    Tree { blobs, nodes, root }
}

pub fn put_blobs(store: &dyn Store, blobs: &[(BlobId, Bytes)]) {
    store.put_blobs(blobs).expect("blobs are taken");
}

pub fn put_tree(store: &dyn Store, tree: &Tree) {
    put_blobs(store, &tree.blobs);
    store.put_nodes(&tree.nodes).expect("nodes are taken");
}

pub fn content_key(n: u64) -> ContentKey {
    ContentKey::from_bytes(*BlobId::of(&n.to_le_bytes()).as_bytes())
}

pub fn def_key(n: u64) -> DefKey {
    DefKey::from_bytes(*BlobId::of(&n.to_be_bytes()).as_bytes())
}

pub fn record(layers: Vec<RootId>, log: Option<BlobId>, version: u64) -> Record {
    let (created, cost) = (Millis(1), Cost::default());
    Record { layers, created, log, cost, producer: None, version }
}

/// Puts a record of that tree, with an alias.
pub fn put_record(store: &dyn Store, n: u64, tree: &Tree, log: Option<BlobId>) {
    let record = record(vec![tree.root], log, 1);
    let alias = Alias { key: content_key(n), version: 1, inputs: Vec::new() };
    let alias = Some((&def_key(n), &alias));
    store
        .put_record(&Scope::trusted(), &content_key(n), &record, alias)
        .expect("the record is taken");
}

pub fn has_record(store: &dyn Store, n: u64) -> bool {
    store.records(&Scope::trusted(), &[content_key(n)]).unwrap()[0].is_some()
}

/// Reads the whole tree, and checks that all of it is there.
pub fn read_tree(store: &dyn Store, tree: &Tree) {
    for (id, bytes) in &tree.blobs {
        assert_eq!(store.read(id).unwrap(), bytes);
    }
    for bytes in &tree.nodes {
        assert_eq!(store.node_bytes(&proto::tree::node_id(bytes)).unwrap(), bytes);
    }
}

/// Asserts that verification finds nothing.
pub fn assert_sound(store: &DiskStore) {
    let damages = store.verify(&mut |_| {}).expect("the store can be verified");
    let damages: Vec<String> = damages.iter().map(ToString::to_string).collect();
    assert!(damages.is_empty(), "{damages:#?}");
}
