//! Which files of a layout on this machine make up the image that is meant.

use super::{LayoutError, path_of, unreadable};
use crate::image::archive::{Layout, REF_NAME, open_inside};
use crate::image::registry::manifest_for;
use crate::image::sha::sha256;
use proto::id::OciDigest;
use proto::limit;
use proto::platform::Platform;
use proto::step::PackedRef;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The index of a layout.
const INDEX: &str = "index.json";

/// Which image of a layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one with this tag; when there is only one, that one, as in BuildKit.
    Tag(String),
    /// The one whose manifest or index has this digest.
    Digest(OciDigest),
}

/// The files of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its manifest.
    pub manifest: OciDigest,
    /// All files that it needs, the manifest among them, each once.
    pub files: Vec<OciDigest>,
}

/// Chooses an image of the layout; of one for several platforms, that for `platform`. Documents are
/// compared with their digests; layers are there, and as large as they should be. Blocks.
pub fn choose(layout: &Path, which: &Which, platform: &Platform) -> Result<Chosen, LayoutError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(layout, flags, Mode::empty());
    let root = root.map_err(|e| unreadable(layout, "")(e.into()))?;
    let reading = Reading { layout, root: File::from(root) };
    let (digest, media_type) = match which {
        Which::Digest(digest) => (*digest, String::new()),
        Which::Tag(tag) => reading.tagged(tag)?,
    };
    let read = |digest: &OciDigest| reading.document(digest);
    let bad = |digest: &OciDigest, why| LayoutError::Document { path: path_of(digest), why };
    let (manifest, parts) = manifest_for(digest, media_type, platform, read, bad)?;
    reading.document(&parts.config.digest)?;
    let mut files = vec![manifest, parts.config.digest];
    for layer in &parts.layers {
        if !files.contains(&layer.digest) {
            reading.layer(layer)?;
            files.push(layer.digest);
        }
    }
    Ok(Chosen { manifest, files })
}

struct Reading<'l> {
    layout: &'l Path,
    root: File,
}

impl Reading<'_> {
    /// What the index has under a tag.
    fn tagged(&self, tag: &str) -> Result<(OciDigest, String), LayoutError> {
        let no_layout = || LayoutError::NoLayout(self.layout.to_owned());
        let bytes = self.read(INDEX)?.ok_or_else(no_layout)?;
        let bad = |why: String| LayoutError::Document { path: INDEX.to_owned(), why };
        let index: Layout = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let name = |at: usize| index.manifests[at].annotations.get(REF_NAME);
        let tagged = (0..index.manifests.len()).find(|at| name(*at).is_some_and(|n| n == tag));
        let only = (index.manifests.len() == 1).then_some(0);
        let Some(at) = tagged.or(only) else {
            let there = (0..index.manifests.len()).filter_map(name);
            let there = there.map(|name| format!("`{name}`")).collect();
            return Err(LayoutError::NoTag { tag: tag.to_owned(), there });
        };
        let entry = &index.manifests[at];
        let digest = OciDigest::parse(&entry.digest).map_err(|e| bad(e.to_string()))?;
        Ok((digest, entry.media_type.clone()))
    }

    /// A file that fits in memory, and is what its name says.
    fn document(&self, digest: &OciDigest) -> Result<Vec<u8>, LayoutError> {
        let path = path_of(digest);
        let bytes = self.read(&path)?.ok_or_else(|| LayoutError::Missing(path.clone()))?;
        let actual = sha256(&bytes);
        match actual == *digest {
            true => Ok(bytes),
            false => {
                let (expected, actual) = (digest.to_string(), actual.to_string());
                Err(LayoutError::Damaged { path, expected, actual })
            }
        }
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LayoutError> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(limit::MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(unreadable(self.layout, path))?;
        if bytes.len() > limit::MANIFEST_BYTES_MAX {
            let why = format!("it has more than {} bytes", limit::MANIFEST_BYTES_MAX);
            return Err(LayoutError::Document { path: path.to_owned(), why });
        }
        Ok(Some(bytes))
    }

    /// Sees that a layer is there; whoever unpacks it compares its digest.
    fn layer(&self, layer: &PackedRef) -> Result<(), LayoutError> {
        let path = path_of(&layer.digest);
        let file = self.open(&path)?.ok_or_else(|| LayoutError::Missing(path.clone()))?;
        let size = file.metadata().map_err(unreadable(self.layout, &path))?.len();
        if size != layer.size {
            let [expected, actual] = [layer.size, size].map(|size| format!("{size} bytes"));
            return Err(LayoutError::Damaged { path, expected, actual });
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Result<Option<File>, LayoutError> {
        // What is sent is the directory as it is, and a link in it would lead nowhere.
        let stat = rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink) {
            let link = io::Error::other("it is a symbolic link");
            return Err(unreadable(self.layout, path)(link));
        }
        open_inside(&self.root, path).map_err(unreadable(self.layout, path))
    }
}
