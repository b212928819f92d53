//! Looks at the core from outside: the task that owns it lets others see it between two events.

use super::{Server, now};
use crate::core::{Core, Event};
use proto::error::{Class, Failure};
use proto::id::Millis;
use tokio::sync::oneshot;

/// What the core's task is sent.
pub enum Mail {
    /// Something that happened.
    Event(Box<Event>),
    /// Somebody wants to see how things are.
    Look(Box<dyn FnOnce(&Core, Millis) + Send>),
}

impl Server {
    /// Looks at the core. Must be quick: nothing is decided meanwhile.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, Millis) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let look = move |core: &Core, at: Millis| drop(answer.send(look(core, at)));
        let _ = self.inbox.send(Mail::Look(Box::new(look))).await;
        answered.await.map_err(|_| stopped())
    }

    /// Whether decisions are still made.
    pub fn decides(&self) -> bool {
        !self.inbox.is_closed()
    }
}

/// Why nothing is decided any more.
fn stopped() -> Failure {
    let message = "The coordinator makes no more decisions: its log could not be written to";
    Failure::new(Class::Unavailable, message)
        .hint("Look into its log for the reason, mend that, and start it again.")
}

/// The time of a look: never before the last event.
pub fn time(last: Millis) -> Millis {
    last.max(now())
}
