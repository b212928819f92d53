//! One client's build, from its request to its end.

use super::narrate::narrate;
use super::progress::Reporter;
use super::{Server, export, now, plan};
use crate::core::{Event, Notice, Plan, TargetState};
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::{BlobId, BuildId, LeaseEpoch, Millis, OciDigest};
use proto::limit;
use proto::step::StepId;
use proto::wire::build::{
    self as wire, Answer, Ask, BuildRequest, BuildResult, OutputResult, Summary, ToClient,
    ToCoordinator, VertexId,
};
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Notify, mpsc, oneshot};

/// Messages to one client that wait before whoever sends one waits.
const OUTBOX: usize = 4096;

/// The version of rows of the history.
const ROW_VERSION: u8 = 1;

/// The builds that are under way.
#[derive(Default)]
pub struct Builds(Mutex<BTreeMap<BuildId, Arc<Build>>>);

impl Builds {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<BuildId, Arc<Build>>> {
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// A build that is under way.
    pub fn get(&self, id: &BuildId) -> Option<Arc<Build>> {
        self.all().get(id).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// Cancels a build; answers whether there was one of that name.
    pub fn cancel(&self, id: &BuildId) -> bool {
        self.get(id).is_some_and(|build| {
            build.cancelled.notify_one();
            true
        })
    }
}

/// A build that is under way.
pub struct Build {
    /// Its name.
    pub id: BuildId,
    /// What the person asked for.
    pub request: BuildRequest,
    /// Tells the client what happens.
    pub reporter: Reporter,
    /// What it is made of, once that is known.
    pub plan: OnceLock<Arc<Plan>>,
    asks: Mutex<(u64, HashMap<u64, oneshot::Sender<Answer>>)>,
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

/// What is kept of a build.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BuildRow {
    /// Its name.
    pub id: BuildId,
    /// When it began.
    pub started: Millis,
    /// When it ended, if it has.
    pub ended: Option<Millis>,
    /// The Dockerfile.
    pub dockerfile: String,
    /// The stage asked for.
    pub target: Option<String>,
    /// What the person calls it.
    pub description: String,
    /// The images that came out.
    pub images: Vec<(OciDigest, Vec<String>)>,
    /// Why it failed, if it has.
    pub failure: Option<Failure>,
    /// What it did.
    pub summary: Summary,
    /// Its steps, in the order in which they began.
    pub steps: Vec<RowStep>,
}

/// What is kept of a step.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RowStep {
    /// Its place in the graph.
    pub step: StepId,
    /// Its name.
    pub name: String,
    /// When it began.
    pub started: Millis,
    /// When it ended, if it has.
    pub ended: Option<Millis>,
    /// Whether an earlier result was taken.
    pub cached: bool,
    /// Why it failed, if it has.
    pub error: Option<String>,
    /// What it wrote.
    pub log: Option<BlobId>,
}

impl Build {
    fn new(id: BuildId, request: BuildRequest, out: mpsc::Sender<ToClient>) -> Self {
        let row = BuildRow {
            id: id.clone(),
            started: now(),
            ended: None,
            dockerfile: request.dockerfile_name.clone(),
            target: request.target.clone(),
            description: request.description.clone(),
            images: Vec::new(),
            failure: None,
            summary: Summary::default(),
            steps: Vec::new(),
        };
        Self {
            id,
            request,
            reporter: Reporter::new(out),
            plan: OnceLock::new(),
            asks: Mutex::default(),
            outcome: Mutex::default(),
            cancelled: Notify::new(),
            row: Mutex::new(row),
            leases: Mutex::default(),
            notices: OnceLock::new(),
        }
    }

    /// Something became of a step. In order: the client is told so, too.
    pub fn notice(&self, step: StepId, notice: Notice) {
        if let Some(notices) = self.notices.get() {
            let _ = notices.send((step, notice));
        }
    }

    /// Asks the client for something that only it has.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut asks = self.asks.lock().unwrap_or_else(|p| p.into_inner());
            asks.0 += 1;
            let number = asks.0;
            asks.1.insert(number, sender);
            number
        };
        self.reporter.say(ToClient::Ask(number, ask)).await;
        answer.await.unwrap_or_else(|_| {
            Answer::Failed(Failure::new(Class::Cancelled, "The client has gone"))
        })
    }

    fn answered(&self, number: u64, answer: Answer) {
        let mut asks = self.asks.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(sender) = asks.1.remove(&number) {
            let _ = sender.send(answer);
        }
    }

    /// The core's part of the build has ended.
    pub fn ended(&self, outcome: Outcome) {
        let sender = self.outcome.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(sender) = sender {
            let _ = sender.send(outcome);
        }
    }

    /// A piece of a step's log came.
    pub async fn log(&self, vertex: VertexId, stream: wire::Stream, at: Millis, data: Vec<u8>) {
        let event = wire::Event::Log { vertex, stream, at, data };
        self.reporter.say(ToClient::Event(event)).await;
    }

    /// Changes what is kept of a step.
    pub fn note(&self, step: StepId, change: impl FnOnce(&mut RowStep)) {
        let name = self.plan.get().map(|p| p.graph.steps[step.index()].name.clone());
        let mut row = self.row.lock().unwrap_or_else(|p| p.into_inner());
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
        self.leases.lock().unwrap_or_else(|p| p.into_inner()).insert(step, lease);
    }

    /// Under which lease a step runs, or ran last.
    pub fn lease(&self, step: StepId) -> Option<LeaseEpoch> {
        self.leases.lock().unwrap_or_else(|p| p.into_inner()).get(&step).copied()
    }

    fn row(&self) -> std::sync::MutexGuard<'_, BuildRow> {
        self.row.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// Serves one client's build, until it has ended or the client is gone.
pub async fn serve(server: Arc<Server>, stream: Stream) -> Result<(), NetError> {
    let Stream { to, mut from } = stream;
    let request = match from.expect::<ToCoordinator>().await? {
        (ToCoordinator::Submit(request), _) => *request,
        (other, _) => {
            let what = format!("{other:?}").chars().take(60).collect();
            return Err(NetError::Unexpected(what));
        }
    };
    let (out, messages) = mpsc::channel(OUTBOX);
    let writer = tokio::spawn(write(to, messages));
    let build = Arc::new(Build::new(new_id(), request, out));
    server.builds.all().insert(build.id.clone(), build.clone());
    let result = tokio::select! {
        result = run(&server, &build) => result,
        failure = listen(&build, &mut from) => Err(failure),
    };
    close(&server, &build, &result).await;
    let finished = ToClient::Finished(Box::new(result));
    build.reporter.say(finished).await;
    // What has been said must arrive before the stream is closed. All senders are gone with the
    // build; the writer ends when the last message is out.
    drop(build);
    let _ = writer.await;
    Ok(())
}

/// A name for a build: 60 bits of chance.
fn new_id() -> BuildId {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    let text: String = (u64::from_le_bytes(bytes) >> 4)
        .to_string()
        .bytes()
        .map(|b| char::from(b"bcdfghjkmn"[usize::from(b - b'0')]))
        .take(12)
        .collect();
    BuildId::parse(&text).expect("letters only")
}

async fn write(mut to: Sender, mut messages: mpsc::Receiver<ToClient>) -> Result<(), NetError> {
    while let Some(message) = messages.recv().await {
        to.send(&message).await?;
    }
    to.close().await
}

/// Hears the client; answers only when the build is not wanted any more.
async fn listen(build: &Build, from: &mut Receiver) -> Failure {
    let hear = async {
        loop {
            match from.next::<ToCoordinator>().await {
                Ok(Some((ToCoordinator::Answer(number, answer), _))) => {
                    build.answered(number, answer);
                }
                Ok(Some((ToCoordinator::Cancel, _))) => return "The build was cancelled",
                Ok(Some((ToCoordinator::Submit(_), _))) => {
                    return "The client sent a second request on one stream";
                }
                Ok(None) | Err(_) => return "The client has gone",
            }
        }
    };
    let message = tokio::select! {
        message = hear => message,
        () = build.cancelled.notified() => "The build was cancelled",
    };
    Failure::new(Class::Cancelled, message)
}

async fn run(server: &Arc<Server>, build: &Arc<Build>) -> Result<BuildResult, Failure> {
    build.reporter.say(ToClient::Accepted(build.id.clone())).await;
    let began = now();
    // What this build finds, makes or is told of stays until it ends.
    let _pin = server.library.blobs.pin().await;
    let plan = plan::make(server, build).await?;
    let (sender, outcome) = oneshot::channel();
    *build.outcome.lock().unwrap_or_else(|p| p.into_inner()) = Some(sender);
    let _ = build.plan.set(plan.clone());
    let (notices, told) = mpsc::unbounded_channel();
    let _ = build.notices.set(notices);
    let narrator = tokio::spawn(narrate(server.clone(), build.clone(), plan.clone(), told));
    server.tell(Event::Submitted { build: build.id.clone(), plan: plan.clone() }).await;
    let outcome = outcome.await;
    // What was noticed before must be told before what comes now.
    build.notice(StepId(0), Notice::Over);
    let _ = narrator.await;
    let targets = match outcome {
        Ok(Outcome::Ready(targets)) => targets,
        Ok(Outcome::Failed(step, failure)) => return Err(placed(build, &plan, step, failure)),
        Err(_) => return Err(Failure::new(Class::Bug, "The coordinator lost the build")),
    };
    let outputs = export::make(server, build, &plan, targets).await?;
    // Nothing is called done that a loss of power could take away.
    server.library.blobs.barrier().await?;
    let mut summary = build.reporter.summary();
    summary.wall_ms = now().since(began);
    Ok(BuildResult { outputs, summary })
}

/// The failure with the place of the step, and its lines.
fn placed(build: &Build, plan: &Plan, step: Option<StepId>, mut failure: Failure) -> Failure {
    let at = step.and_then(|s| plan.graph.steps[s.index()].at.clone());
    if let (None, Some(at)) = (&failure.at, at) {
        failure.excerpt = crate::dockerfile::error::excerpt(&build.request.dockerfile, &at);
        failure.at = Some(at);
    }
    failure
}

/// Takes the build out of everything, and writes down what is kept of it.
async fn close(server: &Arc<Server>, build: &Arc<Build>, result: &Result<BuildResult, Failure>) {
    server.tell(Event::Ended { build: build.id.clone() }).await;
    server.builds.all().remove(&build.id);
    server.logs.forget(&build.id);
    let (key, value) = {
        let mut row = build.row();
        row.ended = Some(now());
        row.summary = build.reporter.summary();
        match result {
            Ok(result) => {
                row.summary = result.summary;
                row.images = result.outputs.iter().filter_map(image).collect();
            }
            Err(failure) => row.failure = Some(failure.clone()),
        }
        let mut value = vec![ROW_VERSION];
        match rkyv::to_bytes::<RkyvError>(&*row) {
            Ok(bytes) => value.extend_from_slice(&bytes),
            Err(e) => return tracing::warn!("a build's history cannot be kept: {e}"),
        }
        (row_key(&row), value)
    };
    if let Err(e) = server.library.blobs.put_build(key, value).await {
        tracing::warn!("a build's history cannot be kept: {e}");
    }
}

fn image(output: &OutputResult) -> Option<(OciDigest, Vec<String>)> {
    match output {
        OutputResult::Image(image) | OutputResult::Archive(image, _) => {
            Some((image.config, image.names.clone()))
        }
        OutputResult::Files(_) | OutputResult::CacheOnly => None,
    }
}

/// A key that sorts by time.
fn row_key(row: &BuildRow) -> Vec<u8> {
    [&row.started.0.to_be_bytes()[..], row.id.as_str().as_bytes()].concat()
}

/// The builds that are under way, and the last ones that have ended, the newest first.
pub async fn history(server: &Server, count: u32) -> Result<Vec<BuildRow>, NetError> {
    let mut rows: Vec<BuildRow> =
        server.builds.all().values().map(|build| build.row().clone()).collect();
    for (_, value) in server.library.blobs.builds(count).await? {
        let [ROW_VERSION, bytes @ ..] = value.as_slice() else { continue };
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes);
        rows.extend(rkyv::from_bytes::<BuildRow, RkyvError>(&aligned).ok());
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.started));
    rows.truncate(count as usize);
    Ok(rows)
}

/// Checks what must be so before anything is done.
pub fn check(request: &BuildRequest) -> Result<(), Failure> {
    if request.dockerfile.len() > limit::DOCKERFILE_BYTES_MAX {
        let message = format!(
            "The Dockerfile has {} bytes; at most {} are read",
            request.dockerfile.len(),
            limit::DOCKERFILE_BYTES_MAX
        );
        return Err(Failure::new(Class::User, message));
    }
    Ok(())
}
