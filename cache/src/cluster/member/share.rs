//! The blobs that a node owns, and those that it gives up.

use super::fetch::Left;
use super::walk::{Difference, Walk};
use super::{Member, SyncError, locked};
use crate::cluster::placement::Placement;
use crate::net::serve::blocking;
use crate::store::Store;
use crate::store::disk::{Part as OwnPart, item_key, key_after};
use proto::id::{BlobId, CacheId};
use proto::limit;
use proto::wire::blob::{Item, Part, Share};
use proto::wire::cluster::{CacheState, Map};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When to look again for blobs that could not be given up yet, at the earliest.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How many times as long as a look took to wait for the next one: a large store is not kept busy
/// by a build that goes on for hours.
const REST: u32 = 20;

/// Blobs that are looked for at once, when all are that should be elsewhere.
const AUDIT: usize = 16384;

/// What of a map says who owns which blobs, and who can be asked for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// The nodes that own blobs.
    among: Vec<CacheId>,
    replicas: u8,
    /// The nodes that can be asked.
    heard: Vec<CacheId>,
}

impl Shape {
    pub fn of(map: &Map) -> Self {
        let those = |wanted: fn(CacheState) -> bool| {
            let nodes = map.nodes.iter().filter(move |node| wanted(node.state));
            nodes.map(|node| node.id.clone()).collect()
        };
        Self {
            among: those(|state| state != CacheState::Leaving),
            replicas: map.replicas,
            heard: those(|state| state != CacheState::Down),
        }
    }
}

impl Member {
    /// Has the blobs that this node owns, where they could be had; looked at when who owns what has
    /// changed.
    pub(super) async fn settle(&self, map: &Arc<Map>) -> Result<(), SyncError> {
        let shape = Shape::of(map);
        if locked(&self.shape).as_ref() == Some(&shape) {
            return Ok(());
        }
        self.get_share(map).await?;
        self.audit(map).await?;
        let store = self.store.clone();
        blocking(move || store.barrier()).await?;
        Ok(())
    }

    /// Gets the blobs that this node owns from whoever has them.
    pub(super) async fn get_share(&self, map: &Arc<Map>) -> Result<(), SyncError> {
        let shape = Shape::of(map);
        let share =
            Share { node: self.id.clone(), among: shape.among.clone(), replicas: shape.replicas };
        let mut left = Left::default();
        let mut got = 0;
        for node in self.others(map, |state| state != CacheState::Down) {
            let Some(peer) = self.farm.node(&node.id) else { continue };
            let mut walk =
                Walk::new(&self.store, peer.clone(), Part::Blobs(share.clone()), &[], &[]);
            loop {
                let differences = match walk.next().await {
                    Ok(Some(differences)) => differences,
                    Ok(None) => break,
                    // It has only what others have, too, or what they will get from it.
                    Err(SyncError::Net(error)) if node.state == CacheState::Syncing => {
                        tracing::debug!(node = %node.id, %error, "a node that catches up is passed over");
                        break;
                    }
                    Err(error) => return Err(error),
                };
                let lacking = differences.into_iter().filter_map(|difference| match difference {
                    Difference::Lacking(Item::Blob { id, size }) => Some((id, size)),
                    _ => None,
                });
                let lacking: Vec<(BlobId, u64)> = lacking.collect();
                if !lacking.is_empty() {
                    got += lacking.len();
                    left.merge(self.fetch(Some(&peer), &lacking).await?);
                }
            }
        }
        if got > 0 {
            tracing::info!(blobs = got, left = left.count, "got blobs that this node owns");
        }
        left.into_result()?;
        *locked(&self.shape) = Some(shape);
        Ok(())
    }

    /// Looks whether somebody has the blobs that should be elsewhere; what needs one that nobody has
    /// is forgotten. Not while a node is down that may have them.
    pub(super) async fn audit(&self, map: &Arc<Map>) -> Result<(), SyncError> {
        if map.nodes.iter().any(|node| node.state == CacheState::Down) {
            return Ok(());
        }
        let mut from = BlobId::from_bytes([0; 32]);
        loop {
            let store = self.store.clone();
            let looked = blocking(move || {
                let ids = store.elsewhere_from(&from, AUDIT)?;
                store.look_for(&ids)?;
                Ok::<_, crate::store::StoreError>(ids)
            });
            let ids = looked.await?;
            match ids.last() {
                Some(last) if ids.len() == AUDIT => from = *last,
                _ => return Ok(()),
            }
        }
    }

    /// Drops the blobs that others own, once they have them, when no node is on its way in or out.
    /// Answers when to look again, if some could not be dropped yet.
    pub(super) async fn give_up(&self, map: &Arc<Map>) -> Result<Option<Duration>, SyncError> {
        let moves = |state| matches!(state, CacheState::Syncing | CacheState::Leaving);
        if map.nodes.len() < 2 || map.nodes.iter().any(|node| moves(node.state)) {
            return Ok(None);
        }
        let began = Instant::now();
        let placement = Arc::new(Placement::new(map));
        let store = self.store.clone();
        let encodings = Arc::new(blocking(move || store.encodings()).await?);
        let (mut from, mut left, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let (page, next) = self.foreign(&placement, &encodings, from).await?;
            let (held, lacking) = self.held_by_owners(map, &placement, page).await;
            left += lacking;
            if !held.is_empty() {
                let store = self.store.clone();
                let released = blocking(move || store.release(&held)).await?;
                bytes += released.bytes;
                left += released.in_use;
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        if bytes > 0 {
            tracing::info!(bytes, left, "gave up blobs that other nodes own");
        }
        // Nobody tells when a build is done with a blob, or an owner has got it.
        Ok((left > 0).then(|| LOOK_AGAIN.max(REST * began.elapsed())))
    }

    /// Some blobs that others own; and where to go on.
    async fn foreign(
        &self,
        placement: &Arc<Placement>,
        encodings: &Arc<HashSet<BlobId>>,
        from: Vec<u8>,
    ) -> Result<(Vec<BlobId>, Option<Vec<u8>>), SyncError> {
        let (store, id) = (self.store.clone(), self.id.clone());
        let (placement, encodings) = (placement.clone(), encodings.clone());
        let page = blocking(move || {
            let foreign = |blob: &BlobId| !placement.owns(&id, blob) && !encodings.contains(blob);
            store.page(OwnPart::Blobs(&foreign), &from, &[], limit::RANGE_ITEMS)
        });
        let page = page.await?;
        let next = page.items.last().filter(|_| page.more).map(|last| key_after(item_key(last)));
        let blob = |item: Item| match item {
            Item::Blob { id, .. } => Some(id),
            _ => None,
        };
        Ok((page.items.into_iter().filter_map(blob).collect(), next))
    }

    /// Those of these blobs that all of their owners say that they have; and how many some of them
    /// lack, though all can be asked.
    async fn held_by_owners(
        &self,
        map: &Arc<Map>,
        placement: &Placement,
        ids: Vec<BlobId>,
    ) -> (Vec<BlobId>, usize) {
        let mut asked: BTreeMap<usize, Vec<BlobId>> = BTreeMap::new();
        let mut held: HashSet<BlobId> = HashSet::with_capacity(ids.len());
        for id in ids {
            let owners = placement.owners(&id);
            // What a node owns that is down is kept until it is back, or removed.
            if owners.iter().all(|at| map.nodes[*at].state == CacheState::Serving) {
                held.insert(id);
                owners.into_iter().for_each(|at| asked.entry(at).or_default().push(id));
            }
        }
        let all = held.len();
        for (at, asked) in asked {
            let missing = match self.farm.node(&map.nodes[at].id) {
                Some(client) => client.missing(asked.clone(), Vec::new()).await.ok(),
                None => None,
            };
            for id in missing.map_or(asked, |(missing, _)| missing) {
                held.remove(&id);
            }
        }
        let lacking = all - held.len();
        (held.into_iter().collect(), lacking)
    }
}
