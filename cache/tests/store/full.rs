//! Disks that are full.

use crate::common::{assert_sound, blob, options, put_record, read_tree, tree};
use cache::store::disk::Prune;
use cache::store::{DiskStore, Store, StoreError};
use proto::error::Class;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::io::Write;
use std::path::Path;

/// A small file system in memory; gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = CString::new(format!("size={megabytes}m")).unwrap();
        rustix::mount::mount("slipway-test", dir.path(), "tmpfs", MountFlags::empty(), &*data)
            .expect("the test mounts a file system, which takes root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

fn check_full(error: &StoreError) {
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(error.class(), Class::Busy);
}

/// Fills the disk by `put`, then checks that the store is what it should be, and can be emptied.
fn fill(keep_free: u64, put: impl Fn(&DiskStore, u64) -> Result<(), StoreError>) {
    let disk = Disk::new(48);
    let path = disk.path().join("store");
    let options = options().keep_free(keep_free);
    let store = DiskStore::open(&path, options.clone()).unwrap();
    let kept = tree(1_000_000, &[1000, 20_000, 400_000]);
    store.put_blobs(&kept.blobs).unwrap();
    store.put_nodes(&kept.nodes).unwrap();
    put_record(&store, 1, &kept, None);
    store.barrier().unwrap();

    let results: Vec<_> = (0..1000).map(|n| put(&store, n)).collect();
    let taken = results.iter().filter(|result| result.is_ok()).count();
    assert!((5..900).contains(&taken), "{taken} were taken");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        check_full(error);
    }
    read_tree(&store, &kept);
    assert!(store.usage().unwrap().total_disk_bytes < 48 << 20);
    // With nothing kept free, the index itself may be stuck: then a new start helps.
    if keep_free > 0 {
        store.prune(Prune::KeepBytes(2 << 20)).unwrap();
        read_tree(&store, &kept);
        put(&store, 0).unwrap();
        store.barrier().unwrap();
    }
    drop(store);

    let store = DiskStore::open(&path, options).unwrap();
    read_tree(&store, &kept);
    store.prune(Prune::All).unwrap();
    assert_sound(&store);
    put(&store, 0).unwrap();
    store.barrier().unwrap();
    assert_sound(&store);
}

fn put_large(store: &DiskStore, n: u64) -> Result<(), StoreError> {
    let (id, bytes) = blob(n, 3_000_000);
    let mut writer = store.writer()?;
    match writer.write_all(&bytes) {
        Ok(()) => writer.finish(Some(id)).map(|_| ()),
        Err(error) => Err(error.downcast::<StoreError>().expect("the store says what it is")),
    }
}

#[test]
fn packed_blobs_fill_a_disk_up_to_what_is_kept_free() {
    fill(8 << 20, |store, n| store.put_blobs(&[blob(n, 200_000)]));
}

#[test]
fn large_blobs_fill_a_disk_up_to_what_is_kept_free() {
    fill(8 << 20, put_large);
}

#[test]
fn packed_blobs_fill_a_disk_to_the_last_byte() {
    fill(0, |store, n| store.put_blobs(&[blob(n, 200_000)]));
}

#[test]
fn large_blobs_fill_a_disk_to_the_last_byte() {
    fill(0, put_large);
}

#[test]
fn small_things_fill_a_disk_to_the_last_byte() {
    fill(0, |store, n| {
        let many: Vec<_> = (0..2000).map(|i| blob(n * 2000 + i, 64)).collect();
        store.put_blobs(&many)
    });
}

#[test]
fn a_full_place_is_said_to_be_full() {
    let disk = Disk::new(2);
    let temp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&temp.path().join("store"), options()).unwrap();
    let (id, bytes) = blob(1, 3_000_000);
    store.put_blobs(&[(id, bytes)]).unwrap();
    let dest = disk.path().join("dest");
    let error = store.place(&id, &crate::common::meta(0o644), &dest).unwrap_err();
    check_full(&error);
    assert!(error.to_string().starts_with(dest.to_str().unwrap()), "{error}");
    assert!(!dest.exists());
}
