//! Files that the store makes.

use crate::common::{blob, content, meta, open};
use cache::store::{DiskStore, Store, StoreError};
use proto::id::BlobId;
use proto::tree::{Meta, Mtime, Xattrs};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SMALL: usize = 12_000;
const LARGE: usize = 3_000_000;

/// What is known of a file, as it is kept in trees.
fn read_meta(path: &Path) -> Meta {
    let stat = fs::symlink_metadata(path).unwrap();
    assert!(stat.is_file());
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|b| *b == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        (name.to_vec(), value[..len].to_vec())
    };
    Meta {
        mode: (stat.mode() & 0o7777) as u16,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Mtime { seconds: stat.mtime(), nanos: stat.mtime_nsec() as u32 },
        xattrs: Xattrs::new(names.map(read)),
    }
}

/// A capability set as `setcap cap_net_raw+ep` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn metas() -> Vec<Meta> {
    let xattrs = |list: &[(&str, &[u8])]| {
        Xattrs::new(list.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.to_vec())))
    };
    let time = Mtime { seconds: 1_234_567_890, nanos: 123_456_789 };
    let all = xattrs(&[
        ("user.empty", b""),
        ("user.long", &[7; 2000]),
        ("trusted.slipway", b"x"),
        ("security.capability", &CAPABILITY),
    ]);
    vec![
        Meta { mode: 0o644, uid: 0, gid: 0, mtime: time, xattrs: Xattrs::default() },
        Meta { mode: 0o6755, uid: 1000, gid: 2000, mtime: time, xattrs: Xattrs::default() },
        Meta { mode: 0o4711, uid: 33, gid: 44, mtime: Mtime::default(), xattrs: all.clone() },
        Meta {
            mode: 0,
            uid: 5,
            gid: 6,
            mtime: Mtime { seconds: -5, nanos: 999_999_999 },
            xattrs: all,
        },
        Meta { mode: 0o1777, uid: 0, gid: 9, mtime: time, xattrs: xattrs(&[("user.a", b"b")]) },
    ]
}

fn put(store: &DiskStore, seed: u64, len: usize) -> BlobId {
    let (id, bytes) = blob(seed, len);
    store.put_blobs(&[(id, bytes)]).unwrap();
    id
}

#[test]
fn content_and_metadata_are_exact() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    for (number, len) in [(1, SMALL), (2, LARGE), (3, 0)] {
        let id = put(&store, number, len);
        for (i, meta) in metas().iter().enumerate() {
            let dest = temp.path().join(format!("{number}-{i}"));
            store.place(&id, meta, &dest).unwrap();
            assert_eq!(read_meta(&dest), *meta);
            assert_eq!(fs::read(&dest).unwrap(), content(number, len));
        }
    }
}

#[test]
fn no_two_files_share_an_inode() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    let (small, large) = (put(&store, 1, SMALL), put(&store, 2, LARGE));
    let adopted = temp.path().join("adopted");
    fs::write(&adopted, content(3, LARGE)).unwrap();
    let (adopted_id, _) = store.adopt(&adopted).unwrap();
    let mut inodes = HashSet::from([fs::metadata(&adopted).unwrap().ino()]);
    for i in 0..30 {
        let id = [small, large, adopted_id][i % 3];
        let dest = temp.path().join(i.to_string());
        store.place(&id, &meta(0o600), &dest).unwrap();
        assert!(inodes.insert(fs::metadata(&dest).unwrap().ino()), "file {i}");
    }
}

#[test]
fn threads_do_not_share_an_inode_either() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    let large = put(&store, 2, LARGE);
    let dir = temp.path();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..8 {
                    let dest = dir.join(format!("{t}-{i}"));
                    store.place(&large, &meta(0o600), &dest).unwrap();
                }
            });
        }
    });
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().metadata().unwrap());
    let inodes: HashSet<u64> = files.filter(|m| m.is_file()).map(|m| m.ino()).collect();
    assert_eq!(inodes.len(), 32);
}

#[test]
fn a_large_blob_gives_its_own_file_away_once_at_a_time() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let root = temp.path().join("store");
    let store = open(&root);
    let id = put(&store, 2, LARGE);
    let own = root.join(format!("blobs/{}/{id}", &id.to_string()[..2]));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let (a, b, c) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("c"));
    let metas = metas();
    store.place(&id, &metas[3], &a).unwrap();
    assert_eq!(inode(&a), inode(&own));
    store.place(&id, &metas[0], &b).unwrap();
    assert_ne!(inode(&b), inode(&own));
    assert_eq!(read_meta(&a), metas[3], "what was placed stays as it was");
    fs::remove_file(&a).unwrap();
    store.place(&id, &metas[4], &c).unwrap();
    assert_eq!(inode(&c), inode(&own));
    assert_eq!(read_meta(&c), metas[4], "nothing is left of the earlier use");
    assert_eq!(store.read(&id).unwrap(), content(2, LARGE));
}

#[test]
fn an_adopted_file_stays_as_it_was() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    let path = temp.path().join("file");
    fs::write(&path, content(1, LARGE)).unwrap();
    rustix::fs::lsetxattr(&path, "user.mine", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let before = read_meta(&path);
    let (id, size) = store.adopt(&path).unwrap();
    assert_eq!((id, size), (BlobId::of(&content(1, LARGE)), LARGE as u64));
    store.place(&id, &metas()[1], &temp.path().join("other")).unwrap();
    assert_eq!(read_meta(&path), before);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2, "it was taken by a link");
}

#[test]
fn what_is_there_is_not_overwritten() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    for id in [put(&store, 1, SMALL), put(&store, 2, LARGE)] {
        let dest = temp.path().join("there");
        fs::write(&dest, b"mine").unwrap();
        let error = store.place(&id, &meta(0o644), &dest).unwrap_err();
        assert!(error.to_string().contains("there"), "{error}");
        assert_eq!(fs::read(&dest).unwrap(), b"mine");
        fs::remove_file(&dest).unwrap();
        std::os::unix::fs::symlink("nowhere", &dest).unwrap();
        store.place(&id, &meta(0o644), &dest).unwrap_err();
        assert!(!temp.path().join("nowhere").exists(), "no link is followed");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn a_file_that_can_not_be_finished_is_not_there() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    let mut bad = meta(0o644);
    bad.xattrs = Xattrs::new([(b"nonsense".to_vec(), b"x".to_vec())]);
    for id in [put(&store, 1, SMALL), put(&store, 2, LARGE)] {
        let dest = temp.path().join("dest");
        let error = store.place(&id, &bad, &dest).unwrap_err();
        assert!(matches!(error, StoreError::Io { action: "Placing", .. }), "{error}");
        assert!(!dest.exists());
        store.place(&id, &meta(0o644), &dest).unwrap();
        fs::remove_file(dest).unwrap();
    }
    let missing = blob(9, 10).0;
    let error = store.place(&missing, &meta(0o644), &temp.path().join("x")).unwrap_err();
    assert!(matches!(error, StoreError::NoBlob(id) if id == missing), "{error}");
}

#[test]
fn other_file_systems_get_copies() {
    let temp = tempfile::tempdir_in(".").unwrap();
    let store = open(&temp.path().join("store"));
    let there = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(device(there.path()), device(temp.path()), "the test needs two file systems");
    for (number, len) in [(1, SMALL), (2, LARGE)] {
        let id = put(&store, number, len);
        let dest = there.path().join(number.to_string());
        let meta = &metas()[1];
        store.place(&id, meta, &dest).unwrap();
        assert_eq!(read_meta(&dest), *meta);
        assert_eq!(fs::read(&dest).unwrap(), content(number, len));
        // And back.
        let foreign = there.path().join(format!("foreign{number}"));
        fs::write(&foreign, content(number + 10, len)).unwrap();
        let (id, _) = store.adopt(&foreign).unwrap();
        assert_eq!(store.read(&id).unwrap(), content(number + 10, len));
    }
}
