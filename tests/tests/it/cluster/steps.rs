//! Steps on many machines: where they run, how often, and what becomes of them when a machine is
//! lost. How often is counted by a web server outside of the farm.

use super::{Cluster, Size};
use crate::cache::until;
use tests::command::DEADLINE;

/// `count` stages that each ask for a path of their own, and one that gathers what they got.
fn fan_out(cluster: &Cluster, count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let ask = cluster.ask(&format!("/stage-{n}"));
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
    let cluster = Cluster::new(Size { caches: 2, workers: 4, clients: 2 });
    let stages = fan_out(&cluster, 16);
    cluster.build("client-1", "one", &stages).ok();
    let counts =
        || (0..16).map(|n| cluster.guests.count(&format!("/stage-{n}"))).collect::<Vec<_>>();
    assert_eq!(counts(), [1; 16]);
    cluster.build("client-2", "two", &stages).ok();
    assert_eq!(counts(), [1; 16], "the second one has run nothing");
    for n in 0..16 {
        let file = format!("file-{n}");
        assert_eq!(cluster.output("client-1", "one", &file), "1");
        assert_eq!(cluster.output("client-2", "two", &file), "1");
    }
}

#[test]
fn four_workers_work_at_the_same_time() {
    let cluster = Cluster::new(Size { caches: 1, workers: 4, clients: 1 });
    // Each step ends when all four have come, and each worker has one slot.
    let mut stages = String::new();
    for n in 0..4 {
        let ask = cluster.ask("/meet/all/4");
        stages += &format!("FROM base AS s{n}\nRUN echo {n}; {ask} > /file-{n}\n");
    }
    stages += "FROM scratch\n";
    (0..4).for_each(|n| stages += &format!("COPY --from=s{n} /file-{n} /\n"));
    cluster.build("client-1", "all", &stages).ok();
}

#[test]
fn two_clients_that_build_the_same_share_one_run() {
    let cluster = Cluster::new(Size { caches: 1, workers: 2, clients: 2 });
    let stages = format!(
        "FROM base AS run\nRUN {} > /file\nFROM scratch\nCOPY --from=run /file /\n",
        cluster.ask("/wait/shared")
    );
    let one = cluster.start_build("client-1", "one", &stages);
    until("the step runs", || cluster.guests.count("/wait/shared") == 1);
    let two = cluster.start_build("client-2", "two", &stages);
    until("the second one waits for it", || two.so_far().contains("] RUN"));
    cluster.guests.open("shared");
    one.finish(DEADLINE).ok();
    two.finish(DEADLINE).ok();
    assert_eq!(cluster.guests.count("/wait/shared"), 1);
    assert_eq!(cluster.output("client-1", "one", "file"), "1");
    assert_eq!(cluster.output("client-2", "two", "file"), "1");
}

/// Which worker asks, by where the step runs: its host name is the worker's.
fn on_a_worker(cluster: &Cluster, path: &str) -> String {
    format!(
        "FROM base AS run\nRUN {} > /file\nFROM scratch\nCOPY --from=run /file /\n",
        cluster.ask(path)
    )
}

#[test]
fn a_step_of_a_worker_that_loses_its_power_runs_on_another_one() {
    let cluster = Cluster::new(Size { caches: 1, workers: 2, clients: 1 });
    let build = cluster.start_build("client-1", "one", &on_a_worker(&cluster, "/wait/lost"));
    until("the step runs", || cluster.guests.count("/wait/lost") == 1);
    cluster.kill(&busy(&cluster));
    until("it runs again", || cluster.guests.count("/wait/lost") == 2);
    cluster.guests.open("lost");
    build.finish(DEADLINE).ok();
    assert_eq!(cluster.output("client-1", "one", "file"), "2");
}

#[test]
fn what_a_worker_reports_late_changes_nothing() {
    let cluster = Cluster::new(Size { caches: 1, workers: 2, clients: 2 });
    let stages = on_a_worker(&cluster, "/wait/late");
    let build = cluster.start_build("client-1", "one", &stages);
    until("the step runs", || cluster.guests.count("/wait/late") == 1);
    let cut = busy(&cluster);
    cluster.site.cut(&cluster.host(&cut), &cluster.host("coordinator"));
    until("it runs elsewhere", || cluster.guests.count("/wait/late") == 2);
    cluster.guests.open("late");
    build.finish(DEADLINE).ok();
    assert_eq!(cluster.output("client-1", "one", "file"), "2");
    cluster.site.heal(&cluster.host(&cut), &cluster.host("coordinator"));
    cluster.until_all_are_there(3);
    cluster.build("client-2", "two", &stages).ok();
    assert_eq!(cluster.output("client-2", "two", "file"), "2", "the fenced result is nobody's");
    assert_eq!(cluster.guests.count("/wait/late"), 2);
}

/// The worker that runs a step now: the one in which a container runs.
pub fn busy(cluster: &Cluster) -> String {
    for name in ["worker-1", "worker-2", "worker-3", "worker-4"] {
        let runs = |p: &tests::scratch::Process| p.command.contains("/bin/ask");
        if cluster.runs(name) && cluster.host(name).processes().iter().any(runs) {
            return name.to_owned();
        }
    }
    panic!("no worker runs a step");
}

#[test]
fn a_build_goes_on_when_the_coordinator_is_killed_and_comes_back() {
    let cluster = Cluster::new(Size { caches: 1, workers: 2, clients: 1 });
    let build = cluster.start_build("client-1", "one", &on_a_worker(&cluster, "/wait/on"));
    until("the step runs", || cluster.guests.count("/wait/on") == 1);
    cluster.kill("coordinator");
    cluster.boot("coordinator");
    cluster.until_all_are_there(3);
    cluster.guests.open("on");
    build.finish(DEADLINE).ok();
    assert_eq!(cluster.output("client-1", "one", "file"), "1", "it was not run again");
    assert_eq!(cluster.guests.count("/wait/on"), 1);
}

#[test]
fn a_client_that_has_gone_attaches_again() {
    let cluster = Cluster::new(Size { caches: 1, workers: 1, clients: 1 });
    let stages = on_a_worker(&cluster, "/wait/client");
    let build = cluster.start_build("client-1", "one", &stages);
    until("the step runs", || cluster.guests.count("/wait/client") == 1);
    cluster.host("client-1").kill();
    let gone = build.finish(DEADLINE);
    assert_ne!(gone.code, 0);
    cluster.host("client-1").boot();
    // The same command again waits for the same step.
    let again = cluster.start_build("client-1", "again", &stages);
    until("it waits for it", || again.so_far().contains("] RUN"));
    cluster.guests.open("client");
    again.finish(DEADLINE).ok();
    assert_eq!(cluster.output("client-1", "again", "file"), "1");
    assert_eq!(cluster.guests.count("/wait/client"), 1);
}
