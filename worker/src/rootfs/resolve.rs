//! Makes a layer into the one that overlayfs has to be given, upon the layers below it.
//!
//! - overlayfs shows a directory with the metadata of the topmost layer that has it. So a layer that
//!   only names a directory on the way ([`Presence::Implicit`]) has to repeat the metadata that it
//!   has below.
//! - overlayfs shows which names share an inode in one layer only. So a layer that gives a file below
//!   other names ([`Node::Relink`]) has to repeat the file.
//! - overlayfs shows whiteouts in a directory that it merges with nothing as names of nothing. So
//!   whiteouts that hide nothing go.
//!
//! The result is a diff tree of its own, and so has a name of its own: the same layer upon another
//! base is another directory on disk, as it must be. Most layers are their own result.

use super::fold::{self, Fold};
use super::nodes::NewNodes;
use super::{RootfsError, load_dir, load_root};
use cache::store::Store;
use cache::tree::apply::relinked;
use proto::id::{RootId, TreeId};
use proto::limit;
use proto::path::FileName;
use proto::tree::{AnyNode, Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// How many layers' answers are remembered before they are all forgotten.
const REMEMBERED: usize = 10_000;

/// Remembers what was found out.
#[derive(Default)]
pub(crate) struct Resolver {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Layers without implicit directories, relinked files and whiteouts.
    plain: HashSet<RootId>,
    /// What a layer becomes upon those below it, by a hash of their names.
    upon: HashMap<(RootId, blake3::Hash), RootId>,
}

impl Resolver {
    /// The diffs, lowest first, as overlayfs has to be given them. New nodes go into the store.
    pub(crate) fn resolve(
        &self,
        store: &dyn Store,
        diffs: &[RootId],
    ) -> Result<Vec<RootId>, RootfsError> {
        let mut out: Vec<RootId> = Vec::with_capacity(diffs.len());
        loop {
            let sure = out.len();
            while let Some(known) = diffs.get(out.len()).and_then(|d| self.remembered(d, &out)) {
                out.push(known);
            }
            // Nothing refers to what a layer became, so it may have been collected since. In a farm
            // it is a question to others: one for many.
            let other = out.iter().zip(diffs).skip(sure).filter(|(became, diff)| became != diff);
            let asked: Vec<TreeId> = other.map(|(became, _)| became.0).collect();
            let gone = if asked.is_empty() { Vec::new() } else { store.missing_trees(&asked)? };
            if !gone.is_empty() {
                self.state().upon.retain(|_, became| !gone.contains(&became.0));
                out.truncate(sure);
                continue;
            }
            let Some(diff) = diffs.get(out.len()) else { return Ok(out) };
            out.push(self.resolve_one(store, diff, &out)?);
        }
    }

    fn remembered(&self, diff: &RootId, below: &[RootId]) -> Option<RootId> {
        let state = self.state();
        if state.plain.contains(diff) {
            return Some(*diff);
        }
        state.upon.get(&(*diff, names(below))).copied()
    }

    fn resolve_one(
        &self,
        store: &dyn Store,
        diff: &RootId,
        below: &[RootId],
    ) -> Result<RootId, RootfsError> {
        let root = load_root(store, diff)?;
        if is_plain(store, root.dir.tree)? {
            self.state().plain.insert(*diff);
            return Ok(*diff);
        }
        let resolved = rewrite(store, &root, below)?;
        self.state().upon.insert((*diff, names(below)), resolved);
        Ok(resolved)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.plain.len() + state.upon.len() > REMEMBERED {
            *state = State::default();
        }
        state
    }
}

fn names(layers: &[RootId]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for layer in layers {
        hasher.update(layer.0.as_bytes());
    }
    hasher.finalize()
}

fn is_plain(store: &dyn Store, top: TreeId) -> Result<bool, RootfsError> {
    let (mut seen, mut next) = (HashSet::new(), vec![top]);
    while let Some(tree) = next.pop() {
        let node = load_dir(store, &tree)?;
        let AnyNode::Dir(dir) = &*node else { return Err(RootfsError::Kind(tree)) };
        for entry in dir.entries() {
            match &entry.node {
                Node::Dir(_, Presence::Implicit | Presence::Unlisted)
                | Node::Whiteout
                | Node::Relink(_)
                | Node::Unlisted(_) => {
                    return Ok(false);
                }
                Node::Dir(below, _) if seen.insert(below.tree) => next.push(below.tree),
                _ => {}
            }
        }
    }
    Ok(true)
}

fn rewrite(store: &dyn Store, root: &Root, below: &[RootId]) -> Result<RootId, RootfsError> {
    let roots = below.iter().map(|id| load_root(store, id)).collect::<Result<Vec<_>, _>>()?;
    let tops = roots.iter().map(|root| root.dir.tree).collect();
    let work = Rewrite { store, made: NewNodes::new(store), below: tops };
    let job = Job { tree: root.dir.tree, path: Vec::new(), opaque: false };
    let dir = fold::fold(&work, job, fold::threads())?;
    let (id, bytes) = Root { dir, ..root.clone() }.seal();
    work.made.finish(bytes)?;
    Ok(id)
}

struct Rewrite<'a> {
    store: &'a dyn Store,
    made: NewNodes<'a>,
    /// The entries of `/` in the layers below, lowest first.
    below: Vec<TreeId>,
}

struct Job {
    tree: TreeId,
    path: Vec<FileName>,
    /// Whether the directory, or one above it in its layer, hides all below.
    opaque: bool,
}

impl Fold for Rewrite<'_> {
    type Job = Job;
    type Frame = (Job, std::sync::Arc<AnyNode>);
    type Out = DirRef;

    fn enter(&self, job: Job) -> Result<(Self::Frame, Vec<Job>), RootfsError> {
        if job.path.len() > limit::TREE_DEPTH_MAX {
            return Err(RootfsError::TooDeep { path: shown(&job.path).into() });
        }
        let node = load_dir(self.store, &job.tree)?;
        let jobs = dirs(&node).map(|(entry, below)| {
            let path = job.path.iter().chain([&entry.name]).cloned().collect();
            let hides = matches!(entry.node, Node::Dir(_, Presence::Opaque));
            Job { tree: below.tree, path, opaque: job.opaque || hides }
        });
        let jobs = jobs.collect();
        Ok(((job, node), jobs))
    }

    fn leave(&self, (job, node): Self::Frame, outs: Vec<DirRef>) -> Result<DirRef, RootfsError> {
        let AnyNode::Dir(dir) = &*node else { return Err(RootfsError::Kind(job.tree)) };
        let mut outs = outs.into_iter();
        let mut entries = Vec::with_capacity(dir.entries().len());
        for entry in dir.entries() {
            match &entry.node {
                Node::Dir(_, presence) => {
                    let below = outs.next().expect("an answer for each directory");
                    let (meta, presence) = match presence {
                        Presence::Implicit => (self.meta(&job, &entry.name)?, Presence::Merge),
                        Presence::Unlisted => (entry.meta.clone(), Presence::Merge),
                        other => (entry.meta.clone(), *other),
                    };
                    let node = Node::Dir(below, presence);
                    entries.push(Entry { name: entry.name.clone(), meta, node });
                }
                Node::Whiteout if self.below(&job, &entry.name)?.is_none() => {}
                Node::Relink(link) => {
                    let below = self.below(&job, &entry.name)?;
                    entries.extend(below.and_then(|below| relinked(&below, *link)));
                }
                Node::Unlisted(what) => {
                    entries.push(Entry { node: what.clone().listed(), ..entry.clone() });
                }
                _ => entries.push(entry.clone()),
            }
        }
        let sealed = Dir::new(entries).seal();
        if sealed.dir.tree != job.tree {
            self.made.put(sealed.bytes)?;
        }
        Ok(sealed.dir)
    }
}

impl Rewrite<'_> {
    /// The metadata of that directory in the layers below; without one, those that any runtime
    /// gives to a directory that it has to make: root's, 0755.
    fn meta(&self, job: &Job, name: &FileName) -> Result<Meta, RootfsError> {
        Ok(match self.below(job, name)? {
            Some(Entry { meta, node: Node::Dir(..), .. }) => meta,
            _ => Meta::root_owned(0o755, Mtime::default()),
        })
    }

    /// What the layers below show under that name.
    fn below(&self, job: &Job, name: &FileName) -> Result<Option<Entry>, RootfsError> {
        if job.opaque {
            return Ok(None);
        }
        for top in self.below.iter().rev() {
            match self.find(*top, &job.path, name)? {
                Found::Here(entry) => return Ok(Some(entry)),
                Found::Hidden => break,
                Found::LookBelow => {}
            }
        }
        Ok(None)
    }

    fn find(&self, top: TreeId, path: &[FileName], name: &FileName) -> Result<Found, RootfsError> {
        let (mut tree, mut opaque) = (top, false);
        for (index, step) in path.iter().chain([name]).enumerate() {
            let node = load_dir(self.store, &tree)?;
            let AnyNode::Dir(dir) = &*node else { return Err(RootfsError::Kind(tree)) };
            let Some(entry) = dir.get(step.as_bytes()) else {
                return Ok(if opaque { Found::Hidden } else { Found::LookBelow });
            };
            if index == path.len() && entry.node != Node::Whiteout {
                return Ok(Found::Here(entry.clone()));
            }
            let Node::Dir(below, presence) = &entry.node else { return Ok(Found::Hidden) };
            tree = below.tree;
            opaque |= *presence == Presence::Opaque;
        }
        Ok(Found::LookBelow)
    }
}

enum Found {
    Here(Entry),
    LookBelow,
    Hidden,
}

fn dirs(node: &AnyNode) -> impl Iterator<Item = (&Entry, &DirRef)> {
    let entries = match node {
        AnyNode::Dir(dir) => dir.entries(),
        AnyNode::Root(_) => &[],
    };
    entries.iter().filter_map(|entry| entry.as_dir().map(|dir| (entry, dir)))
}

fn shown(path: &[FileName]) -> String {
    path.iter().map(|name| format!("/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use cache::store::memory::MemoryStore;

    fn implicit(name: &str, children: Vec<Spec>) -> Spec {
        Spec { presence: Presence::Implicit, ..dir(name, 0, children) }
    }

    #[test]
    fn the_metadata_come_from_the_nearest_layer_below() {
        let store = MemoryStore::new();
        let a = root(&store, vec![dir("etc", 0o711, vec![dir("x", 0o700, vec![])])]);
        let b = root(&store, vec![dir("etc", 0o750, vec![])]);
        let below = ["x", "new"].map(|name| implicit(name, vec![file("f", b"1", 0o644)]));
        let c = root(&store, vec![implicit("etc", below.into())]);
        let resolver = Resolver::default();
        let out = resolver.resolve(&store, &[a, b, c]).unwrap();
        assert_eq!(out[..2], [a, b]);
        let want = root(
            &store,
            vec![dir(
                "etc",
                0o750,
                vec![
                    dir("x", 0o700, vec![file("f", b"1", 0o644)]),
                    Spec { mtime: 0, ..dir("new", 0o755, vec![file("f", b"1", 0o644)]) },
                ],
            )],
        );
        assert_eq!(out[2], want);
        assert_eq!(resolver.resolve(&store, &[a, b, c]).unwrap(), out);
    }

    #[test]
    fn what_was_collected_is_made_again() {
        let layers = |store: &MemoryStore| {
            let relink = Spec { mtime: 0, ..special("f", What::Relink("g")) };
            let new = linked("new", b"1", "g");
            [vec![file("f", b"1", 0o644)], vec![Spec { mode: 0, ..relink }, new]]
                .map(|entries| root(store, entries))
        };
        let resolver = Resolver::default();
        let known = MemoryStore::new();
        let became = resolver.resolve(&known, &layers(&known)).unwrap()[1];
        let want = vec![linked("f", b"1", "g"), linked("new", b"1", "g")];
        assert_eq!(became, root(&known, want));
        // Stores like the first one without what the layer became there.
        let bare = MemoryStore::new();
        assert_eq!(resolver.resolve(&bare, &layers(&bare)).unwrap()[1], became);
        assert_eq!(bare.missing_trees(&[became.0]).unwrap(), []);
        let bare = MemoryStore::new();
        let above = [root(&bare, vec![whiteout("new"), whiteout("never")])];
        let all = [&layers(&bare)[..], &above].concat();
        assert_eq!(resolver.resolve(&bare, &all).unwrap()[2], root(&bare, vec![whiteout("new")]));
    }

    #[test]
    fn what_is_hidden_below_does_not_count() {
        let store = MemoryStore::new();
        let a = root(&store, vec![dir("d", 0o711, vec![dir("x", 0o700, vec![])])]);
        let opaque = Spec { presence: Presence::Opaque, ..dir("d", 0o755, vec![]) };
        let b = root(&store, vec![opaque]);
        let w = root(&store, vec![whiteout("d")]);
        let c = root(&store, vec![dir("d", 0o755, vec![implicit("x", vec![])])]);
        let bare = Spec { mtime: 0, ..dir("x", 0o755, vec![]) };
        let want = root(&store, vec![dir("d", 0o755, vec![bare])]);
        let resolver = Resolver::default();
        for middle in [b, w] {
            assert_eq!(resolver.resolve(&store, &[a, middle, c]).unwrap()[2], want);
        }
    }

    #[test]
    fn whiteouts_of_nothing_go() {
        let store = MemoryStore::new();
        let a = root(&store, vec![dir("d", 0o755, vec![file("x", b"1", 0o644)])]);
        let opaque = |children| Spec { presence: Presence::Opaque, ..dir("d", 0o755, children) };
        let new = |children| dir("new", 0o755, children);
        for (layer, want) in [
            (vec![whiteout("d"), whiteout("e")], vec![whiteout("d")]),
            (vec![opaque(vec![whiteout("x")])], vec![opaque(vec![])]),
            (vec![new(vec![whiteout("x")])], vec![new(vec![])]),
            (
                vec![dir("d", 0o755, vec![whiteout("x")])],
                vec![dir("d", 0o755, vec![whiteout("x")])],
            ),
        ] {
            let layer = root(&store, layer);
            let out = Resolver::default().resolve(&store, &[a, layer]).unwrap();
            assert_eq!(out[1], root(&store, want));
            // Twice the same: the second time they hide nothing any more.
            let twice = Resolver::default().resolve(&store, &[layer]).unwrap();
            assert_eq!(Resolver::default().resolve(&store, &twice).unwrap(), twice);
        }
    }
}
