//! Many threads at once: builds that pin, put and read, while others collect and verify.

use crate::common::{Tree, assert_sound, meta, options, put_record, put_tree, read_tree, tree};
use cache::store::disk::{Budget, Prune};
use cache::store::{DiskStore, Store, StoreError, Table};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Trees that several builds use, so that one puts what another's collection is about to take.
const SHARED: u64 = 6;
const BUILDS: u64 = 4;
const ROUNDS: u64 = 40;

fn shared(n: u64) -> Tree {
    tree(n % SHARED, &[10, 50_000, 9_000, 300_000, 1, 77_777])
}

/// One build: everything that it put, saw or read under its pin is there until the pin goes.
fn build(store: &DiskStore, thread: u64, dir: &Path) {
    for round in 0..ROUNDS {
        let pin = store.pin();
        let tree = shared(thread + round);
        put_tree(store, &tree);
        put_record(store, round % 10, &tree, None);
        let other = shared(thread * 7 + round * 3);
        let seen = store.missing_trees(&[other.root.0]).unwrap().is_empty();
        if round % 5 == 0 {
            store.put_row(Table::CacheMount, &[thread as u8], tree.root.0.as_bytes()).unwrap();
        }
        if round % 7 == 0 {
            store.barrier().unwrap();
        }
        for (i, (id, bytes)) in tree.blobs.iter().enumerate() {
            let dest = dir.join(format!("{thread}-{i}"));
            store.place(id, &meta(0o600), &dest).unwrap();
            assert_eq!(std::fs::read(&dest).unwrap(), bytes[..]);
            std::fs::remove_file(dest).unwrap();
        }
        read_tree(store, &tree);
        assert_eq!(store.chunks(&tree.blobs[3].0).unwrap().size(), 300_000);
        if seen {
            read_tree(store, &other);
        }
        drop(pin);
    }
}

/// Who has no pin may find things missing, but never broken.
fn visit(store: &DiskStore, n: u64) {
    let tree = shared(n);
    let refused = |error: &StoreError| match error {
        StoreError::NoBlob(_) | StoreError::NoTree(_) | StoreError::Incomplete { .. } => {}
        error => panic!("{error}"),
    };
    for (id, bytes) in &tree.blobs {
        store.read(id).map(|read| assert_eq!(read, bytes)).unwrap_or_else(|e| refused(&e));
    }
    store.put_nodes(&tree.nodes).unwrap_or_else(|e| refused(&e));
    for bytes in &tree.nodes {
        let node = store.node(&proto::tree::node_id(bytes));
        node.map(|_| ()).unwrap_or_else(|e| refused(&e));
    }
}

fn until(done: &AtomicBool, mut work: impl FnMut(u64)) {
    let mut n = 0;
    while !done.load(Ordering::SeqCst) {
        work(n);
        n += 1;
    }
}

#[test]
fn builds_and_collections_do_not_disturb_each_other() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = options().segment_bytes(1 << 20).node_cache_bytes(1 << 20);
    let store = DiskStore::open(&temp.path().join("store"), options).unwrap();
    let done = AtomicBool::new(false);
    let freed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (store, done, freed, dir) = (&store, &done, &freed, temp.path());
        let builds: Vec<_> =
            (0..BUILDS).map(|t| scope.spawn(move || build(store, t, dir))).collect();
        scope.spawn(move || {
            until(done, |n| {
                let prune = if n % 3 == 0 { Prune::All } else { Prune::KeepBytes(900_000) };
                freed.fetch_add(store.prune(prune).unwrap().freed_bytes, Ordering::SeqCst);
            });
        });
        scope.spawn(move || until(done, |n| visit(store, n)));
        scope.spawn(move || until(done, |_| assert_sound(store)));
        let results: Vec<_> = builds.into_iter().map(|build| build.join()).collect();
        done.store(true, Ordering::SeqCst);
        results.into_iter().for_each(|result| result.expect("a build got what it had pinned"));
    });
    assert!(freed.load(Ordering::SeqCst) > 0, "something was collected");
    store.collect(Budget::bytes(0)).unwrap();
    assert_sound(&store);
    assert_eq!(store.usage().unwrap().packed.number, 0);
}
