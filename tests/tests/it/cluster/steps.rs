//! Steps on many machines: where they run, how often, and what becomes of them when a machine is
//! lost. How often is counted by a web server outside of the farm.

use super::{Scene, Size};
use crate::cache::until;
use tests::command::DEADLINE;
use tests::hosts::Link;

/// `count` stages that each ask for a path of their own, and one that gathers what they got.
fn fan_out(scene: &Scene, count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let ask = scene.ask(&format!("/stage-{n}"));
        text += &format!("FROM base AS s{n}\nRUN {ask} > /file-{n}\n");
    }
    text += "FROM scratch\n";
    for n in 0..count {
        text += &format!("COPY --from=s{n} /file-{n} /\n");
    }
    text
}

#[test]
fn sixteen_stages_run_once_each_and_a_second_client_runs_nothing() {
    let scene = Scene::new(Size { caches: 2, workers: 4, clients: 2 });
    let stages = fan_out(&scene, 16);
    scene.build("client-1", "one", &stages).ok();
    let counts = || (0..16).map(|n| scene.guests.count(&format!("/stage-{n}"))).collect::<Vec<_>>();
    assert_eq!(counts(), [1; 16]);
    scene.build("client-2", "two", &stages).ok();
    assert_eq!(counts(), [1; 16], "the second one has run nothing");
    for n in 0..16 {
        let file = format!("file-{n}");
        assert_eq!(scene.output("client-1", "one", &file), "1");
        assert_eq!(scene.output("client-2", "two", &file), "1");
    }
}

#[test]
fn four_workers_work_at_the_same_time() {
    let scene = Scene::new(Size { caches: 1, workers: 4, clients: 1 });
    // Each step ends when all four have come, and each worker has one slot.
    let mut stages = String::new();
    for n in 0..4 {
        let ask = scene.ask("/meet/all/4");
        stages += &format!("FROM base AS s{n}\nRUN echo {n}; {ask} > /file-{n}\n");
    }
    stages += "FROM scratch\n";
    (0..4).for_each(|n| stages += &format!("COPY --from=s{n} /file-{n} /\n"));
    scene.build("client-1", "all", &stages).ok();
}

#[test]
fn two_clients_that_build_the_same_share_one_run() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 2 });
    let stages = format!(
        "FROM base AS run\nRUN {} > /file\nFROM scratch\nCOPY --from=run /file /\n",
        scene.ask("/wait/shared")
    );
    let one = scene.start_build("client-1", "one", &stages);
    until("the step runs", || scene.guests.count("/wait/shared") == 1);
    let two = scene.start_build("client-2", "two", &stages);
    until("the second one waits for it", || two.so_far().contains("] RUN"));
    scene.guests.open("shared");
    one.finish(DEADLINE).ok();
    two.finish(DEADLINE).ok();
    assert_eq!(scene.guests.count("/wait/shared"), 1);
    assert_eq!(scene.output("client-1", "one", "file"), "1");
    assert_eq!(scene.output("client-2", "two", "file"), "1");
}

/// Which worker asks, by where the step runs: its host name is the worker's.
fn on_a_worker(scene: &Scene, path: &str) -> String {
    format!(
        "FROM base AS run\nRUN {} > /file\nFROM scratch\nCOPY --from=run /file /\n",
        scene.ask(path)
    )
}

#[test]
fn a_step_of_a_worker_that_loses_its_power_runs_on_another_one() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 1 });
    let build = scene.start_build("client-1", "one", &on_a_worker(&scene, "/wait/lost"));
    until("the step runs", || scene.guests.count("/wait/lost") == 1);
    scene.host(&scene.busy()).kill();
    until("it runs again", || scene.guests.count("/wait/lost") == 2);
    scene.guests.open("lost");
    build.finish(DEADLINE).ok();
    assert_eq!(scene.output("client-1", "one", "file"), "2");
}

#[test]
fn what_a_worker_reports_late_changes_nothing() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 2 });
    let stages = on_a_worker(&scene, "/wait/late");
    let build = scene.start_build("client-1", "one", &stages);
    until("the step runs", || scene.guests.count("/wait/late") == 1);
    let cut = scene.busy();
    scene.farm.site().cut(&scene.host(&cut), &scene.host("coordinator"));
    until("it runs elsewhere", || scene.guests.count("/wait/late") == 2);
    scene.guests.open("late");
    build.finish(DEADLINE).ok();
    assert_eq!(scene.output("client-1", "one", "file"), "2");
    scene.farm.site().heal(&scene.host(&cut), &scene.host("coordinator"));
    scene.until_there(&cut);
    scene.build("client-2", "two", &stages).ok();
    assert_eq!(scene.output("client-2", "two", "file"), "2", "the fenced result is nobody's");
    assert_eq!(scene.guests.count("/wait/late"), 2);
}

#[test]
fn a_build_goes_on_when_the_coordinator_is_killed_and_comes_back() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 1 });
    let build = scene.start_build("client-1", "one", &on_a_worker(&scene, "/wait/on"));
    until("the step runs", || scene.guests.count("/wait/on") == 1);
    scene.host("coordinator").kill();
    scene.boot("coordinator");
    ["cache-1", "worker-1", "worker-2"].iter().for_each(|name| scene.until_there(name));
    scene.guests.open("on");
    build.finish(DEADLINE).ok();
    assert_eq!(scene.output("client-1", "one", "file"), "1", "it was not run again");
    assert_eq!(scene.guests.count("/wait/on"), 1);
}

#[test]
fn a_client_that_has_gone_attaches_again() {
    let scene = Scene::new(Size { caches: 1, workers: 1, clients: 1 });
    let stages = on_a_worker(&scene, "/wait/client");
    let build = scene.start_build("client-1", "one", &stages);
    until("the step runs", || scene.guests.count("/wait/client") == 1);
    scene.host("client-1").kill();
    let gone = build.finish(DEADLINE);
    assert_ne!(gone.code, 0);
    scene.host("client-1").boot();
    // The same command again waits for the same step.
    let again = scene.start_build("client-1", "again", &stages);
    until("it waits for it", || again.so_far().contains("] RUN"));
    scene.guests.open("client");
    again.finish(DEADLINE).ok();
    assert_eq!(scene.output("client-1", "again", "file"), "1");
    assert_eq!(scene.guests.count("/wait/client"), 1);
}

#[test]
fn a_hundred_builds_at_once_all_come_to_their_end() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 1 });
    let stages = |n: usize| {
        let ask = scene.ask(&format!("/build-{n}"));
        format!(
            "FROM base AS common\nRUN {} > /common\nFROM common AS own\nRUN {ask} > /own\n\
             FROM scratch\nCOPY --from=own /common /own /\n",
            scene.ask("/common")
        )
    };
    let names: Vec<String> = (0..100).map(|n| format!("build-{n}")).collect();
    let builds: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| scene.start_build("client-1", name, &stages(n)))
        .collect();
    for build in builds {
        build.finish(DEADLINE).ok();
    }
    assert_eq!(scene.guests.count("/common"), 1, "what they have in common ran once");
    for name in &names {
        assert_eq!(scene.guests.count(&format!("/{name}")), 1);
        assert_eq!(scene.output("client-1", name, "own"), "1");
        assert_eq!(scene.output("client-1", name, "common"), "1");
    }
}

#[test]
fn a_worker_behind_a_slow_link_builds_the_same() {
    let scene = Scene::new(Size { caches: 1, workers: 1, clients: 1 });
    let link = Link { delay_ms: 40, jitter_ms: 5, loss_percent: 1.0, rate_mbit: Some(20) };
    scene.host("worker-1").link(link);
    let stages = format!(
        "FROM base AS run\nRUN seq 1 200000 > /numbers; {} > /file\n\
         FROM scratch\nCOPY --from=run /numbers /file /\n",
        scene.ask("/slow")
    );
    scene.build("client-1", "slow", &stages).ok();
    assert_eq!(scene.output("client-1", "slow", "file"), "1");
    assert_eq!(scene.output("client-1", "slow", "numbers").lines().count(), 200_000);
}
