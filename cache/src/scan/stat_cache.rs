//! What files hashed to when they were last read, and their extended attributes: an unchanged file
//! costs a stat.
//!
//! A file is taken for unchanged when device, inode, size, time of last change and time of last
//! change of its inode are the same. Files that were changed less than two seconds before they
//! were read are not remembered: another write in the same tick of the file system's clock would
//! not show.

use proto::id::BlobId;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How old a change must be to be trusted: nanoseconds.
const SETTLED_NANOS: i128 = 2_000_000_000;

/// The version of the file; another one is not read.
const VERSION: u8 = 2;

/// What tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Stamp {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// The content's last change: nanoseconds since 1970.
    pub mtime: i128,
    /// The inode's last change: nanoseconds since 1970.
    pub ctime: i128,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Known {
    /// The file as it was.
    pub stamp: Stamp,
    /// What it hashed to.
    pub blob: BlobId,
    /// Its extended attributes, as far as they are kept: changing one changes the inode.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is known of the files of one directory, by their paths in it.
#[derive(Debug, Default)]
pub struct StatCache {
    place: Option<PathBuf>,
    known: HashMap<Vec<u8>, Known>,
}

impl StatCache {
    /// What was kept for the directory `of` under `dir`; empty when nothing was, or when it cannot
    /// be read: it only saves time.
    pub fn load(dir: &Path, of: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let name = BlobId::of(of.as_os_str().as_bytes()).to_string();
        let place = dir.join(name);
        let known = read(&place).unwrap_or_default();
        Self { place: Some(place), known: known.into_iter().collect() }
    }

    /// What is known of the file, if it has not changed.
    pub fn get(&self, path: &[u8], stamp: &Stamp) -> Option<&Known> {
        self.known.get(path).filter(|known| known.stamp == *stamp)
    }

    /// Keeps what is known now in place of what was, if that differs. `scanned_at` is when the
    /// scan began: nanoseconds since 1970.
    pub fn store(
        &mut self,
        now: HashMap<Vec<u8>, Known>,
        scanned_at: i128,
        complete: bool,
    ) -> io::Result<()> {
        let settled = |known: &Known| {
            let newest = known.stamp.mtime.max(known.stamp.ctime);
            newest + SETTLED_NANOS < scanned_at
        };
        let mut now: HashMap<_, _> = now.into_iter().filter(|(_, k)| settled(k)).collect();
        if !complete {
            // Only a part was looked at: what is known of the rest stays.
            for (path, known) in &self.known {
                now.entry(path.clone()).or_insert_with(|| known.clone());
            }
        }
        if now == self.known {
            return Ok(());
        }
        self.known = now;
        match &self.place {
            Some(place) => write(place, &self.known),
            None => Ok(()),
        }
    }
}

fn read(place: &Path) -> Option<Vec<(Vec<u8>, Known)>> {
    let mut bytes = rkyv::util::AlignedVec::<16>::new();
    let mut file = std::fs::File::open(place).ok()?;
    let mut version = [0];
    file.read_exact(&mut version).ok()?;
    if version != [VERSION] {
        return None;
    }
    bytes.extend_from_reader(&mut file).ok()?;
    rkyv::from_bytes::<Vec<(Vec<u8>, Known)>, RkyvError>(&bytes).ok()
}

fn write(place: &Path, known: &HashMap<Vec<u8>, Known>) -> io::Result<()> {
    let mut list: Vec<_> = known.iter().map(|(p, k)| (p.clone(), k.clone())).collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    let bytes = rkyv::to_bytes::<RkyvError>(&list).map_err(io::Error::other)?;
    let dir = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(dir)?;
    // Another client may write the same file: each has its own early name, the last one stays.
    let early = dir.join(format!("{}.new", std::process::id()));
    let mut file = std::fs::File::create(&early)?;
    file.write_all(&[VERSION])?;
    file.write_all(&bytes)?;
    drop(file);
    std::fs::rename(early, place)
}
