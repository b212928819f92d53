//! From the grown tree to nodes.

use super::error::{BadArchive, UnpackError};
use super::tree::{Child, DirSlot, Group, Growing, Leaf, LeafNode, Slot, SlotId};
use cache::store::Store;
use proto::id::{OciDigest, RootId};
use proto::limit;
use proto::tree::{Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root};

/// The metadata of a directory that an archive needs, but does not describe.
fn implied() -> Meta {
    Meta::root_owned(0o755, Mtime::default())
}

/// Stores the tree's nodes, children first. `salt` names the archive: links of two archives are
/// never in one group.
pub(super) fn seal(
    store: &dyn Store,
    what: &str,
    mut tree: Growing,
    salt: &OciDigest,
) -> Result<RootId, UnpackError> {
    let mut sealed: Vec<Option<DirRef>> = vec![None; tree.slots.len()];
    let (mut nodes, mut bytes) = (Vec::new(), 0);
    for id in (0..tree.slots.len()).rev() {
        let slot = std::mem::replace(&mut tree.slots[id], Slot::Gone);
        let Slot::Dir(dir) = slot else {
            // Leaves are taken when their directory is, which stands before them.
            tree.slots[id] = slot;
            continue;
        };
        let (meta, presence) = (dir.meta, dir.opaque);
        let node = entries(&mut tree, &sealed, dir.children, salt).seal();
        if node.bytes.len() > limit::NODE_BYTES_MAX {
            let why = BadArchive::TooMuch("128 MiB of names in one directory");
            return Err(UnpackError::Archive { what: what.to_owned(), why });
        }
        sealed[id] = Some(node.dir);
        bytes += node.bytes.len();
        nodes.push(node.bytes);
        // What the parent needs to know.
        tree.slots[id] = Slot::Dir(DirSlot { meta, opaque: presence, ..DirSlot::default() });
        if bytes >= limit::BATCH_BYTES {
            store.put_nodes(&std::mem::take(&mut nodes))?;
            bytes = 0;
        }
    }
    let Slot::Dir(DirSlot { meta, opaque, .. }) = &tree.slots[0] else {
        unreachable!("the root is a directory")
    };
    let presence = presence(meta, *opaque, false);
    let dir = sealed[0].expect("the root was sealed last");
    let (root, encoded) = Root { meta: meta.clone().unwrap_or_else(implied), dir, presence }.seal();
    nodes.push(encoded);
    store.put_nodes(&nodes)?;
    Ok(root)
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
    salt: &OciDigest,
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
    salt: &OciDigest,
) -> (Meta, Node) {
    match std::mem::replace(&mut tree.slots[id as usize], Slot::Gone) {
        Slot::Dir(dir) => {
            let node = sealed[id as usize].expect("a directory stands before what is in it");
            let presence = presence(&dir.meta, dir.opaque, hides);
            (dir.meta.unwrap_or_else(implied), Node::Dir(node, presence))
        }
        Slot::Leaf(Leaf { mut meta, node, group }) => {
            if let Some(Group::Own(group)) = &group
                && let Some(owner) = tree.owners.get(group)
            {
                (meta.uid, meta.gid) = *owner;
            }
            let link = group.and_then(|group| match group {
                Group::Below(link) => Some(link),
                // One name alone is no group.
                Group::Own(group) if tree.groups[group as usize] < 2 => None,
                Group::Own(group) => {
                    Some(LinkId::of(&[b"archive", salt.as_bytes(), &group.to_le_bytes()]))
                }
            });
            let node = match node {
                LeafNode::File(blob, size) => Node::File { blob, size, link },
                LeafNode::Symlink(target) => Node::Symlink(target.into_vec()),
                LeafNode::Char(major, minor) => Node::Char(major, minor),
                LeafNode::Block(major, minor) => Node::Block(major, minor),
                LeafNode::Fifo => Node::Fifo,
            };
            (meta, node)
        }
        Slot::Gone => unreachable!("what was replaced is no child any more"),
    }
}
