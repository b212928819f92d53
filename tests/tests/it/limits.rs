//! What RUN may use: the flags that `docker build` has for it, as a container sees them.

use tests::site::Site;

/// Prints what a control group says, by either version's name of the file.
const GROUP: &str = r#"
see() { cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2; }
echo memory $(see memory/memory.limit_in_bytes memory.max)
echo shares $(see cpu/cpu.shares cpu.weight)
echo quota $(see cpu/cpu.cfs_quota_us cpu.max)
echo processors $(sed -n 's/^Cpus_allowed_list:\s*//p' /proc/self/status)
echo nodes $(sed -n 's/^Mems_allowed_list:\s*//p' /proc/self/status)
echo files $(ulimit -n)
echo shm $(df -k /dev/shm | sed -n 's/^shm *\([0-9]*\).*/\1/p')
"#;

#[test]
fn flags_limit_what_a_step_may_use() {
    let site = Site::of("FROM conf/busybox:1\nCOPY see /see\nRUN sh /see\n");
    site.write("see", GROUP);
    let flags = [
        "--memory=64m",
        "--memory-swap=96m",
        "--cpu-shares=512",
        "--cpu-quota=50000",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "--ulimit=nofile=321:321",
        "--shm-size=8m",
    ];
    let mut outcome = site.build(&flags).ok();
    for line in ["memory 67108864", "processors 0", "nodes 0", "files 321", "shm 8192"] {
        outcome = outcome.says(line);
    }
    let all = outcome.all();
    assert!(all.contains("shares 512") || all.contains("shares 20"), "{all}");
    assert!(all.contains("quota 50000"), "{all}");
    // The next step has what there is again, in the same group.
    site.write("see", GROUP.replace("echo memory", "echo again; echo memory"));
    let free = site.build(&[]).ok().says("again");
    assert!(!free.all().contains("memory 67108864") && !free.all().contains("shares 512"));
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let site = Site::of("FROM conf/busybox:1\nRUN true\n");
    site.build(&["--cpuset-cpus=zero"]).fails(2).says("expected a list such as 0-2,7");
    site.build(&["--memory-swap=1g"]).fails(2).says("--memory");
    site.build(&["--cpuset-cpus=4000"]).fails(1).says("4000");
}
