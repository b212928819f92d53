//! A disk that forgets what was not synced, and fails when it is told to.

use coordinator::raft::driver::store::beginning;
use coordinator::raft::{Durability, NodeId, Store, StoreError, Write};
use raft::eraftpb::{Entry, HardState, Snapshot, SnapshotMetadata};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk does that disks must not do: for canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// What is said to be synced is.
    Honest,
    /// What is said to be synced is synced with the next write.
    Late,
    /// Votes are lost by crashes.
    ForgetsVotes,
}

/// What can be read.
#[derive(Debug, Clone, Default)]
struct State {
    boot: u64,
    hard: HardState,
    snapshot: Snapshot,
    /// Index and term of what stands before the first entry.
    before: (u64, u64),
    entries: VecDeque<Entry>,
}

/// What was written.
#[derive(Debug, Clone)]
enum Op {
    Write { snapshot: Option<Snapshot>, entries: Vec<Entry>, hard: HardState },
    Compact { snapshot: Snapshot, first: u64, hard: HardState },
}

impl State {
    fn first(&self) -> u64 {
        self.before.0 + 1
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.before.0)? {
            0 => Some(self.before.1),
            n => Some(self.entries.get(n as usize - 1)?.term),
        }
    }

    /// How many entries were cut off at the end.
    fn apply(&mut self, op: &Op) -> usize {
        match op {
            Op::Write { snapshot, entries, hard } => {
                if let Some(snapshot) = snapshot {
                    let metadata = snapshot.get_metadata();
                    self.before = (metadata.index, metadata.term);
                    self.entries.clear();
                    self.snapshot = snapshot.clone();
                }
                self.hard = hard.clone();
                let Some(first) = entries.first() else { return 0 };
                let keep =
                    first.index.checked_sub(self.first()).expect("not below the first") as usize;
                let cut = self.entries.len().checked_sub(keep).expect("no gap");
                self.entries.truncate(keep);
                self.entries.extend(entries.iter().cloned());
                cut
            }
            Op::Compact { snapshot, first, hard } => {
                let term = self.term(first - 1).expect("an index of the log");
                self.entries.drain(..(first - self.first()) as usize);
                self.before = (first - 1, term);
                (self.snapshot, self.hard) = (snapshot.clone(), hard.clone());
                0
            }
        }
    }
}

#[derive(Debug)]
struct Platter {
    safe: State,
    unsynced: VecDeque<Op>,
    honesty: Honesty,
    fails_in: Option<u64>,
    unreadable: bool,
    syncs: usize,
    cut: usize,
}

/// A disk, which outlives those who open it.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    /// With the log of one of these voters; empty without any.
    pub fn new(voters: &[NodeId], honesty: Honesty) -> Self {
        let mut safe = State::default();
        if !voters.is_empty() {
            let (snapshot, hard) = beginning(voters);
            safe.apply(&Op::Write { snapshot: Some(snapshot), entries: Vec::new(), hard });
        }
        let unsynced = VecDeque::new();
        Self(Arc::new(Mutex::new(Platter {
            safe,
            unsynced,
            honesty,
            fails_in: None,
            unreadable: false,
            syncs: 0,
            cut: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn open(&self) -> SimStore {
        let mut platter = self.lock();
        platter.safe.boot += 1;
        platter.fails_in = None;
        SimStore { disk: self.clone(), live: platter.safe.clone() }
    }

    /// How many writes were not synced.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// A loss of power: of what was not synced, only the first writes survive.
    pub fn crash(&self, survive: usize) {
        let mut platter = self.lock();
        let ops: Vec<Op> = platter.unsynced.drain(..).collect();
        for op in ops.iter().take(survive) {
            platter.safe.apply(op);
        }
        if platter.honesty == Honesty::ForgetsVotes {
            platter.safe.hard.vote = 0;
        }
    }

    /// Some write from now on fails; whether it is on the disk all the same is open.
    pub fn fail_in(&self, writes: u64) {
        self.lock().fails_in = Some(writes);
    }

    /// How often something was synced.
    pub fn syncs(&self) -> usize {
        self.lock().syncs
    }

    /// From now on entries can't be read.
    pub fn fail_reads(&self) {
        self.lock().unreadable = true;
    }

    /// How many entries were written and later cut off, since the last time that this was asked.
    pub fn take_cut(&self) -> usize {
        std::mem::take(&mut self.lock().cut)
    }
}

fn failed() -> StoreError {
    let detail = "as the simulation wants it".to_owned();
    StoreError::Io { path: "a disk".to_owned(), detail }
}

impl Platter {
    fn write(&mut self, op: Op, durability: Durability) -> Result<(), StoreError> {
        self.unsynced.push_back(op);
        if let Some(left) = &mut self.fails_in {
            if *left == 0 {
                return Err(failed());
            }
            *left -= 1;
        }
        if durability == Durability::Lazy {
            return Ok(());
        }
        self.syncs += 1;
        let late = usize::from(self.honesty == Honesty::Late);
        while self.unsynced.len() > late {
            let op = self.unsynced.pop_front().expect("looked at");
            self.safe.apply(&op);
        }
        Ok(())
    }
}

/// An open disk.
pub struct SimStore {
    disk: Disk,
    live: State,
}

impl SimStore {
    fn put(&mut self, op: Op, durability: Durability) -> Result<(), StoreError> {
        let cut = self.live.apply(&op);
        let mut platter = self.disk.lock();
        platter.cut += cut;
        platter.write(op, durability)
    }
}

impl Store for SimStore {
    fn boot(&self) -> u64 {
        self.live.boot
    }

    fn hard_state(&self) -> HardState {
        self.live.hard.clone()
    }

    fn snapshot_metadata(&self) -> &SnapshotMetadata {
        self.live.snapshot.get_metadata()
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(self.live.snapshot.clone())
    }

    fn first(&self) -> u64 {
        self.live.first()
    }

    fn last(&self) -> u64 {
        self.live.last()
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.live.term(index)
    }

    fn entries(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, StoreError> {
        if self.disk.lock().unreadable {
            return Err(failed());
        }
        let at = |index: u64| (index - self.live.first()) as usize;
        let all = self.live.entries.range(at(range.start)..at(range.end));
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += 32 + entry.data.len() as u64;
            first || bytes <= max_bytes
        };
        Ok(all.take_while(fits).cloned().collect())
    }

    fn write(&mut self, write: &Write<'_>) -> Result<(), StoreError> {
        let op = Op::Write {
            snapshot: write.snapshot.cloned(),
            entries: write.entries.to_vec(),
            hard: write.hard.clone(),
        };
        self.put(op, write.durability)
    }

    fn compact(
        &mut self,
        snapshot: &Snapshot,
        first: u64,
        hard: &HardState,
    ) -> Result<(), StoreError> {
        let op = Op::Compact { snapshot: snapshot.clone(), first, hard: hard.clone() };
        self.put(op, Durability::Synced)
    }
}
