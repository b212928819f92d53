//! Cache mounts that steps on several machines use.

use super::{Scene, Size};
use crate::cache::until;
use tests::command::DEADLINE;

/// A stage that does something with the cache mount `id`, and a final one with its file `/said`.
fn with_mount(options: &str, script: &str) -> String {
    format!(
        "FROM base AS run\nRUN --mount=type=cache,target=/mnt,{options} {script} > /said\n\
         FROM scratch\nCOPY --from=run /said /\n"
    )
}

#[test]
fn a_cold_worker_begins_with_the_farms_cache() {
    let scene = Scene::new(Size { caches: 2, workers: 1, clients: 1 });
    let write = with_mount("id=warm", "mkdir /mnt/d; echo warm > /mnt/d/file; echo written");
    scene.build("client-1", "write", &write).ok();
    scene.host("worker-1").kill();
    scene.join("worker", 2);
    let read = with_mount("id=warm", "cat /mnt/d/file");
    scene.build("client-1", "read", &read).ok();
    assert_eq!(scene.output("client-1", "read", "said"), "warm");
    scene.farm.operator(&["cache", "mounts", "ls"]).ok().says("warm");
    // The mount is written down: it outlives its coordinator.
    scene.host("coordinator").kill();
    scene.boot("coordinator");
    ["cache-1", "cache-2", "worker-2"].iter().for_each(|name| scene.until_there(name));
    let again = with_mount("id=warm", "cat /mnt/d/file /mnt/d/file");
    scene.build("client-1", "again", &again).ok();
    assert_eq!(scene.output("client-1", "again", "said"), "warm\nwarm");
}

#[test]
fn a_locked_mount_is_one_steps_in_the_whole_farm() {
    let scene = Scene::new(Size { caches: 1, workers: 3, clients: 1 });
    let mut stages = String::new();
    for n in 0..3 {
        let (enter, leave) = (scene.ask("/enter/locked"), scene.ask("/leave/locked"));
        let script = format!("{enter}; echo {n} >> /mnt/all; {leave}");
        let mount = "--mount=type=cache,target=/mnt,id=locked,sharing=locked";
        stages += &format!("FROM base AS s{n}\nRUN {mount} {script}; cp /mnt/all /all-{n}\n");
    }
    stages += "FROM scratch\n";
    (0..3).for_each(|n| stages += &format!("COPY --from=s{n} /all-{n} /\n"));
    scene.build("client-1", "locked", &stages).ok();
    assert_eq!(scene.guests.most("locked"), 1, "never two at once");
    assert_eq!(scene.guests.count("/enter/locked"), 3);
    let read = with_mount("id=locked", "cat /mnt/all | sort | tr -d '\\n'");
    scene.build("client-1", "read", &read).ok();
    assert_eq!(scene.output("client-1", "read", "said"), "012");
}

#[test]
fn a_lost_worker_gives_its_locked_mount_back() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 1 });
    let script = format!("{}; echo 1 >> /mnt/all; wc -l < /mnt/all", scene.ask("/wait/locked"));
    let stages = with_mount("id=locked,sharing=locked", &script);
    let build = scene.start_build("client-1", "one", &stages);
    until("the step runs", || scene.guests.count("/wait/locked") == 1);
    scene.host(&scene.busy()).kill();
    until("it runs again", || scene.guests.count("/wait/locked") == 2);
    scene.guests.open("locked");
    build.finish(DEADLINE).ok();
    assert_eq!(scene.output("client-1", "one", "said"), "1");
}

#[test]
fn steps_on_two_machines_that_fill_one_cache_both_find_their_files_later() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 1 });
    let mut stages = String::new();
    for n in 0..2 {
        // Both have begun before one of them ends.
        let meet = scene.ask("/meet/both/2");
        let mount = "--mount=type=cache,target=/root/.cache/go-build";
        let script = format!("echo {n} > /root/.cache/go-build/{n}; {meet} > /done-{n}");
        stages += &format!("FROM base AS s{n}\nRUN {mount} {script}\n");
    }
    stages += "FROM scratch\nCOPY --from=s0 /done-0 /\nCOPY --from=s1 /done-1 /\n";
    scene.build("client-1", "both", &stages).ok();
    let read = "FROM base AS run\n\
                RUN --mount=type=cache,target=/root/.cache/go-build \
                cat /root/.cache/go-build/0 /root/.cache/go-build/1 > /said\n\
                FROM scratch\nCOPY --from=run /said /\n";
    scene.build("client-1", "read", read).ok();
    assert_eq!(scene.output("client-1", "read", "said"), "0\n1");
    let history = ["cache", "mounts", "history", "/root/.cache/go-build"];
    scene.farm.operator(&history).ok().says("merged with 1");
}

#[test]
fn a_mount_is_rolled_back_and_removed() {
    let scene = Scene::new(Size { caches: 1, workers: 1, clients: 1 });
    for n in 1..=2 {
        let write = with_mount("id=m", &format!("echo {n} > /mnt/file; echo wrote {n}"));
        scene.build("client-1", &format!("write-{n}"), &write).ok();
    }
    let slipway = |args: &[&str]| scene.farm.operator(&[&["cache", "mounts"], args].concat());
    slipway(&["rollback", "m", "7"]).fails(1).says("no generation 7");
    slipway(&["rollback", "m", "1"]).ok().says("generation 3");
    let read = with_mount("id=m", "cat /mnt/file");
    scene.build("client-1", "read", &read).ok();
    assert_eq!(scene.output("client-1", "read", "said"), "1");
    slipway(&["rm", "m"]).ok();
    slipway(&["history", "m"]).fails(1).says("no cache mount `m`");
    let list = with_mount("id=m", "ls /mnt | wc -l");
    scene.build("client-1", "list", &list).ok();
    assert_eq!(scene.output("client-1", "list", "said"), "0");
}
