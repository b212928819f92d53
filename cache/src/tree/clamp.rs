//! Times that no file is newer than (`SOURCE_DATE_EPOCH` of reproducible-builds.org).

use super::nodes::{Nodes, TreeError, dir, root};
use proto::id::RootId;
use proto::tree::{Dir, DirRef, Entry, Meta, Mtime, Node, Root};

/// The same tree with no time after `latest`. What has older times keeps them, so directories without
/// newer ones are the same nodes. The others are given to `keep`, children first.
pub fn clamp<E: From<TreeError>>(
    nodes: &dyn Nodes,
    tree: &RootId,
    latest: Mtime,
    keep: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<RootId, E> {
    let root = root(nodes, tree)?;
    let dir = Clamp { nodes, latest, keep }.dir(&root.dir)?;
    let (id, bytes) = Root { meta: earlier(&root.meta, latest), dir, ..root }.seal();
    if id != *tree {
        keep(bytes)?;
    }
    Ok(id)
}

fn earlier(meta: &Meta, latest: Mtime) -> Meta {
    Meta { mtime: meta.mtime.min(latest), ..meta.clone() }
}

struct Clamp<'c, E> {
    nodes: &'c dyn Nodes,
    latest: Mtime,
    keep: &'c mut dyn FnMut(Vec<u8>) -> Result<(), E>,
}

impl<E: From<TreeError>> Clamp<'_, E> {
    fn dir(&mut self, below: &DirRef) -> Result<DirRef, E> {
        let entries = dir(self.nodes, &below.tree)?;
        let mut clamped = Vec::with_capacity(entries.entries().len());
        for entry in entries.entries() {
            let node = match &entry.node {
                Node::Dir(dir, presence) => Node::Dir(self.dir(dir)?, *presence),
                other => other.clone(),
            };
            let meta = earlier(&entry.meta, self.latest);
            clamped.push(Entry { name: entry.name.clone(), meta, node });
        }
        if clamped == entries.entries() {
            return Ok(*below);
        }
        let sealed = Dir::new(clamped).seal();
        (self.keep)(sealed.bytes)?;
        Ok(sealed.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::tests::model::{build, writers};
    use crate::store::memory::MemoryStore;
    use crate::store::{Store, StoreNodes};
    use proptest::prelude::*;

    fn times(store: &MemoryStore, below: &DirRef, out: &mut Vec<Mtime>) {
        for entry in dir(&StoreNodes(store), &below.tree).unwrap().entries() {
            out.push(entry.meta.mtime);
            if let Node::Dir(below, _) = &entry.node {
                times(store, below, out);
            }
        }
    }

    proptest! {
        #[test]
        fn only_newer_times_change((tree, _) in writers(1), seconds in 0i64..100) {
            let store = MemoryStore::default();
            let tree = build(&store, &tree);
            let latest = Mtime { seconds, nanos: 0 };
            let clamp = |tree: &RootId| {
                let mut kept = Vec::new();
                let mut keep = |node| {
                    kept.push(node);
                    Ok::<(), TreeError>(())
                };
                let clamped = clamp(&StoreNodes(&store), tree, latest, &mut keep).unwrap();
                store.put_nodes(&kept).unwrap();
                (clamped, kept.len())
            };
            let (clamped, _) = clamp(&tree);
            let (before, after) =
                (root(&StoreNodes(&store), &tree).unwrap(), root(&StoreNodes(&store), &clamped).unwrap());
            let (mut was, mut is) = (vec![before.meta.mtime], vec![after.meta.mtime]);
            times(&store, &before.dir, &mut was);
            times(&store, &after.dir, &mut is);
            let expected: Vec<Mtime> = was.iter().map(|time| *time.min(&latest)).collect();
            prop_assert_eq!(is, expected);
            // Times are in no content digest: nothing else has changed.
            prop_assert_eq!(before.dir.content, after.dir.content);
            prop_assert_eq!(before.dir.summary, after.dir.summary);
            prop_assert_eq!(clamp(&clamped), (clamped, 0), "nothing is left to do");
        }
    }
}
