//! Images as steps: what a reference stands for, and its layers as diff trees.

use super::Machine;
use super::link::{Link, moved};
use crate::image::layout::LayoutError;
use crate::image::layout::files::{Described, describe as describe_files};
use crate::image::local::DOCKER_PLAIN;
use crate::image::pull::PullError;
use crate::image::registry::{Freshness, Reference, RegistryError, Resolved, parse_reference};
use crate::image::{Progress, blocking, rows};
use crate::rootfs::Stack;
use cache::store::{Image, ImageLayer, Persisted, Store, StoreError, StoreNodes, Table};
use cache::tree::apply::{apply, explicit};
use proto::error::{Class, Failure};
use proto::id::{BuildId, OciDigest, RootId, Scope, TreeId};
use proto::platform::Platform;
use proto::step::{ImageOp, ImageOrigin, PackedRef};
use proto::tree::{Meta, Mtime, Presence, Root, empty_dir};
use proto::wire::worker::{Moved, ResolvedImage};
use std::sync::Arc;

/// What a registry did not do, as the person is told.
pub fn registry_failure(error: &RegistryError) -> Failure {
    with_hint(Failure::new(error.class(), error.to_string()), error.hint())
}

/// What a pull did not do, as the person is told.
pub fn pull_failure(error: &PullError) -> Failure {
    with_hint(Failure::new(error.class(), error.to_string()), error.hint())
}

/// What a layout did not give, as the person is told.
pub fn layout_failure(error: &LayoutError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

/// What the store did not do, as the person is told.
pub fn store_failure(error: &StoreError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

fn with_hint(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The image of that name in the image store: the scope's own, or else a trusted one.
fn named(store: &dyn Store, scope: &Scope, name: &str) -> Result<Option<Image>, StoreError> {
    let image = |scope: &Scope| -> Result<Option<Image>, StoreError> {
        let row = store.row(Table::Image, &Image::key(scope, name))?;
        Ok(row.and_then(|bytes| Image::from_bytes(&bytes)))
    };
    match image(scope)? {
        None if scope.base() != *scope => image(&scope.base()),
        found => Ok(found),
    }
}

/// All images of the image store, whosever they are.
pub fn kept(store: &dyn Store) -> Result<impl Iterator<Item = Image>, StoreError> {
    let rows = store.rows(Table::Image, b"")?.into_iter();
    Ok(rows.filter_map(|(_, bytes)| Image::from_bytes(&bytes)))
}

/// The kept image with that id, whatever its names are.
fn by_id(store: &dyn Store, id: &OciDigest) -> Result<Option<Image>, StoreError> {
    Ok(kept(store)?.find(|image| image.id == *id))
}

/// A layer as those who build upon the image know it. One that was never packed goes by its diff
/// id.
fn packed_ref(layer: &ImageLayer) -> PackedRef {
    match &layer.original {
        Some((media_type, digest, size)) => {
            PackedRef { media_type: media_type.clone(), digest: *digest, size: *size }
        }
        None => PackedRef { media_type: DOCKER_PLAIN.to_owned(), digest: layer.diff_id, size: 0 },
    }
}

/// Finds out what a reference stands for: in the image store, as those of `scope` see it, then at
/// its registry; there alone without a scope.
pub async fn resolve(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
    text: &str,
    platform: &Platform,
    scope: Option<Scope>,
) -> Result<ResolvedImage, Failure> {
    let reference = parse_reference(text).map_err(|e| registry_failure(&e))?;
    if let Some(scope) = scope {
        let (store, name) = (machine.store.clone(), reference.to_string());
        let found = blocking(move || local_image(&*store, &scope, &name)).await;
        let found = found.map_err(|e| store_failure(&e))?;
        if let Some((image, config)) = found.filter(|(image, _)| fits(&image.platform, platform)) {
            let origin = ImageOrigin::Local;
            let op = ImageOp { reference: text.to_owned(), manifest: image.id, origin };
            let layers = image.layers.iter().map(packed_ref).collect();
            return Ok(ResolvedImage { op, platform: image.platform, config, layers });
        }
    }
    let session = link.session(build);
    let resolved = session
        .resolve(&machine.store, &reference, platform, Freshness::PinnedFromStore)
        .await
        .map_err(|e| registry_failure(&e))?;
    let config = String::from_utf8(resolved.config_bytes.to_vec()).map_err(|_| {
        Failure::new(Class::Corrupt, format!("The config of {reference} is no text"))
    })?;
    let layers = resolved.layers.into_iter().map(|layer| layer.part);
    let op = ImageOp {
        reference: text.to_owned(),
        manifest: resolved.manifest,
        origin: ImageOrigin::Registry,
    };
    Ok(ResolvedImage { op, platform: resolved.platform, layers: layers.collect(), config })
}

/// What an image of a client's layout is, which goes by `reference`.
pub async fn resolve_layout(
    machine: &Machine,
    reference: String,
    files: RootId,
    manifest: OciDigest,
) -> Result<ResolvedImage, Failure> {
    let image = describe(machine, files, manifest).await?;
    let config = String::from_utf8(image.config.to_vec()).map_err(|_| {
        Failure::new(Class::Corrupt, format!("The config of {reference} is no text"))
    })?;
    let op = ImageOp { reference, manifest, origin: ImageOrigin::Layout(files) };
    let layers = image.layers.into_iter().map(|layer| layer.part).collect();
    Ok(ResolvedImage { op, platform: image.platform, config, layers })
}

async fn describe(
    machine: &Machine,
    files: RootId,
    manifest: OciDigest,
) -> Result<Described, Failure> {
    let store = machine.store.clone();
    let described = blocking(move || describe_files(&*store, files, &manifest)).await;
    described.map_err(|e| layout_failure(&e))
}

/// Whether an image for `has` is one for `wanted`. A variant that is not said is any.
fn fits(has: &Platform, wanted: &Platform) -> bool {
    has.os == wanted.os
        && has.arch == wanted.arch
        && (has.variant == wanted.variant || has.variant.is_empty() || wanted.variant.is_empty())
}

fn local_image(
    store: &dyn Store,
    scope: &Scope,
    name: &str,
) -> Result<Option<(Image, String)>, StoreError> {
    let Some(image) = named(store, scope, name)? else { return Ok(None) };
    let config = store.read(&image.config)?;
    Ok(Some((image, String::from_utf8_lossy(&config).into_owned())))
}

/// The diff trees of an image's layers, lowest first, each with no implicit directories. `told`
/// hears of bytes that are moved.
pub async fn layers(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
    op: &ImageOp,
    platform: &Platform,
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<Vec<RootId>, Failure> {
    let reference = || parse_reference(&op.reference).map_err(|e| registry_failure(&e));
    let diffs = match op.origin {
        ImageOrigin::Registry => {
            let pinned = reference()?.clone_with_digest(op.manifest.to_string());
            let session = link.session(build);
            let resolved = session
                .resolve(&machine.store, &pinned, platform, Freshness::PinnedFromStore)
                .await
                .map_err(|e| registry_failure(&e))?;
            let pulled = machine.puller.layers(&session, &resolved, &progress(told)).await;
            pulled.map_err(|e| pull_failure(&e))?
        }
        ImageOrigin::Local => {
            let (store, id, reference) = (machine.store.clone(), op.manifest, reference()?);
            let image = blocking(move || by_id(&*store, &id)).await;
            let gone = || {
                let message = format!("The local image {} was removed meanwhile", op.reference);
                Failure::new(Class::User, message)
            };
            let image = image.map_err(|e| store_failure(&e))?.ok_or_else(gone)?;
            image_diffs(machine, link, build, &reference, &image, progress(told)).await?
        }
        ImageOrigin::Layout(files) => {
            let image = describe(machine, files, op.manifest).await?;
            let (name, progress) = (&op.reference, progress(told));
            let puller = &machine.puller;
            let diffs = puller.layers_of_layout(files, name, &image.layers, &progress).await;
            diffs.map_err(|e| pull_failure(&e))?
        }
    };
    let store = machine.store.clone();
    let chain = blocking(move || chain(&*store, &diffs)).await?;
    Ok(chain.diffs)
}

/// The diff trees of a local image's layers as they are known: unpacked, if they were not before.
async fn image_diffs(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
    reference: &Reference,
    image: &Image,
    progress: Progress,
) -> Result<Vec<RootId>, Failure> {
    let known: Option<Vec<RootId>> = image.layers.iter().map(|layer| layer.diff).collect();
    if let Some(known) = known {
        let trees: Vec<TreeId> = known.iter().map(|diff| diff.0).collect();
        let store = machine.store.clone();
        let missing = blocking(move || store.missing_trees(&trees)).await;
        if missing.map_err(|e| store_failure(&e))?.is_empty() {
            return Ok(known);
        }
    }
    let packed = image.layers.iter().map(|layer| {
        let part = packed_ref(layer);
        crate::image::registry::LayerRef { part, diff_id: layer.diff_id }
    });
    let whole = Resolved {
        reference: reference.clone(),
        top: image.id,
        manifest: image.id,
        manifest_bytes: bytes::Bytes::new(),
        media_type: String::new(),
        config: image.id,
        config_bytes: bytes::Bytes::new(),
        platform: image.platform.clone(),
        created: None,
        layers: packed.collect(),
    };
    let session = link.session(build);
    let pulled = machine.puller.layers(&session, &whole, &progress).await;
    pulled.map_err(|e| pull_failure(&e))
}

/// Hears of a blob's bytes: `sha256:…`.
pub fn progress(told: impl Fn(Moved) + Send + Sync + 'static) -> Progress {
    Arc::new(move |digest, current, total| told(moved(digest.to_string(), current, total)))
}

/// Layers as they come from a registry, made so that each can be mounted: with no implicit
/// directories. The merged tree comes with them. Blocks.
pub fn chain(store: &dyn Store, diffs: &[RootId]) -> Result<Stack, Failure> {
    let _pin = store.pin();
    let failed = |e: StoreError| store_failure(&e);
    let tree = |e: cache::tree::TreeError| Failure::new(Class::Corrupt, e.to_string());
    let empty = empty_dir();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (mut merged, bytes) = Root { meta, dir: empty.dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[empty.bytes, bytes]).map_err(failed)?;
    let nodes = StoreNodes(store);
    let mut done = Vec::with_capacity(diffs.len());
    for diff in diffs {
        let (diff, made) = explicit(&nodes, &merged, diff).map_err(tree)?;
        store.put_nodes(&made.into_nodes()).map_err(failed)?;
        let (root, made) = apply(&nodes, &merged, &diff).map_err(tree)?;
        store.put_nodes(&made.into_nodes()).map_err(failed)?;
        done.push(diff);
        merged = root;
    }
    Ok(Stack { diffs: done, merged })
}

/// What the layer with this diff id unpacked to, if that is known.
pub fn diff_of(store: &dyn Store, diff_id: &OciDigest) -> Result<Option<RootId>, StoreError> {
    rows::unpacked(store, diff_id)
}
