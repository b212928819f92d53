//! Taking files, and large blobs.

use crate::common::{assert_sound, blob, content, open};
use cache::store::{Store, StoreError};
use proto::id::BlobId;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

#[test]
fn only_regular_files_are_adopted() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let target = temp.path().join("target");
    fs::write(&target, b"secret").unwrap();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let pipe = temp.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for bad in [&link, &pipe, &temp.path().to_owned(), &temp.path().join("none")] {
        let error = store.adopt(bad).unwrap_err();
        assert!(matches!(error, StoreError::Io { action: "Taking", .. }), "{error}");
    }
    assert_eq!(store.missing_blobs(&[BlobId::of(b"secret")]).unwrap().len(), 1);
}

#[test]
fn a_blob_that_is_adopted_twice_is_there_once() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    for name in ["a", "b"] {
        fs::write(temp.path().join(name), content(1, 1 << 20)).unwrap();
        store.adopt(&temp.path().join(name)).unwrap();
    }
    let usage = store.usage().unwrap();
    assert_eq!((usage.large.number, usage.large.bytes), (1, 1 << 20));
    fs::remove_file(temp.path().join("a")).unwrap();
    let id = BlobId::of(&content(1, 1 << 20));
    assert_eq!(store.read(&id).unwrap(), content(1, 1 << 20), "it does not need the file");
    assert_sound(&store);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("store");
    let store = open(&root);
    let mut writer = store.writer().unwrap();
    writer.write_all(&content(1, 3 << 20)).unwrap();
    assert_eq!(unfinished(&root), 1);
    drop(writer);
    assert_eq!(unfinished(&root), 0);
    let mut writer = store.writer().unwrap();
    writer.write_all(&content(1, 3 << 20)).unwrap();
    let wrong = blob(2, 5).0;
    let error = writer.finish(Some(wrong)).unwrap_err();
    assert!(matches!(error, StoreError::WrongBytes { .. }), "{error}");
    assert_eq!(unfinished(&root), 0);
    assert_eq!(store.usage().unwrap().large.number, 0);
}

fn unfinished(root: &std::path::Path) -> usize {
    let sessions = fs::read_dir(root.join("tmp")).unwrap();
    sessions.map(|s| fs::read_dir(s.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn a_writer_outlives_the_store_it_came_from() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("store");
    let store = open(&root);
    let mut writer = store.writer().unwrap();
    drop(store);
    writer.write_all(&content(1, 1 << 20)).unwrap();
    let (id, _) = writer.finish(None).unwrap();
    let store = open(&root);
    assert_eq!(store.read(&id).unwrap(), content(1, 1 << 20));
}

#[test]
fn large_blobs_are_streamed_from_anywhere() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let bytes = content(7, 5_000_000);
    let mut writer = store.writer().unwrap();
    bytes.chunks(123_457).for_each(|piece| writer.write_all(piece).unwrap());
    let (id, size) = writer.finish(None).unwrap();
    assert_eq!(size, 5_000_000);
    for offset in [0, 1, 1 << 20, 4_999_999, 5_000_000, 6_000_000] {
        let mut read = Vec::new();
        store.open(&id, offset).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes.get(offset as usize..).unwrap_or_default(), "from {offset}");
    }
}

#[test]
fn nobody_else_can_look_into_a_store() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("store");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let _store = open(&root);
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
}
