//! Layers put upon each other by overlayfs, as detached mounts.
//!
//! `redirect_dir=nofollow`, `metacopy=off`, `index=off`: a layer is what its directory holds, and
//! never leads into another one. `volatile`: an upper directory that is not captured is worth
//! nothing, so nothing waits for the disk on its behalf (and a step's `fsync` costs nothing).

use super::disk::Disk;
use super::layers::{LayerCache, LayerDir};
use super::{Diff, RootfsError, Stack, WrittenAs, at, capture, load_root};
use cache::store::Store;
use proto::id::RootId;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    UnmountFlags,
};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether what is mounted can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It can be read.
    ReadOnly,
    /// It can be changed; the changes are in the overlay's [`Upper`], and gone with it.
    Private,
}

/// Layers upon each other: a mount that hangs on a file descriptor. Dropping it takes the mount
/// away from this process; where it was attached it stays until that place is gone.
pub struct Overlay {
    mount: OwnedFd,
    work: WorkDir,
    below: Stack,
    layers: Vec<Arc<LayerDir>>,
}

/// What was written to an overlay that is gone. Dropping it deletes it.
pub struct Upper {
    work: WorkDir,
    below: Stack,
    _layers: Vec<Arc<LayerDir>>,
}

/// A directory of one overlay's own; deleted when it is dropped.
struct WorkDir {
    disk: Arc<Disk>,
    path: PathBuf,
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        self.disk.discard(&self.path);
    }
}

impl LayerCache {
    /// Mounts a root. Missing layers are made first, from the store.
    pub fn mount(&self, stack: &Stack, access: Access) -> Result<Overlay, RootfsError> {
        let layers = self.lowers(&stack.diffs)?;
        let disk = self.disk();
        let work = WorkDir { disk: disk.clone(), path: disk.new_work()? };
        let top = load_root(&**self.store(), &stack.merged)?.meta;
        let made = |name: &str| -> Result<PathBuf, RootfsError> {
            let path = work.path.join(name);
            std::fs::create_dir(&path).map_err(RootfsError::io("Creating", &path))?;
            Ok(path)
        };
        // The topmost directory gives `/` its metadata.
        let upper = made(UPPER)?;
        let fd = at::open_host_dir(&upper).map_err(RootfsError::io("Opening", &upper))?;
        at::set_dir_meta(&fd, &top, false)
            .map_err(RootfsError::io("Setting the metadata of", &upper))?;
        let inside = |path: &Path| -> String {
            let short = path.strip_prefix(disk.path()).unwrap_or(path);
            short.to_string_lossy().into_owned()
        };
        let mut lowers: Vec<String> =
            layers.iter().map(|layer| format!("l/{}", layer.name())).collect();
        if lowers.is_empty() {
            lowers.push(inside(&made("e")?));
        }
        let writable = match access {
            Access::Private => Some((inside(&upper), inside(&made("w")?))),
            Access::ReadOnly => {
                lowers.insert(0, inside(&upper));
                None
            }
        };
        let options = Options { folder: disk.root().as_fd(), lowers, writable };
        let mount = options
            .mount(&tag(disk.path()), &work.path)
            .map_err(|source| RootfsError::Mount { layers: layers.len(), source })?;
        Ok(Overlay { mount, work, below: stack.clone(), layers })
    }
}

/// The directory with what is written, inside of a [`WorkDir`].
const UPPER: &str = "f";

/// What our mounts are called in lists of mounts: the same for each that belongs to that folder,
/// and to no other.
pub(crate) fn tag(folder: &Path) -> String {
    let hash = blake3::hash(folder.as_os_str().as_encoded_bytes());
    format!("slipway-{}", &hash.to_hex()[..16])
}

impl Overlay {
    /// The mounted root: for looking inside (only by [`rustix::fs::openat2`] with
    /// `RESOLVE_IN_ROOT`), and for attaching.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Lets go of the mount and keeps what was written. Nobody may have it attached any more.
    pub fn into_upper(self) -> Upper {
        drop(self.mount);
        Upper { work: self.work, below: self.below, _layers: self.layers }
    }
}

impl Upper {
    /// Where what was written lies, in overlayfs's form.
    pub fn path(&self) -> PathBuf {
        self.work.path.join(UPPER)
    }

    /// The tree that it was written upon.
    pub fn below(&self) -> RootId {
        self.below.merged
    }

    /// The layers that it was written upon, lowest first.
    pub(crate) fn diffs(&self) -> &[RootId] {
        &self.below.diffs
    }

    /// Reads back what was changed ([`capture`]).
    pub fn capture(&self, store: &dyn Store, written: WrittenAs) -> Result<Diff, RootfsError> {
        capture(store, &self.path(), &self.below.merged, written)
    }
}

/// What to mount. All paths are inside of `folder`, and short: mount(2) takes one page of them, and
/// fsconfig(2) 255 bytes of each.
struct Options<'a> {
    folder: BorrowedFd<'a>,
    /// Topmost first.
    lowers: Vec<String>,
    /// The upper and the work directory.
    writable: Option<(String, String)>,
}

const FIXED: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

impl Options<'_> {
    fn mount(&self, source: &str, scratch: &Path) -> io::Result<OwnedFd> {
        match self.mount_new(source) {
            // Layers one by one are understood from Linux 6.8 on.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => self.mount_old(source, scratch),
            other => other,
        }
    }

    fn mount_new(&self, source: &str) -> io::Result<OwnedFd> {
        use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fs = fs.as_fd();
        let set = |key: &str, value: &str| fsconfig_set_string(fs, key, value);
        let path = |inside: &str| format!("/proc/self/fd/{}/{inside}", self.folder.as_raw_fd());
        set("source", source)?;
        for lower in &self.lowers {
            set("lowerdir+", &path(lower))?;
        }
        for (key, value) in FIXED {
            set(key, value)?;
        }
        if let Some((upper, work)) = &self.writable {
            set("upperdir", &path(upper))?;
            set("workdir", &path(work))?;
            fsconfig_set_flag(fs, "volatile")?;
        }
        fsconfig_create(fs)?;
        let none = MountAttrFlags::empty();
        Ok(rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, none)?)
    }

    /// By mount(2), in a mount namespace of a thread's own, from which a detached copy is taken.
    fn mount_old(&self, source: &str, scratch: &Path) -> io::Result<OwnedFd> {
        let target = scratch.join("t");
        std::fs::create_dir(&target)?;
        let mut data = format!("lowerdir={}", self.lowers.join(":"));
        for (key, value) in FIXED {
            data.push_str(&format!(",{key}={value}"));
        }
        if let Some((upper, work)) = &self.writable {
            data.push_str(&format!(",upperdir={upper},workdir={work},volatile"));
        }
        let data = std::ffi::CString::new(data)?;
        std::thread::scope(|scope| {
            let mount = scope.spawn(|| -> io::Result<OwnedFd> {
                // The working directory comes along into the new namespace; an open directory
                // would stay in the old one, and overlayfs refuses it.
                // SAFETY: only this thread's view of mounts and its working directory become its
                // own; it ends with this function.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS)? };
                rustix::process::fchdir(self.folder)?;
                // SAFETY: as above.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                rustix::mount::mount_change("/", private)?;
                let none = MountFlags::empty();
                rustix::mount::mount(source, &target, "overlay", none, &*data)?;
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let copy = rustix::mount::open_tree(CWD, &target, flags)?;
                rustix::mount::unmount(&target, UnmountFlags::DETACH)?;
                Ok(copy)
            });
            mount.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
        })
    }
}

#[cfg(test)]
mod tests;
