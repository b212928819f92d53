//! What the coordinator reads and writes in the store: nodes for the algebra, records.

use super::blocking;
use super::locked;
use crate::core::empty_root;
use bytes::Bytes;
use cache::cluster::Cluster;
use cache::net::NetError;
use cache::tree::{Gap, Made, Nodes, TreeError};
use proto::error::{Class, Failure};
use proto::id::{BlobId, RootId, TreeId};
use proto::tree::{AnyNode, empty_dir};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::sync::OnceCell;

/// Nodes that are kept decoded: entries in all of them together (about 150 bytes each).
const CACHED_ENTRIES_MAX: usize = 400_000;

/// How many nodes below one that is missing are fetched along with it, at first.
const AHEAD: usize = 16;

/// Why a piece of algebra came to nothing.
#[derive(Debug, Clone)]
pub enum AlgebraError {
    /// It cannot be done.
    Tree(TreeError),
    /// Something is not in the store any more.
    Lost(String),
    /// The store cannot be reached, or an archive cannot be read.
    Failed(Failure),
}

impl AlgebraError {
    /// The same for whoever asked. `tree` is whose trouble a piece of algebra is that cannot be done.
    pub fn failure(self, tree: Class) -> Failure {
        match self {
            Self::Tree(error) => Failure::new(tree, error.to_string()),
            Self::Lost(what) => Failure::new(Class::Unavailable, what),
            Self::Failed(failure) => failure,
        }
    }
}

/// The store, as the coordinator uses it.
pub struct Library {
    /// The store.
    pub blobs: Arc<Cluster>,
    nodes: Mutex<NodeCache>,
    prepared: OnceCell<()>,
}

#[derive(Default)]
struct NodeCache {
    nodes: HashMap<TreeId, Arc<AnyNode>>,
    entries: usize,
}

impl NodeCache {
    fn insert(&mut self, id: TreeId, node: Arc<AnyNode>) {
        let size = size(&node);
        if self.entries + size > CACHED_ENTRIES_MAX {
            // Dropped all at once: what is used comes back, and no use has to be written down.
            self.nodes.clear();
            self.entries = 0;
        }
        if self.nodes.insert(id, node).is_none() {
            self.entries += size;
        }
    }
}

fn size(node: &AnyNode) -> usize {
    match node {
        AnyNode::Dir(dir) => dir.entries().len() + 1,
        AnyNode::Root(_) => 1,
    }
}

/// What one piece of algebra sees: everything that was fetched for it so far.
#[derive(Default)]
struct View {
    nodes: HashMap<TreeId, Arc<AnyNode>>,
    blobs: HashMap<BlobId, Bytes>,
    archives: HashMap<BlobId, Option<RootId>>,
}

impl Nodes for View {
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, TreeError> {
        self.nodes.get(id).cloned().ok_or(TreeError::Gap(Gap::Tree(*id)))
    }

    fn blob(&self, id: &BlobId) -> Result<Bytes, TreeError> {
        self.blobs.get(id).cloned().ok_or(TreeError::Gap(Gap::Blob(*id)))
    }

    fn archive(&self, id: &BlobId) -> Result<Option<RootId>, TreeError> {
        self.archives.get(id).copied().ok_or(TreeError::Gap(Gap::Archive(*id)))
    }
}

impl Library {
    /// The store that `blobs` reaches.
    pub fn new(blobs: Arc<Cluster>) -> Self {
        Self { blobs, nodes: Mutex::default(), prepared: OnceCell::new() }
    }

    /// Puts what is always there, before anything else is done.
    pub async fn prepare(&self) -> Result<(), NetError> {
        let put = || self.blobs.put_nodes(vec![empty_dir().bytes, empty_root().seal().1]);
        self.prepared.get_or_try_init(put).await.copied()
    }

    /// Puts nodes that a piece of algebra made.
    pub async fn keep(&self, made: Made) -> Result<(), AlgebraError> {
        let (blobs, nodes) = (made.blobs(), made.into_nodes());
        if nodes.is_empty() {
            return Ok(());
        }
        if !blobs.is_empty() {
            self.blobs.put_blobs(&blobs).await.map_err(failed)?;
        }
        self.blobs.put_nodes(nodes).await.map_err(failed)
    }

    /// Does a piece of algebra, fetching what it needs, and beginning again each time something
    /// was missing. `unpack` answers what a blob unpacks to.
    pub async fn algebra<T, F, U, R>(&self, unpack: U, work: F) -> Result<T, AlgebraError>
    where
        T: Send + 'static,
        F: Fn(&dyn Nodes) -> Result<T, TreeError> + Send + 'static,
        U: Fn(BlobId) -> R,
        R: Future<Output = Result<Option<RootId>, Failure>>,
    {
        let (mut view, mut work, mut ahead) = (View::default(), work, AHEAD);
        loop {
            let turn = move || {
                let result = work(&view);
                (result, view, work)
            };
            let (result, v, w) = blocking(turn).await;
            (view, work) = (v, w);
            match result {
                Ok(value) => return Ok(value),
                Err(TreeError::Gap(Gap::Tree(id))) => {
                    self.fetch(&mut view, id, ahead).await?;
                    ahead *= 2;
                }
                Err(TreeError::Gap(Gap::Blob(id))) => {
                    let mut got = self.blobs.get_blobs(&[id]).await.map_err(failed)?;
                    view.blobs.insert(id, got.remove(0));
                }
                Err(TreeError::Gap(Gap::Archive(id))) => {
                    let tree = unpack(id).await.map_err(AlgebraError::Failed)?;
                    view.archives.insert(id, tree);
                }
                Err(error) => return Err(AlgebraError::Tree(error)),
            }
        }
    }

    /// Fetches a node and some of those below it.
    async fn fetch(&self, view: &mut View, id: TreeId, ahead: usize) -> Result<(), AlgebraError> {
        let mut seen = HashSet::from([id]);
        let mut level = vec![id];
        while !level.is_empty() && seen.len() <= ahead.max(1) {
            let mut next = Vec::new();
            let (here, away) = self.cached(&level);
            let fetched = match away.is_empty() {
                true => Vec::new(),
                false => self.blobs.get_nodes(&away).await.map_err(failed)?,
            };
            let fetched: Vec<_> = away.into_iter().zip(fetched).collect();
            self.remember(&fetched);
            for (id, node) in here.into_iter().chain(fetched) {
                next.extend(node.dirs().into_iter().map(|d| d.tree));
                view.nodes.insert(id, node);
            }
            next.retain(|id| !view.nodes.contains_key(id) && seen.insert(*id));
            level = next;
        }
        Ok(())
    }

    /// How many bytes the files in these trees have.
    pub async fn sizes(&self, roots: &[RootId]) -> Result<Vec<u64>, AlgebraError> {
        let ids: Vec<TreeId> = roots.iter().map(|root| root.0).collect();
        let (here, away) = self.cached(&ids);
        let fetched = match away.is_empty() {
            true => Vec::new(),
            false => self.blobs.get_nodes(&away).await.map_err(failed)?,
        };
        let fetched: Vec<_> = away.into_iter().zip(fetched).collect();
        self.remember(&fetched);
        let nodes: HashMap<TreeId, Arc<AnyNode>> = here.into_iter().chain(fetched).collect();
        let size = |id: &TreeId| match nodes.get(id).map(|node| &**node) {
            Some(AnyNode::Root(root)) => root.dir.summary.bytes,
            Some(AnyNode::Dir(dir)) => dir.summary().bytes,
            None => 0,
        };
        Ok(ids.iter().map(size).collect())
    }

    fn cached(&self, ids: &[TreeId]) -> (Vec<(TreeId, Arc<AnyNode>)>, Vec<TreeId>) {
        let cache = locked(&self.nodes);
        let (mut here, mut away) = (Vec::new(), Vec::new());
        for id in ids {
            match cache.nodes.get(id) {
                Some(node) => here.push((*id, node.clone())),
                None => away.push(*id),
            }
        }
        (here, away)
    }

    fn remember(&self, nodes: &[(TreeId, Arc<AnyNode>)]) {
        let mut cache = locked(&self.nodes);
        nodes.iter().for_each(|(id, node)| cache.insert(*id, node.clone()));
    }
}

/// An answer of the store as the trouble that it is for a step.
pub fn failed(error: NetError) -> AlgebraError {
    match error {
        NetError::Refused(failure) if failure.class == Class::Unavailable => {
            AlgebraError::Lost(failure.message)
        }
        NetError::Refused(failure) if failure.class == Class::Corrupt => {
            AlgebraError::Lost(failure.message)
        }
        other => AlgebraError::Failed(other.into()),
    }
}

/// For algebra in which no archive can be met.
pub async fn no_archives(_: BlobId) -> Result<Option<RootId>, Failure> {
    Ok(None)
}
