//! The network of a container.

mod namespace;

use super::SandboxError;
use proto::step::NetworkMode;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// The networks of a sandbox.
#[derive(Default)]
pub(crate) struct Networks {
    /// Namespaces without any way out, that wait for a container.
    closed: Mutex<Vec<OwnedFd>>,
}

/// How many namespaces of a kind are kept.
const KEEP: usize = 16;

/// A container's network.
pub(crate) enum Network {
    /// The host's.
    Host,
    /// One of its own, until this is dropped.
    Own(Lease),
}

/// A namespace that no other container uses meanwhile.
pub(crate) struct Lease {
    file: Option<OwnedFd>,
    networks: Arc<Networks>,
    reusable: bool,
}

impl Network {
    /// The namespace.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Host => None,
            Self::Own(lease) => lease.file.as_ref().map(AsFd::as_fd),
        }
    }

    /// Where names are asked for when the host's own servers cannot be reached.
    pub(crate) fn forwarder(&self) -> Option<IpAddr> {
        None
    }

    /// Says that the container could change it, so that no other one may have it.
    pub(crate) fn spoil(&mut self) {
        if let Self::Own(lease) = self {
            lease.reusable = false;
        }
    }
}

impl Networks {
    /// A network for one container.
    pub(crate) fn take(self: &Arc<Self>, mode: NetworkMode) -> Result<Network, SandboxError> {
        if mode == NetworkMode::Host {
            return Ok(Network::Host);
        }
        let waiting = self.closed.lock().unwrap_or_else(|p| p.into_inner()).pop();
        let file = match waiting {
            Some(file) => file,
            None => namespace::make()
                .map_err(|e| SandboxError::Network { why: e.to_string(), hint: None })?,
        };
        Ok(Network::Own(Lease { file: Some(file), networks: self.clone(), reusable: true }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut closed = self.networks.closed.lock().unwrap_or_else(|p| p.into_inner());
        if self.reusable && closed.len() < KEEP {
            closed.extend(self.file.take());
        }
    }
}
