//! Many layers made into one, where overlayfs could not take them all.

use super::fold::{self, Fold};
use super::nodes::NewNodes;
use super::{RootfsError, load_dir, load_root};
use cache::store::Store;
use proto::id::{RootId, TreeId};
use proto::limit;
use proto::path::FileName;
use proto::tree::{AnyNode, Dir, DirRef, Entry, Meta, Node, Presence, Root};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How many layers are made into one at a time: always the lowest ones, and always a multiple of
/// this, so that the next steps of a stage find the same one again.
const BLOCK: usize = 64;

/// How many of `count` layers become one so that no more than `max` are left.
pub(crate) fn how_many(count: usize, max: usize) -> usize {
    if count <= max { 0 } else { (count - max + 1).div_ceil(BLOCK) * BLOCK }.min(count)
}

/// The diffs, lowest first and without implicit directories, as one diff that nothing lies under.
pub(crate) fn squash(store: &dyn Store, diffs: &[RootId]) -> Result<RootId, RootfsError> {
    let mut roots = diffs.iter().map(|id| load_root(store, id)).collect::<Result<Vec<_>, _>>()?;
    roots.reverse();
    let Some(meta) = roots.first().map(|root| root.meta.clone()) else {
        return Err(RootfsError::Limit { path: "/".into(), why: "there is no layer".into() });
    };
    let trees = roots.iter().map(|root| root.dir.tree).collect();
    let job = Job { name: None, meta: meta.clone(), trees, depth: 0 };
    let work = Squash { store, made: NewNodes::new(store) };
    let top = fold::fold(&work, job, fold::threads())?;
    let Node::Dir(dir, _) = top.node else { return Err(RootfsError::Kind(diffs[0].0)) };
    let (id, bytes) = Root { meta, dir, presence: Presence::Merge }.seal();
    work.made.finish(bytes)?;
    Ok(id)
}

struct Squash<'a> {
    store: &'a dyn Store,
    made: NewNodes<'a>,
}

struct Job {
    /// None for `/`.
    name: Option<FileName>,
    meta: Meta,
    /// What the layers have at this place, topmost first.
    trees: Vec<TreeId>,
    depth: usize,
}

enum Frame {
    /// A directory of one layer only, which stays as it is.
    Single(Entry),
    Merged {
        name: FileName,
        meta: Meta,
        entries: Vec<Entry>,
    },
}

impl Fold for Squash<'_> {
    type Job = Job;
    type Frame = Frame;
    type Out = Entry;

    fn enter(&self, job: Job) -> Result<(Frame, Vec<Job>), RootfsError> {
        let name = job.name.unwrap_or_else(|| FileName::new(b"top").expect("a name"));
        if job.depth > limit::TREE_DEPTH_MAX {
            return Err(RootfsError::TooDeep { path: PathBuf::from(name.to_string()) });
        }
        if let [tree] = job.trees[..] {
            let dir = self.dir_ref(tree)?;
            let node = Node::Dir(dir, Presence::Merge);
            return Ok((Frame::Single(Entry { name, meta: job.meta, node }), Vec::new()));
        }
        let mut seen: BTreeMap<FileName, Seen> = BTreeMap::new();
        for tree in &job.trees {
            let node = load_dir(self.store, tree)?;
            let AnyNode::Dir(dir) = &*node else { return Err(RootfsError::Kind(*tree)) };
            for entry in dir.entries() {
                Seen::add(&mut seen, entry);
            }
        }
        let (mut entries, mut jobs) = (Vec::new(), Vec::new());
        for (name, seen) in seen {
            match seen {
                Seen::Whiteout => {}
                Seen::Other(entry) => entries.push(entry),
                Seen::Dir { meta, trees, .. } => {
                    jobs.push(Job { name: Some(name), meta, trees, depth: job.depth + 1 });
                }
            }
        }
        Ok((Frame::Merged { name, meta: job.meta, entries }, jobs))
    }

    fn leave(&self, frame: Frame, outs: Vec<Entry>) -> Result<Entry, RootfsError> {
        match frame {
            Frame::Single(entry) => Ok(entry),
            Frame::Merged { name, meta, mut entries } => {
                entries.extend(outs);
                let sealed = Dir::new(entries).seal();
                self.made.put(sealed.bytes)?;
                Ok(Entry { name, meta, node: Node::Dir(sealed.dir, Presence::Merge) })
            }
        }
    }
}

impl Squash<'_> {
    fn dir_ref(&self, tree: TreeId) -> Result<DirRef, RootfsError> {
        load_dir(self.store, &tree)?.dir_ref(tree).ok_or(RootfsError::Kind(tree))
    }
}

/// What the layers looked at so far, from the top, make of a name.
enum Seen {
    Whiteout,
    Other(Entry),
    Dir { meta: Meta, trees: Vec<TreeId>, closed: bool },
}

impl Seen {
    fn add(seen: &mut BTreeMap<FileName, Seen>, entry: &Entry) {
        use std::collections::btree_map::Entry as Slot;
        match seen.entry(entry.name.clone()) {
            Slot::Vacant(slot) => {
                slot.insert(match &entry.node {
                    Node::Whiteout => Seen::Whiteout,
                    Node::Dir(dir, presence) => Seen::Dir {
                        meta: entry.meta.clone(),
                        trees: vec![dir.tree],
                        closed: *presence == Presence::Opaque,
                    },
                    _ => Seen::Other(entry.clone()),
                });
            }
            Slot::Occupied(mut slot) => {
                if let Seen::Dir { trees, closed, .. } = slot.get_mut()
                    && !*closed
                {
                    match &entry.node {
                        Node::Dir(dir, presence) => {
                            trees.push(dir.tree);
                            *closed = *presence == Presence::Opaque;
                        }
                        _ => *closed = true,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use cache::store::memory::MemoryStore;

    #[test]
    fn the_number_left_fits_and_changes_seldom() {
        for (count, want) in [(0, 0), (120, 0), (121, 64), (183, 64), (184, 128), (500, 384)] {
            let squashed = how_many(count, 120);
            assert_eq!(squashed, want, "{count}");
            assert!(count - squashed + usize::from(squashed > 0) <= 120);
        }
    }

    #[test]
    fn upper_layers_win() {
        let store = MemoryStore::new();
        let opaque = |name: &str, children| Spec {
            presence: Presence::Opaque,
            ..dir(name, 0o700, children)
        };
        let f = |name: &str, data: &[u8]| file(name, data, 0o644);
        let layers = [
            vec![
                dir("d", 0o755, vec![f("a", b"1"), f("b", b"1"), f("c", b"1")]),
                dir("o", 0o755, vec![f("gone", b"1")]),
                dir("w", 0o755, vec![f("gone", b"1")]),
                dir("only", 0o755, vec![f("kept", b"1")]),
                f("f", b"1"),
            ],
            vec![
                dir("d", 0o711, vec![f("a", b"2"), whiteout("b")]),
                opaque("o", vec![f("x", b"2")]),
                whiteout("w"),
                dir("f", 0o755, vec![]),
            ],
            vec![
                dir("d", 0o750, vec![dir("a", 0o755, vec![])]),
                dir("o", 0o755, vec![f("y", b"3")]),
                dir("w", 0o755, vec![f("new", b"3")]),
            ],
        ];
        let ids = layers.map(|layer| root(&store, layer));
        let want = root(
            &store,
            vec![
                dir("d", 0o750, vec![dir("a", 0o755, vec![]), f("c", b"1")]),
                dir("o", 0o755, vec![f("x", b"2"), f("y", b"3")]),
                dir("w", 0o755, vec![f("new", b"3")]),
                dir("only", 0o755, vec![f("kept", b"1")]),
                dir("f", 0o755, vec![]),
            ],
        );
        assert_eq!(squash(&store, &ids).unwrap(), want);
    }
}
