//! A build that is under way.

use super::audience::Audience;
use super::history::{BuildRow, RowStep};
use super::logs::Piece;
use super::outside::Imported;
use super::progress::Reporter;
use super::{Server, now};
use crate::core::facts::Who;
use crate::core::{Notice, Plan, TargetState};
use crate::graph::keys::Selections;
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch, Millis};
use proto::step::StepId;
use proto::wire::build::{self as wire, Answer, Ask, BuildRequest, LogPlace, VertexId};
use proto::wire::worker::{Call, Reply};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The builds that are under way, and those whose clients have not heard yet how they ended.
#[derive(Default)]
pub struct Builds(Mutex<BTreeMap<BuildId, Arc<Build>>>);

impl Builds {
    /// Takes a build in.
    pub fn add(&self, build: &Arc<Build>) {
        locked(&self.0).insert(build.id.clone(), build.clone());
    }

    /// A build is forgotten.
    pub fn remove(&self, id: &BuildId) {
        locked(&self.0).remove(id);
    }

    /// A build.
    pub fn get(&self, id: &BuildId) -> Option<Arc<Build>> {
        locked(&self.0).get(id).cloned()
    }

    /// Those that are under way.
    pub fn running(&self) -> Vec<Arc<Build>> {
        locked(&self.0).values().filter(|build| !build.is_over()).cloned().collect()
    }

    /// Cancels a build; answers whether there was one of that name.
    pub fn cancel(&self, id: &BuildId) -> bool {
        self.get(id).filter(|build| !build.is_over()).is_some_and(|build| {
            build.cancel();
            true
        })
    }
}

/// A build that is under way.
pub struct Build {
    /// Its name.
    pub id: BuildId,
    /// For whom.
    pub who: Who,
    /// What the person asked for.
    pub request: BuildRequest,
    /// The client, whether it is there or not.
    pub audience: Arc<Audience>,
    /// Tells the client what happens.
    pub reporter: Reporter,
    /// What it is made of, once that is known.
    pub plan: OnceLock<Arc<Plan>>,
    /// What it found in caches outside of the farm.
    pub imported: Imported,
    /// What its steps take of the client's files. Not known of a build of an earlier life.
    pub selections: OnceLock<Selections>,
    asks: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
    cancelled: Notify,
    row: Mutex<BuildRow>,
    leases: Mutex<HashMap<StepId, LeaseEpoch>>,
    /// What becomes of its steps. As many as there are steps, a few times over.
    notices: OnceLock<mpsc::UnboundedSender<(StepId, Notice)>>,
}

/// How the core's part of a build ended.
pub enum Outcome {
    /// The targets are there.
    Ready(Vec<TargetState>),
    /// A step failed, or something else did.
    Failed(Option<StepId>, Failure),
}

impl Build {
    /// A build that begins, or goes on after the coordinator was started again. `patience` is how
    /// long its client may take nothing.
    pub fn new(
        id: BuildId,
        started: Millis,
        who: Who,
        request: BuildRequest,
        patience: Option<Duration>,
    ) -> Arc<Self> {
        let row = BuildRow::new(id.clone(), who.scope.clone(), started, &request);
        let audience = Arc::new(Audience::new(id.clone(), now().0, patience));
        Arc::new(Self {
            id,
            who,
            request,
            reporter: Reporter::new(audience.clone()),
            audience,
            plan: OnceLock::new(),
            imported: Imported::default(),
            selections: OnceLock::new(),
            asks: Mutex::default(),
            outcome: Mutex::default(),
            cancelled: Notify::new(),
            row: Mutex::new(row),
            leases: Mutex::default(),
            notices: OnceLock::new(),
        })
    }

    /// It is not wanted any more.
    pub fn cancel(&self) {
        self.cancelled.notify_one();
    }

    /// Waits until it is not wanted any more.
    pub async fn cancelled(&self) {
        self.cancelled.notified().await;
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.row().ended.is_some()
    }

    /// Something became of a step. In order: the client is told so, too.
    pub fn notice(&self, step: StepId, notice: Notice) {
        if let Some(notices) = self.notices.get() {
            let _ = notices.send((step, notice));
        }
    }

    /// What becomes of its steps from now on.
    pub fn notices(&self) -> mpsc::UnboundedReceiver<(StepId, Notice)> {
        let (notices, told) = mpsc::unbounded_channel();
        let _ = self.notices.set(notices);
        told
    }

    /// How the core's part of it ends, the next time.
    pub fn outcome(&self) -> oneshot::Receiver<Outcome> {
        let (sender, outcome) = oneshot::channel();
        *locked(&self.outcome) = Some(sender);
        outcome
    }

    /// Asks the client for something that only it has.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (sender, answer) = oneshot::channel();
        let number = {
            // The answer cannot come before it is known what to do with it.
            let mut asks = locked(&self.asks);
            let number = self.audience.ask(ask);
            asks.insert(number, sender);
            number
        };
        let answer = answer.await.unwrap_or_else(|_| {
            Answer::Failed(Failure::new(Class::Cancelled, "The client has gone"))
        });
        self.audience.answered(number);
        answer
    }

    /// Lets a worker do something for it. The client is told under `vertex` what is moved meanwhile.
    pub async fn call(
        &self,
        server: &Server,
        vertex: VertexId,
        call: Call,
    ) -> Result<Reply, Failure> {
        let (moved, mut heard) = mpsc::unbounded_channel();
        let tell = async {
            while let Some(piece) = heard.recv().await {
                self.reporter.moved(vertex, piece);
            }
        };
        let call = server.workers.call(call, Some(moved));
        let ((result, traffic), ()) = tokio::join!(call, tell);
        self.reporter.traffic(traffic);
        result
    }

    /// The client answered.
    pub fn answered(&self, number: u64, answer: Answer) {
        if let Some(sender) = locked(&self.asks).remove(&number) {
            let _ = sender.send(answer);
        }
    }

    /// The core's part of the build has ended.
    pub fn ended(&self, outcome: Outcome) {
        if let Some(sender) = locked(&self.outcome).take() {
            let _ = sender.send(outcome);
        }
    }

    /// A remark of ours among what a step writes.
    pub async fn remark(&self, vertex: VertexId, text: String) {
        let (stream, at, data) = (wire::Stream::Stderr, now(), text.into_bytes());
        self.audience.say(wire::Event::Log { vertex, stream, at, data }).await;
    }

    /// A piece of a step's log came.
    pub async fn log(&self, vertex: VertexId, place: LogPlace, piece: Piece) {
        let Piece { stream, at, data } = piece;
        let event = wire::Event::Log { vertex, stream, at, data };
        self.audience.say_at(Some(place), event).await;
    }

    /// Changes what is kept of a step.
    pub fn note(&self, step: StepId, change: impl FnOnce(&mut RowStep)) {
        let name = self.plan.get().map(|p| p.graph.steps[step.index()].name.clone());
        let mut row = locked(&self.row);
        if let Some(noted) = row.steps.iter_mut().find(|s| s.step == step) {
            return change(noted);
        }
        let name = name.unwrap_or_default();
        let (started, ended, cached, error, log) = (now(), None, false, None, None);
        let mut noted = RowStep { step, name, started, ended, cached, error, log };
        change(&mut noted);
        row.steps.push(noted);
    }

    /// Remembers under which lease a step runs.
    pub fn leased(&self, step: StepId, lease: LeaseEpoch) {
        locked(&self.leases).insert(step, lease);
    }

    /// Under which lease a step runs, or ran last.
    pub fn lease(&self, step: StepId) -> Option<LeaseEpoch> {
        locked(&self.leases).get(&step).copied()
    }

    /// What is kept of it.
    pub fn row(&self) -> MutexGuard<'_, BuildRow> {
        locked(&self.row)
    }
}
