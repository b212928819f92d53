//! What collection keeps, and what it takes.

use crate::common::{
    Tree, assert_sound, blob, content_key, def_key, file, has_record, open, options, put_blobs,
    put_record, put_tree, read_tree, tree,
};
use cache::mounts::{Generation, How};
use cache::store::disk::{Budget, Hooks, Prune};
use cache::store::{
    DiskStore, Image, ImageLayer, LayerBlob, OciBlob, Options, PackedLayer, Persisted, Store,
    StoreError, Table, mount_of, mount_row,
};
use proto::id::{BlobId, Millis, OciDigest, Scope, WorkerId};
use proto::platform::Platform;
use proto::tree::Dir;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_000_000) };
}

/// A store whose clock only goes when told to.
fn clocked() -> Options {
    let hooks = Hooks { now: || Millis(NOW.get()), ..Hooks::default() };
    options().hooks(hooks)
}

fn wait(seconds: u64) {
    NOW.set(NOW.get() + 1000 * seconds);
}

/// A megabyte or so: small files, and a large one.
fn megabyte(seed: u64) -> Tree {
    tree(seed, &[100_000, 100_000, 100_000, 100_000, 100_000, 1, 500_000])
}

fn is_whole(store: &DiskStore, tree: &Tree) -> bool {
    let here = store.missing_trees(&[tree.root.0]).unwrap().is_empty();
    if here {
        read_tree(store, tree);
    }
    here
}

fn is_gone(store: &DiskStore, tree: &Tree) -> bool {
    let ids: Vec<BlobId> = tree.blobs.iter().map(|(id, _)| *id).collect();
    store.missing_blobs(&ids).unwrap().len() == ids.len() && !is_whole(store, tree)
}

#[test]
fn what_nothing_refers_to_goes() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let (kept, dead) = (megabyte(1), megabyte(2));
    put_tree(&store, &kept);
    put_tree(&store, &dead);
    let log = blob(99, 1000);
    put_blobs(&store, std::slice::from_ref(&log));
    put_record(&store, 1, &kept, Some(log.0));
    let report = store.collect(Budget::bytes(u64::MAX)).unwrap();
    assert_eq!((report.packed.number, report.large.number), (6, 1));
    assert_eq!(report.trees.number, dead.nodes.len() as u64);
    assert_eq!((report.records, report.rows), (0, 0));
    assert!(is_whole(&store, &kept) && has_record(&store, 1));
    assert_eq!(store.read(&log.0).unwrap(), log.1);
    assert!(is_gone(&store, &dead));
    assert_sound(&store);
    put_tree(&store, &dead);
    assert!(is_whole(&store, &dead), "a put brings it back");
}

#[test]
fn what_was_used_latest_stays() {
    let temp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&temp.path().join("store"), clocked()).unwrap();
    let trees: Vec<Tree> = (0..4).map(megabyte).collect();
    for (tree, n) in trees.iter().zip(0..) {
        put_tree(&store, tree);
        put_record(&store, n, tree, None);
        wait(10);
    }
    assert!(has_record(&store, 0), "the oldest is used again");
    let report = store.collect(Budget::bytes(2_500_000)).unwrap();
    assert_eq!(report.records, 2);
    let kept: Vec<u64> = (0..4).filter(|n| has_record(&store, *n)).collect();
    assert_eq!(kept, [0, 3]);
    for (i, tree) in trees.iter().enumerate() {
        assert!(if i == 0 || i == 3 { is_whole(&store, tree) } else { is_gone(&store, tree) });
    }
    let aliases = store.aliases(&Scope::trusted(), &[def_key(0), def_key(1)]).unwrap();
    assert!(aliases[0].is_some() && aliases[1].is_none(), "aliases go with their records");
    assert_sound(&store);
}

#[test]
fn last_uses_outlive_the_process() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let trees: Vec<Tree> = (0..3).map(megabyte).collect();
    {
        let store = DiskStore::open(&path, clocked()).unwrap();
        for (tree, n) in trees.iter().zip(0..) {
            put_tree(&store, tree);
            put_record(&store, n, tree, None);
            wait(10);
        }
        assert!(has_record(&store, 0));
    }
    let store = DiskStore::open(&path, clocked()).unwrap();
    store.collect(Budget::bytes(1_500_000)).unwrap();
    assert_eq!((0..3).filter(|n| has_record(&store, *n)).collect::<Vec<_>>(), [0]);
}

#[test]
fn one_that_does_not_fit_makes_no_room_for_itself() {
    let temp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&temp.path().join("store"), clocked()).unwrap();
    let (small, large) = (megabyte(1), tree(2, &[5_000_000]));
    for (tree, n) in [&small, &large].into_iter().zip(0..) {
        put_tree(&store, tree);
        put_record(&store, n, tree, None);
        wait(10);
    }
    store.collect(Budget::bytes(2_000_000)).unwrap();
    assert!(is_whole(&store, &small) && is_gone(&store, &large));
}

#[test]
fn heads_of_cache_mounts_go_last() {
    let temp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&temp.path().join("store"), clocked()).unwrap();
    let (mount, step) = (megabyte(1), megabyte(2));
    put_tree(&store, &mount);
    store.put_row(Table::CacheMount, b"go-build", mount.root.0.as_bytes()).unwrap();
    wait(1000);
    put_tree(&store, &step);
    put_record(&store, 1, &step, None);
    store.collect(Budget::bytes(1_500_000)).unwrap();
    assert!(is_whole(&store, &mount) && is_gone(&store, &step));
    let report = store.prune(Prune::All).unwrap();
    assert_eq!(report.rows, 1);
    assert!(is_gone(&store, &mount));
    assert_sound(&store);
}

#[test]
fn generations_before_the_head_go_first() {
    let temp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&temp.path().join("store"), clocked()).unwrap();
    let (step, before, head) = (megabyte(1), megabyte(2), megabyte(3));
    put_tree(&store, &step);
    put_record(&store, 1, &step, None);
    wait(1000);
    for (number, tree) in [(9, &before), (10, &head)] {
        put_tree(&store, tree);
        let generation = Generation {
            number,
            tree: tree.root,
            parent: None,
            bytes: 1_000_000,
            files: 1,
            created: Millis(number),
            writer: WorkerId::parse("w").unwrap(),
            how: How::Committed,
        };
        let (key, value) = mount_row(&Scope::trusted(), "/root/.cache", &generation);
        let read = mount_of(&key, &value).unwrap();
        assert_eq!(read, (Scope::trusted(), "/root/.cache".to_owned(), generation));
        store.put_row(Table::CacheMount, &key, &value).unwrap();
    }
    assert_eq!(store.usage().unwrap().cache_mounts, 1);
    store.collect(Budget::bytes(2_500_000)).unwrap();
    assert!(is_gone(&store, &before) && is_whole(&store, &step) && is_whole(&store, &head));
    assert_sound(&store);
}

#[test]
fn what_is_old_can_be_pruned() {
    let temp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&temp.path().join("store"), clocked()).unwrap();
    let (old, new) = (megabyte(1), megabyte(2));
    put_tree(&store, &old);
    put_record(&store, 1, &old, None);
    wait(3600);
    put_tree(&store, &new);
    put_record(&store, 2, &new, None);
    wait(60);
    store.prune(Prune::OlderThan(Duration::from_secs(1800))).unwrap();
    assert!(!has_record(&store, 1) && has_record(&store, 2));
    assert!(is_gone(&store, &old) && is_whole(&store, &new));
    store.prune(Prune::KeepBytes(2_000_000)).unwrap();
    assert!(has_record(&store, 2));
    store.prune(Prune::KeepBytes(1000)).unwrap();
    assert!(!has_record(&store, 2));
}

fn image(config: BlobId, tree: &Tree, original: OciDigest) -> Image {
    let diff_id = OciDigest::from_bytes([1; 32]);
    let original = Some(("tar+gzip".to_owned(), original, 7));
    Image {
        id: OciDigest::from_bytes([0; 32]),
        platform: Platform::parse("linux/amd64").unwrap(),
        config,
        layers: vec![ImageLayer { diff_id, diff: Some(tree.root), original }],
        tagged_ms: 0,
        created_ms: 0,
        size: 0,
        references: Vec::new(),
        archive: None,
    }
}

#[test]
fn images_and_all_they_need_stay() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let tree = megabyte(1);
    put_tree(&store, &tree);
    let (config, layer, other) = (blob(10, 2000), blob(11, 400_000), blob(12, 30_000));
    put_blobs(&store, &[config.clone(), layer.clone(), other.clone()]);
    let digest = OciDigest::from_bytes([5; 32]);
    let row = |blob: &(BlobId, bytes::Bytes)| {
        OciBlob { blob: blob.0, size: blob.1.len() as u64, repository: None }.to_bytes()
    };
    store.put_row(Table::OciBlob, digest.as_bytes(), &row(&layer)).unwrap();
    store.put_row(Table::OciBlob, &[6; 32], &row(&other)).unwrap();
    let packed = PackedLayer { digest, blob: other.0, size: other.1.len() as u64 };
    let packed = LayerBlob { diff_id: digest, packed: Some(packed) };
    let key = LayerBlob::key(&tree.root, cache::store::Compression::None);
    store.put_row(Table::Layer, &key, &packed.to_bytes()).unwrap();
    store.put_row(Table::Unpacked, &[7; 32], tree.root.0.as_bytes()).unwrap();
    let value = image(config.0, &tree, digest).to_bytes();
    store.put_row(Table::Image, b"app:latest", &value).unwrap();
    store.put_row(Table::Build, b"2026", b"anything").unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.images, usage.layers.number), (1, 2));
    assert!(usage.reclaimable_bytes >= 30_000, "{usage:?}");

    let report = store.prune(Prune::All).unwrap();
    assert_eq!(report.rows, 3, "all but the image, the build and the image's layer");
    assert_eq!(store.row(Table::Image, b"app:latest").unwrap(), Some(value));
    assert!(store.row(Table::Build, b"2026").unwrap().is_some());
    assert!(store.row(Table::OciBlob, digest.as_bytes()).unwrap().is_some());
    assert!(is_whole(&store, &tree));
    assert_eq!(store.read(&config.0).unwrap(), config.1);
    assert_eq!(store.read(&layer.0).unwrap(), layer.1);
    assert_eq!(store.missing_blobs(&[other.0]).unwrap(), [other.0]);
    assert_sound(&store);
    store.delete_row(Table::Image, b"app:latest").unwrap();
    store.prune(Prune::All).unwrap();
    assert!(is_gone(&store, &tree));
}

#[test]
fn what_is_used_under_a_pin_stays() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let trees: Vec<Tree> = (0..6).map(megabyte).collect();
    for tree in &trees[..5] {
        put_tree(&store, tree);
    }
    put_record(&store, 4, &trees[4], None);
    let pin = store.pin();
    put_tree(&store, &trees[5]);
    store.node(&trees[0].root.0).unwrap();
    assert!(store.missing_trees(&[trees[1].root.0]).unwrap().is_empty());
    store.read(&trees[2].blobs[0].0).unwrap();
    assert!(has_record(&store, 4));
    let second = store.pin();
    store.prune(Prune::All).unwrap();
    drop(pin);
    for i in [0, 1, 4, 5] {
        assert!(is_whole(&store, &trees[i]), "tree {i}");
    }
    assert!(is_gone(&store, &trees[3]));
    let left: Vec<BlobId> = trees[2].blobs.iter().map(|(id, _)| *id).collect();
    assert_eq!(store.missing_blobs(&left).unwrap(), left[1..]);
    assert!(has_record(&store, 4));
    assert_sound(&store);
    drop(second);
    store.prune(Prune::All).unwrap();
    assert!(trees.iter().all(|tree| is_gone(&store, tree)));
    assert_eq!(store.usage().unwrap().packed.number, 0);
}

#[test]
fn segments_of_which_little_is_left_are_written_anew() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let options = options().segment_bytes(1 << 20);
    let store = DiskStore::open(&path, options.clone()).unwrap();
    let trees: Vec<Tree> = (0..12).map(|n| tree(n, &[100_000; 4])).collect();
    for (tree, n) in trees.iter().zip(0..) {
        put_tree(&store, tree);
        if n % 4 == 0 {
            put_record(&store, n, tree, None);
        }
    }
    let before = segment_bytes(&path);
    let report = store.collect(Budget::bytes(u64::MAX)).unwrap();
    let after = segment_bytes(&path);
    assert!(report.rewritten_bytes > 0 && report.freed_bytes > 3_000_000, "{report:?}");
    assert_eq!((before, after), (4_800_000, 1_200_000));
    for tree in trees.iter().step_by(4) {
        assert!(is_whole(&store, tree));
    }
    assert_sound(&store);
    drop(store);
    let store = DiskStore::open(&path, options).unwrap();
    for tree in trees.iter().step_by(4) {
        assert!(is_whole(&store, tree));
    }
    assert_sound(&store);
    store.prune(Prune::All).unwrap();
    assert_eq!(segment_bytes(&path), 0);
}

fn segment_bytes(store: &Path) -> u64 {
    let files = std::fs::read_dir(store.join("segments")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_node_that_is_a_blob_goes_and_stays_with_its_tree() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let blob = blob(1, 10);
    put_blobs(&store, std::slice::from_ref(&blob));
    let entries = (0..5000).map(|i| file(&format!("file{i}"), &blob)).collect();
    let sealed = Dir::new(entries).seal();
    store.put_nodes(std::slice::from_ref(&sealed.bytes)).unwrap();
    let pin = store.pin();
    store.node(&sealed.dir.tree).unwrap();
    store.prune(Prune::All).unwrap();
    assert_eq!(store.node_bytes(&sealed.dir.tree).unwrap(), sealed.bytes);
    assert_sound(&store);
    drop(pin);
    store.prune(Prune::All).unwrap();
    assert!(matches!(store.node(&sealed.dir.tree), Err(StoreError::NoTree(_))));
    let usage = store.usage().unwrap();
    assert_eq!((usage.packed.number, usage.large.number, usage.trees.number), (0, 0, 0));
}

#[test]
fn a_store_over_its_budget_collects_by_itself() {
    let temp = tempfile::tempdir().unwrap();
    let options = options().budget(20_000_000).collect_automatically().segment_bytes(1 << 20);
    let store = DiskStore::open(&temp.path().join("store"), options).unwrap();
    for n in 0..60 {
        let tree = megabyte(n);
        let _pin = store.pin();
        put_tree(&store, &tree);
        put_record(&store, n, &tree, None);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.usage().unwrap().total_disk_bytes > 25_000_000 {
        assert!(Instant::now() < deadline, "{:?}", store.usage());
        std::thread::sleep(Duration::from_millis(20));
        // What woke the collector last may have come before the last put.
        put_blobs(&store, &[blob(u64::MAX, 10)]);
    }
    assert_sound(&store);
}

#[test]
fn a_store_at_its_limit_makes_room_or_refuses() {
    let temp = tempfile::tempdir().unwrap();
    let limited = |name: &str, automatic: bool| {
        let options = options().limit(10_000_000);
        let options = if automatic { options.collect_automatically() } else { options };
        DiskStore::open(&temp.path().join(name), options).unwrap()
    };
    let store = limited("refuses", false);
    let results: Vec<_> = (0..100).map(|n| store.put_blobs(&[blob(n, 200_000)])).collect();
    let full = results.iter().position(Result::is_err).unwrap();
    assert!((40..50).contains(&full), "{full}");
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert!(error.to_string().contains("limit of 10000000 bytes"), "{error}");
    assert_eq!(error.class(), proto::error::Class::Busy);
    let mut writer = store.writer().unwrap();
    let written = std::io::Write::write_all(&mut writer, &vec![1; 20 << 20]);
    assert!(written.unwrap_err().to_string().contains("limit of"));
    drop(writer);
    assert_sound(&store);

    let store = limited("makes-room", true);
    for n in 0..100 {
        store.put_blobs(&[blob(n, 200_000)]).unwrap();
    }
    let pin = store.pin();
    let results: Vec<_> = (200..300).map(|n| store.put_blobs(&[blob(n, 200_000)])).collect();
    assert!(results.iter().any(Result::is_err), "what is pinned can't make room");
    let kept = results.iter().position(Result::is_err).unwrap() as u64;
    let ids: Vec<BlobId> = (200..200 + kept).map(|n| blob(n, 200_000).0).collect();
    assert!(store.missing_blobs(&ids).unwrap().is_empty());
    drop(pin);
    store.put_blobs(&[blob(1000, 200_000)]).unwrap();
    assert_sound(&store);
}

#[test]
fn a_record_without_its_trees_is_not_answered_and_goes() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    put_record(&store, 1, &megabyte(1), None);
    assert!(!has_record(&store, 1));
    assert_eq!(store.usage().unwrap().records, 1);
    store.collect(Budget::bytes(u64::MAX)).unwrap();
    assert_eq!(store.usage().unwrap().records, 0);
    assert!(store.records(&Scope::trusted(), &[content_key(1)]).unwrap()[0].is_none());
}
