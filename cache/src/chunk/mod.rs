//! Large blobs as chunks.
//!
//! A blob is cut where its content says so ([`cut`](mod@cut)). What of a blob is in other blobs that
//! are here need not be sent ([`plan`](mod@plan)).

pub mod cut;
pub mod plan;

pub use plan::{ChunkPlace, Step, plan};
