//! Making files from blobs.
//!
//! No two files that were placed share an inode, since a program in a container would take them for
//! hard links. The inode of a large blob's own file is given to the first who asks, which costs
//! nothing; as long as that file lives, the next get a reflink or a copy. Nobody may write to a
//! placed file, so that the blob stays what it is; its metadata are of no concern to the store.

use super::Inner;
use super::value::Place;
use crate::store::StoreError;
use proto::id::BlobId;
use proto::tree::{Meta, Xattrs};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Bytes of one call that copies inside of the kernel.
const COPY_BYTES: usize = 1 << 30;

impl Inner {
    /// See [`crate::store::Store::place`].
    pub fn place(&self, id: &BlobId, meta: &Meta, dest: &Path) -> Result<(), StoreError> {
        match self.find(id)? {
            Place::Packed(span) => {
                let bytes = self.read_packed(id, span)?;
                make(dest, meta, |file| file.write_all(&bytes))
            }
            Place::File { size } => {
                let file = self.open_file(id, size)?;
                self.verify_file(id, size, &file)?;
                if self.give_away(id, &file, meta, dest)? {
                    return Ok(());
                }
                make(dest, meta, |to| copy(&file, to, size))
            }
        }
    }

    /// Makes `dest` a link to the blob's own file, if nobody has one yet.
    fn give_away(
        &self,
        id: &BlobId,
        file: &File,
        meta: &Meta,
        dest: &Path,
    ) -> Result<bool, StoreError> {
        let _lock = self.files.lock(id);
        let fault = StoreError::io("Placing", dest);
        let own = match rustix::fs::fstat(file) {
            Ok(stat) => stat.st_nlink == 1,
            Err(error) => return Err(fault(error.into())),
        };
        if !own {
            return Ok(false);
        }
        let given = strip(file, &meta.xattrs)
            .and_then(|()| set_meta(file, meta))
            .and_then(|()| Ok(link(file, dest)?));
        match given {
            Ok(()) => {
                // Links and metadata changed the ctime, the content is what it was.
                self.files.note_verified(id, file);
                Ok(true)
            }
            // Over there is another file system, or one without links, or the file is locked down.
            Err(error) if is_no_link(&error) => Ok(false),
            Err(error) => Err(fault(error)),
        }
    }
}

fn is_no_link(error: &io::Error) -> bool {
    let kinds = [Errno::XDEV, Errno::MLINK, Errno::PERM, Errno::OPNOTSUPP];
    kinds.iter().any(|kind| error.raw_os_error() == Some(kind.raw_os_error()))
}

/// Links an open file to a name, whatever became of the name that it was opened by.
pub(super) fn link(file: &File, dest: &Path) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, CWD, dest, AtFlags::SYMLINK_FOLLOW)
}

/// Makes a file; nothing is left of one that can't be finished.
fn make(
    dest: &Path,
    meta: &Meta,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), StoreError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Set-id bits have to wait for the owner; what the umask takes away comes back with the rest.
    let opened = rustix::fs::open(dest, flags, Mode::from_raw_mode(u32::from(meta.mode & 0o777)));
    let mut file: File = opened.map_err(|e| StoreError::io("Placing", dest)(e.into()))?.into();
    fill(&mut file).and_then(|()| set_meta(&file, meta)).map_err(|error| {
        let _ = std::fs::remove_file(dest);
        StoreError::io("Placing", dest)(error)
    })
}

/// Copies a whole file: shares its bytes on disk where the file system can.
fn copy(from: &File, to: &File, size: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let (mut read, mut written) = (0, 0);
    while written < size {
        let want = COPY_BYTES.min((size - written) as usize);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), want) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Before 5.19 not across file systems, and on some never.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if written == 0 => {
                return copy_by_hand(from, to);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, mut to: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match from.read_at(&mut buffer, at) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sets owner, mode, attributes and times, in the order in which the kernel leaves them alone: a
/// change of owner takes set-id bits and capabilities away, and every change is one of ctime only.
fn set_meta(file: &File, meta: &Meta) -> io::Result<()> {
    // A change costs the file system a transaction, a look does not.
    let is = rustix::fs::fstat(file)?;
    let owned = (is.st_uid, is.st_gid) == (meta.uid, meta.gid);
    if !owned {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    for (name, value) in meta.xattrs.iter() {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?;
    }
    // Access control lists among the attributes change the mode too.
    if !owned || !meta.xattrs.is_empty() || is.st_mode & 0o7777 != u32::from(meta.mode) {
        rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode.into()))?;
    }
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanos.into() };
    rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?;
    Ok(())
}

/// Takes away the extended attributes that an earlier use of the inode left. What belongs to the
/// host's security modules can't go, and does not matter.
fn strip(file: &File, wanted: &Xattrs) -> io::Result<()> {
    let mut names = vec![0; 4 << 10];
    let len = loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(len) => break len,
            Err(Errno::RANGE) => names.resize(names.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    };
    let is_wanted = |name: &[u8]| wanted.iter().any(|(wanted, _)| wanted == name);
    for name in names[..len].split(|b| *b == 0).filter(|n| !n.is_empty() && !is_wanted(n)) {
        match rustix::fs::fremovexattr(file, name) {
            Err(error) if proto::tree::is_host_xattr(name) => {
                tracing::trace!(%error, "An attribute of the host stays");
            }
            other => other?,
        }
    }
    Ok(())
}
