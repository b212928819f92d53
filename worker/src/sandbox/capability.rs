//! Capabilities: Docker's default set, and all that this kernel has. Pure.

use oci_spec::runtime::{Capabilities, Capability};

/// The capabilities' names, by number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, as `/proc/<pid>/status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapSet(pub u64);

impl CapSet {
    /// Docker's.
    pub(crate) const DEFAULT: Self = Self(0xa804_25fb);
    /// What sets up a filter of system calls.
    pub(crate) const SYS_ADMIN: u32 = 21;

    /// With this one too.
    pub(crate) const fn with(self, number: u32) -> Self {
        Self(self.0 | 1 << number)
    }

    /// All that this process may hand on, read from a `/proc/self/status`.
    pub(crate) fn bounding(status: &str) -> Self {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        Self(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    /// As a spec lists them. Those that this list does not know yet are left out.
    pub(crate) fn to_oci(self) -> Capabilities {
        let numbers = (0..NAMES.len()).filter(|number| self.0 & 1 << number != 0);
        let names = numbers.map(|number| format!("CAP_{}", NAMES[number]).into());
        names.filter_map(|name| serde_json::from_value::<Capability>(name).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_set_has_its_fourteen_names() {
        let mut names: Vec<String> = CapSet::DEFAULT
            .to_oci()
            .iter()
            .map(|cap| serde_json::to_value(cap).unwrap().as_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "CAP_AUDIT_WRITE",
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_FSETID",
                "CAP_KILL",
                "CAP_MKNOD",
                "CAP_NET_BIND_SERVICE",
                "CAP_NET_RAW",
                "CAP_SETFCAP",
                "CAP_SETGID",
                "CAP_SETPCAP",
                "CAP_SETUID",
                "CAP_SYS_CHROOT",
            ]
        );
        assert_eq!(CapSet((1 << 41) - 1).to_oci().len(), 41);
        assert_eq!(CapSet::bounding("Name:\tx\nCapBnd:\t00000000a80425fb\n"), CapSet::DEFAULT);
    }
}
