//! Ends the process in the middle of its work, for tests of what a crash leaves behind.
//!
//! `SLIPWAY_CRASH_AT=phase:n` kills the farm by `SIGKILL` when it comes to that phase for the n-th
//! time (1: the first). The phases are those of [`Phase`]. Without the variable nothing happens.

use crate::store::disk::Hooks;
use rustix::process::Signal;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A part of the work that a crash can come in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bytes are taken into the store: before they are written, and before they are named.
    Ingest,
    /// What a step changed is read back: before its tree is made.
    Capture,
    /// A tree becomes visible.
    Publish,
    /// A record or a row is written, or the disk is made to keep what was written.
    Commit,
    /// What nobody needs is looked for, moved and deleted.
    Collect,
    /// Layers are packed, and outputs made.
    Export,
}

/// Why a text names no point to crash at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "SLIPWAY_CRASH_AT is `{0}`: expected PHASE:NUMBER with a phase of ingest, capture, publish, \
     commit, collect and export, and a number from 1 on"
)]
pub struct BadPoint(String);

/// Where to crash: in which phase, and at which time of coming to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    phase: Phase,
    time: u64,
}

impl FromStr for Point {
    type Err = BadPoint;

    fn from_str(text: &str) -> Result<Self, BadPoint> {
        let bad = || BadPoint(text.to_owned());
        let (phase, time) = text.split_once(':').ok_or_else(bad)?;
        let phase = match phase {
            "ingest" => Phase::Ingest,
            "capture" => Phase::Capture,
            "publish" => Phase::Publish,
            "commit" => Phase::Commit,
            "collect" => Phase::Collect,
            "export" => Phase::Export,
            _ => return Err(bad()),
        };
        let time = time.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Self { phase, time })
    }
}

static POINT: OnceLock<Point> = OnceLock::new();
static TIMES: AtomicU64 = AtomicU64::new(0);

/// Has this process crash there. Only the first call counts.
pub fn arm(point: Point) {
    let _ = POINT.set(point);
}

/// The work comes to this phase.
pub fn reach(phase: Phase) {
    let Some(point) = POINT.get().filter(|point| point.phase == phase) else { return };
    if TIMES.fetch_add(1, Ordering::Relaxed) + 1 == point.time {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        // The signal comes at once, but to a process, not to this thread.
        loop {
            std::thread::park();
        }
    }
}

/// Hooks for a store whose steps are parts of phases.
pub fn hooks() -> Hooks {
    Hooks { step: |name| phase_of(name).into_iter().for_each(reach), ..Hooks::default() }
}

/// The phase that a step of the store belongs to.
fn phase_of(step: &str) -> Option<Phase> {
    Some(match step {
        "append" | "install" | "index packed" | "index large" => Phase::Ingest,
        "index nodes" => Phase::Publish,
        "index record" | "index row" | "index chunks" | "sync segments" | "sync large"
        | "sync index" => Phase::Commit,
        "mark" | "sweep table" | "sweep trees" | "sweep blobs" | "delete file" | "sync moved"
        | "delete segment" | "move blobs" | "index moved" | "sync deletions" => Phase::Collect,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read() {
        assert_eq!("commit:3".parse(), Ok(Point { phase: Phase::Commit, time: 3 }));
        for bad in ["", "commit", "commit:", "commit:0", "commit:x", "lunch:1"] {
            let error = bad.parse::<Point>().unwrap_err();
            assert!(error.to_string().contains("ingest"), "{error}");
        }
    }

    #[test]
    fn without_a_point_nothing_happens() {
        reach(Phase::Export);
        (hooks().step)("append");
    }
}
