//! The control groups of one host: a group in each hierarchy, which the host sees as the top
//! (cgroup_namespaces(7)). Two hosts whose state directories have the same path would otherwise
//! make groups of the same name.

use crate::scratch::{self, Process, make};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes may take to freeze, or to be gone after they were killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the processes of a host start. They are not in the host's own group, because the second
/// version lets a group either have processes or hand controllers down.
pub(super) const LEAF: &str = "system";

/// What the second version's hierarchy hands down to the hosts, where it has it.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A hierarchy of this machine.
#[derive(Debug, Clone)]
struct Hierarchy {
    mounted: PathBuf,
    unified: bool,
}

/// The groups of one host.
#[derive(Debug)]
pub(super) struct Groups {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl Groups {
    /// Makes them. No two hosts of one process may have the same label.
    pub(super) fn new(label: &str) -> Self {
        let name = format!("{}{label}", prefix(&std::process::id().to_string()));
        let groups = Self { name, hierarchies: hierarchies() };
        for hierarchy in &groups.hierarchies {
            if hierarchy.unified {
                let file = hierarchy.mounted.join("cgroup.subtree_control");
                // Each by itself: what is missing is in use by the first version.
                CONTROLLERS.iter().for_each(|name| drop(fs::write(&file, format!("+{name}"))));
            }
            let own = hierarchy.mounted.join(&groups.name);
            for group in [&own, &own.join(LEAF)] {
                make(group);
                inherit_processors(group);
            }
        }
        groups
    }

    /// Where each hierarchy is mounted, and the host's group in it.
    pub(super) fn places(&self) -> impl Iterator<Item = (&Path, PathBuf)> {
        let place = |hierarchy: &Hierarchy| hierarchy.mounted.join(&self.name);
        self.hierarchies.iter().map(move |one| (one.mounted.as_path(), place(one)))
    }

    /// Stops all processes where they are, or lets them go on. Answers when it is done.
    pub(super) fn freeze(&self, frozen: bool) {
        let group = self.unified();
        let digit = u8::from(frozen);
        fs::write(group.join("cgroup.freeze"), digit.to_string()).expect("freezing a group");
        let deadline = Instant::now() + PATIENCE;
        let wanted = format!("frozen {digit}");
        let is_so = || {
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
            events.lines().any(|line| line == wanted)
        };
        while !is_so() {
            assert!(Instant::now() < deadline, "{} does not come to `{wanted}`", group.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All processes.
    pub(super) fn processes(&self) -> Vec<Process> {
        processes_in(&self.unified())
    }

    fn unified(&self) -> PathBuf {
        let unified = self.hierarchies.iter().find(|hierarchy| hierarchy.unified);
        let unified = unified.expect("this machine has control groups of the second version");
        unified.mounted.join(&self.name)
    }

    /// Waits until no process is left in them, and removes them. All processes must have been
    /// killed.
    pub(super) fn remove(&self) {
        let left = remove_all(self.places().map(|(_, group)| group).collect());
        assert!(left.is_empty(), "control groups stay: {left:?}");
    }
}

/// How the names of a test process' groups begin.
fn prefix(pid: &str) -> String {
    format!("slipway-tests-{pid}-")
}

/// Takes away what a test process that is gone left behind.
pub(crate) fn sweep(pid: &str) {
    let left = groups_of(pid);
    for group in &left {
        scratch::kill(&processes_in(group));
    }
    for group in remove_all(left) {
        eprintln!("the control group {} stays", group.display());
    }
}

/// The groups that the hosts of a test process have, or left behind.
fn groups_of(pid: &str) -> Vec<PathBuf> {
    let prefix = prefix(pid);
    let all = hierarchies().into_iter().flat_map(|one| folders(&one.mounted));
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    all.filter(|path| name(path).is_some_and(|name| name.starts_with(&prefix))).collect()
}

/// The hierarchies below `/sys/fs/cgroup` (proc_pid_mountinfo(5)); outer ones first.
fn hierarchies() -> Vec<Hierarchy> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mounted = PathBuf::from(before.split(' ').nth(4)?);
        let kind = after.split(' ').next()?;
        let wanted = matches!(kind, "cgroup" | "cgroup2") && mounted.starts_with("/sys/fs/cgroup");
        wanted.then(|| Hierarchy { mounted, unified: kind == "cgroup2" })
    };
    let mut all: Vec<_> = text.lines().filter_map(parse).collect();
    all.sort_by(|a, b| a.mounted.cmp(&b.mounted));
    all.dedup_by(|a, b| a.mounted == b.mounted);
    all
}

/// A group of the first version takes no process before it has processors and memory nodes.
fn inherit_processors(group: &Path) {
    let above = group.parent().expect("a group below the top");
    for file in ["cpuset.cpus", "cpuset.mems"].map(Path::new) {
        let is_first_version = !group.join("cgroup.controllers").exists();
        if let (true, Ok(all)) = (is_first_version, fs::read(above.join(file))) {
            fs::write(group.join(file), all).expect("giving processors to a group");
        }
    }
}

/// The processes of a group and of those below it.
fn processes_in(group: &Path) -> Vec<Process> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|pid| pid.parse().ok()).map(scratch::process);
    own.chain(folders(group).iter().flat_map(|below| processes_in(below))).collect()
}

/// Removes groups as soon as they are empty. Answers with those that do not become so.
fn remove_all(mut groups: Vec<PathBuf>) -> Vec<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        groups.retain(|group| !remove_with_all_below(group));
        if groups.is_empty() || Instant::now() > deadline {
            return groups;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn remove_with_all_below(group: &Path) -> bool {
    let state = group.join("freezer.state");
    if state.exists() {
        // In the first version frozen processes do not die.
        let _ = fs::write(state, "THAWED");
    }
    for below in folders(group) {
        remove_with_all_below(&below);
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

fn folders(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
