//! Several directories side by side.

use crate::tree::{DirNode, Nodes, TreeError, dir, root};
use proto::id::RootId;
use proto::tree::{DirRef, Entry, Presence, Root};

/// Reads a root that is no layer.
pub(super) fn merged_root(nodes: &dyn Nodes, id: &RootId) -> Result<Root, TreeError> {
    let root = root(nodes, id)?;
    let is_merged = root.presence == Presence::Merge && !root.dir.summary.marks;
    if is_merged { Ok(root) } else { Err(TreeError::WrongKind(id.0)) }
}

/// A directory's entries; none where there is no directory.
pub(super) struct Loaded(Option<DirNode>);

impl Loaded {
    pub fn read(nodes: &dyn Nodes, id: Option<&DirRef>) -> Result<Self, TreeError> {
        // The empty directory is known without reading it.
        let id = id.filter(|id| id.summary.entries > 0);
        Ok(Self(id.map(|id| dir(nodes, &id.tree)).transpose()?))
    }

    pub fn entries(&self) -> &[Entry] {
        self.0.as_ref().map_or(&[], |node| node.entries())
    }
}

/// All names of several directories in order, each with what it is in every one of them.
pub(super) struct Names<'e, const N: usize> {
    rest: [&'e [Entry]; N],
}

impl<'e, const N: usize> Names<'e, N> {
    pub fn new(dirs: [&'e [Entry]; N]) -> Self {
        Self { rest: dirs }
    }
}

impl<'e, const N: usize> Iterator for Names<'e, N> {
    type Item = [Option<&'e Entry>; N];

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.rest.iter().filter_map(|rest| rest.first()).map(|e| &e.name).min()?;
        let mut out = [None; N];
        for (found, rest) in out.iter_mut().zip(&mut self.rest) {
            if let Some((first, after)) = rest.split_first()
                && first.name == *name
            {
                (*found, *rest) = (Some(first), after);
            }
        }
        Some(out)
    }
}
