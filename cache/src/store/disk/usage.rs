//! What the store holds, for people.

use super::Inner;
use super::batch::Count;
use super::gc::Marker;
use super::value::key;
use crate::store::meta::mount_number;
use crate::store::{OciBlob, Persisted, StoreError, Table};
use proto::id::BlobId;
use proto::record::Record;
use std::collections::HashSet;

/// A number of things and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub number: u64,
    /// Their bytes in all.
    pub bytes: u64,
}

impl Amount {
    /// Counts one more.
    pub(super) fn add(&mut self, bytes: u64) {
        self.number += 1;
        self.bytes += bytes;
    }
}

impl From<Count> for Amount {
    fn from(count: Count) -> Self {
        Self { number: count.number.max(0) as u64, bytes: count.bytes.max(0) as u64 }
    }
}

/// What the store holds. Bytes are those of content; of disk where the name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Small blobs.
    pub packed: Amount,
    /// Large blobs. Files that were placed from them by link share their bytes.
    pub large: Amount,
    /// Tree nodes.
    pub trees: Amount,
    /// Step records.
    pub records: u64,
    /// Logs of steps; blobs that are counted above.
    pub logs: Amount,
    /// Layers as registries have them; blobs that are counted above.
    pub layers: Amount,
    /// Images of the local image store.
    pub images: u64,
    /// Heads of cache mounts.
    pub cache_mounts: u64,
    /// Bytes of disk of the index.
    pub index_disk_bytes: u64,
    /// Bytes of disk in segments that belong to no blob any more.
    pub dead_disk_bytes: u64,
    /// Files that were put aside as damaged.
    pub quarantine: Amount,
    /// Bytes of disk in all.
    pub total_disk_bytes: u64,
    /// Bytes that go when everything but images is pruned.
    pub reclaimable_bytes: u64,
}

impl Inner {
    /// See [`super::DiskStore::usage`].
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.measure_index();
        let totals = super::lock(&self.index.totals).clone();
        let segments = self.segments.bytes();
        let quarantine = self.quarantined();
        let mut usage = Usage {
            packed: totals.packed.into(),
            large: totals.large.into(),
            trees: totals.trees.into(),
            index_disk_bytes: self.index.disk_bytes(),
            dead_disk_bytes: segments.saturating_sub(Amount::from(totals.packed).bytes),
            quarantine,
            total_disk_bytes: self.held() + quarantine.bytes,
            ..Usage::default()
        };
        self.count_records(&mut usage)?;
        self.count_rows(&mut usage)?;
        let mut marker = Marker::new(self);
        marker.mark_images()?;
        usage.reclaimable_bytes = usage.total_disk_bytes.saturating_sub(marker.bytes);
        Ok(usage)
    }

    fn count_records(&self, usage: &mut Usage) -> Result<(), StoreError> {
        let mut logs = HashSet::new();
        for value in self.table(key::RECORD)?.into_values() {
            usage.records += 1;
            logs.extend(Record::from_bytes(&value).and_then(|record| record.log));
        }
        self.add_blobs(&mut usage.logs, logs)
    }

    fn count_rows(&self, usage: &mut Usage) -> Result<(), StoreError> {
        let (mut layers, mut mounts) = (HashSet::new(), HashSet::new());
        for (row, value) in self.table(key::ROW)? {
            let Some((table, own)) = key::row_of(&row) else {
                continue;
            };
            match table {
                Table::Image => usage.images += 1,
                Table::CacheMount => drop(mounts.insert(mount_number(own).0.to_vec())),
                Table::OciBlob => layers.extend(OciBlob::from_bytes(&value).map(|blob| blob.blob)),
                Table::Layer | Table::Block => {
                    let names = table.names(own, &value).unwrap_or_default();
                    layers.extend(names.blobs.into_iter().map(|(blob, _)| blob));
                }
                Table::Unpacked | Table::Build | Table::Trace => {}
            }
        }
        usage.cache_mounts = mounts.len() as u64;
        self.add_blobs(&mut usage.layers, layers)
    }

    fn add_blobs(&self, amount: &mut Amount, ids: HashSet<BlobId>) -> Result<(), StoreError> {
        let ids: Vec<_> = ids.into_iter().collect();
        self.index.blobs(&ids)?.iter().flatten().for_each(|place| amount.add(place.size()));
        Ok(())
    }

    fn quarantined(&self) -> Amount {
        let entries = std::fs::read_dir(self.files.quarantine()).into_iter().flatten().flatten();
        let mut amount = Amount::default();
        entries.flat_map(|e| e.metadata()).for_each(|metadata| amount.add(metadata.len()));
        amount
    }
}
