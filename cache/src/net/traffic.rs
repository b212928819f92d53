//! Bytes of frames that this process sent and received, by service.

use proto::wire::Service;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The services, by the names that metrics have for them.
pub const SERVICES: [(Service, &str); 6] = [
    (Service::Blobs, "blobs"),
    (Service::Build, "build"),
    (Service::Admin, "admin"),
    (Service::Worker, "worker"),
    (Service::Cluster, "cluster"),
    (Service::Certificates, "certificates"),
];

/// Bytes of frames of one service, since this process began. Streams inside of the process are
/// counted at both ends.
#[derive(Debug)]
pub struct Traffic {
    /// Bytes that were sent.
    pub sent: AtomicU64,
    /// Bytes that were received.
    pub received: AtomicU64,
}

static TRAFFIC: [Traffic; SERVICES.len()] =
    [const { Traffic { sent: AtomicU64::new(0), received: AtomicU64::new(0) } }; SERVICES.len()];

/// What was counted for a service.
pub fn traffic(service: Service) -> &'static Traffic {
    let at = SERVICES.iter().position(|(of, _)| *of == service);
    &TRAFFIC[at.expect("all services have a name")]
}

/// Where a stream's bytes are counted; nowhere, before it is known what it is for.
#[derive(Clone, Copy, Default)]
pub struct Counted(Option<&'static Traffic>);

impl Counted {
    pub fn of(service: Service) -> Self {
        Self(Some(traffic(service)))
    }

    pub fn sent(self, bytes: u64) {
        if let Self(Some(traffic)) = self {
            traffic.sent.fetch_add(bytes, Relaxed);
        }
    }

    pub fn received(self, bytes: u64) {
        if let Self(Some(traffic)) = self {
            traffic.received.fetch_add(bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Dial, local};
    use proto::wire::admin::Request;
    use proto::wire::{Binary, Opened};

    #[tokio::test]
    async fn bytes_are_counted_at_both_ends_once_it_is_known_what_for() {
        let binary = || Binary { version: String::new(), modified_ms: 0 };
        let (dialer, mut listener) = local::pair();
        let serving = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap();
            stream.accept().await.unwrap();
            stream.to.send(&Opened::Ready { binary: binary() }).await.unwrap();
            stream.from.next::<Request>().await.unwrap()
        });
        let before = traffic(Service::Certificates).sent.load(Relaxed);
        let opening = dialer.dial().await.unwrap().open(binary(), Service::Certificates).await;
        let mut stream = opening.unwrap().stream;
        let opened = traffic(Service::Certificates).sent.load(Relaxed);
        assert!(opened > before, "the answer to the opening");
        let payload = bytes::Bytes::from_static(&[7; 100_000]);
        stream.to.send_with(&Request::Status, &[payload]).await.unwrap();
        serving.await.unwrap();
        let sent = traffic(Service::Certificates).sent.load(Relaxed) - opened;
        let received = traffic(Service::Certificates).received.load(Relaxed);
        assert!((100_000..101_000).contains(&sent), "{sent}");
        assert_eq!(received, sent, "all that was counted as received is the request");
    }
}
