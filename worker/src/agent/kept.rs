//! Images of the image store: to and from registries and archives. Which names they have is the
//! coordinator's business.

use super::Machine;
use super::images::{progress, pull_failure, registry_failure, store_failure};
use super::original;
use crate::image::archive::{self, Source};
use crate::image::local::{self, How, LocalError};
use crate::image::manifest::{Annotations, ImageSet};
use crate::image::registry::{Freshness, Session, parse_reference};
use crate::image::{Progress, blocking, pack, push as send};
use cache::store::{Image, ImageLayer, Persisted, StoreError};
use proto::error::{Class, Failure};
use proto::id::BlobId;
use proto::platform::Platform;
use proto::wire::build::{ArchiveFormat, MediaTypes};
use proto::wire::worker::{Moved, Reply};
use std::sync::Arc;

fn read(image: &[u8]) -> Result<Image, Failure> {
    let broken = || Failure::new(Class::Corrupt, "The coordinator sent a broken image");
    Image::from_bytes(image).ok_or_else(broken)
}

/// Brings an image from its registry.
pub async fn pull(
    machine: &Arc<Machine>,
    session: &Session,
    reference: &str,
    platform: &Platform,
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<Reply, Failure> {
    let reference = parse_reference(reference).map_err(|e| registry_failure(&e))?;
    let _pin = machine.store.pin();
    let resolved = session.resolve(&machine.store, &reference, platform, Freshness::Ask).await;
    let resolved = resolved.map_err(|e| registry_failure(&e))?;
    let layers = machine.puller.layers(session, &resolved, &progress(told)).await;
    let layers = layers.map_err(|e| pull_failure(&e))?;
    let (top, store) = (resolved.top, machine.store.clone());
    let kept = blocking(move || {
        let image = local::pulled(&*store, &resolved, &layers, super::now())?;
        store.publish(&[(image.config, resolved.config_bytes.len() as u64)])?;
        Ok::<_, StoreError>(image)
    });
    let image = kept.await.map_err(|e| store_failure(&e))?;
    Ok(Reply::Pulled(top, image.to_bytes()))
}

/// Docker's media types for an image that came with them, so that its digest stays the same.
fn media(image: &Image) -> MediaTypes {
    let docker = |layer: &ImageLayer| {
        layer.original.as_ref().is_some_and(|(media, ..)| media.contains("vnd.docker"))
    };
    if image.layers.iter().any(docker) { MediaTypes::Docker } else { MediaTypes::Oci }
}

/// The image with all its layers packed.
async fn packed(
    machine: &Arc<Machine>,
    session: &Session,
    image: Image,
    progress: &Progress,
) -> Result<ImageSet, Failure> {
    let mut missing = None;
    for layer in &image.layers {
        // Without it the layer can often be made again with the same bytes.
        let places = image.references.iter().cloned().map(original::Place::Registry);
        if let Err(e) = original::bring(machine, session, layer, places, progress).await {
            missing = Some(e);
        }
    }
    let machine = machine.clone();
    let made = blocking(move || {
        let compression = pack::gzip(0).map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
        let how = How { compression, force: false, media: media(&image) };
        let none = Annotations::new();
        let made = local::export(&*machine.store, &machine.packer, &image, how, &none);
        made.map(ImageSet::single).map_err(|e| match (e, missing) {
            (LocalError::LayerGone(_), Some(failure)) => failure,
            (e, _) => Failure::new(e.class(), e.to_string()),
        })
    });
    made.await
}

/// Sends an image to its registry.
pub async fn push(
    machine: &Arc<Machine>,
    session: &Session,
    reference: &str,
    image: &[u8],
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<Reply, Failure> {
    let reference = parse_reference(reference).map_err(|e| registry_failure(&e))?;
    let _pin = machine.store.pin();
    let progress = progress(told);
    let set = packed(machine, session, read(image)?, &progress).await?;
    let pushed = send::push(&machine.store, session, &reference, &set, false, &progress).await;
    Ok(Reply::Pushed(pushed.map_err(|e| registry_failure(&e))?.digest))
}

/// Packs images for an archive.
pub async fn save(
    machine: &Arc<Machine>,
    session: &Session,
    images: Vec<(Vec<u8>, Vec<String>)>,
    format: ArchiveFormat,
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<Reply, Failure> {
    let _pin = machine.store.pin();
    let (progress, mut sets) = (progress(told), Vec::new());
    for (image, names) in images {
        cache::crash::reach(cache::crash::Phase::Export);
        sets.push((packed(machine, session, read(&image)?, &progress).await?, names));
    }
    let plan = archive::plan_all(&sets, format);
    let plan = plan.map_err(|e| Failure::new(e.class(), e.to_string()))?;
    original::publish(machine, &plan).await?;
    Ok(Reply::Saved(plan))
}

/// Takes the images of an archive.
pub async fn load(
    machine: &Arc<Machine>,
    archive: BlobId,
    platform: Platform,
) -> Result<Reply, Failure> {
    let store = machine.store.clone();
    let loaded = blocking(move || {
        let _pin = store.pin();
        let content = store.open(&archive, 0).map_err(|e| store_failure(&e))?;
        let loaded = archive::load(&*store, Source::Tar(content), &platform, super::now());
        let loaded = loaded.map_err(|e| Failure::new(e.class(), e.to_string()))?;
        let configs: Result<Vec<(BlobId, u64)>, StoreError> = loaded
            .iter()
            .map(|one| Ok((one.image.config, store.blob_size(&one.image.config)?)))
            .collect();
        let published = configs.and_then(|configs| store.publish(&configs));
        published.map_err(|e| store_failure(&e))?;
        Ok::<_, Failure>(loaded)
    });
    let loaded = loaded.await?.into_iter();
    Ok(Reply::Loaded(loaded.map(|one| (one.image.to_bytes(), one.names)).collect()))
}
