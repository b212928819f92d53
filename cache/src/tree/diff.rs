//! What makes one tree of another: the inverse of [`apply`](super::apply::apply()).

use super::nodes::{Made, Nodes, TreeError, dir, root};
use proto::id::RootId;
use proto::tree::{Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root, Summary};

/// A layer that makes one tree of another.
#[derive(Debug)]
pub struct Layer {
    /// Its root.
    pub id: RootId,
    /// How much it is.
    pub summary: Summary,
    /// Its nodes.
    pub made: Made,
}

/// The layer that, put upon `from`, makes `to`. Both are merged trees. Directories that they have in
/// common are not read.
pub fn diff(nodes: &dyn Nodes, from: &RootId, to: &RootId) -> Result<Layer, TreeError> {
    let (from, to) = (root(nodes, from)?, root(nodes, to)?);
    let mut made = Made::default();
    let dir = match diff_dir(nodes, &mut made, &from.dir, &to.dir)? {
        Some(dir) => dir,
        None => made.dir(Dir::default()),
    };
    let id = made.root(&Root { meta: to.meta, dir, presence: Presence::Merge });
    Ok(Layer { id, summary: dir.summary, made })
}

/// None when nothing differs.
fn diff_dir(
    nodes: &dyn Nodes,
    made: &mut Made,
    from: &DirRef,
    to: &DirRef,
) -> Result<Option<DirRef>, TreeError> {
    if from == to {
        return Ok(None);
    }
    let (old, new) = (dir(nodes, &from.tree)?, dir(nodes, &to.tree)?);
    let gone = old.entries().iter().filter(|entry| new.get(entry.name.as_bytes()).is_none());
    let mut entries: Vec<Entry> = gone
        .map(|entry| Entry {
            name: entry.name.clone(),
            meta: Meta::root_owned(0, Mtime::default()),
            node: Node::Whiteout,
        })
        .collect();
    for entry in new.entries() {
        let before = old.get(entry.name.as_bytes());
        if before == Some(entry) {
            continue;
        }
        let below = before.and_then(Entry::as_dir);
        let node = match (below, entry.as_dir()) {
            (Some(below), Some(dir)) => {
                let changed = diff_dir(nodes, made, below, dir)?;
                Node::Dir(changed.unwrap_or_else(|| made.dir(Dir::default())), Presence::Merge)
            }
            _ => entry.node.clone(),
        };
        entries.push(Entry { name: entry.name.clone(), meta: entry.meta.clone(), node });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(made.dir(Dir::new(entries))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::tests::model::{build, keep, writers};
    use crate::store::StoreNodes;
    use crate::store::memory::MemoryStore;
    use crate::tree::apply::apply;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_diff_put_upon_the_one_makes_the_other((from, to) in writers(1)) {
            let store = MemoryStore::default();
            let (from, to) = (build(&store, &from), build(&store, &to[0]));
            let layer = diff(&StoreNodes(&store), &from, &to).unwrap();
            keep(&store, &[], layer.made);
            let (merged, _) = apply(&StoreNodes(&store), &from, &layer.id).unwrap();
            prop_assert_eq!(merged, to);
            if from == to {
                prop_assert_eq!(layer.summary.entries, 0);
            }
        }
    }
}
