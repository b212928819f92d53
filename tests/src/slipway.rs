//! The product, as a person uses it: its binary, with a home of its own.

use crate::command::{DEADLINE, Outcome, Running, command, run, run_with};
use crate::registry::Registry;
use crate::scratch::{self, Process, Scratch};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a farm may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(60);

/// A farm of its own: the binary, with its home. When it is dropped, the farm is ended, and must
/// leave no process, no mount behind.
#[derive(Debug)]
pub struct Slipway {
    program: PathBuf,
    home: PathBuf,
    env: Vec<(String, String)>,
    scratch: Scratch,
}

impl Slipway {
    /// One with default settings.
    pub fn new() -> Self {
        let scratch = Scratch::new("slipway");
        let home = scratch.directory("state");
        Self::with_home(scratch, home)
    }

    fn with_home(scratch: Scratch, home: PathBuf) -> Self {
        scratch.directory("home");
        Self { program: program(), home, env: Vec::new(), scratch }
    }

    /// One that takes images of docker.io and quay.io from a registry.
    pub fn with_mirror(registry: &Registry) -> Self {
        let this = Self::new();
        this.mirror(&[&registry.url()]);
        this
    }

    /// One whose state lies in a directory that the caller made.
    pub fn at(home: &Path) -> Self {
        Self::with_home(Scratch::new("slipway"), home.to_owned())
    }

    /// Writes the settings: where images of docker.io and quay.io are looked for first.
    pub fn mirror(&self, urls: &[&str]) {
        let registry = |name| format!("[registry.{name:?}]\nmirrors = {urls:?}\n");
        self.settings(&(registry("docker.io") + &registry("quay.io")));
    }

    /// Writes the settings: `config.toml`.
    pub fn settings(&self, text: &str) {
        scratch::write(&self.home, "config.toml", text);
    }

    /// The same with a variable in the environment of every command.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.set_env(name, value);
        self
    }

    /// Sets a variable in the environment of every command from here on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// The same by another program.
    pub fn use_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// `SLIPWAY_HOME`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory that stands for the person's home; `.docker/config.json` is read from there.
    pub fn user_home(&self) -> PathBuf {
        self.scratch.join("home")
    }

    /// A command.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut slipway = command(&self.program);
        slipway.env("SLIPWAY_HOME", &self.home).env("HOME", self.user_home());
        slipway.env("BUILDKIT_PROGRESS", "plain").env("RUST_BACKTRACE", "1");
        slipway.envs(self.env.iter().map(|(name, value)| (name, value)));
        slipway.args(args);
        slipway
    }

    /// Runs a command.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args))
    }

    /// Runs a command with something on its standard input.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Outcome {
        run_with(&mut self.command(args), input, DEADLINE)
    }

    /// Starts a command.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args), &[])
    }

    /// Runs `slipway build` with these flags on a context.
    #[track_caller]
    pub fn build(&self, flags: &[&str], context: &Path) -> Outcome {
        let context = context.to_str().expect("a path of the tests is UTF-8");
        self.run(&[&["build"], flags, &[context]].concat())
    }

    /// `slipway cache verify` finds nothing wrong, or the test fails.
    #[track_caller]
    pub fn assert_store_intact(&self) {
        self.run(&["cache", "verify"]).ok();
    }

    /// Ends the farm, and waits until it is gone.
    #[track_caller]
    pub fn stop(&self) {
        self.run(&["down", "--now"]).ok();
        let deadline = Instant::now() + END_WITHIN;
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processes that belong to this farm: its own, and those in its containers.
    pub fn processes(&self) -> Vec<Process> {
        scratch::processes_of(&self.home)
    }

    /// The control groups that its processes are in, and this process is not.
    pub fn control_groups(&self) -> Vec<PathBuf> {
        let own = groups_of(std::process::id() as i32);
        let mut groups: Vec<PathBuf> =
            self.processes().iter().flat_map(|process| groups_of(process.pid)).collect();
        groups.retain(|group| !own.contains(group));
        groups.sort();
        groups.dedup();
        groups
    }

    /// Kills the farm and everything in its containers, as a crash of the machine would.
    pub fn kill(&self) {
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            scratch::kill(&processes);
        }
    }

    /// Nothing of the farm is left on the machine, or the test fails.
    #[track_caller]
    pub fn assert_gone(&self) {
        let processes = self.processes();
        assert!(processes.is_empty(), "the farm left processes behind: {processes:#?}");
        let mounts = scratch::mounts_below(&self.home);
        assert!(mounts.is_empty(), "the farm left mounts behind: {mounts:#?}");
    }
}

impl Default for Slipway {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Slipway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kill();
            return;
        }
        if self.home.join("config.toml").exists() || fs::read_dir(&self.home).is_ok() {
            self.stop();
        }
        self.assert_gone();
    }
}

/// The control groups of a process, in every hierarchy (cgroups(7)).
pub fn groups_of(pid: i32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut tops = vec![PathBuf::from("/sys/fs/cgroup")];
    tops.extend(fs::read_dir(&tops[0]).into_iter().flatten().flatten().map(|entry| entry.path()));
    let places = paths.flat_map(|path| {
        let path = path.trim_start_matches('/');
        tops.iter().map(move |top| top.join(path))
    });
    places.filter(|place| place.join("cgroup.procs").exists()).collect()
}

/// The binary: `SLIPWAY_BIN`, or the one beside this program in the target directory.
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("SLIPWAY_BIN") {
        return named.into();
    }
    let own = std::env::current_exe().expect("the path of this program");
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join("slipway"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no `slipway` beside {}: run `cargo build --release -p cli` first, or set \
             SLIPWAY_BIN",
            own.display()
        )
    })
}
