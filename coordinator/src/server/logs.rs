//! Logs of running steps: whoever joins late sees them from the beginning.

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
    listeners: Vec<(BuildId, VertexId)>,
}

impl Default for Log {
    fn default() -> Self {
        Self { text: SpooledTempFile::new(IN_MEMORY_BYTES), bytes: 0, listeners: Vec::new() }
    }
}

impl LogHub {
    /// Somebody wants a lease's log; answers what there is of it so far, and what stands before that.
    pub fn listen(&self, lease: LeaseEpoch, build: BuildId, vertex: VertexId) -> (u64, Vec<u8>) {
        let mut logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        let log = logs.entry(lease).or_default();
        if log.listeners.contains(&(build.clone(), vertex)) {
            return (0, Vec::new());
        }
        log.listeners.push((build, vertex));
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
        let mut logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
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
        log.listeners.clone()
    }

    /// How many bytes there are of each log.
    pub fn heard(&self) -> Vec<(LeaseEpoch, u64)> {
        let logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        logs.iter().map(|(lease, log)| (*lease, log.bytes)).collect()
    }

    /// Who wants what happens under a lease.
    pub fn listeners(&self, lease: LeaseEpoch) -> Vec<(BuildId, VertexId)> {
        let logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        logs.get(&lease).map_or(Vec::new(), |log| log.listeners.clone())
    }

    /// The lease has ended: its log, to keep.
    pub fn take(&self, lease: LeaseEpoch) -> Option<SpooledTempFile> {
        let mut logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        let mut log = logs.remove(&lease).filter(|log| log.bytes > 0)?;
        log.text.seek(SeekFrom::Start(0)).ok()?;
        Some(log.text)
    }

    /// What there is of a lease's log, to keep.
    pub fn copy(&self, lease: LeaseEpoch) -> Option<SpooledTempFile> {
        let mut logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        let log = logs.get_mut(&lease).filter(|log| log.bytes > 0)?;
        let mut copy = SpooledTempFile::new(IN_MEMORY_BYTES);
        log.text.seek(SeekFrom::Start(0)).ok()?;
        std::io::copy(&mut log.text, &mut copy).ok()?;
        log.text.seek(SeekFrom::End(0)).ok()?;
        copy.seek(SeekFrom::Start(0)).ok()?;
        Some(copy)
    }

    /// Nobody needs the log any more.
    pub fn forget(&self, build: &BuildId) {
        let mut logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        logs.retain(|_, log| {
            log.listeners.retain(|(b, _)| b != build);
            !log.listeners.is_empty()
        });
    }
}

impl Log {
    fn read(&mut self, from: u64) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.text.seek(SeekFrom::Start(from))?;
        self.text.read_to_end(&mut out)?;
        self.text.seek(SeekFrom::End(0))?;
        Ok(out)
    }
}
