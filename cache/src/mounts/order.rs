//! A total order of what can be under one name: of two that differ, one is the greater, and which
//! one it is does not depend on who wrote it, nor on who asks.

use proto::tree::{Entry, Meta, Node};
use std::cmp::Ordering;

/// Orders two entries that are no directories: by time of change, size, kind and content, and then
/// by everything else that can differ.
pub(super) fn leaves(a: &Entry, b: &Entry) -> Ordering {
    let times = a.meta.mtime.cmp(&b.meta.mtime);
    times
        .then_with(|| size(&a.node).cmp(&size(&b.node)))
        .then_with(|| contents(&a.node, &b.node))
        .then_with(|| metas(&a.meta, &b.meta))
        .then_with(|| a.node.link().cmp(&b.node.link()))
}

/// Orders two descriptions of a file or directory: by time of change, then by all the rest.
pub(super) fn metas(a: &Meta, b: &Meta) -> Ordering {
    let rest = |m: &Meta| (m.mtime, m.mode, m.uid, m.gid);
    rest(a).cmp(&rest(b)).then_with(|| a.xattrs.iter().cmp(b.xattrs.iter()))
}

fn size(node: &Node) -> u64 {
    match node {
        Node::File { size, .. } => *size,
        node => node.symlink().map_or(0, |target| target.len() as u64),
    }
}

fn contents(a: &Node, b: &Node) -> Ordering {
    match (a, b) {
        (Node::File { blob: a, .. }, Node::File { blob: b, .. }) => a.cmp(b),
        (Node::Symlink(a), Node::Symlink(b)) => a.cmp(b),
        (Node::Char(a, c), Node::Char(b, d)) | (Node::Block(a, c), Node::Block(b, d)) => {
            (a, c).cmp(&(b, d))
        }
        (Node::Linked(_, a), b) => contents(&a.clone().alone(), b),
        (a, Node::Linked(_, b)) => contents(a, &b.clone().alone()),
        _ => kind(a).cmp(&kind(b)),
    }
}

/// Files are worth more than names for something else.
fn kind(node: &Node) -> u8 {
    match node {
        Node::Whiteout | Node::Relink(_) | Node::Unlisted(_) => 0,
        Node::Socket => 1,
        Node::Fifo => 2,
        Node::Block(..) => 3,
        Node::Char(..) => 4,
        Node::Symlink(_) => 5,
        Node::Linked(_, what) => kind(&what.clone().alone()),
        Node::File { .. } => 6,
        Node::Dir(..) => 7,
    }
}
