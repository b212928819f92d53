//! The first thing in which what a step takes from a tree differs between two trees, for people.
//! What is in no key is no difference: times, and attributes that belong to the machine.

use super::nodes::{Made, Nodes, TreeError, dir};
use super::select::{Item, Picked, select};
use bytes::Bytes;
use proto::id::{BlobId, RootId, TreeId};
use proto::path::clamp;
use proto::step::{CopySource, Unpack};
use proto::tree::{
    AnyNode, Dir, DirRef, Entry, Meta, Node, Presence, content_digest, is_host_xattr,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where, from the tree's root.
    pub path: Vec<u8>,
    /// What.
    pub what: What,
}

/// What differs at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is there now.
    Added,
    /// It is gone.
    Removed,
    /// It is of another kind: a directory in place of a file.
    Kind,
    /// A file has other bytes.
    Content,
    /// A link leads elsewhere.
    Target,
    /// A device has another number.
    Device,
    /// It has other permission bits: before, now.
    Mode(u16, u16),
    /// It belongs to others: user and group before, now.
    Owner((u32, u32), (u32, u32)),
    /// It has other extended attributes.
    Attributes,
    /// It shares its bytes with other names than before.
    Names,
}

/// The first difference in what `what` takes from two trees, in the order of names; none when it
/// takes the same.
pub fn first(
    nodes: &dyn Nodes,
    before: &RootId,
    now: &RootId,
    what: &CopySource,
    parents: bool,
    exclude: &[String],
) -> Result<Option<Change>, TreeError> {
    // An archive that differs is a file that differs.
    let what = CopySource { unpack: Unpack::Never, ..what.clone() };
    let way = way_to(what.path.as_bytes(), parents);
    let old = match select(nodes, before, &what, parents, exclude) {
        Ok(old) => old,
        Err(TreeError::NotFound(_)) => {
            let path = clamp(what.path.as_bytes()).join(&b'/');
            return Ok(Some(Change { path, what: What::Added }));
        }
        Err(e) => return Err(e),
    };
    let new = select(nodes, now, &what, parents, exclude)?;
    let nodes = With { nodes, made: [&old.made, &new.made] };
    Looked { nodes: &nodes }.lists(&way, &selected(&old.items), &selected(&new.items))
}

/// The directories in which the selected things lie, as far as the path says them.
fn way_to(path: &[u8], parents: bool) -> Vec<u8> {
    let pivot = path.windows(3).position(|w| w == b"/./").filter(|_| parents);
    let parts = clamp(&path[..pivot.unwrap_or(path.len())]);
    let wild = |part: &&[u8]| !part.iter().any(|c| b"*?[\\".contains(c));
    let plain: Vec<&[u8]> = parts.iter().copied().take_while(wild).collect();
    let above = match (pivot, parents) {
        (Some(_), _) => plain.len(),
        (None, true) => 0,
        (None, false) => plain.len().min(parts.len().saturating_sub(1)),
    };
    plain[..above].join(&b'/')
}

/// Nodes, those among them that were made on the way.
struct With<'n> {
    nodes: &'n dyn Nodes,
    made: [&'n Made; 2],
}

impl Nodes for With<'_> {
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, TreeError> {
        match self.made.iter().find_map(|made| made.get(id)) {
            Some(node) => Ok(node.clone()),
            None => self.nodes.node(id),
        }
    }

    fn blob(&self, id: &BlobId) -> Result<Bytes, TreeError> {
        self.nodes.blob(id)
    }

    fn archive(&self, id: &BlobId) -> Result<Option<RootId>, TreeError> {
        self.nodes.archive(id)
    }
}

/// One thing of a tree.
struct Thing {
    meta: Meta,
    node: Node,
}

/// Things by their names; without a name, the tree itself.
type Things = BTreeMap<Vec<u8>, Thing>;

struct Looked<'n> {
    nodes: &'n dyn Nodes,
}

impl Looked<'_> {
    fn dirs(&self, at: &[u8], old: &DirRef, new: &DirRef) -> Result<Option<Change>, TreeError> {
        let (old, new) = (dir(self.nodes, &old.tree)?, dir(self.nodes, &new.tree)?);
        let things = |dir: &Dir| -> Things {
            let thing = |e: &Entry| Thing { meta: e.meta.clone(), node: e.node.clone() };
            let entries = dir.entries().iter();
            entries.map(|entry| (entry.name.as_bytes().to_vec(), thing(entry))).collect()
        };
        self.lists(at, &things(&old), &things(&new))
    }

    fn lists(&self, at: &[u8], old: &Things, new: &Things) -> Result<Option<Change>, TreeError> {
        let names: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
        for name in names {
            let path = match at.is_empty() || name.is_empty() {
                true => [at, name].concat(),
                false => [at, b"/", name].concat(),
            };
            let change = match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) => self.things(&path, old, new)?,
                (Some(_), None) => Some(Change { path, what: What::Removed }),
                (None, _) => Some(Change { path, what: What::Added }),
            };
            if change.is_some() {
                return Ok(change);
            }
        }
        Ok(None)
    }

    fn things(&self, path: &[u8], old: &Thing, new: &Thing) -> Result<Option<Change>, TreeError> {
        if content_digest(&old.meta, &old.node) == content_digest(&new.meta, &new.node) {
            return Ok(None);
        }
        let own = of_node(&old.node, &new.node).or_else(|| of_meta(&old.meta, &new.meta));
        if let Some(what) = own {
            return Ok(Some(Change { path: path.to_vec(), what }));
        }
        match (&old.node, &new.node) {
            (Node::Dir(old, _), Node::Dir(new, _)) => self.dirs(path, old, new),
            _ => Ok(None),
        }
    }
}

fn selected(items: &[Item]) -> Things {
    let thing = |item: &Item| match item.picked.clone() {
        Picked::Dir(meta, dir) => Thing { meta, node: Node::Dir(dir, Presence::Merge) },
        Picked::Leaf(meta, node) => Thing { meta, node },
    };
    let name = |item: &Item| item.name.as_ref().map_or(Vec::new(), |n| n.as_bytes().to_vec());
    items.iter().map(|item| (name(item), thing(item))).collect()
}

fn of_node(old: &Node, new: &Node) -> Option<What> {
    match (old, new) {
        (Node::File { blob: a, link: x, .. }, Node::File { blob: b, link: y, .. }) => {
            if a != b {
                Some(What::Content)
            } else {
                (x != y).then_some(What::Names)
            }
        }
        (Node::Symlink(a), Node::Symlink(b)) => (a != b).then_some(What::Target),
        (Node::Char(a, b), Node::Char(c, d)) | (Node::Block(a, b), Node::Block(c, d)) => {
            ((a, b) != (c, d)).then_some(What::Device)
        }
        (old, new) => {
            let same = std::mem::discriminant(old) == std::mem::discriminant(new);
            (!same).then_some(What::Kind)
        }
    }
}

fn of_meta(old: &Meta, new: &Meta) -> Option<What> {
    let kept = |meta: &Meta| -> Vec<(Vec<u8>, Vec<u8>)> {
        let own = meta.xattrs.iter().filter(|(name, _)| !is_host_xattr(name));
        own.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    };
    if old.mode != new.mode {
        return Some(What::Mode(old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        return Some(What::Owner((old.uid, old.gid), (new.uid, new.gid)));
    }
    (kept(old) != kept(new)).then_some(What::Attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::tests::model::{build, keep, writers};
    use crate::store::StoreNodes;
    use crate::store::memory::MemoryStore;
    use crate::tree::nodes::root;
    use proptest::prelude::*;
    use proto::path::FileName;
    use proto::tree::{Mtime, Root, Xattrs};

    const NOW: Mtime = Mtime { seconds: 1, nanos: 0 };

    fn file(content: &str) -> Node {
        let blob = BlobId::of(content.as_bytes());
        Node::File { blob, size: content.len() as u64, link: None }
    }

    fn entry(name: &str, mode: u16, node: Node) -> Entry {
        let name = FileName::new(name.as_bytes()).unwrap();
        Entry { name, meta: Meta::root_owned(mode, NOW), node }
    }

    /// A tree of `src/lib/a.c`, `src/main.c` and `notes`, changed.
    fn tree(store: &MemoryStore, change: impl Fn(&mut Vec<Entry>, &mut Vec<Entry>)) -> RootId {
        let mut made = Made::default();
        let mut lib = vec![entry("a.c", 0o644, file("a"))];
        let mut src = vec![entry("main.c", 0o644, file("main"))];
        change(&mut src, &mut lib);
        let lib = made.dir(Dir::new(lib));
        src.push(entry("lib", 0o755, Node::Dir(lib, Presence::Merge)));
        let src = made.dir(Dir::new(src));
        let top = vec![
            entry("src", 0o755, Node::Dir(src, Presence::Merge)),
            entry("notes", 0o644, file("notes")),
        ];
        let dir = made.dir(Dir::new(top));
        let meta = Meta::root_owned(0o755, NOW);
        let root = made.root(&Root { meta, dir, presence: Presence::Merge });
        let texts = ["a", "b", "main", "new", "notes", "other"].map(str::as_bytes);
        let blobs = texts.map(|text| (BlobId::of(text), Bytes::from_static(text)));
        keep(store, &blobs, made);
        root
    }

    fn source(path: &str) -> CopySource {
        CopySource { input: 1, path: path.to_owned(), pattern: true, unpack: Unpack::Never }
    }

    #[track_caller]
    fn finds(
        take: &str,
        exclude: &[&str],
        change: impl Fn(&mut Vec<Entry>, &mut Vec<Entry>),
        expected: Option<(&str, What)>,
    ) {
        let store = MemoryStore::default();
        let (before, now) = (tree(&store, |_, _| {}), tree(&store, change));
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let found = first(&StoreNodes(&store), &before, &now, &source(take), false, &exclude);
        let found = found.unwrap();
        let found = found.as_ref().map(|c| (std::str::from_utf8(&c.path).unwrap(), c.what));
        assert_eq!(found, expected, "{take}");
    }

    #[test]
    fn the_first_change_is_named_with_what_it_is() {
        let content = |src: &mut Vec<Entry>, _: &mut Vec<Entry>| src[0].node = file("other");
        let expected = Some(("src/main.c", What::Content));
        for take in [".", "src", "./src/", "src/main.c", "src/*.c", "s*"] {
            finds(take, &[], content, expected);
        }
        finds("notes", &[], content, None);
        finds("src", &["main.c"], content, None);
        finds("src", &["*.h"], content, expected);
        finds(
            ".",
            &[],
            |_, lib| lib[0].meta.mode = 0o755,
            Some(("src/lib/a.c", What::Mode(0o644, 0o755))),
        );
        finds(
            ".",
            &[],
            |_, lib| lib[0].meta.uid = 7,
            Some(("src/lib/a.c", What::Owner((0, 0), (7, 0)))),
        );
        finds("src", &[], |src, _| drop(src.pop()), Some(("src/main.c", What::Removed)));
        finds("src/main.c", &[], |_, lib| lib[0].node = Node::Fifo, None);
        finds("src/lib", &[], |_, lib| lib[0].node = Node::Fifo, Some(("src/lib/a.c", What::Kind)));
        let add =
            |_: &mut Vec<Entry>, lib: &mut Vec<Entry>| lib.push(entry("b.c", 0o644, file("b")));
        finds("src/lib/*.c", &[], add, Some(("src/lib/b.c", What::Added)));
        let link = |src: &mut Vec<Entry>, _: &mut Vec<Entry>| {
            src[0].meta.xattrs = Xattrs::new([(b"user.a".to_vec(), b"1".to_vec())])
        };
        finds(".", &[], link, Some(("src/main.c", What::Attributes)));
        finds(".", &[], |src, _| src[0].meta.mtime = Mtime::default(), None);
    }

    #[test]
    fn a_source_that_was_not_there_is_new() {
        let store = MemoryStore::default();
        let now = tree(&store, |src, _| src.push(entry("new.c", 0o644, file("new"))));
        let before = tree(&store, |_, _| {});
        let what = source("src/new.c");
        let found = first(&StoreNodes(&store), &before, &now, &what, false, &[]).unwrap().unwrap();
        assert_eq!((found.path.as_slice(), found.what), (&b"src/new.c"[..], What::Added));
    }

    proptest! {
        #[test]
        fn there_is_a_change_just_when_contents_differ((from, to) in writers(1)) {
            let store = MemoryStore::default();
            let (from, to) = (build(&store, &from), build(&store, &to[0]));
            let nodes = StoreNodes(&store);
            let found = first(&nodes, &from, &to, &source("/"), false, &[]).unwrap();
            let content = |id: &RootId| root(&nodes, id).unwrap().content();
            prop_assert_eq!(found.is_some(), content(&from) != content(&to), "{:?}", found);
        }
    }
}
