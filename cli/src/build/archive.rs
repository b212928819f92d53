//! Writes archives of images, and tars and directories of files, as they come from the farm.

use super::output::Place;
use crate::error::io;
use bytes::Bytes;
use cache::cluster::Cluster;
use proto::error::{Class, Failure};
use proto::wire::build::{ArchiveData, ArchiveEntry};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use worker::image::sha::Sha;

/// A file that is there under its name only when it is whole. A pipe or a device that is there
/// already is written to directly.
pub struct WholeFile {
    path: PathBuf,
    early: Option<PathBuf>,
    file: BufWriter<File>,
}

impl WholeFile {
    /// Begins a file.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| io("Writing", path, &e);
        let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        if special {
            let file = File::options().write(true).open(path).map_err(failed)?;
            return Ok(Self { path: path.to_owned(), early: None, file: BufWriter::new(file) });
        }
        if path.is_dir() {
            return Err(crate::error::user(format!("{} is a directory", path.display())));
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(failed)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let early = dir.join(format!(".{name}.{}.part", std::process::id()));
        let file = File::create(&early).map_err(failed)?;
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(Self { path: path.to_owned(), early: Some(early), file })
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), Failure> {
        let failed = |path: &Path, e: std::io::Error| io("Writing", path, &e);
        self.file.flush().map_err(|e| failed(&self.path, e))?;
        if let Some(early) = self.early.take() {
            std::fs::rename(&early, &self.path).map_err(|e| failed(&self.path, e))?;
        }
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(early) = &self.early {
            let _ = std::fs::remove_file(early);
        }
    }
}

/// What goes to whoever writes an archive: bytes, and at last `End`. Without an `End` the archive
/// is not whole.
pub enum Piece {
    /// Bytes.
    Bytes(Bytes),
    /// All was sent.
    End,
}

/// Pieces that wait for who writes.
const PIECES: usize = 16;

/// Writes an archive.
pub async fn write(
    blobs: &Arc<Cluster>,
    entries: Vec<ArchiveEntry>,
    place: &Place,
) -> Result<(), Failure> {
    let (pieces, queue) = mpsc::channel::<Piece>(PIECES);
    let writing = match place {
        Place::Engine => tokio::spawn(super::engine::load(queue)),
        Place::Stdout => to_file(queue, None),
        Place::File(path) => to_file(queue, Some(path.clone())),
    };
    let sent = send(blobs, entries, &pieces).await;
    ended(sent, pieces, writing).await
}

/// Waits for whoever writes what was sent.
async fn ended(
    sent: Result<(), Failure>,
    pieces: mpsc::Sender<Piece>,
    writing: JoinHandle<Result<(), Failure>>,
) -> Result<(), Failure> {
    let given_up = pieces.is_closed();
    drop(pieces);
    let written = match writing.await {
        Ok(result) => result,
        Err(e) => Err(Failure::new(Class::Bug, e.to_string())),
    };
    // When nobody takes the bytes any more, why not is what counts.
    match (sent, written) {
        (Err(_), Err(why)) if given_up => Err(why),
        (Err(sent), _) => Err(sent),
        (Ok(()), written) => written,
    }
}

fn to_file(
    mut queue: mpsc::Receiver<Piece>,
    path: Option<PathBuf>,
) -> JoinHandle<Result<(), Failure>> {
    tokio::task::spawn_blocking(move || {
        let shown = path.clone().unwrap_or_else(|| PathBuf::from("standard output"));
        let failed = |e: std::io::Error| io("Writing", &shown, &e);
        match path {
            Some(path) => {
                let mut file = WholeFile::create(&path)?;
                while let Some(piece) = queue.blocking_recv() {
                    match piece {
                        Piece::Bytes(bytes) => file.write_all(&bytes).map_err(failed)?,
                        Piece::End => return file.finish(),
                    }
                }
                Ok(())
            }
            None => {
                let mut out = std::io::stdout().lock();
                while let Some(Piece::Bytes(bytes)) = queue.blocking_recv() {
                    out.write_all(&bytes).map_err(failed)?;
                }
                out.flush().map_err(failed)
            }
        }
    })
}

/// Bytes at the end of a tar.
const TAR_END: usize = 1024;

async fn send(
    blobs: &Arc<Cluster>,
    entries: Vec<ArchiveEntry>,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Failure> {
    for entry in entries {
        let size = match &entry.data {
            ArchiveData::Inline(bytes) => bytes.len() as u64,
            ArchiveData::Blob(_, size, _) => *size,
            ArchiveData::Directory => 0,
        };
        put(pieces, header(&entry, size)?).await?;
        content(blobs, entry, pieces).await?;
        let padding = (512 - size % 512) % 512;
        if padding > 0 {
            put(pieces, Bytes::from(vec![0; padding as usize])).await?;
        }
    }
    put(pieces, Bytes::from(vec![0; TAR_END])).await?;
    pieces.send(Piece::End).await.map_err(|_| gone())
}

fn gone() -> Failure {
    Failure::new(Class::User, "Nobody reads the archive any more")
}

async fn put(pieces: &mpsc::Sender<Piece>, bytes: Bytes) -> Result<(), Failure> {
    pieces.send(Piece::Bytes(bytes)).await.map_err(|_| gone())
}

/// Sends the bytes of an entry. Those of a blob have the size and the digest that they should have,
/// or it is an error.
async fn content(
    blobs: &Arc<Cluster>,
    entry: ArchiveEntry,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Failure> {
    let (blob, size, digest) = match entry.data {
        ArchiveData::Directory => return Ok(()),
        ArchiveData::Inline(bytes) => return put(pieces, bytes.into()).await,
        ArchiveData::Blob(blob, size, digest) => (blob, size, digest),
    };
    let taken = std::sync::Mutex::new((Sha::new(), 0u64));
    let take = |piece: Bytes| {
        {
            let mut taken = taken.lock().unwrap_or_else(|p| p.into_inner());
            taken.0.update(&piece);
            taken.1 += piece.len() as u64;
        }
        let pieces = pieces.clone();
        async move {
            let sent = pieces.send(Piece::Bytes(piece)).await;
            sent.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
        }
    };
    blobs.get_large(blob, 0, take).await?;
    let (sha, length) = taken.into_inner().unwrap_or_else(|p| p.into_inner());
    if length != size || sha.finish() != digest {
        let message = format!("{} came from the farm with other bytes", entry.path);
        return Err(Failure::new(Class::Corrupt, message));
    }
    Ok(())
}

/// The header of an entry: the same for the same content, whoever builds when.
fn header(entry: &ArchiveEntry, size: u64) -> Result<Bytes, Failure> {
    let mut header = tar::Header::new_ustar();
    let bad = |e: std::io::Error| Failure::new(Class::Bug, format!("{}: {e}", entry.path));
    header.set_path(&entry.path).map_err(bad)?;
    let is_dir = matches!(entry.data, ArchiveData::Directory);
    header.set_entry_type(if is_dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
    header.set_mode(if is_dir { 0o755 } else { 0o444 });
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// Writes an archive as a directory.
pub async fn write_layout(
    blobs: &Arc<Cluster>,
    entries: Vec<ArchiveEntry>,
    dir: &Path,
) -> Result<(), Failure> {
    for entry in entries {
        let path = dir.join(&entry.path);
        if matches!(entry.data, ArchiveData::Directory) {
            let made = tokio::fs::create_dir_all(&path).await;
            made.map_err(|e| io("Making", &path, &e))?;
            continue;
        }
        let (pieces, queue) = mpsc::channel::<Piece>(PIECES);
        let writing = to_file(queue, Some(path));
        let sent = match content(blobs, entry, &pieces).await {
            Ok(()) => pieces.send(Piece::End).await.map_err(|_| gone()),
            failed => failed,
        };
        ended(sent, pieces, writing).await?;
    }
    Ok(())
}
