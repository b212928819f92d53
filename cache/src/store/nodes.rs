//! A store as a source of nodes for the algebra.

use super::{Store, StoreError};
use crate::tree::{Gap, Nodes, TreeError};
use bytes::Bytes;
use proto::id::{BlobId, RootId, TreeId};
use proto::tree::AnyNode;
use std::sync::Arc;

/// Reads nodes from a store on this machine. Archives are not looked into: [`Gap::Archive`].
pub struct StoreNodes<'s>(pub &'s dyn Store);

impl Nodes for StoreNodes<'_> {
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, TreeError> {
        self.0.node(id).map_err(|e| gap(&e, Gap::Tree(*id)))
    }

    fn blob(&self, id: &BlobId) -> Result<Bytes, TreeError> {
        self.0.read(id).map_err(|e| gap(&e, Gap::Blob(*id)))
    }

    fn archive(&self, id: &BlobId) -> Result<Option<RootId>, TreeError> {
        Err(TreeError::Gap(Gap::Archive(*id)))
    }
}

fn gap(error: &StoreError, gap: Gap) -> TreeError {
    tracing::debug!("{error}");
    TreeError::Gap(gap)
}
