//! What trees can be read from: a store, wherever it is.

use super::{Store, StoreError};
use bytes::Bytes;
use proto::id::{BlobId, TreeId};
use proto::tree::AnyNode;
use std::io::Read;
use std::sync::Arc;

/// The part of [`Store`] that whoever reads trees needs. Also the store of a farm at the other end
/// of a stream is one ([`Remote`](crate::net::remote::Remote)).
///
/// All methods block, and verify what they answer.
pub trait Source: Send + Sync {
    /// A tree node.
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError>;

    /// Many small blobs' bytes, in the order asked for.
    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError>;

    /// A blob's bytes as a stream. It ends with an error, not with the end of the file, when the
    /// bytes are not what their name says.
    fn stream(&self, id: &BlobId) -> Result<Box<dyn Read + Send>, StoreError>;
}

impl<S: Store + ?Sized> Source for &S {
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
        (**self).node(id)
    }

    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        (**self).read_many(ids)
    }

    fn stream(&self, id: &BlobId) -> Result<Box<dyn Read + Send>, StoreError> {
        (**self).open(id, 0)
    }
}
