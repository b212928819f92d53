//! Cache mounts: each RUN works on a private upper directory over the newest generation, and its
//! changes are put upon the generation that is the newest when it ends
//! (`docs/decisions/0006-cache-mounts-merge-by-file.md`).

use crate::rootfs::{Access, LayerCache, Overlay, RootMeta, RootfsError, Stack, Upper};
use cache::store::{Store, StoreError, StoreNodes, Table};
use cache::tree::apply::apply;
use proto::error::{Class, Failure};
use proto::id::{RootId, TreeId};
use proto::step::{CacheMount, Sharing};
use proto::tree::{Meta, Mtime, Presence, Root, empty_dir};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::OwnedMutexGuard;

/// Changes that are kept one upon the other before they are made into one layer.
const CHANGES_MAX: usize = 64;

/// The cache mounts of one worker.
pub struct Caches {
    store: Arc<dyn Store>,
    layers: LayerCache,
    /// Where is written down which layers make up a generation.
    dir: PathBuf,
    all: Mutex<HashMap<String, Arc<Slot>>>,
}

/// One cache mount.
#[derive(Default)]
struct Slot {
    /// Held by the one step that may use a `locked` mount.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Held while a generation is made of another.
    head: Mutex<()>,
}

/// A generation: its layers, and the tree that they make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    merged: String,
    changes: Vec<String>,
}

/// A cache mount while a step uses it.
pub struct Mounted {
    id: String,
    slot: Arc<Slot>,
    sharing: Sharing,
    read_only: bool,
    /// The generation that it began with, if there was one.
    from: Option<RootId>,
    /// Whether it began empty although there was one (`--no-cache`), and so takes its place.
    replaces: bool,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// Why a cache mount cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be mounted or read back.
    #[error("The cache mount `{id}`: {source}")]
    Rootfs {
        /// Which.
        id: String,
        /// Why not.
        source: RootfsError,
    },
    /// The store could not do it.
    #[error("The cache mount `{id}`: {source}")]
    Store {
        /// Which.
        id: String,
        /// Why not.
        source: StoreError,
    },
    /// Its generations could not be put together.
    #[error("The cache mount `{id}` cannot be merged: {why}")]
    Merge {
        /// Which.
        id: String,
        /// Why not.
        why: String,
    },
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        let class = match &error {
            CacheError::Rootfs { source, .. } => source.class(),
            CacheError::Store { source, .. } => source.class(),
            CacheError::Merge { .. } => Class::Bug,
        };
        Failure::new(class, error.to_string())
    }
}

impl Caches {
    /// The cache mounts in this store. `dir` is for notes, which can be lost.
    pub fn new(store: Arc<dyn Store>, layers: LayerCache, dir: PathBuf) -> Self {
        Self { store, layers, dir, all: Mutex::default() }
    }

    /// Waits until the step may use the mount: at once, unless it is `locked` and in use.
    pub async fn enter(&self, mount: &CacheMount) -> Mounted {
        let slot = {
            let mut all = self.all.lock().unwrap_or_else(|p| p.into_inner());
            all.entry(mount.id.clone()).or_default().clone()
        };
        let turn = match mount.sharing {
            Sharing::Locked => Some(slot.turn.clone().lock_owned().await),
            Sharing::Shared | Sharing::Private => None,
        };
        Mounted {
            id: mount.id.clone(),
            slot,
            sharing: mount.sharing,
            read_only: mount.read_only,
            from: None,
            replaces: false,
            _turn: turn,
        }
    }

    /// Mounts the newest generation; one that begins with `initial` when there is none, or when
    /// `fresh` says so. Blocks.
    pub fn mount(
        &self,
        mounted: &mut Mounted,
        mount: &CacheMount,
        initial: Option<RootId>,
        fresh: bool,
    ) -> Result<Overlay, CacheError> {
        let id = &mounted.id;
        let head = if fresh { None } else { self.head(id)? };
        mounted.replaces = fresh;
        let stack = match head {
            Some(head) => {
                mounted.from = Some(head);
                self.stack(id, head)
            }
            None => {
                let first = self.first(id, mount, initial)?;
                Stack { diffs: vec![first], merged: first }
            }
        };
        let failed = |source| CacheError::Rootfs { id: id.clone(), source };
        let whole = Stack { diffs: vec![stack.merged], merged: stack.merged };
        match self.layers.mount(&stack, Access::Private) {
            // A change by itself is kept by nothing but this machine's layers.
            Err(RootfsError::Store(StoreError::NoTree(_) | StoreError::NoBlob(_)))
                if stack != whole =>
            {
                self.layers.mount(&whole, Access::Private).map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    /// Keeps what the step changed, however it ended. Blocks.
    pub fn commit(&self, mounted: Mounted, upper: Upper) -> Result<(), CacheError> {
        if mounted.read_only {
            return Ok(());
        }
        let id = &mounted.id;
        let store = &*self.store;
        let rootfs = |source| CacheError::Rootfs { id: id.clone(), source };
        let failed = |source| CacheError::Store { id: id.clone(), source };
        let _pin = store.pin();
        let diff = upper.capture(store, RootMeta::Kept).map_err(rootfs)?.id;
        let below = upper.below();
        let _head = mounted.slot.head.lock().unwrap_or_else(|p| p.into_inner());
        let now = self.head(id)?;
        let moved = !mounted.replaces && now != mounted.from;
        if mounted.sharing == Sharing::Private && moved {
            return Ok(());
        }
        let onto = if mounted.replaces { below } else { now.unwrap_or(below) };
        let merge =
            |e: cache::tree::TreeError| CacheError::Merge { id: id.clone(), why: e.to_string() };
        let (merged, made) = apply(&StoreNodes(store), &onto, &diff).map_err(merge)?;
        store.put_nodes(&made.into_nodes()).map_err(failed)?;
        let mut changes = self.stack(id, onto).diffs;
        if merged != onto {
            self.layers.adopt(upper, &diff).map_err(rootfs)?;
            changes.push(diff);
        }
        if changes.len() > CHANGES_MAX {
            changes = vec![merged];
        }
        self.note(id, merged, &changes);
        store.put_row(Table::CacheMount, id.as_bytes(), merged.0.as_bytes()).map_err(failed)
    }

    fn head(&self, id: &str) -> Result<Option<RootId>, CacheError> {
        let failed = |source| CacheError::Store { id: id.to_owned(), source };
        let row = self.store.row(Table::CacheMount, id.as_bytes()).map_err(failed)?;
        let root = row.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        let Some(root) = root.map(|bytes| RootId(TreeId::from_bytes(bytes))) else {
            return Ok(None);
        };
        let missing = self.store.missing_trees(&[root.0]).map_err(failed)?;
        Ok(missing.is_empty().then_some(root))
    }

    /// The first generation: empty, or a copy of files of another tree.
    fn first(
        &self,
        id: &str,
        mount: &CacheMount,
        initial: Option<RootId>,
    ) -> Result<RootId, CacheError> {
        if let Some(initial) = initial {
            return Ok(initial);
        }
        let empty = empty_dir();
        let mut meta = Meta::root_owned(mount.mode, Mtime::default());
        (meta.uid, meta.gid) = (mount.uid, mount.gid);
        let root = Root { meta, dir: empty.dir, presence: Presence::Merge };
        let (root, bytes) = root.seal();
        let failed = |source| CacheError::Store { id: id.to_owned(), source };
        self.store.put_nodes(&[empty.bytes, bytes]).map_err(failed)?;
        Ok(root)
    }

    /// The layers that make up a generation; the generation itself when that is not known.
    fn stack(&self, id: &str, merged: RootId) -> Stack {
        let noted = std::fs::read(self.file(id)).ok();
        let noted = noted.and_then(|bytes| serde_json::from_slice::<Generation>(&bytes).ok());
        let parse = |text: &String| Some(RootId(TreeId::parse(text).ok()?));
        let noted = noted.filter(|g| parse(&g.merged) == Some(merged));
        let changes = noted.and_then(|g| g.changes.iter().map(parse).collect::<Option<Vec<_>>>());
        Stack { diffs: changes.unwrap_or_else(|| vec![merged]), merged }
    }

    /// Writes down the layers. Lost notes cost time, not files.
    fn note(&self, id: &str, merged: RootId, changes: &[RootId]) {
        let text = |root: &RootId| root.0.to_string();
        let changes = changes.iter().map(text).collect();
        let generation = Generation { merged: text(&merged), changes };
        let bytes = serde_json::to_vec(&generation).expect("texts are JSON");
        let file = self.file(id);
        if let Err(e) = replace(&file, &bytes) {
            tracing::debug!(file = %file.display(), error = %e, "a note cannot be written");
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{}.json", &blake3::hash(id.as_bytes()).to_hex()[..32]))
    }
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = file.with_extension("new");
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, file)
}
