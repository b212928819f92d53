//! What is left of a site when it is dropped, when its test panics, and when its process is killed.

use super::connection;
use crate::cache::until;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::command::{DEADLINE, Running, command, run};
use tests::hosts::{Link, Site};
use tests::scratch::{alive, cache, mounts_below, processes_of};
use tests::service::Service;
use tests::slipway::groups_of;
use tests::tool::tool;

/// Says to the test of that name below that it is to wait for its end.
const HOLD: &str = "SLIPWAY_TEST_HOLD";

/// A site that has everything in it that could be left.
fn busy_site() -> (Site, Vec<Service>) {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    let mount = one.command("mount", ["-t", "tmpfs", "tmpfs", "/var/lib/slipway"]).run();
    mount.ok();
    let group = "mkdir /sys/fs/cgroup/left /sys/fs/cgroup/unified/left 2>/dev/null || true";
    one.command("sh", ["-c", group]).run().ok();
    one.link(Link { delay_ms: 1, ..Link::default() });
    two.cut();
    let left_session = "setsid sh -c 'sleep 1000006 & sleep 1000006' & sleep 1000006";
    let services = [&one, &two].map(|host| host.command("sh", ["-c", left_session]).serve("sleep"));
    let all_run =
        || one.processes().iter().filter(|p| p.command.starts_with("sleep ")).count() == 3;
    until("all processes run", all_run);
    (site, services.into())
}

/// What can be seen of a site from outside.
struct Seen {
    home: PathBuf,
    /// The control groups that the hosts are in.
    groups: BTreeSet<PathBuf>,
    /// Links below `/proc/PID/ns`, as they read.
    namespaces: BTreeSet<String>,
}

impl Seen {
    /// What there is of the site with this directory, which is the one of this process.
    fn of(home: &Path, pid: u32) -> Self {
        let mut namespaces = namespace_of_lan(home, &pid.to_string());
        let mut groups = BTreeSet::new();
        for process in processes_of(home).iter().filter(|p| p.command.starts_with("sleep ")) {
            namespaces.extend(namespaces_of(&process.pid.to_string()));
            // The processes are in a group of their host's.
            let above = |group: PathBuf| group.parent().map(Path::to_owned);
            groups.extend(groups_of(process.pid).into_iter().filter_map(above));
        }
        for own in links_below(Path::new("/proc/self/ns")) {
            namespaces.remove(&own);
        }
        let count = |kind: &str| namespaces.iter().filter(|n| n.starts_with(kind)).count();
        let counts = ["net", "mnt", "pid", "uts", "ipc", "cgroup"].map(count);
        assert_eq!(counts, [3, 2, 2, 2, 2, 2], "of two hosts and the network: {namespaces:?}");
        let top = |group: &&PathBuf| group.starts_with("/sys/fs/cgroup") && group.is_dir();
        assert!(groups.len() >= 2 && groups.iter().filter(top).count() == groups.len());
        Self { home: home.to_owned(), groups, namespaces }
    }

    /// The processes that are left, and what is in the namespaces that are left.
    fn alive(&self) -> Vec<String> {
        let processes = processes_of(&self.home).into_iter().filter(|p| alive(p.pid));
        let mut left: Vec<String> = processes.map(|process| process.command).collect();
        let everybody = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        for one in everybody {
            let pid = one.file_name().to_string_lossy().into_owned();
            let shared = namespaces_of(&pid).intersection(&self.namespaces).count();
            if shared > 0 {
                left.push(format!("{pid} is in {shared} of the namespaces"));
            }
        }
        left
    }

    /// Nothing is left that has a name on this machine, but directories and control groups.
    #[track_caller]
    fn assert_unnamed(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        for namespace in &self.namespaces {
            assert!(!mounts.contains(namespace), "{namespace} is mounted");
        }
        assert!(mounts_below(&self.home).is_empty());
        let named = run(command(tool("ip")).args(["netns", "list"])).ok().text();
        assert_eq!(named, "", "network namespaces with names");
        let links = run(command(tool("ip")).args(["-o", "link"])).ok().text();
        for name in ["lan", "wire", "near", "far", "joint"] {
            assert!(!links.contains(&format!(": {name}")), "{name} is among\n{links}");
        }
    }

    #[track_caller]
    fn assert_all_gone(&self) {
        until("no process is left", || self.alive().is_empty());
        self.assert_unnamed();
        assert!(!self.home.exists());
        let groups: Vec<_> = self.groups.iter().filter(|group| group.exists()).collect();
        assert!(groups.is_empty(), "control groups are left: {groups:?}");
    }
}

/// The namespaces that the threads of a process are in.
fn namespaces_of(pid: &str) -> BTreeSet<String> {
    threads_of(pid).iter().flat_map(|thread| links_below(&thread.join("ns"))).collect()
}

/// The one of a site's network: its thread has the name of the site's directory.
fn namespace_of_lan(home: &Path, pid: &str) -> BTreeSet<String> {
    let name = home.file_name().expect("a directory below another").to_string_lossy();
    let is_lan = |thread: &&PathBuf| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let threads = threads_of(pid);
    threads.iter().filter(is_lan).flat_map(|thread| links_below(&thread.join("ns"))).collect()
}

fn threads_of(pid: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Links of `/proc/PID/ns`, as they read: `net:[4026532345]`.
fn links_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

#[test]
fn nothing_is_left_of_a_site_that_was_dropped() {
    let (site, services) = busy_site();
    let kept = site.host("one");
    let ends = connection(&site.host("one"), &site.host("one"));
    let seen = Seen::of(site.home(), std::process::id());
    // In the wrong order: the site must not wait for those who use it.
    drop(site);
    drop(ends);
    drop(services);
    seen.assert_all_gone();
    assert!(kept.processes().is_empty());
}

#[test]
fn nothing_is_left_of_a_site_whose_test_panicked() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let failing = std::thread::spawn(move || {
        let (site, _services) = busy_site();
        let seen = Seen::of(site.home(), std::process::id());
        sender.send(seen).expect("the test waits for it");
        site.host("two").freeze();
        panic!("this is part of the test");
    });
    assert!(failing.join().is_err());
    receiver.recv().expect("it was sent before the panic").assert_all_gone();
}

/// This test program, with the test below, and nothing else.
fn another_test_process() -> Command {
    let mut other = command(std::env::current_exe().expect("the path of this program"));
    other.args(["--exact", "hosts::left::a_site_lives_in_any_test_process", "--nocapture"]);
    other.env("SLIPWAY_TEST_CACHE", cache());
    other
}

#[test]
fn a_site_lives_in_any_test_process() {
    let (site, services) = busy_site();
    if std::env::var_os(HOLD).is_some() {
        eprintln!("holding {}.", site.home().display());
        loop {
            std::thread::park();
        }
    }
    drop(services);
    assert_eq!(site.host("one").processes().len(), 4, "what is not the service's first");
}

#[test]
fn nothing_is_left_of_a_site_whose_process_was_killed() {
    let held = Running::start(another_test_process().env(HOLD, "1"), &[]);
    let pid = held.pid() as u32;
    let mut seen = None;
    until("the other process has its site", || {
        let said = held.so_far();
        let home = said.lines().find_map(|line| line.strip_prefix("holding ")?.strip_suffix('.'));
        seen = home.map(|home| Seen::of(Path::new(home), pid));
        seen.is_some()
    });
    let seen = seen.expect("it was just there");
    held.signal(Signal::KILL);
    held.finish(DEADLINE).fails(137);
    // All that works is gone by itself.
    until("no process is left", || seen.alive().is_empty());
    seen.assert_unnamed();
    // What lies around is taken away by the next test process.
    run(&mut another_test_process()).ok();
    seen.assert_all_gone();
    assert!(!cache().join("run").join(pid.to_string()).exists());
}
