//! How cache nodes come, catch up, leave and go.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn id(name: &str) -> CacheId {
    CacheId::parse(name).unwrap()
}

fn hello(name: &str, synced: u64) -> CacheHello {
    let address = format!("{name}:7472");
    let (started, held_bytes, budget_bytes) = (Millis(1), 0, 0);
    CacheHello { id: id(name), address, started, synced, held_bytes, budget_bytes }
}

fn states(members: &Members) -> Vec<CacheState> {
    members.map().nodes.iter().map(|node| node.state).collect()
}

#[test]
fn the_first_node_serves_and_the_next_ones_sync_first() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    assert_eq!(states(&members), [CacheState::Serving, CacheState::Syncing]);
    let early = members.map().epoch - 1;
    members.hello(&hello("b", early));
    assert_eq!(states(&members)[1], CacheState::Syncing, "it has not seen the map yet");
    members.hello(&hello("b", early + 1));
    assert_eq!(states(&members), [CacheState::Serving, CacheState::Serving]);
}

#[test]
fn a_node_that_was_away_syncs_and_a_short_break_is_none() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.hello(&hello("b", u64::MAX));
    let epoch = members.map().epoch;
    members.gone(Millis(100), &id("b"));
    assert_eq!(members.expire(Millis(105), 10), Some(Millis(110)));
    members.hello(&hello("b", epoch));
    assert_eq!(members.expire(Millis(200), 10), None);
    assert_eq!(members.map().epoch, epoch);
    // One that begins anew does not know what it missed.
    members.hello(&hello("b", 0));
    assert_eq!(states(&members)[1], CacheState::Syncing);
    members.hello(&hello("b", u64::MAX));
    members.gone(Millis(300), &id("b"));
    members.expire(Millis(310), 10);
    assert_eq!(states(&members)[1], CacheState::Down);
    members.hello(&hello("b", 0));
    assert_eq!(states(&members)[1], CacheState::Syncing);
}

#[test]
fn of_two_that_went_the_one_that_served_last_serves_first() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.hello(&hello("b", u64::MAX));
    for (at, name) in [(0, "b"), (100, "a")] {
        members.gone(Millis(at), &id(name));
        members.expire(Millis(at + 10), 10);
    }
    members.hello(&hello("b", u64::MAX));
    assert_eq!(states(&members), [CacheState::Down, CacheState::Syncing], "`a` has more");
    members.hello(&hello("a", 0));
    members.hello(&hello("b", u64::MAX));
    assert_eq!(states(&members), [CacheState::Serving, CacheState::Serving]);
    // When `a` never comes back, a person says so, and what `b` has is all there is.
    for (at, name) in [(200, "b"), (300, "a")] {
        members.gone(Millis(at), &id(name));
        members.expire(Millis(at + 10), 10);
    }
    members.remove(&id("a")).unwrap();
    members.hello(&hello("b", 0));
    assert_eq!(states(&members), [CacheState::Serving]);
}

#[test]
fn the_only_one_that_serves_is_never_called_stale() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.hello(&hello("b", u64::MAX));
    members.gone(Millis(0), &id("b"));
    members.expire(Millis(10), 10);
    assert!(!members.stale(&id("a")));
    assert_eq!(states(&members)[0], CacheState::Serving, "somebody has to serve");
}

#[test]
fn the_last_one_that_has_everything_is_not_removed() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    assert_eq!(members.remove(&id("a")), Err(RemoveError::Last(id("a"))));
    assert_eq!(members.leave(&id("a")), Err(RemoveError::Last(id("a"))));
    assert_eq!(members.remove(&id("x")), Err(RemoveError::Unknown(id("x"))));
    members.hello(&hello("b", 0));
    members.hello(&hello("b", u64::MAX));
    members.leave(&id("a")).unwrap();
    assert_eq!(states(&members), [CacheState::Leaving, CacheState::Serving]);
    members.remove(&id("a")).unwrap();
    assert_eq!(members.map().nodes.len(), 1);
}

#[test]
fn what_a_node_misses_while_it_catches_up_has_it_catch_up_once_more() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    let first = members.map().epoch;
    assert!(!members.stale(&id("b")));
    assert!(!members.stale(&id("b")));
    assert_eq!(members.map().epoch, first, "it is told when it has come so far");
    members.hello(&hello("b", first));
    assert_eq!(states(&members)[1], CacheState::Syncing);
    members.hello(&hello("b", first));
    assert_eq!(states(&members)[1], CacheState::Syncing, "as of then it had not got it");
    members.hello(&hello("b", first + 1));
    assert_eq!(states(&members)[1], CacheState::Serving);
    assert!(members.stale(&id("b")));
    assert_eq!(states(&members)[1], CacheState::Syncing);
}

#[test]
fn a_node_has_left_when_all_others_have_what_they_own_without_it() {
    let mut members = Members::new(2);
    for name in ["a", "b", "c"] {
        members.hello(&hello(name, 0));
        members.hello(&hello(name, u64::MAX));
    }
    let before = members.map().epoch;
    for name in ["a", "b", "c"] {
        members.hello(&hello(name, before));
    }
    assert_eq!(members.leaving(&id("a")), Err(RemoveError::Stays(id("a"))));
    members.leave(&id("a")).unwrap();
    let since = members.map().epoch;
    assert_eq!(members.leaving(&id("a")), Ok(Leaving::Waits(vec![id("b"), id("c")])));
    members.hello(&hello("b", since));
    assert_eq!(members.leaving(&id("a")), Ok(Leaving::Waits(vec![id("c")])));
    members.gone(Millis(0), &id("c"));
    members.expire(Millis(10), 10);
    assert_eq!(members.leaving(&id("a")), Ok(Leaving::Stuck(vec![id("c")])));
    members.hello(&hello("c", 0));
    members.gone(Millis(20), &id("a"));
    assert_eq!(members.expire(Millis(30), 10), None, "it is not given up");
    assert_eq!(members.leaving(&id("a")), Ok(Leaving::Stuck(vec![id("a")])));
    members.hello(&hello("a", since));
    let now = members.map().epoch;
    members.hello(&hello("c", now));
    assert_eq!(members.leaving(&id("a")), Ok(Leaving::Done));
    members.stay(&id("a")).unwrap();
    assert_eq!(states(&members)[0], CacheState::Syncing);
    assert_eq!(members.stay(&id("a")), Err(RemoveError::Stays(id("a"))));
}

#[test]
fn a_node_that_was_removed_stays_out_until_it_begins_anew() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.remove(&id("b")).unwrap();
    members.hello(&hello("b", 0));
    members.hello(&hello("b", 5));
    assert_eq!(states(&members), [CacheState::Serving]);
    members.hello(&CacheHello { started: Millis(2), ..hello("b", 0) });
    assert_eq!(states(&members), [CacheState::Serving, CacheState::Syncing]);
}

#[test]
fn those_that_catch_up_from_a_node_that_is_removed_have_all_there_is() {
    let mut members = Members::new(1);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.hello(&hello("c", 0));
    members.gone(Millis(0), &id("a"));
    members.expire(Millis(10), 10);
    assert_eq!(states(&members)[1..], [CacheState::Syncing; 2]);
    members.remove(&id("a")).unwrap();
    assert_eq!(states(&members), [CacheState::Serving, CacheState::Syncing]);
}

#[test]
fn what_is_kept_is_what_was_and_time_to_come_back() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.hello(&hello("b", u64::MAX));
    members.leave(&id("a")).unwrap();
    members.remove(&id("a")).unwrap();
    let kept = members.snapshot();
    let mut back = Members::restore(&kept, 2, Millis(100)).unwrap();
    assert_eq!(back.map(), members.map());
    back.hello(&hello("a", 7));
    assert_eq!(back.map(), members.map(), "it was removed");
    assert_eq!(back.expire(Millis(105), 10), Some(Millis(110)));
    back.expire(Millis(110), 10);
    assert_eq!(states(&back), [CacheState::Down]);
    let other = Members::restore(&kept, 3, Millis(100)).unwrap().map();
    assert_eq!((other.replicas, other.epoch), (3, members.map().epoch + 1));
    assert!(Members::restore(b"nothing", 2, Millis(0)).is_err());
}

#[test]
fn of_those_that_went_together_each_has_everything() {
    let mut members = Members::new(2);
    members.hello(&hello("a", 0));
    members.hello(&hello("b", 0));
    members.hello(&hello("b", u64::MAX));
    members.gone(Millis(0), &id("a"));
    members.gone(Millis(1), &id("b"));
    members.expire(Millis(100), 10);
    assert_eq!(states(&members), [CacheState::Down; 2]);
    members.hello(&hello("b", 0));
    assert_eq!(states(&members), [CacheState::Down, CacheState::Serving]);
    members.hello(&hello("a", 0));
    assert_eq!(states(&members), [CacheState::Syncing, CacheState::Serving]);
}

/// A farm whose nodes come, go and miss writes as chance has it.
struct World {
    members: Members,
    now: u64,
    writes: u32,
    /// Writes that counted.
    taken: BTreeSet<u32>,
    nodes: Vec<SimNode>,
}

#[derive(Default)]
struct SimNode {
    up: bool,
    /// What it has on its disk.
    has: BTreeSet<u32>,
    /// The map up to which it says that it has everything.
    synced: u64,
    /// A look at the others that is under way: since which map, and what it has seen.
    looking: Option<(u64, BTreeSet<u32>)>,
}

#[derive(Debug, Clone)]
enum Happens {
    /// A process begins, or begins anew.
    Starts(usize),
    /// A connection breaks, and comes back later.
    Breaks(usize),
    Returns(usize),
    /// Whoever is gone for long is given up.
    TimePasses,
    /// Something is written; those in the mask do not hear of it.
    Write(u8),
    LooksAtOthers(usize),
    HasLooked(usize),
    Leaves(usize),
    Stays(usize),
    CoordinatorRestarts,
}

const NODES: usize = 4;

fn happens() -> impl Strategy<Value = Happens> {
    let node = 0..NODES;
    prop_oneof![
        2 => node.clone().prop_map(Happens::Starts),
        2 => node.clone().prop_map(Happens::Breaks),
        2 => node.clone().prop_map(Happens::Returns),
        1 => Just(Happens::TimePasses),
        4 => any::<u8>().prop_map(Happens::Write),
        2 => any::<()>().prop_map(|()| Happens::Write(0)),
        4 => node.clone().prop_map(Happens::LooksAtOthers),
        4 => node.clone().prop_map(Happens::HasLooked),
        1 => node.clone().prop_map(Happens::Leaves),
        1 => node.prop_map(Happens::Stays),
        1 => Just(Happens::CoordinatorRestarts),
    ]
}

impl World {
    fn new() -> Self {
        let nodes = (0..NODES).map(|_| SimNode::default()).collect();
        let (members, taken) = (Members::new(2), BTreeSet::new());
        Self { members, now: 0, writes: 0, taken, nodes }
    }

    fn id(at: usize) -> CacheId {
        id(&format!("n{at}"))
    }

    fn state(&self, at: usize) -> Option<CacheState> {
        let map = self.members.map();
        map.nodes.iter().find(|node| node.id == Self::id(at)).map(|node| node.state)
    }

    fn says(&mut self, at: usize) {
        self.nodes[at].up = true;
        self.members.hello(&hello(&format!("n{at}"), self.nodes[at].synced));
    }

    fn apply(&mut self, happens: &Happens) {
        match *happens {
            Happens::Starts(at) => {
                (self.nodes[at].synced, self.nodes[at].looking) = (0, None);
                self.says(at);
            }
            Happens::Breaks(at) => {
                self.nodes[at].up = false;
                self.members.gone(Millis(self.now), &Self::id(at));
            }
            Happens::Returns(at) if self.state(at).is_some() => self.says(at),
            Happens::TimePasses => {
                self.now += 100;
                self.members.expire(Millis(self.now), 10);
            }
            Happens::Write(deaf) => self.write(deaf),
            Happens::LooksAtOthers(at) if self.state(at) == Some(CacheState::Syncing) => {
                let serving: Vec<usize> =
                    (0..NODES).filter(|n| self.state(*n) == Some(CacheState::Serving)).collect();
                if !serving.is_empty() && serving.iter().all(|n| self.nodes[*n].up) {
                    let seen = serving.iter().flat_map(|n| self.nodes[*n].has.clone()).collect();
                    self.nodes[at].looking = Some((self.members.map().epoch, seen));
                }
            }
            Happens::HasLooked(at) => {
                if let Some((epoch, seen)) = self.nodes[at].looking.take() {
                    self.nodes[at].has.extend(seen);
                    self.nodes[at].synced = epoch;
                    if self.nodes[at].up {
                        self.says(at);
                    }
                }
            }
            Happens::Leaves(at) => drop(self.members.leave(&Self::id(at))),
            Happens::Stays(at) => drop(self.members.stay(&Self::id(at))),
            Happens::CoordinatorRestarts => {
                let kept = self.members.snapshot();
                self.members = Members::restore(&kept, 2, Millis(self.now)).unwrap();
            }
            _ => {}
        }
    }

    fn write(&mut self, deaf: u8) {
        self.writes += 1;
        let (mut counts, mut missed) = (false, Vec::new());
        for at in 0..NODES {
            let Some(state) = self.state(at).filter(|state| state.writes()) else { continue };
            if self.nodes[at].up && deaf & (1 << at) == 0 {
                self.nodes[at].has.insert(self.writes);
                counts |= state == CacheState::Serving;
            } else {
                missed.push(at);
            }
        }
        if counts {
            self.taken.insert(self.writes);
            for at in missed {
                self.members.stale(&Self::id(at));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens, a node that serves has all that ever counted.
    #[test]
    fn who_serves_has_everything(all in proptest::collection::vec(happens(), 1..120)) {
        let mut world = World::new();
        for happens in &all {
            world.apply(happens);
            for at in (0..NODES).filter(|at| world.state(*at) == Some(CacheState::Serving)) {
                let has = &world.nodes[at].has;
                let lacks: Vec<u32> = world.taken.difference(has).copied().collect();
                prop_assert!(lacks.is_empty(), "n{} lacks {:?} after {:?}", at, lacks, happens);
            }
        }
    }
}
