//! A host that runs: namespaces, a first process, and a thread that lives in them.
//!
//! The thread's children are the host's processes and the test's children both, so that the test
//! can wait for them and signal them as it can others. All of them die with the first process
//! (pid_namespaces(7)), and that dies with the thread, however the test process ends.

use super::groups::{Groups, LEAF};
use super::inside::Inside;
use super::lan::without_ipv6;
use super::number::Number;
use super::root;
use crate::command::{DEADLINE, Running, command};
use crate::scratch::Process;
use crate::tool::tool;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The first process: it enters the host's groups (given as arguments), makes them the top, says
/// so, and then sleeps. Orphans come to it, and leave no zombies, because it ignores their signal
/// (sigaction(2)).
const FIRST: &str = r#"
for group; do echo 0 > "$group/cgroup.procs"; done
exec unshare --cgroup -- sh -euc '
    for group; do echo 0 > "$group/$LEAF/cgroup.procs"; done
    echo up
    exec env --ignore-signal=CHLD sleep infinity
' sh "$@"
"#;

/// What every later process does first.
const ENTER: &str = r#"
for group in /sys/fs/cgroup/$LEAF /sys/fs/cgroup/*/$LEAF; do
    if [ -d "$group" ]; then echo 0 > "$group/cgroup.procs"; fi
done
unset LEAF
exec "$0" "$@"
"#;

/// A host between its boot and its end.
#[derive(Debug)]
pub(super) struct Machine {
    inside: Inside,
    groups: Groups,
    first: First,
}

/// The first process of a host.
#[derive(Debug)]
struct First {
    pid: i32,
    /// What stays true when the number is another process'.
    handle: OwnedFd,
}

impl Machine {
    /// Boots a host from its disk. `label` is the host's among all that this process has.
    pub(super) fn boot(name: &str, label: &str, disk: &Path) -> Self {
        root::forget(disk);
        let groups = Groups::new(label);
        let inside = Inside::new(name);
        let places: Vec<_> = groups.places().map(|(at, group)| (at.to_owned(), group)).collect();
        let (name, disk) = (name.to_owned(), disk.to_owned());
        let mut child = inside.call(move || {
            unshare();
            root::write(Path::new("/proc/sys/kernel/hostname"), &name);
            root::assemble(&disk);
            let child = start_first(&disk, places.iter().map(|(_, group)| group.as_path()));
            root::mount_groups(
                &disk,
                places.iter().map(|(at, group)| (at.as_path(), group.clone())),
            );
            root::enter(&disk);
            child
        });
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let handle = handle.unwrap_or_else(|e| panic!("opening a process: {e}"));
        let first = First { pid: child.id() as i32, handle };
        // It cannot be waited for before the host's other processes have been.
        std::thread::spawn(move || child.wait());
        let this = Self { inside, groups, first };
        this.run("mount", &["-t", "proc", "proc", "/proc"], "");
        this
    }

    /// The first process, as the test's namespace numbers it.
    pub(super) fn first(&self) -> i32 {
        self.first.pid
    }

    /// Sets the host's end of its wire up.
    pub(super) fn configure(&self, number: Number) {
        self.inside.call(|| without_ipv6("eth0"));
        let mut lines = format!(
            "link set lo up\naddress add {}/24 dev eth0\nlink set eth0 up\n\
             route add default via {} dev eth0\n",
            number.ip(),
            Number::NOWHERE.ip()
        );
        let others = Number::all().filter(|other| *other != number);
        for other in others.chain([Number::NOWHERE]) {
            let (ip, mac) = (other.ip(), other.mac());
            lines += &format!("neighbour add {ip} lladdr {mac} dev eth0 nud permanent\n");
        }
        self.run("ip", &["-batch", "-"], &lines);
    }

    fn run(&self, program: &str, args: &[&str], input: &str) {
        let mut command = command(tool(program));
        command.args(args);
        let spawn = |command| self.spawn(command);
        Running::start_by(entering(&command), input.as_bytes(), spawn).finish(DEADLINE).ok();
    }

    /// Starts a command in the host.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<Child> {
        self.inside.call(move || command.spawn())
    }

    /// Has the thread do something.
    pub(super) fn call<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.inside.call(job)
    }

    /// Stops all processes where they are, or lets them go on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.groups.freeze(frozen);
    }

    /// All processes but the first one.
    pub(super) fn processes(&self) -> Vec<Process> {
        let mut all = self.groups.processes();
        all.retain(|process| process.pid != self.first());
        all
    }

    /// Kills all processes, and waits until they have let go of everything.
    pub(super) fn end(&self) {
        let _ = pidfd_send_signal(&self.first.handle, Signal::KILL);
        self.groups.remove();
    }
}

/// A command that enters the host's groups and then becomes the one given.
pub(super) fn entering(program: &Command) -> Command {
    let mut entering = command("/bin/sh");
    entering.args(["-euc", ENTER]).arg(program.get_program()).args(program.get_args());
    let env = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
    entering.env_clear().env("LEAF", LEAF).envs(env);
    if let Some(directory) = program.get_current_dir() {
        entering.current_dir(directory);
    }
    entering
}

/// Takes the calling thread out of the test process' namespaces. Its children are in a new one of
/// processes.
fn unshare() {
    let all = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWPID;
    // SAFETY: the table of open files stays shared.
    let done = unsafe { rustix::thread::unshare_unsafe(all) };
    done.unwrap_or_else(|e| panic!("making the namespaces of a host: {e} (tests need root)"));
}

/// Starts the first process, and follows it into its namespace of control groups.
fn start_first<'a>(disk: &Path, groups: impl Iterator<Item = &'a Path>) -> Child {
    let mut first = command(tool("setpriv"));
    first.args(["--pdeathsig", "KILL", "--", "sh", "-euc", FIRST, "sh"]).args(groups);
    // The directory in the environment says to a later sweep whose this process is.
    first.env("LEAF", LEAF).env("DISK", disk).current_dir("/").stdout(Stdio::piped());
    let mut child = first.spawn().expect("starting the first process of a host");
    let mut said = String::new();
    let _ = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said);
    assert_eq!(said, "up\n", "the first process of a host should say that it is up");
    let link = format!("/proc/{}/ns/cgroup", child.id());
    let link = File::open(&link).unwrap_or_else(|e| panic!("opening {link}: {e}"));
    move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::ControlGroup))
        .unwrap_or_else(|e| panic!("entering a namespace of control groups: {e}"));
    child
}
