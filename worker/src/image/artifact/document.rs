//! The manifest and the config of a cache. Pure: the same records give the same bytes, and whatever
//! comes is checked before anything is made of it.

use crate::image::manifest::Document;
use crate::image::sha::sha256;
use proto::id::{ContentKey, DefKey, Millis, OciDigest, RootId, TreeId};
use proto::limit;
use proto::record::Cost;
use proto::step::PackedRef;
use proto::wire::outside::{CacheContent, CachedLayer, CachedRecord};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version of the config that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// What a manifest of ours says that it is.
pub const ARTIFACT_TYPE: &str = "application/vnd.slipway.cache.v1";

/// The media type of the config.
pub const CONFIG_TYPE: &str = "application/vnd.slipway.cache.config.v1+json";

/// The media type of a layer's tree.
pub const NODES_TYPE: &str = "application/vnd.slipway.cache.tree.v1+zstd";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What BuildKit's caches have as their config.
const BUILDKIT_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A step's cost beyond which a cache is not believed: a century.
const COST_MS_MAX: u64 = 100 * 366 * 24 * 3600 * 1000;

/// Why something is no cache that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArtifact {
    /// Another builder's.
    #[error("it is a cache of BuildKit's, which only BuildKit reads")]
    BuildKits,
    /// Something else.
    #[error("it is an image or another artifact, not a cache")]
    NoCache,
    /// A version that is not known.
    #[error("it has the version {0} of the format, and this Slipway reads {VERSION}")]
    Version(u32),
    /// Bytes that nobody wrote so.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// More than is read, or than registries take.
    #[error("its {what} has {bytes} bytes, and at most {max} are read")]
    TooLarge {
        /// Manifest or config.
        what: &'static str,
        /// How many.
        bytes: u64,
        /// How many may be.
        max: usize,
    },
}

impl BadArtifact {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BuildKits | Self::NoCache | Self::Version(_) => {
                Some("Write one with `slipway build --cache-to`.")
            }
            Self::Damaged(_) | Self::TooLarge { .. } => None,
        }
    }
}

fn damaged(why: impl std::fmt::Display) -> BadArtifact {
    BadArtifact::Damaged(why.to_string().chars().take(200).collect())
}

/// A cache, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The manifest.
    pub manifest: Document,
    /// The config.
    pub config: Document,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestText<'m> {
    schema_version: u32,
    media_type: &'m str,
    artifact_type: &'m str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Only what tells what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigText {
    version: u32,
    records: Vec<RecordText>,
    layers: Vec<LayerText>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordText {
    definition: String,
    content: String,
    version: u64,
    #[serde(default)]
    inputs: Vec<InputText>,
    /// By their numbers.
    layers: Vec<u32>,
    created: u64,
    wall_ms: u64,
    cpu_ms: u64,
    memory_peak_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputText {
    definition: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayerText {
    tree: String,
    diff_id: String,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

fn descriptor(part: &PackedRef) -> Descriptor {
    let PackedRef { media_type, digest, size } = part;
    Descriptor { media_type: media_type.clone(), digest: digest.to_string(), size: *size }
}

fn packed(descriptor: Descriptor) -> Result<PackedRef, BadArtifact> {
    let digest = OciDigest::parse(&descriptor.digest).map_err(damaged)?;
    Ok(PackedRef { media_type: descriptor.media_type, digest, size: descriptor.size })
}

/// Writes down what a cache has.
pub fn write(content: &CacheContent) -> Result<Written, BadArtifact> {
    let numbers: BTreeMap<RootId, u32> =
        content.layers.iter().zip(0..).map(|(layer, at)| (layer.tree, at)).collect();
    let record = |record: &CachedRecord| RecordText {
        definition: record.definition.to_string(),
        content: record.content.to_string(),
        version: record.version,
        inputs: record.inputs.iter().map(input_text).collect(),
        layers: record.layers.iter().map(|layer| numbers[layer]).collect(),
        created: record.created.0,
        wall_ms: record.cost.wall_ms,
        cpu_ms: record.cost.cpu_ms,
        memory_peak_bytes: record.cost.memory_peak_bytes,
    };
    let layer = |layer: &CachedLayer| LayerText {
        tree: layer.tree.to_string(),
        diff_id: layer.diff_id.to_string(),
    };
    let text = ConfigText {
        version: VERSION,
        records: content.records.iter().map(record).collect(),
        layers: content.layers.iter().map(layer).collect(),
    };
    let config = Document::new(json(&text), CONFIG_TYPE);
    bound("config", config.bytes.len() as u64, limit::CACHE_CONFIG_BYTES_MAX)?;
    let blobs = content.layers.iter().flat_map(|layer| [&layer.files, &layer.nodes]);
    let text = ManifestText {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        artifact_type: ARTIFACT_TYPE,
        config: descriptor(&config.part()),
        layers: blobs.map(descriptor).collect(),
    };
    let manifest = Document::new(json(&text), MANIFEST_TYPE);
    bound("manifest", manifest.bytes.len() as u64, limit::CACHE_MANIFEST_BYTES_MAX)?;
    Ok(Written { manifest, config })
}

fn input_text((definition, version): &(DefKey, u64)) -> InputText {
    InputText { definition: definition.to_string(), version: *version }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can be written")
}

fn bound(what: &'static str, bytes: u64, max: usize) -> Result<(), BadArtifact> {
    match bytes > max as u64 {
        true => Err(BadArtifact::TooLarge { what, bytes, max }),
        false => Ok(()),
    }
}

/// A manifest that names a cache, and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The config.
    pub config: PackedRef,
    layers: Vec<PackedRef>,
}

impl Named {
    /// Reads a manifest.
    pub fn read(bytes: &[u8]) -> Result<Self, BadArtifact> {
        bound("manifest", bytes.len() as u64, limit::CACHE_MANIFEST_BYTES_MAX)?;
        let probe: Probe = serde_json::from_slice(bytes).map_err(damaged)?;
        let named = probe.config.iter().chain(&probe.manifests);
        if named.into_iter().any(|one| one.media_type == BUILDKIT_TYPE) {
            return Err(BadArtifact::BuildKits);
        }
        let config = match (probe.artifact_type.as_deref(), probe.config) {
            (Some(ARTIFACT_TYPE), Some(config)) if config.media_type == CONFIG_TYPE => config,
            _ => return Err(BadArtifact::NoCache),
        };
        let config = packed(config)?;
        bound("config", config.size, limit::CACHE_CONFIG_BYTES_MAX)?;
        let layers = probe.layers.into_iter().map(packed).collect::<Result<_, _>>()?;
        Ok(Self { config, layers })
    }

    /// Reads the config that the manifest names.
    pub fn content(self, config: &[u8]) -> Result<CacheContent, BadArtifact> {
        if config.len() as u64 != self.config.size || sha256(config) != self.config.digest {
            return Err(damaged("its config has other bytes than its manifest says"));
        }
        // What another version has beside it is not known.
        let version: VersionOnly = serde_json::from_slice(config).map_err(damaged)?;
        if version.version != VERSION {
            return Err(BadArtifact::Version(version.version));
        }
        let text: ConfigText = serde_json::from_slice(config).map_err(damaged)?;
        let named: usize = text.records.iter().map(|record| record.layers.len()).sum();
        if text.records.len().max(named) > limit::CACHE_RECORDS_MAX {
            return Err(damaged("it has more records than any build gives"));
        }
        if self.layers.len() != 2 * text.layers.len() {
            return Err(damaged("its config names other layers than its manifest"));
        }
        let mut blobs = self.layers.into_iter();
        let mut layers = Vec::with_capacity(text.layers.len());
        for layer in text.layers {
            let (files, nodes) = blobs.next().zip(blobs.next()).expect("two for each");
            layers.push(read_layer(&layer, files, nodes)?);
        }
        let trees: BTreeSet<RootId> = layers.iter().map(|layer| layer.tree).collect();
        if trees.len() != layers.len() {
            return Err(damaged("a layer stands in it twice"));
        }
        let read = |record| read_record(record, &layers);
        let records = text.records.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(CacheContent { records, layers })
    }
}

fn read_layer(
    text: &LayerText,
    files: PackedRef,
    nodes: PackedRef,
) -> Result<CachedLayer, BadArtifact> {
    let tree = RootId(TreeId::parse(&text.tree).map_err(damaged)?);
    let diff_id = OciDigest::parse(&text.diff_id).map_err(damaged)?;
    if nodes.media_type != NODES_TYPE {
        return Err(damaged(format_args!("the tree of a layer is of type {}", nodes.media_type)));
    }
    Ok(CachedLayer { tree, diff_id, files, nodes })
}

fn read_record(text: RecordText, layers: &[CachedLayer]) -> Result<CachedRecord, BadArtifact> {
    let definition = |text: &str| DefKey::parse(text).map_err(damaged);
    let layer = |at: u32| {
        let layer = layers.get(at as usize);
        layer.map(|layer| layer.tree).ok_or_else(|| damaged("a record names a layer too many"))
    };
    let input = |input: InputText| Ok((definition(&input.definition)?, input.version));
    if text.wall_ms > COST_MS_MAX || text.cpu_ms > COST_MS_MAX {
        return Err(damaged("a step took more than a century"));
    }
    Ok(CachedRecord {
        definition: definition(&text.definition)?,
        content: ContentKey::parse(&text.content).map_err(damaged)?,
        version: text.version,
        inputs: text.inputs.into_iter().map(input).collect::<Result<_, _>>()?,
        layers: text.layers.into_iter().map(layer).collect::<Result<_, _>>()?,
        created: Millis(text.created),
        cost: Cost {
            wall_ms: text.wall_ms,
            cpu_ms: text.cpu_ms,
            memory_peak_bytes: text.memory_peak_bytes,
        },
    })
}

#[cfg(test)]
mod tests;
