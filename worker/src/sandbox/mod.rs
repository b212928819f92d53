//! Containers: one step's program, run as BuildKit runs it, confined as Docker confines it.
//!
//! A container goes through phases, each a type that owns its clean-up: [`Prepared`] (everything is
//! mounted and ready), [`Running`], [`Exited`], and [`Captured`] (what it changed is a diff tree in
//! the store). Dropping any of them at any time leaves nothing behind: no process, no mount, no
//! control group.
//!
//! The container itself is made by a helper process; `helper` says how. All that needs a privilege
//! is in this module and in [`crate::rootfs`]; [`check_machine`] says what that is and whether it
//! is there.

mod bpf;
mod capability;
mod cell;
mod cgroup;
mod check;
mod environment;
mod error;
mod helper;
mod names;
mod net;
mod outcome;
mod plan;
mod platforms;
mod prepare;
mod run;
mod seccomp;
mod spec;
mod stubs;
mod sweep;
mod user;

pub use cell::HelperProgram;
pub use cgroup::{DeviceKind, Limits, Swap, Usage};
pub use check::check_machine;
pub use error::SandboxError;
pub use helper::helper_main;
pub use net::DefaultNetwork;
pub use outcome::Outcome;
pub use plan::Inputs;
pub use platforms::platforms;
pub use prepare::{Order, Prepared};
pub use run::{Canceller, Captured, Exited, Io, LogSink, Running, Stream};
pub use spec::{DeviceNode, SpecError};
pub use user::{Identity, UserError, lookup as lookup_user};

use crate::rootfs::{LayerCache, tag};
use capability::CapSet;
use cell::{CellMaker, CellPool};
use cgroup::Cgroups;
use helper::View;
use net::Networks;
use seccomp::Filter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who makes the containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Runtime {
    /// The one that is built in.
    #[default]
    Embedded,
    /// A program with the command line of runc: crun, runc, runsc.
    Program(PathBuf),
}

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// A folder for what lives as long as a container.
    pub dir: PathBuf,
    /// The program that makes containers on our behalf.
    pub helper: HelperProgram,
    /// Who makes the containers.
    pub runtime: Runtime,
    /// How many helpers are kept ready: as many as steps run at a time.
    pub slots: usize,
    /// How many files a container's process may have open, unless it asks for more: the soft limit.
    /// 1024 is what programs of all ages bear.
    pub open_files: u64,
}

/// The containers of one worker. Cheap to clone; all clones are the same one. When the last is
/// dropped, all helpers end.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    layers: LayerCache,
    runtime: Runtime,
    cells: Arc<CellPool>,
    networks: Arc<Networks>,
    /// Compiled once.
    filter: Option<Filter>,
    machine: String,
    bounding: CapSet,
}

impl Sandbox {
    /// Opens it, after taking away what an earlier process that was killed left behind. The layer
    /// cache is the one whose roots the containers run on.
    pub fn open(config: Config, layers: LayerCache) -> Result<Self, SandboxError> {
        Self::open_with(config, layers, DefaultNetwork::Own)
    }

    /// As [`Sandbox::open`], and says what a step gets that asks for the default network.
    pub fn open_with(
        config: Config,
        layers: LayerCache,
        network: DefaultNetwork,
    ) -> Result<Self, SandboxError> {
        check_machine().map_err(SandboxError::Machine)?;
        let tag = tag(layers.path());
        sweep::sweep(&tag, &config.dir)?;
        let run_dir = config.dir.join("run");
        std::fs::create_dir_all(&run_dir).map_err(SandboxError::io("Creating", &run_dir))?;
        let run_dir = run_dir.canonicalize().map_err(SandboxError::io("Finding", &run_dir))?;
        let view = match config.runtime {
            Runtime::Embedded => View::Own,
            Runtime::Program(_) => View::Host,
        };
        let groups = Arc::new(Cgroups::open(&tag));
        let networks = Networks::new(groups.clone(), network, config.slots);
        let maker = CellMaker::new(config.helper, groups, run_dir, view, config.open_files);
        let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
        let filter = seccomp::default_filter(&machine);
        if filter.is_none() {
            tracing::warn!(%machine, "containers run without a filter of system calls");
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let inner = Inner {
            layers,
            runtime: config.runtime,
            cells: CellPool::new(maker, config.slots),
            networks,
            filter,
            machine,
            bounding: CapSet::bounding(&status),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Has as many helpers and networks made in the background as are kept ready.
    pub fn warm_up(&self) {
        self.inner.cells.warm(usize::MAX);
        self.inner.networks.warm();
    }

    /// The layer cache whose roots the containers run on.
    pub fn layers(&self) -> &LayerCache {
        &self.inner.layers
    }

    /// The folder of the control group that all containers' memory is part of: the topmost one that
    /// this process sees, which has a limit when the process is in a container itself.
    pub fn memory_group(&self) -> Option<&Path> {
        self.inner.cells.maker().groups.layout().memory()
    }

    /// Why containers run without limits, if so.
    pub fn without_limits(&self) -> Option<&str> {
        self.inner.cells.maker().groups.unusable()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cells.close();
        self.networks.close();
        sweep::remove_groups(&self.cells.maker().groups);
    }
}

fn read_host(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
