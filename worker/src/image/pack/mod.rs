//! From a diff tree to a packed layer.
//!
//! The same tree and compression give the same bytes, on any machine and any number of processors.
//! What was made is remembered in the store's table `Layer`, and its blocks in `Block`: what of a
//! layer was packed for another one is not packed again. Two who want the same layer at the same time
//! wait for one pass. Who wants only the diff id (an image that stays here) pays for no compression.

mod compress;
mod cut;
mod feed;
mod flow;
mod known;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use compress::Worker as Block;
pub use compress::{BadLevel, GZIP_DEFAULT, ZSTD_DEFAULT, gzip, zstd};
pub(crate) use feed::read_error;

use super::rows;
use cache::flight::Turns;
use cache::store::{
    Compression, LayerBlob, OciBlob, PackedLayer, Persisted, Source, Store, StoreError, Table,
};
use proto::error::Class;
use proto::id::{BlobId, OciDigest, RootId};
use proto::limit;
use std::io::Write;
use std::sync::Arc;

/// Why a layer or an archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// More entries than anybody could unpack.
    #[error("A layer of {entries} entries is too large: at most {max} are packed", max = limit::LAYER_ENTRIES_MAX)]
    TooMuch {
        /// How many.
        entries: u64,
    },
    /// A tree whose nodes nobody would read.
    #[error("The nodes of the tree {tree} take more than {max} bytes")]
    Nodes {
        /// The tree.
        tree: RootId,
        /// How many bytes are packed at most.
        max: u64,
    },
    /// A file that a layer cannot hold.
    #[error("`{path}` cannot be put into a layer: {why}")]
    Name {
        /// The file.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// The archive could not be written.
    #[error("The archive cannot be written: {0}")]
    Write(std::io::Error),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another part of the work failed and says why.
    #[error("The work was stopped")]
    Stopped,
}

impl PackError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::TooMuch { .. } | Self::Nodes { .. } | Self::Name { .. } => Class::User,
            Self::Write(_) => Class::Unavailable,
            Self::Store(e) => e.class(),
            Self::Stopped => Class::Bug,
        }
    }
}

/// A layer, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: OciDigest,
    /// The packed bytes.
    pub packed: PackedLayer,
}

/// Makes layers of diff trees. Its methods block.
pub struct Packer {
    store: Arc<dyn Store>,
    threads: usize,
    turns: Turns<RootId>,
}

impl Packer {
    /// Compresses with up to `threads` threads for each layer; more than 16 are not used, for the
    /// memory's sake.
    pub fn new(store: Arc<dyn Store>, threads: usize) -> Self {
        Self { store, threads: threads.clamp(1, 16), turns: Turns::default() }
    }

    /// The diff id of the layer that `diff` makes.
    pub fn diff_id(&self, diff: &RootId) -> Result<OciDigest, PackError> {
        let _one = self.turns.enter(*diff);
        let known = self.store.rows(Table::Layer, diff.0.as_bytes())?;
        let known = known.iter().find_map(|(_, value)| LayerBlob::from_bytes(value));
        if let Some(row) = known {
            return Ok(row.diff_id);
        }
        let diff_id = flow::diff_id(&*self.store, diff)?;
        self.remember(diff, Compression::None, &LayerBlob { diff_id, packed: None })?;
        Ok(diff_id)
    }

    /// The layer that `diff` makes, packed so. Visible in the store, and durable after its barrier.
    pub fn layer(&self, diff: &RootId, compression: Compression) -> Result<Layer, PackError> {
        let (_one, _pin) = (self.turns.enter(*diff), self.store.pin());
        let key = LayerBlob::key(diff, compression);
        if let Some(LayerBlob { diff_id, packed: Some(packed) }) = rows::layer(&*self.store, &key)?
        {
            return Ok(Layer { diff_id, packed });
        }
        let (diff_id, packed) = flow::pack(&*self.store, diff, compression, self.threads)?;
        self.name(&packed)?;
        self.remember(diff, compression, &LayerBlob { diff_id, packed: Some(packed.clone()) })?;
        Ok(Layer { diff_id, packed })
    }

    /// A packed layer, packed otherwise. Its uncompressed bytes stay the same.
    pub fn repack(&self, layer: &BlobId, compression: Compression) -> Result<Layer, PackError> {
        let _pin = self.store.pin();
        let (diff_id, packed) = flow::repack(&*self.store, layer, compression, self.threads)?;
        self.name(&packed)?;
        Ok(Layer { diff_id, packed })
    }

    fn name(&self, packed: &PackedLayer) -> Result<(), StoreError> {
        let row = OciBlob { blob: packed.blob, size: packed.size, repository: None };
        rows::put_oci_blob(&*self.store, &packed.digest, row)
    }

    fn remember(&self, diff: &RootId, how: Compression, row: &LayerBlob) -> Result<(), StoreError> {
        cache::crash::reach(cache::crash::Phase::Export);
        self.store.put_row(Table::Layer, &LayerBlob::key(diff, how), &row.to_bytes())
    }
}

/// A merged tree in a tar.
pub struct Files {
    /// What all names begin with: nothing, or a text that ends with a slash.
    pub prefix: Vec<u8>,
    /// The tree.
    pub root: RootId,
    /// The time that all files get, in seconds since 1970, if they do not keep their own.
    pub time: Option<i64>,
}

/// Writes the files of merged trees as one tar (`-o type=tar`). Answers how many bytes were written.
pub fn write_tar(
    store: &dyn Source,
    trees: Vec<Files>,
    out: &mut dyn Write,
) -> Result<u64, PackError> {
    let form = |files: Files| (files.prefix, files.root, walk::Form::Plain { time: files.time });
    let roots: Vec<_> = trees.into_iter().map(form).collect();
    let mut size = 0;
    flow::archive(store, &roots, &mut |batch| {
        for bytes in batch {
            size += bytes.len() as u64;
            out.write_all(&bytes).map_err(PackError::Write)?;
        }
        Ok(())
    })?;
    out.flush().map_err(PackError::Write)?;
    Ok(size)
}
