//! Mending what is damaged, and telling what was collected.

use super::{Member, SyncError};
use crate::net::serve::blocking;
use crate::store::StoreError;
use crate::store::disk::Mending;
use proto::id::BlobId;
use proto::limit;
use proto::wire::cluster::CacheState;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Bytes that are read each second to find damage before somebody else does.
pub const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;

/// Between the ends of two rounds of looking, at least.
const SCRUB_REST: Duration = Duration::from_secs(12 * 3600);

/// When to try again to mend what could not be mended.
const MEND_AGAIN: Duration = Duration::from_secs(5);

impl Member {
    /// Gets damaged blobs from others, says that trees were lost, tells others what was collected.
    /// Answers when to try again, if something is left.
    pub(super) async fn mend(&self) -> Result<Option<Duration>, SyncError> {
        let Mending { blobs, lacks, forgotten } = self.store.take_mending();
        if lacks {
            self.lacks.store(true, Ordering::SeqCst);
            self.changed.notify_one();
        }
        self.tell(forgotten).await;
        let blobs: Vec<(BlobId, u64)> = blobs.into_iter().collect();
        let mut again = None;
        for (number, some) in blobs.chunks(limit::RANGE_ITEMS).enumerate() {
            match self.mend_some(some).await {
                Ok(0) => {}
                Ok(_) => again = Some(MEND_AGAIN),
                Err(error) => {
                    // What was not got is not forgotten.
                    self.store.mend_later(&blobs[number * limit::RANGE_ITEMS..]);
                    return Err(error.into());
                }
            }
        }
        Ok(again)
    }

    /// Gets damaged blobs from others. Answers how many are left for another time.
    async fn mend_some(&self, some: &[(BlobId, u64)]) -> Result<usize, StoreError> {
        let left = self.fetch(None, some).await?.count;
        tracing::warn!(damaged = some.len(), left, "got damaged blobs from others");
        if left == 0 {
            return Ok(0);
        }
        let ids: Vec<BlobId> = some.iter().map(|(id, _)| *id).collect();
        let store = self.store.clone();
        // What nobody has is lost; for the rest somebody has to come back.
        let left = blocking(move || {
            store.look_for(&ids)?;
            store.mend_again(&ids)
        });
        left.await
    }

    /// Tells the others what was collected here. Who does not hear it collects it, too, some time.
    async fn tell(&self, forgotten: Vec<proto::wire::blob::Forgotten>) {
        if forgotten.is_empty() {
            return;
        }
        tracing::info!(count = forgotten.len(), "tells the others what was collected");
        let map = self.farm.map();
        for node in self.others(&map, |state| state != CacheState::Down) {
            let Some(peer) = self.farm.node(&node.id) else { continue };
            for some in forgotten.chunks(limit::ENTRIES_MAX) {
                if let Err(error) = peer.forget(some.to_vec()).await {
                    tracing::debug!(node = %node.id, %error, "did not hear what was collected");
                    break;
                }
            }
        }
    }

    /// Reads and checks all blobs once; those that are damaged are got from others. Slowly, unless
    /// `at_once`.
    pub async fn check(&self, at_once: bool) -> Result<(), SyncError> {
        let mut from = BlobId::from_bytes([0; 32]);
        loop {
            let store = self.store.clone();
            let bytes = SCRUB_BYTES_PER_SECOND;
            let Some(next) = blocking(move || store.check_from(&from, bytes)).await? else {
                return Ok(());
            };
            from = next;
            if !at_once {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Looks for damage, again and again, as long as the node lives.
pub(super) async fn scrub(member: Weak<Member>) {
    loop {
        tokio::time::sleep(SCRUB_REST).await;
        let Some(member): Option<Arc<Member>> = member.upgrade() else { return };
        if let Err(error) = member.check(false).await {
            tracing::warn!(%error, "not all blobs could be checked");
        }
        // The share is looked at anew, too: somebody else's damage may have left too few copies.
        *super::locked(&member.shape) = None;
        member.woken.notify_one();
    }
}
