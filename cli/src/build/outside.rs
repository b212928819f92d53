//! `--cache-from` and `--cache-to`: caches outside of the farm. Those in directories are read and
//! written here; the farm sees their blobs only.

use super::archive;
use super::fields::Taker;
use super::files::blocking;
use super::request::full_name;
use crate::args::build::Build;
use crate::error::{io, user};
use crate::print::tell;
use crate::upload::upload;
use cache::cluster::Cluster;
use proto::error::{Class, Failure};
use proto::id::{BlobId, OciDigest};
use proto::limit;
use proto::wire::build::{ArchiveData, ArchiveEntry, MediaTypes};
use proto::wire::outside::{CacheFrom, CacheMode, CachePlace, CacheTo, CacheWritten};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the flags ask for.
#[derive(Debug, Default)]
pub struct Caches {
    /// Caches to take from.
    pub from: Vec<CacheFrom>,
    /// Caches to give to.
    pub to: Vec<CacheTo>,
    /// Where those on this machine are.
    pub directories: Directories,
}

/// The caches on this machine.
#[derive(Debug, Default)]
pub struct Directories {
    /// Those that are taken from, by their numbers.
    from: Vec<PathBuf>,
    /// For each cache that is given to, its directory if it is one, and whether the build is all
    /// right without it.
    to: Vec<Option<(PathBuf, bool)>>,
}

/// Reads the flags. Says which caches are left out because nothing can be taken from them.
pub fn read(args: &Build) -> Result<Caches, Failure> {
    let mut caches = Caches::default();
    for text in args.cache_from.iter().filter(|text| !text.is_empty()) {
        if let Some(why) = from(text, &mut caches)? {
            tell!("WARNING: --cache-from `{text}` is not used: {why}");
        }
    }
    for text in args.cache_to.iter().filter(|text| !text.is_empty()) {
        to(text, &mut caches)?;
    }
    Ok(caches)
}

/// A text without fields is a reference.
fn with_type(text: &str) -> String {
    if text.contains('=') { text.to_owned() } else { format!("type=registry,ref={text}") }
}

/// What to do instead of a type that there is not.
fn instead(kind: &str) -> String {
    let there_are = "there are registry and local";
    match kind {
        "inline" => "images of Slipway carry no cache; use type=registry,ref=NAME".to_owned(),
        "gha" => {
            "GitHub's cache service is not spoken to; keep a directory by actions/cache, with \
                  type=local, or use type=registry,ref=NAME"
                .to_owned()
        }
        "s3" | "azblob" => format!("{kind} is not spoken to; use type=registry,ref=NAME"),
        "" => format!("the type is missing; {there_are}"),
        _ => format!("there is no cache type `{kind}`; {there_are}"),
    }
}

/// Adds a cache to take from. Answers why not when that is no reason not to build.
fn from(text: &str, caches: &mut Caches) -> Result<Option<String>, Failure> {
    let whole = with_type(text);
    let mut take = Taker::new("--cache-from", &whole)?;
    let kind = take.text("type").unwrap_or_default();
    match kind.as_str() {
        "registry" => {
            let reference = take.needed("ref", "NAME")?;
            let place = CachePlace::Registry(full_name(&reference)?);
            caches.from.push(CacheFrom { place, name: reference });
        }
        "local" => {
            let source = take.needed("src", "DIRECTORY")?;
            let number = caches.directories.from.len() as u32;
            caches.directories.from.push(PathBuf::from(&source));
            caches.from.push(CacheFrom { place: CachePlace::Client(number), name: source });
        }
        kind => return Ok(Some(instead(kind))),
    }
    take.finish().map(|()| None)
}

/// Adds a cache to give to.
fn to(text: &str, caches: &mut Caches) -> Result<(), Failure> {
    let whole = with_type(text);
    let mut take = Taker::new("--cache-to", &whole)?;
    let kind = take.text("type").unwrap_or_default();
    let (reference, name, directory) = match kind.as_str() {
        "registry" => {
            let name = take.needed("ref", "NAME")?;
            (Some(full_name(&name)?), name, None)
        }
        "local" => {
            let name = take.needed("dest", "DIRECTORY")?;
            (None, name.clone(), Some(PathBuf::from(name)))
        }
        kind => return Err(take.wrong(instead(kind))),
    };
    let mode = match take.text("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => return Err(take.wrong(format!("mode={other}: expected min or max"))),
    };
    let may_fail = take.flag("ignore-error", false)?;
    // Scripts say so for BuildKit; ours are always these.
    for always in ["image-manifest", "oci-mediatypes"] {
        if !take.flag(always, true)? {
            return Err(take.wrong(format!("{always}=false: caches are OCI manifests")));
        }
    }
    let packing = take.packing(MediaTypes::Oci)?;
    take.finish()?;
    caches.to.push(CacheTo { reference, name, mode, packing, may_fail });
    caches.directories.to.push(directory.map(|directory| (directory, may_fail)));
    Ok(())
}

/// As much as is needed of a layout's index, and of a manifest.
#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    manifests: Vec<Named>,
    config: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: String,
}

impl Directories {
    fn directory(&self, number: u32) -> Result<&Path, Failure> {
        let found = self.from.get(number as usize);
        let none = || Failure::new(Class::Bug, format!("There is no cache number {number}"));
        found.map(PathBuf::as_path).ok_or_else(none)
    }

    /// Puts the manifest of a cache, and the config that it names, into the farm's store.
    pub async fn index(&self, blobs: &Arc<Cluster>, number: u32) -> Result<Vec<BlobId>, Failure> {
        let directory = self.directory(number)?;
        let index = listing(&directory.join("index.json"))?;
        let digest =
            |named: &Named| OciDigest::parse(&named.digest).map_err(|e| user(e.to_string()));
        let Some(manifest) = index.manifests.first().map(digest).transpose()? else {
            return Err(user("Its index names nothing"));
        };
        let mut wanted = vec![manifest];
        let config = listing(&blob(directory, &manifest))?.config;
        wanted.extend(config.as_ref().map(digest).transpose()?);
        self.blobs(blobs, number, &wanted).await
    }

    /// Puts blobs of a cache into the farm's store.
    pub async fn blobs(
        &self,
        blobs: &Arc<Cluster>,
        number: u32,
        digests: &[OciDigest],
    ) -> Result<Vec<BlobId>, Failure> {
        let directory = self.directory(number)?;
        let mut put = Vec::new();
        for digest in digests {
            put.push(put_file(blobs, blob(directory, digest)).await?);
        }
        Ok(put)
    }

    /// Writes the caches that are on this machine. Blobs that are there stay.
    pub async fn write(
        &self,
        blobs: &Arc<Cluster>,
        written: &[CacheWritten],
    ) -> Result<(), Failure> {
        for (written, directory) in written.iter().zip(&self.to) {
            let (CacheWritten::Files { entries, own }, Some((directory, may_fail))) =
                (written, directory)
            else {
                continue;
            };
            match self.write_one(blobs, directory, entries, own).await {
                Err(e) if *may_fail => {
                    tell!("WARNING: the cache {} is not written: {e}", directory.display());
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn write_one(
        &self,
        blobs: &Arc<Cluster>,
        directory: &Path,
        entries: &[ArchiveEntry],
        own: &[(OciDigest, u64)],
    ) -> Result<(), Failure> {
        let path = directory.join("blobs/sha256");
        std::fs::create_dir_all(&path).map_err(|e| io("Making", &path, &e))?;
        for (digest, size) in own {
            self.copy(directory, digest, *size)?;
        }
        let missing = |entry: &&ArchiveEntry| match &entry.data {
            ArchiveData::Blob(_, size, digest) => !is_there(directory, digest, *size),
            ArchiveData::Inline(_) | ArchiveData::Directory => true,
        };
        let missing = entries.iter().filter(missing).cloned().collect();
        archive::write_layout(blobs, missing, directory).await
    }

    /// Copies a blob from one of the directories that are taken from.
    fn copy(&self, to: &Path, digest: &OciDigest, size: u64) -> Result<(), Failure> {
        if is_there(to, digest, size) {
            return Ok(());
        }
        let Some(from) = self.from.iter().find(|from| is_there(from, digest, size)) else {
            return Err(user(format!("{digest} is in none of the caches any more")));
        };
        let (from, path) = (blob(from, digest), blob(to, digest));
        let mut content = open(&from).map_err(|e| io("Reading", &from, &e))?;
        let mut file = archive::WholeFile::create(&path)?;
        std::io::copy(&mut content, &mut file).map_err(|e| io("Writing", &path, &e))?;
        file.finish()
    }
}

fn blob(directory: &Path, digest: &OciDigest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

fn is_there(directory: &Path, digest: &OciDigest, size: u64) -> bool {
    let found = std::fs::symlink_metadata(blob(directory, digest));
    found.is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Opens a file of a cache. Nothing else is read, wherever a link may lead to.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("it is no file")),
    }
}

fn listing(path: &Path) -> Result<Listing, Failure> {
    let failed = |e: std::io::Error| io("Reading", path, &e);
    let mut bytes = Vec::new();
    let most = limit::CACHE_MANIFEST_BYTES_MAX as u64;
    open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    let broken = |e| user(format!("{} is no index or manifest: {e}", path.display()));
    serde_json::from_slice(&bytes).map_err(broken)
}

/// Puts a file into the farm's store.
async fn put_file(blobs: &Arc<Cluster>, path: PathBuf) -> Result<BlobId, Failure> {
    let name = path.display().to_string();
    let file = blocking(move || open(&path).map_err(|e| io("Reading", &path, &e))).await?;
    upload(blobs, file, &name).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::build::LayerCompression;

    fn given(text: &str) -> Result<CacheTo, Failure> {
        let mut caches = Caches::default();
        to(text, &mut caches).map(|()| caches.to.remove(0))
    }

    #[test]
    fn caches_to_write_are_read() {
        let registry = given("type=registry,ref=host:5/a/b:c,mode=max,compression=zstd").unwrap();
        assert_eq!(registry.reference.as_deref(), Some("host:5/a/b:c"));
        assert_eq!(registry.mode, CacheMode::Max);
        assert_eq!(registry.packing.compression, LayerCompression::Zstd);
        let plain = given("a/b").unwrap();
        assert_eq!(plain.reference.as_deref(), Some("docker.io/a/b:latest"));
        assert_eq!((plain.mode, plain.may_fail), (CacheMode::Min, false));
        let local = given("type=local,dest=x,ignore-error=true").unwrap();
        assert_eq!((local.reference, local.may_fail), (None, true));
        for bad in [
            "type=inline",
            "type=gha",
            "type=registry",
            "type=local,src=x",
            "type=local,dest=x,mode=all",
            "type=registry,ref=a,what=1",
            "type=registry,ref=a,image-manifest=false",
            "ref=a",
            "A B",
        ] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn caches_to_read_are_read() {
        let mut caches = Caches::default();
        for text in ["a/b:c", "type=local,src=x", "type=registry,ref=h:1/d", "type=local,src=y"] {
            assert_eq!(from(text, &mut caches).unwrap(), None, "{text}");
        }
        let places: Vec<&CachePlace> = caches.from.iter().map(|from| &from.place).collect();
        let registry = |name: &str| CachePlace::Registry(name.to_owned());
        assert_eq!(
            places,
            [
                &registry("docker.io/a/b:c"),
                &CachePlace::Client(0),
                &registry("h:1/d:latest"),
                &CachePlace::Client(1)
            ]
        );
        for (text, says) in [("type=gha", "actions/cache"), ("type=s3,bucket=x", "registry")] {
            let why = from(text, &mut caches).unwrap();
            assert!(why.as_deref().is_some_and(|why| why.contains(says)), "{text}: {why:?}");
        }
        for bad in ["type=registry", "type=local,dest=x", "A B"] {
            assert!(from(bad, &mut caches).is_err(), "{bad}");
        }
    }
}
