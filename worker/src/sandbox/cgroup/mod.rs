//! Control groups: limits, accounts, and killing everything at once.
//!
//! All of one state directory's groups lie in one group of its own, `/slipway-<hash>`, at the top
//! of each hierarchy, so that a later process finds what an earlier one left. Where groups cannot
//! be used, containers run without limits, and that is said once.

mod device;
mod layout;
mod limit;

pub(crate) use device::{ALL as ALL_DEVICES, DEFAULT as DEFAULT_DEVICES};
pub use device::{Kind as DeviceKind, Rule as DeviceRule};
pub(crate) use layout::Layout;
pub use limit::{Limits, Swap};

use super::bpf::{self, Hook};
use rustix::process::{Pid, Signal};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a killed group may take to become empty: a process in the middle of a system call that
/// cannot be interrupted (a slow disk) dies when that ends.
const EMPTY_WITHIN: Duration = Duration::from_secs(30);

/// The control groups of one state directory.
#[derive(Debug)]
pub(crate) struct Cgroups {
    layout: Layout,
    parent: String,
    /// Controllers that work in the second version's hierarchy.
    unified: BTreeSet<String>,
    /// Why there are none at all.
    unusable: Option<String>,
}

impl Cgroups {
    /// Finds this machine's hierarchies and makes our group, named `parent`, in each of them.
    pub(crate) fn open(parent: &str) -> Self {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let layout = Layout::parse(&text);
        let mut groups =
            Self { layout, parent: format!("/{parent}"), unified: BTreeSet::new(), unusable: None };
        if let Err(e) = groups.make_parent() {
            groups.unusable = Some(e.to_string());
        }
        if groups.layout.hierarchies().is_empty() {
            groups.unusable = Some("no control groups are mounted".to_owned());
        }
        if let Some(why) = &groups.unusable {
            tracing::warn!(%why, "containers run without limits, for control groups cannot be used");
        }
        groups
    }

    /// Why limits cannot be set, if so.
    pub(crate) fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// The hierarchies that there are.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Our group's path in each hierarchy.
    pub(crate) fn parent(&self) -> &str {
        &self.parent
    }

    fn make_parent(&mut self) -> io::Result<()> {
        for hierarchy in self.layout.hierarchies() {
            make_dir(&within(hierarchy, &self.parent))?;
        }
        let Some(top) = self.layout.unified.clone() else { return Ok(()) };
        let ours = within(&top, &self.parent);
        for controller in ["memory", "cpu", "cpuset", "pids"] {
            // Each has to be handed down, level by level; what cannot be is left out.
            let on = format!("+{controller}");
            let _ = fs::write(top.join("cgroup.subtree_control"), &on);
            if fs::write(ours.join("cgroup.subtree_control"), &on).is_ok() {
                self.unified.insert(controller.to_owned());
            } else if !self.layout.split.contains_key(controller) && controller != "cpuset" {
                tracing::warn!(%controller, "the control group's limits cannot be used");
            }
        }
        Ok(())
    }

    /// Makes a group in ours, or in the group `parent` of the caller's choice.
    pub(crate) fn group(&self, parent: Option<&str>, name: &str) -> io::Result<Cgroup> {
        let parent = match parent {
            Some(other) => format!("/{}{}", other.trim_matches('/'), self.parent),
            None => self.parent.clone(),
        };
        let path = format!("{parent}/{name}");
        let mut group = Cgroup {
            path,
            unified: None,
            split: Vec::new(),
            leaf: None,
            all: Vec::new(),
            cpuset: None,
            set: None,
        };
        if self.unusable.is_some() {
            return Ok(group);
        }
        group.all.clone_from(&self.layout.all);
        group.cpuset.clone_from(&self.layout.cpuset);
        if let Some(top) = &self.layout.unified {
            let dir = within(top, &group.path);
            make_dir(&dir)?;
            group.unified = Some(dir);
        }
        for (controller, top) in &self.layout.split {
            let dir = within(top, &group.path);
            make_dir(&dir)?;
            group.split.push((controller.clone(), dir));
        }
        Ok(group)
    }
}

fn within(top: &Path, path: &str) -> PathBuf {
    top.join(path.trim_start_matches('/'))
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path).map_err(|e| {
        io::Error::new(e.kind(), format!("creating the control group {}: {e}", path.display()))
    })
}

/// One group, in each hierarchy. Dropping it kills what is in it, and removes it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: String,
    unified: Option<PathBuf>,
    split: Vec<(String, PathBuf)>,
    /// The group in this one that processes are added to, if not this one itself.
    leaf: Option<&'static str>,
    /// All hierarchies: another runtime may have made groups below ours in any of them.
    all: Vec<PathBuf>,
    /// The first version's hierarchy of processors and memory nodes.
    cpuset: Option<PathBuf>,
    /// The limits that were set last.
    set: Option<Limits>,
}

/// What the processes of a group used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time.
    pub cpu: Duration,
    /// The most memory at any time, in bytes; 0 where the kernel does not tell. Without what the
    /// kernel keeps of files that were read or written, as far as it still does at the end: that
    /// is given up when somebody needs it.
    pub memory_peak_bytes: u64,
}

impl Cgroup {
    /// Whether there is a group at all.
    pub(crate) fn exists(&self) -> bool {
        !self.dirs().is_empty()
    }

    /// Its path in each hierarchy.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Its directory in the second version's hierarchy.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Its directories in the first version's hierarchies, by controller.
    pub(crate) fn split(&self) -> &[(String, PathBuf)] {
        &self.split
    }

    fn dirs(&self) -> Vec<&Path> {
        let mut dirs: Vec<&Path> = self.split.iter().map(|(_, dir)| dir.as_path()).collect();
        dirs.extend(self.unified.as_deref());
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// Lets another runtime make groups of its own in this one: the second version wants processes
    /// at the ends of the tree only, so those that are added go into a group beside.
    pub(crate) fn share(&mut self) -> io::Result<()> {
        for dir in self.dirs() {
            make_dir(&dir.join("helper"))?;
        }
        if let Some(dir) = &self.unified {
            for controller in ["memory", "cpu", "cpuset", "pids"] {
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        self.leaf = Some("helper");
        Ok(())
    }

    /// Moves a process into the group. This waits for all processors once, some ten milliseconds.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        for dir in self.dirs() {
            let dir = self.leaf.map_or(dir.to_owned(), |leaf| dir.join(leaf));
            write(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Lets the group open these devices only.
    pub(crate) fn allow_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        if let Some(dir) = self.controller("devices") {
            write(&dir.join("devices.deny"), "a")?;
            return rules
                .iter()
                .try_for_each(|rule| write(&dir.join("devices.allow"), &rule.to_string()));
        }
        let Some(dir) = &self.unified else { return Ok(()) };
        bpf::attach(fs::File::open(dir)?, Hook::Device, &device::program(rules))
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        self.split.iter().find(|(controller, _)| controller == name).map(|(_, dir)| dir.as_path())
    }

    /// Sets the limits, in place of those before.
    pub(crate) fn limit(&mut self, limits: &Limits) -> io::Result<()> {
        if self.set.as_ref() == Some(limits) {
            return Ok(());
        }
        self.set = None;
        self.limit_cpuset(limits)?;
        for setting in limits.first() {
            if let Some(dir) = self.controller(setting.controller) {
                check(&setting, write(&dir.join(setting.file), &setting.value))?;
            }
        }
        for setting in limits.second() {
            if let (None, Some(dir)) = (self.controller(setting.controller), &self.unified) {
                check(&setting, write(&dir.join(setting.file), &setting.value))?;
            }
        }
        self.set = Some(limits.clone());
        Ok(())
    }

    /// In the first version: joins the hierarchy of processors and memory nodes when there is
    /// something to limit, with all processes. In that hierarchy a new group has none of either, and
    /// takes no process.
    fn limit_cpuset(&mut self, limits: &Limits) -> io::Result<()> {
        let lists = [("cpuset.cpus", &limits.cpus), ("cpuset.mems", &limits.memory_nodes)];
        let Some(top) = self.cpuset.clone() else {
            let second = self.unified.as_ref().is_some_and(|dir| dir.join("cpuset.cpus").exists());
            let asked = lists.iter().any(|(_, list)| !list.is_empty());
            return match asked && !second {
                true => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this machine has no control group for processors and memory nodes",
                )),
                false => Ok(()),
            };
        };
        let dir = within(&top, &self.path);
        let known = self.controller("cpuset").is_some();
        if !known && lists.iter().all(|(_, list)| list.is_empty()) {
            return Ok(());
        }
        let leaf = self.leaf.map_or(dir.clone(), |leaf| dir.join(leaf));
        make_dir(&leaf)?;
        // What lies above us has to have what we shall have; what somebody else limited stays so.
        let (mut at, mut own) = (top.clone(), Vec::new());
        for name in leaf.strip_prefix(&top).unwrap_or(&leaf) {
            let above = at.clone();
            at.push(name);
            for (file, list) in lists {
                let value = fs::read_to_string(above.join(file))?.trim().to_owned();
                let is_own = at.starts_with(&dir);
                if is_own && !list.is_empty() {
                    own.push((at.join(file), list.clone()));
                } else if is_own {
                    let ours = fs::read_to_string(dir.join("..").join(file))?.trim().to_owned();
                    own.push((at.join(file), ours));
                }
                if fs::read_to_string(at.join(file))?.trim().is_empty() {
                    write(&at.join(file), &value)?;
                }
            }
        }
        // Groups are widened from above, and narrowed from below.
        let set = |(file, list): &(PathBuf, String)| write(file, list);
        if own.iter().try_for_each(set).is_err() {
            own.iter().rev().try_for_each(set)?;
        }
        if !known {
            let mut pids = BTreeSet::new();
            for dir in self.dirs() {
                processes(dir, &mut pids)?;
            }
            for pid in pids {
                match write(&leaf.join("cgroup.procs"), &pid.to_string()) {
                    Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(e),
                    _ => {}
                }
            }
            self.split.push(("cpuset".to_owned(), dir));
        }
        Ok(())
    }

    /// How often the kernel killed a process of the group because its memory was full.
    pub(crate) fn oom_kills(&self) -> u64 {
        let count = |file: PathBuf| -> u64 {
            let text = fs::read_to_string(file).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
        };
        match (self.controller("memory"), &self.unified) {
            // The first version counts in the group that the process was in, and only there.
            (Some(dir), _) => {
                let leaf = self.leaf.map_or(0, |l| count(dir.join(l).join("memory.oom_control")));
                count(dir.join("memory.oom_control")) + leaf
            }
            (None, Some(dir)) => count(dir.join("memory.events")),
            (None, None) => 0,
        }
    }

    /// How often the group's memory was full, where nothing better can be known: the first version
    /// counts who was killed for it in the group that another runtime made, and took away.
    pub(crate) fn memory_full(&self) -> u64 {
        let (Some(dir), Some(_)) = (self.controller("memory"), self.leaf) else { return 0 };
        let text = fs::read_to_string(dir.join("memory.failcnt")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// What was used since [`Cgroup::start_account`].
    pub(crate) fn usage(&self, start: &Usage) -> Usage {
        let now = self.account();
        Usage { cpu: now.cpu.saturating_sub(start.cpu), ..now }
    }

    /// Begins a new account.
    pub(crate) fn start_account(&self) -> Usage {
        if let Some(dir) = self.controller("memory") {
            let _ = write(&dir.join("memory.max_usage_in_bytes"), "0");
        }
        self.account()
    }

    fn account(&self) -> Usage {
        let number = |path: Option<PathBuf>| -> Option<u64> {
            fs::read_to_string(path?).ok()?.trim().parse().ok()
        };
        let first = |name: &str, file: &str| self.controller(name).map(|dir| dir.join(file));
        let second = |file: &str| self.unified.as_ref().map(|dir| dir.join(file));
        let cpu = match number(first("cpuacct", "cpuacct.usage")) {
            Some(nanos) => Duration::from_nanos(nanos),
            None => {
                let text = second("cpu.stat").and_then(|path| fs::read_to_string(path).ok());
                let text = text.unwrap_or_default();
                let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
                Duration::from_micros(micros.and_then(|n| n.parse().ok()).unwrap_or(0))
            }
        };
        let peak = number(first("memory", "memory.max_usage_in_bytes"))
            .or_else(|| number(second("memory.peak")));
        let stat = first("memory", "memory.stat").or_else(|| second("memory.stat"));
        let stat = stat.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let memory_peak_bytes = peak.unwrap_or(0).saturating_sub(cached_files(&stat));
        Usage { cpu, memory_peak_bytes }
    }

    /// Kills all processes in the group and waits until they are gone.
    pub(crate) fn kill(&self) -> io::Result<()> {
        kill_all(&self.dirs(), self.controller("freezer"))
    }

    fn remove(&self) -> io::Result<()> {
        self.all.iter().try_for_each(|top| remove_group(&within(top, &self.path)))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(e) = self.kill().and_then(|()| self.remove()) {
            tracing::warn!(group = %self.path, error = %e, "a control group is left for the next start");
        }
    }
}

/// Bytes of files on disks that the kernel keeps, from a `memory.stat` of either version. Files in
/// memory only (tmpfs) are counted among them, and are not.
fn cached_files(stat: &str) -> u64 {
    let field = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    let files = field("total_cache").or_else(|| field("file")).unwrap_or(0);
    let memory_only = field("total_shmem").or_else(|| field("shmem")).unwrap_or(0);
    files.saturating_sub(memory_only)
}

fn check(setting: &limit::Setting, done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if setting.needed => Err(e),
        _ => Ok(()),
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|e| {
        io::Error::new(e.kind(), format!("writing `{value}` to {}: {e}", path.display()))
    })
}

/// Kills all processes in these directories of one group, and in the groups in it.
pub(crate) fn kill_all(dirs: &[&Path], freezer: Option<&Path>) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    let mut pause = Duration::from_micros(100);
    loop {
        let mut pids = BTreeSet::new();
        for dir in dirs {
            processes(dir, &mut pids)?;
        }
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the processes {pids:?} do not die"),
            ));
        }
        // Frozen processes cannot make new ones while they are counted; they die frozen.
        let freeze = |state: &str| freezer.map(|dir| fs::write(dir.join("freezer.state"), state));
        let killed = dirs.iter().any(|dir| fs::write(dir.join("cgroup.kill"), "1").is_ok());
        if !killed {
            freeze("FROZEN");
            for dir in dirs {
                processes(dir, &mut pids)?;
            }
        }
        for pid in pids {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if !killed {
            freeze("THAWED");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The processes of a group and of the groups in it. Nothing when it is not there.
fn processes(dir: &Path, into: &mut BTreeSet<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A threaded group: its processes are listed above it.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e),
    };
    into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for below in groups_in(dir)? {
        processes(&below, into)?;
    }
    Ok(())
}

fn groups_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let dirs = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_type().ok()?.is_dir().then(|| entry.path())
    });
    Ok(dirs.collect())
}

/// Removes an empty group and the groups in it.
pub(crate) fn remove_group(dir: &Path) -> io::Result<()> {
    for below in groups_in(dir)? {
        remove_group(&below)?;
    }
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::remove_dir(dir) {
            // The last process is out of the list before it is out of the group.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && pause.as_millis() < 2000 => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
