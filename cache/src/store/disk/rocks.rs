//! The index: one RocksDB with a column family for each kind of thing, and typed access to it.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `blob` | blob id | [`Place`] |
//! | `tree` | tree id | [`Head`] |
//! | `node` | tree id | the node's encoding, when it is small |
//! | `table` | records, aliases, rows, last uses, chunks ([`value::key`](super::value::key)) | |
//! | `default` | segments, files to be synced or deleted, counters ([`value::state`](super::value::state)) | |
//!
//! All writes go through [`Batch`], which counts what it adds and takes away: the counters are in
//! the same batch, so they are right after every crash.

use super::batch::{Totals, add_counters};
use super::value::{Head, Place};
use crate::store::{Persisted, Row, StoreError};
use bytes::Bytes;
use proto::id::{BlobId, TreeId};
use rayon::prelude::*;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, DBRecoveryMode, Direction, FlushOptions, IteratorMode, LogLevel,
    LruCacheOptions, Options, ReadOptions,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// Which column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cf {
    Blob,
    Tree,
    Node,
    Table,
    State,
}

impl Cf {
    pub const ALL: [Cf; 5] = [Cf::Blob, Cf::Tree, Cf::Node, Cf::Table, Cf::State];

    pub fn name(self) -> &'static str {
        match self {
            Cf::Blob => "blob",
            Cf::Tree => "tree",
            Cf::Node => "node",
            Cf::Table => "table",
            Cf::State => "default",
        }
    }
}

/// Bytes that RocksDB caches of its files.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
/// Bytes of writes that RocksDB holds in memory, over all column families.
const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// Bytes of write-ahead log, after which the oldest writes go to files.
const WAL_BYTES: u64 = 64 << 20;
/// Keys of one look-up.
const LOOKUP_KEYS: usize = 512;

/// The open index.
pub(super) struct Index {
    pub db: DB,
    pub path: PathBuf,
    pub totals: Mutex<Totals>,
    /// How many writes there were that did not wait for the disk.
    pub writes: AtomicU64,
}

/// Whether an index may be made where none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    New,
    Existing,
}

fn db_options(make: Make) -> Options {
    let mut options = Options::default();
    options.create_if_missing(make == Make::New);
    options.create_missing_column_families(make == Make::New);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options
}

fn cf_options(cf: Cf, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_format_version(6);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In pieces: a filter of a million keys in one is more than a part of the cache holds.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4 << 10);
    blocks.set_pin_top_level_index_and_filter(true);
    let mut options = Options::default();
    options.set_write_buffer_size(8 << 20);
    match cf {
        // Hashes and numbers: nothing to compress, and read one by one.
        Cf::Blob => {
            blocks.set_block_size(2 << 10);
            options.set_compression_type(DBCompressionType::None);
            options.set_write_buffer_size(16 << 20);
        }
        Cf::Tree | Cf::Table => options.set_compression_type(DBCompressionType::Lz4),
        Cf::Node => {
            blocks.set_block_size(16 << 10);
            options.set_compression_type(DBCompressionType::Lz4);
        }
        Cf::State => options.set_merge_operator_associative("slipway.add", |_, old, more| {
            let mut sum = old.map_or_else(|| vec![0; 16], <[u8]>::to_vec);
            for operand in more {
                sum = add_counters(&sum, operand)?;
            }
            Some(sum)
        }),
    }
    options.set_block_based_table_factory(&blocks);
    options
}

impl Index {
    /// Opens the index, or makes it.
    pub fn open(path: &Path, make: Make) -> Result<Self, rocksdb::Error> {
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(BLOCK_CACHE_BYTES);
        cache.set_num_shard_bits(2);
        let cache = Cache::new_lru_cache_opts(&cache);
        let families =
            Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), cf_options(cf, &cache)));
        let db = DB::open_cf_descriptors(&db_options(make), path, families)?;
        let path = path.to_owned();
        let index = Self { db, path, totals: Mutex::default(), writes: AtomicU64::new(0) };
        let totals = Totals::load(&index)?;
        *super::lock(&index.totals) = totals;
        Ok(index)
    }

    pub fn cf(&self, cf: Cf) -> &ColumnFamily {
        self.db.cf_handle(cf.name()).expect("all column families were opened")
    }

    /// What RocksDB said, as an error of the store.
    pub fn error(&self, error: rocksdb::Error) -> StoreError {
        let detail = error.into_string();
        let path = self.path.clone();
        if detail.contains("No space left") || detail.contains("quota exceeded") {
            return StoreError::Full { path, detail };
        }
        let advice = if detail.starts_with("Corruption") { DAMAGED } else { "" };
        StoreError::Index { path, detail: format!("{detail}{advice}") }
    }

    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.cf(cf), key).map_err(|e| self.error(e))
    }

    pub fn has(&self, cf: Cf, key: &[u8]) -> Result<bool, StoreError> {
        let value = self.db.get_pinned_cf(self.cf(cf), key).map_err(|e| self.error(e))?;
        Ok(value.is_some())
    }

    /// Looks up many keys; what `read` makes of each value, or None where there is none.
    fn lookup<K, V>(
        &self,
        cf: Cf,
        keys: &[K],
        read: impl Fn(&[u8]) -> Option<V> + Sync,
    ) -> Result<Vec<Option<V>>, StoreError>
    where
        K: AsRef<[u8]> + Sync,
        V: Send,
    {
        let some = |keys: &[K]| -> Result<Vec<Option<V>>, StoreError> {
            let family = self.cf(cf);
            let values = self.db.batched_multi_get_cf(family, keys.iter(), false);
            let read = |value: Result<Option<rocksdb::DBPinnableSlice>, rocksdb::Error>| {
                Ok(value.map_err(|e| self.error(e))?.and_then(|v| read(&v)))
            };
            values.into_iter().map(read).collect()
        };
        if keys.len() <= LOOKUP_KEYS {
            return some(keys);
        }
        let parts: Result<Vec<_>, _> = keys.par_chunks(LOOKUP_KEYS).map(some).collect();
        Ok(parts?.into_iter().flatten().collect())
    }

    pub fn blob(&self, id: &BlobId) -> Result<Option<Place>, StoreError> {
        let value = self.db.get_pinned_cf(self.cf(Cf::Blob), id.as_bytes());
        let value = value.map_err(|e| self.error(e))?;
        Ok(value.and_then(|v| Place::from_bytes(&v)))
    }

    pub fn blobs(&self, ids: &[BlobId]) -> Result<Vec<Option<Place>>, StoreError> {
        let keys: Vec<_> = ids.iter().map(BlobId::as_bytes).collect();
        self.lookup(Cf::Blob, &keys, Place::from_bytes)
    }

    pub fn head(&self, id: &TreeId) -> Result<Option<Head>, StoreError> {
        Ok(self.get(Cf::Tree, id.as_bytes())?.and_then(|v| Head::from_bytes(&v)))
    }

    pub fn heads(&self, ids: &[TreeId]) -> Result<Vec<Option<Head>>, StoreError> {
        let keys: Vec<_> = ids.iter().map(TreeId::as_bytes).collect();
        self.lookup(Cf::Tree, &keys, Head::from_bytes)
    }

    pub fn values<T: Persisted + Send>(
        &self,
        cf: Cf,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<T>>, StoreError> {
        self.lookup(cf, keys, T::from_bytes)
    }

    pub fn node(&self, id: &TreeId) -> Result<Option<Bytes>, StoreError> {
        Ok(self.get(Cf::Node, id.as_bytes())?.map(Bytes::from))
    }

    /// Walks over all keys that begin with `prefix`, in order, without filling the cache. What is
    /// put meanwhile is not seen.
    pub fn scan(
        &self,
        cf: Cf,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let from = IteratorMode::From(prefix, Direction::Forward);
        for item in self.db.iterator_cf_opt(self.cf(cf), options, from) {
            let (key, value) = item.map_err(|e| self.error(e))?;
            if !key.starts_with(prefix) || each(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Walks over all keys from one up to another, which is not among them; an empty one stands for
    /// the end. In order, without filling the cache.
    pub fn range(
        &self,
        cf: Cf,
        from: &[u8],
        to: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let from = IteratorMode::From(from, Direction::Forward);
        for item in self.db.iterator_cf_opt(self.cf(cf), options, from) {
            let (key, value) = item.map_err(|e| self.error(e))?;
            if !to.is_empty() && &key[..] >= to || each(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// For each prefix the first row whose key begins so.
    pub fn first_rows(&self, cf: Cf, prefixes: &[Vec<u8>]) -> Result<Vec<Option<Row>>, StoreError> {
        let mut rows = self.db.raw_iterator_cf(self.cf(cf));
        let first = |prefix: &Vec<u8>| {
            rows.seek(prefix);
            rows.status().map_err(|e| self.error(e))?;
            let row = rows.item().filter(|(key, _)| key.starts_with(prefix));
            Ok(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
        };
        prefixes.iter().map(first).collect()
    }

    /// Writes what is in memory and in the log to tables.
    pub fn flush(&self) -> Result<(), StoreError> {
        let families: Vec<_> = Cf::ALL.iter().map(|cf| self.cf(*cf)).collect();
        self.db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(|e| self.error(e))
    }

    /// Bytes of the index's files.
    pub fn disk_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|e| Some(e.metadata().ok()?.len())).sum()
    }
}

/// What to do about an index that RocksDB calls corrupt.
pub(super) const DAMAGED: &str = ". The index is damaged. It can't be mended: stop Slipway and move \
    the store's directory away. The next start begins an empty one; builds fill it again, images \
    that were only here have to be built or pulled again";
