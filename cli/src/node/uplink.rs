//! The way to the coordinator: keeps a stream to it open, and hears which cache nodes there are.

use super::party::Party;
use crate::farm::binary;
use backon::{BackoffBuilder, ExponentialBuilder};
use cache::cluster::Cluster;
use cache::net::{Dial, NetError, Receiver, Stream};
use ops::identity::Role;
use proto::error::Class;
use proto::wire::Service;
use proto::wire::cluster::{CacheNode, FromMember, Map};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Waits between attempts to reach a coordinator, each about twice the last one, with chance in
/// them, so that not all come back at the same moment.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The waits of one who has lost the coordinator. They never end.
pub fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_MIN)
        .with_max_delay(RETRY_MAX)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Opens a stream and works with it, again and again.
pub async fn keep<F, R>(dial: Arc<dyn Dial>, service: Service, work: F)
where
    F: Fn(Stream) -> R,
    R: Future<Output = Result<(), NetError>>,
{
    let mut pause = waits();
    let mut silent = false;
    loop {
        let opened = async {
            let opening = dial.dial().await?.open(binary(), service).await?;
            Ok::<_, NetError>(opening.stream)
        };
        match opened.await {
            Ok(stream) => {
                pause = waits();
                silent = false;
                tracing::info!(?service, "the coordinator is there");
                match work(stream).await {
                    Ok(()) => tracing::warn!(?service, "the coordinator has gone"),
                    Err(e) => tracing::warn!(?service, "the coordinator was lost: {e}"),
                }
            }
            // Said once, not with each attempt; what nobody but a person can mend is said louder.
            Err(e) if !silent => {
                silent = true;
                match e.class() {
                    Class::Denied => tracing::error!(?service, "{}", advice(&e)),
                    _ => tracing::warn!(?service, "{e}; trying again"),
                }
            }
            Err(e) => tracing::debug!(?service, "{e}"),
        }
        tokio::time::sleep(pause.next().unwrap_or(RETRY_MAX)).await;
    }
}

fn advice(error: &NetError) -> String {
    match error {
        NetError::Refused(failure) => match &failure.hint {
            Some(hint) => format!("{failure}. {hint}"),
            None => failure.to_string(),
        },
        other => other.to_string(),
    }
}

/// Reads maps from a stream that was opened for them, until it ends.
pub async fn follow(mut from: Receiver, maps: &watch::Sender<Arc<Map>>) -> Result<(), NetError> {
    while let Some((map, _)) = from.next::<Map>().await? {
        maps.send_replace(Arc::new(map));
    }
    Ok(())
}

/// The map of a farm of which nothing is known yet.
pub fn no_map() -> Map {
    Map { epoch: 0, replicas: 1, nodes: Vec::new() }
}

/// The farm's store by the maps of a coordinator, who is told of nodes that missed something that
/// is written. For as long as the process lives.
pub fn writing(party: &Party, dial: Arc<dyn Dial>) -> Arc<Cluster> {
    let (maps, watched) = watch::channel(Arc::new(no_map()));
    let farm = cluster(party, watched);
    let told = farm.clone();
    tokio::spawn(async move {
        let (maps, told) = (&maps, &told);
        keep(dial, Service::Cluster, |stream| async move {
            let Stream { mut to, from } = stream;
            to.send(&FromMember::Watch).await?;
            let tell = async {
                loop {
                    to.send(&FromMember::Missed(told.stale().await)).await?;
                }
            };
            tokio::select! {
                ended = follow(from, maps) => ended,
                ended = tell => ended,
            }
        })
        .await;
    });
    farm
}

/// Follows the maps of a coordinator.
pub async fn watch_on(dial: Arc<dyn Dial>, maps: &watch::Sender<Arc<Map>>) {
    keep(dial, Service::Cluster, |stream| async move {
        let Stream { mut to, from } = stream;
        to.send(&FromMember::Watch).await?;
        follow(from, maps).await
    })
    .await;
}

/// The farm's store, by the maps that come.
pub fn cluster(party: &Party, maps: watch::Receiver<Arc<Map>>) -> Arc<Cluster> {
    let party = party.clone();
    let connect = move |node: &CacheNode| party.bulk(&node.address, Role::Cache);
    Arc::new(Cluster::new(Box::new(connect), binary(), maps))
}
