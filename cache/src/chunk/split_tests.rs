//! Sources of all kinds, in a time that is played.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MIB: u32 = 1 << 20;

fn at(ms: u64) -> Millis {
    Millis(ms)
}

fn split(sources: usize, lens: &[u32]) -> Split {
    let mut split = Split::new(sources);
    lens.iter().zip(0..).for_each(|(len, index)| split.want(index, *len));
    split
}

fn asked(next: Next) -> Vec<u32> {
    match next {
        Next::Ask(asked) => asked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_first_is_asked_for_first_and_once() {
    let mut split = split(2, &[MIB / 2; 6]);
    assert_eq!(asked(split.next(at(0), 0)), [0, 1]);
    assert_eq!(asked(split.next(at(0), 0)), [2, 3]);
    assert_eq!(asked(split.next(at(0), 1)), [4, 5]);
    assert_eq!(split.next(at(0), 1), Next::Wait(Some(at(HEDGE_MS))));
}

#[test]
fn a_fast_source_is_asked_for_more_at_once() {
    let mut split = split(2, &[MIB; 30]);
    for (source, ms) in [(0, 100), (1, 2000)] {
        let first = asked(split.next(at(0), source));
        assert_eq!(first.len(), 1);
        assert!(split.arrived(source, first[0]));
        split.took(at(ms), source, at(0), MIB.into());
        split.ended(source, at(0), &first);
    }
    assert_eq!(
        asked(split.next(at(2000), 0)).len(),
        4,
        "10 MiB/s: as much as one request may have"
    );
    assert_eq!(asked(split.next(at(2000), 1)).len(), 1, "0.5 MiB/s: one chunk in any case");
}

#[test]
fn no_more_is_on_its_way_than_the_window_holds() {
    let mut split = split(1, &[MIB; 64]);
    let mut all = Vec::new();
    while let Next::Ask(some) = split.next(at(0), 0) {
        all.extend(some);
    }
    assert_eq!(all, (0..32).collect::<Vec<_>>());
    // What has come takes room until it is written, and the first one opens the window.
    assert!(split.arrived(0, 1) && split.arrived(0, 0));
    assert_eq!(split.next(at(0), 0), Next::Wait(None));
    split.written(0);
    assert_eq!(asked(split.next(at(0), 0)), [32]);
    split.written(1);
    assert_eq!(asked(split.next(at(0), 0)), [33]);
}

#[test]
fn what_a_source_does_not_give_is_asked_of_another() {
    let mut split = split(2, &[MIB; 2]);
    let first = asked(split.next(at(0), 0));
    let second = asked(split.next(at(0), 0));
    assert_eq!((&first[..], &second[..]), (&[0][..], &[1][..]));
    split.failed(at(5), 0, Fault::Lasting);
    split.ended(0, at(0), &first);
    assert_eq!(split.next(at(5), 0), Next::Never);
    assert_eq!(asked(split.next(at(5), 1)), [0]);
}

#[test]
fn what_takes_long_is_asked_of_another_too() {
    let mut split = split(3, &[MIB; 1]);
    assert_eq!(asked(split.next(at(0), 0)), [0]);
    assert_eq!(split.next(at(HEDGE_MS - 1), 1), Next::Wait(Some(at(HEDGE_MS))));
    assert_eq!(split.next(at(HEDGE_MS), 0), Next::Wait(None), "not of the same one");
    assert_eq!(asked(split.next(at(HEDGE_MS), 1)), [0]);
    assert_eq!(split.next(at(2 * HEDGE_MS), 2), Next::Wait(None), "two are enough");
    assert!(split.arrived(1, 0));
    assert!(!split.arrived(0, 0), "the slower one is too late");
    split.ended(0, at(0), &[0]);
    assert_eq!(split.next(at(9000), 2), Next::Wait(None));
}

#[test]
fn a_source_that_fails_rests_and_is_given_up_at_last() {
    let mut split = split(1, &[MIB; 1]);
    let mut now = 0;
    for round in 0..TRIES_MAX {
        assert_eq!(asked(split.next(at(now), 0)), [0]);
        split.failed(at(now), 0, Fault::Passing);
        split.failed(at(now), 0, Fault::Passing);
        split.ended(0, at(now), &[0]);
        let rest = REST_MS << (2 * round);
        if round + 1 < TRIES_MAX {
            assert_eq!(split.next(at(now), 0), Next::Wait(Some(at(now + rest))));
        }
        now += rest;
    }
    assert_eq!(split.next(at(now), 0), Next::Never);
}

#[test]
fn whoever_gives_something_is_not_given_up() {
    let mut split = split(1, &[MIB; 20]);
    let mut now = 0;
    for index in 0..20 {
        let some = asked(split.next(at(now), 0));
        assert_eq!(some[0], index);
        assert!(split.arrived(0, index));
        split.failed(at(now), 0, Fault::Passing);
        split.ended(0, at(now), &some);
        split.written(index);
        now += REST_MS;
    }
    assert_eq!(split.next(at(now), 0), Next::Wait(None));
}

#[test]
fn something_that_was_here_can_be_wanted_later() {
    let mut split = split(1, &[]);
    assert_eq!(split.next(at(0), 0), Next::Wait(None));
    split.want(7, MIB);
    split.want(7, MIB);
    assert_eq!(asked(split.next(at(0), 0)), [7]);
    split.want(7, MIB);
    assert_eq!(split.next(at(0), 0), Next::Wait(None));
}

/// How a source behaves.
#[derive(Debug, Clone)]
struct Behaviour {
    /// Bytes per millisecond, of both lanes together.
    speed: u64,
    /// After how many chunks it fails, and how.
    fails_after: Option<(usize, Fault)>,
    /// After how many chunks it gives nothing more, and says nothing, until it is given up.
    hangs_after: Option<usize>,
}

/// How long whoever runs the lanes waits for a source that says nothing.
const STALL: u64 = 10_000;

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let fault = prop_oneof![Just(Fault::Passing), Just(Fault::Lasting)];
    let fails = prop::option::of((0usize..40, fault));
    let hangs = prop::option::weighted(0.2, 0usize..40);
    (50u64..20_000, fails, hangs).prop_map(|(speed, fails_after, hangs_after)| Behaviour {
        speed,
        fails_after,
        hangs_after,
    })
}

/// A request that runs.
struct Request {
    source: SourceId,
    began: u64,
    asked: Vec<u32>,
    given: usize,
    /// When the next chunk comes, or the request is given up.
    due: u64,
}

/// What was seen when it was over.
#[derive(Debug, Default)]
struct Seen {
    /// For each source, the bytes that it gave.
    given: Vec<u64>,
    /// Bytes that came twice.
    twice: u64,
    held_max: u64,
    finished: bool,
}

struct Sim {
    split: Split,
    lens: Vec<u32>,
    sources: Vec<Behaviour>,
    chunks_given: Vec<usize>,
    now: u64,
    running: Vec<Request>,
    /// What came and waits.
    waiting: BTreeSet<u32>,
    next: u32,
    seen: Seen,
}

impl Sim {
    fn new(lens: &[u32], sources: &[Behaviour]) -> Self {
        Self {
            split: split(sources.len(), lens),
            lens: lens.to_vec(),
            sources: sources.to_vec(),
            chunks_given: vec![0; sources.len()],
            now: 0,
            running: Vec::new(),
            waiting: BTreeSet::new(),
            next: 0,
            seen: Seen { given: vec![0; sources.len()], ..Seen::default() },
        }
    }

    /// Runs until all is written, or nobody is left.
    fn run(mut self) -> Seen {
        for _ in 0..100_000 {
            let wake = self.start();
            let due = self.running.iter().map(|request| request.due).min();
            let Some(time) = wake.into_iter().chain(due).min() else {
                self.seen.finished = self.next as usize == self.lens.len();
                let now = Millis(self.now);
                let gone = (0..self.sources.len()).all(|s| self.split.next(now, s) == Next::Never);
                assert!(self.seen.finished || gone, "somebody is left, and nobody is asked");
                return self.seen;
            };
            self.now = self.now.max(time);
            self.step();
        }
        panic!("it does not end");
    }

    /// Gives all idle lanes something to do. Answers when the first of them wants to be woken.
    fn start(&mut self) -> Option<u64> {
        let mut wake = None;
        for source in 0..self.sources.len() {
            while self.running.iter().filter(|r| r.source == source).count() < LANES {
                match self.split.next(Millis(self.now), source) {
                    Next::Ask(asked) => self.ask(source, asked),
                    Next::Wait(until) => {
                        wake = wake.into_iter().chain(until.map(|until| until.0)).min();
                        break;
                    }
                    Next::Never => break,
                }
            }
        }
        wake
    }

    fn ask(&mut self, source: SourceId, asked: Vec<u32>) {
        assert!(!asked.is_empty() && asked.len() <= CHUNKS_ASKED_MAX);
        for index in &asked {
            let also = |request: &&Request| request.asked[request.given..].contains(index);
            let others: Vec<_> = self.running.iter().filter(also).map(|r| r.source).collect();
            assert!(others.len() < 2 && !others.contains(&source), "{index}: {others:?}");
            assert!(*index >= self.next && !self.waiting.contains(index), "{index} has come");
        }
        let mut request = Request { source, began: self.now, asked, given: 0, due: 0 };
        request.due = self.due(&request);
        self.running.push(request);
        let held = self.running.iter().flat_map(|r| r.asked[r.given..].iter());
        let held: BTreeSet<u32> = held.chain(&self.waiting).copied().collect();
        let held =
            held.iter().filter(|i| **i >= self.next).map(|i| u64::from(self.lens[*i as usize]));
        self.seen.held_max = self.seen.held_max.max(held.sum());
    }

    fn hangs(&self, source: SourceId) -> bool {
        self.sources[source].hangs_after.is_some_and(|after| self.chunks_given[source] >= after)
    }

    fn due(&self, request: &Request) -> u64 {
        if self.hangs(request.source) {
            return self.now + STALL;
        }
        let len = u64::from(self.lens[request.asked[request.given] as usize]);
        self.now + len * LANES as u64 / self.sources[request.source].speed + 1
    }

    /// What happens at this time.
    fn step(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|request| request.due <= now);
        self.running = later;
        for request in due {
            self.answer(request);
        }
        while self.waiting.remove(&self.next) {
            self.split.written(self.next);
            self.next += 1;
        }
    }

    /// One chunk of a request comes, or the request ends.
    fn answer(&mut self, mut request: Request) {
        let source = request.source;
        let fails = self.sources[source].fails_after;
        let fault = match fails.filter(|(after, _)| self.chunks_given[source] >= *after) {
            Some((_, fault)) => Some(fault),
            None => self.hangs(source).then_some(Fault::Passing),
        };
        if fault.is_none() {
            let index = request.asked[request.given];
            let len = u64::from(self.lens[index as usize]);
            request.given += 1;
            self.chunks_given[source] += 1;
            self.seen.given[source] += len;
            if self.split.arrived(source, index) {
                assert!(self.waiting.insert(index), "it is kept once");
            } else {
                self.seen.twice += len;
            }
            if request.given < request.asked.len() {
                request.due = self.due(&request);
                self.running.push(request);
                return;
            }
        }
        let (now, began) = (Millis(self.now), Millis(request.began));
        match fault {
            Some(fault) => self.split.failed(now, source, fault),
            None => {
                let lens = request.asked.iter().map(|i| u64::from(self.lens[*i as usize]));
                self.split.took(now, source, began, lens.sum());
            }
        }
        self.split.ended(source, began, &request.asked);
    }
}

fn good(speed: u64) -> Behaviour {
    Behaviour { speed, fails_after: None, hangs_after: None }
}

#[test]
fn sources_give_as_much_as_they_are_fast() {
    let seen = Sim::new(&[MIB / 2; 800], &[good(10_000), good(40_000)]).run();
    assert!(seen.finished && seen.twice == 0, "{seen:?}");
    let share = seen.given[1] * 100 / (seen.given[0] + seen.given[1]);
    assert!((75..=85).contains(&share), "{seen:?}");
}

#[test]
fn a_slow_source_does_not_hold_up_the_rest() {
    let slow = good(20);
    let seen = Sim::new(&[MIB / 2; 400], &[slow, good(50_000)]).run();
    assert!(seen.finished);
    assert!(seen.given[0] < 4 * u64::from(MIB), "{seen:?}");
}

proptest! {
    #[test]
    fn all_of_it_comes_if_one_source_lasts(
        lens in prop::collection::vec(MIB / 8..=2 * MIB, 0..150),
        mut sources in prop::collection::vec(behaviour(), 0..4),
        lasting in 0usize..4,
        speed in 50u64..20_000,
    ) {
        sources.insert(lasting.min(sources.len()), good(speed));
        let seen = Sim::new(&lens, &sources).run();
        prop_assert!(seen.finished);
        prop_assert!(seen.held_max <= WINDOW_BYTES, "{:?}", seen);
        let size: u64 = lens.iter().map(|len| u64::from(*len)).sum();
        prop_assert_eq!(seen.given.iter().sum::<u64>(), size + seen.twice);
    }

    #[test]
    fn it_ends_if_none_lasts(
        lens in prop::collection::vec(MIB / 8..=2 * MIB, 0..60),
        sources in prop::collection::vec(behaviour(), 0..4),
    ) {
        let seen = Sim::new(&lens, &sources).run();
        prop_assert!(seen.held_max <= WINDOW_BYTES);
    }
}
