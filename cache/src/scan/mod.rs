//! A directory on disk as a tree: the client's look at a build context.
//!
//! Only what a build looks at is read ([`paths`]), less what the ignore file names. Files whose
//! hash is known from before, and that have not changed since, cost a stat ([`stat_cache`]). All
//! files belong to root in the tree, whoever owns them on disk.

pub mod paths;
mod send;
pub mod stat_cache;
mod stored;
#[cfg(test)]
mod tests;
mod walk;
mod xattrs;

pub use send::{Sent, send};
pub use stored::send_stored;

use proto::error::Class;
use proto::id::{BlobId, RootId, TreeId};
use proto::path::FileName;
use proto::tree::{Dir, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Sealed};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;

/// Why a directory could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The operating system refused.
    #[error("{action} {} failed: {source}", path.display())]
    Io {
        /// What was attempted: `Reading`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something of a kind that this program does not know.
    #[error("{} is a file of an unknown kind, which cannot be copied into an image", path.display())]
    Special {
        /// Where.
        path: PathBuf,
    },
    /// A name that no tree can hold.
    #[error("{}: {source}", path.display())]
    Name {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: proto::path::NameError,
    },
    /// A file was written to while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The store did not take the files.
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    /// The files could not be read from this machine's own store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl ScanError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Net(e) => e.class(),
            Self::Store(e) => e.class(),
            _ => Class::User,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Special { .. } => {
                Some("Name it in `.dockerignore`, or copy only what is needed.")
            }
            Self::Changed { .. } => Some("Build again when nothing writes to it."),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("Make it readable, or name it in `.dockerignore`.")
            }
            _ => None,
        }
    }
}

/// What a scanned directory itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Top {
    /// A context. As with BuildKit, whose clients send nothing of the directory itself, it is 0755,
    /// and a layer that is made of it (FROM with its name) has no entry for it.
    Context,
    /// A directory as those in it.
    Directory,
}

/// One file or directory that was found.
#[derive(Debug)]
struct Found {
    name: FileName,
    meta: Meta,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Dir(Vec<Found>),
    File {
        size: u64,
        /// Device and inode, when the file has several names.
        inode: Option<(u64, u64)>,
        blob: BlobId,
    },
    Symlink(Vec<u8>),
    Char((u32, u32)),
    Block((u32, u32)),
    Fifo,
}

/// A scanned tree: its nodes, and where on disk its blobs are.
pub struct Scanned {
    /// The tree's name.
    pub root: RootId,
    /// All nodes, children before parents, the root last.
    nodes: Vec<(TreeId, NodeParts)>,
    /// Where each blob can be read.
    files: HashMap<BlobId, (PathBuf, u64)>,
    /// Files in all.
    pub file_count: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

struct NodeParts {
    bytes: Vec<u8>,
    dirs: Vec<TreeId>,
    blobs: Vec<BlobId>,
}

/// The mode of a context's root, whatever the directory on disk has.
const CONTEXT_MODE: u16 = 0o755;

/// Builds nodes from what was found.
fn assemble(base: PathBuf, meta: Meta, top: Top, found: Vec<Found>) -> Scanned {
    let mut links = BTreeMap::new();
    group_links(&found, &mut Vec::new(), &mut links);
    let groups = links
        .into_iter()
        .filter(|(_, names)| names.len() > 1)
        .map(|(inode, names)| {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            (inode, LinkId::of(&names))
        })
        .collect();
    let mut assembly = Assembly { groups, nodes: Vec::new(), files: HashMap::new(), count: 0 };
    let mut path = base;
    let sealed = assembly.dir(found, &mut path);
    let bytes = sealed.dir.summary.bytes;
    let (meta, presence) = match top {
        Top::Context => (Meta { mode: CONTEXT_MODE, ..meta }, Presence::Implicit),
        Top::Directory => (meta, Presence::Merge),
    };
    let root = Root { meta, dir: sealed.dir, presence };
    let (id, encoded) = root.seal();
    let parts = NodeParts { bytes: encoded, dirs: vec![sealed.dir.tree], blobs: Vec::new() };
    assembly.nodes.push((id.0, parts));
    Scanned {
        root: id,
        nodes: assembly.nodes,
        files: assembly.files,
        file_count: assembly.count,
        bytes,
    }
}

/// The names of each inode that has several, as paths in the tree.
fn group_links(
    found: &[Found],
    path: &mut Vec<u8>,
    links: &mut BTreeMap<(u64, u64), Vec<Vec<u8>>>,
) {
    for file in found {
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(file.name.as_bytes());
        match &file.kind {
            Kind::File { inode: Some(inode), .. } => {
                links.entry(*inode).or_default().push(path.clone());
            }
            Kind::Dir(inside) => group_links(inside, path, links),
            _ => {}
        }
        path.truncate(length);
    }
}

struct Assembly {
    groups: BTreeMap<(u64, u64), LinkId>,
    nodes: Vec<(TreeId, NodeParts)>,
    files: HashMap<BlobId, (PathBuf, u64)>,
    count: u64,
}

impl Assembly {
    fn dir(&mut self, found: Vec<Found>, path: &mut PathBuf) -> Sealed {
        use std::os::unix::ffi::OsStrExt;
        let mut parts = NodeParts { bytes: Vec::new(), dirs: Vec::new(), blobs: Vec::new() };
        let mut entries = Vec::with_capacity(found.len());
        for Found { name, meta, kind } in found {
            path.push(std::ffi::OsStr::from_bytes(name.as_bytes()));
            let node = match kind {
                Kind::Dir(inside) => {
                    let sealed = self.dir(inside, path);
                    parts.dirs.push(sealed.dir.tree);
                    Node::Dir(sealed.dir, Presence::Merge)
                }
                Kind::File { size, inode, blob } => {
                    self.count += 1;
                    self.files.entry(blob).or_insert_with(|| (path.clone(), size));
                    parts.blobs.push(blob);
                    let link = inode.and_then(|i| self.groups.get(&i).copied());
                    Node::File { blob, size, link }
                }
                Kind::Symlink(target) => Node::Symlink(target),
                Kind::Char((major, minor)) => Node::Char(major, minor),
                Kind::Block((major, minor)) => Node::Block(major, minor),
                Kind::Fifo => Node::Fifo,
            };
            path.pop();
            entries.push(Entry { name, meta, node });
        }
        let sealed = Dir::new(entries).seal();
        parts.bytes = sealed.bytes.clone();
        self.nodes.push((sealed.dir.tree, parts));
        sealed
    }
}

fn mtime(seconds: i64, nanos: u32) -> Mtime {
    Mtime { seconds, nanos }
}
