//! The helper: a process of its own that makes containers, because that takes a process with one
//! thread, and because forking a small process is fast.
//!
//! There is one helper for each container that runs at a time. It is started once, moved into a
//! control group of its own once (which costs some ten milliseconds), and then makes one container
//! after the other: for each it forks a *job*, which sees the mounts that it is handed in a mount
//! namespace of its own, lets `libcontainer` make the container, waits for it and ends. Nothing of
//! a job outlives it but the control group's accounts.
//!
//! A helper for `libcontainer` lives on a root of its own, a small file system in memory without
//! any of the host's mounts: whatever an image makes the container's set-up do, there is nothing of
//! the host in reach.
//!
//! When the worker ends, however it ends, its side of the socket closes; the helper then kills its
//! job, and the container dies with the job (`PR_SET_PDEATHSIG`).

mod exec;
mod home;
mod ipc;
mod job;
mod report;

pub(crate) use home::Home;
pub(crate) use ipc::{Order, Part, receive_answer};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

/// The first order: where to live.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// An empty directory to mount the home on.
    pub scratch: PathBuf,
    /// How much of the host is seen.
    pub view: View,
    /// Directories of the helper's control group that containers are shown: detached mounts.
    pub groups: Vec<usize>,
    /// The soft limit of open files that containers begin with.
    pub open_files: u64,
}

/// How much of the host a helper sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum View {
    /// Nothing.
    Own,
    /// Everything, for a runtime that is a program of the host's.
    Host,
}

/// An order for one container. Paths are in the helper's home.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The spec, as JSON.
    pub spec: Part,
    /// The root file system: a detached mount.
    pub root: usize,
    /// Other mounts.
    pub mounts: Vec<Attach>,
    /// Files to make.
    pub files: Vec<NewFile>,
    /// Standard input, output and error; none for a terminal of its own.
    pub stdio: Option<[usize; 3]>,
    /// The network namespace, which the spec names by [`Home::network`].
    pub network: Option<usize>,
    /// Who makes the container.
    pub maker: JobMaker,
}

/// Who makes the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum JobMaker {
    /// `libcontainer`.
    Helper {
        /// The filter of system calls; without one, the container keeps all that the spec gives.
        filter: Option<Part>,
    },
    /// A program with the command line of runc.
    Runtime {
        /// The program.
        program: PathBuf,
        /// The container's name.
        id: String,
    },
}

/// A mount to attach at `m/<number>`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// The file that the mount hangs on.
    pub file: usize,
    /// Its number.
    pub number: usize,
    /// Whether it is a directory.
    pub dir: bool,
}

/// A file to make at `f/<number>`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewFile {
    /// Its bytes.
    pub data: Part,
    /// Its number.
    pub number: usize,
    /// Its permission bits.
    pub mode: u16,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a helper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// It is set up and waits for orders.
    Ready,
    /// It could not be set up.
    NotReady(String),
    /// The container runs.
    Started {
        /// The container's first process, as the host numbers it.
        pid: i32,
    },
    /// The container's terminal: its file comes along.
    Terminal,
    /// The container's first process ended, and with it all others.
    Ended {
        /// As waitpid(2) has it.
        status: i32,
    },
    /// The program could not be run.
    NoProgram {
        /// Why not, as the kernel numbers it.
        errno: i32,
    },
    /// The container could not be made.
    Failed(String),
    /// The job is over, the next order can come.
    Idle,
}

/// The helper's main function, for the program that [`super::HelperProgram`] names. The socket is
/// its standard input.
pub fn helper_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("slipway's container helper: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let socket = home::leave_parent()?;
    let Some(setup) = ipc::receive_order::<Setup>(&socket)? else { return Ok(()) };
    let home = match home::move_in(setup) {
        Ok(home) => home,
        Err(e) => {
            ipc::answer(&socket, &Note::NotReady(e.to_string()), &[])?;
            return Ok(());
        }
    };
    report::install();
    ipc::answer(&socket, &Note::Ready, &[])?;
    while let Some(order) = ipc::receive_order::<Job>(&socket)? {
        // SAFETY: this process has one thread, so the child may do anything.
        let pid = unsafe { libc::fork() };
        match pid {
            0 => job::run(&socket, &home, order),
            _ if pid < 0 => {
                let why = format!("forking: {}", io::Error::last_os_error());
                ipc::answer(&socket, &Note::Failed(why), &[])?;
            }
            _ => {
                drop(order);
                if !watch(&socket, pid)? {
                    return Ok(());
                }
            }
        }
        ipc::answer(&socket, &Note::Idle, &[])?;
    }
    Ok(())
}

/// Waits for the job's end; kills it when the worker is gone. Answers whether to go on.
fn watch(socket: &OwnedFd, pid: i32) -> io::Result<bool> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    let job = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut go_on = true;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(job.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP),
        ];
        let watched = if go_on { &mut fds[..] } else { &mut fds[..1] };
        match rustix::event::poll(watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !fds[0].revents().is_empty() {
            break;
        }
        if !fds[1].revents().is_empty() && go_on {
            go_on = false;
            let _ = rustix::process::pidfd_send_signal(&job, Signal::KILL);
        }
    }
    rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()))?;
    Ok(go_on)
}
