//! When a farm ends: after a time without anybody, when it is told to, or when what it works on is
//! done. Pure but for [`Shared`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What is known of a farm's end.
#[derive(Debug)]
pub struct Life {
    /// How long it stays when nobody is there; none: as long as it is not told to end.
    idle: Option<Duration>,
    /// Streams that somebody holds open.
    streams: usize,
    /// Pieces of work that an end waits for: builds, containers, pulls.
    works: usize,
    /// When the last stream was closed.
    since: Instant,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    AfterWorks,
    Now,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; look again at this time, if nothing happens before.
    Stay(Option<Instant>),
    /// Take no new work; go on with what there is.
    Finish,
    /// End. What is under way is cancelled.
    End,
}

impl Life {
    /// A life that begins.
    pub fn new(idle: Option<Duration>, now: Instant) -> Self {
        Self { idle, streams: 0, works: 0, since: now, told: Told::Nothing }
    }

    /// What to do now.
    pub fn verdict(&self, now: Instant) -> Verdict {
        match self.told {
            Told::Now => Verdict::End,
            Told::AfterWorks if self.works == 0 => Verdict::End,
            Told::AfterWorks => Verdict::Finish,
            Told::Nothing if self.streams > 0 => Verdict::Stay(None),
            Told::Nothing => match self.idle.and_then(|idle| self.since.checked_add(idle)) {
                Some(end) if end <= now => Verdict::End,
                end => Verdict::Stay(end),
            },
        }
    }

    fn tell(&mut self, told: Told) {
        self.told = self.told.max(told);
    }
}

/// A life that all parts of the farm see.
#[derive(Clone)]
pub struct Shared(Arc<(Mutex<Life>, Notify)>);

impl Shared {
    /// Shares it.
    pub fn new(life: Life) -> Self {
        Self(Arc::new((Mutex::new(life), Notify::new())))
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Life)) {
        change(&mut self.life());
        self.0.1.notify_one();
    }

    /// What to do now.
    pub fn verdict(&self) -> Verdict {
        self.life().verdict(Instant::now())
    }

    /// Waits until something has changed since the last wait.
    pub async fn changed(&self) {
        self.0.1.notified().await;
    }

    /// Somebody holds a stream open as long as the answer lives.
    pub fn stream(&self) -> StreamGuard {
        self.change(|life| life.streams += 1);
        StreamGuard(self.clone())
    }

    /// A piece of work goes on as long as the answer lives. None when no new work is taken.
    pub fn work(&self) -> Option<WorkGuard> {
        let mut life = self.life();
        if life.told != Told::Nothing {
            return None;
        }
        life.works += 1;
        Some(WorkGuard(self.clone()))
    }

    /// The farm is to end: at once, or after what it works on.
    pub fn end(&self, after_works: bool) {
        self.change(|life| life.tell(if after_works { Told::AfterWorks } else { Told::Now }));
    }
}

/// A stream that is open.
pub struct StreamGuard(Shared);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.change(|life| {
            life.streams -= 1;
            life.since = Instant::now();
        });
    }
}

/// A piece of work that goes on.
pub struct WorkGuard(Shared);

impl Drop for WorkGuard {
    fn drop(&mut self) {
        self.0.change(|life| life.works -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn it_ends_when_nobody_was_there_for_long() {
        let start = Instant::now();
        let mut life = Life::new(Some(IDLE), start);
        assert_eq!(life.verdict(start), Verdict::Stay(Some(start + IDLE)));
        life.streams = 1;
        assert_eq!(life.verdict(start + 2 * IDLE), Verdict::Stay(None));
        life.streams = 0;
        life.since = start + IDLE;
        assert_eq!(life.verdict(start + IDLE), Verdict::Stay(Some(start + 2 * IDLE)));
        assert_eq!(life.verdict(start + 2 * IDLE), Verdict::End);
        assert_eq!(Life::new(None, start).verdict(start + 9 * IDLE), Verdict::Stay(None));
    }

    #[test]
    fn it_finishes_what_it_works_on_unless_it_is_told_to_end_now() {
        let start = Instant::now();
        let mut life = Life::new(None, start);
        (life.works, life.streams) = (1, 3);
        life.tell(Told::AfterWorks);
        assert_eq!(life.verdict(start), Verdict::Finish);
        life.works = 0;
        assert_eq!(life.verdict(start), Verdict::End);
        life.works = 1;
        life.tell(Told::Now);
        life.tell(Told::AfterWorks);
        assert_eq!(life.verdict(start), Verdict::End);
    }

    #[test]
    fn an_ending_farm_takes_no_new_work() {
        let shared = Shared::new(Life::new(None, Instant::now()));
        let work = shared.work().unwrap();
        let _stream = shared.stream();
        shared.end(true);
        assert!(shared.work().is_none());
        assert_eq!(shared.verdict(), Verdict::Finish);
        drop(work);
        assert_eq!(shared.verdict(), Verdict::End);
    }
}
