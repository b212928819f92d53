//! Cells: a helper process in a control group of its own, ready to make containers. Kept for the
//! next container, because getting one ready takes longer than a short step.

use super::SandboxError;
use super::cgroup::{Cgroup, Cgroups, DEFAULT_DEVICES, DeviceRule};
use super::helper::{Home, Note, Order, Setup, View, receive_answer};
use super::spec::CgroupView;
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// The program whose main function is [`super::helper_main`].
#[derive(Debug, Clone)]
pub struct HelperProgram {
    /// Where it is; usually this process's own program.
    pub path: PathBuf,
    /// The arguments that make it a helper.
    pub args: Vec<String>,
}

/// What all cells of a sandbox share.
#[derive(Debug)]
pub(crate) struct CellMaker {
    pub program: HelperProgram,
    pub groups: Arc<Cgroups>,
    /// Where the helpers' scratch directories are.
    pub run_dir: PathBuf,
    pub view: View,
    /// The soft limit of open files that containers begin with.
    pub open_files: u64,
    next: AtomicU64,
}

/// What is special about a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The control group to be in, in place of ours.
    pub parent: Option<String>,
    pub devices: Vec<DeviceRule>,
}

impl Wish {
    /// Nothing.
    pub(crate) fn nothing() -> Self {
        Self { parent: None, devices: DEFAULT_DEVICES.to_vec() }
    }
}

/// A helper and its control group. Dropping it ends both, and a container that still runs in it.
#[derive(Debug)]
pub(crate) struct Cell {
    child: Child,
    socket: Option<OwnedFd>,
    pub group: Cgroup,
    home: Home,
    view: CgroupView,
    scratch: PathBuf,
    wish: Wish,
    busy: bool,
}

/// Which of the first version's controllers containers are shown, under their names.
const SHOWN: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "devices"];

impl CellMaker {
    pub(crate) fn new(
        program: HelperProgram,
        groups: Arc<Cgroups>,
        run_dir: PathBuf,
        view: View,
        open_files: u64,
    ) -> Self {
        Self { program, groups, run_dir, view, open_files, next: AtomicU64::new(1) }
    }

    /// Starts a helper and waits until it is ready.
    pub(crate) fn make(&self, wish: &Wish) -> Result<Cell, SandboxError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let scratch = self.run_dir.join(number.to_string());
        std::fs::create_dir(&scratch).map_err(SandboxError::io("Creating", &scratch))?;
        let mut group = self
            .groups
            .group(wish.parent.as_deref(), &format!("c{number}"))
            .map_err(SandboxError::Limits)?;
        match self.view {
            View::Own => group.allow_devices(&wish.devices).map_err(SandboxError::Limits)?,
            // Another runtime makes a group in this one, and says itself what is allowed in it.
            View::Host => group.share().map_err(SandboxError::Limits)?,
        }
        let shown: Vec<_> =
            group.split().iter().filter(|(name, _)| SHOWN.contains(&name.as_str())).collect();
        let home = Home::new(self.view, &scratch);
        let view = match (shown.is_empty(), group.unified()) {
            (false, _) => CgroupView::Split(
                (0..)
                    .zip(&shown)
                    .map(|(n, (name, _))| (name.clone(), text(home.group(n))))
                    .collect(),
            ),
            (true, Some(_)) => CgroupView::Unified,
            (true, None) => CgroupView::Nothing,
        };
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let dirs = shown.iter().map(|(_, dir)| rustix::mount::open_tree(CWD, dir, clone));
        let dirs = dirs.collect::<Result<Vec<_>, _>>();
        let dirs = dirs.map_err(|e| SandboxError::Limits(e.into()))?;
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(SandboxError::io("Making a socket for", &self.program.path))?;
        let child = Command::new(&self.program.path)
            .args(&self.program.args)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(SandboxError::io("Starting", &self.program.path))?;
        let mut cell = Cell {
            child,
            socket: Some(ours),
            group,
            home,
            view,
            scratch,
            wish: wish.clone(),
            busy: false,
        };
        cell.group.add(cell.child.id()).map_err(SandboxError::Limits)?;
        cell.set_up(self, &dirs)?;
        Ok(cell)
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

impl Cell {
    fn set_up(&mut self, maker: &CellMaker, dirs: &[OwnedFd]) -> Result<(), SandboxError> {
        let mut order = Order::default();
        let setup = Setup {
            scratch: self.scratch.clone(),
            view: maker.view,
            groups: dirs.iter().map(|dir| order.file(dir.as_fd())).collect(),
            open_files: maker.open_files,
        };
        self.send(order, &setup)?;
        match self.next_note()?.0 {
            Note::Ready => Ok(()),
            Note::NotReady(why) => Err(SandboxError::Helper(why)),
            other => Err(SandboxError::Helper(format!("it said {other:?}"))),
        }
    }

    /// The helper's own file system.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// How containers made here see control groups.
    pub(crate) fn view(&self) -> &CgroupView {
        &self.view
    }

    /// What the helper says, to wait for.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("it is open until the cell is dropped").as_fd()
    }

    /// Sends an order.
    pub(crate) fn send(
        &mut self,
        order: Order<'_>,
        message: &impl Serialize,
    ) -> Result<(), SandboxError> {
        order.send(self.socket(), message).map_err(|e| SandboxError::Helper(e.to_string()))
    }

    /// Kills the container whose first process this is, and everything in it; the helper goes with
    /// it, where there are control groups.
    pub(crate) fn kill(&mut self, process: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.group.exists() {
            return self.group.kill();
        }
        match process {
            Some(process) => Ok(rustix::process::pidfd_send_signal(process, Signal::KILL)?),
            None => self.child.kill(),
        }
    }

    /// Notes that it makes a container.
    pub(crate) fn set_busy(&mut self) {
        self.busy = true;
    }

    /// Waits for what the helper says next.
    pub(crate) fn next_note(&mut self) -> Result<(Note, Vec<OwnedFd>), SandboxError> {
        match receive_answer(self.socket()) {
            Ok(Some((note, files))) => {
                self.busy &= note != Note::Idle;
                Ok((note, files))
            }
            Ok(None) => Err(SandboxError::Helper("it ended".to_owned())),
            Err(e) => Err(SandboxError::Helper(e.to_string())),
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // The helper ends by itself when nobody listens; a container in it dies with the group.
        self.socket.take();
        if let Err(e) = self.group.kill() {
            tracing::warn!(error = %e, "a container's processes are left");
        }
        // Without control groups nothing was killed yet, but the helper sees that nobody listens.
        if let Err(e) = self.child.wait() {
            tracing::warn!(error = %e, "waiting for a helper failed");
        }
        if let Err(e) = std::fs::remove_dir(&self.scratch) {
            tracing::debug!(error = %e, "a helper's directory is left");
        }
    }
}

/// Cells that wait for work.
pub(crate) struct CellPool {
    maker: CellMaker,
    idle: Mutex<Idle>,
    /// Told when one that was being made is made.
    made: Condvar,
    /// How many are kept.
    keep: usize,
}

#[derive(Default)]
struct Idle {
    cells: Vec<Cell>,
    /// How many are being made in the background.
    coming: usize,
    closed: bool,
}

impl CellPool {
    pub(crate) fn new(maker: CellMaker, keep: usize) -> Arc<Self> {
        Arc::new(Self { maker, idle: Mutex::default(), made: Condvar::new(), keep })
    }

    pub(crate) fn maker(&self) -> &CellMaker {
        &self.maker
    }

    /// A cell that waits, or a new one. Has another one made meanwhile when it was the last.
    pub(crate) fn take(self: &Arc<Self>, wish: &Wish) -> Result<Cell, SandboxError> {
        if *wish != Wish::nothing() {
            return self.maker.make(wish);
        }
        let waiting = self.idle().cells.pop();
        self.warm(1);
        match waiting {
            Some(cell) => Ok(cell),
            None => self.maker.make(wish),
        }
    }

    /// Has cells made in the background until that many wait (or as many as are kept).
    pub(crate) fn warm(self: &Arc<Self>, count: usize) {
        let mut idle = self.idle();
        let missing = count.min(self.keep).saturating_sub(idle.cells.len() + idle.coming);
        if missing == 0 || idle.closed {
            return;
        }
        idle.coming += missing;
        drop(idle);
        let pool = self.clone();
        std::thread::spawn(move || {
            for _ in 0..missing {
                pool.make_ahead();
            }
        });
    }

    fn make_ahead(&self) {
        let closed = self.idle().closed;
        let made = if closed { None } else { Some(self.maker.make(&Wish::nothing())) };
        let mut idle = self.idle();
        let surplus = match made {
            Some(Ok(cell)) if !idle.closed => {
                idle.cells.push(cell);
                None
            }
            Some(Ok(cell)) => Some(cell),
            // Whoever needs one tries itself, and tells.
            Some(Err(e)) => {
                tracing::debug!(error = %e, "no cell was made ahead");
                None
            }
            None => None,
        };
        drop(idle);
        drop(surplus);
        self.idle().coming -= 1;
        self.made.notify_all();
    }

    /// Keeps a cell whose container is over for the next one, if it can be.
    pub(crate) fn give_back(&self, mut cell: Cell) {
        let plain = cell.wish == Wish::nothing();
        while plain && cell.busy {
            // The job's own end follows the container's at once.
            if let Err(e) = cell.next_note() {
                tracing::debug!(error = %e, "a cell is given up");
                return;
            }
        }
        let mut idle = self.idle();
        if plain && !idle.closed && idle.cells.len() < self.keep {
            idle.cells.push(cell);
        } else {
            drop(idle);
            drop(cell);
        }
    }

    /// Ends all that wait, and those that are being made.
    pub(crate) fn close(&self) {
        let mut idle = self.idle();
        idle.closed = true;
        while idle.coming > 0 {
            idle = self.made.wait(idle).unwrap_or_else(|p| p.into_inner());
        }
        let cells = std::mem::take(&mut idle.cells);
        drop(idle);
        drop(cells);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(|p| p.into_inner())
    }
}
