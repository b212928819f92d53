//! Why work waits, and how that is told.

use proto::id::WorkerId;
use proto::platform::Platform;
use std::fmt;

/// How much of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Processors, in thousandths.
    Cpu(u32),
    /// Bytes of memory.
    Memory(u64),
}

/// Why work waits. Its text is one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// There is no worker at all.
    NoWorker,
    /// No worker runs programs of its platform.
    NoPlatform {
        /// The platform.
        platform: Platform,
        /// How many workers there are.
        workers: u64,
    },
    /// No worker is large enough.
    TooLarge {
        /// What it needs.
        needs: Amount,
        /// What the largest worker has.
        largest: Amount,
    },
    /// All workers that could do it get nothing new.
    Cordoned {
        /// How many.
        workers: u64,
    },
    /// All workers that could do it are short of something.
    Pressure {
        /// How many.
        workers: u64,
        /// Whether some are short of memory.
        memory: bool,
        /// Whether some are short of disk.
        disk: bool,
    },
    /// It waits for the worker that has what it needs.
    Inputs {
        /// The worker.
        worker: WorkerId,
        /// Milliseconds until that is expected to have room: it waits no longer.
        in_ms: u64,
        /// Milliseconds that it would take to move everything to another one.
        moving_ms: u64,
    },
    /// It waits for a worker that needs no emulator.
    Native {
        /// The platform.
        platform: Platform,
        /// Milliseconds until one is expected to have room: it waits no longer.
        in_ms: u64,
    },
    /// A worker is being kept free for it, or for one like it that goes before it.
    Room {
        /// The worker.
        worker: WorkerId,
        /// Milliseconds until there is room.
        in_ms: u64,
    },
    /// Others have got less so far, and go first.
    Share {
        /// Whose share it is: a project, or a user in it.
        whose: String,
        /// Workers' slots that it has at the moment.
        slots: u64,
        /// About how many pieces of work go before it.
        before: u64,
        /// Milliseconds until it is expected to begin.
        in_ms: u64,
    },
    /// All workers that could do it are busy.
    Busy {
        /// How many.
        workers: u64,
        /// About how many pieces of work go before it.
        before: u64,
        /// Milliseconds until it is expected to begin.
        in_ms: u64,
    },
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(1000) => f.write_str("1 processor"),
            Self::Cpu(millis) => write!(f, "{} processors", f64::from(*millis) / 1000.0),
            Self::Memory(bytes) => write!(f, "{} of memory", Bytes(*bytes)),
        }
    }
}

/// Bytes in the largest unit that fits, to a tenth.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            (value, unit) = (value / 1024.0, unit + 1);
        }
        let tenths = (value * 10.0).round() / 10.0;
        write!(f, "{tenths} {}", UNITS[unit])
    }
}

/// A time as people say it.
struct About(u64);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_ceil(1000);
        match seconds {
            0..=1 => f.write_str("a second"),
            2..=119 => write!(f, "{seconds} s"),
            120..=7199 => write!(f, "{} min", seconds.div_ceil(60)),
            _ => write!(f, "{} h", seconds.div_ceil(3600)),
        }
    }
}

/// A number of things by name.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(n, what) = self;
        let s = if *n == 1 { "" } else { "s" };
        write!(f, "{n} {what}{s}")
    }
}

/// What stands in the line before work, and how long it takes.
struct Line(u64, u64);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(before, in_ms) = self;
        match before {
            0 => write!(f, "it is the next one")?,
            n => write!(f, "about {} before it", Count(*n, "step"))?,
        }
        write!(f, ", expected to begin in about {}", About(*in_ms))
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker => f.write_str("No worker is there"),
            Self::NoPlatform { platform, workers: 1 } => {
                write!(f, "The only worker does not run programs for {platform}")
            }
            Self::NoPlatform { platform, workers } => {
                write!(f, "None of the {workers} workers runs programs for {platform}")
            }
            Self::TooLarge { needs, largest } => {
                write!(f, "No worker is large enough: it needs {needs}, the largest has {largest}")
            }
            Self::Cordoned { workers } => {
                let workers = Count(*workers, "worker");
                write!(f, "What could do it gets no new work: {workers} cordoned or draining")
            }
            Self::Pressure { workers, memory, disk } => {
                let what = match (memory, disk) {
                    (true, true) => "memory or room on the disk",
                    (false, true) => "room on the disk",
                    (_, false) => "memory",
                };
                let workers = Count(*workers, "worker");
                write!(f, "What could do it is short of {what}: {workers}")
            }
            Self::Inputs { worker, in_ms, moving_ms } => write!(
                f,
                "It waits for worker {worker}, which has its inputs, for about {} at most; moving \
                 them would take {}",
                About(*in_ms),
                About(*moving_ms)
            ),
            Self::Native { platform, in_ms } => write!(
                f,
                "It waits for a worker that runs {platform} without an emulator, for about {} at \
                 most",
                About(*in_ms)
            ),
            Self::Room { worker, in_ms } => {
                let about = About(*in_ms);
                write!(f, "Worker {worker} is kept free for it, and has room in about {about}")
            }
            Self::Share { whose, slots, before, in_ms } => {
                let (slots, line) = (Count(*slots, "slot"), Line(*before, *in_ms));
                write!(f, "{whose} has its share of the workers ({slots}): {line}")
            }
            Self::Busy { workers: 1, before, in_ms } => {
                let line = Line(*before, *in_ms);
                write!(f, "The only worker that could do it is busy: {line}")
            }
            Self::Busy { workers, before, in_ms } => {
                let line = Line(*before, *in_ms);
                write!(f, "All {workers} workers that could do it are busy: {line}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(waiting: Waiting, text: &str) {
        assert_eq!(waiting.to_string(), text);
    }

    #[test]
    fn each_reason_is_a_sentence() {
        let worker = || WorkerId::parse("w1").expect("a worker id");
        let platform = || Platform::parse("linux/arm64").expect("a platform");
        check(Waiting::NoWorker, "No worker is there");
        check(
            Waiting::NoPlatform { platform: platform(), workers: 3 },
            "None of the 3 workers runs programs for linux/arm64",
        );
        check(
            Waiting::TooLarge {
                needs: Amount::Memory(64 << 30),
                largest: Amount::Memory(15 * (1 << 30) + (1 << 29)),
            },
            "No worker is large enough: it needs 64 GiB of memory, the largest has 15.5 GiB of \
             memory",
        );
        check(
            Waiting::TooLarge { needs: Amount::Cpu(16_000), largest: Amount::Cpu(1000) },
            "No worker is large enough: it needs 16 processors, the largest has 1 processor",
        );
        check(
            Waiting::Cordoned { workers: 1 },
            "What could do it gets no new work: 1 worker cordoned or draining",
        );
        check(
            Waiting::Pressure { workers: 2, memory: false, disk: true },
            "What could do it is short of room on the disk: 2 workers",
        );
        check(
            Waiting::Inputs { worker: worker(), in_ms: 12_000, moving_ms: 65_000 },
            "It waits for worker w1, which has its inputs, for about 12 s at most; moving them \
             would take 65 s",
        );
        check(
            Waiting::Native { platform: platform(), in_ms: 300_000 },
            "It waits for a worker that runs linux/arm64 without an emulator, for about 5 min at \
             most",
        );
        check(
            Waiting::Room { worker: worker(), in_ms: 900 },
            "Worker w1 is kept free for it, and has room in about a second",
        );
        check(
            Waiting::Share { whose: "Project web".into(), slots: 8, before: 1, in_ms: 3000 },
            "Project web has its share of the workers (8 slots): about 1 step before it, expected \
             to begin in about 3 s",
        );
        check(
            Waiting::Busy { workers: 4, before: 0, in_ms: 7_200_000 },
            "All 4 workers that could do it are busy: it is the next one, expected to begin in \
             about 2 h",
        );
    }
}
