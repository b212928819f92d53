//! Cache mounts: each RUN works on a private upper directory over the generation that the
//! coordinator gave it, and what it leaves goes back to the coordinator, which decides what becomes
//! of it (`docs/cache-mounts.md`, `cache::mounts`).
//!
//! Any content of a cache is legal, the empty one too: whatever goes wrong with its files costs
//! time, and never fails the step.

use super::link::Link;
use super::stop::Stop;
use crate::rootfs::{Access, LayerCache, Overlay, RootfsError, Stack, Upper, WrittenAs};
use cache::mounts::{Rules, admit, measure, trim, union};
use cache::store::{Store, StoreError, StoreNodes};
use cache::tree::apply::apply;
use cache::tree::diff::diff;
use cache::tree::{TreeError, root};
use proto::error::{Class, Failure};
use proto::id::{LeaseEpoch, RootId, TreeId};
use proto::mount::{Answer, Ask, Decision, Dropped, Measured, Policy, Start, Use};
use proto::step::CacheMount;
use proto::tree::{Meta, Mtime, Presence, Root, empty_dir};
use proto::wire::build::Stream;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Changes that are kept one upon the other before they are made into one layer.
const CHANGES_MAX: usize = 64;

/// Files that were left out of a cache and are told of by name.
const TOLD: usize = 5;

/// The cache mounts of one worker.
pub struct Caches {
    store: Arc<dyn Store>,
    layers: LayerCache,
    link: Link,
    /// Where is written down which layers of this machine make up a generation.
    dir: PathBuf,
    /// What a mount may hold, in bytes; none for no limit.
    cap: Option<u64>,
    /// Whether all steps of the farm run on this machine.
    is_alone: bool,
}

/// A state of a mount as layers of this machine, and the tree that they make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    merged: String,
    changes: Vec<String>,
}

/// A cache mount while a step uses it.
pub struct Mounted {
    id: String,
    lease: LeaseEpoch,
    rules: Rules,
    how: Use,
    read_only: bool,
    /// The generation that it began with, if there was one.
    base: Option<(u64, RootId)>,
    /// The layers that it works upon.
    changes: Vec<RootId>,
    /// Whether the coordinator knows of its use: whether it can keep anything.
    is_known: bool,
}

/// Why a cache mount cannot be used, or what was left in it not kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be mounted or read back.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was left in it is more than a cache can hold.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The coordinator does not keep it; in words, why.
    #[error("{0}")]
    Refused(String),
}

impl CacheError {
    /// The failure of a step that cannot use the mount with this id.
    pub fn failure(&self, id: &str) -> Failure {
        let class = match self {
            Self::Rootfs(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Tree(_) | Self::Refused(_) => Class::Unavailable,
        };
        Failure::new(class, format!("The cache mount `{id}`: {self}"))
    }
}

/// Whether files of a generation are gone from the store.
fn is_lost(error: &RootfsError) -> bool {
    matches!(error, RootfsError::Store(StoreError::NoTree(_) | StoreError::NoBlob(_)))
}

/// What a worker's cache mounts work with.
pub struct Options {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Layers as directories.
    pub layers: LayerCache,
    /// The way to the coordinator.
    pub link: Link,
    /// A folder for notes, which can be lost.
    pub dir: PathBuf,
    /// What a mount may hold, in bytes; none for no limit.
    pub cap: Option<u64>,
    /// Whether all steps of the farm run on this machine.
    pub is_alone: bool,
}

impl Caches {
    /// The cache mounts of a worker.
    pub fn new(options: Options) -> Self {
        let Options { store, layers, link, dir, cap, is_alone } = options;
        Self { store, layers, link, dir, cap, is_alone }
    }

    /// Waits until the step may use the mount: at once, unless it is `locked` and in use. `fresh`:
    /// it begins with nothing, whatever there is.
    pub async fn enter(
        &self,
        lease: LeaseEpoch,
        mount: &CacheMount,
        target: &str,
        fresh: bool,
    ) -> Mounted {
        let mut rules = Rules::of(&mount.id, target);
        // Steps of one machine would see each other's files with other builders, too.
        let unknown = self.is_alone && rules.tool().is_none();
        if let Some(policy) = mount.merge.or(unknown.then_some(Policy::Union)) {
            rules = rules.with_policy(policy);
        }
        let start = if fresh { Start::Empty } else { Start::Head };
        let how = Use { sharing: mount.sharing, policy: rules.policy(), start };
        let mut mounted = Mounted {
            id: mount.id.clone(),
            lease,
            rules,
            how,
            read_only: mount.read_only,
            base: None,
            changes: Vec::new(),
            is_known: false,
        };
        self.begin(&mut mounted).await;
        mounted
    }

    async fn begin(&self, mounted: &mut Mounted) {
        match self.ask(mounted, Ask::Begin(mounted.how)).await {
            Answer::Begun(base) => (mounted.base, mounted.is_known) = (base, true),
            other => {
                let why = refusal(other);
                tracing::warn!(id = mounted.id, why, "a cache mount begins empty");
                (mounted.base, mounted.is_known) = (None, false);
            }
        }
    }

    async fn ask(&self, mounted: &Mounted, ask: Ask) -> Answer {
        self.link.ask_mount(mounted.lease, &mounted.id, ask).await
    }

    /// Mounts what the step begins with: a generation, else `initial`, else an empty directory.
    /// Blocks.
    pub fn mount(
        &self,
        stop: &Stop,
        mounted: &mut Mounted,
        mount: &CacheMount,
        initial: Option<RootId>,
    ) -> Result<Overlay, CacheError> {
        if let Some((_, head)) = mounted.base {
            let whole = Stack { diffs: vec![head], merged: head };
            let stacks = [self.stack(&mount.id, head), whole];
            for stack in stacks {
                match self.layers.mount(&stack, Access::Private) {
                    Ok(overlay) => {
                        mounted.changes = stack.diffs;
                        return Ok(overlay);
                    }
                    // A change by itself is kept by nothing but this machine's layers, and a
                    // generation only as long as there is room.
                    Err(e) if is_lost(&e) => tracing::debug!("a generation is not whole: {e}"),
                    Err(e) => return Err(e.into()),
                }
            }
            // It begins anew, and what it leaves takes the place of what is lost.
            mounted.how.start = Start::Empty;
            mounted.base = None;
            Handle::current().block_on(stop.race(async {
                self.ask(mounted, Ask::Release).await;
                self.begin(mounted).await;
            }));
        }
        let first = self.first(mount, initial)?;
        mounted.changes = vec![first];
        let stack = Stack { diffs: vec![first], merged: first };
        Ok(self.layers.mount(&stack, Access::Private)?)
    }

    /// Keeps what a step left that has ended by itself, well or not. A mount that was only read is
    /// given back; of one that the coordinator does not know nothing is kept. Whatever goes wrong is
    /// told in the step's log. Blocks.
    pub fn commit(&self, stop: &Stop, mounted: Mounted, upper: Upper) {
        if !mounted.is_known {
            return;
        }
        if mounted.read_only {
            Handle::current().block_on(stop.race(self.ask(&mounted, Ask::Release)));
            return;
        }
        if let Err(e) = self.keep(stop, &mounted, upper) {
            tracing::warn!(id = mounted.id, "a cache mount is not kept: {e}");
            self.tell(&mounted, &format!("{e}; its files stay as they were"));
        }
    }

    fn keep(&self, stop: &Stop, mounted: &Mounted, upper: Upper) -> Result<(), CacheError> {
        let (store, rules) = (&*self.store, &mounted.rules);
        let nodes = StoreNodes(store);
        let _pin = store.pin();
        let diff = upper.capture(store, WrittenAs::Directory)?.id;
        let below = upper.below();
        let (left, made) = apply(&nodes, &below, &diff)?;
        store.put_nodes(&made.into_nodes())?;
        let mut changes = mounted.changes.clone();
        if left != below {
            self.layers.adopt(upper, &diff)?;
            changes.push(diff);
        }
        if changes.len() > CHANGES_MAX {
            changes = vec![left];
        }
        self.note(&mounted.id, left, &changes);
        let base = mounted.base.map(|(_, tree)| tree);
        let admitted = admit(&nodes, rules, base.as_ref(), &left)?;
        store.put_nodes(&admitted.made.into_nodes())?;
        self.tell_refused(mounted, &admitted.refused);
        let mine = self.trimmed(mounted, &admitted.tree)?;
        let number = mounted.base.map(|(number, _)| number);
        let mut answer = self.say(stop, mounted, Ask::Commit { base: number, mine });
        while let Some(Answer::Decided(Decision::Merge(merge))) = answer {
            let united = union(&nodes, rules, merge.base.as_ref(), &merge.theirs, &merge.mine)?;
            store.put_blobs(&united.blobs)?;
            store.put_nodes(&united.made.into_nodes())?;
            let union = self.trimmed(mounted, &united.tree)?;
            answer = self.say(stop, mounted, Ask::Merged { onto: merge.onto, union });
        }
        match answer {
            Some(Answer::Decided(Decision::Dropped(Dropped::RolledBack))) => {
                let why = "it was rolled back while the step ran";
                Err(CacheError::Refused(why.to_owned()))
            }
            // A step that is stopped is not waited for.
            Some(Answer::Decided(_)) | None => Ok(()),
            Some(other) => Err(CacheError::Refused(refusal(other))),
        }
    }

    /// Asks the coordinator once what is named is durable; none when the step is stopped.
    fn say(&self, stop: &Stop, mounted: &Mounted, ask: Ask) -> Option<Answer> {
        // On one machine a cache that a loss of power takes is lost with what knows of it.
        if !self.is_alone
            && let Err(e) = self.store.barrier()
        {
            return Some(Answer::Refused(e.to_string()));
        }
        Handle::current().block_on(stop.race(self.ask(mounted, ask)))
    }

    /// The tree within the cap, measured.
    fn trimmed(&self, mounted: &Mounted, tree: &RootId) -> Result<Measured, CacheError> {
        let nodes = StoreNodes(&*self.store);
        let Some(cap) = self.cap else { return Ok(measure(&nodes, tree)?) };
        let trimmed = trim(&nodes, &mounted.rules, tree, cap)?;
        self.store.put_nodes(&trimmed.made.into_nodes())?;
        if trimmed.removed.count() > 0 {
            self.tell(
                mounted,
                &format!(
                    "it is over its cap of {cap} bytes: {} files or packages of {} bytes went",
                    trimmed.removed.count(),
                    trimmed.removed_bytes
                ),
            );
        }
        Ok(measure(&nodes, &trimmed.tree)?)
    }

    fn tell_refused(
        &self,
        mounted: &Mounted,
        refused: &cache::mounts::Told<cache::mounts::Refused>,
    ) {
        for one in refused.first().iter().take(TOLD) {
            self.tell(mounted, &format!("`{}`: {}", one.path, one.why));
        }
        let more = refused.count().saturating_sub(TOLD as u64);
        if more > 0 {
            self.tell(mounted, &format!("{more} more files of these kinds are left out"));
        }
    }

    /// Says something of a mount in the step's log. Blocks.
    fn tell(&self, mounted: &Mounted, text: &str) {
        let line = format!("slipway: The cache mount `{}`: {text}\n", mounted.id).into_bytes();
        self.link.log(mounted.lease, Stream::Stderr, super::now(), line);
    }

    /// The first state: empty, or a copy of files of another tree.
    fn first(&self, mount: &CacheMount, initial: Option<RootId>) -> Result<RootId, CacheError> {
        if let Some(initial) = initial {
            return Ok(initial);
        }
        let empty = empty_dir();
        let mut meta = Meta::root_owned(mount.mode, Mtime::default());
        (meta.uid, meta.gid) = (mount.uid, mount.gid);
        let root = Root { meta, dir: empty.dir, presence: Presence::Merge };
        let (root, bytes) = root.seal();
        self.store.put_nodes(&[empty.bytes, bytes])?;
        Ok(root)
    }

    /// Layers of this machine that make the tree: those of the last state that was here, and what
    /// differs from it; the tree itself when that is not less.
    fn stack(&self, id: &str, merged: RootId) -> Stack {
        let whole = Stack { diffs: vec![merged], merged };
        let Some((here, mut diffs)) = self.noted(id) else { return whole };
        if here == merged {
            return Stack { diffs, merged };
        }
        if diffs.len() >= CHANGES_MAX {
            return whole;
        }
        let nodes = StoreNodes(&*self.store);
        let between = || -> Result<Option<RootId>, CacheError> {
            let layer = diff(&nodes, &here, &merged)?;
            let (part, all) = (layer.summary, root(&nodes, &merged)?.dir.summary);
            if part.bytes > all.bytes / 2 || part.entries > all.entries / 2 {
                return Ok(None);
            }
            self.store.put_nodes(&layer.made.into_nodes())?;
            Ok(Some(layer.id))
        };
        match between() {
            Ok(Some(layer)) => {
                diffs.push(layer);
                Stack { diffs, merged }
            }
            Ok(None) => whole,
            Err(e) => {
                tracing::debug!(id, "the state of a cache mount that was here is gone: {e}");
                whole
            }
        }
    }

    fn noted(&self, id: &str) -> Option<(RootId, Vec<RootId>)> {
        let note: Note = serde_json::from_slice(&std::fs::read(self.file(id)).ok()?).ok()?;
        let parse = |text: &String| Some(RootId(TreeId::parse(text).ok()?));
        Some((parse(&note.merged)?, note.changes.iter().map(parse).collect::<Option<_>>()?))
    }

    /// Writes down the layers. Lost notes cost time, not files.
    fn note(&self, id: &str, merged: RootId, changes: &[RootId]) {
        let text = |root: &RootId| root.0.to_string();
        let changes = changes.iter().map(text).collect();
        let note = Note { merged: text(&merged), changes };
        let bytes = serde_json::to_vec(&note).expect("texts are JSON");
        let file = self.file(id);
        if let Err(e) = replace(&file, &bytes) {
            tracing::debug!(file = %file.display(), error = %e, "a note cannot be written");
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{}.json", &blake3::hash(id.as_bytes()).to_hex()[..32]))
    }
}

/// Why something is not kept.
fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refused(why) => why,
        other => format!("the coordinator answered {other:?}"),
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
