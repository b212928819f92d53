//! Making a log, and opening one: whose it is, and whether all of it is there.

use super::value::{self, Bounds, Identity, Key, Marker};
use super::{LOG, RocksStore, log_of, put_snapshot, store_error};
use crate::raft::driver::store::beginning;
use crate::raft::driver::{NodeId, StoreError};
use prost::Message;
use proto::error::Class;
use proto::id::Millis;
use raft::eraftpb::{HardState, SnapshotMetadata};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    LogLevel, Options, WriteBatch, WriteOptions,
};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that RocksDB caches of its files: members that are behind read the end of the log.
const BLOCK_CACHE_BYTES: usize = 4 << 20;
/// Bytes of writes that RocksDB holds in memory for each of two column families.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Bytes of write-ahead log, after which the oldest writes go to files.
const WAL_BYTES: u64 = 32 << 20;

/// With what a log begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// With these voters, each of which makes its log alike: a new cluster.
    Voters(Vec<NodeId>),
    /// With nothing: its node is to be added to a cluster that there is.
    Join,
}

/// Why a log can't be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error(
        "There is no log at {}. Begin a cluster with `slipway farm init`, or join one with `slipway \
         join`. If there was a log it is lost: then remove its node from the cluster, and join as a \
         new one",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is one, where a new one was to be made.
    #[error("There is a log at {} already. Give another directory", path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("The log at {} is in use. Stop the coordinator that runs on it", path.display())]
    Locked {
        /// Where it is.
        path: PathBuf,
    },
    /// It is somebody else's.
    #[error(
        "The log at {} is that of {found}, and this is {expected}. Give this node's own directory; \
         a log can't be copied from one node to another",
        path.display()
    )]
    Foreign {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        expected: Identity,
    },
    /// Another version of the program made it.
    #[error(
        "The log at {} has the format {found}, this version of Slipway reads {}. Use the version \
         that made it",
        path.display(), value::VERSION
    )]
    Format {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// It can't be read or written, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Locked { .. } | Self::Store(StoreError::Full { .. }) => Class::Busy,
            Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Foreign { .. }
            | Self::Format { .. } => Class::User,
            Self::Store(StoreError::Io { .. }) => Class::Unavailable,
            Self::Store(StoreError::Damaged { .. }) => Class::Corrupt,
        }
    }
}

fn db_options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    // A write that a crash cut short was never acknowledged; anything else that can't be read is
    // damage, and must not be passed over.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

fn open_db(path: &Path, create: bool) -> Result<DB, OpenError> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let family = |name| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_format_version(6);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        ColumnFamilyDescriptor::new(name, options)
    };
    let families = [family("default"), family(LOG)];
    DB::open_cf_descriptors(&db_options(create), path, families).map_err(|error| {
        let text = error.to_string();
        // As its `LockFile` says it, of another process and of this one.
        let locked = ["While lock file", "lock hold by current process"];
        match locked.iter().any(|locked| text.contains(locked)) {
            true => OpenError::Locked { path: path.to_owned() },
            false => store_error(path, error).into(),
        }
    })
}

fn io_error(path: &Path, error: io::Error) -> StoreError {
    StoreError::Io { path: path.display().to_string(), detail: error.to_string() }
}

/// Whether there is a database. One that has lost the file by which it is found is damaged: RocksDB
/// would begin a new one over it.
fn has_database(path: &Path) -> Result<bool, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(path, error)),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<io::Result<_>>().map_err(|e| io_error(path, e))?;
    let is_data = |name: &String| name.starts_with("MANIFEST-") || name.ends_with(".sst");
    if names.iter().any(|name| name == "CURRENT") {
        return Ok(true);
    }
    match names.iter().any(is_data) {
        true => Err(StoreError::Damaged {
            path: path.display().to_string(),
            detail: "its file CURRENT is missing".to_owned(),
        }),
        false => Ok(false),
    }
}

fn get(db: &DB, path: &Path, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
    db.get(key.name()).map_err(|error| store_error(path, error))
}

impl RocksStore {
    /// Makes the log of a node. To be done once in the life of the node, by who gives it its id.
    pub fn create(
        path: &Path,
        identity: Identity,
        created: Millis,
        beginning: &Beginning,
    ) -> Result<(), OpenError> {
        fs::create_dir_all(path).map_err(|error| io_error(path, error))?;
        has_database(path)?;
        let db = open_db(path, true)?;
        // One whose making was interrupted has no marker, and is made again.
        if get(&db, path, Key::Marker)?.is_some() {
            return Err(OpenError::Exists { path: path.to_owned() });
        }
        let mut batch = WriteBatch::default();
        let marker = Marker { identity, created };
        batch.put(Key::Marker.name(), marker.to_bytes());
        batch.put(Key::Boot.name(), 0u64.to_be_bytes());
        let (hard, bounds) = match beginning {
            Beginning::Join => (HardState::default(), Bounds::at(0, 0)),
            Beginning::Voters(voters) => {
                let (snapshot, hard) = self::beginning(voters);
                put_snapshot(&mut batch, &snapshot);
                (hard, Bounds::at(snapshot.get_metadata().index, snapshot.get_metadata().term))
            }
        };
        batch.put(Key::Hard.name(), hard.encode_to_vec());
        batch.put(Key::Bounds.name(), bounds.to_bytes());
        write_synced(&db, path, batch)?;
        // The directory itself is to be found after a loss of power too.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        Ok(synced.map_err(|error| io_error(parent, error))?)
    }

    /// Opens the log of a node, reads all of it, and counts that it was opened.
    pub fn open(path: &Path, identity: Identity) -> Result<Self, OpenError> {
        if !has_database(path)? {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        let db = open_db(path, false)?;
        check_marker(path, get(&db, path, Key::Marker)?, identity)?;
        let damaged = |what: &str| StoreError::Damaged {
            path: path.display().to_string(),
            detail: format!("{what} is missing or can't be read"),
        };
        let decoded = |key, what: &str| get(&db, path, key)?.ok_or_else(|| damaged(what));
        let boot = value::number(&decoded(Key::Boot, "the number of its starts")?);
        let boot = boot.ok_or_else(|| damaged("the number of its starts"))? + 1;
        let hard = HardState::decode(&*decoded(Key::Hard, "its term")?);
        let hard = hard.map_err(|_| damaged("its term"))?;
        let bounds = Bounds::from_bytes(&decoded(Key::Bounds, "its size")?);
        let bounds = bounds.ok_or_else(|| damaged("its size"))?;
        let metadata = get(&db, path, Key::Metadata)?.unwrap_or_default();
        let metadata = SnapshotMetadata::decode(&*metadata).map_err(|_| damaged("its snapshot"))?;
        let (path, terms) = (path.to_owned(), VecDeque::new());
        let mut store = Self { db, path, identity, boot, hard, metadata, bounds, terms };
        store.load()?;
        let mut batch = WriteBatch::default();
        batch.put(Key::Boot.name(), boot.to_be_bytes());
        write_synced(&store.db, &store.path, batch)?;
        Ok(store)
    }

    /// Reads all entries, and sees that everything fits together: raft would panic later.
    fn load(&mut self) -> Result<(), StoreError> {
        let Bounds { before, before_term, last } = self.bounds;
        let mut terms = VecDeque::new();
        self.read(before + 1..last + 1, |entry, _| {
            terms.push_back(entry.term);
            true
        })?;
        self.terms = terms;
        let after = self.db.get_cf(log_of(&self.db), value::index_key(last + 1));
        if after.map_err(|error| self.error(error))?.is_some() {
            return Err(self.damaged(format!("it has an entry behind its last one, {last}")));
        }
        let SnapshotMetadata { index, term, .. } = self.metadata;
        let commit = self.hard.commit;
        let fits = (before..=last).contains(&index)
            && (index..=last).contains(&commit)
            && super::Store::term(self, index) == Some(term);
        if !fits {
            let detail = format!(
                "it has the entries {} to {last}, a snapshot up to {index} of term {term} \
                 (before: {before_term}), and {commit} are said to be committed",
                before + 1
            );
            return Err(self.damaged(detail));
        }
        Ok(())
    }
}

fn write_synced(db: &DB, path: &Path, batch: WriteBatch) -> Result<(), StoreError> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options).map_err(|error| store_error(path, error))
}

fn check_marker(path: &Path, marker: Option<Vec<u8>>, expected: Identity) -> Result<(), OpenError> {
    let path = || path.to_owned();
    let Some(bytes) = marker else { return Err(OpenError::Missing { path: path() }) };
    if let Some(found) = bytes.first().copied().filter(|version| *version != value::VERSION) {
        return Err(OpenError::Format { path: path(), found });
    }
    match Marker::from_bytes(&bytes) {
        Some(marker) if marker.identity == expected => Ok(()),
        Some(marker) => Err(OpenError::Foreign { path: path(), found: marker.identity, expected }),
        None => {
            let (path, detail) = (path().display().to_string(), "its marker is none".to_owned());
            Err(StoreError::Damaged { path, detail }.into())
        }
    }
}
