//! Blocks that were packed before lie in the layers that they were packed for, and are taken from
//! there: after a change of a few files only the blocks around them are compressed.

use super::compress::Worker;
use cache::store::{Compression, PackedBlock, PackedLayer, Persisted, Store, StoreError, Table};
use proto::id::BlobId;
use std::io::Read;

/// A block, packed.
pub struct Packed {
    /// The packed bytes.
    pub bytes: Vec<u8>,
    /// Its key in the table of blocks, and the hash of its packed bytes; none where compressing is
    /// not what costs.
    name: Option<(Vec<u8>, BlobId)>,
}

/// Packs blocks, or finds them packed.
pub struct Blocks<'s> {
    store: &'s dyn Store,
    compression: Compression,
    worker: Worker,
}

impl<'s> Blocks<'s> {
    /// For one thread.
    pub fn new(store: &'s dyn Store, compression: Compression) -> Self {
        Self { store, compression, worker: Worker::new(compression) }
    }

    /// The block, packed.
    pub fn pack(&mut self, block: Vec<u8>) -> Packed {
        if self.compression == Compression::None {
            return Packed { bytes: block, name: None };
        }
        let key = PackedBlock::key(&BlobId::of(&block), self.compression);
        if let Some((bytes, hash)) = self.find(&key) {
            return Packed { bytes, name: Some((key, hash)) };
        }
        let bytes = self.worker.compress(block);
        let hash = BlobId::of(&bytes);
        Packed { bytes, name: Some((key, hash)) }
    }

    /// The packed block, if it is where it should be, as it should be. What it lies in may be gone
    /// or damaged, which costs no more than packing it again.
    fn find(&self, key: &[u8]) -> Option<(Vec<u8>, BlobId)> {
        let row = self.store.row(Table::Block, key).ok()??;
        let place = PackedBlock::from_bytes(&row)?;
        let mut bytes = Vec::with_capacity(place.len as usize);
        let layer = self.store.open(&place.layer, place.at).ok()?;
        layer.take(place.len.into()).read_to_end(&mut bytes).ok()?;
        (BlobId::of(&bytes) == place.hash).then_some((bytes, place.hash))
    }
}

/// Where the blocks of a layer lie in it.
#[derive(Default)]
pub struct Places {
    at: u64,
    /// For each its key, where it begins, the hash of its packed bytes, and how many.
    places: Vec<(Vec<u8>, u64, BlobId, u32)>,
}

impl Places {
    /// The next block of the layer.
    pub fn add(&mut self, block: &Packed) {
        let (at, len) = (self.at, block.bytes.len() as u32);
        self.at += u64::from(len);
        if let Some((key, hash)) = &block.name {
            self.places.push((key.clone(), at, *hash, len));
        }
    }

    /// Remembers them. Blocks that lie in older layers too are looked for in this one from now on,
    /// so that the older ones can go.
    pub fn remember(self, store: &dyn Store, packed: &PackedLayer) -> Result<(), StoreError> {
        for (key, at, hash, len) in self.places {
            let place = PackedBlock { layer: packed.blob, size: packed.size, at, hash, len };
            store.put_row(Table::Block, &key, &place.to_bytes())?;
        }
        Ok(())
    }
}
