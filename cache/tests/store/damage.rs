//! Damage of every kind is found, told of, and does not spread.

use crate::common::{
    Tree, assert_sound, blob, content, has_record, meta, open, options, put_blobs, put_record,
    put_tree, read_tree, tree,
};
use cache::store::disk::{Damage, Damaged, OpenError, Phase};
use cache::store::{DiskStore, Image, Persisted, Store, StoreError, Table};
use proto::error::Class;
use proto::id::{BlobId, OciDigest};
use proto::platform::Platform;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const LARGE: usize = 3_000_000;

/// A store with a tree of small files and a large one, and a record of it; closed.
fn filled(path: &Path) -> Tree {
    let tree = tree(1, &[5000, 6000, 7000, 8000, 9000, LARGE]);
    let store = open(path);
    put_tree(&store, &tree);
    put_record(&store, 1, &tree, None);
    tree
}

fn file_of(path: &Path, id: &BlobId) -> PathBuf {
    path.join(format!("blobs/{}/{id}", &id.to_string()[..2]))
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).unwrap();
}

fn damages(store: &DiskStore) -> Vec<Damage> {
    store.verify(&mut |_| {}).unwrap()
}

/// Repairs, after which nothing is damaged; then puts everything back.
fn repair(store: &DiskStore, tree: &Tree) {
    let found = damages(store);
    let repaired = store.repair(&found).unwrap();
    assert_eq!(repaired.left, []);
    assert_sound(store);
    put_tree(store, tree);
    put_record(store, 1, tree, None);
    read_tree(store, tree);
    assert!(has_record(store, 1));
    assert_sound(store);
}

/// One way to break a blob's bytes.
type Break = fn(&Path);

const BREAKS: [(&str, Break); 3] = [
    ("a flipped bit", |path| flip(path, fs::metadata(path).unwrap().len() / 2)),
    ("a truncated file", |path| {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5001).unwrap();
    }),
    ("a lost file", |path| fs::remove_file(path).unwrap()),
];

#[test]
fn broken_blobs_are_found_and_repaired() {
    for (name, break_it) in BREAKS {
        for large in [false, true] {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("store");
            let tree = filled(&path);
            let file = if large {
                file_of(&path, &tree.blobs[5].0)
            } else {
                path.join("segments/00000000.seg")
            };
            break_it(&file);
            let store = open(&path);
            let found = damages(&store);
            assert!(!found.is_empty(), "{name}");
            for damage in &found {
                assert!(matches!(damage.what, Damaged::Blob(_)), "{name}: {damage}");
                assert_eq!(damage.path, file.canonicalize().unwrap_or(file.clone()), "{name}");
                assert!(damage.advice().contains("makes it again"));
            }
            repair(&store, &tree);
        }
    }
}

#[test]
fn broken_blobs_count_as_missing_once_they_are_read() {
    for (name, break_it) in BREAKS {
        for large in [false, true] {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("store");
            let tree = filled(&path);
            // The blob in the middle of the segment, or the large one.
            let id = tree.blobs[if large { 5 } else { 2 }].0;
            let file = file_of(&path, &id);
            break_it(&if large { file.clone() } else { path.join("segments/00000000.seg") });
            let store = open(&path);
            assert!(has_record(&store, 1), "nobody has looked yet");
            let error = store.read(&id).unwrap_err();
            let expected = match name {
                "a lost file" => matches!(error, StoreError::NoBlob(_)),
                _ => matches!(error, StoreError::Corrupt { .. }) && error.class() == Class::Corrupt,
            };
            assert!(expected, "{name}: {error}");
            assert_eq!(store.missing_blobs(&[id]).unwrap(), [id]);
            assert!(matches!(store.read(&id), Err(StoreError::NoBlob(_))));
            // What is not whole any more is not called so: its producer is asked again.
            assert_eq!(store.missing_trees(&[tree.root.0]).unwrap(), [tree.root.0]);
            assert!(!has_record(&store, 1));
            assert!(!large || !file.exists(), "it was put aside");
            repair(&store, &tree);
        }
    }
}

#[test]
fn a_stream_of_wrong_bytes_ends_with_an_error() {
    for offset in [0, 1] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("store");
        let tree = filled(&path);
        let id = tree.blobs[5].0;
        flip(&file_of(&path, &id), 2_999_999);
        let store = open(&path);
        let error = match store.open(&id, offset) {
            Ok(mut stream) => {
                let mut bytes = Vec::new();
                let error = stream.read_to_end(&mut bytes).unwrap_err();
                assert_eq!((offset, bytes.len()), (0, LARGE));
                error.downcast::<StoreError>().unwrap()
            }
            Err(error) => error,
        };
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(store.missing_blobs(&[id]).unwrap(), [id]);
        assert_eq!(fs::read_dir(path.join("quarantine")).unwrap().count(), 1);
    }
}

#[test]
fn wrong_bytes_are_not_placed() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let path = temp.path().join("store");
    let tree = filled(&path);
    let (small, large) = (tree.blobs[0].0, tree.blobs[5].0);
    let store = open(&path);
    let dest = temp.path().join("dest");
    store.place(&large, &meta(0o644), &dest).unwrap();
    fs::remove_file(&dest).unwrap();
    // Damage behind the back of the store, after it has seen that the file is right.
    flip(&file_of(&path, &large), 5);
    flip(&path.join("segments/00000000.seg"), 5);
    for id in [small, large] {
        let error = store.place(&id, &meta(0o644), &dest).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(!dest.exists());
        assert!(matches!(store.place(&id, &meta(0o644), &dest), Err(StoreError::NoBlob(_))));
    }
}

#[test]
fn a_large_blob_whose_file_is_lost_can_be_put_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let tree = filled(&path);
    let store = open(&path);
    fs::remove_file(file_of(&path, &tree.blobs[5].0)).unwrap();
    put_blobs(&store, &tree.blobs);
    read_tree(&store, &tree);
    assert_sound(&store);
}

#[test]
fn many_broken_blobs_are_repaired_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let trees: Vec<Tree> = (0..20).map(|n| tree(n, &[1000; 9])).collect();
    {
        let store = open(&path);
        trees.iter().for_each(|tree| put_tree(&store, tree));
        put_record(&store, 1, &trees[0], None);
        put_record(&store, 2, &trees[19], None);
    }
    let segment = path.join("segments/00000000.seg");
    for at in (0..100_000).step_by(500) {
        flip(&segment, at);
    }
    let store = open(&path);
    let found = damages(&store);
    assert_eq!(found.len(), 100);
    let repaired = store.repair(&found).unwrap();
    assert_eq!(repaired.blobs, 100);
    assert_sound(&store);
    assert!(!has_record(&store, 1) && has_record(&store, 2));
}

#[test]
fn an_image_whose_config_is_lost_goes_with_a_repair_only() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let config = blob(1, 3000);
    let store = open(&path);
    put_blobs(&store, std::slice::from_ref(&config));
    let image = Image {
        id: OciDigest::from_bytes([0; 32]),
        platform: Platform::parse("linux/amd64").unwrap(),
        config: config.0,
        layers: Vec::new(),
        tagged_ms: 0,
        created_ms: 0,
        size: 0,
        references: Vec::new(),
        archive: None,
    };
    store.put_row(Table::Image, b"app", &image.to_bytes()).unwrap();
    flip(&path.join("segments/00000000.seg"), 77);
    store.read(&config.0).unwrap_err();
    assert!(store.row(Table::Image, b"app").unwrap().is_some(), "a person asked to keep it");
    let found = damages(&store);
    assert!(matches!(found[..], [Damage { what: Damaged::Row(Some(Table::Image), _), .. }]));
    assert!(found[0].advice().contains("build or pull it again"));
    store.repair(&found).unwrap();
    assert!(store.row(Table::Image, b"app").unwrap().is_none());
    assert_sound(&store);
}

#[test]
fn stray_files_are_found() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let tree = filled(&path);
    let store = open(&path);
    let id = blob(77, 10).0.to_string();
    let strays = [
        path.join("core"),
        path.join("tmp/old"),
        path.join("segments/notes.txt"),
        path.join("segments/00000009.seg"),
        path.join(format!("blobs/{}/{id}", &id[..2])),
        path.join(format!("blobs/{}/{id}", if &id[..2] == "00" { "01" } else { "00" })),
        path.join("blobs/aa/readme"),
    ];
    strays.iter().for_each(|stray| fs::write(stray, "x").unwrap());
    let mut found: Vec<_> = damages(&store).into_iter().map(|d| (d.what, d.path)).collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let root = path.canonicalize().unwrap();
    let mut expected: Vec<_> = strays
        .iter()
        .map(|s| (Damaged::Stray, root.join(s.strip_prefix(&path).unwrap())))
        .collect();
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(found, expected);
    repair(&store, &tree);
    assert!(strays.iter().all(|stray| !stray.exists()));
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Breaks one byte after the other of the index's files whose names begin so, each in a copy of the
/// store; answers how many were tried.
fn flip_index(prefix: &str, suffix: &str, tries: u64) -> u64 {
    // In memory: it makes many stores.
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = temp.path().join("store");
    filled(&path);
    let mut tried = 0;
    for entry in fs::read_dir(path.join("index")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if !(name.starts_with(prefix) && name.ends_with(suffix)) {
            continue;
        }
        let len = entry.metadata().unwrap().len();
        for n in 0..tries.min(len) {
            let at = n * len / tries.min(len);
            let copy = temp.path().join("copy");
            copy_dir(&path, &copy);
            flip(&copy.join("index").join(&name), at);
            check_broken_index(&copy, &format!("byte {at} of {len} of {name}"));
            fs::remove_dir_all(copy).unwrap();
            tried += 1;
        }
    }
    tried
}

fn check_broken_index(path: &Path, what: &str) {
    match DiskStore::open(path, options()) {
        Err(error) => {
            assert!(
                matches!(error, OpenError::Index { .. } | OpenError::Store(_)),
                "{what}: {error}"
            );
            let advice = "move the store's directory away";
            assert!(error.to_string().contains(advice), "{what}: {error}");
        }
        Ok(store) => {
            let found = damages(&store);
            let index = found.iter().find(|damage| damage.what == Damaged::Index);
            let index = index.unwrap_or_else(|| panic!("{what} was not found: {found:?}"));
            assert!(index.advice().contains("move the store's directory away"));
            if let Ok(repaired) = store.repair(&found) {
                assert!(repaired.left.contains(index), "{what}: a repair can't mend it");
            }
        }
    }
}

#[test]
fn a_broken_table_of_the_index_is_found() {
    assert!(flip_index("", ".sst", 25) >= 75);
}

#[test]
fn a_broken_manifest_is_found() {
    assert!(flip_index("MANIFEST", "", 40) >= 40);
}

#[test]
fn a_broken_current_is_found() {
    assert!(flip_index("CURRENT", "", 20) >= 15);
}

#[test]
fn a_broken_log_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let store = open(&path);
    let tree = tree(1, &[5000, LARGE]);
    put_tree(&store, &tree);
    assert_sound(&store);
    let logs = fs::read_dir(path.join("index")).unwrap().map(|e| e.unwrap().path());
    let log = logs.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap();
    flip(&log, 100);
    let found = damages(&store);
    assert!(matches!(found[..], [Damage { what: Damaged::Index, .. }]), "{found:?}");
}

#[test]
fn verification_tells_how_far_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    filled(&path);
    let store = open(&path);
    let mut told = Vec::new();
    store.verify(&mut |progress| told.push(progress)).unwrap();
    for phase in [Phase::Index, Phase::Blobs, Phase::Trees, Phase::Tables, Phase::Files] {
        assert!(told.iter().any(|progress| progress.phase == phase), "{phase:?}");
    }
    assert!(told.iter().all(|progress| progress.done <= progress.total));
    let blobs = told.iter().rfind(|progress| progress.phase == Phase::Blobs).unwrap();
    assert_eq!(blobs.done, 35_000 + LARGE as u64);
    assert_eq!(content(1, 3).len(), 3);
}
