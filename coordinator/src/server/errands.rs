//! Work of workers that is for a person and is no build: pulls, pushes, archives. Each has a name
//! like a build, by which workers ask for logins.

use super::Server;
use super::locked;
use super::session::new_id;
use proto::error::{Class, Failure};
use proto::id::BuildId;
use proto::wire::build::{Answer, Ask};
use proto::wire::worker::{Call, Moved, Reply};
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for a person before whoever asks more waits.
const ASKED: usize = 16;

/// A question, and where its answer goes.
pub type Question = (Ask, oneshot::Sender<Answer>);

/// Whoever wants something done: is asked for logins, and told what is moved.
pub struct Person {
    asks: mpsc::Sender<Question>,
    moved: mpsc::UnboundedSender<Moved>,
}

/// What a [`Person`] hears.
pub struct Heard {
    /// What is asked.
    pub asks: mpsc::Receiver<Question>,
    /// What is moved.
    pub moved: mpsc::UnboundedReceiver<Moved>,
}

impl Person {
    /// One, and what it hears.
    pub fn new() -> (Self, Heard) {
        let (ask, asks) = mpsc::channel(ASKED);
        let (tell, moved) = mpsc::unbounded_channel();
        (Self { asks: ask, moved: tell }, Heard { asks, moved })
    }
}

/// The errands that are under way.
#[derive(Default)]
pub struct Errands(Mutex<HashMap<BuildId, mpsc::Sender<Question>>>);

impl Errands {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<BuildId, mpsc::Sender<Question>>> {
        locked(&self.0)
    }
}

/// An errand is over, however it ended.
struct Over<'e>(&'e Errands, BuildId);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.all().remove(&self.1);
    }
}

impl Server {
    /// Asks whoever a worker works for: the client of a build, or a person.
    pub async fn ask(&self, id: &BuildId, ask: Ask) -> Answer {
        if let Some(build) = self.builds.get(id) {
            return build.ask(ask).await;
        }
        let person = self.errands.all().get(id).cloned();
        let over = || {
            let message = format!("What was asked for under the name {id} has ended");
            Answer::Failed(Failure::new(Class::Cancelled, message))
        };
        let Some(person) = person else { return over() };
        let (answer, answered) = oneshot::channel();
        if person.send((ask, answer)).await.is_err() {
            return over();
        }
        answered.await.unwrap_or_else(|_| over())
    }

    /// Lets a worker do something for a person.
    pub async fn errand(
        &self,
        person: Person,
        call: impl FnOnce(BuildId) -> Call,
    ) -> Result<Reply, Failure> {
        let id = new_id();
        self.errands.all().insert(id.clone(), person.asks);
        let _over = Over(&self.errands, id.clone());
        self.workers.call(call(id), Some(person.moved)).await.0
    }
}
