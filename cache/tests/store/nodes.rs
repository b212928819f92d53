//! Several cache nodes: each gets what it should have, gives up what others own, and mends itself.

mod harness;

use crate::common::{Tree, assert_sound, content, content_key, def_key, options, tree};
use cache::cluster::member::{Difference, Walk};
use cache::cluster::placement::Placement;
use cache::net::NetError;
use cache::store::disk::Prune;
use cache::store::{DiskStore, Store, Table};
use harness::{Farm, blocking, name, result, until};
use proto::id::{BlobId, Scope};
use proto::wire::blob::{self, Item, Part};
use proto::wire::cluster::CacheState;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SIZES: [usize; 9] = [10, 2000, 70_000, 10, 500, 300_000, 4, 90, 3_000_000];

fn file_of(dir: &Path, id: &BlobId) -> PathBuf {
    dir.join(format!("blobs/{}/{id}", &id.to_string()[..2]))
}

/// All trees of several are on a node, and the blobs that it owns; nothing is damaged.
async fn assert_has_all(farm: &Farm, at: usize, trees: &[&Tree]) {
    let placement = Placement::new(&farm.cluster.map());
    let store = farm.store(at);
    for tree in trees {
        let nodes: Vec<_> = tree.nodes.iter().map(|bytes| proto::tree::node_id(bytes)).collect();
        assert_eq!(store.missing_trees(&nodes).unwrap(), []);
        for (id, bytes) in tree.blobs.iter().filter(|(id, _)| placement.owns(&name(at), id)) {
            assert_eq!(store.sizes(&[*id]).unwrap(), [Some(bytes.len() as u64)]);
        }
    }
    blocking(move || assert_sound(&store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tree_is_on_all_nodes_and_its_blobs_on_some() {
    let farm = Farm::new(4, 2).await;
    let whole = farm.put(1, &SIZES).await;
    for at in 0..4 {
        assert_has_all(&farm, at, &[&whole]).await;
        assert!(farm.knows(at, 1));
    }
    assert!(whole.blobs.iter().all(|(id, _)| farm.copies(id) == 2));
    farm.read(&whole).await;
    // What nobody has can be in no tree, on any node.
    let other = tree(2, &SIZES);
    farm.cluster.put_blobs(&other.blobs[1..]).await.unwrap();
    let refused = farm.cluster.put_nodes(other.nodes.clone()).await;
    assert!(matches!(refused, Err(NetError::Refused(_))), "{refused:?}");
    assert!(!farm.cluster.missing(vec![], vec![other.root.0]).await.unwrap().1.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_node_gets_all_that_it_should_have_and_the_others_give_it_up() {
    let mut farm = Farm::new(2, 2).await;
    let mut trees = Vec::new();
    for seed in 0..20 {
        trees.push(farm.put(seed, &SIZES).await);
    }
    farm.cluster.put_row(blob::Table::Image, b"name", b"no image").await.unwrap_err();
    farm.cluster.put_build(b"build".to_vec(), b"what it did".to_vec()).await.unwrap();
    let row = (&[3; 32], trees[0].root.0.as_bytes());
    farm.cluster.put_row(blob::Table::Unpacked, row.0, row.1).await.unwrap();
    let new = farm.add(CacheState::Syncing);
    // While it catches up it takes what is new.
    let late = farm.put(100, &SIZES).await;
    farm.settled(new).await;
    let all: Vec<&Tree> = trees.iter().chain([&late]).collect();
    assert_has_all(&farm, new, &all).await;
    assert!((0..20).chain([100]).all(|seed| farm.knows(new, seed)));
    let store = farm.store(new);
    let alias = store.aliases(&Scope::trusted(), &[def_key(7)]).unwrap();
    assert!(alias[0].is_some());
    assert_eq!(store.row(Table::Build, b"build").unwrap().unwrap(), b"what it did");
    assert_eq!(store.row(Table::Unpacked, row.0).unwrap().unwrap(), row.1);
    farm.set(new, CacheState::Serving);
    let once = |tree: &&Tree| tree.blobs.iter().all(|(id, _)| farm.copies(id) == 2);
    until("each blob is on its two owners alone", || all.iter().all(once)).await;
    for at in 0..3 {
        assert_has_all(&farm, at, &all).await;
    }
    for tree in all {
        farm.read(tree).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_away_gets_what_it_missed_and_drops_what_is_gone() {
    let farm = Farm::new(3, 2).await;
    let before = farm.put(1, &SIZES).await;
    let put = |key: u8, tree: &Tree| {
        let tree = *tree.root.0.as_bytes();
        let cluster = farm.cluster.clone();
        async move { cluster.put_row(blob::Table::Unpacked, &[key; 32], &tree).await.unwrap() }
    };
    put(1, &before).await;
    put(2, &before).await;
    farm.fail(2);
    let missed = farm.put(2, &SIZES).await;
    assert!(missed.blobs.iter().all(|(id, _)| farm.copies(id) == 2), "somebody stands in");
    farm.cluster.delete_row(blob::Table::Unpacked, &[1; 32]).await.unwrap();
    put(2, &missed).await;
    farm.cluster.put_record(result(1, &missed, 7)).await.unwrap();
    farm.heal(2);
    farm.settled(2).await;
    assert_has_all(&farm, 2, &[&before, &missed]).await;
    let store = farm.store(2);
    assert!(farm.knows(2, 2));
    let record = store.records(&Scope::trusted(), &[content_key(1)]).unwrap();
    assert_eq!(record[0].as_ref().unwrap().version, 7);
    assert_eq!(store.row(Table::Unpacked, &[1; 32]).unwrap(), None, "it was deleted meanwhile");
    let row = store.row(Table::Unpacked, &[2; 32]).unwrap().unwrap();
    assert_eq!(row, missed.root.0.as_bytes());
    farm.set(2, CacheState::Serving);
    until("nobody stands in any more", || missed.blobs.iter().all(|(id, _)| farm.copies(id) == 2))
        .await;
    farm.read(&missed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_leaves_gives_what_it_has_to_the_others_first() {
    for replicas in [1, 2] {
        let farm = Farm::new(3, replicas).await;
        let mut trees = Vec::new();
        for seed in 0..5 {
            trees.push(farm.put(seed, &SIZES).await);
        }
        farm.set(0, CacheState::Leaving);
        let late = farm.put(9, &SIZES).await;
        farm.settled(1).await;
        farm.settled(2).await;
        farm.remove(0);
        farm.settled(1).await;
        let all: Vec<&Tree> = trees.iter().chain([&late]).collect();
        for tree in &all {
            farm.read(tree).await;
        }
        assert_has_all(&farm, 1, &all).await;
        assert_has_all(&farm, 2, &all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_a_dead_node_is_removed_there_are_as_many_copies_as_before() {
    let farm = Farm::new(4, 2).await;
    let tree = farm.put(1, &SIZES).await;
    farm.fail(0);
    farm.remove(0);
    for at in 1..4 {
        farm.settled(at).await;
    }
    let lives = |id: &BlobId| {
        (1..4).filter(|at| farm.store(*at).sizes(&[*id]).unwrap()[0].is_some()).count()
    };
    until("two living nodes have each", || tree.blobs.iter().all(|(id, _)| lives(id) == 2)).await;
    farm.read(&tree).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_blob_comes_back_from_another_copy() {
    let farm = Farm::new(3, 2).await;
    let tree = farm.put(1, &SIZES).await;
    let (id, bytes) = &tree.blobs[8];
    let owner = (0..3).find(|at| farm.store(*at).sizes(&[*id]).unwrap()[0].is_some()).unwrap();
    let file = file_of(&farm.nodes[owner].dir, id);
    // Found by who reads it.
    fs::write(&file, content(99, bytes.len())).unwrap();
    farm.read(&tree).await;
    let store = farm.store(owner);
    let read = blocking(move || {
        let read = store.read(&tree.blobs[8].0);
        (read, tree)
    });
    let (_, tree) = read.await;
    let whole = |id: &BlobId| fs::read(file_of(&farm.nodes[owner].dir, id)).ok();
    until("it is back", || whole(&tree.blobs[8].0).as_deref() == Some(&bytes_of(&tree, 8))).await;
    assert!(farm.knows(owner, 1), "what needs it was never gone");
    // Found by who looks.
    fs::remove_file(&file).unwrap();
    farm.nodes[owner].member.check(true).await.unwrap();
    until("it is back", || whole(&tree.blobs[8].0).as_deref() == Some(&bytes_of(&tree, 8))).await;
    for at in 0..3 {
        assert_has_all(&farm, at, &[&tree]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_own_disk_did_not_take_is_mended_later() {
    let farm = Farm::new(3, 2).await;
    let tree = farm.put(1, &SIZES).await;
    let (id, bytes) = &tree.blobs[8];
    let owner = (0..3).find(|at| farm.store(*at).sizes(&[*id]).unwrap()[0].is_some()).unwrap();
    let dir = &farm.nodes[owner].dir;
    // Nothing can be written until it is back.
    fs::rename(dir.join("tmp"), dir.join("away")).unwrap();
    fs::remove_file(file_of(dir, id)).unwrap();
    farm.nodes[owner].member.check(true).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(farm.store(owner).sizes(&[*id]).unwrap(), [None]);
    fs::rename(dir.join("away"), dir.join("tmp")).unwrap();
    let whole = || fs::read(file_of(dir, id)).is_ok_and(|read| read == *bytes);
    until("it is back", whole).await;
}

fn bytes_of(tree: &Tree, at: usize) -> Vec<u8> {
    tree.blobs[at].1.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_needs_a_blob_that_nobody_has_is_missing_everywhere() {
    let farm = Farm::new(3, 2).await;
    let (lost, kept) = (farm.put(1, &SIZES).await, farm.put(2, &SIZES).await);
    let id = lost.blobs[8].0;
    for node in &farm.nodes {
        let _ = fs::remove_file(file_of(&node.dir, &id));
    }
    let read = farm.cluster.get_blobs(&[id]).await;
    assert!(matches!(read, Err(NetError::Refused(_))), "{read:?}");
    // By the time that the reader hears of it nobody says any more that the tree is there.
    let trees = vec![lost.root.0, kept.root.0];
    let (blobs, trees) = farm.cluster.missing(vec![id], trees).await.unwrap();
    assert_eq!((blobs, trees), (vec![id], vec![lost.root.0]));
    for at in 0..3 {
        until("it is forgotten", || !farm.knows(at, 1)).await;
        assert!(farm.knows(at, 2));
        let store = farm.store(at);
        blocking(move || assert_sound(&store)).await;
    }
    // It can be made again.
    farm.put(1, &SIZES).await;
    assert!((0..3).all(|at| farm.knows(at, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_node_collects_the_others_forget() {
    let farm = Farm::new(3, 2).await;
    let (old, new) = (farm.put(1, &SIZES).await, farm.put(2, &SIZES).await);
    let mount = farm.put(3, &SIZES).await;
    for at in 0..3 {
        farm.store(at).put_row(Table::CacheMount, b"go", mount.root.0.as_bytes()).unwrap();
    }
    let pin = farm.cluster.pin().await;
    let scope = Scope::trusted();
    let key = content_key(2);
    assert!(farm.cluster.records(&scope, vec![key]).await.unwrap()[0].is_some());
    let store = farm.store(0);
    blocking(move || store.prune(Prune::All).unwrap()).await;
    assert!(!farm.knows(0, 1));
    until("the others have heard of it", || !farm.knows(1, 1) && !farm.knows(2, 1)).await;
    assert!((0..3).all(|at| farm.knows(at, 2)), "a build uses it");
    let alias = farm.store(1).aliases(&scope, &[def_key(1)]).unwrap();
    assert_eq!(alias, [None]);
    farm.read(&new).await;
    drop(pin);
    for at in 0..3 {
        let store = farm.store(at);
        // That the pin is given back is not said to who held it.
        until("all is collected", || {
            store.prune(Prune::All).unwrap();
            let missing = store.lacking_trees(&[old.root.0, new.root.0, mount.root.0]).unwrap();
            missing == [old.root.0, new.root.0, mount.root.0]
        })
        .await;
    }
    for at in 0..3 {
        let store = farm.store(at);
        assert!(!farm.knows(at, 2));
        blocking(move || {
            assert_sound(&store);
            let known = store.elsewhere_from(&BlobId::from_bytes([0; 32]), 1000).unwrap();
            assert!(known.len() < SIZES.len(), "nothing names the rest: {}", known.len());
        })
        .await;
    }
    // A new one begins with what is left.
    farm.put(1, &SIZES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_in_use_gives_up_nothing_that_is_pinned() {
    let mut farm = Farm::new(2, 2).await;
    let (tree, other) = (farm.put(1, &SIZES).await, farm.put(2, &SIZES).await);
    let pin = farm.cluster.pin().await;
    let ids: Vec<BlobId> = tree.blobs.iter().map(|(id, _)| *id).collect();
    farm.cluster.missing(ids.clone(), vec![]).await.unwrap();
    let new = farm.add(CacheState::Syncing);
    farm.serves(new).await;
    // The new node read all from the first one, where that counts as use; the other one has looked for
    // what others own once some of what nobody used there is gone.
    let has = |id: &BlobId| farm.store(1).sizes(&[*id]).unwrap()[0].is_some();
    until("it has looked", || other.blobs.iter().any(|(id, _)| !has(id))).await;
    assert!(ids.iter().all(has));
    drop(pin);
    // It looks again by itself: nobody tells it that the pin is gone.
    until("others have what they own", || ids.iter().all(|id| farm.copies(id) == 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_find_all_differences_and_say_little_about_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let open = |name: &str| Arc::new(DiskStore::open(&temp.path().join(name), options()).unwrap());
    let (own, theirs) = (open("own"), open("theirs"));
    let key = |n: u32| blake3::hash(&n.to_le_bytes()).as_bytes().to_vec();
    let (mut lacking, mut extra, mut other) = <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
    for n in 0..10_000u32 {
        let (in_own, in_theirs) = (n % 1000 != 1 && n < 8_000, n % 1000 != 2);
        if in_own {
            own.put_row(Table::Build, &key(n), b"same").unwrap();
        }
        if in_theirs {
            let value: &[u8] = if n % 1000 == 3 { b"other" } else { b"same" };
            theirs.put_row(Table::Build, &key(n), value).unwrap();
        }
        match (in_own, in_theirs) {
            (false, true) => drop(lacking.insert(key(n))),
            (true, false) => drop(extra.insert(key(n))),
            (true, true) if n % 1000 == 3 => drop(other.insert(key(n))),
            _ => {}
        }
    }
    let (peer, answered) = harness::peer(theirs);
    let mut walk = Walk::new(&own, peer, Part::Table, &[], &[]);
    while let Some(differences) = walk.next().await.unwrap() {
        for difference in differences {
            let found = match &difference {
                Difference::Lacking(Item::Entry { key, .. }) => lacking.remove(&key[2..]),
                Difference::Extra(Item::Entry { key, .. }) => extra.remove(&key[2..]),
                Difference::Other { own: Item::Entry { key, .. }, .. } => other.remove(&key[2..]),
                _ => false,
            };
            assert!(found, "{difference:?}");
        }
    }
    assert!(lacking.is_empty() && extra.is_empty() && other.is_empty());
    assert!(answered.load(Ordering::SeqCst) > 30 * 64);
    let same = open("same");
    for n in 0..10_000u32 {
        same.put_row(Table::Build, &key(n), b"same").unwrap();
    }
    let copy = open("copy");
    for n in 0..10_000u32 {
        copy.put_row(Table::Build, &key(n), b"same").unwrap();
    }
    let (peer, answered) = harness::peer(copy);
    let mut walk = Walk::new(&same, peer, Part::Table, &[], &[]);
    while let Some(differences) = walk.next().await.unwrap() {
        assert_eq!(differences, []);
    }
    let bytes = answered.load(Ordering::SeqCst);
    assert!(bytes < 4096, "{bytes} bytes for 10,000 things that are the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_nodes_may_compare_and_forget() {
    let farm = Farm::new(1, 1).await;
    let coordinator = farm.cluster.node(&name(0)).unwrap();
    let refused = coordinator.list(&Part::Trees, &[], &[]).await;
    assert!(matches!(refused, Err(NetError::Refused(_))), "{refused:?}");
    let refused = coordinator.forget(Vec::new()).await;
    assert!(matches!(refused, Err(NetError::Refused(_))), "{refused:?}");
}
