//! What the store knows of the chunks of large blobs.

use crate::common::{assert_sound, blob, content, open, options, put_blobs};
use bytes::Bytes;
use cache::chunk::ChunkPlace;
use cache::store::disk::Prune;
use cache::store::{DiskStore, Store, StoreError};
use proto::chunk::{Chunk, ChunkList};
use proto::error::Class;
use proto::id::BlobId;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SIZE: usize = 5_000_000;

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

fn ids(list: &ChunkList) -> Vec<BlobId> {
    list.chunks().iter().map(|chunk| chunk.id).collect()
}

fn place(blob: &BlobId, chunk: &Chunk) -> ChunkPlace {
    ChunkPlace { blob: *blob, offset: chunk.offset, len: chunk.len }
}

/// How many of the chunks are known.
fn known(store: &DiskStore, list: &ChunkList) -> usize {
    store.find_chunks(&ids(list)).unwrap().iter().flatten().count()
}

/// A blob, put, and of which the chunks were asked for.
fn put_cut(store: &DiskStore, seed: u64) -> ((BlobId, Bytes), ChunkList) {
    let blob = blob(seed, SIZE);
    put_blobs(store, std::slice::from_ref(&blob));
    let list = store.chunks(&blob.0).unwrap();
    assert!(list.chunks().len() > 3);
    (blob, list)
}

#[test]
fn chunks_are_known_once_they_were_asked_for_and_as_long_as_the_blob_is_here() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let store = open(&path);
    let (id, bytes) = blob(1, SIZE);
    put_blobs(&store, &[(id, bytes.clone())]);
    let list = cache::chunk::cut::cut(&bytes[..]).unwrap();
    assert_eq!(known(&store, &list), 0, "nobody has asked");
    assert_eq!(store.chunks(&id).unwrap(), list);
    drop(store);
    let store = open(&path);
    let places = store.find_chunks(&ids(&list)).unwrap();
    for (chunk, at) in list.chunks().iter().zip(places) {
        assert_eq!(at, Some(place(&id, chunk)));
        let end = chunk.offset as usize + chunk.len as usize;
        let read = store.read_chunk(&chunk.id, &at.unwrap()).unwrap();
        assert_eq!(read, bytes[chunk.offset as usize..end]);
    }
    assert_sound(&store);
    store.prune(Prune::All).unwrap();
    assert_eq!(known(&store, &list), 0, "they keep nothing alive");
    let error = store.chunks(&id).unwrap_err();
    assert!(matches!(error, StoreError::NoBlob(_)), "{error}");
    let gone = store.read_chunk(&list.chunks()[0].id, &place(&id, &list.chunks()[0])).unwrap_err();
    assert!(matches!(gone, StoreError::NoBlob(_)) && gone.class() == Class::Unavailable);
    assert_sound(&store);
}

#[test]
fn what_was_found_stays_under_a_pin() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let ((id, _), list) = put_cut(&store, 1);
    let (_, other) = put_cut(&store, 2);
    let pin = store.pin();
    assert_eq!(known(&store, &list), list.chunks().len());
    store.prune(Prune::All).unwrap();
    assert_eq!((known(&store, &list), known(&store, &other)), (list.chunks().len(), 0));
    let chunk = list.chunks()[1];
    store.read_chunk(&chunk.id, &place(&id, &chunk)).unwrap();
    drop(pin);
    store.prune(Prune::All).unwrap();
    assert_eq!(known(&store, &list), 0);
    assert_sound(&store);
}

#[test]
fn a_chunk_of_several_blobs_is_found_as_long_as_one_of_them_is_here() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let ((first, bytes), list) = put_cut(&store, 1);
    let longer: Bytes = [&bytes[..], &content(3, 700_000)].concat().into();
    let second = BlobId::of(&longer);
    put_blobs(&store, &[(second, longer)]);
    let both = store.chunks(&second).unwrap();
    let shared = list.chunks()[0];
    assert_eq!(shared, both.chunks()[0]);
    let found = |store: &DiskStore| store.find_chunks(&[shared.id]).unwrap()[0];
    assert_eq!(found(&store).unwrap().blob, first.min(second));
    let pin = store.pin();
    store.blob_size(&second).unwrap();
    store.prune(Prune::All).unwrap();
    assert_eq!(found(&store).unwrap().blob, second);
    drop(pin);
    store.prune(Prune::All).unwrap();
    assert_eq!(found(&store), None);
    assert_sound(&store);
}

#[test]
fn damage_is_found_when_a_chunk_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let store = open(&path);
    let ((id, bytes), list) = put_cut(&store, 1);
    let (good, bad) = (list.chunks()[0], list.chunks()[2]);
    flip(&file_of(&path, &id), bad.offset + 5);
    assert!(store.read_chunk(&good.id, &place(&id, &good)).is_ok(), "it is right by itself");
    let error = store.read_chunk(&bad.id, &place(&id, &bad)).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(store.missing_blobs(&[id]).unwrap(), [id]);
    assert_eq!(known(&store, &list), 0);
    assert_sound(&store);
    put_blobs(&store, &[(id, bytes)]);
    assert_eq!(store.chunks(&id).unwrap(), list, "it is put again, and cut again");
}

#[test]
fn damage_is_found_when_a_blob_is_cut() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let store = open(&path);
    let (id, bytes) = blob(1, SIZE);
    put_blobs(&store, &[(id, bytes)]);
    flip(&file_of(&path, &id), 1_234_567);
    let error = store.chunks(&id).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(store.missing_blobs(&[id]).unwrap(), [id]);
    assert_sound(&store);
}

#[test]
fn damage_that_verification_finds_takes_the_chunks_along() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let list = put_cut(&open(&path), 1).1;
    flip(&file_of(&path, &list.blob()), 77);
    let store = open(&path);
    let damages = store.verify(&mut |_| {}).unwrap();
    assert_eq!(damages.len(), 1);
    store.repair(&damages).unwrap();
    assert_eq!(known(&store, &list), 0);
    assert_sound(&store);
}

#[test]
fn a_list_that_is_wrong_is_forgotten_and_the_blob_stays() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let (id, bytes) = blob(1, SIZE);
    put_blobs(&store, &[(id, bytes.clone())]);
    // Somebody broke his word: these are not the chunks.
    let halves = [BlobId::of(b"no"), BlobId::of(b"no"), BlobId::of(b"chunks")];
    let lens = [2_000_000, 2_000_000, 1_000_000];
    let wrong = ChunkList::new(id, SIZE as u64, halves.into_iter().zip(lens)).unwrap();
    store.note_chunks(&wrong).unwrap();
    assert_eq!(store.chunks(&id).unwrap(), wrong);
    assert_sound(&store);
    let at = store.find_chunks(&[halves[0]]).unwrap()[0].unwrap();
    assert_eq!(at, place(&id, &wrong.chunks()[0]), "of two the first");
    let error = store.read_chunk(&halves[0], &at).unwrap_err();
    assert!(matches!(error, StoreError::NoChunk { .. }), "{error}");
    assert_eq!(error.class(), Class::Unavailable);
    assert_eq!(store.find_chunks(&halves).unwrap(), [None; 3]);
    assert_eq!(store.read(&id).unwrap(), bytes);
    assert_eq!(store.chunks(&id).unwrap(), cache::chunk::cut::cut(&bytes[..]).unwrap());
    assert_sound(&store);
}

#[test]
fn what_nobody_said_is_not_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let ((id, _), list) = put_cut(&store, 1);
    let chunk = list.chunks()[0];
    let places = [
        place(&id, &list.chunks()[1]),
        ChunkPlace { offset: u64::MAX, ..place(&id, &chunk) },
        ChunkPlace { offset: SIZE as u64 - 1, ..place(&id, &chunk) },
        ChunkPlace { len: u32::MAX, ..place(&id, &chunk) },
    ];
    for at in places {
        let error = store.read_chunk(&chunk.id, &at).unwrap_err();
        assert!(matches!(error, StoreError::NoChunk { .. }), "{error}");
    }
    assert_eq!(known(&store, &list), list.chunks().len());
}

#[test]
fn small_blobs_have_chunks_that_nobody_notes() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    for len in [0, 1, 256 << 10] {
        let (id, bytes) = blob(9, len);
        put_blobs(&store, &[(id, bytes.clone())]);
        let list = store.chunks(&id).unwrap();
        assert_eq!(list, cache::chunk::cut::cut(&bytes[..]).unwrap());
        assert_eq!(known(&store, &list), 0);
        store.note_chunks(&list).unwrap();
        assert_eq!(known(&store, &list), 0);
        for chunk in list.chunks() {
            let read = store.read_chunk(&chunk.id, &place(&id, chunk)).unwrap();
            assert_eq!(read, bytes[chunk.offset as usize..][..chunk.len as usize]);
        }
    }
    assert_sound(&store);
}

#[test]
fn who_asks_at_the_same_time_gets_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp.path().join("store"));
    let blobs = [blob(1, SIZE), blob(2, SIZE)];
    put_blobs(&store, &blobs);
    let lists: Vec<ChunkList> = std::thread::scope(|scope| {
        let ask = |n: usize| {
            let (store, id) = (&store, blobs[n % 2].0);
            scope.spawn(move || store.chunks(&id).unwrap())
        };
        let asked: Vec<_> = (0..8).map(ask).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, list) in lists.iter().enumerate() {
        assert_eq!((list.blob(), list), (blobs[n % 2].0, &lists[n % 2]));
    }
    assert_sound(&store);
}

#[test]
fn a_full_store_answers_and_notes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let (id, bytes) = blob(1, SIZE);
    put_blobs(&open(&path), &[(id, bytes)]);
    let store = DiskStore::open(&path, options().limit(SIZE as u64)).unwrap();
    let list = store.chunks(&id).unwrap();
    assert_eq!((list.size(), known(&store, &list)), (SIZE as u64, 0));
}
