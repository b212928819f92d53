//! What a step changed, read back from the upper directory of its overlay as a diff tree.
//!
//! The upper directory is changed too, to what the diff says and nothing else: what is the same as
//! below is removed from it, so that it can become the diff's layer directory by a rename
//! ([`super::LayerCache::adopt`]).
//!
//! Nobody may write to the directory any more: all processes that could see the mount are gone.

mod scan;
mod seal;

use super::{RootfsError, at, fold, load_root};
use cache::store::Store;
use proto::id::RootId;
use proto::tree::{Meta, Mtime, Presence, Root, Summary};
use std::path::Path;

/// What becomes of the metadata of `/` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootMeta {
    /// They stay as they are below: a step's change of `/` does not outlive it, as in BuildKit.
    Below,
    /// They are part of the diff: for a directory that is mounted somewhere inside.
    Kept,
}

/// What a step changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The diff tree, whole in the store.
    pub id: RootId,
    /// The metadata of `/` as the step left them.
    pub root_meta: Meta,
    /// How much it is.
    pub summary: Summary,
}

/// Reads the upper directory at `upper`, which lies upon the merged tree `below`.
///
/// Entries that are the same as below (content, metadata and time) are no change, and neither are
/// directories without changes: `RUN true` has the one empty diff. Sockets are kept as names
/// ([`proto::tree::Node::Socket`]), so that the next step sees what BuildKit's would; layers leave
/// them out.
pub fn capture(
    store: &dyn Store,
    upper: &Path,
    below: &RootId,
    root_meta: RootMeta,
) -> Result<Diff, RootfsError> {
    cache::crash::reach(cache::crash::Phase::Capture);
    let below = load_root(store, below)?;
    let fd = at::open_host_dir(upper).map_err(RootfsError::io("Opening", upper))?;
    let stat = rustix::fs::fstat(&fd).map_err(RootfsError::io("Reading", upper))?;
    let xattrs =
        at::dir_xattrs(&fd).map_err(RootfsError::io("Reading the attributes of", upper))?;
    let meta = at::meta(&stat, scan::own(xattrs));
    let (found, links) = scan::scan(fd, upper)?;
    let fd = at::open_host_dir(upper).map_err(RootfsError::io("Opening", upper))?;
    let work = seal::Seal::new(store, upper, links);
    let dir = fold::fold(&work, seal::root_job(fd, found, &meta, &below), fold::threads())?;
    let dir = work.finish(dir)?;
    let root = match root_meta {
        RootMeta::Kept => Root { meta: meta.clone(), dir, presence: Presence::Merge },
        RootMeta::Below => {
            let meta = Meta::root_owned(0o755, Mtime::default());
            Root { meta, dir, presence: Presence::Implicit }
        }
    };
    let (id, bytes) = root.seal();
    store.put_nodes(&[bytes])?;
    Ok(Diff { id, root_meta: meta, summary: dir.summary })
}

#[cfg(test)]
mod tests;
