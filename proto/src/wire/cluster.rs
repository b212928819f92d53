//! Which machines a farm is made of, and how a machine becomes one of them.
//!
//! Whoever works with the farm's store opens a stream of [`Service::Cluster`](super::Service) and
//! says who it is by a [`Hello`]; the coordinator answers with the [`Map`], and again each time it
//! changes. A cache node says how it is by [`FromMember::Cache`] whenever that changes.
//!
//! On a stream of [`Service::Certificates`](super::Service) there is one [`Request`] and one
//! [`Reply`].

use crate::error::Failure;
use crate::id::{CacheId, Millis};
use rkyv::{Archive, Deserialize, Serialize};

/// What a member says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum FromMember {
    /// It wants to know which cache nodes there are.
    Watch,
    /// It is a cache node.
    Cache(CacheHello),
    /// These cache nodes did not take something that the others have taken. Said by who watches.
    Missed(Vec<CacheId>),
}

/// What a cache node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheHello {
    /// Who it is: the name in its certificate.
    pub id: CacheId,
    /// Where it serves blobs: `HOST:PORT`. An empty host stands for the address that it dialled
    /// from.
    pub address: String,
    /// When its process began.
    pub started: Millis,
    /// The map up to which it has everything that it should have: 0 when it has just begun, or lost
    /// something.
    pub synced: u64,
    /// Bytes that its store holds.
    pub held_bytes: u64,
    /// Bytes that its store may hold.
    pub budget_bytes: u64,
}

/// The cache nodes of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Map {
    /// Grows with each change.
    pub epoch: u64,
    /// On how many nodes each blob is.
    pub replicas: u8,
    /// The nodes, by name.
    pub nodes: Vec<CacheNode>,
}

/// A cache node, as the map has it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheNode {
    /// Who it is.
    pub id: CacheId,
    /// Where it serves blobs: `HOST:PORT`.
    pub address: String,
    /// How it is.
    pub state: CacheState,
}

/// How a cache node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum CacheState {
    /// It has everything that it should have.
    Serving,
    /// It takes what is new, and gets what it lacks: nothing is asked of it yet.
    Syncing,
    /// It gives what it has and takes nothing: it will be removed.
    Leaving,
    /// It cannot be reached.
    Down,
}

impl CacheState {
    /// Whether it is asked for what it has.
    pub fn reads(self) -> bool {
        matches!(self, Self::Serving | Self::Leaving)
    }

    /// Whether it is given what is new.
    pub fn writes(self) -> bool {
        matches!(self, Self::Serving | Self::Syncing)
    }
}

/// What is asked about certificates.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Request {
    /// A certificate for the role of a token.
    Join {
        /// The token.
        token: String,
        /// The name that the machine or person wants.
        name: String,
        /// What is to be signed: PKCS #10, in DER.
        csr: Vec<u8>,
    },
    /// A new certificate for whoever has a valid one.
    Renew {
        /// What is to be signed: PKCS #10, in DER.
        csr: Vec<u8>,
    },
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Join { name, .. } => write!(f, "Join({name})"),
            Self::Renew { .. } => f.write_str("Renew"),
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Reply {
    /// The certificate, in DER.
    Certificate {
        /// The certificate.
        certificate: Vec<u8>,
        /// The authority's.
        authority: Vec<u8>,
        /// Until when it is valid.
        expires: Millis,
    },
    /// There is none.
    Refused(Failure),
}
