//! What a container can not do.

use crate::house::*;
use proto::step::{NetworkMode, RunOp, SecurityMode};
use std::net::TcpListener;
use worker::sandbox::Outcome;

#[test]
fn capabilities_and_filter_are_dockers() {
    let house = house();
    let status = house.sh("grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status");
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().last().unwrap().to_owned()
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(value(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!((value("Seccomp:").as_str(), value("NoNewPrivs").as_str()), ("2", "0"));
    let user = RunOp { user: "app".to_owned(), ..op("grep CapEff /proc/self/status") };
    assert!(house.run(&user).out.contains("0000000000000000"));
}

#[test]
fn the_host_is_out_of_reach() {
    let house = house();
    for script in [
        "mount -t tmpfs x /tmp",
        "umount /proc",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/mm/ksm/run",
        "mknod /tmp/m c 1 1 && cat /tmp/m",
        "mknod /tmp/d b 8 0 && head -c 1 /tmp/d",
        "hostname other",
        "ip addr add 127.9.9.9/32 dev lo",
        "mkdir /sys/fs/cgroup/pids/x",
        "cat /proc/kcore | head -c 1 | grep .",
    ] {
        let ran = house.run(&op(&format!("{script} 2>&1")));
        assert_ne!(ran.outcome, Outcome::Exited(0), "{script}: {}", ran.out);
    }
    assert_eq!(house.sh("ls /proc | grep -c '^[0-9]*$'"), "3");
    // Files that the helper has open are not the container's.
    assert_eq!(house.sh("ls /proc/self/fd | wc -l"), "4");
}

#[test]
fn no_network() {
    let house = house();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(house.sh("ls /sys/class/net"), "lo");
    let ran = house.run(&op(&format!("nc -w 2 127.0.0.1 {port} < /dev/null")));
    assert_ne!(ran.outcome, Outcome::Exited(0));
    // Its own loopback works.
    let own = "(echo hi | nc -l -p 7777) & sleep 0.2; nc 127.0.0.1 7777 < /dev/null";
    assert_eq!(house.sh(own), "hi");
}

#[test]
fn the_hosts_network() {
    let house = house();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.accept().map(drop));
    let script = format!("nc -w 2 127.0.0.1 {port} < /dev/null && cat /etc/resolv.conf");
    let op = RunOp { network: NetworkMode::Host, ..op(&script) };
    let ran = house.run(&op);
    assert_eq!(ran.outcome, Outcome::Exited(0), "{}{}", ran.out, ran.err);
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("nameserver"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(servers(&ran.out), servers(&host));
}

#[test]
fn without_confinement() {
    let house = house();
    let op = RunOp {
        security: SecurityMode::Insecure,
        ..op("mount -t tmpfs x /tmp && grep -E '^Seccomp:' /proc/self/status && \
              mknod /dev/zero2 c 1 5 && ls /dev/loop-control && echo 3 > /proc/sys/vm/drop_caches && \
              ip addr add 127.9.9.9/32 dev lo && ip addr | grep -c 127.9.9.9")
    };
    let ran = house.run(&op);
    assert_eq!(ran.outcome, Outcome::Exited(0), "{}{}", ran.out, ran.err);
    assert_eq!(ran.out, "Seccomp:\t0\n/dev/loop-control\n1\n");
    // Nobody after it has what it did to its network.
    assert_eq!(house.sh("ip addr | grep -c 127.9.9.9 || true"), "0");
}

#[test]
fn names_of_hosts() {
    let house = house();
    let extra = vec![("conf-one".to_owned(), "10.9.8.7".to_owned())];
    let ran =
        house.run(&RunOp { extra_hosts: extra, ..op("cat /etc/hosts; echo x >> /etc/hosts") });
    assert_eq!(
        ran.out,
        "127.0.0.1\tlocalhost buildkitsandbox\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n10.9.8.7\tconf-one\n"
    );
    assert_ne!(ran.outcome, Outcome::Exited(0));
}
