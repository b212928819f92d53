//! Deleting what is not marked: from what refers to what is referred to.

use super::Report;
use super::mark::{Choice, Marker};
use crate::store::disk::Inner;
use crate::store::disk::batch::Sync;
use crate::store::disk::files::shard_of;
use crate::store::disk::part::{is_shared, value_hash};
use crate::store::disk::rocks::Cf;
use crate::store::disk::touch::Collecting;
use crate::store::disk::value::{Head, Place, key, state};
use crate::store::{Persisted, StoreError};
use proto::id::{BlobId, TreeId};
use proto::record::Alias;
use proto::wire::blob::Forgotten;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

/// Things of one kind that go at once, while nobody looks anything up.
const BATCH: usize = 1024;

/// How long damaged files are kept for who wants to look into them.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Inner {
    pub(super) fn sweep(
        &self,
        collecting: &Collecting<'_>,
        marker: &mut Marker<'_>,
        choice: Choice,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        self.sweep_table(collecting, &choice, report)?;
        self.sweep_trees(collecting, marker, report)?;
        self.sweep_blobs(collecting, marker, report)?;
        self.sweep_elsewhere(collecting, marker)
    }

    /// Forgets where blobs are that nothing names any more.
    fn sweep_elsewhere(
        &self,
        collecting: &Collecting<'_>,
        marker: &mut Marker<'_>,
    ) -> Result<(), StoreError> {
        let mut from = BlobId::from_bytes([0; 32]);
        loop {
            let ids = self.elsewhere_from(&from, BATCH)?;
            let Some(last) = ids.last() else { return Ok(()) };
            // The last one is looked at again with the next batch.
            let is_end = ids.len() < BATCH;
            from = *last;
            let _gate = self.gate_alone();
            marker.mark_trees(collecting.fresh_trees())?;
            let mut batch = self.index.batch();
            for id in ids.iter().filter(|id| !marker.has_blob(id) && !collecting.has_blob(id)) {
                batch.delete(Cf::Table, &key::elsewhere(id));
            }
            batch.commit(Sync::No)?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn sweep_table(
        &self,
        collecting: &Collecting<'_>,
        choice: &Choice,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut aliases: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for (alias, record) in self.aliases_of_records()? {
            aliases.entry(record.unwrap_or_default()).or_default().push(alias);
        }
        for some in choice.dropped.chunks(BATCH) {
            self.step("sweep table");
            let _gate = self.gate_alone();
            let mut batch = self.index.batch();
            let mut forgotten = Vec::new();
            for row in some.iter().filter(|row| !collecting.has_key(row)) {
                if self.farm.is_joined()
                    && choice.evicted.contains(row)
                    && let Some(value) = self.index.get(Cf::Table, row)?
                    && (row.first() == Some(&key::RECORD) || is_shared(row, &value))
                {
                    forgotten.push(Forgotten { key: row.clone(), hash: value_hash(&value) });
                }
                match row.first() {
                    Some(&key::RECORD) => report.records += 1,
                    _ => report.rows += 1,
                }
                self.uses.forget(row);
                batch.delete(Cf::Table, row);
                batch.delete(Cf::Table, &key::used(row));
                // With it, so that none ever leads to nothing.
                for alias in aliases.get(row).into_iter().flatten() {
                    batch.delete(Cf::Table, alias);
                }
            }
            batch.commit(Sync::No)?;
            self.farm.note_forgotten(forgotten);
        }
        Ok(())
    }

    /// All aliases, each with the key of its record; None where it can't be read.
    pub(in crate::store::disk) fn aliases_of_records(
        &self,
    ) -> Result<Vec<(Vec<u8>, Option<Vec<u8>>)>, StoreError> {
        let mut aliases = Vec::new();
        for (alias, value) in self.table(key::ALIAS)? {
            let record = Alias::from_bytes(&value)
                .zip(key::scope_of(&alias))
                .map(|(to, scope)| key::record(&scope, &to.key));
            aliases.push((alias, record));
        }
        Ok(aliases)
    }

    /// Deletes aliases that lead to no record.
    pub(in crate::store::disk) fn sweep_aliases(&self) -> Result<(), StoreError> {
        for some in self.aliases_of_records()?.chunks(BATCH) {
            let _gate = self.gate_alone();
            let mut batch = self.index.batch();
            for (alias, record) in some {
                let keep = match record {
                    Some(record) => self.index.has(Cf::Table, record)?,
                    None => false,
                };
                if !keep {
                    batch.delete(Cf::Table, alias);
                }
            }
            batch.commit(Sync::No)?;
        }
        Ok(())
    }

    fn sweep_trees(
        &self,
        collecting: &Collecting<'_>,
        marker: &mut Marker<'_>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut dead: Vec<(u16, TreeId)> = Vec::new();
        self.index.scan(Cf::Tree, &[], |key, value| {
            if let (Ok(id), Some(head)) =
                (key.try_into().map(TreeId::from_bytes), Head::from_bytes(value))
                && !marker.has_tree(&id)
            {
                dead.push((head.height, id));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        dead.sort_unstable_by_key(|(height, _)| Reverse(*height));
        for some in dead.chunks(BATCH) {
            self.step("sweep trees");
            let _gate = self.gate_alone();
            marker.mark_trees(collecting.fresh_trees())?;
            let ids: Vec<_> =
                some.iter().map(|(_, id)| *id).filter(|id| !marker.has_tree(id)).collect();
            let mut batch = self.index.batch();
            for (id, head) in ids.iter().zip(self.index.heads(&ids)?) {
                if let Some(head) = head {
                    report.trees.add(head.len.into());
                    batch.delete_tree(id, &head);
                    self.nodes.remove(id);
                }
            }
            batch.commit(Sync::No)?;
        }
        Ok(())
    }

    fn sweep_blobs(
        &self,
        collecting: &Collecting<'_>,
        marker: &mut Marker<'_>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut some: Vec<BlobId> = Vec::new();
        self.index.scan(Cf::Blob, &[], |key, _| {
            if let Ok(id) = key.try_into().map(BlobId::from_bytes)
                && !marker.has_blob(&id)
            {
                some.push(id);
            }
            if some.len() == BATCH {
                self.sweep_some_blobs(collecting, marker, &some, report)?;
                some.clear();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.sweep_some_blobs(collecting, marker, &some, report)
    }

    fn sweep_some_blobs(
        &self,
        collecting: &Collecting<'_>,
        marker: &mut Marker<'_>,
        ids: &[BlobId],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        self.step("sweep blobs");
        let _gate = self.gate_alone();
        marker.mark_trees(collecting.fresh_trees())?;
        let free = |id: &&BlobId| !marker.has_blob(id) && !collecting.has_blob(id);
        let ids: Vec<_> = ids.iter().filter(free).copied().collect();
        let mut batch = self.index.batch();
        for (id, place) in ids.iter().zip(self.index.blobs(&ids)?) {
            let Some(place) = place else {
                continue;
            };
            self.delete_blob(&mut batch, id, &place)?;
            match place {
                Place::Packed(span) => report.packed.add(span.len.into()),
                Place::File { size } => {
                    report.large.add(size);
                    batch.put(Cf::State, &state::doomed(id), &[]);
                }
            }
        }
        batch.commit(Sync::No)
    }

    /// Deletes the files of blobs that the index has given up, for good.
    pub(in crate::store::disk) fn delete_doomed(&self) -> Result<(), StoreError> {
        let mut doomed = Vec::new();
        self.index.scan(Cf::State, &[state::DOOMED], |key, _| {
            doomed.extend(key[1..].try_into().map(BlobId::from_bytes));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut shards = BTreeSet::new();
        for id in &doomed {
            self.step("delete file");
            let _lock = self.files.lock(id);
            // It may have been put again meanwhile: then the file is the new one's.
            if self.index.blob(id)?.is_none() && self.files.unlink(id)? {
                shards.insert(shard_of(id));
            }
        }
        for shard in shards {
            self.sync_dir(&self.files.shard_path(shard))?;
        }
        let mut batch = self.index.batch();
        doomed.iter().for_each(|id| batch.delete(Cf::State, &state::doomed(id)));
        batch.commit(Sync::No)
    }

    /// Deletes old files of the quarantine.
    pub(super) fn sweep_quarantine(&self) {
        let entries = std::fs::read_dir(self.files.quarantine()).into_iter().flatten().flatten();
        for entry in entries {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > QUARANTINE) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
