//! Opening stores, and what can be in the way.

use crate::common::{
    assert_sound, blob, open, options, put_blobs, put_record, put_tree, read_tree, tree,
};
use cache::store::disk::{Damaged, OpenError};
use cache::store::{DiskStore, Store, Table};
use proto::error::Class;
use std::fs;
use std::path::Path;

fn error(path: &Path) -> OpenError {
    match DiskStore::open(path, options()) {
        Ok(_) => panic!("{} should not open", path.display()),
        Err(error) => error,
    }
}

#[test]
fn a_store_keeps_what_it_has() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/b/store");
    let tree = tree(1, &[10, 1000, 300_000]);
    {
        let store = open(&path);
        put_tree(&store, &tree);
        put_record(&store, 1, &tree, None);
        store.put_row(Table::Build, b"b", b"row").unwrap();
    }
    assert_eq!(fs::read_to_string(path.join("state")).unwrap(), "closed\n");
    let store = open(&path);
    read_tree(&store, &tree);
    assert_eq!(store.row(Table::Build, b"b").unwrap().as_deref(), Some(&b"row"[..]));
    assert_sound(&store);
}

#[test]
fn only_one_can_have_a_store_open() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let store = open(&path);
    let second = error(&path);
    let message = second.to_string();
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    assert_eq!(second.class(), Class::Busy);
    drop(store);
    open(&path);
}

#[test]
fn other_directories_are_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("thesis.txt"), "years").unwrap();
    let message = error(temp.path()).to_string();
    assert!(message.contains("not empty: it has `thesis.txt`"), "{message}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing was made there");
}

#[test]
fn another_format_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    drop(open(&path));
    fs::write(path.join("format"), "slipway store 2\n").unwrap();
    let refused = error(&path);
    let message = refused.to_string();
    assert!(message.contains("`slipway store 2`") && message.contains("reads `slipway store 1`"));
    assert_eq!(refused.class(), Class::User);
}

#[test]
fn a_store_that_was_never_finished_is_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    drop(open(&path));
    fs::remove_file(path.join("format")).unwrap();
    fs::remove_file(path.join("state")).unwrap();
    let store = open(&path);
    put_blobs(&store, &[blob(1, 100)]);
    assert_sound(&store);
}

#[test]
fn a_lost_index_is_not_taken_for_a_new_store() {
    let temp = tempfile::tempdir().unwrap();
    for lost in ["CURRENT", ""] {
        let path = temp.path().join(format!("store-{lost}"));
        drop(open(&path));
        let index = path.join("index").join(lost);
        if lost.is_empty() { fs::remove_dir_all(index) } else { fs::remove_file(index) }.unwrap();
        let refused = error(&path);
        let message = refused.to_string();
        assert!(message.contains("move the store's directory away"), "{message}");
        assert_eq!(refused.class(), Class::Corrupt);
    }
}

#[test]
fn what_was_unfinished_is_swept() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    drop(open(&path));
    fs::create_dir_all(path.join("tmp/4711")).unwrap();
    fs::write(path.join("tmp/4711/0"), "half").unwrap();
    fs::write(path.join("segments/00000077.seg"), "just begun").unwrap();
    let store = open(&path);
    assert!(!path.join("tmp/4711").exists());
    assert!(!path.join("segments/00000077.seg").exists());
    assert_sound(&store);
}

#[test]
fn a_state_that_says_nothing_is_taken_for_a_loss_of_power() {
    let states: [Option<&[u8]>; 5] =
        [None, Some(b""), Some(b"clo"), Some(b"open x"), Some(b"\xff\0")];
    for state in states {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("store");
        let tree = tree(1, &[10, 9000, 300_000]);
        put_tree(&open(&path), &tree);
        match state {
            None => fs::remove_file(path.join("state")).unwrap(),
            Some(bytes) => fs::write(path.join("state"), bytes).unwrap(),
        }
        let store = open(&path);
        read_tree(&store, &tree);
        if !matches!(state, None | Some(b"open x")) {
            let damages = store.verify(&mut |_| {}).unwrap();
            let found: Vec<_> = damages.iter().map(|d| (&d.what, &d.path)).collect();
            assert_eq!(found, [(&Damaged::State, &path.canonicalize().unwrap().join("state"))]);
            store.repair(&damages).unwrap();
        }
        assert_sound(&store);
        drop(store);
        assert_eq!(fs::read_to_string(path.join("state")).unwrap(), "closed\n", "{state:?}");
    }
}
