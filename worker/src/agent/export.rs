//! Outputs: configs, layers and manifests put together, kept, pushed, or named for the client.

use super::images::{self, registry_failure, store_failure};
use super::link::Link;
use super::{Machine, original};
use crate::image::local::{self, How, LocalError};
use crate::image::manifest::{
    Annotations, Document, HistoryRow, ImageSet, ManifestError, PackedPart, assemble, config,
    convert_layer_media, is_later, read_time, seconds_text, time_text,
};
use crate::image::registry::{Reference, Session, parse_reference};
use crate::image::{Progress, archive, blocking, pack, push, rows};
use cache::store::{Compression, Image, ImageLayer, Store, StoreError, StoreNodes};
use cache::tree::TreeError;
use cache::tree::apply::archived;
use cache::tree::clamp::clamp;
use proto::error::{Class, Failure};
use proto::id::{BlobId, Millis, OciDigest, RootId};
use proto::limit;
use proto::platform::Platform;
use proto::step::{BaseImage, pinned};
use proto::tree::Mtime;
use proto::wire::build::{
    ArchiveOutput, ImageOutput, ImageResult, LayerCompression, MediaTypes, Output, OutputResult,
    Packing,
};
use proto::wire::worker::{Export, ExportImage, Moved};
use serde_json::Value;
use std::sync::Arc;

/// Makes an output. Answers with it the image that is to be kept, if it is one.
pub async fn export(
    machine: &Arc<Machine>,
    link: &Link,
    export: Export,
    told: impl Fn(Moved) + Send + Sync + 'static,
) -> Result<(OutputResult, Option<Image>), Failure> {
    let _pin = machine.store.pin();
    cache::crash::reach(cache::crash::Phase::Export);
    let session = link.session(&export.build);
    let progress = images::progress(told);
    let maker = Maker { machine, session, progress };
    match &export.output {
        Output::Image(output) => maker.image(&export, output).await,
        Output::Archive(output) => Ok((maker.archive(&export, output).await?, None)),
        Output::Files { .. } | Output::CacheOnly => {
            Err(Failure::new(Class::Bug, "The output needs no worker"))
        }
    }
}

/// How layers are packed.
pub fn how(packing: &Packing) -> Result<How, Failure> {
    let bad = |e: pack::BadLevel| Failure::new(Class::User, e.to_string());
    let compression = match packing.compression {
        LayerCompression::None => Compression::None,
        LayerCompression::Gzip => pack::gzip(packing.level).map_err(bad)?,
        LayerCompression::Zstd => pack::zstd(packing.level).map_err(bad)?,
    };
    Ok(How { compression, force: packing.force, media: packing.media })
}

struct Maker<'m> {
    machine: &'m Arc<Machine>,
    session: Arc<Session>,
    progress: Progress,
}

/// An image whose config is known.
struct Configured {
    image: Image,
    config: Document,
}

fn local_failure(error: &LocalError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

fn manifest_failure(error: &ManifestError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

impl Maker<'_> {
    async fn image(
        &self,
        export: &Export,
        output: &ImageOutput,
    ) -> Result<(OutputResult, Option<Image>), Failure> {
        if output.store && export.images.len() > 1 {
            let message = "The image store keeps images of one platform, and the build has several";
            return Err(Failure::new(Class::User, message)
                .hint("Push the image (--push), or write an archive (-o type=oci,dest=FILE)."));
        }
        let mut configured = Vec::new();
        let packs = output.push.then(|| how(&output.packing)).transpose()?;
        for image in &export.images {
            configured.push(self.configure(image, output.packing.media, packs).await?);
        }
        let mut result = ImageResult {
            config: configured[0].image.id,
            digest: None,
            descriptor: None,
            names: output.names.clone(),
        };
        if output.push {
            let names: Vec<Reference> = output
                .names
                .iter()
                .map(|name| parse_reference(name).map_err(|e| registry_failure(&e)))
                .collect::<Result<_, _>>()?;
            let set = self.pack(export, &configured, &output.packing).await?;
            let top = set.top();
            result.digest = Some(top.digest);
            result.descriptor = Some((top.media_type.clone(), top.bytes.len() as u64));
            for name in &names {
                let store = &self.machine.store;
                push::push(store, &self.session, name, &set, output.by_digest, &self.progress)
                    .await
                    .map_err(|e| registry_failure(&e))?;
            }
        }
        let mut kept = None;
        if output.store
            && let Some(one) = configured.pop()
        {
            let store = self.machine.store.clone();
            kept = Some(blocking(move || keep(&*store, one)).await?);
        }
        Ok((OutputResult::Image(result), kept))
    }

    async fn archive(
        &self,
        export: &Export,
        output: &ArchiveOutput,
    ) -> Result<OutputResult, Failure> {
        let mut configured = Vec::new();
        let packs = Some(how(&output.packing)?);
        for image in &export.images {
            configured.push(self.configure(image, output.packing.media, packs).await?);
        }
        let set = self.pack(export, &configured, &output.packing).await?;
        let plan = archive::plan(&set, &output.names, output.format)
            .map_err(|e| Failure::new(e.class(), e.to_string()))?;
        original::publish(self.machine, &plan).await?;
        let top = set.top();
        let result = ImageResult {
            config: configured[0].image.id,
            digest: Some(top.digest),
            descriptor: Some((top.media_type.clone(), top.bytes.len() as u64)),
            names: output.names.clone(),
        };
        Ok(OutputResult::Archive(result, plan))
    }

    /// The config, for which only the diff ids of the layers are needed. Layers that will be packed
    /// so in any case are packed now: their files are read once for both.
    async fn configure(
        &self,
        image: &ExportImage,
        media: MediaTypes,
        packs: Option<How>,
    ) -> Result<Configured, Failure> {
        let (machine, image) = (self.machine.clone(), image.clone());
        blocking(move || configure(&machine, &image, media, packs)).await
    }

    /// The images with their layers packed.
    async fn pack(
        &self,
        export: &Export,
        configured: &[Configured],
        packing: &Packing,
    ) -> Result<ImageSet, Failure> {
        let how = how(packing)?;
        let mut images = Vec::new();
        for (one, asked) in configured.iter().zip(&export.images) {
            let base = asked.base.as_ref();
            let of_base = base.map_or(0, |base| base.layers.len());
            let mut parts = Vec::new();
            for (at, layer) in one.image.layers.iter().enumerate() {
                if let Some(base) = base.filter(|_| at < of_base) {
                    let from = [original::Place::of(base)];
                    original::bring(self.machine, &self.session, layer, from, &self.progress)
                        .await?;
                }
                parts.push(self.part(layer, how).await?);
            }
            let platform = one.image.platform.clone();
            let config = one.config.clone();
            let annotations = annotations(&export.annotations, Annotated::Manifest(&platform));
            let made = assemble(how.media, platform, config, parts, &annotations);
            images.push(made.map_err(|e| manifest_failure(&e))?);
        }
        if images.len() == 1 {
            return Ok(ImageSet::single(images.remove(0)));
        }
        let annotations = annotations(&export.annotations, Annotated::Index);
        ImageSet::indexed(images, how.media, &annotations).map_err(|e| manifest_failure(&e))
    }

    async fn part(&self, layer: &ImageLayer, how: How) -> Result<PackedPart, Failure> {
        let (machine, layer) = (self.machine.clone(), layer.clone());
        let packed =
            blocking(move || local::packed(&*machine.store, &machine.packer, &layer, how)).await;
        let mut packed = packed.map_err(|e| local_failure(&e))?;
        packed.part.media_type = convert_layer_media(how.media, &packed.part.media_type);
        Ok(packed)
    }
}

fn bad_config(why: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Corrupt, format!("The config of the base image cannot be read: {why}"))
}

fn configure(
    machine: &Machine,
    export: &ExportImage,
    media: MediaTypes,
    packs: Option<How>,
) -> Result<Configured, Failure> {
    let store = &*machine.store;
    let value: Value = serde_json::from_str(&export.config).map_err(bad_config)?;
    let mut layers = base_layers(store, &value, export.base.as_ref())?;
    let latest = export.epoch.filter(|_| export.rewrite);
    for layer in &export.layers {
        let diff = match latest {
            Some(seconds) => rewrite(store, &layer.diff, seconds)?,
            None => layer.diff,
        };
        let diff_id = match packs {
            Some(how) => machine.packer.layer(&diff, how.compression).map(|layer| layer.diff_id),
            None => machine.packer.diff_id(&diff),
        };
        let diff_id = diff_id.map_err(|e| Failure::new(e.class(), e.to_string()))?;
        layers.push(ImageLayer { diff_id, diff: Some(diff), original: None });
    }
    let rows = value.get("history").cloned().unwrap_or(Value::Null);
    let mut history: Vec<HistoryRow> = match rows {
        Value::Null => Vec::new(),
        rows => serde_json::from_value(rows).map_err(bad_config)?,
    };
    history.extend(new_rows(export));
    match_layers(&mut history, &came_of(export));
    fill_times(&mut history);
    if let Some(epoch) = export.epoch {
        clamp_rows(&mut history, epoch);
    }
    let diff_ids: Vec<OciDigest> = layers.iter().map(|layer| layer.diff_id).collect();
    let created = match export.epoch {
        Some(epoch) => Some(seconds_text(epoch)),
        None => {
            history.iter().rev().find_map(|row| read_time(row.created.as_deref()?)).map(time_text)
        }
    };
    let created = created.as_deref();
    let made = config(media, export.config.as_bytes(), created, &history, &diff_ids);
    let config = made.map_err(|e| manifest_failure(&e))?;
    let trees: Vec<RootId> = layers.iter().filter_map(|layer| layer.diff).collect();
    let (references, archive) = packed_at(export.base.as_ref());
    let image = Image {
        id: config.digest,
        platform: export.platform.clone(),
        config: BlobId::of(&config.bytes),
        layers,
        tagged_ms: super::now().0,
        created_ms: created.and_then(read_time).unwrap_or(Millis(0)).0,
        size: local::size_of(store, &trees).map_err(|e| store_failure(&e))?,
        references,
        archive,
    };
    Ok(Configured { image, config })
}

/// The layer without times after this one.
fn rewrite(store: &dyn Store, diff: &RootId, seconds: i64) -> Result<RootId, Failure> {
    let latest = Mtime { seconds, nanos: 0 };
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut keep = |node: Vec<u8>| {
        bytes += node.len();
        batch.push(node);
        if bytes >= limit::BATCH_BYTES {
            store.put_nodes(&std::mem::take(&mut batch))?;
            bytes = 0;
        }
        Ok(())
    };
    let clamped = clamp(&StoreNodes(store), diff, latest, &mut keep);
    let kept =
        clamped.and_then(|diff| store.put_nodes(&batch).map_err(Unkept::Store).map(|()| diff));
    kept.map_err(|e| match e {
        Unkept::Store(e) => store_failure(&e),
        Unkept::Tree(e) => Failure::new(Class::Corrupt, e.to_string()),
    })
}

/// Why a layer is not kept with other times.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Where the packed layers of the image that is built upon can be had again.
fn packed_at(base: Option<&BaseImage>) -> (Vec<String>, Option<RootId>) {
    match base.map(original::Place::of) {
        None => (Vec::new(), None),
        Some(original::Place::Registry(reference)) => (vec![reference], None),
        Some(original::Place::Files(files)) => (Vec::new(), Some(files)),
    }
}

/// The layers of the image that is built upon.
fn base_layers(
    store: &dyn Store,
    config: &Value,
    base: Option<&BaseImage>,
) -> Result<Vec<ImageLayer>, Failure> {
    let ids = config.pointer("/rootfs/diff_ids").and_then(Value::as_array);
    let ids = ids.map(Vec::as_slice).unwrap_or_default();
    let packed = base.map(|base| base.layers.as_slice()).unwrap_or_default();
    if ids.len() != packed.len() {
        return Err(bad_config(format!("it has {} layers, not {}", ids.len(), packed.len())));
    }
    let layer = |(id, packed): (&Value, &proto::step::PackedRef)| {
        let diff_id = OciDigest::parse(id.as_str().unwrap_or_default()).map_err(bad_config)?;
        let diff = images::diff_of(store, &diff_id).map_err(|e| store_failure(&e))?;
        let original =
            (packed.size > 0).then(|| (packed.media_type.clone(), packed.digest, packed.size));
        Ok(ImageLayer { diff_id, diff, original })
    };
    ids.iter().zip(packed).map(layer).collect()
}

/// The rows that the build adds. A row with several layers stands once for each.
fn new_rows(export: &ExportImage) -> Vec<HistoryRow> {
    let mut rows = Vec::new();
    for row in &export.history {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let plain = HistoryRow {
            created: None,
            created_by: text(&row.created_by),
            author: None,
            comment: text(&row.comment),
            empty_layer: row.layers.is_empty(),
        };
        if row.layers.is_empty() {
            rows.push(plain);
            continue;
        }
        for layer in &row.layers {
            let at = export.layers.get(*layer as usize).map(|layer| time_text(layer.made));
            rows.push(HistoryRow { created: at, ..plain.clone() });
        }
    }
    rows
}

/// For each layer of an image when it was made, and what it came of.
fn came_of(export: &ExportImage) -> Vec<(Option<Millis>, String)> {
    let base = export.base.iter().flat_map(|base| {
        let came_of = format!("pulled from {}", pinned(&base.reference, &base.manifest));
        base.layers.iter().map(move |_| (None, came_of.clone()))
    });
    let own = export.layers.iter().map(|layer| (Some(layer.made), layer.came_of.clone()));
    base.chain(own).collect()
}

/// Gives each layer a row, and each row that is for one a layer. A base's history may lack rows, or
/// have too many. As BuildKit's `normalizeLayersAndHistory` does it: rows come at the end.
fn match_layers(history: &mut Vec<HistoryRow>, layers: &[(Option<Millis>, String)]) {
    let mut named = 0;
    for row in history.iter_mut().filter(|row| !row.empty_layer) {
        row.empty_layer = named == layers.len();
        named += usize::from(!row.empty_layer);
    }
    history.extend(layers[named..].iter().map(|(made, came_of)| HistoryRow {
        created: made.map(time_text),
        created_by: Some(came_of.clone()),
        comment: Some("buildkit.exporter.image.v0".to_owned()),
        ..HistoryRow::default()
    }));
}

/// Rows without a time of their own get the one of the row before them; those before the first
/// layer that was made get that layer's. As BuildKit's `normalizeLayersAndHistory` does it.
fn fill_times(rows: &mut [HistoryRow]) {
    let first_missing = rows.iter().position(|row| row.created.is_none());
    let first_new =
        first_missing.and_then(|from| rows[from..].iter().find_map(|row| row.created.clone()));
    let mut last = first_new.or_else(|| rows.iter().rev().find_map(|row| row.created.clone()));
    let mut missed = false;
    for row in rows {
        match &row.created {
            Some(at) if missed => last = Some(at.clone()),
            Some(_) => {}
            None => {
                missed = true;
                row.created = last.clone();
            }
        }
    }
}

/// Nothing is newer than `SOURCE_DATE_EPOCH`.
fn clamp_rows(rows: &mut [HistoryRow], epoch: i64) {
    for row in rows {
        if row.created.as_deref().is_none_or(|created| is_later(created, epoch)) {
            row.created = Some(seconds_text(epoch));
        }
    }
}

/// Keeps what an image of the image store needs; its row is the coordinator's. Blocks.
fn keep(store: &dyn Store, mut one: Configured) -> Result<Image, Failure> {
    let failed = |e: cache::store::StoreError| store_failure(&e);
    let size = one.config.bytes.len() as u64;
    crate::image::put_any(store, one.image.config, one.config.bytes).map_err(failed)?;
    store.publish(&[(one.image.config, size)]).map_err(failed)?;
    for layer in &mut one.image.layers {
        if let Some(diff) = layer.diff.filter(|_| layer.original.is_none()) {
            // Here the image is what everybody has who pulls it.
            layer.diff = Some(match rows::unpacked(store, &layer.diff_id).map_err(failed)? {
                Some(known) => known,
                None => unpacked(store, &layer.diff_id, &diff)?,
            });
        }
    }
    Ok(one.image)
}

/// The tree that the layer of this diff unpacks to. Whoever builds upon the image finds it by its
/// diff id.
fn unpacked(store: &dyn Store, diff_id: &OciDigest, diff: &RootId) -> Result<RootId, Failure> {
    let failed = |e: cache::store::StoreError| store_failure(&e);
    let (diff, made) = archived(&StoreNodes(store), diff)
        .map_err(|e| Failure::new(Class::Corrupt, e.to_string()))?;
    store.put_nodes(&made.into_nodes()).map_err(failed)?;
    rows::put_unpacked(store, diff_id, diff).map_err(failed)?;
    Ok(diff)
}

/// Makes a layer before an output needs it. Blocks.
pub fn prepare(machine: &Machine, diff: &RootId, packing: Option<&Packing>) -> Result<(), Failure> {
    let failed = |e: pack::PackError| Failure::new(e.class(), e.to_string());
    match packing {
        None => machine.packer.diff_id(diff).map(drop).map_err(failed),
        Some(packing) => {
            let how = how(packing)?;
            machine.packer.layer(diff, how.compression).map(drop).map_err(failed)
        }
    }
}

/// What is annotated.
#[derive(Clone, Copy)]
enum Annotated<'p> {
    /// The index over the images.
    Index,
    /// The manifest of the image for a platform.
    Manifest(&'p Platform),
}

/// Those of a build's annotations that belong there. A name says so: `index:NAME`,
/// `manifest[PLATFORM]:NAME`, `manifest:NAME`; one that does not belongs on all manifests.
fn annotations(given: &[(String, String)], annotated: Annotated<'_>) -> Annotations {
    let name = |text: &str| match (text.strip_prefix("index:"), annotated) {
        (Some(name), Annotated::Index) => Some(name.to_owned()),
        (Some(_), Annotated::Manifest(_)) | (None, Annotated::Index) => None,
        (None, Annotated::Manifest(platform)) => {
            let own = text.strip_prefix(&format!("manifest[{platform}]:"));
            let all = || text.strip_prefix("manifest:");
            let is_plain = || !text.starts_with("manifest[");
            own.or_else(all).or_else(|| is_plain().then_some(text)).map(str::to_owned)
        }
    };
    let here = |(text, value): &(String, String)| name(text).map(|name| (name, value.clone()));
    given.iter().filter_map(here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_put_where_their_names_say() {
        let given = ["a", "index:b", "manifest[linux/arm64]:c", "manifest:d:e"];
        let given = given.map(|name| (name.to_owned(), "1".to_owned()));
        let names = |annotated| {
            let here = annotations(&given, annotated);
            here.into_keys().collect::<Vec<_>>().join(" ")
        };
        let [arm, intel] = ["linux/arm64", "linux/amd64"].map(|p| Platform::parse(p).unwrap());
        assert_eq!(names(Annotated::Index), "b");
        assert_eq!(names(Annotated::Manifest(&arm)), "a c d:e");
        assert_eq!(names(Annotated::Manifest(&intel)), "a d:e");
    }

    #[test]
    fn nothing_is_newer_than_a_time_before_1970() {
        let row = |created: Option<&str>| HistoryRow {
            created: created.map(str::to_owned),
            ..HistoryRow::default()
        };
        let older = row(Some("1960-01-01T00:00:00Z"));
        let mut rows = [row(Some("2023-11-14T22:13:20Z")), row(None), older.clone()];
        clamp_rows(&mut rows, -1);
        let clamped = row(Some("1969-12-31T23:59:59Z"));
        assert_eq!(rows, [clamped.clone(), clamped, older]);
    }
}
