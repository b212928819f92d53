//! What is left when something ends before its time: nothing.

use crate::cache::until;
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tests::command::{DEADLINE, Running};
use tests::http::Server;
use tests::scratch::{Process, Scratch, alive, processes_like};
use tests::site::Site;

/// A step that does not end by itself, nor when it is asked to, and leaves its session.
const STUBBORN: &str = "
FROM conf/busybox:1
RUN --mount=type=cache,target=/cache trap '' TERM INT HUP; \\
    setsid sh -c 'trap \"\" TERM INT HUP; sleep LONG; sleep LONG' & \\
    wget -q -O- http://ADDRESS/started; sleep LONG; sleep LONG
";

/// A sleep of a length that nobody else sleeps for: its command line, and the length.
fn long_sleep() -> (String, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let long = (10_000_000 + 100 * std::process::id() + number).to_string();
    (format!("sleep {long} "), long)
}

/// A farm with a build that is in the middle of such a step.
struct Stuck {
    site: Site,
    inside: Vec<Process>,
    groups: Vec<PathBuf>,
}

impl Stuck {
    fn start() -> (Self, Running) {
        let server = Server::counting();
        let (sleep, long) = long_sleep();
        let text = STUBBORN.replace("ADDRESS", server.address()).replace("LONG", &long);
        let site = Site::of(&text);
        let build = site.start_build(&["--network=host", "--allow=network.host", "-t", "stuck"]);
        until("the step runs", || server.count("/started") == 1);
        let sleeping = || processes_like(&sleep);
        until("both processes sleep", || sleeping().len() == 2);
        let (inside, groups) = (sleeping(), site.slipway.control_groups());
        assert!(!groups.is_empty(), "the container has a control group");
        (Self { site, inside, groups }, build)
    }

    /// Nothing of the container is left, while the farm goes on.
    #[track_caller]
    fn assert_cleaned_up(&self) {
        // Who cancels does not wait for the kernel to end what was killed.
        until("the step's processes end", || !self.inside.iter().any(|p| alive(p.pid)));
        let in_use = |group: &&PathBuf| {
            let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids: Vec<&str> = members.split_whitespace().collect();
            self.inside.iter().any(|process| pids.contains(&process.pid.to_string().as_str()))
        };
        assert_eq!(self.groups.iter().filter(in_use).count(), 0);
    }

    /// The farm ends, and then nothing is left at all. After that it builds as before.
    #[track_caller]
    fn assert_all_gone(&self) {
        self.assert_cleaned_up();
        self.site.slipway.stop();
        self.site.slipway.assert_gone();
        self.assert_no_groups();
        self.assert_builds();
    }

    #[track_caller]
    fn assert_no_groups(&self) {
        let left: Vec<_> = self.groups.iter().filter(|group| group.exists()).collect();
        assert!(left.is_empty(), "control groups are left: {left:?}");
    }

    #[track_caller]
    fn assert_builds(&self) {
        self.site.slipway.assert_store_intact();
        self.site.dockerfile("FROM conf/busybox:1\nRUN echo it works\n");
        self.site.build(&[]).ok().says("it works");
        let unnamed = self.site.slipway.run(&["images", "-q", "stuck"]).ok();
        assert_eq!(unnamed.text(), "", "the cancelled build named nothing");
    }
}

#[test]
fn ctrl_c_and_sigterm_cancel_and_leave_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let (stuck, build) = Stuck::start();
        build.signal(signal);
        build.finish(DEADLINE).fails(130).says("cancel");
        stuck.assert_all_gone();
    }
}

/// Half of an archive with one file.
fn half_an_archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 20);
    header.set_mode(0o644);
    let whole = vec![b'x'; 1 << 20];
    tar.append_data(&mut header, "file", &whole[..]).expect("an archive in memory");
    tar.get_ref()[..1 << 19].to_vec()
}

/// Somebody writes a context, or a Dockerfile, and does not come to its end.
#[test]
fn who_is_told_to_end_while_something_is_read_leaves_nothing() {
    let site = Site::of("FROM scratch\n");
    let context = site.context.path().to_str().expect("a path of the tests is UTF-8");
    let archive = (vec!["build", "-"], half_an_archive(), true);
    let dockerfile = (vec!["build", "-f", "-", context], b"FROM".to_vec(), false);
    for (args, begun, unpacks) in [archive, dockerfile] {
        for signal in [Signal::INT, Signal::TERM] {
            let temp = Scratch::new("temp");
            let (reader, mut writer) = std::io::pipe().expect("a pipe");
            let mut command = site.slipway.command(&args);
            command.env("TMPDIR", temp.path()).stdin(reader);
            let mut build = Running::start(&mut command, &[]);
            drop(command);
            writer.write_all(&begun).expect("it is read");
            let made = || fs::read_dir(temp.path()).expect("our own").count();
            until("it is unpacked", || !unpacks || made() > 0);
            // Until it waits for what nobody writes.
            let left = || rustix::io::ioctl_fionread(&writer).expect("a pipe");
            until("all is read", || left() == 0);
            assert!(build.is_running());
            build.signal(signal);
            build.finish(DEADLINE).fails(130).says("cancelled");
            assert_eq!(made(), 0);
        }
    }
}

/// Once something was read, and the farm does not answer.
#[test]
fn who_is_told_to_end_before_there_is_a_build_ends() {
    let site = Site::of("FROM scratch\n");
    site.build(&[]).ok();
    let farm = site.slipway.processes().into_iter().find(|p| p.command.contains(" up "));
    let farm = rustix::process::Pid::from_raw(farm.expect("the farm runs").pid).expect("a number");
    rustix::process::kill_process(farm, Signal::STOP).expect("our own farm");
    let context = site.context.path().to_str().expect("a path of the tests is UTF-8");
    for signal in [Signal::INT, Signal::TERM] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let mut command = site.slipway.command(&["build", "-f", "-", context]);
        command.stdin(reader);
        let mut build = Running::start(&mut command, &[]);
        drop(command);
        writer.write_all(b"FROM scratch\n").expect("it is read");
        drop(writer);
        // It asks the farm, sooner or later; told before, it has to end all the same.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(build.is_running());
        build.signal(signal);
        build.finish(DEADLINE).fails(130).says("cancelled");
    }
    rustix::process::kill_process(farm, Signal::CONT).expect("our own farm");
    site.build(&[]).ok();
}

#[test]
fn a_client_that_is_killed_takes_its_build_with_it() {
    let (stuck, build) = Stuck::start();
    build.signal(Signal::KILL);
    build.finish(DEADLINE).fails(137);
    until("the step ends", || !stuck.inside.iter().any(|process| alive(process.pid)));
    until("the build is over", || stuck.site.slipway.run(&["builds"]).text().contains("cancelled"));
    stuck.assert_all_gone();
}

#[test]
fn slipway_cancel_ends_a_build() {
    let (stuck, build) = Stuck::start();
    let name = stuck.site.slipway.run(&["builds", "-q"]).ok().text();
    stuck.site.slipway.run(&["cancel", &name]).ok();
    build.finish(DEADLINE).fails(130).says("cancel");
    stuck.site.slipway.run(&["builds"]).ok().says("cancelled");
    stuck.assert_all_gone();
}

#[test]
fn a_farm_that_is_told_to_end_now_ends_its_builds() {
    let (stuck, build) = Stuck::start();
    stuck.site.slipway.stop();
    assert_ne!(build.finish(DEADLINE).code, 0);
    stuck.assert_cleaned_up();
    stuck.site.slipway.assert_gone();
    stuck.assert_no_groups();
    stuck.assert_builds();
}

#[test]
fn what_a_killed_farm_left_is_swept_by_the_next_one() {
    let (stuck, build) = Stuck::start();
    let pid = |process: &Process| rustix::process::Pid::from_raw(process.pid).expect("a number");
    let farm = stuck.site.slipway.processes().into_iter().find(|p| p.command.contains(" up "));
    let farm = farm.expect("the farm runs");
    rustix::process::kill_process(pid(&farm), Signal::KILL).expect("our own farm");
    let ended = build.finish(DEADLINE);
    assert_eq!(ended.code, 1, "the client says that the farm is gone\n{ended}");
    stuck.assert_builds();
    stuck.assert_all_gone();
}

#[test]
fn a_container_that_is_run_ends_with_its_client() {
    let site = Site::of("FROM conf/busybox:1\nRUN true\n");
    site.build(&["-t", "app"]).ok();
    let (sleep, long) = long_sleep();
    let sleeps = || processes_like(&sleep).len();
    for signal in [Signal::TERM, Signal::KILL] {
        let script = format!("trap 'exit 5' TERM; sleep {long} & wait");
        let run = site.slipway.start(&["run", "--rm", "app", "sh", "-c", &script]);
        until("it sleeps", || sleeps() == 1);
        run.signal(signal);
        let code = run.finish(DEADLINE).code;
        assert_eq!(code, if signal == Signal::TERM { 5 } else { 137 });
        until("the container is gone", || sleeps() == 0);
    }
}
