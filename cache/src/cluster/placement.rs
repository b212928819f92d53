//! On which cache nodes a blob is: rendezvous hashing (highest random weight; Thaler and
//! Ravishankar, 1998). Pure.
//!
//! Each node has a weight for each blob that depends on the two alone; a blob is on the nodes with
//! the highest weights. A node that comes or goes moves what it has, and nothing else.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use proto::id::{BlobId, CacheId};
use proto::wire::cluster::{CacheState, Map};
use std::cmp::Reverse;

/// The nodes of a map, with what weights need of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    nodes: Vec<Node>,
    replicas: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    id: CacheId,
    state: CacheState,
    seed: u64,
}

/// A node's place in [`Map::nodes`].
pub type At = usize;

impl Placement {
    /// The placement that a map says.
    pub fn new(map: &Map) -> Self {
        let node = |node: &proto::wire::cluster::CacheNode| Node {
            id: node.id.clone(),
            state: node.state,
            seed: seed(&node.id),
        };
        let replicas = usize::from(map.replicas.max(1));
        Self { nodes: map.nodes.iter().map(node).collect(), replicas }
    }

    /// The placement when these are the nodes that own blobs.
    pub fn among(nodes: &[CacheId], replicas: u8) -> Self {
        let node =
            |id: &CacheId| Node { id: id.clone(), state: CacheState::Serving, seed: seed(id) };
        let replicas = usize::from(replicas.max(1));
        Self { nodes: nodes.iter().map(node).collect(), replicas }
    }

    /// All nodes that `wanted` says yes to, the blob's first owner first.
    fn ranked(&self, blob: &BlobId, wanted: impl Fn(CacheState) -> bool) -> Vec<At> {
        let key = u64::from_le_bytes(blob.as_bytes()[..8].try_into().expect("eight of 32 bytes"));
        let mut nodes: Vec<(u64, At)> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| wanted(node.state))
            .map(|(at, node)| (weight(node.seed, key), at))
            .collect();
        // Equal weights are told apart by name, so that all machines agree.
        nodes.sort_unstable_by_key(|(weight, at)| (Reverse(*weight), &self.nodes[*at].id));
        nodes.into_iter().map(|(_, at)| at).collect()
    }

    /// Where to look for a blob, in order: its owners first, then all others that can be asked,
    /// which may have it from before a change; at last those that are catching up.
    pub fn readers(&self, blob: &BlobId) -> Vec<At> {
        let mut nodes = self.ranked(blob, CacheState::reads);
        nodes.extend(self.ranked(blob, |state| state == CacheState::Syncing));
        nodes
    }

    /// Where to put a blob, in order: the first ones, as many as there are to be copies, then those
    /// that stand in for owners that fail.
    pub fn writers(&self, blob: &BlobId) -> Vec<At> {
        self.ranked(blob, CacheState::writes)
    }

    /// The nodes on which the blob should be, once all that is under way is done. A node that cannot
    /// be reached keeps its place until it is removed.
    pub fn owners(&self, blob: &BlobId) -> Vec<At> {
        let mut owners = self.ranked(blob, |state| state != CacheState::Leaving);
        owners.truncate(self.replicas);
        owners
    }

    /// Whether the node is one of the [`Placement::owners`].
    pub fn owns(&self, node: &CacheId, blob: &BlobId) -> bool {
        self.owners(blob).into_iter().any(|at| self.nodes[at].id == *node)
    }

    /// How many copies there are to be.
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// All nodes in a state that `wanted` says yes to.
    pub fn all(&self, wanted: impl Fn(CacheState) -> bool) -> Vec<At> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| wanted(node.state)).map(|(at, _)| at).collect()
    }
}

fn seed(id: &CacheId) -> u64 {
    let hash = blake3::hash(id.as_str().as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight of 32 bytes"))
}

/// A random number that depends on both (the finaliser of SplitMix64; Steele et al., 2014). Blob ids
/// are hashes already.
fn weight(seed: u64, key: u64) -> u64 {
    let mut z = (seed ^ key).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::cluster::CacheNode;

    fn map(names: &[&str], replicas: u8) -> Map {
        let node = |name: &&str| CacheNode {
            id: CacheId::parse(name).unwrap(),
            address: String::new(),
            state: CacheState::Serving,
        };
        Map { epoch: 1, replicas, nodes: names.iter().map(node).collect() }
    }

    fn blobs(count: u32) -> impl Iterator<Item = BlobId> {
        (0..count).map(|n| BlobId::of(&n.to_le_bytes()))
    }

    fn names(placement: &Placement, map: &Map, blob: &BlobId) -> Vec<String> {
        let all = map.nodes.iter().filter(|node| placement.owns(&node.id, blob));
        all.map(|node| node.id.to_string()).collect()
    }

    #[test]
    fn copies_are_spread_evenly_over_different_nodes() {
        let map = map(&["a", "b", "c", "d", "e"], 2);
        let placement = Placement::new(&map);
        let mut counts = [0u32; 5];
        for blob in blobs(10_000) {
            let owners = placement.writers(&blob);
            assert_eq!(owners.len(), 5);
            assert_eq!(owners, placement.readers(&blob));
            owners[..2].iter().for_each(|at| counts[*at] += 1);
        }
        for count in counts {
            assert!((3_700..4_300).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn a_node_that_comes_or_goes_moves_only_what_it_has() {
        let (four, five) = (map(&["a", "b", "c", "d"], 2), map(&["a", "b", "c", "d", "e"], 2));
        let (before, after) = (Placement::new(&four), Placement::new(&five));
        let mut moved = 0;
        for blob in blobs(10_000) {
            let (old, new) = (names(&before, &four, &blob), names(&after, &five, &blob));
            let gone: Vec<_> = old.iter().filter(|node| !new.contains(node)).collect();
            let came: Vec<_> = new.iter().filter(|node| !old.contains(node)).collect();
            assert!(came.iter().all(|node| *node == "e"), "{old:?} {new:?}");
            assert_eq!(gone.len(), came.len());
            moved += came.len();
        }
        // Two copies of 10,000 blobs on five nodes: 4,000 each.
        assert!((3_700..4_300).contains(&moved), "{moved}");
    }

    #[test]
    fn a_node_that_cannot_be_reached_is_stood_in_for_and_keeps_its_place() {
        let mut down = map(&["a", "b", "c"], 2);
        down.nodes[0].state = CacheState::Down;
        let placement = Placement::new(&down);
        let a = CacheId::parse("a").unwrap();
        let whole = Placement::new(&map(&["a", "b", "c"], 2));
        for blob in blobs(200) {
            assert_eq!(placement.writers(&blob).len(), 2);
            assert!(!placement.readers(&blob).contains(&0));
            assert_eq!(placement.owns(&a, &blob), whole.owns(&a, &blob));
        }
    }

    #[test]
    fn a_node_that_catches_up_is_looked_at_last_and_one_that_leaves_owns_nothing() {
        let mut moving = map(&["a", "b", "c", "d"], 2);
        moving.nodes[1].state = CacheState::Syncing;
        moving.nodes[2].state = CacheState::Leaving;
        let placement = Placement::new(&moving);
        let names = ["a", "b", "d"].map(|name| CacheId::parse(name).unwrap());
        let among = Placement::among(&names, 2);
        for blob in blobs(200) {
            let readers = placement.readers(&blob);
            assert_eq!((readers.len(), readers[3]), (4, 1));
            assert!(!placement.writers(&blob).contains(&2));
            assert!(!placement.owners(&blob).contains(&2));
            for node in &moving.nodes {
                assert_eq!(placement.owns(&node.id, &blob), among.owns(&node.id, &blob));
            }
        }
    }
}
