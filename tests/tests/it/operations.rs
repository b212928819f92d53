//! Day-one operations of a farm: what its processes tell of themselves, and what an operator does
//! to workers and tokens.

use crate::cache::until;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::command::{DEADLINE, Outcome, Running, command, run};
use tests::hosts::{Host, HostCommand, Site};
use tests::http::{Response, Server};
use tests::scratch::Scratch;
use tests::service::Service;
use tests::slipway::program;
use tests::tool::tool;

/// Where health and metrics are, unless somebody says otherwise.
const PAGES: u16 = 7480;

/// Where systemd would listen. In most tests nobody does, and nothing comes of that.
const NOTIFY: &str = "/run/notify";

/// A coordinator with a cache node, and a client, each on a host.
struct Farm {
    site: Site,
    head: Host,
    client: Host,
    coordinator: Service,
}

/// A worker on a host.
struct Hand {
    host: Host,
    service: Service,
}

fn slipway<A: AsRef<std::ffi::OsStr>>(
    host: &Host,
    args: impl IntoIterator<Item = A>,
) -> HostCommand {
    host.command(program(), args)
        .env("BUILDKIT_PROGRESS", "plain")
        .env("SLIPWAY_CACHE_BUDGET", "1GB")
}

impl Farm {
    fn new() -> Self {
        let site = Site::new();
        let (head, client) = (site.host("head"), site.host("client"));
        let init = ["farm", "init", "--name", "test", "--roles", "coordinator,cache"];
        slipway(&head, init).run().ok();
        let coordinator = coordinator(&head);
        let farm = Self { site, head, client, coordinator };
        let token = farm.token(&["--role", "client", "--uses", "1"]);
        slipway(&farm.client, ["join", &format!("{token}@head")]).run().ok();
        let busybox = std::fs::read(tool("busybox")).expect("reading busybox");
        farm.client.write("/root/c/busybox", busybox);
        farm
    }

    fn token(&self, args: &[&str]) -> String {
        slipway(&self.head, [&["token", "create"], args].concat()).run().ok().text()
    }

    /// A worker that has joined under the name of its host.
    fn worker(&self, name: &str, args: &[&str]) -> Hand {
        let host = self.site.host(name);
        let token = self.token(&["--role", "worker"]);
        slipway(&host, ["join", &format!("{token}@head")]).run().ok();
        let command = slipway(&host, [&["worker"], args].concat());
        let command = command.env("SLIPWAY_SLOTS", "1").env("NOTIFY_SOCKET", NOTIFY);
        let service = command.serve("worker");
        until("the worker is known", || self.node(name).is_some());
        Hand { host, service }
    }

    /// A command of the operator's.
    fn operate(&self, args: &[&str]) -> Outcome {
        slipway(&self.head, args).run()
    }

    /// A worker's row of `slipway node ls`.
    fn node(&self, name: &str) -> Option<String> {
        let listed = self.operate(&["node", "ls"]).ok().text();
        let is_it = |line: &&str| line.starts_with(name) && line.contains(" worker ");
        listed.lines().find(is_it).map(str::to_owned)
    }

    fn top(&self) -> Value {
        let text = self.operate(&["top", "--json"]).ok().text();
        serde_json::from_str(&text).expect("JSON")
    }

    /// Starts a build whose RUN waits for `gate`. `number` tells it from others.
    fn build(&self, gate: &Gate, number: u32) -> Running {
        let url = gate.server.url(&format!("step-{number}"));
        let wait = format!(
            "until busybox wget -q -O- {url} | busybox grep yes; do busybox sleep 0.1; done"
        );
        let run = format!(r#"["/bin/busybox", "sh", "-c", "{wait}"]"#);
        let dockerfile = format!(
            "FROM scratch\nENV PATH=/bin\nCOPY --chmod=755 busybox /bin/busybox\nRUN {run}\n"
        );
        self.client.write(format!("/root/c/Dockerfile.{number}"), dockerfile);
        let file = format!("/root/c/Dockerfile.{number}");
        let args =
            ["build", "--farm", "test", "--network=host", "--allow=network.host", "-f", &file];
        let out = ["-o", "type=cacheonly", "/root/c"];
        slipway(&self.client, args.into_iter().chain(out)).start()
    }
}

fn coordinator(head: &Host) -> Service {
    // What dials from the same machine does not show how others reach it.
    let command = slipway(head, ["coordinator", "--with", "cache"]);
    let mut service = command.env("SLIPWAY_NODE_ADVERTISE", "head").serve("coordinator");
    service.until("the coordinator is up", |log| log.contains("is up").then_some(()));
    service
}

/// What steps wait for.
struct Gate {
    open: Arc<AtomicBool>,
    server: Server,
}

impl Gate {
    fn of(farm: &Farm) -> Self {
        let open = Arc::new(AtomicBool::new(false));
        let is_open = open.clone();
        let server = farm.head.serve(8000, move |_| {
            Response::new(200, if is_open.load(Ordering::SeqCst) { "yes\n" } else { "no\n" })
        });
        Self { open, server }
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Waits until the step of that number runs, which a build waits for.
    #[track_caller]
    fn until_runs(&self, number: u32, build: &mut Running) {
        let path = format!("/step-{number}");
        until("the step runs", || {
            assert!(build.is_running(), "the build has ended:\n{}", build.so_far());
            self.server.count(&path) > 0
        });
    }
}

/// A page of the process on a host: its status and its text.
fn page(host: &Host, path: &'static str) -> (u16, String) {
    let answer = host.within(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PAGES)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    });
    let answer = answer.unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, text)| text.to_owned()))
}

/// A figure of the process on a host.
fn metric(host: &Host, name: &str) -> f64 {
    let (status, text) = page(host, "/metrics");
    assert_eq!(status, 200, "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().expect("a number")
}

#[test]
fn processes_tell_how_they_are_and_what_they_did() {
    let mut farm = Farm::new();
    let gate = Gate::of(&farm);
    until("the cache node serves", || page(&farm.head, "/readyz").0 == 200);
    let hand = farm.worker("w1", &[]);
    assert_eq!(
        page(&farm.head, "/healthz"),
        (200, "coordinator: healthy\ncache: healthy\n".into())
    );
    assert_eq!(page(&farm.head, "/readyz"), (200, "coordinator: ready\ncache: ready\n".into()));
    assert_eq!(page(&hand.host, "/readyz"), (200, "worker: ready\n".into()));
    assert_eq!(page(&hand.host, "/other").0, 404);

    let mut build = farm.build(&gate, 1);
    gate.until_runs(1, &mut build);
    assert_eq!(metric(&farm.head, "slipway_builds_running"), 1.0);
    assert_eq!(metric(&farm.head, "slipway_slots_used"), 1.0);
    assert_eq!(metric(&farm.head, "slipway_leases"), 1.0);
    assert_eq!(metric(&hand.host, r#"slipway_worker_steps_running{kind="run"}"#), 1.0);
    let top = farm.top();
    assert_eq!(top["workers"][0]["name"], "w1");
    assert_eq!(top["workers"][0]["slots_used"], 1);
    assert_eq!(top["running"][0]["worker"], "w1");
    assert_eq!(top["builds"][0]["id"], top["running"][0]["builds"][0]);
    farm.operate(&["top", "--once"]).ok().says("1 of 1 slots used").says("RUN");
    assert!(farm.node("w1").is_some_and(|row| row.contains("1 of 1 slots")));
    gate.open();
    build.finish(DEADLINE).ok();
    assert_eq!(metric(&farm.head, r#"slipway_builds_total{outcome="done"}"#), 1.0);
    assert_eq!(metric(&farm.head, "slipway_slots_used"), 0.0);
    let done = r#"slipway_worker_steps_total{kind="run",outcome="done"}"#;
    assert_eq!(metric(&hand.host, done), 1.0);
    assert!(metric(&hand.host, r#"slipway_worker_farm_bytes_total{direction="fetched"}"#) > 1e5);
    assert!(metric(&farm.head, r#"slipway_store_held_bytes{store="cache"}"#) > 1e5);
    assert!(metric(&farm.head, r#"slipway_received_bytes_total{service="blobs"}"#) > 1e5);
    farm.build(&gate, 1).finish(DEADLINE).ok();
    assert!(metric(&farm.head, r#"slipway_steps_total{outcome="cached"}"#) >= 1.0);

    // A worker without its coordinator is not ready, and is again when that comes back.
    farm.coordinator.signal(Signal::TERM);
    until("the worker has noticed", || page(&hand.host, "/readyz").0 == 503);
    assert_eq!(
        page(&hand.host, "/readyz").1,
        "worker: not ready: not connected to the coordinator\n"
    );
    assert_eq!(page(&hand.host, "/healthz").0, 200);
    until("the coordinator has ended", || !farm.coordinator.is_running());
    farm.coordinator = coordinator(&farm.head);
    until("the worker is back", || page(&hand.host, "/readyz").0 == 200);
}

#[test]
fn a_drained_worker_finishes_what_it_does_and_gets_nothing_new() {
    let mut farm = Farm::new();
    let gate = Gate::of(&farm);
    let hand = farm.worker("w1", &[]);
    let mut first = farm.build(&gate, 1);
    gate.until_runs(1, &mut first);
    let drain = slipway(&farm.head, ["node", "drain", "w1"]).start();
    until("it says what is left", || drain.so_far().contains("w1 finishes 1 step"));
    assert!(farm.node("w1").is_some_and(|row| row.contains("cordoned")), "{:?}", farm.node("w1"));
    let second = farm.build(&gate, 2);
    until("the second build's step waits", || farm.top()["waiting"][0]["reason"] == "cordoned");
    let why = farm.top()["waiting"][0]["why"].clone();
    assert_eq!(why, "What could do it gets no new work: 1 worker cordoned or draining");
    gate.open();
    drain.finish(DEADLINE).ok();
    first.finish(DEADLINE).ok();
    assert_eq!(gate.server.count("/step-2"), 0);

    farm.operate(&["node", "uncordon", "w1"]).ok();
    second.finish(DEADLINE).ok();
    assert!(farm.node("w1").is_some_and(|row| row.contains("serving")));

    // What an operator wants holds when the coordinator is started again.
    farm.operate(&["node", "cordon", "w1"]).ok();
    farm.coordinator.signal(Signal::TERM);
    until("the coordinator has ended", || !farm.coordinator.is_running());
    farm.coordinator = coordinator(&farm.head);
    until("the worker is back", || farm.node("w1").is_some_and(|row| row.contains("slots")));
    assert!(farm.node("w1").is_some_and(|row| row.contains("cordoned")), "{:?}", farm.node("w1"));
    farm.operate(&["node", "uncordon", "w1"]).ok();
    assert!(farm.node("w1").is_some_and(|row| row.contains("serving")));
    for order in ["cordon", "uncordon", "drain"] {
        for name in ["nobody", "worker/nobody"] {
            farm.operate(&["node", order, name]).fails(1).says("no member `nobody`");
        }
    }
    drop(hand);
}

#[test]
fn a_removed_worker_s_steps_run_elsewhere_and_it_may_not_come_back() {
    let farm = Farm::new();
    let gate = Gate::of(&farm);
    let mut first = farm.worker("w1", &[]);
    let mut build = farm.build(&gate, 1);
    gate.until_runs(1, &mut build);
    let second = farm.worker("w2", &[]);
    farm.operate(&["node", "rm", "w1"]).ok();
    assert_eq!(farm.node("w1"), None);
    gate.open();
    build.finish(DEADLINE).ok();
    let done = r#"slipway_worker_steps_total{kind="run",outcome="done"}"#;
    assert_eq!(metric(&second.host, done), 1.0);
    first
        .service
        .until("it is told", |log| log.contains("was removed from the farm").then_some(()));
    farm.operate(&["node", "uncordon", "w1"]).fails(1).says("was removed");
    // With a new token it is a member again.
    first.service.stop();
    let again = farm.worker("w1", &[]);
    assert!(farm.node("w1").is_some_and(|row| row.contains("serving")));
    drop(again);
}

#[test]
fn a_worker_that_is_told_to_end_finishes_first() {
    let farm = Farm::new();
    let gate = Gate::of(&farm);
    let host = farm.site.host("w1");
    let systemd = host.within(|| UnixDatagram::bind(NOTIFY)).expect("a socket");
    systemd.set_read_timeout(Some(DEADLINE)).expect("setting a timeout");
    let told = || {
        let mut text = [0; 4096];
        let length = systemd.recv(&mut text).expect("the worker tells systemd");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut hand = farm.worker("w1", &["--log-format", "json"]);
    assert_eq!(told(), "READY=1\nSTATUS=Running: worker\n");
    let mut build = farm.build(&gate, 1);
    gate.until_runs(1, &mut build);
    hand.service.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1\n");
    let mut next = [told(), told()];
    next.sort();
    assert_eq!(next, ["EXTEND_TIMEOUT_USEC=30000000\n", "STATUS=Finishing: 1 step\n"]);
    until("the coordinator knows", || farm.node("w1").is_some_and(|row| row.contains("draining")));
    assert_eq!(page(&hand.host, "/readyz").0, 503);
    assert_eq!(metric(&hand.host, "slipway_worker_draining"), 1.0);
    gate.open();
    until("the worker has ended", || !hand.service.is_running());
    // Nobody else could have done it.
    build.finish(DEADLINE).ok();
    let log = hand.service.log();
    assert!(log.contains("nothing is left to finish"), "{log}");
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(object["level"].is_string() && object["message"].is_string(), "{line}");
    }
}

#[test]
fn a_second_signal_ends_a_worker_at_once() {
    let farm = Farm::new();
    let gate = Gate::of(&farm);
    let mut first = farm.worker("w1", &[]);
    let mut build = farm.build(&gate, 1);
    gate.until_runs(1, &mut build);
    first.service.signal(Signal::TERM);
    first.service.until("it drains", |log| log.contains("1 step to finish").then_some(()));
    first.service.signal(Signal::TERM);
    until("the worker has ended", || !first.service.is_running());
    let second = farm.worker("w2", &[]);
    gate.open();
    build.finish(DEADLINE).ok();
    let done = r#"slipway_worker_steps_total{kind="run",outcome="done"}"#;
    assert_eq!(metric(&second.host, done), 1.0);
}

#[test]
fn tokens_are_listed_and_taken_back() {
    let farm = Farm::new();
    let token = farm.token(&["--role", "worker", "--ttl", "2h"]);
    let listed = farm.operate(&["token", "ls"]).ok().text();
    let row = listed.lines().find(|line| line.contains(" worker ")).expect("the token's row");
    assert!(row.contains("good") && row.contains("in 1 hour"), "{row}");
    assert!(listed.lines().any(|l| l.contains(" client ") && l.contains("used up")), "{listed}");
    assert!(!listed.contains(&token), "secrets are in no list");
    let id = row.split(' ').next().expect("an id");
    let farm_is_for_operators = slipway(&farm.client, ["token", "ls", "--farm", "test"]).run();
    farm_is_for_operators.fails(1).says("Only who looks after the farm");
    farm.operate(&["token", "revoke", &id[..6]]).ok().says(id);
    let host = farm.site.host("late");
    let refused = slipway(&host, ["join", &format!("{token}@head")]).run();
    refused.fails(1).says("revoked").says("slipway token create");
    farm.operate(&["token", "revoke", "zz"]).fails(1).says("There is no token `zz`");
    let listed = farm.operate(&["token", "ls"]).ok().text();
    assert!(listed.lines().any(|l| l.starts_with(id) && l.contains("revoked")), "{listed}");
}

/// systemd finds nothing wrong with the service files, and little that those without privilege could
/// still do.
#[test]
fn service_files_are_right() {
    let scratch = Scratch::new("units");
    let units = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/systemd");
    let mut written = Vec::new();
    for role in ["coordinator", "cache", "worker"] {
        let name = format!("slipway-{role}.service");
        let text = std::fs::read_to_string(units.join(&name)).expect("reading a service file");
        let start = format!("ExecStart=/usr/bin/slipway {role}\n");
        assert!(text.contains(&start), "{text}");
        let here = format!("ExecStart={} {role}\n", program().display());
        let path = scratch.join(&name);
        std::fs::write(&path, text.replace(&start, &here)).expect("writing a service file");
        written.push(path);
    }
    let verified = run(command(tool("systemd-analyze")).arg("verify").args(&written)).ok();
    assert_eq!(verified.all(), "");
    for unit in &written[..2] {
        let mut exposed = command(tool("systemd-analyze"));
        exposed.args(["security", "--offline=yes", "--threshold=20"]).arg(unit);
        run(&mut exposed).ok();
    }
}
