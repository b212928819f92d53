//! Programs that run beside the tests: registries and engines. They end with the test that uses
//! them, or with the test process, however that ends.

use crate::command::{self, command};
use crate::tool::tool;
use rustix::process::{Pid, Signal};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// How long a service may take to start, or to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs beside the tests.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: PathBuf,
    /// Whether it runs as the first process of namespaces of its own, below `child`.
    enclosed: bool,
}

impl Service {
    /// Starts a program; what it writes goes to `log`.
    pub fn start(program: &mut Command, log: &Path) -> Self {
        let mut guarded = command(tool("setpriv"));
        guarded.args(["--pdeathsig", "KILL", "--"]);
        Self::launch(guarded, program, log, false)
    }

    /// Starts a program in process and mount namespaces of its own: what it starts dies with it,
    /// and what it mounts is gone with it.
    pub fn enclose(program: &mut Command, log: &Path) -> Self {
        let mut guarded = command(tool("setpriv"));
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(tool("unshare"));
        guarded.args(["--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
        Self::launch(guarded, program, log, true)
    }

    fn launch(mut guarded: Command, program: &Command, log: &Path, enclosed: bool) -> Self {
        guarded.arg(program.get_program()).args(program.get_args());
        let changes = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        guarded.envs(changes.map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<Vec<_>>());
        write_to(&mut guarded, log);
        Self { child: spawn_for_good(guarded), log: log.to_owned(), enclosed }
    }

    /// Starts a program by a function: `spawn` has to start it as it is, and to see to it that it
    /// ends with this process.
    #[track_caller]
    pub(crate) fn start_by(
        mut program: Command,
        log: &Path,
        spawn: impl FnOnce(Command) -> io::Result<Child>,
    ) -> Self {
        let line = command::line(&program);
        write_to(&mut program, log);
        let child = spawn(program).unwrap_or_else(|e| panic!("starting `{line}`: {e}"));
        Self { child, log: log.to_owned(), enclosed: false }
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready` has an answer. Panics with its log when it ends or takes too long.
    pub fn until<T>(&mut self, what: &str, mut ready: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ready(&self.log()) {
                return answer;
            }
            let ended = self.child.try_wait().expect("our own child");
            let late = Instant::now() > deadline;
            assert!(ended.is_none() && !late, "{what} did not start: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The number of the program's own process.
    pub fn pid(&self) -> i32 {
        let outer = self.child.id() as i32;
        if !self.enclosed {
            return outer;
        }
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
        let children = children.unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(outer)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        // Its number may be another process' once it was waited for.
        if let (true, Some(pid)) = (self.is_running(), Pid::from_raw(self.pid())) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Ends it: asks first, then kills.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        if command::wait(&mut self.child, Instant::now() + PATIENCE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes that what a program writes goes to a new file, and that it reads nothing.
fn write_to(program: &mut Command, log: &Path) {
    let file = File::create(log).unwrap_or_else(|e| panic!("making {}: {e}", log.display()));
    program.stderr(file.try_clone().expect("a file just opened")).stdout(file);
    program.stdin(Stdio::null());
}

/// Starts a process from a thread that lives as long as this process does: the signal that a
/// service gets when its parent dies (prctl(2), PR_SET_PDEATHSIG) is bound to the thread.
fn spawn_for_good(command: Command) -> Child {
    static SPAWNER: OnceLock<Sender<(Command, Sender<Child>)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<(Command, Sender<Child>)>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                let line = command::line(&command);
                let child = command.spawn().unwrap_or_else(|e| panic!("starting `{line}`: {e}"));
                let _ = answer.send(child);
            }
        });
        sender
    });
    let (sender, answer) = channel();
    spawner.send((command, sender)).expect("the spawner lives as long as the process");
    answer.recv().expect("the service starts")
}
