//! Whose turn it is: fair queueing by virtual time, for lanes, projects, users and builds.
//!
//! A tree: the root's children are *lanes* (one for each platform, one for connections), theirs are
//! projects, then users, then builds; a build's work stands in the order of the longest path. Each
//! child has a *tag*, the virtual time at which it is served next; among siblings the smallest tag
//! goes first, and being served costs time divided by weight. That is start-time fair queueing
//! (Goyal, Vin, Cheng, "Start-time fair queueing", SIGCOMM 1996), nested as in Goyal, Guo, Vin, "A
//! hierarchical CPU scheduler for multimedia operating systems", OSDI 1996, and for many servers at
//! once as in Jin, Chase, Kaur, "Interposed proportional sharing", SIGMETRICS 2004.
//!
//! Whoever comes begins at the parent's *clock*, which goes on with all work that was done there, as
//! in Bennett and Zhang, "Hierarchical packet fair queueing algorithms", 1997: an endless stream of
//! newcomers does not keep those who are there from their turn. Who has work that runs is there,
//! even if none of it waits. Who could not be served for a while (there was no room for what it asks
//! for) has no claim to what others got.
//!
//! Lanes are trees of their own, so that who uses many workers of one platform does not pay for it
//! on another, where others wait. Between lanes turns go by how many projects wait in each.
//!
//! Work of one build can be of several *classes*, not all of which there is room for: each node has
//! a line of its children for each class, and [`Shares::first`] looks at one class only.

mod look;
mod node;
mod works;

pub use node::{Rank, order};

use super::arena::{Arena, ClassIx, ItemIx, NodeIx};
use super::demand::Flow;
use crate::core::WorkId;
use node::{Key, Line, Node, Tag};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use works::Works;

/// Virtual time: milliseconds, times this, divided by weight.
const SCALE: u64 = 1 << 10;

/// What one piece of work can cost at most: a week. So tags can't run over.
const COST_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// The tree.
#[derive(Debug)]
pub struct Shares {
    nodes: Arena<NodeIx, Node>,
    root: NodeIx,
    weights: BTreeMap<Arc<str>, u32>,
}

impl Default for Shares {
    fn default() -> Self {
        let mut nodes = Arena::default();
        let root = nodes.insert(Node::new(None, "".into(), 1));
        Self { nodes, root, weights: BTreeMap::new() }
    }
}

impl Shares {
    /// A project's weight; 1 if nobody says otherwise.
    pub fn set_weight(&mut self, project: &str, weight: u32) {
        let weight = weight.max(1);
        self.weights.insert(project.into(), weight);
        let lanes: Vec<NodeIx> = self.nodes[self.root].more.children.values().copied().collect();
        for lane in lanes {
            if let Some(node) = self.nodes[lane].more.children.get(project) {
                self.reweigh(*node, weight);
            }
        }
    }

    fn reweigh(&mut self, at: NodeIx, weight: u32) {
        let old = std::mem::replace(&mut self.nodes[at].weight, weight);
        if !self.nodes[at].lines.is_empty() {
            self.waits(at, old, false);
            self.waits(at, weight, true);
        }
    }

    /// The build's place in a lane, for one more piece of work, until [`Shares::release`].
    pub fn enter(&mut self, lane: &str, flow: &Flow, weight: u32) -> NodeIx {
        let lane = self.child(self.root, lane, 1);
        let of_project = self.weights.get(&flow.project).copied().unwrap_or(1);
        let project = self.child(lane, &flow.project, of_project);
        let user = self.child(project, &flow.user, 1);
        let build = self.child(user, flow.build.as_str(), weight);
        if self.nodes[build].weight != weight {
            self.reweigh(build, weight);
        }
        self.nodes[build].refs += 1;
        build
    }

    fn child(&mut self, parent: NodeIx, name: &str, weight: u32) -> NodeIx {
        if let Some(child) = self.nodes[parent].more.children.get(name).copied() {
            if let Some(tag) = self.nodes[child].more.rests.take() {
                self.nodes[parent].get_up(tag, child);
            }
            return child;
        }
        let name: Arc<str> = name.into();
        let child = self.nodes.insert(Node::new(Some(parent), name.clone(), weight));
        self.nodes[parent].more.children.insert(name, child);
        self.nodes[parent].refs += 1;
        child
    }

    /// A piece of work waits for its turn, since this time.
    pub fn insert(
        &mut self,
        since: u64,
        build: NodeIx,
        class: ClassIx,
        path: u64,
        work: WorkId,
        item: ItemIx,
    ) {
        let key = (Reverse(path), work, item);
        let node = &mut self.nodes[build];
        match node.line_mut(class) {
            Some(Line::Works(works)) => works.insert(key),
            _ => {
                node.lines.push((class, Line::Works(Works::one(key))));
                self.link(since, build, class);
            }
        }
    }

    /// A node has something in a class in which it had nothing.
    fn link(&mut self, since: u64, mut at: NodeIx, class: ClassIx) {
        while let Some(parent) = self.nodes[at].parent {
            if self.nodes[at].lines.len() == 1 {
                self.begin(since, at, parent);
            }
            let key = self.nodes[at].key(at);
            if parent == self.root {
                return;
            }
            let node = &mut self.nodes[parent];
            if let Some(Line::Nodes(nodes)) = node.line_mut(class) {
                nodes.insert(key);
                return;
            }
            node.lines.push((class, Line::Nodes(BTreeSet::from([key]))));
            at = parent;
        }
    }

    /// A node waits that did not.
    fn begin(&mut self, since: u64, at: NodeIx, parent: NodeIx) {
        let above = &self.nodes[parent];
        let from = if self.nodes[at].is_new { above.clock } else { above.served };
        let node = &mut self.nodes[at];
        node.tag = node.tag.saturating_add_signed(node.debt).max(from);
        (node.debt, node.since, node.is_new) = (0, since, false);
        let weight = node.weight;
        self.waits(at, weight, true);
    }

    /// A child of that weight waits, or does not any more. A lane weighs what its projects weigh.
    fn waits(&mut self, at: NodeIx, weight: u32, does: bool) {
        let weight = u64::from(weight);
        let Some(parent) = self.nodes[at].parent.filter(|p| *p != self.root) else { return };
        let mut count = |node: NodeIx| {
            let waiting = &mut self.nodes[node].waiting;
            *waiting = if does { *waiting + weight } else { *waiting - weight };
        };
        count(parent);
        if self.nodes[parent].parent == Some(self.root) {
            self.nodes[self.root].waiting = match does {
                true => self.nodes[self.root].waiting + weight,
                false => self.nodes[self.root].waiting - weight,
            };
        }
    }

    /// A piece of work does not wait any more: it was taken, or is not wanted.
    pub fn remove(&mut self, build: NodeIx, class: ClassIx, path: u64, work: WorkId, item: ItemIx) {
        let line = self.nodes[build].line_mut(class);
        let Some(Line::Works(works)) = line else { return };
        works.remove(&(Reverse(path), work, item));
        if works.is_empty() {
            self.unlink(build, class);
        }
    }

    /// A node has nothing any more in a class.
    fn unlink(&mut self, mut at: NodeIx, class: ClassIx) {
        while let Some(parent) = self.nodes[at].parent {
            let node = &mut self.nodes[at];
            node.lines.retain(|(c, _)| *c != class);
            let (key, weight, ends) = (node.key(at), node.weight, node.lines.is_empty());
            if ends {
                self.waits(at, weight, false);
                if self.nodes[at].waiting == 0 {
                    self.wake_all(at);
                }
            }
            if parent == self.root {
                return;
            }
            let Some(line) = self.nodes[parent].line_mut(class) else { return };
            if let Line::Nodes(nodes) = line {
                nodes.remove(&key);
            }
            if !line.is_empty() {
                return;
            }
            at = parent;
        }
    }

    /// The class's work whose turn it is, and where it stands. `lane` is any node of the lane.
    pub fn first(&self, lane: NodeIx, class: ClassIx) -> Option<(ItemIx, Rank)> {
        let mut at = lane;
        let mut nodes = [(0, 0, 0); 4];
        for place in &mut nodes {
            let node = &self.nodes[at];
            *place = (node.tag, node.since, node.order);
            match node.line(class)? {
                Line::Nodes(nodes) => at = nodes.first()?.3,
                Line::Works(works) => {
                    let (path, work, item) = *works.first()?;
                    return Some((item, Rank { nodes, path, work }));
                }
            }
        }
        None
    }

    /// The lane that a build's node is in.
    pub fn lane_of(&self, build: NodeIx) -> NodeIx {
        let mut at = build;
        while let Some(parent) = self.nodes[at].parent.filter(|p| *p != self.root) {
            at = parent;
        }
        at
    }

    /// A build got `cost_ms` of a worker.
    pub fn charge(&mut self, build: NodeIx, cost_ms: u64) {
        let cost = cost_ms.clamp(1, COST_MS_MAX) * SCALE;
        let mut at = build;
        while let Some(parent) = self.nodes[at].parent {
            let weight = self.weight(at);
            let before = self.nodes[parent].served;
            let node = &mut self.nodes[at];
            let (old, start) = (node.key(at), node.tag.max(before));
            let owed = node.debt.saturating_add((cost / weight).max(1) as i64);
            node.tag = start.saturating_add_signed(owed.max(0));
            node.debt = owed.min(0);
            let new = node.key(at);
            self.rekey(at, parent, old, new);
            let above = &mut self.nodes[parent];
            above.served = start;
            above.clock = above.clock.max(start);
            self.wake(parent);
            at = parent;
        }
    }

    fn weight(&self, at: NodeIx) -> u64 {
        let node = &self.nodes[at];
        match node.parent == Some(self.root) {
            true => node.waiting.max(1),
            false => u64::from(node.weight),
        }
    }

    fn rekey(&mut self, at: NodeIx, parent: NodeIx, old: Key, new: Key) {
        if parent == self.root {
            return;
        }
        for index in 0..self.nodes[at].lines.len() {
            let class = self.nodes[at].lines[index].0;
            if let Some(Line::Nodes(nodes)) = self.nodes[parent].line_mut(class) {
                nodes.remove(&old);
                nodes.insert(new);
            }
        }
    }

    /// What a build got has ended, and cost this much more, or less, than it was charged for.
    pub fn settle(&mut self, build: NodeIx, charged_ms: u64, cost_ms: u64) {
        let [charged, cost] = [charged_ms, cost_ms].map(|ms| ms.clamp(1, COST_MS_MAX) * SCALE);
        let mut at = build;
        while let Some(parent) = self.nodes[at].parent {
            let weight = self.weight(at);
            let more = (cost / weight) as i64 - (charged / weight) as i64;
            let node = &mut self.nodes[at];
            node.debt = node.debt.saturating_add(more);
            let above = &mut self.nodes[parent];
            above.clock = above.clock.saturating_add(cost / above.waiting.max(weight));
            self.wake(parent);
            at = parent;
        }
    }

    /// A piece of work has ended, or is not wanted any more.
    pub fn release(&mut self, build: NodeIx) {
        self.nodes[build].refs -= 1;
        self.retire(build);
    }

    /// A node that has nothing is forgotten, once it has no more than its share.
    fn retire(&mut self, at: NodeIx) {
        let node = &self.nodes[at];
        let Some(parent) = node.parent.filter(|_| node.refs == 0) else { return };
        let tag = node.tag.saturating_add_signed(node.debt);
        let above = &mut self.nodes[parent];
        if above.waiting > 0 && tag > above.clock {
            above.lay_down(tag, at);
            self.nodes[at].more.rests = Some(tag);
            return;
        }
        let node = self.nodes.remove(at);
        let above = &mut self.nodes[parent];
        above.more.children.remove(&node.more.name);
        above.refs -= 1;
        self.retire(parent);
    }

    /// Forgets those whose time has come.
    fn wake(&mut self, at: NodeIx) {
        let clock = self.nodes[at].clock;
        while let Some((tag, child)) = self.nodes[at].first_resting()
            && tag <= clock
        {
            self.forget(at, tag, child);
        }
    }

    /// Nobody waits: nobody is kept from anything by those who got more.
    fn wake_all(&mut self, at: NodeIx) {
        while let Some((tag, child)) = self.nodes[at].first_resting() {
            self.forget(at, tag, child);
        }
    }

    fn forget(&mut self, at: NodeIx, tag: Tag, child: NodeIx) {
        let node = self.nodes.remove(child);
        let above = &mut self.nodes[at];
        above.get_up(tag, child);
        above.more.children.remove(&node.more.name);
        above.refs -= 1;
    }
}
