//! File operations relative to an open directory. None of them follows a symbolic link, so that a
//! tree with links in it, whoever made it, leads nowhere else.

use proto::limit;
use proto::tree::{Meta, Mtime, Xattrs};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Stat, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The attribute that makes a directory hide all of the same name below it.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// A path that leads to `name` in `dir` for as long as `dir` is open: for calls that take no
/// directory (extended attributes, the store).
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    PathBuf::from(OsStr::from_bytes(&path))
}

/// Opens a directory by a path of the host's, following links: only for paths of our own.
pub(crate) fn open_host_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `dir`.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?)
}

/// Makes the directory `name` in `dir`, closed to others until it gets a mode, and opens it.
pub(crate) fn make_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(&dir, name, Mode::RWXU)?;
    open_dir(dir, name)
}

/// Opens the regular file `name` in `dir` to read it.
pub(crate) fn open_file(dir: impl AsFd, name: &[u8]) -> io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?))
}

/// The metadata of `name` in `dir` itself.
pub(crate) fn stat(dir: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Opens what `path` leads to inside of `root`, links in it leading nowhere outside. The answer is
/// a place (`O_PATH`), not an open file.
pub(crate) fn resolve(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    resolve_with(root, path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// As [`resolve`], with other flags.
pub(crate) fn resolve_with(
    root: impl AsFd,
    path: &[u8],
    flags: OFlags,
    how: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"/" } else { path };
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // The kernel saw a rename or mount elsewhere and could not exclude an escape.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// The names in an open directory, unsorted.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut out = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            out.push(name.to_vec());
        }
    }
    Ok(out)
}

/// The target of the symbolic link `name` in `dir`.
pub(crate) fn read_link(dir: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Whether an extended attribute is the file's own: neither the host's (a label, a signature) nor
/// overlayfs's book-keeping. Access lists are the file's.
pub(crate) fn is_own_xattr(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_") || !proto::tree::is_host_xattr(name)
}

/// Extended attributes: name and value.
pub(crate) type XattrList = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes of `name` in `dir`, also those that are not its own.
pub(crate) fn all_xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<XattrList> {
    let path = proc_path(dir, name);
    read_xattrs(
        |list| rustix::fs::llistxattr(&path, list),
        |name, value| rustix::fs::lgetxattr(&path, name, value),
    )
}

/// All extended attributes of an open directory.
pub(crate) fn dir_xattrs(dir: impl AsFd) -> io::Result<XattrList> {
    read_xattrs(
        |list| rustix::fs::flistxattr(&dir, list),
        |name, value| rustix::fs::fgetxattr(&dir, name, value),
    )
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<XattrList> {
    let names = match grow(limit::XATTR_BYTES_MAX, list) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let value = grow(limit::XATTR_BYTES_MAX, |b| get(OsStr::from_bytes(name), b))?;
        Ok((name.to_vec(), value))
    };
    names.map(read).collect()
}

/// Calls with a small buffer, and with one of `max` bytes when that is too small.
fn grow(
    max: usize,
    call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; max];
            let len = call(&mut large)?;
            large.truncate(len);
            Ok(large)
        }
        Err(e) => Err(e),
    }
}

/// What a tree keeps of a file's metadata.
pub(crate) fn meta(stat: &Stat, xattrs: Xattrs) -> Meta {
    Meta {
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Mtime { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs,
    }
}

/// The time as the kernel takes it.
pub(crate) fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// People's own attributes are left out where the file system does not take them, as in BuildKit.
fn passed_over(name: &[u8], error: Errno) -> Result<(), Errno> {
    let is_peoples = name.starts_with(b"user.") || name.starts_with(b"trusted.");
    let is_refusal =
        matches!(error, Errno::NOTSUP | Errno::PERM | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE);
    if is_peoples && is_refusal { Ok(()) } else { Err(error) }
}

/// Makes a name that hides what is below it: a device 0:0
/// (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
pub(crate) fn white_out(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Gives an open directory its metadata, the time last. `opaque` adds overlayfs's attribute.
pub(crate) fn set_dir_meta(dir: impl AsFd, meta: &Meta, opaque: bool) -> io::Result<()> {
    let dir = dir.as_fd();
    rustix::fs::fchown(dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(meta.mode.into()))?;
    for (name, value) in meta.xattrs.iter().filter(|(name, _)| is_own_xattr(name)) {
        let set = rustix::fs::fsetxattr(dir, OsStr::from_bytes(name), value, XattrFlags::empty());
        set.or_else(|e| passed_over(name, e))?;
    }
    if opaque {
        rustix::fs::fsetxattr(dir, OsStr::from_bytes(OPAQUE), b"y", XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(dir, &timestamps(meta.mtime))?)
}

/// Gives `name` in `dir`, which is not a directory, its metadata.
pub(crate) fn set_meta(
    dir: BorrowedFd<'_>,
    name: &[u8],
    meta: &Meta,
    symlink: bool,
) -> io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), nofollow)?;
    if !symlink {
        let mode = Mode::from_raw_mode(meta.mode.into());
        rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
    }
    if !meta.xattrs.is_empty() {
        let path = proc_path(dir, name);
        for (name, value) in meta.xattrs.iter().filter(|(name, _)| is_own_xattr(name)) {
            let name = OsStr::from_bytes(name);
            let set = rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty());
            set.or_else(|e| passed_over(name.as_bytes(), e))?;
        }
    }
    Ok(rustix::fs::utimensat(dir, name, &timestamps(meta.mtime), nofollow)?)
}

/// Removes a directory of our own and all in it. What is not there is gone already.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Moves one of our own directories to where nothing is yet.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, flags)?)
}
