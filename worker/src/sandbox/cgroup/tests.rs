use super::*;
use std::io::Write;
use std::process::{Child, Command, Stdio};

fn groups() -> Cgroups {
    let number = std::process::id();
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    Cgroups::open(&format!("slipway-test-{number}-{thread}"))
}

/// Removes the parent group too, also when the test fails.
struct Tidy(Cgroups);

impl Drop for Tidy {
    fn drop(&mut self) {
        for top in self.0.layout.hierarchies() {
            remove_group(&within(top, &self.0.parent)).unwrap();
        }
    }
}

/// Runs a script in a group: it begins when it is in it, and so does all that it starts.
fn start(group: &Cgroup, script: &str) -> Child {
    let script = format!("read go; {script}");
    let mut sh = Command::new("/bin/busybox");
    let mut child = sh.args(["sh", "-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    group.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child
}

#[test]
fn a_killed_group_is_empty() {
    let tidy = Tidy(groups());
    assert_eq!(tidy.0.unusable(), None);
    let group = tidy.0.group(None, "g").unwrap();
    let mut child = start(&group, "while true; do sleep 100 & sleep 0.01; done");
    group.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let dir = group.dirs()[0].to_owned();
    assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).unwrap(), "");
    drop(group);
    assert!(!dir.exists());
}

#[test]
fn a_group_without_cgroup_kill_is_killed_too() {
    let tidy = Tidy(groups());
    let group = tidy.0.group(None, "g").unwrap();
    let Some(freezer) = group.controller("freezer").map(Path::to_owned) else {
        // Only the first version has no `cgroup.kill`.
        assert!(group.unified().unwrap().join("cgroup.kill").exists());
        return;
    };
    let mut child = start(&group, "while true; do (sleep 100 &); done");
    kill_all(&[&freezer], Some(&freezer)).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn limits_are_set_and_taken_away() {
    let tidy = Tidy(groups());
    let mut group = tidy.0.group(Some("/slipway-test-other/"), "g").unwrap();
    let parent = format!("/slipway-test-other{}", tidy.0.parent());
    assert_eq!(group.path(), format!("{parent}/g"));
    let read = |group: &Cgroup| -> String {
        let files = ["pids.max", "memory.max", "memory.limit_in_bytes", "cpu.max"];
        let files = files.iter().chain(&["cpu.cfs_quota_us", "cpu.shares", "cpu.weight"]);
        let dirs = group.dirs();
        let all = dirs.iter().flat_map(|dir| files.clone().map(move |file| dir.join(file)));
        all.filter_map(|path| fs::read_to_string(path).ok()).collect()
    };
    let free = read(&group);
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_millis: Some(500),
        cpu_shares: Some(512),
        pids: Some(50),
        ..Limits::default()
    };
    group.limit(&limits).unwrap();
    let set = read(&group);
    let shares = if group.controller("cpu").is_some() { "512" } else { "20" };
    for want in ["67108864", "50000", "54", shares] {
        assert!(set.contains(want), "{want} in {set}");
    }
    group.limit(&Limits::default()).unwrap();
    assert_eq!(read(&group), free);
    drop(group);
    for top in tidy.0.layout.hierarchies() {
        remove_group(&within(top, "/slipway-test-other")).unwrap();
    }
}

#[test]
fn processors_are_chosen_for_what_runs_already() {
    let tidy = Tidy(groups());
    let mut group = tidy.0.group(None, "g").unwrap();
    let mut child = start(&group, "sleep 100");
    let allowed = |id: u32| -> String {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    };
    let all = allowed(child.id());
    for (cpus, want) in [("0", "0"), ("", &all), ("0", "0")] {
        let limits = Limits { cpus: cpus.to_owned(), ..Limits::default() };
        group.limit(&limits).unwrap();
        assert_eq!(allowed(child.id()), want);
    }
    let none = Limits { cpus: "4000".to_owned(), ..Limits::default() };
    assert!(group.limit(&none).unwrap_err().to_string().contains("4000"));
    drop(group);
    child.wait().unwrap();
    for top in tidy.0.layout.all.iter() {
        remove_group(&within(top, &tidy.0.parent)).unwrap();
    }
}

#[test]
fn both_ways_of_allowing_devices() {
    let tidy = Tidy(groups());
    let group = tidy.0.group(None, "g").unwrap();
    group.allow_devices(&DEFAULT_DEVICES).unwrap();
    let can = |path: &str| {
        let script = format!(": < {path}");
        let mut child = start(&group, &script);
        child.wait().unwrap().success()
    };
    assert!(can("/dev/null"));
    assert!(!can("/dev/kmsg"));
    if let (Some(dir), Some(_)) = (group.unified(), group.controller("devices")) {
        // Here the first version did it; the second one's program alone does it too.
        let dir = dir.to_owned();
        fs::write(group.controller("devices").unwrap().join("devices.allow"), "a").unwrap();
        assert!(can("/dev/kmsg"));
        let program = device::program(&DEFAULT_DEVICES);
        bpf::attach(fs::File::open(&dir).unwrap(), Hook::Device, &program).unwrap();
        assert!(can("/dev/null"));
        assert!(!can("/dev/kmsg"));
        let program = device::program(&ALL_DEVICES);
        bpf::attach(fs::File::open(&dir).unwrap(), Hook::Device, &program).unwrap();
        assert!(can("/dev/kmsg"));
    }
}

#[test]
fn files_that_the_kernel_keeps_are_no_memory_in_use() {
    let first = "cache 50\nrss 10\nshmem 20\ntotal_cache 500\ntotal_rss 10\ntotal_shmem 200\n";
    let second = "anon 10\nfile 500\nkernel 7\nshmem 200\nfile_mapped 100\n";
    assert_eq!([first, second, ""].map(cached_files), [300, 300, 0]);
}

#[test]
fn a_full_memory_is_counted() {
    let tidy = Tidy(groups());
    let mut group = tidy.0.group(None, "g").unwrap();
    let limits = Limits { memory_bytes: Some(16 << 20), ..Limits::default() };
    group.limit(&limits).unwrap();
    let before = group.start_account();
    let mut child = start(&group, "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null");
    assert!(!child.wait().unwrap().success());
    assert!(group.oom_kills() > 0);
    let usage = group.usage(&before);
    assert!(usage.memory_peak_bytes > 8 << 20, "{usage:?}");
    assert!(usage.cpu > Duration::ZERO);
}
