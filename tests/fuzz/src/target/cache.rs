//! Caches outside of a farm: manifests, configs, and trees of layers.

use super::Target;
use cache::store::Store;
use cache::store::memory::MemoryStore;
use proto::id::{BlobId, ContentKey, DefKey, Millis, OciDigest, RootId, TreeId};
use proto::path::FileName;
use proto::record::Cost;
use proto::step::PackedRef;
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use proto::wire::outside::{CacheContent, CachedLayer, CachedRecord};
use worker::image::artifact::document::{NODES_TYPE, Named, Written, write};
use worker::image::artifact::nodes;
use worker::image::sha::sha256;

pub struct Cache;

const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"\"version\":1",
    b"\"layers\":[0]",
    b"\"records\":[]",
    b"\"artifactType\":",
    b"application/vnd.buildkit.cacheconfig.v0",
    b"sha256:",
    b"slipway tree 1\n",
    b"\x28\xb5\x2f\xfd",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
];

/// A small cache.
fn written() -> Written {
    let part = |media_type: &str| PackedRef {
        media_type: media_type.to_owned(),
        digest: OciDigest::from_bytes([3; 32]),
        size: 5,
    };
    let tree = RootId(TreeId::from_bytes([1; 32]));
    let record = CachedRecord {
        definition: DefKey::from_bytes([4; 32]),
        content: ContentKey::from_bytes([5; 32]),
        version: 6,
        inputs: vec![(DefKey::from_bytes([7; 32]), 8)],
        layers: vec![tree],
        created: Millis(9),
        cost: Cost::default(),
    };
    let diff_id = OciDigest::from_bytes([2; 32]);
    let layer = CachedLayer { tree, diff_id, files: part("x"), nodes: part(NODES_TYPE) };
    let content = CacheContent { records: vec![record], layers: vec![layer] };
    write(&content).expect("it is small")
}

/// A store with the contents of a tree's files, and the tree.
fn tree(store: &MemoryStore) -> RootId {
    let blob = BlobId::of(b"x");
    store.put_blobs(&[(blob, "x".into())]).expect("its own bytes");
    let meta = Meta::root_owned(0o644, Mtime { seconds: 1, nanos: 2 });
    let name = FileName::new(b"file").expect("a name");
    let node = Node::File { blob, size: 1, link: None };
    let dir = Dir::new(vec![Entry { name, meta: meta.clone(), node }]).seal();
    let (id, bytes) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[dir.bytes, bytes]).expect("all is there");
    id
}

impl Target for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let Written { manifest, config } = written();
        let store = MemoryStore::new();
        let id = tree(&store);
        let mut plain = b"slipway tree 1\n".to_vec();
        for node in [store.node(&id.0).expect("put").dirs()[0].tree, id.0] {
            let bytes = store.node_bytes(&node).expect("put");
            plain.extend((bytes.len() as u32).to_le_bytes());
            plain.extend(bytes.iter());
        }
        let packed = nodes::pack(&store, &id).expect("all is there");
        let packed = store.read(&packed.blob).expect("just packed").to_vec();
        vec![manifest.bytes.to_vec(), config.bytes.to_vec(), plain, packed]
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let of = written();
        let manifest = Named::read(input).is_ok();
        let mut named = Named::read(&of.manifest.bytes).expect("written here");
        (named.config.digest, named.config.size) = (sha256(input), input.len() as u64);
        let config = named.content(input);
        if let Ok(content) = &config {
            let again = write(content).expect("no larger than what was read");
            let read =
                Named::read(&again.manifest.bytes).and_then(|n| n.content(&again.config.bytes));
            assert_eq!(read.as_ref(), Ok(content));
        }
        let store = MemoryStore::new();
        let id = tree(&store);
        let nodes = match nodes::unpack(&store, &id, input) {
            Ok(last) => {
                store.node(&last).expect("what was put");
                true
            }
            Err(e) => {
                assert!(!e.to_string().is_empty());
                false
            }
        };
        manifest || config.is_ok() || nodes
    }
}
