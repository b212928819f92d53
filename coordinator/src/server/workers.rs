//! Workers that are there: what they are told, and what they say.

use super::locked;
use super::logs::Piece;
use super::{Server, mounts};
use crate::core::Event;
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch, RootId, WorkerId};
use proto::limit::{PEERS_MAX, REWINDS_MAX};
use proto::platform::Platform;
use proto::step;
use proto::wire::build::{LogPlace, Traffic};
use proto::wire::worker::{
    Bind, Call, Dated, Lease, Moved, Outcome, Peer, Reply, Report, Task, ToCoordinator, ToWorker,
    WorkerState,
};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Messages to one worker that wait before whoever sends one waits.
const OUTBOX: usize = 1024;

/// How long a worker may take to notice that the coordinator was started again, and to come back.
const NOTICED_AFTER: Duration = Duration::from_secs(20);

/// How long a call waits for a worker to be there.
const WORKER_WAIT: Duration = Duration::from_secs(30);

/// The workers that are there.
#[derive(Default)]
pub struct Workers {
    all: Mutex<HashMap<WorkerId, Line>>,
    platforms: Mutex<HashMap<WorkerId, Vec<Platform>>>,
    /// Where those are that give blobs to others.
    addresses: Mutex<HashMap<WorkerId, String>>,
    /// Those that get nothing new: an operator wants that, or they are about to end.
    closed: Mutex<Closed>,
    calls: Mutex<HashMap<u64, Pending>>,
    last_call: AtomicU64,
    last_line: AtomicU64,
    joined: Notify,
    /// Who made the layers that were made lately: it has their files.
    makers: Makers,
}

/// Layers whose makers are remembered.
const MAKERS: usize = 1 << 16;

struct Makers(quick_cache::sync::Cache<RootId, WorkerId>);

impl Default for Makers {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(MAKERS))
    }
}

impl Makers {
    fn note(&self, worker: &WorkerId, reports: &[Report]) {
        for report in reports {
            let Outcome::Done(layers) = &report.outcome else { continue };
            layers.iter().for_each(|layer| self.0.insert(*layer, worker.clone()));
        }
    }

    /// Who has made most of what a lease needs, the best first.
    fn of_lease(&self, lease: &Lease) -> Vec<WorkerId> {
        let Task::Run(task) = &lease.task else { return Vec::new() };
        let binds = task.binds.iter().flatten().map(|bind| match bind {
            Bind::Dir(root) | Bind::File(root) => root,
        });
        let mut counts: HashMap<WorkerId, usize> = HashMap::new();
        for maker in task.layers.iter().chain(binds).filter_map(|layer| self.0.get(layer)) {
            *counts.entry(maker).or_default() += 1;
        }
        let mut makers: Vec<(WorkerId, usize)> = counts.into_iter().collect();
        makers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        makers.into_iter().map(|(maker, _)| maker).collect()
    }

    /// How many of the layers that a call needs each worker has made.
    fn count(&self, call: &Call) -> HashMap<WorkerId, usize> {
        let layers: Vec<RootId> = match call {
            Call::PrepareLayer(layer, _) => vec![*layer],
            Call::Export(export) => {
                let layers = export.images.iter().flat_map(|image| &image.layers);
                layers.map(|layer| layer.diff).collect()
            }
            Call::WriteCache(order) => {
                order.records.iter().flat_map(|record| &record.layers).copied().collect()
            }
            _ => Vec::new(),
        };
        let mut counts = HashMap::new();
        for maker in layers.iter().filter_map(|layer| self.0.get(layer)) {
            *counts.entry(maker).or_default() += 1;
        }
        counts
    }
}

/// The stream to a worker.
struct Line {
    number: u64,
    out: mpsc::Sender<ToWorker>,
    /// It is no member any more.
    expelled: Arc<Notify>,
}

/// Workers that get nothing new.
#[derive(Default)]
struct Closed {
    cordoned: BTreeSet<WorkerId>,
    draining: BTreeSet<WorkerId>,
}

/// What came of a call, and what was moved for it, whatever that is.
pub type Answered = (Result<Reply, Failure>, Traffic);

struct Pending {
    worker: WorkerId,
    /// In whose name.
    build: Option<BuildId>,
    /// Whether it reaches a git repository by ssh.
    is_by_ssh: bool,
    /// Where the answer goes; none when the worker was lost.
    answer: oneshot::Sender<Option<Answered>>,
    progress: Option<mpsc::UnboundedSender<Moved>>,
}

impl Workers {
    /// No workers yet. Calls are numbered on from the time: an answer to one of an earlier life of
    /// the coordinator is taken for none of this one's.
    pub fn new() -> Self {
        let last_call = AtomicU64::new(super::now().0 << 16);
        Self { last_call, ..Self::default() }
    }

    fn closed(&self) -> MutexGuard<'_, Closed> {
        locked(&self.closed)
    }

    /// A worker gets nothing new from now on, or does again.
    pub fn cordon(&self, worker: &WorkerId, cordoned: bool) {
        match cordoned {
            true => drop(self.closed().cordoned.insert(worker.clone())),
            false => drop(self.closed().cordoned.remove(worker)),
        }
        self.joined.notify_waiters();
    }

    /// Whether a worker's connection stands.
    pub fn is_connected(&self, worker: &WorkerId) -> bool {
        locked(&self.all).contains_key(worker)
    }

    /// How many calls a worker does.
    pub fn calls_of(&self, worker: &WorkerId) -> usize {
        self.pending().values().filter(|pending| pending.worker == *worker).count()
    }

    /// Whether a worker does a call in the name of this build.
    pub fn is_called(&self, worker: &WorkerId, build: &BuildId) -> bool {
        let is_it = |p: &Pending| p.worker == *worker && p.build.as_ref() == Some(build);
        self.pending().values().any(is_it)
    }

    /// Whether a worker reaches a git repository by ssh for a call in the name of this build.
    pub fn is_called_by_ssh(&self, worker: &WorkerId, build: &BuildId) -> bool {
        let is_it =
            |p: &Pending| p.is_by_ssh && p.worker == *worker && p.build.as_ref() == Some(build);
        self.pending().values().any(is_it)
    }

    /// A worker is no member any more: its connection is closed, and what it was called for is done
    /// by another one.
    pub fn expel(&self, worker: &WorkerId) {
        let line = locked(&self.all).get(worker).map(|line| {
            line.expelled.notify_one();
            line.number
        });
        if let Some(line) = line {
            self.leave(worker, line);
        }
        locked(&self.platforms).remove(worker);
    }

    /// Tells a worker what it should be doing.
    pub fn desire(&self, worker: &WorkerId, mut leases: Vec<Lease>, keep: Vec<LeaseEpoch>) {
        let addresses = locked(&self.addresses);
        for lease in &mut leases {
            let makers = self.makers.of_lease(lease).into_iter().filter(|maker| maker != worker);
            let peers = makers.filter_map(|id| {
                let address = addresses.get(&id)?.clone();
                Some(Peer { id, address })
            });
            lease.peers = peers.take(PEERS_MAX).collect();
        }
        drop(addresses);
        let desired = ToWorker::Desired { leases, keep };
        let all = locked(&self.all);
        let Some(out) = all.get(worker).map(|line| line.out.clone()) else { return };
        drop(all);
        // In order: each says all there is to do, so the last one must be the last.
        if let Err(mpsc::error::TrySendError::Full(message)) = out.try_send(desired) {
            tracing::warn!(%worker, "a worker does not keep up with what it is told");
            tokio::spawn(async move { out.send(message).await });
        }
    }

    /// Whether programs of this platform can be run. Without any worker nobody knows: one may come.
    pub fn runs(&self, platform: &Platform) -> bool {
        let all = locked(&self.platforms);
        all.is_empty() || all.values().flatten().any(|p| p == platform)
    }

    fn know(&self, state: &WorkerState, from: Option<IpAddr>) {
        let worker = &state.worker;
        let mut all = locked(&self.platforms);
        all.insert(worker.clone(), state.capacity.platforms.clone());
        drop(all);
        let mut all = locked(&self.addresses);
        match address(&state.address, from) {
            Some(address) => drop(all.insert(worker.clone(), address)),
            None => drop(all.remove(worker)),
        }
        drop(all);
        match state.capacity.takes_work {
            true => drop(self.closed().draining.remove(worker)),
            false => drop(self.closed().draining.insert(worker.clone())),
        }
    }

    /// Of the workers that get new work the one that has most of what a call needs; of several the
    /// one with the fewest calls.
    fn best(&self, call: &Call) -> Option<(WorkerId, mpsc::Sender<ToWorker>)> {
        let made = self.makers.count(call);
        let mut busy: HashMap<WorkerId, usize> = HashMap::new();
        for pending in self.pending().values() {
            *busy.entry(pending.worker.clone()).or_default() += 1;
        }
        let all = locked(&self.all);
        let closed = self.closed();
        let is_open =
            |id: &WorkerId| !closed.cordoned.contains(id) && !closed.draining.contains(id);
        let rank = |id: &WorkerId| {
            let made = made.get(id).copied().unwrap_or(0);
            (Reverse(made), busy.get(id).copied().unwrap_or(0), id.clone())
        };
        let open = all.iter().filter(|(id, _)| is_open(id));
        open.min_by_key(|(id, _)| rank(id)).map(|(id, line)| (id.clone(), line.out.clone()))
    }

    /// Why no worker does what is asked for.
    fn nobody(&self) -> Failure {
        let count = locked(&self.all).len();
        let failed = |message: String| Failure::new(Class::Unavailable, message);
        match count {
            0 => failed("No worker is there to do the work".to_owned())
                .hint("Start one, or look why those there were have gone (`slipway node ls`)."),
            _ => failed(format!("None of the {count} worker(s) takes new work")).hint(
                "They are cordoned or about to end: see `slipway node ls`, and \
                       `slipway node uncordon NAME`.",
            ),
        }
    }

    /// Lets a worker do something; another one, when the first is lost. `progress` hears on the way
    /// of what is moved for it.
    pub async fn call(
        &self,
        call: Call,
        progress: Option<mpsc::UnboundedSender<Moved>>,
    ) -> Answered {
        let refused = |failure: Failure| (Err(failure), Traffic::default());
        let mut lost = 0;
        loop {
            if lost > REWINDS_MAX {
                let message = format!("{lost} workers were lost with what they were asked for");
                return refused(
                    Failure::new(Class::Unavailable, message)
                        .hint("Look into their logs: what was asked for may be what ends them."),
                );
            }
            let joined = self.joined.notified();
            let Some((worker, out)) = self.best(&call) else {
                if tokio::time::timeout(WORKER_WAIT, joined).await.is_err() {
                    return refused(self.nobody());
                }
                continue;
            };
            let id = self.last_call.fetch_add(1, Ordering::Relaxed) + 1;
            let (answer, answered) = oneshot::channel();
            let (build, progress) = (build_of(&call).cloned(), progress.clone());
            let is_by_ssh = is_by_ssh(&call);
            let pending = Pending { worker, build, is_by_ssh, answer, progress };
            self.pending().insert(id, pending);
            let guard = CallGuard { workers: self, id, out: out.clone(), armed: true };
            if out.send(ToWorker::Call(id, Box::new(call.clone()))).await.is_err() {
                continue;
            }
            // Without an answer the worker was lost: another one does it.
            if let Ok(Some(answered)) = answered.await {
                guard.disarm();
                return answered;
            }
            guard.disarm();
            lost += 1;
        }
    }

    /// A call of that number was answered.
    fn answered(&self, number: u64, answered: Answered) {
        if let Some(pending) = self.pending().remove(&number) {
            let _ = pending.answer.send(Some(answered));
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Pending>> {
        locked(&self.calls)
    }

    /// A worker has come, or come back; answers the number of its stream.
    fn join(&self, worker: &WorkerId, out: &mpsc::Sender<ToWorker>, expelled: &Arc<Notify>) -> u64 {
        let number = self.last_line.fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = locked(&self.all);
        let line = Line { number, out: out.clone(), expelled: expelled.clone() };
        all.insert(worker.clone(), line);
        drop(all);
        self.joined.notify_waiters();
        number
    }

    /// A worker's stream has ended; answers whether it was the latest.
    fn leave(&self, worker: &WorkerId, number: u64) -> bool {
        let mut all = locked(&self.all);
        if all.get(worker).is_none_or(|line| line.number != number) {
            return false;
        }
        all.remove(worker);
        drop(all);
        let lost: Vec<u64> =
            self.pending().iter().filter(|(_, p)| p.worker == *worker).map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(pending) = self.pending().remove(&id) {
                let _ = pending.answer.send(None);
            }
        }
        true
    }

    /// Gives up a worker that has not come back; answers whether it has not.
    fn forget(&self, worker: &WorkerId) -> bool {
        if locked(&self.all).contains_key(worker) {
            return false;
        }
        locked(&self.platforms).remove(worker);
        locked(&self.addresses).remove(worker);
        self.closed().draining.remove(worker);
        true
    }
}

/// The build, or errand, in whose name something is done.
fn build_of(call: &Call) -> Option<&BuildId> {
    match call {
        Call::ResolveImage { build, .. }
        | Call::ResolveFile { build, .. }
        | Call::ResolveCommit { build, .. }
        | Call::ResolveTime { build, .. }
        | Call::Pull { build, .. }
        | Call::Push { build, .. }
        | Call::Save { build, .. }
        | Call::ReadCache { build, .. }
        | Call::FetchLayer { build, .. } => Some(build),
        Call::Export(export) => Some(&export.build),
        Call::WriteCache(order) => Some(&order.build),
        Call::ResolveLayout { .. }
        | Call::Unpack(_)
        | Call::PrepareLayer(..)
        | Call::Load { .. } => None,
    }
}

/// Whether it reaches a git repository by ssh.
fn is_by_ssh(call: &Call) -> bool {
    match call {
        Call::ResolveCommit { remote, .. }
        | Call::ResolveTime { of: Dated::Commit { remote, .. }, .. } => step::is_by_ssh(remote),
        _ => false,
    }
}

/// A worker answered something that is no answer to what it was called for.
pub fn unexpected(reply: &Reply) -> Failure {
    let text: String = format!("A worker answered {reply:?}").chars().take(200).collect();
    Failure::new(Class::Bug, text)
}

/// Tells the worker when nobody waits for the answer any more.
struct CallGuard<'w> {
    workers: &'w Workers,
    id: u64,
    out: mpsc::Sender<ToWorker>,
    armed: bool,
}

impl CallGuard<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.workers.pending().remove(&self.id);
        if self.armed {
            let _ = self.out.try_send(ToWorker::CancelCall(self.id));
        }
    }
}

/// Where a worker gives blobs, by what it says and where it came from.
fn address(said: &str, from: Option<IpAddr>) -> Option<String> {
    match said.strip_prefix(':') {
        None => (!said.is_empty()).then(|| said.to_owned()),
        Some(port) => {
            let from = SocketAddr::new(from?, port.parse().ok()?);
            Some(from.to_string())
        }
    }
}

/// Who is at the other end of a worker's stream, by its certificate and its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it must be.
    pub worker: WorkerId,
    /// Where it called from.
    pub from: IpAddr,
}

/// Serves one worker, until it is gone. `who` is none for a farm of one process.
pub async fn serve(
    server: Arc<Server>,
    stream: Stream,
    who: Option<Caller>,
) -> Result<(), NetError> {
    let Stream { to, mut from } = stream;
    let (out, messages) = mpsc::channel(OUTBOX);
    let writer = tokio::spawn(write(to, messages));
    let (mut joined, expelled) = (None, Arc::new(Notify::new()));
    let (result, is_expelled) = tokio::select! {
        result = listen(&server, &mut from, &out, who, &mut joined, &expelled) => (result, false),
        () = expelled.notified() => (Ok(()), true),
    };
    writer.abort();
    if let (true, Some((worker, _))) = (is_expelled, &joined) {
        // What it had said a moment before may have been heard after it was removed.
        server.workers.forget(worker);
        server.tell(Event::WorkerLost { worker: worker.clone() }).await;
    }
    if let Some((worker, line)) = joined
        && server.workers.leave(&worker, line)
    {
        tracing::warn!(%worker, "a worker's connection broke");
        let after = server.lost_after;
        tokio::spawn(give_up(server, worker, after));
    }
    result
}

/// Workers that had leases in an earlier life come back in time, or are lost.
pub fn expect(server: &Arc<Server>) {
    let leases = server.ledger.read(|facts| facts.leases.clone());
    let workers: BTreeSet<WorkerId> = leases.into_values().map(|leased| leased.worker).collect();
    for worker in workers {
        tokio::spawn(give_up(server.clone(), worker, server.lost_after.max(NOTICED_AFTER)));
    }
}

/// What a worker does goes on elsewhere when it does not come back in time.
async fn give_up(server: Arc<Server>, worker: WorkerId, after: Duration) {
    tokio::time::sleep(after).await;
    if server.workers.forget(&worker) {
        tracing::warn!(%worker, "a worker is lost");
        server.tell(Event::WorkerLost { worker }).await;
    }
}

async fn write(mut to: Sender, mut messages: mpsc::Receiver<ToWorker>) -> Result<(), NetError> {
    while let Some(message) = messages.recv().await {
        to.send(&message).await?;
    }
    Ok(())
}

async fn listen(
    server: &Arc<Server>,
    from: &mut Receiver,
    out: &mpsc::Sender<ToWorker>,
    who: Option<Caller>,
    joined: &mut Option<(WorkerId, u64)>,
    expelled: &Arc<Notify>,
) -> Result<(), NetError> {
    while let Some((message, _)) = from.next::<ToCoordinator>().await? {
        match message {
            ToCoordinator::State(state) => {
                if who.as_ref().is_some_and(|who| who.worker != state.worker) {
                    let message = format!("The certificate is not the one of {}", state.worker);
                    return Err(NetError::Refused(Failure::new(Class::Denied, message)));
                }
                server.workers.know(&state, who.as_ref().map(|who| who.from));
                if joined.is_none() {
                    let line = server.workers.join(&state.worker, out, expelled);
                    *joined = Some((state.worker.clone(), line));
                    let heard = ToWorker::Heard(server.logs.heard());
                    let _ = out.send(heard).await;
                    tracing::info!(worker = %state.worker, slots = state.capacity.slots, "a worker is there");
                }
                server.workers.makers.note(&state.worker, &state.reports);
                let event = Event::Worker {
                    worker: state.worker,
                    capacity: state.capacity,
                    running: state.running,
                    reports: state.reports,
                };
                server.tell(event).await;
            }
            ToCoordinator::Log { lease, offset, stream, at, data } => {
                let end = offset.saturating_add(data.len() as u64);
                let mut piece = Piece { stream, at, data };
                for (build, vertex) in server.logs.add(lease, offset, &mut piece) {
                    let Some(build) = server.builds.get(&build) else { continue };
                    // What was known already is not in the piece any more.
                    let offset = end - piece.data.len() as u64;
                    build.log(vertex, LogPlace { run: lease, offset }, piece.clone()).await;
                }
            }
            ToCoordinator::Progress { lease, moved } => {
                for (build, vertex) in server.logs.listeners(lease) {
                    if let Some(build) = server.builds.get(&build) {
                        build.reporter.moved(vertex, moved.clone());
                    }
                }
            }
            ToCoordinator::Ask(number, id, ask) => {
                // Who is no member, or not any more, is told no secrets.
                let Some((worker, _)) = joined.clone() else { continue };
                let (server, out) = (server.clone(), out.clone());
                tokio::spawn(async move {
                    let answer = server.asked(&worker, &id, ask).await;
                    let _ = out.send(ToWorker::Answer(number, answer)).await;
                });
            }
            ToCoordinator::Mount { number, lease, id, ask } => {
                let Some((worker, _)) = joined.clone() else { continue };
                let (server, out) = (server.clone(), out.clone());
                tokio::spawn(async move {
                    let answer = mounts::answer(&server, &worker, lease, id, ask);
                    // Who has gone asks again when it comes back.
                    let answered = tokio::select! {
                        answer = answer => Some(answer),
                        () = out.closed() => None,
                    };
                    if let Some(answer) = answered {
                        let _ = out.send(ToWorker::Mount(number, answer)).await;
                    }
                });
            }
            ToCoordinator::Reply(number, traffic, result) => {
                server.workers.answered(number, (*result, traffic));
            }
            ToCoordinator::CallProgress(number, moved) => {
                if let Some(pending) = server.workers.pending().get(&number) {
                    pending.progress.iter().for_each(|p| drop(p.send(moved.clone())));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::BlobId;

    #[tokio::test]
    async fn a_worker_is_called_in_the_name_of_a_build_until_it_has_answered() {
        let (workers, (out, mut told)) = (Workers::new(), mpsc::channel(1));
        let (one, other) = (WorkerId::parse("w1").unwrap(), WorkerId::parse("w2").unwrap());
        let build = BuildId::parse("0123456789ab").unwrap();
        workers.join(&one, &out, &Arc::new(Notify::new()));
        let url = "https://host/file".to_owned();
        let call = workers.call(Call::ResolveFile { build: build.clone(), url }, None);
        let worker = async {
            let Some(ToWorker::Call(number, _)) = told.recv().await else { panic!("no call") };
            assert!(workers.is_called(&one, &build) && !workers.is_called(&other, &build));
            assert!(!workers.is_called(&one, &BuildId::parse("b").unwrap()));
            workers.answered(number, (Ok(Reply::Done), Traffic::default()));
        };
        tokio::join!(call, worker).0.0.unwrap();
        assert!(!workers.is_called(&one, &build));
    }

    #[tokio::test]
    async fn a_call_may_need_an_ssh_agent_as_long_as_it_goes_on() {
        let (workers, (out, mut told)) = (Workers::new(), mpsc::channel(1));
        let one = WorkerId::parse("w1").unwrap();
        let build = BuildId::parse("0123456789ab").unwrap();
        workers.join(&one, &out, &Arc::new(Notify::new()));
        for (remote, needs_it) in [("git@host:path", true), ("https://host/path.git", false)] {
            let (remote, reference) = (remote.to_owned(), String::new());
            let call = Call::ResolveCommit { build: build.clone(), remote, reference };
            let worker = async {
                let Some(ToWorker::Call(number, _)) = told.recv().await else { panic!("no call") };
                assert_eq!(workers.is_called_by_ssh(&one, &build), needs_it);
                assert!(!workers.is_called_by_ssh(&one, &BuildId::parse("b").unwrap()));
                assert!(!workers.is_called_by_ssh(&WorkerId::parse("w2").unwrap(), &build));
                workers.answered(number, (Ok(Reply::Done), Traffic::default()));
            };
            tokio::join!(workers.call(call, None), worker).0.0.unwrap();
            assert!(!workers.is_called_by_ssh(&one, &build));
        }
    }

    #[tokio::test]
    async fn what_was_moved_for_a_call_counts_when_it_fails() {
        let (workers, (out, mut told)) = (Workers::new(), mpsc::channel(1));
        workers.join(&WorkerId::parse("w1").unwrap(), &out, &Arc::new(Notify::new()));
        let worker = async {
            let Some(ToWorker::Call(number, _)) = told.recv().await else { panic!("no call") };
            let moved = Traffic { inputs: 7, ..Traffic::default() };
            workers.answered(number, (Err(Failure::new(Class::User, "It is broken")), moved));
        };
        let call = workers.call(Call::Unpack(BlobId::of(b"an archive")), None);
        let ((result, traffic), ()) = tokio::join!(call, worker);
        assert_eq!(result.unwrap_err().message, "It is broken");
        assert_eq!(traffic.inputs, 7);
    }
}
