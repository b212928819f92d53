use super::*;
use crate::mounts::tests::model::{self, Tree, build, keep, writers};
use crate::store::StoreNodes;
use crate::store::memory::MemoryStore;
use crate::tree::Made;
use crate::tree::nodes::root;
use bytes::Bytes;
use proptest::prelude::*;
use proto::id::BlobId;
use proto::tree::{Dir, Mtime, Root, Xattrs};

const NOW: Mtime = Mtime { seconds: 1, nanos: 0 };

fn file(content: &str) -> Node {
    let blob = BlobId::of(content.as_bytes());
    Node::File { blob, size: content.len() as u64, link: None }
}

fn entry(name: &str, mode: u16, node: Node) -> Entry {
    let name = FileName::new(name.as_bytes()).unwrap();
    Entry { name, meta: Meta::root_owned(mode, NOW), node }
}

/// A tree of `src/lib/a.c`, `src/main.c` and `notes`, changed.
fn tree(store: &MemoryStore, change: impl Fn(&mut Vec<Entry>, &mut Vec<Entry>)) -> RootId {
    let mut made = Made::default();
    let mut lib = vec![entry("a.c", 0o644, file("a"))];
    let mut src = vec![entry("main.c", 0o644, file("main"))];
    change(&mut src, &mut lib);
    let lib = made.dir(Dir::new(lib));
    src.push(entry("lib", 0o755, Node::Dir(lib, Presence::Merge)));
    let src = made.dir(Dir::new(src));
    let top = vec![
        entry("src", 0o755, Node::Dir(src, Presence::Merge)),
        entry("notes", 0o644, file("notes")),
    ];
    let dir = made.dir(Dir::new(top));
    let meta = Meta::root_owned(0o755, NOW);
    let root = made.root(&Root { meta, dir, presence: Presence::Merge });
    let texts = ["a", "b", "main", "new", "notes", "other"].map(str::as_bytes);
    let blobs = texts.map(|text| (BlobId::of(text), Bytes::from_static(text)));
    keep(store, &blobs, made);
    root
}

fn source(path: &str) -> CopySource {
    CopySource {
        input: 1,
        path: path.to_owned(),
        pattern: true,
        unpack: Unpack::Never,
        checked: true,
    }
}

#[track_caller]
fn finds(
    take: &str,
    exclude: &[&str],
    change: impl Fn(&mut Vec<Entry>, &mut Vec<Entry>),
    expected: Option<(&str, What)>,
) {
    let store = MemoryStore::default();
    let (before, now) = (tree(&store, |_, _| {}), tree(&store, change));
    let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
    let found = first(&StoreNodes(&store), &before, &now, &source(take), false, &exclude);
    let found = found.unwrap();
    let found = found.as_ref().map(|c| (std::str::from_utf8(&c.path).unwrap(), c.what));
    assert_eq!(found, expected, "{take}");
}

#[test]
fn the_first_change_is_named_with_what_it_is() {
    let content = |src: &mut Vec<Entry>, _: &mut Vec<Entry>| src[0].node = file("other");
    let expected = Some(("src/main.c", What::Content));
    for take in [".", "src", "./src/", "src/main.c", "src/*.c", "s*"] {
        finds(take, &[], content, expected);
    }
    finds("notes", &[], content, None);
    finds("src", &["main.c"], content, None);
    finds("src", &["*.h"], content, expected);
    finds(
        ".",
        &[],
        |_, lib| lib[0].meta.mode = 0o755,
        Some(("src/lib/a.c", What::Mode(0o644, 0o755))),
    );
    finds(
        ".",
        &[],
        |_, lib| lib[0].meta.uid = 7,
        Some(("src/lib/a.c", What::Owner((0, 0), (7, 0)))),
    );
    finds("src", &[], |src, _| drop(src.pop()), Some(("src/main.c", What::Removed)));
    finds("src/main.c", &[], |_, lib| lib[0].node = Node::Fifo, None);
    finds("src/lib", &[], |_, lib| lib[0].node = Node::Fifo, Some(("src/lib/a.c", What::Kind)));
    let add = |_: &mut Vec<Entry>, lib: &mut Vec<Entry>| lib.push(entry("b.c", 0o644, file("b")));
    finds("src/lib/*.c", &[], add, Some(("src/lib/b.c", What::Added)));
    let link = |src: &mut Vec<Entry>, _: &mut Vec<Entry>| {
        src[0].meta.xattrs = Xattrs::new([(b"user.a".to_vec(), b"1".to_vec())])
    };
    finds(".", &[], link, Some(("src/main.c", What::Attributes)));
    finds(".", &[], |src, _| src[0].meta.mtime = Mtime::default(), None);
}

#[test]
fn a_source_that_was_not_there_is_new() {
    let store = MemoryStore::default();
    let now = tree(&store, |src, _| src.push(entry("new.c", 0o644, file("new"))));
    let before = tree(&store, |_, _| {});
    let what = source("src/new.c");
    let found = first(&StoreNodes(&store), &before, &now, &what, false, &[]).unwrap().unwrap();
    assert_eq!((found.path.as_slice(), found.what), (&b"src/new.c"[..], What::Added));
}

/// The first change in what a pattern takes from two trees of files.
fn between(take: &str, before: &[(&str, &str)], now: &[(&str, &str)]) -> Option<(String, What)> {
    let store = MemoryStore::default();
    let tree = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(p, text)| (*p, model::file(0, text))).collect();
        build(&store, &Tree::of(&files))
    };
    let (before, now) = (tree(before), tree(now));
    let found = first(&StoreNodes(&store), &before, &now, &source(take), false, &[]).unwrap();
    found.map(|change| (String::from_utf8(change.path).unwrap(), change.what))
}

#[test]
fn what_wildcards_find_is_told_apart_by_its_whole_path() {
    let before = [("a/x", "1"), ("b/x", "2"), ("c/d/x", "3")];
    let check = |take: &str, now: &[(&str, &str)], expected: Option<(&str, What)>| {
        let expected = expected.map(|(path, what)| (path.to_owned(), what));
        assert_eq!(between(take, &before, now), expected, "{take}");
    };
    let other = [("a/x", "other"), ("b/x", "2"), ("c/d/x", "3")];
    check("*/x", &other, Some(("a/x", What::Content)));
    let fewer = [("b/x", "2"), ("c/d/x", "3")];
    check("*/x", &fewer, Some(("a/x", What::Removed)));
    let deeper = [("a/x", "1"), ("b/x", "2"), ("c/d/x", "other")];
    check("*/*/x", &deeper, Some(("c/d/x", What::Content)));
    check("c/*/x", &deeper, Some(("c/d/x", What::Content)));
    check("*/x", &deeper, None);
    // The same under the same name: nothing differs in the image.
    check("*/x", &[("a/x", "1"), ("bb/x", "2"), ("c/d/x", "3")], None);
}

/// What there is in a tree of files: a text for a file, none for a directory.
type Flat<'a> = BTreeMap<Vec<&'a str>, Option<&'a str>>;

fn flat<'a>(files: &[(&'a str, &'a str)]) -> Flat<'a> {
    let mut all = Flat::new();
    for (path, text) in files {
        let names: Vec<&str> = path.split('/').collect();
        for depth in 1..names.len() {
            all.insert(names[..depth].to_vec(), None);
        }
        all.insert(names, Some(text));
    }
    all
}

/// What a pattern of `*` and plain names takes of it.
fn taken<'a>(all: &Flat<'a>, pattern: &[&str]) -> Flat<'a> {
    let fits = |path: &Vec<&str>| {
        path.len() >= pattern.len()
            && pattern.iter().zip(path).all(|(p, name)| *p == "*" || p == name)
    };
    all.iter().filter(|(path, _)| fits(path)).map(|(p, text)| (p.clone(), *text)).collect()
}

/// Where it comes to lie: without the directories that the pattern stands for.
fn bare<'a, 'f>(taken: &'f Flat<'a>, depth: usize) -> Vec<(&'f [&'a str], Option<&'a str>)> {
    taken.iter().map(|(path, text)| (&path[depth - 1..], *text)).collect()
}

fn naive(old: &Flat<'_>, new: &Flat<'_>, depth: usize) -> Option<(String, What)> {
    if bare(old, depth) == bare(new, depth) {
        return None;
    }
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    paths.into_iter().find_map(|path| {
        let what = match (old.get(path), new.get(path)) {
            (None, _) => What::Added,
            (_, None) => What::Removed,
            (Some(old), Some(new)) if old == new => return None,
            (Some(Some(_)), Some(Some(_))) => What::Content,
            _ => What::Kind,
        };
        Some((path.join("/"), what))
    })
}

/// Files of which none is a directory of another.
fn files() -> impl Strategy<Value = BTreeMap<String, &'static str>> {
    let text = prop::sample::select(vec!["1", "2"]);
    prop::collection::btree_map("(a|b|a-b)(/(a|b|a-b)){0,2}", text, 0..8).prop_map(|files| {
        let names: Vec<String> = files.keys().cloned().collect();
        let is_dir = |path: &str| names.iter().any(|n| n.starts_with(&format!("{path}/")));
        files.into_iter().filter(|(path, _)| !is_dir(path)).collect()
    })
}

fn list<'a>(files: &'a BTreeMap<String, &'static str>) -> Vec<(&'a str, &'a str)> {
    files.iter().map(|(path, text)| (path.as_str(), *text)).collect()
}

proptest! {
    #[test]
    fn wildcards_agree_with_a_list_of_paths(
        before in files(),
        now in files(),
        take in prop::sample::select(vec!["*", "*/*", "*/a", "a/*", "*/*/a", "*/b/*", "*/*/*"]),
    ) {
        let (before, now) = (list(&before), list(&now));
        let pattern: Vec<&str> = take.split('/').collect();
        let (old, new) = (flat(&before), flat(&now));
        let expected = naive(&taken(&old, &pattern), &taken(&new, &pattern), pattern.len());
        // Without the directory before the wildcards there is no list, but an error.
        let is_there = |all: &Flat<'_>| take != "a/*" || all.contains_key(["a"].as_slice());
        prop_assume!(is_there(&old) && is_there(&new));
        prop_assert_eq!(between(take, &before, &now), expected);
    }

    #[test]
    fn there_is_a_change_just_when_contents_differ((from, to) in writers(1)) {
        let store = MemoryStore::default();
        let (from, to) = (build(&store, &from), build(&store, &to[0]));
        let nodes = StoreNodes(&store);
        let found = first(&nodes, &from, &to, &source("/"), false, &[]).unwrap();
        let content = |id: &RootId| root(&nodes, id).unwrap().content();
        prop_assert_eq!(found.is_some(), content(&from) != content(&to), "{:?}", found);
    }
}
