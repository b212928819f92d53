//! Writing segments anew without what is dead in them.

use super::Report;
use super::plan::{self, Fill};
use crate::store::disk::Inner;
use crate::store::disk::batch::Sync;
use crate::store::disk::rocks::Cf;
use crate::store::disk::segment::Extent;
use crate::store::disk::value::{Place, Span};
use crate::store::{Persisted, StoreError};
use proto::id::BlobId;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Bytes of blobs that move at once.
const MOVE_BYTES: u64 = 4 << 20;

/// The blobs of some segments, by segment, in the order in which they lie there.
type Blobs = BTreeMap<u32, Vec<(Span, BlobId)>>;

impl Inner {
    /// Writes anew the segments that are worth it, so that the store has at most `budget` bytes
    /// where that can be.
    pub(in crate::store::disk) fn compact(
        &self,
        budget: u64,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let victims = plan::victims(self.fills(), self.held().saturating_sub(budget));
        if victims.is_empty() {
            return Ok(());
        }
        {
            let mut tail = self.segments.tail();
            self.segments.roll(&mut tail);
        }
        let mut blobs = self.blobs_in(&victims)?;
        for victim in victims {
            let blobs = blobs.remove(&victim.id).unwrap_or_default();
            match self.rewrite(victim.id, &blobs, report) {
                // What was not moved stays where it is; there is nothing to undo.
                Err(StoreError::Full { detail, .. }) => {
                    tracing::warn!(%detail, "A segment could not be written anew");
                    return Ok(());
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// How full the segments are.
    fn fills(&self) -> Vec<Fill> {
        let extents = self.segments.extents();
        let live = super::super::lock(&self.index.totals).live.clone();
        let current = self.segments.current();
        let fill = |(id, extent): (u32, Extent)| {
            let live = live.get(&id).copied().unwrap_or_default();
            // One that is empty, but for the empty blob, or is about to be written, takes no room.
            let idle = extent.len == 0 && (live.number > 0 || Some(id) == current);
            (!idle).then_some(Fill { id, len: extent.len, live: live.bytes.max(0) as u64 })
        };
        extents.into_iter().filter_map(fill).collect()
    }

    fn blobs_in(&self, victims: &[Fill]) -> Result<Blobs, StoreError> {
        let mut blobs: Blobs = victims.iter().map(|victim| (victim.id, Vec::new())).collect();
        self.index.scan(Cf::Blob, &[], |key, value| {
            if let (Ok(id), Some(Place::Packed(span))) =
                (key.try_into().map(BlobId::from_bytes), Place::from_bytes(value))
                && let Some(list) = blobs.get_mut(&span.segment)
            {
                list.push((span, id));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        blobs.values_mut().for_each(|list| list.sort_unstable());
        Ok(blobs)
    }

    /// Moves the blobs of a segment to the newest one, and deletes it.
    fn rewrite(
        &self,
        segment: u32,
        mut blobs: &[(Span, BlobId)],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        while !blobs.is_empty() {
            let mut bytes = 0;
            let some = blobs.iter().take_while(|(span, _)| {
                bytes += u64::from(span.len);
                bytes <= MOVE_BYTES
            });
            let (now, later) = blobs.split_at(some.count().max(1));
            self.move_blobs(now, report)?;
            blobs = later;
        }
        self.step("sync moved");
        // The copies are safe before the originals go.
        self.barrier()?;
        let _files = self.durable.hold_files();
        let left = super::super::lock(&self.index.totals).live.get(&segment).copied();
        if left.is_some_and(|left| left.number > 0) {
            tracing::warn!(segment, "A segment stays: some of its blobs could not be moved");
            return Ok(());
        }
        self.step("delete segment");
        let mut batch = self.index.batch();
        batch.delete_segment(segment);
        batch.commit(Sync::No)?;
        super::super::lock(&self.index.totals).live.remove(&segment);
        let path = self.segments.path(segment);
        self.segments.remove(segment).map_err(StoreError::io("Deleting", &path))?;
        self.durable.note_segments_dir();
        Ok(())
    }

    fn move_blobs(&self, blobs: &[(Span, BlobId)], report: &mut Report) -> Result<(), StoreError> {
        let mut read = Vec::with_capacity(blobs.len());
        for (span, id) in blobs {
            match self.segments.read(span) {
                Ok(bytes) if BlobId::of(&bytes) == *id => read.push((*span, *id, bytes)),
                // Reading it as anybody does finds out what is wrong, and forgets it.
                _ => match self.read_packed(id, *span) {
                    Ok(_) | Err(StoreError::NoBlob(_) | StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        self.step("move blobs");
        let _gate = self.gate();
        let mut tail = self.segments.tail();
        let ids: Vec<_> = read.iter().map(|(_, id, _)| *id).collect();
        let places = self.index.blobs(&ids)?;
        let still = |((span, _, _), place): &(&(Span, BlobId, Vec<u8>), Option<Place>)| {
            *place == Some(Place::Packed(*span))
        };
        let moving: Vec<_> = read.iter().zip(places).filter(still).map(|(blob, _)| blob).collect();
        let slices: Vec<_> = moving.iter().map(|(_, _, bytes)| &bytes[..]).collect();
        let spans = self.segments.append(&mut tail, &slices, |id| self.begin_segment(id))?;
        self.step("index moved");
        let mut batch = self.index.batch();
        for ((from, id, bytes), to) in moving.into_iter().zip(spans) {
            batch.move_blob(id, &Place::Packed(*from), &Place::Packed(to));
            report.rewritten_bytes += bytes.len() as u64;
        }
        batch.commit(Sync::No)
    }
}
