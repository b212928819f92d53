//! Large blobs, moved without what the other end has of them.
//!
//! A blob is cut where its content says so ([`cut`](mod@cut)), and who wants it asks for the list
//! of its chunks first. What of them is in other blobs here is taken from there
//! ([`plan`](mod@plan)); the rest comes from all who have the blob, at the same time ([`split`]):
//! that is [`fetch`]. The other way round is
//! [`Blobs::put_chunked`](crate::net::blobs::Blobs::put_chunked).
//!
//! Every chunk is hashed when it comes, and the blob when all of it is there: what is noted of
//! chunks decides only how fast a blob moves, never what it is.

pub(crate) mod assemble;
pub mod cut;
mod fetch;
mod lanes;
mod list;
pub mod plan;
mod source;
mod split;

pub use fetch::{FetchError, Moved, fetch};
pub use lanes::SourceError;
pub use plan::{ChunkPlace, Step, plan};
pub use source::{ChunkSource, ChunkedFile};
