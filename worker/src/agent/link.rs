//! The way to the coordinator, as the worker's tasks use it.

use super::logs::{Logs, Piece, locked};
use crate::image::registry::{Credentials, LoginFuture, Registry, Session};
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch, Millis};
use proto::mount;
use proto::wire::build::{Answer, Ask, Stream};
use proto::wire::worker::{Moved, ToCoordinator};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for the coordinator before whoever says more waits.
pub const OUTBOX: usize = 256;

/// Builds whose logins and tokens are kept.
const SESSIONS_MAX: usize = 64;

/// Everything that is said to the coordinator goes through here, whichever stream leads to it at
/// the moment. Clones are the same one.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    out: Mutex<Option<mpsc::Sender<ToCoordinator>>>,
    last: AtomicU64,
    asked: Mutex<BTreeMap<u64, Question>>,
    logs: Logs,
    registry: Registry,
    sessions: Mutex<Sessions>,
}

/// Something that was asked and not answered yet. A coordinator that comes back is asked again.
enum Question {
    /// A build's client.
    Client { build: BuildId, ask: Ask, answer: oneshot::Sender<Answer> },
    /// The coordinator, about a cache mount.
    Mount { lease: LeaseEpoch, id: String, ask: mount::Ask, answer: oneshot::Sender<mount::Answer> },
}

impl Question {
    fn message(&self, number: u64) -> ToCoordinator {
        match self {
            Self::Client { build, ask, .. } => {
                ToCoordinator::Ask(number, build.clone(), ask.clone())
            }
            Self::Mount { lease, id, ask, .. } => {
                ToCoordinator::Mount { number, lease: *lease, id: id.clone(), ask: ask.clone() }
            }
        }
    }
}

#[derive(Default)]
struct Sessions {
    all: HashMap<BuildId, Arc<Session>>,
    oldest: VecDeque<BuildId>,
}

impl Link {
    /// A link that leads nowhere yet.
    pub fn new(registry: Registry) -> Self {
        Self(Arc::new(Inner {
            out: Mutex::default(),
            last: AtomicU64::new(0),
            asked: Mutex::default(),
            logs: Logs::default(),
            registry,
            sessions: Mutex::default(),
        }))
    }

    /// From now on messages are taken from the other end of `out`. What was asked and not answered
    /// is asked again.
    pub async fn connect(&self, out: mpsc::Sender<ToCoordinator>) {
        *locked(&self.0.out) = Some(out);
        let again: Vec<ToCoordinator> = locked(&self.0.asked)
            .iter()
            .map(|(number, question)| question.message(*number))
            .collect();
        for question in again {
            self.say(question).await;
        }
    }

    /// Nobody hears what is said, until somebody does again.
    pub fn disconnect(&self) {
        *locked(&self.0.out) = None;
    }

    /// Whether a coordinator hears what is said.
    pub fn is_connected(&self) -> bool {
        self.out().is_some_and(|out| !out.is_closed())
    }

    fn out(&self) -> Option<mpsc::Sender<ToCoordinator>> {
        locked(&self.0.out).clone()
    }

    /// Says something. When the coordinator is gone nobody hears it.
    pub async fn say(&self, message: ToCoordinator) {
        if let Some(out) = self.out() {
            let _ = out.send(message).await;
        }
    }

    /// Says something that can be left out when there is much to say.
    pub fn hint(&self, message: ToCoordinator) {
        if let Some(out) = self.out() {
            let _ = out.try_send(message);
        }
    }

    /// A step wrote something. Blocks while the coordinator is slow.
    pub fn log(&self, lease: LeaseEpoch, stream: Stream, at: Millis, data: Vec<u8>) {
        let send = |piece| _ = self.send_piece(lease, piece);
        self.0.logs.add(lease, stream, at, data, send);
    }

    /// Says a step's log again, but for the first `from` bytes. Blocks.
    pub fn replay(&self, lease: LeaseEpoch, from: u64) {
        self.0.logs.replay(lease, from, |piece| self.send_piece(lease, piece));
    }

    fn send_piece(&self, lease: LeaseEpoch, piece: Piece) -> bool {
        let Piece { offset, stream, at, data } = piece;
        let message = ToCoordinator::Log { lease, offset, stream, at, data };
        self.out().is_some_and(|out| out.blocking_send(message).is_ok())
    }

    /// Forgets the logs of leases that are over.
    pub fn keep_logs(&self, wanted: impl Fn(&LeaseEpoch) -> bool) {
        self.0.logs.keep_only(wanted);
    }

    /// Asks for what only the build's client has.
    pub async fn ask(&self, build: &BuildId, ask: Ask) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        let question = Question::Client { build: build.clone(), ask, answer };
        let _forget = self.put(question).await;
        match answered.await {
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(answer) => Ok(answer),
            Err(_) => Err(Failure::new(Class::Unavailable, "The coordinator is gone")),
        }
    }

    /// Asks the coordinator about a cache mount of a step.
    pub async fn ask_mount(&self, lease: LeaseEpoch, id: &str, ask: mount::Ask) -> mount::Answer {
        let (answer, answered) = oneshot::channel();
        let question = Question::Mount { lease, id: id.to_owned(), ask, answer };
        let _forget = self.put(question).await;
        let gone = |_| mount::Answer::Refused("The coordinator is gone".to_owned());
        answered.await.unwrap_or_else(gone)
    }

    /// Asks now, and again whenever a coordinator comes back, until it is forgotten.
    async fn put(&self, question: Question) -> Forget<'_> {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let message = question.message(number);
        locked(&self.0.asked).insert(number, question);
        let forget = Forget { link: self, number };
        self.say(message).await;
        forget
    }

    /// The client's answer to a question.
    pub fn answered(&self, number: u64, reply: Answer) {
        if let Some(Question::Client { answer, .. }) = locked(&self.0.asked).remove(&number) {
            let _ = answer.send(reply);
        }
    }

    /// The coordinator's answer about a cache mount.
    pub fn answered_mount(&self, number: u64, reply: mount::Answer) {
        if let Some(Question::Mount { answer, .. }) = locked(&self.0.asked).remove(&number) {
            let _ = answer.send(reply);
        }
    }

    /// A build's use of registries, with its client's logins.
    pub fn session(&self, build: &BuildId) -> Arc<Session> {
        let mut sessions = locked(&self.0.sessions);
        if let Some(session) = sessions.all.get(build) {
            return session.clone();
        }
        if sessions.oldest.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.oldest.pop_front()
        {
            sessions.all.remove(&oldest);
        }
        let logins = Logins { link: self.clone(), build: build.clone() };
        let session = Arc::new(self.0.registry.session(Arc::new(logins)));
        sessions.all.insert(build.clone(), session.clone());
        sessions.oldest.push_back(build.clone());
        session
    }
}

/// Whoever asked waits no more.
struct Forget<'l> {
    link: &'l Link,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        locked(&self.link.0.asked).remove(&self.number);
    }
}

/// The logins of a build's client.
struct Logins {
    link: Link,
    build: BuildId,
}

impl Credentials for Logins {
    fn login<'a>(&'a self, host: &'a str) -> LoginFuture<'a> {
        Box::pin(async move {
            match self.link.ask(&self.build, Ask::Login(host.to_owned())).await {
                Ok(Answer::Login(login)) => Ok(login),
                Ok(other) => Err(format!("the client answered {other:?}")),
                Err(failure) => Err(failure.message),
            }
        })
    }
}

/// Says how much of a blob was moved.
pub fn moved(what: String, current: u64, total: u64) -> Moved {
    Moved { what, current, total, done: current >= total && total > 0 }
}
