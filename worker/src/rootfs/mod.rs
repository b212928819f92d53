//! Root file systems: layers as directories, put upon each other by overlayfs, and what a step
//! changed read back as a diff tree.
//!
//! A [`Stack`] names what a root is made of. [`LayerCache`] makes each diff tree into a directory,
//! once, and keeps it; [`LayerCache::mount`] puts them upon each other with a private upper
//! directory on top; [`capture`] makes that upper directory into a diff tree, and
//! [`LayerCache::adopt`] into the next layer, without copying.
//!
//! Mounts are *detached*: they hang in no directory of this machine, only on a file descriptor.
//! Whoever is to see one gets the descriptor and attaches it in a mount namespace of its own, so
//! that no end of this process, not even by `kill -9`, leaves a mount behind.

pub(crate) mod at;
mod capture;
mod disk;
mod error;
mod fold;
mod layers;
mod materialize;
mod nodes;
mod overlay;
mod resolve;
mod squash;
#[cfg(test)]
mod testing;
mod verify;

pub use capture::{Diff, WrittenAs, capture};
pub use error::RootfsError;
pub(crate) use error::class_of;
pub use layers::{Damage, LayerCache};
pub(crate) use overlay::tag;
pub use overlay::{Access, Overlay, Upper};

use cache::store::Store;
use proto::id::{RootId, TreeId};
use proto::tree::{AnyNode, Root};
use std::sync::Arc;

/// What a root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// The diff trees, lowest first. None for `FROM scratch`.
    pub diffs: Vec<RootId>,
    /// The tree that comes out when they are put upon each other.
    pub merged: RootId,
}

fn load_root(store: &dyn Store, id: &RootId) -> Result<Root, RootfsError> {
    match &*store.node(&id.0)? {
        AnyNode::Root(root) => Ok(root.clone()),
        AnyNode::Dir(_) => Err(RootfsError::Kind(id.0)),
    }
}

/// A directory's node, which the caller still has to match.
fn load_dir(store: &dyn Store, id: &TreeId) -> Result<Arc<AnyNode>, RootfsError> {
    let node = store.node(id)?;
    match &*node {
        AnyNode::Dir(_) => Ok(node),
        AnyNode::Root(_) => Err(RootfsError::Kind(*id)),
    }
}
