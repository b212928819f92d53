//! The folder of a [`super::LayerCache`] on disk, and the names in it.
//!
//! ```text
//! lock               held by the process that works here
//! l/<name>/          one layer's directory; short names, because mount(2) takes one page of them
//! id/<diff> -> name  which diff it is, once it is whole; `name:<boot>` until it is known to
//!                    outlive a loss of power
//! tmp/               half-made layers
//! work/<n>/          upper directories of overlays
//! trash/             what is being deleted
//! ```
//!
//! A directory in `l` that no `id` leads to was never whole, and goes.

use super::{RootfsError, at};
use proto::id::{RootId, TreeId};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

const FOLDERS: [&str; 5] = ["l", "id", "tmp", "work", "trash"];

/// The folder, for as long as this process works in it.
pub(crate) struct Disk {
    path: PathBuf,
    root: OwnedFd,
    boot: String,
    next: AtomicU64,
    janitor: Janitor,
    _lock: OwnedFd,
}

/// A layer that an earlier process left.
pub(crate) struct Left {
    pub id: RootId,
    pub name: String,
}

impl Disk {
    /// Takes the folder, which is made if it is not there. Answers the layers that are whole, the
    /// one that was used longest ago first. Everything else in it goes.
    pub(crate) fn open(path: &Path) -> Result<(Arc<Self>, Vec<Left>), RootfsError> {
        for folder in FOLDERS {
            let folder = path.join(folder);
            std::fs::create_dir_all(&folder).map_err(RootfsError::io("Creating", &folder))?;
        }
        let lock = lock(&path.join("lock"))?;
        let root = at::open_host_dir(path).map_err(RootfsError::io("Opening", path))?;
        let disk = Self {
            path: path.to_owned(),
            root,
            boot: boot_id(),
            next: AtomicU64::new(0),
            janitor: Janitor::start(),
            _lock: lock,
        };
        let left = disk.sweep()?;
        Ok((Arc::new(disk), left))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Where the layer of that name is, or will be.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        self.path.join("l").join(name)
    }

    /// A name that nothing in the folder has.
    pub(crate) fn new_name(&self) -> String {
        let mut number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut name = Vec::new();
        while number > 0 || name.len() < 4 {
            name.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
            number /= 36;
        }
        name.reverse();
        String::from_utf8(name).expect("digits and letters")
    }

    /// A new, empty directory for a layer to be made in.
    pub(crate) fn new_tmp(&self) -> Result<PathBuf, RootfsError> {
        self.new_dir("tmp")
    }

    /// A new, empty directory for an overlay.
    pub(crate) fn new_work(&self) -> Result<PathBuf, RootfsError> {
        self.new_dir("work")
    }

    fn new_dir(&self, folder: &str) -> Result<PathBuf, RootfsError> {
        let path = self.path.join(folder).join(self.new_name());
        std::fs::create_dir(&path).map_err(RootfsError::io("Creating", &path))?;
        Ok(path)
    }

    /// Makes a finished directory the layer of that diff; answers the layer's name.
    pub(crate) fn keep(&self, id: &RootId, dir: &Path) -> Result<String, RootfsError> {
        let name = self.new_name();
        let layer = self.layer(&name);
        at::rename_new(dir, &layer).map_err(RootfsError::io("Naming", &layer))?;
        let link = self.id_link(id);
        std::os::unix::fs::symlink(format!("{name}:{}", self.boot), &link)
            .map_err(RootfsError::io("Creating", &link))?;
        Ok(name)
    }

    /// Notes that the layer was used now, for the next process's sake.
    pub(crate) fn touch(&self, id: &RootId) {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        if let Err(e) = rustix::fs::utimensat(rustix::fs::CWD, self.id_link(id), &times, flags) {
            tracing::debug!(layer = %id, error = %e, "noting a layer's use failed");
        }
    }

    /// Takes the layer's name away, so that no later process finds it.
    pub(crate) fn forget(&self, id: &RootId) {
        if let Err(e) = std::fs::remove_file(self.id_link(id))
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(layer = %id, error = %e, "a layer could not be forgotten");
        }
    }

    /// Deletes a directory of the folder's, by and by.
    pub(crate) fn discard(&self, dir: &Path) {
        let trash = self.path.join("trash").join(self.new_name());
        match at::rename_new(dir, &trash) {
            Ok(()) => self.janitor.delete(trash),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                tracing::warn!(path = %dir.display(), error = %e, "moving to the trash failed");
                self.janitor.delete(dir.to_owned());
            }
        }
    }

    /// Writes everything to the disk, and notes that these layers are there to stay.
    pub(crate) fn sync(&self, layers: &[(RootId, String)]) -> Result<(), RootfsError> {
        rustix::fs::syncfs(&self.root).map_err(RootfsError::io("Syncing", &self.path))?;
        let tmp = self.path.join("tmp").join(self.new_name());
        for (id, name) in layers {
            let link = self.id_link(id);
            std::os::unix::fs::symlink(name, &tmp).map_err(RootfsError::io("Creating", &tmp))?;
            std::fs::rename(&tmp, &link).map_err(RootfsError::io("Naming", &link))?;
        }
        Ok(())
    }

    fn id_link(&self, id: &RootId) -> PathBuf {
        self.path.join("id").join(id.to_string())
    }

    fn sweep(&self) -> Result<Vec<Left>, RootfsError> {
        for folder in ["tmp", "work", "trash"] {
            for entry in list(&self.path.join(folder))? {
                self.janitor.delete(entry);
            }
        }
        let mut left = Vec::new();
        for link in list(&self.path.join("id"))? {
            match self.read_link(&link) {
                Some((used, found)) => left.push((used, found)),
                None => {
                    let _ = std::fs::remove_file(&link);
                }
            }
        }
        left.sort_by_key(|(used, _)| *used);
        let left: Vec<Left> = left.into_iter().map(|(_, found)| found).collect();
        let mut highest = 0;
        for dir in list(&self.path.join("l"))? {
            let name = dir.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            highest = highest.max(u64::from_str_radix(&name, 36).unwrap_or(0));
            if !left.iter().any(|found| found.name == name) {
                self.janitor.delete(dir);
            }
        }
        for folder in ["tmp", "work", "trash"] {
            for dir in list(&self.path.join(folder))? {
                let name = dir.file_name().map(|n| n.to_string_lossy().into_owned());
                let number = u64::from_str_radix(&name.unwrap_or_default(), 36);
                highest = highest.max(number.unwrap_or(0));
            }
        }
        self.next.store(highest + 1, Ordering::Relaxed);
        Ok(left)
    }

    /// The layer that a name in `id` stands for, and when it was used last.
    fn read_link(&self, link: &Path) -> Option<(i64, Left)> {
        use std::os::unix::fs::MetadataExt;
        let id = TreeId::parse(link.file_name()?.to_str()?).ok().map(RootId)?;
        let target = std::fs::read_link(link).ok()?;
        let name = match target.to_str()?.split_once(':') {
            // Made since this machine was started: the kernel still has what the disk may not.
            Some((name, boot)) if boot == self.boot => name,
            Some(_) => return None,
            None => target.to_str()?,
        };
        self.layer(name).symlink_metadata().ok().filter(|m| m.is_dir())?;
        let used = link.symlink_metadata().ok()?.mtime();
        Some((used, Left { id, name: name.to_owned() }))
    }
}

fn list(path: &Path) -> Result<Vec<PathBuf>, RootfsError> {
    let read = || std::fs::read_dir(path)?.map(|e| Ok(e?.path())).collect::<io::Result<_>>();
    read().map_err(RootfsError::io("Reading", path))
}

fn lock(path: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(RootfsError::io("Opening", path))?;
    match cache::store::lock(&file).map_err(RootfsError::io("Locking", path))? {
        true => Ok(file),
        false => Err(RootfsError::InUse { path: path.parent().unwrap_or(path).to_owned() }),
    }
}

/// What is different after each start of the machine.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Deletes directories in a thread of its own.
struct Janitor {
    queue: Mutex<Option<mpsc::Sender<PathBuf>>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    fn start() -> Self {
        let (queue, jobs) = mpsc::channel::<PathBuf>();
        let closing = Arc::new(AtomicBool::new(false));
        let stop = closing.clone();
        let thread = std::thread::spawn(move || {
            for path in jobs {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(e) = at::remove_tree(&path) {
                    tracing::warn!(path = %path.display(), error = %e, "deleting failed");
                }
            }
        });
        Self { queue: Mutex::new(Some(queue)), closing, thread: Some(thread) }
    }

    fn delete(&self, path: PathBuf) {
        let queue = self.queue.lock().unwrap_or_else(|p| p.into_inner());
        // Without a thread it is left for the next start.
        let _ = queue.as_ref().map(|queue| queue.send(path));
    }
}

impl Drop for Janitor {
    /// Ends after the directory at hand; the rest goes at the next start.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
