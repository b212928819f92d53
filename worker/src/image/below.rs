//! Looking into layers that lie one upon the other, without merging them.

use super::unpack::Lower;
use cache::store::{Store, StoreError};
use proto::id::{RootId, TreeId};
use proto::path::FileName;
use proto::tree::{AnyNode, Entry, Node, Presence};

/// Layers, lowest first.
pub struct Below<'l> {
    /// Where they are.
    pub store: &'l dyn Store,
    /// Their diff trees.
    pub layers: &'l [RootId],
}

/// What one layer says of a name.
enum Says {
    /// It has it.
    Has(Entry),
    /// It takes it away, or has something else in its way.
    Gone,
    /// Nothing.
    Nothing,
}

impl Lower for Below<'_> {
    fn find(&self, path: &[FileName]) -> Result<Option<Entry>, StoreError> {
        for layer in self.layers.iter().rev() {
            match self.ask(layer, path)? {
                Says::Has(entry) => return Ok(Some(entry)),
                Says::Gone => return Ok(None),
                Says::Nothing => {}
            }
        }
        Ok(None)
    }
}

impl Below<'_> {
    fn ask(&self, layer: &RootId, path: &[FileName]) -> Result<Says, StoreError> {
        let AnyNode::Root(root) = &*self.store.node(&layer.0)? else { return Ok(Says::Nothing) };
        let mut opaque = root.presence == Presence::Opaque;
        let mut dir: TreeId = root.dir.tree;
        for (index, name) in path.iter().enumerate() {
            let node = self.store.node(&dir)?;
            let AnyNode::Dir(here) = &*node else { return Ok(Says::Nothing) };
            let Some(entry) = here.get(name.as_bytes()) else {
                return Ok(if opaque { Says::Gone } else { Says::Nothing });
            };
            let last = index + 1 == path.len();
            match &entry.node {
                Node::Whiteout => return Ok(Says::Gone),
                // The file is the one below.
                Node::Relink(_) | Node::Unlisted(_) if !opaque => return Ok(Says::Nothing),
                Node::Relink(_) | Node::Unlisted(_) => return Ok(Says::Gone),
                _ if last => return Ok(Says::Has(entry.clone())),
                Node::Dir(below, presence) => {
                    opaque |= *presence == Presence::Opaque;
                    dir = below.tree;
                }
                _ => return Ok(Says::Gone),
            }
        }
        Ok(Says::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tape::{END, Head, Kind, encode};
    use crate::image::unpack::{Reading, unpack};
    use cache::store::memory::MemoryStore;
    use proto::tree::Mtime;

    #[test]
    fn the_highest_layer_that_says_something_counts() {
        let store = MemoryStore::new();
        let layer = |names: &[&str]| {
            let mut tar = Vec::new();
            for name in names {
                let kind = if name.ends_with('/') { Kind::Dir } else { Kind::Fifo };
                let (path, link) = (name.as_bytes().to_vec(), Vec::new());
                let (mtime, xattrs) = (Mtime::default(), Vec::new());
                let (mode, uid, gid, size, device) = (0o644, 0, 0, 0, (0, 0));
                let head = Head { path, kind, mode, uid, gid, mtime, link, size, device, xattrs };
                tar.extend(encode(&head));
            }
            tar.extend(END);
            let reading = Reading::Layer { diff_id: None, lower: None };
            unpack(&store, "x", &tar[..], reading).unwrap().root
        };
        let layers = [
            layer(&["a", "d/x", "d/y", "e/f", "gone"]),
            layer(&["d/", "d/.wh..wh..opq", "d/y", ".wh.gone", "e"]),
            layer(&["top"]),
        ];
        let below = Below { store: &store, layers: &layers };
        let has = |path: &str| {
            let names: Vec<_> =
                path.split('/').map(|n| FileName::new(n.as_bytes()).unwrap()).collect();
            below.find(&names).unwrap().is_some()
        };
        assert!(has("a") && has("d/y") && has("top") && has("d"));
        assert!(!has("d/x") && !has("gone") && !has("e/f") && !has("never"));
    }
}
