//! The network of a container: the host's, none, or one of its own with a way out.
//!
//! Making a namespace with a way out takes tens of milliseconds, so some are kept ready and made
//! anew in the background. One that a container has had is handed on only when no packet was sent
//! in it, not even on its loopback: then nothing of the container is in it.

mod host;
mod namespace;
mod pasta;
mod wall;

pub(crate) use host::Host;

use super::SandboxError;
use super::cgroup::Cgroups;
use namespace::Counters;
use pasta::Pasta;
use proto::step::NetworkMode;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use wall::Wall;

/// What a step gets that asks for the default network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultNetwork {
    /// One of its own: others are reached as from the host, the host itself is not.
    #[default]
    Own,
    /// The host's.
    Host,
}

/// The networks of a sandbox.
pub(crate) struct Networks {
    shared: Arc<Shared>,
    default: DefaultNetwork,
    /// For what is done in the background; none when it is closed.
    keeper: Mutex<Option<(Sender<Task>, JoinHandle<()>)>>,
}

/// How many namespaces without a way out are kept.
const CLOSED_MAX: usize = 16;

struct Shared {
    groups: Arc<Cgroups>,
    /// How many with a way out are kept ready.
    keep: usize,
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Namespaces without any way out, that wait for a container.
    closed: Vec<Namespace>,
    /// Namespaces with a way out, all behind the wall below.
    open: Vec<Namespace>,
    wall: Option<Arc<Wall>>,
}

enum Task {
    /// Makes as many ready as are kept.
    Fill,
    /// A container is done with it; keep it if it can be kept.
    Return(Namespace),
    /// Take it away.
    Discard(Namespace),
}

/// A namespace.
struct Namespace {
    file: OwnedFd,
    counters: Counters,
    /// What was counted when it was handed out; none before that.
    before: Option<u64>,
    way: Option<Way>,
}

/// A way out.
struct Way {
    // Ends before its control group.
    _pasta: Pasta,
    wall: Arc<Wall>,
}

/// A container's network.
pub(crate) enum Network {
    /// The host's.
    Host,
    /// One of its own, until this is dropped.
    Own(Lease),
}

/// A namespace that no other container uses meanwhile.
pub(crate) struct Lease {
    namespace: Option<Namespace>,
    networks: Arc<Networks>,
    reusable: bool,
}

impl Network {
    /// The namespace.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Host => None,
            Self::Own(lease) => lease.namespace.as_ref().map(|n| n.file.as_fd()),
        }
    }

    fn wall(&self) -> Option<&Wall> {
        let Self::Own(Lease { namespace: Some(namespace), .. }) = self else { return None };
        namespace.way.as_ref().map(|way| &*way.wall)
    }

    /// Where names are asked for when the host's own servers cannot be reached.
    pub(crate) fn forwarder(&self) -> Option<IpAddr> {
        self.wall().and_then(|wall| pasta::forwarder(&wall.host))
    }

    /// Whether something at this address cannot be reached from inside, whoever it is.
    pub(crate) fn hides(&self, address: IpAddr) -> bool {
        match self {
            Self::Host => false,
            Self::Own(_) => address.is_loopback() || self.wall().is_some_and(|w| w.hides(address)),
        }
    }

    /// Says that the container could change it, so that no other one may have it.
    pub(crate) fn spoil(&mut self) {
        if let Self::Own(lease) = self {
            lease.reusable = false;
        }
    }
}

impl Networks {
    /// Networks whose processes are in these groups; `keep` with a way out are kept ready.
    pub(crate) fn new(groups: Arc<Cgroups>, default: DefaultNetwork, keep: usize) -> Arc<Self> {
        let state = Mutex::default();
        let shared = Arc::new(Shared { groups, keep, state, next: AtomicU64::new(1) });
        let (tasks, waiting) = channel();
        let work = shared.clone();
        let keeper = std::thread::spawn(move || work.keep_ready(&waiting));
        Arc::new(Self { shared, default, keeper: Mutex::new(Some((tasks, keeper))) })
    }

    /// Has namespaces made in the background.
    pub(crate) fn warm(&self) {
        if self.default == DefaultNetwork::Own {
            self.later(Task::Fill);
        }
    }

    /// A network for one container. `named` are addresses that the step was told to reach; those of
    /// the host's among them it can reach.
    pub(crate) fn take(
        self: &Arc<Self>,
        mode: NetworkMode,
        named: impl FnOnce() -> BTreeSet<IpAddr>,
    ) -> Result<Network, SandboxError> {
        let (namespace, reusable) = match (mode, self.default) {
            (NetworkMode::Host, _) | (NetworkMode::Default, DefaultNetwork::Host) => {
                return Ok(Network::Host);
            }
            (NetworkMode::None, _) => (self.shared.closed()?, true),
            (NetworkMode::Default, DefaultNetwork::Own) => {
                let host = Host::read();
                let named: BTreeSet<IpAddr> =
                    named().intersection(&host.addresses).copied().collect();
                if !host.out4 && !host.out6 {
                    tracing::debug!("the host has no way out, and so containers have none");
                    (self.shared.closed()?, true)
                } else if named.is_empty() {
                    let taken = self.shared.open(host)?;
                    self.later(Task::Fill);
                    (taken, true)
                } else {
                    let wall = self.shared.wall(host, named)?;
                    (self.shared.make(wall)?, false)
                }
            }
        };
        let mut namespace = namespace;
        namespace.before = Some(namespace.counters.read().map_err(failed)?);
        let networks = self.clone();
        Ok(Network::Own(Lease { namespace: Some(namespace), networks, reusable }))
    }

    /// Ends everything that waits.
    pub(crate) fn close(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some((tasks, thread)) = keeper {
            drop(tasks);
            if thread.join().is_err() {
                tracing::warn!("the keeper of networks panicked");
            }
        }
        *self.shared.state() = State::default();
    }

    fn later(&self, task: Task) {
        let keeper = self.keeper.lock().unwrap_or_else(|p| p.into_inner());
        if let Some((tasks, _)) = &*keeper {
            // It fails after the keeper's end: then the task's namespace ends here.
            let _ = tasks.send(task);
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.close();
    }
}

fn failed(e: std::io::Error) -> SandboxError {
    SandboxError::Network { why: e.to_string(), hint: None }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn closed(&self) -> Result<Namespace, SandboxError> {
        if let Some(waiting) = self.state().closed.pop() {
            return Ok(waiting);
        }
        let (file, counters) = namespace::make().map_err(failed)?;
        Ok(Namespace { file, counters, before: None, way: None })
    }

    /// One with a way out, out of a host as it is now.
    fn open(&self, host: Host) -> Result<Namespace, SandboxError> {
        let wall = self.current(host)?;
        let waiting = self.state().open.pop();
        match waiting {
            Some(namespace) => Ok(namespace),
            None => self.make(wall),
        }
    }

    /// The wall for that host. When the host has changed, what waits behind the one before is
    /// given up.
    fn current(&self, host: Host) -> Result<Arc<Wall>, SandboxError> {
        let mut state = self.state();
        if let Some(wall) = state.wall.as_ref().filter(|wall| wall.host == host) {
            return Ok(wall.clone());
        }
        let old = (std::mem::take(&mut state.open), state.wall.take());
        drop(state);
        drop(old);
        let made = self.wall(host, BTreeSet::new())?;
        let mut state = self.state();
        // Somebody else may have been faster.
        match state.wall.as_ref().filter(|wall| wall.host == made.host) {
            Some(wall) => Ok(wall.clone()),
            None => {
                state.open.clear();
                state.wall = Some(made.clone());
                Ok(made)
            }
        }
    }

    fn wall(&self, host: Host, named: BTreeSet<IpAddr>) -> Result<Arc<Wall>, SandboxError> {
        let name = format!("n{}", self.next.fetch_add(1, Ordering::Relaxed));
        let made = Wall::make(&self.groups, &name, host, named);
        made.map(Arc::new).map_err(|e| SandboxError::Network {
            why: format!("the host cannot be kept out of its reach: {e}"),
            hint: Some(WALL_HINT.to_owned()),
        })
    }

    fn make(&self, wall: Arc<Wall>) -> Result<Namespace, SandboxError> {
        let (file, pasta) = pasta::start(&wall)?;
        let counters = Counters::of(&file).map_err(failed)?;
        let way = Some(Way { _pasta: pasta, wall });
        Ok(Namespace { file, counters, before: None, way })
    }

    /// What the keeper does, until nobody has anything more for it to do.
    fn keep_ready(&self, waiting: &Receiver<Task>) {
        let mut filling = false;
        loop {
            let task = match waiting.try_recv() {
                Err(TryRecvError::Empty) if filling => {
                    filling = self.make_one_ready();
                    continue;
                }
                Err(TryRecvError::Empty) => waiting.recv().ok(),
                other => other.ok(),
            };
            match task {
                None => return,
                Some(Task::Fill) => filling = true,
                Some(Task::Return(namespace)) => self.take_back(namespace),
                Some(Task::Discard(namespace)) => drop(namespace),
            }
        }
    }

    /// Answers whether there may be more to do.
    fn make_one_ready(&self) -> bool {
        if self.state().open.len() >= self.keep {
            return false;
        }
        let host = Host::read();
        if !host.out4 && !host.out6 {
            return false;
        }
        match self.current(host).and_then(|wall| self.make(wall)) {
            Ok(namespace) => {
                self.take_back(namespace);
                true
            }
            // Whoever needs one tries itself, and tells.
            Err(e) => {
                tracing::debug!(error = %e, "no network was made ahead");
                false
            }
        }
    }

    fn take_back(&self, namespace: Namespace) {
        let untouched = namespace
            .before
            .is_none_or(|before| namespace.counters.read().is_ok_and(|now| now == before));
        let mut state = self.state();
        let rest = match &namespace.way {
            _ if !untouched => Some(namespace),
            None if state.closed.len() < CLOSED_MAX => {
                state.closed.push(namespace);
                None
            }
            Some(way) if state.wall.as_ref().is_some_and(|w| Arc::ptr_eq(w, &way.wall)) => {
                state.open.push(namespace);
                None
            }
            _ => Some(namespace),
        };
        drop(state);
        drop(rest);
    }
}

const WALL_HINT: &str = "Use a kernel with CONFIG_CGROUP_BPF and control groups of the second \
    version, or let RUN have the host's network: `network = \"host\"` under `[run]` in the \
    settings, or SLIPWAY_NETWORK=host";

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(namespace) = self.namespace.take() else { return };
        let task = match self.reusable {
            true => Task::Return(namespace),
            false => Task::Discard(namespace),
        };
        self.networks.later(task);
    }
}
