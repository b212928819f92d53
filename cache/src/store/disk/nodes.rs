//! Tree nodes: taken when whole, remembered decoded.

use super::Inner;
use super::batch::Sync;
use super::value::Head;
use super::write::Writer;
use crate::store::{BlobWriter, StoreError};
use bytes::Bytes;
use proto::id::{BlobId, TreeId};
use proto::limit::NODE_BYTES_MAX;
use proto::tree::{AnyNode, DirRef, NodeError, node_id};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Bytes up to which a node's encoding lies in the index. Larger ones are blobs: RocksDB would hold
/// them in memory, several at a time.
const INLINE_BYTES: usize = 64 << 10;

/// Decoded nodes, the latest used ones.
pub(super) struct NodeCache {
    cache: quick_cache::sync::Cache<TreeId, Arc<Cached>, Weight>,
    /// Held by who adds nodes, so that none is counted twice.
    adding: Mutex<()>,
}

struct Cached {
    node: Arc<AnyNode>,
    bytes: u64,
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<TreeId, Arc<Cached>> for Weight {
    fn weight(&self, _: &TreeId, cached: &Arc<Cached>) -> u64 {
        cached.bytes
    }
}

impl NodeCache {
    pub fn new(bytes: u64) -> Self {
        // About as many nodes as fit when each has a few entries.
        let items = (bytes / 1024).clamp(64, 1 << 20) as usize;
        let cache = quick_cache::sync::Cache::with_weighter(items, bytes.max(1), Weight);
        Self { cache, adding: Mutex::new(()) }
    }

    fn get(&self, id: &TreeId) -> Option<Arc<AnyNode>> {
        self.cache.get(id).map(|cached| cached.node.clone())
    }

    /// A decoded node takes about twice the bytes of its encoding.
    fn insert(&self, id: TreeId, node: Arc<AnyNode>, encoded: usize) {
        self.cache.insert(id, Arc::new(Cached { node, bytes: 2 * encoded as u64 + 256 }));
    }

    pub fn remove(&self, id: &TreeId) {
        self.cache.remove(id);
    }
}

/// A node that was handed in and can be read.
struct New<'a> {
    id: TreeId,
    bytes: &'a [u8],
    node: Arc<AnyNode>,
    dir: Option<DirRef>,
    blob: Option<BlobId>,
}

/// What is here of all that some new nodes name.
struct Here {
    blobs: HashMap<BlobId, u64>,
    heads: HashMap<TreeId, Head>,
}

impl Inner {
    /// See [`crate::store::Store::missing_trees`].
    pub fn missing_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
        let _gate = self.gate();
        let heads = self.index.heads(ids)?;
        let here = ids.iter().zip(&heads).filter(|(_, head)| head.is_some());
        self.touches.trees(here.map(|(id, _)| id));
        let missing = ids.iter().zip(&heads).filter(|(_, head)| head.is_none());
        Ok(missing.map(|(id, _)| *id).collect())
    }

    /// See [`crate::store::Store::put_nodes`].
    pub fn put_nodes(inner: &Arc<Self>, nodes: &[Vec<u8>]) -> Result<(), StoreError> {
        Self::put_some(inner, nodes, true)
    }

    /// As [`Inner::put_nodes`], where of all their blobs is known where they are.
    pub fn put_known(inner: &Arc<Self>, nodes: &[Vec<u8>]) -> Result<(), StoreError> {
        Self::put_some(inner, nodes, false)
    }

    fn put_some(inner: &Arc<Self>, nodes: &[Vec<u8>], ask: bool) -> Result<(), StoreError> {
        let read: Vec<_> = if nodes.len() > 1 {
            nodes.par_iter().map(|bytes| read_node(bytes)).collect()
        } else {
            nodes.iter().map(|bytes| read_node(bytes)).collect()
        };
        let mut refused = Ok(());
        let mut new = Vec::with_capacity(nodes.len());
        for node in read {
            match node {
                Ok(node) => new.push(node),
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
        }
        for node in new.iter_mut().filter(|node| node.bytes.len() > INLINE_BYTES) {
            let mut writer = Box::new(Writer::new(inner.clone()));
            let written = writer.write_all(node.bytes);
            written.map_err(StoreError::io("Writing a tree node to", &inner.root))?;
            node.blob = Some(writer.finish(None)?.0);
        }
        if ask {
            inner.learn_of(&new)?;
        }
        inner.add_nodes(&new)?;
        refused
    }

    /// In a farm: looks where the blobs are that new nodes name.
    fn learn_of(&self, new: &[New<'_>]) -> Result<(), StoreError> {
        if !self.farm.is_joined() {
            return Ok(());
        }
        let blobs: HashSet<BlobId> =
            new.iter().flat_map(|new| new.node.blobs()).map(|(blob, _)| blob).collect();
        self.learn(&blobs.into_iter().collect::<Vec<_>>())
    }

    /// Adds nodes up to the first that is not whole.
    fn add_nodes(&self, new: &[New<'_>]) -> Result<(), StoreError> {
        let inline = new.iter().filter(|node| node.blob.is_none());
        let _room = self.reserve(new.len(), inline.map(|node| node.bytes.len() as u64).sum())?;
        let _gate = self.gate();
        let _adding = super::lock(&self.nodes.adding);
        let mut here = self.look_around(new)?;
        let mut batch = self.index.batch();
        let mut refused = Ok(());
        for node in new {
            if here.heads.contains_key(&node.id) {
                continue;
            }
            match here.check(node) {
                Ok(head) => {
                    batch.put_tree(&node.id, &head, node.blob.is_none().then_some(node.bytes));
                    self.nodes.insert(node.id, node.node.clone(), node.bytes.len());
                    here.heads.insert(node.id, head);
                }
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
        }
        self.step("index nodes");
        if !batch.is_empty()
            && let Err(error) = batch.commit(Sync::No)
        {
            new.iter().for_each(|node| self.nodes.remove(&node.id));
            return Err(error);
        }
        refused
    }

    /// Looks up all that the nodes name, and themselves; what is here counts as used.
    fn look_around(&self, new: &[New<'_>]) -> Result<Here, StoreError> {
        let mut blobs: HashSet<BlobId> = new.iter().filter_map(|node| node.blob).collect();
        let mut trees: HashSet<TreeId> = HashSet::new();
        for node in new {
            blobs.extend(node.node.blobs().into_iter().map(|(blob, _)| blob));
            trees.extend(node.node.dirs().into_iter().map(|dir| dir.tree));
            trees.insert(node.id);
        }
        self.touches.blobs(&blobs);
        self.touches.trees(&trees);
        let blobs: Vec<_> = blobs.into_iter().collect();
        let trees: Vec<_> = trees.into_iter().collect();
        let sizes = match self.farm.is_joined() {
            true => self.known_sizes(&blobs)?,
            false => {
                let places = self.index.blobs(&blobs)?;
                places.iter().map(|place| Some(place.as_ref()?.size())).collect()
            }
        };
        let heads = self.index.heads(&trees)?;
        Ok(Here {
            blobs: blobs.into_iter().zip(sizes).filter_map(|(id, s)| Some((id, s?))).collect(),
            heads: trees.into_iter().zip(heads).filter_map(|(id, h)| Some((id, h?))).collect(),
        })
    }

    /// See [`crate::store::Store::node`].
    pub fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
        {
            let _gate = self.gate();
            if let Some(node) = self.nodes.get(id) {
                self.touches.trees([id]);
                return Ok(node);
            }
        }
        let bytes = self.node_bytes(id)?;
        let node = AnyNode::decode(&bytes).map(Arc::new);
        let node = node.map_err(|error| self.bad_node(id, error.to_string()))?;
        let _gate = self.gate();
        if self.index.head(id)?.is_some() {
            self.nodes.insert(*id, node.clone(), bytes.len());
        }
        Ok(node)
    }

    /// See [`crate::store::Store::node_bytes`].
    pub fn node_bytes(&self, id: &TreeId) -> Result<Bytes, StoreError> {
        let (head, inline) = {
            let _gate = self.gate();
            let head = self.index.head(id)?.ok_or(StoreError::NoTree(*id))?;
            self.touches.trees([id]);
            let inline = if head.blob.is_none() { self.index.node(id)? } else { None };
            (head, inline)
        };
        let bytes = match (head.blob, inline) {
            (Some(blob), _) => self.read(&blob).map_err(|error| match error {
                StoreError::NoBlob(_) => StoreError::NoTree(*id),
                error => error,
            })?,
            (None, Some(bytes)) => bytes,
            (None, None) => return Err(self.bad_node(id, "its encoding is gone".to_owned())),
        };
        match node_id(&bytes) {
            hashed if hashed == *id => Ok(bytes),
            hashed => Err(self.bad_node(id, format!("its bytes hash to {hashed}"))),
        }
    }

    /// Forgets a damaged node, and answers the error for who read it.
    fn bad_node(&self, id: &TreeId, detail: String) -> StoreError {
        tracing::warn!(tree = %id, %detail, "A tree node is damaged");
        match self.lose_tree(id) {
            Ok(_) => StoreError::Corrupt { what: format!("Tree node {id}"), detail },
            Err(error) => error,
        }
    }
}

fn read_node(bytes: &[u8]) -> Result<New<'_>, StoreError> {
    let id = node_id(bytes);
    if bytes.len() > NODE_BYTES_MAX {
        let too_large = NodeError::Limit { what: "size", value: bytes.len() as u64 };
        return Err(StoreError::Node(id, too_large));
    }
    let node = AnyNode::decode(bytes).map_err(|error| StoreError::Node(id, error))?;
    let dir = node.dir_ref(id);
    Ok(New { id, bytes, node: Arc::new(node), dir, blob: None })
}

impl Here {
    /// The head of a node, if all that it names is here and as it says.
    fn check(&self, new: &New<'_>) -> Result<Head, StoreError> {
        let refuse = |why: String| Err(StoreError::Incomplete { tree: new.id, why });
        for (blob, size) in new.node.blobs() {
            match self.blobs.get(&blob) {
                None => return refuse(format!("blob {blob} is not here")),
                Some(is) if *is != size => {
                    return refuse(format!("blob {blob} has {is} bytes, not {size}"));
                }
                Some(_) => {}
            }
        }
        let mut height = 0;
        for dir in new.node.dirs() {
            match self.heads.get(&dir.tree) {
                None => return refuse(format!("tree {} is not here", dir.tree)),
                Some(head) if head.dir_ref(dir.tree) != Some(dir) => {
                    return refuse(format!("the digests given for tree {} are wrong", dir.tree));
                }
                Some(head) => height = height.max(head.height + 1),
            }
        }
        if usize::from(height) > new.node.height_max() {
            let too_deep = NodeError::Limit { what: "depth", value: height.into() };
            return Err(StoreError::Node(new.id, too_deep));
        }
        match new.blob.filter(|blob| !self.blobs.contains_key(blob)) {
            Some(blob) => refuse(format!("its encoding, blob {blob}, was collected")),
            None => Ok(Head::new(new.dir, height, new.bytes.len() as u32, new.blob)),
        }
    }
}
