//! The default network: others are reached as from the host, the host itself is not.

use crate::house::*;
use proto::error::Class;
use proto::step::{NetworkMode, RunOp};
use std::io::Write;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use worker::sandbox::{DefaultNetwork, Outcome, Runtime};

fn run(house: &House, script: &str) -> String {
    let ran = house.run(&RunOp { network: NetworkMode::Default, ..op(script) });
    assert_eq!(ran.outcome, Outcome::Exited(0), "{script}: {}{}", ran.out, ran.err);
    ran.out
}

/// Greets whoever connects, on all of the calling thread's addresses. Answers the port.
fn greet(greeting: &'static str) -> u16 {
    let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = { stream }.write_all(greeting.as_bytes());
        }
    });
    port
}

/// Prints what somebody says who is connected to. Its own direction stays open meanwhile (a pipe
/// that is opened for both never ends): the `pasta` of Debian 12 does not pass on the end of a
/// connection, or what was said, when both directions end at the same time.
const LISTEN: &str = "mkfifo /open; listen() { nc -w 5 $1 $2 <> /open; };";

/// Another host: a network namespace, connected to this one. Gone when it is dropped.
struct Neighbour {
    process: Child,
    here: String,
    there: String,
}

impl Neighbour {
    fn new() -> Self {
        let process = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let pid = process.id();
        let net = format!("10.213.{}", pid % 250);
        let made = Self { process, here: format!("{net}.1"), there: format!("{net}.2") };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == own {
            std::thread::yield_now();
        }
        let near = format!("slw{pid}");
        ip(&[
            "link",
            "add",
            &near,
            "type",
            "veth",
            "peer",
            "name",
            "far",
            "netns",
            &pid.to_string(),
        ]);
        ip(&["addr", "add", &format!("{}/30", made.here), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        made.inside(|| {
            ip(&["addr", "add", &format!("{}/30", made.there), "dev", "far"]);
            ip(&["link", "set", "far", "up"]);
        });
        made
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", self.process.id())).unwrap();
        let entered = || {
            rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().unwrap())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let near = format!("slw{}", self.process.id());
        let _ = Command::new("ip").args(["link", "del", &near]).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {args:?}");
}

fn main_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

#[test]
fn others_are_reached_and_the_host_is_not() {
    let house = house();
    let neighbour = Neighbour::new();
    let others = neighbour.inside(|| greet("neighbour"));
    let port = greet("host");
    let there = &neighbour.there;
    assert_eq!(run(&house, &format!("{LISTEN} listen {there} {others}")), "neighbour");
    let mut targets = vec!["127.0.0.1".to_owned(), "127.1.2.3".to_owned(), "0.0.0.0".to_owned()];
    targets.extend(["198.18.0.1", "198.18.0.2", "::1", "::ffff:127.0.0.1"].map(str::to_owned));
    targets.extend([main_address().to_string(), neighbour.here.clone()]);
    for target in targets {
        let said = run(
            &house,
            &format!("timeout 9 nc -w 1 {target} {port} < /dev/null 2> /dev/null || true"),
        );
        assert_eq!(said, "", "{target}");
    }
    // Routes of the container's own choice lead nowhere else.
    let ran = house.run(&RunOp {
        network: NetworkMode::Default,
        security: proto::step::SecurityMode::Insecure,
        ..op(&format!(
            "ip addr del 127.0.0.1/8 dev lo; ip link set lo down; \
             ip route del local 127.0.0.0/8 table local; ip route add 127.0.0.0/8 via 198.18.0.1; \
             echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; \
             timeout 9 nc -w 1 127.0.0.1 {port} < /dev/null; timeout 9 nc -w 1 {} {port} < /dev/null; true",
            main_address()
        ))
    });
    assert_eq!(ran.out, "", "{}", ran.err);
}

#[test]
fn the_host_is_reached_where_a_step_was_told_to() {
    let house = house();
    let port = greet("host");
    let told = RunOp {
        network: NetworkMode::Default,
        extra_hosts: vec![("outside".to_owned(), "host-gateway".to_owned())],
        ..op(&format!("{LISTEN} listen outside {port}"))
    };
    assert_eq!(house.run(&told).out, "host");
    let proxied = RunOp {
        network: NetworkMode::Default,
        proxy_env: vec![("http_proxy".to_owned(), format!("http://{}:{port}", main_address()))],
        ..op(&format!("{LISTEN} listen $(echo $http_proxy | sed 's|http://||;s|:| |')"))
    };
    assert_eq!(house.run(&proxied).out, "host");
    let not_told =
        format!("timeout 9 nc -w 1 {} {port} < /dev/null 2> /dev/null || true", main_address());
    assert_eq!(run(&house, &not_told), "");
}

#[test]
fn nothing_of_a_step_is_in_the_next_ones_network() {
    let house = house();
    // Packets sent on the loopback: a question, and that nobody is there.
    let count = "awk '/lo:/ { print $11 }' /proc/net/dev";
    let traces = format!("nc 127.0.0.1 7777 < /dev/null 2> /dev/null; {count}");
    for mode in [NetworkMode::Default, NetworkMode::None] {
        let ran = house.run(&RunOp { network: mode, ..op(&traces) });
        assert_ne!(ran.out.trim(), "0", "{mode:?}");
        for _ in 0..6 {
            let looks = RunOp { network: mode, ..op(count) };
            assert_eq!(house.run(&looks).out.trim(), "0", "{mode:?}");
        }
    }
}

#[test]
fn containers_with_networks_side_by_side() {
    let house = house();
    house.sandbox.warm_up();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let house = &house;
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(run(house, "ls /sys/class/net | tr '\\n' ' '"), "eth0 lo ");
                }
            });
        }
    });
}

#[test]
fn the_default_can_be_the_hosts() {
    let house = house_on(Runtime::Embedded, DefaultNetwork::Host);
    let port = greet("host");
    assert_eq!(run(&house, &format!("nc -w 5 127.0.0.1 {port} < /dev/null")), "host");
}

/// Says that the test runs in a mount namespace of its own.
const INNER: &str = "SLIPWAY_TEST_INNER";

/// Runs the calling test once more, in a process that may mount what it likes. Answers whether this
/// is that process.
fn alone(name: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(INNER, "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Answers every question for an address with 192.0.2.77 (RFC 1035), at an address of the loopback.
fn serve_names(at: &str) {
    let socket = UdpSocket::bind((at, 53)).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut question) {
            let question = &question[..count];
            let name = 12 + question[12..].iter().position(|b| *b == 0).unwrap();
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(&question[12..name + 5]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
            socket.send_to(&answer, from).unwrap();
        }
    });
}

#[test]
fn names_are_asked_of_a_server_on_the_hosts_loopback() {
    if !alone("network::names_are_asked_of_a_server_on_the_hosts_loopback") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.9.8.7\nsearch corp.example\n").unwrap();
    rustix::mount::mount_bind(&file, "/etc/resolv.conf").unwrap();
    serve_names("127.9.8.7");
    let house = house();
    let said = run(&house, "cat /etc/resolv.conf; nslookup -type=a some.example");
    assert!(said.starts_with("nameserver 198.18.0.3\nsearch corp.example\n"), "{said}");
    assert!(said.contains("192.0.2.77"), "{said}");
}

#[test]
fn without_pasta_it_says_what_to_do() {
    if !alone("network::without_pasta_it_says_what_to_do") {
        return;
    }
    let house = house();
    let empty = tempfile::tempdir().unwrap();
    rustix::mount::mount_bind(empty.path(), "/usr/bin").unwrap();
    let asked = RunOp { network: NetworkMode::Default, ..op("true") };
    let failure = house.try_order(order(&asked, &house.base)).err().unwrap().failure();
    assert!(failure.message.contains("`pasta`"), "{failure}");
    assert!(failure.hint.as_ref().is_some_and(|h| h.contains("`passt`") && h.contains("host")));
    assert_eq!(failure.class, Class::Unavailable);
    // Others do not need it.
    assert_eq!(house.sh("echo fine"), "fine");
    rustix::mount::unmount("/usr/bin", rustix::mount::UnmountFlags::DETACH).unwrap();
}
