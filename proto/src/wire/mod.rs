//! The messages, and how they are framed.
//!
//! A *stream* carries frames both ways. Its first frame is an [`Open`], which names the protocol
//! version and the service; the answer is [`Opened`]. What follows depends on the service.
//!
//! # Frame
//!
//! ```text
//! header-length:u32  payload-length:u32  header  payload
//! ```
//!
//! Both lengths are little-endian and bounded ([`limit::FRAME_HEADER_BYTES_MAX`],
//! [`limit::FRAME_PAYLOAD_BYTES_MAX`]). The header is one message, encoded by rkyv and checked
//! when read; the payload is raw bytes, for blobs. Nothing is ever hashed from a frame.

// rkyv's derive makes types for variants with named fields, and gives their fields no docs.
#![allow(missing_docs)]

pub mod admin;
pub mod blob;
pub mod build;
pub mod cluster;
pub mod outside;
pub mod overview;
pub mod worker;

use crate::error::Failure;
use crate::limit;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// The version of the messages. Two ends with different versions do not talk.
pub const VERSION: u32 = 6;

/// How many bytes stand before a frame's header.
pub const PREFIX_BYTES: usize = 8;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length beyond its limit.
    #[error("A frame has a {part} of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Header or payload.
        part: &'static str,
        /// The length given.
        bytes: usize,
        /// The length allowed.
        max: usize,
    },
    /// The header is not the message that was expected.
    #[error("A frame's header is not a valid `{expected}`: {detail}")]
    Header {
        /// The message that was expected.
        expected: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// A message that can be a frame's header.
pub trait Message:
    Archive<
        Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, RkyvError>>
                      + Deserialize<Self, HighDeserializer<RkyvError>>,
    > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>
    + Sized
{
}

impl<T> Message for T where
    T: Archive<
            Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, RkyvError>>
                          + Deserialize<T, HighDeserializer<RkyvError>>,
        > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>
{
}

/// Encodes a message as a header.
pub fn encode<M: Message>(message: &M) -> Result<AlignedVec, FrameError> {
    let bytes = rkyv::to_bytes::<RkyvError>(message).map_err(|e| header_error::<M>(&e))?;
    bound("header", bytes.len(), limit::FRAME_HEADER_BYTES_MAX)?;
    Ok(bytes)
}

/// Reads a header, checking it.
pub fn decode<M: Message>(header: &AlignedVec) -> Result<M, FrameError> {
    rkyv::from_bytes::<M, RkyvError>(header).map_err(|e| header_error::<M>(&e))
}

fn header_error<M>(error: &RkyvError) -> FrameError {
    let expected = std::any::type_name::<M>().rsplit("::").next().unwrap_or("message");
    FrameError::Header { expected, detail: error.to_string() }
}

fn bound(part: &'static str, bytes: usize, max: usize) -> Result<usize, FrameError> {
    if bytes > max { Err(FrameError::TooLong { part, bytes, max }) } else { Ok(bytes) }
}

/// The bytes before a frame's header.
pub fn prefix(header: usize, payload: usize) -> Result<[u8; PREFIX_BYTES], FrameError> {
    bound("header", header, limit::FRAME_HEADER_BYTES_MAX)?;
    bound("payload", payload, limit::FRAME_PAYLOAD_BYTES_MAX)?;
    let mut out = [0; PREFIX_BYTES];
    out[..4].copy_from_slice(&(header as u32).to_le_bytes());
    out[4..].copy_from_slice(&(payload as u32).to_le_bytes());
    Ok(out)
}

/// Reads the bytes before a frame's header: the two lengths.
pub fn read_prefix(bytes: &[u8; PREFIX_BYTES]) -> Result<(usize, usize), FrameError> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let header = bound("header", number(0) as usize, limit::FRAME_HEADER_BYTES_MAX)?;
    let payload = bound("payload", number(4) as usize, limit::FRAME_PAYLOAD_BYTES_MAX)?;
    Ok((header, payload))
}

/// The first message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Open {
    /// [`VERSION`] of the end that opens.
    pub version: u32,
    /// The binary of the end that opens: its version and a number that grows with each build.
    pub binary: Binary,
    /// What the stream is for.
    pub service: Service,
}

/// Which binary speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Binary {
    /// The package's version.
    pub version: String,
    /// When the file was made: milliseconds since 1970.
    pub modified_ms: u64,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Service {
    /// Blobs, trees: [`blob`].
    Blobs,
    /// One build: [`build`].
    Build,
    /// Images, cache, builds: [`admin`].
    Admin,
    /// A worker and its coordinator: [`worker`].
    Worker,
    /// Which machines there are: [`cluster`].
    Cluster,
    /// A token for a certificate, and an old certificate for a new one: [`cluster`].
    Certificates,
}

/// The answer to [`Open`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Opened {
    /// The service listens.
    Ready {
        /// The binary of the end that listens.
        binary: Binary,
    },
    /// The stream is of no use.
    Refused(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded() {
        let prefix = prefix(7, 9).unwrap();
        assert_eq!(read_prefix(&prefix), Ok((7, 9)));
        assert!(read_prefix(&[0xff; PREFIX_BYTES]).is_err());
        assert!(super::prefix(usize::MAX, 0).is_err());
    }

    #[test]
    fn a_damaged_header_is_an_error() {
        let open = Open {
            version: VERSION,
            binary: Binary { version: "1".into(), modified_ms: 2 },
            service: Service::Blobs,
        };
        let bytes = encode(&open).unwrap();
        assert_eq!(decode::<Open>(&bytes), Ok(open));
        let mut cut = AlignedVec::new();
        cut.extend_from_slice(&bytes[..bytes.len() - 1]);
        assert!(decode::<Open>(&cut).is_err());
        let mut wild = AlignedVec::new();
        wild.extend_from_slice(&vec![0xff; bytes.len()]);
        assert!(decode::<Open>(&wild).is_err());
    }
}
