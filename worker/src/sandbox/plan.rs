//! What is mounted in a container besides its root: which trees, where from, in which order.

use super::SandboxError;
use super::helper::{Attach, Home, NewFile, Order};
use super::spec::MountLine;
use super::stubs::{self, PlaceKind, Stubs};
use crate::rootfs::{Access, LayerCache, Overlay, Stack, at};
use proto::path::join_absolute;
use proto::secret::SecretBytes;
use proto::step::{Mount, MountKind, RunOp, SecretMount, SshMount};
use rustix::mount::OpenTreeFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// What a step's mounts show, resolved.
#[derive(Default)]
pub struct Inputs {
    /// The trees that mounts show, in the order of [`Mount::input`] (which counts from 1).
    pub trees: Vec<Stack>,
    /// The mounted directories of cache mounts, by the mount's place in [`RunOp::mounts`].
    pub caches: BTreeMap<usize, Overlay>,
    /// Cache mounts that show the directory of another mount of the step: whose, by their places.
    pub same_caches: BTreeMap<usize, usize>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// Sockets of ssh agents, by the mount's place in [`RunOp::mounts`]: each a socket of this step's
    /// own, whose owner and mode are set to what the mount says.
    pub agents: BTreeMap<usize, PathBuf>,
    /// Device nodes, by the name that the step asks for.
    pub devices: BTreeMap<String, Vec<super::DeviceNode>>,
}

/// What will be mounted.
#[derive(Default)]
pub(crate) struct Plan {
    lines: Vec<Line>,
    /// Trees that are mounted whole, and shown in part.
    pub overlays: Vec<Overlay>,
    /// As that, by the mount's place in the step; their changes are kept.
    pub caches: BTreeMap<usize, Overlay>,
    /// Sockets.
    sockets: Vec<OwnedFd>,
    files: Vec<PlannedFile>,
    /// Variables that come of mounts.
    pub env: Vec<(String, String)>,
}

struct Line {
    target: String,
    source: Source,
    kind: PlaceKind,
    options: Vec<String>,
}

enum Source {
    Overlay(usize, Vec<u8>),
    Cache(usize, Vec<u8>),
    Socket(usize),
    File(usize),
    Tmpfs,
}

struct PlannedFile {
    data: Vec<u8>,
    mode: u16,
    owner: (u32, u32),
}

/// File systems that every container has: places below them are not the root's.
const COVERED: [&str; 3] = ["/proc", "/dev", "/sys"];

impl Plan {
    /// Plans the files that every container is shown, then the step's mounts, parents first.
    pub(crate) fn new(
        layers: &LayerCache,
        op: &RunOp,
        inputs: Inputs,
        names: [(&str, String); 2],
    ) -> Result<Self, SandboxError> {
        let mut plan = Self::default();
        for (target, text) in names {
            let options = ["rbind", "ro", "nosuid", "noexec", "nodev"];
            plan.add_file(target, text.into_bytes(), 0o644, (0, 0), &options);
        }
        let Inputs { trees, caches, same_caches, secrets, agents, devices: _ } = inputs;
        plan.caches = caches;
        let mut mounts: Vec<(String, usize, &Mount)> = Vec::new();
        for (index, mount) in op.mounts.iter().enumerate() {
            mounts.push((plain(&mount.target, &op.cwd)?, index, mount));
        }
        mounts.sort_by(|a, b| a.0.cmp(&b.0));
        for (target, index, mount) in mounts {
            match &mount.kind {
                MountKind::Bind(bind) => {
                    let tree = mount.input.and_then(|n| trees.get((n as usize).checked_sub(1)?));
                    let tree = tree.ok_or_else(|| refused(&target, "it shows no tree"))?;
                    let access = if bind.writable { Access::Private } else { Access::ReadOnly };
                    let overlay = layers.mount(tree, access)?;
                    let (path, kind) = select(&overlay, &bind.source, &target)?;
                    let source = Source::Overlay(plan.overlays.len(), path);
                    plan.overlays.push(overlay);
                    let options = if bind.writable { "rw" } else { "ro" };
                    plan.add(target, source, kind, &["rbind", options]);
                }
                MountKind::Cache(cache) => {
                    let index = same_caches.get(&index).copied().unwrap_or(index);
                    let overlay = plan.caches.get(&index);
                    let overlay =
                        overlay.ok_or_else(|| refused(&target, "its cache is missing"))?;
                    let shown = select(overlay, &cache.source, &target);
                    let (path, kind) = shown.map_err(not_in_cache)?;
                    let options = if cache.read_only { "ro" } else { "rw" };
                    plan.add(target, Source::Cache(index, path), kind, &["rbind", options]);
                }
                MountKind::Tmpfs(tmpfs) => {
                    let size = format!("size={}", tmpfs.size);
                    let mut options = vec!["nosuid"];
                    options.extend((tmpfs.size > 0).then_some(size.as_str()));
                    options.extend(tmpfs.read_only.then_some("ro"));
                    plan.add(target, Source::Tmpfs, PlaceKind::Dir, &options);
                }
                MountKind::Secret(secret) => {
                    plan.add_secret(&target, secret, secrets.get(&secret.id))?;
                }
                MountKind::Ssh(ssh) => {
                    plan.add_agent(&target, ssh, agents.get(&index))?;
                }
            }
        }
        Ok(plan)
    }

    fn add(&mut self, target: String, source: Source, kind: PlaceKind, options: &[&str]) {
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let line = Line { target, source, kind, options };
        // Of two mounts at one place the later counts, in the earlier one's turn.
        match self.lines.iter_mut().find(|there| there.target == line.target) {
            Some(there) => *there = line,
            None => self.lines.push(line),
        }
    }

    fn add_file(
        &mut self,
        target: &str,
        data: Vec<u8>,
        mode: u16,
        owner: (u32, u32),
        options: &[&str],
    ) {
        let source = Source::File(self.files.len());
        self.files.push(PlannedFile { data, mode, owner });
        self.add(target.to_owned(), source, PlaceKind::File, options);
    }

    fn add_secret(
        &mut self,
        target: &str,
        secret: &SecretMount,
        value: Option<&SecretBytes>,
    ) -> Result<(), SandboxError> {
        let Some(value) = value.map(SecretBytes::as_bytes) else {
            // The variable is there, and empty, as in BuildKit.
            self.env.extend(secret.env.iter().map(|name| (name.clone(), String::new())));
            return missing("secret", &secret.id, secret.required);
        };
        if let Some(name) = &secret.env {
            let text = String::from_utf8(value.to_vec())
                .map_err(|_| refused(target, "a secret that is no text cannot be a variable"))?;
            self.env.push((name.clone(), text));
        }
        if secret.file {
            let mut options = vec!["rbind", "ro", "nodev", "nosuid"];
            if secret.mode & 0o111 == 0 {
                options.push("noexec");
            }
            let owner = (secret.uid, secret.gid);
            self.add_file(target, value.to_vec(), secret.mode & 0o777, owner, &options);
        }
        Ok(())
    }

    fn add_agent(
        &mut self,
        target: &str,
        ssh: &SshMount,
        socket: Option<&PathBuf>,
    ) -> Result<(), SandboxError> {
        let Some(socket) = socket else {
            return missing("ssh agent", &ssh.id, ssh.required);
        };
        let failed = |e: std::io::Error| refused(target, &format!("{}: {e}", socket.display()));
        std::os::unix::fs::chown(socket, Some(ssh.uid), Some(ssh.gid)).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(u32::from(ssh.mode & 0o777));
        std::fs::set_permissions(socket, mode).map_err(failed)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = rustix::mount::open_tree(rustix::fs::CWD, socket, flags)
            .map_err(|e| failed(e.into()))?;
        let source = Source::Socket(self.sockets.len());
        self.sockets.push(mount);
        self.add(target.to_owned(), source, PlaceKind::File, &["rbind"]);
        Ok(())
    }

    /// Makes the places for the mounts in the root. Where a directory is there already, an empty file
    /// system at its place has its mode, as with runc.
    pub(crate) fn make_places(&mut self, root: impl AsFd) -> Result<Stubs, SandboxError> {
        let mut made = Stubs::default();
        let mut modes = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            let before = self.lines[..at].iter().map(|line| line.target.as_str());
            if COVERED.into_iter().chain(before).any(|parent| is_below(&line.target, parent)) {
                // What lies there is not the root; the runtime makes the place.
                continue;
            }
            let failed = |e: std::io::Error| refused(&line.target, &e.to_string());
            let was_there = at::resolve(&root, line.target.as_bytes()).is_ok();
            made.make(&root, &line.target, line.kind).map_err(failed)?;
            let there = at::resolve(&root, line.target.as_bytes()).map_err(failed)?;
            let stat = rustix::fs::fstat(&there).map_err(|e| failed(e.into()))?;
            if stubs::is_dir(&stat) != (line.kind == PlaceKind::Dir) {
                let what = match line.kind {
                    PlaceKind::Dir => "a directory",
                    PlaceKind::File => "a file",
                };
                let there = stubs::describe(&stat);
                return Err(refused(
                    &line.target,
                    &format!("the image has {there} there, and {what} is to be mounted"),
                ));
            }
            if was_there && matches!(line.source, Source::Tmpfs) {
                modes.push((at, format!("mode={:o}", stat.st_mode & 0o7777)));
            }
        }
        for (at, mode) in modes {
            self.lines[at].options.push(mode);
        }
        made.settle(&root).map_err(|e| refused("/", &e.to_string()))?;
        Ok(made)
    }

    /// The mounts as the spec has them.
    pub(crate) fn lines(&self, home: &Home) -> Vec<MountLine> {
        let inside = |number: usize, path: &[u8]| {
            let mut whole = text(home.mount(number));
            if path != b"/" {
                whole.push_str(&String::from_utf8_lossy(path));
            }
            whole
        };
        let line = |line: &Line| {
            let (kind, source) = match &line.source {
                Source::Overlay(at, path) => ("bind", inside(*at, path)),
                Source::Cache(index, path) => ("bind", inside(self.cache_number(*index), path)),
                Source::Socket(at) => ("bind", text(home.mount(self.socket_number(*at)))),
                Source::File(at) => ("bind", text(home.file(*at))),
                Source::Tmpfs => ("tmpfs", "tmpfs".to_owned()),
            };
            let (target, options) = (line.target.clone(), line.options.clone());
            MountLine { target, kind, source, options }
        };
        self.lines.iter().map(line).collect()
    }

    /// Everything that the helper has to attach and to write.
    pub(crate) fn order<'a>(&'a self, order: &mut Order<'a>) -> (Vec<Attach>, Vec<NewFile>) {
        let trees = self.overlays.iter().chain(self.caches.values());
        let trees = trees.map(|overlay| (overlay.root(), true));
        let sockets = self.sockets.iter().map(|socket| (socket.as_fd(), false));
        let mounts = trees.chain(sockets).enumerate();
        let mounts =
            mounts.map(|(number, (file, dir))| Attach { file: order.file(file), number, dir });
        let mounts = mounts.collect();
        let file = |(number, file): (usize, &PlannedFile)| NewFile {
            data: order.put(&file.data),
            number,
            mode: file.mode,
            uid: file.owner.0,
            gid: file.owner.1,
        };
        (mounts, self.files.iter().enumerate().map(file).collect())
    }

    fn cache_number(&self, index: usize) -> usize {
        self.overlays.len() + self.caches.keys().take_while(|key| **key < index).count()
    }

    fn socket_number(&self, at: usize) -> usize {
        self.overlays.len() + self.caches.len() + at
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

fn refused(target: &str, why: &str) -> SandboxError {
    SandboxError::Mount { target: target.to_owned(), why: why.to_owned() }
}

/// What is not in a cache is made by who uses it.
fn not_in_cache(error: SandboxError) -> SandboxError {
    match error {
        SandboxError::Mount { target, why } => {
            let how = "An earlier RUN that mounts all of the cache, without `source`, can make it";
            SandboxError::Mount { target, why: format!("{why}. {how}") }
        }
        other => other,
    }
}

fn missing(what: &'static str, id: &str, required: bool) -> Result<(), SandboxError> {
    if required { Err(SandboxError::Missing { what, id: id.to_owned() }) } else { Ok(()) }
}

/// The target as an absolute path without dots.
fn plain(target: &str, cwd: &str) -> Result<String, SandboxError> {
    let path = join_absolute(cwd.as_bytes(), target.as_bytes());
    match String::from_utf8(path) {
        Ok(path) if path == "/" => Err(refused(target, "the root cannot be mounted over")),
        Ok(path) if path.contains('\0') => Err(refused(target, "it contains a NUL byte")),
        Ok(path) => Ok(path),
        Err(_) => Err(refused(target, "it is not UTF-8")),
    }
}

/// Whether the path lies below the directory, or is it.
fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Finds the selected part of a tree: its path without links, and what it is.
fn select(
    overlay: &Overlay,
    source: &str,
    target: &str,
) -> Result<(Vec<u8>, PlaceKind), SandboxError> {
    let failed = |e: std::io::Error| refused(target, &format!("its source `{source}`: {e}"));
    let whole = join_absolute(b"/", source.as_bytes());
    let there = at::resolve(overlay.root(), &whole).map_err(failed)?;
    let stat = rustix::fs::fstat(&there).map_err(|e| failed(e.into()))?;
    let path = stubs::path_in(overlay.root(), &there).map_err(failed)?;
    if std::str::from_utf8(&path).is_err() {
        return Err(refused(target, &format!("the path of its source `{source}` is not UTF-8")));
    }
    let kind = if stubs::is_dir(&stat) { PlaceKind::Dir } else { PlaceKind::File };
    Ok((path, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_and_not_the_root() {
        assert_eq!(plain("/a/./b/", "/w").unwrap(), "/a/b");
        assert_eq!(plain("x", "/w").unwrap(), "/w/x");
        for root in ["/", "..", "/..", "/a/.."] {
            assert!(plain(root, "/").is_err(), "{root}");
        }
        assert!(is_below("/dev/x", "/dev") && is_below("/dev", "/dev"));
        assert!(!is_below("/device", "/dev"));
    }
}
