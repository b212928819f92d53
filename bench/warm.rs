//! A build that others have done before, on a machine that has nothing but the sources: from the
//! farm's store, and by buildah from layers in a registry.

use crate::context::Context;
use crate::farm::TIMES;
use crate::side::settle;
use crate::table::{Row, Table, Target};
use tests::cluster::Cluster;
use tests::command::{DEADLINE, command, run};
use tests::hosts::Host;
use tests::mirror::{Mirror, REGISTRY};
use tests::tool::tool;
use tests::tree::Tree;

const DOCKERFILE: &str = "FROM scratch\nCOPY . /files/\n";

pub fn measure(table: &mut Table) {
    let context = Context::new();
    let farm = Cluster::new("");
    let _registry = Mirror::of_corpus(farm.site());
    for (name, role) in [("cache-1", "cache"), ("worker-1", "worker")] {
        farm.member(name, role);
        farm.until_state(name, "serving");
    }
    let sources = |host: &Host| {
        let at = host.path("/root/c");
        run(command(tool("cp")).arg("-a").args([&context.path(), &at])).ok();
        host.write("/root/Dockerfile", DOCKERFILE);
        settle();
    };
    let ours = |number: usize| {
        let client = farm.join(&format!("client-{number}"), "client");
        sources(&client);
        let output = ["-f", "/root/Dockerfile", "-o", "type=local,dest=/root/out", "/root/c"];
        let build = farm.slipway(&client, &[&["build", "--farm", "test"], &output[..]].concat());
        let before = client.bytes_received();
        let took = build.start().finish(DEADLINE).ok().took;
        (client.clone(), took, client.bytes_received() - before)
    };
    let peer = |number: usize| {
        let host = farm.site().host(&format!("peer-{number}"));
        sources(&host);
        let cache = format!("{REGISTRY}/bench/cache");
        let storage = ["--root=/root/storage", "--runroot=/root/run", "--storage-driver=overlay"];
        host.write("/root/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        let policy = "--signature-policy=/root/policy.json";
        let flags = ["bud", "--isolation=chroot", "--tls-verify=false", "--layers", policy];
        let caches = ["--cache-from", &cache, "--cache-to", &cache];
        let output = ["-f", "/root/Dockerfile", "--output=type=local,dest=/root/out", "/root/c"];
        let args = [&storage[..], &flags[..], &caches[..], &output[..]].concat();
        let before = host.bytes_received();
        let took = host.command(tool("buildah"), args).start().finish(DEADLINE).ok().took;
        (host.clone(), took, host.bytes_received() - before)
    };
    // Somebody has built it before.
    ours(0);
    peer(0);
    let (mut times, mut peers, mut differences) = (Vec::new(), Vec::new(), String::new());
    let (mut received, mut pulled, mut size) = (0, 0, 0);
    // Each time on a new machine.
    for number in 1..=TIMES {
        let (client, took, bytes) = ours(number);
        times.push(took);
        received = bytes;
        let (host, took, bytes) = peer(number);
        peers.push(took);
        pulled = bytes;
        let trees = [client, host].map(|host| {
            let out = host.path("/root/out");
            (Tree::of_directory(&out).without_owners(), out)
        });
        differences = trees[0].0.differences(&trees[1].0);
        size = trees[0].0.size();
        trees.iter().for_each(|(_, out)| tests::scratch::remove(out));
    }
    table.add(Row {
        work: "the same files built before, on a new machine, to a directory".to_owned(),
        ours: times,
        peer: Some(("buildah `--cache-from` a registry".to_owned(), peers)),
        target: Target::Ratio(5.0),
        differences,
    });
    let mb = |bytes: u64| bytes as f64 / 1e6;
    table.note(format!(
        "In the row of the new machine it received {:.1} MB (counted by its wire), for an output of \
         {:.1} MB; buildah's {:.1} MB of packed layers.",
        mb(received),
        mb(size),
        mb(pulled),
    ));
}
