//! What ADD makes of archives. All of it was seen in BuildKit.

use super::super::parts::{self, HardLink, Part};
use super::super::select::{Item, Selection};
use super::*;
use crate::tree::Made;

/// What an archive says, one after the other.
#[derive(Clone, Copy)]
enum Says {
    Tree(&'static [(&'static str, &'static str)]),
    /// The destination's own entry.
    Base(&'static str),
    /// A hard link: its header, its name, its file.
    Link(&'static str, &'static str, &'static str),
}
use Says::{Base, Link, Tree};

fn names(path: &str) -> Vec<FileName> {
    path.split('/').map(|name| FileName::new(name.as_bytes()).expect("a name")).collect()
}

fn part(store: &MemoryStore, says: Says) -> Part {
    let dir = |model| root(&StoreNodes(store), &build(store, model)).expect("a root").dir;
    match says {
        Tree(model) => Part::Tree(None, dir(model)),
        Base(spec) => Part::Tree(Some(parse(spec).0), dir(&[])),
        Link(spec, path, target) => {
            let (names, meta, target) = (names(path), parse(spec).0, target.into());
            let (part, nodes) = Part::link(&HardLink { names, meta, target }).expect("a name");
            store.put_nodes(&nodes).expect("nodes that fit");
            part
        }
    }
}

fn archive(store: &MemoryStore, says: &[Says]) -> RootId {
    let parts: Vec<Part> = says.iter().map(|says| part(store, *says)).collect();
    if let [Part::Tree(meta, dir)] = &parts[..] {
        let presence = meta.as_ref().map_or(Presence::Implicit, |_| Presence::Merge);
        let meta = meta.clone().unwrap_or_else(|| super::meta(0o755, 0));
        let (id, bytes) = Root { meta, dir: *dir, presence }.seal();
        store.put_nodes(&[bytes]).expect("a root that fits");
        return id;
    }
    let (id, nodes) = parts::seal(&parts).expect("names that fit");
    store.put_nodes(&nodes).expect("nodes that fit");
    id
}

struct Add<'a> {
    says: &'a [Says],
    to: &'a [(&'a str, &'a str)],
    dest: &'a str,
    chown: Option<&'a str>,
}

const ADD: Add<'static> = Add { says: &[], to: &[], dest: "/", chown: None };

impl Add<'_> {
    fn run(&self) -> Result<(Model, Model), TreeError> {
        let store = MemoryStore::new();
        let (archive, to) = (archive(&store, self.says), build(&store, self.to));
        let nodes = StoreNodes(&store);
        let (blob, size) = (BlobId::of(b"tar"), 3);
        let picked = Picked::Leaf(meta(0o644, 0), Node::File { blob, size, link: None });
        let item = Item { path: names("a.tar"), picked, archive: Some(archive) };
        let selections = vec![Selection { items: vec![item], made: Made::default() }];
        let now = Mtime { seconds: 7, nanos: 0 };
        let dest = self.dest.as_bytes();
        let rules = CopyRules { dest, chown: self.chown, chmod: None, now };
        let change = copy(&nodes, &to, selections, &rules)?;
        store.put_nodes(&change.made.into_nodes()).expect("nodes that fit");
        let (again, made) = apply(&nodes, &to, &change.diff)?;
        store.put_nodes(&made.into_nodes()).expect("nodes that fit");
        assert_eq!(again, change.root, "the layer gives another tree");
        Ok((read(&store, change.root), read(&store, change.diff)))
    }

    /// Groups of links are shown by letters, in the order of their first names.
    #[track_caller]
    fn gives(&self, whole: &[&str]) -> Vec<String> {
        let (got, layer) = self.run().expect("an archive that can be unpacked");
        let mut groups = Vec::new();
        let got = show(&got).into_iter().map(|line| match line.split_once(" = ") {
            Some((text, group)) => {
                let at = groups.iter().position(|g| g == group).unwrap_or_else(|| {
                    groups.push(group.to_owned());
                    groups.len() - 1
                });
                format!("{text} = {}", char::from(b'A' + at as u8))
            }
            None => line,
        });
        assert_eq!(got.collect::<Vec<_>>(), whole);
        show(&layer)
    }

    #[track_caller]
    fn fails(&self, with: &str) {
        let error = self.run().expect_err("an archive that cannot be unpacked").to_string();
        assert!(error.contains(with), "{error}");
    }
}

const BELOW_LIB: &[Says] = &[Tree(&[("lib/", "~755"), ("lib/x", "644 X")])];

#[test]
fn what_is_below_a_link_goes_where_the_link_leads() {
    let to = &[("lib", "777 -> usr/lib2"), ("usr/", "755"), ("usr/lib2/", "700:4")];
    let layer = Add { says: BELOW_LIB, to, ..ADD }.gives(&[
        "lib 777 -> usr/lib2",
        "usr/ 755",
        "usr/lib2/ 700:4",
        "usr/lib2/x 644 X",
    ]);
    assert_eq!(layer, ["usr/ 755", "usr/lib2/ 700:4", "usr/lib2/x 644 X"]);
    // The destination is the root of its links.
    let inside = &[("x/", "755"), ("x/lib", "777 -> /../real"), ("x/real/", "755")];
    Add { says: BELOW_LIB, to: inside, dest: "/x", ..ADD }.gives(&[
        "x/ 755",
        "x/lib 777 -> /../real",
        "x/real/ 755",
        "x/real/x 644 X",
    ]);
    let outside = &[("real/", "755"), ("x/", "755"), ("x/lib", "777 -> /real")];
    Add { says: BELOW_LIB, to: outside, dest: "/x", ..ADD }.fails("files below `/x/lib`");
    Add { says: BELOW_LIB, to: &[("lib", "777 -> no/../usr"), ("usr/", "755")], ..ADD }
        .fails("leads to no directory");
    Add { says: BELOW_LIB, to: &[("lib", "777 -> f"), ("f", "644 F")], ..ADD }
        .fails("leads to no directory");
    Add { says: BELOW_LIB, to: &[("lib", "777 -> lib")], ..ADD }.fails("too many symbolic links");
    Add { says: BELOW_LIB, to: &[("lib", "644 F")], ..ADD }
        .fails("files below `/lib`, which is not a directory");
}

#[test]
fn a_link_may_lead_to_what_the_archive_brings() {
    let to = &[("lib", "777 -> usr/lib2")];
    let model = &[
        ("lib/", "~755"),
        ("lib/d/", "~755"),
        ("lib/d/x", "644 X"),
        ("usr/", "755"),
        ("usr/lib2/", "711"),
    ];
    Add { says: &[Tree(model)], to, ..ADD }.gives(&[
        "lib 777 -> usr/lib2",
        "usr/ 755",
        "usr/lib2/ 711",
        "usr/lib2/d/ 755",
        "usr/lib2/d/x 644 X",
    ]);
    // Two parts: the first has the link, the second what is below it.
    let says = [Tree(&[("etc/", "755"), ("lib", "777 -> /etc")]), BELOW_LIB[0]];
    let whole = ["t/ 755", "t/etc/ 755", "t/etc/x 644 X", "t/lib 777 -> /etc"];
    Add { says: &says, dest: "/t", ..ADD }.gives(&whole);
    let says = [Tree(&[("lib", "777 -> /etc")]), BELOW_LIB[0]];
    Add { says: &says, to: &[("etc/", "755")], dest: "/t", ..ADD }.fails("below `/t/lib`");
}

#[test]
fn a_directory_with_an_entry_takes_a_links_place() {
    let to = &[("lib", "777 -> r"), ("r/", "755")];
    let explicit = &[Tree(&[("lib/", "700:3"), ("lib/x", "644 X")])];
    Add { says: explicit, to, ..ADD }.gives(&["lib/ 700:3", "lib/x 644 X", "r/ 755"]);
    // An entry that comes late takes the place of the link alone.
    let late = &[Tree(&[("lib/", "!700:3"), ("lib/x", "644 X")])];
    Add { says: late, to, ..ADD }.gives(&["lib/ 700:3", "r/ 755", "r/x 644 X"]);
    let to = &[("lib/", "755"), ("lib/y", "644 Y")];
    let layer = Add { says: late, to, ..ADD }.gives(&["lib/ 700:3", "lib/x 644 X", "lib/y 644 Y"]);
    assert_eq!(layer, ["lib/ 700:3", "lib/x 644 X"]);
    Add { says: late, ..ADD }.gives(&["lib/ 700:3", "lib/x 644 X"]);
}

#[test]
fn a_directory_that_was_replaced_keeps_nothing() {
    let says = &[Tree(&[("e", "644 E")]), Tree(&[("e/", "750"), ("e/y", "644 Y")])];
    let to = &[("e/", "755"), ("e/z", "644 Z")];
    let layer = Add { says, to, ..ADD }.gives(&["e/ 750", "e/y 644 Y"]);
    assert_eq!(layer, ["e/ !750", "e/y 644 Y"]);
}

#[test]
fn directories_without_an_entry_are_roots() {
    let says = &[Tree(&[("n/", "~755"), ("n/d/", "750:2"), ("n/d/x", "644:2 X")])];
    let add = Add { says, dest: "/u", chown: Some("5"), ..ADD };
    add.gives(&["u/ 755:5", "u/n/ 755", "u/n/d/ 750:5", "u/n/d/x 644:5 X"]);
}

#[test]
fn an_entry_for_the_destination_counts() {
    let add = Add { says: &[Base("700:4")], dest: "/x", ..ADD };
    add.gives(&["x/ 700:4"]);
    Add { chown: Some("5"), ..add }.gives(&["x/ 700:5"]);
}

const OLD: &[(&str, &str)] = &[
    ("out", "644 old = g"),
    ("x/", "755"),
    ("x/a", "644 old = g"),
    ("x/b", "644 old = g"),
    ("x/d/", "755"),
    ("x/d/f", "644 F"),
    ("x/l", "777 -> d"),
    ("x/p", "644 fifo"),
    ("x/s", "777:1 -> a"),
];

#[test]
fn hard_links_to_older_files() {
    let add = Add { to: OLD, dest: "/x", ..ADD };
    let says = &[Link("600:3", "c", "/../a"), Link("640:5", "n/g", "l/f")];
    let layer = Add { says, ..add }.gives(&[
        "out 644 old = A",
        "x/ 755",
        "x/a 600:3 old = B",
        "x/b 644 old = A",
        "x/c 600:3 old = B",
        "x/d/ 755",
        "x/d/f 640:5 F = C",
        "x/l 777 -> d",
        "x/n/ 755",
        "x/n/g 640:5 F = C",
        "x/p 644 fifo",
        "x/s 777:1 -> a",
    ]);
    let paths: Vec<_> = layer.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(paths, ["x/", "x/a", "x/c", "x/d/", "x/d/f", "x/n/", "x/n/g"]);
    // A symlink gets the owner alone, a pipe all; a link is not followed, and replaces what is there.
    let says = &[Link("600:3", "t", "s"), Link("600:4", "b", "p")];
    let (got, _) = Add { says, chown: Some("9"), ..add }.run().expect("links that can be made");
    assert!(got["x/t"].starts_with("777:9 -> a = "), "{}", got["x/t"]);
    assert_eq!(got["x/s"], got["x/t"]);
    assert!(got["x/p"].starts_with("600:9 fifo = "), "{}", got["x/p"]);
    assert_eq!(got["x/p"], got["x/b"]);
}

#[test]
fn the_last_hard_link_describes_all_names() {
    let says = &[
        Tree(&[("d/", "755"), ("d/f", "644 F = g"), ("d/g", "644 F = g")]),
        Link("600:3", "d/h", "d/f"),
        Link("640:4", "i", "d/h"),
    ];
    Add { says, ..ADD }.gives(&[
        "d/ 755",
        "d/f 640:4 F = A",
        "d/g 640:4 F = A",
        "d/h 640:4 F = A",
        "i 640:4 F = A",
    ]);
}

#[test]
fn hard_links_to_nothing() {
    let fails = |path, target, with| {
        let says = &[Link("644", path, target)];
        Add { says, to: OLD, dest: "/x", ..ADD }.fails(with);
    };
    fails("c", "none", "`c` of the archive is a hard link to `none`, which is neither in");
    fails("c", "/out", "neither in the archive");
    fails("c", "a/b", "neither in the archive");
    fails("c", "d", "`d`, which is a directory");
    fails("c", ".", "is a directory");
    fails("a", "./a", "`a` of the archive is a hard link to `./a`, which it takes the place of");
    fails("d", "d/f", "takes the place of");
    fails("a/c", "b", "files below `/x/a`, which is not a directory");
}
