//! Where tests keep things: a cache that outlives them, and directories that do not.
//!
//! ```text
//! $HOME/.cache/slipway-tests/   or SLIPWAY_TEST_CACHE
//!   standins/                   images made once, named by what they are made of
//!   run/<pid>/                  one test process; locked while it lives
//! ```
//! A directory of a process that is gone is taken away, with what runs and is mounted there and with
//! the control groups of its hosts, by the next process.

use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long killed processes may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// What outlives the tests.
pub fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let named = std::env::var_os("SLIPWAY_TEST_CACHE").map(PathBuf::from);
        let path = named.unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME or SLIPWAY_TEST_CACHE is set");
            Path::new(&home).join(".cache/slipway-tests")
        });
        make(&path);
        path.canonicalize().expect("a directory that was just made")
    })
}

/// Makes a directory and those above it.
pub fn make(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("making {}: {e}", path.display()));
}

/// Waits until no other process holds the lock of this name; it is held until the file is dropped.
pub fn lock(name: &str) -> File {
    let path = cache().join("locks");
    make(&path);
    let file = File::create(path.join(name)).expect("making a lock file in the cache");
    rustix::fs::flock(&file, FlockOperation::LockExclusive).expect("locking a file of the cache");
    file
}

/// A directory that is removed when it is dropped, with what is mounted below it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one; `label` tells a person what it is for.
    pub fn new(label: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = run_directory().join(format!("{number}-{label}"));
        make(&path);
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A new directory below it.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        make(&path);
        path
    }

    /// Writes a file below it, making the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        write(&self.path, name, content)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("SLIPWAY_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
            return;
        }
        remove(&self.path);
    }
}

/// Writes a file below a directory, making the directories above it.
pub fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join(name);
    make(path.parent().expect("a path below a directory"));
    fs::write(&path, content).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    path
}

/// This process' directory. The lock says to others that it lives.
fn run_directory() -> &'static Path {
    static DIRECTORY: OnceLock<(PathBuf, File)> = OnceLock::new();
    let (path, _) = DIRECTORY.get_or_init(|| {
        let _one_at_a_time = lock("run");
        let all = cache().join("run");
        make(&all);
        sweep(&all);
        let path = all.join(std::process::id().to_string());
        remove(&path);
        make(&path);
        let lock = File::create(path.join("lock")).expect("making a lock file");
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("a new file");
        (path, lock)
    });
    path
}

/// Takes away what processes left that are gone.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let dead = match File::open(entry.path().join("lock")) {
            Ok(file) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => true,
        };
        if dead {
            kill(&processes_of(&entry.path()));
            crate::hosts::sweep(&entry.file_name().to_string_lossy());
            remove(&entry.path());
        }
    }
}

/// Unmounts what is mounted below a directory, and removes it.
pub fn remove(path: &Path) {
    for mount in mounts_below(path) {
        let _ = rustix::mount::unmount(&mount, UnmountFlags::DETACH);
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("{} stays: {e}", path.display());
        }
        _ => {}
    }
}

/// What is mounted below a directory, or from files below it; the last mounted first.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let directory = directory.to_str().expect("a path of the tests is UTF-8");
    let below = text.lines().filter(|line| line.contains(directory));
    let places = below.filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let mut places: Vec<_> = places.collect();
    places.reverse();
    places
}

/// Undoes the octal escapes of `mountinfo` (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// A process of the machine.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

/// Processes that belong to a directory: they name it in their command or environment, work in it,
/// have a root file system that is made of it, or descend from such a process. Not this process.
pub fn processes_of(directory: &Path) -> Vec<Process> {
    let own = std::process::id() as i32;
    let mut left = pids();
    left.retain(|pid| *pid != own);
    let (mut found, mut left): (Vec<i32>, Vec<i32>) =
        left.into_iter().partition(|pid| belongs(*pid, directory));
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        let children: Vec<i32>;
        (children, left) = left.into_iter().partition(|pid| parent_of(*pid) == Some(parent));
        found.extend(children);
        next += 1;
    }
    found.into_iter().map(process).collect()
}

/// All processes of the machine whose command line begins so.
pub fn processes_like(command: &str) -> Vec<Process> {
    pids().into_iter().map(process).filter(|found| found.command.starts_with(command)).collect()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The parent of a process (proc_pid_stat(5): what follows the state, after the name).
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn belongs(pid: i32, directory: &Path) -> bool {
    let name = directory.as_os_str().as_bytes();
    let says = |file: &str| {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.windows(name.len()).any(|window| window == name)
    };
    let links = |file: &str| {
        fs::read_link(format!("/proc/{pid}/{file}")).is_ok_and(|to| to.starts_with(directory))
    };
    // Only the root's own line: a mount namespace may hold copies of mounts of others.
    let root_is_made_of_it = || {
        let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let directory = directory.to_str().unwrap_or_default();
        text.lines().any(|line| line.split(' ').nth(4) == Some("/") && line.contains(directory))
    };
    says("environ") || says("cmdline") || links("cwd") || links("root") || root_is_made_of_it()
}

/// What is known of a process.
pub(crate) fn process(pid: i32) -> Process {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&text).replace('\0', " ");
    Process { pid, command }
}

/// Kills processes, and waits until they are gone.
pub fn kill(processes: &[Process]) {
    let deadline = Instant::now() + GONE_WITHIN;
    for pid in processes.iter().filter_map(|process| Pid::from_raw(process.pid)) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    for process in processes {
        while alive(process.pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether a process runs: a zombie does not.
pub fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
