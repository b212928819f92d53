//! Blobs that are files of their own: `blobs/ab/<hash>`, and the files on the way there.
//!
//! Who makes, hands out or deletes the file of a blob holds the lock of that blob.

use super::lock;
use crate::store::StoreError;
use proto::id::BlobId;
use rayon::prelude::*;
use rustix::fs::Stat;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

const LOCKS: usize = 64;

/// Files whose content is known to be right.
const VERIFIED_MAX: usize = 1 << 16;

/// Bytes that are read at once to be hashed by all processors.
pub(super) const HASH_BYTES: usize = 4 << 20;

/// Where the files are.
pub(super) struct Files {
    blobs: PathBuf,
    tmp: PathBuf,
    quarantine: PathBuf,
    locks: [Mutex<()>; LOCKS],
    verified: Mutex<HashMap<BlobId, Stamp>>,
    serial: AtomicU64,
}

/// What a file looked like when its content was verified. Writing to it changes its ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: i64,
    ctime: (i64, u64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size,
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// The folder of a blob's file: the first byte of its id.
pub(super) type Shard = u8;

pub(super) fn shard_of(id: &BlobId) -> Shard {
    id.as_bytes()[0]
}

impl Files {
    /// The files of the store at `root`; `session` names the folder of unfinished ones.
    pub fn new(root: &Path, session: &str) -> Self {
        Self {
            blobs: root.join("blobs"),
            tmp: root.join("tmp").join(session),
            quarantine: root.join("quarantine"),
            locks: [const { Mutex::new(()) }; LOCKS],
            verified: Mutex::default(),
            serial: AtomicU64::new(0),
        }
    }

    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.shard_path(shard_of(id)).join(id.to_string())
    }

    pub fn shard_path(&self, shard: Shard) -> PathBuf {
        self.blobs.join(format!("{shard:02x}"))
    }

    /// The name of the folder of unfinished files.
    pub fn session(&self) -> Option<&OsStr> {
        self.tmp.file_name()
    }

    pub fn quarantine(&self) -> &Path {
        &self.quarantine
    }

    /// Waits for the right to make, hand out or delete the blob's file.
    pub fn lock(&self, id: &BlobId) -> MutexGuard<'_, ()> {
        lock(&self.locks[usize::from(id.as_bytes()[1]) % LOCKS])
    }

    /// A name for something unfinished.
    pub fn temp_path(&self) -> PathBuf {
        self.tmp.join(self.serial.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A new file that is deleted again unless it is kept.
    pub fn temp(&self) -> Result<Temp, StoreError> {
        let path = self.temp_path();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(StoreError::io("Making", &path))?;
        Ok(Temp { path: Some(path), file })
    }

    /// Whether the file was verified and has not changed since.
    pub fn is_verified(&self, id: &BlobId, file: &File) -> bool {
        let stat = rustix::fs::fstat(file).map(|stat| Stamp::of(&stat)).ok();
        stat.is_some() && lock(&self.verified).get(id).copied() == stat
    }

    /// Notes that the file, as it is now, was verified.
    pub fn note_verified(&self, id: &BlobId, file: &File) {
        if let Ok(stat) = rustix::fs::fstat(file) {
            let mut verified = lock(&self.verified);
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
            verified.insert(*id, Stamp::of(&stat));
        }
    }

    /// Moves a damaged file out of the way.
    pub fn put_aside(&self, id: &BlobId) {
        let to =
            self.quarantine.join(format!("{id}.{}", self.serial.fetch_add(1, Ordering::Relaxed)));
        if let Err(error) = fs::rename(self.path(id), &to) {
            tracing::warn!(blob = %id, %error, "A damaged blob's file could not be put aside");
        }
    }

    /// Keeps the damaged bytes of a packed blob for whoever looks into it.
    pub fn put_bytes_aside(&self, id: &BlobId, bytes: &[u8]) {
        let to =
            self.quarantine.join(format!("{id}.{}", self.serial.fetch_add(1, Ordering::Relaxed)));
        if let Err(error) = fs::write(to, bytes) {
            tracing::warn!(blob = %id, %error, "A damaged blob's bytes could not be put aside");
        }
    }

    /// Deletes a blob's file; answers whether there was one.
    pub fn unlink(&self, id: &BlobId) -> Result<bool, StoreError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("Deleting", &path)(error)),
        }
    }
}

/// An unfinished file.
pub(super) struct Temp {
    path: Option<PathBuf>,
    pub file: File,
}

impl Temp {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.as_deref().expect("an unfinished file has a name until it is kept")
    }

    /// Gives it its name; what has that name goes.
    pub fn rename(mut self, to: &Path) -> Result<File, StoreError> {
        fs::rename(self.path(), to).map_err(StoreError::io("Renaming to", to))?;
        self.path = None;
        let file = self.file.try_clone().map_err(StoreError::io("Opening", to))?;
        Ok(file)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes a folder that only its owner sees, if there is none.
pub(super) fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::io("Making", path))
}

/// Hashes what follows in a file, on all processors.
pub(super) fn hash(mut file: &File) -> io::Result<(BlobId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    let mut size = 0;
    loop {
        let n = fill(&mut file, &mut buffer)?;
        hasher.update_rayon(&buffer[..n]);
        size += n as u64;
        if n < buffer.len() {
            return Ok((hasher.finalize().into(), size));
        }
    }
}

/// Hashes a whole file wherever it is read. Several parts are read at once.
pub(super) fn hash_all(file: &File) -> io::Result<(BlobId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    let mut at = 0;
    loop {
        let parts: Vec<io::Result<usize>> = buffer
            .par_chunks_mut(HASH_BYTES / 4)
            .enumerate()
            .map(|(i, part)| fill_at(file, part, at + (i * HASH_BYTES / 4) as u64))
            .collect();
        let mut n = 0;
        for part in parts {
            n += part?;
        }
        hasher.update_rayon(&buffer[..n]);
        at += n as u64;
        if n < buffer.len() {
            return Ok((hasher.finalize().into(), at));
        }
    }
}

fn fill_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read_at(&mut buffer[n..], at + n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// Reads until the buffer is full or the file ends.
pub(super) fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn both_ways_of_hashing_agree() {
        for size in [0, 1, HASH_BYTES - 1, HASH_BYTES, HASH_BYTES + 1, 2 * HASH_BYTES + 77_777] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            let expected = (BlobId::of(&bytes), size as u64);
            assert_eq!(hash(&file).unwrap(), expected);
            assert_eq!(hash_all(&file).unwrap(), expected);
        }
    }

    #[test]
    fn a_verified_file_is_so_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), "s");
        let path = dir.path().join("f");
        fs::write(&path, b"abc").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let id = BlobId::of(b"abc");
        assert!(!files.is_verified(&id, &file));
        files.note_verified(&id, &file);
        assert!(files.is_verified(&id, &file));
        (&file).write_all(b"abcd").unwrap();
        assert!(!files.is_verified(&id, &file));
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), "s");
        fs::create_dir_all(dir.path().join("tmp/s")).unwrap();
        drop(files.temp().unwrap());
        assert_eq!(fs::read_dir(dir.path().join("tmp/s")).unwrap().count(), 0);
        let kept = dir.path().join("kept");
        files.temp().unwrap().rename(&kept).unwrap();
        assert!(kept.exists());
    }
}
