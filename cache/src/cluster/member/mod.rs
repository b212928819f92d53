//! A cache node, as a part of the farm's store: it gets what it should have, gives up what others
//! own, and mends what is damaged.
//!
//! | the map says | the node |
//! |---|---|
//! | `Syncing` | gets all trees, records, aliases and rows from those that serve, and the blobs that it owns from whoever has them; then it says so, and serves |
//! | `Serving` | gets the blobs that it owns since the map changed; when nobody moves any more, drops those that others own and have |
//! | `Leaving` | waits until the others have what it has |
//! | nothing of it | was removed, and stays out until its process starts again |
//!
//! All of it is pulled: nodes only read from each other. So a node that is slow or gone holds up
//! nobody else, and any of it can be done again.

mod catch_up;
mod fetch;
mod mend;
mod share;
mod walk;

pub use mend::SCRUB_BYTES_PER_SECOND;
pub use walk::{Difference, Walk};

use super::Cluster;
use crate::net::NetError;
use crate::store::disk::{Found, Others};
use crate::store::{DiskStore, Store, StoreError};
use proto::id::{BlobId, CacheId};
use proto::wire::cluster::{CacheNode, CacheState, Map};
use share::Shape;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// How long to wait before something that failed is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How long to wait for something to do.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a node could not get what it should have.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another node could not be reached, or would not answer.
    #[error("Another cache node does not give what it has: {0}")]
    Net(#[from] NetError),
    /// The own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nobody to get it from.
    #[error("No other cache node serves, so there is nobody to catch up from")]
    Nobody,
    /// Something could not be had just now.
    #[error("{left} things could not be had yet; the last one: {last}")]
    Left {
        /// How many.
        left: usize,
        /// Why the last one could not.
        last: String,
    },
    /// The map changed, so that it has to begin again.
    #[error("The map changed")]
    Changed,
}

/// A cache node's part of the farm's store.
pub struct Member {
    store: Arc<DiskStore>,
    farm: Arc<Cluster>,
    id: CacheId,
    synced: watch::Sender<u64>,
    /// Whether something was lost here that is not mended: the next hello says 0.
    lacks: AtomicBool,
    changed: Notify,
    woken: Arc<Notify>,
    shape: Mutex<Option<Shape>>,
}

/// What a node says next of how much it has.
pub struct Hello<'a> {
    member: &'a Member,
    /// The map up to which it has everything; 0 when it can't say.
    pub synced: u64,
}

impl Hello<'_> {
    /// It could not be said: it is to be said again.
    pub fn failed(self) {
        if self.synced == 0 {
            self.member.lacks.store(true, Ordering::SeqCst);
        }
    }
}

/// The other nodes, as the store asks them.
struct Peers {
    farm: Arc<Cluster>,
    id: CacheId,
    runtime: Handle,
    woken: Arc<Notify>,
}

impl Others for Peers {
    fn look(&self, ids: &[BlobId]) -> Result<Found, StoreError> {
        Ok(self.runtime.block_on(self.farm.look(ids, Some(&self.id))))
    }

    fn wake(&self) {
        self.woken.notify_one();
    }
}

impl Member {
    /// Makes a store the part of the node `id` in the store of a farm. Called on a runtime's thread:
    /// its runtime does the work.
    pub fn join(store: Arc<DiskStore>, farm: Arc<Cluster>, id: CacheId) -> Arc<Self> {
        let woken = Arc::new(Notify::new());
        store.join(Arc::new(Peers {
            farm: farm.clone(),
            id: id.clone(),
            runtime: Handle::current(),
            woken: woken.clone(),
        }));
        let (synced, lacks) = (watch::Sender::new(0), AtomicBool::new(false));
        let (changed, shape) = (Notify::new(), Mutex::default());
        Arc::new(Self { store, farm, id, synced, lacks, changed, woken, shape })
    }

    /// What to say of how much it has, now and whenever [`Member::changed`] returns.
    pub fn hello(&self) -> Hello<'_> {
        let lacks = self.lacks.swap(false, Ordering::SeqCst);
        let synced = if lacks { 0 } else { *self.synced.borrow() };
        Hello { member: self, synced }
    }

    /// The map up to which it has everything, whenever that changes.
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.synced.subscribe()
    }

    /// Waits until there is something new to say.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn say(&self, epoch: u64) {
        if self.synced.send_replace(epoch) != epoch {
            self.changed.notify_one();
        }
    }

    fn as_store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn own<'m>(&self, map: &'m Map) -> Option<&'m CacheNode> {
        map.nodes.iter().find(|node| node.id == self.id)
    }

    /// The nodes other than this one in a state that `wanted` says yes to.
    fn others<'m>(&self, map: &'m Map, wanted: impl Fn(CacheState) -> bool) -> Vec<&'m CacheNode> {
        map.nodes.iter().filter(|node| node.id != self.id && wanted(node.state)).collect()
    }

    /// Does all that a map asks for, and what mends itself, until the node is removed from the farm.
    pub async fn run(self: &Arc<Self>) {
        let mut maps = self.farm.maps();
        let (mut was_there, mut pause) = (false, RETRY.0);
        let scrub = tokio::spawn(mend::scrub(Arc::downgrade(self)));
        loop {
            let map = maps.borrow_and_update().clone();
            match self.own(&map) {
                Some(_) => was_there = true,
                None if was_there => break,
                None => {}
            }
            let wait = match self.turn(&map).await {
                Ok(wait) => {
                    pause = RETRY.0;
                    wait.unwrap_or(IDLE)
                }
                Err(error) => {
                    tracing::info!(epoch = map.epoch, "not everything is as it should be: {error}");
                    pause = (pause * 2).min(RETRY.1);
                    pause
                }
            };
            tokio::select! {
                changed = maps.changed() => if changed.is_err() { break },
                () = self.woken.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        scrub.abort();
    }

    /// Does what a map asks for. Answers when to look again.
    async fn turn(self: &Arc<Self>, map: &Arc<Map>) -> Result<Option<Duration>, SyncError> {
        let mended = self.mend().await?;
        let Some(own) = self.own(map) else { return Ok(None) };
        match own.state {
            CacheState::Syncing => {
                self.catch_up(map).await?;
                self.say(map.epoch);
                Ok(mended)
            }
            CacheState::Serving => {
                self.settle(map).await?;
                self.say(map.epoch);
                let left = self.give_up(map).await?;
                Ok(mended.into_iter().chain(left).min())
            }
            CacheState::Leaving | CacheState::Down => Ok(mended),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
