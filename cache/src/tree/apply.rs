//! A layer put upon a tree.

use super::nodes::{Made, Nodes, TreeError, dir, root};
use proto::id::RootId;
use proto::tree::{
    CAPABILITY, Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Xattrs,
};

/// The merged root that `base` becomes under the layer `diff`.
pub fn apply(nodes: &dyn Nodes, base: &RootId, diff: &RootId) -> Result<(RootId, Made), TreeError> {
    let (base, diff) = (root(nodes, base)?, root(nodes, diff)?);
    let mut made = Made::default();
    let below = (diff.presence != Presence::Opaque).then_some(base.dir);
    let dir = apply_dir(nodes, &mut made, below, &diff.dir)?;
    let meta = if diff.presence == Presence::Implicit { base.meta } else { diff.meta };
    let id = made.root(&Root { meta, dir, presence: Presence::Merge });
    Ok((id, made))
}

/// The metadata of a directory that a layer needs, but nobody described.
pub fn implied_meta() -> Meta {
    Meta::root_owned(0o755, Mtime::default())
}

fn apply_dir(
    nodes: &dyn Nodes,
    made: &mut Made,
    base: Option<DirRef>,
    diff: &DirRef,
) -> Result<DirRef, TreeError> {
    let empty = base.is_none_or(|b| b.summary.entries == 0);
    if empty && !diff.summary.marks {
        return Ok(*diff);
    }
    if let (0, Some(base)) = (diff.summary.entries, base) {
        return Ok(base);
    }
    let mut entries = match base {
        Some(base) => Dir::clone(&*dir(nodes, &base.tree)?),
        None => Dir::default(),
    };
    for change in dir(nodes, &diff.tree)?.entries() {
        let name = change.name.as_bytes();
        match &change.node {
            Node::Whiteout => {
                entries.remove(name);
            }
            Node::Relink(link) => {
                if let Some(file) = entries.get(name).and_then(|below| relinked(below, *link)) {
                    entries.insert(file);
                }
            }
            Node::Unlisted(what) => {
                entries.insert(Entry { node: what.clone().listed(), ..change.clone() });
            }
            Node::Dir(upper, presence) => {
                let lower = entries.get(name).filter(|e| e.as_dir().is_some()).cloned();
                let below = lower.as_ref().filter(|_| *presence != Presence::Opaque);
                let below_dir = below.and_then(Entry::as_dir).copied();
                let merged = apply_dir(nodes, made, below_dir, upper)?;
                let meta = match (presence, below) {
                    (Presence::Implicit, Some(below)) => below.meta.clone(),
                    (Presence::Implicit, None) => implied_meta(),
                    _ => change.meta.clone(),
                };
                let node = Node::Dir(merged, Presence::Merge);
                entries.insert(Entry { name: change.name.clone(), meta, node });
            }
            _ => entries.insert(change.clone()),
        }
    }
    Ok(made.dir(entries))
}

/// The file below with other names than it had; none if there is no file. What a
/// [`Node::Relink`] makes of it.
pub fn relinked(below: &Entry, link: Option<LinkId>) -> Option<Entry> {
    match &below.node {
        Node::Dir(..) | Node::Whiteout | Node::Relink(_) | Node::Unlisted(_) => None,
        file => Some(Entry { node: file.clone().with_link(link), ..below.clone() }),
    }
}

/// The layer with its implicit directories and relinked files described as `base` has them, and with
/// all that steps to come see: what a directory of the layer on disk must look like, so that an overlay
/// mount shows the right ones.
pub fn explicit(
    nodes: &dyn Nodes,
    base: &RootId,
    diff: &RootId,
) -> Result<(RootId, Made), TreeError> {
    let (base, upper) = (root(nodes, base)?, root(nodes, diff)?);
    let mut made = Made::default();
    let dir = explicit_dir(nodes, &mut made, Some(base.dir), &upper.dir)?;
    let meta = if upper.presence == Presence::Implicit { base.meta } else { upper.meta };
    let presence = match upper.presence {
        Presence::Opaque => Presence::Opaque,
        Presence::Merge | Presence::Implicit | Presence::Unlisted => Presence::Merge,
    };
    let id = made.root(&Root { meta, dir, presence });
    Ok((id, made))
}

fn explicit_dir(
    nodes: &dyn Nodes,
    made: &mut Made,
    base: Option<DirRef>,
    diff: &DirRef,
) -> Result<DirRef, TreeError> {
    if !diff.summary.marks {
        return Ok(*diff);
    }
    let below = base.map(|b| dir(nodes, &b.tree)).transpose()?;
    let below = |name: &[u8]| below.as_ref().and_then(|b| b.get(name));
    let mut entries = Dir::clone(&*dir(nodes, &diff.tree)?).into_entries();
    entries.retain_mut(|entry| {
        match &entry.node {
            Node::Relink(link) => {
                let lower = below(entry.name.as_bytes());
                let file = lower.and_then(|lower| relinked(lower, *link));
                return file.map(|file| *entry = file).is_some();
            }
            Node::Unlisted(what) => entry.node = what.clone().listed(),
            _ => {}
        }
        true
    });
    for entry in &mut entries {
        let Node::Dir(upper, presence) = entry.node else { continue };
        let lower = below(entry.name.as_bytes());
        let lower = lower.filter(|l| presence != Presence::Opaque && l.as_dir().is_some());
        let lower_dir = lower.and_then(Entry::as_dir).copied();
        let dir = explicit_dir(nodes, made, lower_dir, &upper)?;
        if presence == Presence::Implicit {
            entry.meta = lower.map_or_else(implied_meta, |l| l.meta.clone());
        }
        let presence =
            if presence == Presence::Opaque { Presence::Opaque } else { Presence::Merge };
        entry.node = Node::Dir(dir, presence);
    }
    Ok(made.dir(Dir::new(entries)))
}

/// The layer with what its archive has of it: times in whole seconds, of extended attributes only
/// [`CAPABILITY`], no sockets, no [`Node::Relink`], nothing unlisted, and no directories that are there
/// for nothing else.
pub fn archived(nodes: &dyn Nodes, diff: &RootId) -> Result<(RootId, Made), TreeError> {
    let old = root(nodes, diff)?;
    let mut made = Made::default();
    let dir = archived_dir(nodes, &mut made, &old.dir)?;
    let presence = match old.presence {
        Presence::Unlisted => Presence::Implicit,
        presence => presence,
    };
    let new = Root { dir, meta: archived_meta(&old.meta), presence };
    let id = if new == old { *diff } else { made.root(&new) };
    Ok((id, made))
}

fn archived_meta(meta: &Meta) -> Meta {
    let kept = meta.xattrs.iter().filter(|(name, _)| *name == CAPABILITY);
    let xattrs = Xattrs::new(kept.map(|(name, value)| (name.to_vec(), value.to_vec())));
    Meta { mtime: Mtime { nanos: 0, ..meta.mtime }, xattrs, ..*meta }
}

fn archived_dir(nodes: &dyn Nodes, made: &mut Made, diff: &DirRef) -> Result<DirRef, TreeError> {
    let all = dir(nodes, &diff.tree)?;
    let mut entries = Vec::with_capacity(all.entries().len());
    for entry in all.entries() {
        let node = match &entry.node {
            Node::Relink(_) | Node::Unlisted(_) => continue,
            socket if socket.is_socket() => continue,
            Node::Dir(below, presence) => {
                let left = archived_dir(nodes, made, below)?;
                let is_empty = left.summary.entries == 0;
                match presence {
                    Presence::Unlisted if is_empty => continue,
                    Presence::Implicit if is_empty && left != *below => continue,
                    Presence::Unlisted => Node::Dir(left, Presence::Implicit),
                    presence => Node::Dir(left, *presence),
                }
            }
            other => other.clone(),
        };
        entries.push(Entry { name: entry.name.clone(), meta: archived_meta(&entry.meta), node });
    }
    if entries == all.entries() { Ok(*diff) } else { Ok(made.dir(Dir::new(entries))) }
}
