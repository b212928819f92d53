//! The union: its laws, and its rules by example.

use super::model::{Item, Tree, build, file, keep, read, rules, writers};
use super::reference::Reference;
use crate::mounts::{Action, Deletes, LINES_BYTES_MAX, Rules, union};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreNodes};
use crate::tree::{Gap, TreeError};
use proptest::prelude::*;
use proto::id::RootId;

const ACTIONS: &[(Action, &str)] = &[(Action::Newer, "**/newer"), (Action::Lines, "**/lines")];
const THEIRS: &[(Action, &str)] = &[(Action::Theirs, "**/theirs")];

/// A store, and unions in it.
struct Bench {
    store: MemoryStore,
    rules: Rules,
    base: RootId,
}

impl Bench {
    fn new(base: &Tree, rules: Rules) -> Self {
        let store = MemoryStore::new();
        let base = build(&store, base);
        Self { store, rules, base }
    }

    fn put(&self, tree: &Tree) -> RootId {
        build(&self.store, tree)
    }

    fn union(&self, theirs: &RootId, mine: &RootId) -> RootId {
        let nodes = StoreNodes(&self.store);
        let united = union(&nodes, &self.rules, Some(&self.base), theirs, mine).expect("a union");
        keep(&self.store, &united.blobs, united.made);
        united.tree
    }

    fn read(&self, tree: &RootId) -> Tree {
        read(&self.store, tree)
    }
}

fn both_deletes() -> impl Strategy<Value = Deletes> {
    prop_oneof![Just(Deletes::Keep), Just(Deletes::Follow)]
}

fn some_actions() -> impl Strategy<Value = &'static [(Action, &'static str)]> {
    prop_oneof![Just(&[][..]), Just(ACTIONS)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Writers that end in any order make what the reference says, which knows of no order.
    #[test]
    fn writers_in_any_order_give_what_the_reference_says(
        (base, trees) in (1usize..5).prop_flat_map(writers),
        order in any::<prop::sample::Index>(),
        deletes in both_deletes(),
        paths in some_actions(),
    ) {
        let bench = Bench::new(&base, rules(deletes, paths));
        let mut ids: Vec<RootId> = trees.iter().map(|tree| bench.put(tree)).collect();
        let expected = Reference { deletes, has_actions: !paths.is_empty() }
            .union(&base, &trees.iter().collect::<Vec<_>>());
        let at = order.index(ids.len());
        ids.rotate_left(at);
        let all = ids.iter().copied().reduce(|theirs, mine| bench.union(&theirs, &mine));
        let all = all.expect("a writer");
        prop_assert_eq!(bench.read(&all), expected);
        // The other way round, and with one of them a second time.
        let back = ids.iter().rev().copied().reduce(|theirs, mine| bench.union(&theirs, &mine));
        prop_assert_eq!(back, Some(all));
        prop_assert_eq!(bench.union(&all, &ids[0]), all);
    }

    #[test]
    fn union_is_commutative_and_idempotent(
        (base, trees) in writers(2),
        deletes in both_deletes(),
        paths in some_actions(),
    ) {
        let bench = Bench::new(&base, rules(deletes, paths));
        let (a, b) = (bench.put(&trees[0]), bench.put(&trees[1]));
        let both = bench.union(&a, &b);
        prop_assert_eq!(bench.union(&b, &a), both);
        prop_assert_eq!(bench.union(&a, &a), a);
        prop_assert_eq!(bench.union(&both, &b), both);
        prop_assert_eq!(bench.union(&a, &both), both);
    }

    #[test]
    fn union_is_associative(
        (base, trees) in writers(3),
        deletes in both_deletes(),
        paths in prop_oneof![some_actions(), Just(THEIRS)],
    ) {
        let bench = Bench::new(&base, rules(deletes, paths));
        let [a, b, c] = [0, 1, 2].map(|i| bench.put(&trees[i]));
        let left = bench.union(&bench.union(&a, &b), &c);
        prop_assert_eq!(left, bench.union(&a, &bench.union(&b, &c)));
    }

    /// Under `Theirs` merging again changes nothing either, and the first writer wins.
    #[test]
    fn under_theirs_the_first_writer_wins((base, trees) in writers(2), deletes in both_deletes()) {
        let bench = Bench::new(&base, rules(deletes, &[(Action::Theirs, "**")]));
        let (a, b) = (bench.put(&trees[0]), bench.put(&trees[1]));
        let both = bench.union(&a, &b);
        prop_assert_eq!(bench.union(&both, &b), both);
        prop_assert_eq!(bench.union(&both, &a), both);
        let tree = bench.read(&both);
        for path in trees[0].paths() {
            let (old, now) = (base.get(&path), trees[0].get(&path));
            if old != now && !tree.get(&path).is_none_or(Item::is_dir) {
                prop_assert_eq!(tree.get(&path), now);
            }
        }
    }

    #[test]
    fn with_an_unchanged_side_nothing_is_merged((base, trees) in writers(1)) {
        let bench = Bench::new(&base, rules(Deletes::Follow, &[]));
        let mine = bench.put(&trees[0]);
        prop_assert_eq!(bench.union(&bench.base, &mine), mine);
        prop_assert_eq!(bench.union(&mine, &bench.base), mine);
        // With `Keep` everything is there that either has.
        let bench = Bench::new(&base, rules(Deletes::Keep, &[]));
        let both = bench.read(&bench.union(&bench.base, &bench.put(&trees[0])));
        for path in base.paths().into_iter().chain(trees[0].paths()) {
            prop_assert!(both.get(&path).is_some() || trees[0].get(&path).is_none(), "{}", path);
        }
    }

    /// What a writer added is there, whatever the other one did, and from whatever base.
    #[test]
    fn nothing_that_was_added_is_lost((base, trees) in writers(3), deletes in both_deletes()) {
        let bench = Bench::new(&base, rules(deletes, ACTIONS));
        let [older, a, b] = [0, 1, 2].map(|i| bench.put(&trees[i]));
        // The head is no descendant of the base.
        let head = bench.union(&older, &a);
        let all = bench.read(&bench.union(&head, &b));
        for tree in &trees[1..] {
            for path in tree.paths() {
                if base.get(&path).is_none() {
                    prop_assert!(is_there(&all, &path), "{} is lost", path);
                }
            }
        }
    }
}

/// Whether something is at the path, or something newer that is no directory stands above it.
fn is_there(tree: &Tree, path: &str) -> bool {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    tree.get(path).is_some() || above.into_iter().any(|p| tree.get(p).is_some_and(|i| !i.is_dir()))
}

#[derive(Clone, Copy)]
struct Case<'a> {
    base: &'a [(&'a str, Item)],
    theirs: &'a [(&'a str, Item)],
    mine: &'a [(&'a str, Item)],
    deletes: Deletes,
    paths: &'static [(Action, &'static str)],
}

impl Case<'_> {
    #[track_caller]
    fn gives(&self, expected: &[(&str, Item)]) {
        let bench = Bench::new(&Tree::of(self.base), rules(self.deletes, self.paths));
        let theirs = bench.put(&Tree::of(self.theirs));
        let mine = bench.put(&Tree::of(self.mine));
        assert_eq!(bench.read(&bench.union(&theirs, &mine)), Tree::of(expected));
    }
}

fn dir(time: i64) -> Item {
    let mut tree = Tree::of(&[("d/x", file(0, ""))]);
    tree.remove("d/x");
    let mut dir = tree.get("d").expect("a directory").clone();
    dir.at_mut().time = time;
    dir
}

#[test]
fn the_newer_then_the_larger_is_kept() {
    let case = Case { base: &[], theirs: &[], mine: &[], deletes: Deletes::Keep, paths: &[] };
    let (old, new) = (file(1, "older, but larger"), file(2, "new"));
    let one = Case { theirs: &[("f", old.clone())], mine: &[("f", new.clone())], ..case };
    one.gives(&[("f", new.clone())]);
    let other = Case { theirs: one.mine, mine: one.theirs, ..case };
    other.gives(&[("f", new.clone())]);
    let (small, large) = (file(1, "1"), file(1, "12"));
    Case { theirs: &[("f", large.clone())], mine: &[("f", small.clone())], ..case }
        .gives(&[("f", large.clone())]);
    // Unless only one side changed it.
    let base = &[("f", new.clone())];
    Case { base, theirs: base, mine: &[("f", old.clone())], ..case }.gives(&[("f", old.clone())]);
    let paths = &[(Action::Newer, "f")];
    Case { base, theirs: base, mine: &[("f", old)], paths, ..case }.gives(&[("f", new)]);
}

#[test]
fn deletions_are_kept_out_or_followed() {
    let base = &[("d/a", file(1, "a")), ("d/b", file(1, "b")), ("e/c", file(1, "c"))];
    let theirs = &[("d/a", file(2, "A")), ("d/b", file(1, "b")), ("e/c", file(1, "c"))];
    let case = Case { base, theirs, mine: &[], deletes: Deletes::Keep, paths: &[] };
    case.gives(theirs);
    // What was changed is worth more than that it was deleted.
    Case { deletes: Deletes::Follow, ..case }.gives(&[("d/a", file(2, "A"))]);
    let both = Case { theirs: &[], ..case };
    both.gives(&[]);
    Case { deletes: Deletes::Follow, ..both }.gives(&[]);
}

#[test]
fn a_directory_that_changed_is_worth_more_than_a_file() {
    let base = &[("d/a", file(1, "a"))];
    let mine = &[("d", file(9, "a file"))];
    let case = Case { base, theirs: base, mine, deletes: Deletes::Keep, paths: &[] };
    case.gives(mine);
    Case { deletes: Deletes::Follow, ..case }.gives(mine);
    let theirs = &[("d/b", file(1, "b"))];
    Case { theirs, ..case }.gives(&[("d/a", file(1, "a")), ("d/b", file(1, "b"))]);
    Case { theirs, deletes: Deletes::Follow, ..case }.gives(theirs);
    // Where nothing was before, too.
    Case { base: &[], theirs, ..case }.gives(theirs);
    // With its time alone it has changed; what was in it is deleted, as the file says.
    let theirs = &[("d", dir(5)), ("d/a", file(1, "a"))];
    Case { theirs, deletes: Deletes::Follow, ..case }.gives(&[("d", dir(5))]);
}

#[test]
fn the_head_is_kept_where_files_belong_together() {
    let (theirs, mine) =
        (&[("m/x", file(1, "t")), ("m/y", file(1, "t"))], &[("m/x", file(2, "m"))]);
    let paths = &[(Action::Theirs, "m")];
    Case { base: &[], theirs, mine, deletes: Deletes::Keep, paths }.gives(theirs);
    Case { base: &[], theirs: mine, mine: theirs, deletes: Deletes::Keep, paths }
        .gives(&[("m/x", file(2, "m")), ("m/y", file(1, "t"))]);
    // Changed by one side only it is taken.
    Case { base: theirs, theirs, mine, deletes: Deletes::Follow, paths }.gives(mine);
}

#[test]
fn texts_are_united_by_lines_up_to_a_size() {
    let paths = &[(Action::Lines, "i/**")];
    let case = Case {
        base: &[("i/x", file(1, "\n1"))],
        theirs: &[("i/x", file(2, "\n1\n3"))],
        mine: &[("i/x", file(3, "\n1\n2"))],
        deletes: Deletes::Keep,
        paths,
    };
    case.gives(&[("i/x", file(3, "\n1\n2\n3"))]);
    let large = file(2, &"x".repeat(LINES_BYTES_MAX + 1));
    let theirs = &[("i/x", large.clone())];
    Case { theirs, ..case }.gives(case.mine);
    let mine = &[("i/x", file(1, "\n1\n2"))];
    Case { theirs, mine, ..case }.gives(theirs);
}

#[test]
fn texts_that_are_not_at_hand_are_asked_for() {
    let from = Bench::new(&Tree::default(), rules(Deletes::Keep, &[(Action::Lines, "**")]));
    let theirs = from.put(&Tree::of(&[("x", file(1, "a"))]));
    let mine = from.put(&Tree::of(&[("x", file(1, "b"))]));
    let hides = Hides(&from.store);
    let error = union(&hides, &from.rules, None, &theirs, &mine).expect_err("a blob is missing");
    assert!(matches!(error, TreeError::Gap(Gap::Blob(_))), "{error}");
}

/// A store whose nodes are here and whose blobs are elsewhere.
struct Hides<'s>(&'s MemoryStore);

impl crate::tree::Nodes for Hides<'_> {
    fn node(
        &self,
        id: &proto::id::TreeId,
    ) -> Result<std::sync::Arc<proto::tree::AnyNode>, TreeError> {
        StoreNodes(self.0).node(id)
    }

    fn blob(&self, id: &proto::id::BlobId) -> Result<bytes::Bytes, TreeError> {
        Err(TreeError::Gap(Gap::Blob(*id)))
    }

    fn archive(&self, id: &proto::id::BlobId) -> Result<Option<RootId>, TreeError> {
        StoreNodes(self.0).archive(id)
    }
}

#[test]
fn conflicts_are_counted() {
    let bench = Bench::new(&Tree::default(), rules(Deletes::Keep, &[]));
    let theirs = bench.put(&Tree::of(&[("a", file(1, "1")), ("b", file(1, "1"))]));
    let mine = bench.put(&Tree::of(&[("a", file(1, "2")), ("c", file(1, "1"))]));
    let nodes = StoreNodes(&bench.store);
    let united = union(&nodes, &bench.rules, Some(&bench.base), &theirs, &mine).unwrap();
    assert_eq!(united.conflicts, 1);
    let same = union(&nodes, &bench.rules, None, &mine, &mine).unwrap();
    assert_eq!((same.conflicts, same.tree), (0, mine));
    assert!(same.made.into_nodes().is_empty());
}

#[test]
fn a_layer_is_no_generation() {
    let bench = Bench::new(&Tree::default(), rules(Deletes::Keep, &[]));
    let tree = bench.put(&Tree::of(&[("a", file(1, "1"))]));
    let nodes = StoreNodes(&bench.store);
    let mut root = crate::tree::root(&nodes, &tree).unwrap();
    root.presence = proto::tree::Presence::Opaque;
    let (layer, bytes) = root.seal();
    bench.store.put_nodes(&[bytes]).unwrap();
    let error = union(&nodes, &bench.rules, None, &tree, &layer).expect_err("a layer");
    assert_eq!(error, TreeError::WrongKind(layer.0));
}
