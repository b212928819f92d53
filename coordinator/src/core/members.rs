//! Which cache nodes there are, and how each is: a state machine without IO or clock.
//!
//! A node that missed writes must not be asked before it has got what it lacks; all that can make
//! it miss some (it was gone, it could not be reached, it is new) makes it [`CacheState::Syncing`],
//! and only its own word that it has everything as of that moment makes it serve. When nobody
//! serves, the node that served last has everything, and serves again at once.

use proto::id::{CacheId, Millis};
use proto::wire::cluster::{CacheHello, CacheNode, CacheState, Map};
use std::collections::BTreeMap;

/// The cache nodes of a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    epoch: u64,
    replicas: u8,
    nodes: BTreeMap<CacheId, Member>,
}

/// A cache node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it serves blobs.
    pub address: String,
    /// How it is.
    pub state: CacheState,
    /// The map since which it is so.
    since: u64,
    /// Whether it is gone and was the last that served: nobody has taken anything since.
    whole: bool,
    /// When its connection broke, while it has not been given up.
    gone_at: Option<Millis>,
    /// Bytes that it holds, and may hold.
    pub bytes: (u64, u64),
}

/// Why a node cannot be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error("There is no cache node `{0}`")]
    Unknown(CacheId),
    /// Nothing would be left.
    #[error("`{0}` is the only cache node that has everything; add another one first")]
    Last(CacheId),
}

impl Members {
    /// A farm without nodes, in which each blob is to be on so many.
    pub fn new(replicas: u8) -> Self {
        Self { epoch: 1, replicas, nodes: BTreeMap::new() }
    }

    /// What everybody is told.
    pub fn map(&self) -> Map {
        let node = |(id, member): (&CacheId, &Member)| CacheNode {
            id: id.clone(),
            address: member.address.clone(),
            state: member.state,
        };
        let nodes = self.nodes.iter().map(node).collect();
        Map { epoch: self.epoch, replicas: self.replicas, nodes }
    }

    /// All nodes, by name.
    pub fn all(&self) -> impl Iterator<Item = (&CacheId, &Member)> {
        self.nodes.iter()
    }

    fn serves(&self, but: &CacheId) -> bool {
        self.nodes.iter().any(|(id, member)| id != but && member.state == CacheState::Serving)
    }

    fn set(&mut self, id: &CacheId, state: CacheState) {
        self.epoch += 1;
        let epoch = self.epoch;
        if let Some(member) = self.nodes.get_mut(id) {
            (member.state, member.since, member.whole) = (state, epoch, false);
        }
    }

    /// A node says how it is: when it comes, and when it has got something.
    pub fn hello(&mut self, hello: &CacheHello) {
        let CacheHello { id, address, synced, held_bytes, budget_bytes } = hello;
        let alone = !self.serves(id);
        let others_wait = self.nodes.iter().any(|(other, member)| other != id && member.whole);
        let known = self.nodes.entry(id.clone()).or_insert_with(|| Member {
            address: String::new(),
            state: CacheState::Down,
            since: 0,
            whole: false,
            gone_at: None,
            bytes: (0, 0),
        });
        known.gone_at = None;
        known.bytes = (*held_bytes, *budget_bytes);
        if known.address != *address {
            known.address = address.clone();
            self.epoch += 1;
        }
        match known.state {
            CacheState::Down if alone && !others_wait => self.set(id, CacheState::Serving),
            CacheState::Down => self.set(id, CacheState::Syncing),
            CacheState::Syncing if *synced >= known.since => self.set(id, CacheState::Serving),
            CacheState::Syncing | CacheState::Serving | CacheState::Leaving => {}
        }
    }

    /// A node's connection broke. It may come back at once.
    pub fn gone(&mut self, now: Millis, id: &CacheId) {
        if let Some(member) = self.nodes.get_mut(id) {
            member.gone_at.get_or_insert(now);
        }
    }

    /// Gives up nodes that have been gone for so many milliseconds; answers when to look again.
    pub fn expire(&mut self, now: Millis, lost_after_ms: u64) -> Option<Millis> {
        let gone: Vec<(CacheId, Millis)> = self
            .nodes
            .iter()
            .filter(|(_, member)| member.state != CacheState::Down)
            .filter_map(|(id, member)| Some((id.clone(), member.gone_at?)))
            .collect();
        let mut next = None;
        for (id, at) in gone {
            let until = Millis(at.0 + lost_after_ms);
            if until > now {
                next = Some(next.map_or(until, |n: Millis| n.min(until)));
                continue;
            }
            let served = self.nodes[&id].state == CacheState::Serving;
            let last = served && !self.serves(&id);
            self.set(&id, CacheState::Down);
            self.nodes.entry(id).and_modify(|member| member.whole = last);
        }
        next
    }

    /// A node lacks something that others have.
    pub fn stale(&mut self, id: &CacheId) {
        let is_serving = self.nodes.get(id).is_some_and(|m| m.state == CacheState::Serving);
        if is_serving && self.serves(id) {
            self.set(id, CacheState::Syncing);
        }
    }

    /// A node is to give what it has to others, and then to go.
    pub fn leave(&mut self, id: &CacheId) -> Result<(), RemoveError> {
        if !self.nodes.contains_key(id) {
            return Err(RemoveError::Unknown(id.clone()));
        }
        if !self.serves(id) {
            return Err(RemoveError::Last(id.clone()));
        }
        self.set(id, CacheState::Leaving);
        Ok(())
    }

    /// A node goes for good, with all that it has.
    pub fn remove(&mut self, id: &CacheId) -> Result<(), RemoveError> {
        let Some(member) = self.nodes.get(id) else {
            return Err(RemoveError::Unknown(id.clone()));
        };
        if member.state == CacheState::Serving && !self.serves(id) {
            return Err(RemoveError::Last(id.clone()));
        }
        self.nodes.remove(id);
        self.epoch += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> CacheId {
        CacheId::parse(name).unwrap()
    }

    fn hello(name: &str, synced: u64) -> CacheHello {
        let address = format!("{name}:7472");
        CacheHello { id: id(name), address, synced, held_bytes: 0, budget_bytes: 0 }
    }

    fn states(members: &Members) -> Vec<CacheState> {
        members.map().nodes.iter().map(|node| node.state).collect()
    }

    #[test]
    fn the_first_node_serves_and_the_next_ones_sync_first() {
        let mut members = Members::new(2);
        members.hello(&hello("a", 0));
        members.hello(&hello("b", 0));
        assert_eq!(states(&members), [CacheState::Serving, CacheState::Syncing]);
        let early = members.map().epoch - 1;
        members.hello(&hello("b", early));
        assert_eq!(states(&members)[1], CacheState::Syncing, "it has not seen the map yet");
        members.hello(&hello("b", early + 1));
        assert_eq!(states(&members), [CacheState::Serving, CacheState::Serving]);
    }

    #[test]
    fn a_node_that_was_away_syncs_and_a_short_break_is_none() {
        let mut members = Members::new(2);
        members.hello(&hello("a", 0));
        members.hello(&hello("b", 0));
        members.hello(&hello("b", u64::MAX));
        let epoch = members.map().epoch;
        members.gone(Millis(100), &id("b"));
        assert_eq!(members.expire(Millis(105), 10), Some(Millis(110)));
        members.hello(&hello("b", 0));
        assert_eq!(members.expire(Millis(200), 10), None);
        assert_eq!(members.map().epoch, epoch);
        members.gone(Millis(300), &id("b"));
        members.expire(Millis(310), 10);
        assert_eq!(states(&members)[1], CacheState::Down);
        members.hello(&hello("b", 0));
        assert_eq!(states(&members)[1], CacheState::Syncing);
    }

    #[test]
    fn of_two_that_went_the_one_that_served_last_serves_first() {
        let mut members = Members::new(2);
        members.hello(&hello("a", 0));
        members.hello(&hello("b", 0));
        members.hello(&hello("b", u64::MAX));
        for (at, name) in [(0, "b"), (100, "a")] {
            members.gone(Millis(at), &id(name));
            members.expire(Millis(at + 10), 10);
        }
        members.hello(&hello("b", u64::MAX));
        assert_eq!(states(&members), [CacheState::Down, CacheState::Syncing], "`a` has more");
        members.hello(&hello("a", 0));
        members.hello(&hello("b", u64::MAX));
        assert_eq!(states(&members), [CacheState::Serving, CacheState::Serving]);
        // When `a` never comes back, a person says so, and what `b` has is all there is.
        for (at, name) in [(200, "b"), (300, "a")] {
            members.gone(Millis(at), &id(name));
            members.expire(Millis(at + 10), 10);
        }
        members.remove(&id("a")).unwrap();
        members.hello(&hello("b", 0));
        assert_eq!(states(&members), [CacheState::Serving]);
    }

    #[test]
    fn the_only_one_that_serves_is_never_called_stale() {
        let mut members = Members::new(2);
        members.hello(&hello("a", 0));
        members.hello(&hello("b", 0));
        members.hello(&hello("b", u64::MAX));
        members.gone(Millis(0), &id("b"));
        members.expire(Millis(10), 10);
        members.stale(&id("a"));
        assert_eq!(states(&members)[0], CacheState::Serving, "somebody has to serve");
    }

    #[test]
    fn the_last_one_that_has_everything_is_not_removed() {
        let mut members = Members::new(2);
        members.hello(&hello("a", 0));
        assert_eq!(members.remove(&id("a")), Err(RemoveError::Last(id("a"))));
        assert_eq!(members.leave(&id("a")), Err(RemoveError::Last(id("a"))));
        assert_eq!(members.remove(&id("x")), Err(RemoveError::Unknown(id("x"))));
        members.hello(&hello("b", 0));
        members.hello(&hello("b", u64::MAX));
        members.leave(&id("a")).unwrap();
        assert_eq!(states(&members), [CacheState::Leaving, CacheState::Serving]);
        members.remove(&id("a")).unwrap();
        assert_eq!(members.map().nodes.len(), 1);
    }
}
