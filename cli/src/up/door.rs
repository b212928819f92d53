//! Who comes to the farm's socket, and what for.

use super::admin;
use super::life::Shared;
use super::parts::Parts;
use crate::farm::binary;
use cache::net::serve::{Rights, serve as serve_blobs};
use cache::net::{NetError, Stream};
use coordinator::server::Who;
use proto::error::{Class, Failure};
use proto::id::Millis;
use proto::wire::{Open, Opened, Service, VERSION};
use std::sync::Arc;
use std::time::Duration;

/// How long somebody may take to say what a stream is for.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// What everybody who comes is served with.
pub struct House {
    /// The parts.
    pub parts: Parts,
    /// When it ends.
    pub life: Shared,
    /// When it began.
    pub started: Millis,
}

/// Answers whoever opened a stream; says whether it is open now.
pub async fn handshake(
    stream: &mut Stream,
    open: &Open,
    welcome: Result<(), Failure>,
) -> Result<bool, NetError> {
    let answer = match welcome {
        _ if open.version != VERSION => Opened::Refused(Failure::new(
            Class::User,
            format!(
                "This farm is Slipway {} (messages of version {VERSION}), and the client is \
                 Slipway {} (version {})",
                binary().version,
                open.binary.version,
                open.version
            ),
        )),
        Err(failure) => Opened::Refused(failure),
        Ok(()) => Opened::Ready { binary: binary() },
    };
    stream.to.send(&answer).await?;
    Ok(matches!(answer, Opened::Ready { .. }))
}

/// Serves one stream of a person's.
pub async fn serve(house: Arc<House>, mut stream: Stream) -> Result<(), NetError> {
    let _stream = house.life.stream();
    let opened = tokio::time::timeout(OPEN_WAIT, stream.accept()).await;
    let open = opened.map_err(|_| NetError::Closed)??;
    let work = match open.service {
        Service::Build => house.life.work(),
        _ => None,
    };
    let welcome = match open.service {
        Service::Worker | Service::Cluster | Service::Certificates => {
            Err(Failure::new(Class::Denied, "This farm is of one machine, and takes no others"))
        }
        Service::Build if work.is_none() => Err(ending()),
        _ => Ok(()),
    };
    if !handshake(&mut stream, &open, welcome).await? {
        return Ok(());
    }
    match open.service {
        Service::Blobs => serve_blobs(house.parts.store.clone(), stream, Rights::Client).await,
        Service::Build => house.parts.coordinator.serve_build(stream, Who::alone()).await,
        Service::Admin => admin::serve(&house, stream).await,
        Service::Worker | Service::Cluster | Service::Certificates => Ok(()),
    }
}

/// Why no new work is taken.
pub fn ending() -> Failure {
    Failure::new(Class::Unavailable, "The farm is ending, and takes no new work")
        .hint("Try again: the next command starts a new one.")
}
