//! What enters a generation, by example and against all that must hold.

use super::model::{Item, Stamp, Tree, build, file, keep, read, writers};
use crate::mounts::{
    Action, Deletes, Policy, Row, Rules, TABLE, Told, Trim, Why, admit, group, union,
};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreNodes};
use crate::tree::root;
use proptest::prelude::*;
use proto::id::{BlobId, RootId};
use proto::path::FileName;
use proto::tree::{Dir, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Xattrs};

const PATHS: &[(Action, &str)] = &[(Action::Skip, "**/*.lock"), (Action::Skip, "tmp")];

fn rules() -> Rules {
    let policy = Policy::Union;
    let packages = &["pkg/*"];
    let row = TABLE[0];
    Rules::test(Row { policy, paths: PATHS, packages, trim: Trim::Oldest, ..row })
}

struct Bench {
    store: MemoryStore,
    rules: Rules,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { store: MemoryStore::new(), rules }
    }

    fn admit(&self, base: Option<&RootId>, mine: &RootId) -> (RootId, Vec<(String, Why)>) {
        let nodes = StoreNodes(&self.store);
        let admitted = admit(&nodes, &self.rules, base, mine).expect("trees that are there");
        keep(&self.store, &[], admitted.made);
        let refused = admitted.refused.first().iter();
        (admitted.tree, refused.map(|r| (r.path.clone(), r.why)).collect())
    }

    /// What is admitted of `mine`, and why not all of it.
    fn run(&self, base: &Tree, mine: &Tree) -> (Tree, Vec<(String, Why)>) {
        let (base, mine) = (build(&self.store, base), build(&self.store, mine));
        let (tree, refused) = self.admit(Some(&base), &mine);
        assert_eq!(self.admit(Some(&base), &tree), (tree, Vec::new()), "admitted once more");
        (read(&self.store, &tree), refused)
    }
}

fn other(node: Node) -> Item {
    Item::Other { at: Stamp { time: 1, mode: 0o600, owner: 0 }, node }
}

fn with_mode(mode: u16, item: Item) -> Item {
    let mut item = item;
    item.at_mut().mode = mode;
    item
}

#[test]
fn what_gives_rights_does_not_enter() {
    let bench = Bench::new(rules());
    let base = Tree::of(&[("was", file(1, "a file"))]);
    let mine = Tree::of(&[
        ("bin/su", with_mode(0o4755, file(1, "su"))),
        ("bin/wall", with_mode(0o2755, file(1, "wall"))),
        ("bin/sticky", with_mode(0o1755, file(1, "x"))),
        ("dev/null", other(Node::Char(1, 3))),
        ("dev/disk", other(Node::Block(8, 0))),
        ("pipe", other(Node::Fifo)),
        ("was", other(Node::Socket)),
    ]);
    let (tree, refused) = bench.run(&base, &mine);
    let expected = Tree::of(&[
        ("bin/su", with_mode(0o755, file(1, "su"))),
        ("bin/wall", with_mode(0o755, file(1, "wall"))),
        ("bin/sticky", with_mode(0o1755, file(1, "x"))),
        ("dev/x", file(0, "")),
        ("pipe", other(Node::Fifo)),
        ("was", file(1, "a file")),
    ]);
    let mut expected = expected;
    expected.remove("dev/x");
    assert_eq!(tree, expected);
    let expected = [
        ("bin/su", Why::Privileged),
        ("bin/wall", Why::Privileged),
        ("dev/disk", Why::Device),
        ("dev/null", Why::Device),
        ("was", Why::Socket),
    ];
    assert_eq!(refused, expected.map(|(path, why)| (path.to_owned(), why)));
}

#[test]
fn directories_keep_their_group_bit_and_owners_stay() {
    let bench = Bench::new(rules());
    let mut mine = Tree::of(&[("d/f", file(1, "x"))]);
    for (path, mode) in [("d", 0o6775), ("d/f", 0o640)] {
        let mut item = mine.get(path).expect("an item").clone();
        *item.at_mut() = Stamp { time: 3, mode, owner: 1000 };
        mine.put(path, item);
    }
    mine.at = Stamp { time: 4, mode: 0o2770, owner: 33 };
    let (tree, refused) = bench.run(&Tree::of(&[]), &mine);
    assert_eq!(tree.get("d").map(Item::at), Some(Stamp { time: 3, mode: 0o2775, owner: 1000 }));
    assert_eq!(tree.get("d/f"), mine.get("d/f"));
    assert_eq!(tree.at, mine.at);
    assert_eq!(refused, [("d".to_owned(), Why::Privileged)]);
}

#[test]
fn capabilities_do_not_enter() {
    let bench = Bench::new(rules());
    let blob = BlobId::of(b"");
    bench.store.put_blobs(&[(blob, bytes::Bytes::new())]).unwrap();
    let attribute = |name: &str| (name.as_bytes().to_vec(), b"1".to_vec());
    let xattrs = Xattrs::new([attribute("security.capability"), attribute("user.x")]);
    let meta = Meta { xattrs, ..Meta::root_owned(0o755, Mtime::default()) };
    let node = Node::File { blob, size: 0, link: None };
    let entry = Entry { name: FileName::new(b"ping").unwrap(), meta: meta.clone(), node };
    let sealed = Dir::new(vec![entry]).seal();
    let (id, bytes) = Root { meta, dir: sealed.dir, presence: Presence::Merge }.seal();
    bench.store.put_nodes(&[sealed.bytes, bytes]).unwrap();
    let (tree, refused) = bench.admit(None, &id);
    assert_eq!(refused, [("ping".to_owned(), Why::Privileged)]);
    let nodes = StoreNodes(&bench.store);
    let top = root(&nodes, &tree).unwrap().dir;
    let entries = crate::tree::dir(&nodes, &top.tree).unwrap();
    let left: Vec<_> =
        entries.entries()[0].meta.xattrs.iter().map(|(name, _)| name.to_vec()).collect();
    assert_eq!(left, [b"user.x".to_vec()]);
}

#[test]
fn logins_do_not_enter() {
    let secrets = [
        "root/.npmrc",
        ".netrc",
        "pip.conf",
        "a/b/credentials",
        "credentials.toml",
        "application_default_credentials.json",
        "token",
        "npm-token",
        "access_token.json",
        ".docker/config.json",
        ".m2/settings.xml",
        "id_ed25519",
    ];
    let harmless = [
        "token.go",
        "tokenizer.json",
        "special_tokens_map.json",
        "jsonwebtoken/index.js",
        "credentials/alts.go",
        "credentials.py",
        "id_ed25519.pub",
        "config.json",
        "pkg/grpc/credentials/.npmrc",
        "pkg/grpc/token",
    ];
    let tree = |paths: &[&str]| {
        Tree::of(&paths.iter().map(|path| (*path, file(1, path))).collect::<Vec<_>>())
    };
    let bench = Bench::new(rules());
    let (left, refused) = bench.run(&Tree::of(&[]), &tree(&[&secrets[..], &harmless].concat()));
    let mut told: Vec<&str> = refused.iter().map(|(path, _)| path.as_str()).collect();
    told.sort_unstable();
    let mut expected = secrets;
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert!(refused.iter().all(|(_, why)| *why == Why::Secret));
    assert_eq!(left.paths().len(), harmless.len());
    // A directory, or a link to a file elsewhere, is none.
    let at = Stamp { time: 1, mode: 0o777, owner: 0 };
    let mine = Tree::of(&[
        ("token", Item::Link { at, target: "/run/secrets/x".to_owned() }),
        ("credentials/x", file(1, "")),
    ]);
    assert_eq!(bench.run(&Tree::of(&[]), &mine), (mine, Vec::new()));
}

#[test]
fn logins_are_known_by_where_the_mount_is() {
    let settings = Tree::of(&[("settings.xml", file(1, "<servers/>"))]);
    let refused = |target: &str| {
        let bench = Bench::new(Rules::of("", target));
        bench.run(&Tree::of(&[]), &settings).1.len()
    };
    assert_eq!((refused("/root/.m2"), refused("/root/other")), (1, 0));
}

#[test]
fn what_is_skipped_stays_as_it_was() {
    let bench = Bench::new(rules());
    let base = Tree::of(&[("a.lock", file(1, "")), ("d/x", file(1, "x"))]);
    let mine = Tree::of(&[
        ("a.lock", file(2, "mine")),
        ("d/b.lock", file(2, "")),
        ("d/x", file(1, "x")),
        ("tmp/t", file(2, "t")),
        ("pkg/p/Cargo.lock", file(2, "of a package")),
        ("e/only.lock", file(2, "")),
    ]);
    let (tree, refused) = bench.run(&base, &mine);
    let mut expected = Tree::of(&[
        ("a.lock", file(1, "")),
        ("d/x", file(1, "x")),
        ("pkg/p/Cargo.lock", file(2, "of a package")),
        ("e/x", file(2, "")),
    ]);
    expected.remove("e/x");
    assert_eq!((tree, refused), (expected, Vec::new()));
    // One that was deleted is back.
    let (tree, _) = bench.run(&base, &Tree::of(&[("d/x", file(1, "x"))]));
    assert_eq!(tree, base);
}

#[test]
fn a_lock_that_came_and_went_is_no_change() {
    let bench = Bench::new(rules());
    let base = Tree::of(&[("d/x", file(1, "x")), ("e/y", file(1, "y"))]);
    let mut mine = base.clone();
    mine.put("d/a.lock", file(9, ""));
    for path in ["d", "e"] {
        let mut item = mine.get(path).expect("a directory").clone();
        item.at_mut().time = 9;
        mine.put(path, item);
    }
    mine.at.time = 9;
    mine.put("top.lock", file(9, ""));
    let (tree, _) = bench.run(&base, &mine);
    // `e` was touched by somebody who meant it.
    let mut expected = base.clone();
    expected.put("e", mine.get("e").expect("a directory").clone());
    assert_eq!(tree.get("d"), base.get("d"));
    assert_eq!(tree.items, expected.items);
    // And without that, nothing at all has changed.
    mine.put("e", base.get("e").expect("a directory").clone());
    assert_eq!(bench.run(&base, &mine).0, base);
}

#[test]
fn rules_for_paths_are_of_unions() {
    let mine = Tree::of(&[("a.lock", file(2, "mine"))]);
    let bench = Bench::new(rules().with_policy(Policy::LastWriter));
    assert_eq!(bench.run(&Tree::of(&[]), &mine), (mine.clone(), Vec::new()));
    let bench = Bench::new(rules());
    assert_eq!(bench.run(&Tree::of(&[]), &mine).0.paths(), [""; 0]);
    assert_eq!(rules().deletes(), Deletes::Keep);
}

#[test]
fn groups_of_links_are_named_by_their_files() {
    let meta = Meta::root_owned(0o644, Mtime { seconds: 1, nanos: 2 });
    let node = |text: &[u8], link: &[u8]| Node::File {
        blob: BlobId::of(text),
        size: text.len() as u64,
        link: Some(LinkId::of(&[link])),
    };
    let one = group(&meta, &node(b"x", b"a"));
    assert!(one.is_some());
    assert_eq!(one, group(&meta, &node(b"x", b"b")));
    assert_ne!(one, group(&meta, &node(b"y", b"a")));
    let times = [
        Meta { mtime: Mtime { seconds: 1, nanos: 3 }, ..meta.clone() },
        Meta { mode: 0o600, ..meta.clone() },
        Meta { gid: 1, ..meta.clone() },
        Meta { xattrs: Xattrs::new([(b"user.a".to_vec(), vec![])]), ..meta.clone() },
    ];
    for other in times {
        assert_ne!(one, group(&other, &node(b"x", b"a")));
    }
    let single = Node::File { blob: BlobId::of(b"x"), size: 1, link: None };
    assert_eq!(group(&meta, &single), None);
    assert_eq!(group(&meta, &Node::Symlink(b"x".to_vec())), None);
}

/// Two writers link the same two names, to different files, and one name is lost: without groups of
/// their own `y` would be the other's `x` once the union is on a disk.
#[test]
fn links_of_two_writers_stay_apart() {
    let bench = Bench::new(rules());
    let linked = |names: &[&str], text: &str| {
        let blob = BlobId::of(text.as_bytes());
        bench.store.put_blobs(&[(blob, bytes::Bytes::from(text.to_owned()))]).unwrap();
        // As a worker names groups: by their names.
        let link = Some(LinkId::of(&[b"x", b"y"]));
        let node = Node::File { blob, size: text.len() as u64, link };
        let meta = Meta::root_owned(0o644, Mtime::default());
        let entry = |name: &&str| {
            let name = FileName::new(name.as_bytes()).unwrap();
            Entry { name, meta: meta.clone(), node: node.clone() }
        };
        let sealed = Dir::new(names.iter().map(entry).collect()).seal();
        let (id, bytes) = Root { meta, dir: sealed.dir, presence: Presence::Merge }.seal();
        bench.store.put_nodes(&[sealed.bytes, bytes]).unwrap();
        bench.admit(None, &id).0
    };
    let (theirs, mine) = (linked(&["x", "y"], "1"), linked(&["x", "z"], "larger"));
    let united = union(&StoreNodes(&bench.store), &bench.rules, None, &theirs, &mine).unwrap();
    keep(&bench.store, &[], united.made);
    // `read` sees that every group is of one file.
    let tree = read(&bench.store, &united.tree);
    let text = |path: &str| match tree.get(path) {
        Some(Item::File { text, linked: true, .. }) => text.clone(),
        other => panic!("{path} is {other:?}"),
    };
    assert_eq!(["x", "y", "z"].map(text), ["larger", "1", "larger"]);
}

#[test]
fn a_list_of_many_says_how_many() {
    let bench = Bench::new(rules());
    let mut mine = Tree::of(&[]);
    for n in 0..150 {
        mine.put(&format!("{n:03}"), other(Node::Socket));
    }
    let mine = build(&bench.store, &mine);
    let admitted = admit(&StoreNodes(&bench.store), &bench.rules, None, &mine).unwrap();
    let told: &Told<_> = &admitted.refused;
    assert_eq!((told.count(), told.first().len()), (150, crate::mounts::TOLD_MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Without anything that does not enter, all enters; and the rules see only what changed.
    #[test]
    fn a_harmless_tree_is_admitted_as_it_is((base, trees) in writers(1)) {
        let bench = Bench::new(rules());
        let (base, mine) = (build(&bench.store, &base), build(&bench.store, &trees[0]));
        prop_assert_eq!(bench.admit(Some(&base), &mine), (mine, Vec::new()));
        prop_assert_eq!(bench.admit(None, &mine), (mine, Vec::new()));
    }
}
