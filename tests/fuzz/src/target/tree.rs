//! Nodes of trees.

use super::Target;
use proto::id::{BlobId, ContentDigest, TreeId};
use proto::path::FileName;
use proto::tree::{
    AnyNode, Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Summary, Unlisted,
    Xattrs, node_id,
};

pub struct Tree;

const WORDS: &[&[u8]] = &[
    b"\0\0",
    b"\xff\xff",
    b"\x01\0",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"..",
    b"/",
    b".",
    b"\x01",
    b"\x02",
    b"\x07",
    b"\x08",
    b"\xff\x0f",
];

impl Target for Tree {
    fn name(&self) -> &'static str {
        "tree"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let dir = Dir::new(entries());
        let sealed = dir.seal();
        let meta = Meta::root_owned(0o755, Mtime::default());
        let root = Root { meta, dir: sealed.dir, presence: Presence::Merge };
        let one = |entry: Entry| Dir::new(vec![entry]).seal().bytes;
        let mut seeds: Vec<Vec<u8>> = entries().into_iter().map(one).collect();
        seeds.extend([sealed.bytes, root.seal().1, Dir::default().seal().bytes]);
        seeds
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let Ok(node) = AnyNode::decode(input) else { return false };
        // There is one encoding of a node only, or else one directory had several names.
        let bytes = match &node {
            AnyNode::Dir(dir) => {
                let sealed = dir.seal();
                assert_eq!(sealed.dir.summary, dir.summary());
                sealed.bytes
            }
            AnyNode::Root(root) => root.seal().1,
        };
        assert!(bytes == input, "it was read, and written otherwise");
        assert!(node.dirs().len() + node.blobs().len() <= input.len());
        let _ = node.dir_ref(node_id(input));
        true
    }
}

fn entries() -> Vec<Entry> {
    let blob = BlobId::from_bytes([1; 32]);
    let link = LinkId::of(&[b"x"]);
    let dir = DirRef {
        tree: TreeId::from_bytes([2; 32]),
        content: ContentDigest::from_bytes([3; 32]),
        summary: Summary { entries: 3, bytes: 5, remade: true, marks: false },
    };
    let nodes = [
        Node::File { blob, size: 7, link: None },
        Node::File { blob, size: 7, link: Some(link) },
        Node::Dir(dir, Presence::Merge),
        Node::Dir(dir, Presence::Unlisted),
        Node::Symlink(b"../x".to_vec()),
        Node::Fifo,
        Node::Whiteout,
        Node::Relink(None),
        Node::Relink(Some(link)),
        Node::Fifo.with_link(Some(link)),
        Node::Symlink(b"y".to_vec()).with_link(Some(link)),
        Node::Unlisted(Unlisted::Symlink(b"x".to_vec())),
        Node::Unlisted(Unlisted::File { blob, size: 7, link: Some(link) }),
    ];
    let entry = |(at, node): (usize, Node)| Entry {
        name: FileName::new(format!("name{at}").as_bytes()).expect("a name"),
        meta: Meta {
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: Mtime { seconds: -1, nanos: 999_999_999 },
            xattrs: Xattrs::new([(b"user.a".to_vec(), b"b".to_vec())]),
        },
        node,
    };
    nodes.into_iter().enumerate().map(entry).collect()
}
