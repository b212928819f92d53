//! Nodes, network and time. Everything happens in one thread, in an order that the seed decides.

mod clients;
mod counts;
mod end;
mod network;
mod trouble;

pub use counts::Counts;
pub use trouble::Faults;

use crate::chance::Chance;
use crate::disk::{Disk, SimStore};
use crate::oracle::{Oracle, Violation};
use crate::tape::Tape;
use clients::{Asked, Wish};
use coordinator::raft::{Config, Driver, Limits, NodeId, Output, Role, Shared, Token};
use network::Packet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Steps between two ticks of a node.
const TICK: u64 = 10;
/// Lines of the trace that are kept.
const TRACE: usize = 400;

/// A process.
struct Up {
    driver: Driver<SimStore, Tape>,
    tape: Shared<Tape>,
    /// How much of the tape was compared.
    compared: usize,
    restored: u64,
    next_tick: u64,
}

struct Node {
    id: NodeId,
    disk: Disk,
    up: Option<Up>,
    /// Does nothing before this step: down, or stopped by the system.
    idle_until: u64,
}

pub struct World {
    seed: u64,
    pub faults: Faults,
    chance: Chance,
    now: u64,
    nodes: Vec<Node>,
    wire: BTreeMap<(u64, u64), (NodeId, NodeId, Packet)>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    asked: BTreeMap<(NodeId, Token), Asked>,
    wishes: Vec<Wish>,
    last: u64,
    pub oracle: Oracle,
    pub counts: Counts,
    trace: Vec<String>,
}

pub fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("not 0")
}

/// What raft takes for impossible, as a violation.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Violation> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.map_err(|panic| {
        let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        Violation::Panicked { what }
    })
}

/// Small, so that it happens often.
const LIMITS: Limits =
    Limits { snapshot_entries: 24, snapshot_bytes: 1 << 20, keep_entries: 6, keep_entries_max: 60 };

impl World {
    /// A log of these voters.
    pub fn new(seed: u64, voters: u64, faults: Faults) -> Self {
        let voters: Vec<NodeId> = (1..=voters).map(node).collect();
        let mut world = Self {
            seed,
            faults,
            chance: Chance::new(seed),
            now: 0,
            nodes: Vec::new(),
            wire: BTreeMap::new(),
            cuts: BTreeSet::new(),
            asked: BTreeMap::new(),
            wishes: Vec::new(),
            last: 0,
            oracle: Oracle::default(),
            counts: Counts::default(),
            trace: Vec::new(),
        };
        for id in &voters {
            world.add(*id, Disk::new(&voters, faults.honesty));
        }
        world
    }

    fn add(&mut self, id: NodeId, disk: Disk) {
        self.nodes.push(Node { id, disk, up: None, idle_until: 0 });
    }

    /// A node that is to join.
    pub fn join(&mut self, id: u64) {
        self.add(node(id), Disk::new(&[], self.faults.honesty));
    }

    /// A node that is never started again.
    pub fn retire(&mut self, id: u64) {
        self.nodes.retain(|node| node.id.get() != id);
        self.asked.retain(|(node, _), _| node.get() != id);
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        if self.trace.len() >= TRACE {
            self.trace.drain(..TRACE / 2);
        }
        self.trace.push(format!("{:6} {text}", self.now));
    }

    /// What happened last.
    pub fn trace(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        self.trace.iter().for_each(|line| writeln!(text, "{line}").expect("memory"));
        text
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn at(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// One moment passes.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.now += 1;
        self.trouble();
        for at in 0..self.nodes.len() {
            if self.nodes[at].idle_until > self.now {
                continue;
            }
            if self.nodes[at].up.is_none() {
                self.start(at);
            }
            self.deliver(at)?;
            self.work(at)?;
        }
        Ok(())
    }

    /// As many moments as in that many ticks.
    pub fn run(&mut self, ticks: u64) -> Result<(), Violation> {
        (0..ticks * TICK).try_for_each(|_| self.step())
    }

    fn start(&mut self, at: usize) {
        let seed = self.chance.number();
        let node = &mut self.nodes[at];
        let tape = Shared::new(Tape::default());
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let config = Config { node: node.id, seed, limits: LIMITS, logger };
        let driver = Driver::new(config, node.disk.open(), tape.clone()).expect("a sound disk");
        let next_tick = self.now + seed % TICK;
        node.up = Some(Up { driver, tape, compared: 0, restored: 0, next_tick });
        let id = node.id;
        self.note(format_args!("{id} starts"));
    }

    /// Ticks and polls a node, and does what it asks for.
    fn work(&mut self, at: usize) -> Result<(), Violation> {
        let late = self.chance.below(3);
        let Some(up) = &mut self.nodes[at].up else { return Ok(()) };
        if up.next_tick <= self.now {
            // Missed ticks are skipped.
            up.next_tick = self.now + TICK + late;
            up.driver.tick();
        }
        let mut outputs = Vec::new();
        let polled = guarded(|| up.driver.poll(&mut |output| outputs.push(output)))?;
        self.compare(at)?;
        outputs.into_iter().try_for_each(|output| self.obey(at, output))?;
        self.counts.cut_off += self.nodes[at].disk.take_cut();
        if polled.is_err() {
            self.counts.failed_writes += 1;
            self.crash(at);
        }
        Ok(())
    }

    /// Shows the oracle what a node has applied.
    fn compare(&mut self, at: usize) -> Result<(), Violation> {
        let Node { id, up: Some(up), .. } = &mut self.nodes[at] else { return Ok(()) };
        let (oracle, counts) = (&mut self.oracle, &mut self.counts);
        up.tape.read(|tape| {
            if tape.restored != up.restored {
                up.restored = tape.restored;
                up.compared = 0;
                counts.restored += 1;
            }
            oracle.applied(*id, up.compared, &tape.facts[up.compared..])?;
            up.compared = tape.facts.len();
            Ok(())
        })
    }

    fn obey(&mut self, at: usize, output: Output) -> Result<(), Violation> {
        let id = self.nodes[at].id;
        match output {
            Output::Send { to, message } => self.post(id, to, Packet::Message(message)),
            Output::SendSnapshot { to, message } => self.post(id, to, Packet::Snapshot(message)),
            Output::Leadership(now) => {
                self.note(format_args!("{id} {now:?}"));
                if now.role == Role::Leader {
                    self.oracle.leads(id, now.term)?;
                }
            }
            Output::Applied(_) => {}
            Output::Proposed { token, result } => {
                if let Some(Asked::Entries(wish)) = self.asked.remove(&(id, token)) {
                    self.proposed(at, wish, result)?;
                }
            }
            Output::Readable { token, result } => {
                if let Some(Asked::Read { visible }) = self.asked.remove(&(id, token))
                    && result.is_ok()
                {
                    self.has_read(at, visible)?;
                }
            }
            Output::Changed { token, result } => {
                self.note(format_args!("{id} changed members: {result:?}"));
                self.asked.remove(&(id, token));
            }
        }
        Ok(())
    }

    fn running(&self, at: usize) -> bool {
        self.nodes[at].up.is_some() && self.nodes[at].idle_until <= self.now
    }

    fn leading(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|at| self.running(*at) && self.leads(*at))
    }

    fn leads(&self, at: usize) -> bool {
        let up = self.nodes[at].up.as_ref();
        up.is_some_and(|up| up.driver.leadership().role == Role::Leader)
    }

    /// The node that leads, if one does.
    pub fn leader(&self) -> Option<NodeId> {
        Some(self.nodes[self.leading()?].id)
    }

    /// The members that a node knows.
    pub fn members(&self, id: NodeId) -> Option<coordinator::raft::Membership> {
        Some(self.nodes[self.at(id)?].up.as_ref()?.driver.members())
    }
}
