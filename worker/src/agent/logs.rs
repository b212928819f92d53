//! What running steps have written: kept here until the coordinator has taken note of how they
//! ended, so that one that was away, or was started again, hears all of it.

use proto::id::{LeaseEpoch, Millis};
use proto::limit;
use proto::wire::build::Stream;
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use tempfile::SpooledTempFile;

/// Bytes of one log that are kept in memory; more go to a file.
const IN_MEMORY_BYTES: usize = 64 << 10;

/// Bytes before each piece: the stream, when, and how many bytes.
const HEAD_BYTES: usize = 1 + 8 + 4;

/// A piece of a log, and where in the log it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the log before it.
    pub offset: u64,
    /// Where the step wrote to.
    pub stream: Stream,
    /// When.
    pub at: Millis,
    /// What.
    pub data: Vec<u8>,
}

/// The logs of the steps of one worker.
#[derive(Default)]
pub struct Logs(Mutex<HashMap<LeaseEpoch, Log>>);

/// One log: pieces one behind the other.
struct Log {
    pieces: SpooledTempFile,
    bytes: u64,
}

/// One log, while nothing can be added to it.
pub struct Held<'l> {
    logs: MutexGuard<'l, HashMap<LeaseEpoch, Log>>,
    epoch: LeaseEpoch,
}

impl Logs {
    fn logs(&self) -> MutexGuard<'_, HashMap<LeaseEpoch, Log>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece; answers its place. What is beyond the bound is dropped.
    pub fn add(
        &self,
        epoch: LeaseEpoch,
        stream: Stream,
        at: Millis,
        data: Vec<u8>,
    ) -> Option<(Piece, Held<'_>)> {
        let mut logs = self.logs();
        let log = logs
            .entry(epoch)
            .or_insert_with(|| Log { pieces: SpooledTempFile::new(IN_MEMORY_BYTES), bytes: 0 });
        if log.bytes + data.len() as u64 > limit::STEP_LOG_BYTES_MAX {
            return None;
        }
        let piece = Piece { offset: log.bytes, stream, at, data };
        if let Err(e) = log.write(&piece) {
            tracing::warn!(lease = %epoch, "a step's log cannot be kept for later: {e}");
        }
        Some((piece, Held { logs, epoch }))
    }

    /// The log of a lease, to say it again.
    pub fn hold(&self, epoch: LeaseEpoch) -> Held<'_> {
        Held { logs: self.logs(), epoch }
    }

    /// Forgets logs that nobody will ask for; at another time when a log is held, which may be for
    /// as long as the coordinator takes nothing.
    pub fn keep_only(&self, wanted: impl Fn(&LeaseEpoch) -> bool) {
        let mut logs = match self.0.try_lock() {
            Ok(logs) => logs,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        logs.retain(|epoch, _| wanted(epoch));
    }
}

impl Held<'_> {
    /// Gives all that stands behind the first `from` bytes, until `take` says no.
    pub fn replay(&mut self, from: u64, take: &mut dyn FnMut(Piece) -> bool) {
        let Some(log) = self.logs.get_mut(&self.epoch) else { return };
        if let Err(e) = log.read(from, take) {
            tracing::warn!(lease = %self.epoch, "a step's log cannot be read again: {e}");
        }
    }
}

impl Log {
    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        self.pieces.seek(SeekFrom::End(0))?;
        let stream = u8::from(piece.stream == Stream::Stderr);
        self.pieces.write_all(&[stream])?;
        self.pieces.write_all(&piece.at.0.to_le_bytes())?;
        self.pieces.write_all(&(piece.data.len() as u32).to_le_bytes())?;
        self.pieces.write_all(&piece.data)?;
        self.bytes += piece.data.len() as u64;
        Ok(())
    }

    fn read(&mut self, from: u64, take: &mut dyn FnMut(Piece) -> bool) -> io::Result<()> {
        self.pieces.seek(SeekFrom::Start(0))?;
        let mut offset = 0;
        let mut head = [0; HEAD_BYTES];
        while offset < self.bytes {
            self.pieces.read_exact(&mut head)?;
            let stream = if head[0] == 0 { Stream::Stdout } else { Stream::Stderr };
            let at = Millis(u64::from_le_bytes(head[1..9].try_into().expect("eight bytes")));
            let length = u32::from_le_bytes(head[9..].try_into().expect("four bytes"));
            let mut data = vec![0; length as usize];
            self.pieces.read_exact(&mut data)?;
            let end = offset + u64::from(length);
            if end > from {
                let skip = from.saturating_sub(offset) as usize;
                let piece =
                    Piece { offset: offset + skip as u64, stream, at, data: data.split_off(skip) };
                if !take(piece) {
                    break;
                }
            }
            offset = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_said_again_from_where_it_was_heard() {
        let (logs, epoch) = (Logs::default(), LeaseEpoch(1));
        for (n, text) in ["one ", "two ", "three"].into_iter().enumerate() {
            let stream = if n == 1 { Stream::Stderr } else { Stream::Stdout };
            let at = Millis(n as u64);
            assert!(logs.add(epoch, stream, at, text.as_bytes().to_vec()).is_some());
        }
        let said = |from: u64| {
            let mut all = Vec::new();
            logs.hold(epoch).replay(from, &mut |piece| {
                all.push(piece);
                true
            });
            all
        };
        let text = |from: u64| -> Vec<u8> { said(from).into_iter().flat_map(|p| p.data).collect() };
        assert_eq!(text(0), b"one two three");
        assert_eq!(text(6), b"o three");
        assert_eq!(text(13), b"");
        assert_eq!((said(6)[0].offset, said(6)[0].stream), (6, Stream::Stderr));
        logs.keep_only(|_| false);
        assert!(said(0).is_empty());
    }
}
