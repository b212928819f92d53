//! Places for mounts: made in the root where there is nothing yet, and taken away again after the
//! run, if they are still empty, so that they are no part of the layer.
//!
//! Directories on the way to them go too, and directories that only held them get their times back.

use crate::rootfs::at;
use proto::path::clamp;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Links that are followed to places that are not there yet. Linux's own bound for one path.
const LINKS_MAX: usize = 40;

/// What is needed at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    Dir,
    File,
}

/// The times of last access and change.
type Times = (Timespec, Timespec);

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    /// In the order of making: directory (as a path inside without links), name, kind.
    made: Vec<(Vec<u8>, Vec<u8>, PlaceKind)>,
    /// The times of directories that something was made in: before, and after all was made.
    times: BTreeMap<Vec<u8>, (Times, Option<Times>)>,
}

impl Stubs {
    /// Makes sure that there is something of that kind at the path inside of `root`. What is there
    /// already is left alone, whatever it is.
    pub(crate) fn make(&mut self, root: impl AsFd, path: &str, kind: PlaceKind) -> io::Result<()> {
        let made = make_path(root, path.as_bytes(), kind, (0, 0))?;
        for (dir, name, kind, before) in made {
            self.times.entry(dir.clone()).or_insert((before, None));
            self.made.push((dir, name, kind));
        }
        Ok(())
    }

    /// To be called when all are made.
    pub(crate) fn settle(&mut self, root: impl AsFd) -> io::Result<()> {
        for (dir, (_, after)) in &mut self.times {
            *after = Some(times(&rustix::fs::fstat(at::resolve(&root, dir)?)?));
        }
        Ok(())
    }

    /// Takes away what is still as it was made, from the upper directory of the root. All processes
    /// of the container are gone.
    pub(crate) fn clean(&self, upper: impl AsFd) -> io::Result<()> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut restore = Vec::new();
        for (dir, name, kind) in self.made.iter().rev() {
            // A directory that is not there any more, or is something else now, holds none of ours.
            let Ok(fd) = at::resolve_with(&upper, dir, flags, how) else { continue };
            let now = times(&rustix::fs::fstat(&fd)?);
            if let Some((before, Some(after))) = self.times.get(dir)
                && after.1 == now.1
                && !restore.iter().any(|(_, there, _)| *there == dir)
            {
                restore.push((fd.try_clone()?, dir, *before));
            }
            let is_empty_file = || at::stat(&fd, name).is_ok_and(|s| is_file(&s) && s.st_size == 0);
            match kind {
                PlaceKind::Dir => {
                    let _ = rustix::fs::unlinkat(&fd, name.as_slice(), AtFlags::REMOVEDIR);
                }
                PlaceKind::File if is_empty_file() => {
                    rustix::fs::unlinkat(&fd, name.as_slice(), AtFlags::empty())?;
                }
                PlaceKind::File => {}
            }
        }
        for (fd, _, (last_access, last_modification)) in restore {
            rustix::fs::futimens(&fd, &Timestamps { last_access, last_modification })?;
        }
        Ok(())
    }
}

/// Makes a directory, and those on the way to it, with that owner. Answers whether it was made; what
/// is there already is left alone.
pub(crate) fn make_dir(root: impl AsFd, path: &str, owner: (u32, u32)) -> io::Result<bool> {
    Ok(!make_path(root, path.as_bytes(), PlaceKind::Dir, owner)?.is_empty())
}

/// What something is, for messages.
pub(crate) fn describe(stat: &Stat) -> &'static str {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Symlink => "a symbolic link",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "something unknown",
    }
}

/// Where an open file lies inside of `root`, without links on the way.
pub(crate) fn path_in(root: impl AsFd, fd: impl AsFd) -> io::Result<Vec<u8>> {
    let path = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let (root, whole) = (path(root.as_fd())?, path(fd.as_fd())?);
    // For a detached mount, `/` is its own root.
    let inside = whole.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?;
    Ok([b"/", inside.as_os_str().as_bytes()].concat())
}

pub(crate) fn is_file(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

fn times(stat: &Stat) -> Times {
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    (time(stat.st_atime, stat.st_atime_nsec), time(stat.st_mtime, stat.st_mtime_nsec))
}

type Made = (Vec<u8>, Vec<u8>, PlaceKind, Times);

/// The kernel resolves each step inside of the root. Only where it finds nothing do we look: it may
/// be a link to a place that is not there yet, whose target then takes the link's place in the path.
fn make_path(
    root: impl AsFd,
    path: &[u8],
    kind: PlaceKind,
    owner: (u32, u32),
) -> io::Result<Vec<Made>> {
    let mut made = Vec::new();
    let mut links = 0;
    let mut steps: Vec<Vec<u8>> = clamp(path).into_iter().map(<[u8]>::to_vec).collect();
    let mut here: Vec<u8> = b"/".to_vec();
    let mut next = 0;
    while next < steps.len() {
        let name = steps[next].clone();
        let step = join(&here, &name);
        match at::resolve(&root, &step) {
            Ok(fd) => {
                here = path_in(&root, &fd)?;
                next += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = at::resolve(&root, &here)?;
                if let Ok(target) = at::read_link(&dir, &name) {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    let whole = match target.first() {
                        Some(b'/') => target,
                        _ => join(&here, &target),
                    };
                    // With `..` left in: the kernel resolves it, step by step.
                    let mut all = split(&whole);
                    all.extend(steps.drain(..).skip(next + 1));
                    (steps, here, next) = (all, b"/".to_vec(), 0);
                    continue;
                }
                let last = next + 1 == steps.len();
                let kind = if last { kind } else { PlaceKind::Dir };
                let before = times(&rustix::fs::fstat(&dir)?);
                make_one(&dir, &name, kind, owner)?;
                made.push((here.clone(), name, kind, before));
                here = step;
                next += 1;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(made)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, slash, name].concat()
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

fn make_one(dir: &OwnedFd, name: &[u8], kind: PlaceKind, (uid, gid): (u32, u32)) -> io::Result<()> {
    let mode = match kind {
        PlaceKind::Dir => {
            rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
            0o755
        }
        PlaceKind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
            0o644
        }
    };
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    if (uid, gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), nofollow)?;
    }
    Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        let fd = at::open_host_dir(temp.path()).unwrap();
        (temp, fd)
    }

    fn old(path: &Path) {
        let time = proto::tree::Mtime { seconds: 1000, nanos: 5 };
        let fd = at::open_host_dir(path).unwrap();
        rustix::fs::futimens(fd, &at::timestamps(time)).unwrap();
    }

    #[test]
    fn places_are_made_and_taken_away() {
        let (temp, fd) = root();
        let p = |name: &str| temp.path().join(name);
        fs::create_dir(p("etc")).unwrap();
        fs::write(p("etc/hosts"), "there").unwrap();
        old(&p("etc"));
        let mut stubs = Stubs::default();
        for (path, kind) in [
            ("/etc/hosts", PlaceKind::File),
            ("/etc/resolv.conf", PlaceKind::File),
            ("/new/dir/x", PlaceKind::Dir),
            ("/new/dir/f", PlaceKind::File),
        ] {
            stubs.make(&fd, path, kind).unwrap();
        }
        stubs.settle(&fd).unwrap();
        assert!(p("new/dir/x").is_dir() && p("new/dir/f").is_file());
        assert_eq!(p("new/dir").metadata().unwrap().mode() & 0o7777, 0o755);
        stubs.clean(&fd).unwrap();
        assert!(!p("new").exists() && !p("etc/resolv.conf").exists());
        assert_eq!(fs::read_to_string(p("etc/hosts")).unwrap(), "there");
        let etc = p("etc").metadata().unwrap();
        assert_eq!((etc.mtime(), etc.mtime_nsec()), (1000, 5));
    }

    #[test]
    fn what_the_container_used_stays() {
        let (temp, fd) = root();
        let p = |name: &str| temp.path().join(name);
        fs::create_dir(p("etc")).unwrap();
        old(&p("etc"));
        let mut stubs = Stubs::default();
        stubs.make(&fd, "/run/secrets/s", PlaceKind::File).unwrap();
        stubs.make(&fd, "/etc/f", PlaceKind::File).unwrap();
        stubs.make(&fd, "/full", PlaceKind::File).unwrap();
        stubs.make(&fd, "/gone/x", PlaceKind::Dir).unwrap();
        stubs.settle(&fd).unwrap();
        fs::write(p("run/own"), "").unwrap();
        fs::write(p("etc/own"), "").unwrap();
        fs::write(p("full"), "x").unwrap();
        fs::remove_dir_all(p("gone")).unwrap();
        symlink("etc", p("gone")).unwrap();
        fs::create_dir(p("etc/x")).unwrap();
        stubs.clean(&fd).unwrap();
        assert!(p("run/own").exists() && !p("run/secrets").exists());
        assert!(p("etc/own").exists() && !p("etc/f").exists() && p("etc/x").exists());
        assert_ne!(p("etc").metadata().unwrap().mtime(), 1000);
        assert!(p("full").exists());
    }

    #[test]
    fn links_lead_inside_only() {
        let (temp, fd) = root();
        let outside = tempfile::tempdir().unwrap();
        let p = |name: &str| temp.path().join(name);
        fs::create_dir_all(p("a/b")).unwrap();
        symlink(outside.path(), p("abs")).unwrap();
        symlink("../../../../../escaped", p("a/up")).unwrap();
        symlink("/run/resolve/stub.conf", p("a/resolv.conf")).unwrap();
        symlink("b/../c/d", p("a/dots")).unwrap();
        symlink("loop2", p("loop1")).unwrap();
        symlink("loop1", p("loop2")).unwrap();
        let mut stubs = Stubs::default();
        stubs.make(&fd, "/abs/x", PlaceKind::File).unwrap();
        stubs.make(&fd, "/a/up/x", PlaceKind::File).unwrap();
        stubs.make(&fd, "/a/resolv.conf", PlaceKind::File).unwrap();
        stubs.make(&fd, "/a/dots/e", PlaceKind::Dir).unwrap();
        assert!(stubs.make(&fd, "/loop1/x", PlaceKind::Dir).is_err());
        stubs.settle(&fd).unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(temp.path().join(outside.path().strip_prefix("/").unwrap()).join("x").exists());
        assert!(p("escaped/x").exists() && p("run/resolve/stub.conf").exists());
        assert!(p("a/c/d/e").is_dir());
        stubs.clean(&fd).unwrap();
        assert!(!p("escaped").exists() && !p("run").exists() && !p("a/c").exists());
    }

    #[test]
    fn a_directory_with_an_owner() {
        let (temp, fd) = root();
        assert!(make_dir(&fd, "/w/deep", (1000, 7)).unwrap());
        assert!(!make_dir(&fd, "/w/deep", (0, 0)).unwrap());
        for path in ["w", "w/deep"] {
            let meta = temp.path().join(path).metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 7, 0o755));
        }
        fs::write(temp.path().join("file"), "").unwrap();
        assert!(make_dir(&fd, "/file/x", (0, 0)).is_err());
    }
}
