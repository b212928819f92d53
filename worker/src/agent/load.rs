//! What this machine has, and what it is short of.
//!
//! A worker among others says when it is short, and gets no more work as long as it is:
//!
//! - **memory**: less than a sixteenth of it is available (`MemAvailable`, or what is left of the
//!   control group's limit), or for a tenth of the last ten seconds nothing at all got on because
//!   memory was short (`full avg10` of `/proc/pressure/memory`, where the kernel has it);
//! - **disk**: less than 2 GiB, or less than a twentieth of a smaller disk, is free where it works.
//!
//! It is not short any more when there is twice as much: what is near the edge would go to and fro.

use proto::wire::worker::Pressure;
use std::path::PathBuf;

/// Of the memory, how much is available at least: one part of so many.
const MEMORY_PART: u64 = 16;

/// Percent of the time in which nothing gets on for want of memory, at most.
const STALLED_PERCENT: f64 = 10.0;

/// Of the disk, how many bytes are free at least; of a small one, one part of so many.
const DISK_BYTES: u64 = 2 << 30;
const DISK_PART: u64 = 20;

/// What a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Bytes of memory that there are in all.
    pub memory_bytes: u64,
    /// Bytes that are free on the disk.
    pub disk_free_bytes: u64,
    /// What it is short of.
    pub pressure: Pressure,
}

/// Where to look.
pub struct Probe {
    dir: PathBuf,
    /// The folder of the control group that limits our memory, if one does.
    group: Option<PathBuf>,
    /// Whether nobody needs to know what the machine is short of.
    is_alone: bool,
}

/// Bytes of memory: in all, and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
}

impl Probe {
    /// Looks at the disk of `dir`, and at the memory that containers may use: that of the group
    /// `group`, when it has a limit.
    pub fn new(dir: PathBuf, group: Option<PathBuf>, is_alone: bool) -> Self {
        Self { dir, group, is_alone }
    }

    /// What there is. `before` is what the machine was short of when it was looked at last. What
    /// the kernel does not tell is 0, and it is not short of that.
    pub fn look(&self, before: Pressure) -> Load {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let machine = meminfo(&read("/proc/meminfo"));
        let memory = match (machine, self.group()) {
            (Some(machine), Some(group)) if group.total < machine.total => {
                Some(Memory { available: group.available.min(machine.available), ..group })
            }
            (machine, _) => machine,
        };
        let stalled = stalled_percent(&read("/proc/pressure/memory"));
        let stat = rustix::fs::statvfs(&self.dir).ok();
        let disk = stat.map(|s| (s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize));
        let pressure = match self.is_alone {
            true => Pressure::default(),
            false => Pressure {
                memory: short_of_memory(memory, stalled, before.memory),
                disk: short_of_disk(disk, before.disk),
            },
        };
        Load {
            memory_bytes: memory.map_or(0, |m| m.total),
            disk_free_bytes: disk.map_or(0, |(_, free)| free),
            pressure,
        }
    }

    /// The limited memory of the group, in either version of control groups.
    fn group(&self) -> Option<Memory> {
        let dir = self.group.as_ref()?;
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let total = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
        let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
        let cached = inactive_file(&read("memory.stat").unwrap_or_default());
        Some(Memory { total, available: total.saturating_sub(used.saturating_sub(cached)) })
    }
}

/// Reads `/proc/meminfo` (proc_meminfo(5)).
fn meminfo(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    Some(Memory { total: field("MemTotal:")?, available: field("MemAvailable:")? })
}

/// Bytes of files that the kernel gives up first, from a group's `memory.stat`.
fn inactive_file(text: &str) -> u64 {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    value("total_inactive_file ").or_else(|| value("inactive_file ")).unwrap_or(0)
}

/// The share of the last ten seconds in which nothing got on, from `/proc/pressure/memory`
/// (Documentation/accounting/psi.rst).
fn stalled_percent(text: &str) -> Option<f64> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    full.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

fn short_of_memory(memory: Option<Memory>, stalled: Option<f64>, before: bool) -> bool {
    let twice = if before { 2 } else { 1 };
    let few = memory.is_some_and(|m| m.available < m.total / MEMORY_PART * twice);
    few || stalled.is_some_and(|percent| percent * twice as f64 >= STALLED_PERCENT)
}

/// `disk` is how large it is, and how much of it is free.
fn short_of_disk(disk: Option<(u64, u64)>, before: bool) -> bool {
    let twice = if before { 2 } else { 1 };
    disk.is_some_and(|(total, free)| free < DISK_BYTES.min(total / DISK_PART) * twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:         200000 kB\n\
                           MemAvailable:    900000 kB\nBuffers:          10000 kB\n";

    #[test]
    fn the_kernel_s_files_are_read() {
        let memory = meminfo(MEMINFO).unwrap();
        assert_eq!((memory.total, memory.available), (16_384_000_000, 921_600_000));
        assert_eq!(meminfo("MemTotal: 1 kB\n"), None);
        let psi = "some avg10=20.10 avg60=1.00 avg300=0.00 total=1\n\
                   full avg10=12.50 avg60=0.50 avg300=0.00 total=1\n";
        assert_eq!(stalled_percent(psi), Some(12.5));
        assert_eq!(stalled_percent(""), None);
        assert_eq!(inactive_file("cache 5\ninactive_file 7\n"), 7);
        assert_eq!(inactive_file("inactive_file 7\ntotal_inactive_file 9\n"), 9);
        assert_eq!(inactive_file(""), 0);
    }

    #[test]
    fn short_is_less_than_a_part_and_no_more_with_twice_as_much() {
        let memory = |available| Some(Memory { total: 1600, available });
        let cases = [(99, false, true), (100, false, false), (150, true, true), (200, true, false)];
        for (available, before, short) in cases {
            assert_eq!(short_of_memory(memory(available), None, before), short, "{available}");
        }
        assert!(short_of_memory(memory(1600), Some(10.0), false));
        assert!(!short_of_memory(memory(1600), Some(9.9), false));
        assert!(short_of_memory(memory(1600), Some(5.0), true));
        assert!(!short_of_memory(None, None, true), "what is not known is not short");
        let gib = 1 << 30;
        let cases = [
            (100 * gib, 2 * gib - 1, false, true),
            (100 * gib, 2 * gib, false, false),
            (100 * gib, 3 * gib, true, true),
            (100 * gib, 4 * gib, true, false),
            (10 * gib, gib / 2 - 1, false, true),
            (10 * gib, gib / 2, false, false),
        ];
        for (total, free, before, short) in cases {
            assert_eq!(short_of_disk(Some((total, free)), before), short, "{free} of {total}");
        }
    }

    #[test]
    fn a_group_s_limit_counts() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        let probe = |alone| Probe::new("/".into(), Some(group.path().to_owned()), alone);
        let look = |alone| probe(alone).look(Pressure::default());
        write("memory.max", "max\n");
        let machine = look(false).memory_bytes;
        assert!(machine > 64 << 20, "that of the machine: {machine}");
        write("memory.max", "67108864\n");
        write("memory.current", "66000000\n");
        write("memory.stat", "anon 1\ninactive_file 60000000\n");
        let limited = Memory { total: 64 << 20, available: 61_108_864 };
        assert_eq!((probe(false).group(), look(false).memory_bytes), (Some(limited), 64 << 20));
        write("memory.stat", "anon 66000000\ninactive_file 0\n");
        assert!(look(false).pressure.memory);
        assert!(!look(true).pressure.memory, "one that is alone is short of nothing");
    }
}
