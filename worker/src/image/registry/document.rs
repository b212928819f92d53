//! Manifests, indexes and configs as registries send them, checked. Pure.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use proto::id::OciDigest;
use proto::limit;
use proto::platform::Platform;
use proto::step::PackedRef;
use serde::Deserialize;

/// Indexes inside indexes.
pub const INDEX_DEPTH_MAX: usize = 4;

/// What a registry has under a tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Vec<Listed>),
}

/// One image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its config.
    pub config: PackedRef,
    /// Its layers, lowest first.
    pub layers: Vec<PackedRef>,
}

/// An image that an index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its manifest, or another index.
    pub part: PackedRef,
    /// The platform that it is for, if the index says so.
    pub platform: Option<Platform>,
}

/// What is needed of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The platform.
    pub platform: Platform,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<OciDigest>,
    /// When the image was made, as it says.
    pub created: Option<String>,
}

/// Media types of documents, in the order in which they are preferred.
pub const DOCUMENTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a document. `content_type` is what the registry says that it is.
    pub fn read(bytes: &[u8], content_type: &str) -> Result<Self, String> {
        let probe: Probe =
            serde_json::from_slice(bytes).map_err(|e| format!("its manifest is broken: {e}"))?;
        if probe.schema_version == Some(1) {
            return Err("its manifest is of schema 1, which Docker gave up in 2019; \
                        push it again with Docker 1.10 or later"
                .into());
        }
        // A document that could be read as either may be read as the other by who checks it.
        if probe.manifests.is_some() && probe.layers.is_some() {
            return Err("its manifest is an index too".into());
        }
        let media_type = probe.media_type.as_deref().unwrap_or(content_type);
        let index = DOCUMENTS[0] == media_type || DOCUMENTS[2] == media_type;
        let known = DOCUMENTS.contains(&media_type);
        match (known, index, probe.manifests.is_some()) {
            (true, true, _) | (false, _, true) => Self::read_index(bytes),
            (true, false, _) => Manifest::read(bytes).map(Self::Manifest),
            (false, _, false) if probe.layers.is_some() => {
                Manifest::read(bytes).map(Self::Manifest)
            }
            _ => Err(format!("`{media_type}` is no image manifest")),
        }
    }

    fn read_index(bytes: &[u8]) -> Result<Self, String> {
        let index: ImageIndex =
            serde_json::from_slice(bytes).map_err(|e| format!("its index is broken: {e}"))?;
        let listed = index.manifests().iter().filter(|d| !is_attestation(d)).map(|descriptor| {
            let platform = descriptor.platform().as_ref().map(|p| {
                let variant = p.variant().as_deref().unwrap_or_default();
                Platform::from_config(&p.os().to_string(), &p.architecture().to_string(), variant)
            });
            Ok(Listed { part: part(descriptor)?, platform })
        });
        listed.collect::<Result<_, String>>().map(Self::Index)
    }
}

/// BuildKit lists provenance and the like beside images, for a platform `unknown/unknown`.
fn is_attestation(descriptor: &Descriptor) -> bool {
    let annotated = descriptor.annotations().as_ref();
    annotated.is_some_and(|a| a.contains_key("vnd.docker.reference.type"))
        || descriptor.platform().as_ref().is_some_and(|p| p.os().to_string() == "unknown")
}

fn part(descriptor: &Descriptor) -> Result<PackedRef, String> {
    let digest = OciDigest::parse(descriptor.digest().as_ref()).map_err(|e| e.to_string())?;
    let media_type = descriptor.media_type().to_string();
    Ok(PackedRef { media_type, digest, size: descriptor.size() })
}

impl Manifest {
    /// Reads one image's manifest.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let manifest: ImageManifest =
            serde_json::from_slice(bytes).map_err(|e| format!("its manifest is broken: {e}"))?;
        if manifest.layers().len() > limit::IMAGE_LAYERS_MAX {
            return Err(format!("it has more than {} layers", limit::IMAGE_LAYERS_MAX));
        }
        let layers: Vec<PackedRef> =
            manifest.layers().iter().map(part).collect::<Result<_, _>>()?;
        let other = layers.iter().find(|layer| !is_layer(&layer.media_type));
        if let Some(layer) = other {
            return Err(format!("it has a layer of the type `{}`", layer.media_type));
        }
        let config = part(manifest.config())?;
        if config.size > limit::MANIFEST_BYTES_MAX as u64 {
            return Err(format!("its config has {} bytes", config.size));
        }
        Ok(Self { config, layers })
    }
}

/// Whether it is a file system's layer. How it is compressed is found out by looking at it.
fn is_layer(media_type: &str) -> bool {
    let base = media_type.split(['+', ';']).next().unwrap_or(media_type);
    matches!(
        base.strip_suffix(".gzip").or(base.strip_suffix(".zstd")).unwrap_or(base),
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
    )
}

impl Config {
    /// Reads an image config.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            os: String,
            #[serde(default)]
            architecture: String,
            #[serde(default)]
            variant: String,
            #[serde(default)]
            created: Option<String>,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Option<Vec<String>>,
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|e| format!("its config is broken: {e}"))?;
        let ids = raw.rootfs.diff_ids.unwrap_or_default();
        let diff_ids = ids.iter().map(|id| OciDigest::parse(id).map_err(|e| e.to_string()));
        Ok(Self {
            platform: Platform::from_config(&raw.os, &raw.architecture, &raw.variant),
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
            created: raw.created,
        })
    }
}

/// Of what an index lists, the best for a platform: the same processor, and of ARM and amd64
/// variants the highest that the platform runs.
pub fn choose<'l>(listed: &'l [Listed], wanted: &Platform) -> Option<&'l Listed> {
    let fits = |p: &Platform| p.os == wanted.os && p.arch == wanted.arch;
    let rank = |p: &Platform| level(p).filter(|l| Some(*l) <= level(wanted));
    let fitting = listed.iter().rev().filter_map(|l| {
        let platform = l.platform.as_ref().filter(|p| fits(p))?;
        let exact = platform.variant == wanted.variant;
        let rank = if exact { Some(u32::MAX) } else { rank(platform) };
        Some((rank?, l))
    });
    fitting.max_by_key(|(rank, _)| *rank).map(|(_, listed)| listed)
}

/// The manifest that a digest leads to, through indexes, among files that are named by their
/// digests. `read` gives one that is what its name says; `bad` says why one cannot be used.
pub fn manifest_for<B: AsRef<[u8]>, E>(
    mut digest: OciDigest,
    mut media_type: String,
    platform: &Platform,
    mut read: impl FnMut(&OciDigest) -> Result<B, E>,
    bad: impl Fn(&OciDigest, String) -> E,
) -> Result<(OciDigest, Manifest), E> {
    for _ in 0..INDEX_DEPTH_MAX {
        let document = Document::read(read(&digest)?.as_ref(), &media_type);
        match document.map_err(|why| bad(&digest, why))? {
            Document::Manifest(manifest) => return Ok((digest, manifest)),
            Document::Index(listed) => {
                let none = || bad(&digest, format!("it has no image for {platform}"));
                let part = for_platform(&listed, platform).ok_or_else(none)?.part.clone();
                (digest, media_type) = (part.digest, part.media_type);
            }
        }
    }
    Err(bad(&digest, "it leads to indexes without end".to_owned()))
}

/// Of what an index in an archive lists, the best for a platform; when it lists only one, that one.
fn for_platform<'l>(listed: &'l [Listed], wanted: &Platform) -> Option<&'l Listed> {
    let only = if let [one] = listed { Some(one) } else { None };
    choose(listed, wanted).or(only)
}

/// The number of a variant; a variant that is none has no number and fits only itself.
fn level(platform: &Platform) -> Option<u32> {
    match (platform.arch.as_str(), platform.variant.as_str()) {
        ("arm64", "") => Some(80),
        ("arm", "") => Some(70),
        ("amd64", "") => Some(10),
        (_, "") => Some(0),
        // `v7`, and `v8.2` between `v8` and `v9`.
        (_, variant) => {
            let (major, minor) =
                variant.strip_prefix('v')?.split_once('.').unwrap_or((&variant[1..], "0"));
            Some(major.parse::<u32>().ok()?.checked_mul(10)? + minor.parse::<u32>().ok()?.min(9))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{HEX}","size":2}},
            "layers":[{{"mediaType":"{layer}","digest":"{HEX}","size":3}}]}}"#
        )
    }

    fn read(text: &str) -> Result<Document, String> {
        Document::read(text.as_bytes(), "application/json")
    }

    #[test]
    fn manifests() {
        for layer in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            let Ok(Document::Manifest(read)) = read(&manifest(layer)) else { panic!("{layer}") };
            assert_eq!((read.layers[0].size, read.config.size), (3, 2));
        }
        let error = read(&manifest("application/vnd.cncf.helm.chart.content.v1.tar+gzip"));
        assert!(error.unwrap_err().contains("helm"));
    }

    #[test]
    fn what_is_no_manifest_is_said() {
        let says = |text: &str, what: &str| {
            let error = read(text).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        says(r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1");
        says(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "an index too");
        says("<html>", "broken");
        says(r#"{"hello":1}"#, "`application/json` is no image manifest");
        says(
            &manifest("application/vnd.oci.image.layer.v1.tar").replace(HEX, "sha256:00"),
            "broken",
        );
        let sha512 = format!("sha512:{}", "0".repeat(128));
        let text = manifest("application/vnd.oci.image.layer.v1.tar").replace(HEX, &sha512);
        says(&text, "is not a digest");
    }

    #[test]
    fn an_index_without_attestations() {
        let entry = |platform: &str, more: &str| {
            format!(r#"{{"mediaType":"m","digest":"{HEX}","size":1,"platform":{platform}{more}}}"#)
        };
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{},{}]}}"#,
            DOCUMENTS[0],
            entry(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#, ""),
            entry(r#"{"os":"unknown","architecture":"unknown"}"#, ""),
            entry(
                r#"{"os":"linux","architecture":"riscv64"}"#,
                r#","annotations":{"vnd.docker.reference.type":"x"}"#
            ),
        );
        let Ok(Document::Index(listed)) = read(&text) else { panic!() };
        let platforms: Vec<_> =
            listed.iter().map(|l| l.platform.clone().unwrap().to_string()).collect();
        assert_eq!(platforms, ["linux/arm64"]);
    }

    #[test]
    fn indexes_lead_to_a_manifest_or_to_an_error() {
        let digest = |byte| OciDigest::from_bytes([byte; 32]);
        let index = |to: OciDigest| {
            let entry = format!(r#"{{"mediaType":"m","digest":"{to}","size":1}}"#);
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{entry}]}}"#, DOCUMENTS[0])
        };
        let manifest = manifest("application/vnd.oci.image.layer.v1.tar");
        let documents = [index(digest(1)), manifest, index(digest(2))];
        let find = |byte: u8| {
            let read = |digest: &OciDigest| Ok(&documents[usize::from(digest.as_bytes()[0])]);
            let platform = Platform::parse("linux/arm64").unwrap();
            let found =
                manifest_for(digest(byte), String::new(), &platform, read, |_, why: String| why);
            found.map(|(digest, _)| digest)
        };
        assert_eq!((find(0), find(1)), (Ok(digest(1)), Ok(digest(1))));
        assert_eq!(find(2), Err("it leads to indexes without end".to_owned()));
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let part =
            PackedRef { media_type: "m".into(), digest: OciDigest::from_bytes([0; 32]), size: 0 };
        let listed = |all: &[&str]| -> Vec<Listed> {
            let one = |text: &&str| Listed {
                part: part.clone(),
                platform: Some(Platform::parse(text).unwrap()),
            };
            all.iter().map(one).collect()
        };
        let chosen = |all: &[&str], wanted: &str| {
            let all = listed(all);
            let found = choose(&all, &Platform::parse(wanted).unwrap());
            found.map(|l| l.platform.clone().unwrap().to_string())
        };
        let arm = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64", "linux/386"];
        assert_eq!(chosen(&arm, "linux/arm/v7").unwrap(), "linux/arm/v7");
        assert_eq!(chosen(&arm, "linux/arm/v8").unwrap(), "linux/arm/v7");
        assert_eq!(chosen(&arm, "linux/arm/v6").unwrap(), "linux/arm/v6");
        assert_eq!(chosen(&arm[1..2], "linux/arm/v6"), None);
        assert_eq!(chosen(&arm, "linux/amd64"), None, "386 is another processor");
        assert_eq!(
            chosen(&["linux/amd64", "linux/amd64/v3"], "linux/amd64").unwrap(),
            "linux/amd64"
        );
        assert_eq!(chosen(&["linux/amd64"], "linux/amd64/v3").unwrap(), "linux/amd64");
        assert_eq!(chosen(&["windows/amd64"], "linux/amd64"), None);
    }

    #[test]
    fn configs() {
        let config = Config::read(
            format!(r#"{{"os":"linux","architecture":"arm64","variant":"v8","rootfs":{{"diff_ids":["{HEX}"]}}}}"#)
                .as_bytes(),
        );
        let config = config.unwrap();
        assert_eq!(
            (config.platform.to_string().as_str(), config.diff_ids.len()),
            ("linux/arm64", 1)
        );
        assert!(Config::read(b"{}").unwrap_err().contains("rootfs"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[\\[\\]{}\":,a-zA-Z0-9 ]{0,200}") {
            let _ = read(&text);
            let _ = Config::read(text.as_bytes());
        }

        #[test]
        fn any_variant_is_ranked_without_panic(variant in "\\PC{0,6}") {
            let platform = Platform { os: "linux".into(), arch: "arm".into(), variant };
            let _ = level(&platform);
        }
    }
}
