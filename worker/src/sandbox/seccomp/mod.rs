//! Which system calls a container may make: Docker's default profile as data, compiled to the
//! kernel's filter once, here, so that starting a container costs one call and needs no C library.

mod filter;
mod profile;

pub(crate) use filter::Filter;
pub(crate) use profile::{default_filter, default_oci};
