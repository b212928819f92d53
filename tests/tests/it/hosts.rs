//! The harness of several hosts: it joins what it should, separates what it should, and leaves
//! nothing behind.

mod left;
mod network;

use crate::cache::until;
use rustix::process::Signal;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use tests::command::DEADLINE;
use tests::hosts::{Host, Site};

/// Runs a script in a host.
#[track_caller]
fn sh(host: &Host, script: &str) -> tests::command::Outcome {
    host.command("sh", ["-euc", script]).run()
}

/// A connection from one host to another; both ends are in this process.
fn connection(from: &Host, to: &Host) -> (TcpStream, TcpStream) {
    let listener = to.within(|| TcpListener::bind("0.0.0.0:0")).expect("a free port");
    let to = (to.ip(), listener.local_addr().expect("a bound socket").port());
    let near = from.within(move || TcpStream::connect(to)).expect("the other host answers");
    let (far, _) = listener.accept().expect("a connection that is there");
    for end in [&near, &far] {
        end.set_read_timeout(Some(DEADLINE)).expect("setting a timeout");
    }
    (near, far)
}

/// Nothing has come on a connection: no data, no end, no error.
#[track_caller]
fn assert_silent(mut end: &TcpStream) {
    end.set_nonblocking(true).expect("changing a socket");
    let read = end.read(&mut [0]).map_err(|e| e.kind());
    assert_eq!(read, Err(ErrorKind::WouldBlock));
    end.set_nonblocking(false).expect("changing a socket");
}

#[test]
fn a_host_has_its_own_names_and_directories() {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    assert_eq!(
        sh(&one, "hostname; cat /etc/hostname; echo $HOME; pwd").ok().text(),
        "one\none\n/root\n/root"
    );
    for place in ["/var/lib/slipway", "/tmp", "/root", "/run", "/etc", "/var/tmp", "/dev/shm"] {
        let script = format!("touch {place}/of-one; test -e {place}/of-one");
        sh(&one, &script).ok();
        sh(&two, &format!("test -d {place}; ! test -e {place}/of-one")).ok();
    }
    one.write("/var/lib/slipway/a/file", "of one\n");
    assert_eq!(sh(&one, "cat /var/lib/slipway/a/file").ok().text(), "of one");
    sh(&one, "echo changed > /var/lib/slipway/a/file").ok();
    assert_eq!(one.read("/var/lib/slipway/a/file"), b"changed\n");
    // Neither by the path that it has for the test.
    for host in [&one, &two] {
        sh(host, &format!("! test -e {}", site.home().display())).ok();
    }
    assert_eq!(site.host("one").ip(), one.ip(), "the same name is the same host");
    assert_ne!(one.ip(), two.ip());
}

#[test]
fn programs_are_shared_but_cannot_be_written_to() {
    let site = Site::new();
    let host = site.host("one");
    let own = std::env::current_exe().expect("the path of this program");
    host.command(&own, ["--list"]).run().ok().says("programs_are_shared");
    let directory = own.parent().expect("a program lies in a directory").display();
    for place in ["/usr".to_owned(), "/usr/bin".to_owned(), directory.to_string()] {
        sh(&host, &format!("! touch {place}/new")).ok().says("read-only");
    }
}

#[test]
fn hosts_do_not_see_each_others_processes() {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    let service = one.command("sleep", ["1000001"]).serve("sleep");
    until("it sleeps", || one.processes().iter().any(|p| p.command.starts_with("sleep 1000001")));
    assert_eq!(one.processes().len(), 1, "{:?}", one.processes());
    assert_eq!(one.processes()[0].pid, service.pid());
    assert!(two.processes().is_empty());
    let count = "grep -l ^sleep /proc/[0-9]*/cmdline | wc -l";
    assert_eq!(sh(&one, count).ok().text(), "2", "the first process and the service");
    assert_eq!(sh(&two, count).ok().text(), "1", "the first process");
}

#[test]
fn nobody_keeps_zombies_in_a_host() {
    let site = Site::new();
    let host = site.host("one");
    sh(&host, "(sleep 0.1 &) ; true").ok();
    until("the orphan is gone", || host.processes().is_empty());
    assert_eq!(sh(&host, "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l").ok().text(), "0");
}

#[test]
fn the_state_directory_takes_overlays() {
    let site = Site::new();
    let host = site.host("one");
    let script = "
        df /var/lib/slipway
        cd /var/lib/slipway
        mkdir lower upper work merged
        echo below > lower/kept
        echo below > lower/removed
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
        rm merged/removed
        echo above > merged/new
        umount merged
        test -c upper/removed
        cat upper/new
    ";
    sh(&host, script).ok().says("above");
    assert_eq!(host.read("/var/lib/slipway/upper/new"), b"above\n");
}

/// What a host runs: an overlay as the root of a container with a limit and with namespaces of its
/// own.
#[test]
fn containers_run_in_a_host() {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    for host in [&one, &two] {
        let prepare = "
            mkdir -p c/lower/bin c/lower/proc c/upper c/work c/rootfs
            cp /usr/bin/busybox c/lower/bin
            cd c
            mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work rootfs
            crun spec
        ";
        sh(host, prepare).ok();
        let mut spec: serde_json::Value =
            serde_json::from_slice(&host.read("/root/c/config.json")).expect("a spec is JSON");
        let script =
            "echo 'in a container' > /made; busybox cat /proc/self/cgroup; busybox sleep 1000002";
        spec["process"]["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", script]);
        spec["process"]["terminal"] = false.into();
        spec["root"]["readonly"] = false.into();
        spec["linux"]["cgroupsPath"] = "/nested/group".into();
        spec["linux"]["resources"]["memory"]["limit"] = (64 << 20).into();
        host.write("/root/c/config.json", spec.to_string());
    }
    // Of the same name in both, at the same time.
    let run = |host: &Host| {
        host.command("crun", ["run", "same"])
            .directory("/root/c")
            .env("XDG_RUNTIME_DIR", "/run")
            .serve("crun")
    };
    let _running = [run(&one), run(&two)];
    let sleeps = |host: &Host| {
        host.processes().iter().any(|p| p.command.starts_with("busybox sleep 1000002"))
    };
    for host in [&one, &two] {
        until("the container runs", || sleeps(host));
        assert_eq!(host.read("/root/c/upper/made"), b"in a container\n");
        let limit = "cat /sys/fs/cgroup/memory/nested/group/memory.limit_in_bytes \
            /sys/fs/cgroup/nested/group/memory.max 2>/dev/null || true";
        assert_eq!(sh(host, limit).ok().text(), (64 << 20).to_string());
    }
    one.kill();
    assert!(one.processes().is_empty());
    assert!(sleeps(&two));
    // The container does not end when it is asked to.
    two.kill();
}

#[test]
fn a_killed_host_is_gone_without_a_word_and_the_others_go_on() {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    let (near, _far) = connection(&two, &one);
    let mut killed = one.command("sleep", ["1000003"]).serve("sleep");
    let mut survives = two.command("sleep", ["1000003"]).serve("sleep");
    let command = one.command("sleep", ["1000003"]).start();
    sh(
        &one,
        "echo kept > /var/lib/slipway/file; sleep 1000003 >/dev/null 2>&1 & echo lost > /run/file",
    )
    .ok();
    until("all three sleep", || one.processes().len() == 3);
    one.kill();
    assert!(one.processes().is_empty());
    assert!(!killed.is_running());
    command.finish(DEADLINE).fails(137);
    assert!(survives.is_running());
    assert_silent(&near);
    two.command("ping", ["-c", "1", "-W", "1", "one"]).run().fails(1).never_says("unreachable");

    one.boot();
    assert_eq!(sh(&one, "cat /var/lib/slipway/file; ! test -e /run/file").ok().text(), "kept");
    two.command("ping", ["-c", "1", "-W", "10", "one"]).run().ok();
}

#[test]
fn a_process_is_killed_alone() {
    let site = Site::new();
    let host = site.host("one");
    let mut one = host.command("sleep", ["1000004"]).serve("one");
    let mut other = host.command("sleep", ["1000004"]).serve("other");
    one.kill();
    assert!(!one.is_running());
    assert!(other.is_running());
    let running = host
        .command(
            "sh",
            ["-c", "trap 'exit 7' TERM; echo up >&2; sleep 1000004 >/dev/null 2>&1 & wait"],
        )
        .start();
    until("it waits for the signal", || running.so_far().contains("up"));
    running.signal(Signal::TERM);
    running.finish(DEADLINE).fails(7);
}

#[test]
fn a_frozen_host_does_nothing_until_it_thaws() {
    let site = Site::new();
    let host = site.host("one");
    let script = "while true; do echo . >> /tmp/dots; sleep 0.01; done";
    let mut service = host.command("sh", ["-c", script]).serve("dots");
    let dots = || std::fs::read(host.path("/tmp/dots")).map_or(0, |dots| dots.len());
    until("it writes", || dots() > 0);
    host.freeze();
    let before = dots();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(dots(), before);
    assert!(service.is_running());
    let late = host.command("touch", ["/tmp/late"]).start();
    std::thread::sleep(Duration::from_millis(200));
    assert!(!host.path("/tmp/late").exists(), "what starts in a frozen host is frozen");
    host.thaw();
    late.finish(DEADLINE).ok();
    until("it goes on", || dots() > before);
    host.freeze();
    host.kill();
    assert!(!service.is_running(), "a frozen host can be killed");
}

#[test]
fn services_have_logs_of_their_own() {
    let site = Site::new();
    let host = site.host("one");
    let say = |text: &str| {
        host.command("sh", ["-c", &format!("echo {text}; exec sleep 1000005")]).serve("same")
    };
    let (mut first, mut second) = (say("first"), say("second"));
    let said = |log: &str| log.contains('\n').then(|| log.trim().to_owned());
    assert_eq!(first.until("The first service", said), "first");
    assert_eq!(second.until("The second service", said), "second");
}

#[test]
#[should_panic(expected = "one is off")]
fn a_host_that_is_off_runs_nothing() {
    let site = Site::new();
    let host = site.host("one");
    host.kill();
    let _ = host.command("true", [""; 0]).run();
}
