//! Workers that are there: what they are told, and what they say.

use super::Server;
use super::logs::Piece;
use crate::core::Event;
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::WorkerId;
use proto::platform::Platform;
use proto::wire::build;
use proto::wire::worker::{Call, Lease, Moved, Reply, ToCoordinator, ToWorker};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Messages to one worker that wait before whoever sends one waits.
const OUTBOX: usize = 1024;

/// How long a call waits for a worker to be there.
const WORKER_WAIT: Duration = Duration::from_secs(30);

/// The workers that are there.
#[derive(Default)]
pub struct Workers {
    all: Mutex<HashMap<WorkerId, mpsc::Sender<ToWorker>>>,
    platforms: Mutex<HashMap<WorkerId, Vec<Platform>>>,
    calls: Mutex<HashMap<u64, Pending>>,
    last_call: AtomicU64,
    joined: Notify,
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
    pub fn desire(&self, worker: &WorkerId, leases: Vec<Lease>) {
        let all = self.all.lock().unwrap_or_else(|p| p.into_inner());
        let Some(out) = all.get(worker).cloned() else { return };
        drop(all);
        // In order: each says all there is to do, so the last one must be the last.
        if let Err(mpsc::error::TrySendError::Full(message)) =
            out.try_send(ToWorker::Desired(leases))
        {
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
        all.iter().next().map(|(id, out)| (id.clone(), out.clone()))
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

    fn lost(&self, worker: &WorkerId) {
        self.all.lock().unwrap_or_else(|p| p.into_inner()).remove(worker);
        self.platforms.lock().unwrap_or_else(|p| p.into_inner()).remove(worker);
        let lost: Vec<u64> =
            self.pending().iter().filter(|(_, p)| p.worker == *worker).map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(pending) = self.pending().remove(&id) {
                let _ = pending.answer.send(None);
            }
        }
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

/// Serves one worker, until it is gone.
pub async fn serve(server: Arc<Server>, stream: Stream) -> Result<(), NetError> {
    let Stream { to, mut from } = stream;
    let (out, messages) = mpsc::channel(OUTBOX);
    let writer = tokio::spawn(write(to, messages));
    let mut worker = None;
    let result = listen(&server, &mut from, &out, &mut worker).await;
    if let Some(worker) = worker {
        server.workers.lost(&worker);
        server.tell(Event::WorkerLost { worker }).await;
    }
    writer.abort();
    result
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
    worker: &mut Option<WorkerId>,
) -> Result<(), NetError> {
    while let Some((message, _)) = from.next::<ToCoordinator>().await? {
        match message {
            ToCoordinator::State(state) => {
                server.workers.know(&state.worker, &state.platforms);
                if worker.is_none() {
                    *worker = Some(state.worker.clone());
                    let mut all = server.workers.all.lock().unwrap_or_else(|p| p.into_inner());
                    all.insert(state.worker.clone(), out.clone());
                    drop(all);
                    server.workers.joined.notify_waiters();
                }
                let event = Event::Worker {
                    worker: state.worker,
                    slots: state.slots,
                    platforms: state.platforms,
                    running: state.running,
                    reports: state.reports,
                };
                server.tell(event).await;
            }
            ToCoordinator::Log { lease, stream, at, data } => {
                let piece = Piece { stream, at, data };
                for (build, vertex) in server.logs.add(lease, &piece) {
                    let Some(build) = server.builds.get(&build) else { continue };
                    let Piece { stream, at, data } = piece.clone();
                    build.log(vertex, stream, at, data).await;
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
                    let answer = match server.builds.get(&id) {
                        Some(build) => build.ask(ask).await,
                        None => build::Answer::Failed(Failure::new(
                            Class::Cancelled,
                            format!("The build {id} has ended"),
                        )),
                    };
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
