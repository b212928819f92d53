//! Losses of power, and disks that fail.
//!
//! A loss of power is played on a copy of an open store: of each file, what was written after the
//! last barrier is kept, cut off, zeroed, or the whole file is gone; the log of the index is cut
//! off anywhere behind the barrier; and the machine is under another boot.

use crate::common::{
    Tree, assert_sound, blob, has_record, open, options, put_blobs, put_record, put_tree,
    read_tree, tree,
};
use cache::store::disk::{Budget, Hooks};
use cache::store::{DiskStore, Store, StoreError};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below.max(1)
    }
}

/// All files under a directory, with their sizes.
fn sizes(root: &Path) -> BTreeMap<PathBuf, u64> {
    fn walk(at: &Path, root: &Path, sizes: &mut BTreeMap<PathBuf, u64>) {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                walk(&entry.path(), root, sizes);
            } else {
                sizes.insert(entry.path().strip_prefix(root).unwrap().to_owned(), metadata.len());
            }
        }
    }
    let mut sizes = BTreeMap::new();
    walk(root, root, &mut sizes);
    sizes
}

/// Copies a store as it would be found after the power came back.
fn lose_power(from: &Path, to: &Path, safe: &BTreeMap<PathBuf, u64>, dice: &mut Dice) {
    for shard in 0..=255u8 {
        fs::create_dir_all(to.join(format!("blobs/{shard:02x}"))).unwrap();
    }
    for (name, size) in sizes(from) {
        let dest = to.join(&name);
        fs::create_dir_all(dest.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), &dest).unwrap();
        let safe = safe.get(&name).copied();
        let is_bytes = name.starts_with("segments") || name.starts_with("blobs");
        let is_log = name.extension().is_some_and(|e| e == "log");
        if !(is_bytes || is_log && safe.is_some()) || safe == Some(size) {
            continue;
        }
        let keep = safe.unwrap_or(0) + dice.roll(size - safe.unwrap_or(0) + 1);
        let file = OpenOptions::new().write(true).open(&dest).unwrap();
        match dice.roll(4) {
            0 => {}
            1 if is_bytes => {
                file.set_len(keep).unwrap();
                file.set_len(size).unwrap();
            }
            2 if is_bytes && safe.is_none() => fs::remove_file(&dest).unwrap(),
            _ => file.set_len(keep).unwrap(),
        }
    }
    fs::write(to.join("state"), "open another-boot\n").unwrap();
}

fn some_tree(n: u64, dice: &mut Dice) -> Tree {
    let large = 260_000 + dice.roll(500_000) as usize;
    tree(n, &[10, 5_000, dice.roll(200_000) as usize, 70_000, 0, large])
}

#[test]
fn what_a_barrier_covered_outlives_a_loss_of_power() {
    let mut lost = 0;
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = temp.path().join("store");
        let options = options().segment_bytes(1 << 20);
        let store = DiskStore::open(&path, options.clone()).unwrap();
        let trees: Vec<Tree> = (0..10).map(|n| some_tree(seed * 100 + n, &mut dice)).collect();
        let (before, after) = trees.split_at(dice.roll(10) as usize);
        for (tree, n) in before.iter().zip(0..) {
            put_tree(&store, tree);
            put_record(&store, n, tree, None);
            store.chunks(&tree.blobs[5].0).unwrap();
        }
        if dice.roll(2) == 0 {
            put_tree(&store, &some_tree(seed * 100 + 50, &mut dice));
            store.collect(Budget::bytes(u64::MAX)).unwrap();
        }
        store.barrier().unwrap();
        let safe = sizes(&path);
        for (tree, n) in after.iter().zip(100..) {
            put_tree(&store, tree);
            put_record(&store, n, tree, None);
            store.chunks(&tree.blobs[5].0).unwrap();
        }
        let copy = temp.path().join("copy");
        lose_power(&path, &copy, &safe, &mut dice);
        let found = DiskStore::open(&copy, options.clone()).unwrap();
        assert_sound(&found);
        for (tree, n) in before.iter().zip(0..) {
            assert!(has_record(&found, n));
            read_tree(&found, tree);
        }
        for (tree, n) in after.iter().zip(100..) {
            if has_record(&found, n) {
                read_tree(&found, tree);
            } else {
                lost += 1;
            }
            put_tree(&found, tree);
            read_tree(&found, tree);
        }
        assert_sound(&found);
        drop(found);
        assert_sound(&DiskStore::open(&copy, options).unwrap());
    }
    assert!(lost > 50, "the test loses something: {lost}");
}

#[test]
fn what_was_found_right_is_not_looked_at_again() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = temp.path().join("store");
    let store = open(&path);
    put_tree(&store, &tree(1, &[1000, 400_000]));
    let copy = temp.path().join("copy");
    lose_power(&path, &copy, &sizes(&path), &mut Dice(0));
    drop(open(&copy));
    assert_eq!(fs::read_to_string(copy.join("state")).unwrap(), "closed\n");
    assert_sound(&open(&copy));
}

/// Where the store of the next test is, and what was safe when its collection came to deleting.
static WATCHED: Mutex<Option<PathBuf>> = Mutex::new(None);
static SAFE: Mutex<Option<BTreeMap<PathBuf, u64>>> = Mutex::new(None);

/// Before bytes are deleted, the index has been synced.
fn watch(step: &'static str) {
    if ["delete file", "delete segment"].contains(&step)
        && let Some(path) = WATCHED.lock().unwrap().as_deref()
    {
        *SAFE.lock().unwrap() = Some(sizes(path));
    }
}

#[test]
fn a_collection_outlives_a_loss_of_power() {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = temp.path().join("store");
        let hooks = Hooks { step: watch, ..Hooks::default() };
        let options = options().segment_bytes(1 << 20).hooks(hooks);
        let store = DiskStore::open(&path, options.clone()).unwrap();
        let trees: Vec<Tree> = (0..12).map(|n| some_tree(seed * 100 + n, &mut dice)).collect();
        let kept: Vec<usize> = (0..12).filter(|_| dice.roll(3) == 0).collect();
        trees.iter().for_each(|tree| put_tree(&store, tree));
        kept.iter().for_each(|n| put_record(&store, *n as u64, &trees[*n], None));
        store.barrier().unwrap();
        *WATCHED.lock().unwrap() = Some(path.clone());
        store.collect(Budget::bytes(u64::MAX)).unwrap();
        *WATCHED.lock().unwrap() = None;
        let safe = SAFE.lock().unwrap().take().expect("something was deleted");
        let copy = temp.path().join("copy");
        lose_power(&path, &copy, &safe, &mut dice);
        let found = DiskStore::open(&copy, options).unwrap();
        assert_sound(&found);
        for n in kept {
            assert!(has_record(&found, n as u64));
            read_tree(&found, &trees[n]);
        }
    }
}

static FAILING: AtomicBool = AtomicBool::new(false);
static FAILED: AtomicUsize = AtomicUsize::new(0);

fn failing_sync(file: &File) -> io::Result<()> {
    if FAILING.load(Ordering::SeqCst) {
        FAILED.fetch_add(1, Ordering::SeqCst);
        return Err(io::Error::from_raw_os_error(5));
    }
    file.sync_data()
}

#[test]
fn a_disk_that_refuses_a_sync_is_not_asked_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let hooks = Hooks { sync: failing_sync, ..Hooks::default() };
    let store = DiskStore::open(&path, options().hooks(hooks)).unwrap();
    let (safe, unsafe_one) = (tree(1, &[100, 300_000]), tree(2, &[100, 300_000]));
    put_tree(&store, &safe);
    store.barrier().unwrap();
    put_tree(&store, &unsafe_one);
    FAILING.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.barrier().unwrap_err();
        assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains("Check the disk"), "{error}");
    }
    assert_eq!(FAILED.load(Ordering::SeqCst), 1);
    FAILING.store(false, Ordering::SeqCst);
    assert!(matches!(store.barrier(), Err(StoreError::Poisoned { .. })));
    let put = store.put_blobs(&[blob(3, 10)]);
    assert!(matches!(put, Err(StoreError::Poisoned { .. })));
    assert!(matches!(store.writer().map(|_| ()), Err(StoreError::Poisoned { .. })));
    assert!(matches!(store.collect(Budget::bytes(0)), Err(StoreError::Poisoned { .. })));
    read_tree(&store, &safe);
    drop(store);
    assert!(!path.join("state").exists(), "the next start has to look at everything");
    let store = open(&path);
    read_tree(&store, &safe);
    put_tree(&store, &unsafe_one);
    put_blobs(&store, &[blob(3, 10)]);
    store.barrier().unwrap();
    assert_sound(&store);
}

#[test]
fn many_who_wait_for_a_barrier_share_it() {
    static SYNCS: AtomicUsize = AtomicUsize::new(0);
    fn slow_sync(file: &File) -> io::Result<()> {
        SYNCS.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(5));
        file.sync_data()
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let hooks = Hooks { sync: slow_sync, ..Hooks::default() };
    let store = DiskStore::open(&path, options().hooks(hooks)).unwrap();
    std::thread::scope(|scope| {
        for t in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..10 {
                    put_blobs(store, &[blob(t * 100 + i, 1000)]);
                    store.barrier().unwrap();
                }
            });
        }
    });
    let syncs = SYNCS.load(Ordering::SeqCst);
    assert!(syncs < 100, "{syncs} syncs for 160 barriers");
}
