//! The algebra against a plain map from paths to files, and its rules by example.

use super::apply::{apply, explicit};
use super::graft::{CopyRules, copy, mkdir};
use super::select::{Bound, Picked, bind, select};
use super::{TreeError, root};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreNodes};
use bytes::Bytes;
use proptest::prelude::*;
use proto::id::{BlobId, RootId};
use proto::path::FileName;
use proto::step::{CopySource, Unpack};
use proto::tree::{
    AnyNode, Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Unlisted, Xattrs,
};
use std::collections::BTreeMap;

mod archive;
mod layers;
mod slow;

/// A tree written down: `path` → what it is. Directories end with a slash.
type Model = BTreeMap<String, String>;

fn meta(mode: u16, uid: u32) -> Meta {
    Meta { mode, uid, gid: uid, mtime: Mtime::default(), xattrs: Xattrs::default() }
}

fn parse(spec: &str) -> (Meta, Option<Node>) {
    let (head, rest) = spec.split_once(' ').unwrap_or((spec, ""));
    let (head, nanos) = head.split_once('@').unwrap_or((head, "0"));
    let (mode, uid) = head.split_once(':').unwrap_or((head, "0"));
    let mode = u16::from_str_radix(mode.trim_start_matches(['!', '~', '^']), 8).expect("a mode");
    let mtime = Mtime { seconds: 0, nanos: nanos.parse().expect("parts of a second") };
    let meta = Meta { mtime, ..meta(mode, uid.parse().expect("a uid")) };
    let group = |name: &str| LinkId::of(&[name.as_bytes()]);
    let node = match rest {
        "" => None,
        "whiteout" => Some(Node::Whiteout),
        "relink" => Some(Node::Relink(None)),
        "fifo" => Some(Node::Fifo),
        "block(7, 1)" => Some(Node::Block(7, 1)),
        "socket" => Some(Node::Socket),
        text => Some(match (text.strip_prefix("-> "), text.split_once(" = ")) {
            (Some(target), None) => Node::Symlink(target.as_bytes().to_vec()),
            (Some(_), Some((text, link))) => {
                let target = text.trim_start_matches("-> ").as_bytes().to_vec();
                Node::Symlink(target).with_link(Some(group(link)))
            }
            (None, Some(("fifo", link))) => Node::Fifo.with_link(Some(group(link))),
            (None, Some(("relink", link))) => Node::Relink(Some(group(link))),
            (None, None) if text.starts_with("unlisted ") => {
                let text = text.strip_prefix("unlisted ").expect("looked at");
                let (blob, size) = (BlobId::of(text.as_bytes()), text.len() as u64);
                Node::Unlisted(Unlisted::File { blob, size, link: None })
            }
            (None, split) => {
                let (text, link) = match split {
                    Some((text, link)) => (text, Some(group(link))),
                    None => (text, None),
                };
                let (blob, size) = (BlobId::of(text.as_bytes()), text.len() as u64);
                Node::File { blob, size, link }
            }
        }),
    };
    (meta, node)
}

/// Puts a written-down tree into a store. `!` before a directory's mode: opaque; `~`: implicit; `^`:
/// unlisted.
fn build(store: &MemoryStore, model: &[(&str, &str)]) -> RootId {
    fn dir(store: &MemoryStore, model: &BTreeMap<&str, &str>, prefix: &str) -> DirRef {
        let mut entries = Vec::new();
        for (path, spec) in model {
            let Some(name) = path.strip_prefix(prefix).filter(|n| !n.is_empty()) else { continue };
            let name = name.trim_end_matches('/');
            if name.contains('/') {
                continue;
            }
            let (meta, node) = parse(spec);
            let node = node.unwrap_or_else(|| {
                let presence = match spec.as_bytes()[0] {
                    b'!' => Presence::Opaque,
                    b'~' => Presence::Implicit,
                    b'^' => Presence::Unlisted,
                    _ => Presence::Merge,
                };
                Node::Dir(dir(store, model, path), presence)
            });
            if let Node::File { blob, .. } | Node::Unlisted(Unlisted::File { blob, .. }) = &node {
                let text = spec.split_once(' ').expect("a text").1;
                let text = text.trim_start_matches("unlisted ");
                let text = text.split(" = ").next().expect("a text").to_owned();
                store.put_blobs(&[(*blob, Bytes::from(text))]).expect("a small blob");
            }
            let name = FileName::new(name.as_bytes()).expect("a name");
            entries.push(Entry { name, meta, node });
        }
        let sealed = Dir::new(entries).seal();
        store.put_nodes(&[sealed.bytes]).expect("a whole node");
        sealed.dir
    }
    let model: BTreeMap<&str, &str> = model.iter().copied().collect();
    let top = dir(store, &model, "");
    let (id, bytes) = Root { meta: meta(0o755, 0), dir: top, presence: Presence::Merge }.seal();
    store.put_nodes(&[bytes]).expect("a whole root");
    id
}

/// Reads a tree back.
fn read(store: &MemoryStore, id: RootId) -> Model {
    fn walk(store: &MemoryStore, dir: &DirRef, path: &str, out: &mut Model) {
        let node = store.node(&dir.tree).expect("a node that is there");
        let AnyNode::Dir(entries) = &*node else { panic!("a root inside a tree") };
        for entry in entries.entries() {
            let head = match entry.meta {
                Meta { mode, uid: 0, gid: 0, .. } => format!("{mode:o}"),
                Meta { mode, uid, gid, .. } if uid == gid => format!("{mode:o}:{uid}"),
                Meta { mode, uid, gid, .. } => format!("{mode:o}:{uid},{gid}"),
            };
            let head = match entry.meta.mtime.nanos {
                0 => head,
                nanos => format!("{head}@{nanos}"),
            };
            let path = format!("{path}{}", entry.name);
            match &entry.node {
                Node::Dir(dir, presence) => {
                    let mark = match presence {
                        Presence::Merge => "",
                        Presence::Opaque => "!",
                        Presence::Implicit => "~",
                        Presence::Unlisted => "^",
                    };
                    let path = format!("{path}/");
                    out.insert(path.clone(), format!("{mark}{head}"));
                    walk(store, dir, &path, out);
                }
                Node::File { blob, link, .. } => {
                    let text = store.read(blob).expect("a blob that is there");
                    let text = String::from_utf8(text.to_vec()).expect("a text");
                    let link = link.map_or(String::new(), |l| format!(" = {}", l.get()));
                    out.insert(path, format!("{head} {text}{link}"));
                }
                node if node.symlink().is_some() => {
                    let target = String::from_utf8_lossy(node.symlink().unwrap_or_default());
                    let link = node.link().map_or(String::new(), |l| format!(" = {}", l.get()));
                    out.insert(path, format!("{head} -> {target}{link}"));
                }
                Node::Linked(link, what) => {
                    let what = format!("{what:?}").to_lowercase();
                    out.insert(path, format!("{head} {what} = {}", link.get()));
                }
                Node::Whiteout => _ = out.insert(path, format!("{head} whiteout")),
                Node::Unlisted(Unlisted::File { blob, .. }) => {
                    let text = store.read(blob).expect("a blob that is there");
                    let text = String::from_utf8(text.to_vec()).expect("a text");
                    out.insert(path, format!("{head} unlisted {text}"));
                }
                Node::Relink(link) => {
                    let link = link.map_or(String::new(), |l| format!(" = {}", l.get()));
                    out.insert(path, format!("{head} relink{link}"));
                }
                other => _ = out.insert(path, format!("{head} {other:?}").to_lowercase()),
            }
        }
    }
    let mut out = Model::new();
    let root = root(&StoreNodes(store), &id).expect("a root");
    walk(store, &root.dir, "", &mut out);
    out
}

/// With the names of groups of links as [`read`] shows them.
fn numbered(model: &Model) -> Model {
    let number = |what: &String| match what.split_once(" = ") {
        Some((text, link)) => format!("{text} = {}", LinkId::of(&[link.as_bytes()]).get()),
        None => what.clone(),
    };
    model.iter().map(|(path, what)| (path.clone(), number(what))).collect()
}

fn show(model: &Model) -> Vec<String> {
    model.iter().map(|(path, what)| format!("{path} {what}")).collect()
}

struct Copy<'a> {
    from: &'a [(&'a str, &'a str)],
    to: &'a [(&'a str, &'a str)],
    sources: &'a [&'a str],
    dest: &'a str,
    chown: Option<&'a str>,
    chmod: Option<&'a str>,
    parents: bool,
    exclude: &'a [&'a str],
    checked: bool,
}

fn source(path: String, pattern: bool) -> CopySource {
    CopySource { input: 1, path, pattern, unpack: Unpack::Never, checked: true }
}

const COPY: Copy<'static> = Copy {
    from: &[],
    to: &[],
    sources: &[],
    dest: "/",
    chown: None,
    chmod: None,
    parents: false,
    exclude: &[],
    checked: true,
};

impl Copy<'_> {
    fn run(&self) -> Result<(Model, Model), TreeError> {
        let store = MemoryStore::new();
        let (from, to) = (build(&store, self.from), build(&store, self.to));
        let nodes = StoreNodes(&store);
        let exclude: Vec<String> = self.exclude.iter().map(|e| (*e).to_owned()).collect();
        let selections = self
            .sources
            .iter()
            .map(|path| {
                let path = (*path).to_owned();
                let what = CopySource { checked: self.checked, ..source(path, true) };
                select(&nodes, &from, &what, self.parents, &exclude)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let now = Mtime { seconds: 7, nanos: 0 };
        let rules =
            CopyRules { dest: self.dest.as_bytes(), chown: self.chown, chmod: self.chmod, now };
        let change = copy(&nodes, &to, selections, &rules)?;
        store.put_blobs(&change.made.blobs()).expect("small blobs");
        store.put_nodes(&change.made.into_nodes()).expect("nodes that fit");
        let whole = read(&store, change.root);
        // The layer put upon the same tree gives the same tree.
        let (again, made) = apply(&nodes, &to, &change.diff)?;
        store.put_nodes(&made.into_nodes()).expect("nodes that fit");
        assert_eq!(show(&read(&store, again)), show(&whole), "the layer gives another tree");
        assert_eq!(again, change.root, "the layer gives another tree");
        Ok((whole, read(&store, change.diff)))
    }

    #[track_caller]
    fn gives(&self, whole: &[&str], diff: &[&str]) {
        let (got, layer) = self.run().expect("a copy that works");
        assert_eq!(show(&got), whole, "the tree");
        assert_eq!(show(&layer), diff, "the layer");
    }

    #[track_caller]
    fn fails(&self, with: &str) {
        let error = self.run().expect_err("a copy that fails").to_string();
        assert!(error.contains(with), "{error}");
    }
}

#[test]
fn a_file_takes_the_name_or_goes_inside() {
    let copy = Copy { from: &[("a", "640 A")], sources: &["/a"], ..COPY };
    Copy { dest: "/b", ..copy }.gives(&["b 640 A"], &["b 640 A"]);
    Copy { dest: "/d/", ..copy }.gives(&["d/ 755", "d/a 640 A"], &["d/ 755", "d/a 640 A"]);
    let to = &[("d/", "700:5"), ("d/x", "644 X")];
    Copy { dest: "/d", to, ..copy }
        .gives(&["d/ 700:5", "d/a 640 A", "d/x 644 X"], &["d/ 700:5", "d/a 640 A"]);
    Copy { dest: "/x/y/z", chown: Some("3"), ..copy }.gives(
        &["x/ 755:3", "x/y/ 755:3", "x/y/z 640:3 A"],
        &["x/ 755:3", "x/y/ 755:3", "x/y/z 640:3 A"],
    );
}

/// As BuildKit sees it; nanoseconds stand behind the `@`.
#[test]
fn what_is_taken_for_the_same_is_in_no_layer() {
    let to = &[("d/", "755"), ("d/e/", "755@1"), ("d/e/f", "644@5 old"), ("d/e/s", "644@5 same")];
    let copy = Copy { to, sources: &["."], dest: "/d", ..COPY };
    let with = |f, dir| {
        let from = [("e/", dir), ("e/f", f), ("e/s", "644@5 same")];
        let (whole, layer) = Copy { from: &from, ..copy }.run().expect("a copy that works");
        (whole["d/e/f"].clone(), show(&layer))
    };
    let [old, new, later] = ["644@5 old", "644@5 new", "644@6 new"].map(str::to_owned);
    let inside = |mark: &str, file: &str| {
        let dirs = [format!("d/ {mark}755"), format!("d/e/ {mark}755@1")];
        [&dirs[..], &[format!("d/e/f {file}")]].concat()
    };
    assert_eq!(with("644@5 old", "755@1"), (old, vec![]));
    assert_eq!(with("644@5 new", "755@1"), (new, inside("~", "644@5 unlisted new")));
    assert_eq!(with("644@6 new", "755@1"), (later, inside("", "644@6 new")));
    assert_eq!(with("644@5 old", "755@2").1, ["d/ ~755", "d/e/ ^755@2"]);
}

#[test]
fn the_files_that_images_miss_are_named() {
    let store = MemoryStore::new();
    let to = build(&store, &[("a/", "755"), ("a/b/", "755"), ("a/b/f", "644@5 old")]);
    let from = build(&store, &[("f", "644@5 new")]);
    let nodes = StoreNodes(&store);
    let selected = select(&nodes, &from, &source("f".to_owned(), true), false, &[]).unwrap();
    let now = Mtime { seconds: 7, nanos: 0 };
    let rules = CopyRules { dest: b"/a/b/", chown: None, chmod: None, now };
    let change = copy(&nodes, &to, vec![selected], &rules).unwrap();
    let warning = change.missed.warning(<[u8]>::to_vec).unwrap();
    assert!(warning.contains(" of /a/b/f: "), "{warning}");
}

#[test]
fn a_directory_gives_its_content() {
    let from = &[("s/", "711"), ("s/f", "644 F"), ("s/n/", "701:9"), ("s/n/g", "600:9 G")];
    let copy = Copy { from, sources: &["s"], dest: "/t", ..COPY };
    let all = ["t/ 755", "t/f 644 F", "t/n/ 701:9", "t/n/g 600:9 G"];
    copy.gives(&all, &all);
    // The destination keeps its mode; directories below it take the source's.
    let to = &[("t/", "700:1"), ("t/n/", "777:1"), ("t/n/old", "644:1 O"), ("t/f", "644:1 old")];
    Copy { to, ..copy }.gives(
        &["t/ 700:1", "t/f 644 F", "t/n/ 701:9", "t/n/g 600:9 G", "t/n/old 644:1 O"],
        &["t/ 700:1", "t/f 644 F", "t/n/ 701:9", "t/n/g 600:9 G"],
    );
    let chmod = Some("u=rwX,go=");
    Copy { chmod, ..copy }.gives(
        &["t/ 755", "t/f 600 F", "t/n/ 700:9", "t/n/g 600:9 G"],
        &["t/ 755", "t/f 600 F", "t/n/ 700:9", "t/n/g 600:9 G"],
    );
    Copy { chmod: Some("750"), dest: "/p/t", ..copy }.gives(
        &["p/ 750", "p/t/ 750", "p/t/f 750 F", "p/t/n/ 750:9", "p/t/n/g 750:9 G"],
        &["p/ 750", "p/t/ 750", "p/t/f 750 F", "p/t/n/ 750:9", "p/t/n/g 750:9 G"],
    );
}

#[test]
fn links_are_followed_on_both_sides() {
    let from = &[("l", "777 -> /r/../r/f"), ("r/", "755"), ("r/f", "644 F"), ("r/m", "777 -> f")];
    let copy = Copy { from, sources: &["l"], dest: "/d/", ..COPY };
    // A link that is named is followed; it gives its own name.
    copy.gives(&["d/ 755", "d/l 644 F"], &["d/ 755", "d/l 644 F"]);
    // Links that are met on the way are copied.
    Copy { sources: &["r"], ..copy }
        .gives(&["d/ 755", "d/f 644 F", "d/m 777 -> f"], &["d/ 755", "d/f 644 F", "d/m 777 -> f"]);
    let to = &[("d", "777 -> /real"), ("real/", "755"), ("up", "777 -> ../../../real/x")];
    Copy { to, ..copy }.gives(
        &["d 777 -> /real", "real/ 755", "real/l 644 F", "up 777 -> ../../../real/x"],
        &["real/ 755", "real/l 644 F"],
    );
    Copy { to, dest: "/up", ..copy }.gives(
        &["d 777 -> /real", "real/ 755", "real/x 644 F", "up 777 -> ../../../real/x"],
        &["real/ 755", "real/x 644 F"],
    );
    Copy { from: &[("l", "777 -> l")], ..copy }.fails("symbolic links");
    Copy { sources: &["gone"], ..copy }.fails("gone");
}

#[test]
fn kinds_do_not_replace_each_other() {
    let from = &[("f", "644 F"), ("d/", "755"), ("d/x/", "755"), ("d/x/y", "644 Y")];
    let copy = Copy { from, dest: "/t", ..COPY };
    let to = &[("t/", "755"), ("t/f/", "755"), ("t/x", "644 X")];
    Copy { to, sources: &["f"], ..copy }.fails("directory");
    Copy { to, sources: &["d"], ..copy }.fails("not a directory");
    Copy { to: &[("t", "644 T")], sources: &["d"], ..copy }.fails("not a directory");
    Copy { to: &[("t", "644 T")], sources: &["f"], dest: "/t/", ..copy }.fails("not a directory");
}

#[test]
fn patterns_select() {
    let from = &[
        ("a.x", "644 A"),
        ("b.x", "644 B"),
        ("d.x/", "755"),
        ("d.x/in", "644 I"),
        ("s/", "755"),
        ("s/c.x", "644 C"),
    ];
    let copy = Copy { from, dest: "/t/", ..COPY };
    Copy { sources: &["*.x"], ..copy }.gives(
        &["t/ 755", "t/a.x 644 A", "t/b.x 644 B", "t/in 644 I"],
        &["t/ 755", "t/a.x 644 A", "t/b.x 644 B", "t/in 644 I"],
    );
    Copy { sources: &["*/c.x", "a.?"], ..copy }.gives(
        &["t/ 755", "t/a.x 644 A", "t/c.x 644 C"],
        &["t/ 755", "t/a.x 644 A", "t/c.x 644 C"],
    );
    Copy { sources: &["nothing*"], ..copy }.gives(&[], &[]);
    Copy { sources: &["/"], exclude: &["*.x", "!d.x/in"], ..copy }.gives(
        &["t/ 755", "t/d.x/ 755", "t/d.x/in 644 I", "t/s/ 755", "t/s/c.x 644 C"],
        &["t/ 755", "t/d.x/ 755", "t/d.x/in 644 I", "t/s/ 755", "t/s/c.x 644 C"],
    );
}

#[test]
fn above_a_pivot_links_are_followed() {
    let from = &[("d/", "755"), ("d/e/", "755"), ("d/e/f", "644 F"), ("l", "777 -> d")];
    let copy = Copy { from, parents: true, ..COPY };
    Copy { sources: &["l/e/./f"], ..copy }.gives(&["f 644 F"], &["f 644 F"]);
    Copy { sources: &["l/./e/f"], ..copy }.fails("`l/e/f` was not found: `l` is a symbolic link");
    Copy { sources: &["l/./e/*"], ..copy }
        .gives(&["e/ 755", "e/f 644 F"], &["e/ 755", "e/f 644 F"]);
}

#[test]
fn parents_are_kept() {
    let from = &[("a/", "711"), ("a/b/", "700"), ("a/b/c", "644 C"), ("a/b/d", "644 D")];
    let copy = Copy { from, dest: "/t/", parents: true, ..COPY };
    Copy { sources: &["a/b/c"], ..copy }.gives(
        &["t/ 755", "t/a/ 711", "t/a/b/ 700", "t/a/b/c 644 C"],
        &["t/ 755", "t/a/ 711", "t/a/b/ 700", "t/a/b/c 644 C"],
    );
    Copy { sources: &["a/./b/d"], ..copy }
        .gives(&["t/ 755", "t/b/ 700", "t/b/d 644 D"], &["t/ 755", "t/b/ 700", "t/b/d 644 D"]);
    Copy { sources: &["**/d"], ..copy }.gives(
        &["t/ 755", "t/a/ 711", "t/a/b/ 700", "t/a/b/d 644 D"],
        &["t/ 755", "t/a/ 711", "t/a/b/ 700", "t/a/b/d 644 D"],
    );
    Copy { sources: &["a/gone"], ..copy }.fails("a/gone");
}

#[test]
fn what_a_part_is_taken_of_has_no_dangling_links_at_its_top() {
    let from = &[
        ("d/", "755"),
        ("d/lost", "777 -> gone"),
        ("f", "644 F"),
        ("good", "777 -> d/../f"),
        ("lost", "777 -> gone"),
    ];
    let part = Copy { from, sources: &["/"], exclude: &["f"], ..COPY };
    part.fails("`lost` is a symbolic link that leads nowhere");
    let rest = &["d/ 755", "d/lost 777 -> gone", "good 777 -> d/../f"];
    Copy { exclude: &["f", "lost"], ..part }.gives(rest, rest);
    let all =
        &["d/ 755", "d/lost 777 -> gone", "f 644 F", "good 777 -> d/../f", "lost 777 -> gone"];
    Copy { exclude: &[], ..part }.gives(all, all);
    Copy { exclude: &["x"], checked: false, ..part }.gives(all, all);
    let inside = &["lost 777 -> gone"];
    Copy { sources: &["d"], exclude: &["x"], ..part }.gives(inside, inside);
    let named = Copy { parents: true, exclude: &[], ..part };
    Copy { sources: &["lost"], ..named }.fails("leads nowhere");
    Copy { sources: &["**/lost"], ..named }.fails("leads nowhere");
    Copy { sources: &["d/lost"], ..named }
        .gives(&["d/ 755", "d/lost 777 -> gone"], &["d/ 755", "d/lost 777 -> gone"]);
    Copy { sources: &["d/./lost"], ..named }.gives(inside, inside);
    Copy { sources: &["lost"], checked: false, ..named }.gives(inside, inside);
    let turns = &[("turn", "777 -> turn")];
    Copy { from: turns, sources: &["turn"], ..named }.fails("too many symbolic links");
}

#[test]
fn parents_of_a_whole_tree_are_none() {
    let from = &[("d/", "755"), ("d/f", "644 F")];
    let copy = Copy { from, dest: "/t/", parents: true, ..COPY };
    for source in [".", "/", "./", "d/./"] {
        let copy = Copy { sources: &[source], ..copy };
        copy.fails(&format!("`{source}` is the whole tree"));
        Copy { checked: false, ..copy }.gives(&["t/ 755"], &["t/ 755"]);
    }
}

#[test]
fn what_is_not_checked_may_be_missing() {
    let from = &[("d/", "755"), ("d/f", "644 F"), ("l", "777 -> d")];
    let copy = Copy { from, dest: "/t/", parents: true, checked: false, ..COPY };
    for source in ["gone", "gone/x", "d/gone", "d/f/x", "d/./gone", "l/f"] {
        Copy { sources: &[source], ..copy }.gives(&["t/ 755"], &["t/ 755"]);
        Copy { sources: &[source], checked: true, ..copy }.run().expect_err(source);
    }
    Copy { sources: &["d"], exclude: &["d"], ..copy }.gives(&["t/ 755"], &["t/ 755"]);
    let found = &["t/ 755", "t/d/ 755", "t/d/f 644 F"];
    Copy { sources: &["gone", "d/f"], ..copy }.gives(found, found);
    Copy { sources: &["gone/./x"], ..copy }.fails("gone");
    let inside = &["t/ 755", "t/f 644 F"];
    Copy { sources: &["l/./f"], ..copy }.gives(inside, inside);
    Copy { sources: &["l/./f"], checked: true, ..copy }.fails("`l` is a symbolic link");
    Copy { sources: &["gone"], parents: false, ..copy }.fails("gone");
}

#[test]
fn bad_patterns_are_errors_where_they_are_looked_at() {
    let copy = Copy { from: &[("a", "644 A"), ("d/", "755")], dest: "/t/", ..COPY };
    for source in ["[a", "[]", "a[", "d/[a-]", "x*[", "a/["] {
        Copy { sources: &[source], ..copy }.fails("is not a pattern");
        Copy { sources: &[source], checked: false, ..copy }.gives(&[], &[]);
    }
}

#[test]
fn directories_made_in_a_set_group_id_directory_are_of_its_kind() {
    let to = &[("p/", "2775:5"), ("p/old/", "755:1")];
    let from = &[("d/", "711"), ("d/e/", "700:3"), ("f", "644 F")];
    let copy = Copy { to, from, ..COPY };
    let diff = |copy: Copy<'_>| copy.run().map(|(_, diff)| show(&diff)).unwrap();
    let inside = ["p/ 2775:5", "p/q/ 2755:0,5", "p/q/e/ 700:3"];
    assert_eq!(diff(Copy { sources: &["d"], dest: "/p/q", ..copy }), inside);
    let chown = Some("7");
    let inside = ["p/ 2775:5", "p/q/ 2755:7", "p/q/r/ 2755:7", "p/q/r/f 644:7 F"];
    assert_eq!(diff(Copy { sources: &["f"], dest: "/p/q/r/", chown, ..copy }), inside);
    let chmod = Some("711");
    let inside = ["p/ 2775:5", "p/q/ 2711:0,5", "p/q/f 711 F"];
    assert_eq!(diff(Copy { sources: &["f"], dest: "/p/q/", chmod, ..copy }), inside);
    let inside = ["p/ 2775:5", "p/old/ 755:1", "p/old/n/ 755", "p/old/n/f 644 F"];
    assert_eq!(diff(Copy { sources: &["f"], dest: "/p/old/n/", ..copy }), inside);
}

#[test]
fn hard_links_stay_within_one_copy() {
    let from = &[("d/", "755"), ("d/a", "644 X = g"), ("d/b", "644 X = g"), ("o", "644 X = g")];
    let copy = Copy { from, sources: &["d", "o"], dest: "/t/", ..COPY };
    let (whole, _) = copy.run().unwrap();
    assert_eq!(whole["t/a"], whole["t/b"]);
    assert!(whole["t/a"].contains('='));
    assert_eq!(whole["t/o"], "644 X", "a name that is left alone is no link");
    let twice = Copy { sources: &["d", "d"], dest: "/t/", ..copy };
    let (whole, _) = twice.run().unwrap();
    assert_eq!(whole["t/a"], whole["t/b"]);
}

#[test]
fn copies_of_links_and_pipes_have_one_name_each() {
    let from = &[
        ("d/", "755"),
        ("d/l", "777 -> a = g"),
        ("d/m", "777 -> a = g"),
        ("d/p", "600 fifo = p"),
        ("d/q", "600 fifo = p"),
        ("to", "777 -> d = x"),
    ];
    // A link with several names leads where one with one name leads, on both sides.
    let to = &[("e/", "755"), ("t", "777 -> e = y"), ("u", "777 -> e = y")];
    let (whole, _) = Copy { from, to, sources: &["to"], dest: "/t/", ..COPY }.run().unwrap();
    let links = ["777 -> a", "777 -> a", "600 fifo", "600 fifo"];
    assert_eq!(["e/l", "e/m", "e/p", "e/q"].map(|path| whole[path].as_str()), links);
    assert_eq!(whole["t"], whole["u"]);
    assert!(whole["t"].contains(" = "), "{}", whole["t"]);
}

#[test]
fn block_devices_are_made_anew_as_character_devices() {
    let from = &[("d/", "755"), ("d/e/", "755"), ("d/e/b", "660:5 block(7, 1)"), ("f", "644 F")];
    let copy = Copy { from, dest: "/t/", ..COPY };
    let all = ["t/ 755", "t/d/ 755", "t/d/e/ 755", "t/d/e/b 660:5 char(7, 1)", "t/f 644 F"];
    Copy { sources: &["/"], ..copy }.gives(&all, &all);
    let one = ["t/ 600", "t/b 600:5 char(7, 1)"];
    Copy { sources: &["d/e/b"], chmod: Some("600"), ..copy }.gives(&one, &one);
}

#[test]
fn sockets_become_files_without_bytes() {
    let from = &[("d/", "755"), ("d/e/", "755"), ("d/e/s", "755:5 socket"), ("f", "644 F")];
    let copy = Copy { from, dest: "/t/", ..COPY };
    let all = ["t/ 755", "t/d/ 755", "t/d/e/ 755", "t/d/e/s 755:5 ", "t/f 644 F"];
    Copy { sources: &["/"], ..copy }.gives(&all, &all);
    let one = ["t/ 600", "t/s 600:5 "];
    Copy { sources: &["d/e/s"], chmod: Some("600"), ..copy }.gives(&one, &one);
}

#[test]
fn owners_are_looked_up() {
    let passwd = "644 root:x:0:0::/:\nann:x:1000:100::/:\n";
    let group = "644 root:x:0:\nwheel:x:10:ann\n";
    let to = &[("etc/", "755"), ("etc/group", group), ("etc/passwd", passwd)];
    let from = &[("f", "644 F")];
    let owner = |text: &str| {
        let store = MemoryStore::new();
        let (from, to) = (build(&store, from), build(&store, to));
        let nodes = StoreNodes(&store);
        let path = "f".to_owned();
        let what = source(path, true);
        let selection = select(&nodes, &from, &what, false, &[]).unwrap();
        let now = Mtime::default();
        let rules = CopyRules { dest: b"/g", chown: Some(text), chmod: None, now };
        let change = copy(&nodes, &to, vec![selection], &rules).unwrap();
        store.put_nodes(&change.made.into_nodes()).unwrap();
        let nodes = StoreNodes(&store);
        let (bound, _, _) = bind(&nodes, &change.root, b"/g").unwrap();
        assert!(matches!(bound, Bound::File(_)));
        let path = "g".to_owned();
        let what = source(path, false);
        let selection = select(&nodes, &change.root, &what, false, &[]).unwrap();
        match &selection.items[0].picked {
            Picked::Leaf(meta, _) => (meta.uid, meta.gid),
            Picked::Dir(..) => panic!("a file"),
        }
    };
    assert_eq!(owner("ann"), (1000, 100));
    assert_eq!(owner("ann:wheel"), (1000, 10));
    assert_eq!(owner("7"), (7, 7));
    assert_eq!(owner("7:8"), (7, 8));
    assert_eq!(owner(":wheel"), (0, 10));
    assert_eq!(owner("nobody-knows"), (0, 0));
    assert_eq!(owner("ann:"), (1000, 0));
    assert_eq!(owner("root:wheel"), (0, 10));
    assert_eq!(owner("4294967295"), (0, 0), "no number of BuildKit's");
}

#[test]
fn a_working_directory_is_made_once() {
    let store = MemoryStore::new();
    let base = build(&store, &[("a/", "700")]);
    let nodes = StoreNodes(&store);
    let now = Mtime { seconds: 9, nanos: 0 };
    let change = mkdir(&nodes, &base, b"/a/b/c", "5:6", now).unwrap();
    store.put_nodes(&change.made.into_nodes()).unwrap();
    assert_eq!(show(&read(&store, change.root)), ["a/ 700", "a/b/ 755:5,6", "a/b/c/ 755:5,6"]);
    let again = mkdir(&nodes, &change.root, b"/a/b/c", "", now).unwrap();
    assert_eq!(again.root, change.root);
    store.put_nodes(&again.made.into_nodes()).unwrap();
    assert!(read(&store, again.diff).is_empty());
}

/// The layer put upon the tree, the slow way.
fn apply_slowly(base: &Model, diff: &Model) -> Model {
    let mut out = base.clone();
    let below = |out: &mut Model, path: &str| {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        out.retain(|p, _| !p.starts_with(&prefix));
    };
    for (path, what) in diff {
        let name = path.trim_end_matches('/');
        if what.ends_with(" whiteout") {
            below(&mut out, name);
            out.remove(name);
            continue;
        }
        if let Some(link) = what.strip_prefix("0 relink") {
            if let Some(file) = out.get_mut(name) {
                let plain = file.split(" = ").next().expect("a file").to_owned();
                *file = format!("{plain}{link}");
            }
            continue;
        }
        if !path.ends_with('/') {
            below(&mut out, name);
            out.insert(name.to_owned(), what.replace("unlisted ", ""));
            continue;
        }
        out.remove(name);
        let was = out.get(path).cloned();
        if what.starts_with('!') {
            below(&mut out, name);
        }
        let implicit = was.unwrap_or_else(|| "755".to_owned());
        let what = match what.strip_prefix('~') {
            Some(_) => implicit,
            None => what.trim_start_matches(['!', '^']).to_owned(),
        };
        out.insert(path.clone(), what);
    }
    out
}

fn tree(marks: bool) -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let path = prop::collection::vec(name, 1..4).prop_map(|p| p.join("/"));
    let leaf = if marks {
        let relink = prop_oneof![
            Just("0 relink"),
            Just("0 relink = g"),
            Just("0 relink = h"),
            Just("640 unlisted x")
        ];
        let file = prop_oneof![Just("644 x"), Just("600 y"), Just("644 x = g")];
        let link = prop_oneof![Just("777 -> a"), Just("777 -> a = h"), Just("640 fifo = h")];
        prop_oneof![3 => file, 1 => link, 1 => Just("0 whiteout"), 1 => relink].boxed()
    } else {
        prop_oneof![
            Just("644 x"),
            Just("600 y"),
            Just("777 -> a"),
            Just("644@5 x"),
            Just("644@5 y"),
            Just("777@5 -> b"),
            Just("777@5 -> a"),
        ]
        .boxed()
    };
    let dir = if marks {
        prop_oneof![Just("755"), Just("!700"), Just("~755"), Just("^750")].boxed()
    } else {
        prop_oneof![Just("755"), Just("700")].boxed()
    };
    prop::collection::vec((path, any::<bool>(), leaf, dir.clone()), 0..10).prop_flat_map(
        move |list| {
            let count = list.len() * 3;
            (Just(list), prop::collection::vec(dir.clone(), count)).prop_map(|(list, dirs)| {
                let mut out: BTreeMap<String, String> = BTreeMap::new();
                let mut dirs = dirs.into_iter();
                for (path, is_dir, leaf, dir) in list {
                    // What is already a file cannot be a directory as well.
                    let parts: Vec<&str> = path.split('/').collect();
                    let above: Vec<String> =
                        (1..parts.len()).map(|n| parts[..n].join("/")).collect();
                    if above.iter().any(|p| out.contains_key(p)) {
                        continue;
                    }
                    if out.contains_key(&path) || out.contains_key(&format!("{path}/")) {
                        continue;
                    }
                    for p in above {
                        let mark = dirs.next().expect("enough of them").to_owned();
                        out.entry(format!("{p}/")).or_insert(mark);
                    }
                    match is_dir {
                        true => out.insert(format!("{path}/"), dir.to_owned()),
                        false => out.insert(path, leaf.to_owned()),
                    };
                }
                out.into_iter().collect()
            })
        },
    )
}

fn as_refs(list: &[(String, String)]) -> Vec<(&str, &str)> {
    list.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()
}

/// A path that is in many trees, clean as instructions become before anything is copied.
fn place() -> impl Strategy<Value = String> {
    let name = prop_oneof![2 => Just("a"), 2 => Just("b"), 1 => Just("c")];
    let end = prop_oneof![3 => Just(""), 1 => Just("/"), 1 => Just("/.")];
    (prop::collection::vec(name, 0..4), end).prop_map(|(names, end)| {
        let path = names.join("/");
        format!("/{path}{}", if path.is_empty() { "" } else { end })
    })
}

proptest! {
    #[test]
    fn apply_does_what_the_slow_way_does(base in tree(false), diff in tree(true)) {
        let store = MemoryStore::new();
        let (b, d) = (build(&store, &as_refs(&base)), build(&store, &as_refs(&diff)));
        let (whole, made) = apply(&StoreNodes(&store), &b, &d).unwrap();
        store.put_nodes(&made.into_nodes()).unwrap();
        let expected = apply_slowly(&base.iter().cloned().collect(), &diff.iter().cloned().collect());
        prop_assert_eq!(show(&read(&store, whole)), show(&numbered(&expected)));
        // Made explicit first, a layer gives the same.
        let (layer, made) = explicit(&StoreNodes(&store), &b, &d).unwrap();
        store.put_nodes(&made.into_nodes()).unwrap();
        let is_mark = |v: &String| v.contains(" relink") || v.contains(" unlisted");
        let is_explicit = |v: &String| !v.starts_with(['~', '^']) && !is_mark(v);
        prop_assert!(read(&store, layer).values().all(is_explicit));
        let (again, made) = apply(&StoreNodes(&store), &b, &layer).unwrap();
        store.put_nodes(&made.into_nodes()).unwrap();
        prop_assert_eq!(again, whole);
    }

    #[test]
    fn copies_do_what_the_slow_way_does(
        from in tree(false),
        to in tree(false),
        source in place(),
        dest in place(),
    ) {
        let copy = Copy {
            from: &as_refs(&from),
            to: &as_refs(&to),
            sources: &[&source],
            dest: &dest,
            ..COPY
        };
        let (from, to): (Model, Model) = (from.iter().cloned().collect(), to.iter().cloned().collect());
        let expected = slow::copy(&from, to, &source, &dest);
        let found = copy.run().ok().map(|(whole, _)| show(&whole));
        prop_assert_eq!(found, expected.as_ref().map(show), "COPY {} {}", source, dest);
    }

    #[test]
    fn a_copy_of_a_directory_adds_its_files(from in tree(false), to in tree(false)) {
        let copy = Copy {
            from: &as_refs(&from),
            to: &as_refs(&to),
            sources: &["/"],
            ..COPY
        };
        // `run` checks that the layer gives the same tree.
        if let Ok((whole, _)) = copy.run() {
            for (path, what) in &from {
                prop_assert_eq!(&whole[path], what);
            }
            for (path, _) in &to {
                prop_assert!(whole.contains_key(path), "{} is gone", path);
            }
        }
    }
}
