//! Stopping what is not wanted any more.

use crate::sandbox::Canceller;
use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Stops one piece of work. Clones are the same one.
#[derive(Clone)]
pub struct Stop {
    asked: Arc<watch::Sender<bool>>,
    container: Arc<Mutex<Option<Canceller>>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { asked: Arc::new(watch::Sender::new(false)), container: Arc::default() }
    }
}

impl Stop {
    /// Has the work stopped.
    pub fn stop(&self) {
        self.asked.send_replace(true);
        let container = self.container.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(container) = &*container {
            container.cancel();
        }
    }

    /// Whether it is to be stopped.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// The container that is to be killed when the work is stopped.
    pub fn watch(&self, container: Canceller) {
        let mut place = self.container.lock().unwrap_or_else(|p| p.into_inner());
        if self.is_asked() {
            container.cancel();
        }
        *place = Some(container);
    }

    /// Lets the work go on until it is stopped; then it is dropped, and there is no answer.
    pub async fn race<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut asked = self.asked.subscribe();
        tokio::select! {
            done = work => Some(done),
            _ = asked.wait_for(|asked| *asked) => None,
        }
    }
}
