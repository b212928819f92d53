//! Everything that is done before a container runs.

use super::capability::CapSet;
use super::cell::{Cell, Wish};
use super::cgroup::{ALL_DEVICES, DEFAULT_DEVICES, DeviceRule, Limits};
use super::environment::{Terminal, environment};
use super::helper::{self, Job, JobMaker};
use super::names::{DEFAULT_HOSTNAME, Resolver, hosts, named_addresses};
use super::net::{Host, Network};
use super::plan::{Inputs, Plan};
use super::run::{Io, Pipes, Running, Started};
use super::spec::{Container, DeviceNode, Maker, NetworkNamespace, insecure_devices};
use super::stubs::{self, Stubs};
use super::user::{self, Identity};
use super::{Runtime, Sandbox, SandboxError, read_host, seccomp};
use crate::rootfs::{Access, Overlay, Stack, at};
use proto::step::{RunOp, SecurityMode};
use rustix::fs::{OFlags, ResolveFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// One container to run.
pub struct Order<'a> {
    /// What to run, and how. Entitlements were checked before.
    pub op: &'a RunOp,
    /// Its root.
    pub root: &'a Stack,
    /// What its mounts show.
    pub inputs: Inputs,
    /// What it may use.
    pub limits: Limits,
    /// When it is stopped; none: never.
    pub timeout: Option<Duration>,
}

/// A container that is ready to run: its root is mounted, its helper waits.
pub struct Prepared {
    parts: Parts,
    cell: Cell,
    network: Network,
    order: Details,
    // Dropped last: the sandbox's own clean-up comes after the container's.
    sandbox: Sandbox,
}

/// What a container leaves to look at.
pub(crate) struct Parts {
    pub root: Overlay,
    pub plan: Plan,
    pub stubs: Stubs,
}

/// What the spec is made of.
struct Details {
    op: RunOp,
    identity: Identity,
    hostname: String,
    devices: Vec<DeviceNode>,
    timeout: Option<Duration>,
    spoils_network: bool,
}

/// Where a container needs directories of its root.
const NEEDED: [&str; 3] = ["proc", "dev", "sys"];

impl Sandbox {
    /// Mounts everything and gets a helper ready.
    pub fn prepare(&self, order: Order<'_>) -> Result<Prepared, SandboxError> {
        let Order { op, root, inputs, limits, timeout } = order;
        let layers = &self.inner.layers;
        let devices = devices(op, &inputs)?;
        let overlay = layers.mount(root, Access::Private)?;
        check_root(overlay.root())?;
        let extra_hosts = extra_hosts(op)?;
        let named = || named_addresses(&extra_hosts, op.env.iter().chain(&op.proxy_env));
        let network = self.inner.networks.take(op.network, named)?;
        let hostname = match op.hostname.as_str() {
            "" => DEFAULT_HOSTNAME.to_owned(),
            other => other.to_owned(),
        };
        let names = [
            ("/etc/resolv.conf", resolver(&network)),
            ("/etc/hosts", hosts(&hostname, &extra_hosts)),
        ];
        let mut plan = Plan::new(layers, op, inputs, names)?;
        let stubs = plan.make_places(overlay.root())?;
        let identity = identify(overlay.root(), &op.user)?;
        make_cwd(overlay.root(), &op.cwd, &identity)?;
        let wish = wish(op, &devices);
        let mut cell = self.inner.cells.take(&wish)?;
        cell.group.limit(&limits).map_err(SandboxError::Limits)?;
        let spoils_network = op.security == SecurityMode::Insecure;
        let order =
            Details { op: op.clone(), identity, hostname, devices, timeout, spoils_network };
        let parts = Parts { root: overlay, plan, stubs };
        Ok(Prepared { sandbox: self.clone(), parts, cell, network, order })
    }
}

impl Prepared {
    /// Starts the container's program.
    pub fn start(mut self, io: Io) -> Result<Running, SandboxError> {
        let inner = &self.sandbox.inner;
        let terminal = matches!(io, Io::Terminal);
        let mut pipes = Pipes::new(io)?;
        if self.order.spoils_network {
            self.network.spoil();
        }
        let spec = self.spec(terminal)?;
        let spec = serde_json::to_vec(&spec)
            .map_err(|e| SandboxError::Runtime(format!("writing its spec: {e}")))?;
        let mut order = helper::Order::default();
        let (mounts, files) = self.parts.plan.order(&mut order);
        let filter = match self.order.op.security {
            SecurityMode::Sandbox => inner.filter.as_ref().map(|f| order.put(&f.to_bytes())),
            SecurityMode::Insecure => None,
        };
        let job = Job {
            spec: order.put(&spec),
            root: order.file(self.parts.root.root()),
            mounts,
            files,
            stdio: pipes.theirs().map(|files| files.map(|file| order.file(file))),
            network: self.network.file().map(|file| order.file(file)),
            maker: match &inner.runtime {
                Runtime::Embedded => JobMaker::Helper { filter },
                Runtime::Program(program) => {
                    JobMaker::Runtime { program: program.clone(), id: self.name() }
                }
            },
        };
        let before = Started {
            oom_kills: self.cell.group.oom_kills(),
            memory_full: self.cell.group.memory_full(),
            usage: self.cell.group.start_account(),
        };
        self.cell.set_busy();
        self.cell.send(order, &job)?;
        pipes.close_theirs();
        let Self { sandbox, parts, cell, network, order } = self;
        let program = order.op.args.first().cloned().unwrap_or_default();
        Running::new(sandbox, parts, cell, network, pipes, before, order.timeout, program)
    }

    /// What another runtime calls the container: the same name never twice on one machine.
    fn name(&self) -> String {
        self.cell.group.path().trim_matches('/').replace('/', "-")
    }

    fn spec(&self, terminal: bool) -> Result<oci_spec::runtime::Spec, SandboxError> {
        let inner = &self.sandbox.inner;
        let Details { op, identity, hostname, devices, .. } = &self.order;
        let lists = op.env.iter().chain(&op.proxy_env).chain(&self.parts.plan.env);
        let has_terminal = if terminal { Terminal::Yes } else { Terminal::No };
        let env = environment(lists, &identity.home, has_terminal);
        let capabilities = match op.security {
            SecurityMode::Sandbox => CapSet::DEFAULT,
            SecurityMode::Insecure => inner.bounding,
        };
        let maker = match inner.runtime {
            Runtime::Embedded => Maker::Helper(self.cell.view().clone()),
            Runtime::Program(_) => Maker::Runtime {
                cgroup_path: format!("{}/run", self.cell.group.path()),
                seccomp: Box::new(seccomp::default_oci(&inner.machine)),
            },
        };
        let network = match self.network.file() {
            Some(_) => {
                let path = self.cell.home().network();
                NetworkNamespace::Path(path.to_string_lossy().into_owned())
            }
            None => NetworkNamespace::Host,
        };
        let container = Container {
            args: &op.args,
            env: &env,
            cwd: if op.cwd.is_empty() { "/" } else { &op.cwd },
            identity,
            security: op.security,
            capabilities,
            hostname,
            ulimits: &op.ulimits,
            shm_bytes: op.shm_bytes,
            mounts: &self.parts.plan.lines(self.cell.home()),
            devices,
            network,
            terminal,
            maker,
        };
        Ok(container.spec()?)
    }
}

fn wish(op: &RunOp, devices: &[DeviceNode]) -> Wish {
    let parent = (!op.cgroup_parent.is_empty()).then(|| op.cgroup_parent.clone());
    let rules: Vec<DeviceRule> = match op.security {
        SecurityMode::Insecure => ALL_DEVICES.to_vec(),
        SecurityMode::Sandbox => {
            DEFAULT_DEVICES.iter().copied().chain(devices.iter().map(DeviceNode::rule)).collect()
        }
    };
    Wish { parent, devices: rules }
}

fn devices(op: &RunOp, inputs: &Inputs) -> Result<Vec<DeviceNode>, SandboxError> {
    let mut devices = match op.security {
        SecurityMode::Insecure => insecure_devices(),
        SecurityMode::Sandbox => Vec::new(),
    };
    for (id, required) in &op.devices {
        match inputs.devices.get(id) {
            Some(nodes) => devices.extend(nodes.iter().cloned()),
            None if *required => {
                return Err(SandboxError::Missing { what: "device", id: id.clone() });
            }
            None => {}
        }
    }
    Ok(devices)
}

/// A container's own file systems are mounted at these places by name. In an image where one is a
/// link, they would land elsewhere; where one is missing, it is made, and stays, as in BuildKit.
fn check_root(root: BorrowedFd<'_>) -> Result<(), SandboxError> {
    for name in NEEDED {
        let path = format!("/{name}");
        match at::stat(root, name.as_bytes()) {
            Ok(stat) if stubs::is_dir(&stat) => {}
            Ok(stat) => {
                return Err(SandboxError::Root { path, what: stubs::describe(&stat).to_owned() });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                stubs::make_dir(root, &path, (0, 0))
                    .map_err(SandboxError::io("Creating", &path))?;
            }
            Err(e) => return Err(SandboxError::io("Looking at", path)(e)),
        }
    }
    Ok(())
}

/// The lines that were asked for, with the host's address in the place of its nickname.
fn extra_hosts(op: &RunOp) -> Result<Vec<(String, String)>, SandboxError> {
    let resolved = |(name, address): &(String, String)| {
        if address != HOST_GATEWAY {
            return Ok((name.clone(), address.clone()));
        }
        let host = Host::main_address().ok_or_else(|| SandboxError::Network {
            why: format!("`{name}` is to be the host, and the host has no address"),
            hint: None,
        })?;
        Ok((name.clone(), host.to_string()))
    };
    op.extra_hosts.iter().map(resolved).collect()
}

/// What stands for the host's address in `--add-host`. Docker's.
const HOST_GATEWAY: &str = "host-gateway";

fn resolver(network: &Network) -> String {
    let host = read_host("/etc/resolv.conf");
    let found = Resolver::parse(&host);
    if network.file().is_none() {
        return found.text();
    }
    let found = match found.is_stub() {
        true => Resolver::parse(&read_host("/run/systemd/resolve/resolv.conf")),
        false => found,
    };
    found.for_own_network(network.forwarder(), |address| network.hides(address)).text()
}

fn identify(root: BorrowedFd<'_>, text: &str) -> Result<Identity, SandboxError> {
    let passwd = read_inside(root, "/etc/passwd")?;
    let group = read_inside(root, "/etc/group")?;
    Ok(user::lookup(text, passwd.as_deref(), group.as_deref())?)
}

/// A regular file of the root's; none when there is no such thing.
fn read_inside(root: BorrowedFd<'_>, path: &str) -> Result<Option<Vec<u8>>, SandboxError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(file) = at::resolve_with(root, path.as_bytes(), flags, how) else { return Ok(None) };
    let stat = rustix::fs::fstat(&file).map_err(SandboxError::io("Reading", path))?;
    if !stubs::is_file(&stat) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut limited = File::from(file).take(user::FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(SandboxError::io("Reading", path))?;
    if bytes.len() as u64 > user::FILE_BYTES_MAX {
        let what = format!("longer than {} bytes", user::FILE_BYTES_MAX);
        return Err(SandboxError::Root { path: path.to_owned(), what });
    }
    Ok(Some(bytes))
}

/// Makes what a path with `..` leads through, as runc does: it is entered as it is written.
fn make_way(root: BorrowedFd<'_>, path: &str) -> std::io::Result<()> {
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    for end in ends {
        let (above, name) = path[..end].rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || at::resolve(root, &path.as_bytes()[..end]).is_ok() {
            continue;
        }
        let above = at::resolve(root, if above.is_empty() { b"/" } else { above.as_bytes() })?;
        let above = String::from_utf8_lossy(&stubs::path_in(root, above)?).into_owned();
        stubs::make_dir(root, &format!("{above}/{name}"), (0, 0))?;
    }
    Ok(())
}

/// The working directory is made if it is not there, and belongs to the user, as in BuildKit.
fn make_cwd(root: BorrowedFd<'_>, cwd: &str, identity: &Identity) -> Result<(), SandboxError> {
    let refused = |why: String| SandboxError::Cwd { path: cwd.to_owned(), why };
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    stubs::make_dir(root, cwd, (identity.uid, identity.gid)).map_err(|e| refused(e.to_string()))?;
    make_way(root, cwd).map_err(|e| refused(e.to_string()))?;
    let there = at::resolve(root, cwd.as_bytes()).map_err(|e| refused(e.to_string()))?;
    let stat = rustix::fs::fstat(there.as_fd()).map_err(|e| refused(e.to_string()))?;
    match stubs::is_dir(&stat) {
        true => Ok(()),
        false => Err(refused(format!("it is {} in the image", stubs::describe(&stat)))),
    }
}
