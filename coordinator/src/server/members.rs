//! The cache nodes of a farm: hears them, and tells everybody which there are.

use super::locked;
use super::{Ledger, now};
use crate::core::facts::Fact;
use crate::core::members::{Leaving, Members, RemoveError};
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::{CacheId, Millis};
use proto::limit::CACHE_NODES_MAX;
use proto::wire::cluster::{CacheHello, CacheState, FromMember, Map};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often nodes that have been gone are looked at when none is to be given up soon.
const LOOK: Duration = Duration::from_secs(3600);

/// How long it can take until a node knows that its connection to an earlier life of this process
/// is gone.
const NOTICED_AFTER: Duration = Duration::from_secs(30);

/// Under what name the log keeps the cache nodes.
const KEPT: &[u8] = b"cache nodes";

/// The cache nodes of a farm. Clones are the same ones.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    members: Mutex<Members>,
    maps: watch::Sender<Arc<Map>>,
    lost_after: Duration,
    /// A node's connection broke.
    gone: Notify,
    /// Something is to be told.
    changed: Notify,
    /// A node has said something.
    heard: watch::Sender<()>,
    /// The number of each node's latest stream.
    streams: Mutex<HashMap<CacheId, u64>>,
}

/// A stream of a cache node. However it ends, also when whoever serves it is stopped, the node is
/// gone; unless it has opened another one.
struct Present {
    inner: Arc<Inner>,
    id: CacheId,
    number: u64,
}

impl Present {
    fn new(inner: &Arc<Inner>, id: &CacheId) -> Self {
        let mut streams = inner.streams();
        let number = streams.get(id).map_or(0, |last| last + 1);
        streams.insert(id.clone(), number);
        drop(streams);
        Self { inner: inner.clone(), id: id.clone(), number }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if self.inner.streams().get(&self.id) == Some(&self.number) {
            self.inner.members().gone(now(), &self.id);
            self.inner.gone.notify_one();
        }
    }
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
    /// Whether it cannot be heard at the moment.
    pub is_gone: bool,
    /// Bytes that it holds, and may hold.
    pub bytes: (u64, u64),
}

/// What becomes of a cache node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOrder {
    /// It gives what it has to others.
    Leave,
    /// It was told to leave, and is to stay.
    Stay,
    /// It goes at once, with all that it has.
    Remove,
}

impl Membership {
    /// Those nodes that `ledger` keeps. Each blob is to be on `replicas` of them and of those that
    /// come; one that is gone for `lost_after` is given up.
    pub fn new(replicas: u8, lost_after: Duration, ledger: Ledger) -> Self {
        let kept = ledger.read(|facts| facts.kept.get(KEPT).cloned());
        // They have to notice that it begins anew before they can come back.
        let gone = Millis(now().0 + NOTICED_AFTER.as_millis() as u64);
        let kept = kept.map(|bytes| Members::restore(&bytes, replicas, gone));
        let members = kept.transpose().unwrap_or_else(|e| {
            tracing::error!("{e}; the cache nodes are those that come from now on");
            None
        });
        let members = members.unwrap_or_else(|| Members::new(replicas));
        let (maps, _) = watch::channel(Arc::new(members.map()));
        let (members, heard) = (Mutex::new(members), watch::Sender::new(()));
        let (gone, changed) = (Notify::new(), Notify::new());
        let streams = Mutex::default();
        let inner = Arc::new(Inner { members, maps, lost_after, gone, changed, heard, streams });
        tokio::spawn(expire(Arc::downgrade(&inner)));
        tokio::spawn(publish(inner.clone(), ledger));
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
            is_gone: member.is_gone(),
            bytes: member.bytes,
        };
        members.all().map(row).collect()
    }

    /// A node lacks what others have.
    pub fn stale(&self, id: &CacheId) {
        if self.members().stale(id) {
            tracing::warn!(node = %id, "a cache node missed a write, and catches up before it serves");
            self.0.tell();
        }
    }

    /// Changes what becomes of a node.
    pub fn order(&self, id: &CacheId, order: CacheOrder) -> Result<(), RemoveError> {
        match order {
            CacheOrder::Leave => self.members().leave(id)?,
            CacheOrder::Stay => self.members().stay(id)?,
            CacheOrder::Remove => self.members().remove(id)?,
        }
        self.0.tell();
        Ok(())
    }

    /// Waits until the others have all that they should have without a node that leaves; or until
    /// they can't get it.
    pub async fn left(&self, id: &CacheId) -> Result<Leaving, RemoveError> {
        let mut heard = self.0.heard.subscribe();
        loop {
            heard.mark_unchanged();
            match self.members().leaving(id)? {
                Leaving::Waits(_) => {}
                ended => return Ok(ended),
            }
            // Whoever is gone says nothing: it is looked at all the same.
            let _ = tokio::time::timeout(Duration::from_secs(1), heard.changed()).await;
        }
    }

    /// Serves one member. `cache` is who it is, if its certificate says that it is a cache node,
    /// `from` is where it dialled from; `writes` says whether it may tell what others missed.
    pub async fn serve(
        &self,
        stream: Stream,
        cache: Option<CacheId>,
        from: IpAddr,
        writes: bool,
    ) -> Result<(), NetError> {
        let Stream { to, from: mut words } = stream;
        match words.expect::<FromMember>().await?.0 {
            FromMember::Watch => self.tell(to, words, writes).await,
            FromMember::Missed(_) => Err(NetError::Unexpected("a word before the first".into())),
            FromMember::Cache(hello) => {
                let Some(id) = cache.filter(|id| *id == hello.id) else {
                    let message =
                        format!("The certificate is not one of the cache node {}", hello.id);
                    return Err(NetError::Refused(Failure::new(Class::Denied, message)));
                };
                let _present = Present::new(&self.0, &id);
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
                tokio::select! {
                    ended = heard => ended,
                    ended = send_maps(to, self.maps()) => ended,
                }
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

    async fn tell(&self, to: Sender, mut words: Receiver, writes: bool) -> Result<(), NetError> {
        let heard = async {
            while let Some((word, _)) = words.next::<FromMember>().await? {
                match word {
                    FromMember::Missed(nodes) if writes && nodes.len() <= CACHE_NODES_MAX => {
                        nodes.iter().for_each(|id| self.stale(id));
                    }
                    other => {
                        let text = format!("{other:?}").chars().take(80).collect();
                        return Err(NetError::Unexpected(text));
                    }
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = heard => ended,
            ended = send_maps(to, self.maps()) => ended,
        }
    }
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, Members> {
        locked(&self.members)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<CacheId, u64>> {
        locked(&self.streams)
    }

    /// Has everybody told, if there is something to tell.
    fn tell(&self) {
        self.changed.notify_one();
        self.heard.send_replace(());
    }
}

/// Tells everybody what has changed, once it is written down.
async fn publish(inner: Arc<Inner>, ledger: Ledger) {
    loop {
        let (map, kept) = {
            let members = inner.members();
            (members.map(), members.snapshot())
        };
        if inner.maps.borrow().epoch != map.epoch {
            let fact = Fact::Kept { key: KEPT.to_vec(), value: Some(kept) };
            if let Err(e) = ledger.note(&[fact]).await {
                tracing::error!("{e}; changes of the cache nodes are told to nobody");
                return;
            }
            for node in &map.nodes {
                tracing::info!(node = %node.id, state = ?node.state, epoch = map.epoch, "cache node");
            }
            inner.maps.send_replace(Arc::new(map));
            continue;
        }
        inner.changed.notified().await;
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
