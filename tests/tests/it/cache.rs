//! What runs again, what does not, and what runs at the same time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};
use tests::command::{DEADLINE, Running, run};
use tests::http::{Response, Server};
use tests::scratch::{Scratch, write};
use tests::site::Site;

/// How long a request waits for the other one.
const PATIENCE: Duration = Duration::from_secs(120);

/// Flags that let RUN reach a web server of the tests.
const HOST: [&str; 2] = ["--network=host", "--allow=network.host"];

const SOURCES: &str = "
FROM conf/busybox:1 AS build
WORKDIR /src
COPY . .
RUN find . | sort | xargs ls -ld > /dev/null && cat main.c lib/*.c > /program
FROM conf/busybox:1
COPY --from=build /program /program
COPY lib /lib
CMD [\"cat\", \"/program\"]
";

fn sources(directory: &Path) {
    write(directory, "Dockerfile", SOURCES);
    write(directory, "main.c", "int main;\n");
    for n in 0..50 {
        write(directory, &format!("lib/{n}.c"), format!("int lib{n};\n"));
    }
    symlink("../main.c", directory.join("lib/link.c")).expect("a link");
}

fn touch(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            touch(&path);
        } else if !path.is_symlink() {
            let file = fs::File::options().append(true).open(&path).expect("a file");
            file.set_modified(SystemTime::now() + Duration::from_secs(5)).expect("touching");
        }
    }
}

#[test]
fn times_and_places_of_files_do_not_matter() {
    let site = Site::new();
    sources(site.context.path());
    let id = site.image_id(&[]);
    assert_eq!(site.image_id(&[]), id, "nothing changed");
    touch(site.context.path());
    assert_eq!(site.image_id(&[]), id, "every file was touched");
    let clone = Scratch::new("clone");
    sources(clone.path());
    let there = site.slipway.build(&["-q"], clone.path()).ok().text();
    assert_eq!(there, id, "a clone in another directory");
    site.slipway.stop();
    assert_eq!(site.image_id(&[]), id, "after a new start of the farm");
    site.write("lib/7.c", "int other;\n");
    assert_ne!(site.image_id(&[]), id, "a file changed");
    site.write("lib/7.c", "int lib7;\n");
    assert_eq!(site.image_id(&[]), id, "and changed back");
}

/// A Dockerfile whose steps tell a server that they run.
fn telling(server: &Server, text: &str) -> String {
    text.replace("SAY", &format!("wget -q -O- http://{}", server.address()))
}

#[test]
fn no_cache_runs_all_and_a_filter_runs_its_stages() {
    let server = Server::counting();
    let site = Site::of(&telling(
        &server,
        "
FROM conf/busybox:1 AS one
RUN SAY/one > /said
FROM conf/busybox:1 AS two
RUN SAY/two > /said
FROM conf/busybox:1
COPY --from=one /said /one
COPY --from=two /said /two
",
    ));
    let ran = |flags: &[&str]| {
        let before = (server.count("/one"), server.count("/two"));
        site.build(&[&HOST[..], flags].concat()).ok();
        (server.count("/one") - before.0, server.count("/two") - before.1)
    };
    assert_eq!(ran(&[]), (1, 1));
    assert_eq!(ran(&[]), (0, 0), "both are cached");
    assert_eq!(ran(&["--no-cache"]), (1, 1));
    assert_eq!(ran(&[]), (0, 0), "the new results are kept");
    assert_eq!(ran(&["--no-cache-filter=two"]), (0, 1));
    assert_eq!(ran(&["--no-cache-filter", "one,two"]), (1, 1));
}

#[test]
fn stages_that_the_target_does_not_need_are_neither_resolved_nor_run() {
    let server = Server::counting();
    let site = Site::of(&telling(
        &server,
        "
FROM conf/busybox:1 AS base
RUN SAY/base
FROM conf/never-there:1 AS other
RUN SAY/other
FROM base AS wanted
RUN SAY/wanted
FROM base AS after
RUN SAY/after && false
",
    ));
    site.build(&[&HOST[..], &["--target", "wanted"]].concat()).ok();
    let counts = ["/base", "/wanted", "/other", "/after"].map(|path| server.count(path));
    assert_eq!(counts, [1, 1, 0, 0]);
    assert_eq!(site.registry.requests("GET", "never-there"), 0);
    assert_eq!(site.registry.requests("HEAD", "never-there"), 0);
    site.build(&[&HOST[..], &["--target", "other"]].concat()).fails(1).says("never-there");
    site.build(&[&HOST[..], &["--target", "nobody"]].concat()).fails(1).says("nobody");
}

/// Answers a request when so many are there.
fn meeting(of: usize) -> Server {
    let state = Arc::new((Mutex::new(0), Condvar::new()));
    Server::start(move |request| {
        if !request.path.starts_with("/meet") {
            return Response::new(200, "ok\n");
        }
        let (here, changed) = &*state;
        let mut here = here.lock().expect("no one panics with it");
        *here += 1;
        changed.notify_all();
        let waited = changed.wait_timeout_while(here, PATIENCE, |here| *here < of);
        let (_here, late) = waited.expect("no one panics with it");
        Response::new(if late.timed_out() { 500 } else { 200 }, "met\n")
    })
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let server = meeting(2);
    let mut site = Site::of(&telling(
        &server,
        "
FROM conf/busybox:1 AS one
RUN SAY/meet/one
FROM conf/busybox:1 AS two
RUN SAY/meet/two
FROM scratch
COPY --from=one /etc/passwd /one
COPY --from=two /etc/passwd /two
",
    ));
    site.slipway.set_env("SLIPWAY_SLOTS", "2");
    site.build(&HOST).ok();
    assert_eq!(server.count("/meet"), 2);
}

#[test]
fn identical_steps_of_a_build_run_once() {
    let server = Server::counting();
    let site = Site::of(&telling(
        &server,
        "
FROM conf/busybox:1 AS one
RUN SAY/same > /said
FROM conf/busybox:1 AS two
RUN SAY/same > /said
FROM scratch
COPY --from=one /said /one
COPY --from=two /said /two
",
    ));
    site.build(&HOST).ok();
    assert_eq!(server.count("/same"), 1);
}

#[test]
fn two_builds_that_ask_for_the_same_step_at_once_run_it_once() {
    let go = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Arc::clone(&go);
    let server = Server::start(move |_| {
        let (open, changed) = &*gate;
        let open = open.lock().expect("no one panics with it");
        drop(changed.wait_timeout_while(open, PATIENCE, |open| !*open));
        Response::new(200, "ok\n")
    });
    let site = Site::of(&telling(
        &server,
        "FROM conf/busybox:1\nRUN SAY/slow > /said && date +%s%N > /when\n",
    ));
    let first = site.start_build(&[&HOST[..], &["-t", "first"]].concat());
    until("the step runs", || server.count("/slow") == 1);
    let second = site.start_build(&[&HOST[..], &["-t", "second"]].concat());
    until_it_has_a_part("[2/2] RUN", &second);
    *go.0.lock().expect("no one panics with it") = true;
    go.1.notify_all();
    first.finish(DEADLINE).ok();
    second.finish(DEADLINE).ok();
    assert_eq!(server.count("/slow"), 1, "the step ran once for both");
    let when = |image: &str| site.run(image, &["cat", "/when"]).ok().text();
    assert_eq!(when("first"), when("second"));
}

/// Waits for something that other processes do.
pub fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !there() {
        assert!(std::time::Instant::now() < deadline, "it does not come to this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A build that runs may still be reading its Dockerfile: it has no part in a step before it says so.
fn until_it_has_a_part(step: &str, build: &Running) {
    until("the build waits for the step, too", || build.so_far().contains(step));
}

#[test]
fn a_cancelled_build_does_not_take_the_other_ones_step_with_it() {
    let go = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Arc::clone(&go);
    let server = Server::start(move |_| {
        let open = gate.0.lock().expect("no one panics with it");
        drop(gate.1.wait_timeout_while(open, PATIENCE, |open| !*open));
        Response::new(200, "ok\n")
    });
    let site = Site::of(&telling(&server, "FROM conf/busybox:1\nRUN SAY/slow > /said\n"));
    let first = site.start_build(&HOST);
    until("the step runs", || server.count("/slow") == 1);
    let second = site.start_build(&[&HOST[..], &["-t", "second"]].concat());
    until_it_has_a_part("[2/2] RUN", &second);
    first.signal(rustix::process::Signal::INT);
    first.finish(DEADLINE).fails(130);
    *go.0.lock().expect("no one panics with it") = true;
    go.1.notify_all();
    second.finish(DEADLINE).ok();
    assert_eq!(site.run("second", &["cat", "/said"]).ok().text(), "ok");
    assert_eq!(server.count("/slow"), 1);
}

#[test]
fn a_cache_mount_outlives_the_build_and_pruning_takes_what_no_one_needs() {
    let site = Site::of(
        "
FROM conf/busybox:1
ARG ROUND
RUN --mount=type=cache,target=/cache echo $ROUND >> /cache/rounds && cp /cache/rounds /rounds
",
    );
    for round in ["1", "2", "3"] {
        site.build(&["-t", "app", "--build-arg", &format!("ROUND={round}")]).ok();
    }
    assert_eq!(site.run("app", &["cat", "/rounds"]).ok().text(), "1\n2\n3");
    site.slipway.run(&["cache", "du"]).ok().says("total");
    site.slipway.run(&["cache", "prune", "--all", "--force"]).ok().says("reclaimed");
    site.slipway.assert_store_intact();
    assert_eq!(site.run("app", &["cat", "/rounds"]).ok().text(), "1\n2\n3", "images stay");
    site.slipway.run(&["rmi", "app"]).ok();
    site.slipway.run(&["cache", "prune", "--all", "--force"]).ok();
    site.build(&["-t", "app", "--build-arg", "ROUND=4"]).ok();
    site.slipway.assert_store_intact();
    run(&mut site.slipway.command(&["cache", "du"])).ok();
}
