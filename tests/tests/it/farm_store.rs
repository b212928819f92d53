//! The store of a farm while its cache nodes come and go: nothing that was built is built again.
//!
//! What runs is counted by a web server outside of the farm, which each step asks for something.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tests::cluster::{Cluster, HOME};
use tests::command::{DEADLINE, Outcome};
use tests::hosts::Host;
use tests::http::{Response, Server};

const SETTINGS: &str = "[coordinator]\nlost_after = \"2s\"\nreplicas = 2\n";

/// Where the web server is.
const PORT: u16 = 8000;

/// How long the web server makes a step wait, at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell without an image: of Debian's package, in the context.
const BUSYBOX: &str = "/usr/bin/busybox";

/// What makes a base of it.
const BASE: &str = "COPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \
    \"/bin/busybox mkdir -p /tmp && /bin/busybox --install -s /bin\"]\n";

/// A chain of steps, a second stage beside it, and a last one over both. Each step asks the server,
/// and makes a small and a larger file that nothing else has.
fn dockerfile(server: &str) -> String {
    let step = |name: &str| {
        format!(
            "RUN wget -q -O /dev/null http://{server}/{name} && mkdir -p /out && \
             echo {name} > /out/{name} && seq 1 300000 | sed s/^/{name}-/ > /out/{name}.large\n"
        )
    };
    [
        "FROM scratch AS base\n",
        BASE,
        "FROM base AS chain\nCOPY data /data\n",
        &step("one"),
        &step("two"),
        &step("three"),
        "FROM base AS side\n",
        &step("side"),
        "FROM scratch\nCOPY --from=chain /out /\nCOPY --from=chain /data /data\n",
        "COPY --from=side /out /side\n",
    ]
    .concat()
}

/// The context, on a client's host.
fn context(host: &Host, server: &str) {
    host.write("/root/context/Dockerfile", dockerfile(server));
    host.write("/root/context/busybox", std::fs::read(BUSYBOX).expect("Debian's busybox-static"));
    for n in 0..200 {
        host.write(format!("/root/context/data/{}/{n}", n % 7), format!("file {n}\n").repeat(n));
    }
    host.command("chmod", ["755", "/root/context/busybox"]).run().ok();
}

const FLAGS: [&str; 9] = [
    "build",
    "--farm",
    "test",
    "--network=host",
    "--allow=network.host",
    "-o",
    "type=local,dest=/root/out",
    "--",
    "/root/context",
];

/// Builds on a host that has nothing of it, and looks at what came out.
#[track_caller]
fn build(cluster: &Cluster, client: &Host) -> Outcome {
    let outcome = cluster.slipway(client, &FLAGS).run();
    assert_eq!(outcome.code, 0, "{outcome}\n{}", cluster.everything());
    assert_result(client);
    outcome
}

#[track_caller]
fn assert_result(client: &Host) {
    for (file, name) in [("one", "one"), ("three", "three"), ("side/side", "side")] {
        assert_eq!(client.read(format!("/root/out/{file}")), format!("{name}\n").as_bytes());
        let large = client.read(format!("/root/out/{file}.large"));
        assert!(large.ends_with(format!("{name}-300000\n").as_bytes()));
    }
    assert_eq!(client.read("/root/out/data/3/17"), "file 17\n".repeat(17).as_bytes());
}

const STEPS: [&str; 4] = ["/one", "/two", "/three", "/side"];

#[track_caller]
fn assert_each_ran(server: &Server, times: usize) {
    for step in STEPS {
        assert_eq!(server.count(step), times, "{step}: {:?}", server.requests());
    }
}

#[test]
fn a_cache_node_is_lost_while_builds_go_on() {
    let cluster = Cluster::new(SETTINGS);
    let outside = cluster.site().host("outside");
    // The second step waits until the node is gone.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let waiting = gate.clone();
    let server = outside.serve(PORT, move |request| {
        if request.path.contains("/two") {
            let open = waiting.0.lock().unwrap();
            let _ = waiting.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        }
        Response::new(200, "ok\n")
    });
    cluster.member("cache-1", "cache");
    cluster.until_state("cache-1", "serving");
    let second = cluster.member("cache-2", "cache");
    cluster.until_state("cache-2", "serving");
    cluster.member("worker-1", "worker");
    let client = cluster.join("client-1", "client");
    context(&client, server.address());
    let build_1 = cluster.slipway(&client, &FLAGS).start();
    cluster.until("the second step runs", |_| server.count("/two") == 1);
    second.kill();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let outcome = build_1.finish(DEADLINE);
    assert_eq!(outcome.code, 0, "{outcome}\n{}", cluster.everything());
    assert_result(&client);
    assert_each_ran(&server, 1);
    cluster.until_state("cache-2", "down");

    // Somebody else builds the same.
    let other = cluster.join("client-2", "client");
    context(&other, server.address());
    build(&cluster, &other);
    assert_each_ran(&server, 1);

    // It comes back, gets what it missed, and is all that is left.
    second.boot();
    cluster.start("cache-2", "cache");
    cluster.until_state("cache-2", "serving");
    cluster.site().host("cache-1").kill();
    cluster.until_state("cache-1", "down");
    let third = cluster.join("client-3", "client");
    context(&third, server.address());
    build(&cluster, &third);
    assert_each_ran(&server, 1);
}

#[test]
fn cache_nodes_are_added_drained_and_removed() {
    let cluster = Cluster::new(SETTINGS);
    let server = cluster.site().host("outside").serve(PORT, |_| Response::new(200, "ok\n"));
    let first = cluster.member("cache-1", "cache");
    cluster.until_state("cache-1", "serving");
    cluster.member("worker-1", "worker");
    let client = cluster.join("client-1", "client");
    context(&client, server.address());
    build(&cluster, &client);
    assert_each_ran(&server, 1);
    cluster.operator(&["node", "drain", "cache-1"]).fails(1).says("only cache node");
    cluster.operator(&["node", "rm", "cache-1"]).fails(1).says("only cache node");

    // Two join a farm that is not empty.
    cluster.member("cache-2", "cache");
    cluster.member("cache-3", "cache");
    cluster.until_state("cache-2", "serving");
    cluster.until_state("cache-3", "serving");
    cluster.operator(&["node", "drain", "cache-1"]).ok();
    assert_eq!(cluster.state("cache-1").as_deref(), Some("leaving"));
    cluster.operator(&["node", "rm", "cache-1"]).ok();
    cluster.until("the node has heard of it", |c| c.log("cache-1").contains("was removed"));
    assert_eq!(cluster.state("cache-1"), None, "it does not come back by itself");
    first.kill();
    let other = cluster.join("client-2", "client");
    context(&other, server.address());
    build(&cluster, &other);
    assert_each_ran(&server, 1);

    // The coordinator begins anew, and knows who has everything.
    cluster.kill("coordinator");
    cluster.start("coordinator", "coordinator");
    cluster.until_state("cache-2", "serving");
    cluster.until_state("cache-3", "serving");
    // Of what both have either can be lost.
    cluster.site().host("cache-3").kill();
    cluster.until_state("cache-3", "down");
    cluster.operator(&["node", "rm", "cache-3"]).ok();
    let third = cluster.join("client-3", "client");
    context(&third, server.address());
    build(&cluster, &third);
    assert_each_ran(&server, 1);
}

/// Takes away the files of a cache node's larger blobs that begin so, as a disk may.
fn lose_blobs(host: &Host, beginning: &str) {
    let length = beginning.len();
    let script = format!(
        "for file in $(find {HOME}/cache/blobs -type f); do \
            if [ \"$(head -c {length} $file)\" = '{beginning}' ]; then rm $file; fi; done"
    );
    host.command("sh", ["-euc", &script]).run().ok();
}

#[test]
fn what_no_cache_node_has_any_more_is_made_again() {
    let cluster = Cluster::new(SETTINGS);
    let server = cluster.site().host("outside").serve(PORT, |_| Response::new(200, "ok\n"));
    let caches = ["cache-1", "cache-2", "cache-3"].map(|name| {
        let host = cluster.member(name, "cache");
        cluster.until_state(name, "serving");
        host
    });
    cluster.member("worker-1", "worker");
    let client = cluster.join("client-1", "client");
    context(&client, server.address());
    build(&cluster, &client);
    assert_each_ran(&server, 1);

    // Two nodes' disks lose something of what they had: others have copies.
    lose_blobs(&caches[0], "three-");
    lose_blobs(&caches[1], "side-");
    let other = cluster.join("client-2", "client");
    context(&other, server.address());
    build(&cluster, &other);
    assert_each_ran(&server, 1);

    // All of them do: a step that needs it has it made again.
    caches.iter().for_each(|host| lose_blobs(host, "two-"));
    let text = dockerfile(server.address());
    let more = "FROM chain AS more\nRUN tail -n 1 /out/two.large > /out/last\nFROM scratch\n";
    let text =
        text.replacen("FROM scratch\nCOPY --from=chain", &format!("{more}COPY --from=chain"), 1);
    let text = format!("{text}COPY --from=more /out/last /last\n");
    cluster.member("worker-2", "worker");
    cluster.kill("worker-1");
    let third = cluster.join("client-3", "client");
    context(&third, server.address());
    third.write("/root/context/Dockerfile", text);
    build(&cluster, &third);
    assert_eq!(third.read("/root/out/last"), b"two-300000\n");
    // Once for each result that turns out to need it: the step's own, and the copy of it.
    assert!((2..=3).contains(&server.count("/two")), "{:?}", server.requests());
    assert_eq!(server.count("/side"), 1, "it was not lost");
}

/// A build of one file of about ten megabytes that nothing else has.
fn large_build(cluster: &Cluster, client: &Host, server: &Server, name: &str) {
    let text = format!(
        "FROM scratch AS base\n{BASE}FROM base AS made\n\
         RUN wget -q -O /dev/null http://{}/{name} && seq 1 900000 | sed s/^/{name}-/ > /file\n\
         FROM scratch\nCOPY --from=made /file /file\n",
        server.address()
    );
    client.write("/root/context/Dockerfile", text);
    let outcome = cluster.slipway(client, &FLAGS).run();
    assert_eq!(outcome.code, 0, "{outcome}\n{}", cluster.everything());
    assert!(client.read("/root/out/file").ends_with(format!("{name}-900000\n").as_bytes()));
}

#[test]
fn what_there_is_no_room_for_is_made_again() {
    let cluster = Cluster::new(&format!("{SETTINGS}grace = \"1s\"\n"));
    let server = cluster.site().host("outside").serve(PORT, |_| Response::new(200, "ok\n"));
    let names = ["cache-1", "cache-2", "cache-3"];
    for name in names {
        let settings = "[cache]\nbudget = \"40MB\"\n";
        cluster.site().host(name).write(format!("{HOME}/config.toml"), settings);
        cluster.member(name, "cache");
        cluster.until_state(name, "serving");
    }
    cluster.member("worker-1", "worker");
    let client = cluster.join("client-1", "client");
    context(&client, server.address());
    for n in 0..10 {
        large_build(&cluster, &client, &server, &format!("big{n}"));
    }
    cluster.until("something was collected", |c| {
        names.iter().any(|name| c.log(name).contains("tells the others what was collected"))
    });
    // The oldest is gone, the newest is not; whoever has collected, all say the same.
    large_build(&cluster, &client, &server, "big9");
    assert_eq!(server.count("/big9"), 1);
    large_build(&cluster, &client, &server, "big0");
    assert_eq!(server.count("/big0"), 2);
}
