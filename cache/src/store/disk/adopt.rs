//! Taking files that lie elsewhere: a link where it can be, so that no byte moves.
//!
//! The inode then counts as given away, since its first name is in a tree of files already.

use super::Inner;
use super::files::hash;
use super::place::link;
use crate::store::{BlobWriter, StoreError};
use proto::id::BlobId;
use proto::limit::PACKED_BLOB_BYTES_MAX;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

impl Inner {
    /// See [`crate::store::Store::adopt`].
    pub fn adopt(inner: &Arc<Self>, path: &Path) -> Result<(BlobId, u64), StoreError> {
        let error = |e: io::Error| StoreError::io("Taking", path)(e);
        // Opening a pipe must not wait for who writes to it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| error(e.into()))?;
        let file = File::from(file);
        let before = file.metadata().map_err(error)?;
        if !before.is_file() {
            return Err(error(io::Error::other("it is not a regular file")));
        }
        if before.len() <= PACKED_BLOB_BYTES_MAX as u64 {
            let mut bytes = Vec::with_capacity(before.len() as usize);
            let limit = PACKED_BLOB_BYTES_MAX as u64 + 1;
            (&file).take(limit).read_to_end(&mut bytes).map_err(error)?;
            let id = BlobId::of(&bytes);
            let after = file.metadata().map_err(error)?;
            check_still(path, &before, &after, bytes.len() as u64)?;
            inner.put_packed(&[(id, &bytes)])?;
            return Ok((id, bytes.len() as u64));
        }
        let (id, size) = hash(&file).map_err(error)?;
        let after = file.metadata().map_err(error)?;
        check_still(path, &before, &after, size)?;
        if !inner.adopt_link(&id, size, &file)? {
            adopt_copy(inner, &id, path, file)?;
        }
        Ok((id, size))
    }

    /// Links a hashed file into the store; answers whether that could be.
    fn adopt_link(&self, id: &BlobId, size: u64, file: &File) -> Result<bool, StoreError> {
        let _room = self.reserve(1, 0)?;
        let _lock = self.files.lock(id);
        if self.has_file(id, size)? {
            return Ok(true);
        }
        let path = self.files.path(id);
        let mut linked = true;
        let install = || match link_over(file, &path) {
            Ok(()) => {
                self.files.note_verified(id, file);
                Ok(())
            }
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOENT) => {
                linked = false;
                Err(StoreError::NoBlob(*id))
            }
            Err(error) => Err(StoreError::io("Linking", &path)(error.into())),
        };
        match self.put_file(id, size, install) {
            Err(StoreError::NoBlob(_)) if !linked => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// Links a file to a name; what has that name goes. The caller has seen that it is not in use.
fn link_over(file: &File, path: &Path) -> rustix::io::Result<()> {
    match link(file, path) {
        Err(Errno::EXIST) => {
            rustix::fs::unlink(path)?;
            link(file, path)
        }
        other => other,
    }
}

fn adopt_copy(
    inner: &Arc<Inner>,
    id: &BlobId,
    path: &Path,
    mut file: File,
) -> Result<(), StoreError> {
    let mut writer = Box::new(super::write::Writer::new(inner.clone()));
    let mut copy = || -> io::Result<()> {
        file.rewind()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = super::files::fill(&mut file, &mut buffer)?;
            writer.write_all(&buffer[..n])?;
            if n < buffer.len() {
                return Ok(());
            }
        }
    };
    copy().map_err(|error| match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(error) => StoreError::io("Copying", path)(error),
    })?;
    writer.finish(Some(*id)).map(|_| ())
}

/// Who adopts a file promises that nobody writes to it; what breaks that promise is refused as far
/// as it can be seen.
fn check_still(
    path: &Path,
    before: &std::fs::Metadata,
    after: &std::fs::Metadata,
    read: u64,
) -> Result<(), StoreError> {
    let stamp = |m: &std::fs::Metadata| (m.len(), m.mtime(), m.mtime_nsec());
    if stamp(before) == stamp(after) && read == before.len() {
        return Ok(());
    }
    let source = io::Error::other("it was written to while it was read");
    Err(StoreError::Io { action: "Taking", path: path.to_owned(), source })
}
