//! Limits, as the files of both versions of control groups take them.

/// What the processes of one container may use together. None: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of memory. As much again may be swapped out.
    pub memory_bytes: Option<u64>,
    /// Processors, in thousandths.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Our own helper's processes, which live in the same group.
const OWN_PIDS: u32 = 4;

const PERIOD_US: u64 = 100_000;

/// The least quota that the kernel takes.
const QUOTA_US_MIN: u64 = 1000;

/// What is written to one file; `needed` when it must succeed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub controller: &'static str,
    pub file: &'static str,
    pub value: String,
    pub needed: bool,
}

fn setting(
    controller: &'static str,
    file: &'static str,
    value: Option<String>,
    none: &str,
) -> Setting {
    let needed = value.is_some();
    Setting { controller, file, value: value.unwrap_or_else(|| none.to_owned()), needed }
}

impl Limits {
    fn quota_us(&self) -> Option<u64> {
        self.cpu_millis.map(|m| (u64::from(m) * PERIOD_US / 1000).max(QUOTA_US_MIN))
    }

    fn pids_text(&self) -> Option<String> {
        self.pids.map(|pids| pids.saturating_add(OWN_PIDS).to_string())
    }

    /// For the first version, in the order in which the kernel takes them: what memory and swap are
    /// together may never be below memory alone.
    pub(super) fn first(&self) -> Vec<Setting> {
        let both = self.memory_bytes.map(|m| m.saturating_mul(2).to_string());
        let free = |file| Setting { controller: "memory", file, value: "-1".into(), needed: false };
        vec![
            free("memory.memsw.limit_in_bytes"),
            setting(
                "memory",
                "memory.limit_in_bytes",
                self.memory_bytes.map(|m| m.to_string()),
                "-1",
            ),
            Setting {
                needed: false,
                ..setting("memory", "memory.memsw.limit_in_bytes", both, "-1")
            },
            setting("cpu", "cpu.cfs_quota_us", self.quota_us().map(|q| q.to_string()), "-1"),
            setting("pids", "pids.max", self.pids_text(), "max"),
        ]
    }

    /// For the second version.
    pub(super) fn second(&self) -> Vec<Setting> {
        let memory = || self.memory_bytes.map(|m| m.to_string());
        let quota = self.quota_us().map(|quota| format!("{quota} {PERIOD_US}"));
        vec![
            setting("memory", "memory.max", memory(), "max"),
            Setting { needed: false, ..setting("memory", "memory.swap.max", memory(), "max") },
            setting("cpu", "cpu.max", quota, &format!("max {PERIOD_US}")),
            setting("pids", "pids.max", self.pids_text(), "max"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(settings: Vec<Setting>) -> Vec<String> {
        settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn limits_in_both_versions() {
        let limits = Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(1500), pids: Some(10) };
        assert_eq!(
            lines(limits.first()),
            [
                "memory.memsw.limit_in_bytes=-1",
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "cpu.cfs_quota_us=150000",
                "pids.max=14",
            ]
        );
        assert_eq!(
            lines(limits.second()),
            [
                "memory.max=1048576",
                "memory.swap.max=1048576",
                "cpu.max=150000 100000",
                "pids.max=14"
            ]
        );
        assert!(limits.first().iter().filter(|s| s.needed).count() == 3);
        assert!(Limits::default().second().iter().all(|s| !s.needed && s.value.contains("max")));
        let little = Limits { cpu_millis: Some(1), ..Limits::default() };
        assert!(lines(little.first()).contains(&"cpu.cfs_quota_us=1000".to_owned()));
    }
}
