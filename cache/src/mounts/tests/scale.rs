//! Large caches: what is alike is not looked at; and deep ones.

use crate::mounts::{Deletes, Policy, Rules, admit, trim, union};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreNodes};
use crate::tree::{Nodes, TreeError};
use bytes::Bytes;
use proto::id::{BlobId, RootId, TreeId};
use proto::limit::CACHE_MOUNT_DEPTH_MAX;
use proto::path::FileName;
use proto::tree::{AnyNode, Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root};
use std::cell::Cell;
use std::sync::Arc;

/// Counts what is read.
struct Counting<'s> {
    nodes: StoreNodes<'s>,
    reads: Cell<usize>,
}

impl<'s> Counting<'s> {
    fn new(store: &'s MemoryStore) -> Self {
        Self { nodes: StoreNodes(store), reads: Cell::new(0) }
    }
}

impl Nodes for Counting<'_> {
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, TreeError> {
        self.reads.set(self.reads.get() + 1);
        self.nodes.node(id)
    }

    fn blob(&self, id: &BlobId) -> Result<Bytes, TreeError> {
        self.nodes.blob(id)
    }

    fn archive(&self, id: &BlobId) -> Result<Option<RootId>, TreeError> {
        self.nodes.archive(id)
    }
}

fn file(store: &MemoryStore, name: &str, text: &str) -> Entry {
    let blob = BlobId::of(text.as_bytes());
    store.put_blobs(&[(blob, Bytes::from(text.to_owned()))]).unwrap();
    let node = Node::File { blob, size: text.len() as u64, link: None };
    let meta = Meta::root_owned(0o644, Mtime { seconds: text.len() as i64, nanos: 0 });
    Entry { name: FileName::new(name.as_bytes()).unwrap(), meta, node }
}

fn dir(name: &str, dir: DirRef) -> Entry {
    let meta = Meta::root_owned(0o755, Mtime::default());
    let node = Node::Dir(dir, Presence::Merge);
    Entry { name: FileName::new(name.as_bytes()).unwrap(), meta, node }
}

fn seal(store: &MemoryStore, entries: Vec<Entry>) -> DirRef {
    let sealed = Dir::new(entries).seal();
    store.put_nodes(&[sealed.bytes]).unwrap();
    sealed.dir
}

fn root(store: &MemoryStore, dir: DirRef) -> RootId {
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (id, bytes) = Root { meta, dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[bytes]).unwrap();
    id
}

/// 256 directories of 400 files; in each of `changed` one file is another.
fn cache(store: &MemoryStore, changed: &[usize], text: &str) -> RootId {
    let files: Vec<Entry> = (0..400).map(|n| file(store, &format!("{n:03}"), "x")).collect();
    let top = (0..256).map(|n| {
        let mut files = files.clone();
        files.push(file(store, "own", &n.to_string()));
        if changed.contains(&n) {
            files[n] = file(store, &format!("{n:03}"), text);
            files.push(file(store, text, text));
        }
        dir(&format!("{n:02x}"), seal(store, files))
    });
    root(store, seal(store, top.collect()))
}

#[test]
fn what_two_trees_share_is_not_read() {
    let store = MemoryStore::new();
    let base = cache(&store, &[], "");
    let theirs: Vec<usize> = (100..110).collect();
    let mine: Vec<usize> = (105..115).collect();
    let (theirs, mine) = (cache(&store, &theirs, "theirs"), cache(&store, &mine, "mine"));
    let files = crate::tree::root(&StoreNodes(&store), &base).unwrap().dir.summary.entries;
    assert_eq!(files, 256 * 402);

    let rules = Rules::of("", "/root/.cache/go-build");
    assert_eq!((rules.policy(), rules.deletes()), (Policy::Union, Deletes::Keep));
    let counting = Counting::new(&store);
    let united = union(&counting, &rules, Some(&base), &theirs, &mine).unwrap();
    // Three trees, each with its root, its top directory, and the 15 that one side changed.
    assert_eq!(counting.reads.get(), 3 * (2 + 15));
    // Five that both changed, the top directory and the root are new.
    assert_eq!(united.conflicts, 5);
    let made = united.made.into_nodes();
    assert_eq!(made.len(), 5 + 2);
    store.put_nodes(&made).unwrap();

    let counting = Counting::new(&store);
    let admitted = admit(&counting, &rules, Some(&base), &mine).unwrap();
    assert_eq!(admitted.tree, mine);
    assert_eq!(counting.reads.get(), 2 * (2 + 10));
    let counting = Counting::new(&store);
    trim(&counting, &rules, &united.tree, 1 << 20).unwrap();
    assert_eq!(counting.reads.get(), 1, "below the cap only the root is read");
}

/// As deep as trees can be, on the stack that a thread of a test has.
#[test]
fn the_deepest_trees_are_merged() {
    let store = MemoryStore::new();
    let deeper = |levels: usize, text: &str| {
        let bottom = seal(&store, vec![file(&store, text, text)]);
        let step = |below, _| seal(&store, vec![dir("d", below)]);
        root(&store, (0..levels).fold(bottom, step))
    };
    let deep = |text: &str| deeper(CACHE_MOUNT_DEPTH_MAX, text);
    let (base, theirs, mine) = (deep("base"), deep("theirs"), deep("mine"));
    let nodes = StoreNodes(&store);
    let rules = Rules::of("", "/root/.cache/go-build");
    assert!(admit(&nodes, &rules, Some(&base), &mine).is_ok());
    let united = union(&nodes, &rules, Some(&base), &theirs, &mine).unwrap();
    store.put_nodes(&united.made.into_nodes()).unwrap();
    let trimmed = trim(&nodes, &rules, &united.tree, 9).unwrap();
    // The shorter text is the older file.
    assert_eq!((trimmed.bytes, trimmed.removed_bytes), (6, 4));
    store.put_nodes(&trimmed.made.into_nodes()).unwrap();
    let all = trim(&nodes, &rules, &united.tree, 0).unwrap();
    assert_eq!((all.bytes, all.removed.count()), (0, 2));

    let [a, b] = ["a", "b"].map(|text| deeper(CACHE_MOUNT_DEPTH_MAX + 1, text));
    for error in [
        admit(&nodes, &rules, None, &a).expect_err("too deep"),
        union(&nodes, &rules, None, &a, &b).expect_err("too deep"),
        trim(&nodes, &rules, &a, 0).expect_err("too deep"),
    ] {
        assert!(error.to_string().contains("at most 256 directories"), "{error}");
    }
}
