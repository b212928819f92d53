//! An archive's bytes on their way: one thread decompresses, one hashes, one reads the archive.

use super::decode::decoder;
use super::error::BadArchive;
use crate::image::sha::Sha;
use bytes::Bytes;
use proto::id::OciDigest;
use proto::limit;
use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of one piece on its way.
const PIECE: usize = 256 << 10;

/// Pieces that wait: what a stream holds in memory is twice this many, and a few.
const WAITING: usize = 8;

/// Whether so many bytes out of so few are more than real layers make.
pub fn is_bomb(packed: u64, unpacked: u64) -> bool {
    unpacked > limit::LAYER_EXPANSION_FREE_BYTES
        && unpacked / limit::LAYER_EXPANSION_MAX > packed.max(1)
}

/// The receiving ends of one stream.
pub struct Ends {
    /// For who reads the archive.
    pub pieces: Pieces,
    /// For who hashes it.
    pub to_hash: Receiver<Bytes>,
}

/// The sending ends.
pub struct Pump {
    to_read: SyncSender<Piece>,
    to_hash: Option<SyncSender<Bytes>>,
}

/// Some bytes, and how many packed ones were read for all so far.
struct Piece {
    bytes: Bytes,
    packed: u64,
}

/// Makes a stream.
pub fn stream() -> (Pump, Ends) {
    let (to_read, pieces) = sync_channel(WAITING);
    let (hash_sender, to_hash) = sync_channel(WAITING);
    let pieces = Pieces { from: pieces, current: Bytes::new(), packed: 0 };
    (Pump { to_read, to_hash: Some(hash_sender) }, Ends { pieces, to_hash })
}

/// Gives the decompressed bytes of `input` to `read`. Another thread decompresses; when it fails,
/// its error is the answer.
pub fn decompressed<T>(
    input: impl Read + Send,
    read: impl FnOnce(Pieces) -> T,
) -> Result<T, BadArchive> {
    let (pump, ends) = stream();
    let pump = Pump { to_hash: None, ..pump };
    std::thread::scope(|scope| {
        let pumping = scope.spawn(move || pump.run(input));
        let done = read(ends.pieces);
        let gave_up = |_| Err(BadArchive::Read(io::Error::other("the decompressor gave up")));
        pumping.join().unwrap_or_else(gave_up).map(|()| done)
    })
}

impl Pump {
    /// Decompresses all of `input`. Ends early, without an error, when nobody reads any more.
    pub fn run(self, input: impl Read + Send) -> Result<(), BadArchive> {
        let packed = AtomicU64::new(0);
        let counted = BufReader::with_capacity(PIECE, Counted { input, count: &packed });
        let (format, mut plain) = decoder(counted).map_err(BadArchive::Read)?;
        let mut unpacked = 0u64;
        loop {
            // What came before something broke is given on: it may be a whole archive.
            let (piece, read) = fill(&mut plain);
            let read = read.map_err(|e| match e.get_ref() {
                Some(inner) if inner.is::<InputFailed>() => BadArchive::Read(e),
                _ => BadArchive::Compression { format, detail: e.to_string() },
            });
            if piece.is_empty() {
                return read;
            }
            unpacked += piece.len() as u64;
            let packed = packed.load(Relaxed);
            if is_bomb(packed, unpacked) {
                return Err(BadArchive::Bomb { packed, unpacked });
            }
            let bytes = Bytes::from(piece);
            let hashed = self.to_hash.as_ref().map(|to_hash| to_hash.send(bytes.clone()));
            let sent = self.to_read.send(Piece { bytes, packed });
            if sent.is_err() || hashed.is_some_and(|h| h.is_err()) {
                return Ok(());
            }
            read?;
        }
    }
}

/// The next bytes, fewer than a piece only at the end or before an error.
fn fill(input: &mut impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut piece = vec![0; PIECE];
    let (mut filled, mut done) = (0, Ok(()));
    while filled < PIECE {
        match input.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                done = Err(e);
                break;
            }
        }
    }
    piece.truncate(filled);
    (piece, done)
}

/// Hashes all pieces.
pub fn hash(pieces: Receiver<Bytes>) -> OciDigest {
    let mut sha = Sha::new();
    pieces.iter().for_each(|piece| sha.update(&piece));
    sha.finish()
}

/// The decompressed bytes.
pub struct Pieces {
    from: Receiver<Piece>,
    current: Bytes,
    packed: u64,
}

impl Pieces {
    /// How many packed bytes were read for what was read so far.
    pub fn packed(&self) -> u64 {
        self.packed
    }

    /// Reads all that is left, for nothing.
    pub fn drain(self) {
        self.from.iter().for_each(drop);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            let Ok(piece) = self.from.recv() else { return Ok(0) };
            self.packed = piece.packed;
            self.current = piece.bytes;
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// The error of the input itself, to tell it from an error of the decompressor.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InputFailed(io::Error);

struct Counted<'c, R> {
    input: R,
    count: &'c AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer) {
            Ok(n) => {
                self.count.fetch_add(n as u64, Relaxed);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(io::Error::new(e.kind(), InputFailed(e))),
        }
    }
}
