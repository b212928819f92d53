//! What the union of any number of trees is, said at once and over plain maps: no ids, no sharing,
//! no order of writers.

use super::model::{Item, Items, Stamp, Tree};
use crate::mounts::{Action, Deletes};
use proto::id::BlobId;
use std::collections::BTreeSet;

/// How the union is made.
#[derive(Clone, Copy)]
pub struct Reference {
    pub deletes: Deletes,
    /// Whether `newer` and `lines` in a path are rules.
    pub has_actions: bool,
}

/// The directories and other things that the sides have under one name.
struct Sides<'i> {
    dirs: Vec<(Stamp, &'i Items)>,
    leaves: Vec<&'i Item>,
    is_gone: bool,
}

impl Reference {
    pub fn union(self, base: &Tree, sides: &[&Tree]) -> Tree {
        let dirs: Vec<_> = sides.iter().map(|tree| (tree.at, &tree.items)).collect();
        let (at, items) = self.dirs(None, Some((base.at, &base.items)), &dirs);
        Tree { at, items }
    }

    /// `newer` goes before `lines`, as in the list of rules.
    fn action(self, above: Option<Action>, name: &str) -> Option<Action> {
        match (above, name) {
            _ if !self.has_actions => None,
            (Some(Action::Newer), _) | (_, "newer") => Some(Action::Newer),
            (Some(Action::Lines), _) | (_, "lines") => Some(Action::Lines),
            _ => None,
        }
    }

    fn dirs(
        self,
        action: Option<Action>,
        base: Option<(Stamp, &Items)>,
        sides: &[(Stamp, &Items)],
    ) -> (Stamp, Items) {
        let changed = sides.iter().map(|(at, _)| *at).filter(|at| base.is_none_or(|b| b.0 != *at));
        let at = changed.max().or(base.map(|b| b.0)).expect("a side or a base");
        let names: BTreeSet<&String> = sides.iter().flat_map(|(_, items)| items.keys()).collect();
        let item = |name: &String| {
            let below: Vec<Option<&Item>> = sides.iter().map(|(_, i)| i.get(name)).collect();
            let base = base.and_then(|(_, items)| items.get(name));
            Some((name.clone(), self.item(self.action(action, name), base, &below)?))
        };
        (at, names.into_iter().filter_map(item).collect())
    }

    fn item(
        self,
        action: Option<Action>,
        base: Option<&Item>,
        all: &[Option<&Item>],
    ) -> Option<Item> {
        let mut sides = Sides { dirs: Vec::new(), leaves: Vec::new(), is_gone: false };
        for side in all {
            match side {
                Some(Item::Dir { at, items }) => sides.dirs.push((*at, items)),
                Some(leaf) => sides.leaves.push(leaf),
                None => sides.is_gone = true,
            }
        }
        let dirs = |base: Option<(Stamp, &Items)>, dirs: &[(Stamp, &Items)]| {
            let (at, items) = self.dirs(action, base, dirs);
            Some(Item::Dir { at, items })
        };
        let Some(Item::Dir { at, items }) = base else {
            return match sides.dirs.is_empty() {
                false => dirs(None, &sides.dirs),
                true => self.leaf(action, base, &sides),
            };
        };
        // What a side that has no directory any more still says of the directory.
        let none = Items::new();
        let (left, is_missing) = match self.deletes {
            Deletes::Keep => ((*at, items), !sides.leaves.is_empty()),
            Deletes::Follow => ((*at, &none), !sides.leaves.is_empty() || sides.is_gone),
        };
        let adds = |(a, i): &(Stamp, &Items)| a != at || self.adds(action, items, i);
        if is_missing && !sides.dirs.iter().any(adds) {
            return self.leaf(action, base, &sides);
        }
        if sides.dirs.is_empty() {
            return None;
        }
        let missing = is_missing.then_some(left);
        let with: Vec<_> = sides.dirs.iter().copied().chain(missing).collect();
        dirs(Some((*at, items)), &with)
    }

    /// Whether a directory has more than deletions.
    fn adds(self, action: Option<Action>, base: &Items, items: &Items) -> bool {
        items.iter().any(|(name, item)| {
            let action = self.action(action, name);
            match (base.get(name), item) {
                (Some(Item::Dir { at: old, items: base }), Item::Dir { at, items }) => {
                    old != at || self.adds(action, base, items)
                }
                (Some(old), item) if action == Some(Action::Newer) && !old.is_dir() => {
                    item.is_dir() || key(item) > key(old)
                }
                (old, item) => old != Some(item),
            }
        })
    }

    fn leaf(self, action: Option<Action>, base: Option<&Item>, sides: &Sides<'_>) -> Option<Item> {
        let old = base.filter(|base| !base.is_dir());
        let is_kept = |leaf: &&&Item| match (action, old) {
            (Some(Action::Newer), Some(old)) => key(leaf) <= key(old),
            _ => old == Some(**leaf),
        };
        let leaves: BTreeSet<_> = sides.leaves.iter().map(|leaf| key(leaf)).collect();
        let changed: Vec<&Item> =
            sides.leaves.iter().filter(|leaf| !is_kept(leaf)).copied().collect();
        if changed.is_empty() {
            let deleted = sides.is_gone && base.is_some() && self.deletes == Deletes::Follow;
            let newest = leaves.last().filter(|_| !deleted)?;
            return sides.leaves.iter().find(|leaf| key(leaf) == *newest).map(|l| (*l).clone());
        }
        if action == Some(Action::Lines) {
            return Some(lines(old, &changed));
        }
        changed.into_iter().max_by_key(|leaf| key(leaf)).cloned()
    }
}

/// The order of the union.
fn key(item: &Item) -> (i64, usize, u8, Vec<u8>, Stamp, bool) {
    match item {
        Item::File { at, text, linked } => {
            let blob = BlobId::of(text.as_bytes()).as_bytes().to_vec();
            (at.time, text.len(), 1, blob, *at, *linked)
        }
        Item::Link { at, target } => {
            (at.time, target.len(), 0, target.as_bytes().to_vec(), *at, false)
        }
        Item::Other { .. } | Item::Dir { .. } => unreachable!("no leaf of these tests"),
    }
}

fn lines(old: Option<&Item>, changed: &[&Item]) -> Item {
    let files = changed.iter().filter(|item| matches!(item, Item::File { .. }));
    let files: Vec<&Item> = files.copied().collect();
    let Some(newest) = files.iter().map(|item| item.at()).max() else {
        let newest = changed.iter().max_by_key(|leaf| key(leaf)).expect("one that changed");
        return (*newest).clone();
    };
    if files.iter().all(|file| *file == files[0]) {
        return files[0].clone();
    }
    let text = |item: &Item| match item {
        Item::File { text, .. } => text.clone(),
        _ => String::new(),
    };
    let texts: BTreeSet<String> = files.iter().map(|file| text(file)).collect();
    if texts.len() == 1 {
        return Item::File { at: newest, text: text(files[0]), linked: false };
    }
    let old = old.map(text).unwrap_or_default();
    let new: BTreeSet<&str> =
        texts.iter().flat_map(|t| t.lines()).filter(|l| old.lines().all(|o| o != *l)).collect();
    let all: Vec<&str> = old.lines().chain(new).collect();
    let ends = if texts.iter().any(|text| text.ends_with('\n')) { "\n" } else { "" };
    Item::File { at: newest, text: format!("{}{ends}", all.join("\n")), linked: false }
}
