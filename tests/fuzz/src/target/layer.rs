//! Layers of images, and archives that ADD unpacks into a tree.

use super::Target;
use cache::store::memory::MemoryStore;
use cache::store::{Store, StoreNodes};
use cache::tree::graft;
use proto::id::{BlobId, RootId, TreeId};
use proto::path::FileName;
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use std::io::{BufReader, Write};
use worker::image::tape::{END, Head, Kind, encode, padding};
use worker::image::unpack::{Reading, decoder, unpack};

pub struct Layer;

const WORDS: &[&[u8]] = &[
    b"..",
    b"../",
    b"/",
    b".wh.",
    b".wh..wh..opq",
    b"./",
    b"ustar\0",
    b"ustar  \0",
    b"0000000",
    b"7777777",
    b"\x80\0\0\0",
    b"\xff\xff\xff\xff",
    b"17 path=",
    b"\n",
    b"PaxHeader",
    b"././@LongLink",
    b"K",
    b"L",
    b"x",
    b"g",
    b"5",
    b"2",
    b"1",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"SCHILY.xattr.user.a=",
    b"GNU.sparse.map=",
    b"size=",
];

impl Target for Layer {
    fn name(&self) -> &'static str {
        "layer"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let plain = [
            entry("dir/", Kind::Dir, "", b""),
            entry("dir/file", Kind::File, "", b"some text\n"),
            entry("dir/link", Kind::Symlink, "../dir", b""),
            entry("dir/link/through", Kind::File, "", b"x"),
            entry("hard", Kind::HardLink, "dir/file", b""),
            entry("dir/.wh.gone", Kind::File, "", b""),
            entry("dir/.wh..wh..opq", Kind::File, "", b""),
            END.to_vec(),
        ];
        let long = [entry(&"long/".repeat(60), Kind::Dir, "", b""), END.to_vec()].concat();
        let all = plain.concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&all).expect("memory takes all");
        let gzip = gzip.finish().expect("memory takes all");
        let twice = [gzip.clone(), gzip.clone()].concat();
        let through = [
            entry("to/a/file", Kind::File, "", b"1"),
            entry("own", Kind::Symlink, "to/a", b""),
            entry("own/deep/", Kind::Dir, "", b""),
            entry("dir/../old", Kind::HardLink, "file", b""),
            entry("to", Kind::Dir, "", b""),
            entry("more", Kind::HardLink, "old", b""),
            END.to_vec(),
        ];
        vec![all, long, END.to_vec(), gzip, twice, through.concat()]
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let layer = Reading::Layer { diff_id: None, lower: None };
        let [first, _] = [layer, Reading::Archive].map(|reading| {
            let store = MemoryStore::new();
            let Ok((_, plain)) = decoder(BufReader::new(input)) else { return false };
            match unpack(&store, "The layer", plain, reading) {
                Ok(unpacked) => {
                    whole(&store, unpacked.root.0, 0);
                    if let Reading::Archive = reading {
                        added(&store, &unpacked.root);
                    }
                    true
                }
                Err(e) => {
                    assert!(!e.to_string().is_empty());
                    false
                }
            }
        });
        first
    }
}

/// Puts an archive into a tree with a directory, a file, and links to both and to nothing.
fn added(store: &MemoryStore, archive: &RootId) {
    let text = BlobId::of(b"old");
    store.put_blobs(&[(text, b"old"[..].into())]).expect("memory");
    let entry = |name: &str, node| {
        let name = FileName::new(name.as_bytes()).expect("a name");
        Entry { name, meta: Meta::root_owned(0o2755, Mtime::default()), node }
    };
    let inner = Dir::default().seal();
    let top = Dir::new(vec![
        entry("a", Node::Symlink(b"nowhere".to_vec())),
        entry("dir", Node::Dir(inner.dir, Presence::Merge)),
        entry("file", Node::File { blob: text, size: 3, link: None }),
        entry("link", Node::Symlink(b"file".to_vec())),
        entry("to", Node::Symlink(b"dir".to_vec())),
    ])
    .seal();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (base, root) = Root { meta, dir: top.dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[inner.bytes, top.bytes, root]).expect("nodes that fit");
    match graft::unpack(&StoreNodes(store), &base, archive) {
        Ok(change) => {
            store.put_nodes(&change.made.into_nodes()).expect("nodes that fit");
            whole(store, change.root.0, 0);
            whole(store, change.diff.0, 0);
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}

/// Everything that a tree names is there.
fn whole(store: &MemoryStore, tree: TreeId, depth: usize) {
    assert!(depth <= proto::limit::TREE_DEPTH_MAX);
    let node = store.node(&tree).expect("a node that was made");
    for (blob, size) in node.blobs() {
        let bytes = store.read(&blob).expect("a blob that was made");
        assert_eq!(bytes.len() as u64, size);
    }
    node.dirs().iter().for_each(|dir| whole(store, dir.tree, depth + 1));
}

fn entry(path: &str, kind: Kind, link: &str, content: &[u8]) -> Vec<u8> {
    let head = Head {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Mtime { seconds: 7, nanos: 5 },
        link: link.into(),
        size: content.len() as u64,
        device: (0, 0),
        xattrs: Vec::new(),
    };
    [encode(&head), content.to_vec(), END[..padding(content.len() as u64)].to_vec()].concat()
}
