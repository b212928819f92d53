//! What a directory on disk is as a tree.

use super::Top;
use super::paths::Wanted;
use super::stat_cache::{Known, StatCache};
use super::walk::{Outcome, Scan};
use bytes::Bytes;
use proto::id::BlobId;
use proto::tree::{Dir, Entry, Node, Xattrs};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Mutex;

/// The entries of a directory by their names.
type Entries = BTreeMap<String, Entry>;

/// What is in a directory, and the bytes that were read for it.
fn scan(base: &Path) -> (Entries, BTreeMap<BlobId, Bytes>) {
    let read = Mutex::new(BTreeMap::new());
    let keep = |id, bytes| _ = read.lock().unwrap().insert(id, bytes);
    let outcome = run(base, &StatCache::default(), &keep);
    (entries(&outcome), read.into_inner().unwrap())
}

/// What is in a directory, and what is known of its files then.
fn scan_with(base: &Path, cache: &StatCache) -> (Entries, HashMap<Vec<u8>, Known>) {
    let outcome = run(base, cache, &|_, _| {});
    (entries(&outcome), outcome.known)
}

fn run(base: &Path, cache: &StatCache, read: &(dyn Fn(BlobId, Bytes) + Sync)) -> Outcome {
    let (top, wanted) = (Top::Directory, &Wanted::All);
    let scan = Scan { base, top, wanted, ignore: None, cache, read, seen: &|| {} };
    scan.run().expect("a directory that can be read")
}

fn entries(outcome: &Outcome) -> Entries {
    // Children come before parents, and the root node is the last.
    let nodes = &outcome.tree.nodes;
    let (_, parts) = &nodes[nodes.len() - 2];
    let dir = Dir::decode(&parts.bytes).expect("a directory");
    dir.into_entries().into_iter().map(|e| (e.name.to_string(), e)).collect()
}

#[test]
fn a_socket_is_a_file_without_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o751)).unwrap();
    let (files, read) = scan(dir.path());
    let empty = BlobId::of(b"");
    assert_eq!(files["s"].node, Node::File { blob: empty, size: 0, link: None });
    assert_eq!(files["s"].meta.mode, 0o751);
    assert!(read[&empty].is_empty(), "its bytes are sent along: nobody can open it");
}

#[test]
fn a_socket_with_two_names_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(dir.path().join("a")).unwrap();
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let (files, _) = scan(dir.path());
    assert!(files["a"].one_file().is_some());
    assert_eq!(files["a"].one_file(), files["b"].one_file());
}

#[test]
fn fifos_and_devices_are_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, kind, number| {
        mknodat(CWD, dir.path().join(name), kind, Mode::from(0o640), number)
    };
    make("fifo", FileType::Fifo, 0).unwrap();
    // Only root makes devices.
    let numbers = [rustix::fs::makedev(1, 3), rustix::fs::makedev(300, 70_000)];
    let devices = make("null", FileType::CharacterDevice, numbers[0]).is_ok()
        && make("disk", FileType::BlockDevice, numbers[1]).is_ok();
    let (files, read) = scan(dir.path());
    assert_eq!(files["fifo"].node, Node::Fifo);
    if devices {
        assert_eq!(files["null"].node, Node::Char(1, 3));
        assert_eq!(files["disk"].node, Node::Block(300, 70_000));
    }
    assert!(read.is_empty());
}

#[test]
fn attributes_of_people_are_kept_and_those_of_the_host_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "text").unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        rustix::fs::setxattr(dir.path().join(name), attribute, value, XattrFlags::empty())
    };
    let long = vec![7; 1000];
    if set("f", "user.a", b"1").and_then(|()| set("f", "user.long", &long)).is_err() {
        // The file system that tests are run on has none.
        return;
    }
    set("d", "user.d", b"").unwrap();
    // Only root may.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let _ = set("f", "security.capability", &capability);
    let trusted = set("f", "trusted.t", b"t").is_ok();
    let mut expect = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.long".to_vec(), long)];
    if trusted {
        expect.push((b"trusted.t".to_vec(), b"t".to_vec()));
    }
    let mut cache = StatCache::default();
    for _ in 0..2 {
        let (files, known) = scan_with(dir.path(), &cache);
        assert_eq!(files["f"].meta.xattrs, Xattrs::new(expect.clone()));
        assert_eq!(files["d"].meta.xattrs, Xattrs::new([(b"user.d".to_vec(), Vec::new())]));
        // And again with what is known.
        cache.store(known, i128::MAX, true).unwrap();
    }
}
