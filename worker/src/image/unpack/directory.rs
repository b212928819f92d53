//! An archive into a directory of this machine: a build context that came on standard input.

use super::super::tape::{Head, Kind, Reader};
use super::error::BadArchive;
use super::name::components;
use super::stream::decompressed;
use super::time_of_file;
use super::tree::show;
use crate::rootfs::at;
use proto::limit;
use proto::path::join_absolute;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Unpacks an archive, compressed or not, below `dir`. Whatever names and links it holds, nothing
/// is written elsewhere: the kernel resolves them inside of `dir`. Files belong to whoever calls;
/// devices are left out, and so are extended attributes: no COPY takes them from a context. Answers
/// the time of the newest file, as [`newest_file`](super::newest_file) does.
pub fn to_directory(input: impl Read + Send, dir: &Path) -> Result<Option<i64>, BadArchive> {
    let root = at::open_host_dir(dir).map_err(BadArchive::Read)?;
    decompressed(input, |pieces| {
        let mut tape = Reader::new(pieces);
        let mut growing = Growing { root, dirs: Vec::new(), entries: 0 };
        let mut newest = None;
        while let Some(head) = tape.next_head()? {
            growing.put(&head, &mut tape)?;
            newest = newest.max(time_of_file(&head));
        }
        tape.into_inner().drain();
        growing.finish().map_err(BadArchive::Read)?;
        Ok(newest)
    })?
}

struct Growing {
    root: OwnedFd,
    /// What directories are to look like in the end: writing into them changes their times.
    dirs: Vec<(Vec<u8>, Head)>,
    entries: u64,
}

impl Growing {
    fn put(&mut self, head: &Head, content: &mut impl Read) -> Result<(), BadArchive> {
        self.entries += 1;
        if self.entries > limit::LAYER_ENTRIES_MAX {
            return Err(BadArchive::TooMuch("as many files as a layer may"));
        }
        let bad = |why| BadArchive::Name { path: show(&head.path), why };
        let names = components(&head.path).map_err(bad)?;
        let names: Vec<&[u8]> = names.iter().map(|n| n.as_bytes()).collect();
        let Some((name, parents)) = names.split_last() else { return Ok(()) };
        let failed = |e: io::Error| {
            BadArchive::Read(io::Error::new(e.kind(), format!("{}: {e}", show(&head.path))))
        };
        let parent = self.make_dirs(parents).map_err(failed)?;
        if head.kind == Kind::Dir {
            self.make_dirs(&names).map_err(failed)?;
            self.dirs.push((names.join(&b'/'), head.clone()));
            return Ok(());
        }
        remove_leaf(&parent, name).map_err(failed)?;
        self.put_leaf(&parent, name, head, content).map_err(failed)
    }

    fn resolve(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        at::resolve_with(&self.root, path, flags, inside)
    }

    /// Opens a directory below the root; makes what is missing.
    fn make_dirs(&self, names: &[&[u8]]) -> io::Result<OwnedFd> {
        match self.resolve(&names.join(&b'/')) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut at = self.resolve(b"/")?;
        for depth in 1..=names.len() {
            at = match self.resolve(&names[..depth].join(&b'/')) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&at, names[depth - 1], Mode::from_raw_mode(0o755))?;
                    at::open_dir(&at, names[depth - 1])?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    fn put_leaf(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        head: &Head,
        content: &mut impl Read,
    ) -> io::Result<()> {
        match head.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o600);
                let mut file = File::from(rustix::fs::openat(parent, name, flags, mode)?);
                let copied = io::copy(&mut content.take(head.size), &mut file)?;
                if copied < head.size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                rustix::fs::fchmod(&file, Mode::from_raw_mode(u32::from(head.mode & 0o777)))?;
                Ok(rustix::fs::futimens(&file, &at::timestamps(head.mtime))?)
            }
            Kind::HardLink => {
                let target = join_absolute(b"/", &head.link);
                let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let there = at::resolve_with(&self.root, &target, OFlags::PATH, inside)?;
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&there));
                let follow = AtFlags::SYMLINK_FOLLOW;
                Ok(rustix::fs::linkat(rustix::fs::CWD, path, parent, name, follow)?)
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(&*head.link, parent, name)?;
                let (time, own) = (at::timestamps(head.mtime), AtFlags::SYMLINK_NOFOLLOW);
                Ok(rustix::fs::utimensat(parent, name, &time, own)?)
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(u32::from(head.mode & 0o777));
                Ok(rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)?)
            }
            Kind::Char | Kind::Block | Kind::Dir => Ok(()),
        }
    }

    fn finish(self) -> io::Result<()> {
        for (path, head) in self.dirs.iter().rev() {
            let dir = self.resolve(path)?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(u32::from(head.mode & 0o777) | 0o700))?;
            rustix::fs::futimens(&dir, &at::timestamps(head.mtime))?;
        }
        Ok(())
    }
}

/// Of two entries with one name the later counts.
fn remove_leaf(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tape::{END, encode, padding};
    use proto::tree::Mtime;

    fn entry(tar: &mut Vec<u8>, path: &str, kind: Kind, link: &str, data: &[u8]) {
        let head = Head {
            path: path.into(),
            kind,
            mode: 0o755,
            uid: 7,
            gid: 7,
            mtime: Mtime { seconds: 1_600_000_000, nanos: 0 },
            link: link.into(),
            size: data.len() as u64,
            device: (0, 0),
            xattrs: Vec::new(),
        };
        tar.extend_from_slice(&encode(&head));
        tar.extend_from_slice(data);
        tar.extend_from_slice(&END[..padding(data.len() as u64)]);
    }

    #[test]
    fn files_land_below_the_directory_and_nowhere_else() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("in");
        std::fs::create_dir(&dir).unwrap();
        let mut tar = Vec::new();
        entry(&mut tar, "d/", Kind::Dir, "", b"");
        entry(&mut tar, "d/a", Kind::File, "", b"old");
        entry(&mut tar, "d/a", Kind::File, "", b"hello");
        entry(&mut tar, "b", Kind::HardLink, "d/a", b"");
        entry(&mut tar, "out", Kind::Symlink, "../..", b"");
        entry(&mut tar, "out/c", Kind::File, "", b"inside");
        tar.extend_from_slice(&END);
        assert_eq!(to_directory(&tar[..], &dir).unwrap(), Some(1_600_000_000));
        assert_eq!(std::fs::read(dir.join("d/a")).unwrap(), b"hello");
        assert_eq!(std::fs::read(dir.join("b")).unwrap(), b"hello");
        assert_eq!(std::fs::read(dir.join("c")).unwrap(), b"inside");
        assert!(!outer.path().join("c").exists());
        let modified = std::fs::metadata(dir.join("d")).unwrap().modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_600_000_000);
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Vec::new();
        entry(&mut tar, "../x", Kind::File, "", b"");
        assert!(matches!(to_directory(&tar[..], dir.path()), Err(BadArchive::Name { .. })));
    }
}
