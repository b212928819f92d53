//! Putting a blob by its chunks.

use crate::common::content;
use crate::harness::{Disk, Edit, MIB, Source, blobs, versions};
use cache::chunk::{ChunkedFile, Moved};
use cache::net::NetError;
use cache::net::chunks::PutError;
use cache::store::StoreError;
use cache::store::disk::Prune;
use proto::error::Class;
use proto::id::BlobId;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const BESIDE: u64 = MIB / 16;

#[tokio::test(start_paused = true)]
async fn of_what_changed_little_little_is_sent() {
    for edit in [Edit::InPlace, Edit::Insertion, Edit::Deletion] {
        let (here, there) = (Disk::new(), Disk::new());
        let versions = versions(5, 64 << 20, edit);
        let (old, new) = (here.put(&versions.old), here.put(&versions.new));
        let source = Source::of(&there.store);
        let to = blobs(&source);
        let moved = to.put_chunked(&here.store, old).await.unwrap();
        assert_eq!(moved, Moved { moved: 64 * MIB, reused: 0 });
        let first = source.sent();
        assert!((64 * MIB..64 * MIB + BESIDE).contains(&first), "{first}");

        let moved = to.put_chunked(&here.store, new).await.unwrap();
        let wire = source.sent() - first;
        assert!(wire * 100 < 3 * versions.new.len() as u64, "{edit:?}: {wire}");
        assert!((moved.moved..moved.moved + BESIDE).contains(&wire));
        assert_eq!(moved.moved + moved.reused, versions.new.len() as u64);
        there.assert_has(&new, &versions.new);

        let again = to.put_chunked(&here.store, new).await.unwrap();
        assert_eq!(again, Moved { moved: 0, reused: versions.new.len() as u64 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_in_no_store_can_be_put() {
    let there = Disk::new();
    let versions = versions(6, 32 << 20, Edit::Insertion);
    there.put_known(&versions.old);
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = temp.path().join("file");
    std::fs::write(&path, &versions.new).unwrap();
    let file = Arc::new(ChunkedFile::open(&path).unwrap());
    let (id, size) = file.blob();
    let to = blobs(&Source::of(&there.store));
    let moved = to.put_chunked(&file, id).await.unwrap();
    assert!(moved.moved < 3 * MIB && moved.moved + moved.reused == size, "{moved:?}");
    there.assert_has(&id, &versions.new);

    there.disk.prune(Prune::All).unwrap();
    let changed = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    changed.write_all_at(b"changed meanwhile", 20_000_000).unwrap();
    let error = to.put_chunked(&file, id).await.unwrap_err();
    assert!(matches!(error, PutError::Source(StoreError::NoChunk { .. })), "{error}");
    assert_eq!(error.class(), Class::Unavailable);
    there.assert_empty();
    let missing = to.missing(vec![id], Vec::new()).await.unwrap();
    assert_eq!(missing.0, [id], "the stream is still of use");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_connection_broke_is_not_sent_again() {
    let (here, there) = (Disk::new(), Disk::new());
    let bytes = content(7, 32 << 20);
    let id = here.put(&bytes);
    let source = Source::of(&there.store);
    source.break_sending_at(20 * MIB);
    let error = blobs(&source).put_chunked(&here.store, id).await.unwrap_err();
    assert!(matches!(error, PutError::Net(NetError::Broken(_))), "{error}");
    assert_eq!(there.store.missing_blobs(&[id]).unwrap(), [id]);
    let first = source.sent();
    assert_eq!(first, 20 * MIB);
    // The other end hears of it a little later.
    while there.disk.usage().unwrap().large.number == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }

    let again = Source::of(&there.store);
    let moved = blobs(&again).put_chunked(&here.store, id).await.unwrap();
    assert!(again.sent() < 14 * MIB + BESIDE, "{}", again.sent());
    assert!(moved.reused >= 18 * MIB, "{moved:?}");
    there.assert_has(&id, &bytes);
    there.disk.prune(Prune::All).unwrap();
    there.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn little_that_was_sent_is_not_kept() {
    let (here, there) = (Disk::new(), Disk::new());
    let versions = versions(8, 32 << 20, Edit::InPlace);
    let old = there.put_known(&versions.old);
    let new = here.put(&versions.new);
    let source = Source::of(&there.store);
    source.break_sending_at(MIB);
    blobs(&source).put_chunked(&here.store, new).await.unwrap_err();
    let to = blobs(&Source::of(&there.store));
    let moved = to.put_chunked(&here.store, new).await.unwrap();
    assert!(moved.moved < MIB * 3);
    there.assert_has(&new, &versions.new);
    assert_eq!(there.disk.usage().unwrap().large.number, 2, "no part of it: {old} and {new}");
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_there_is_sent_after_all() {
    let (here, there) = (Disk::new(), Disk::new());
    let versions = versions(9, 16 << 20, Edit::Insertion);
    let old = there.put_known(&versions.old);
    let new = here.put(&versions.new);
    // Before and behind what changed.
    for at in [1_000_000, 15_000_000] {
        let file = std::fs::OpenOptions::new().write(true).open(there.file_of(&old)).unwrap();
        file.write_all_at(b"damage", at).unwrap();
    }
    let to = blobs(&Source::of(&there.store));
    let moved = to.put_chunked(&here.store, new).await.unwrap();
    there.assert_has(&new, &versions.new);
    assert!(moved.moved >= 15 * MIB, "once it is damaged it is not used: {moved:?}");
    assert_eq!(there.store.missing_blobs(&[old]).unwrap(), [old]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_here_can_not_be_put() {
    let (here, there) = (Disk::new(), Disk::new());
    let to = blobs(&Source::of(&there.store));
    let error = to.put_chunked(&here.store, BlobId::of(b"x")).await.unwrap_err();
    assert!(matches!(error, PutError::Source(StoreError::NoBlob(_))), "{error}");
    assert_eq!(error.class(), Class::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_and_the_stream_stays_usable() {
    let here = Disk::new();
    let id = here.put(&content(10, 24 << 20));
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = crate::common::options().limit(8 * MIB);
    let full = cache::store::DiskStore::open(&temp.path().join("store"), options).unwrap();
    let source = Source::of(&(Arc::new(full) as Arc<dyn cache::store::Store>));
    let to = blobs(&source);
    let error = to.put_chunked(&here.store, id).await.unwrap_err();
    assert_eq!(error.class(), Class::Busy);
    assert!(error.to_string().contains("limit of 8388608 bytes"), "{error}");
    let small = content(11, 1000);
    to.put_blobs(&[(BlobId::of(&small), small.into())]).await.unwrap();
    assert_eq!(source.dials.load(std::sync::atomic::Ordering::SeqCst), 1);
}
