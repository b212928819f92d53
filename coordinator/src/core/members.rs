//! Which cache nodes there are, and how each is: a state machine without IO or clock.
//!
//! A node that missed writes must not be asked before it has got what it lacks; all that can make
//! it miss some (it was gone, it could not be reached, it is new, it lost something) makes it
//! [`CacheState::Syncing`], and only its own word that it has everything as of that moment makes it
//! serve. When nobody serves, the node that served last has everything, and serves again at once.

use proto::id::{CacheId, Millis};
use proto::wire::cluster::{CacheHello, CacheNode, CacheState, Map};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many nodes are remembered that were removed.
const REMOVED_MAX: usize = 1000;

/// The cache nodes of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Members {
    epoch: u64,
    replicas: u8,
    nodes: BTreeMap<CacheId, Member>,
    /// Nodes that were removed, and when their processes had begun: those stay out.
    removed: BTreeMap<CacheId, Millis>,
}

/// A cache node.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Member {
    /// Where it serves blobs.
    pub address: String,
    /// How it is.
    pub state: CacheState,
    /// When its process began.
    started: Millis,
    /// The map since which it is so.
    since: u64,
    /// The map up to which it says that it has everything that it should have.
    synced: u64,
    /// Whether it missed something while it was catching up.
    missed: bool,
    /// Whether it is gone and was the last that served: nobody has taken anything since.
    whole: bool,
    /// When its connection broke, while it has not been given up.
    gone_at: Option<Millis>,
    /// Bytes that it holds, and may hold.
    pub bytes: (u64, u64),
}

impl Member {
    /// Whether it cannot be heard at the moment.
    pub fn is_gone(&self) -> bool {
        self.gone_at.is_some() || self.state == CacheState::Down
    }
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
    /// It does not leave.
    #[error("`{0}` was not told to leave")]
    Stays(CacheId),
}

/// How far a node is that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaving {
    /// The others have all that they should have without it.
    Done,
    /// These are still getting what they should have.
    Waits(Vec<CacheId>),
    /// These should get some of it, and cannot be reached; or it cannot itself.
    Stuck(Vec<CacheId>),
}

/// Bytes that are no members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("What was kept of the cache nodes cannot be read: {0}")]
pub struct BadMembers(String);

impl Members {
    /// A farm without nodes, in which each blob is to be on so many.
    pub fn new(replicas: u8) -> Self {
        Self { epoch: 1, replicas, nodes: BTreeMap::new(), removed: BTreeMap::new() }
    }

    /// All of it, to be kept.
    pub fn snapshot(&self) -> Vec<u8> {
        rkyv::to_bytes::<RkyvError>(self).expect("members have a form").to_vec()
    }

    /// What [`Members::snapshot`] gave, with as many copies as are wanted now. The nodes that were
    /// there count as gone from `gone` on, if they are not back by then.
    pub fn restore(bytes: &[u8], replicas: u8, gone: Millis) -> Result<Self, BadMembers> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let mut members = rkyv::from_bytes::<Self, RkyvError>(&aligned)
            .map_err(|e| BadMembers(e.to_string().lines().next().unwrap_or_default().to_owned()))?;
        if members.replicas != replicas {
            members.replicas = replicas;
            members.epoch += 1;
        }
        for member in members.nodes.values_mut().filter(|m| m.state != CacheState::Down) {
            member.gone_at = Some(gone);
        }
        Ok(members)
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
        if state == CacheState::Serving {
            // From now on it takes what those that wait for their turn do not.
            self.nodes.values_mut().for_each(|member| member.whole = false);
        }
        if let Some(member) = self.nodes.get_mut(id) {
            (member.state, member.since) = (state, epoch);
            (member.whole, member.missed) = (false, false);
        }
    }

    /// A node says how it is: when it comes, and when it has got something.
    pub fn hello(&mut self, hello: &CacheHello) {
        let CacheHello { id, address, started, synced, held_bytes, budget_bytes } = hello;
        // One that was removed is a new one when its process begins anew, and not before.
        if self.removed.get(id).is_some_and(|removed| started <= removed) {
            return;
        }
        self.removed.remove(id);
        let alone = !self.serves(id);
        let others_wait = self.nodes.iter().any(|(other, member)| other != id && member.whole);
        let known = self.nodes.entry(id.clone()).or_insert_with(|| Member {
            address: String::new(),
            state: CacheState::Down,
            started: *started,
            since: 0,
            synced: 0,
            missed: false,
            whole: false,
            gone_at: None,
            bytes: (0, 0),
        });
        known.gone_at = None;
        known.bytes = (*held_bytes, *budget_bytes);
        (known.started, known.synced) = (*started, *synced);
        if known.address != *address {
            known.address = address.clone();
            self.epoch += 1;
        }
        match known.state {
            CacheState::Down if alone && (known.whole || !others_wait) => {
                self.set(id, CacheState::Serving);
            }
            CacheState::Down => self.set(id, CacheState::Syncing),
            // It has just begun, or lost something.
            CacheState::Serving if *synced == 0 && !alone => self.set(id, CacheState::Syncing),
            CacheState::Syncing if *synced >= known.since && known.missed => {
                self.set(id, CacheState::Syncing);
            }
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

    /// Gives up nodes that have been gone for so many milliseconds; answers when to look again. One
    /// that leaves goes on leaving: it owns nothing any more.
    pub fn expire(&mut self, now: Millis, lost_after_ms: u64) -> Option<Millis> {
        let stays = |state| matches!(state, CacheState::Down | CacheState::Leaving);
        let gone: Vec<(CacheId, Millis)> = self
            .nodes
            .iter()
            .filter(|(_, member)| !stays(member.state))
            .filter_map(|(id, member)| Some((id.clone(), member.gone_at?)))
            .collect();
        let until = |at: Millis| Millis(at.0 + lost_after_ms);
        let (late, rest): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|(_, at)| until(*at) <= now);
        let mut served = Vec::new();
        for (id, _) in late {
            if self.nodes[&id].state == CacheState::Serving {
                served.push(id.clone());
            }
            self.set(&id, CacheState::Down);
        }
        // Those that went last went together: each of them has everything.
        let nobody_serves = self.nodes.values().all(|m| m.state != CacheState::Serving);
        for id in served.into_iter().filter(|_| nobody_serves) {
            self.nodes.entry(id).and_modify(|member| member.whole = true);
        }
        rest.into_iter().map(|(_, at)| until(at)).min()
    }

    /// A node lacks something that others have. Answers whether it serves no more because of that.
    pub fn stale(&mut self, id: &CacheId) -> bool {
        let serves = self.serves(id);
        match self.nodes.get_mut(id) {
            Some(member) if member.state == CacheState::Syncing => member.missed = true,
            Some(member) if member.state == CacheState::Serving && serves => {
                self.set(id, CacheState::Syncing);
                return true;
            }
            _ => {}
        }
        false
    }

    /// A node is to give what it has to others, and then to go.
    pub fn leave(&mut self, id: &CacheId) -> Result<(), RemoveError> {
        let Some(member) = self.nodes.get(id) else {
            return Err(RemoveError::Unknown(id.clone()));
        };
        if member.state == CacheState::Leaving {
            return Ok(());
        }
        if !self.serves(id) {
            return Err(RemoveError::Last(id.clone()));
        }
        self.set(id, CacheState::Leaving);
        Ok(())
    }

    /// A node that was told to leave is to stay; it gets what it missed meanwhile.
    pub fn stay(&mut self, id: &CacheId) -> Result<(), RemoveError> {
        match self.nodes.get(id).map(|member| member.state) {
            None => Err(RemoveError::Unknown(id.clone())),
            Some(CacheState::Leaving) => {
                self.set(id, CacheState::Syncing);
                Ok(())
            }
            Some(_) => Err(RemoveError::Stays(id.clone())),
        }
    }

    /// How far a node is that leaves.
    pub fn leaving(&self, id: &CacheId) -> Result<Leaving, RemoveError> {
        let leaver = self.nodes.get(id).ok_or_else(|| RemoveError::Unknown(id.clone()))?;
        if leaver.state != CacheState::Leaving {
            return Err(RemoveError::Stays(id.clone()));
        }
        let stays = self.nodes.iter().filter(|(_, member)| member.state != CacheState::Leaving);
        let (mut waits, mut stuck) = (Vec::new(), Vec::new());
        for (other, member) in stays.filter(|(_, member)| member.synced < leaver.since) {
            match member.state {
                CacheState::Down => stuck.push(other.clone()),
                _ => waits.push(other.clone()),
            }
        }
        if (!waits.is_empty() || !stuck.is_empty()) && leaver.is_gone() {
            stuck.push(id.clone());
        }
        Ok(match (stuck.is_empty(), waits.is_empty()) {
            (false, _) => Leaving::Stuck(stuck),
            (true, false) => Leaving::Waits(waits),
            (true, true) => Leaving::Done,
        })
    }

    /// A node goes for good, with all that it has.
    pub fn remove(&mut self, id: &CacheId) -> Result<(), RemoveError> {
        let Some(member) = self.nodes.get(id) else {
            return Err(RemoveError::Unknown(id.clone()));
        };
        if member.state == CacheState::Serving && !self.serves(id) {
            return Err(RemoveError::Last(id.clone()));
        }
        let started = member.started;
        self.nodes.remove(id);
        if self.removed.len() == REMOVED_MAX {
            self.removed.pop_first();
        }
        self.removed.insert(id.clone(), started);
        self.epoch += 1;
        // What those have that were catching up from it is all there is now.
        let waits = self.nodes.values().any(|member| member.whole);
        if !self.serves(id) && !waits {
            let is_there = |m: &Member| m.state == CacheState::Syncing && !m.is_gone();
            let first = self.nodes.iter().find(|(_, member)| is_there(member));
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                self.set(&first, CacheState::Serving);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
