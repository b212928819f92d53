//! Taking away what is damaged, so that it is made again.

use super::Inner;
use super::batch::Sync;
use super::lose::Lost;
use super::rocks::Cf;
use super::scrub::{Damage, Damaged};
use super::value::{Place, key};
use crate::store::StoreError;
use proto::id::BlobId;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

/// What a repair took away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Blobs.
    pub blobs: u64,
    /// Tree nodes: damaged ones, and those that were no longer whole.
    pub trees: u64,
    /// Records, aliases, rows, and what was known of chunks.
    pub rows: u64,
    /// Files that belonged to nothing.
    pub strays: u64,
    /// What can't be mended.
    pub left: Vec<Damage>,
}

impl Inner {
    /// See [`super::DiskStore::repair`].
    pub fn repair(&self, damages: &[Damage]) -> Result<Repaired, StoreError> {
        self.check_poison()?;
        let mut repaired = Repaired::default();
        let mut lost = Lost::default();
        let mut batch = self.index.batch();
        for damage in damages {
            match &damage.what {
                Damaged::Index => repaired.left.push(damage.clone()),
                Damaged::Blob(id) => match self.index.blob(id)? {
                    Some(place) if self.check_blob(id, &place).is_some() => {
                        lost.blobs.insert(*id, place);
                    }
                    Some(_) => {}
                    // A place that can't be read.
                    None => batch.delete(Cf::Blob, id.as_bytes()),
                },
                Damaged::Tree(id) => {
                    lost.trees.insert(*id);
                }
                Damaged::Record(key)
                | Damaged::Alias(key)
                | Damaged::Chunks(key)
                | Damaged::Row(_, key) => {
                    for cf in [Cf::Table, Cf::Blob, Cf::Tree, Cf::Node] {
                        // Only a key of no table can be in another place.
                        if cf == Cf::Table || key.len() != 32 {
                            batch.delete(cf, key);
                        }
                    }
                    repaired.rows += 1;
                }
                Damaged::Stray => {
                    self.put_stray_aside(&damage.path)?;
                    repaired.strays += 1;
                }
                Damaged::Counters => {}
                Damaged::State => self.note_was_damaged.store(false, Ordering::Relaxed),
            }
        }
        batch.commit(Sync::No)?;
        self.drop_lost(lost, &mut repaired)?;
        repaired.rows += self.drop_refused_rows()?;
        self.sweep_aliases()?;
        self.sweep_chunks()?;
        self.count_again()?;
        self.barrier()?;
        Ok(repaired)
    }

    fn drop_lost(&self, lost: Lost, repaired: &mut Repaired) -> Result<(), StoreError> {
        let is_file = |(_, place): &(&BlobId, &Place)| matches!(place, Place::File { .. });
        let files: Vec<BlobId> = lost.blobs.iter().filter(is_file).map(|(id, _)| *id).collect();
        let dropped = self.lose(lost)?;
        repaired.blobs += dropped.blobs;
        repaired.trees += dropped.trees;
        repaired.rows += dropped.rows;
        for id in files {
            let _lock = self.files.lock(&id);
            if self.index.blob(&id)?.is_none() && self.files.path(&id).exists() {
                self.files.put_aside(&id);
            }
        }
        Ok(())
    }

    /// Deletes rows that name what is not here: images too, which nothing can be made of any more.
    fn drop_refused_rows(&self) -> Result<u64, StoreError> {
        let _gate = self.gate_alone();
        let mut refused = Vec::new();
        self.index.scan(Cf::Table, &[key::ROW], |row, value| {
            if let Some((table, own)) = key::row_of(row)
                && self.row_refused(table, own, value)?.is_some()
            {
                refused.push(row.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut batch = self.index.batch();
        for row in &refused {
            batch.delete(Cf::Table, row);
            batch.delete(Cf::Table, &key::used(row));
        }
        batch.commit(Sync::No)?;
        Ok(refused.len() as u64)
    }

    fn count_again(&self) -> Result<(), StoreError> {
        let _gate = self.gate_alone();
        let totals = self.count()?;
        let mut batch = self.index.batch();
        batch.set_counters(&totals);
        batch.commit(Sync::No)?;
        *super::lock(&self.index.totals) = totals;
        Ok(())
    }

    fn put_stray_aside(&self, path: &Path) -> Result<(), StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut to = self.files.quarantine().join(format!("stray.{name}"));
        for serial in 1.. {
            if !to.exists() {
                break;
            }
            to = self.files.quarantine().join(format!("stray.{name}.{serial}"));
        }
        match fs::rename(path, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(StoreError::io("Putting aside", path)),
        }
    }
}
