//! Names of nodes, of their lives, and of entries.

use std::fmt;
use std::num::NonZeroU64;

/// A member of the log, or one that will be. Given once for all time: a node that lost its disk
/// comes back under another id, since its old one has voted for things that it can't remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The node of this number; none for 0.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a node, from an opening of its store to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// The node.
    pub node: NodeId,
    /// How often its store was opened, with this time.
    pub boot: u64,
}

/// What names an entry, wherever in the log it comes to lie: who proposed it, and a number that
/// counts up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Who proposed it.
    pub by: Incarnation,
    /// Which of its entries it is.
    pub number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.by.node, self.by.boot, self.number)
    }
}

/// The version of [`EntryId::to_bytes`] and of what lies beside it in an entry.
const VERSION: u8 = 1;

impl EntryId {
    /// The id as it lies in the context of an entry, and in the context of a read: a byte of
    /// version, then three numbers of eight bytes, the most significant one first.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.by.node.get(), self.by.boot, self.number];
        let bytes = numbers.into_iter().flat_map(u64::to_be_bytes);
        [VERSION].into_iter().chain(bytes).collect()
    }

    /// The id that these bytes are, if they are one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (numbers, rest) = rest.as_chunks::<8>();
        let [node, boot, number] = numbers else { return None };
        if *version != VERSION || !rest.is_empty() {
            return None;
        }
        let node = NodeId::new(u64::from_be_bytes(*node))?;
        let by = Incarnation { node, boot: u64::from_be_bytes(*boot) };
        Some(Self { by, number: u64::from_be_bytes(*number) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_were_written() {
        let by = Incarnation { node: NodeId::new(7).unwrap(), boot: 2 };
        let id = EntryId { by, number: u64::MAX };
        let bytes = id.to_bytes();
        assert_eq!(EntryId::from_bytes(&bytes), Some(id));
        assert_eq!(id.to_string(), "7.2.18446744073709551615");
        for bad in [&bytes[1..], &bytes[..24], &[], &[VERSION; 26], &[VERSION + 1; 25]] {
            assert_eq!(EntryId::from_bytes(bad), None);
        }
        assert_eq!(EntryId::from_bytes(&[[1].as_slice(), &[0; 24]].concat()), None, "no node 0");
    }
}
