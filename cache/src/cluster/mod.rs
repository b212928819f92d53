//! The store of a farm: cache nodes that together are one store.
//!
//! Every node knows every tree node, record and row; the bytes of blobs are spread, some copies of
//! each ([`placement`]). [`client::Cluster`] is what the others work with: it writes to all that
//! should have something, and reads from any. The store of an embedded farm is a cluster of one node.
//! [`through::Through`] is a worker's own store with the farm's behind it; [`member::Member`] keeps a
//! cache node's part of it as it should be.
//!
//! **A record counts when every node that serves knows it.** A node that missed a write, because it
//! was down or could not be reached, is found out by whoever wrote; it does not serve again before
//! it has got what it lacks. What one node has collected the others forget
//! ([decision 0016](../../../docs/decisions/0016-what-a-farm-keeps.md)).

pub mod client;
pub mod member;
pub mod placement;
pub mod through;

pub use client::{Cluster, ClusterPin};
