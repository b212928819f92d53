//! Images: registries, layers, manifests, archives.
//!
//! * [`registry`] speaks the OCI distribution protocol; [`pull`] and [`push`] move blobs with it.
//! * [`tape`] reads and writes the tar format; [`unpack`] makes diff trees of layers, [`pack`] makes
//!   layers of diff trees.
//! * [`manifest`] makes configs, manifests and indexes; [`archive`] writes and reads files that hold
//!   whole images.
//!
//! Bytes from a registry or an archive are kept under the BLAKE3 name that all of Slipway uses, and
//! found by their SHA-256 through the store's table `OciBlob`. Nothing is kept before its SHA-256
//! was compared with what it was asked for by.

mod flight;
pub mod pack;
mod rows;
pub mod sha;
pub mod tape;
pub mod unpack;
