//! `slipway worker`: runs steps for a farm.

use super::listen::{Guest, Host, listen};
use super::party::Party;
use super::uplink::{keep, writing};
use crate::farm::binary;
use crate::up::settings::{disk_budget, open_store, worker_settings};
use cache::cluster::through::{ConnectPeer, Exchanged, Through};
use cache::net::blobs::Blobs;
use cache::net::serve::{Rights, serve};
use cache::net::{Dial, NetError, Stream};
use cache::store::{DiskStore, Store};
use ops::config::Config;
use ops::identity::Role;
use ops::identity::tls::ClientAuth;
use proto::error::{Class, Failure};
use proto::id::WorkerId;
use proto::wire::Service;
use std::sync::Arc;
use tokio::task::JoinSet;
use worker::agent::Worker;

/// What of a worker's budget is for blobs; the rest is for layers as directories, whose files are
/// mostly links to files of the store.
const STORE_SHARE: (u64, u64) = (2, 3);

/// A worker, with what its peers are served with.
struct Hands {
    store: Arc<DiskStore>,
}

/// A worker that works for a farm.
#[derive(Clone)]
pub struct Hired {
    /// The worker.
    pub worker: Worker,
    /// Its own store.
    pub store: Arc<DiskStore>,
    /// What it moved between its own store and the farm's.
    pub exchanged: Arc<Exchanged>,
}

/// Starts it; its tasks are added to `tasks`. `uplink` reaches the coordinator.
pub async fn start(
    party: &Party,
    config: &Config,
    uplink: Arc<dyn Dial>,
    tasks: &mut JoinSet<()>,
) -> Result<Hired, Failure> {
    worker::sandbox::check_machine()?;
    let name = party.subject().name().to_string();
    let id = WorkerId::parse(&name).map_err(|e| Failure::new(Class::User, e.to_string()))?;
    let budget = disk_budget(config)?;
    let (numerator, denominator) = STORE_SHARE;
    let own = budget / denominator * numerator;
    let store = open_store(config.home.join("worker-store"), own).await?;
    let farm = writing(party, uplink.clone());
    let through = Through::new(store.clone(), farm).with_peers(peers(party));
    let exchanged = through.exchanged();
    let through: Arc<dyn Store> = Arc::new(through);
    let slots = config.worker.slots.or(config.slots);
    let mut settings = worker_settings(id, slots, None, budget - own, false, config)?;
    if config.worker.serve_peers {
        let host = config.node.advertise.as_ref().map(ToString::to_string).unwrap_or_default();
        settings.address = format!("{host}:{}", config.worker.listen.port());
    }
    let worker = Worker::open(settings, through).await?;
    if config.worker.serve_peers {
        let endpoint = party.listen(config.worker.listen, ClientAuth::Required)?;
        tasks.spawn(listen(endpoint, Arc::new(Hands { store: store.clone() })));
    }
    let serving = worker.clone();
    tasks.spawn(async move {
        keep(uplink, Service::Worker, |stream| {
            let worker = serving.clone();
            async move { worker.serve(stream).await }
        })
        .await;
    });
    Ok(Hired { worker, store, exchanged })
}

/// How other workers are reached.
fn peers(party: &Party) -> Box<ConnectPeer> {
    let party = party.clone();
    Box::new(move |peer| {
        // Who can't be reached is no reason to wait: cache nodes have all that peers have.
        Blobs::new(party.bulk(&peer.address, Role::Worker), binary())
    })
}

impl Host for Hands {
    fn admits(&self, guest: &Guest, service: Service) -> Result<(), Failure> {
        let is_worker = guest.known()?.has(Role::Worker);
        match service {
            Service::Blobs if is_worker => Ok(()),
            other => {
                let message =
                    format!("A worker gives blobs to workers, and nothing else: {other:?}");
                Err(Failure::new(Class::Denied, message))
            }
        }
    }

    async fn serve(self: Arc<Self>, _: Guest, _: Service, stream: Stream) -> Result<(), NetError> {
        serve(self.store.clone(), stream, Rights::Reader).await
    }
}
