//! Who does not belong to a farm gets nothing of it, and is told why.

use super::{Scene, Size};
use tests::cluster::HOME;
use tests::hosts::Host;

fn farm() -> Scene {
    Scene::new(Size { caches: 0, workers: 0, clients: 0 })
}

fn join(scene: &Scene, host: &Host, token: &str) -> tests::command::Outcome {
    scene.farm.slipway(host, &["join", &format!("{token}@coordinator")]).run()
}

#[test]
fn a_token_that_has_expired_was_used_up_or_was_never_given_admits_nobody() {
    let scene = farm();
    let host = scene.host("stranger");
    let token = |flags: &[&str]| {
        let create = [&["token", "create", "--role", "worker"], flags].concat();
        scene.farm.operator(&create).ok().text()
    };
    let short = token(&["--ttl", "1s"]);
    scene.farm.until("the token has expired", |_| join(&scene, &host, &short).code != 0);
    join(&scene, &host, &short).fails(1).says("expired");
    let once = token(&["--uses", "1"]);
    join(&scene, &host, &once).ok();
    join(&scene, &scene.host("second"), &once).fails(1).says("used");
    let mut forged = once.clone();
    let last = if forged.pop() == Some('a') { 'b' } else { 'a' };
    forged.push(last);
    assert_ne!(join(&scene, &scene.host("third"), &forged).code, 0);
}

#[test]
fn a_member_of_another_cluster_is_none_of_this_one() {
    let (scene, other) = (farm(), "other");
    // A second cluster on the same network, whose worker is told that this one is its coordinator.
    let head = scene.host(other);
    let init = ["farm", "init", "--name", "test", "--roles", "coordinator,worker"];
    scene.farm.slipway(&head, &init).run().ok();
    head.write(format!("{HOME}/config.toml"), "[node]\ncoordinator = \"coordinator\"\n");
    let mut worker = scene.farm.slipway(&head, &["worker"]).serve("worker");
    worker.until("the refusal", |log| log.contains("certificate").then_some(()));
    assert_eq!(scene.farm.state(other), None);
}

#[test]
fn a_client_is_no_worker_and_a_worker_no_client() {
    let scene = farm();
    let client = scene.farm.join("client-1", "client");
    let started = scene.farm.slipway(&client, &["worker"]).run();
    assert_ne!(started.code, 0, "{started}");
    let worker = scene.farm.join("worker-1", "worker");
    scene.context(&worker, "one", "FROM scratch\nCOPY busybox /\n");
    scene.farm.slipway(&worker, &["build", "--farm", "test", "/root/one"]).run().fails(1);
}
