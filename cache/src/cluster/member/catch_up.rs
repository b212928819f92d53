//! Getting all that those that serve have.

use super::walk::{Difference, Walk};
use super::{Member, SyncError};
use crate::net::NetError;
use crate::net::blobs::Blobs;
use crate::net::serve::blocking;
use crate::store::Store;
use crate::store::disk::Taken;
use bytes::Bytes;
use futures::stream::{StreamExt, iter};
use proto::id::TreeId;
use proto::limit;
use proto::wire::blob::{Entry, Forgotten, Item, Part};
use proto::wire::cluster::{CacheState, Map};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

/// Tree nodes that are fetched in one go, those with the fewest levels below them first. About 40
/// bytes of memory each.
const TREES_AT_ONCE: usize = 1 << 20;

/// Requests for trees that are under way.
const REQUESTS: usize = 4;

/// So few things were lacking that the rest came, or comes, by the writes that everybody gets.
const LITTLE: usize = 64;

/// Entries that only this node has and that are remembered from one look to the next.
const EXTRA_MAX: usize = 1 << 20;

/// What one look at the others led to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Done {
    got: usize,
    dropped: usize,
}

/// The hash of an entry's value.
type Hash = [u8; 32];

/// Entries in which this node differs, by key, with the hashes of both: none for the one that does
/// not have it.
type Odd = HashMap<Vec<u8>, (Option<Hash>, Option<Hash>)>;

/// The part of the table before and behind the aliases, which come after the records that they lead
/// to.
const RECORDS_AND_ROWS: (&[u8], &[u8]) = (b"b", b"");
const ALIASES: (&[u8], &[u8]) = (b"", b"b");

/// With what the keys of rows begin.
const ROW: u8 = b't';

impl Member {
    /// Gets everything that those that serve have, and the blobs that this node owns.
    pub(super) async fn catch_up(&self, map: &Arc<Map>) -> Result<(), SyncError> {
        let serving = self.others(map, |state| state == CacheState::Serving);
        let peers: Vec<Blobs> =
            serving.iter().filter_map(|node| self.farm.node(&node.id)).collect();
        if peers.is_empty() {
            return Err(SyncError::Nobody);
        }
        tracing::info!(epoch = map.epoch, "catches up with those that serve");
        let mut odd = Odd::new();
        loop {
            let mut done = Done::default();
            for peer in &peers {
                done.got += self.get_trees(peer).await?;
            }
            done.got += self.get_entries(&peers, &mut odd, &mut done.dropped).await?;
            tracing::info!(got = done.got, dropped = done.dropped, "looked at those that serve");
            if done.got <= LITTLE && done.dropped == 0 {
                break;
            }
            if self.farm.map().epoch != map.epoch && self.is_moot() {
                return Err(SyncError::Changed);
            }
        }
        self.get_share(map).await?;
        self.audit(map).await?;
        let store = self.store.clone();
        blocking(move || store.barrier()).await?;
        Ok(())
    }

    /// Whether the latest map does not want this node to catch up.
    fn is_moot(&self) -> bool {
        let map = self.farm.map();
        self.own(&map).is_none_or(|own| own.state != CacheState::Syncing)
    }

    /// Gets the trees that a node has; answers how many there were.
    async fn get_trees(&self, peer: &Blobs) -> Result<usize, SyncError> {
        let mut all = 0;
        loop {
            let (trees, more) = self.lacking_trees(peer).await?;
            let passed = self.get_some_trees(peer, &trees).await?;
            all += trees.len() - passed;
            // What was passed over had something below it collected meanwhile.
            if !more || passed == trees.len() {
                return Ok(all);
            }
        }
    }

    /// Trees that a node has and this one has not, those with the fewest levels below them first:
    /// all of them, or as many as are fetched in one go.
    async fn lacking_trees(&self, peer: &Blobs) -> Result<(Vec<(TreeId, u32)>, bool), SyncError> {
        let mut walk = Walk::new(&self.store, peer.clone(), Part::Trees, &[], &[]);
        let (mut lowest, mut more) = (BinaryHeap::new(), false);
        while let Some(differences) = walk.next().await? {
            for difference in differences {
                if let Difference::Lacking(Item::Tree { id, height, bytes }) = difference {
                    lowest.push((height, id, bytes));
                    if lowest.len() > TREES_AT_ONCE {
                        lowest.pop();
                        more = true;
                    }
                }
            }
        }
        let sorted = lowest.into_sorted_vec();
        Ok((sorted.into_iter().map(|(_, id, bytes)| (id, bytes)).collect(), more))
    }

    /// Answers how many were passed over.
    async fn get_some_trees(
        &self,
        peer: &Blobs,
        trees: &[(TreeId, u32)],
    ) -> Result<usize, SyncError> {
        let batches = in_batches(trees);
        let fetch = |ids: Vec<TreeId>| async move { (ids.len(), encoded(peer, &ids).await) };
        // In order: what is above comes after what is below.
        let mut fetched = iter(batches).map(fetch).buffered(REQUESTS);
        let mut passed = 0;
        while let Some((asked, nodes)) = fetched.next().await {
            let nodes: Vec<Vec<u8>> = nodes?.iter().map(|bytes| bytes.to_vec()).collect();
            passed += asked - nodes.len();
            let store = self.store.clone();
            passed += blocking(move || store.take_nodes(&nodes)).await?;
        }
        Ok(passed)
    }

    /// Gets records, rows and aliases; drops those that none of the others has, when that is so
    /// twice in a row: then they are not just being written. Answers how many came.
    async fn get_entries(
        &self,
        peers: &[Blobs],
        odd: &mut Odd,
        dropped: &mut usize,
    ) -> Result<usize, SyncError> {
        let before = std::mem::take(odd);
        let mut extra: HashMap<Vec<u8>, (Hash, usize)> = HashMap::new();
        let mut got = 0;
        for (from, to) in [RECORDS_AND_ROWS, ALIASES] {
            for peer in peers {
                let mut walk = Walk::new(&self.store, peer.clone(), Part::Table, from, to);
                let mut wanted = Wanted::new();
                while let Some(differences) = walk.next().await? {
                    for difference in differences {
                        match difference {
                            Difference::Lacking(Item::Entry { key, hash }) => {
                                wanted.push((key, (None, Some(hash))));
                            }
                            Difference::Other {
                                own: Item::Entry { key, hash },
                                theirs: Item::Entry { hash: theirs, .. },
                            } => {
                                let state = (Some(hash), Some(theirs));
                                // Of records and aliases the newer one counts; a row that
                                // differs only for a moment is being written.
                                if key[0] != ROW || before.get(&key) == Some(&state) {
                                    wanted.push((key, state));
                                } else {
                                    odd.insert(key, state);
                                }
                            }
                            Difference::Extra(Item::Entry { key, hash })
                                if extra.len() < EXTRA_MAX || extra.contains_key(&key) =>
                            {
                                extra.entry(key).or_insert((hash, 0)).1 += 1;
                            }
                            _ => {}
                        }
                    }
                    if wanted.len() >= limit::ENTRIES_MAX {
                        let some = std::mem::take(&mut wanted);
                        got += self.take_entries(peer, some, &before, odd).await?;
                    }
                }
                got += self.take_entries(peer, wanted, &before, odd).await?;
            }
        }
        extra.retain(|_, (_, lack)| *lack == peers.len());
        let mut gone = Vec::new();
        for (key, (hash, _)) in extra {
            match before.get(&key) == Some(&(Some(hash), None)) {
                true => gone.push(Forgotten { key, hash }),
                false => drop(odd.insert(key, (Some(hash), None))),
            }
        }
        if !gone.is_empty() {
            let store = self.store.clone();
            *dropped += blocking(move || store.forget(&gone)).await? as usize;
        }
        // What was odd is looked at once more.
        Ok(got + if odd.is_empty() { 0 } else { LITTLE + 1 })
    }

    /// Answers how many were kept. One that what it names is not here for is odd, unless it was so
    /// before: then it is not whole at the other end, either.
    async fn take_entries(
        &self,
        peer: &Blobs,
        wanted: Wanted,
        before: &Odd,
        odd: &mut Odd,
    ) -> Result<usize, SyncError> {
        let mut kept = 0;
        for some in wanted.chunks(limit::ENTRIES_MAX) {
            let states: HashMap<&[u8], _> = some.iter().map(|(key, s)| (&key[..], *s)).collect();
            let mut left: Vec<Vec<u8>> = some.iter().map(|(key, _)| key.clone()).collect();
            while !left.is_empty() {
                let entries = peer.entries(left.clone()).await?;
                // Those that did not fit are asked for again; those that are gone are gone.
                let Some(last) = entries.last().map(|entry| entry.key.clone()) else { break };
                let asked: HashSet<Vec<u8>> = match left.iter().position(|key| *key == last) {
                    Some(at) => left.drain(..=at).collect(),
                    None => HashSet::new(),
                };
                if entries.iter().any(|entry| !asked.contains(&entry.key)) {
                    let what = "an entry that nobody asked for".to_owned();
                    return Err(NetError::Unexpected(what).into());
                }
                let (some_kept, incomplete) = self.keep_entries(entries).await?;
                kept += some_kept;
                for key in incomplete {
                    let state = states[&key[..]];
                    if before.get(&key) != Some(&state) {
                        odd.insert(key, state);
                    }
                }
            }
        }
        Ok(kept)
    }

    /// Answers how many were kept, and the keys of those that what they name is not here for.
    async fn keep_entries(&self, entries: Vec<Entry>) -> Result<(usize, Vec<Vec<u8>>), SyncError> {
        let store = self.store.clone();
        let keep = move || {
            let (mut kept, mut incomplete) = (0, Vec::new());
            for entry in entries {
                match store.take_entry(&entry)? {
                    Taken::Kept => kept += 1,
                    Taken::Older => {}
                    Taken::Incomplete => incomplete.push(entry.key),
                }
            }
            Ok::<_, crate::store::StoreError>((kept, incomplete))
        };
        Ok(blocking(keep).await?)
    }
}

/// Entries to be asked for, each with how it differs.
type Wanted = Vec<(Vec<u8>, (Option<Hash>, Option<Hash>))>;

/// Tree nodes in batches of a good size.
fn in_batches(trees: &[(TreeId, u32)]) -> Vec<Vec<TreeId>> {
    let mut batches: Vec<Vec<TreeId>> = Vec::new();
    let mut bytes = usize::MAX;
    for (id, size) in trees {
        let full = batches.last().is_none_or(|batch| batch.len() >= limit::RANGE_ITEMS / 4);
        if full || bytes.saturating_add(*size as usize) > limit::BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += *size as usize;
        batches.last_mut().expect("just made").push(*id);
    }
    batches
}

/// The encodings of tree nodes, without those that are gone meanwhile.
async fn encoded(peer: &Blobs, ids: &[TreeId]) -> Result<Vec<Bytes>, SyncError> {
    match peer.get_encoded(ids).await {
        Err(NetError::Refused(_)) => {}
        other => return Ok(other?),
    }
    let mut nodes = Vec::new();
    for id in ids {
        match peer.get_encoded(&[*id]).await {
            Err(NetError::Refused(failure)) => tracing::debug!(tree = %id, %failure, "is gone"),
            other => nodes.extend(other?),
        }
    }
    Ok(nodes)
}
