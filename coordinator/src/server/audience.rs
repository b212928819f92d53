//! What a build's client is told, whether it is there or not: a client that comes back hears what it
//! has missed, and a slow one slows its own build down. One that takes nothing at all for a while is
//! listened to no more on a farm: whoever has something to tell it has others to work for.
//!
//! Events are numbered. A bounded number of them is kept; whoever has missed more is told how
//! everything stands instead.

use super::locked;
use cache::net::{NetError, Sender};
use proto::error::Failure;
use proto::id::BuildId;
use proto::wire::build::{Ask, BuildResult, Event, LogPlace, ToClient, Vertex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Events that a client is behind before whoever says more waits.
const BEHIND_MAX: u64 = 4096;

/// Events that are kept for a client that comes back.
const KEPT: usize = 8192;

/// Bytes of logs among the kept events.
const KEPT_BYTES: usize = 8 << 20;

/// How long a build waits for its first client, whatever its grace is.
const FIRST: Duration = Duration::from_secs(10);

/// How a build ended.
pub type Ending = Result<BuildResult, Failure>;

/// What a build's client is told.
pub struct Audience {
    build: BuildId,
    /// Tells this life of the build from one before the coordinator was started again.
    incarnation: u64,
    /// How long a client may take nothing; none for as long as it likes.
    patience: Option<Duration>,
    state: Mutex<State>,
    /// Something can be sent, or was sent.
    moved: Notify,
}

#[derive(Default)]
struct State {
    kept: VecDeque<Said>,
    kept_bytes: usize,
    /// The number of the first kept event; numbers begin with 1.
    first: u64,
    asks: BTreeMap<u64, Ask>,
    last_ask: u64,
    ending: Option<Box<Ending>>,
    /// Whether a client has heard how the build ended.
    is_heard: bool,
    listener: Option<Listener>,
    listeners: u64,
}

/// Questions of one life are numbered within so many bits; the life stands before them.
const ASKS_BITS: u32 = 20;

/// A client that is there.
struct Listener {
    id: u64,
    /// The number of the next event that it is to hear.
    next: u64,
    asked: BTreeSet<u64>,
}

impl Listener {
    /// Who it is, and what it has taken.
    fn place(&self) -> Place {
        (self.id, self.next, self.asked.len())
    }
}

/// Where a listener stands: another place is another listener, or one that has taken something.
type Place = (u64, u64, usize);

/// Something that was said.
type Said = (Option<LogPlace>, Event);

impl State {
    /// The number that the next event will have.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Which client was asked this, of those that are there.
    fn asked(&self, number: u64) -> Option<u64> {
        let listener = self.listener.as_ref()?;
        listener.asked.contains(&number).then_some(listener.id)
    }

    fn behind(&self) -> u64 {
        self.listener.as_ref().map_or(0, |listener| self.end() - listener.next)
    }

    fn keep(&mut self, said: Said) {
        self.kept_bytes += weight(&said);
        self.kept.push_back(said);
        self.trim();
    }

    /// Whether the listener is so far behind that nothing more is kept for it.
    fn is_full(&mut self) -> bool {
        self.trim();
        self.behind() >= BEHIND_MAX || self.kept_bytes > KEPT_BYTES
    }

    fn trim(&mut self) {
        // What the listener has not heard stays; it is bounded by what it may be behind.
        let needed = self.listener.as_ref().map_or(u64::MAX, |listener| listener.next);
        while (self.kept.len() > KEPT || self.kept_bytes > KEPT_BYTES) && self.first < needed {
            let Some(said) = self.kept.pop_front() else { return };
            self.kept_bytes -= weight(&said);
            self.first += 1;
        }
    }
}

fn weight((_, event): &Said) -> usize {
    match event {
        Event::Log { data, .. } => data.len(),
        Event::Vertex(_) | Event::Progress(_) | Event::Warning(_) => 0,
    }
}

/// How a client's listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It was told how the build ended.
    Everything,
    /// Another one listens in its place.
    Replaced,
}

impl Audience {
    /// Of a build that begins, or goes on after the coordinator was started again.
    pub fn new(build: BuildId, incarnation: u64, patience: Option<Duration>) -> Self {
        // Answers to questions of an earlier life are answers to none of this one.
        let last_ask = incarnation << ASKS_BITS;
        let state = Mutex::new(State { first: 1, last_ask, ..State::default() });
        Self { build, incarnation, patience, state, moved: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Says something that must be heard: waits when the client is there and slow.
    pub async fn say(&self, event: Event) {
        self.say_at(None, event).await;
    }

    /// The same with its place in a log.
    pub async fn say_at(&self, place: Option<LogPlace>, event: Event) {
        let mut said = Some((place, event));
        // Where the client stands, and since when.
        let mut stuck: (Option<Place>, Instant) = (None, Instant::now());
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let stands = {
                let mut state = self.state();
                if !state.is_full() {
                    state.keep(said.take().expect("not said yet"));
                    self.moved.notify_waiters();
                    return;
                }
                state.listener.as_ref().map(Listener::place)
            };
            let Some(patience) = self.patience else {
                moved.await;
                continue;
            };
            // That others say or ask something is no sign of life of the client's.
            if stands != stuck.0 {
                stuck = (stands, Instant::now());
            }
            if tokio::time::timeout_at(stuck.1 + patience, moved).await.is_err() {
                self.give_up(stands);
            }
        }
    }

    /// A client that still is where it was is taken for gone. It may come back.
    fn give_up(&self, stuck: Option<Place>) {
        let mut state = self.state();
        if state.listener.take_if(|listener| Some(listener.place()) == stuck).is_some() {
            tracing::info!(build = %self.build, "a client takes nothing, and is waited for no more");
            self.moved.notify_waiters();
        }
    }

    /// Says something that can be left out when the client is slow, or not there.
    pub fn hint(&self, event: Event) {
        let mut state = self.state();
        if state.listener.is_some() && state.behind() < BEHIND_MAX / 2 {
            state.keep((None, event));
            self.moved.notify_waiters();
        }
    }

    /// Asks for something that only the client has; answers the question's number.
    pub fn ask(&self, ask: Ask) -> u64 {
        let mut state = self.state();
        state.last_ask += 1;
        let number = state.last_ask;
        state.asks.insert(number, ask);
        self.moved.notify_waiters();
        number
    }

    /// The question needs no answer any more.
    pub fn answered(&self, number: u64) {
        self.state().asks.remove(&number);
    }

    /// Waits until a client that is there was asked so long ago. For ever where a client may be
    /// halted.
    pub async fn unanswered(&self, number: u64, within: Duration) {
        if self.patience.is_none() {
            return std::future::pending().await;
        }
        loop {
            self.until(|state| state.asked(number).is_some()).await;
            let Some(asked) = self.state().asked(number) else { continue };
            let gone = self.until(|state| state.asked(number) != Some(asked));
            if tokio::time::timeout(within, gone).await.is_err() {
                return;
            }
        }
    }

    /// The build has ended.
    pub fn end(&self, ending: Ending) {
        self.state().ending = Some(Box::new(ending));
        self.moved.notify_waiters();
    }

    /// Waits until the build has ended.
    pub async fn over(&self) {
        self.until(|state| state.ending.is_some()).await;
    }

    /// Tells a client all it has not heard, and what comes, until it has heard the end. `heard` is
    /// the incarnation and the number of the last event that it has heard. `standing` says how
    /// everything stands. Who listened before does not any more.
    pub async fn listen(
        &self,
        to: &mut Sender,
        heard: Option<(u64, u64)>,
        standing: impl Fn() -> Vec<Vertex>,
    ) -> Result<Heard, NetError> {
        to.send(&ToClient::Accepted(self.build.clone(), self.incarnation)).await?;
        let seen = heard.filter(|(life, _)| *life == self.incarnation).map(|(_, seen)| seen);
        let (id, missed) = {
            let mut state = self.state();
            let next = seen.unwrap_or(0).saturating_add(1);
            let missed = next < state.first || heard.is_some() && seen.is_none();
            let next = next.clamp(state.first, state.end());
            state.listeners += 1;
            let id = state.listeners;
            state.listener = Some(Listener { id, next, asked: BTreeSet::new() });
            self.moved.notify_waiters();
            (id, missed)
        };
        let _leave = Leave { audience: self, id };
        if missed {
            for vertex in standing() {
                to.send(&ToClient::Event(0, None, Event::Vertex(vertex))).await?;
            }
        }
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            match self.next(id) {
                Next::Send(message) => {
                    let last = matches!(message, ToClient::Finished(_));
                    to.send(&message).await?;
                    if last {
                        to.close().await?;
                        self.state().is_heard = true;
                        self.moved.notify_waiters();
                        return Ok(Heard::Everything);
                    }
                }
                Next::Wait => moved.await,
                Next::Replaced => return Ok(Heard::Replaced),
            }
        }
    }

    fn next(&self, id: u64) -> Next {
        let mut state = self.state();
        let state = &mut *state;
        let end = state.end();
        let Some(listener) = state.listener.as_mut().filter(|listener| listener.id == id) else {
            return Next::Replaced;
        };
        let asked = &mut listener.asked;
        if let Some((number, ask)) = state.asks.iter().find(|(number, _)| !asked.contains(number)) {
            asked.insert(*number);
            self.moved.notify_waiters();
            return Next::Send(ToClient::Ask(*number, ask.clone()));
        }
        if listener.next < end {
            let number = listener.next;
            listener.next += 1;
            let (place, event) = state.kept[(number - state.first) as usize].clone();
            self.moved.notify_waiters();
            return Next::Send(ToClient::Event(number, place, event));
        }
        match &state.ending {
            Some(ending) => Next::Send(ToClient::Finished(ending.clone())),
            None => Next::Wait,
        }
    }

    /// Waits until no client has been there for so long; for the first one a while at least. Whoever
    /// has heard the end is not waited for.
    pub async fn deserted(&self, grace: Duration) {
        loop {
            self.until(|state| state.listener.is_none() || state.is_heard).await;
            if self.state().is_heard {
                return;
            }
            let grace = match self.state().listeners {
                0 => grace.max(FIRST),
                _ => grace,
            };
            let back = self.until(|state| state.listener.is_some());
            if tokio::time::timeout(grace, back).await.is_err() {
                return;
            }
        }
    }

    async fn until(&self, is: impl Fn(&State) -> bool) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if is(&self.state()) {
                return;
            }
            moved.await;
        }
    }
}

/// A client that listens no more.
struct Leave<'a> {
    audience: &'a Audience,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.audience.state();
        state.listener.take_if(|listener| listener.id == self.id);
        self.audience.moved.notify_waiters();
    }
}

/// What a listener is to be told next.
enum Next {
    Send(ToClient),
    Wait,
    Replaced,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::build::VertexId;

    /// A build's audience that waits a second for its client, which is there and has read nothing.
    fn audience() -> Audience {
        let id = BuildId::parse("0123456789ab").unwrap();
        let audience = Audience::new(id, 1, Some(Duration::from_secs(1)));
        audience.state().listener = Some(Listener { id: 1, next: 1, asked: BTreeSet::new() });
        audience
    }

    async fn say(audience: &Audience, times: u64) {
        let (vertex, stream) = (VertexId(1), proto::wire::build::Stream::Stdout);
        for _ in 0..times {
            let at = proto::id::Millis(0);
            audience.say(Event::Log { vertex, stream, at, data: vec![b'x'] }).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_waited_for_no_more() {
        let audience = audience();
        say(&audience, BEHIND_MAX + 1).await;
        assert!(audience.state().listener.is_none());
        assert_eq!(audience.state().first, 1, "nothing is lost for when it comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn questions_do_not_make_one_wait_longer_for_a_client_that_takes_nothing() {
        let (audience, began) = (audience(), Instant::now());
        let asked = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                audience.ask(Ask::Secret("token".to_owned()));
            }
        };
        tokio::select! {
            () = say(&audience, BEHIND_MAX + 1) => {}
            () = asked => {}
        }
        assert!(audience.state().listener.is_none());
        assert!(began.elapsed() < Duration::from_millis(1100), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_waited_for() {
        let audience = audience();
        let read = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(900)).await;
                assert!(matches!(audience.next(1), Next::Send(_)));
            }
        };
        tokio::join!(say(&audience, BEHIND_MAX + 5), read);
        assert!(audience.state().listener.is_some());
    }
}
