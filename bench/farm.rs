//! A farm of several hosts in one machine: how much faster more workers are, and what moves between
//! machines, counted by their wires.

use crate::table::{Row, Table, Target};
use std::time::Duration;
use tests::cluster::{Cluster, HOME};
use tests::command::DEADLINE;
use tests::hosts::Host;
use tests::mirror::Mirror;
use tests::tool::tool;

/// How often each number of workers is measured, and a new machine: a run takes more than a minute.
pub const TIMES: usize = 3;

/// Stages that know nothing of each other.
const STAGES: usize = 16;

/// Of the speed-up that so many workers could give, what is aimed at.
const SHARE: f64 = 0.9;

/// Bytes of the one file that is copied, and how many such files its stage has: 1 GB.
const FILE_MB: u64 = 16;
const FILES: u64 = 64;

const BASE: &str = "FROM scratch AS base\nCOPY --chmod=755 busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nSHELL [\"/bin/sh\", \"-euc\"]\n";

pub fn measure(table: &mut Table) {
    let one = speed(1);
    for workers in [2, 4, 8] {
        table.add(Row {
            work: format!("{STAGES} stages of `sleep 5` on {workers} workers of one slot"),
            ours: speed(workers),
            peer: Some(("the same on 1 worker".to_owned(), one.clone())),
            target: Target::Ratio(SHARE * workers as f64),
            differences: String::new(),
        });
    }
    copy_from_afar(table);
    cache_from_afar(table);
}

/// A farm with a client. Workers have one slot each.
fn farm(workers: usize) -> (Cluster, Host) {
    let farm = Cluster::new("");
    farm.member("cache-1", "cache");
    farm.until_state("cache-1", "serving");
    (1..=workers).for_each(|n| add_worker(&farm, n, ""));
    let client = farm.join("client-1", "client");
    client.write("/root/c/busybox", std::fs::read(tool("busybox")).expect("busybox is installed"));
    (farm, client)
}

fn add_worker(farm: &Cluster, number: usize, settings: &str) {
    let name = format!("worker-{number}");
    let host = farm.site().host(&name);
    host.write(format!("{HOME}/config.toml"), format!("[worker]\nslots = 1\n{settings}"));
    farm.member(&name, "worker");
    farm.until_state(&name, "serving");
}

/// How long a whole build takes.
fn build(farm: &Cluster, client: &Host, stages: &str) -> Duration {
    client.write("/root/c/Dockerfile", format!("{BASE}{stages}"));
    let args = ["build", "--farm", "test", "-o", "type=local,dest=/root/out", "/root/c"];
    farm.slipway(client, &args).start().finish(DEADLINE).ok().took
}

fn speed(workers: usize) -> Vec<Duration> {
    let (farm, client) = farm(workers);
    let stages = |run: usize| {
        let stage = |n| format!("FROM base AS s{n}\nRUN sleep 5; echo {run} > /file-{n}\n");
        let copy = |n| format!("COPY --from=s{n} /file-{n} /\n");
        let all: String = (0..STAGES).map(stage).collect();
        all + "FROM scratch\n" + &(0..STAGES).map(copy).collect::<String>()
    };
    // The base is there before the clock starts, as an image would be.
    build(&farm, &client, "FROM scratch\nCOPY --from=base /bin/sh /\n");
    (0..TIMES).map(|run| build(&farm, &client, &stages(run))).collect()
}

/// What a worker receives that needs one file of a large stage that another one made.
fn copy_from_afar(table: &mut Table) {
    let (farm, client) = farm(1);
    let big = format!(
        "FROM base AS big\nRUN i=0; while [ $i -lt {FILES} ]; do dd if=/dev/urandom of=/big-$i \
         bs=1M count={FILE_MB} 2>/dev/null; i=$((i + 1)); done\n"
    );
    build(&farm, &client, &(big.clone() + "FROM scratch\nCOPY --from=big /bin/sh /\n"));
    farm.site().host("worker-1").kill();
    add_worker(&farm, 2, "");
    let second = farm.site().host("worker-2");
    // What any step needs comes first.
    build(&farm, &client, "FROM base AS a\nRUN true\nFROM scratch\nCOPY --from=a /bin/sh /\n");
    let before = second.bytes_received();
    let one = "FROM base AS last\nCOPY --from=big /big-7 /one\nRUN wc -c < /one > /said\n\
               FROM scratch\nCOPY --from=last /said /\n";
    build(&farm, &client, &(big + one));
    let moved = second.bytes_received() - before;
    let file = FILE_MB << 20;
    assert_eq!(client.read("/root/out/said"), format!("{file}\n").as_bytes());
    let ratio = moved as f64 / file as f64;
    table.note(format!(
        "A RUN after `COPY --from` of one file of {FILE_MB} MiB, out of a stage of {} MiB that another \
         worker made: its worker received {:.1} MiB, {ratio:.2} times the file (counted by its wire); \
         aimed at under 2: {}.",
        FILE_MB * FILES,
        moved as f64 / f64::from(1 << 20),
        if ratio < 2.0 { "reached" } else { "**missed**" },
    ));
}

/// What a worker gains that has never built something with Go, by the build cache that another one
/// has filled.
fn cache_from_afar(table: &mut Table) {
    let (farm, client) = farm(0);
    let mirror = Mirror::of_standins(farm.site(), &["golang"]);
    // A step that no worker has run, on a worker that has the image and has run something.
    let on_worker = |number: usize| {
        add_worker(&farm, number, &mirror.settings());
        let warm = format!("FROM golang:1.16 AS run\nRUN go version; : {number}\n");
        build(&farm, &client, &(warm + "FROM scratch\nCOPY --from=run /etc/passwd /\n"));
    };
    let go = |id: &str, number: usize| {
        let mount = format!("--mount=type=cache,target=/root/.cache/go-build,id={id}");
        // With trimmed paths these are others than the packages that Go comes with.
        let run = "CGO_ENABLED=0 go build -trimpath std && du -sm /root/.cache/go-build > /size";
        let last = "FROM scratch\nCOPY --from=run /size /\n";
        let step = format!("FROM golang:1.16 AS run\nRUN {mount} {run} && : {id} {number}\n{last}");
        build(&farm, &client, &step)
    };
    let lose = |number: usize| {
        let name = format!("worker-{number}");
        farm.site().host(&name).kill();
        farm.until(&format!("{name} is lost"), |farm| {
            farm.state(&name).is_none_or(|state| !state.starts_with("serving"))
        });
    };
    on_worker(1);
    go("go-build", 1);
    let size = String::from_utf8(client.read("/root/out/size")).expect("a number of MB");
    let size = size.split_whitespace().next().expect("a number of MB").to_owned();
    let (mut warm, mut cold, mut moved) = (Vec::new(), Vec::new(), 0);
    for number in 2..2 + TIMES {
        lose(number - 1);
        on_worker(number);
        let worker = farm.site().host(&format!("worker-{number}"));
        let before = worker.bytes_received();
        warm.push(go("go-build", number));
        moved = worker.bytes_received() - before;
        // The id is in no key: what else the step says is another one's, too.
        cold.push(go(&format!("go-build-{number}"), number));
    }
    table.add(Row {
        work: format!("`go build std` on a second worker, {size} MB of build cache in the farm"),
        ours: warm,
        peer: Some(("the same without the cache".to_owned(), cold)),
        target: Target::Ratio(5.0),
        differences: String::new(),
    });
    table.note(format!(
        "`du` says {size} MB of Go's build cache, of which the second worker received {:.1} MB (counted \
         by its wire).",
        moved as f64 / 1e6,
    ));
}
