//! What was there to be seen.

/// How often it happened what the simulation is there for.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub crashes: usize,
    pub failed_writes: usize,
    pub unsynced_lost: usize,
    pub cut_off: usize,
    pub unknown: usize,
    pub again: usize,
    pub reads: usize,
    pub snapshots: usize,
    pub restored: usize,
    pub terms: usize,
    pub facts: usize,
    pub acknowledged: usize,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.crashes += other.crashes;
        self.failed_writes += other.failed_writes;
        self.unsynced_lost += other.unsynced_lost;
        self.cut_off += other.cut_off;
        self.unknown += other.unknown;
        self.again += other.again;
        self.reads += other.reads;
        self.snapshots += other.snapshots;
        self.restored += other.restored;
        self.terms += other.terms;
        self.facts += other.facts;
        self.acknowledged += other.acknowledged;
    }
}
