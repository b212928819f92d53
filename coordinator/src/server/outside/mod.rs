//! Caches outside of the farm: what a build takes from them, and gives to them.
//!
//! A build's imported records are held in memory, beside the farm's own, and count for that build
//! alone: whoever can write to a registry must not decide what is trusted in a farm. Their layers
//! are fetched when somebody needs them; a layer that cannot be had is a result that was lost, and
//! its step runs again.

mod give;
mod take;

pub use give::{give, records};
pub use take::{Gone, bring, of_plan, read};

use super::locked;
use crate::core::AliasHit;
use proto::id::{ContentKey, DefKey, RootId};
use proto::record::Record;
use proto::wire::outside::{CacheContent, CacheFrom, CachePlace, CachedLayer, CachedRecord};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

/// Layers of one build that are fetched at the same time.
const LAYERS_AT_ONCE: usize = 16;

/// What a build found in the caches that it takes from.
pub struct Imported {
    shelf: Mutex<Shelf>,
    /// A permit for each layer that is fetched.
    fetching: Semaphore,
}

impl Default for Imported {
    fn default() -> Self {
        Self { shelf: Mutex::default(), fetching: Semaphore::new(LAYERS_AT_ONCE) }
    }
}

#[derive(Default)]
struct Shelf {
    records: Vec<CachedRecord>,
    by_definition: HashMap<DefKey, usize>,
    by_content: HashMap<ContentKey, usize>,
    layers: HashMap<RootId, Kept>,
}

/// A layer that lies in a cache.
#[derive(Clone)]
struct Kept {
    layer: CachedLayer,
    from: CacheFrom,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It lies there.
    Away,
    /// The farm has it.
    Here,
    /// It cannot be had.
    Lost,
    /// It could not be had, and was made again: the farm has it, and the cache has not.
    Remade,
}

impl State {
    fn is_here(self) -> bool {
        matches!(self, Self::Here | Self::Remade)
    }
}

impl Imported {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        locked(&self.shelf)
    }

    /// What a definition leads to.
    pub fn by_definition(&self, key: &DefKey) -> Option<AliasHit> {
        let shelf = self.shelf();
        let found = &shelf.records[*shelf.by_definition.get(key)?];
        shelf.has(found).then(|| AliasHit { alias: found.alias(), record: found.record() })
    }

    /// The record of a content.
    pub fn by_content(&self, key: &ContentKey) -> Option<Record> {
        let shelf = self.shelf();
        let found = &shelf.records[*shelf.by_content.get(key)?];
        shelf.has(found).then(|| found.record())
    }

    /// Where layers lie, of those that were not found to be lost there.
    fn places(&self, layers: &[RootId]) -> Vec<(CachedLayer, CachePlace)> {
        let shelf = self.shelf();
        let kept = layers.iter().filter_map(|layer| shelf.layers.get(layer));
        let had = kept.filter(|kept| matches!(kept.state, State::Away | State::Here));
        had.map(|kept| (kept.layer.clone(), kept.from.place.clone())).collect()
    }
}

impl Shelf {
    /// Takes in what a cache has. What stands in an earlier one stays.
    fn add(&mut self, content: CacheContent, from: &CacheFrom) {
        for layer in content.layers {
            let (from, state) = (from.clone(), State::Away);
            self.layers.entry(layer.tree).or_insert(Kept { layer, from, state });
        }
        for record in content.records {
            let at = self.records.len();
            self.by_definition.entry(record.definition).or_insert(at);
            self.by_content.entry(record.content).or_insert(at);
            self.records.push(record);
        }
    }

    /// Whether all layers of a record can still be had.
    fn has(&self, record: &CachedRecord) -> bool {
        let state = |layer| self.layers.get(layer).map(|kept| kept.state);
        record.layers.iter().all(|layer| state(layer).is_some_and(|state| state != State::Lost))
    }

    /// The records whose layers are all here, and that have this one.
    fn whole(&self, layer: &RootId) -> Vec<CachedRecord> {
        let here = |layer| self.layers.get(layer).is_some_and(|kept| kept.state.is_here());
        let with = self.records.iter().filter(|record| record.layers.contains(layer));
        with.filter(|record| record.layers.iter().all(here)).cloned().collect()
    }
}
