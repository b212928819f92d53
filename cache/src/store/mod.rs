//! One machine's store: blobs, trees, step records, and the small tables beside them.
//!
//! [`Store`] is the seam. [`disk`] is the real one: RocksDB and files. [`memory`] is its readable
//! twin: the reference of what each method promises, the oracle of the property tests, and the
//! simulator's part.
//!
//! All methods block; async callers use `spawn_blocking`.

pub mod disk;
mod lock;
pub mod memory;
mod meta;
mod nodes;
mod persist;
mod source;

pub use disk::{Collected, DiskStore, Options};
pub use lock::lock;
pub use meta::{
    Compression, Image, ImageLayer, LayerBlob, Names, OciBlob, PackedBlock, PackedLayer, Row,
    Table, mount_of, mount_prefix, mount_row,
};
pub use nodes::StoreNodes;
pub use persist::Persisted;
pub use source::Source;

use crate::chunk::ChunkPlace;
use bytes::Bytes;
use proto::chunk::{ChunkList, ChunkListError};
use proto::error::Class;
use proto::id::{BlobId, ContentKey, DefKey, RootId, Scope, TreeId};
use proto::record::{Alias, Record};
use proto::tree::{AnyNode, Meta, NodeError};
use proto::wire::worker::{Fetched, Peer};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob is not here. Its producer can make it again.
    #[error("Blob {0} is not in the store")]
    NoBlob(BlobId),
    /// The tree node is not here. Its producer can make it again.
    #[error("Tree {0} is not in the store")]
    NoTree(TreeId),
    /// The bytes on disk are not what their name says; they were put aside and count as missing.
    #[error("{what} is damaged on disk: {detail}")]
    Corrupt {
        /// What was read.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The bytes handed in are not what their name says.
    #[error("The bytes given for {named} hash to {hashed}")]
    WrongBytes {
        /// The name they were given under.
        named: String,
        /// Their real name.
        hashed: String,
    },
    /// A tree node was handed in before what it names, or with wrong digests or sizes of it.
    #[error("Tree node {tree} is refused: {why}")]
    Incomplete {
        /// The node.
        tree: TreeId,
        /// What is missing or wrong.
        why: String,
    },
    /// A node that cannot be read.
    #[error("Tree node {0} is refused: {1}")]
    Node(TreeId, NodeError),
    /// There are other bytes where the chunk was said to be.
    #[error("Chunk {chunk} is not at byte {} of blob {}", at.offset, at.blob)]
    NoChunk {
        /// The chunk.
        chunk: BlobId,
        /// Where it was looked for.
        at: ChunkPlace,
    },
    /// The blob is too large for a list of chunks. It can only be moved whole.
    #[error("Blob {blob} can't be moved in chunks: {why}")]
    Uncut {
        /// The blob.
        blob: BlobId,
        /// How large it is.
        why: ChunkListError,
    },
    /// A row was handed in that is none of its table, or before what it names.
    #[error("A row of table {table:?} is refused: {why}")]
    Row {
        /// The table.
        table: Table,
        /// What is wrong or missing.
        why: String,
    },
    /// The disk or the byte budget is full.
    #[error("{} is full: {detail}", path.display())]
    Full {
        /// What is full: the store, or the file that was written.
        path: PathBuf,
        /// What was attempted.
        detail: String,
    },
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted: `Reading`, `Linking`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// RocksDB refused.
    #[error("The index at {} failed: {detail}", path.display())]
    Index {
        /// Where the index is.
        path: PathBuf,
        /// RocksDB's words.
        detail: String,
    },
    /// The disk lost writes, so nothing more is taken. What was made durable before is safe.
    #[error(
        "The store at {} takes nothing more since the disk failed: {detail}. \
         Check the disk, then start again: what was not yet safe is checked at the start",
        path.display()
    )]
    Poisoned {
        /// Where the store is.
        path: PathBuf,
        /// What failed first.
        detail: String,
    },
}

impl StoreError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NoBlob(_) | Self::NoTree(_) | Self::NoChunk { .. } => Class::Unavailable,
            Self::Corrupt { .. } => Class::Corrupt,
            Self::WrongBytes { .. } | Self::Incomplete { .. } | Self::Node(..) => Class::Corrupt,
            Self::Row { .. } => Class::Corrupt,
            Self::Uncut { .. } => Class::User,
            Self::Full { .. } => Class::Busy,
            Self::Io { .. } | Self::Index { .. } | Self::Poisoned { .. } => Class::Unavailable,
        }
    }

    /// For `map_err`: an error of the operating system, with what was attempted and where. A full
    /// disk or quota is [`StoreError::Full`].
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::Full { path, detail: format!("{action}: {source}") }
                }
                _ => Self::Io { action, path, source },
            }
        }
    }
}

/// What a store can do.
///
/// **Visible and durable are two things.** What a `put` took is visible to every reader in this
/// process when the call returns, and outlives a kill of the process. It outlives a loss of power
/// once [`Store::barrier`] has returned. Nothing may be acknowledged to another machine, or to a
/// person, before that.
///
/// **Only what is whole is visible**: a blob when its bytes were hashed, a tree node when all that
/// it names is there ([`Store::put_nodes`]). Everything read is verified.
pub trait Store: Send + Sync {
    /// Which of these blobs are not here, exactly. What is here counts as used now.
    fn missing_blobs(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, StoreError>;

    /// Which of these trees are not here, exactly. What is here is whole, and counts as used now.
    fn missing_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError>;

    /// Takes blobs of up to `limit::PACKED_BLOB_BYTES_MAX` bytes. All bytes are hashed before any
    /// is kept.
    fn put_blobs(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), StoreError>;

    /// Takes a blob of any size, piece by piece.
    fn writer(&self) -> Result<Box<dyn BlobWriter>, StoreError>;

    /// Takes a file as a blob by a hard link (a copy where that can't be), hashing it. The caller
    /// promises that nobody writes to this inode any more, and nobody changes its metadata.
    /// Answers the blob and its size.
    fn adopt(&self, file: &Path) -> Result<(BlobId, u64), StoreError>;

    /// How large the blob is.
    fn blob_size(&self, id: &BlobId) -> Result<u64, StoreError>;

    /// A blob's bytes, verified. Only for blobs that fit in memory: nodes, configs, packed files.
    fn read(&self, id: &BlobId) -> Result<Bytes, StoreError>;

    /// Many blobs' bytes, verified, in the order asked for. Only for packed blobs.
    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError>;

    /// A blob's bytes as a stream, from `offset` on. A stream from 0 ends with an error, not with
    /// the end of the file, when the bytes are not what their name says.
    fn open(&self, id: &BlobId, offset: u64) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Makes a regular file at `dest` (which must not exist) with this content and this metadata.
    /// The store chooses between a hard link, a reflink and a copy; it never hands out an inode
    /// twice, so that no two files that were placed share one. Nothing may write to the file.
    fn place(&self, id: &BlobId, meta: &Meta, dest: &Path) -> Result<(), StoreError>;

    /// Of which chunks a blob is made. It is read and cut when this is asked for the first time;
    /// for a blob of more than `limit::PACKED_BLOB_BYTES_MAX` bytes it is known from then on, as
    /// long as the blob is here.
    fn chunks(&self, id: &BlobId) -> Result<ChunkList, StoreError>;

    /// Notes of which chunks a blob is made. The caller has seen that they are: he has put it
    /// together from them. Nothing is noted of a blob that is not here or small, or whose chunks
    /// are known.
    fn note_chunks(&self, list: &ChunkList) -> Result<(), StoreError>;

    /// For each of these chunks, where it is: in which of the blobs whose chunks are known; of
    /// several, in the one with the smallest id, and there for the first time. The blobs count as
    /// used now.
    fn find_chunks(&self, ids: &[BlobId]) -> Result<Vec<Option<ChunkPlace>>, StoreError>;

    /// The bytes of a chunk that should be `at` that place, verified. [`StoreError::NoChunk`] when
    /// other bytes are there.
    fn read_chunk(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError>;

    /// Takes encoded tree nodes, children before parents. A node is refused when something that it
    /// names is not here, or is not as the node says (size of a blob; digest and sums of a
    /// directory).
    fn put_nodes(&self, nodes: &[Vec<u8>]) -> Result<(), StoreError>;

    /// A tree node, verified.
    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError>;

    /// A tree node's encoding, verified.
    fn node_bytes(&self, id: &TreeId) -> Result<Bytes, StoreError>;

    /// The records under these keys in that scope, or else in the trusted one. A record whose trees
    /// are not all here is not answered. What is answered counts as used now.
    fn records(
        &self,
        scope: &Scope,
        keys: &[ContentKey],
    ) -> Result<Vec<Option<Record>>, StoreError>;

    /// What these definitions led to in that scope, or in the trusted one.
    fn aliases(&self, scope: &Scope, keys: &[DefKey]) -> Result<Vec<Option<Alias>>, StoreError>;

    /// Sets a record, and with it the alias; neither of them when the record that is there has a
    /// higher version.
    fn put_record(
        &self,
        scope: &Scope,
        key: &ContentKey,
        record: &Record,
        alias: Option<(&DefKey, &Alias)>,
    ) -> Result<(), StoreError>;

    /// A row of a table.
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Sets a row of a table. Refused when it is no row of this table, or when what it names is not
    /// here ([`Table::names`]).
    fn put_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Takes a row away; answers whether it was there.
    fn delete_row(&self, table: Table, key: &[u8]) -> Result<bool, StoreError>;

    /// All rows of a table whose keys begin so, in the order of their keys.
    fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError>;

    /// Makes durable all that was put before the call.
    fn barrier(&self) -> Result<(), StoreError>;

    /// The sizes of blobs, of those that are here.
    fn sizes(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>, StoreError>;

    /// Makes ready all that reading the whole of a tree needs, where the store is a part of a larger
    /// one ([`Through`](crate::cluster::through::Through)).
    fn prefetch(&self, _root: &RootId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Other workers may have what is soon read here.
    fn know_peers(&self, _peers: &[Peer]) {}

    /// What was moved here from other machines. Nothing, where the store is no part of a larger one.
    fn fetched(&self) -> Fetched {
        Fetched::default()
    }

    /// Makes that everybody can read these blobs, each with its size, where the store is a part of a
    /// larger one.
    fn publish(&self, _blobs: &[(BlobId, u64)]) -> Result<(), StoreError> {
        Ok(())
    }

    /// The store on this machine's disk that it is, if it is one.
    fn disk(&self) -> Option<&DiskStore> {
        None
    }

    /// As long as the pin lives, nothing that was put, read or called present since it was taken is
    /// collected.
    fn pin(&self) -> Pin;
}

/// Takes one blob, piece by piece. Dropped before [`BlobWriter::finish`], it leaves nothing.
pub trait BlobWriter: Write + Send {
    /// Keeps the blob, if its hash is `expected` (when given). Answers its name and size.
    fn finish(self: Box<Self>, expected: Option<BlobId>) -> Result<(BlobId, u64), StoreError>;
}

/// Keeps from collection what was used since it was taken. See [`Store::pin`].
#[must_use = "what was used is kept only as long as the pin lives"]
pub struct Pin {
    _guard: Box<dyn Send + Sync>,
}

impl Pin {
    /// A pin that is given back when `guard` is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

/// Reads and hashes a file.
pub fn hash_file(file: &mut impl Read) -> io::Result<(BlobId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hasher.finalize().into(), size));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}
