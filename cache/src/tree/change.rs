//! The first thing in which what a step takes from a tree differs between two trees, for people.
//! What is in no key is no difference: times, and attributes that belong to the machine.

use super::nodes::{Nodes, TreeError, Work};
use super::select::{Item, Picked, select};
use proto::id::RootId;
use proto::path::{FileName, clamp};
use proto::step::{CopySource, Unpack};
use proto::tree::{DirRef, Entry, Meta, Node, Presence, content_digest, is_host_xattr};
use std::collections::{BTreeMap, BTreeSet};

/// A difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where, from the tree's root.
    pub path: Vec<u8>,
    /// What.
    pub what: What,
}

/// What differs at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is there now.
    Added,
    /// It is gone.
    Removed,
    /// It is of another kind: a directory in place of a file.
    Kind,
    /// A file has other bytes.
    Content,
    /// A link leads elsewhere.
    Target,
    /// A device has another number.
    Device,
    /// It has other permission bits: before, now.
    Mode(u16, u16),
    /// It belongs to others: user and group before, now.
    Owner((u32, u32), (u32, u32)),
    /// It has other extended attributes.
    Attributes,
    /// It shares its bytes with other names than before.
    Names,
}

/// The first difference in what `what` takes from two trees, in the order of names; none when it
/// takes the same.
pub fn first(
    nodes: &dyn Nodes,
    before: &RootId,
    now: &RootId,
    what: &CopySource,
    parents: bool,
    exclude: &[String],
) -> Result<Option<Change>, TreeError> {
    // An archive that differs is a file that differs.
    let what = CopySource { unpack: Unpack::Never, ..what.clone() };
    let old = match select(nodes, before, &what, parents, exclude) {
        Ok(old) => old,
        Err(TreeError::NotFound(path)) => return Ok(Some(named(&path, What::Added))),
        // What is a directory now was none.
        Err(TreeError::BehindLink { link, .. }) => return Ok(Some(named(&link, What::Kind))),
        Err(e) => return Err(e),
    };
    let new = select(nodes, now, &what, parents, exclude)?;
    // A wildcard may find the same under the same name in another directory.
    if old.digest() == new.digest() {
        return Ok(None);
    }
    let mut work = Work::new(nodes);
    work.made.absorb(old.made);
    work.made.absorb(new.made);
    lists(&work, &selected(old.items), &selected(new.items))
}

fn named(path: &str, what: What) -> Change {
    Change { path: clamp(path.as_bytes()).join(&b'/'), what }
}

/// One thing of a tree.
struct Thing {
    meta: Meta,
    node: Node,
}

/// Things by their paths; without a name, the tree itself.
type Things = BTreeMap<Vec<FileName>, Thing>;

fn selected(items: Vec<Item>) -> Things {
    let thing = |picked: Picked| match picked {
        Picked::Dir(meta, dir) => Thing { meta, node: Node::Dir(dir, Presence::Merge) },
        Picked::Leaf(meta, node) => Thing { meta, node },
    };
    items.into_iter().map(|item| (item.path, thing(item.picked))).collect()
}

fn lists(work: &Work<'_>, old: &Things, new: &Things) -> Result<Option<Change>, TreeError> {
    let paths: BTreeSet<&Vec<FileName>> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let change = match (old.get(path), new.get(path)) {
            (Some(old), Some(new)) => things(work, path, old, new)?,
            (Some(_), None) => Some(change(path, What::Removed)),
            (None, _) => Some(change(path, What::Added)),
        };
        if change.is_some() {
            return Ok(change);
        }
    }
    Ok(None)
}

fn things(
    work: &Work<'_>,
    path: &[FileName],
    old: &Thing,
    new: &Thing,
) -> Result<Option<Change>, TreeError> {
    if content_digest(&old.meta, &old.node) == content_digest(&new.meta, &new.node) {
        return Ok(None);
    }
    let own = of_node(&old.node, &new.node).or_else(|| of_meta(&old.meta, &new.meta));
    if let Some(what) = own {
        return Ok(Some(change(path, what)));
    }
    match (&old.node, &new.node) {
        (Node::Dir(old, _), Node::Dir(new, _)) => {
            lists(work, &inside(work, path, old)?, &inside(work, path, new)?)
        }
        _ => Ok(None),
    }
}

/// What the directory at `path` holds.
fn inside(work: &Work<'_>, path: &[FileName], dir: &DirRef) -> Result<Things, TreeError> {
    let thing = |entry: &Entry| {
        let path = [path, std::slice::from_ref(&entry.name)].concat();
        (path, Thing { meta: entry.meta.clone(), node: entry.node.clone() })
    };
    Ok(work.dir(&dir.tree)?.entries().iter().map(thing).collect())
}

fn change(path: &[FileName], what: What) -> Change {
    let names: Vec<&[u8]> = path.iter().map(FileName::as_bytes).collect();
    Change { path: names.join(&b'/'), what }
}

fn of_node(old: &Node, new: &Node) -> Option<What> {
    match (old, new) {
        (Node::File { blob: a, link: x, .. }, Node::File { blob: b, link: y, .. }) => {
            if a != b {
                Some(What::Content)
            } else {
                (x != y).then_some(What::Names)
            }
        }
        (Node::Linked(..), _) | (_, Node::Linked(..)) => {
            let alone = |node: &Node| node.clone().with_link(None);
            let names = (old.link() != new.link()).then_some(What::Names);
            of_node(&alone(old), &alone(new)).or(names)
        }
        (Node::Symlink(a), Node::Symlink(b)) => (a != b).then_some(What::Target),
        (Node::Char(a, b), Node::Char(c, d)) | (Node::Block(a, b), Node::Block(c, d)) => {
            ((a, b) != (c, d)).then_some(What::Device)
        }
        (old, new) => {
            let same = std::mem::discriminant(old) == std::mem::discriminant(new);
            (!same).then_some(What::Kind)
        }
    }
}

fn of_meta(old: &Meta, new: &Meta) -> Option<What> {
    let kept = |meta: &Meta| -> Vec<(Vec<u8>, Vec<u8>)> {
        let own = meta.xattrs.iter().filter(|(name, _)| !is_host_xattr(name));
        own.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    };
    if old.mode != new.mode {
        return Some(What::Mode(old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        return Some(What::Owner((old.uid, old.gid), (new.uid, new.gid)));
    }
    (kept(old) != kept(new)).then_some(What::Attributes)
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
