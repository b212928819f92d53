//! What running steps have written: kept here until the coordinator has taken note of how they
//! ended, so that one that was away, or was started again, hears all of it.

use proto::id::{LeaseEpoch, Millis};
use proto::limit;
use proto::wire::build::Stream;
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
pub struct Logs(Mutex<HashMap<LeaseEpoch, Arc<Mutex<Log>>>>);

/// One log: pieces one behind the other.
struct Log {
    pieces: SpooledTempFile,
    bytes: u64,
}

/// Takes the lock. Who panicked with it has left nothing half done.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logs {
    /// Adds a piece, and gives it to `send` with its place. What is beyond the bound is dropped.
    /// Until `send` is done nothing else is sent of this log: pieces go in their order.
    pub fn add(
        &self,
        epoch: LeaseEpoch,
        stream: Stream,
        at: Millis,
        data: Vec<u8>,
        send: impl FnOnce(Piece),
    ) {
        let log = locked(&self.0).entry(epoch).or_default().clone();
        let mut log = locked(&log);
        if log.bytes + data.len() as u64 > limit::STEP_LOG_BYTES_MAX {
            return;
        }
        let piece = Piece { offset: log.bytes, stream, at, data };
        if let Err(e) = log.write(&piece) {
            tracing::warn!(lease = %epoch, "a step's log cannot be kept for later: {e}");
        }
        send(piece);
    }

    /// Gives all of a log that stands behind its first `from` bytes, until `send` says no. Nothing
    /// can be added to it meanwhile.
    pub fn replay(&self, epoch: LeaseEpoch, from: u64, send: impl FnMut(Piece) -> bool) {
        let Some(log) = locked(&self.0).get(&epoch).cloned() else { return };
        if let Err(e) = locked(&log).read(from, send) {
            tracing::warn!(lease = %epoch, "a step's log cannot be read again: {e}");
        }
    }

    /// Forgets logs that nobody will ask for.
    pub fn keep_only(&self, wanted: impl Fn(&LeaseEpoch) -> bool) {
        locked(&self.0).retain(|epoch, _| wanted(epoch));
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { pieces: SpooledTempFile::new(IN_MEMORY_BYTES), bytes: 0 }
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

    fn read(&mut self, from: u64, mut send: impl FnMut(Piece) -> bool) -> io::Result<()> {
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
                if !send(piece) {
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
            logs.add(epoch, stream, at, text.as_bytes().to_vec(), |piece| {
                assert_eq!((piece.offset, piece.at), (4 * at.0, at));
            });
        }
        let said = |from: u64| {
            let mut all = Vec::new();
            logs.replay(epoch, from, |piece| {
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

    #[test]
    fn a_log_that_is_on_its_way_is_in_nobody_else_s() {
        let logs = Logs::default();
        let add = |epoch, text: &str, send: &dyn Fn()| {
            let text = text.as_bytes().to_vec();
            logs.add(LeaseEpoch(epoch), Stream::Stdout, Millis(0), text, |_| send());
        };
        // The coordinator takes nothing of the first.
        add(1, "slow", &|| {
            add(2, "other", &|| {});
            logs.replay(LeaseEpoch(2), 0, |piece| piece.data == b"other");
            logs.keep_only(|epoch| *epoch == LeaseEpoch(1));
        });
        let mut said = Vec::new();
        for epoch in [1, 2] {
            logs.replay(LeaseEpoch(epoch), 0, |piece| {
                said.push(piece.data);
                true
            });
        }
        assert_eq!(said, [b"slow"]);
    }
}
