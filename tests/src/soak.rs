//! Builds on a farm while its machines fail, again and again: each must come to its end, and have
//! the result that a single machine has.

use crate::cluster::{Cluster, HOME};
use crate::command::DEADLINE;
use crate::hosts::Host;
use crate::tool::tool;
use crate::tree::Tree;
use fastrand::Rng;
use std::time::Duration;

const WORKERS: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
const CACHES: [&str; 2] = ["cache-1", "cache-2"];

/// Where a build's context and its output are on the hosts.
const CONTEXT: &str = "/root/context";
const OUTPUT: &str = "/root/output";

/// What happens to a machine while a build runs.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A worker loses its power.
    Power(&'static str),
    /// A worker and the coordinator do not reach each other.
    Partition(&'static str),
    /// A worker hangs, and is cut off.
    Hang(&'static str),
    /// The coordinator's process is killed.
    Coordinator,
    /// A cache node loses its power; another one has everything, too.
    Cache(&'static str),
    /// Nothing.
    None,
}

impl Fault {
    fn any(random: &mut Rng) -> Self {
        let worker = WORKERS[random.usize(..WORKERS.len())];
        match random.u8(..6) {
            0 => Self::Power(worker),
            1 => Self::Partition(worker),
            2 => Self::Hang(worker),
            3 => Self::Coordinator,
            4 => Self::Cache(CACHES[random.usize(..CACHES.len())]),
            _ => Self::None,
        }
    }

    fn happen(self, farm: &Cluster) {
        let host = |name| farm.site().host(name);
        match self {
            Self::Power(name) | Self::Cache(name) => host(name).kill(),
            Self::Partition(name) => farm.site().cut(&host(name), &host("coordinator")),
            Self::Hang(name) => {
                host(name).cut();
                host(name).freeze();
            }
            Self::Coordinator => {
                farm.kill("coordinator");
                farm.start("coordinator", "coordinator");
            }
            Self::None => {}
        }
    }

    fn end(self, farm: &Cluster) {
        let host = |name| farm.site().host(name);
        match self {
            Self::Power(name) => {
                host(name).boot();
                farm.start(name, "worker");
            }
            Self::Cache(name) => {
                host(name).boot();
                farm.start(name, "cache");
            }
            Self::Partition(name) => farm.site().heal(&host(name), &host("coordinator")),
            Self::Hang(name) => {
                host(name).thaw();
                host(name).heal();
            }
            Self::Coordinator | Self::None => {}
        }
    }
}

/// Stages that depend on each other by chance, each with steps that take a while, and one over all.
fn dockerfile(random: &mut Rng, round: usize) -> String {
    let mut text = String::from(
        "FROM scratch AS base\nCOPY --chmod=755 busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nSHELL [\"/bin/sh\", \"-euc\"]\n",
    );
    let stages = random.usize(2..7);
    for stage in 0..stages {
        let from = match random.usize(..=stage) {
            0 => "base".to_owned(),
            below => format!("s{}", below - 1),
        };
        text += &format!("FROM {from} AS s{stage}\n");
        for step in 0..random.usize(1..4) {
            let (lines, pause) = (random.usize(10..20_000), random.u8(..2));
            text += &format!(
                "RUN mkdir -p /out; sleep {pause}; seq {lines} | sed s/^/{round}-{stage}-{step}-/ \
                 > /out/{stage}-{step}\n"
            );
        }
    }
    text += "FROM scratch\n";
    (0..stages).for_each(|stage| text += &format!("COPY --from=s{stage} /out /s{stage}\n"));
    text
}

fn give(host: &Host, dockerfile: &str) {
    host.write(format!("{CONTEXT}/Dockerfile"), dockerfile);
    let busybox = std::fs::read(tool("busybox")).expect("busybox is installed");
    host.write(format!("{CONTEXT}/busybox"), busybox);
}

/// Rounds as long as `goes_on` says so to their number: in each a build, and a fault in the middle.
pub fn soak(seed: u64, mut goes_on: impl FnMut(usize) -> bool) {
    let settings = "[coordinator]\nlost_after = \"3s\"\ngrace = \"120s\"\nreplicas = 2\n";
    let farm = Cluster::new(settings);
    for name in CACHES {
        farm.member(name, "cache");
    }
    for name in WORKERS {
        farm.site().host(name).write(format!("{HOME}/config.toml"), "[worker]\nslots = 1\n");
        farm.member(name, "worker");
    }
    let (client, alone) = (farm.join("client-1", "client"), farm.site().host("alone"));
    let output = format!("type=local,dest={OUTPUT}");
    let mut round = 0;
    while goes_on(round) {
        CACHES.iter().for_each(|name| farm.until_state(name, "serving"));
        WORKERS.iter().for_each(|name| farm.until_state(name, "serving"));
        let mut random = Rng::with_seed(seed.wrapping_add(round as u64));
        let (text, fault) = (dockerfile(&mut random, round), Fault::any(&mut random));
        eprintln!("round {round} of seed {seed}: {fault:?}");
        for host in [&client, &alone] {
            give(host, &text);
            host.command("rm", ["-rf", OUTPUT]).run().ok();
        }
        let build = farm.slipway(&client, &["build", "--farm", "test", "-o", &output, CONTEXT]);
        let build = build.start();
        std::thread::sleep(Duration::from_millis(random.u64(..4000)));
        fault.happen(&farm);
        let built = build.finish(DEADLINE);
        assert_eq!(built.code, 0, "{fault:?} in round {round}\n{built}\n{}", farm.everything());
        fault.end(&farm);
        farm.slipway(&alone, &["build", "-o", &output, CONTEXT]).run().ok();
        let [ours, single] = [&client, &alone].map(|host| Tree::of_directory(&host.path(OUTPUT)));
        let differences = single.differences(&ours);
        assert!(differences.is_empty(), "{fault:?} in round {round}: {differences}");
        round += 1;
    }
    farm.slipway(&alone, &["down", "--now"]).run().ok();
    eprintln!("{round} rounds");
}
