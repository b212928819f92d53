//! `slipway cache`: a cache node.

use super::listen::{Guest, Host, listen};
use super::party::Party;
use super::uplink::{cluster, follow, keep, no_map};
use crate::talk::{Talk, converse};
use crate::up::admin::disk::Disk;
use crate::up::settings::{disk_budget, open_store};
use cache::cluster::member::Member;
use cache::net::serve::{Rights, serve};
use cache::net::{Dial, NetError, Sender, Stream};
use cache::store::DiskStore;
use ops::config::Config;
use ops::identity::Role;
use ops::identity::tls::ClientAuth;
use proto::error::{Class, Failure};
use proto::id::{CacheId, Millis};
use proto::wire::Service;
use proto::wire::admin::Request;
use proto::wire::cluster::{CacheHello, CacheState, FromMember, Map};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often a cache node says how much it holds.
const SAY_AGAIN: Duration = Duration::from_secs(15);

/// A cache node, with what its guests are served with.
pub struct Shelf {
    store: Arc<DiskStore>,
}

/// A cache node at work.
pub struct Shelved {
    /// Its store.
    pub store: Arc<DiskStore>,
    id: CacheId,
    maps: watch::Receiver<Arc<Map>>,
}

impl Shelved {
    /// How the coordinator said last that it is; none before it has said anything.
    pub fn state(&self) -> Option<CacheState> {
        let map = self.maps.borrow().clone();
        map.nodes.iter().find(|node| node.id == self.id).map(|node| node.state)
    }
}

/// Starts it; its tasks are added to `tasks`. `uplink` reaches the coordinator.
pub async fn start(
    party: &Party,
    config: &Config,
    uplink: Arc<dyn Dial>,
    tasks: &mut JoinSet<()>,
) -> Result<Shelved, Failure> {
    let budget = disk_budget(config)?;
    let store = open_store(config.home.join("cache"), budget).await?;
    let endpoint = party.listen(config.cache_listen, ClientAuth::Required)?;
    tracing::info!(address = %config.cache_listen, "the cache node listens");
    let shelf = Arc::new(Shelf { store: store.clone() });
    tasks.spawn(listen(endpoint, shelf));
    let name = party.subject().name().to_string();
    let id = CacheId::parse(&name).map_err(|e| Failure::new(Class::User, e.to_string()))?;
    let host = config.node.advertise.as_ref().map(ToString::to_string).unwrap_or_default();
    let address = format!("{host}:{}", config.cache_listen.port());
    let (told, maps) = watch::channel(Arc::new(no_map()));
    let member = Member::join(store.clone(), cluster(party, maps.clone()), id.clone());
    let (started, reporter) = (Millis(crate::clock::now_ms()), member.clone());
    let say =
        Sayer { id: id.clone(), address, store: store.clone(), budget, started, member: reporter };
    tasks.spawn(async move {
        tokio::select! {
            () = report(uplink, told, say) => {}
            () = member.run() => tracing::error!(
                "this cache node was removed from the farm; start it again to have it join anew"
            ),
        }
        // What it has can still be read, by those who have not heard of it.
        std::future::pending().await
    });
    Ok(Shelved { store, id, maps })
}

struct Sayer {
    id: CacheId,
    address: String,
    store: Arc<DiskStore>,
    budget: u64,
    started: Millis,
    member: Arc<Member>,
}

impl Sayer {
    async fn say(&self, to: &mut Sender) -> Result<(), NetError> {
        let hello = self.member.hello();
        let word = FromMember::Cache(CacheHello {
            id: self.id.clone(),
            address: self.address.clone(),
            started: self.started,
            synced: hello.synced,
            held_bytes: self.store.held_bytes(),
            budget_bytes: self.budget,
        });
        let said = to.send(&word).await;
        if said.is_err() {
            hello.failed();
        }
        said
    }
}

/// Keeps the coordinator informed, and hears which nodes there are.
async fn report(uplink: Arc<dyn Dial>, maps: watch::Sender<Arc<Map>>, sayer: Sayer) {
    let (maps, sayer) = (&maps, &sayer);
    keep(uplink, Service::Cluster, |stream| async move {
        let Stream { mut to, from } = stream;
        let say = async {
            loop {
                sayer.say(&mut to).await?;
                let changed = sayer.member.changed();
                // How much it holds changes all the time.
                let _ = tokio::time::timeout(SAY_AGAIN, changed).await;
            }
        };
        tokio::select! {
            ended = follow(from, maps) => ended,
            ended = say => ended,
        }
    })
    .await;
}

impl Host for Shelf {
    fn admits(&self, guest: &Guest, service: Service) -> Result<(), Failure> {
        guest.known()?;
        let is_coordinator =
            guest.subject.as_ref().is_some_and(|subject| subject.has(Role::Coordinator));
        match service {
            Service::Blobs => Ok(()),
            // Whoever looks after the farm asks its coordinator.
            Service::Admin if is_coordinator => Ok(()),
            other => {
                Err(Failure::new(Class::Denied, format!("A cache node does not serve {other:?}")))
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        guest: Guest,
        service: Service,
        stream: Stream,
    ) -> Result<(), NetError> {
        if service == Service::Admin {
            let disk = Disk { store: self.store.clone(), layers: None };
            return converse(stream, async |request, talk| answer(&disk, request, talk).await)
                .await;
        }
        let has = |role: Role| guest.subject.as_ref().is_some_and(|subject| subject.has(role));
        let rights = match () {
            () if has(Role::Coordinator) => Rights::Coordinator,
            () if has(Role::Worker) => Rights::Worker,
            () if has(Role::Cache) => Rights::Node,
            () => Rights::Client,
        };
        serve(self.store.clone(), stream, rights).await
    }
}

/// Does with the node's own store what the coordinator asks for.
async fn answer(disk: &Disk, request: Request, talk: &mut Talk) -> Result<(), Failure> {
    match disk.answer(request, talk).await? {
        None => Ok(()),
        Some(_) => Err(Failure::new(Class::User, "A cache node looks after its store only")),
    }
}
