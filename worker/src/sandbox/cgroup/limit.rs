//! Limits, as the files of both versions of control groups take them.

/// What the processes of one container may use together. None, and an empty list: as much as there
/// is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// What of a limited memory may be swapped out.
    pub swap: Swap,
    /// Processors, in thousandths.
    pub cpu_millis: Option<u32>,
    /// The weight beside other groups when processors are short: 2 to 262144, usually 1024.
    pub cpu_shares: Option<u64>,
    /// The processors that they may use, as the kernel writes lists (`0-2,7`).
    pub cpus: String,
    /// The memory nodes that they may use, likewise.
    pub memory_nodes: String,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Swap beside a limited memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swap {
    /// As much as there may be memory: Docker's default.
    #[default]
    AsMemory,
    /// So many bytes.
    Bytes(u64),
    /// As much as there is.
    Unlimited,
}

/// Our own helper's processes, which live in the same group.
const OWN_PIDS: u32 = 4;

const PERIOD_US: u64 = 100_000;

/// The least quota that the kernel takes.
const QUOTA_US_MIN: u64 = 1000;

/// The least and the largest weight of the first version.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

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

    /// Bytes of swap, if there is a limit, and whether it was asked for.
    fn swap_bytes(&self) -> Option<(u64, bool)> {
        match self.swap {
            Swap::AsMemory => self.memory_bytes.map(|bytes| (bytes, false)),
            Swap::Bytes(bytes) => Some((bytes, true)),
            Swap::Unlimited => None,
        }
    }

    /// The weight in the second version, 1 to 10000, as runc converts it.
    fn weight(&self) -> Option<u64> {
        let shares = self.cpu_shares?.clamp(SHARES_MIN, SHARES_MAX);
        Some(1 + (shares - SHARES_MIN) * 9999 / (SHARES_MAX - SHARES_MIN))
    }

    /// For the first version, in the order in which the kernel takes them: what memory and swap are
    /// together may never be below memory alone.
    pub(super) fn first(&self) -> Vec<Setting> {
        let memory = self.memory_bytes.unwrap_or(0);
        let both = self.swap_bytes().map(|(swap, _)| memory.saturating_add(swap).to_string());
        let free = |file| Setting { controller: "memory", file, value: "-1".into(), needed: false };
        let shares = self.cpu_shares.map(|s| s.clamp(SHARES_MIN, SHARES_MAX).to_string());
        vec![
            free("memory.memsw.limit_in_bytes"),
            setting(
                "memory",
                "memory.limit_in_bytes",
                self.memory_bytes.map(|m| m.to_string()),
                "-1",
            ),
            Setting {
                needed: self.swap_bytes().is_some_and(|(_, asked)| asked),
                ..setting("memory", "memory.memsw.limit_in_bytes", both, "-1")
            },
            setting("cpu", "cpu.cfs_quota_us", self.quota_us().map(|q| q.to_string()), "-1"),
            setting("cpu", "cpu.shares", shares, "1024"),
            setting("pids", "pids.max", self.pids_text(), "max"),
        ]
    }

    /// For the second version.
    pub(super) fn second(&self) -> Vec<Setting> {
        let memory = self.memory_bytes.map(|m| m.to_string());
        let swap = self.swap_bytes().map(|(swap, _)| swap.to_string());
        let quota = self.quota_us().map(|quota| format!("{quota} {PERIOD_US}"));
        let list = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        vec![
            setting("memory", "memory.max", memory, "max"),
            Setting {
                needed: self.swap_bytes().is_some_and(|(_, asked)| asked),
                ..setting("memory", "memory.swap.max", swap, "max")
            },
            setting("cpu", "cpu.max", quota, &format!("max {PERIOD_US}")),
            setting("cpu", "cpu.weight", self.weight().map(|w| w.to_string()), "100"),
            setting("cpuset", "cpuset.cpus", list(&self.cpus), ""),
            setting("cpuset", "cpuset.mems", list(&self.memory_nodes), ""),
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
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            cpu_millis: Some(1500),
            pids: Some(10),
            ..Limits::default()
        };
        assert_eq!(
            lines(limits.first()),
            [
                "memory.memsw.limit_in_bytes=-1",
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "cpu.cfs_quota_us=150000",
                "cpu.shares=1024",
                "pids.max=14",
            ]
        );
        assert_eq!(
            lines(limits.second()),
            [
                "memory.max=1048576",
                "memory.swap.max=1048576",
                "cpu.max=150000 100000",
                "cpu.weight=100",
                "cpuset.cpus=",
                "cpuset.mems=",
                "pids.max=14"
            ]
        );
        assert!(limits.first().iter().filter(|s| s.needed).count() == 3);
        assert!(Limits::default().second().iter().all(|s| !s.needed));
        let little = Limits { cpu_millis: Some(1), ..Limits::default() };
        assert!(lines(little.first()).contains(&"cpu.cfs_quota_us=1000".to_owned()));
    }

    #[test]
    fn swap_and_weight() {
        let has = |limits: &Limits, first: &str, second: &str| {
            let (in_first, in_second) = (lines(limits.first()), lines(limits.second()));
            assert!(in_first.contains(&first.to_owned()), "{first} in {in_first:?}");
            assert!(in_second.contains(&second.to_owned()), "{second} in {in_second:?}");
        };
        let limits = |swap| Limits { memory_bytes: Some(1000), swap, ..Limits::default() };
        has(&limits(Swap::AsMemory), "memory.memsw.limit_in_bytes=2000", "memory.swap.max=1000");
        has(&limits(Swap::Bytes(0)), "memory.memsw.limit_in_bytes=1000", "memory.swap.max=0");
        has(&limits(Swap::Unlimited), "memory.memsw.limit_in_bytes=-1", "memory.swap.max=max");
        let weight = |shares| Limits { cpu_shares: Some(shares), ..Limits::default() };
        has(&weight(1024), "cpu.shares=1024", "cpu.weight=39");
        has(&weight(2), "cpu.shares=2", "cpu.weight=1");
        has(&weight(1 << 40), "cpu.shares=262144", "cpu.weight=10000");
    }
}
