//! Caches in directories of this machine: read and written here; the farm sees their blobs only.

use super::super::archive;
use super::super::context::read_bounded;
use super::super::files::blocking;
use crate::error::{io, user};
use crate::upload::upload;
use cache::cluster::Cluster;
use proto::error::{Class, Failure};
use proto::id::{BlobId, OciDigest};
use proto::limit;
use proto::wire::build::{ArchiveData, ArchiveEntry};
use proto::wire::outside::CacheWritten;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use worker::image::layout::BLOBS;
use worker::image::sha::{Sha, sha256};

/// Bytes of a blob that are read at a time.
const PIECE: usize = 256 << 10;

/// The caches on this machine.
#[derive(Debug, Default)]
pub struct Directories {
    /// Those that are taken from, by their numbers.
    pub(super) from: Vec<PathBuf>,
    /// For each cache that is given to, its directory if it is one, and whether the build is all
    /// right without it.
    pub(super) to: Vec<Option<(PathBuf, bool)>>,
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
        let directory = self.directory(number)?.to_owned();
        let wanted = blocking(move || documents(&directory)).await?;
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

    /// Writes the caches that are on this machine. Blobs that are there, and are what their names
    /// say, stay. `warn` hears of what is not as it should be, and is no reason to fail.
    pub async fn write(
        &self,
        blobs: &Arc<Cluster>,
        written: &[CacheWritten],
        warn: impl Fn(String),
    ) -> Result<(), Failure> {
        for (written, directory) in written.iter().zip(&self.to) {
            let (CacheWritten::Files { entries, own }, Some((directory, may_fail))) =
                (written, directory)
            else {
                continue;
            };
            let lost = self.write_one(blobs, directory, entries, own).await;
            let shown = directory.display();
            match lost {
                Ok(lost) if lost.is_empty() => {}
                Ok(lost) => warn(without(directory, &lost)),
                Err(e) if *may_fail => warn(format!("The cache {shown} is not written: {e}")),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes a cache; answers which blobs of other caches it does not get.
    async fn write_one(
        &self,
        blobs: &Arc<Cluster>,
        directory: &Path,
        entries: &[ArchiveEntry],
        own: &[(OciDigest, u64)],
    ) -> Result<Vec<OciDigest>, Failure> {
        let path = directory.join(BLOBS);
        let (from, to) = (self.from.clone(), directory.to_owned());
        let (entries, own) = (entries.to_vec(), own.to_vec());
        let here = move || {
            std::fs::create_dir_all(&path).map_err(|e| io("Making", &path, &e))?;
            let lost = copy_all(&from, &to, &own)?;
            let missing = |entry: &ArchiveEntry| match &entry.data {
                ArchiveData::Blob(_, size, digest) => !is_whole(&to, digest, *size),
                ArchiveData::Inline(_) | ArchiveData::Directory => true,
            };
            Ok((entries.into_iter().filter(missing).collect(), lost))
        };
        let (missing, lost) = blocking(here).await?;
        archive::write_layout(blobs, missing, directory).await?;
        Ok(lost)
    }
}

/// What is said of a cache that did not get all blobs of those that it takes over.
fn without(directory: &Path, lost: &[OciDigest]) -> String {
    let lost: Vec<String> = lost.iter().map(OciDigest::short).collect();
    format!(
        "The cache {} is written without {}: no cache has it undamaged. Steps that need it run again",
        directory.display(),
        lost.join(", ")
    )
}

/// Copies blobs from the directories that are taken from; answers which none of them has.
fn copy_all(
    from: &[PathBuf],
    to: &Path,
    blobs: &[(OciDigest, u64)],
) -> Result<Vec<OciDigest>, Failure> {
    let mut lost = Vec::new();
    for (digest, size) in blobs {
        if !is_whole(to, digest, *size) && !copy(from, to, digest, *size)? {
            lost.push(*digest);
        }
    }
    Ok(lost)
}

/// Copies a blob from the first directory where it is what its name says; answers whether there is
/// one.
fn copy(from: &[PathBuf], to: &Path, digest: &OciDigest, size: u64) -> Result<bool, Failure> {
    let path = blob(to, digest);
    for from in from {
        let Some(source) = candidate(from, digest, size) else { continue };
        let mut file = archive::WholeFile::create(&path)?;
        let got = pass(source, &mut file).map_err(|e| io("Writing", &path, &e))?;
        if got.as_ref() == Some(digest) {
            return file.finish().map(|()| true);
        }
    }
    Ok(false)
}

fn blob(directory: &Path, digest: &OciDigest) -> PathBuf {
    directory.join(BLOBS).join(digest.hex())
}

/// Whether a blob is there, and is what its name says. One that is damaged is written again.
fn is_whole(directory: &Path, digest: &OciDigest, size: u64) -> bool {
    let Some(file) = candidate(directory, digest, size) else { return false };
    pass(file, &mut std::io::sink()).is_ok_and(|got| got.as_ref() == Some(digest))
}

/// A file that may be the blob: it has the name and the size.
fn candidate(directory: &Path, digest: &OciDigest, size: u64) -> Option<File> {
    let file = open(&blob(directory, digest)).ok()?;
    file.metadata().is_ok_and(|found| found.len() == size).then_some(file)
}

/// Writes what is read; answers its digest, if all of it could be read.
fn pass(mut from: File, to: &mut dyn Write) -> std::io::Result<Option<OciDigest>> {
    let (mut sha, mut piece) = (Sha::new(), vec![0; PIECE]);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(Some(sha.finish())),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Ok(None),
        };
        sha.update(&piece[..read]);
        to.write_all(&piece[..read])?;
    }
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

/// The manifest of a cache, and the config that it names, if it does.
fn documents(directory: &Path) -> Result<Vec<OciDigest>, Failure> {
    let digest = |named: &Named| OciDigest::parse(&named.digest).map_err(|e| user(e.to_string()));
    let path = directory.join("index.json");
    let manifest = match listing(&path, &document(&path)?)?.manifests.as_slice() {
        [only] => digest(only)?,
        [] => return Err(user("Its index names nothing")),
        several => {
            let count = several.len();
            return Err(user(format!(
                "Its index names {count} manifests, and that of a cache one"
            )));
        }
    };
    let path = blob(directory, &manifest);
    let bytes = document(&path)?;
    let actual = sha256(&bytes);
    if actual != manifest {
        let message = format!("{} is damaged: its digest is {actual}", path.display());
        return Err(Failure::new(Class::Corrupt, message));
    }
    let config = listing(&path, &bytes)?.config;
    let config = config.as_ref().map(digest).transpose()?;
    Ok([manifest].into_iter().chain(config).collect())
}

fn document(path: &Path) -> Result<Vec<u8>, Failure> {
    let opened = open(path);
    let read = opened.and_then(|mut f| read_bounded(&mut f, limit::CACHE_MANIFEST_BYTES_MAX));
    read.map_err(|e| io("Reading", path, &e))
}

fn listing(path: &Path, bytes: &[u8]) -> Result<Listing, Failure> {
    let broken = |e| user(format!("{} is no index or manifest: {e}", path.display()));
    serde_json::from_slice(bytes).map_err(broken)
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
    use std::fs;
    use tempfile::TempDir;

    /// A directory with these blobs: what their names say, and what is in them.
    fn cache(blobs: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(BLOBS)).unwrap();
        for (named, bytes) in blobs {
            fs::write(blob(dir.path(), &sha256(named.as_bytes())), bytes).unwrap();
        }
        dir
    }

    fn text(dir: &TempDir, named: &str) -> Option<String> {
        fs::read_to_string(blob(dir.path(), &sha256(named.as_bytes()))).ok()
    }

    #[test]
    fn what_is_damaged_is_replaced_and_never_copied() {
        let names = ["here", "hurt", "lost", "none"];
        let to = cache(&[("here", "here"), ("hurt", "hur!"), ("lost", "los!")]);
        let one = cache(&[("here", "her!"), ("hurt", "hu!!"), ("lost", "lo!!")]);
        let two = cache(&[("hurt", "hurt"), ("none", "longer")]);
        let from = [one.path().to_owned(), two.path().to_owned()];
        let blobs = names.map(|name| (sha256(name.as_bytes()), name.len() as u64));
        let lost = copy_all(&from, to.path(), &blobs).unwrap();
        assert_eq!(lost, [sha256(b"lost"), sha256(b"none")]);
        let now = names.map(|name| text(&to, name));
        let expected = [Some("here"), Some("hurt"), Some("los!"), None];
        assert_eq!(now.each_ref().map(Option::as_deref), expected);
        let left = fs::read_dir(to.path().join(BLOBS)).unwrap().count();
        assert_eq!(left, 3, "nothing that was begun");
        assert!(without(to.path(), &lost).contains(&sha256(b"none").short()));
    }

    #[test]
    fn a_cache_has_one_manifest_that_is_what_its_name_says() {
        let config = sha256(b"config");
        let manifest = format!(r#"{{"config":{{"digest":"{config}"}}}}"#);
        let named = sha256(manifest.as_bytes());
        let dir = cache(&[(&manifest, &manifest)]);
        let index = |count: usize| {
            let named = vec![format!(r#"{{"digest":"{named}"}}"#); count].join(",");
            let text = format!(r#"{{"manifests":[{named}]}}"#);
            fs::write(dir.path().join("index.json"), text).unwrap();
            documents(dir.path()).map_err(|e| e.to_string())
        };
        assert_eq!(index(1).unwrap(), [named, config]);
        assert!(index(0).unwrap_err().contains("names nothing"));
        assert!(index(2).unwrap_err().contains("names 2 manifests"));
        fs::write(blob(dir.path(), &named), manifest.replace("config", "confic")).unwrap();
        assert!(index(1).unwrap_err().contains("is damaged"));
        let large = File::create(blob(dir.path(), &named)).unwrap();
        large.set_len(limit::CACHE_MANIFEST_BYTES_MAX as u64 + 1).unwrap();
        assert!(index(1).unwrap_err().contains("larger than"));
    }
}
