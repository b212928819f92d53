//! Looking at the tree of shares: for who asks why work waits, and whether all is as it must be.

use super::super::arena::{ClassIx, ItemIx, NodeIx};
use super::Shares;
use super::node::{Line, Node};
use super::works::Works;
use std::collections::BTreeSet;

impl Shares {
    /// The builds that wait in a class, each with its work in order.
    pub fn lines(&self, lane: NodeIx, class: ClassIx) -> Vec<(NodeIx, Vec<ItemIx>)> {
        let (mut next, mut lines) = (vec![lane], Vec::new());
        while let Some(at) = next.pop() {
            match self.nodes[at].line(class) {
                Some(Line::Nodes(nodes)) => next.extend(nodes.iter().map(|key| key.3)),
                Some(Line::Works(works)) => {
                    lines.push((at, works.iter().map(|key| key.2).collect()));
                }
                None => {}
            }
        }
        lines
    }

    /// A build's work of a class, in order.
    pub fn line(&self, build: NodeIx, class: ClassIx) -> impl Iterator<Item = ItemIx> {
        let works = match self.nodes[build].line(class) {
            Some(Line::Works(works)) => Some(works),
            Some(Line::Nodes(_)) | None => None,
        };
        works.into_iter().flat_map(Works::iter).map(|key| key.2)
    }

    /// The user and the project of a build.
    pub fn owners(&self, build: NodeIx) -> [NodeIx; 2] {
        let up = |at: NodeIx| self.nodes[at].parent.unwrap_or(self.root);
        [up(build), up(up(build))]
    }

    /// A node's name.
    pub fn name(&self, at: NodeIx) -> &str {
        &self.nodes[at].more.name
    }

    /// A node's part of what its parent gets, if all that wait there got their parts; nothing when
    /// nobody else waits.
    pub fn part(&self, at: NodeIx) -> Option<(u64, u64)> {
        let node = &self.nodes[at];
        let waiting = self.nodes[node.parent?].waiting;
        let weight = u64::from(node.weight);
        let own = if node.lines.is_empty() { 0 } else { weight };
        (waiting > own).then_some((weight, waiting - own + weight))
    }

    /// Checks everything that must hold; answers what does not.
    pub fn broken_invariants(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (_, node) in self.nodes.iter() {
            let children =
                || node.more.children.values().map(|child| (*child, &self.nodes[*child]));
            let is_lane = |at: NodeIx| self.nodes[at].parent == Some(self.root);
            let waiting = children().filter(|(_, child)| !child.lines.is_empty());
            let weight = |(at, n): (NodeIx, &Node)| match is_lane(at) {
                true => n.waiting,
                false => u64::from(n.weight),
            };
            if waiting.map(weight).sum::<u64>() != node.waiting {
                broken.push(format!("{} is wrong about the weight of who waits", node.more.name));
            }
            if !node.more.children.is_empty() && node.refs as usize != node.more.children.len() {
                broken.push(format!("{} is wrong about how many it has", node.more.name));
            }
            for (class, line) in &node.lines {
                let Line::Nodes(keys) = line else { continue };
                let has = |n: &Node| n.line(*class).is_some();
                let own = children().filter(|(_, n)| has(n)).map(|(child, n)| n.key(child));
                if *keys != own.collect() || keys.is_empty() {
                    broken.push(format!("{} has a wrong line", node.more.name));
                }
            }
            let resting = children().filter_map(|(child, n)| Some((n.more.rests?, child)));
            let resting: BTreeSet<_> = resting.collect();
            if (&node.more.resting, node.has_resting) != (&resting, !resting.is_empty()) {
                broken.push(format!("{} is wrong about who rests", node.more.name));
            }
        }
        broken
    }
}
