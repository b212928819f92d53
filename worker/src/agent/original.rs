//! Layers as their registries packed them. A machine that needs one gets it from whoever has it: an
//! archive in the store, or a registry.

use super::Machine;
use super::images::{kept, registry_failure, store_failure};
use crate::image::registry::{Part, Session, parse_reference};
use crate::image::{Progress, blocking, rows};
use cache::store::{Image, ImageLayer, OciBlob, Store, StoreError};
use proto::error::Failure;
use proto::id::{BlobId, OciDigest};
use proto::tree::{AnyNode, Node};
use proto::wire::build::{ArchiveData, ArchiveEntry};

/// Where a packed layer can be had.
enum Place {
    /// In an archive.
    Archive(BlobId, u64),
    /// Under a reference.
    Registry(String),
}

/// Sees to it that a layer is here as it was packed, if it came packed: from a kept image that has it
/// or knows a registry, or from one of `references`.
pub async fn bring(
    machine: &Machine,
    session: &Session,
    layer: &ImageLayer,
    references: &[String],
    progress: &Progress,
) -> Result<(), Failure> {
    let Some((media_type, digest, size)) = layer.original.clone() else { return Ok(()) };
    let store = machine.store.clone();
    let found = blocking(move || places(&*store, &digest)).await;
    let Some(mut places) = found.map_err(|e| store_failure(&e))? else { return Ok(()) };
    places.extend(references.iter().cloned().map(Place::Registry));
    let mut failed = Ok(());
    for place in places {
        let brought = match place {
            Place::Archive(blob, size) => {
                let store = machine.store.clone();
                let taken = blocking(move || take(&*store, &digest, blob, size)).await;
                taken.map_err(|e| store_failure(&e))
            }
            Place::Registry(reference) => {
                let reference = parse_reference(&reference).map_err(|e| registry_failure(&e))?;
                let part = Part { media_type: media_type.clone(), digest, size };
                let pulled = machine.puller.blob(session, &reference, &part, progress).await;
                pulled.map(drop).map_err(|e| registry_failure(&e))
            }
        };
        match brought {
            Ok(()) => return Ok(()),
            Err(failure) => failed = Err(failure),
        }
    }
    failed
}

/// Where kept images say that a packed layer can be had; none when it is here.
fn places(store: &dyn Store, digest: &OciDigest) -> Result<Option<Vec<Place>>, StoreError> {
    if rows::oci_blob(store, digest)?.is_some() {
        return Ok(None);
    }
    let (mut archives, mut registries) = (Vec::new(), Vec::new());
    let has = |image: &Image| {
        let originals = image.layers.iter().filter_map(|layer| layer.original.as_ref());
        originals.into_iter().any(|(_, original, _)| original == digest)
    };
    for image in kept(store)?.filter(has) {
        if let Some((blob, size)) = archived(store, &image, digest)? {
            archives.push(Place::Archive(blob, size));
        }
        registries.extend(image.references);
    }
    registries.sort();
    registries.dedup();
    archives.extend(registries.into_iter().map(Place::Registry));
    Ok(Some(archives))
}

/// The layer in an image's own archive.
fn archived(
    store: &dyn Store,
    image: &Image,
    digest: &OciDigest,
) -> Result<Option<(BlobId, u64)>, StoreError> {
    let Some(archive) = image.archive else { return Ok(None) };
    let AnyNode::Root(root) = &*store.node(&archive.0)? else { return Ok(None) };
    let AnyNode::Dir(dir) = &*store.node(&root.dir.tree)? else { return Ok(None) };
    let name = digest.hex();
    let file = dir.entries().iter().find(|entry| entry.name.as_bytes() == name.as_bytes());
    Ok(file.and_then(|entry| match entry.node {
        Node::File { blob, size, .. } => Some((blob, size)),
        _ => None,
    }))
}

/// Fetches a packed layer from the store that all share, and remembers it by its digest.
fn take(store: &dyn Store, digest: &OciDigest, blob: BlobId, size: u64) -> Result<(), StoreError> {
    drop(store.open(&blob, 0)?);
    rows::put_oci_blob(store, digest, OciBlob { blob, size, repository: None })
}

/// Makes that everybody can read what stands in an archive.
pub async fn publish(machine: &Machine, entries: &[ArchiveEntry]) -> Result<(), Failure> {
    let blob = |entry: &ArchiveEntry| match &entry.data {
        ArchiveData::Blob(blob, size, _) => Some((*blob, *size)),
        ArchiveData::Inline(_) | ArchiveData::Directory => None,
    };
    let blobs: Vec<(BlobId, u64)> = entries.iter().filter_map(blob).collect();
    let store = machine.store.clone();
    blocking(move || store.publish(&blobs)).await.map_err(|e| store_failure(&e))
}
