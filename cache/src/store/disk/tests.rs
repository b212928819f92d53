//! Damage that RocksDB's checksums can't see: wrong values, written as if they were right.

use super::batch::Sync;
use super::rocks::Cf;
use super::scrub::Damaged;
use super::value::{Head, Piece, key};
use super::{DiskStore, Hooks, Options};
use crate::store::{OciBlob, Persisted, Store, StoreError, Table};
use bytes::Bytes;
use proto::id::{BlobId, ContentKey, DefKey, Millis, RootId, Scope, TreeId};
use proto::path::FileName;
use proto::record::{Alias, Cost, Record};
use proto::tree::{Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root};

struct Filled {
    store: DiskStore,
    blob: (BlobId, Bytes),
    /// From the deepest to the root.
    trees: Vec<TreeId>,
    nodes: Vec<Vec<u8>>,
    _temp: tempfile::TempDir,
}

fn entry(name: &str, node: Node) -> Entry {
    let meta = Meta::root_owned(0o644, Mtime::default());
    Entry { name: FileName::new(name.as_bytes()).unwrap(), meta, node }
}

fn parent(name: &str, dir: DirRef) -> Dir {
    Dir::new(vec![entry(name, Node::Dir(dir, Presence::Merge))])
}

fn filled() -> Filled {
    let temp = tempfile::tempdir().unwrap();
    let hooks = Hooks { now: || Millis(1_000_000), ..Hooks::default() };
    let options = Options::default().keep_free(0).hooks(hooks);
    let store = DiskStore::open(&temp.path().join("store"), options).unwrap();
    let bytes = Bytes::from_static(b"some bytes");
    let blob = (BlobId::of(&bytes), bytes);
    store.put_blobs(std::slice::from_ref(&blob)).unwrap();
    let size = blob.1.len() as u64;
    let file = Node::File { blob: blob.0, size, link: None };
    let deep = Dir::new(vec![entry("file", file)]).seal();
    let middle = parent("deep", deep.dir).seal();
    let top = parent("middle", middle.dir).seal();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (root, bytes) = Root { meta, dir: top.dir, presence: Presence::Merge }.seal();
    let trees = vec![deep.dir.tree, middle.dir.tree, top.dir.tree, root.0];
    let nodes = vec![deep.bytes, middle.bytes, top.bytes, bytes];
    store.put_nodes(&nodes).unwrap();
    let record = Record {
        layers: vec![root],
        created: Millis(1),
        log: Some(blob.0),
        cost: Cost::default(),
        producer: None,
        version: 1,
    };
    let alias = Alias { key: content_key(), version: 1, inputs: Vec::new() };
    let alias = Some((&DEF, &alias));
    store.put_record(&Scope::trusted(), &content_key(), &record, alias).unwrap();
    let row = OciBlob { blob: blob.0, size, repository: None }.to_bytes();
    store.put_row(Table::OciBlob, &[3; 32], &row).unwrap();
    store.put_row(Table::CacheMount, b"mount", root.0.as_bytes()).unwrap();
    Filled { store, blob, trees, nodes, _temp: temp }
}

const DEF: DefKey = DefKey::from_bytes([2; 32]);

fn content_key() -> ContentKey {
    ContentKey::from_bytes([1; 32])
}

impl Filled {
    /// Writes past all checks.
    fn plant(&self, cf: Cf, key: &[u8], value: Option<&[u8]>) {
        let mut batch = self.store.inner.index.batch();
        match value {
            Some(value) => batch.put(cf, key, value),
            None => batch.delete(cf, key),
        }
        batch.commit(Sync::No).unwrap();
    }

    fn damaged(&self) -> Vec<Damaged> {
        self.store.verify(&mut |_| {}).unwrap().into_iter().map(|damage| damage.what).collect()
    }

    /// Repairs, after which nothing is damaged, and puts everything back.
    fn mend(&self) {
        let damages = self.store.verify(&mut |_| {}).unwrap();
        assert_eq!(self.store.repair(&damages).unwrap().left, []);
        assert_eq!(self.damaged(), []);
        self.store.put_blobs(std::slice::from_ref(&self.blob)).unwrap();
        self.store.put_nodes(&self.nodes).unwrap();
        let root = RootId(self.trees[3]);
        self.store.put_row(Table::CacheMount, b"mount", root.0.as_bytes()).unwrap();
        assert_eq!(self.damaged(), []);
    }
}

#[test]
fn nothing_is_damaged_at_first() {
    assert_eq!(filled().damaged(), []);
}

#[test]
fn a_row_that_can_not_be_read_is_found() {
    let trusted = Scope::trusted();
    let record = key::record(&trusted, &content_key());
    let alias = key::alias(&trusted, &DEF);
    let row = key::row(Table::OciBlob, &[3; 32]);
    let used = key::used(&record);
    let cases = [
        (record.clone(), Damaged::Record(record)),
        (alias.clone(), Damaged::Alias(alias)),
        (row.clone(), Damaged::Row(Some(Table::OciBlob), row)),
        (used.clone(), Damaged::Row(None, used)),
        (b"nonsense".to_vec(), Damaged::Row(None, b"nonsense".to_vec())),
    ];
    for (key, expected) in cases {
        let filled = filled();
        filled.plant(Cf::Table, &key, Some(b"\x01 garbage"));
        let found = filled.damaged();
        assert!(found.contains(&expected), "{found:?}");
        filled.mend();
    }
}

#[test]
fn rows_of_chunks_that_are_wrong_are_found() {
    let (large, other) = (Bytes::from(vec![1; 3 << 20]), BlobId::of(b"other"));
    let id = BlobId::of(&large);
    let list = crate::chunk::cut::cut(&large[..]).unwrap();
    let (own, of) = (key::chunks(&id), key::chunk(&list.chunks()[0].id, &id));
    let piece = Piece { offset: 1, len: 2 }.to_bytes();
    let cases = [
        (own.clone(), Some(b"\x01 garbage".to_vec()), own.clone()),
        (own.clone(), Some(list.prefix(1, id).encode()), own.clone()),
        (own.clone(), Some(list.prefix(2, other).encode()), own),
        (key::chunks(&other), Some(list.prefix(2, other).encode()), key::chunks(&other)),
        (of.clone(), Some(b"\x01 garbage".to_vec()), of.clone()),
        (key::chunk(&other, &other), Some(piece.clone()), key::chunk(&other, &other)),
        (key::chunks_named(&other), Some(piece), key::chunks_named(&other)),
        (key::chunks(&id), None, of),
    ];
    for (row, value, expected) in cases {
        let filled = filled();
        filled.store.put_blobs(&[(id, large.clone())]).unwrap();
        assert_eq!(filled.store.chunks(&id).unwrap(), list);
        filled.plant(Cf::Table, &row, value.as_deref());
        let found = filled.damaged();
        assert!(found.contains(&Damaged::Chunks(expected)), "{found:?}");
        filled.mend();
        filled.store.find_chunks(&[list.chunks()[0].id]).unwrap();
        assert_eq!(filled.store.chunks(&id).unwrap(), list);
        assert_eq!(filled.damaged(), []);
    }
}

#[test]
fn a_list_that_can_not_be_read_is_made_anew_and_goes_with_its_blob() {
    let filled = filled();
    let (store, large) = (&filled.store, Bytes::from(vec![1; 5 << 20]));
    let id = BlobId::of(&large);
    store.put_blobs(&[(id, large)]).unwrap();
    let list = store.chunks(&id).unwrap();
    filled.plant(Cf::Table, &key::chunks(&id), Some(b"\x02"));
    assert_eq!(store.chunks(&id).unwrap(), list);
    assert_eq!(filled.damaged(), []);
    filled.plant(Cf::Table, &key::chunks(&id), Some(b"\x02"));
    store.prune(super::Prune::All).unwrap();
    assert_eq!(store.missing_blobs(&[id]).unwrap(), [id]);
    assert_eq!(filled.damaged(), []);
}

#[test]
fn what_can_not_be_read_counts_as_missing() {
    let filled = filled();
    let (store, trusted) = (&filled.store, Scope::trusted());
    filled.plant(Cf::Table, &key::record(&trusted, &content_key()), Some(b"\x01x"));
    filled.plant(Cf::Table, &key::alias(&trusted, &DEF), Some(&[]));
    filled.plant(Cf::Blob, filled.blob.0.as_bytes(), Some(b"\x02"));
    filled.plant(Cf::Tree, filled.trees[0].as_bytes(), Some(b"\x01"));
    assert_eq!(store.records(&trusted, &[content_key()]).unwrap(), [None]);
    assert_eq!(store.aliases(&trusted, &[DEF]).unwrap(), [None]);
    assert_eq!(store.missing_blobs(&[filled.blob.0]).unwrap(), [filled.blob.0]);
    assert_eq!(store.missing_trees(&filled.trees[..1]).unwrap(), filled.trees[..1]);
    assert!(matches!(store.node(&filled.trees[0]), Ok(_) | Err(StoreError::NoTree(_))));
    filled.mend();
}

#[test]
fn a_row_that_names_what_is_not_here_is_found() {
    let filled = filled();
    let row = key::row(Table::Unpacked, &[9; 32]);
    filled.plant(Cf::Table, &row, Some(&[8; 32]));
    let alias = Alias { key: ContentKey::from_bytes([77; 32]), version: 1, inputs: Vec::new() };
    let dangling = key::alias(&Scope::trusted(), &DefKey::from_bytes([78; 32]));
    filled.plant(Cf::Table, &dangling, Some(&alias.to_bytes()));
    let expected = [Damaged::Alias(dangling), Damaged::Row(Some(Table::Unpacked), row)];
    assert_eq!(filled.damaged(), expected);
    filled.mend();
}

#[test]
fn a_tree_that_is_not_what_its_name_says_is_found() {
    let wrong_head = Head::new(None, 0, 3, None).to_bytes();
    let cases: [(Cf, Option<&[u8]>); 6] = [
        (Cf::Node, Some(b"garbage")),
        (Cf::Node, None),
        (Cf::Tree, Some(b"\x01garbage")),
        (Cf::Tree, Some(&wrong_head)),
        (Cf::Tree, None),
        (Cf::Node, Some(&[])),
    ];
    for (cf, value) in cases {
        for (n, tree) in filled().trees.iter().enumerate() {
            let filled = filled();
            filled.plant(cf, tree.as_bytes(), value);
            let found = filled.damaged();
            assert!(found.contains(&Damaged::Tree(*tree)), "{cf:?} {value:?} {n}: {found:?}");
            filled.mend();
        }
    }
}

#[test]
fn a_tree_whose_blob_is_gone_is_found() {
    let filled = filled();
    filled.plant(Cf::Blob, filled.blob.0.as_bytes(), None);
    let found = filled.damaged();
    assert!(found.contains(&Damaged::Tree(filled.trees[0])), "{found:?}");
    filled.mend();
}

#[test]
fn a_damaged_node_takes_along_what_is_above_it() {
    let filled = filled();
    let store = &filled.store;
    filled.plant(Cf::Node, filled.trees[1].as_bytes(), Some(b"garbage"));
    filled.trees.iter().for_each(|id| store.inner.nodes.remove(id));
    let error = store.node(&filled.trees[1]).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(store.missing_trees(&filled.trees).unwrap(), filled.trees[1..]);
    assert!(matches!(store.node(&filled.trees[3]), Err(StoreError::NoTree(_))));
    assert!(store.row(Table::CacheMount, b"mount").unwrap().is_none());
    assert_eq!(store.records(&Scope::trusted(), &[content_key()]).unwrap(), [None]);
    assert_eq!(filled.damaged(), []);
    filled.mend();
}

#[test]
fn wrong_counters_are_found() {
    let filled = filled();
    super::lock(&filled.store.inner.index.totals).packed.bytes += 1;
    assert_eq!(filled.damaged(), [Damaged::Counters]);
    filled.mend();
    let (path, blob) = (filled.store.path().to_owned(), filled.blob.clone());
    let Filled { store, _temp, .. } = filled;
    drop(store);
    let store = DiskStore::open(&path, Options::default()).unwrap();
    assert_eq!(store.read(&blob.0).unwrap(), blob.1);
    assert!(store.verify(&mut |_| {}).unwrap().is_empty(), "the right ones were written");
}

#[test]
fn only_one_put_of_many_counts() {
    let filled = filled();
    let store = &filled.store;
    let blobs: Vec<(BlobId, Bytes)> =
        (0..50u8).map(|n| (BlobId::of(&[n]), Bytes::from(vec![n]))).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                store.put_blobs(&blobs).unwrap();
                store.put_nodes(&filled.nodes).unwrap();
            });
        }
    });
    assert_eq!(store.usage().unwrap().packed.number, 51);
    assert_eq!(filled.damaged(), []);
}

#[test]
fn what_was_to_be_mended_can_be_put_back() {
    let filled = filled();
    let gone = [(BlobId::of(b"gone"), 4), (BlobId::of(b"lost"), 4)];
    filled.store.mend_later(&gone);
    assert_eq!(filled.store.take_mending().blobs, gone.into());
    assert_eq!(filled.store.take_mending().blobs, [].into());
}
