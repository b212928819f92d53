//! One container, from the order to its end, in a process of its own.

use super::super::cgroup::Layout;
use super::ipc::{self, Received};
use super::{Home, Job, JobMaker, Note, exec, home, report};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::Mode;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The name under which `libcontainer` keeps its notes; each job has its own place for them.
const NAME: &str = "c";

/// Never returns.
pub(super) fn run(socket: &OwnedFd, home: &Home, order: Received<Job>) -> ! {
    let note = match make(socket, home, order) {
        Ok(note) => note,
        Err(why) => Note::Failed(why),
    };
    let _ = ipc::answer(socket, &note, &[]);
    // SAFETY: ends the process without touching what it shares with its parent.
    unsafe { libc::_exit(0) }
}

fn make(socket: &OwnedFd, home: &Home, mut order: Received<Job>) -> Result<Note, String> {
    let text = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("preparing to die with the helper: {e}"))?;
    // SAFETY: this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|e| format!("making a mount namespace: {e}"))?;
    home::open_job(home).map_err(text("making room for the container's files"))?;
    attach_all(home, &mut order).map_err(text("attaching the container's file systems"))?;
    write_files(home, &order).map_err(text("writing the container's files"))?;
    if let Some(number) = order.message.network {
        let named = order.take(number).and_then(|f| home::name_namespace(&f, &home.network()));
        named.map_err(text("naming the container's network"))?;
    }
    if let Some(stdio) = order.message.stdio {
        let mut take = |number| order.take(number);
        let files = (take(stdio[0]), take(stdio[1]), take(stdio[2]));
        let (Ok(input), Ok(output), Ok(error)) = files else {
            return Err("the order names files that it lacks".to_owned());
        };
        let done = rustix::stdio::dup2_stdin(&input)
            .and_then(|()| rustix::stdio::dup2_stdout(&output))
            .and_then(|()| rustix::stdio::dup2_stderr(&error));
        done.map_err(|e| format!("connecting the container's output: {e}"))?;
    }
    match &order.message.maker {
        JobMaker::Helper { filter } => {
            let filter = filter.map(|part| order.bytes(part)).transpose();
            let filter = filter.map_err(text("reading the filter of system calls"))?;
            let terminal = order.message.stdio.is_none();
            contain(socket, home, filter, terminal)
        }
        JobMaker::Runtime { program, id } => run_other(home, program, id),
    }
}

fn attach_all(home: &Home, order: &mut Received<Job>) -> io::Result<()> {
    let root = order.take(order.message.root)?;
    home::attach(&root, &home.bundle().join("rootfs"))?;
    for mount in std::mem::take(&mut order.message.mounts) {
        let path = home.mount(mount.number);
        if mount.dir {
            fs::create_dir(&path)?;
        } else {
            fs::File::create_new(&path)?;
        }
        home::attach(&order.take(mount.file)?, &path)?;
    }
    Ok(())
}

fn write_files(home: &Home, order: &Received<Job>) -> io::Result<()> {
    fs::write(home.bundle().join("config.json"), order.bytes(order.message.spec)?)?;
    for file in &order.message.files {
        let path = home.file(file.number);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut made = options.open(&path)?;
        io::Write::write_all(&mut made, &order.bytes(file.data)?)?;
        chown(&path, Some(file.uid), Some(file.gid))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(file.mode.into()))?;
    }
    Ok(())
}

fn contain(
    socket: &OwnedFd,
    home: &Home,
    filter: Option<Vec<u8>>,
    terminal: bool,
) -> Result<Note, String> {
    let lines = report::open().map_err(|e| format!("making a pipe: {e}"))?;
    let console = home.state().join("console");
    let listener = terminal.then(|| UnixListener::bind(&console)).transpose();
    let listener = listener.map_err(|e| format!("making the terminal's socket: {e}"))?;
    let build = || {
        let mut container = ContainerBuilder::new(NAME.to_owned(), SyscallType::default())
            .with_root_path(home.state())?
            .with_executor(exec::Program { filter })
            .with_console_socket(terminal.then_some(&console))
            .as_init(home.bundle())
            .with_systemd(false)
            .with_detach(terminal)
            .build()?;
        let pid = container.pid().map(|pid| pid.as_raw());
        if let Some(pid) = pid {
            let _ = ipc::answer(socket, &Note::Started { pid }, &[]);
        }
        if let Some(listener) = &listener {
            hand_over_terminal(socket, listener).map_err(LibcontainerError::OtherIO)?;
        }
        container.start()?;
        Ok::<_, LibcontainerError>(pid)
    };
    let pid = match build() {
        Ok(pid) => pid.and_then(Pid::from_raw),
        Err(e) => return Err(reason(&e, &report::lines(&lines))),
    };
    let pid = pid.ok_or("the container has no process")?;
    let status = wait_for(pid).map_err(|e| format!("waiting for the container: {e}"))?;
    let said = report::lines(&lines);
    if let Some(errno) = said.iter().find_map(|line| line.strip_prefix(exec::NO_PROGRAM)) {
        return Ok(Note::NoProgram { errno: errno.parse().unwrap_or(libc::ENOENT) });
    }
    // What `libcontainer` ends with when it fails after it was told to start.
    match said.first() {
        Some(line) if status >> 8 == 255 => Err(line.clone()),
        _ => Ok(Note::Ended { status }),
    }
}

/// The errors that were logged, the innermost first, or else the error's own words.
fn reason(error: &dyn std::error::Error, said: &[String]) -> String {
    let mut chain = vec![error.to_string()];
    let mut next = error.source();
    while let Some(inner) = next {
        chain.push(inner.to_string());
        next = inner.source();
    }
    match said.first() {
        Some(line) => line.clone(),
        None => chain.join(": "),
    }
}

fn hand_over_terminal(socket: &OwnedFd, listener: &UnixListener) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let terminal = ipc::receive_file(&stream)?;
    ipc::answer(socket, &Note::Terminal, &[terminal.as_fd()])
}

/// Waits for that process, and clears away any other that ends meanwhile.
fn wait_for(pid: Pid) -> io::Result<i32> {
    loop {
        let ended = rustix::process::wait(WaitOptions::empty());
        match ended {
            Ok(Some((ended, status))) if ended == pid => return Ok(status.as_raw()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// crun refuses machines with both versions of control groups: where there is the first, it is not
/// shown the second. Only this job's view of mounts changes.
fn hide_second_version() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let layout = Layout::parse(&mounts);
    match layout.unified {
        Some(second) if !layout.split.is_empty() => {
            Ok(rustix::mount::unmount(second, UnmountFlags::DETACH)?)
        }
        _ => Ok(()),
    }
}

/// Lets another runtime do it all: `runc run` and its likes end as the container's program does.
fn run_other(home: &Home, program: &Path, id: &str) -> Result<Note, String> {
    let (log, pid_file) = (home.state().join("log"), home.state().join("pid"));
    let mut command = std::process::Command::new(program);
    if program.file_name().is_some_and(|name| name == "crun") {
        hide_second_version().map_err(|e| format!("hiding a hierarchy of control groups: {e}"))?;
    }
    command.arg("--root").arg(home.state().join("root")).arg("--log").arg(&log);
    command.arg("run").arg("--bundle").arg(home.bundle());
    command.arg("--pid-file").arg(&pid_file).arg(id);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let status = command.status().map_err(|e| format!("running {}: {e}", program.display()))?;
    let started = fs::read_to_string(&pid_file).is_ok_and(|text| !text.trim().is_empty());
    if !started && !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        return Err(format!("{}: {}", program.display(), last.unwrap_or("no reason given")));
    }
    Ok(Note::Ended { status: std::os::unix::process::ExitStatusExt::into_raw(status) })
}
