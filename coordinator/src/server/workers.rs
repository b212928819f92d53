//! Workers that are there: what they are told, and what they say.

use super::Server;
use super::logs::Piece;
use crate::core::Event;
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::WorkerId;
use proto::platform::Platform;
use proto::wire::build::LogPlace;
use proto::wire::worker::{Call, Moved, Reply, ToCoordinator, ToWorker};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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
    calls: Mutex<HashMap<u64, Pending>>,
    last_call: AtomicU64,
    last_line: AtomicU64,
    joined: Notify,
}

/// The stream to a worker.
struct Line {
    number: u64,
    out: mpsc::Sender<ToWorker>,
}

struct Pending {
    worker: WorkerId,
    answer: oneshot::Sender<Option<Result<Reply, Failure>>>,
    progress: Option<mpsc::UnboundedSender<Moved>>,
}

/// A worker, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// Who it is.
    pub id: WorkerId,
    /// What it runs.
    pub platforms: Vec<Platform>,
}

impl Workers {
    /// No workers yet. Calls are numbered on from the time: an answer to one of an earlier life of
    /// the coordinator is taken for none of this one's.
    pub fn new() -> Self {
        let last_call = AtomicU64::new(super::now().0 << 16);
        Self { last_call, ..Self::default() }
    }

    /// The workers that are there, for people.
    pub fn rows(&self) -> Vec<WorkerRow> {
        let all = self.platforms.lock().unwrap_or_else(|p| p.into_inner());
        let row = |(id, platforms): (&WorkerId, &Vec<Platform>)| WorkerRow {
            id: id.clone(),
            platforms: platforms.clone(),
        };
        all.iter().map(row).collect()
    }

    /// Tells a worker what it should be doing.
    pub fn desire(&self, worker: &WorkerId, desired: ToWorker) {
        let all = self.all.lock().unwrap_or_else(|p| p.into_inner());
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
        let all = self.platforms.lock().unwrap_or_else(|p| p.into_inner());
        all.is_empty() || all.values().flatten().any(|p| p == platform)
    }

    fn know(&self, worker: &WorkerId, platforms: &[Platform]) {
        let mut all = self.platforms.lock().unwrap_or_else(|p| p.into_inner());
        all.insert(worker.clone(), platforms.to_vec());
    }

    fn any(&self) -> Option<(WorkerId, mpsc::Sender<ToWorker>)> {
        let all = self.all.lock().unwrap_or_else(|p| p.into_inner());
        all.iter().next().map(|(id, line)| (id.clone(), line.out.clone()))
    }

    /// Lets any worker do something; another one, when the first is lost. `progress` hears of
    /// bytes that are moved.
    pub async fn call(
        &self,
        call: Call,
        progress: Option<mpsc::UnboundedSender<Moved>>,
    ) -> Result<Reply, Failure> {
        loop {
            let joined = self.joined.notified();
            let Some((worker, out)) = self.any() else {
                if tokio::time::timeout(WORKER_WAIT, joined).await.is_err() {
                    let none = "No worker is there to do the work";
                    return Err(Failure::new(Class::Unavailable, none)
                        .hint("Start one, or look why those there were have gone."));
                }
                continue;
            };
            let id = self.last_call.fetch_add(1, Ordering::Relaxed) + 1;
            let (answer, answered) = oneshot::channel();
            let pending = Pending { worker, answer, progress: progress.clone() };
            self.pending().insert(id, pending);
            let guard = CallGuard { workers: self, id, out: out.clone(), armed: true };
            if out.send(ToWorker::Call(id, Box::new(call.clone()))).await.is_err() {
                continue;
            }
            // Without an answer the worker was lost: another one does it.
            if let Ok(Some(result)) = answered.await {
                guard.disarm();
                return result;
            }
            guard.disarm();
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Pending>> {
        self.calls.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// A worker has come, or come back; answers the number of its stream.
    fn join(&self, worker: &WorkerId, out: &mpsc::Sender<ToWorker>) -> u64 {
        let number = self.last_line.fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = self.all.lock().unwrap_or_else(|p| p.into_inner());
        all.insert(worker.clone(), Line { number, out: out.clone() });
        drop(all);
        self.joined.notify_waiters();
        number
    }

    /// A worker's stream has ended; answers whether it was the latest.
    fn leave(&self, worker: &WorkerId, number: u64) -> bool {
        let mut all = self.all.lock().unwrap_or_else(|p| p.into_inner());
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
        if self.all.lock().unwrap_or_else(|p| p.into_inner()).contains_key(worker) {
            return false;
        }
        self.platforms.lock().unwrap_or_else(|p| p.into_inner()).remove(worker);
        true
    }
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

/// Serves one worker, until it is gone. `who` is who it must be; none for a farm of one process.
pub async fn serve(
    server: Arc<Server>,
    stream: Stream,
    who: Option<WorkerId>,
) -> Result<(), NetError> {
    let Stream { to, mut from } = stream;
    let (out, messages) = mpsc::channel(OUTBOX);
    let writer = tokio::spawn(write(to, messages));
    let mut joined = None;
    let result = listen(&server, &mut from, &out, who, &mut joined).await;
    writer.abort();
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
    who: Option<WorkerId>,
    joined: &mut Option<(WorkerId, u64)>,
) -> Result<(), NetError> {
    while let Some((message, _)) = from.next::<ToCoordinator>().await? {
        match message {
            ToCoordinator::State(state) => {
                if who.as_ref().is_some_and(|who| *who != state.worker) {
                    let message = format!("The certificate is not the one of {}", state.worker);
                    return Err(NetError::Refused(Failure::new(Class::Denied, message)));
                }
                server.workers.know(&state.worker, &state.capacity.platforms);
                if joined.is_none() {
                    *joined = Some((state.worker.clone(), server.workers.join(&state.worker, out)));
                    let heard = ToWorker::Heard(server.logs.heard());
                    let _ = out.send(heard).await;
                    tracing::info!(worker = %state.worker, slots = state.capacity.slots, "a worker is there");
                }
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
                let (server, out) = (server.clone(), out.clone());
                tokio::spawn(async move {
                    let answer = server.ask(&id, ask).await;
                    let _ = out.send(ToWorker::Answer(number, answer)).await;
                });
            }
            ToCoordinator::Reply(number, result) => {
                if let Some(pending) = server.workers.pending().remove(&number) {
                    let _ = pending.answer.send(Some(*result));
                }
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
