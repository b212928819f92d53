use super::*;
use crate::raft::driver::NodeId;
use crate::raft::driver::store::beginning;
use proptest::prelude::*;
use proto::id::Millis;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

const ME: Identity = identity(1);

const fn identity(node: u64) -> Identity {
    Identity { cluster: ClusterId([7; 16]), node: NodeId::new(node).unwrap() }
}

/// In memory, where nothing waits for a disk.
fn dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn create(path: &Path) {
    let voters = Beginning::Voters(vec![ME.node]);
    RocksStore::create(path, ME, Millis(1), &voters).unwrap();
}

fn open(path: &Path) -> RocksStore {
    RocksStore::open(path, ME).unwrap_or_else(|error| panic!("{error}"))
}

fn entry(index: u64, term: u64) -> Entry {
    let data = vec![term as u8; (index % 50) as usize];
    Entry { index, term, data, context: vec![1], ..Entry::default() }
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let (Snapshot { metadata, .. }, _) = beginning(&[ME.node]);
    let metadata = SnapshotMetadata { index, term, ..metadata.unwrap() };
    Snapshot { data: vec![9; (index % 1000) as usize], metadata: Some(metadata) }
}

fn append(store: &mut RocksStore, entries: &[Entry], commit: u64) -> Result<(), StoreError> {
    let hard = HardState { term: 9, vote: 1, commit };
    let durability = Durability::Synced;
    store.write(&Write { snapshot: None, entries, hard: &hard, durability })
}

/// What the store should have, in the plainest way.
#[derive(Debug, Clone)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    /// The terms of all entries that ever were in the log and were not replaced.
    terms: BTreeMap<u64, u64>,
    before: u64,
    snapshot: Snapshot,
    hard: HardState,
    boots: u64,
}

impl Model {
    fn new() -> Self {
        let (snapshot, hard) = beginning(&[ME.node]);
        let (entries, terms) = (BTreeMap::new(), [(1, 1)].into());
        Self { entries, terms, before: 1, snapshot, hard, boots: 1 }
    }

    fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.before, |(index, _)| *index)
    }

    fn put(&mut self, entries: &[Entry]) {
        let first = entries[0].index;
        self.entries.split_off(&first);
        self.terms.split_off(&first);
        self.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        self.terms.extend(entries.iter().map(|entry| (entry.index, entry.term)));
    }

    fn check(&self, store: &RocksStore) {
        let (first, last) = (self.before + 1, self.last());
        assert_eq!((store.first(), store.last()), (first, last));
        assert_eq!(store.boot(), self.boots);
        assert_eq!(store.hard_state(), self.hard);
        assert_eq!(store.snapshot_metadata(), self.snapshot.get_metadata());
        assert_eq!(store.snapshot().unwrap(), self.snapshot);
        for index in first.saturating_sub(3)..last + 3 {
            let here = (self.before..=last).contains(&index);
            let expected = self.terms.get(&index).copied().filter(|_| here);
            assert_eq!(store.term(index), expected, "the term of {index}");
        }
        let all: Vec<Entry> = self.entries.values().cloned().collect();
        assert_eq!(store.entries(first..last + 1, u64::MAX).unwrap(), all);
        // One at least, however few bytes there may be.
        let latest = store.entries(last.max(first)..last + 1, 0).unwrap();
        assert_eq!(latest.last(), all.last());
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// Entries of a new term, so many before the end of the log.
    Append {
        back: u64,
        count: u64,
    },
    /// A snapshot of so many entries before the end, that keeps so many.
    Compact {
        back: u64,
        keep: u64,
    },
    /// A snapshot from a leader, and entries behind it.
    Install {
        ahead: u64,
        count: u64,
    },
    Vote,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u64..6, 1u64..12).prop_map(|(back, count)| Op::Append { back, count }),
        2 => (0u64..6, 0u64..9).prop_map(|(back, keep)| Op::Compact { back, keep }),
        1 => (0u64..9, 0u64..4).prop_map(|(ahead, count)| Op::Install { ahead, count }),
        1 => Just(Op::Vote),
        2 => Just(Op::Reopen),
    ]
}

/// Does the same to both; `term` rises with each step.
fn apply(op: &Op, term: u64, store: &mut RocksStore, model: &mut Model) {
    let durability = if term.is_multiple_of(3) { Durability::Lazy } else { Durability::Synced };
    match *op {
        Op::Append { back, count } => {
            // Never below what the snapshot has.
            let lowest = model.before.max(model.snapshot.get_metadata().index);
            let first = model.last().saturating_sub(back).max(lowest) + 1;
            let entries: Vec<Entry> = (first..first + count).map(|i| entry(i, term)).collect();
            model.hard = HardState { term, vote: 0, commit: lowest };
            model.put(&entries);
            let (hard, entries) = (&model.hard, &entries[..]);
            store.write(&Write { snapshot: None, entries, hard, durability }).unwrap();
        }
        Op::Compact { back, keep } => {
            let index = model.last().saturating_sub(back).max(model.snapshot.get_metadata().index);
            let first = (index + 1).saturating_sub(keep).max(model.before + 1);
            model.snapshot = snapshot(index, model.terms[&index]);
            model.hard.commit = model.hard.commit.max(index);
            model.before = first - 1;
            model.entries = model.entries.split_off(&first);
            store.compact(&model.snapshot, first, &model.hard).unwrap();
        }
        Op::Install { ahead, count } => {
            let index = model.last() + ahead;
            model.snapshot = snapshot(index, term);
            model.hard = HardState { term, vote: 1, commit: index };
            model.entries.clear();
            (model.before, model.terms) = (index, [(index, term)].into());
            let entries: Vec<Entry> = (0..count).map(|n| entry(index + 1 + n, term)).collect();
            if !entries.is_empty() {
                model.put(&entries);
            }
            let (snapshot, entries, hard) = (Some(&model.snapshot), &entries[..], &model.hard);
            store.write(&Write { snapshot, entries, hard, durability }).unwrap();
        }
        Op::Vote => {
            model.hard = HardState { term, vote: 2, ..model.hard.clone() };
            let hard = &model.hard;
            store.write(&Write { snapshot: None, entries: &[], hard, durability }).unwrap();
        }
        Op::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_store_does_what_a_plain_map_does(ops in prop::collection::vec(op(), 1..40)) {
        let dir = dir();
        create(dir.path());
        let (mut store, mut model) = (open(dir.path()), Model::new());
        for (op, term) in ops.iter().zip(2..) {
            apply(op, term, &mut store, &mut model);
            if matches!(op, Op::Reopen) {
                drop(store);
                store = open(dir.path());
                model.boots += 1;
            }
            model.check(&store);
        }
        drop(store);
        model.boots += 1;
        model.check(&open(dir.path()));
    }
}

#[test]
fn entries_come_in_portions() {
    let dir = dir();
    create(dir.path());
    let mut store = open(dir.path());
    let entries: Vec<Entry> = (2..102).map(|index| entry(index, 1)).collect();
    append(&mut store, &entries, 1).unwrap();
    let portion = store.entries(2..102, 300).unwrap();
    assert!(portion.len() > 1 && portion.len() < 50, "{}", portion.len());
    assert_eq!(portion, entries[..portion.len()]);
}

/// How often RocksDB has synced its log, as it says itself.
fn syncs(store: &RocksStore) -> u64 {
    let stats = store.db.property_value("rocksdb.dbstats").unwrap().unwrap();
    let line = stats.lines().find(|line| line.starts_with("Cumulative WAL:")).unwrap();
    let (before, _) = line.split_once(" syncs").unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_must_be_safe_is_synced_once() {
    let dir = dir();
    create(dir.path());
    let mut store = open(dir.path());
    let hard = HardState { term: 1, vote: 1, commit: 1 };
    let mut write = |entries: &[Entry], durability| {
        let before = syncs(&store);
        store.write(&Write { snapshot: None, entries, hard: &hard, durability }).unwrap();
        syncs(&store) - before
    };
    let entries: Vec<Entry> = (2..102).map(|index| entry(index, 1)).collect();
    assert_eq!(write(&entries, Durability::Synced), 1, "a hundred entries, term and vote");
    assert_eq!(write(&[], Durability::Lazy), 0);
    assert_eq!(write(&[], Durability::Synced), 1);
    let before = syncs(&store);
    store.compact(&snapshot(50, 1), 40, &HardState { commit: 50, ..hard }).unwrap();
    assert_eq!(syncs(&store) - before, 1);
}

#[test]
fn a_gap_is_refused() {
    let dir = dir();
    create(dir.path());
    let mut store = open(dir.path());
    append(&mut store, &[entry(2, 1)], 1).unwrap();
    for index in [0, 1, 4] {
        let error = append(&mut store, &[entry(index, 1)], 1).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    assert!(store.compact(&snapshot(9, 1), 10, &HardState::default()).is_err());
    assert_eq!(store.last(), 2);
}

#[test]
fn a_log_has_one_owner() {
    let dir = dir();
    let path = dir.path().join("log");
    let missing = RocksStore::open(&path, ME).err().unwrap();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    create(&path);
    let again = RocksStore::create(&path, ME, Millis(2), &Beginning::Join).unwrap_err();
    assert!(matches!(again, OpenError::Exists { .. }), "{again}");

    let store = open(&path);
    assert_eq!((store.identity(), store.path()), (ME, path.as_path()));
    let locked = RocksStore::open(&path, ME).err().unwrap();
    assert!(matches!(locked, OpenError::Locked { .. }), "{locked}");
    drop(store);

    let elsewhere = Identity { cluster: ClusterId([8; 16]), ..ME };
    for other in [elsewhere, identity(2)] {
        let foreign = RocksStore::open(&path, other).err().unwrap();
        assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
        assert!(foreign.to_string().contains("node 1 of the cluster 0707"), "{foreign}");
    }
    assert_eq!(open(&path).boot(), 2, "a start that was refused is none");
}

#[test]
fn a_log_that_was_not_made_completely_is_made_again() {
    let dir = dir();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(DB::open_cf(&options, dir.path(), [LOG]).unwrap());
    let missing = RocksStore::open(dir.path(), ME).err().unwrap();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    create(dir.path());
    assert_eq!(open(dir.path()).boot(), 1);
}

#[test]
fn a_log_that_can_not_be_found_is_not_begun_anew() {
    let dir = dir();
    create(dir.path());
    std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
    let opened = RocksStore::open(dir.path(), ME).err().unwrap();
    let created = RocksStore::create(dir.path(), ME, Millis(1), &Beginning::Join).unwrap_err();
    for error in [opened, created] {
        assert!(error.to_string().contains("CURRENT is missing"), "{error}");
    }
}

#[test]
fn an_empty_log_waits_for_a_snapshot() {
    let dir = dir();
    RocksStore::create(dir.path(), ME, Millis(1), &Beginning::Join).unwrap();
    let mut store = open(dir.path());
    assert_eq!((store.first(), store.last(), store.term(0)), (1, 0, Some(0)));
    assert_eq!(store.snapshot_metadata(), &SnapshotMetadata::default());
    let (snapshot, hard) = (snapshot(50, 3), HardState { term: 3, vote: 0, commit: 50 });
    let durability = Durability::Synced;
    store
        .write(&Write { snapshot: Some(&snapshot), entries: &[], hard: &hard, durability })
        .unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.first(), store.last(), store.term(50)), (51, 50, Some(3)));
}

/// Writes raw values, as no store does.
fn spoil(path: &Path, change: impl FnOnce(&DB, &mut WriteBatch)) {
    let store = open(path);
    let mut batch = WriteBatch::default();
    change(&store.db, &mut batch);
    store.db.write(batch).unwrap();
}

type Spoil = fn(&DB, &mut WriteBatch);

#[test]
fn what_does_not_fit_together_is_said() {
    let cases: [(&str, Spoil); 9] = [
        ("entry 5 is missing", |db, batch| batch.delete_cf(log_of(db), index_key(5))),
        ("entry 5 is no entry", |db, batch| batch.put_cf(log_of(db), index_key(5), [255])),
        ("behind its last one, 11", |db, batch| batch.put_cf(log_of(db), index_key(12), [1])),
        ("7 are said to be committed", |_, batch| {
            let hard = HardState { term: 1, vote: 1, commit: 7 };
            batch.put(Key::Hard.name(), hard.encode_to_vec());
        }),
        ("12 are said to be committed", |_, batch| {
            let hard = HardState { term: 1, vote: 1, commit: 12 };
            batch.put(Key::Hard.name(), hard.encode_to_vec());
        }),
        ("its size is missing", |_, batch| batch.delete(Key::Bounds.name())),
        ("its term is missing", |_, batch| batch.put(Key::Hard.name(), [255])),
        ("starts is missing", |_, batch| batch.put(Key::Boot.name(), [1])),
        ("a snapshot up to 8 of term 4", |_, batch| {
            let metadata = snapshot(8, 4).get_metadata().encode_to_vec();
            batch.put(Key::Metadata.name(), metadata);
        }),
    ];
    for (expected, change) in cases {
        let dir = dir();
        create(dir.path());
        let mut store = open(dir.path());
        let entries: Vec<Entry> = (2..12).map(|index| entry(index, 1)).collect();
        append(&mut store, &entries, 9).unwrap();
        let hard = HardState { term: 1, vote: 1, commit: 9 };
        store.compact(&snapshot(8, 1), 4, &hard).unwrap();
        drop(store);
        spoil(dir.path(), change);
        let error = RocksStore::open(dir.path(), ME).err().expect(expected);
        let text = error.to_string();
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(text.contains("join as a new node"), "{text}");
        assert_eq!(error.class(), proto::error::Class::Corrupt);
    }
}

#[test]
fn another_format_is_not_touched() {
    let dir = dir();
    create(dir.path());
    spoil(dir.path(), |_, batch| batch.put(Key::Marker.name(), [2, 0]));
    let error = RocksStore::open(dir.path(), ME).err().unwrap();
    assert!(matches!(error, OpenError::Format { found: 2, .. }), "{error}");
}

/// Each file of a closed log is damaged in the middle.
#[test]
fn damaged_files_are_said() {
    let dir = dir();
    let path = dir.path().join("log");
    create(&path);
    let mut store = open(&path);
    for n in 0..200 {
        append(&mut store, &[entry(2 + n, 1)], 1).unwrap();
    }
    store.db.flush_cf(log_of(&store.db)).unwrap();
    for n in 200..400 {
        append(&mut store, &[entry(2 + n, 1)], 1).unwrap();
    }
    drop(store);
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&path)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
        })
        .collect();
    let mut kinds = BTreeSet::new();
    for (name, bytes) in &files {
        let kind = name.trim_matches(|c: char| c.is_ascii_digit());
        if bytes.is_empty() || ![".sst", ".log", "MANIFEST-"].contains(&kind) {
            continue;
        }
        kinds.insert(kind);
        // RocksDB throws away what it has no use for, so that each case has files of its own.
        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for (other, bytes) in &files {
            std::fs::write(copy.join(other), bytes).unwrap();
        }
        let mut bytes = bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(copy.join(name), &bytes).unwrap();
        let error =
            RocksStore::open(&copy, ME).err().unwrap_or_else(|| panic!("{name} is damaged"));
        let text = error.to_string();
        assert!(text.contains(&copy.display().to_string()), "{name}: {text}");
        assert!(text.contains("join as a new node"), "{name}: {text}");
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert_eq!(open(&path).last(), 401);
}
