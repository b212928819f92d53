//! The file system of a host: a directory of the real disk, with what it cannot have a copy of.
//!
//! The directory is `/`, so that all is the host's own that is not named here: state, `/tmp`, `/run`,
//! the home. Programs and the images that stand in for those of the internet are shared, and cannot
//! be written to.

use crate::command::{command, run};
use crate::scratch::{cache, make};
use crate::tool::tool;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Directories of every host, and who may use them.
const OWN: [(&str, u32); 12] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var/cache", 0o755),
    ("var/lib/slipway", 0o700),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// What programs read of `/etc`; each host has a copy.
const SETTINGS: [&str; 12] = [
    "alternatives",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
    "ssl",
    "subgid",
    "subuid",
];

/// Where this machine has its programs.
const PROGRAMS: [&str; 8] =
    ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/sbin", "/usr"];

/// Devices that programs and containers need.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun"];

/// Makes the directory of a host that has not run yet.
pub(super) fn install(disk: &Path, name: &str) {
    for (directory, mode) in OWN {
        let path = disk.join(directory);
        make(&path);
        let set = fs::set_permissions(&path, Permissions::from_mode(mode));
        set.unwrap_or_else(|e| panic!("changing the mode of {}: {e}", path.display()));
    }
    let there = SETTINGS.iter().map(|file| Path::new("/etc").join(file)).filter(|f| f.exists());
    let mut copy = command(tool("cp"));
    run(copy.arg("-a").args(there).arg(disk.join("etc"))).ok();
    write(&disk.join("etc/hostname"), &format!("{name}\n"));
    write(&disk.join("etc/resolv.conf"), "# Names are those of /etc/hosts.\n");
}

/// Replaces a file.
pub(super) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
}

/// Empties what a machine loses when it is turned off.
pub(super) fn forget(disk: &Path) {
    let run = disk.join("run");
    for entry in fs::read_dir(&run).expect("the host has /run").flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let gone = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.unwrap_or_else(|e| panic!("removing {}: {e}", path.display()));
    }
}

/// Mounts all but `/proc` and the control groups, in the namespaces of the calling thread.
pub(super) fn assemble(disk: &Path) {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    done("changing the propagation of", Path::new("/"), rustix::mount::mount_change("/", private));
    bind(disk, disk);
    PROGRAMS.iter().for_each(|path| share(disk, Path::new(path)));
    share(disk, &program_directory());
    if let Some(named) = std::env::var_os("SLIPWAY_BIN").map(PathBuf::from) {
        share(disk, named.parent().expect("a program lies in a directory"));
    }
    share(disk, &cache().join("standins"));
    devices(&disk.join("dev"));
    mount("sysfs", &disk.join("sys"), MountFlags::empty(), "");
}

/// Puts the host's group of each hierarchy where the hierarchy is mounted.
pub(super) fn mount_groups<'a>(disk: &Path, places: impl Iterator<Item = (&'a Path, PathBuf)>) {
    let places: Vec<_> = places.collect();
    let top = Path::new("/sys/fs/cgroup");
    if !places.iter().any(|(mounted, _)| *mounted == top) {
        mount("tmpfs", &within(disk, top), MountFlags::empty(), "mode=755");
    }
    for (mounted, group) in places {
        let to = within(disk, mounted);
        make(&to);
        bind(&group, &to);
    }
}

/// Makes the directory the root of all that is in the calling thread's mount namespace.
pub(super) fn enter(disk: &Path) {
    let change = || -> io::Result<()> {
        std::env::set_current_dir(disk)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        std::env::set_current_dir("/")
    };
    change().unwrap_or_else(|e| panic!("making {} the root: {e}", disk.display()));
}

/// Where this program and `slipway` lie.
fn program_directory() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let directory = own.parent().expect("a program lies in a directory");
    let tests = directory.ends_with("deps").then(|| directory.parent()).flatten();
    tests.unwrap_or(directory).to_owned()
}

fn devices(directory: &Path) {
    mount("tmpfs", directory, MountFlags::NOSUID, "mode=755");
    for name in DEVICES {
        let (from, to) = (Path::new("/dev").join(name), directory.join(name));
        if from.exists() {
            make(to.parent().expect("a path below a directory"));
            File::create(&to).unwrap_or_else(|e| panic!("making {}: {e}", to.display()));
            bind(&from, &to);
        }
    }
    for (folder, kind, options) in
        [("pts", "devpts", "newinstance,ptmxmode=0666"), ("shm", "tmpfs", "mode=1777")]
    {
        make(&directory.join(folder));
        mount(kind, &directory.join(folder), MountFlags::NOSUID, options);
    }
    let links = [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd")];
    let streams = [("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (name, to) in links.into_iter().chain(streams) {
        symlink(to, directory.join(name)).expect("making a link in a new directory");
    }
}

/// Shows a directory of this machine to the host, at the same path, to be read only. A link is made
/// again; what does not exist is left out.
fn share(disk: &Path, path: &Path) {
    let (own, shared) = (disk.display(), path.display());
    assert!(!disk.starts_with(path), "hosts would see each other: {own} lies in {shared}");
    let to = within(disk, path);
    match fs::read_link(path) {
        Ok(leads) if !to.is_symlink() => {
            symlink(leads, &to).unwrap_or_else(|e| panic!("making {}: {e}", to.display()));
        }
        Err(_) if path.is_dir() => {
            make(&to);
            let bound = rustix::mount::mount_bind_recursive(path, &to);
            done("sharing", path, bound);
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            done("protecting", &to, rustix::mount::mount_remount(&to, flags, ""));
        }
        _ => {}
    }
}

/// A path of the host's, as it is seen from outside.
pub(super) fn within(disk: &Path, path: &Path) -> PathBuf {
    disk.join(path.strip_prefix("/").unwrap_or(path))
}

fn bind(from: &Path, to: &Path) {
    done("mounting", to, rustix::mount::mount_bind(from, to));
}

fn mount(kind: &str, to: &Path, flags: MountFlags, options: &str) {
    let options = std::ffi::CString::new(options).expect("options have no NUL");
    done("mounting", to, rustix::mount::mount(kind, to, kind, flags, Some(options.as_c_str())));
}

fn done(what: &str, path: &Path, result: rustix::io::Result<()>) {
    result.unwrap_or_else(|e| panic!("{what} {}: {e}", path.display()));
}
