//! A tree's nodes as one blob.
//!
//! ```text
//! "slipway tree 1\n"  (length:u32  node)…
//! ```
//!
//! Lengths are little-endian. Each node stands once, after those that it names, in the order of
//! their entries; the root is the last one. All of it is compressed by zstd, in frames of some MiB.

use super::FetchError;
use crate::image::pack::{Block, PackError, zstd};
use crate::image::sha::Sha;
use crate::image::unpack::{BadArchive, decompressed, write_error};
use cache::store::{BlobWriter, PackedLayer, Store, StoreError};
use proto::id::{RootId, TreeId};
use proto::limit;
use proto::tree::{AnyNode, Entry, Node, Unlisted};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};

const MAGIC: &[u8] = b"slipway tree 1\n";

/// Bytes of one frame, about.
const FRAME: usize = 4 << 20;

/// Packs the nodes of a tree into the store. Blocks.
pub fn pack(store: &dyn Store, tree: &RootId) -> Result<PackedLayer, PackError> {
    pack_within(store, tree, limit::LAYER_TREE_BYTES_MAX)
}

fn pack_within(store: &dyn Store, tree: &RootId, max: u64) -> Result<PackedLayer, PackError> {
    let block = Block::new(zstd(0).expect("there is a default"));
    let mut sink =
        Sink { writer: store.writer()?, sha: Sha::new(), block, plain: MAGIC.to_vec(), all: 0 };
    let mut seen = BTreeSet::new();
    // A node stands a second time when all that it names has been written.
    let mut stack = vec![(tree.0, false)];
    while let Some((id, is_named)) = stack.pop() {
        if !is_named {
            if seen.contains(&id) {
                continue;
            }
            stack.push((id, true));
            let node = store.node(&id)?;
            refuse_unlisted(&node)?;
            let below = node.dirs();
            stack.extend(below.iter().rev().map(|dir| (dir.tree, false)));
            continue;
        }
        if !seen.insert(id) {
            continue;
        }
        sink.add(&store.node_bytes(&id)?)?;
        if sink.all > max {
            return Err(PackError::Nodes { tree: *tree, max });
        }
    }
    sink.finish()
}

/// The bytes of an unlisted file are in no archive, and so nobody who takes the layer has them.
fn refuse_unlisted(node: &AnyNode) -> Result<(), PackError> {
    let AnyNode::Dir(dir) = node else { return Ok(()) };
    let is_lost = |entry: &&Entry| matches!(entry.node, Node::Unlisted(Unlisted::File { .. }));
    match dir.entries().iter().find(is_lost) {
        Some(entry) => {
            let why = "no layer lists its change, and so none has its bytes";
            Err(PackError::Name { path: entry.name.to_string(), why })
        }
        None => Ok(()),
    }
}

/// Compresses nodes, and writes and hashes what comes of them.
struct Sink {
    writer: Box<dyn BlobWriter>,
    sha: Sha,
    block: Block,
    /// The frame that is begun.
    plain: Vec<u8>,
    /// Bytes of all nodes, with their lengths.
    all: u64,
}

impl Sink {
    fn add(&mut self, node: &[u8]) -> Result<(), StoreError> {
        self.plain.extend_from_slice(&(node.len() as u32).to_le_bytes());
        self.plain.extend_from_slice(node);
        self.all += 4 + node.len() as u64;
        if self.plain.len() >= FRAME { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let packed = self.block.compress(std::mem::take(&mut self.plain));
        self.sha.update(&packed);
        self.writer.write_all(&packed).map_err(write_error)
    }

    fn finish(mut self) -> Result<PackedLayer, PackError> {
        if !self.plain.is_empty() {
            self.flush()?;
        }
        let (blob, size) = self.writer.finish(None)?;
        Ok(PackedLayer { digest: self.sha.finish(), blob, size })
    }
}

/// Puts the nodes that stand in a blob: all that they name must be there. Answers the last one.
/// Blocks.
pub fn unpack(
    store: &dyn Store,
    tree: &RootId,
    packed: impl Read + Send,
) -> Result<TreeId, FetchError> {
    let bad = |why| FetchError::Nodes { tree: *tree, why };
    let read = decompressed(packed, |pieces| put_all(store, pieces));
    match read {
        Ok(Ok(last)) => Ok(last),
        Ok(Err(Refused::Store(e))) => Err(e.into()),
        Ok(Err(Refused::Bad(why))) | Err(why) => Err(bad(why)),
    }
}

enum Refused {
    Bad(BadArchive),
    Store(StoreError),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Bad(BadArchive::Read(error))
    }
}

fn put_all(store: &dyn Store, mut pieces: impl Read) -> Result<TreeId, Refused> {
    let mut magic = [0; MAGIC.len()];
    pieces.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(io::Error::other("it does not begin as a tree does").into());
    }
    let (mut nodes, mut bytes, mut all, mut last) = (Vec::new(), 0, 0u64, None);
    while let Some(node) = next(&mut pieces)? {
        all += 4 + node.len() as u64;
        if all > limit::LAYER_TREE_BYTES_MAX {
            return Err(Refused::Bad(BadArchive::TooMuch("1 GiB of names")));
        }
        last = Some(proto::tree::node_id(&node));
        bytes += 4 + node.len();
        nodes.push(node);
        if bytes >= limit::BATCH_BYTES {
            store.put_nodes(&std::mem::take(&mut nodes)).map_err(Refused::Store)?;
            bytes = 0;
        }
    }
    store.put_nodes(&nodes).map_err(Refused::Store)?;
    last.ok_or_else(|| io::Error::other("it has no nodes").into())
}

/// The next node; none at the end.
fn next(pieces: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = Vec::with_capacity(4);
    pieces.take(4).read_to_end(&mut length)?;
    let length = match <[u8; 4]>::try_from(length.as_slice()) {
        Ok(length) => u32::from_le_bytes(length) as usize,
        Err(_) if length.is_empty() => return Ok(None),
        Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    if !(1..=limit::NODE_BYTES_MAX).contains(&length) {
        return Err(io::Error::other(format!("a node of {length} bytes")));
    }
    let mut node = Vec::new();
    pieces.take(length as u64).read_to_end(&mut node)?;
    match node.len() == length {
        true => Ok(Some(node)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests;
