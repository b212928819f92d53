//! What a step changed, read back from the upper directory of its overlay as a diff tree.
//!
//! The upper directory is changed too, to what the diff says and nothing else: what is the same as
//! below is removed from it, and what hides a directory as a whole gets whiteouts for what that holds, so
//! that it can become the diff's layer directory by a rename
//! ([`super::LayerCache::adopt`]).
//!
//! Nobody may write to the directory any more: all processes that could see the mount are gone.

mod scan;
mod seal;

use super::{RootfsError, at, fold, load_root};
use cache::store::Store;
use cache::tree::listed::Missed;
use proto::id::RootId;
use proto::tree::{Meta, Mtime, Presence, Root, Summary};
use std::path::Path;

/// What the directory was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenAs {
    /// The root of a step. As in BuildKit, the step's change of `/` itself does not outlive it, and
    /// what is the same as below but for its other names (`ln old new` copies `old` up), or by what
    /// [`cache::tree::listed`] compares, is there for the steps to come, and not part of the layer.
    StepRoot,
    /// A directory by itself: the metadata of `/` are part of the diff, and all changes are listed.
    Directory,
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
    /// What steps to come see and images do not get.
    pub missed: Missed,
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
    written: WrittenAs,
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
    let work = seal::Seal::new(store, upper, links, written);
    let dir = fold::fold(&work, seal::root_job(fd, found, &meta, &below), fold::threads())?;
    let (id, summary, missed) = work.finish(dir, |dir| match written {
        WrittenAs::Directory => Root { meta: meta.clone(), dir, presence: Presence::Merge },
        WrittenAs::StepRoot => {
            let meta = Meta::root_owned(0o755, Mtime::default());
            Root { meta, dir, presence: Presence::Implicit }
        }
    })?;
    Ok(Diff { id, root_meta: meta, summary, missed })
}

#[cfg(test)]
mod tests;
