//! The store of a farm: cache nodes that together are one store.
//!
//! Every node knows every tree node, record and row; the bytes of blobs are spread, some copies of
//! each ([`placement`]). [`client::Cluster`] is what the others work with: it writes to all that
//! should have something, and reads from any. The store of an embedded farm is a cluster of one node.
//! [`through::Through`] is a worker's own store with the farm's behind it.
//!
//! **A record counts when every node that serves knows it.** A node that missed a write, because it
//! was down or could not be reached, is found out at the latest when the record of the step is
//! written, which it refuses; it does not serve again before it has got what it lacks.

pub mod client;
pub mod placement;
pub mod through;

pub use client::{Cluster, ClusterPin};
