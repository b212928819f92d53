//! Who has which blobs.

use super::{Cluster, View};
use crate::cluster::placement::At;
use crate::net::NetError;
use crate::net::blobs::Blobs;
use crate::store::disk::Found;
use proto::id::{BlobId, CacheId};
use proto::limit;
use std::collections::BTreeMap;

impl Cluster {
    /// The sizes of blobs that a node other than `but` has.
    pub async fn sizes(
        &self,
        ids: &[BlobId],
        but: Option<&CacheId>,
    ) -> Result<Vec<Option<u64>>, NetError> {
        Ok(self.look(ids, but).await.sizes)
    }

    /// What nodes other than `but` have of these blobs.
    pub async fn look(&self, ids: &[BlobId], but: Option<&CacheId>) -> Found {
        let view = self.view();
        let owners = |id: &BlobId| {
            let mut readers = view.placement.readers(id);
            readers.truncate(view.placement.replicas());
            readers
        };
        let mut found = self.ask_sizes(&view, ids, but, owners).await;
        let away: Vec<usize> = (0..ids.len()).filter(|at| found.sizes[*at].is_none()).collect();
        let asked: Vec<BlobId> = away.iter().map(|at| ids[*at]).collect();
        let further = self.look_further(&view, &asked, but).await;
        for (at, size) in away.into_iter().zip(further.sizes) {
            found.sizes[at] = size;
        }
        found.all_asked &= further.all_asked;
        found
    }

    /// What nodes have of blobs that their first readers do not have: those that had them before a
    /// change, and those that are still catching up.
    pub(super) async fn look_further(
        &self,
        view: &View,
        ids: &[BlobId],
        but: Option<&CacheId>,
    ) -> Found {
        let others = |id: &BlobId| {
            view.placement.readers(id).into_iter().skip(view.placement.replicas()).collect()
        };
        self.ask_sizes(view, ids, but, others).await
    }

    async fn ask_sizes(
        &self,
        view: &View,
        ids: &[BlobId],
        but: Option<&CacheId>,
        whom: impl Fn(&BlobId) -> Vec<At>,
    ) -> Found {
        let mut asked: BTreeMap<At, Vec<usize>> = BTreeMap::new();
        for (place, id) in ids.iter().enumerate() {
            for at in whom(id).into_iter().filter(|at| Some(view.id(*at)) != but) {
                asked.entry(at).or_default().push(place);
            }
        }
        let nodes: Vec<At> = asked.keys().copied().collect();
        let ask = |at: At, client: Blobs| {
            let ids: Vec<BlobId> = asked[&at].iter().map(|place| ids[*place]).collect();
            async move {
                let mut sizes = Vec::with_capacity(ids.len());
                for some in ids.chunks(limit::FIND_MISSING_MAX) {
                    sizes.extend(client.sizes(some.to_vec()).await?);
                }
                Ok(sizes)
            }
        };
        let mut found = Found { sizes: vec![None; ids.len()], all_asked: true };
        for (at, answer) in self.on_all(view, &nodes, ask).await {
            found.all_asked &= answer.is_ok();
            for (place, size) in asked[&at].iter().zip(answer.into_iter().flatten()) {
                found.sizes[*place] = found.sizes[*place].or(size);
            }
        }
        found
    }
}
