//! From an archive or a layout to images in the store.

use super::files::{Files, Found};
use crate::image::below::Below;
use crate::image::layout::path_of;
use crate::image::local::{DOCKER_PLAIN, size_of};
use crate::image::manifest::read_time;
use crate::image::registry::{Config, Manifest, manifest_for, parse_reference};
use crate::image::rows;
use crate::image::unpack::{BadArchive, Format, Reading, UnpackError, unpack};
use bytes::Bytes;
use cache::store::{Image, ImageLayer, OciBlob, Store, StoreError};
use proto::error::Class;
use proto::id::{Millis, OciDigest, RootId};
use proto::limit;
use proto::path::FileName;
use proto::platform::Platform;
use proto::step::PackedRef;
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

/// Where images are loaded from.
pub enum Source {
    /// A tar, compressed or not: an OCI layout, or what `docker save` writes.
    Tar(Box<dyn Read + Send>),
    /// An OCI layout.
    Dir(PathBuf),
}

/// An image that was loaded. Its row in the table `Image` is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its names, in full.
    pub names: Vec<String>,
    /// The image. Its layers are unpacked.
    pub image: Image,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive is broken.
    #[error("The archive cannot be read: {0}")]
    Archive(BadArchive),
    /// It is an archive, but of no images.
    #[error("The archive holds no image: it has neither `index.json` nor `manifest.json`")]
    NoImage,
    /// Something that is named is not there.
    #[error("The archive has no `{0}`")]
    Missing(String),
    /// A document that cannot be used.
    #[error("`{path}` of the archive cannot be used: {why}")]
    Document {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that is not what its name says.
    #[error("`{path}` of the archive is damaged: expected {expected}, got {actual}")]
    WrongBytes {
        /// Its path.
        path: String,
        /// The digest that it should have.
        expected: OciDigest,
        /// The digest that it has.
        actual: OciDigest,
    },
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A file cannot be read.
    #[error("Reading {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Archive(_) | Self::NoImage | Self::Missing(_) | Self::Document { .. } => {
                Class::User
            }
            Self::WrongBytes { .. } => Class::Corrupt,
            Self::Read { .. } => Class::User,
            Self::Unpack(e) => e.class(),
            Self::Store(e) => e.class(),
        }
    }
}

/// Loads all images of an archive; of an image for several platforms, the one for `platform`. Every
/// file is compared with the digest that it is named by. Blocks.
pub fn load(
    store: &dyn Store,
    source: Source,
    platform: &Platform,
    now: Millis,
) -> Result<Vec<Loaded>, LoadError> {
    let _pin = store.pin();
    let files = match source {
        Source::Tar(input) => Files::of_tar(store, input)?,
        Source::Dir(path) => Files::of_dir(&path)?,
    };
    let mut loading = Loading { store, files, platform, now };
    if let Some(layout) = loading.json::<Layout>("index.json")? {
        return loading.layout(layout);
    }
    match loading.json::<Vec<DockerEntry>>("manifest.json")? {
        Some(entries) => entries.into_iter().map(|entry| loading.docker(entry)).collect(),
        None => Err(LoadError::NoImage),
    }
}

/// Where a layout's index has the tag of an image.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The index of a layout.
#[derive(Deserialize)]
pub struct Layout {
    #[serde(default)]
    pub manifests: Vec<LayoutEntry>,
}

/// A manifest or an index that a layout's index names.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutEntry {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

struct Loading<'l> {
    store: &'l dyn Store,
    files: Files,
    platform: &'l Platform,
    now: Millis,
}

/// A layer's packed file, and what to remember it as.
struct PackedFile {
    path: String,
    found: Found,
    media_type: String,
}

impl Loading<'_> {
    fn layout(&mut self, layout: Layout) -> Result<Vec<Loaded>, LoadError> {
        let mut loaded: Vec<(OciDigest, Loaded)> = Vec::new();
        for entry in layout.manifests {
            if entry.annotations.contains_key("vnd.docker.reference.type") {
                continue;
            }
            let bad = |why: String| LoadError::Document { path: "index.json".into(), why };
            let digest = OciDigest::parse(&entry.digest).map_err(|e| bad(e.to_string()))?;
            let name = name_of(&entry.annotations);
            let (digest, manifest) = self.manifest(digest, entry.media_type)?;
            match loaded.iter_mut().find(|(known, _)| *known == digest) {
                Some((_, known)) => known.names.extend(name),
                None => {
                    let image = self.oci(manifest)?;
                    loaded.push((digest, Loaded { names: name.into_iter().collect(), image }));
                }
            }
        }
        if loaded.is_empty() {
            return Err(LoadError::NoImage);
        }
        let mut loaded: Vec<Loaded> = loaded.into_iter().map(|(_, image)| image).collect();
        self.docker_names(&mut loaded)?;
        Ok(loaded)
    }

    /// Names that only `manifest.json` has.
    fn docker_names(&mut self, loaded: &mut [Loaded]) -> Result<(), LoadError> {
        for entry in self.json::<Vec<DockerEntry>>("manifest.json")?.unwrap_or_default() {
            let Some(config) = self.files.find(self.store, &entry.config)? else { continue };
            let nameless = |l: &&mut Loaded| l.names.is_empty() && l.image.id == config.digest;
            if let Some(image) = loaded.iter_mut().find(nameless) {
                image.names = tags(&entry);
            }
        }
        Ok(())
    }

    /// The manifest that a digest leads to, through indexes.
    fn manifest(
        &mut self,
        digest: OciDigest,
        media_type: String,
    ) -> Result<(OciDigest, Manifest), LoadError> {
        let platform = self.platform;
        let read = |digest: &OciDigest| -> Result<Bytes, LoadError> {
            Ok(self.document(&path_of(digest), Some(digest))?.1)
        };
        let bad = |digest: &OciDigest, why| LoadError::Document { path: path_of(digest), why };
        let (digest, manifest) = manifest_for(digest, media_type, platform, read, bad)?;
        let found = self.file(&path_of(&digest), Some(&digest))?;
        self.keep(&found)?;
        Ok((digest, manifest))
    }

    fn oci(&mut self, manifest: Manifest) -> Result<Image, LoadError> {
        let path = path_of(&manifest.config.digest);
        let (config, bytes) = self.document(&path, Some(&manifest.config.digest))?;
        let mut layers = Vec::new();
        for PackedRef { media_type, digest, .. } in manifest.layers {
            let path = path_of(&digest);
            let found = self.file(&path, Some(&digest))?;
            layers.push(PackedFile { path, found, media_type });
        }
        self.image(&path, config, &bytes, layers)
    }

    fn docker(&mut self, entry: DockerEntry) -> Result<Loaded, LoadError> {
        // Docker names the file by its digest; then it has to be right.
        let stem = entry.config.rsplit('/').next().unwrap_or(&entry.config);
        let named = OciDigest::parse(&format!("sha256:{}", stem.trim_end_matches(".json"))).ok();
        let (config, bytes) = self.document(&entry.config, named.as_ref())?;
        let mut layers = Vec::new();
        for path in entry.layers.clone().unwrap_or_default() {
            let found = self.file(&path, None)?;
            let mut start = [0; 6];
            let mut content = self.store.open(&found.blob, 0)?;
            let length = content.read(&mut start).unwrap_or(0);
            let media_type = match Format::of(&start[..length]) {
                Format::Gzip => format!("{DOCKER_PLAIN}.gzip"),
                Format::Zstd => format!("{DOCKER_PLAIN}.zstd"),
                _ => DOCKER_PLAIN.to_owned(),
            };
            layers.push(PackedFile { path, found, media_type });
        }
        let image = self.image(&entry.config, config, &bytes, layers)?;
        Ok(Loaded { names: tags(&entry), image })
    }

    fn image(
        &mut self,
        path: &str,
        config: Found,
        bytes: &[u8],
        packed: Vec<PackedFile>,
    ) -> Result<Image, LoadError> {
        let bad = |why| LoadError::Document { path: path.to_owned(), why };
        let read = Config::read(bytes).map_err(bad)?;
        if read.diff_ids.len() != packed.len() {
            let (ids, layers) = (read.diff_ids.len(), packed.len());
            return Err(bad(format!("it names {ids} layers, and there are {layers}")));
        }
        self.keep(&config)?;
        let (mut layers, mut roots) = (Vec::new(), Vec::new());
        let files: Vec<Found> = packed.iter().map(|file| file.found).collect();
        for (file, diff_id) in packed.into_iter().zip(read.diff_ids) {
            let root = self.unpack(&file, diff_id, &roots)?;
            self.keep(&file.found)?;
            roots.push(root);
            let original = Some((file.media_type, file.found.digest, file.found.size));
            layers.push(ImageLayer { diff_id, diff: Some(root), original });
        }
        let created = read.created.as_deref().and_then(read_time).unwrap_or(Millis(0));
        Ok(Image {
            id: config.digest,
            platform: read.platform,
            config: config.blob,
            layers,
            tagged_ms: self.now.0,
            created_ms: created.0,
            size: size_of(self.store, &roots)?,
            references: Vec::new(),
            archive: Some(self.archive(&files)?),
        })
    }

    fn unpack(
        &self,
        file: &PackedFile,
        diff_id: OciDigest,
        below: &[RootId],
    ) -> Result<RootId, LoadError> {
        if let Some(root) = rows::unpacked(self.store, &diff_id)? {
            return Ok(root);
        }
        let below = Below { store: self.store, layers: below };
        let reading = Reading::Layer { diff_id: Some(diff_id), lower: Some(&below) };
        let what = format!("The layer `{}`", file.path);
        let done = unpack(self.store, &what, self.store.open(&file.found.blob, 0)?, reading)?;
        if !done.depends {
            rows::put_unpacked(self.store, &diff_id, done.root)?;
        }
        Ok(done.root)
    }

    /// The packed layers as a directory: no registry is known to have them.
    fn archive(&self, layers: &[Found]) -> Result<RootId, StoreError> {
        let meta = Meta::root_owned(0o444, Mtime::default());
        let mut files = BTreeMap::new();
        for layer in layers {
            let name = FileName::new(layer.digest.hex().as_bytes()).expect("hexadecimal digits");
            let node = Node::File { blob: layer.blob, size: layer.size, link: None };
            files.insert(layer.digest, Entry { name, meta: meta.clone(), node });
        }
        let dir = Dir::new(files.into_values().collect()).seal();
        let meta = Meta::root_owned(0o755, Mtime::default());
        let (root, bytes) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
        self.store.put_nodes(&[dir.bytes, bytes])?;
        Ok(root)
    }

    /// Remembers a file by its digest.
    fn keep(&self, found: &Found) -> Result<(), StoreError> {
        let row = OciBlob { blob: found.blob, size: found.size, repository: None };
        rows::put_oci_blob(self.store, &found.digest, row)
    }

    fn file(&mut self, path: &str, expected: Option<&OciDigest>) -> Result<Found, LoadError> {
        let found = self.files.find(self.store, path)?;
        let found = found.ok_or_else(|| LoadError::Missing(path.to_owned()))?;
        match expected {
            Some(expected) if *expected != found.digest => Err(LoadError::WrongBytes {
                path: path.to_owned(),
                expected: *expected,
                actual: found.digest,
            }),
            _ => Ok(found),
        }
    }

    /// A file that fits in memory.
    fn document(
        &mut self,
        path: &str,
        expected: Option<&OciDigest>,
    ) -> Result<(Found, Bytes), LoadError> {
        let found = self.file(path, expected)?;
        if found.size > limit::MANIFEST_BYTES_MAX as u64 {
            let why = format!("it has {} bytes", found.size);
            return Err(LoadError::Document { path: path.to_owned(), why });
        }
        Ok((found, self.store.read(&found.blob)?))
    }

    fn json<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, LoadError> {
        if self.files.find(self.store, path)?.is_none() {
            return Ok(None);
        }
        let (_, bytes) = self.document(path, None)?;
        let bad = |e: serde_json::Error| LoadError::Document {
            path: path.to_owned(),
            why: e.to_string(),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(bad)
    }
}

/// containerd's name, or a reference that other tools write into `ref.name`; a mere tag is no name.
fn name_of(annotations: &BTreeMap<String, String>) -> Option<String> {
    let full = annotations.get("io.containerd.image.name");
    let short = annotations.get(REF_NAME);
    let short = short.filter(|name| name.contains(['/', ':']));
    parse_reference(full.or(short)?).ok().map(|name| name.to_string())
}

fn tags(entry: &DockerEntry) -> Vec<String> {
    let tags = entry.repo_tags.iter().flatten();
    let full = tags.filter_map(|tag| parse_reference(tag).ok());
    full.map(|name| name.to_string()).collect()
}
