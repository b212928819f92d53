//! Dialling another process: pooled connections, and what went wrong in words.

use super::refusal::refusal;
use super::{Endpoint, Keys};
use crate::net::{Dial, NetError, Stream};
use proto::error::{Class, Failure};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// How long one waits for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Where another process is, and who it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// The name that its certificate must be for.
    pub name: String,
    /// What it is called in messages: `the coordinator`.
    pub called: String,
}

/// Opens streams to one other process. Connections are made when they are needed, kept, and made
/// again when they have broken.
pub struct Dialer {
    endpoint: Endpoint,
    keys: Keys,
    target: Target,
    /// One connection is served by one task at each end, about one processor's work.
    connections: Vec<Mutex<Option<quinn::Connection>>>,
    next: AtomicUsize,
}

impl Dialer {
    /// Dials `target` from this endpoint, over up to so many connections at a time.
    pub fn new(endpoint: &Endpoint, keys: &Keys, target: Target, connections: usize) -> Self {
        let connections = (0..connections.max(1)).map(|_| Mutex::default()).collect();
        let (endpoint, keys) = (endpoint.clone(), keys.clone());
        Self { endpoint, keys, target, connections, next: AtomicUsize::new(0) }
    }

    /// Whom it dials.
    pub fn target(&self) -> &Target {
        &self.target
    }

    async fn stream(&self) -> Result<Stream, NetError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        // Whoever comes while a connection is being made waits for that one.
        let mut kept = self.connections[turn].lock().await;
        if let Some(connection) = kept.take() {
            match connection.open_bi().await {
                Ok((to, from)) => {
                    *kept = Some(connection);
                    return Ok(Stream::quic(to, from));
                }
                Err(error) if refusal(&error).is_some() => return Err(self.broken(&error)),
                Err(_) => {}
            }
        }
        let connection = self.connect().await?;
        let (to, from) = connection.open_bi().await.map_err(|e| self.broken(&e))?;
        *kept = Some(connection);
        Ok(Stream::quic(to, from))
    }

    /// Tries all addresses of the host, one after the other.
    async fn connect(&self) -> Result<quinn::Connection, NetError> {
        let found = tokio::net::lookup_host(&self.target.address).await;
        let addresses = found.map_err(|e| self.unreachable(e))?;
        let mut failed = self.unreachable(io::Error::other("it has no address"));
        for address in addresses {
            match self.connect_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error @ NetError::Refused(_)) => return Err(error),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<quinn::Connection, NetError> {
        let connecting =
            self.endpoint.quic.connect_with(self.keys.get(), address, &self.target.name);
        let connecting = connecting.map_err(|e| self.unreachable(io::Error::other(e)))?;
        match tokio::time::timeout(CONNECT_WAIT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.broken(&error)),
            Err(_) => {
                let waited = format!("no answer within {} s", CONNECT_WAIT.as_secs());
                Err(self.unreachable(io::Error::new(io::ErrorKind::TimedOut, waited)))
            }
        }
    }

    fn unreachable(&self, source: io::Error) -> NetError {
        let Target { address, called, .. } = &self.target;
        NetError::Unreachable { to: format!("{called} at {address}"), source }
    }

    fn broken(&self, error: &quinn::ConnectionError) -> NetError {
        let Target { address, called, .. } = &self.target;
        match refusal(error) {
            Some((why, hint)) => {
                let message = format!("Cannot talk to {called} at {address}: {why}");
                NetError::Refused(Failure::new(Class::Denied, message).hint(hint))
            }
            None => self.unreachable(io::Error::other(error.to_string())),
        }
    }
}

impl Dial for Dialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(self.stream())
    }
}
