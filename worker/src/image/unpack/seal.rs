//! From the grown tree to nodes.

use super::error::{BadArchive, UnpackError};
use super::parts::Part;
use super::tree::{Child, DirSlot, Group, Growing, Leaf, LeafNode, Slot, SlotId};
use cache::store::Store;
use cache::tree::apply::implied_meta;
use cache::tree::parts;
use proto::id::{OciDigest, RootId};
use proto::limit;
use proto::path::NameError;
use proto::tree::{Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root};

/// Stores the nodes of a layer's tree.
pub(super) fn seal_layer(
    store: &dyn Store,
    what: &str,
    tree: Growing,
    digest: &OciDigest,
) -> Result<RootId, UnpackError> {
    let mut sealing = Sealing { store, what, nodes: Vec::new(), bytes: 0 };
    let top = sealing.tree(tree, digest.as_bytes())?;
    sealing.root(top)
}

/// Stores the nodes of an archive's parts. One part alone is the archive.
pub(super) fn seal_archive(
    store: &dyn Store,
    what: &str,
    parts: Vec<Part>,
    digest: &OciDigest,
) -> Result<RootId, UnpackError> {
    let mut sealing = Sealing { store, what, nodes: Vec::new(), bytes: 0 };
    let several = parts.len() > 1;
    let mut sealed = Vec::with_capacity(parts.len());
    for (number, part) in parts.into_iter().enumerate() {
        let number = number as u64;
        let salt = [digest.as_bytes(), &number.to_le_bytes()[..]].concat();
        match part {
            Part::Tree(tree) => {
                let top = sealing.tree(tree, &salt)?;
                if !several {
                    return sealing.root(top);
                }
                sealed.push(parts::Part::Tree(top.meta, top.dir));
            }
            Part::Link(link) => {
                let Some((part, nodes)) = parts::Part::link(&link) else { continue };
                for node in nodes {
                    sealing.put(node)?;
                }
                sealed.push(part);
            }
        }
    }
    let why = |e: NameError| BadArchive::Name { path: what.to_owned(), why: e.into() };
    let bad = |e| UnpackError::Archive { what: what.to_owned(), why: why(e) };
    let (root, nodes) = parts::seal(&sealed).map_err(bad)?;
    for node in nodes {
        sealing.put(node)?;
    }
    sealing.flush()?;
    Ok(root)
}

/// The directory at the top of a tree.
struct Top {
    meta: Option<Meta>,
    opaque: bool,
    dir: DirRef,
}

/// Nodes on their way into the store, children first.
struct Sealing<'a> {
    store: &'a dyn Store,
    what: &'a str,
    nodes: Vec<Vec<u8>>,
    bytes: usize,
}

impl Sealing<'_> {
    fn put(&mut self, node: Vec<u8>) -> Result<(), UnpackError> {
        self.bytes += node.len();
        self.nodes.push(node);
        if self.bytes >= limit::BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), UnpackError> {
        self.bytes = 0;
        Ok(self.store.put_nodes(&std::mem::take(&mut self.nodes))?)
    }

    fn root(mut self, top: Top) -> Result<RootId, UnpackError> {
        let presence = presence(&top.meta, top.opaque, false);
        let meta = top.meta.unwrap_or_else(implied_meta);
        let (root, encoded) = Root { meta, dir: top.dir, presence }.seal();
        self.put(encoded)?;
        self.flush()?;
        Ok(root)
    }

    /// `salt` names the tree: links of two trees are never in one group.
    fn tree(&mut self, mut tree: Growing, salt: &[u8]) -> Result<Top, UnpackError> {
        let mut sealed: Vec<Option<DirRef>> = vec![None; tree.slots.len()];
        for id in (0..tree.slots.len()).rev() {
            let slot = std::mem::replace(&mut tree.slots[id], Slot::Gone);
            let Slot::Dir(dir) = slot else {
                // Leaves are taken when their directory is, which stands before them.
                tree.slots[id] = slot;
                continue;
            };
            let (meta, opaque) = (dir.meta, dir.opaque);
            let node = entries(&mut tree, &sealed, dir.children, salt).seal();
            if node.bytes.len() > limit::NODE_BYTES_MAX {
                let why = BadArchive::TooMuch("128 MiB of names in one directory");
                return Err(UnpackError::Archive { what: self.what.to_owned(), why });
            }
            sealed[id] = Some(node.dir);
            // What the parent needs to know.
            tree.slots[id] = Slot::Dir(DirSlot { meta, opaque, ..DirSlot::default() });
            self.put(node.bytes)?;
        }
        let Slot::Dir(DirSlot { meta, opaque, .. }) = &tree.slots[0] else {
            unreachable!("the root is a directory")
        };
        let dir = sealed[0].expect("the root was sealed last");
        Ok(Top { meta: meta.clone(), opaque: *opaque, dir })
    }
}

fn presence(meta: &Option<Meta>, opaque: bool, hides: bool) -> Presence {
    match (opaque || hides, meta) {
        (true, _) => Presence::Opaque,
        (false, Some(_)) => Presence::Merge,
        (false, None) => Presence::Implicit,
    }
}

fn entries(
    tree: &mut Growing,
    sealed: &[Option<DirRef>],
    children: std::collections::BTreeMap<proto::path::FileName, Child>,
    salt: &[u8],
) -> Dir {
    let mut entries = Vec::with_capacity(children.len());
    for (name, child) in children {
        let Some(id) = child.slot else {
            let meta = Meta::root_owned(0, Mtime::default());
            entries.push(Entry { name, meta, node: Node::Whiteout });
            continue;
        };
        let (meta, node) = node(tree, sealed, id, child.hides, salt);
        entries.push(Entry { name, meta, node });
    }
    Dir::new(entries)
}

fn node(
    tree: &mut Growing,
    sealed: &[Option<DirRef>],
    id: SlotId,
    hides: bool,
    salt: &[u8],
) -> (Meta, Node) {
    match std::mem::replace(&mut tree.slots[id as usize], Slot::Gone) {
        Slot::Dir(dir) => {
            let node = sealed[id as usize].expect("a directory stands before what is in it");
            let presence = presence(&dir.meta, dir.opaque, hides);
            (dir.meta.unwrap_or_else(implied_meta), Node::Dir(node, presence))
        }
        Slot::Leaf(Leaf { mut meta, node, group }) => {
            if let Some(Group::Own(group)) = &group
                && let Some(described) = tree.described.get(group)
            {
                meta = described.clone();
            }
            let link = group.and_then(|group| match group {
                Group::Below(link) => Some(link),
                // One name alone is no group.
                Group::Own(group) if tree.groups[group as usize] < 2 => None,
                Group::Own(group) => Some(LinkId::of(&[b"archive", salt, &group.to_le_bytes()])),
            });
            let node = match node {
                LeafNode::File(blob, size) => Node::File { blob, size, link: None },
                LeafNode::Symlink(target) => Node::Symlink(target.into_vec()),
                LeafNode::Char(major, minor) => Node::Char(major, minor),
                LeafNode::Block(major, minor) => Node::Block(major, minor),
                LeafNode::Fifo => Node::Fifo,
            };
            (meta, node.with_link(link))
        }
        Slot::Gone => unreachable!("what was replaced is no child any more"),
    }
}
