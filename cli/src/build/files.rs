//! Writes the files of a result into a directory, or as a tar.

mod overlap;

use super::archive::WholeFile;
use super::output::{Place, Split};
use crate::error::io;
use bytes::Bytes;
use cache::cluster::Cluster;
use proto::error::{Class, Failure};
use proto::id::{BlobId, RootId, TreeId};
use proto::limit;
use proto::platform::Platform;
use proto::tree::{AnyNode, CAPABILITY, DirRef, Meta, Mtime, Node, OneFile, Root, is_host_xattr};
use proto::wire::build::FilesRoot;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use worker::image::pack::{self, Files};

/// Batches of small files that are on their way at once.
const AT_ONCE: usize = 4;

/// Writes the roots of all platforms.
pub async fn write_directory(
    blobs: &Arc<Cluster>,
    roots: &[FilesRoot],
    dest: &Path,
    split: Split,
) -> Result<(), Failure> {
    let own = in_own(split, roots.len());
    if !own && roots.len() > 1 {
        overlap::check(blobs, roots, dest).await?;
    }
    for FilesRoot { platform, root, time } in roots {
        let dir = match own {
            true => dest.join(own_name(platform)),
            false => dest.to_owned(),
        };
        write_root(blobs, root, *time, &dir).await?;
    }
    Ok(())
}

fn in_own(split: Split, platforms: usize) -> bool {
    match split {
        Split::Auto => platforms > 1,
        Split::Always => true,
        Split::Never => false,
    }
}

/// The directory of a platform's files among those of others.
fn own_name(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// A file to write, when its bytes are there.
struct Planned {
    path: PathBuf,
    meta: Meta,
    blob: BlobId,
    size: u64,
}

/// What there is to write, in the order in which it can be.
#[derive(Default)]
struct Plan {
    dirs: Vec<(PathBuf, Meta)>,
    files: Vec<Planned>,
    /// Further names of files.
    links: Vec<(PathBuf, PathBuf)>,
    others: Vec<(PathBuf, Meta, Node)>,
}

async fn write_root(
    blobs: &Arc<Cluster>,
    root: &RootId,
    time: Option<i64>,
    dest: &Path,
) -> Result<(), Failure> {
    let top = top(blobs, root).await?;
    // Into a directory that is not there everything is written under another name first, so that
    // it is either whole or not there. One that is there gets its files one by one.
    let fresh = !dest.exists();
    let early = match fresh {
        true => {
            let name = dest.file_name().unwrap_or_default().to_string_lossy();
            dest.with_file_name(format!(".{name}.{}.part", std::process::id()))
        }
        false => dest.to_owned(),
    };
    let guard = Unfinished(fresh.then(|| early.clone()));
    std::fs::create_dir_all(&early).map_err(|e| io("Making", &early, &e))?;
    let plan = plan(blobs, top.dir, time, &early).await?;
    let dirs: Vec<_> = plan.dirs.iter().map(|(path, _)| path.clone()).collect();
    blocking(move || dirs.iter().try_for_each(|dir| make_dir(dir))).await?;
    write_files(blobs, plan.files, fresh).await?;
    let (links, others, dirs) = (plan.links, plan.others, plan.dirs);
    blocking(move || {
        links.iter().try_for_each(|(first, path)| link(first, path))?;
        others.iter().try_for_each(|(path, meta, node)| special(path, meta, node))?;
        // Times of directories come last: writing into them changes them. From the deepest up.
        dirs.iter().rev().try_for_each(|(path, meta)| set_meta(path, meta))
    })
    .await?;
    if fresh {
        std::fs::rename(&early, dest).map_err(|e| io("Writing", dest, &e))?;
    }
    guard.done();
    Ok(())
}

/// Takes away what was begun, unless it was finished.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Does what blocks where nothing waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Failure::new(Class::Bug, e.to_string())),
    }
}

async fn top(blobs: &Arc<Cluster>, root: &RootId) -> Result<Root, Failure> {
    match &*blobs.get_nodes(&[root.0]).await?.remove(0) {
        AnyNode::Root(root) => Ok(root.clone()),
        AnyNode::Dir(_) => Err(Failure::new(Class::Corrupt, format!("{root} is no root"))),
    }
}

/// All directories of a tree.
async fn nodes(
    blobs: &Arc<Cluster>,
    dir: DirRef,
) -> Result<HashMap<TreeId, Arc<AnyNode>>, Failure> {
    let mut all: HashMap<TreeId, Arc<AnyNode>> = HashMap::new();
    let mut level = vec![dir.tree];
    while !level.is_empty() {
        let got = blobs.get_nodes(&level).await?;
        let mut next = Vec::new();
        for (id, node) in level.iter().zip(got) {
            next.extend(node.dirs().iter().map(|d| d.tree).filter(|d| !all.contains_key(d)));
            all.insert(*id, node);
        }
        next.sort_unstable();
        next.dedup();
        level = next;
    }
    Ok(all)
}

async fn plan(
    blobs: &Arc<Cluster>,
    top: DirRef,
    time: Option<i64>,
    dest: &Path,
) -> Result<Plan, Failure> {
    let nodes = nodes(blobs, top).await?;
    let mut plan = Plan::default();
    let mut first: HashMap<OneFile, PathBuf> = HashMap::new();
    let mut dirs = vec![(dest.to_owned(), top)];
    while let Some((path, dir)) = dirs.pop() {
        let AnyNode::Dir(entries) = &*nodes[&dir.tree] else { continue };
        for entry in entries.entries() {
            let path = path.join(OsStr::from_bytes(entry.name.as_bytes()));
            let mut meta = entry.meta.clone();
            if let Some(seconds) = time {
                meta.mtime = Mtime { seconds, nanos: 0 };
            }
            match &entry.node {
                Node::Dir(dir, _) => {
                    plan.dirs.push((path.clone(), meta));
                    dirs.push((path, *dir));
                }
                Node::File { blob, size, .. } => {
                    let file = entry.one_file();
                    if let Some(known) = file.as_ref().and_then(|file| first.get(file)) {
                        plan.links.push((PathBuf::clone(known), path));
                        continue;
                    }
                    if let Some(file) = file {
                        first.insert(file, path.clone());
                    }
                    plan.files.push(Planned { path, meta, blob: *blob, size: *size });
                }
                Node::Whiteout | Node::Relink(_) | Node::Unlisted(_) => {}
                // As with BuildKit's exporter each name of a link, device or pipe is one by itself.
                node => plan.others.push((path, meta, node.clone().with_link(None))),
            }
        }
    }
    // Parents before what is in them.
    plan.dirs.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(plan)
}

async fn write_files(
    blobs: &Arc<Cluster>,
    files: Vec<Planned>,
    fresh: bool,
) -> Result<(), Failure> {
    let mut batches: Vec<Vec<Planned>> = vec![Vec::new()];
    let mut bytes = 0;
    let mut large = Vec::new();
    for file in files {
        if file.size as usize > limit::PACKED_BLOB_BYTES_MAX {
            large.push(file);
            continue;
        }
        let last = batches.last_mut().expect("never empty");
        if bytes + file.size > limit::BATCH_BYTES as u64 || last.len() == 512 {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += file.size;
        batches.last_mut().expect("never empty").push(file);
    }
    let small = futures::stream::iter(batches.into_iter().map(|batch| {
        let blobs = blobs.clone();
        async move {
            let ids: Vec<BlobId> = batch.iter().map(|f| f.blob).collect();
            let data = blobs.get_blobs(&ids).await?;
            let write = move || {
                batch.iter().zip(data).try_for_each(|(file, data)| write_small(file, &data, fresh))
            };
            blocking(write).await
        }
    }));
    use futures::{StreamExt, TryStreamExt};
    small.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    for file in large {
        write_large(blobs, file).await?;
    }
    Ok(())
}

fn write_small(file: &Planned, data: &Bytes, fresh: bool) -> Result<(), Failure> {
    let Planned { path, meta, .. } = file;
    let early = if fresh { path.clone() } else { early_name(path) };
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::File::options();
        // With its mode from the start: one call less for each file.
        options.write(true).create_new(true).mode(u32::from(meta.mode & 0o777));
        let mut out = options.open(&early)?;
        out.write_all(data)?;
        finish_file(&out, &early, meta)
    };
    write().map_err(|e| io("Writing", path, &e))?;
    if !fresh {
        replace(&early, path)?;
    }
    Ok(())
}

fn early_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

/// Gives a file its name, in place of whatever has it.
fn replace(early: &Path, path: &Path) -> Result<(), Failure> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
        std::fs::remove_dir_all(path).map_err(|e| io("Replacing", path, &e))?;
    }
    std::fs::rename(early, path).map_err(|e| io("Writing", path, &e))
}

fn finish_file(file: &std::fs::File, path: &Path, meta: &Meta) -> std::io::Result<()> {
    set_xattrs(path, meta);
    // The process's own mask may have taken bits away; set-id bits are never set by opening.
    let mode = u32::from(meta.mode);
    if file.metadata()?.permissions().mode() & 0o7777 != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(rustix::fs::futimens(file, &times(meta))?)
}

/// An error with the file that it is about.
fn at(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("Writing {} failed: {error}", path.display()))
}

async fn write_large(blobs: &Arc<Cluster>, file: Planned) -> Result<(), Failure> {
    let out = WholeFile::create(&file.path)?;
    let state = std::sync::Mutex::new((out, blake3::Hasher::new()));
    let take = |piece: Bytes| {
        let mut state = state.lock().unwrap_or_else(|p| p.into_inner());
        state.1.update(&piece);
        let written = state.0.write_all(&piece);
        std::future::ready(written.map_err(|e| at(&file.path, &e)))
    };
    blobs.get_large(file.blob, 0, take).await?;
    let (out, hasher) = state.into_inner().unwrap_or_else(|p| p.into_inner());
    if BlobId::from(hasher.finalize()) != file.blob {
        let message = format!("{} came from the farm with other bytes", file.path.display());
        return Err(Failure::new(Class::Corrupt, message));
    }
    if std::fs::symlink_metadata(&file.path).is_ok_and(|m| m.is_dir()) {
        std::fs::remove_dir_all(&file.path).map_err(|e| io("Replacing", &file.path, &e))?;
    }
    out.finish()?;
    set_meta(&file.path, &file.meta)
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| io("Making", path, &e);
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(_) => {}
    }
    std::fs::create_dir(path).map_err(failed)
}

fn link(first: &Path, path: &Path) -> Result<(), Failure> {
    let early = early_name(path);
    std::fs::hard_link(first, &early).map_err(|e| io("Linking", path, &e))?;
    replace(&early, path)
}

fn special(path: &Path, meta: &Meta, node: &Node) -> Result<(), Failure> {
    use rustix::fs::{FileType, Mode, makedev, mknodat};
    let early = early_name(path);
    let make = || -> std::io::Result<()> {
        let mode = Mode::from_raw_mode(u32::from(meta.mode));
        match node {
            Node::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &early)?;
            }
            Node::Fifo => mknodat(CWD, &early, FileType::Fifo, mode, 0)?,
            // Nobody listens at it any more: BuildKit's exporters write an empty file.
            Node::Socket => drop(std::fs::File::create_new(&early)?),
            Node::Char(major, minor) => {
                mknodat(CWD, &early, FileType::CharacterDevice, mode, makedev(*major, *minor))?;
            }
            Node::Block(major, minor) => {
                mknodat(CWD, &early, FileType::BlockDevice, mode, makedev(*major, *minor))?;
            }
            _ => return Ok(()),
        }
        Ok(())
    };
    make().map_err(|e| io("Making", path, &e))?;
    replace(&early, path)?;
    match node {
        Node::Symlink(_) => {
            rustix::fs::utimensat(CWD, path, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| io("Writing", path, &e.into()))
        }
        _ => set_meta(path, meta),
    }
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Attributes that the file system does not take are left out, as `cp` does, and so are capabilities:
/// the files belong to somebody else here than in the image.
fn set_xattrs(path: &Path, meta: &Meta) {
    let is_wanted = |name: &[u8]| !is_host_xattr(name) && name != CAPABILITY;
    for (name, value) in meta.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::lsetxattr(path, OsStr::from_bytes(name), value, flags);
    }
}

fn set_meta(path: &Path, meta: &Meta) -> Result<(), Failure> {
    let set = || -> std::io::Result<()> {
        set_xattrs(path, meta);
        let mode = std::fs::Permissions::from_mode(u32::from(meta.mode));
        std::fs::set_permissions(path, mode)?;
        Ok(rustix::fs::utimensat(CWD, path, &times(meta), AtFlags::empty())?)
    };
    set().map_err(|e| io("Writing", path, &e))
}

/// Writes the roots of all platforms as one tar.
pub async fn write_tar(
    blobs: &Arc<Cluster>,
    roots: &[FilesRoot],
    place: &Place,
) -> Result<(), Failure> {
    let own = in_own(Split::Auto, roots.len());
    let files = |files: &FilesRoot| Files {
        prefix: if own { (own_name(&files.platform) + "/").into_bytes() } else { Vec::new() },
        root: files.root,
        time: files.time,
    };
    let trees: Vec<Files> = roots.iter().map(files).collect();
    let remote = cache::net::remote::Remote::new(blobs);
    let place = place.clone();
    blocking(move || {
        let shown = match &place {
            Place::File(path) => path.as_path(),
            Place::Stdout | Place::Engine => Path::new("standard output"),
        };
        let bad = |e: pack::PackError| {
            Failure::new(e.class(), format!("Writing {} failed: {e}", shown.display()))
        };
        match &place {
            Place::File(path) => {
                let mut file = WholeFile::create(path)?;
                pack::write_tar(&remote, trees, &mut file).map_err(bad)?;
                file.finish()
            }
            Place::Stdout | Place::Engine => {
                let mut out = std::io::BufWriter::new(std::io::stdout().lock());
                pack::write_tar(&remote, trees, &mut out).map_err(bad)?;
                out.flush().map_err(|e| io("Writing", Path::new("standard output"), &e))
            }
        }
    })
    .await
}
