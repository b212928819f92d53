//! Streams of frames between the parts of a farm: inside one process, over a local socket, over QUIC.
//!
//! Whoever talks to another part opens a [`Stream`] by a [`Dial`]; what runs over it
//! ([`proto::wire`]) is the same everywhere.

pub mod blobs;
pub mod chunks;
pub mod local;
pub mod nodes;
pub mod quic;
pub mod remote;
pub mod rows;
pub mod serve;
mod traffic;
pub mod unix;

use bytes::{Bytes, BytesMut};
use proto::error::{Class, Failure};
use proto::wire::{self, Binary, FrameError, Message, Open, Opened, PREFIX_BYTES, Service};
use rkyv::util::AlignedVec;
use std::future::Future;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use traffic::Counted;

pub use traffic::{SERVICES, Traffic, traffic};

/// Why two parts could not talk.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Nobody listens there.
    #[error("Cannot reach {to}: {source}")]
    Unreachable {
        /// Who was called.
        to: String,
        /// Why not.
        source: io::Error,
    },
    /// The other end refuses to talk.
    #[error("{0}")]
    Refused(Failure),
    /// The stream broke.
    #[error("The connection broke: {0}")]
    Broken(io::Error),
    /// Whoever was given the bytes could not take them: a full disk, mostly.
    #[error("{0}")]
    Taker(io::Error),
    /// The stream ended in the middle.
    #[error("The other end closed the connection")]
    Closed,
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An answer to something else.
    #[error("The other end sent an answer that does not fit: {0}")]
    Unexpected(String),
}

impl NetError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(failure) => failure.class,
            Self::Taker(_) => Class::User,
            Self::Unreachable { .. } | Self::Broken(_) | Self::Closed => Class::Unavailable,
            Self::Frame(_) | Self::Unexpected(_) => Class::Corrupt,
        }
    }
}

impl From<io::Error> for NetError {
    fn from(error: io::Error) -> Self {
        // A server of TLS 1.3 looks at the client's certificate when the client speaks already.
        match quic::refused(&error) {
            Some(failure) => Self::Refused(failure),
            None => Self::Broken(error),
        }
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Refused(failure) => failure,
            other => Failure::new(other.class(), other.to_string()),
        }
    }
}

/// The half of a stream that frames are written to.
pub struct Sender {
    writes: Writes,
    counted: Counted,
}

enum Writes {
    Pipe(Box<dyn AsyncWrite + Send + Unpin>),
    /// Takes payloads without copying them.
    Quic(quinn::SendStream),
}

/// The half of a stream that frames are read from.
pub struct Receiver {
    reads: Box<dyn AsyncRead + Send + Unpin>,
    counted: Counted,
}

/// A stream of frames, both ways.
pub struct Stream {
    /// To the other end.
    pub to: Sender,
    /// From the other end.
    pub from: Receiver,
}

impl Stream {
    /// A stream over any two pipes.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self::over(Writes::Pipe(Box::new(write)), Box::new(read))
    }

    /// A stream of a QUIC connection.
    fn quic(to: quinn::SendStream, from: quinn::RecvStream) -> Self {
        Self::over(Writes::Quic(to), Box::new(from))
    }

    fn over(writes: Writes, reads: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        let counted = Counted::default();
        Self { to: Sender { writes, counted }, from: Receiver { reads, counted } }
    }

    /// What goes over it from now on is counted for this service.
    fn count(&mut self, service: Service) {
        self.to.counted = Counted::of(service);
        self.from.counted = Counted::of(service);
    }

    /// Says what the stream is for, and hears whether the other end agrees.
    pub async fn open(mut self, binary: Binary, service: Service) -> Result<Opening, NetError> {
        self.to.send(&Open { version: wire::VERSION, binary, service }).await?;
        match self.from.expect::<Opened>().await? {
            (Opened::Ready { binary }, _) => {
                self.count(service);
                Ok(Opening { stream: self, binary })
            }
            (Opened::Refused(failure), _) => Err(NetError::Refused(failure)),
        }
    }

    /// Hears what the stream is for.
    pub async fn accept(&mut self) -> Result<Open, NetError> {
        let (open, _) = self.from.expect::<Open>().await?;
        self.count(open.service);
        Ok(open)
    }
}

/// A stream that was agreed on, and who is at the other end.
pub struct Opening {
    /// The stream.
    pub stream: Stream,
    /// The other end's binary.
    pub binary: Binary,
}

impl Sender {
    /// Sends a message.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), NetError> {
        self.send_with(message, &[]).await
    }

    /// Sends a message with a payload in pieces.
    pub async fn send_with<M: Message>(
        &mut self,
        message: &M,
        payload: &[Bytes],
    ) -> Result<(), NetError> {
        let header = wire::encode(message)?;
        let length = payload.iter().map(Bytes::len).sum();
        let prefix = wire::prefix(header.len(), length)?;
        // One write for what is small: a write is a wake-up of the other end.
        let small = length <= 64 << 10;
        let mut out = Vec::with_capacity(header.len() + 8 + if small { length } else { 0 });
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&header);
        if small {
            payload.iter().for_each(|piece| out.extend_from_slice(piece));
        }
        let rest = if small { &[] } else { payload };
        self.counted.sent((prefix.len() + header.len() + length) as u64);
        match &mut self.writes {
            Writes::Pipe(pipe) => {
                pipe.write_all(&out).await?;
                for piece in rest {
                    pipe.write_all(piece).await?;
                }
                pipe.flush().await?;
            }
            Writes::Quic(stream) => {
                let mut pieces: Vec<Bytes> = Vec::with_capacity(1 + rest.len());
                pieces.push(out.into());
                pieces.extend_from_slice(rest);
                stream.write_all_chunks(&mut pieces).await.map_err(io::Error::from)?;
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub async fn close(&mut self) -> Result<(), NetError> {
        match &mut self.writes {
            Writes::Pipe(pipe) => Ok(pipe.shutdown().await?),
            Writes::Quic(stream) => {
                stream.finish().map_err(|_| NetError::Closed)?;
                // What was sent must have arrived before the stream is dropped with its connection.
                stream.stopped().await.map_err(io::Error::from)?;
                Ok(())
            }
        }
    }
}

impl Receiver {
    /// The next message and its payload; `None` when the other end has closed the stream.
    pub async fn next<M: Message>(&mut self) -> Result<Option<(M, Bytes)>, NetError> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut have = 0;
        while have < PREFIX_BYTES {
            match self.reads.read(&mut prefix[have..]).await? {
                0 if have == 0 => return Ok(None),
                0 => return Err(NetError::Closed),
                n => have += n,
            }
        }
        let (header, payload) = wire::read_prefix(&prefix)?;
        let mut aligned = AlignedVec::with_capacity(header);
        aligned.resize(header, 0);
        self.exact(&mut aligned).await?;
        let mut bytes = BytesMut::zeroed(payload);
        self.exact(&mut bytes).await?;
        self.counted.received((PREFIX_BYTES + header + payload) as u64);
        Ok(Some((wire::decode(&aligned)?, bytes.freeze())))
    }

    /// The next message; the end of the stream is an error.
    pub async fn expect<M: Message>(&mut self) -> Result<(M, Bytes), NetError> {
        self.next().await?.ok_or(NetError::Closed)
    }

    async fn exact(&mut self, buffer: &mut [u8]) -> Result<(), NetError> {
        match self.reads.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(NetError::Closed),
            Err(e) => Err(e.into()),
        }
    }
}

/// Opens streams to one other part.
pub trait Dial: Send + Sync {
    /// A new stream, not yet agreed on.
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>>;
}
