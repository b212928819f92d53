//! Collection: what to keep, and how the rest goes.
//!
//! 1. **Roots** are marked: images, and all that was used since the oldest pin was taken.
//! 2. The rest is taken up as long as the budget has room: heads of cache mounts first, then
//!    records, layers and blobs of registries, those used latest first. One that does not fit is
//!    passed over; older, smaller ones after it may still fit.
//! 3. **Sweep**, from what refers to what is referred to: records and rows, then trees from the
//!    highest down, then blobs. So after a crash at any point what is left is whole. Before each
//!    batch, which goes while nobody looks anything up, all that was touched meanwhile is marked.
//! 4. The index is synced, then files are deleted, and segments of which little is left are written
//!    anew.

mod auto;
mod compact;
mod mark;
mod plan;
mod sweep;

pub(super) use auto::{Collector, Turn, Wake};
pub(super) use mark::Marker;

use super::usage::Amount;
use super::{Inner, batch::Sync};
use crate::store::StoreError;
use std::time::Duration;

/// What to keep in a collection. What is rooted or pinned stays in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    bytes: u64,
    unused_for: Option<Duration>,
}

impl Budget {
    /// As much of what was used latest as fits in so many bytes, roots included.
    pub fn bytes(bytes: u64) -> Self {
        Self { bytes, unused_for: None }
    }

    /// What was used within the last `time`.
    pub fn used_within(time: Duration) -> Self {
        Self { bytes: u64::MAX, unused_for: Some(time) }
    }
}

/// What a person wants gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Everything but images and what is in use.
    All,
    /// What was not used for so long.
    OlderThan(Duration),
    /// The oldest, until so many bytes are left.
    KeepBytes(u64),
}

impl From<Prune> for Budget {
    fn from(prune: Prune) -> Self {
        match prune {
            Prune::All => Self::bytes(0),
            Prune::OlderThan(time) => Self::used_within(time),
            Prune::KeepBytes(bytes) => Self::bytes(bytes),
        }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Step records that went.
    pub records: u64,
    /// Rows of tables that went: layers, blobs of registries, heads of cache mounts.
    pub rows: u64,
    /// Tree nodes that went.
    pub trees: Amount,
    /// Small blobs that went.
    pub packed: Amount,
    /// Large blobs that went.
    pub large: Amount,
    /// Bytes that were moved to other segments, so that old ones could go.
    pub rewritten_bytes: u64,
    /// Bytes of disk that are free now and were not before.
    pub freed_bytes: u64,
    /// Bytes that the store has now.
    pub held_bytes: u64,
}

/// What all collections together have taken away since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Collections.
    pub collections: u64,
    /// Step records that went.
    pub records: u64,
    /// Rows of tables that went.
    pub rows: u64,
    /// Tree nodes that went.
    pub trees: u64,
    /// Blobs that went, small and large.
    pub blobs: u64,
    /// Bytes of disk that were freed.
    pub freed_bytes: u64,
}

impl Collected {
    fn add(&mut self, report: &Report) {
        self.collections += 1;
        self.records += report.records;
        self.rows += report.rows;
        self.trees += report.trees.number;
        self.blobs += report.packed.number + report.large.number;
        self.freed_bytes += report.freed_bytes;
    }
}

impl Inner {
    /// See [`super::DiskStore::collect`].
    pub fn collect(&self, budget: Budget) -> Result<Report, StoreError> {
        let mut turn = super::lock(&self.collecting);
        self.check_poison()?;
        let before = self.held();
        let mut batch = self.index.batch();
        self.uses.flush(&mut batch);
        batch.commit(Sync::No)?;
        // From here on each look-up is noted; none is half-way while it begins.
        let (collecting, released) = {
            let _gate = self.gate_alone();
            (self.touches.begin(), self.touches.released())
        };
        self.step("mark");
        let mut marker = Marker::new(self);
        let choice = marker.choose(&collecting, budget)?;
        for tree in marker.take_broken() {
            self.lose_tree(&tree)?;
        }
        let mut report = Report::default();
        self.sweep(&collecting, &mut marker, choice, &mut report)?;
        drop(marker);
        self.step("sync deletions");
        self.barrier()?;
        self.delete_doomed()?;
        self.compact(budget.bytes, &mut report)?;
        self.sweep_quarantine();
        drop(collecting);
        self.measure_index();
        report.held_bytes = self.held();
        report.freed_bytes = before.saturating_sub(report.held_bytes);
        turn.note(report.held_bytes, released);
        super::lock(&self.collected).add(&report);
        tracing::info!(?budget, ?report, "Collected");
        Ok(report)
    }
}
