//! Blobs and trees between a store and whoever needs them.
//!
//! Requests are answered in order; the next may be sent before the answer to the last has come.
//! Records are for coordinators only; of rows, workers see those of [`Table`].

use crate::chunk::Chunk;
use crate::error::Failure;
use crate::id::{BlobId, CacheId, ContentKey, DefKey, Millis, Scope, TreeId};
use crate::record::{Alias, Record};
use rkyv::{Archive, Deserialize, Serialize};

/// What is asked of a store.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Request {
    /// Which of these are not there? Answered by [`Reply::Missing`], exactly.
    FindMissing {
        /// Blobs.
        blobs: Vec<BlobId>,
        /// Trees; one that is there is whole.
        trees: Vec<TreeId>,
    },
    /// Small blobs; the payload has their bytes one after the other. [`Reply::Done`].
    PutBlobs(Vec<(BlobId, u32)>),
    /// A large blob; [`Data`] frames follow until all bytes are sent. [`Reply::Done`].
    PutLarge(BlobId, u64),
    /// Tree nodes, children first; the payload has their encodings. [`Reply::Done`].
    PutNodes(Vec<u32>),
    /// Makes durable all that was put before on any stream. [`Reply::Done`].
    Barrier,
    /// Small blobs' bytes. [`Reply::Blobs`], as often as needed.
    GetBlobs(Vec<BlobId>),
    /// A blob's bytes from an offset. [`Reply::Large`], then [`Data`] frames.
    GetLarge(BlobId, u64),
    /// Tree nodes. [`Reply::Nodes`], as often as needed.
    GetNodes(Vec<TreeId>),
    /// The records under these keys. [`Reply::Records`].
    Records(Scope, Vec<ContentKey>),
    /// What these definitions led to. [`Reply::Aliases`].
    Aliases(Scope, Vec<DefKey>),
    /// Keeps a record, and by which definition to find it. [`Reply::Done`].
    PutRecord(Box<PutRecord>),
    /// Keeps what is known of a build, under a key that sorts by time. [`Reply::Done`].
    PutBuild(Vec<u8>, Vec<u8>),
    /// What is known of the last builds, at most so many, the newest first. [`Reply::Builds`].
    Builds(u32),
    /// The sizes of blobs that are here themselves. [`Reply::Sizes`].
    Sizes(Vec<BlobId>),
    /// Keeps what this store says or takes from now on, as long as the stream lives, and for
    /// [`limit::PIN_GRACE_MS`](crate::limit::PIN_GRACE_MS) longer when it breaks. [`Reply::Done`].
    Pin,
    /// A row. [`Reply::Rows`]: itself, or nothing.
    Row(Table, Vec<u8>),
    /// The rows of a table whose keys begin so. [`Reply::Rows`].
    Rows(Table, Vec<u8>),
    /// Keeps a row. [`Reply::Done`].
    PutRow(Table, Vec<u8>, Vec<u8>),
    /// Takes a row away. [`Reply::Done`].
    DeleteRow(Table, Vec<u8>),
    /// Of which chunks a blob is made. [`Reply::Chunks`], then the encoding of the
    /// [`ChunkList`](crate::chunk::ChunkList) in [`Data`] frames.
    GetChunkList(BlobId),
    /// Some of a blob's chunks, at most `limit::CHUNKS_ASKED_MAX`. A [`Data`] frame for each, in
    /// the order asked for, the last of which is [`Data::Last`]; or [`Data::Failed`], after which
    /// nothing more comes.
    GetChunks(BlobId, Vec<Chunk>),
    /// Offers a blob by its chunks: the encoding of its [`ChunkList`](crate::chunk::ChunkList)
    /// follows in [`Data`] frames. [`Reply::Wanted`], after which a [`Data::More`] for each wanted
    /// chunk is to be sent, in order; and so again, when something that was thought to be there is
    /// not; at last [`Reply::Done`].
    PutChunks(BlobId),
    /// Between nodes of a farm: which of these ranges hold the same here? At most
    /// `limit::RANGES_MAX`. [`Reply::Same`].
    Compare(Part, Vec<Range>),
    /// Between nodes of a farm: what is in a part, from one key up to another, which is not in it;
    /// an empty one stands for the end. [`Reply::Listed`].
    List(Part, Vec<u8>, Vec<u8>),
    /// Between nodes of a farm: records, aliases and rows by their keys in [`Part::Table`], at most
    /// `limit::ENTRIES_MAX`. [`Reply::Entries`]: those that are here.
    Entries(Vec<Vec<u8>>),
    /// Between nodes of a farm: these were collected somewhere, and so are of no use anywhere. At
    /// most `limit::ENTRIES_MAX`. [`Reply::Done`].
    Forget(Vec<Forgotten>),
}

/// A part of what a store has, as nodes of a farm compare it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Part {
    /// All tree nodes, by their ids.
    Trees,
    /// Records, aliases, and the rows that all nodes have, by their keys in the index.
    Table,
    /// The blobs that a node should have, by their ids.
    Blobs(Share),
}

/// Which blobs a node should have: those of which it is an owner when these are the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Share {
    /// The node.
    pub node: CacheId,
    /// All nodes that own blobs.
    pub among: Vec<CacheId>,
    /// How many own each blob.
    pub replicas: u8,
}

/// What one end has from one key up to another, which is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Range {
    /// The first key that can be in it.
    pub from: Vec<u8>,
    /// The first key behind it; empty for the end.
    pub to: Vec<u8>,
    /// The hash of all that is in it, in order.
    pub digest: [u8; 32],
}

/// One thing of a [`Part`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Item {
    /// A tree node.
    Tree {
        /// Its id.
        id: TreeId,
        /// How many levels of directories are below it: what it names has fewer.
        height: u16,
        /// Bytes of its encoding.
        bytes: u32,
    },
    /// A record, an alias or a row.
    Entry {
        /// Its key in the index.
        key: Vec<u8>,
        /// The hash of its value.
        hash: [u8; 32],
    },
    /// A blob.
    Blob {
        /// Its id.
        id: BlobId,
        /// Its size in bytes.
        size: u64,
    },
}

/// A record, an alias or a row, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Its key in the index.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was used last, where that is known.
    pub used: Option<Millis>,
}

/// A record or row that was collected.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Forgotten {
    /// Its key in the index.
    pub key: Vec<u8>,
    /// The hash of the value that it had: another one is not meant.
    pub hash: [u8; 32],
}

/// A table that all of a farm share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Table {
    /// The image store: names and images.
    Image,
    /// Diff trees that layers of registries unpack to, by diff id.
    Unpacked,
    /// Diff ids that diff trees make.
    Layer,
    /// Generations of cache mounts. Only coordinators write them.
    CacheMount,
    /// What the steps of past builds were made from. Only coordinators read and write it.
    Trace,
}

/// A record to keep.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PutRecord {
    /// Its scope.
    pub scope: Scope,
    /// Its key.
    pub key: ContentKey,
    /// What is kept.
    pub record: Record,
    /// By which definition to find it.
    pub alias: Option<(DefKey, Alias)>,
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Reply {
    /// What is not there.
    Missing {
        /// Blobs.
        blobs: Vec<BlobId>,
        /// Trees.
        trees: Vec<TreeId>,
    },
    /// It was done.
    Done,
    /// Some of the blobs asked for, in order; the payload has their bytes. More follow until all
    /// have come.
    Blobs(Vec<u32>),
    /// The large blob's whole size; [`Data`] frames follow.
    Large(u64),
    /// Some of the nodes asked for, in order; the payload has their encodings.
    Nodes(Vec<u32>),
    /// For each key asked for, in order.
    Records(Vec<Option<Record>>),
    /// For each definition asked for, in order.
    Aliases(Vec<Option<Alias>>),
    /// What is known of builds: key and value.
    Builds(Vec<(Vec<u8>, Vec<u8>)>),
    /// For each blob asked for, in order: its size, if it is here.
    Sizes(Vec<Option<u64>>),
    /// Rows: key and value.
    Rows(Vec<(Vec<u8>, Vec<u8>)>),
    /// It was not done, and why. For a get: after this nothing more comes for it.
    Failed(Failure),
    /// The list of chunks follows in [`Data`] frames.
    Chunks,
    /// Which chunks of the offered list are to be sent, by their places in it, in order.
    Wanted(Vec<u32>),
    /// For each range asked for, in order: whether it holds the same here.
    Same(Vec<bool>),
    /// What is there, in the order of the keys.
    Listed {
        /// The things.
        items: Vec<Item>,
        /// Whether there are more behind the last of them.
        more: bool,
    },
    /// Those of the entries asked for that are here.
    Entries(Vec<Entry>),
}

/// A piece of a large blob or of a list, or a chunk; the payload has the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Data {
    /// Bytes, and more follow.
    More,
    /// The last bytes.
    Last,
    /// It ends here, because it could not be read.
    Failed(Failure),
}
