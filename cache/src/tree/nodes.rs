//! Where the algebra takes nodes from, and what it makes.

use bytes::Bytes;
use proto::id::{BlobId, RootId, TreeId};
use proto::tree::{AnyNode, Dir, DirRef, Node, Root};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that the algebra needs and has not got. Whoever asked fetches it and asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gap {
    /// A node.
    Tree(TreeId),
    /// A blob's bytes (of `/etc/passwd`, for a name).
    Blob(BlobId),
    /// What a blob holds, if it is an archive.
    Archive(BlobId),
}

/// Why a piece of algebra did not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Something has to be fetched first.
    #[error("{0:?} is not at hand")]
    Gap(Gap),
    /// A source that is not there.
    #[error("`{0}` was not found")]
    NotFound(String),
    /// A source of `--parents` of which nothing is left.
    #[error("`{0}` was not found: --exclude leaves it out")]
    Excluded(String),
    /// A source of `--parents` that names a whole tree.
    #[error("`{0}` is the whole tree: --parents has no path to keep")]
    NothingNamed(String),
    /// An archive whose links lead through too much.
    #[error("the archive's links lead through more files and directories than are looked at")]
    TooManyLooks,
    /// A link at the top of a tree of which a part is taken.
    #[error("`{0}` is a symbolic link that leads nowhere")]
    Dangling(String),
    /// A source of `--parents` that is behind a symlink.
    #[error("`{path}` was not found: `{link}` is a symbolic link, and --parents follows none")]
    BehindLink {
        /// The source.
        path: String,
        /// The link.
        link: String,
    },
    /// A component of the path is no directory.
    #[error("`{0}` is not a directory")]
    NotADirectory(String),
    /// A directory would have to be replaced by something else.
    #[error("Cannot replace the directory `{0}` with a file")]
    FileOverDirectory(String),
    /// Something else would have to be merged with a directory.
    #[error("Cannot copy a directory onto `{0}`, which is not a directory")]
    DirectoryOverFile(String),
    /// A file of an archive below a symlink that leads to no directory.
    #[error(
        "The archive has files below `{0}`, and there is a symbolic link that leads to no directory \
         inside of ADD's destination"
    )]
    BelowLink(String),
    /// A file of an archive below another file.
    #[error("The archive has files below `{0}`, which is not a directory")]
    BelowFile(String),
    /// A hard link of an archive to nothing that can have another name.
    #[error("`{path}` of the archive is a hard link to `{target}`, which {why}")]
    HardLink {
        /// The link.
        path: String,
        /// What it should be a name of.
        target: String,
        /// What is wrong.
        why: &'static str,
    },
    /// More symlinks than any path needs.
    #[error("`{0}` leads through too many symbolic links")]
    SymlinkLoop(String),
    /// A path that leads into too many directories, or names that are too long.
    #[error("The path `{0}` is not valid: {1}")]
    BadPath(String, String),
    /// A name of a user or group, and an empty tree.
    #[error("The name `{name}` cannot be looked up: there is no `{file}`; give a number")]
    NoNames {
        /// The name.
        name: String,
        /// The file that is not there.
        file: &'static str,
    },
    /// A mode that cannot be read.
    #[error("`{0}` is not a mode: {1}")]
    BadMode(String, &'static str),
    /// A pattern that cannot be read.
    #[error("`{0}` is not a pattern: {1}")]
    BadPattern(String, String),
    /// A directory where only a whole root can be, or the other way round: the caller's fault.
    #[error("Tree {0} is of the wrong kind")]
    WrongKind(TreeId),
}

/// A source of nodes and small files. Answers at once, or says what is missing.
pub trait Nodes {
    /// A node.
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, TreeError>;

    /// A small file's bytes.
    fn blob(&self, id: &BlobId) -> Result<Bytes, TreeError>;

    /// What the blob unpacks to when it is an archive.
    fn archive(&self, id: &BlobId) -> Result<Option<RootId>, TreeError>;
}

/// A directory's entries, borrowed from a shared node.
#[derive(Clone)]
pub(crate) struct DirNode(Arc<AnyNode>);

/// A source of nodes, and the nodes that were made since.
pub(super) struct Work<'n> {
    pub nodes: &'n dyn Nodes,
    pub made: Made,
}

impl<'n> Work<'n> {
    pub fn new(nodes: &'n dyn Nodes) -> Self {
        Self { nodes, made: Made::default() }
    }

    pub fn dir(&self, id: &TreeId) -> Result<DirNode, TreeError> {
        match self.made.decoded.get(id) {
            Some(node) => Ok(DirNode(node.clone())),
            None => dir(self.nodes, id),
        }
    }
}

impl std::ops::Deref for DirNode {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        match &*self.0 {
            AnyNode::Dir(dir) => dir,
            AnyNode::Root(_) => unreachable!("checked in `dir`"),
        }
    }
}

/// Reads a directory.
pub(crate) fn dir(nodes: &dyn Nodes, id: &TreeId) -> Result<DirNode, TreeError> {
    let node = nodes.node(id)?;
    match &*node {
        AnyNode::Dir(_) => Ok(DirNode(node)),
        AnyNode::Root(_) => Err(TreeError::WrongKind(*id)),
    }
}

/// Reads a root.
pub fn root(nodes: &dyn Nodes, id: &RootId) -> Result<Root, TreeError> {
    match &*nodes.node(&id.0)? {
        AnyNode::Root(root) => Ok(root.clone()),
        AnyNode::Dir(_) => Err(TreeError::WrongKind(id.0)),
    }
}

/// Collects the nodes that a piece of algebra makes, children first, and reads them again.
#[derive(Debug, Default)]
pub struct Made {
    nodes: Vec<Vec<u8>>,
    empty_file: bool,
    decoded: BTreeMap<TreeId, Arc<AnyNode>>,
}

impl Made {
    /// Adds a directory; answers its names.
    pub fn dir(&mut self, dir: Dir) -> DirRef {
        let sealed = dir.seal();
        if self.decoded.insert(sealed.dir.tree, Arc::new(AnyNode::Dir(dir))).is_none() {
            self.nodes.push(sealed.bytes);
        }
        sealed.dir
    }

    /// Adds a root; answers its name.
    pub fn root(&mut self, root: &Root) -> RootId {
        let (id, bytes) = root.seal();
        self.nodes.push(bytes);
        id
    }

    /// Adds a file without bytes, where there was none.
    pub fn empty_file(&mut self) -> Node {
        self.empty_file = true;
        Node::File { blob: BlobId::of(b""), size: 0, link: None }
    }

    /// The blobs that the nodes name and that were in none of the trees they were made from: the
    /// store must have them before it takes the nodes.
    pub fn blobs(&self) -> Vec<(BlobId, Bytes)> {
        let blobs = self.empty_file.then(|| (BlobId::of(b""), Bytes::new()));
        blobs.into_iter().collect()
    }

    /// Adds what another piece of algebra made.
    pub fn absorb(&mut self, other: Made) {
        self.empty_file |= other.empty_file;
        self.nodes.extend(other.nodes);
        self.decoded.extend(other.decoded);
    }

    /// The nodes, children first, as [`crate::store::Store::put_nodes`] takes them.
    pub fn into_nodes(self) -> Vec<Vec<u8>> {
        self.nodes
    }
}
