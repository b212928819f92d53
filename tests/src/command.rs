//! Running commands to their end, with a deadline, and saying what they did.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long any command of a scenario may take. Not a measure of speed: it turns a hang into a
/// failure.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// What a command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line.
    pub command: String,
    /// How it ended; 128 and the signal's number for a signal, as shells have it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// It ended well, or the test fails.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "it should end well\n{self}");
        self
    }

    /// It failed with this exit code, or the test fails.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "it should fail with code {code}\n{self}");
        self
    }

    /// Its output or its errors contain a text, whatever the case, or the test fails.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let found = self.all().to_lowercase().contains(&text.to_lowercase());
        assert!(found, "it should say `{text}`\n{self}");
        self
    }

    /// It says nothing of the kind, or the test fails.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        let found = self.all().to_lowercase().contains(&text.to_lowercase());
        assert!(!found, "it should not say `{text}`\n{self}");
        self
    }

    /// Standard output, without the white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard output and standard error.
    pub fn all(&self) -> String {
        let (out, err) = (&self.stdout, &self.stderr);
        format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}\nended with {} after {:?}", self.command, self.code, self.took)?;
        writeln!(f, "--- stdout\n{}", shorten(&self.stdout))?;
        write!(f, "--- stderr\n{}", shorten(&self.stderr))
    }
}

/// The end of a long output, where the error is.
fn shorten(bytes: &[u8]) -> String {
    const SHOWN: usize = 16 << 10;
    let skipped = bytes.len().saturating_sub(SHOWN);
    let note = if skipped > 0 { format!("[{skipped} bytes before]") } else { String::new() };
    note + &String::from_utf8_lossy(&bytes[skipped..])
}

/// A command with an environment that is known: what is not named here is not there.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8").env("TZ", "UTC");
    command
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_with(command, &[], DEADLINE)
}

/// Runs a command with something on its standard input.
#[track_caller]
pub fn run_with(command: &mut Command, input: &[u8], deadline: Duration) -> Outcome {
    Running::start(command, input).finish(deadline)
}

/// A command under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    started: Instant,
    readers: [std::thread::JoinHandle<Vec<u8>>; 2],
    said: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    /// Starts a command.
    #[track_caller]
    pub fn start(command: &mut Command, input: &[u8]) -> Self {
        let line = line(command);
        pipe(command, input);
        Self::watch(line, command.spawn(), input)
    }

    /// Starts a command by a function: `spawn` has to start it as it is.
    #[track_caller]
    pub(crate) fn start_by(
        mut command: Command,
        input: &[u8],
        spawn: impl FnOnce(Command) -> std::io::Result<Child>,
    ) -> Self {
        let line = line(&command);
        pipe(&mut command, input);
        Self::watch(line, spawn(command), input)
    }

    /// The same with another command line to be shown.
    pub(crate) fn named(mut self, line: String) -> Self {
        self.line = line;
        self
    }

    #[track_caller]
    fn watch(line: String, spawned: std::io::Result<Child>, input: &[u8]) -> Self {
        let started = Instant::now();
        let mut child = spawned.unwrap_or_else(|e| panic!("starting `{line}`: {e}"));
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            // The command may end without having read it all.
            std::thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let err = Tee { from: err, to: said.clone() };
        let readers = [read(out), read(err)];
        Self { child, line, started, readers, said }
    }

    /// What it has written to its standard error so far.
    pub fn so_far(&self) -> String {
        let said = self.said.lock().expect("no one panics with it");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a process has a number");
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Waits for its end. A command that takes longer than the deadline is killed, and fails the
    /// test.
    #[track_caller]
    pub fn finish(mut self, deadline: Duration) -> Outcome {
        let status = wait(&mut self.child, self.started + deadline);
        let took = self.started.elapsed();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        await_closed(&self.readers, &self.line);
        let [stdout, stderr] = self.readers.map(|reader| reader.join().expect("reads a pipe"));
        let code = status.map_or(-1, code);
        let outcome = Outcome { command: self.line, code, stdout, stderr, took };
        assert!(status.is_some(), "it did not end within {deadline:?} and was killed\n{outcome}");
        outcome
    }
}

/// Makes that we read what it writes, and write what it reads.
fn pipe(command: &mut Command, input: &[u8]) {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Keeps a copy of what is read.
struct Tee<R> {
    from: R,
    to: Arc<Mutex<Vec<u8>>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.to.lock().expect("no one panics with it").extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits until nobody writes to a command's output any more. A process that it left behind must not
/// hold it open: whoever reads the output through a pipe would wait for ever.
#[track_caller]
fn await_closed(readers: &[std::thread::JoinHandle<Vec<u8>>], line: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while readers.iter().any(|reader| !reader.is_finished()) {
        assert!(Instant::now() < until, "`{line}` ended, but left its output open to a process");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Waits for a process until a moment.
pub(crate) fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    if let Some(status) = child.try_wait().expect("our own child") {
        return Some(status);
    }
    let pid = Pid::from_child(child);
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("our own child");
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).expect("a deadline of minutes");
    let mut wanted = [PollFd::new(&ended, PollFlags::IN)];
    rustix::event::poll(&mut wanted, Some(&timeout)).expect("waiting for a process");
    child.try_wait().expect("our own child")
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// The command line as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let directory = command.get_current_dir().map(|d| format!("cd {} && ", d.display()));
    let env = command.get_envs().filter(|(name, _)| *name != "PATH" && *name != "LANG");
    let env = env.filter_map(|(name, value)| Some((name.to_string_lossy(), value?)));
    let env: String = env.map(|(n, v)| format!("{n}={} ", v.to_string_lossy())).collect();
    let args = command.get_args().map(|arg| format!(" {}", quoted(arg)));
    let program = Path::new(command.get_program());
    format!(
        "{}{env}{}{}",
        directory.unwrap_or_default(),
        program.display(),
        args.collect::<String>()
    )
}

fn quoted(arg: &OsStr) -> String {
    let arg = arg.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.into_owned()
    } else {
        format!("'{}'", arg.replace('\'', "'\\''"))
    }
}
