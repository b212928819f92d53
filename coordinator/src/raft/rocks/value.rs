//! What lies beside the entries.

use crate::raft::driver::NodeId;
use proto::id::Millis;
use std::fmt;

/// The version of everything on disk.
pub(super) const VERSION: u8 = 1;

/// The name of a cluster: random, made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Whose a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub node: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of the cluster {}", self.node, self.cluster)
    }
}

/// What is kept beside the entries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Marker,
    /// How often it was opened.
    Boot,
    /// Term, vote and commit.
    Hard,
    Bounds,
    /// Index, term and members of the snapshot.
    Metadata,
    Snapshot,
}

impl Key {
    pub fn name(self) -> &'static str {
        match self {
            Key::Marker => "marker",
            Key::Boot => "boot",
            Key::Hard => "hard",
            Key::Bounds => "bounds",
            Key::Metadata => "metadata",
            Key::Snapshot => "snapshot",
        }
    }
}

/// The key of an entry.
pub(super) fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// Reads numbers that fill all of some bytes.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let numbers: &[[u8; 8]; N] = numbers.try_into().ok()?;
    rest.is_empty().then(|| numbers.map(u64::from_be_bytes))
}

/// A number alone.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    numbers(bytes).map(|[number]| number)
}

/// Says whose a log is, and that it was made completely: it is in the first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    pub identity: Identity,
    /// When it was made.
    pub created: Millis,
}

impl Marker {
    /// A byte of version, the cluster, the node, the time.
    pub fn to_bytes(self) -> Vec<u8> {
        let Identity { cluster, node } = self.identity;
        let numbers = [node.get(), self.created.0].into_iter().flat_map(u64::to_be_bytes);
        [VERSION].into_iter().chain(cluster.0).chain(numbers).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (cluster, rest) = bytes.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let [node, created] = numbers(rest)?;
        let identity = Identity { cluster: ClusterId(*cluster), node: NodeId::new(node)? };
        Some(Self { identity, created: Millis(created) })
    }
}

/// Where the log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The index before the first entry.
    pub before: u64,
    /// The term of the entry that stood there.
    pub before_term: u64,
    /// The index of the last entry.
    pub last: u64,
}

impl Bounds {
    /// Those of a log without entries, behind this index.
    pub fn at(index: u64, term: u64) -> Self {
        Self { before: index, before_term: term, last: index }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.before, self.before_term, self.last];
        numbers.into_iter().flat_map(u64::to_be_bytes).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [before, before_term, last] = numbers(bytes)?;
        (before <= last).then_some(Self { before, before_term, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        let identity = Identity { cluster: ClusterId([7; 16]), node: NodeId::new(3).unwrap() };
        let marker = Marker { identity, created: Millis(9) };
        let bytes = marker.to_bytes();
        assert_eq!(Marker::from_bytes(&bytes), Some(marker));
        assert_eq!(Marker::from_bytes(&bytes[..32]), None);
        assert_eq!(Marker::from_bytes(&[&bytes[..], &[0]].concat()), None);
        assert!(identity.to_string().starts_with("node 3 of the cluster 0707"));

        let bounds = Bounds { before: 4, before_term: 2, last: 9 };
        assert_eq!(Bounds::from_bytes(&bounds.to_bytes()), Some(bounds));
        let backwards = Bounds { before: 4, before_term: 2, last: 3 };
        assert_eq!(Bounds::from_bytes(&backwards.to_bytes()), None);
        assert_eq!(number(&[0; 7]), None);
    }
}
