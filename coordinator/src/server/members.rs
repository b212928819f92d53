//! The cache nodes of a farm: hears them, and tells everybody which there are.

use super::now;
use crate::core::members::{Members, RemoveError};
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::CacheId;
use proto::wire::cluster::{CacheHello, CacheState, FromMember, Map};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often nodes that have been gone are looked at when none is to be given up soon.
const LOOK: Duration = Duration::from_secs(3600);

/// The cache nodes of a farm. Clones are the same ones.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    members: Mutex<Members>,
    maps: watch::Sender<Arc<Map>>,
    lost_after: Duration,
    /// A node's connection broke.
    gone: Notify,
}

/// A cache node, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRow {
    /// Who it is.
    pub id: CacheId,
    /// Where it serves blobs.
    pub address: String,
    /// How it is.
    pub state: CacheState,
    /// Bytes that it holds, and may hold.
    pub bytes: (u64, u64),
}

impl Membership {
    /// No nodes yet. Each blob is to be on `replicas` of those that come; one that is gone for
    /// `lost_after` is given up.
    pub fn new(replicas: u8, lost_after: Duration) -> Self {
        let members = Members::new(replicas);
        let (maps, _) = watch::channel(Arc::new(members.map()));
        let members = Mutex::new(members);
        let inner = Arc::new(Inner { members, maps, lost_after, gone: Notify::new() });
        tokio::spawn(expire(Arc::downgrade(&inner)));
        Self(inner)
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.members()
    }

    /// The maps, the latest first.
    pub fn maps(&self) -> watch::Receiver<Arc<Map>> {
        self.0.maps.subscribe()
    }

    /// The nodes, for people.
    pub fn rows(&self) -> Vec<CacheRow> {
        let members = self.members();
        let row = |(id, member): (&CacheId, &crate::core::members::Member)| CacheRow {
            id: id.clone(),
            address: member.address.clone(),
            state: member.state,
            bytes: member.bytes,
        };
        members.all().map(row).collect()
    }

    /// A node lacks what others have.
    pub fn stale(&self, id: &CacheId) {
        tracing::warn!(node = %id, "a cache node missed a write, and catches up before it serves");
        self.members().stale(id);
        self.0.tell();
    }

    /// A node is to go: when `at_once` with all that it has, else when others have it.
    pub fn remove(&self, id: &CacheId, at_once: bool) -> Result<(), RemoveError> {
        match at_once {
            true => self.members().remove(id)?,
            false => self.members().leave(id)?,
        }
        self.0.tell();
        Ok(())
    }

    /// Serves one member. `cache` is who it is, if its certificate says that it is a cache node, and
    /// `from` is where it dialled from.
    pub async fn serve(
        &self,
        stream: Stream,
        cache: Option<CacheId>,
        from: IpAddr,
    ) -> Result<(), NetError> {
        let Stream { to, from: mut words } = stream;
        match words.expect::<FromMember>().await?.0 {
            FromMember::Watch => self.tell(to, words).await,
            FromMember::Cache(hello) => {
                let Some(id) = cache.filter(|id| *id == hello.id) else {
                    let message =
                        format!("The certificate is not one of the cache node {}", hello.id);
                    return Err(NetError::Refused(Failure::new(Class::Denied, message)));
                };
                self.hear(hello, from);
                let heard = async {
                    while let Some((word, _)) = words.next::<FromMember>().await? {
                        match word {
                            FromMember::Cache(hello) if hello.id == id => self.hear(hello, from),
                            other => {
                                let text = format!("{other:?}").chars().take(80).collect();
                                return Err(NetError::Unexpected(text));
                            }
                        }
                    }
                    Ok(())
                };
                let ended = tokio::select! {
                    ended = heard => ended,
                    ended = send_maps(to, self.maps()) => ended,
                };
                self.members().gone(now(), &id);
                self.0.gone.notify_one();
                ended
            }
        }
    }

    fn hear(&self, mut hello: CacheHello, from: IpAddr) {
        if let Some(port) = hello.address.strip_prefix(':') {
            hello.address = match from.to_canonical() {
                IpAddr::V4(ip) => format!("{ip}:{port}"),
                IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            };
        }
        self.members().hello(&hello);
        self.0.tell();
    }

    async fn tell(&self, to: Sender, mut words: Receiver) -> Result<(), NetError> {
        tokio::select! {
            // Whoever only watches says nothing more.
            ended = words.next::<FromMember>() => ended.map(drop),
            ended = send_maps(to, self.maps()) => ended,
        }
    }
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody, if there is something to tell.
    fn tell(&self) {
        let map = self.members().map();
        self.maps.send_if_modified(|told| {
            let news = told.epoch != map.epoch;
            if news {
                for node in &map.nodes {
                    tracing::info!(node = %node.id, state = ?node.state, epoch = map.epoch, "cache node");
                }
                *told = Arc::new(map.clone());
            }
            news
        });
    }
}

async fn send_maps(mut to: Sender, mut maps: watch::Receiver<Arc<Map>>) -> Result<(), NetError> {
    loop {
        let map = maps.borrow_and_update().clone();
        to.send(&*map).await?;
        if maps.changed().await.is_err() {
            return to.close().await;
        }
    }
}

/// Gives up nodes that do not come back.
async fn expire(inner: std::sync::Weak<Inner>) {
    loop {
        let Some(held) = inner.upgrade() else { return };
        let lost_after = held.lost_after.as_millis() as u64;
        let next = held.members().expire(now(), lost_after);
        held.tell();
        let wait = next.map_or(LOOK, |at| Duration::from_millis(at.since(now()) + 1));
        tokio::select! {
            () = held.gone.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
