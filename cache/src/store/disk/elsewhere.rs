//! A store that is a part of a farm's: blobs that other nodes have.
//!
//! Every node has all trees, but only its share of the blobs. Of the others it knows that they are
//! elsewhere, and how large they are: a tree is whole here when each of its blobs is here or
//! elsewhere. Others are asked when something is put, and again when a blob is read that is not
//! here; one that nobody has any more takes the trees above it along, as on a machine that is
//! alone, so that its producer makes it again.
//!
//! Whatever is damaged here and not elsewhere is to be mended from there: [`Mending`].

use super::lose::Lost;
use super::rocks::Cf;
use super::value::{Elsewhere, Place, key};
use super::{Inner, batch::Sync, lock};
use crate::store::{Persisted, StoreError};
use proto::id::{BlobId, TreeId};
use proto::wire::blob::Forgotten;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};

/// Collected records and rows that wait to be told of. Of more nobody is told: they cost the others
/// room, until these collect them too.
const FORGOTTEN_MAX: usize = 100_000;

/// The other nodes of the farm that a store is a part of. The methods block.
pub trait Others: Send + std::marker::Sync {
    /// Who of the others has these blobs.
    fn look(&self, ids: &[BlobId]) -> Result<Found, StoreError>;

    /// There is something in [`Mending`].
    fn wake(&self);
}

/// What others have of some blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// For each blob in order its size, if somebody has it.
    pub sizes: Vec<Option<u64>>,
    /// Whether all have answered that can be reached: what none of them has is lost.
    pub all_asked: bool,
}

/// What became of blobs that others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// How many bytes of content went.
    pub bytes: u64,
    /// How many blobs are in use, and stayed.
    pub in_use: usize,
}

/// What is to be done about a farm's part of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mending {
    /// Blobs with their sizes that were damaged here and that others have.
    pub blobs: BTreeMap<BlobId, u64>,
    /// Whether trees, or rows, were lost here that others may have.
    pub lacks: bool,
    /// What was collected here, of which the others are to be told.
    pub forgotten: Vec<Forgotten>,
}

/// The farm's side of a store.
#[derive(Default)]
pub(super) struct Farm {
    others: OnceLock<Arc<dyn Others>>,
    mending: Mutex<Mending>,
    /// Held by who looks for something: who comes second finds it done.
    looking: Mutex<()>,
}

impl Farm {
    pub fn others(&self) -> Option<&Arc<dyn Others>> {
        self.others.get()
    }

    pub fn is_joined(&self) -> bool {
        self.others.get().is_some()
    }

    fn mend(&self, change: impl FnOnce(&mut Mending)) {
        if let Some(others) = self.others.get() {
            change(&mut lock(&self.mending));
            others.wake();
        }
    }

    /// Notes that trees or rows were lost.
    pub fn note_lack(&self) {
        self.mend(|mending| mending.lacks = true);
    }

    /// Notes what was collected.
    pub fn note_forgotten(&self, more: Vec<Forgotten>) {
        if !more.is_empty() {
            self.mend(|mending| {
                let room = FORGOTTEN_MAX.saturating_sub(mending.forgotten.len());
                mending.forgotten.extend(more.into_iter().take(room));
            });
        }
    }
}

impl Inner {
    pub fn join(&self, others: Arc<dyn Others>) {
        // Whoever was first stays.
        let _ = self.farm.others.set(others);
    }

    pub fn take_mending(&self) -> Mending {
        std::mem::take(&mut *lock(&self.farm.mending))
    }

    /// The sizes of those of these blobs that are noted to be elsewhere.
    pub fn elsewhere(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>, StoreError> {
        let keys: Vec<Vec<u8>> = ids.iter().map(key::elsewhere).collect();
        let sizes = self.index.values::<Elsewhere>(Cf::Table, &keys)?;
        Ok(sizes.into_iter().map(|elsewhere| Some(elsewhere?.size)).collect())
    }

    /// The sizes of those of these blobs that are here or noted to be elsewhere.
    pub fn known_sizes(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>, StoreError> {
        let mut sizes: Vec<Option<u64>> =
            self.index.blobs(ids)?.iter().map(|place| Some(place.as_ref()?.size())).collect();
        let away: Vec<usize> = (0..ids.len()).filter(|at| sizes[*at].is_none()).collect();
        let asked: Vec<BlobId> = away.iter().map(|at| ids[*at]).collect();
        for (at, size) in away.into_iter().zip(self.elsewhere(&asked)?) {
            sizes[at] = size;
        }
        Ok(sizes)
    }

    /// Of these blobs, those that are neither here nor noted to be elsewhere.
    fn unknown(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, StoreError> {
        let sizes = self.known_sizes(ids)?;
        Ok(ids.iter().zip(sizes).filter(|(_, size)| size.is_none()).map(|(id, _)| *id).collect())
    }

    /// Asks the others for blobs of which nothing is known, and notes what they have.
    pub fn learn(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        let Some(others) = self.farm.others() else { return Ok(()) };
        let unknown = {
            let _gate = self.gate();
            self.touches.blobs(ids);
            self.unknown(ids)?
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let found = others.look(&unknown)?.sizes;
        let found = unknown.into_iter().zip(found).filter_map(|(id, size)| Some((id, size?)));
        self.note_elsewhere(found)
    }

    /// Notes blobs that another node says that it, or somebody, has.
    pub fn believe(&self, blobs: &HashMap<BlobId, u64>) -> Result<(), StoreError> {
        let ids: Vec<BlobId> = blobs.keys().copied().collect();
        let _gate = self.gate();
        self.touches.blobs(&ids);
        let unknown = self.unknown(&ids)?;
        self.note_elsewhere(unknown.into_iter().map(|id| (id, blobs[&id])))
    }

    fn note_elsewhere(
        &self,
        blobs: impl IntoIterator<Item = (BlobId, u64)>,
    ) -> Result<(), StoreError> {
        let mut batch = self.index.batch();
        for (id, size) in blobs {
            batch.put(Cf::Table, &key::elsewhere(&id), &Elsewhere { size }.to_bytes());
        }
        if batch.is_empty() { Ok(()) } else { batch.commit(Sync::No) }
    }

    /// Blobs that turned out to be damaged here are elsewhere, as far as is known, and are to come
    /// back from there. The caller holds the gate alone, and has seen that they are so.
    pub fn move_elsewhere(&self, blobs: HashMap<BlobId, Place>) -> Result<u64, StoreError> {
        let mut batch = self.index.batch();
        for (id, place) in &blobs {
            self.delete_blob(&mut batch, id, place)?;
            let elsewhere = Elsewhere { size: place.size() };
            batch.put(Cf::Table, &key::elsewhere(id), &elsewhere.to_bytes());
        }
        batch.commit(Sync::No)?;
        let count = blobs.len() as u64;
        self.farm.mend(|mending| {
            mending.blobs.extend(blobs.into_iter().map(|(id, place)| (id, place.size())));
        });
        Ok(count)
    }

    /// Looks whether the others have those of these blobs that are noted to be elsewhere and not
    /// here. What nobody has any more is lost, with all that needs it. The caller holds no lock.
    pub fn look_for(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        let Some(others) = self.farm.others() else { return Ok(()) };
        let _looking = lock(&self.farm.looking);
        let here = self.index.blobs(ids)?;
        let known = self.elsewhere(ids)?;
        let away: Vec<BlobId> = ids
            .iter()
            .zip(here.iter().zip(&known))
            .filter(|(_, (here, known))| here.is_none() && known.is_some())
            .map(|(id, _)| *id)
            .collect();
        if away.is_empty() {
            return Ok(());
        }
        let found = others.look(&away)?;
        if !found.all_asked {
            return Ok(());
        }
        let lost: Vec<BlobId> = away
            .into_iter()
            .zip(found.sizes)
            .filter(|(_, s)| s.is_none())
            .map(|(id, _)| id)
            .collect();
        self.lose_for_good(&lost)
    }

    /// Looks for blobs that were asked for and are not here, if that is what an error says.
    pub fn sought<T>(
        &self,
        ids: &[BlobId],
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Err(StoreError::NoBlob(_)) = &result
            && let Err(error) = self.look_for(ids)
        {
            tracing::debug!(%error, "The others could not be asked for a blob");
        }
        result
    }

    /// Forgets blobs that nobody has, and all that needs them.
    fn lose_for_good(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let _gate = self.gate_alone();
        let mut lost = Lost::default();
        let mut batch = self.index.batch();
        for (id, place) in ids.iter().zip(self.index.blobs(ids)?) {
            // It may have come meanwhile.
            if place.is_none() {
                lost.blobs.insert(*id, Place::File { size: 0 });
                batch.delete(Cf::Table, &key::elsewhere(id));
            }
        }
        if lost.blobs.is_empty() {
            return Ok(());
        }
        let blobs = lost.blobs.len();
        self.trees_above(&mut lost)?;
        let rows = self.lose_rows(&lost)?;
        let trees = self.delete_trees(lost.trees)?;
        batch.commit(Sync::No)?;
        tracing::warn!(blobs, trees, rows, "Blobs that no cache node has any more are forgotten");
        Ok(())
    }

    /// Blobs that are noted to be elsewhere, from an id on, at most `most`.
    pub fn elsewhere_from(&self, from: &BlobId, most: usize) -> Result<Vec<BlobId>, StoreError> {
        let mut ids = Vec::new();
        let (from, to) = (key::elsewhere(from), vec![key::ELSEWHERE + 1]);
        self.index.range(Cf::Table, &from, &to, |key, _| {
            ids.extend(key[1..].try_into().map(BlobId::from_bytes));
            Ok(if ids.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(ids)
    }

    /// Blobs that hold the encodings of trees that are here.
    pub fn encodings(&self) -> Result<HashSet<BlobId>, StoreError> {
        let mut blobs = HashSet::new();
        self.index.scan(Cf::Tree, &[], |_, head| {
            blobs.extend(super::value::Head::from_bytes(head).and_then(|head| head.blob));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(blobs)
    }

    /// Deletes blobs that others have, and notes so. Those in use are passed over.
    pub fn release(&self, ids: &[BlobId]) -> Result<Released, StoreError> {
        let _turn = lock(&self.collecting);
        self.check_poison()?;
        let collecting = {
            let _gate = self.gate_alone();
            self.touches.begin()
        };
        let mut released = Released::default();
        for some in ids.chunks(1024) {
            let _gate = self.gate_alone();
            let mut batch = self.index.batch();
            for (id, place) in some.iter().zip(self.index.blobs(some)?) {
                let Some(place) = place else { continue };
                if collecting.has_blob(id) {
                    released.in_use += 1;
                    continue;
                }
                released.bytes += place.size();
                self.delete_blob(&mut batch, id, &place)?;
                let elsewhere = Elsewhere { size: place.size() };
                batch.put(Cf::Table, &key::elsewhere(id), &elsewhere.to_bytes());
                if let Place::File { .. } = place {
                    batch.put(Cf::State, &super::value::state::doomed(id), &[]);
                }
            }
            batch.commit(Sync::No)?;
        }
        if released.in_use < ids.len() {
            self.barrier()?;
            self.delete_doomed()?;
            self.compact(u64::MAX, &mut super::gc::Report::default())?;
            self.measure_index();
        }
        Ok(released)
    }

    /// Takes encoded tree nodes from another node, which has them whole: their blobs are here or
    /// elsewhere. Answers how many were passed over, because something below them is not here.
    pub fn take_nodes(inner: &Arc<Self>, nodes: &[Vec<u8>]) -> Result<usize, StoreError> {
        let mut blobs = HashMap::new();
        for bytes in nodes {
            let node = proto::tree::AnyNode::decode(bytes)
                .map_err(|e| StoreError::Node(proto::tree::node_id(bytes), e))?;
            blobs.extend(node.blobs());
        }
        inner.believe(&blobs)?;
        match Self::put_known(inner, nodes) {
            Err(StoreError::Incomplete { .. }) => {}
            other => return other.map(|()| 0),
        }
        let mut passed = 0;
        for node in nodes {
            match Self::put_known(inner, std::slice::from_ref(node)) {
                Err(StoreError::Incomplete { .. }) => passed += 1,
                other => other?,
            }
        }
        Ok(passed)
    }

    /// Of these blobs, those that are not here and that somebody else may have are to be mended
    /// later. Answers how many.
    pub fn mend_again(&self, ids: &[BlobId]) -> Result<usize, StoreError> {
        let here = self.index.blobs(ids)?;
        let elsewhere = self.elsewhere(ids)?;
        let left: Vec<(BlobId, u64)> = ids
            .iter()
            .zip(here.iter().zip(elsewhere))
            .filter_map(|(id, (here, size))| Some((*id, size.filter(|_| here.is_none())?)))
            .collect();
        self.mend_later(&left);
        Ok(left.len())
    }

    /// Blobs, with their sizes, are to be mended later: nothing is read for it, so nothing can fail.
    pub fn mend_later(&self, blobs: &[(BlobId, u64)]) {
        lock(&self.farm.mending).blobs.extend(blobs.iter().copied());
    }

    /// Which of these trees are not here, without calling them used.
    pub fn lacking_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
        let heads = self.index.heads(ids)?;
        Ok(ids.iter().zip(heads).filter(|(_, head)| head.is_none()).map(|(id, _)| *id).collect())
    }
}
