use super::*;
use crate::image::sha::sha256;
use crate::image::unpack::{Reading, unpack};
use cache::store::memory::MemoryStore;
use cache::store::{PackedBlock, StoreNodes};
use cache::tree::apply::archived;
use proptest::prelude::*;
use proto::id::BlobId;
use proto::path::FileName;
use proto::tree::{
    AnyNode, Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Unlisted, Xattrs,
};
use std::collections::BTreeMap;

/// A tree as a test writes it down.
#[derive(Debug, Clone)]
enum Item {
    Dir(Meta, Presence, BTreeMap<String, Item>),
    Leaf(Meta, Leaf),
}

#[derive(Debug, Clone)]
enum Leaf {
    File(Vec<u8>),
    /// One of a few files that may have several names.
    Linked(u8),
    /// One of a few pipes and links that may have several names.
    Name(u8),
    Symlink(String),
    Char(u32, u32),
    Fifo,
    Socket,
    Whiteout,
    /// A file of a layer below.
    Relink(u8),
    /// A link for steps to come.
    Unlisted(u8),
}

fn meta() -> impl Strategy<Value = Meta> {
    let xattr = prop_oneof![Just("user.a"), Just("security.capability"), Just("user.ü")];
    let xattrs = prop::collection::vec((xattr, prop::collection::vec(any::<u8>(), 0..20)), 0..2);
    let time = (-5_000_000_000i64..50_000_000_000, 0u32..1_000_000_000);
    (0u16..0o10000, any::<u32>(), 0u32..5_000_000, time, xattrs).prop_map(
        |(mode, uid, gid, (seconds, nanos), xattrs)| Meta {
            mode,
            uid,
            gid,
            mtime: Mtime { seconds, nanos },
            xattrs: Xattrs::new(xattrs.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), v))),
        },
    )
}

fn item() -> impl Strategy<Value = Item> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1200).prop_map(Leaf::File),
        (0u8..3).prop_map(Leaf::Linked),
        (0u8..3).prop_map(Leaf::Name),
        "[a-zü/]{1,150}".prop_map(Leaf::Symlink),
        (0u32..4096, 0u32..1 << 20).prop_map(|(a, b)| Leaf::Char(a, b)),
        Just(Leaf::Fifo),
        Just(Leaf::Socket),
        Just(Leaf::Whiteout),
        (0u8..3).prop_map(Leaf::Relink),
        any::<u8>().prop_map(Leaf::Unlisted),
    ];
    let leaf = (meta(), leaf).prop_map(|(meta, leaf)| Item::Leaf(meta, leaf));
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = prop_oneof!["[a-c]{1,2}", "[a-z.ü ]{1,60}", "\\.w[a-z]{0,3}"];
        let name = name.prop_filter("dots", |n| n != "." && n != "..");
        let presence = prop::sample::select(vec![
            Presence::Merge,
            Presence::Opaque,
            Presence::Implicit,
            Presence::Unlisted,
        ]);
        (meta(), presence, prop::collection::btree_map(name, inner, 0..6)).prop_map(
            |(meta, presence, children)| {
                // A directory that is not described and holds nothing is not there at all.
                let empty = presence == Presence::Implicit && children.is_empty();
                Item::Dir(meta, if empty { Presence::Merge } else { presence }, children)
            },
        )
    })
}

fn put_dir(store: &MemoryStore, children: &BTreeMap<String, Item>) -> DirRef {
    let entries = children.iter().map(|(name, item)| {
        let (meta, node) = match item {
            Item::Dir(meta, presence, below) => {
                (meta.clone(), Node::Dir(put_dir(store, below), *presence))
            }
            Item::Leaf(meta, leaf) => put_leaf(store, meta, leaf),
        };
        Entry { name: FileName::new(name.as_bytes()).unwrap(), meta, node }
    });
    let sealed = Dir::new(entries.collect()).seal();
    store.put_nodes(&[sealed.bytes]).unwrap();
    sealed.dir
}

fn put_leaf(store: &MemoryStore, meta: &Meta, leaf: &Leaf) -> (Meta, Node) {
    let file = |bytes: &[u8], link| {
        let blob = BlobId::of(bytes);
        store.put_blobs(&[(blob, bytes.to_vec().into())]).unwrap();
        Node::File { blob, size: bytes.len() as u64, link }
    };
    match leaf {
        Leaf::File(bytes) => (meta.clone(), file(bytes, None)),
        // Names of one file have one owner, mode and time.
        Leaf::Linked(n) => {
            let meta = Meta::root_owned(0o640, Mtime { seconds: 9, nanos: 0 });
            (meta, file(&[*n; 9], Some(LinkId::of(&[&[*n]]))))
        }
        Leaf::Name(n) => {
            let meta = Meta::root_owned(0o777, Mtime { seconds: 8, nanos: 0 });
            let node = if *n == 0 { Node::Fifo } else { Node::Symlink(vec![b'a' + n]) };
            (meta, node.with_link(Some(LinkId::of(&[b"name", &[*n]]))))
        }
        Leaf::Symlink(target) => (meta.clone(), Node::Symlink(target.clone().into_bytes())),
        Leaf::Char(major, minor) => (meta.clone(), Node::Char(*major, *minor)),
        Leaf::Fifo => (meta.clone(), Node::Fifo),
        Leaf::Socket => (meta.clone(), Node::Socket),
        Leaf::Whiteout => (meta.clone(), Node::Whiteout),
        Leaf::Relink(n) => (meta.clone(), Node::Relink(Some(LinkId::of(&[&[*n]])))),
        Leaf::Unlisted(n) => (meta.clone(), Node::Unlisted(Unlisted::Symlink(vec![*n]))),
    }
}

fn put_root(store: &MemoryStore, item: &Item) -> RootId {
    let (meta, presence, dir) = match item {
        Item::Dir(meta, presence, below) => (meta.clone(), *presence, put_dir(store, below)),
        leaf => {
            let below = BTreeMap::from([("only".to_owned(), leaf.clone())]);
            (Meta::root_owned(0o755, Mtime::default()), Presence::Implicit, put_dir(store, &below))
        }
    };
    let (id, bytes) = Root { meta, dir, presence }.seal();
    store.put_nodes(&[bytes]).unwrap();
    id
}

/// What a tree is once it has been in an archive: one line for each entry, whole seconds, links as
/// the first name of their group.
fn canonical(store: &MemoryStore, id: &RootId) -> Vec<String> {
    fn walk(s: &MemoryStore, dir: &DirRef, at: &str, out: &mut Vec<(String, Option<LinkId>)>) {
        let AnyNode::Dir(node) = &*s.node(&dir.tree).unwrap() else { panic!() };
        for entry in node.entries() {
            let path = format!("{at}/{}", entry.name);
            let mut meta = entry.meta.clone();
            meta.mtime.nanos = 0;
            match &entry.node {
                Node::Dir(dir, presence) => {
                    let meta = (*presence != Presence::Implicit).then_some(meta);
                    out.push((format!("{path}/ {presence:?} {meta:?}"), None));
                    walk(s, dir, &path, out);
                }
                Node::File { blob, size, link } => {
                    out.push((format!("{path} {blob} {size} {meta:?}"), *link));
                }
                Node::Whiteout => out.push((format!("{path} gone"), None)),
                node => {
                    let alone = node.clone().with_link(None);
                    out.push((format!("{path} {alone:?} {meta:?}"), node.link()));
                }
            }
        }
    }
    let AnyNode::Root(root) = &*store.node(&id.0).unwrap() else { panic!() };
    let mut lines = vec![(format!("{:?}", root.presence), None)];
    walk(store, &root.dir, "", &mut lines);
    let first = |link| lines.iter().position(|(_, l)| *l == Some(link)).unwrap();
    let shared = |link| lines.iter().filter(|(_, l)| *l == Some(link)).count() > 1;
    let name = |(line, link): &(String, Option<LinkId>)| match link {
        Some(link) if shared(*link) => format!("{line} as {}", lines[first(*link)].0),
        _ => line.clone(),
    };
    lines.iter().map(name).collect()
}

fn bytes_of(store: &MemoryStore, layer: &Layer) -> Vec<u8> {
    store.read(&layer.packed.blob).unwrap().to_vec()
}

proptest! {
    #[test]
    fn a_tree_survives_its_layer(item in item(), gzip in any::<bool>()) {
        let store = Arc::new(MemoryStore::new());
        let diff = put_root(&store, &item);
        let how = if gzip { Compression::Gzip(1) } else { Compression::Zstd(1) };
        let layer = Packer::new(store.clone(), 2).layer(&diff, how).unwrap();
        let bytes = bytes_of(&store, &layer);
        prop_assert_eq!(sha256(&bytes), layer.packed.digest);
        let reading = Reading::Layer { diff_id: Some(layer.diff_id), lower: None };
        let back = unpack(&*store, "x", &bytes[..], reading).unwrap();
        let (held, made) = archived(&StoreNodes(&*store), &diff).unwrap();
        store.put_nodes(&made.into_nodes()).unwrap();
        prop_assert_eq!(canonical(&store, &back.root), canonical(&store, &held));
        // What came back makes the same layer again.
        let again = Packer::new(Arc::new(MemoryStore::new()), 1);
        prop_assert!(again.diff_id(&back.root).is_err(), "another store has nothing");
        let again = Packer::new(store.clone(), 1).layer(&back.root, how).unwrap();
        prop_assert_eq!(again, layer);
    }
}

/// A few MB in large and small files.
fn sample(store: &MemoryStore) -> RootId {
    sample_with(store, "f")
}

/// The same, the first file by another name.
fn sample_with(store: &MemoryStore, first: &str) -> RootId {
    let meta = Meta::root_owned(0o644, Mtime { seconds: 1, nanos: 5 });
    let text = |seed: u32, size: usize| -> Vec<u8> {
        (0..size as u32).map(|i| (i.wrapping_mul(seed) >> 7) as u8 & 0x3f).collect()
    };
    let mut children = BTreeMap::new();
    for n in 0..300u32 {
        let size = if n % 100 == 7 { 2_500_000 } else { n as usize * 37 };
        let leaf = Item::Leaf(meta.clone(), Leaf::File(text(n, size)));
        children.insert(if n == 0 { first.to_owned() } else { format!("f{n}") }, leaf);
    }
    let below = Item::Dir(meta.clone(), Presence::Merge, children.clone());
    children.insert("sub".into(), below);
    put_root(store, &Item::Dir(meta, Presence::Implicit, children))
}

#[test]
fn threads_do_not_change_a_byte() {
    for how in [Compression::None, Compression::Gzip(6), Compression::Zstd(3)] {
        let layers = [1, 2, 5, 16].map(|threads| {
            let store = Arc::new(MemoryStore::new());
            let diff = sample(&store);
            let layer = Packer::new(store.clone(), threads).layer(&diff, how).unwrap();
            assert_eq!(sha256(&bytes_of(&store, &layer)), layer.packed.digest);
            layer
        });
        assert!(layers.iter().all(|layer| *layer == layers[0]), "{how:?}");
    }
}

#[test]
fn what_was_made_is_remembered() {
    let store = Arc::new(MemoryStore::new());
    let diff = sample(&store);
    let packer = Packer::new(store.clone(), 2);
    let diff_id = packer.diff_id(&diff).unwrap();
    let key = LayerBlob::key(&diff, Compression::None);
    let row = rows::layer(&*store, &key).unwrap().unwrap();
    assert_eq!(row, LayerBlob { diff_id, packed: None }, "nothing was packed for a diff id");
    let layers: Vec<Layer> = std::thread::scope(|scope| {
        let pack = || packer.layer(&diff, Compression::Gzip(6)).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pack)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(layers.iter().all(|l| *l == layers[0] && l.diff_id == diff_id));
    assert_eq!(store.rows(Table::Layer, b"").unwrap().len(), 2);
    let found = rows::oci_blob(&*store, &layers[0].packed.digest).unwrap().unwrap();
    assert_eq!(found.blob, layers[0].packed.blob);
    let plain = packer.layer(&diff, Compression::None).unwrap();
    assert_eq!((plain.packed.digest, plain.diff_id), (diff_id, diff_id));
    let again = packer.repack(&plain.packed.blob, Compression::Gzip(6)).unwrap();
    assert_eq!(again, layers[0], "packed from the tree or from another layer");
}

#[test]
fn blocks_are_taken_from_the_layers_that_have_them() {
    let how = Compression::Gzip(6);
    let store = Arc::new(MemoryStore::new());
    let packer = Packer::new(store.clone(), 2);
    let first = packer.layer(&sample(&store), how).unwrap();
    let blocks = store.rows(Table::Block, b"").unwrap();
    assert!(blocks.len() > 3, "{}", blocks.len());
    let changed = sample_with(&store, "another");
    let second = packer.layer(&changed, how).unwrap();
    let mut moved = 0;
    for (key, old) in &blocks {
        let now = PackedBlock::from_bytes(&store.row(Table::Block, key).unwrap().unwrap()).unwrap();
        let old = PackedBlock::from_bytes(old).unwrap();
        assert_eq!((now.hash, now.len), (old.hash, old.len));
        assert_eq!(old.layer, first.packed.blob);
        moved += u32::from(now.layer == second.packed.blob);
    }
    assert!(moved + 3 > blocks.len() as u32, "{moved} of {}: those of both", blocks.len());
    let fresh = Arc::new(MemoryStore::new());
    let same = Packer::new(fresh.clone(), 1).layer(&sample_with(&fresh, "another"), how).unwrap();
    assert_eq!(second, same, "known blocks or not: the same bytes");
}

#[test]
fn a_block_that_is_not_what_it_was_is_packed_again() {
    let how = Compression::Gzip(6);
    let fresh = Arc::new(MemoryStore::new());
    let right = Packer::new(fresh.clone(), 1).layer(&sample(&fresh), how).unwrap();
    // Packed otherwise, so that it can be seen whether it is taken.
    let other = BlobId::of(b"other bytes");
    for (hash, len, taken) in
        [(other, 11, true), (other, 10, false), (right.packed.blob, 11, false)]
    {
        let store = Arc::new(MemoryStore::new());
        store.put_blobs(&[(other, "other bytes".into())]).unwrap();
        for (key, _) in fresh.rows(Table::Block, b"").unwrap() {
            let place = PackedBlock { layer: other, size: 11, at: 0, hash, len };
            store.put_row(Table::Block, &key, &place.to_bytes()).unwrap();
        }
        let layer = Packer::new(store.clone(), 1).layer(&sample(&store), how).unwrap();
        assert_eq!(layer != right, taken);
    }
}

#[test]
fn a_tar_of_files_has_rounded_times_and_empty_files_for_sockets() {
    let store = Arc::new(MemoryStore::new());
    let times = [(6, 400_000_000), (6, 500_000_000), (6, 999_999_999), (-2, 500_000_000)];
    let name = |n: usize| FileName::new(format!("s{n}").as_bytes()).unwrap();
    let entry = |(n, (seconds, nanos))| {
        let meta = Meta::root_owned(0o640, Mtime { seconds, nanos });
        Entry { name: name(n), meta, node: Node::Socket }
    };
    let dir = Dir::new(times.into_iter().enumerate().map(entry).collect()).seal();
    store.put_nodes(&[dir.bytes]).unwrap();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (root, bytes) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[bytes]).unwrap();
    let mut tar = Vec::new();
    write_tar(&&*store, vec![Files { prefix: Vec::new(), root, time: None }], &mut tar).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let found: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let head = entry.header();
            assert_eq!((head.entry_type(), entry.size()), (tar::EntryType::Regular, 0));
            head.mtime().unwrap() as i64
        })
        .collect();
    assert_eq!(found[..3], [6, 7, 7]);
    // A layer has neither.
    let layer = Packer::new(store.clone(), 1).layer(&root, Compression::None).unwrap();
    assert!(!bytes_of(&store, &layer).starts_with(b"s0"));
}

#[test]
fn what_a_layer_cannot_hold_is_said() {
    let store = Arc::new(MemoryStore::new());
    let meta = Meta::root_owned(0o644, Mtime::default());
    let one = |name: &str, leaf| {
        let children = BTreeMap::from([(name.to_owned(), Item::Leaf(meta.clone(), leaf))]);
        put_root(&store, &Item::Dir(meta.clone(), Presence::Implicit, children))
    };
    let packer = Packer::new(store.clone(), 1);
    let reserved = one(".wh.x", Leaf::Fifo);
    let error = packer.layer(&reserved, Compression::None).unwrap_err();
    assert_eq!(error.class(), Class::User);
    assert!(error.to_string().starts_with("`.wh.x` cannot be put into a layer"));
    assert!(packer.diff_id(&one("d", Leaf::Char(1 << 30, 0))).is_err());
    let missing = RootId(proto::tree::empty_dir().dir.tree);
    assert!(matches!(packer.diff_id(&missing), Err(PackError::Store(_))));
    let files = |prefix: &[u8], time| Files { prefix: prefix.to_vec(), root: reserved, time };
    let mut tar = Vec::new();
    let trees = vec![files(b"linux_amd64/", None), files(b"linux_arm64/", Some(8))];
    let size = write_tar(&&*store, trees, &mut tar).unwrap();
    assert_eq!((size as usize, tar.len()), (3072, 3072));
    assert!(tar.starts_with(b"linux_amd64/\0") && tar[512..].starts_with(b"linux_amd64/.wh.x\0"));
    let times = [0, 1, 2, 3].map(|head| &tar[head * 512 + 136..][..11]);
    assert_eq!(times, [b"00000000000", b"00000000000", b"00000000010", b"00000000010"]);
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = write_tar(&&*store, vec![files(b"", None)], &mut Full).unwrap_err();
    assert!(matches!(error, PackError::Write(_)));
}
