//! Caps, by example and against all that must hold.

use super::model::{Item, Tree, build, file, keep, read, writers};
use crate::mounts::{Policy, Row, Rules, TABLE, Trim, trim};
use crate::store::StoreNodes;
use crate::store::memory::MemoryStore;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PACKAGES: &[&str] = &["pkg/*"];

fn rules(packages: &'static [&'static str], trim: Trim) -> Rules {
    Rules::test(Row { policy: Policy::Union, paths: &[], packages, trim, ..TABLE[0] })
}

struct Cut {
    tree: Tree,
    bytes: u64,
    removed: Vec<String>,
    removed_bytes: u64,
}

fn cut(tree: &Tree, rules: &Rules, cap: u64) -> Cut {
    let store = MemoryStore::new();
    let id = build(&store, tree);
    let trimmed = trim(&StoreNodes(&store), rules, &id, cap).expect("a tree that is there");
    keep(&store, &[], trimmed.made);
    Cut {
        tree: read(&store, &trimmed.tree),
        bytes: trimmed.bytes,
        removed: trimmed.removed.first().to_vec(),
        removed_bytes: trimmed.removed_bytes,
    }
}

#[test]
fn the_oldest_files_go_first() {
    let tree = Tree::of(&[
        ("a/old", file(1, "1234")),
        ("a/older", file(0, "1234")),
        ("b/x/new", file(9, "1234")),
        ("b/same", file(1, "1234")),
        ("c", file(0, "")),
    ]);
    let rules = rules(&[], Trim::Oldest);
    let at = |cap| {
        let Cut { removed, bytes, removed_bytes, .. } = cut(&tree, &rules, cap);
        assert_eq!(bytes + removed_bytes, 16);
        removed
    };
    assert_eq!(at(16), [""; 0]);
    assert_eq!(at(15), ["a/older"]);
    assert_eq!(at(12), ["a/older"]);
    assert_eq!(at(11), ["a/old", "a/older"]);
    assert_eq!(at(4), ["a/old", "a/older", "b/same"]);
    // A directory in which nothing is left goes, an empty file stays.
    let all = cut(&tree, &rules, 0).tree;
    assert_eq!(all, Tree::of(&[("c", file(0, ""))]));
}

#[test]
fn packages_are_whole_or_not_at_all() {
    let tree = Tree::of(&[
        ("pkg/p/old", file(0, "12")),
        ("pkg/p/new/x", file(5, "12")),
        ("pkg/q/old", file(1, "12")),
        ("f", file(2, "12")),
    ]);
    let rules = rules(PACKAGES, Trim::Oldest);
    assert_eq!(cut(&tree, &rules, 7).removed, ["pkg/q"]);
    assert_eq!(cut(&tree, &rules, 5).removed, ["f", "pkg/q"]);
    // The last one is larger than what must go, and goes nevertheless.
    let Cut { removed, bytes, .. } = cut(&tree, &rules, 3);
    assert_eq!((removed.len(), bytes), (3, 0));
    // A package is as old as the directory that was made for it.
    let mut touched = tree.clone();
    touched.put("pkg/q", {
        let mut q = tree.get("pkg/q").expect("a package").clone();
        q.at_mut().time = 3;
        q
    });
    assert_eq!(cut(&touched, &rules, 7).removed, ["f"]);
}

#[test]
fn names_of_one_inode_go_together() {
    let linked = |time, text: &str| match file(time, text) {
        Item::File { at, text, .. } => Item::File { at, text, linked: true },
        other => other,
    };
    let tree = Tree::of(&[
        ("a", linked(0, "1234")),
        ("d/b", linked(0, "1234")),
        ("c", file(1, "12")),
        ("pkg/p/a", linked(2, "123456")),
        ("pkg/q/a", linked(2, "123456")),
        ("pkg/q/x", file(3, "1")),
    ]);
    let rules = rules(PACKAGES, Trim::Oldest);
    // 23 bytes by names, 13 on disk.
    assert_eq!(cut(&tree, &rules, 13).removed, [""; 0]);
    let one = cut(&tree, &rules, 12);
    assert_eq!((one.removed, one.removed_bytes), (vec!["a".to_owned(), "d/b".to_owned()], 4));
    let all = cut(&tree, &rules, 6);
    assert_eq!((all.removed.len(), all.bytes), (5, 0));
}

#[test]
fn what_cannot_be_cut_into_goes_as_a_whole() {
    let tree = Tree::of(&[("a/b", file(1, "1234")), ("c", file(2, "12")), ("e", file(3, ""))]);
    let rules = rules(&[], Trim::Everything);
    assert_eq!(cut(&tree, &rules, 6).removed, [""; 0]);
    let all = cut(&tree, &rules, 5);
    assert_eq!((all.bytes, all.removed_bytes), (0, 6));
    assert_eq!(all.removed, ["a", "c", "e"]);
    assert_eq!(all.tree, Tree { at: tree.at, ..Tree::default() });
}

/// Paths of a tree's files that take room; the size of each, and its group.
fn files(tree: &Tree) -> BTreeMap<String, (i64, usize, Option<String>)> {
    let file = |path: String| match tree.get(&path)? {
        Item::File { at, text, linked } => {
            let group = linked.then(|| format!("{at:?} {text}"));
            Some((path, (at.time, text.len(), group)))
        }
        _ => None,
    };
    tree.paths().into_iter().filter_map(file).collect()
}

/// Bytes on disk.
fn bytes(tree: &Tree) -> u64 {
    let files = files(tree);
    let single = files.values().filter(|(_, _, group)| group.is_none()).map(|(_, size, _)| *size);
    let groups: BTreeMap<_, usize> =
        files.values().filter_map(|(_, size, group)| Some((group.clone()?, *size))).collect();
    single.chain(groups.into_values()).sum::<usize>() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_left_fits_and_nothing_more_went((_, trees) in writers(1), cap in 0u64..12) {
        let tree = &trees[0];
        let rules = rules(&[], Trim::Oldest);
        let Cut { tree: left, bytes: said, removed_bytes, removed } = cut(tree, &rules, cap);
        let is_over = bytes(tree) > cap;
        prop_assert!(bytes(&left) <= cap);
        prop_assert_eq!(bytes(&left) + removed_bytes, bytes(tree));
        prop_assert_eq!(is_over, !removed.is_empty());
        if is_over {
            prop_assert_eq!(said, bytes(&left));
        } else {
            prop_assert_eq!(&left, tree);
        }
        let (before, after) = (files(tree), files(&left));
        for path in tree.paths() {
            prop_assert_eq!(left.get(&path).is_none(), removed.contains(&path));
        }
        let gone = removed.iter().map(|path| &before[path]);
        let newest = gone.clone().map(|(time, ..)| *time).max();
        for (path, (time, size, group)) in &after {
            // Nothing older than what went is left, and nothing of what went.
            prop_assert!(*size == 0 || newest.is_none_or(|newest| *time >= newest), "{}", path);
            prop_assert!(group.is_none() || gone.clone().all(|(_, _, g)| g != group));
        }
        // One file less would not have been enough.
        let newest: Vec<_> = gone.filter(|(time, ..)| Some(*time) == newest).collect();
        if let Some((_, size, _)) = newest.iter().min_by_key(|(_, size, _)| *size) {
            let largest = newest.iter().map(|(_, size, _)| *size).max().unwrap_or(*size) as u64;
            prop_assert!(bytes(&left) + largest > cap);
        }
        // Once more changes nothing.
        prop_assert_eq!(cut(&left, &rules, cap).removed.len(), 0);
    }
}
