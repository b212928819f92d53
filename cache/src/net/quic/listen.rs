//! Hearing those who dial.

use super::Endpoint;
use crate::net::Stream;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Half-open connections beyond which a dialler must prove first that it is where it says (RFC
/// 9000, 8.1.2): spoofed addresses get no further.
pub(super) const TRUSTING_MAX: usize = 256;

/// Somebody who dialled, and whose certificate, if there is one, is valid.
pub struct Caller {
    connection: quinn::Connection,
    /// Whether it had to prove first that it is where it says.
    #[cfg(test)]
    pub(super) has_proved_address: bool,
}

impl Endpoint {
    /// The next who dials; what remains to be done to know them is a future of its own, so that a
    /// slow one holds up nobody. `None` when the endpoint is closed.
    pub async fn accept(&self) -> Option<impl Future<Output = Option<Caller>> + Send + use<>> {
        loop {
            let incoming = self.quic.accept().await?;
            if self.half_open() > TRUSTING_MAX
                && !incoming.remote_address_validated()
                && incoming.may_retry()
            {
                if let Err(e) = incoming.retry() {
                    e.into_incoming().ignore();
                }
                continue;
            }
            return Some(known(incoming, HalfOpen::new(&self.half_open)));
        }
    }

    /// Handshakes that are under way with those who dialled.
    pub(super) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed)
    }
}

/// Counts one handshake as long as it lives.
struct HalfOpen(Arc<AtomicUsize>);

impl HalfOpen {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn known(incoming: quinn::Incoming, _counted: HalfOpen) -> Option<Caller> {
    let from = incoming.remote_address();
    #[cfg(test)]
    let has_proved_address = incoming.remote_address_validated();
    let connecting = incoming.accept().inspect_err(|error| refused(from, error)).ok()?;
    match tokio::time::timeout(HANDSHAKE_WAIT, connecting).await {
        Ok(Ok(connection)) => Some(Caller {
            connection,
            #[cfg(test)]
            has_proved_address,
        }),
        Ok(Err(error)) => {
            refused(from, &error);
            None
        }
        Err(_) => {
            tracing::info!(%from, "a caller did not finish its handshake");
            None
        }
    }
}

fn refused(from: SocketAddr, error: &quinn::ConnectionError) {
    tracing::info!(%from, %error, "a caller was refused");
}

impl Caller {
    /// Its certificate and those between it and the authority's; none when it has shown none.
    pub fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        let identity = self.connection.peer_identity()?;
        identity.downcast::<Vec<CertificateDer<'static>>>().ok().map(|certificates| *certificates)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The next stream that it opens; `None` when the connection has ended.
    pub async fn accept(&self) -> Option<Stream> {
        let (to, from) = self.connection.accept_bi().await.ok()?;
        Some(Stream::quic(to, from))
    }

    /// Ends the connection with a word why.
    pub fn refuse(&self, why: &str) {
        self.connection.close(super::refusal::REFUSED.into(), why.as_bytes());
    }
}
