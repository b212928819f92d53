//! How a role's process ends: a worker finishes what it does first, and systemd is told.
//!
//! `SIGTERM` lets a worker finish for as long as `worker.drain` says, `SIGUSR1` for as long as it
//! takes, `SIGINT` (Ctrl-C) not at all. A second signal ends it at once, whatever the first one was.

use crate::up::{Asked, Signals};
use sd_notify::NotifyState;
use std::time::Duration;
use worker::agent::Worker;

/// How often systemd is told that a worker still finishes, and for how long it is to wait then.
const TELL_EVERY: Duration = Duration::from_secs(10);
const WAIT_FOR_ME: Duration = Duration::from_secs(30);

/// Lets a worker finish what it does, as far as the signal that has come gives it time.
pub async fn finish(
    worker: &Worker,
    asked: Asked,
    drain: Duration,
    signals: &mut Signals,
    service: &Service,
) {
    let bound = match asked {
        Asked::Interrupt => return,
        Asked::Terminate => Some(drain),
        Asked::Finish => None,
    };
    tracing::info!(?bound, "the worker takes no new work, and finishes what it does");
    let finished = worker.drained(|steps, calls| {
        let left = left(steps, calls);
        tracing::info!("{left} to finish; another signal ends the worker at once");
        service.status(&left);
    });
    let in_time = async {
        match bound {
            Some(bound) => tokio::time::timeout(bound, finished).await.is_ok(),
            None => {
                finished.await;
                true
            }
        }
    };
    tokio::select! {
        in_time = in_time => match in_time {
            true => tracing::info!("nothing is left to finish"),
            false => tracing::warn!(
                "what is left is stopped, and done by other workers: worker.drain is over"
            ),
        },
        _ = signals.next() => {
            tracing::warn!("what is left is stopped, and done by other workers: a second signal came");
        }
        () = service.keep_waiting() => {}
    }
}

/// What is left, for people.
fn left(steps: usize, calls: usize) -> String {
    let step = if steps == 1 { "step" } else { "steps" };
    match calls {
        0 => format!("{steps} {step}"),
        1 => format!("{steps} {step} and 1 other piece of work"),
        n => format!("{steps} {step} and {n} other pieces of work"),
    }
}

/// The service manager, where this process is a service of its own (`NOTIFY_SOCKET`): systemd with
/// `Type=notify`, or who speaks like it (sd_notify(3)).
pub struct Service;

impl Service {
    fn tell(&self, states: &[NotifyState<'_>]) {
        // Nobody listens where no service manager started us.
        if let Err(e) = sd_notify::notify(states) {
            tracing::debug!("the service manager cannot be told: {e}");
        }
    }

    /// The roles serve.
    pub fn ready(&self, roles: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&format!("Running: {roles}"))]);
    }

    /// The process is about to end.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    fn status(&self, left: &str) {
        self.tell(&[NotifyState::Status(&format!("Finishing: {left}"))]);
    }

    /// Asks to be waited for, again and again.
    async fn keep_waiting(&self) {
        loop {
            let wait = WAIT_FOR_ME.as_micros() as u32;
            self.tell(&[NotifyState::ExtendTimeoutUsec(wait)]);
            tokio::time::sleep(TELL_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_words() {
        assert_eq!(left(1, 0), "1 step");
        assert_eq!(left(0, 1), "0 steps and 1 other piece of work");
        assert_eq!(left(2, 3), "2 steps and 3 other pieces of work");
    }
}
