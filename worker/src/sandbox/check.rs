//! What running containers takes of a machine, in one place.

use proto::error::{Class, Failure};

/// The capabilities that are needed, by number and name: making mounts and namespaces, files of any
/// owner, devices, and moving processes about.
const CAPABILITIES: [(u32, &str); 9] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (6, "SETGID"),
    (7, "SETUID"),
    (8, "SETPCAP"),
    (21, "SYS_ADMIN"),
    (27, "MKNOD"),
    (12, "NET_ADMIN"),
];

/// Says what this machine, or this process's rights on it, lacks for running containers.
pub fn check_machine() -> Result<(), Failure> {
    let euid = rustix::process::geteuid();
    let status = super::read_host("/proc/self/status");
    let file_systems = super::read_host("/proc/filesystems");
    check(euid.is_root(), &status, &file_systems, |namespace| {
        std::path::Path::new("/proc/self/ns").join(namespace).exists()
    })?;
    check_mount_calls()
}

fn check(
    is_root: bool,
    status: &str,
    file_systems: &str,
    has_namespace: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let denied = |message: String, hint: &str| {
        Err(Failure::new(Class::Denied, message).hint(hint.to_owned()))
    };
    if !is_root {
        return denied(
            "Running containers needs root".to_owned(),
            "Start the builder as root, for instance with sudo; the client needs no privilege",
        );
    }
    let held = effective(status);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(number, _)| held & 1 << number == 0)
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        return denied(
            format!(
                "Running containers needs capabilities that root lacks here: {}",
                missing.join(", ")
            ),
            "Inside of a container, start that with --privileged",
        );
    }
    for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
        if !has_namespace(namespace) {
            return denied(
                format!("This kernel has no `{namespace}` namespaces, which containers need"),
                "Use a kernel with CONFIG_NAMESPACES and all that is below it",
            );
        }
    }
    let has = |name: &str| file_systems.lines().any(|line| line.split('\t').nth(1) == Some(name));
    if !has("overlay") && !std::path::Path::new("/lib/modules").exists() {
        return denied(
            "This kernel has no overlay file system, which root file systems need".to_owned(),
            "Load it (`modprobe overlay`), or use a kernel with CONFIG_OVERLAY_FS",
        );
    }
    Ok(())
}

fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Tries the calls that mounts are made with. Opening the file system also loads its module.
fn check_mount_calls() -> Result<(), Failure> {
    use rustix::io::Errno;
    use rustix::mount::{FsOpenFlags, fsopen};
    let failure = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => return Ok(()),
        Err(Errno::NODEV) => Failure::new(
            Class::Denied,
            "This kernel has no overlay file system, which root file systems need",
        )
        .hint("Load it (`modprobe overlay`), or use a kernel with CONFIG_OVERLAY_FS"),
        Err(Errno::NOSYS) => Failure::new(
            Class::Denied,
            "This kernel is too old to run containers: it has no fsopen(2)",
        )
        .hint("Use Linux 5.12 or newer"),
        Err(e) => Failure::new(Class::Denied, format!("File systems cannot be mounted here: {e}"))
            .hint("Inside of a container, start that with --privileged"),
    };
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "Name:\tx\nCapEff:\t000001ffffffffff\n";
    const FILE_SYSTEMS: &str = "nodev\ttmpfs\nnodev\toverlay\n\text4\n";

    #[test]
    fn what_is_missing_is_named() {
        let all = |_: &str| true;
        assert_eq!(check(true, ALL, FILE_SYSTEMS, all), Ok(()));
        let failure = check(false, ALL, FILE_SYSTEMS, all).unwrap_err();
        assert!(failure.message.contains("root"), "{failure}");
        let docker = "CapEff:\t00000000a80425fb\n";
        let failure = check(true, docker, FILE_SYSTEMS, all).unwrap_err();
        assert!(failure.message.ends_with("SYS_ADMIN, NET_ADMIN"), "{failure}");
        let failure = check(true, ALL, FILE_SYSTEMS, |name| name != "pid").unwrap_err();
        assert!(failure.message.contains("`pid`"), "{failure}");
        for failure in [check(false, "", "", all).unwrap_err(), failure] {
            assert!(failure.hint.is_some());
            assert_eq!(failure.class, Class::Denied);
        }
    }

    #[test]
    fn this_machine_can() {
        assert_eq!(check_machine(), Ok(()));
    }
}
