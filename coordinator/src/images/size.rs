//! How large an image's layers are.

use cache::tree::{Nodes, TreeError};
use proto::id::RootId;
use proto::tree::{AnyNode, Node};
use std::collections::BTreeSet;

/// The bytes that the files of a layer take on a disk: a file with several names counts once.
pub fn disk_size(nodes: &dyn Nodes, layer: &RootId) -> Result<u64, TreeError> {
    let AnyNode::Root(root) = &*nodes.node(&layer.0)? else { return Ok(0) };
    let (mut dirs, mut linked, mut sum) = (vec![root.dir.tree], BTreeSet::new(), 0u64);
    while let Some(tree) = dirs.pop() {
        let AnyNode::Dir(dir) = &*nodes.node(&tree)? else { continue };
        for entry in dir.entries() {
            match &entry.node {
                Node::Dir(below, _) => dirs.push(below.tree),
                Node::File { size, .. }
                    if entry.one_file().is_none_or(|file| linked.insert(file)) =>
                {
                    sum = sum.saturating_add(*size);
                }
                _ => {}
            }
        }
    }
    Ok(sum)
}
