//! Containers.

pub(crate) mod bpf;
pub(crate) mod capability;
pub(crate) mod cgroup;
pub(crate) mod environment;
pub(crate) mod names;
pub(crate) mod seccomp;
pub(crate) mod spec;
pub(crate) mod user;
