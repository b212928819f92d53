use super::super::testing::*;
use super::*;
use crate::rootfs::materialize::materialize;
use cache::store::StoreNodes;
use cache::store::memory::MemoryStore;
use cache::tree::apply::archived;
use proto::tree::{AnyNode, LinkId, Node, Unlisted};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

fn upper() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("upper");
    fs::create_dir(&path).unwrap();
    (temp, path)
}

/// Makes `change` into a directory, and captures that upon `below`.
fn changed(store: &MemoryStore, below: Vec<Spec>, change: Vec<Spec>) -> (Diff, Vec<String>) {
    let (_temp, path) = upper();
    let below = root(store, below);
    materialize(store, &root(store, change), &path).unwrap();
    let diff = capture(store, &path, &below, WrittenAs::StepRoot).unwrap();
    (diff, tree(&path))
}

fn tree(path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut next = vec![path.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path_of = entry.unwrap().path();
            out.push(path_of.strip_prefix(path).unwrap().display().to_string());
            if path_of.symlink_metadata().unwrap().is_dir() {
                next.push(path_of);
            }
        }
    }
    out.sort();
    out
}

/// The diff that has exactly these entries.
fn diff_of(store: &MemoryStore, entries: Vec<Spec>) -> RootId {
    let root = load_root(store, &root(store, entries)).unwrap();
    let meta = Meta::root_owned(0o755, Mtime::default());
    Root { meta, dir: root.dir, presence: Presence::Implicit }.seal().0
}

#[test]
fn nothing_changed_is_the_empty_diff() {
    let store = MemoryStore::new();
    let (one, left) = changed(&store, vec![], vec![]);
    let (two, _) = changed(&store, vec![file("a", b"a", 0o600)], vec![]);
    assert_eq!((one.id, left), (two.id, vec![]));
    assert_eq!(one.summary, Summary::default());
}

#[test]
fn what_is_as_below_is_dropped_here_and_on_disk() {
    let store = MemoryStore::new();
    let below = || {
        vec![
            dir("etc", 0o755, vec![file("same", b"1", 0o644), symlink("link", "x")]),
            dir("deep", 0o755, vec![dir("er", 0o700, vec![special("pipe", What::Fifo)])]),
            file("big", &vec![7; 300 << 10], 0o644),
        ]
    };
    let (diff, left) = changed(&store, below(), below());
    assert_eq!(diff.id, changed(&store, vec![], vec![]).0.id);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn each_kind_of_change_is_one() {
    let store = MemoryStore::new();
    let base = || file("f", b"1", 0o644);
    for change in [
        file("f", b"2", 0o644),
        file("f", b"1", 0o600),
        Spec { mtime: 5, ..base() },
        Spec { owner: (1, 0), ..base() },
        Spec { owner: (0, 1), ..base() },
        Spec { xattrs: vec![("security.capability", capability())], ..base() },
        symlink("f", "g"),
        dir("f", 0o755, vec![]),
        special("f", What::Socket),
        special("f", What::Char(5, 1)),
        special("f", What::Block(7, 9)),
        whiteout("f"),
    ] {
        let (diff, left) = changed(&store, vec![base()], vec![change.clone()]);
        assert_eq!(diff.id, diff_of(&store, vec![change.clone()]), "{change:?}");
        assert_eq!(left, ["f"]);
    }
}

/// `CAP_NET_RAW`, as `setcap` writes it.
fn capability() -> Vec<u8> {
    [[1, 0, 0, 2], [0, 0x20, 0, 0], [0; 4], [0; 4], [0; 4]].concat()
}

/// As in BuildKit, which compares bytes only when times can have been cut off.
#[test]
fn changes_that_neither_size_nor_time_tells_are_for_later_steps_alone() {
    let store = MemoryStore::new();
    let timed = |spec: Spec| Spec { nanos: 5, ..spec };
    let old = |name| timed(file(name, b"old", 0o644));
    let new = |name| timed(file(name, b"new", 0o644));
    let unlisted = |name| timed(special(name, What::Unlisted(b"new".to_vec())));
    let below = vec![
        dir("d", 0o755, vec![old("a"), old("b"), file("cut", b"old", 0o644)]),
        dir("time", 0o755, vec![]),
        old("xattr"),
    ];
    let attribute = || vec![("user.x", b"y".to_vec())];
    let change = vec![
        dir("d", 0o755, vec![new("a"), new("b"), file("cut", b"new", 0o644)]),
        timed(dir("time", 0o755, vec![])),
        Spec { xattrs: attribute(), ..old("xattr") },
    ];
    let (diff, left) = changed(&store, below, change);
    let mode = |spec: Spec| Spec { mode: 0o644, ..spec };
    let kept = special("xattr", What::Unlisted(b"old".to_vec()));
    let want = vec![
        dir("d", 0o755, vec![mode(unlisted("a")), mode(unlisted("b")), file("cut", b"new", 0o644)]),
        Spec { presence: Presence::Unlisted, ..timed(dir("time", 0o755, vec![])) },
        Spec { xattrs: attribute(), ..mode(timed(kept)) },
    ];
    assert_eq!(diff.id, diff_of(&store, want));
    assert_eq!(left, ["d", "d/a", "d/b", "d/cut", "time", "xattr"]);
    let mut missed = Missed::default();
    ["/d/a", "/d/b"].into_iter().for_each(|path| missed.add(path.as_bytes().to_vec()));
    let told = |missed: Missed| missed.warning(<[u8]>::to_vec);
    assert_eq!(told(diff.missed), told(missed));
    let (layer, made) = archived(&StoreNodes(&store), &diff.id).unwrap();
    store.put_nodes(&made.into_nodes()).unwrap();
    let held = vec![dir("d", 0o755, vec![file("cut", b"new", 0o644)])];
    assert_eq!(layer, diff_of(&store, held));
}

#[test]
fn a_directory_that_only_leads_somewhere_keeps_its_time() {
    let store = MemoryStore::new();
    let (_temp, path) = upper();
    let below = root(&store, vec![dir("d", 0o755, vec![file("same", b"1", 0o644)])]);
    let change = vec![dir("d", 0o755, vec![file("same", b"1", 0o644), file("new", b"1", 0o644)])];
    materialize(&store, &root(&store, change), &path).unwrap();
    let diff = capture(&store, &path, &below, WrittenAs::StepRoot).unwrap();
    let want = vec![dir("d", 0o755, vec![file("new", b"1", 0o644)])];
    assert_eq!(diff.id, diff_of(&store, want));
    assert_eq!(path.join("d").metadata().unwrap().mtime(), 1_000_000_000);
}

/// As in BuildKit: what is in a directory that was removed and made again is compared with what was.
#[test]
fn directories_that_hide_others_are_compared_with_them() {
    let store = MemoryStore::new();
    let opaque =
        |name: &str, children| Spec { presence: Presence::Opaque, ..dir(name, 0o700, children) };
    let f = |name: &str| file(name, b"1", 0o644);
    let below = vec![
        dir(
            "deep",
            0o700,
            vec![
                dir("d", 0o755, vec![f("gone"), f("same")]),
                f("was-file"),
                dir("x", 0o755, vec![f("y")]),
            ],
        ),
        dir("empty", 0o755, vec![]),
        f("file"),
        dir("full", 0o755, vec![f("x")]),
        dir("same", 0o700, vec![f("x")]),
    ];
    let change = vec![
        opaque(
            "deep",
            vec![
                dir("d", 0o755, vec![f("new"), f("same")]),
                dir("was-file", 0o755, vec![f("z")]),
                f("x"),
            ],
        ),
        opaque("empty", vec![]),
        opaque("file", vec![]),
        opaque("full", vec![]),
        opaque("new", vec![opaque("in", vec![f("x")])]),
        opaque("same", vec![f("x")]),
    ];
    let (diff, left) = changed(&store, below, change);
    let d = dir("d", 0o755, vec![whiteout("gone"), f("new")]);
    let plain = |name, children| dir(name, 0o700, children);
    let want = vec![
        plain("deep", vec![d, dir("was-file", 0o755, vec![f("z")]), f("x")]),
        plain("empty", vec![]),
        plain("file", vec![]),
        plain("full", vec![whiteout("x")]),
        plain("new", vec![plain("in", vec![f("x")])]),
    ];
    assert_eq!(diff.id, diff_of(&store, want));
    let paths = "deep deep/d deep/d/gone deep/d/new deep/was-file deep/was-file/z deep/x empty file full \
                 full/x new new/in new/in/x";
    assert_eq!(left.join(" "), paths);
}

#[test]
fn whiteouts_of_nothing_go() {
    let store = MemoryStore::new();
    let below = vec![file("a", b"1", 0o644)];
    let (diff, left) = changed(&store, below, vec![whiteout("a"), whiteout("b")]);
    assert_eq!(diff.id, diff_of(&store, vec![whiteout("a")]));
    assert_eq!(left, ["a"]);
}

#[test]
fn links_are_named_by_their_paths() {
    let store = MemoryStore::new();
    let make = || {
        let (temp, path) = upper();
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("a"), "1").unwrap();
        fs::hard_link(path.join("a"), path.join("d/b")).unwrap();
        fs::hard_link(path.join("a"), temp.path().join("outside")).unwrap();
        fs::write(path.join("single"), "1").unwrap();
        fs::hard_link(path.join("single"), temp.path().join("outside2")).unwrap();
        let below = root(&store, vec![]);
        (capture(&store, &path, &below, WrittenAs::StepRoot).unwrap(), temp)
    };
    let ((one, _a), (two, _b)) = (make(), make());
    let link = |diff: &Diff, dir: Option<&str>, name: &str| {
        let root = load_root(&store, &diff.id).unwrap();
        let mut node = crate::rootfs::load_dir(&store, &root.dir.tree).unwrap();
        for step in dir.into_iter().chain([name]) {
            let AnyNode::Dir(entries) = &*node.clone() else { panic!() };
            match &entries.get(step.as_bytes()).unwrap().node {
                Node::Dir(below, _) => {
                    node = crate::rootfs::load_dir(&store, &below.tree).unwrap();
                }
                Node::File { link, .. } => return *link,
                other => panic!("{other:?}"),
            }
        }
        panic!()
    };
    assert!(link(&one, None, "a").is_some());
    assert_eq!(link(&one, None, "a"), link(&one, Some("d"), "b"));
    assert_eq!(link(&one, None, "a"), link(&two, None, "a"));
    assert_eq!(link(&one, None, "single"), None);
}

/// The files of a diff, each with the first name of its group; `~`: one of a layer below, `^`: one
/// for later steps alone.
fn files(store: &MemoryStore, diff: &Diff) -> Vec<String> {
    fn walk(
        store: &MemoryStore,
        tree: &proto::id::TreeId,
        at: &str,
        first: &mut Vec<(LinkId, String)>,
        out: &mut Vec<String>,
    ) {
        let node = crate::rootfs::load_dir(store, tree).unwrap();
        let AnyNode::Dir(dir) = &*node else { panic!("a root inside a tree") };
        for entry in dir.entries() {
            let path = format!("{at}{}", entry.name);
            let (mark, link) = match &entry.node {
                Node::Dir(below, _) => {
                    walk(store, &below.tree, &format!("{path}/"), first, out);
                    continue;
                }
                Node::Unlisted(Unlisted::File { link, .. }) => ("^", *link),
                Node::Relink(link) => ("~", *link),
                node => ("", node.link()),
            };
            let Some(link) = link else {
                out.push(format!("{mark}{path}"));
                continue;
            };
            let known = first.iter().find(|(id, _)| *id == link);
            let name = known.map_or_else(|| path.clone(), |(_, name)| name.clone());
            out.push(format!("{mark}{path} = {name}"));
            first.push((link, name));
        }
    }
    let root = load_root(store, &diff.id).unwrap();
    let mut out = Vec::new();
    walk(store, &root.dir.tree, "", &mut Vec::new(), &mut out);
    out
}

/// As in BuildKit, whose layers have hard links to all but directories.
#[test]
fn links_devices_pipes_and_sockets_can_have_several_names() {
    let store = MemoryStore::new();
    let name = |name: &str, what: What, group| special(name, What::Twin(Box::new(what), group));
    let twice = |what: fn() -> What, a: &str, b: &str, group| {
        [name(a, what(), group), name(b, what(), group)]
    };
    let mut all = vec![symlink_name("l1", "t", "l"), symlink_name("l2", "t", "l")];
    all.extend(twice(|| What::Fifo, "p1", "p2", "p"));
    all.extend(twice(|| What::Char(1, 3), "c1", "c2", "c"));
    all.extend(twice(|| What::Socket, "s1", "s2", "s"));
    let (diff, _) = changed(&store, vec![], all.clone());
    let shown =
        ["c1 = c1", "c2 = c1", "l1 = l1", "l2 = l1", "p1 = p1", "p2 = p1", "s1 = s1", "s2 = s1"];
    assert_eq!(files(&store, &diff), shown);
    // One more name of what is there already.
    let one = vec![symlink("l1", "t"), special("p1", What::Fifo)];
    let more = [all[0].clone(), all[1].clone(), all[2].clone(), all[3].clone()];
    let (diff, left) = changed(&store, one, more.into());
    assert_eq!(files(&store, &diff), ["~l1 = l1", "l2 = l1", "~p1 = p1", "p2 = p1"]);
    assert_eq!(left, ["l1", "l2", "p1", "p2"]);
    let (layer, made) = archived(&StoreNodes(&store), &diff.id).unwrap();
    store.put_nodes(&made.into_nodes()).unwrap();
    let held = load_root(&store, &layer).unwrap().dir.summary.entries;
    assert_eq!(held, 2, "the image has the new names alone");
}

#[test]
fn older_files_get_other_names() {
    let store = MemoryStore::new();
    let a = || file("a", b"1", 0o644);
    let big = vec![7; 300 << 10];
    let links = |names: &[&str]| names.iter().map(|n| linked(n, b"1", "g")).collect::<Vec<_>>();
    let with =
        |edit: fn(Spec) -> Spec| links(&["a", "b"]).into_iter().map(edit).collect::<Vec<_>>();
    let both = ["a = a", "b = a"];
    let opaque = Spec { presence: Presence::Opaque, ..dir("d", 0o755, links(&["a", "b"])) };
    let cases: Vec<(&str, Vec<Spec>, Vec<Spec>, Vec<&str>)> = vec![
        ("a new name", vec![a()], links(&["a", "b"]), vec!["~a = a", "b = a"]),
        (
            "a new name that comes first",
            vec![file("b", b"1", 0o644)],
            links(&["a", "b"]),
            vec!["a = a", "~b = a"],
        ),
        ("two new names", vec![a()], links(&["a", "b", "c"]), vec!["~a = a", "b = a", "c = a"]),
        ("a third name", links(&["a", "b"]), links(&["a", "c"]), vec!["~a = a", "c = a"]),
        (
            "a third name, all seen",
            links(&["a", "b"]),
            links(&["a", "b", "c"]),
            vec!["~a = a", "~b = a", "c = a"],
        ),
        (
            "two files made one",
            vec![a(), file("b", b"1", 0o644)],
            links(&["a", "b"]),
            vec!["~a = a", "~b = a"],
        ),
        ("a link taken away", links(&["a", "b"]), vec![a()], vec!["~a"]),
        ("a link written to", links(&["a", "b"]), vec![file("a", b"2", 0o644)], vec!["a"]),
        (
            "one of a different content",
            vec![a(), file("b", b"2", 0o644)],
            links(&["a", "b"]),
            vec!["~a = a", "b = a"],
        ),
        (
            "in other directories",
            vec![dir("d", 0o755, vec![dir("e", 0o755, vec![a()])])],
            vec![
                dir("c", 0o755, links(&["x"])),
                dir("d", 0o755, vec![dir("e", 0o755, links(&["a", "z"]))]),
            ],
            vec!["c/x = c/x", "~d/e/a = c/x", "d/e/z = c/x"],
        ),
        (
            "large",
            vec![file("a", &big, 0o644)],
            vec![linked("a", &big, "g"), linked("b", &big, "g")],
            vec!["~a = a", "b = a"],
        ),
        (
            "large and changed",
            vec![file("a", &vec![8; 300 << 10], 0o644)],
            vec![linked("a", &big, "g"), linked("b", &big, "g")],
            both.into(),
        ),
        ("other bytes", vec![file("a", b"2", 0o644)], links(&["a", "b"]), both.into()),
        ("another size", vec![file("a", b"12", 0o644)], links(&["a", "b"]), both.into()),
        ("chmod", vec![a()], with(|s| Spec { mode: 0o600, ..s }), both.into()),
        ("chown", vec![a()], with(|s| Spec { owner: (1, 0), ..s }), both.into()),
        ("touch", vec![a()], with(|s| Spec { mtime: 5, ..s }), both.into()),
        (
            "an attribute",
            vec![a()],
            with(|s| Spec { xattrs: vec![("user.x", b"y".to_vec())], ..s }),
            vec!["^a = a", "b = a"],
        ),
        ("another kind", vec![symlink("a", "x")], links(&["a", "b"]), both.into()),
        ("hidden", vec![dir("d", 0o755, vec![a()])], vec![opaque], vec!["~d/a = d/a", "d/b = d/a"]),
        (
            "a file in place of the directory",
            vec![file("d", b"1", 0o644)],
            vec![dir("d", 0o755, links(&["a", "b"]))],
            vec!["d/a = d/a", "d/b = d/a"],
        ),
    ];
    for (what, below, change, want) in cases {
        let (diff, left) = changed(&store, below, change);
        assert_eq!(files(&store, &diff), want, "{what}");
        let name =
            |line: &&'static str| line.trim_start_matches(['~', '^']).split(' ').next().unwrap();
        let names: Vec<&str> = want.iter().map(name).collect();
        let is_file = |path: &&String| !left.iter().any(|p| p.starts_with(&format!("{path}/")));
        assert_eq!(left.iter().filter(is_file).collect::<Vec<_>>(), names, "{what}");
    }
}

/// The metadata of a directory that a file was only copied up in are as below.
#[test]
fn a_directory_with_nothing_but_other_names_is_in_no_layer() {
    let store = MemoryStore::new();
    let old = || dir("deep", 0o711, vec![dir("er", 0o700, vec![file("old", b"1", 0o644)])]);
    let seen = dir("deep", 0o711, vec![dir("er", 0o700, vec![linked("old", b"1", "g")])]);
    let (diff, left) = changed(&store, vec![old()], vec![seen, linked("new", b"1", "g")]);
    assert_eq!(files(&store, &diff), ["~deep/er/old = deep/er/old", "new = deep/er/old"]);
    assert_eq!(left, ["deep", "deep/er", "deep/er/old", "new"]);
    let (layer, made) = archived(&StoreNodes(&store), &diff.id).unwrap();
    store.put_nodes(&made.into_nodes()).unwrap();
    let root = load_root(&store, &layer).unwrap();
    let AnyNode::Dir(top) = &*crate::rootfs::load_dir(&store, &root.dir.tree).unwrap() else {
        panic!("a root inside a tree")
    };
    assert_eq!(top.entries().iter().map(|e| e.name.to_string()).collect::<Vec<_>>(), ["new"]);
}

#[test]
fn a_directory_by_itself_keeps_its_links() {
    let store = MemoryStore::new();
    let below = root(&store, vec![file("a", b"1", 0o644)]);
    let (_temp, path) = upper();
    let change = vec![linked("a", b"1", "g"), linked("b", b"1", "g")];
    materialize(&store, &root(&store, change), &path).unwrap();
    let diff = capture(&store, &path, &below, WrittenAs::Directory).unwrap();
    assert_eq!(files(&store, &diff), ["a = a", "b = a"]);
}

#[test]
fn the_top_can_be_kept() {
    let store = MemoryStore::new();
    let (_temp, path) = upper();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o1770)).unwrap();
    let below = root(&store, vec![]);
    let below_diff = capture(&store, &path, &below, WrittenAs::StepRoot).unwrap();
    let kept = capture(&store, &path, &below, WrittenAs::Directory).unwrap();
    assert_ne!(below_diff.id, kept.id);
    assert_eq!(load_root(&store, &kept.id).unwrap().meta.mode, 0o1770);
    assert_eq!(kept.root_meta.mode, 0o1770);
}

#[test]
fn too_deep_is_said_so() {
    let store = MemoryStore::new();
    let (_temp, path) = upper();
    let mut fd = at::open_host_dir(&path).unwrap();
    for _ in 0..limit_depth() {
        fd = at::make_dir(&fd, b"d").unwrap();
    }
    let below = root(&store, vec![]);
    let error = capture(&store, &path, &below, WrittenAs::StepRoot).unwrap_err();
    assert!(matches!(error, RootfsError::TooDeep { .. }), "{error}");
}

fn limit_depth() -> usize {
    proto::limit::TREE_DEPTH_MAX + 1
}
