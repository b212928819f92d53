//! A container while it runs, and what comes after.

use super::cell::Cell;
use super::cgroup::Usage;
use super::helper::Note;
use super::net::Network;
use super::outcome::{Outcome, Stop};
use super::prepare::Parts;
use super::{Sandbox, SandboxError};
use crate::rootfs::{Diff, LayerCache, Upper, WrittenAs, at};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what a program says, piece by piece, in order. While it works the program waits, once its
/// pipe is full.
pub type LogSink = Box<dyn FnMut(Stream, &[u8]) + Send>;

/// Where a program's input comes from, and its output goes to.
pub enum Io {
    /// No input; the output goes to a sink.
    Log(LogSink),
    /// These files: standard input, output and error.
    Files([OwnedFd; 3]),
    /// A terminal of its own ([`Running::terminal`]).
    Terminal,
}

/// How much is read of an output at a time.
const READ_BYTES: usize = 32 << 10;

/// How long the output may stay open after the container's end. Its processes are gone by then; only
/// somebody who was handed the output through a socket could hold it.
const OUTPUT_GRACE: Duration = Duration::from_secs(5);

pub(crate) struct Pipes {
    theirs: Option<[OwnedFd; 3]>,
    ours: Vec<(Stream, OwnedFd)>,
    sink: Option<LogSink>,
}

impl Pipes {
    pub(crate) fn new(io: Io) -> Result<Self, SandboxError> {
        let (theirs, ours, sink) = match io {
            Io::Terminal => (None, Vec::new(), None),
            Io::Files(files) => (Some(files), Vec::new(), None),
            Io::Log(sink) => {
                let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
                let made = || pipe().map_err(SandboxError::io("Making a pipe for", "a container"));
                let (out_ours, out_theirs) = made()?;
                let (err_ours, err_theirs) = made()?;
                let null = File::open("/dev/null");
                let null = null.map_err(SandboxError::io("Opening", "/dev/null"))?.into();
                let ours = vec![(Stream::Stdout, out_ours), (Stream::Stderr, err_ours)];
                (Some([null, out_theirs, err_theirs]), ours, Some(sink))
            }
        };
        Ok(Self { theirs, ours, sink })
    }

    pub(crate) fn theirs(&self) -> Option<[BorrowedFd<'_>; 3]> {
        self.theirs.as_ref().map(|files| files.each_ref().map(AsFd::as_fd))
    }

    pub(crate) fn close_theirs(&mut self) {
        self.theirs = None;
    }

    /// Reads once from an output that has something, or has ended.
    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let (stream, file) = &self.ours[index];
        match rustix::io::retry_on_intr(|| rustix::io::read(file, &mut *buffer)) {
            Ok(count @ 1..) => {
                if let Some(sink) = &mut self.sink {
                    sink(*stream, &buffer[..count]);
                }
            }
            _ => {
                self.ours.remove(index);
            }
        }
    }
}

/// The status of a runtime whose container was killed (as waitpid(2) has it): it ends with 137.
const KILLED: i32 = 137 << 8;

/// What was counted before the container ran.
#[derive(Debug)]
pub(crate) struct Started {
    pub oom_kills: u64,
    pub memory_full: u64,
    pub usage: Usage,
}

/// Stops a running container from another thread.
#[derive(Debug, Clone)]
pub struct Canceller {
    asked: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
}

impl Canceller {
    /// Has the container killed, with all its processes. [`Running::wait`] then answers
    /// [`Outcome::Cancelled`].
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// A container that runs. Dropping it kills it.
pub struct Running {
    parts: Parts,
    cell: Cell,
    network: Network,
    pipes: Pipes,
    before: Started,
    program: String,
    since: Instant,
    deadline: Option<(Instant, Duration)>,
    cancel: Canceller,
    process: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    end: Option<End>,
    // Dropped last: the sandbox's own clean-up comes after the container's.
    sandbox: Sandbox,
}

/// What ended it.
enum End {
    Status(i32),
    NoProgram(i32),
    Failed(String),
    /// The helper is gone, and the container with it.
    Gone,
}

impl Running {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        sandbox: Sandbox,
        parts: Parts,
        cell: Cell,
        network: Network,
        pipes: Pipes,
        before: Started,
        timeout: Option<Duration>,
        program: String,
    ) -> Result<Self, SandboxError> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(SandboxError::io("Making an event for", &program))?;
        let cancel = Canceller { asked: Arc::new(AtomicBool::new(false)), wake: Arc::new(wake) };
        let since = Instant::now();
        Ok(Self {
            sandbox,
            parts,
            cell,
            network,
            pipes,
            before,
            program,
            since,
            deadline: timeout.and_then(|t| Some((since.checked_add(t)?, t))),
            cancel,
            process: None,
            terminal: None,
            end: None,
        })
    }

    /// For stopping it from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    /// Waits until the program runs; answers its terminal, when it was to have one of its own.
    pub fn terminal(&mut self) -> Result<Option<OwnedFd>, SandboxError> {
        while self.terminal.is_none() && self.end.is_none() {
            self.take_note();
        }
        Ok(self.terminal.take())
    }

    /// The first process of the container, once it is known: for forwarding signals.
    pub fn process(&mut self) -> Option<BorrowedFd<'_>> {
        while self.process.is_none() && self.end.is_none() {
            self.take_note();
        }
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// Waits for its end, handing its output on meanwhile.
    pub fn wait(mut self) -> Result<Exited, SandboxError> {
        let mut stopped = None;
        let mut buffer = vec![0; READ_BYTES];
        let mut ended_at: Option<Instant> = None;
        loop {
            if self.end.is_some() {
                let ended_at = *ended_at.get_or_insert_with(Instant::now);
                if self.pipes.ours.is_empty() || ended_at.elapsed() > OUTPUT_GRACE {
                    break;
                }
            } else if stopped.is_none() {
                stopped = self.stop_asked();
                if stopped.is_some() {
                    self.kill();
                }
            }
            self.poll(&mut buffer, stopped.is_some(), ended_at);
        }
        self.finish(stopped)
    }

    fn stop_asked(&self) -> Option<Stop> {
        if self.cancel.asked.load(Ordering::Acquire) {
            return Some(Stop::Cancel);
        }
        let (deadline, timeout) = self.deadline?;
        (Instant::now() >= deadline).then_some(Stop::Timeout(timeout))
    }

    /// Waits for something to happen, and deals with it.
    fn poll(&mut self, buffer: &mut [u8], stopped: bool, ended_at: Option<Instant>) {
        let next = match (ended_at, self.deadline) {
            (Some(ended_at), _) => Some(ended_at + OUTPUT_GRACE),
            (None, Some((deadline, _))) if !stopped => Some(deadline),
            _ => None,
        };
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        // Rounded up, or the last instant would be spent without waiting.
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: (left.subsec_nanos() as i64 + 999_999).min(999_999_999),
        });
        let nothing = PollFlags::empty();
        let wanted = |wanted: bool| if wanted { PollFlags::IN } else { nothing };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.cell.socket(), wanted(self.end.is_none())),
            PollFd::from_borrowed_fd(self.cancel.wake.as_fd(), wanted(!stopped)),
        ];
        let outputs = self.pipes.ours.iter();
        fds.extend(outputs.map(|(_, fd)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        if rustix::event::poll(&mut fds, left.as_ref()).is_err() {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        // The last one first: reading the end of one takes it out of the list.
        for index in (0..ready.len() - 2).rev().filter(|index| ready[index + 2]) {
            self.pipes.read(index, buffer);
        }
        if ready[0] && self.end.is_none() {
            self.take_note();
        }
    }

    fn take_note(&mut self) {
        let (note, files) = match self.cell.next_note() {
            Ok(note) => note,
            Err(_) => {
                self.end = Some(End::Gone);
                return;
            }
        };
        match note {
            Note::Started { pid } => {
                let pid = Pid::from_raw(pid);
                self.process =
                    pid.and_then(|p| rustix::process::pidfd_open(p, PidfdFlags::empty()).ok());
            }
            Note::Terminal => self.terminal = files.into_iter().next(),
            Note::Ended { status } => self.end = Some(End::Status(status)),
            Note::NoProgram { errno } => self.end = Some(End::NoProgram(errno)),
            Note::Failed(why) => self.end = Some(End::Failed(why)),
            Note::Idle => {
                let why = "its job ended without a word".to_owned();
                self.end.get_or_insert(End::Failed(why));
            }
            Note::Ready | Note::NotReady(_) => {}
        }
    }

    fn kill(&mut self) {
        if let Err(e) = self.cell.kill(self.process.as_ref().map(AsFd::as_fd)) {
            tracing::warn!(error = %e, "a container could not be killed");
        }
    }

    fn finish(self, stopped: Option<Stop>) -> Result<Exited, SandboxError> {
        let Self { sandbox, parts, cell, network, before, program, since, end, .. } = self;
        let took = since.elapsed();
        let mut oom_kills = cell.group.oom_kills().saturating_sub(before.oom_kills);
        // Killed, and its memory was full: nothing else tells it where another runtime made it.
        if let Some(End::Status(KILLED)) = end
            && cell.group.memory_full() > before.memory_full
        {
            oom_kills = oom_kills.max(1);
        }
        let usage = cell.group.usage(&before.usage);
        let status = match end {
            Some(End::Status(status)) => Some(status),
            Some(End::NoProgram(errno)) => {
                sandbox.inner.cells.give_back(cell);
                let why = std::io::Error::from_raw_os_error(errno).to_string();
                return Err(SandboxError::NoProgram { program, why });
            }
            Some(End::Failed(why)) if stopped.is_none() => return Err(SandboxError::Runtime(why)),
            Some(End::Gone) if stopped.is_none() && oom_kills == 0 => {
                return Err(SandboxError::Helper("it ended before the container".to_owned()));
            }
            _ => None,
        };
        let outcome = Outcome::new(stopped, status, oom_kills);
        match status {
            // The container's mounts go with its job, which the helper waits for.
            Some(_) if stopped.is_none() => sandbox.inner.cells.give_back(cell),
            _ => drop(cell),
        }
        drop(network);
        Ok(Exited { layers: sandbox.inner.layers.clone(), parts, outcome, usage, took })
    }
}

/// A container that ended. Dropping it drops what it changed.
pub struct Exited {
    layers: LayerCache,
    parts: Parts,
    outcome: Outcome,
    usage: Usage,
    took: Duration,
}

impl Exited {
    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What it used.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How long it ran.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Gives up what it changed in its root, and keeps what it changed in its caches.
    pub fn into_caches(self) -> BTreeMap<usize, Upper> {
        let caches = self.parts.plan.caches;
        caches.into_iter().map(|(index, overlay)| (index, overlay.into_upper())).collect()
    }

    /// Reads back what it changed: a diff tree, whole in the store. Places that were made for its
    /// mounts are no change.
    pub fn capture(self) -> Result<Captured, SandboxError> {
        let Parts { root, plan, stubs } = self.parts;
        let upper = root.into_upper();
        let path = upper.path();
        let fd = at::open_host_dir(&path).map_err(SandboxError::io("Opening", &path))?;
        stubs.clean(&fd).map_err(SandboxError::io("Cleaning", &path))?;
        let diff = upper.capture(&**self.layers.store(), WrittenAs::StepRoot)?;
        let caches = plan.caches.into_iter();
        let caches = caches.map(|(index, overlay)| (index, overlay.into_upper())).collect();
        Ok(Captured { layers: self.layers, upper, diff, caches })
    }
}

/// What a container changed. Dropping it drops the directory, not what is in the store.
pub struct Captured {
    layers: LayerCache,
    upper: Upper,
    diff: Diff,
    caches: BTreeMap<usize, Upper>,
}

impl Captured {
    /// The diff tree.
    pub fn diff(&self) -> &Diff {
        &self.diff
    }

    /// Keeps the directory as the layer that the next step runs on, without copying. Answers what
    /// was changed in the caches, by the mount's place in the step.
    pub fn keep(self) -> Result<(Diff, BTreeMap<usize, Upper>), SandboxError> {
        self.layers.adopt(self.upper, &self.diff.id)?;
        Ok((self.diff, self.caches))
    }
}
