//! Who is asked for which chunk: a state machine without IO.
//!
//! Several *sources* have the blob, and each is asked by several *lanes*, one request at a time in
//! each. Whoever runs them calls, in this order:
//!
//! 1. [`Split::next`] when a lane has nothing to do: what to ask for, or how long to wait;
//! 2. [`Split::arrived`] for each chunk that came and is what its name says;
//! 3. [`Split::took`] when all of a request came, [`Split::failed`] when it failed, and after
//!    either [`Split::ended`];
//! 4. [`Split::written`] when a chunk was taken up, in the order of the blob.
//!
//! How much of the blob a source gives follows from how fast it is: who is done is asked again. A
//! request is as large as the source's speed lets it be answered in [`REQUEST_MS`], so that nobody
//! sits long on what others could give. What was asked for [`HEDGE_MS`] ago is asked of another
//! source too, once there is nothing else to ask for. What a source was asked for and did not give
//! is free again when its request has ended.
//!
//! Chunks that came and can't be taken up yet, and those on their way, lie within [`WINDOW_BYTES`]
//! of the first one that is missing: so much memory they take, and no more.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use proto::id::Millis;
use proto::limit::{CHUNK_BYTES_MIN, CHUNKS_ASKED_MAX};
use std::collections::BTreeMap;

/// Bytes of chunks that are on their way or wait for one before them.
pub const WINDOW_BYTES: u64 = 32 << 20;

/// The most chunks that can be within the window.
pub const WINDOW_CHUNKS: usize = WINDOW_BYTES as usize / CHUNK_BYTES_MIN + 1;

/// Requests that run at once for each source: while one is answered the next is on its way.
pub const LANES: usize = 2;

/// Bytes of one request, at most.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// Bytes of the first request to a source, whose speed is not known yet.
const REQUEST_BYTES_FIRST: u64 = 1 << 20;

/// How long a request should take.
const REQUEST_MS: u64 = 500;

/// After how long something that was asked for is asked of another source too.
pub const HEDGE_MS: u64 = 2_000;

/// How often a source may fail without having given anything in between.
pub const TRIES_MAX: u32 = 4;

/// How long a source that failed is left alone; four times as long after each further time.
pub const REST_MS: u64 = 250;

/// A source, by its place in the list of them.
pub type SourceId = usize;

/// What a lane does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Asks its source for these chunks.
    Ask(Vec<u32>),
    /// Waits for a change; if a time is given, no longer than until then.
    Wait(Option<Millis>),
    /// Ends: its source is not asked any more.
    Never,
}

/// How a source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Perhaps it will answer later.
    Passing,
    /// It is not asked again.
    Lasting,
}

/// Who gives what.
#[derive(Debug)]
pub struct Split {
    /// What is still to come or to be written, by its place in the blob.
    parts: BTreeMap<u32, Part>,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Part {
    len: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// By whom, and since when. At most two.
    Asked(Vec<(SourceId, Millis)>),
    Arrived,
}

#[derive(Debug)]
struct Source {
    health: Health,
    /// Whether it ever gave something.
    given: bool,
    /// How often it failed since.
    failures: u32,
    /// Bytes per second of one lane. None before the first answer.
    speed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    RestsUntil(Millis),
    Gone,
}

impl Source {
    /// Bytes of a request to it.
    fn request_bytes(&self) -> u64 {
        match self.speed {
            None => REQUEST_BYTES_FIRST,
            Some(speed) => (speed.saturating_mul(REQUEST_MS) / 1000).min(REQUEST_BYTES_MAX),
        }
    }
}

impl Split {
    /// Of so many sources, all of them good, nothing is wanted yet.
    pub fn new(sources: usize) -> Self {
        let source = |_| Source { health: Health::Good, given: false, failures: 0, speed: None };
        Self { parts: BTreeMap::new(), sources: (0..sources).map(source).collect() }
    }

    /// The chunk at this place in the blob, of so many bytes, is to be fetched. No change if it is
    /// already.
    pub fn want(&mut self, index: u32, len: u32) {
        self.parts.entry(index).or_insert(Part { len, state: State::Free });
    }

    /// What a lane of `source` does now.
    pub fn next(&mut self, now: Millis, source: SourceId) -> Next {
        match self.sources[source].health {
            Health::Gone => return Next::Never,
            Health::RestsUntil(until) if now < until => return Next::Wait(Some(until)),
            Health::RestsUntil(_) | Health::Good => {}
        }
        let room = self.sources[source].request_bytes();
        let free = self.pick(room, |state| matches!(state, State::Free));
        let asked = if free.is_empty() {
            self.pick(room, |state| due(state, source).is_some_and(|due| due <= now))
        } else {
            free
        };
        if asked.is_empty() {
            let due = self.window().filter_map(|(_, part)| due(&part.state, source)).min();
            return Next::Wait(due);
        }
        for index in &asked {
            let part = self.parts.get_mut(index).expect("it was picked from the parts");
            match &mut part.state {
                State::Asked(by) => by.push((source, now)),
                state => *state = State::Asked(vec![(source, now)]),
            }
        }
        Next::Ask(asked)
    }

    /// The parts that may be on their way or wait: the first one in any case.
    fn window(&self) -> impl Iterator<Item = (&u32, &Part)> {
        let mut bytes = 0;
        self.parts.iter().take_while(move |(_, part)| {
            let first = bytes == 0;
            bytes += u64::from(part.len);
            first || bytes <= WINDOW_BYTES
        })
    }

    /// The first parts that are `fit`, as many as one request may have.
    fn pick(&self, room: u64, fit: impl Fn(&State) -> bool) -> Vec<u32> {
        let mut picked = Vec::new();
        let mut bytes = 0;
        for (index, part) in self.window().filter(|(_, part)| fit(&part.state)) {
            bytes += u64::from(part.len);
            if !picked.is_empty() && (bytes > room || picked.len() == CHUNKS_ASKED_MAX) {
                break;
            }
            picked.push(*index);
        }
        picked
    }

    /// A chunk came from `source`. Answers whether it is the first time that it came, and so is to
    /// be kept.
    pub fn arrived(&mut self, source: SourceId, index: u32) -> bool {
        self.sources[source].failures = 0;
        self.sources[source].given = true;
        match self.parts.get_mut(&index) {
            Some(part) if !matches!(part.state, State::Arrived) => {
                part.state = State::Arrived;
                true
            }
            _ => false,
        }
    }

    /// A request of these chunks to `source`, begun at `began`, is over. What did not come is free
    /// again, unless another source was asked for it too.
    pub fn ended(&mut self, source: SourceId, began: Millis, asked: &[u32]) {
        for index in asked {
            let Some(Part { state, .. }) = self.parts.get_mut(index) else { continue };
            if let State::Asked(by) = state {
                by.retain(|asker| *asker != (source, began));
                if by.is_empty() {
                    *state = State::Free;
                }
            }
        }
    }

    /// Notes that `source` took from `began` to `now` for so many bytes.
    pub fn took(&mut self, now: Millis, source: SourceId, began: Millis, bytes: u64) {
        let speed = bytes.saturating_mul(1000) / now.since(began).max(1);
        let known = &mut self.sources[source].speed;
        // The last requests count most.
        *known = Some(known.map_or(speed, |old| (old + speed) / 2));
    }

    /// `source` failed. Its lanes may all say so: what happens while it rests already counts once.
    pub fn failed(&mut self, now: Millis, source: SourceId, fault: Fault) {
        let source = &mut self.sources[source];
        match (fault, source.health) {
            (_, Health::Gone) => {}
            (Fault::Lasting, _) => source.health = Health::Gone,
            (Fault::Passing, Health::RestsUntil(until)) if now < until => {}
            (Fault::Passing, _) => {
                source.failures += 1;
                source.health = if source.failures < TRIES_MAX {
                    let rest = REST_MS << (2 * (source.failures - 1));
                    Health::RestsUntil(Millis(now.0 + rest))
                } else {
                    Health::Gone
                };
            }
        }
    }

    /// Whether the source ever gave something.
    pub fn has_given(&self, source: SourceId) -> bool {
        self.sources[source].given
    }

    /// A chunk that came was taken up.
    pub fn written(&mut self, index: u32) {
        self.parts.remove(&index);
    }
}

/// From when on something that was asked for may be asked of `source` too.
fn due(state: &State, source: SourceId) -> Option<Millis> {
    match state {
        State::Asked(by) => match by[..] {
            [(other, since)] if other != source => Some(Millis(since.0 + HEDGE_MS)),
            _ => None,
        },
        State::Free | State::Arrived => None,
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
