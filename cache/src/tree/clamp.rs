//! Times that no file is newer than (`SOURCE_DATE_EPOCH` of reproducible-builds.org).

use super::nodes::{Made, Nodes, TreeError, dir, root};
use proto::id::RootId;
use proto::tree::{Dir, DirRef, Entry, Meta, Mtime, Node, Root};

/// The same tree with no time after `latest`, and the nodes of it that are new. What has older times
/// keeps them, so directories without newer ones are the same nodes.
pub fn clamp(nodes: &dyn Nodes, tree: &RootId, latest: Mtime) -> Result<(RootId, Made), TreeError> {
    let root = root(nodes, tree)?;
    let mut made = Made::default();
    let dir = clamp_dir(nodes, &mut made, &root.dir, latest)?;
    let root = Root { meta: clamp_meta(&root.meta, latest), dir, ..root };
    Ok((made.root(&root), made))
}

fn clamp_meta(meta: &Meta, latest: Mtime) -> Meta {
    Meta { mtime: meta.mtime.min(latest), ..meta.clone() }
}

fn clamp_dir(
    nodes: &dyn Nodes,
    made: &mut Made,
    below: &DirRef,
    latest: Mtime,
) -> Result<DirRef, TreeError> {
    let entries = dir(nodes, &below.tree)?;
    let mut clamped = Vec::with_capacity(entries.entries().len());
    for entry in entries.entries() {
        let node = match &entry.node {
            Node::Dir(dir, presence) => Node::Dir(clamp_dir(nodes, made, dir, latest)?, *presence),
            other => other.clone(),
        };
        clamped.push(Entry {
            name: entry.name.clone(),
            meta: clamp_meta(&entry.meta, latest),
            node,
        });
    }
    if clamped == entries.entries() {
        return Ok(*below);
    }
    Ok(made.dir(Dir::new(clamped)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::tests::model::{build, keep, writers};
    use crate::store::StoreNodes;
    use crate::store::memory::MemoryStore;
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
            let (clamped, made) = clamp(&StoreNodes(&store), &tree, latest).unwrap();
            keep(&store, &[], made);
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
            let (again, made) = clamp(&StoreNodes(&store), &clamped, latest).unwrap();
            prop_assert_eq!(again, clamped);
            prop_assert_eq!(made.into_nodes().len(), 1, "the root alone");
        }
    }
}
