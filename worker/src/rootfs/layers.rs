//! Layers on disk: each diff tree is made into a directory once, and kept until room is needed.

use super::disk::Disk;
use super::overlay::Upper;
use super::resolve::Resolver;
use super::{RootfsError, load_root, materialize, squash, verify};
use cache::store::{Store, StoreError};
use proto::id::RootId;
use proto::limit;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What an entry costs of the budget besides its bytes: about an inode and a name.
const ENTRY_BYTES: u64 = 512;

/// Layers as directories under one folder. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct LayerCache {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<Disk>,
    store: Arc<dyn Store>,
    budget: u64,
    resolver: Resolver,
    state: Mutex<State>,
    made: Condvar,
}

#[derive(Default)]
struct State {
    layers: HashMap<RootId, Slot>,
    bytes: u64,
    clock: u64,
}

enum Slot {
    /// Somebody makes it; whoever needs it too waits.
    Making,
    Ready(Arc<LayerDir>, u64),
}

/// A layer's directory. It is not deleted as long as this is held.
pub(crate) struct LayerDir {
    disk: Arc<Disk>,
    name: String,
    bytes: u64,
    doomed: AtomicBool,
    /// When its use was last written down.
    noted: Mutex<Instant>,
}

/// Uses within this time are written down as one.
const NOTED_FOR: Duration = Duration::from_secs(60);

impl LayerDir {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        self.disk.layer(&self.name)
    }
}

impl Drop for LayerDir {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Relaxed) {
            self.disk.discard(&self.path());
        }
    }
}

/// A layer whose directory is not what its tree says.
#[derive(Debug)]
pub struct Damage {
    /// The layer.
    pub layer: RootId,
    /// What is wrong with it, in sentences.
    pub found: Vec<String>,
}

impl LayerCache {
    /// Opens the cache in the folder `dir`, which is made if it is not there. It should lie on the
    /// file system of the store, or files are copied where they could be linked.
    ///
    /// `budget` is in bytes; layers in use are kept beyond it. Raises this process's limit of open
    /// files to the highest allowed, because a walk holds a directory open at each level.
    pub fn open(dir: &Path, store: Arc<dyn Store>, budget: u64) -> Result<Self, RootfsError> {
        raise_open_files();
        let (disk, left) = Disk::open(dir)?;
        let mut state = State::default();
        for found in left {
            let dropped = |why: &dyn std::fmt::Display| {
                tracing::debug!(layer = %found.id, %why, "a left layer is dropped");
                disk.forget(&found.id);
                disk.discard(&disk.layer(&found.name));
            };
            match layer_bytes(&*store, &found.id) {
                Ok(bytes) => state.add(found.id, LayerDir::new(&disk, found.name, bytes)),
                Err(e) => dropped(&e),
            }
        }
        let inner = Inner {
            disk,
            store,
            budget,
            resolver: Resolver::default(),
            state: Mutex::new(state),
            made: Condvar::new(),
        };
        let cache = Self { inner: Arc::new(inner) };
        cache.evict();
        Ok(cache)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.inner.disk.path()
    }

    /// The store that the layers are made from.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn disk(&self) -> &Arc<Disk> {
        &self.inner.disk
    }

    /// How many bytes the layers take, as the budget counts them.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// How many layers there are, their bytes, and the bytes of those that nobody uses now.
    pub fn usage(&self) -> (u64, u64, u64) {
        let state = self.state();
        let ready = state.layers.values().filter_map(|slot| match slot {
            Slot::Ready(layer, _) => Some(layer),
            Slot::Making => None,
        });
        let unused = ready.clone().filter(|layer| Arc::strong_count(layer) == 1);
        (ready.count() as u64, state.bytes, unused.map(|layer| layer.bytes).sum())
    }

    /// Whether the layer is there, without making it.
    pub fn has(&self, diff: &RootId) -> bool {
        matches!(self.state().layers.get(diff), Some(Slot::Ready(..)))
    }

    /// The directories of a root's layers, topmost first; missing ones are made.
    pub(crate) fn lowers(&self, diffs: &[RootId]) -> Result<Vec<Arc<LayerDir>>, RootfsError> {
        let store = &*self.inner.store;
        let mut ids = self.inner.resolver.resolve(store, diffs)?;
        // overlayfs takes a directory once. Of equal layers the topmost does all that the lower
        // ones do: steps that change nothing all have the same one.
        let mut seen = HashSet::new();
        ids.reverse();
        ids.retain(|id| seen.insert(*id));
        ids.reverse();
        let lowest = squash::how_many(ids.len(), limit::OVERLAY_LOWERS_MAX);
        if lowest > 0 {
            let rest = ids.split_off(lowest);
            ids = vec![squash::squash(store, &ids)?];
            ids.extend(rest);
        }
        ids.iter().rev().map(|id| self.get(id)).collect()
    }

    fn get(&self, id: &RootId) -> Result<Arc<LayerDir>, RootfsError> {
        let mut state = self.state();
        loop {
            let now = state.tick();
            match state.layers.get_mut(id) {
                Some(Slot::Ready(layer, used)) => {
                    *used = now;
                    let layer = layer.clone();
                    drop(state);
                    layer.note_use(id);
                    return Ok(layer);
                }
                Some(Slot::Making) => {
                    state = self.inner.made.wait(state).unwrap_or_else(|p| p.into_inner());
                }
                None => break,
            }
        }
        state.layers.insert(*id, Slot::Making);
        drop(state);
        let claim = Claim { inner: &self.inner, id };
        let layer = self.make(id)?;
        claim.done(layer.clone());
        self.evict();
        Ok(layer)
    }

    fn make(&self, id: &RootId) -> Result<Arc<LayerDir>, RootfsError> {
        let disk = &self.inner.disk;
        let bytes = layer_bytes(&*self.inner.store, id)?;
        self.inner.store.prefetch(id)?;
        let tmp = disk.new_tmp()?;
        let made = materialize::materialize(&*self.inner.store, id, &tmp)
            .and_then(|()| disk.keep(id, &tmp));
        match made {
            Ok(name) => Ok(LayerDir::new(disk, name, bytes)),
            Err(e) => {
                disk.discard(&tmp);
                Err(e)
            }
        }
    }

    /// Makes a captured upper directory the layer that its diff is upon those below it, without
    /// copying. The overlay that it was the upper of is gone.
    pub fn adopt(&self, upper: Upper, diff: &RootId) -> Result<(), RootfsError> {
        let store = &*self.inner.store;
        let diffs = [upper.diffs(), &[*diff]].concat();
        let resolved = self.inner.resolver.resolve(store, &diffs)?.pop();
        let Some(layer) = resolved else { return Ok(()) };
        let mut state = self.state();
        if state.layers.contains_key(&layer) {
            return Ok(());
        }
        state.layers.insert(layer, Slot::Making);
        drop(state);
        let claim = Claim { inner: &self.inner, id: &layer };
        let bytes = layer_bytes(store, &layer)?;
        let name = self.inner.disk.keep(&layer, &upper.path())?;
        claim.done(LayerDir::new(&self.inner.disk, name, bytes));
        self.evict();
        Ok(())
    }

    /// Deletes the layers that were used longest ago until the budget is kept, or all that is left
    /// is in use.
    pub fn evict(&self) {
        self.shrink(self.inner.budget);
    }

    /// As [`LayerCache::evict`], with another budget this once. Answers how many layers went, and
    /// their bytes.
    pub fn shrink(&self, budget: u64) -> (u64, u64) {
        let mut gone = Vec::new();
        let mut state = self.state();
        while state.bytes > budget {
            let unused = state.layers.iter().filter_map(|(id, slot)| match slot {
                Slot::Ready(layer, used) if Arc::strong_count(layer) == 1 => Some((*used, *id)),
                _ => None,
            });
            let Some((_, id)) = unused.min() else { break };
            gone.extend(self.doom(&mut state, &id));
        }
        drop(state);
        (gone.len() as u64, gone.iter().map(|layer| layer.bytes).sum())
    }

    /// Takes a layer's names away. Its directory goes when nobody uses it any more.
    fn doom(&self, state: &mut State, id: &RootId) -> Option<Arc<LayerDir>> {
        let layer = state.remove(id)?;
        self.inner.disk.forget(id);
        layer.doomed.store(true, Ordering::Relaxed);
        Some(layer)
    }

    /// Compares every layer with its tree, contents and metadata. Damaged ones are dropped: the
    /// next use makes them anew.
    pub fn verify(&self) -> Result<Vec<Damage>, RootfsError> {
        let ready = self.ready();
        let mut damages = Vec::new();
        for (id, layer) in ready {
            let found = match verify::differences(&*self.inner.store, &id, &layer.path()) {
                // Collected: nothing is wrong with it, and who needs it again makes it anew.
                Err(RootfsError::Store(StoreError::NoTree(_))) => {
                    let _layer = self.doom(&mut self.state(), &id);
                    continue;
                }
                Err(e @ RootfsError::Io { .. }) => vec![e.to_string()],
                other => other?,
            };
            if !found.is_empty() {
                let _layer = self.doom(&mut self.state(), &id);
                damages.push(Damage { layer: id, found });
            }
        }
        Ok(damages)
    }

    /// Makes the layers outlive a loss of power. Without it they outlive the process only: after
    /// the machine was started anew, layers that were never synced are made again.
    pub fn sync(&self) -> Result<(), RootfsError> {
        let ready = self.ready();
        let named: Vec<_> = ready.iter().map(|(id, layer)| (*id, layer.name.clone())).collect();
        self.inner.disk.sync(&named)
    }

    fn ready(&self) -> Vec<(RootId, Arc<LayerDir>)> {
        let state = self.state();
        let ready = state.layers.iter().filter_map(|(id, slot)| match slot {
            Slot::Ready(layer, _) => Some((*id, layer.clone())),
            Slot::Making => None,
        });
        ready.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
    }
}

impl LayerDir {
    fn new(disk: &Arc<Disk>, name: String, bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            disk: disk.clone(),
            name,
            bytes,
            doomed: AtomicBool::new(false),
            noted: Mutex::new(Instant::now()),
        })
    }

    /// Writes the use down for the next process, which evicts by it.
    fn note_use(&self, id: &RootId) {
        let mut noted = self.noted.lock().unwrap_or_else(|p| p.into_inner());
        if noted.elapsed() > NOTED_FOR {
            *noted = Instant::now();
            self.disk.touch(id);
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn add(&mut self, id: RootId, layer: Arc<LayerDir>) {
        let now = self.tick();
        self.bytes += layer.bytes;
        self.layers.insert(id, Slot::Ready(layer, now));
    }

    fn remove(&mut self, id: &RootId) -> Option<Arc<LayerDir>> {
        match self.layers.remove(id) {
            Some(Slot::Ready(layer, _)) => {
                self.bytes -= layer.bytes;
                Some(layer)
            }
            Some(making) => {
                self.layers.insert(*id, making);
                None
            }
            None => None,
        }
    }
}

/// The right to make a layer. Dropped without one, it lets others try.
struct Claim<'a> {
    inner: &'a Inner,
    id: &'a RootId,
}

impl Claim<'_> {
    fn done(self, layer: Arc<LayerDir>) {
        self.inner.state().add(*self.id, layer);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        if matches!(state.layers.get(self.id), Some(Slot::Making)) {
            state.layers.remove(self.id);
        }
        drop(state);
        self.inner.made.notify_all();
    }
}

fn layer_bytes(store: &dyn Store, id: &RootId) -> Result<u64, RootfsError> {
    let summary = load_root(store, id)?.dir.summary;
    Ok(summary.bytes.saturating_add(summary.entries.saturating_mul(ENTRY_BYTES)))
}

fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(error = %e, "the limit of open files stays as it is");
        }
    }
}
