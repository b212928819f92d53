//! The files of an image of a client's layout, in the store: a directory in which each is named by
//! its digest. The same is kept of images that came in archives.

use super::{LayoutError, path_of};
use crate::image::registry::{Config, Document, LayerRef};
use crate::image::sha::{sha256, sha256_of};
use crate::image::{Progress, rows};
use bytes::Bytes;
use cache::store::{OciBlob, Store};
use proto::id::{BlobId, OciDigest, RootId};
use proto::limit;
use proto::platform::Platform;
use proto::tree::{AnyNode, Node};
use std::io;

/// What a layout says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The platform that it is for.
    pub platform: Platform,
    /// Its config.
    pub config: Bytes,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRef>,
}

/// Reads an image's manifest and config. Blocks.
pub fn describe(
    store: &dyn Store,
    files: RootId,
    manifest: &OciDigest,
) -> Result<Described, LayoutError> {
    let bytes = document(store, files, manifest)?;
    let bad =
        |digest: &OciDigest, why: String| LayoutError::Document { path: path_of(digest), why };
    let read = Document::read(&bytes, "").map_err(|why| bad(manifest, why))?;
    let Document::Manifest(read) = read else {
        return Err(bad(manifest, "it is an index".to_owned()));
    };
    let digest = read.config.digest;
    let bytes = document(store, files, &digest)?;
    let config = Config::read(&bytes).map_err(|why| bad(&digest, why))?;
    let (ids, parts) = (config.diff_ids, read.layers);
    if ids.len() != parts.len() {
        let why = format!("it names {} layers, and there are {}", ids.len(), parts.len());
        return Err(bad(&digest, why));
    }
    let layers = parts.into_iter().zip(ids);
    let layers = layers.map(|(part, diff_id)| LayerRef { part, diff_id }).collect();
    Ok(Described { platform: config.platform, config: bytes, layers })
}

/// Sees that a file is what its name says, and remembers it by its digest. Blocks.
pub fn take(
    store: &dyn Store,
    files: RootId,
    digest: &OciDigest,
    progress: &Progress,
) -> Result<OciBlob, LayoutError> {
    let (blob, size) = find(store, files, digest)?;
    progress(digest, 0, size);
    let read = sha256_of(store.open(&blob, 0)?, |at| progress(digest, at, size));
    let (actual, _) = read.map_err(|source| broken(digest, source))?;
    right(digest, actual)?;
    let row = OciBlob { blob, size, repository: None };
    rows::put_oci_blob(store, digest, row.clone())?;
    Ok(row)
}

fn broken(digest: &OciDigest, source: io::Error) -> LayoutError {
    LayoutError::Read { path: path_of(digest).into(), source }
}

fn right(expected: &OciDigest, actual: OciDigest) -> Result<(), LayoutError> {
    match actual == *expected {
        true => Ok(()),
        false => Err(LayoutError::Damaged {
            path: path_of(expected),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }),
    }
}

/// A file that fits in memory, and is what its name says.
fn document(store: &dyn Store, files: RootId, digest: &OciDigest) -> Result<Bytes, LayoutError> {
    let (blob, size) = find(store, files, digest)?;
    if size > limit::MANIFEST_BYTES_MAX as u64 {
        let why = format!("it has {size} bytes");
        return Err(LayoutError::Document { path: path_of(digest), why });
    }
    let bytes = store.read(&blob)?;
    right(digest, sha256(&bytes))?;
    Ok(bytes)
}

/// The file of that digest, as the directory has it.
fn find(
    store: &dyn Store,
    files: RootId,
    digest: &OciDigest,
) -> Result<(BlobId, u64), LayoutError> {
    let missing = || LayoutError::Missing(path_of(digest));
    let AnyNode::Root(root) = &*store.node(&files.0)? else { return Err(missing()) };
    let AnyNode::Dir(dir) = &*store.node(&root.dir.tree)? else { return Err(missing()) };
    match dir.get(digest.hex().as_bytes()).map(|entry| &entry.node) {
        Some(Node::File { blob, size, .. }) => Ok((*blob, *size)),
        _ => Err(missing()),
    }
}
