use super::*;
use crate::image::sha::sha256;
use cache::store::memory::MemoryStore;
use proptest::prelude::*;
use proto::id::BlobId;
use proto::path::FileName;
use proto::tree::{Dir, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Unlisted};

/// What a tar cannot say: parts of seconds, sockets, groups of links by name.
fn tree(store: &MemoryStore) -> RootId {
    let time = Mtime { seconds: 7, nanos: 123_456_789 };
    let meta = || Meta::root_owned(0o4755, time);
    let entry = |name: &str, node| Entry {
        name: FileName::new(name.as_bytes()).unwrap(),
        meta: meta(),
        node,
    };
    let blob = BlobId::of(b"x");
    store.put_blobs(&[(blob, "x".into())]).unwrap();
    let link = Some(LinkId::of(&[b"this one"]));
    let leaf = || Node::File { blob, size: 1, link };
    let inner = Dir::new(vec![entry("a", leaf()), entry("b", leaf())]).seal();
    let outer = Dir::new(vec![
        entry("same", Node::Dir(inner.dir, Presence::Opaque)),
        entry("sock", Node::Socket),
        entry("too", Node::Dir(inner.dir, Presence::Implicit)),
        Entry { meta: Meta::root_owned(0, Mtime::default()), ..entry("gone", Node::Whiteout) },
    ])
    .seal();
    let root = Root { meta: meta(), dir: outer.dir, presence: Presence::Merge };
    let (id, bytes) = root.seal();
    store.put_nodes(&[inner.bytes, outer.bytes, bytes]).unwrap();
    id
}

fn packed_bytes(store: &MemoryStore, id: &RootId) -> Vec<u8> {
    let packed = pack(store, id).unwrap();
    let bytes = store.read(&packed.blob).unwrap();
    assert_eq!((sha256(&bytes), bytes.len() as u64), (packed.digest, packed.size));
    bytes.to_vec()
}

fn decompressed_bytes(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    decompressed(packed, |mut pieces| pieces.read_to_end(&mut plain).unwrap()).unwrap();
    plain
}

fn with_blob() -> MemoryStore {
    let store = MemoryStore::new();
    store.put_blobs(&[(BlobId::of(b"x"), "x".into())]).unwrap();
    store
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let from = MemoryStore::new();
    let id = tree(&from);
    let packed = packed_bytes(&from, &id);
    assert_eq!(packed_bytes(&from, &id), packed, "the same bytes each time");
    let to = with_blob();
    assert_eq!(unpack(&to, &id, &packed[..]).unwrap(), id.0);
    assert_eq!(to.missing_trees(&[id.0]).unwrap(), []);
    let without_files = MemoryStore::new();
    let refused = unpack(&without_files, &id, &packed[..]).unwrap_err();
    assert!(matches!(refused, FetchError::Store(_)), "{refused}");
    assert_eq!(without_files.missing_trees(&[id.0]).unwrap(), [id.0]);
}

#[test]
fn a_tree_whose_bytes_no_archive_has_is_not_packed() {
    let store = with_blob();
    let entry = |node| Entry {
        name: FileName::new(b"f").unwrap(),
        meta: Meta::root_owned(0o644, Mtime::default()),
        node,
    };
    let blob = BlobId::of(b"x");
    for (kept, is_packed) in [
        (Unlisted::Symlink(b"x".to_vec()), true),
        (Unlisted::File { blob, size: 1, link: None }, false),
    ] {
        let dir = Dir::new(vec![entry(Node::Unlisted(kept))]).seal();
        let (meta, presence) = (Meta::root_owned(0o755, Mtime::default()), Presence::Merge);
        let (id, bytes) = Root { meta, dir: dir.dir, presence }.seal();
        store.put_nodes(&[dir.bytes, bytes]).unwrap();
        match pack(&store, &id) {
            Ok(_) => assert!(is_packed),
            Err(e) => assert!(!is_packed && matches!(e, PackError::Name { .. }), "{e}"),
        }
    }
}

#[test]
fn a_tree_that_nobody_would_read_is_not_packed() {
    let store = MemoryStore::new();
    let id = tree(&store);
    let nodes = decompressed_bytes(&packed_bytes(&store, &id)).len() - MAGIC.len();
    assert!(pack_within(&store, &id, nodes as u64).is_ok());
    let refused = pack_within(&store, &id, nodes as u64 - 1).unwrap_err();
    assert!(matches!(refused, PackError::Nodes { .. }), "{refused}");
}

#[test]
fn what_is_cut_off_or_has_other_lengths_is_refused() {
    let from = MemoryStore::new();
    let id = tree(&from);
    let mut plain = MAGIC.to_vec();
    for text in [&b""[..], b"slipway tree 2\n", MAGIC] {
        assert!(unpack(&with_blob(), &id, text).is_err(), "{text:?}");
    }
    plain.extend(u32::MAX.to_le_bytes());
    assert!(unpack(&with_blob(), &id, &plain[..]).is_err());
    // Each of them takes room, and they are as many as zeros can be packed.
    let empty = [MAGIC, &[0; 4000]].concat();
    assert!(unpack(&with_blob(), &id, &empty[..]).is_err());
    let packed = packed_bytes(&from, &id);
    for end in 0..packed.len() {
        assert!(unpack(&with_blob(), &id, &packed[..end]).is_err(), "cut off at {end}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_or_are_another_tree(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_plain in any::<bool>(),
    ) {
        let from = MemoryStore::new();
        let id = tree(&from);
        let packed = packed_bytes(&from, &id);
        let mut bytes = match is_plain {
            true => decompressed_bytes(&packed),
            false => packed,
        };
        let place = at.index(bytes.len());
        let changed = bytes[place] != byte;
        bytes[place] = byte;
        let to = with_blob();
        let read = unpack(&to, &id, &bytes[..]);
        if is_plain && changed {
            prop_assert!(!matches!(read, Ok(last) if last == id.0));
        }
    }
}
