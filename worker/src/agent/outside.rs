//! Caches outside of the farm: read, fetched from, and written.

use super::export::how;
use super::images::{progress, registry_failure, store_failure};
use super::link::Link;
use super::{Machine, original};
use crate::image::artifact::document::{self, NODES_TYPE, Named};
use crate::image::artifact::{BadArtifact, FetchError, Written, nodes};
use crate::image::local::How;
use crate::image::manifest::{Document, layer_media};
use crate::image::pack::PackError;
use crate::image::push::{self, Source};
use crate::image::registry::{Reference, RegistryError, Session, parse_reference, repository_of};
use crate::image::sha::sha256_of;
use crate::image::unpack::{self, Reading};
use crate::image::{Progress, archive, blocking, rows};
use bytes::Bytes;
use cache::store::{OciBlob, PackedLayer, Store, StoreError};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use proto::error::{Class, Failure};
use proto::id::{BlobId, BuildId, OciDigest, RootId};
use proto::limit;
use proto::step::PackedRef;
use proto::tree::AnyNode;
use proto::wire::build::{Answer, ArchiveData, ArchiveEntry, Ask};
use proto::wire::outside::{
    CacheContent, CacheExport, CachePlace, CacheWritten, CachedLayer, CachedRecord,
};
use proto::wire::worker::Moved;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Layers that are made ready at the same time.
const LAYERS_AT_ONCE: usize = 4;

fn bad(error: &BadArtifact) -> Failure {
    let failure = Failure::new(Class::User, capital(&error.to_string()));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Reads what a cache has.
pub async fn read(
    machine: &Arc<Machine>,
    link: &Link,
    build: &BuildId,
    from: &CachePlace,
) -> Result<CacheContent, Failure> {
    let _pin = machine.store.pin();
    match from {
        CachePlace::Registry(reference) => {
            let reference = parse_reference(reference).map_err(|e| registry_failure(&e))?;
            let session = link.session(build);
            let failed = |e: RegistryError| registry_failure(&e);
            let manifest = session.document(&reference).await.map_err(failed)?;
            let named = Named::read(&manifest).map_err(|e| bad(&e))?;
            let most = named.config.size as usize;
            let config = session.small_blob(&reference, &named.config.digest, most).await;
            named.content(&config.map_err(failed)?).map_err(|e| bad(&e))
        }
        CachePlace::Client(number) => {
            let blobs = ask(link, build, Ask::Cache(*number)).await?;
            let most = limit::CACHE_MANIFEST_BYTES_MAX;
            let manifest = small(machine, blobs.first().copied(), most).await?;
            let named = Named::read(&manifest).map_err(|e| bad(&e))?;
            let most = limit::CACHE_CONFIG_BYTES_MAX;
            let config = small(machine, blobs.get(1).copied(), most).await?;
            named.content(&config).map_err(|e| bad(&e))
        }
    }
}

/// Asks the client to put what it has into the store.
async fn ask(link: &Link, build: &BuildId, ask: Ask) -> Result<Vec<BlobId>, Failure> {
    match link.ask(build, ask).await? {
        Answer::Blobs(blobs) => Ok(blobs),
        other => Err(Failure::new(Class::Bug, format!("The client answered {other:?}"))),
    }
}

/// A blob of at most so many bytes, if the client has it.
async fn small(machine: &Machine, blob: Option<BlobId>, most: usize) -> Result<Bytes, Failure> {
    let blob = blob.ok_or_else(|| Failure::new(Class::User, "It has no config"))?;
    let store = machine.store.clone();
    let read = blocking(move || {
        let size = store.blob_size(&blob)?;
        let bytes = if size > most as u64 { None } else { Some(store.read(&blob)?) };
        Ok::<_, StoreError>((size, bytes))
    });
    let (size, bytes) = read.await.map_err(|e| store_failure(&e))?;
    bytes.ok_or_else(|| {
        let message = format!("Its manifest or config has {size} bytes, and {most} are read");
        Failure::new(Class::User, message)
    })
}

/// Brings a layer into the store. It is the tree that the record names, or nothing is kept.
pub async fn fetch(
    machine: &Arc<Machine>,
    link: &Link,
    build: &BuildId,
    from: &CachePlace,
    layer: &CachedLayer,
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<(), Failure> {
    let _pin = machine.store.pin();
    let progress = progress(told);
    let parts = [&layer.files, &layer.nodes];
    let blobs = packed(machine, link, build, from, &parts, &progress).await?;
    let (store, layer) = (machine.store.clone(), layer.clone());
    let _one = machine.puller.processor().await;
    let unpacked = blocking(move || unpack_layer(&*store, &layer, blobs[0], blobs[1]));
    unpacked.await.map_err(|e| Failure::new(e.class(), e.to_string()))
}

/// The tar's files are put first, then the nodes that name them.
fn unpack_layer(
    store: &dyn Store,
    layer: &CachedLayer,
    files: BlobId,
    of_tree: BlobId,
) -> Result<(), FetchError> {
    let what = format!("Layer {}", layer.files.digest.short());
    let reading = Reading::Layer { diff_id: Some(layer.diff_id), lower: None };
    unpack::unpack(store, &what, store.open(&files, 0)?, reading)?;
    let last = nodes::unpack(store, &layer.tree, store.open(&of_tree, 0)?)?;
    if last != layer.tree.0 || !matches!(*store.node(&last)?, AnyNode::Root(_)) {
        return Err(FetchError::OtherTree { tree: layer.tree });
    }
    Ok(())
}

/// Packed blobs of a cache, in the store.
async fn packed(
    machine: &Arc<Machine>,
    link: &Link,
    build: &BuildId,
    from: &CachePlace,
    parts: &[&PackedRef],
    progress: &Progress,
) -> Result<Vec<BlobId>, Failure> {
    match from {
        CachePlace::Registry(reference) => {
            let reference = parse_reference(reference).map_err(|e| registry_failure(&e))?;
            let session = link.session(build);
            let mut blobs = Vec::new();
            for one in parts {
                let pulled = machine.puller.blob(&session, &reference, one, progress).await;
                blobs.push(pulled.map_err(|e| registry_failure(&e))?.blob);
            }
            Ok(blobs)
        }
        CachePlace::Client(number) => {
            let digests = parts.iter().map(|part| part.digest).collect();
            from_client(machine, link, build, *number, digests).await
        }
    }
}

/// Packed blobs of a cache that the client has. It is asked for those that are not in the store.
async fn from_client(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
    number: u32,
    digests: Vec<OciDigest>,
) -> Result<Vec<BlobId>, Failure> {
    let store = machine.store.clone();
    let look = move |digest: OciDigest| {
        Ok((digest, rows::oci_blob(&*store, &digest)?.map(|row| row.blob)))
    };
    let known = blocking(move || digests.into_iter().map(look).collect());
    let known: Vec<(OciDigest, Option<BlobId>)> =
        known.await.map_err(|e: StoreError| store_failure(&e))?;
    let missing = known.iter().filter(|(_, blob)| blob.is_none()).map(|(digest, _)| *digest);
    let missing: Vec<OciDigest> = missing.collect();
    let mut put = Vec::new();
    if !missing.is_empty() {
        put = ask(link, build, Ask::CacheBlobs(number, missing.clone())).await?;
        if put.len() != missing.len() {
            return Err(Failure::new(Class::Bug, "The client put other blobs"));
        }
        let (store, named) = (machine.store.clone(), put.clone());
        let named = blocking(move || {
            let mut named = named.iter().zip(&missing);
            named.try_for_each(|(blob, digest)| name(&*store, blob, digest))
        });
        named.await?;
    }
    let mut put = put.into_iter();
    Ok(known.into_iter().filter_map(|(_, blob)| blob.or_else(|| put.next())).collect())
}

/// Remembers by which digest a client's blob goes, if it has it.
fn name(store: &dyn Store, blob: &BlobId, digest: &OciDigest) -> Result<(), Failure> {
    let failed = |e: StoreError| store_failure(&e);
    let read = sha256_of(store.open(blob, 0).map_err(failed)?, |_| {});
    let (actual, size) = read.map_err(|e| Failure::new(Class::Corrupt, e.to_string()))?;
    if actual != *digest {
        let message = format!("Blob {digest} of the cache has other bytes: {actual}");
        return Err(Failure::new(Class::Corrupt, message));
    }
    rows::put_oci_blob(store, digest, OciBlob { blob: *blob, size, repository: None })
        .map_err(failed)
}

/// Writes a cache.
pub async fn write(
    machine: &Arc<Machine>,
    link: &Link,
    order: &CacheExport,
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<CacheWritten, Failure> {
    let _pin = machine.store.pin();
    cache::crash::reach(cache::crash::Phase::Export);
    let reference = order.to.reference.as_deref().map(parse_reference).transpose();
    let reference = reference.map_err(|e| registry_failure(&e))?;
    let session = link.session(&order.build);
    let writer = Writer { machine, link, order, session, reference, progress: progress(told) };
    let had = writer.had().await;
    let (content, blobs) = writer.content(had).await?;
    let written = document::write(&content).map_err(|e| bad(&e))?;
    match &writer.reference {
        Some(reference) => writer.push(reference, blobs, written).await,
        None => writer.directory(blobs, written).await,
    }
}

/// A layer, and how its blobs get to where the cache is written: those that are in the store, and
/// those that the client has.
struct Placed {
    layer: CachedLayer,
    blobs: Blobs,
}

/// Blobs that somebody has to write: those that stand nowhere here are where they belong.
#[derive(Default)]
struct Blobs {
    /// In the store, with their sizes.
    stored: BTreeMap<OciDigest, (BlobId, u64)>,
    /// With the client.
    own: Vec<(OciDigest, u64)>,
    /// Those of which the registry has said that it has them not.
    absent: BTreeSet<OciDigest>,
}

struct Writer<'w> {
    machine: &'w Arc<Machine>,
    link: &'w Link,
    order: &'w CacheExport,
    session: Arc<Session>,
    /// None for a directory.
    reference: Option<Reference>,
    progress: Progress,
}

impl Writer<'_> {
    /// The layers that other caches have. One that cannot be had there is left out.
    async fn had(&self) -> BTreeMap<RootId, Placed> {
        let look = |(layer, place): (CachedLayer, CachePlace)| async move {
            let mut blobs = Blobs::default();
            for part in [&layer.files, &layer.nodes] {
                self.place(part, &place, &mut blobs).await?;
            }
            Ok::<_, Failure>(Placed { layer, blobs })
        };
        let known = stream::iter(self.order.known.clone()).map(look);
        let placed: Vec<_> = known.buffer_unordered(LAYERS_AT_ONCE).collect().await;
        let had = placed.into_iter().filter_map(|placed| match placed {
            Ok(placed) => Some((placed.layer.tree, placed)),
            Err(failure) => {
                tracing::info!("a layer of another cache cannot be had: {failure}");
                None
            }
        });
        had.collect()
    }

    /// Finds out how a blob of another cache gets to this one. What a registry has is not sent, nor
    /// fetched; nor is what the client has, when it writes the cache.
    async fn place(
        &self,
        part: &PackedRef,
        place: &CachePlace,
        blobs: &mut Blobs,
    ) -> Result<(), Failure> {
        match (&self.reference, place) {
            (None, CachePlace::Client(_)) => {
                blobs.own.push((part.digest, part.size));
                return Ok(());
            }
            (Some(reference), _) => {
                let holds = self.holds(reference, part, place).await;
                if holds.map_err(|e| registry_failure(&e))? {
                    return Ok(());
                }
                blobs.absent.insert(part.digest);
            }
            (None, CachePlace::Registry(_)) => {}
        }
        let (build, parts) = (&self.order.build, [part]);
        let brought = packed(self.machine, self.link, build, place, &parts, &self.progress);
        blobs.stored.insert(part.digest, (brought.await?[0], part.size));
        Ok(())
    }

    async fn holds(
        &self,
        reference: &Reference,
        part: &PackedRef,
        place: &CachePlace,
    ) -> Result<bool, RegistryError> {
        let from = match place {
            CachePlace::Registry(from) => Some(parse_reference(from)?),
            CachePlace::Client(_) => None,
        };
        let own = repository_of(reference);
        let same_registry = from.filter(|from| from.registry() == reference.registry());
        let other = same_registry.filter(|from| repository_of(from) != own);
        let other = other.as_ref().map(|from| from.repository());
        self.session.holds_blob(reference, &part.digest, other).await
    }

    /// The records, with their layers: those that other caches have as they are there, the others
    /// packed here. A record with a layer that cannot be had is left out.
    async fn content(
        &self,
        had: BTreeMap<RootId, Placed>,
    ) -> Result<(CacheContent, Blobs), Failure> {
        let records = &self.order.records;
        let how = how(&self.order.to.packing)?;
        let foreign: BTreeSet<RootId> = self.order.known.iter().map(|(l, _)| l.tree).collect();
        let trees: BTreeSet<RootId> = records.iter().flat_map(|r| r.layers.clone()).collect();
        let open: Vec<RootId> = trees.into_iter().filter(|tree| !had.contains_key(tree)).collect();
        let pack = |tree: RootId| {
            let (machine, is_foreign) = (self.machine.clone(), foreign.contains(&tree));
            blocking(move || match pack_layer(&machine, &tree, how) {
                // It may have been fetched all the same; who has never had it cannot pack it.
                Err(_) if is_foreign => Ok(None),
                packed => packed,
            })
        };
        let packed = stream::iter(open).map(pack).buffer_unordered(LAYERS_AT_ONCE);
        let packed: Vec<Option<Placed>> = packed.try_collect().await?;
        let packed = packed.into_iter().flatten().map(|placed| (placed.layer.tree, placed));
        let mut placed: BTreeMap<RootId, Placed> = had.into_iter().chain(packed).collect();
        let whole = |record: &&CachedRecord| record.layers.iter().all(|l| placed.contains_key(l));
        let records: Vec<CachedRecord> = records.iter().filter(whole).cloned().collect();
        let (mut layers, mut blobs) = (Vec::new(), Blobs::default());
        for tree in records.iter().flat_map(|record| &record.layers) {
            // Several records may have one layer.
            if let Some(Placed { layer, blobs: of_it }) = placed.remove(tree) {
                layers.push(layer);
                blobs.stored.extend(of_it.stored);
                blobs.own.extend(of_it.own);
                blobs.absent.extend(of_it.absent);
            }
        }
        Ok((CacheContent { records, layers }, blobs))
    }

    /// Sends what the registry has not, and the manifest last.
    async fn push(
        &self,
        reference: &Reference,
        blobs: Blobs,
        written: Written,
    ) -> Result<CacheWritten, Failure> {
        let failed = |e: RegistryError| registry_failure(&e);
        let stored = blobs.stored.into_iter();
        let stored = stored.map(|(digest, (blob, size))| (digest, Source::Stored(blob, size)));
        let mut wanted: BTreeMap<OciDigest, Source> = stored.collect();
        wanted.insert(written.config.digest, Source::Here(written.config.bytes));
        let (store, session) = (&self.machine.store, &self.session);
        let pushed =
            push::blobs(store, session, reference, wanted, &blobs.absent, &self.progress).await;
        pushed.map_err(failed)?;
        let Document { bytes, media_type, digest } = written.manifest;
        session.push_manifest(reference, false, &media_type, bytes).await.map_err(failed)?;
        Ok(CacheWritten::Pushed(digest))
    }

    /// Answers what the client has to write.
    async fn directory(&self, blobs: Blobs, written: Written) -> Result<CacheWritten, Failure> {
        let stored = blobs.stored.into_iter();
        let stored =
            stored.map(|(digest, (blob, size))| (digest, ArchiveData::Blob(blob, size, digest)));
        let config = (written.config.digest, ArchiveData::Inline(written.config.bytes.into()));
        let entries: Vec<ArchiveEntry> =
            archive::artifact(&written.manifest, stored.chain([config]));
        original::publish(self.machine, &entries).await?;
        Ok(CacheWritten::Files { entries, own: blobs.own })
    }
}

/// A layer, packed; none when a layer cannot hold its files. Blocks.
fn pack_layer(machine: &Machine, tree: &RootId, how: How) -> Result<Option<Placed>, Failure> {
    let store = &*machine.store;
    let files = machine.packer.layer(tree, how.compression);
    let (layer, nodes) = match files.and_then(|layer| Ok((layer, nodes::pack(store, tree)?))) {
        Ok(packed) => packed,
        Err(e @ (PackError::Name { .. } | PackError::TooMuch { .. } | PackError::Nodes { .. })) => {
            tracing::info!("a record is not given to a cache: {e}");
            return Ok(None);
        }
        Err(e) => return Err(Failure::new(e.class(), e.to_string())),
    };
    let PackedLayer { digest, blob, size } = nodes;
    rows::put_oci_blob(store, &digest, OciBlob { blob, size, repository: None })
        .map_err(|e| store_failure(&e))?;
    let media_type = layer_media(how.media, how.compression).to_owned();
    let files = PackedRef { media_type, digest: layer.packed.digest, size: layer.packed.size };
    let nodes = PackedRef { media_type: NODES_TYPE.to_owned(), digest, size };
    let stored =
        [(files.digest, (layer.packed.blob, layer.packed.size)), (nodes.digest, (blob, size))];
    let layer = CachedLayer { tree: *tree, diff_id: layer.diff_id, files, nodes };
    let blobs = Blobs { stored: stored.into(), ..Blobs::default() };
    Ok(Some(Placed { layer, blobs }))
}
