//! The container as an OCI runtime spec. Pure.
//!
//! What is not asked for is as BuildKit has it (containerd's default spec, with BuildKit's
//! changes): file systems and their options, masked and read-only paths, namespaces, no
//! `no_new_privileges`.

use super::capability::CapSet;
use super::cgroup::{DeviceKind, DeviceRule};
use super::user::Identity;
use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceType, LinuxResources, LinuxSeccomp, Mount, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, Root, Spec, User,
};
use proto::step::SecurityMode;
use std::path::PathBuf;

/// Bytes of `/dev/shm` when nothing else is asked for. Docker's.
const SHM_BYTES: u64 = 64 << 20;

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Something mounted inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// Where: absolute and clean.
    pub target: String,
    /// `bind`, or a file system's name.
    pub kind: &'static str,
    /// What, as the runtime sees it.
    pub source: String,
    pub options: Vec<String>,
}

impl MountLine {
    fn new(kind: &'static str, target: &str, source: &str, options: &[&str]) -> Self {
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        Self { target: target.to_owned(), kind, source: source.to_owned(), options }
    }
}

/// A device node inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where: below `/dev`.
    pub path: String,
    /// Block or character device.
    pub kind: DeviceKind,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

impl DeviceNode {
    fn character(path: &str, major: u32, minor: u32) -> Self {
        Self { path: path.to_owned(), kind: DeviceKind::Char, major, minor }
    }

    /// What lets the container open it.
    pub(crate) fn rule(&self) -> DeviceRule {
        DeviceRule {
            kind: self.kind,
            major: Some(self.major),
            minor: Some(self.minor),
            open: true,
            make: true,
        }
    }
}

/// The devices that a container without confinement gets besides: `/dev/kmsg` and the like.
pub(crate) fn insecure_devices() -> Vec<DeviceNode> {
    let mut devices: Vec<DeviceNode> = [
        ("/dev/kmsg", 1, 11),
        ("/dev/cuse", 10, 203),
        ("/dev/fuse", 10, 229),
        ("/dev/kvm", 10, 232),
        ("/dev/net/tun", 10, 200),
        ("/dev/loop-control", 10, 237),
    ]
    .into_iter()
    .map(|(path, major, minor)| DeviceNode::character(path, major, minor))
    .collect();
    devices.extend((0..8).map(|minor| DeviceNode {
        kind: DeviceKind::Block,
        ..DeviceNode::character(&format!("/dev/loop{minor}"), 7, minor)
    }));
    devices
}

/// Which network the container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkNamespace {
    /// The host's.
    Host,
    /// One that was made before; the path is the runtime's.
    Path(String),
}

/// How `/sys/fs/cgroup` looks inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// There is none.
    Nothing,
    /// The second version's.
    Unified,
    /// The first version's: controllers, and where the runtime finds the container's group of each.
    Split(Vec<(String, String)>),
}

/// Who makes the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Maker {
    /// Our own helper: it is in the container's control group already, and installs the filter of
    /// system calls itself, for which it needs one capability more than the container gets.
    Helper(CgroupView),
    /// An OCI runtime.
    Runtime { cgroup_path: String, seccomp: Box<Option<LinuxSeccomp>> },
}

/// All that is known of a container.
#[derive(Debug, Clone)]
pub(crate) struct Container<'a> {
    pub args: &'a [String],
    pub env: &'a [(String, String)],
    pub cwd: &'a str,
    pub identity: &'a Identity,
    pub security: SecurityMode,
    pub capabilities: CapSet,
    pub hostname: &'a str,
    /// Name, soft, hard; -1 for none.
    pub ulimits: &'a [(String, i64, i64)],
    pub shm_bytes: u64,
    pub mounts: &'a [MountLine],
    pub devices: &'a [DeviceNode],
    pub network: NetworkNamespace,
    pub terminal: bool,
    pub maker: Maker,
}

/// Why there can be no such container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A limit that Linux does not have.
    #[error("`{0}` is not a limit of processes: those are core, cpu, nofile, nproc and so on")]
    UnknownLimit(String),
    /// A soft limit above the hard one.
    #[error("The limit `{0}` has a soft value above its hard one")]
    LimitOrder(String),
    /// Text that cannot be handed to a program.
    #[error("{0} contains a NUL byte")]
    Nul(String),
    /// Nothing to run.
    #[error("There is no program to run")]
    NoProgram,
}

impl Container<'_> {
    /// The spec. The root is the folder `rootfs` beside it.
    pub(crate) fn spec(&self) -> Result<Spec, SpecError> {
        let mut root = Root::default();
        root.set_path(PathBuf::from("rootfs")).set_readonly(Some(false));
        let mut spec = Spec::default();
        spec.set_version("1.0.2".to_owned())
            .set_root(Some(root))
            .set_mounts(Some(self.mounts()))
            .set_process(Some(self.process()?))
            .set_hostname(Some(self.hostname.to_owned()))
            .set_linux(Some(self.linux()));
        Ok(spec)
    }

    fn is_insecure(&self) -> bool {
        self.security == SecurityMode::Insecure
    }

    fn process(&self) -> Result<Process, SpecError> {
        if self.args.is_empty() {
            return Err(SpecError::NoProgram);
        }
        for (what, text) in self.texts() {
            if text.contains('\0') {
                return Err(SpecError::Nul(what));
            }
        }
        let mut user = User::default();
        user.set_uid(self.identity.uid)
            .set_gid(self.identity.gid)
            .set_additional_gids(Some(self.identity.groups.clone()));
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut process = Process::default();
        process
            .set_terminal(Some(self.terminal))
            .set_user(user)
            .set_args(Some(self.args.to_vec()))
            .set_env(Some(env))
            .set_cwd(PathBuf::from(self.cwd))
            .set_capabilities(Some(self.capability_sets()))
            .set_rlimits(self.limits()?)
            .set_no_new_privileges(None)
            .set_oom_score_adj(Some(0));
        Ok(process)
    }

    fn texts(&self) -> Vec<(String, &str)> {
        let args = self.args.iter().map(|arg| ("An argument".to_owned(), arg.as_str()));
        let env = self.env.iter().flat_map(|(name, value)| {
            let what = || format!("The variable `{}`", name.replace('\0', "\\0"));
            [(what(), name.as_str()), (what(), value.as_str())]
        });
        let cwd = [("The working directory".to_owned(), self.cwd)];
        args.chain(env).chain(cwd).collect()
    }

    fn capability_sets(&self) -> LinuxCapabilities {
        let mut set = self.capabilities;
        if matches!(self.maker, Maker::Helper(_)) {
            set = set.with(CapSet::SYS_ADMIN);
        }
        let mut sets = LinuxCapabilities::default();
        sets.set_bounding(Some(set.to_oci()))
            .set_effective(Some(set.to_oci()))
            .set_permitted(Some(set.to_oci()));
        let handed_on = self.is_insecure().then(|| self.capabilities.to_oci());
        sets.set_inheritable(Some(handed_on.clone().unwrap_or_default()))
            .set_ambient(Some(handed_on.unwrap_or_default()));
        sets
    }

    fn limits(&self) -> Result<Option<Vec<PosixRlimit>>, SpecError> {
        let limit = |(name, soft, hard): &(String, i64, i64)| {
            let typ = limit_type(name).ok_or_else(|| SpecError::UnknownLimit(name.clone()))?;
            let value = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
            let (soft, hard) = (value(*soft), value(*hard));
            if soft > hard {
                return Err(SpecError::LimitOrder(name.clone()));
            }
            let limit = PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build();
            Ok(limit.expect("all fields are given"))
        };
        let limits = self.ulimits.iter().map(limit).collect::<Result<Vec<_>, _>>()?;
        Ok((!limits.is_empty()).then_some(limits))
    }

    /// The default file systems, then what was asked for; of two at one place the later counts.
    fn mounts(&self) -> Vec<Mount> {
        let mut lines = self.default_mounts();
        for mount in self.mounts {
            match lines.iter_mut().find(|line| line.target == mount.target) {
                Some(line) => line.clone_from(mount),
                None => lines.push(mount.clone()),
            }
        }
        let oci = |line: MountLine| {
            let mut mount = Mount::default();
            mount
                .set_destination(PathBuf::from(line.target))
                .set_typ(Some(line.kind.to_owned()))
                .set_source(Some(PathBuf::from(line.source)))
                .set_options(Some(line.options));
            mount
        };
        lines.into_iter().map(oci).collect()
    }

    fn default_mounts(&self) -> Vec<MountLine> {
        let shm_bytes = if self.shm_bytes == 0 { SHM_BYTES } else { self.shm_bytes };
        let shm = format!("size={}k", shm_bytes.div_ceil(1024));
        let strict = ["nosuid", "noexec", "nodev"];
        let access = if self.is_insecure() { "rw" } else { "ro" };
        let sys = ["nosuid", "noexec", "nodev", access];
        let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
        let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
        let mut lines = vec![
            MountLine::new("proc", "/proc", "proc", &strict),
            MountLine::new("tmpfs", "/dev", "tmpfs", &dev),
            MountLine::new("devpts", "/dev/pts", "devpts", &pts),
            MountLine::new(
                "tmpfs",
                "/dev/shm",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &shm],
            ),
            MountLine::new("mqueue", "/dev/mqueue", "mqueue", &strict),
            MountLine::new("sysfs", "/sys", "sysfs", &sys),
        ];
        match &self.maker {
            Maker::Runtime { .. } => {
                lines.push(MountLine::new("cgroup", "/sys/fs/cgroup", "cgroup", &sys));
            }
            Maker::Helper(CgroupView::Unified) => {
                lines.push(MountLine::new("cgroup2", "/sys/fs/cgroup", "cgroup", &sys));
            }
            Maker::Helper(CgroupView::Nothing) => {}
            Maker::Helper(CgroupView::Split(controllers)) => {
                let tmpfs = ["nosuid", "noexec", "nodev", "mode=755", "size=64k"];
                lines.push(MountLine::new("tmpfs", "/sys/fs/cgroup", "tmpfs", &tmpfs));
                for (name, source) in controllers {
                    let target = format!("/sys/fs/cgroup/{name}");
                    let options = ["bind", "nosuid", "noexec", "nodev", access];
                    lines.push(MountLine::new("bind", &target, source, &options));
                }
            }
        }
        lines
    }

    fn linux(&self) -> Linux {
        let mut linux = Linux::default();
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let (masked, mut read_only) = match self.security {
            SecurityMode::Sandbox => (owned(&MASKED), owned(&READ_ONLY)),
            SecurityMode::Insecure => (Vec::new(), Vec::new()),
        };
        if !self.is_insecure() && matches!(self.maker, Maker::Helper(CgroupView::Split(_))) {
            read_only.push("/sys/fs/cgroup".to_owned());
        }
        let devices: Vec<LinuxDevice> = self.devices.iter().map(oci_device).collect();
        linux
            .set_namespaces(Some(self.namespaces()))
            .set_masked_paths(Some(masked))
            .set_readonly_paths(Some(read_only))
            .set_devices((!devices.is_empty()).then_some(devices))
            .set_resources(None)
            .set_cgroups_path(None)
            .set_seccomp(None);
        if let Maker::Runtime { cgroup_path, seccomp } = &self.maker {
            linux
                .set_cgroups_path(Some(PathBuf::from(cgroup_path)))
                .set_resources(Some(self.resources()));
            if !self.is_insecure() {
                linux.set_seccomp((**seccomp).clone());
            }
        }
        linux
    }

    fn namespaces(&self) -> Vec<LinuxNamespace> {
        use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
        let mut kinds = vec![Pid, Ipc, Uts, Mount];
        // A group of the first version cannot be the root of a namespace's view (EINVAL).
        if !matches!(self.maker, Maker::Helper(CgroupView::Split(_))) {
            kinds.push(Cgroup);
        }
        let namespace = |kind, path: Option<&str>| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind).set_path(path.map(PathBuf::from));
            namespace
        };
        let mut all: Vec<_> = kinds.into_iter().map(|kind| namespace(kind, None)).collect();
        if let NetworkNamespace::Path(path) = &self.network {
            all.push(namespace(Network, Some(path)));
        }
        all
    }

    /// Limits are not among them: those are set on the group that the runtime makes its own in.
    fn resources(&self) -> LinuxResources {
        let mut resources = LinuxResources::default();
        let rule = |allow: bool, device: Option<&DeviceNode>| {
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(allow).set_access(Some("rwm".to_owned()));
            if let Some(device) = device {
                rule.set_typ(Some(device_type(device.kind)))
                    .set_major(Some(device.major.into()))
                    .set_minor(Some(device.minor.into()));
            }
            rule
        };
        let mut rules = vec![rule(self.is_insecure(), None)];
        rules.extend(self.devices.iter().map(|device| rule(true, Some(device))));
        resources.set_devices(Some(rules));
        resources
    }
}

fn oci_device(node: &DeviceNode) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(&node.path))
        .set_typ(device_type(node.kind))
        .set_major(node.major.into())
        .set_minor(node.minor.into())
        .set_file_mode(Some(0o666))
        .set_uid(Some(0))
        .set_gid(Some(0));
    device
}

fn device_type(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Char => LinuxDeviceType::C,
    }
}

fn limit_type(name: &str) -> Option<PosixRlimitType> {
    use PosixRlimitType as T;
    Some(match name.to_ascii_lowercase().as_str() {
        "core" => T::RlimitCore,
        "cpu" => T::RlimitCpu,
        "data" => T::RlimitData,
        "fsize" => T::RlimitFsize,
        "locks" => T::RlimitLocks,
        "memlock" => T::RlimitMemlock,
        "msgqueue" => T::RlimitMsgqueue,
        "nice" => T::RlimitNice,
        "nofile" => T::RlimitNofile,
        "nproc" => T::RlimitNproc,
        "rss" => T::RlimitRss,
        "rtprio" => T::RlimitRtprio,
        "rttime" => T::RlimitRttime,
        "sigpending" => T::RlimitSigpending,
        "stack" => T::RlimitStack,
        "as" => T::RlimitAs,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
