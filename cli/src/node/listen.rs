//! Who comes to a role's endpoint, and whether they may.

use crate::farm::binary;
use crate::up::door::handshake;
use cache::net::quic::Endpoint;
use cache::net::quic::listen::Caller;
use cache::net::{NetError, Stream};
use ops::identity::Subject;
use ops::identity::tls::peer_subject;
use proto::error::{Class, Failure};
use proto::wire::Service;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long somebody may take to say what a stream is for.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// How long those who serve a connection's streams may take to notice that it has ended.
const END_WAIT: Duration = Duration::from_secs(10);

/// Somebody who dialled.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Who, by the certificate; none for somebody without one.
    pub subject: Option<Subject>,
    /// Where from.
    pub address: SocketAddr,
}

impl Guest {
    /// Who it is, for those services that want to know.
    pub fn known(&self) -> Result<&Subject, Failure> {
        self.subject.as_ref().ok_or_else(|| {
            Failure::new(Class::Denied, "This needs a certificate of the farm")
                .hint("Run `slipway join TOKEN@HOST` with a token of the farm.")
        })
    }
}

/// What an endpoint is for.
pub trait Host: Send + Sync + 'static {
    /// Whether the guest may have this.
    fn admits(&self, guest: &Guest, service: Service) -> Result<(), Failure>;

    /// Serves an open stream, until it has ended.
    fn serve(
        self: Arc<Self>,
        guest: Guest,
        service: Service,
        stream: Stream,
    ) -> impl Future<Output = Result<(), NetError>> + Send;
}

/// Serves all who come to an endpoint, until it is closed.
pub async fn listen<H: Host>(endpoint: Endpoint, host: Arc<H>) {
    let mut guests = JoinSet::new();
    while let Some(known) = endpoint.accept().await {
        while guests.try_join_next().is_some() {}
        let host = host.clone();
        guests.spawn(async move {
            if let Some(caller) = known.await {
                receive(host, caller).await;
            }
        });
    }
}

/// Serves one connection's streams.
async fn receive<H: Host>(host: Arc<H>, caller: Caller) {
    let certificates = caller.certificates();
    let subject = match certificates.as_deref().map(peer_subject).transpose() {
        Ok(subject) => subject,
        Err(e) => {
            tracing::info!(from = %caller.address(), "a caller's certificate says nothing: {e}");
            return caller.refuse(&format!("its certificate is of no use here: {e}"));
        }
    };
    let guest = Guest { subject, address: caller.address() };
    let mut streams = JoinSet::new();
    while let Some(stream) = caller.accept().await {
        while streams.try_join_next().is_some() {}
        let (host, guest) = (host.clone(), guest.clone());
        streams.spawn(async move {
            if let Err(e) = open(host, guest, stream).await {
                tracing::debug!("a stream broke: {e}");
            }
        });
    }
    // The connection has ended, and with it its streams. Whoever serves one notices, and does what
    // is to be done when somebody is gone; what is done for nobody after that stops.
    let ending = async { while streams.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END_WAIT, ending).await;
}

async fn open<H: Host>(host: Arc<H>, guest: Guest, mut stream: Stream) -> Result<(), NetError> {
    let opened = tokio::time::timeout(OPEN_WAIT, stream.accept()).await;
    let open = opened.map_err(|_| NetError::Closed)??;
    let welcome = host.admits(&guest, open.service);
    if let Err(failure) = &welcome {
        tracing::info!(from = %guest.address, service = ?open.service, "refused: {failure}");
    }
    if !handshake(&mut stream, &open, welcome).await? {
        return Ok(());
    }
    tracing::trace!(from = %guest.address, service = ?open.service, "serves {}", binary().version);
    host.serve(guest, open.service, stream).await
}
