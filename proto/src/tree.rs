//! Directories as Merkle nodes.
//!
//! A [`Dir`] is the sorted list of one directory's entries. Each [`Entry`] carries the metadata of
//! the file that it names, those of a sub-directory too: so the same files under another owner of
//! the directory above are the same node, and taking a whole directory into another tree is taking
//! one id.
//!
//! A [`Root`] is a node with the single entry `/`. A *merged* root is what a container sees; a
//! *diff* root is one layer: what to add to a merged root, with [`Node::Whiteout`] for what to take
//! away, [`Node::Relink`] for a file that only gets other names, [`Node::Unlisted`] for what archives
//! of layers leave out, and [`Presence`] for what to do with a directory that is there already.
//!
//! Two digests: [`TreeId`] covers everything, [`ContentDigest`] leaves out times and the extended
//! attributes that belong to a host. An entry for a directory carries both, and a [`Summary`], so
//! that none of the three needs a walk.

mod code;

use crate::canon::{self, Canon, Reader};
use crate::id::{BlobId, ContentDigest, RootId, TreeId};
use crate::limit;
use crate::path::FileName;
use code::{decode, decode_entry, encode, encode_entry, header};
use std::fmt;

const NODE_DOMAIN: &str = "slipway 2026-11 tree node";
const CONTENT_DOMAIN: &str = "slipway 2026-11 tree content";
const VERSION: u8 = 1;
const KIND_DIR: u8 = 0;
const KIND_ROOT: u8 = 1;

/// A time of last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Seconds since 1970, possibly before.
    pub seconds: i64,
    /// Below one billion.
    pub nanos: u32,
}

/// Extended attributes, sorted by name. Nearly nothing has any, so they take a pointer's room.
#[allow(clippy::box_collection)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xattrs(Option<Box<Vec<(Vec<u8>, Vec<u8>)>>>);

impl Xattrs {
    /// Sorts; of two values for one name the last counts.
    pub fn new(list: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let map: std::collections::BTreeMap<_, _> = list.into_iter().collect();
        if map.is_empty() { Self(None) } else { Self(Some(Box::new(map.into_iter().collect()))) }
    }

    /// The attributes, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().flat_map(|l| l.iter()).map(|(k, v)| (k.as_slice(), v.as_slice()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |l| l.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// What is known of a file besides its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meta {
    /// The permission bits, set-id and sticky bits: 07777.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The time of last change.
    pub mtime: Mtime,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Meta {
    /// Metadata of something of root's, without extended attributes.
    pub fn root_owned(mode: u16, mtime: Mtime) -> Self {
        Self { mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::default() }
    }
}

/// What a directory holds in all, at any depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Summary {
    /// Entries, directories among them.
    pub entries: u64,
    /// Bytes of regular files, each name of a linked file counted.
    pub bytes: u64,
    /// Whether a copy of it is another tree: something in it has several names, or there is a block
    /// device or a socket.
    pub remade: bool,
    /// Whether anything in it has a meaning in diffs only: a whiteout, a relinked or unlisted file, a
    /// directory that is not [`Presence::Merge`]. Without, a directory of a diff can be taken into a
    /// merged tree as it is.
    pub marks: bool,
}

/// What a directory of a diff does to a directory of the same name below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Presence {
    /// It gives its metadata and adds its entries. The only one in merged trees.
    Merge,
    /// It takes its place: nothing of the one below is left.
    Opaque,
    /// It adds its entries and leaves the metadata as they are: a layer that names a file, but not
    /// the directory that it lies in.
    Implicit,
    /// [`Presence::Merge`] for steps to come, [`Presence::Implicit`] in archives of the layer: a step
    /// changed nothing of the directory but what such an archive is not made for, its time say.
    Unlisted,
}

/// A directory inside a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirRef {
    /// Its entries.
    pub tree: TreeId,
    /// The digest of its entries without times.
    pub content: ContentDigest,
    /// What it holds in all.
    pub summary: Summary,
}

/// Several names of one file: names in one tree with the same `LinkId` share an inode, if they are
/// [one file](Entry::one_file) otherwise. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(std::num::NonZeroU64);

impl LinkId {
    /// The id of the group that `parts` name: the same parts give the same id.
    pub fn of(parts: &[&[u8]]) -> Self {
        let hash = canon::hash("slipway 2026-11 link group", |c| {
            c.list(parts.iter(), |c, p| {
                c.bytes(p);
            });
        });
        let number = u64::from_le_bytes(hash[..8].try_into().expect("eight of 32 bytes"));
        Self(std::num::NonZeroU64::new(number).unwrap_or(std::num::NonZeroU64::MIN))
    }

    /// The group's number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A regular file.
    File {
        /// Its bytes.
        blob: BlobId,
        /// How many bytes.
        size: u64,
        /// The group of names that share its inode, when it has several.
        link: Option<LinkId>,
    },
    /// A directory.
    Dir(DirRef, Presence),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// One of several names of something that is neither a directory nor a regular file.
    Linked(LinkId, Special),
    /// In a diff: nothing of this name is left.
    Whiteout,
    /// In a diff: the file below stays as it is, but the names that share its inode are those of
    /// this group from now on; without one, no others. A step that links an older file to a new name
    /// does that. The entry's metadata say nothing, and archives of layers hold nothing of it.
    Relink(Option<LinkId>),
    /// In a diff: what steps to come see under the name, while archives of layers hold nothing of
    /// it, so that an image keeps what is below.
    Unlisted(Unlisted),
}

/// What is neither a directory nor a regular file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Special {
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

impl Special {
    /// As something with one name.
    pub fn alone(self) -> Node {
        match self {
            Self::Symlink(target) => Node::Symlink(target),
            Self::Char(major, minor) => Node::Char(major, minor),
            Self::Block(major, minor) => Node::Block(major, minor),
            Self::Fifo => Node::Fifo,
            Self::Socket => Node::Socket,
        }
    }
}

impl Node {
    /// The group of names that share its inode, when it has several.
    pub fn link(&self) -> Option<LinkId> {
        match self {
            Self::File { link, .. } => *link,
            Self::Linked(link, _) => Some(*link),
            _ => None,
        }
    }

    /// The same with other names, or with none. Nothing happens to what has one name always.
    pub fn with_link(self, link: Option<LinkId>) -> Self {
        match self.apart() {
            Ok(special) => match link {
                Some(link) => Self::Linked(link, special),
                None => special.alone(),
            },
            Err(Self::File { blob, size, .. }) => Self::File { blob, size, link },
            Err(other) => other,
        }
    }

    /// Where it leads, if it is a symbolic link.
    pub fn symlink(&self) -> Option<&[u8]> {
        match self {
            Self::Symlink(target) | Self::Linked(_, Special::Symlink(target)) => Some(target),
            _ => None,
        }
    }

    /// Whether it is a socket's name.
    pub fn is_socket(&self) -> bool {
        matches!(self, Self::Socket | Self::Linked(_, Special::Socket))
    }

    /// What it is, if it is neither a directory nor a regular file.
    fn apart(self) -> Result<Special, Self> {
        match self {
            Self::Symlink(target) => Ok(Special::Symlink(target)),
            Self::Char(major, minor) => Ok(Special::Char(major, minor)),
            Self::Block(major, minor) => Ok(Special::Block(major, minor)),
            Self::Fifo => Ok(Special::Fifo),
            Self::Socket => Ok(Special::Socket),
            Self::Linked(_, special) => Ok(special),
            other => Err(other),
        }
    }
}

/// What can be changed without being in the archive of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Unlisted {
    /// A regular file, as in [`Node::File`].
    File {
        /// Its bytes.
        blob: BlobId,
        /// How many bytes.
        size: u64,
        /// The group of names that share its inode, when it has several.
        link: Option<LinkId>,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
}

impl Unlisted {
    /// As a node of a merged tree.
    pub fn listed(self) -> Node {
        match self {
            Self::File { blob, size, link } => Node::File { blob, size, link },
            Self::Symlink(target) => Node::Symlink(target),
        }
    }
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The name.
    pub name: FileName,
    /// Its metadata.
    pub meta: Meta,
    /// What it is.
    pub node: Node,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Meta { mode, uid, gid, .. } = self.meta;
        write!(f, "{} {mode:04o} {uid}:{gid} {:?}", self.name, self.node)
    }
}

/// What the names of one file have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OneFile {
    link: LinkId,
    what: Shared,
    meta: Meta,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Shared {
    File(BlobId),
    Special(Special),
}

impl Entry {
    /// What its other names are told by: those that have the same share its inode. Names whose bytes
    /// or metadata differ are not one file, whatever their group says: a diff can come to lie upon
    /// another tree than the one that it was made upon. None for what has one name.
    pub fn one_file(&self) -> Option<OneFile> {
        let (link, what) = match &self.node {
            Node::File { blob, link: Some(link), .. } => (*link, Shared::File(*blob)),
            Node::Linked(link, special) => (*link, Shared::Special(special.clone())),
            _ => return None,
        };
        Some(OneFile { link, what, meta: self.meta.clone() })
    }

    /// The entry as a directory.
    pub fn as_dir(&self) -> Option<&DirRef> {
        match &self.node {
            Node::Dir(dir, _) => Some(dir),
            _ => None,
        }
    }
}

/// The entries of one directory, sorted by name, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dir {
    entries: Vec<Entry>,
}

/// Why bytes are no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The bytes end in the middle, or go on after the end.
    #[error("A tree node has the wrong length")]
    Length,
    /// A number that stands for nothing.
    #[error("A tree node has the unknown {what} {value}")]
    Unknown {
        /// Of what kind the number is.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A value beyond its limit.
    #[error("A tree node has a {what} of {value}, which is over the limit")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large.
        value: u64,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] crate::path::NameError),
    /// The entries are not sorted, or one name comes twice.
    #[error("The entries of a tree node are not sorted: `{0}` comes too late")]
    Order(String),
    /// A root whose entry is no directory, or that has not exactly one.
    #[error("A root node does not hold exactly one directory")]
    Root,
}

impl Dir {
    /// Sorts by name. Of two entries with one name the later counts.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.reverse();
        entries.dedup_by(|a, b| a.name == b.name);
        entries.reverse();
        Self { entries }
    }

    /// The entries, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, to keep.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The entry of that name.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|e| e.name.as_bytes().cmp(name)).ok()?;
        Some(&self.entries[at])
    }

    /// Adds an entry, or takes the place of the one with its name.
    pub fn insert(&mut self, entry: Entry) {
        match self.entries.binary_search_by(|e| e.name.cmp(&entry.name)) {
            Ok(at) => self.entries[at] = entry,
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Takes the entry of that name away.
    pub fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let at = self.entries.binary_search_by(|e| e.name.as_bytes().cmp(name)).ok()?;
        Some(self.entries.remove(at))
    }

    /// Sums up the entries.
    pub fn summary(&self) -> Summary {
        self.entries.iter().fold(Summary::default(), |mut sum, entry| {
            sum.entries = sum.entries.saturating_add(1);
            match &entry.node {
                Node::File { size, link, .. } => {
                    sum.bytes = sum.bytes.saturating_add(*size);
                    sum.remade |= link.is_some();
                }
                Node::Dir(dir, presence) => {
                    sum.entries = sum.entries.saturating_add(dir.summary.entries);
                    sum.bytes = sum.bytes.saturating_add(dir.summary.bytes);
                    sum.remade |= dir.summary.remade;
                    sum.marks |= dir.summary.marks || *presence != Presence::Merge;
                }
                Node::Block(..) | Node::Socket | Node::Linked(..) => sum.remade = true,
                Node::Whiteout | Node::Relink(_) => sum.marks = true,
                Node::Unlisted(what) => {
                    sum.marks = true;
                    if let Unlisted::File { size, link, .. } = what {
                        sum.bytes = sum.bytes.saturating_add(*size);
                        sum.remade |= link.is_some();
                    }
                }
                _ => {}
            }
            sum
        })
    }

    /// The directory's digests and its encoding: all that is needed to name and to store it.
    pub fn seal(&self) -> Sealed {
        let bytes = encode(KIND_DIR, &self.entries);
        let dir = DirRef { tree: node_id(&bytes), content: content(self), summary: self.summary() };
        Sealed { dir, bytes }
    }

    /// Reads a directory node, checking each value and that the encoding is the canonical one.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        match decode(bytes)? {
            (KIND_DIR, entries) => Ok(Self { entries }),
            (kind, _) => Err(NodeError::Unknown { what: "node kind", value: kind.into() }),
        }
    }
}

/// A directory with its names and its encoding.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The names.
    pub dir: DirRef,
    /// The encoding, whose [`node_id`] is `dir.tree`.
    pub bytes: Vec<u8>,
}

/// A whole tree: the root directory's metadata and its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The metadata of `/`.
    pub meta: Meta,
    /// Its entries.
    pub dir: DirRef,
    /// In a diff: what to do with `/`. [`Presence::Merge`] in merged roots, but for those of contexts,
    /// of which a layer can be made.
    pub presence: Presence,
}

impl Root {
    /// The root's name and encoding.
    pub fn seal(&self) -> (RootId, Vec<u8>) {
        let mut bytes = vec![VERSION, KIND_ROOT];
        let mut sink = |b: &[u8]| bytes.extend_from_slice(b);
        let mut c = Canon::new(&mut sink);
        c.u64(1);
        encode_entry(&mut c, b"/", &self.meta, &Node::Dir(self.dir, self.presence));
        (RootId(node_id(&bytes)), bytes)
    }

    /// Reads a root node.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        let mut r = Reader::new(bytes);
        let (kind, count) = header(&mut r)?;
        if kind != KIND_ROOT || count != 1 {
            return Err(NodeError::Root);
        }
        let (name, meta, node) = decode_entry(&mut r)?;
        match node {
            Node::Dir(dir, presence) if name == b"/" && r.is_empty() => {
                Ok(Self { meta, dir, presence })
            }
            _ => Err(NodeError::Root),
        }
    }

    /// The digest of all that the root holds, its own metadata included, without times.
    pub fn content(&self) -> ContentDigest {
        let hash = canon::hash(CONTENT_DOMAIN, |c| {
            c.tag(KIND_ROOT);
            content_header(c, &self.meta);
            content_node(c, &Node::Dir(self.dir, self.presence));
        });
        ContentDigest::from_bytes(hash)
    }
}

/// A node of either kind: a blob that names others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyNode {
    /// A directory's entries.
    Dir(Dir),
    /// A whole tree.
    Root(Root),
}

impl AnyNode {
    /// Reads a node of either kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        match bytes.get(1) {
            Some(&KIND_ROOT) => Root::decode(bytes).map(Self::Root),
            _ => Dir::decode(bytes).map(Self::Dir),
        }
    }

    /// How many levels of directories may be below the node. A root is a level above the highest
    /// directory, but not itself inside of one.
    pub fn height_max(&self) -> usize {
        match self {
            Self::Root(_) => limit::TREE_DEPTH_MAX + 1,
            Self::Dir(_) => limit::TREE_DEPTH_MAX,
        }
    }

    /// The directories that the node names directly.
    pub fn dirs(&self) -> Vec<DirRef> {
        match self {
            Self::Root(root) => vec![root.dir],
            Self::Dir(dir) => dir.entries.iter().filter_map(Entry::as_dir).copied().collect(),
        }
    }

    /// The blobs that the node names directly, each with its size.
    pub fn blobs(&self) -> Vec<(BlobId, u64)> {
        let Self::Dir(dir) = self else {
            return Vec::new();
        };
        let blob = |e: &Entry| match e.node {
            Node::File { blob, size, .. } | Node::Unlisted(Unlisted::File { blob, size, .. }) => {
                Some((blob, size))
            }
            _ => None,
        };
        dir.entries.iter().filter_map(blob).collect()
    }

    /// The digests and sums that a parent must carry for this node; none for a root.
    pub fn dir_ref(&self, id: TreeId) -> Option<DirRef> {
        match self {
            Self::Root(_) => None,
            Self::Dir(dir) => {
                Some(DirRef { tree: id, content: content(dir), summary: dir.summary() })
            }
        }
    }
}

/// The name of an encoded node.
pub fn node_id(bytes: &[u8]) -> TreeId {
    TreeId::from_bytes(
        *blake3::Hasher::new_derive_key(NODE_DOMAIN).update(bytes).finalize().as_bytes(),
    )
}

/// The empty directory.
pub fn empty_dir() -> Sealed {
    Dir::default().seal()
}

/// The extended attribute that holds what a program may do without being root: `capabilities(7)`.
/// The only one that layers are made with, as in BuildKit.
pub const CAPABILITY: &[u8] = b"security.capability";

/// Whether an extended attribute belongs to the host that a file lies on, and not to the file.
pub fn is_host_xattr(name: &[u8]) -> bool {
    (name.starts_with(b"security.") && name != CAPABILITY)
        || name.starts_with(b"system.")
        || name.starts_with(b"trusted.overlay.")
}

fn content(dir: &Dir) -> ContentDigest {
    let hash = canon::hash(CONTENT_DOMAIN, |c| {
        c.tag(KIND_DIR).list(dir.entries.iter(), |c, entry| {
            c.bytes(entry.name.as_bytes());
            content_header(c, &entry.meta);
            content_node(c, &entry.node);
        });
    });
    ContentDigest::from_bytes(hash)
}

/// The digest of one entry, whatever its name, without times: what a selection of one file or
/// directory is keyed by.
pub fn content_digest(meta: &Meta, node: &Node) -> ContentDigest {
    let hash = canon::hash(CONTENT_DOMAIN, |c| {
        c.tag(2);
        content_header(c, meta);
        content_node(c, node);
    });
    ContentDigest::from_bytes(hash)
}

fn content_header(c: &mut Canon<'_>, meta: &Meta) {
    c.u16(meta.mode).u32(meta.uid).u32(meta.gid);
    let kept: Vec<_> = meta.xattrs.iter().filter(|(name, _)| !is_host_xattr(name)).collect();
    c.list(kept.iter(), |c, (name, value)| {
        c.bytes(name).bytes(value);
    });
}

fn content_node(c: &mut Canon<'_>, node: &Node) {
    match node {
        Node::File { blob, size, link } => {
            c.tag(0).hash32(blob.as_bytes()).u64(*size).u64(link.map_or(0, LinkId::get))
        }
        Node::Dir(dir, presence) => c.tag(1).hash32(dir.content.as_bytes()).tag(*presence as u8),
        Node::Symlink(target) => c.tag(2).bytes(target),
        Node::Char(major, minor) => c.tag(3).u32(*major).u32(*minor),
        Node::Block(major, minor) => c.tag(4).u32(*major).u32(*minor),
        Node::Fifo => c.tag(5),
        Node::Socket => c.tag(6),
        Node::Whiteout => c.tag(7),
        Node::Relink(link) => c.tag(8).u64(link.map_or(0, LinkId::get)),
        Node::Unlisted(what) => {
            content_node(c.tag(9), &what.clone().listed());
            c
        }
        Node::Linked(link, what) => {
            content_node(c.tag(10).u64(link.get()), &what.clone().alone());
            c
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> impl Strategy<Value = Meta> {
        let xattr = (prop::collection::vec(1u8.., 1..8), prop::collection::vec(any::<u8>(), 0..8));
        (0u16..0o10000, any::<u32>(), any::<u32>(), any::<i64>(), 0u32..1_000_000_000)
            .prop_flat_map(move |(mode, uid, gid, seconds, nanos)| {
                prop::collection::vec(xattr.clone(), 0..3).prop_map(move |xattrs| Meta {
                    mode,
                    uid,
                    gid,
                    mtime: Mtime { seconds, nanos },
                    xattrs: Xattrs::new(xattrs),
                })
            })
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            (any::<[u8; 32]>(), any::<u64>(), any::<u64>()).prop_map(|(b, size, link)| {
                let link = std::num::NonZeroU64::new(link).map(LinkId);
                Node::File { blob: BlobId::from_bytes(b), size, link }
            }),
            Just(Node::Dir(empty_dir().dir, Presence::Opaque)),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Node::Symlink),
            (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Node::Char(a, b)),
            Just(Node::Fifo),
            Just(Node::Whiteout),
            Just(Node::Dir(empty_dir().dir, Presence::Unlisted)),
            (any::<[u8; 32]>(), any::<u64>()).prop_map(|(b, size)| {
                let blob = BlobId::from_bytes(b);
                Node::Unlisted(Unlisted::File { blob, size, link: None })
            }),
            prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|target| Node::Unlisted(Unlisted::Symlink(target))),
            (
                1u64..,
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40).prop_map(Node::Symlink),
                    (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Node::Block(a, b)),
                    Just(Node::Fifo),
                    Just(Node::Socket),
                ]
            )
                .prop_map(
                    |(link, node)| node.with_link(std::num::NonZeroU64::new(link).map(LinkId))
                ),
            any::<u64>().prop_map(|link| Node::Relink(std::num::NonZeroU64::new(link).map(LinkId))),
        ]
    }

    fn dir() -> impl Strategy<Value = Dir> {
        let name = "[a-z]{1,3}".prop_map(|n| FileName::new(n.as_bytes()).unwrap());
        let entry =
            (name, meta(), node()).prop_map(|(name, meta, node)| Entry { name, meta, node });
        prop::collection::vec(entry, 0..12).prop_map(Dir::new)
    }

    proptest! {
        #[test]
        fn a_node_reads_what_it_wrote(dir in dir()) {
            let sealed = dir.seal();
            prop_assert_eq!(node_id(&sealed.bytes), sealed.dir.tree);
            prop_assert_eq!(Dir::decode(&sealed.bytes).unwrap(), dir);
        }

        #[test]
        fn only_the_canonical_bytes_are_read(dir in dir(), at in any::<usize>(), flip in 1u8..) {
            let mut bytes = dir.seal().bytes;
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(other) = Dir::decode(&bytes) {
                prop_assert_eq!(other.seal().bytes, bytes);
            }
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = AnyNode::decode(&bytes);
            let mut with_header = vec![1, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            with_header.extend(bytes);
            let _ = AnyNode::decode(&with_header);
        }

        #[test]
        fn content_leaves_out_times_only(dir in dir(), shift in 1i64..1000) {
            let mut later = dir.clone();
            for entry in &mut later.entries {
                entry.meta.mtime.seconds = entry.meta.mtime.seconds.wrapping_add(shift);
            }
            prop_assert_eq!(dir.seal().dir.content, later.seal().dir.content);
            if let Some(entry) = later.entries.first_mut() {
                prop_assert_ne!(dir.seal().dir.tree, Dir::new(vec![entry.clone()]).seal().dir.tree);
                entry.meta.mode ^= 1;
                prop_assert_ne!(dir.seal().dir.content, later.seal().dir.content);
            }
        }
    }

    #[test]
    fn a_root_reads_what_it_wrote() {
        let meta = Meta::root_owned(0o755, Mtime::default());
        let root = Root { meta, dir: empty_dir().dir, presence: Presence::Merge };
        let (id, bytes) = root.seal();
        assert_eq!(Root::decode(&bytes).unwrap(), root);
        assert_eq!(RootId(node_id(&bytes)), id);
        assert!(Dir::decode(&bytes).is_err());
    }
}
