//! Who has which blobs.

use super::{Cluster, View, locked};
use crate::cluster::placement::At;
use crate::net::NetError;
use crate::net::blobs::Blobs;
use crate::store::disk::Found;
use proto::id::{BlobId, CacheId};
use proto::limit;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

impl Cluster {
    /// The sizes of blobs that a node other than `but` has.
    pub async fn sizes(
        &self,
        ids: &[BlobId],
        but: Option<&CacheId>,
    ) -> Result<Vec<Option<u64>>, NetError> {
        Ok(self.look(ids, but).await.sizes)
    }

    /// What nodes other than `but` have of these blobs. First those are asked that should have them
    /// and did not fail lately; for the rest, all others that may.
    pub async fn look(&self, ids: &[BlobId], but: Option<&CacheId>) -> Found {
        let view = self.view();
        let suspects = self.suspects(&view);
        let first = |id: &BlobId| view.first_readers(id, &suspects);
        let mut found = self.ask_sizes(&view, ids, but, first).await;
        let away: Vec<usize> = (0..ids.len()).filter(|at| found.sizes[*at].is_none()).collect();
        let asked: Vec<BlobId> = away.iter().map(|at| ids[*at]).collect();
        let further = self.look_further(&view, &asked, but, &suspects).await;
        for (at, size) in away.into_iter().zip(further.sizes) {
            found.sizes[at] = size;
        }
        found.all_asked &= further.all_asked;
        found
    }

    /// What nodes have of blobs that their [`View::first_readers`] do not have: those that had them
    /// before a change, those that are still catching up, those that failed lately.
    pub(super) async fn look_further(
        &self,
        view: &View,
        ids: &[BlobId],
        but: Option<&CacheId>,
        suspects: &HashSet<At>,
    ) -> Found {
        let others = |id: &BlobId| {
            let first = view.first_readers(id, suspects);
            let mut readers = view.placement.readers(id);
            readers.retain(|at| !first.contains(at));
            readers
        };
        self.ask_sizes(view, ids, but, others).await
    }

    /// The nodes that failed lately.
    pub(super) fn suspects(&self, view: &View) -> HashSet<At> {
        let known = locked(&self.known);
        let now = Instant::now();
        let is_suspect = |at: &At| known.suspects.get(view.id(*at)).is_some_and(|t| *t > now);
        (0..view.map.nodes.len()).filter(is_suspect).collect()
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
        // Who knows of no map yet has asked nobody.
        let all_asked = view.map.epoch > 0;
        let mut found = Found { sizes: vec![None; ids.len()], all_asked };
        for (at, answer) in self.on_all(view, &nodes, ask).await {
            found.all_asked &= answer.is_ok();
            for (place, size) in asked[&at].iter().zip(answer.into_iter().flatten()) {
                found.sizes[*place] = found.sizes[*place].or(size);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::Binary;
    use proto::wire::cluster::Map;
    use std::sync::Arc;

    #[tokio::test]
    async fn who_knows_no_node_has_not_asked_all() {
        let map = Map { epoch: 0, replicas: 1, nodes: Vec::new() };
        let (_, map) = tokio::sync::watch::channel(Arc::new(map));
        let binary = Binary { version: String::new(), modified_ms: 0 };
        let nobody = |_: &_| unreachable!("there is no node");
        let farm = Cluster::new(Box::new(nobody), binary, map);
        let found = farm.look(&[BlobId::of(b"somewhere")], None).await;
        assert_eq!((found.sizes, found.all_asked), (vec![None], false));
    }
}
