//! The files of an archive or a layout, found by their paths. Whatever is read is in the store
//! afterwards, under its hash.

use super::load::LoadError;
use crate::image::sha::Sha;
use crate::image::tape::{Kind, Reader};
use crate::image::unpack::{BadArchive, components, decompressed, write_error};
use cache::store::Store;
use proto::id::{BlobId, OciDigest};
use proto::limit;
use proto::path::join_absolute;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Files of one archive. Real ones have a few for each layer.
const FILES_MAX: usize = 100_000;

/// Links from one file of an archive to another: `docker save` of old named repeated layers so.
const LINKS_MAX: usize = 8;

/// A file of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub blob: BlobId,
    pub size: u64,
    pub digest: OciDigest,
}

/// Where files are found.
pub enum Files {
    /// All are in the store.
    Read { files: HashMap<Vec<u8>, Found>, links: HashMap<Vec<u8>, Vec<u8>> },
    /// They are read when they are asked for.
    Dir { root: File, path: PathBuf, known: HashMap<Vec<u8>, Found> },
}

impl Files {
    /// Reads a tar, compressed or not.
    pub fn of_tar(store: &dyn Store, input: impl Read + Send) -> Result<Self, LoadError> {
        let bad = |why: BadArchive| LoadError::Archive(why);
        decompressed(input, |pieces| {
            let (mut files, mut links) = (HashMap::new(), HashMap::new());
            let mut tape = Reader::new(pieces);
            while let Some(head) = tape.next_head().map_err(|e| bad(e.into()))? {
                if files.len() + links.len() >= FILES_MAX {
                    return Err(bad(BadArchive::TooMuch("100,000 files")));
                }
                let names = components(&head.path).map_err(|why| {
                    let path = String::from_utf8_lossy(&head.path).into_owned();
                    bad(BadArchive::Name { path, why })
                })?;
                let names: Vec<&[u8]> = names.iter().map(|n| n.as_bytes()).collect();
                let path = names.join(&b'/');
                match head.kind {
                    Kind::File => {
                        files.insert(path, take(store, &mut tape)?);
                    }
                    Kind::HardLink => {
                        links.insert(path, join_absolute(b"/", &head.link)[1..].to_vec());
                    }
                    Kind::Symlink => {
                        let dir = names[..names.len().saturating_sub(1)].join(&b'/');
                        links.insert(path, join_absolute(&dir, &head.link)[1..].to_vec());
                    }
                    Kind::Char | Kind::Block | Kind::Dir | Kind::Fifo => {}
                }
            }
            tape.into_inner().drain();
            Ok(Self::Read { files, links })
        })
        .map_err(bad)?
    }

    /// Looks into a directory. What is in it is resolved inside it by the kernel.
    pub fn of_dir(path: &Path) -> Result<Self, LoadError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty());
        let failed =
            |e: rustix::io::Errno| LoadError::Read { path: path.to_owned(), source: e.into() };
        let root = File::from(root.map_err(failed)?);
        Ok(Self::Dir { root, path: path.to_owned(), known: HashMap::new() })
    }

    /// The file with this path; None when there is none.
    pub fn find(&mut self, store: &dyn Store, path: &str) -> Result<Option<Found>, LoadError> {
        let mut at = path.as_bytes().to_vec();
        match self {
            Self::Read { files, links } => {
                for _ in 0..LINKS_MAX {
                    match links.get(&at) {
                        Some(to) => at = to.clone(),
                        None => break,
                    }
                }
                Ok(files.get(&at).copied())
            }
            Self::Dir { root, path: dir, known } => {
                if let Some(found) = known.get(&at) {
                    return Ok(Some(*found));
                }
                let failed = |source| LoadError::Read { path: dir.join(path), source };
                let Some(mut file) = open_inside(root, path).map_err(failed)? else {
                    return Ok(None);
                };
                let found = take(store, &mut file)?;
                known.insert(at, found);
                Ok(Some(found))
            }
        }
    }
}

/// Opens a file that is resolved inside the directory by the kernel; None when there is none.
pub fn open_inside(root: &File, path: &str) -> io::Result<Option<File>> {
    // Without NONBLOCK, a named pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), inside) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(Some(file))
}

/// Puts all that `input` gives into the store.
fn take(store: &dyn Store, input: &mut impl Read) -> Result<Found, LoadError> {
    let unread = |e| LoadError::Archive(BadArchive::Read(e));
    let small = limit::PACKED_BLOB_BYTES_MAX;
    let mut start = Vec::new();
    input.by_ref().take(small as u64 + 1).read_to_end(&mut start).map_err(unread)?;
    let mut sha = Sha::new();
    sha.update(&start);
    if start.len() <= small {
        let (blob, size) = (BlobId::of(&start), start.len() as u64);
        store.put_blobs(&[(blob, start.into())])?;
        return Ok(Found { blob, size, digest: sha.finish() });
    }
    let mut writer = store.writer()?;
    let mut piece = start;
    while !piece.is_empty() {
        writer.write_all(&piece).map_err(write_error)?;
        piece.clear();
        input.by_ref().take(1 << 20).read_to_end(&mut piece).map_err(unread)?;
        sha.update(&piece);
    }
    let (blob, size) = writer.finish(None)?;
    Ok(Found { blob, size, digest: sha.finish() })
}
