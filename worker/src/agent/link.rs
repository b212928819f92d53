//! The stream to the coordinator, as the worker's tasks use it.

use crate::image::registry::{Credentials, LoginFuture, Registry, Session};
use proto::error::{Class, Failure};
use proto::id::BuildId;
use proto::wire::build::{Answer, Ask};
use proto::wire::worker::{Moved, ToCoordinator};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for the coordinator before whoever says more waits.
pub const OUTBOX: usize = 256;

/// Builds whose logins and tokens are kept.
const SESSIONS_MAX: usize = 64;

/// Everything that is said to the coordinator goes through here. Clones are the same one.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    out: mpsc::Sender<ToCoordinator>,
    last: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    registry: Registry,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    all: HashMap<BuildId, Arc<Session>>,
    oldest: VecDeque<BuildId>,
}

impl Link {
    /// A link whose messages are taken from the other end of `out`.
    pub fn new(out: mpsc::Sender<ToCoordinator>, registry: Registry) -> Self {
        Self(Arc::new(Inner {
            out,
            last: AtomicU64::new(0),
            asked: Mutex::default(),
            registry,
            sessions: Mutex::default(),
        }))
    }

    /// Says something. When the coordinator is gone nobody hears it.
    pub async fn say(&self, message: ToCoordinator) {
        let _ = self.0.out.send(message).await;
    }

    /// As [`Link::say`], on a thread that may block.
    pub fn say_blocking(&self, message: ToCoordinator) {
        let _ = self.0.out.blocking_send(message);
    }

    /// Says something that can be left out when there is much to say.
    pub fn hint(&self, message: ToCoordinator) {
        let _ = self.0.out.try_send(message);
    }

    /// Asks for what only the build's client has.
    pub async fn ask(&self, build: &BuildId, ask: Ask) -> Result<Answer, Failure> {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        self.asked().insert(number, answer);
        self.say(ToCoordinator::Ask(number, build.clone(), ask)).await;
        match answered.await {
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(answer) => Ok(answer),
            Err(_) => Err(Failure::new(Class::Unavailable, "The coordinator is gone")),
        }
    }

    /// The answer to a question.
    pub fn answered(&self, number: u64, answer: Answer) {
        if let Some(waiting) = self.asked().remove(&number) {
            let _ = waiting.send(answer);
        }
    }

    /// Nobody will answer any more.
    pub fn close(&self) {
        self.asked().clear();
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.0.asked.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// A build's use of registries, with its client's logins.
    pub fn session(&self, build: &BuildId) -> Arc<Session> {
        let mut sessions = self.0.sessions.lock().unwrap_or_else(|p| p.into_inner());
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
