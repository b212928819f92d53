//! Containers.

pub(crate) mod bpf;
pub(crate) mod cgroup;
pub(crate) mod seccomp;
