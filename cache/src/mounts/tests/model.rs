//! Trees written down as nested maps, and ways to make random ones.

use crate::mounts::{Action, Deletes, Policy, Row, Rules, TABLE, Trim, group};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreNodes};
use crate::tree::{Made, Nodes, root};
use bytes::Bytes;
use proptest::prelude::*;
use proto::id::{BlobId, RootId};
use proto::path::FileName;
use proto::tree::{AnyNode, Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Xattrs};
use std::collections::BTreeMap;

/// What a directory holds.
pub type Items = BTreeMap<String, Item>;

/// Metadata, as far as they differ here. Their order is the one of the union.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    pub time: i64,
    pub mode: u16,
    pub owner: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    File { at: Stamp, text: String, linked: bool },
    Link { at: Stamp, target: String },
    Other { at: Stamp, node: Node },
    Dir { at: Stamp, items: Items },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    pub at: Stamp,
    pub items: Items,
}

impl Item {
    pub fn is_dir(&self) -> bool {
        matches!(self, Item::Dir { .. })
    }

    pub fn at(&self) -> Stamp {
        match self {
            Item::File { at, .. } | Item::Link { at, .. } => *at,
            Item::Other { at, .. } | Item::Dir { at, .. } => *at,
        }
    }

    pub fn at_mut(&mut self) -> &mut Stamp {
        match self {
            Item::File { at, .. } | Item::Link { at, .. } => at,
            Item::Other { at, .. } | Item::Dir { at, .. } => at,
        }
    }
}

/// A file of root's.
pub fn file(time: i64, text: &str) -> Item {
    let at = Stamp { time, mode: 0o644, owner: 0 };
    Item::File { at, text: text.to_owned(), linked: false }
}

impl Tree {
    /// Files at these paths, and directories above them.
    pub fn of(files: &[(&str, Item)]) -> Self {
        let mut tree = Tree { at: Stamp { time: 0, mode: 0o755, owner: 0 }, ..Tree::default() };
        for (path, item) in files {
            tree.put(path, item.clone());
        }
        tree
    }

    /// Puts an item, in place of what stands in its way.
    pub fn put(&mut self, path: &str, item: Item) {
        let mut at = &mut self.items;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        for name in above.split('/').filter(|name| !name.is_empty()) {
            let empty =
                || Item::Dir { at: Stamp { time: 0, mode: 0o755, owner: 0 }, items: Items::new() };
            let item = at.entry(name.to_owned()).or_insert_with(empty);
            if !item.is_dir() {
                *item = empty();
            }
            let Item::Dir { items, .. } = item else { unreachable!("made a line above") };
            at = items;
        }
        at.insert(name.to_owned(), item);
    }

    pub fn get(&self, path: &str) -> Option<&Item> {
        let mut names = path.split('/');
        let first = self.items.get(names.next()?)?;
        names.try_fold(first, |item, name| match item {
            Item::Dir { items, .. } => items.get(name),
            _ => None,
        })
    }

    fn get_mut(&mut self, path: &str) -> Option<&mut Item> {
        let mut names = path.split('/');
        let first = self.items.get_mut(names.next()?)?;
        names.try_fold(first, |item, name| match item {
            Item::Dir { items, .. } => items.get_mut(name),
            _ => None,
        })
    }

    pub fn remove(&mut self, path: &str) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        match above {
            "" => _ = self.items.remove(name),
            above => {
                if let Some(Item::Dir { items, .. }) = self.get_mut(above) {
                    items.remove(name);
                }
            }
        }
    }

    /// The paths of all that is no directory.
    pub fn paths(&self) -> Vec<String> {
        fn walk(items: &Items, above: &str, out: &mut Vec<String>) {
            for (name, item) in items {
                let path = format!("{above}{name}");
                match item {
                    Item::Dir { items, .. } => walk(items, &format!("{path}/"), out),
                    _ => out.push(path),
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.items, "", &mut out);
        out
    }
}

fn meta(at: Stamp) -> Meta {
    let Stamp { time, mode, owner } = at;
    let mtime = Mtime { seconds: time, nanos: 0 };
    Meta { mode, uid: owner, gid: 7, mtime, xattrs: Xattrs::default() }
}

/// Puts a tree into a store.
pub fn build(store: &MemoryStore, tree: &Tree) -> RootId {
    let dir = build_dir(store, &tree.items);
    let (id, bytes) = Root { meta: meta(tree.at), dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[bytes]).expect("a whole root");
    id
}

fn build_dir(store: &MemoryStore, items: &Items) -> DirRef {
    let entry = |(name, item): (&String, &Item)| {
        let meta = meta(item.at());
        let node = match item {
            Item::File { text, linked, .. } => {
                let (blob, size) = (BlobId::of(text.as_bytes()), text.len() as u64);
                store.put_blobs(&[(blob, Bytes::from(text.clone()))]).expect("a small blob");
                let link = linked.then(|| LinkId::of(&[b"any"]));
                let link = group(&meta, &Node::File { blob, size, link });
                Node::File { blob, size, link }
            }
            Item::Link { target, .. } => Node::Symlink(target.as_bytes().to_vec()),
            Item::Other { node, .. } => node.clone(),
            Item::Dir { items, .. } => Node::Dir(build_dir(store, items), Presence::Merge),
        };
        Entry { name: FileName::new(name.as_bytes()).expect("a name"), meta, node }
    };
    let sealed = Dir::new(items.iter().map(entry).collect()).seal();
    store.put_nodes(&[sealed.bytes]).expect("a whole node");
    sealed.dir
}

/// Reads a tree back.
pub fn read(store: &MemoryStore, id: &RootId) -> Tree {
    let root = root(&StoreNodes(store), id).expect("a root");
    Tree { at: stamp(&root.meta), items: read_dir(store, &root.dir) }
}

fn stamp(meta: &Meta) -> Stamp {
    Stamp { time: meta.mtime.seconds, mode: meta.mode, owner: meta.uid }
}

fn read_dir(store: &MemoryStore, dir: &DirRef) -> Items {
    let node = StoreNodes(store).node(&dir.tree).expect("a node that is there");
    let AnyNode::Dir(entries) = &*node else { panic!("a root inside a tree") };
    let item = |entry: &Entry| {
        let at = stamp(&entry.meta);
        match &entry.node {
            Node::File { blob, link, .. } => {
                let text = store.read(blob).expect("a blob that is there").to_vec();
                let text = String::from_utf8(text).expect("a text");
                let linked = link.is_some();
                assert_eq!(*link, group(&entry.meta, &entry.node), "a group of another file");
                Item::File { at, text, linked }
            }
            Node::Symlink(target) => {
                Item::Link { at, target: String::from_utf8_lossy(target).into_owned() }
            }
            Node::Dir(dir, Presence::Merge) => Item::Dir { at, items: read_dir(store, dir) },
            node => Item::Other { at, node: node.clone() },
        }
    };
    entries.entries().iter().map(|entry| (entry.name.to_string(), item(entry))).collect()
}

/// Puts what was made into the store: it must be whole, in this order.
pub fn keep(store: &MemoryStore, blobs: &[(BlobId, Bytes)], made: Made) {
    store.put_blobs(blobs).expect("small blobs");
    store.put_nodes(&made.into_nodes()).expect("nodes whose children are there");
}

/// Rules of a union with these paths.
pub fn rules(deletes: Deletes, paths: &'static [(Action, &'static str)]) -> Rules {
    let policy = Policy::Union;
    Rules::test(Row { policy, deletes, paths, packages: &[], trim: Trim::Oldest, ..TABLE[0] })
}

/// One change of a writer.
#[derive(Debug, Clone)]
pub enum Edit {
    Put(Item),
    Remove,
    Touch(Stamp),
}

fn stamps() -> impl Strategy<Value = Stamp> {
    let mode = prop_oneof![Just(0o644), Just(0o600)];
    (0i64..3, mode, 0u32..2).prop_map(|(time, mode, owner)| Stamp { time, mode, owner })
}

/// Names, some of which have rules in some tests.
fn paths() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "lines", "newer", "theirs"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn leaves() -> impl Strategy<Value = Item> {
    let text = prop::sample::select(vec!["", "1\n", "2\n", "1\n2\n", "x"]);
    let file = (stamps(), text, any::<bool>()).prop_map(|(at, text, linked)| Item::File {
        at,
        text: text.to_owned(),
        linked,
    });
    let link = (stamps(), prop::sample::select(vec!["a", "1\n"]))
        .prop_map(|(at, target)| Item::Link { at, target: target.to_owned() });
    prop_oneof![4 => file, 1 => link]
}

fn edits() -> impl Strategy<Value = Edit> {
    let empty = stamps().prop_map(|at| Item::Dir { at, items: Items::new() });
    prop_oneof![
        6 => leaves().prop_map(Edit::Put),
        1 => empty.prop_map(Edit::Put),
        3 => Just(Edit::Remove),
        2 => stamps().prop_map(Edit::Touch),
    ]
}

fn lists(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(String, Edit)>> {
    prop::collection::vec((paths(), edits()), len)
}

/// The tree after these changes. Texts under `lines` only grow.
pub fn edited(base: &Tree, edits: &[(String, Edit)]) -> Tree {
    let mut tree = base.clone();
    for (path, edit) in edits {
        match edit {
            Edit::Put(item) => {
                let mut item = item.clone();
                if let (Item::File { text, .. }, Some(Item::File { text: old, .. })) =
                    (&mut item, base.get(path))
                    && path.split('/').any(|name| name == "lines")
                {
                    let ends = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
                    *text = format!("{old}{ends}{text}+\n");
                }
                tree.put(path, item);
            }
            Edit::Remove => tree.remove(path),
            Edit::Touch(at) => {
                if let Some(item) = tree.get_mut(path) {
                    *item.at_mut() = *at;
                }
            }
        }
    }
    tree
}

/// A base, and `writers` trees that were made of it.
pub fn writers(writers: usize) -> impl Strategy<Value = (Tree, Vec<Tree>)> {
    (lists(0..8), prop::collection::vec((stamps(), any::<bool>(), lists(0..6)), writers)).prop_map(
        |(first, writers)| {
            let base = edited(&Tree::of(&[]), &first);
            let tree = |(at, touched, list): &(Stamp, bool, Vec<(String, Edit)>)| {
                let mut tree = edited(&base, list);
                if *touched {
                    tree.at = *at;
                }
                tree
            };
            let trees = writers.iter().map(tree).collect();
            (base, trees)
        },
    )
}
