//! Where a helper lives: what it lets go of, and what it sees.

use super::{Setup, View};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The helper's own file system in memory, and in it each job's.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    base: PathBuf,
}

/// Where a job mounts its own.
const JOB: &str = "j";

impl Home {
    /// The home of a helper with that view, whose scratch directory is this one.
    pub(crate) fn new(view: View, scratch: &Path) -> Self {
        match view {
            View::Own => Self { base: PathBuf::from("/") },
            View::Host => Self { base: scratch.to_owned() },
        }
    }

    /// The bundle: the spec and the folder of the root.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.base.join(JOB).join("b")
    }

    /// Where the runtime keeps its notes.
    pub(crate) fn state(&self) -> PathBuf {
        self.base.join(JOB).join("s")
    }

    /// Where the mount of that number is attached.
    pub(crate) fn mount(&self, number: usize) -> PathBuf {
        self.base.join(JOB).join("m").join(number.to_string())
    }

    /// Where the file of that number is.
    pub(crate) fn file(&self, number: usize) -> PathBuf {
        self.base.join(JOB).join("f").join(number.to_string())
    }

    /// Where the network namespace is.
    pub(crate) fn network(&self) -> PathBuf {
        self.base.join(JOB).join("net")
    }

    /// Where the control group's directory of that number is.
    pub(crate) fn group(&self, number: usize) -> PathBuf {
        self.base.join("g").join(number.to_string())
    }
}

/// Lets go of what came from the parent. Answers the socket.
pub(super) fn leave_parent() -> io::Result<OwnedFd> {
    // SAFETY: the parent made standard input the socket, and nobody else has touched it.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let highest = socket.as_raw_fd().max(null.as_raw_fd()) as u32;
    // SAFETY: nothing else is open that this program knows of.
    unsafe { libc::syscall(libc::SYS_close_range, highest + 1, u32::MAX, 0) };
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // SAFETY: no groups is a valid list.
    if unsafe { libc::setgroups(0, std::ptr::null()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::process::setsid()?;
    Ok(socket)
}

/// Makes the home and moves in.
pub(super) fn move_in(setup: super::ipc::Received<Setup>) -> io::Result<Home> {
    let mut setup = setup;
    let Setup { scratch, view, groups, open_files } = &setup.message;
    let (scratch, view, groups) = (scratch.clone(), *view, groups.clone());
    let mut files = getrlimit(Resource::Nofile);
    files.current = Some(*open_files).min(files.maximum.or(Some(*open_files)));
    setrlimit(Resource::Nofile, files)?;
    // SAFETY: this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    let propagation = match view {
        View::Own => MountPropagationFlags::PRIVATE,
        View::Host => MountPropagationFlags::DOWNSTREAM,
    };
    rustix::mount::mount_change("/", propagation | MountPropagationFlags::REC)?;
    mount_memory(&scratch)?;
    let home = Home { base: scratch.clone() };
    for folder in [JOB, "g"] {
        std::fs::create_dir(home.base.join(folder))?;
    }
    for (number, file) in groups.into_iter().enumerate() {
        let dir = home.group(number);
        std::fs::create_dir(&dir)?;
        attach(&setup.take(file)?, &dir)?;
    }
    if view == View::Host {
        std::env::set_current_dir("/")?;
        return Ok(home);
    }
    for folder in ["proc", "sys/fs/cgroup", "dev"] {
        std::fs::create_dir_all(home.base.join(folder))?;
    }
    std::env::set_current_dir(&home.base)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None)?;
    Ok(Home::new(View::Own, &scratch))
}

/// Mounts what is one job's own, in the job's mount namespace.
pub(super) fn open_job(home: &Home) -> io::Result<()> {
    let base = home.base.join(JOB);
    mount_memory(&base)?;
    for folder in ["b", "b/rootfs", "s", "m", "f"] {
        std::fs::create_dir(base.join(folder))?;
    }
    Ok(())
}

fn mount_memory(path: &Path) -> io::Result<()> {
    let tmpfs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(tmpfs.as_fd(), "mode", "0711")?;
    rustix::mount::fsconfig_set_string(tmpfs.as_fd(), "source", "slipway-helper")?;
    rustix::mount::fsconfig_create(tmpfs.as_fd())?;
    let none = MountAttrFlags::empty();
    let mount = rustix::mount::fsmount(tmpfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, none)?;
    attach(&mount, path)
}

/// Gives a namespace that hangs on a file a path.
pub(super) fn name_namespace(file: &OwnedFd, path: &Path) -> io::Result<()> {
    std::fs::File::create_new(path)?;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::mount::mount_bind(source, path)?)
}

/// Attaches a detached mount.
pub(super) fn attach(mount: &OwnedFd, path: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", CWD, path, flags).map_err(|e| {
        io::Error::new(
            io::Error::from(e).kind(),
            format!("attaching a mount at {}: {e}", path.display()),
        )
    })
}
