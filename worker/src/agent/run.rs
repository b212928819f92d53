//! A RUN: mounts, container, capture.

use super::Machine;
use super::caches::Mounted;
use super::link::Link;
use super::mask::Mask;
use super::ssh;
use super::stop::Stop;
use crate::rootfs::{Overlay, RootfsError, Stack, Upper};
use crate::sandbox::{self, Inputs, Io, Limits, LogSink, Order, SandboxError, Swap, Usage};
use cache::meter::{self, Carried};
use cache::store::StoreError;
use proto::error::{Class, Failure};
use proto::id::{LeaseEpoch, Millis, RootId};
use proto::record::Cost;
use proto::secret::SecretBytes;
use proto::step::{CacheMount, Mount, MountKind, RunOp};
use proto::wire::build::{Answer, Ask, Stream};
use proto::wire::worker::{Bind, Lease, Outcome, RunTask};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the coordinator calls the one file of a bound tree.
const BOUND_FILE: &str = "/file";

/// Why a RUN came to nothing.
enum Trouble {
    Failed(Failure),
    Lost(String),
    Stopped,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<SandboxError> for Trouble {
    fn from(error: SandboxError) -> Self {
        match &error {
            SandboxError::Rootfs(e) if is_lost(e) => Self::Lost(error.to_string()),
            _ => Self::Failed(error.failure()),
        }
    }
}

/// Whether something that an earlier step made is gone from the store.
fn is_lost(error: &RootfsError) -> bool {
    matches!(error, RootfsError::Store(StoreError::NoTree(_) | StoreError::NoBlob(_)))
}

/// Runs it; answers what came out and what it used.
pub async fn run(
    machine: &Arc<Machine>,
    link: &Link,
    stop: &Stop,
    lease: &Lease,
    task: RunTask,
) -> (Outcome, Cost) {
    let began = Instant::now();
    let mut cost = Cost::default();
    let done = attempt(machine, link, stop, lease, task, &mut cost).await;
    cost.wall_ms = began.elapsed().as_millis() as u64;
    let outcome = match done {
        Ok(layer) => Outcome::Done(vec![layer]),
        Err(Trouble::Failed(failure)) => Outcome::Failed(failure),
        Err(Trouble::Lost(what)) => Outcome::Lost(what),
        Err(Trouble::Stopped) => Outcome::Stopped,
    };
    (outcome, cost)
}

async fn attempt(
    machine: &Arc<Machine>,
    link: &Link,
    stop: &Stop,
    lease: &Lease,
    task: RunTask,
    cost: &mut Cost,
) -> Result<RootId, Trouble> {
    let gathered = async {
        let secrets = secrets(link, lease, &task.op).await?;
        let agents = ssh::open(machine, link, lease, &task.op).await?;
        Ok::<_, Failure>((secrets, agents, turns(machine, lease, &task).await))
    };
    let (secrets, agents, turns) = stop.race(gathered).await.ok_or(Trouble::Stopped)??;
    let given = Given { secrets, agents: agents.sockets() };
    let (machine, link, stop, lease) = (machine.clone(), link.clone(), stop.clone(), lease.clone());
    let counted = Carried::here();
    let work = move || {
        let pin = machine.store.pin();
        let step = Step { machine: &machine, link: &link, stop: &stop, lease: &lease };
        let done = step.run(task, given, turns);
        drop(pin);
        done
    };
    let (result, usage) =
        tokio::task::spawn_blocking(|| counted.within(work)).await.unwrap_or_else(|e| {
            let message = format!("The step's thread ended: {e}");
            (Err(Failure::new(Class::Bug, message).into()), None)
        });
    drop(agents);
    if let Some(usage) = usage {
        cost.cpu_ms = usage.cpu.as_millis() as u64;
        cost.memory_peak_bytes = usage.memory_peak_bytes;
    }
    result
}

async fn secrets(
    link: &Link,
    lease: &Lease,
    op: &RunOp,
) -> Result<BTreeMap<String, SecretBytes>, Failure> {
    let mut secrets = BTreeMap::new();
    for mount in &op.mounts {
        let MountKind::Secret(secret) = &mount.kind else { continue };
        if secrets.contains_key(&secret.id) {
            continue;
        }
        match link.ask(&lease.build, Ask::Secret(secret.id.clone())).await? {
            Answer::Secret(Some(value)) => drop(secrets.insert(secret.id.clone(), value)),
            Answer::Secret(None) => {}
            other => {
                let message = format!("The client answered {other:?} when asked for a secret");
                return Err(Failure::new(Class::Bug, message));
            }
        }
    }
    Ok(secrets)
}

/// The right to use each cache mount, by its place in the step. They are taken in the order of
/// their names, so that no two steps wait for each other.
async fn turns(machine: &Machine, lease: &Lease, task: &RunTask) -> BTreeMap<usize, Mounted> {
    let mut wanted: Vec<(usize, &CacheMount, &str)> = Vec::new();
    for (index, mount) in task.op.mounts.iter().enumerate() {
        if let MountKind::Cache(cache) = &mount.kind {
            // One mount in several places is one mount.
            if !wanted.iter().any(|(_, other, _)| other.id == cache.id) {
                wanted.push((index, cache, &mount.target));
            }
        }
    }
    wanted.sort_by(|a, b| a.1.id.cmp(&b.1.id));
    let mut turns = BTreeMap::new();
    for (index, cache, target) in wanted {
        // A part of a cache is there because an earlier step left it.
        let is_part = |mount: &Mount| match &mount.kind {
            MountKind::Cache(other) => {
                other.id == cache.id && mount.input.is_none() && other.source != "/"
            }
            _ => false,
        };
        let fresh = task.fresh_caches && !task.op.mounts.iter().any(is_part);
        let entered = machine.caches.enter(lease.epoch, cache, target, fresh);
        turns.insert(index, entered.await);
    }
    turns
}

/// What the client gives to a step.
struct Given {
    secrets: BTreeMap<String, SecretBytes>,
    /// Sockets of agents, by the place of their mounts.
    agents: BTreeMap<usize, PathBuf>,
}

/// One RUN, on a thread that may block.
struct Step<'s> {
    machine: &'s Machine,
    link: &'s Link,
    stop: &'s Stop,
    lease: &'s Lease,
}

impl Step<'_> {
    fn run(
        &self,
        task: RunTask,
        given: Given,
        turns: BTreeMap<usize, Mounted>,
    ) -> (Result<RootId, Trouble>, Option<Usage>) {
        let mut usage = None;
        (self.attempt(task, given, turns, &mut usage), usage)
    }

    fn attempt(
        &self,
        task: RunTask,
        given: Given,
        mut turns: BTreeMap<usize, Mounted>,
        usage: &mut Option<Usage>,
    ) -> Result<RootId, Trouble> {
        let Given { secrets, agents } = given;
        let mask = Mask::new(secrets.values().map(SecretBytes::as_bytes));
        let RunTask { op, layers, root, binds, resources, .. } = task;
        let (mut op, trees) = bound(op, &binds);
        op.network = self.machine.network(op.network);
        let caches = self.caches(&op, &binds, &mut turns)?;
        let same_caches = same_caches(&op);
        let inputs = Inputs { trees, caches, same_caches, secrets, agents, ..Inputs::default() };
        let needs = self.lease.needs;
        let root = Stack { diffs: layers, merged: root };
        let timeout = (needs.timeout_ms > 0).then(|| Duration::from_millis(needs.timeout_ms));
        let limits = limits(&resources, &needs);
        let order = Order { op: &op, root: &root, inputs, limits, timeout };
        let prepared = self.machine.sandbox.prepare(order)?;
        if self.stop.is_asked() {
            return Err(Trouble::Stopped);
        }
        let ends_line = Arc::new(AtomicBool::new(true));
        let running = prepared.start(Io::Log(self.sink(mask.clone(), ends_line.clone())))?;
        self.stop.watch(running.canceller());
        let exited = running.wait()?;
        *usage = Some(exited.usage());
        let outcome = exited.outcome();
        if outcome.is_success() {
            let captured = exited.capture()?;
            let (diff, caches) = captured.keep()?;
            self.keep_caches(caches, turns);
            if let Some(warning) = diff.missed.warning(|path| mask.whole(path)) {
                // After what the step wrote, which may end within a line.
                let text =
                    if ends_line.load(Ordering::SeqCst) { warning } else { format!("\n{warning}") };
                self.teller().tell(Stream::Stderr, text.into_bytes());
            }
            return Ok(diff.id);
        }
        if matches!(outcome, sandbox::Outcome::Cancelled) {
            return Err(Trouble::Stopped);
        }
        self.keep_caches(exited.into_caches(), turns);
        Err(Trouble::Failed(failure(&op, outcome)))
    }

    fn caches(
        &self,
        op: &RunOp,
        binds: &[Option<Bind>],
        turns: &mut BTreeMap<usize, Mounted>,
    ) -> Result<BTreeMap<usize, Overlay>, Trouble> {
        let mut mounted = BTreeMap::new();
        for (index, turn) in turns {
            let MountKind::Cache(cache) = &op.mounts[*index].kind else { continue };
            let initial = match binds.get(*index).copied().flatten() {
                Some(Bind::Dir(root) | Bind::File(root)) => Some(root),
                None => None,
            };
            let mount = || self.machine.caches.mount(self.stop, turn, cache, initial);
            let overlay = meter::of_mount(mount);
            mounted.insert(*index, overlay.map_err(|e| e.failure(&cache.id))?);
        }
        Ok(mounted)
    }

    fn keep_caches(&self, uppers: BTreeMap<usize, Upper>, mut turns: BTreeMap<usize, Mounted>) {
        for (index, upper) in uppers {
            if let Some(turn) = turns.remove(&index) {
                meter::of_mount(|| self.machine.caches.commit(self.stop, turn, upper));
            }
        }
    }

    /// What the step writes goes to the coordinator, without secrets.
    /// `ends_line` is told whether it ended with a whole line.
    fn sink(&self, mask: Mask, ends_line: Arc<AtomicBool>) -> LogSink {
        let teller = self.teller();
        // Each of the two streams is cut into pieces by itself.
        let mut masks = Masks { out: mask.clone(), err: mask, ends_line, teller };
        Box::new(move |stream, data| masks.take(stream, data))
    }

    fn teller(&self) -> Teller {
        Teller { link: self.link.clone(), lease: self.lease.epoch }
    }
}

struct Teller {
    link: Link,
    lease: LeaseEpoch,
}

impl Teller {
    fn tell(&self, stream: Stream, data: Vec<u8>) {
        if !data.is_empty() {
            self.link.log(self.lease, stream, now(), data);
        }
    }
}

struct Masks {
    out: Mask,
    err: Mask,
    ends_line: Arc<AtomicBool>,
    teller: Teller,
}

impl Masks {
    fn take(&mut self, stream: sandbox::Stream, data: &[u8]) {
        if let Some(last) = data.last() {
            self.ends_line.store(*last == b'\n', Ordering::SeqCst);
        }
        match stream {
            sandbox::Stream::Stdout => self.teller.tell(Stream::Stdout, self.out.push(data)),
            sandbox::Stream::Stderr => self.teller.tell(Stream::Stderr, self.err.push(data)),
        }
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        self.teller.tell(Stream::Stdout, self.out.finish());
        self.teller.tell(Stream::Stderr, self.err.finish());
    }
}

fn now() -> Millis {
    super::now()
}

/// The command with its mounts as they are here: each input was selected by the coordinator, so
/// that a mount shows the whole of its tree, or the one file in it.
fn bound(mut op: RunOp, binds: &[Option<Bind>]) -> (RunOp, Vec<Stack>) {
    let mut trees: Vec<Stack> = Vec::new();
    for (mount, bind) in op.mounts.iter_mut().zip(binds) {
        let (root, source) = match bind {
            Some(Bind::Dir(root)) => (*root, "/"),
            Some(Bind::File(root)) => (*root, BOUND_FILE),
            // What a cache shows of what is in it already is still said by its path.
            None => {
                mount.input = None;
                continue;
            }
        };
        match &mut mount.kind {
            MountKind::Bind(bind) => {
                bind.source = source.to_owned();
                trees.push(Stack { diffs: vec![root], merged: root });
                mount.input = Some(trees.len() as u32);
            }
            MountKind::Cache(cache) => cache.source = "/".to_owned(),
            _ => {}
        }
    }
    (op, trees)
}

/// Mounts of a cache that an earlier mount of the step shows too: the place of that one, by theirs.
fn same_caches(op: &RunOp) -> BTreeMap<usize, usize> {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let mut same = BTreeMap::new();
    for (index, mount) in op.mounts.iter().enumerate() {
        let MountKind::Cache(cache) = &mount.kind else { continue };
        match first.get(cache.id.as_str()) {
            Some(other) => drop(same.insert(index, *other)),
            None => drop(first.insert(&cache.id, index)),
        }
    }
    same
}

fn limits(asked: &proto::wire::build::Resources, needs: &proto::step::Needs) -> Limits {
    let memory = if asked.memory_bytes > 0 { asked.memory_bytes } else { needs.memory_bytes };
    let quota = match (asked.cpu_quota, asked.cpu_period) {
        (quota @ 1.., period) => {
            let period = if period == 0 { 100_000 } else { period };
            u32::try_from(quota as u64 * 1000 / period).ok()
        }
        _ => (needs.cpu_millis > 0).then_some(needs.cpu_millis),
    };
    let swap = match asked.memory_swap_bytes {
        0 => Swap::AsMemory,
        both @ 1.. => Swap::Bytes((both as u64).saturating_sub(memory)),
        _ => Swap::Unlimited,
    };
    Limits {
        memory_bytes: (memory > 0).then_some(memory),
        swap,
        cpu_millis: quota.map(|millis| millis.max(1)),
        cpu_shares: (asked.cpu_shares > 0).then_some(asked.cpu_shares),
        cpus: asked.cpuset_cpus.clone(),
        memory_nodes: asked.cpuset_mems.clone(),
        pids: None,
    }
}

/// What is said of a program that failed, in BuildKit's words.
fn failure(op: &RunOp, outcome: sandbox::Outcome) -> Failure {
    let program = op.args.join(" ");
    let code = outcome.exit_code();
    let process = format!("process {program:?}");
    let (message, hint) = match outcome {
        sandbox::Outcome::OutOfMemory => (
            format!("{process} did not complete successfully: exit code: {code}: out of memory"),
            Some("Give the step more memory, or let it use less"),
        ),
        sandbox::Outcome::TimedOut(after) => (
            format!("{process} did not end within {} s and was stopped", after.as_secs_f64()),
            Some("Let it do less, or give it more time"),
        ),
        _ => (format!("{process} did not complete successfully: exit code: {code}"), None),
    };
    let mut failure = Failure::new(Class::User, message);
    failure.exit_code = Some(code);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
