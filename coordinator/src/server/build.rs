//! A build that is under way.

use super::asks::at_hand;
use super::audience::Audience;
use super::history::{BuildRow, RowStep};
use super::locked;
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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

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

/// How long a client may take to answer with what it has at hand. A person may be asked for a
/// password, to log in with a browser, or to touch a key, and for one after the other.
const ANSWER_MAX: Duration = Duration::from_secs(600);

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
        let at_hand = at_hand(&ask);
        let (sender, answer) = oneshot::channel();
        let number = {
            // The answer cannot come before it is known what to do with it.
            let mut asks = locked(&self.asks);
            let number = self.audience.ask(ask);
            asks.insert(number, sender);
            number
        };
        let gone = |()| Answer::Failed(Failure::new(Class::Cancelled, "The build has ended"));
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| gone(())),
            failure = self.silence(number, at_hand) => Answer::Failed(failure),
            // Nobody will answer who has not by then.
            () = self.audience.over() => gone(()),
        };
        locked(&self.asks).remove(&number);
        self.audience.answered(number);
        answer
    }

    /// Waits until the client has had time enough to answer with what it has at hand.
    async fn silence(&self, number: u64, at_hand: Option<String>) -> Failure {
        let Some(what) = at_hand else { return std::future::pending().await };
        self.audience.unanswered(number, ANSWER_MAX).await;
        let minutes = ANSWER_MAX.as_secs() / 60;
        let message =
            format!("The client was asked for {what} and has not answered for {minutes} minutes");
        Failure::new(Class::Unavailable, message).hint(
            "Look into the terminal in which the build was begun: something may wait there. \
             `slipway attach` cannot answer.",
        )
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

#[cfg(test)]
mod tests {
    use super::*;
    use cache::net::Stream;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_there_answers_in_time() {
        let (id, request) = (BuildId::parse("0123456789ab").unwrap(), BuildRequest::default());
        let patience = Some(Duration::from_secs(5));
        let build = Build::new(id, now(), Who::alone(), request, patience);
        let asked = || build.ask(Ask::Secret("token".to_owned()));
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, asked()).await.is_err(), "whoever is not there may come back");
        let (here, _there) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(here);
        let mut client = Stream::new(read, write);
        let (listens, began) =
            (build.audience.listen(&mut client.to, None, Vec::new), Instant::now());
        tokio::pin!(listens);
        let answer = tokio::select! {
            _ = &mut listens => panic!("it listens until the end"),
            answer = asked() => answer,
        };
        let Answer::Failed(failure) = answer else { panic!("{answer:?}") };
        assert!(failure.message.contains("the secret `token`"), "{failure}");
        assert_eq!(began.elapsed().as_secs(), ANSWER_MAX.as_secs());
        // Files may take longer.
        let blobs = build.ask(Ask::CacheBlobs(0, Vec::new()));
        tokio::select! {
            _ = &mut listens => panic!("it listens until the end"),
            answer = timeout(hour, blobs) => assert!(answer.is_err(), "{answer:?}"),
        }
    }
}
