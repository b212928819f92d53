//! Layers as they came packed. A machine that needs one gets it from whoever has it: an archive or a
//! client's layout, of which the store has the files, or a registry.

use super::Machine;
use super::images::{kept, layout_failure, registry_failure, store_failure};
use crate::image::registry::{Session, parse_reference};
use crate::image::{Progress, blocking, rows};
use cache::store::{Image, ImageLayer, Store, StoreError};
use proto::error::Failure;
use proto::id::{BlobId, OciDigest, RootId};
use proto::step::{BaseImage, ImageOrigin, PackedRef};
use proto::wire::build::{ArchiveData, ArchiveEntry};

/// Where a packed layer can be had.
pub enum Place {
    /// Among files that are named by their digests: of an archive, or of a client's layout.
    Files(RootId),
    /// Under a reference.
    Registry(String),
}

impl Place {
    /// Where the layers of an image that is built upon can be had.
    pub fn of(base: &BaseImage) -> Self {
        match base.origin {
            ImageOrigin::Registry | ImageOrigin::Local => Self::Registry(base.reference.clone()),
            ImageOrigin::Layout(files) => Self::Files(files),
        }
    }
}

/// Sees to it that a layer is here as it was packed, if it came packed: from a kept image that has it
/// or knows a registry, or from one of the `others`.
pub async fn bring(
    machine: &Machine,
    session: &Session,
    layer: &ImageLayer,
    others: impl IntoIterator<Item = Place>,
    progress: &Progress,
) -> Result<(), Failure> {
    let Some((media_type, digest, size)) = layer.original.clone() else { return Ok(()) };
    let store = machine.store.clone();
    let found = blocking(move || places(&*store, &digest)).await;
    let Some(mut places) = found.map_err(|e| store_failure(&e))? else { return Ok(()) };
    places.extend(others);
    let mut failed = Ok(());
    for place in places {
        let brought = match place {
            Place::Files(files) => {
                let taken = machine.puller.file(files, digest, progress).await;
                taken.map(drop).map_err(|e| layout_failure(&e))
            }
            Place::Registry(reference) => {
                let reference = parse_reference(&reference).map_err(|e| registry_failure(&e))?;
                let part = PackedRef { media_type: media_type.clone(), digest, size };
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
        archives.extend(image.archive.map(Place::Files));
        registries.extend(image.references);
    }
    registries.sort();
    registries.dedup();
    archives.extend(registries.into_iter().map(Place::Registry));
    Ok(Some(archives))
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
