//! Does what the core asks for.

use super::Server;
use super::build::{Build, Outcome};
use super::library::{AlgebraError, failed, no_archives};
use super::locked;
use super::outside::{self, Gone};
use super::workers::unexpected;
use crate::core::place::{Input, InputId};
use crate::core::{
    AliasHit, Effect, Evaluated, Event, Notice, Plan, TreeState, Trouble, WorkId, empty_root,
};
use bytes::Bytes;
use cache::tree::apply::apply;
use cache::tree::graft::{self, CopyRules};
use cache::tree::select::{Bound, bind, select};
use cache::tree::{Made, Nodes, TreeError, root};
use proto::canon;
use proto::error::{Class, Failure};
use proto::id::{BlobId, ContentDigest, ContentKey, DefKey, LeaseEpoch, Millis, RootId, Scope};
use proto::key::{ContentInputs, content_key};
use proto::limit;
use proto::path::FileName;
use proto::record::Record;
use proto::step::{InlineOp, MountKind, Op, Step, StepId};
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use proto::wire::blob::PutRecord;
use proto::wire::build::{Traffic, VertexId};
use proto::wire::worker::{Bind, Call, Reply, RunTask};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::SpooledTempFile;

/// Layers of a RUN whose sizes are looked at, from below and from above.
const LAYERS_LOOKED: usize = 32;

/// Does one effect, on a task of its own where it takes time.
pub fn run(server: &Arc<Server>, effect: Effect) {
    let server = server.clone();
    match effect {
        Effect::Desire { worker, leases, keep } => {
            server.workers.desire(&worker, leases, keep);
        }
        // Written down already.
        Effect::Granted { .. } => {}
        Effect::Released { epoch } => server.logs.released(epoch),
        Effect::Ready { build, targets } => {
            if let Some(build) = server.builds.get(&build) {
                build.ended(Outcome::Ready(targets));
            }
        }
        Effect::Fail { build, step, failure } => {
            if let Some(build) = server.builds.get(&build) {
                build.ended(Outcome::Failed(step, failure));
            }
        }
        Effect::Notify { build, step, notice } => {
            if let Some(build) = server.builds.get(&build) {
                if let Notice::Started { lease: Some(lease) } = &notice {
                    server.logs.expect(*lease, &build.id, VertexId(step.0));
                }
                build.notice(step, notice);
            }
        }
        Effect::FindAliases { build, scope, keys } => spawn(async move {
            let own = server.builds.get(&build);
            let found = find_aliases(&server, &scope, own.as_deref(), keys).await;
            server.tell(Event::Aliases { build, found }).await;
        }),
        Effect::Evaluate { work, scope, plan, step, inputs, refresh } => spawn(async move {
            server.traces.note(plan.keys[step.index()].work, roots(&inputs));
            let moved = Mutex::default();
            let outcome = evaluate(&server, &scope, &plan, step, inputs, refresh, &moved).await;
            let (outcome, traffic) = (outcome.map_err(Into::into), *locked(&moved));
            server.tell(Event::Evaluated { work, outcome, traffic }).await;
        }),
        Effect::Root { work, plan, base, layers } => spawn(async move {
            let outcome = match outside::of_plan(&server, &plan) {
                Some(build) => outside::bring(&server, &build, &layers).await,
                None => Ok(()),
            };
            let outcome = match outcome {
                Ok(()) => merged(&server, base, layers).await.map_err(Into::into),
                Err(Gone { what, .. }) => Err(Trouble::Gone(what)),
            };
            server.tell(Event::Rooted { work, outcome }).await;
        }),
        Effect::Record { work, scope, key, record, alias, lease } => spawn(async move {
            let put = PutRecord { scope, key, record, alias };
            keep(&server, work, put, lease).await;
        }),
    }
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

impl From<AlgebraError> for Trouble {
    fn from(error: AlgebraError) -> Self {
        match error {
            AlgebraError::Tree(error) => Self::Failed(tree_failure(&error)),
            AlgebraError::Lost(what) => Self::Lost(what),
            AlgebraError::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// A piece of algebra that cannot be done, as the person is told.
pub fn tree_failure(error: &TreeError) -> Failure {
    let failure = Failure::new(Class::User, error.to_string());
    match error {
        TreeError::NotFound(_) => failure.hint(
            "Check the path, and whether `.dockerignore` leaves it out; paths count from the \
             context's root.",
        ),
        TreeError::NothingNamed(_) => failure.hint("Copy it without --parents."),
        TreeError::Dangling(_) => failure.hint(
            "BuildKit follows the links at the top of what a part is copied of (--exclude, \
             --parents), and fails too. Leave the link out with --exclude, or copy all.",
        ),
        TreeError::BelowLink(_) => failure.hint(
            "An archive is unpacked with the destination as its root: there absolute links begin, \
             and none leads out. Give the archive an entry for the directory, or make the one that \
             the link leads to before.",
        ),
        TreeError::BelowFile(_) | TreeError::HardLink { .. } => failure.hint(
            "Look at the archive with `tar -tvf`, and at what is in the destination already.",
        ),
        TreeError::FileOverDirectory(_) | TreeError::NotADirectory(_) => {
            failure.hint("End the destination with `/` when it is meant as a directory.")
        }
        _ => failure,
    }
}

/// What definitions led to before: in the farm, or else in what `build` imported. A store that does
/// not answer is no reason to fail: then there are no earlier results.
pub async fn find_aliases(
    server: &Server,
    scope: &Scope,
    build: Option<&Build>,
    keys: Vec<DefKey>,
) -> Vec<Option<AliasHit>> {
    let find = async {
        let aliases = server.library.blobs.aliases(scope, keys.clone()).await?;
        let wanted: Vec<ContentKey> = aliases.iter().flatten().map(|a| a.key).collect();
        let mut records = server.library.blobs.records(scope, wanted).await?.into_iter();
        let hit = |alias: Option<proto::record::Alias>| {
            let alias = alias?;
            Some(AliasHit { alias, record: records.next()?? })
        };
        Ok::<_, cache::net::NetError>(aliases.into_iter().map(hit).collect())
    };
    let mut found: Vec<Option<AliasHit>> = find.await.unwrap_or_else(|e| {
        tracing::warn!("earlier results cannot be looked up: {e}");
        vec![None; keys.len()]
    });
    if let Some(build) = build {
        for (hit, key) in found.iter_mut().zip(&keys) {
            *hit = hit.take().or_else(|| build.imported.by_definition(key));
        }
    }
    found
}

/// Lets a worker unpack what may be an archive. `count` is told what was moved for that.
pub async fn unpack(
    server: &Server,
    blob: BlobId,
    count: impl FnOnce(Traffic),
) -> Result<Option<RootId>, Failure> {
    let (unpacked, traffic) = server.workers.call(Call::Unpack(blob), None).await;
    count(traffic);
    match unpacked? {
        Reply::Archive(tree) => Ok(tree),
        other => Err(unexpected(&other)),
    }
}

/// What stands for everything that a step takes from its input number `place`.
pub fn selection(
    nodes: &dyn Nodes,
    op: &Op,
    place: u32,
    from: &RootId,
) -> Result<ContentDigest, TreeError> {
    let mut digests = Vec::new();
    match op {
        Op::Copy(copy) => {
            for source in copy.sources.iter().filter(|s| s.input == place) {
                let found = select(nodes, from, source, copy.parents, &copy.exclude)?;
                digests.push(found.digest());
            }
        }
        Op::Run(run) => {
            for mount in run.mounts.iter().filter(|m| m.input == Some(place)) {
                if let MountKind::Bind(of) = &mount.kind {
                    digests.push(bind(nodes, from, of.source.as_bytes())?.1);
                }
            }
        }
        _ => {}
    }
    Ok(ContentDigest::from_bytes(canon::hash("slipway 2026-11 selections", |c| {
        c.list(digests.iter(), |c, d| {
            c.hash32(d.as_bytes());
        });
    })))
}

/// The moment, as files have it: another one each time, as two files of a build have them, and not in
/// whole seconds. Equal times would say that one file put upon another changes nothing
/// ([`cache::tree::listed`]).
fn file_time() -> Mtime {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let Millis(ms) = super::now();
    let now = ms.saturating_mul(1_000_000);
    let next = |last: u64| {
        let time = now.max(last + 1);
        if time.is_multiple_of(1_000_000_000) { time + 1 } else { time }
    };
    let later = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    let time = next(later.unwrap_or_default());
    Mtime { seconds: (time / 1_000_000_000) as i64, nanos: (time % 1_000_000_000) as u32 }
}

async fn evaluate(
    server: &Arc<Server>,
    scope: &Scope,
    plan: &Plan,
    id: StepId,
    inputs: Vec<TreeState>,
    refresh: bool,
    moved: &Mutex<Traffic>,
) -> Result<Evaluated, AlgebraError> {
    let step = &plan.graph.steps[id.index()];
    match &step.op {
        Op::Inline(file) => inline(server, file).await,
        Op::Image(_) | Op::Http(_) | Op::Git(_) => {
            let none = ContentInputs {
                root: empty_root().seal().0,
                root_content: empty_root().content(),
                selections: Vec::new(),
            };
            let key = content_key(step, &none);
            match record(server, scope, plan, key, refresh).await? {
                Some(record) => Ok(Evaluated::Hit { key, record }),
                None => Ok(Evaluated::Miss { key, run: None, inputs: Vec::new() }),
            }
        }
        Op::Mkdir(_) | Op::Copy(_) => {
            algebra(server, scope, plan, step, inputs, refresh, moved).await
        }
        Op::Run(_) => look_at_run(server, scope, plan, step, inputs, refresh).await,
        Op::Scratch | Op::Local(_) | Op::Merge => {
            let message = format!("`{}` was to be evaluated", step.name);
            Err(AlgebraError::Failed(Failure::new(Class::Bug, message)))
        }
    }
}

/// The record of a content: the farm's, or else one that the plan's build imported.
async fn record(
    server: &Server,
    scope: &Scope,
    plan: &Plan,
    key: ContentKey,
    refresh: bool,
) -> Result<Option<Record>, AlgebraError> {
    if refresh {
        return Ok(None);
    }
    let mut records = server.library.blobs.records(scope, vec![key]).await.map_err(failed)?;
    let imported = || outside::of_plan(server, plan)?.imported.by_content(&key);
    Ok(records.pop().flatten().or_else(imported))
}

/// A file whose text stands in the Dockerfile, as a tree of its own.
async fn inline(server: &Server, file: &InlineOp) -> Result<Evaluated, AlgebraError> {
    let data = Bytes::from(file.data.clone());
    let (blob, size) = (BlobId::of(&data), data.len() as u64);
    put(server, blob, data).await?;
    let name = heredoc_name(&file.name)?;
    let mut made = Made::default();
    let time = file_time();
    let meta = Meta::root_owned(file.mode, time);
    let node = Node::File { blob, size, link: None };
    let dir = made.dir(Dir::new(vec![Entry { name, meta, node }]));
    let meta = Meta::root_owned(0o755, time);
    let root = made.root(&Root { meta, dir, presence: Presence::Merge });
    server.library.keep(made).await?;
    Ok(Evaluated::Made { key: None, layers: vec![root], root, remark: None })
}

/// The name of the one file of a heredoc.
fn heredoc_name(path: &str) -> Result<FileName, AlgebraError> {
    let bad = |why: String| {
        let failure =
            Failure::new(Class::User, format!("Making the file of a heredoc failed: {why}"));
        AlgebraError::Failed(failure.hint(
            "A heredoc is one file: give it a plain name, and name directories in the destination.",
        ))
    };
    match path.rsplit_once('/') {
        _ if path.is_empty() => Err(bad("its name stands for the root directory".to_owned())),
        Some((above, _)) => Err(bad(format!("there is no directory `{above}` for `{path}`"))),
        None => FileName::new(path.as_bytes()).map_err(|e| bad(e.to_string())),
    }
}

async fn put(server: &Server, id: BlobId, data: Bytes) -> Result<(), AlgebraError> {
    let blobs = &server.library.blobs;
    if data.len() <= limit::PACKED_BLOB_BYTES_MAX {
        return blobs.put_blobs(&[(id, data)]).await.map(drop).map_err(failed);
    }
    let size = data.len() as u64;
    let mut pieces =
        data.chunks(1 << 20).map(Bytes::copy_from_slice).collect::<Vec<_>>().into_iter();
    let next = || std::future::ready(Ok(pieces.next()));
    blobs.put_large(id, size, next).await.map_err(failed)
}

/// COPY, ADD, WORKDIR: looked up, or done here.
async fn algebra(
    server: &Arc<Server>,
    scope: &Scope,
    plan: &Plan,
    step: &Step,
    inputs: Vec<TreeState>,
    refresh: bool,
    moved: &Mutex<Traffic>,
) -> Result<Evaluated, AlgebraError> {
    let (own, roots) = (step.clone(), roots(&inputs));
    let asked = |blob| unpack(server, blob, move |traffic| *locked(moved) += traffic);
    let key = server.library.algebra(asked, move |nodes| {
        let base = root(nodes, &roots[0])?;
        let mut selections = Vec::new();
        for (place, from) in roots.iter().enumerate().skip(1) {
            selections.push(selection(nodes, &own.op, place as u32, from)?);
        }
        let (root, root_content) = (roots[0], base.content());
        Ok(content_key(&own, &ContentInputs { root, root_content, selections }))
    });
    let key = key.await?;
    if let Some(record) = record(server, scope, plan, key, refresh).await? {
        return Ok(Evaluated::Hit { key, record });
    }
    let (own, roots) = (step.clone(), self::roots(&inputs));
    let now = file_time();
    let change = server.library.algebra(asked, move |nodes| match &own.op {
        Op::Mkdir(op) => {
            let now = op.epoch.map_or(now, |seconds| Mtime { seconds, nanos: 0 });
            graft::mkdir(nodes, &roots[0], op.path.as_bytes(), &op.owner, now)
        }
        Op::Copy(op) => {
            let mut selections = Vec::new();
            for source in &op.sources {
                let from = &roots[source.input as usize];
                selections.push(select(nodes, from, source, op.parents, &op.exclude)?);
            }
            let rules = CopyRules {
                dest: op.dest.as_bytes(),
                chown: op.chown.as_deref(),
                chmod: op.chmod.as_deref(),
                now,
            };
            graft::copy(nodes, &roots[0], selections, &rules)
        }
        other => unreachable!("algebra, not {other:?}"),
    });
    let change = change.await?;
    server.library.keep(change.made).await?;
    // The key has no times in it: whoever has the same files with other times loses nothing.
    let key = change.missed.is_empty().then_some(key);
    let (layers, root, remark) =
        (vec![change.diff], change.root, change.missed.warning(<[u8]>::to_vec));
    Ok(Evaluated::Made { key, layers, root, remark })
}

fn roots(inputs: &[TreeState]) -> Vec<RootId> {
    inputs.iter().map(|i| i.root).collect()
}

/// A RUN: looked up, or made ready for a worker.
async fn look_at_run(
    server: &Arc<Server>,
    scope: &Scope,
    plan: &Plan,
    step: &Step,
    inputs: Vec<TreeState>,
    refresh: bool,
) -> Result<Evaluated, AlgebraError> {
    let Op::Run(op) = step.op.clone() else { unreachable!("a RUN") };
    let (own, roots) = (step.clone(), roots(&inputs));
    let looked = server.library.algebra(no_archives, move |nodes| {
        let Op::Run(run) = &own.op else { unreachable!("a RUN") };
        let (mut binds, mut selections, mut made) = (Vec::new(), Vec::new(), Made::default());
        for mount in &run.mounts {
            let from = mount.input.map(|i| roots[i as usize]);
            let source = match &mount.kind {
                MountKind::Bind(bind) => Some((bind.source.as_bytes(), true)),
                MountKind::Cache(cache) => Some((cache.source.as_bytes(), false)),
                _ => None,
            };
            let Some((from, (source, counts))) = from.zip(source) else {
                binds.push(None);
                continue;
            };
            let (bound, digest, nodes) = bind(nodes, &from, source)?;
            made.absorb(nodes);
            binds.push(Some(match bound {
                Bound::Dir(root) => Bind::Dir(root),
                Bound::File(root) => Bind::File(root),
            }));
            // What a cache mount begins with is content of the cache: no part of the key.
            if counts {
                selections.push(digest);
            }
        }
        let base = root(nodes, &roots[0])?;
        let (root, root_content) = (roots[0], base.content());
        let key = content_key(&own, &ContentInputs { root, root_content, selections });
        Ok((key, binds, Arc::new(Mutex::new(Some(made)))))
    });
    let (key, binds, made) = looked.await?;
    if let Some(record) = record(server, scope, plan, key, refresh).await? {
        return Ok(Evaluated::Hit { key, record });
    }
    if !server.workers.runs(&step.platform) {
        let message = format!("No worker runs programs for {}", step.platform);
        let hint = "Register an emulator for it (Debian: apt-get install qemu-user-static) and \
                    start the farm again, or let the stage run on the build's own platform: \
                    FROM --platform=$BUILDPLATFORM.";
        return Err(AlgebraError::Failed(Failure::new(Class::User, message).hint(hint)));
    }
    let made = locked(&made).take();
    server.library.keep(made.unwrap_or_default()).await?;
    let task = RunTask {
        op,
        layers: inputs[0].layers.clone(),
        root: inputs[0].root,
        binds,
        fresh_caches: step.cache == proto::step::CacheUse::Refresh,
        resources: plan.resources.clone(),
    };
    let inputs = sizes(server, &task).await;
    Ok(Evaluated::Miss { key, run: Some(Box::new(task)), inputs })
}

/// The trees that a RUN needs, with their sizes. Of a long stack of layers the lowest and the
/// highest ones are looked at: the base image, and what was made last. A size that cannot be looked
/// up is a guess that is not made.
async fn sizes(server: &Server, task: &RunTask) -> Vec<Input> {
    let (base, newest) = task.layers.split_at(task.layers.len().min(LAYERS_LOOKED));
    let newest = &newest[newest.len().saturating_sub(LAYERS_LOOKED)..];
    let binds = task.binds.iter().flatten().map(|bind| match bind {
        Bind::Dir(root) | Bind::File(root) => *root,
    });
    let roots: Vec<RootId> = base.iter().chain(newest).copied().chain(binds).collect();
    let sizes = server.library.sizes(&roots).await.unwrap_or_else(|e| {
        tracing::debug!(error = ?e, "the sizes of a step's inputs are not known");
        Vec::new()
    });
    let inputs = roots.iter().zip(sizes);
    inputs.map(|(root, bytes)| Input { id: InputId::tree(root), bytes }).collect()
}

/// The root that layers make, put upon a base.
async fn merged(
    server: &Server,
    base: Option<RootId>,
    layers: Vec<RootId>,
) -> Result<RootId, AlgebraError> {
    let mut at = base.unwrap_or_else(|| empty_root().seal().0);
    for layer in layers {
        let below = at;
        let result = server.library.algebra(no_archives, move |nodes| {
            let (root, made) = apply(nodes, &below, &layer)?;
            Ok((root, made))
        });
        let (root, made) = result.await?;
        server.library.keep(made).await?;
        at = root;
    }
    Ok(at)
}

/// Keeps a record, with the log of the lease that made it.
async fn keep(server: &Arc<Server>, work: WorkId, mut put: PutRecord, lease: Option<LeaseEpoch>) {
    if let Some(lease) = lease {
        let listeners = server.logs.listeners(lease);
        put.record.log = match server.logs.take(lease) {
            Some(text) => keep_log(server, text).await,
            None => None,
        };
        for (build, VertexId(vertex)) in listeners {
            if let Some(build) = server.builds.get(&build) {
                build.note(StepId(vertex), |step| step.log = put.record.log);
            }
        }
    }
    let outcome = server.library.blobs.put_record(put).await;
    let outcome = outcome.map_err(|e| Trouble::from(failed(e)));
    server.tell(Event::Recorded { work, outcome }).await;
}

pub async fn keep_log(server: &Server, text: SpooledTempFile) -> Option<BlobId> {
    let read = move || -> std::io::Result<(BlobId, u64, SpooledTempFile)> {
        use std::io::{Seek, SeekFrom};
        let mut text = text;
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0u64);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match text.read(&mut buffer)? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
        text.seek(SeekFrom::Start(0))?;
        Ok((hasher.finalize().into(), size, text))
    };
    let (id, size, text) = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
    let text = Arc::new(Mutex::new(text));
    let next = || {
        let mut piece = vec![0; 256 << 10];
        let read = locked(&text).read(&mut piece);
        std::future::ready(read.map(|n| {
            piece.truncate(n);
            (n > 0).then(|| Bytes::from(piece))
        }))
    };
    match server.library.blobs.put_large(id, size, next).await {
        Ok(()) => Some(id),
        Err(e) => {
            tracing::warn!("a step's log cannot be kept: {e}");
            None
        }
    }
}
