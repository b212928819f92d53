//! Configs, manifests and indexes. Pure: the same parts always give the same bytes.
//!
//! The types of `oci-spec` are read with (`registry::document`), but not written with: their
//! annotations are hash maps, so that the bytes, and with them the digest, would differ from run to
//! run.

use super::sha::sha256;
use bytes::Bytes;
use cache::store::Compression;
use proto::error::Class;
use proto::id::{BlobId, Millis, OciDigest};
use proto::platform::Platform;
use proto::step::PackedRef;
use proto::wire::build::MediaTypes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why an image could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The config is no JSON object.
    #[error("The image's config is not a JSON object: {0}")]
    Config(String),
    /// The history speaks of another number of layers than there are.
    #[error("The history names {history} layers, and the image has {layers}")]
    History {
        /// Rows that made a layer.
        history: usize,
        /// Layers.
        layers: usize,
    },
    /// Docker's media types have no annotations.
    #[error("Annotations need OCI media types (`oci-mediatypes=true`)")]
    Annotations,
}

impl ManifestError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Config(_) | Self::History { .. } => Class::Bug,
            Self::Annotations => Class::User,
        }
    }
}

/// Key and value, sorted.
pub type Annotations = BTreeMap<String, String>;

/// One row of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// When, as RFC 3339 has it ([`time_text`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// A time as configs have it: `2026-11-22T16:09:00.123Z`.
pub fn time_text(at: Millis) -> String {
    text_of(i128::from(at.0) * 1_000_000)
}

/// The same of seconds since 1970, or before it.
pub fn seconds_text(seconds: i64) -> String {
    text_of(i128::from(seconds) * NANOS)
}

const NANOS: i128 = 1_000_000_000;

fn text_of(nanos: i128) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos);
    // RFC 3339 has the years 0 to 9999.
    let outside = if nanos < 0 { "0000-01-01T00:00:00Z" } else { "9999-12-31T23:59:59.999Z" };
    time.ok().and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_else(|| outside.to_owned())
}

/// Whether a time of a config is later than these seconds since 1970. A text that is no time counts
/// as later than all.
pub fn is_later(text: &str, seconds: i64) -> bool {
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.map_or(true, |time| time.unix_timestamp_nanos() > i128::from(seconds) * NANOS)
}

/// Reads a time of a config. None for texts that are none, and for times before 1970.
pub fn read_time(text: &str) -> Option<Millis> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Millis)
}

/// A JSON document with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: String,
    /// SHA-256 of its bytes.
    pub digest: OciDigest,
}

impl Document {
    /// Names these bytes.
    pub fn new(bytes: impl Into<Bytes>, media_type: impl Into<String>) -> Self {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        Self { bytes, media_type: media_type.into(), digest }
    }

    /// How others refer to it.
    pub fn part(&self) -> PackedRef {
        let (media_type, size) = (self.media_type.clone(), self.bytes.len() as u64);
        PackedRef { media_type, digest: self.digest, size }
    }
}

/// A packed layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPart {
    /// Media type, digest and size.
    pub part: PackedRef,
    /// The packed bytes in the store.
    pub blob: BlobId,
    /// SHA-256 of the uncompressed layer.
    pub diff_id: OciDigest,
}

/// One image, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The platform.
    pub platform: Platform,
    /// The manifest.
    pub manifest: Document,
    /// The config, whose digest is the image id.
    pub config: Document,
    /// The layers, lowest first.
    pub layers: Vec<PackedPart>,
}

/// Images that go under one name: one, or one for each platform with an index over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    /// The images.
    pub images: Vec<Assembled>,
    /// The index, if there is one.
    pub index: Option<Document>,
}

impl ImageSet {
    /// One image alone.
    pub fn single(image: Assembled) -> Self {
        Self { images: vec![image], index: None }
    }

    /// Images with an index over them.
    pub fn indexed(
        images: Vec<Assembled>,
        media: MediaTypes,
        annotations: &Annotations,
    ) -> Result<Self, ManifestError> {
        let entries: Vec<_> = images.iter().map(|i| (i.manifest.part(), &i.platform)).collect();
        let index = Some(index(media, &entries, annotations)?);
        Ok(Self { images, index })
    }

    /// What the name stands for: the index, else the only image's manifest.
    pub fn top(&self) -> &Document {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }
}

/// The media type of a layer.
pub fn layer_media(media: MediaTypes, compression: Compression) -> &'static str {
    match (media, compression) {
        (MediaTypes::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
        (MediaTypes::Oci, Compression::Gzip(_)) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (MediaTypes::Oci, Compression::Zstd(_)) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (MediaTypes::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
        (MediaTypes::Docker, Compression::Gzip(_)) => {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        }
        (MediaTypes::Docker, Compression::Zstd(_)) => {
            "application/vnd.docker.image.rootfs.diff.tar.zstd"
        }
    }
}

/// The same layer's type among the other media types: the bytes are the same. Types that have no
/// counterpart stay.
pub fn convert_layer_media(media: MediaTypes, media_type: &str) -> String {
    let ways = [Compression::None, Compression::Gzip(6), Compression::Zstd(3)];
    let both = [MediaTypes::Oci, MediaTypes::Docker];
    let mut all = ways.iter().flat_map(|way| both.map(|m| (layer_media(m, *way), *way)));
    match all.find(|(name, _)| *name == media_type) {
        Some((_, way)) => layer_media(media, way).to_owned(),
        None => media_type.to_owned(),
    }
}

fn config_media(media: MediaTypes) -> &'static str {
    match media {
        MediaTypes::Oci => "application/vnd.oci.image.config.v1+json",
        MediaTypes::Docker => "application/vnd.docker.container.image.v1+json",
    }
}

fn manifest_media(media: MediaTypes) -> &'static str {
    match media {
        MediaTypes::Oci => "application/vnd.oci.image.manifest.v1+json",
        MediaTypes::Docker => "application/vnd.docker.distribution.manifest.v2+json",
    }
}

fn index_media(media: MediaTypes) -> &'static str {
    match media {
        MediaTypes::Oci => "application/vnd.oci.image.index.v1+json",
        MediaTypes::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
    }
}

/// An image's config: what the Dockerfile made of it, with what only now is known. `base` is a JSON
/// object without `rootfs`, `history` and `created`; if it has them they are replaced. Keys are
/// sorted, at every depth.
pub fn config(
    media: MediaTypes,
    base: &[u8],
    created: Option<&str>,
    history: &[HistoryRow],
    diff_ids: &[OciDigest],
) -> Result<Document, ManifestError> {
    let rows = history.iter().filter(|row| !row.empty_layer).count();
    if !history.is_empty() && rows != diff_ids.len() {
        return Err(ManifestError::History { history: rows, layers: diff_ids.len() });
    }
    let base: Map<String, Value> =
        serde_json::from_slice(base).map_err(|e| ManifestError::Config(e.to_string()))?;
    let mut all: BTreeMap<String, Value> = base.into_iter().collect();
    let to_value = |v: Result<Value, serde_json::Error>| v.expect("texts and lists are JSON");
    all.remove("created");
    if let Some(created) = created {
        all.insert("created".into(), created.into());
    }
    all.insert("history".into(), to_value(serde_json::to_value(history)));
    let ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
    all.insert("rootfs".into(), serde_json::json!({ "type": "layers", "diff_ids": ids }));
    let sorted: BTreeMap<String, Value> = all.into_iter().map(|(k, v)| (k, sorted(v))).collect();
    Ok(Document::new(json(&sorted), config_media(media)))
}

/// The value with all its keys sorted, whatever order the JSON library keeps (a feature that any
/// dependency can turn on).
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let by_key: BTreeMap<String, Value> = map.into_iter().collect();
            Value::Object(by_key.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists are JSON")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'d> {
    media_type: &'d str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<DescribedPlatform<'d>>,
}

#[derive(Serialize)]
struct DescribedPlatform<'d> {
    architecture: &'d str,
    os: &'d str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'d str,
}

impl<'d> Descriptor<'d> {
    fn of(part: &'d PackedRef) -> Self {
        Self {
            media_type: &part.media_type,
            digest: part.digest.to_string(),
            size: part.size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson<'m> {
    schema_version: u32,
    media_type: &'m str,
    config: Descriptor<'m>,
    layers: Vec<Descriptor<'m>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'m Annotations,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson<'m> {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'m str>,
    manifests: Vec<Descriptor<'m>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'m Annotations,
}

fn check(media: MediaTypes, annotations: &Annotations) -> Result<(), ManifestError> {
    let allowed = media == MediaTypes::Oci || annotations.is_empty();
    if allowed { Ok(()) } else { Err(ManifestError::Annotations) }
}

/// An image's manifest.
pub fn manifest(
    media: MediaTypes,
    config: &PackedRef,
    layers: &[PackedRef],
    annotations: &Annotations,
) -> Result<Document, ManifestError> {
    check(media, annotations)?;
    let media_type = manifest_media(media);
    let layers = layers.iter().map(Descriptor::of).collect();
    let config = Descriptor::of(config);
    let manifest = ManifestJson { schema_version: 2, media_type, config, layers, annotations };
    Ok(Document::new(json(&manifest), media_type))
}

/// An index over images.
pub fn index(
    media: MediaTypes,
    images: &[(PackedRef, &Platform)],
    annotations: &Annotations,
) -> Result<Document, ManifestError> {
    check(media, annotations)?;
    let manifests = images.iter().map(|(part, platform)| Descriptor {
        platform: Some(DescribedPlatform {
            architecture: &platform.arch,
            os: &platform.os,
            variant: &platform.variant,
        }),
        ..Descriptor::of(part)
    });
    let media_type = Some(index_media(media));
    let manifests = manifests.collect();
    let index = IndexJson { schema_version: 2, media_type, manifests, annotations };
    Ok(Document::new(json(&index), index_media(media)))
}

/// The `index.json` of an OCI layout: each entry with its annotations.
pub(super) fn layout_index(entries: Vec<(PackedRef, Annotations)>) -> Vec<u8> {
    let (parts, notes): (Vec<PackedRef>, Vec<Annotations>) = entries.into_iter().unzip();
    let described = parts.iter().zip(notes);
    let manifests =
        described.map(|(part, annotations)| Descriptor { annotations, ..Descriptor::of(part) });
    let none = Annotations::new();
    let manifests = manifests.collect();
    json(&IndexJson { schema_version: 2, media_type: None, manifests, annotations: &none })
}

/// Puts an image together.
pub fn assemble(
    media: MediaTypes,
    platform: Platform,
    config: Document,
    mut layers: Vec<PackedPart>,
    annotations: &Annotations,
) -> Result<Assembled, ManifestError> {
    for layer in &mut layers {
        layer.part.media_type = convert_layer_media(media, &layer.part.media_type);
    }
    let config = Document { media_type: config_media(media).to_owned(), ..config };
    let parts: Vec<PackedRef> = layers.iter().map(|l| l.part.clone()).collect();
    let manifest = manifest(media, &config.part(), &parts, annotations)?;
    Ok(Assembled { platform, manifest, config, layers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::registry;

    fn part(n: u8) -> PackedRef {
        let media_type = layer_media(MediaTypes::Oci, Compression::Gzip(6)).to_owned();
        PackedRef { media_type, digest: OciDigest::from_bytes([n; 32]), size: n.into() }
    }

    fn row(text: &str, empty_layer: bool) -> HistoryRow {
        let created = Some(time_text(Millis(1_700_000_000_000)));
        HistoryRow { created, created_by: Some(text.into()), empty_layer, ..HistoryRow::default() }
    }

    #[test]
    fn a_config_is_sorted_and_whole() {
        let base = br#"{"os":"linux","architecture":"amd64","config":{"Env":["A=b"],"Cmd":["sh"]},"created":"old"}"#;
        let rows = [row("RUN x", false), row("CMD", true)];
        let ids = [OciDigest::from_bytes([7; 32])];
        let made =
            config(MediaTypes::Oci, base, Some("2023-11-14T22:13:20.123Z"), &rows, &ids).unwrap();
        let expected = format!(
            "{{\"architecture\":\"amd64\",\"config\":{{\"Cmd\":[\"sh\"],\"Env\":[\"A=b\"]}},\
             \"created\":\"2023-11-14T22:13:20.123Z\",\"history\":[\
             {{\"created\":\"2023-11-14T22:13:20Z\",\"created_by\":\"RUN x\"}},\
             {{\"created\":\"2023-11-14T22:13:20Z\",\"created_by\":\"CMD\",\"empty_layer\":true}}],\
             \"os\":\"linux\",\"rootfs\":{{\"diff_ids\":[\"{}\"],\"type\":\"layers\"}}}}",
            ids[0]
        );
        assert_eq!(std::str::from_utf8(&made.bytes).unwrap(), expected);
        assert_eq!(made.digest, sha256(&made.bytes));
        let read = registry::Config::read(&made.bytes).unwrap();
        assert_eq!(
            (read.platform.to_string().as_str(), read.diff_ids),
            ("linux/amd64", ids.to_vec())
        );
        let error = config(MediaTypes::Oci, base, None, &rows, &[]).unwrap_err();
        assert_eq!(error.to_string(), "The history names 1 layers, and the image has 0");
        assert!(config(MediaTypes::Oci, b"[]", None, &[], &[]).is_err());
    }

    #[test]
    fn documents_are_read_as_they_were_written() {
        let notes = Annotations::from([("b".into(), "2".into()), ("a".into(), "1".into())]);
        for media in [MediaTypes::Oci, MediaTypes::Docker] {
            let notes = if media == MediaTypes::Oci { notes.clone() } else { Annotations::new() };
            let made = manifest(media, &part(1), &[part(2), part(3)], &notes).unwrap();
            let read = registry::Document::read(&made.bytes, "").unwrap();
            let registry::Document::Manifest(read) = read else { panic!() };
            assert_eq!((read.config, read.layers), (part(1), vec![part(2), part(3)]));
            let arm = Platform::parse("linux/arm/v7").unwrap();
            let over = index(media, &[(made.part(), &arm)], &notes).unwrap();
            let read = registry::Document::read(&over.bytes, "").unwrap();
            let registry::Document::Index(read) = read else { panic!() };
            assert_eq!((&read[0].part, &read[0].platform), (&made.part(), &Some(arm)));
        }
        let error = manifest(MediaTypes::Docker, &part(1), &[], &notes).unwrap_err();
        assert_eq!(error.class(), Class::User);
        let text = manifest(MediaTypes::Oci, &part(1), &[], &notes).unwrap().bytes;
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.ends_with(r#""annotations":{"a":"1","b":"2"}}"#), "{text}");
    }

    #[test]
    fn layers_change_their_type_and_nothing_else() {
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let oci = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert_eq!(convert_layer_media(MediaTypes::Oci, docker), oci);
        assert_eq!(convert_layer_media(MediaTypes::Docker, oci), docker);
        assert_eq!(convert_layer_media(MediaTypes::Docker, "other"), "other");
    }

    #[test]
    fn times() {
        for ms in [0, 999, 1_700_000_000_000, 253_402_300_799_999] {
            assert_eq!(read_time(&time_text(Millis(ms))), Some(Millis(ms)));
        }
        assert_eq!(time_text(Millis(u64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(
            read_time("2015-10-31T22:22:55.613815829+01:00"),
            Some(Millis(1_446_326_575_613))
        );
        assert_eq!(read_time("yesterday"), None);
        assert_eq!(read_time("1960-01-01T00:00:00Z"), None);
        assert_eq!(seconds_text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(seconds_text(i64::MIN), "0000-01-01T00:00:00Z");
        assert_eq!(seconds_text(i64::MAX), "9999-12-31T23:59:59.999Z");
        for (text, seconds, later) in [
            ("1970-01-01T00:00:07.001Z", 7, true),
            ("1970-01-01T01:00:07+01:00", 7, false),
            ("1960-01-01T00:00:00Z", -1, false),
            ("1970-01-01T00:00:00Z", -1, true),
            ("yesterday", i64::MAX, true),
        ] {
            assert_eq!(is_later(text, seconds), later, "{text}, {seconds}");
        }
    }
}
