//! Logs of running steps: whoever joins late sees them from the beginning.

use super::locked;
use proto::id::{BuildId, LeaseEpoch, Millis};
use proto::limit;
use proto::wire::build::{Stream, VertexId};
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use tempfile::SpooledTempFile;

/// Bytes of one log that are kept in memory; more go to a file.
const IN_MEMORY_BYTES: usize = 256 << 10;

/// Bytes of the older part of a log that somebody who joins late is shown at once.
const REPLAY_BYTES_MAX: u64 = 1 << 20;

/// A piece of a log.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where the step wrote to.
    pub stream: Stream,
    /// When.
    pub at: Millis,
    /// What.
    pub data: Vec<u8>,
}

/// The logs of all running steps.
#[derive(Default)]
pub struct LogHub {
    logs: Mutex<HashMap<LeaseEpoch, Log>>,
}

struct Log {
    text: SpooledTempFile,
    bytes: u64,
    listeners: Vec<Listener>,
}

/// A build that wants a log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listener {
    build: BuildId,
    vertex: VertexId,
    /// Whether it has been told what there was, and hears what comes. Until then it is told later.
    hears: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { text: SpooledTempFile::new(IN_MEMORY_BYTES), bytes: 0, listeners: Vec::new() }
    }
}

impl LogHub {
    /// A build will want a lease's log: it is kept until it was told of it.
    pub fn expect(&self, lease: LeaseEpoch, build: &BuildId, vertex: VertexId) {
        let mut logs = locked(&self.logs);
        logs.entry(lease).or_default().listener(build, vertex);
    }

    /// Somebody wants a lease's log; answers what there is of it so far, and what stands before that.
    pub fn listen(&self, lease: LeaseEpoch, build: &BuildId, vertex: VertexId) -> (u64, Vec<u8>) {
        let mut logs = locked(&self.logs);
        let log = logs.entry(lease).or_default();
        let listener = log.listener(build, vertex);
        if std::mem::replace(&mut listener.hears, true) {
            return (0, Vec::new());
        }
        let skip = log.bytes.saturating_sub(REPLAY_BYTES_MAX);
        (skip, log.read(skip).unwrap_or_default())
    }

    /// A piece came that stands behind `offset` bytes of its log: takes what of it is new, and
    /// answers who wants that. What does not join on is left out: the worker says it again.
    pub fn add(
        &self,
        lease: LeaseEpoch,
        offset: u64,
        piece: &mut Piece,
    ) -> Vec<(BuildId, VertexId)> {
        let mut logs = locked(&self.logs);
        let log = logs.entry(lease).or_default();
        let Some(known) = log.bytes.checked_sub(offset) else { return Vec::new() };
        if known >= piece.data.len() as u64 {
            return Vec::new();
        }
        piece.data.drain(..known as usize);
        if log.bytes < limit::STEP_LOG_BYTES_MAX {
            if let Err(e) = log.text.write_all(&piece.data) {
                tracing::warn!("a step's log cannot be kept: {e}");
            }
            log.bytes += piece.data.len() as u64;
        }
        log.listeners.iter().filter(|l| l.hears).map(Listener::place).collect()
    }

    /// How many bytes there are of each log.
    pub fn heard(&self) -> Vec<(LeaseEpoch, u64)> {
        let logs = locked(&self.logs);
        logs.iter().map(|(lease, log)| (*lease, log.bytes)).collect()
    }

    /// Who wants what happens under a lease.
    pub fn listeners(&self, lease: LeaseEpoch) -> Vec<(BuildId, VertexId)> {
        let logs = locked(&self.logs);
        let of = |log: &Log| log.listeners.iter().map(Listener::place).collect();
        logs.get(&lease).map_or(Vec::new(), of)
    }

    /// The lease has ended: its log, to keep.
    pub fn take(&self, lease: LeaseEpoch) -> Option<SpooledTempFile> {
        let mut logs = locked(&self.logs);
        if logs.get(&lease).is_some_and(|log| log.listeners.iter().any(|l| !l.hears)) {
            drop(logs);
            return self.copy(lease);
        }
        let mut log = logs.remove(&lease).filter(|log| log.bytes > 0)?;
        log.text.seek(SeekFrom::Start(0)).ok()?;
        Some(log.text)
    }

    /// What there is of a lease's log, to keep.
    pub fn copy(&self, lease: LeaseEpoch) -> Option<SpooledTempFile> {
        let mut logs = locked(&self.logs);
        let log = logs.get_mut(&lease).filter(|log| log.bytes > 0)?;
        let mut copy = SpooledTempFile::new(IN_MEMORY_BYTES);
        log.text.seek(SeekFrom::Start(0)).ok()?;
        std::io::copy(&mut log.text, &mut copy).ok()?;
        log.text.seek(SeekFrom::End(0)).ok()?;
        copy.seek(SeekFrom::Start(0)).ok()?;
        Some(copy)
    }

    /// A build needs no logs any more. Those that nobody has asked for yet stay: after a new
    /// beginning workers say them before the builds are known again.
    pub fn forget(&self, build: &BuildId) {
        let mut logs = locked(&self.logs);
        logs.retain(|_, log| {
            let before = log.listeners.len();
            log.listeners.retain(|l| l.build != *build);
            before == 0 || !log.listeners.is_empty()
        });
    }

    /// A lease is over: nobody asks for its log who has not by now.
    pub fn released(&self, lease: LeaseEpoch) {
        let mut logs = locked(&self.logs);
        if logs.get(&lease).is_some_and(|log| log.listeners.is_empty()) {
            logs.remove(&lease);
        }
    }
}

impl Listener {
    fn place(&self) -> (BuildId, VertexId) {
        (self.build.clone(), self.vertex)
    }
}

impl Log {
    fn listener(&mut self, build: &BuildId, vertex: VertexId) -> &mut Listener {
        let is_it = |l: &Listener| l.build == *build && l.vertex == vertex;
        let at = self.listeners.iter().position(is_it).unwrap_or_else(|| {
            self.listeners.push(Listener { build: build.clone(), vertex, hears: false });
            self.listeners.len() - 1
        });
        &mut self.listeners[at]
    }

    fn read(&mut self, from: u64) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.text.seek(SeekFrom::Start(from))?;
        self.text.read_to_end(&mut out)?;
        self.text.seek(SeekFrom::End(0))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseEpoch = LeaseEpoch(1);
    const VERTEX: VertexId = VertexId(1);

    fn build(name: &str) -> BuildId {
        BuildId::parse(name).unwrap()
    }

    fn add(hub: &LogHub, offset: u64, text: &str) -> usize {
        let data = text.as_bytes().to_vec();
        let mut piece = Piece { stream: Stream::Stdout, at: Millis(0), data };
        hub.add(LEASE, offset, &mut piece).len()
    }

    fn text(mut log: SpooledTempFile) -> String {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_build_that_is_told_late_misses_nothing() {
        let hub = LogHub::default();
        hub.expect(LEASE, &build("late"), VERTEX);
        assert_eq!(add(&hub, 0, "one "), 0, "it hears nothing yet");
        hub.forget(&build("other"));
        assert_eq!(add(&hub, 4, "two"), 0);
        assert_eq!(hub.take(LEASE).map(text).as_deref(), Some("one two"));
        assert_eq!(hub.listen(LEASE, &build("late"), VERTEX), (0, b"one two".to_vec()));
        hub.forget(&build("late"));
        assert!(hub.heard().is_empty());
    }

    #[test]
    fn what_nobody_has_asked_for_is_kept_as_long_as_its_lease() {
        let hub = LogHub::default();
        add(&hub, 0, "said again");
        hub.forget(&build("other"));
        assert_eq!(hub.heard(), [(LEASE, 10)]);
        hub.released(LEASE);
        assert!(hub.heard().is_empty());
    }
}
