//! The farm: started on demand, shared, ended when idle, replaced by a newer one.

use crate::cache::until;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tests::command::{DEADLINE, command, run};
use tests::http::Server;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::slipway::{Slipway, program};
use tests::tool::tool;

const HELLO: &str = "FROM conf/busybox:1\nRUN echo hello\n";

/// The process numbers of the farms on a home.
fn farms(slipway: &Slipway) -> Vec<i32> {
    let all = slipway.processes().into_iter();
    all.filter(|process| process.command.contains(" up")).map(|p| p.pid).collect()
}

#[test]
fn several_builds_share_one_farm() {
    let site = Site::of(HELLO);
    let builds: Vec<_> = (0..4)
        .map(|n| {
            let arg = format!("N={n}");
            site.start_build(&["--build-arg", &arg, "-t", &format!("app:{n}")])
        })
        .collect();
    builds.into_iter().for_each(|build| drop(build.finish(DEADLINE).ok()));
    assert_eq!(farms(&site.slipway).len(), 1);
    assert_eq!(site.slipway.run(&["images", "app"]).ok().text().lines().count(), 5);
    let before = farms(&site.slipway);
    site.build(&[]).ok();
    assert_eq!(farms(&site.slipway), before, "the farm that runs is used");
    let socket = fs::metadata(site.slipway.home().join("farm.sock")).expect("the farm's socket");
    assert_eq!(socket.permissions().mode() & 0o077, 0, "only its owner can open it");
    let home = fs::metadata(site.slipway.home()).expect("the farm's home");
    assert_eq!(home.uid(), socket.uid());
}

#[test]
fn it_ends_when_idle_and_starts_again() {
    let mut site = Site::of(HELLO);
    site.slipway.set_env("SLIPWAY_IDLE", "200ms");
    site.build(&["-t", "app"]).ok();
    until("the farm ends", || farms(&site.slipway).is_empty());
    site.slipway.assert_gone();
    site.run("app", &["true"]).ok();
    // A build that takes longer than that is no idleness.
    site.dockerfile("FROM conf/busybox:1\nRUN sleep 1 && echo slept\n");
    site.build(&[]).ok().says("slept");
}

#[test]
fn up_runs_it_in_the_foreground() {
    let site = Site::of(HELLO);
    let mut up = site.slipway.start(&["up"]);
    until("the farm answers", || site.slipway.home().join("farm.sock").exists());
    until("the farm answers", || site.slipway.run(&["images"]).code == 0);
    site.build(&["-t", "app"]).ok();
    assert_eq!(farms(&site.slipway), [up.pid()], "the build used it");
    let second = site.slipway.run(&["up"]);
    assert_ne!(second.code, 0, "{second}");
    assert!(up.is_running());
    up.signal(Signal::INT);
    up.finish(DEADLINE).ok();
    site.slipway.assert_gone();
    let mut again = site.slipway.start(&["up", "--idle", "1s", "--slots", "1"]);
    until("the farm answers", || {
        !again.is_running() || site.slipway.run(&["images", "-q", "app"]).code == 0
    });
    until("it ends when idle", || !again.is_running());
    again.finish(DEADLINE).ok();
}

#[test]
fn a_newer_binary_replaces_an_older_one_when_its_builds_are_done() {
    let (out, server) = (Scratch::new("newer"), Server::counting());
    let mut site = Site::of(&format!(
        "FROM conf/busybox:1\nRUN wget -q -O- {} && sleep 2 && echo finished\n",
        server.url("started")
    ));
    let build = site.start_build(&["--network=host", "--allow=network.host", "-t", "old"]);
    until("the step runs", || server.count("/started") == 1);
    let old = farms(&site.slipway);
    site.slipway.use_program(&newer(&out));
    site.dockerfile(HELLO);
    site.build(&["-t", "new"]).ok();
    build.finish(DEADLINE).ok().says("finished");
    let now = farms(&site.slipway);
    assert_eq!((old.len(), now.len()), (1, 1));
    assert_ne!(old, now, "another process serves now");
    let names = site.slipway.run(&["images"]).ok().text();
    assert!(names.contains("old") && names.contains("new"), "{names}");
    site.slipway.assert_store_intact();
}

/// The same program, a second younger.
fn newer(out: &Scratch) -> PathBuf {
    let newer = out.join("slipway");
    fs::copy(program(), &newer).expect("copying the program");
    let file = fs::File::options().append(true).open(&newer).expect("a copy");
    file.set_modified(SystemTime::now() + Duration::from_secs(1)).expect("touching");
    newer
}

#[test]
fn many_newer_binaries_replace_an_older_one_once() {
    let out = Scratch::new("newer");
    let mut site = Site::of(HELLO);
    site.build(&[]).ok();
    let old = farms(&site.slipway);
    site.slipway.use_program(&newer(&out));
    let builds: Vec<_> = (0..12).map(|_| site.start_build(&["-q"])).collect();
    let ids: BTreeSet<String> =
        builds.into_iter().map(|b| b.finish(DEADLINE).ok().text()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let now = farms(&site.slipway);
    assert_eq!((old.len(), now.len()), (1, 1));
    assert_ne!(old, now, "another process serves now");
}

#[test]
fn an_older_binary_uses_a_newer_farm() {
    let out = Scratch::new("older");
    let older = out.join("slipway");
    fs::copy(program(), &older).expect("copying the program");
    let file = fs::File::options().append(true).open(&older).expect("a copy");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .expect("touching");
    drop(file);
    let mut site = Site::of(HELLO);
    site.build(&[]).ok();
    let farm = farms(&site.slipway);
    site.slipway.use_program(&older);
    site.build(&[]).ok();
    assert_eq!(farms(&site.slipway), farm);
}

#[test]
fn without_privilege_it_says_what_is_missing() {
    let scratch = Scratch::new("unprivileged");
    let home = scratch.directory("home");
    let context = scratch.directory("context");
    tests::scratch::write(&context, "Dockerfile", HELLO);
    // Who may read everything, so that only containers are out of reach.
    let other_user = ["--reuid=65534", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
    let root_without = ["--bounding-set=-sys_admin"];
    for (privilege, missing) in [(&other_user[..], "root"), (&root_without[..], "SYS_ADMIN")] {
        let mut slipway = command(tool("setpriv"));
        slipway.args(privilege).arg("--").arg(program()).arg("build").arg(&context);
        slipway.env("SLIPWAY_HOME", &home).env("HOME", &home);
        run(&mut slipway).fails(1).says(missing);
    }
    assert!(tests::scratch::processes_of(&home).is_empty());
}
