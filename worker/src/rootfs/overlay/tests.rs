use super::super::testing::*;
use super::*;
use cache::store::memory::MemoryStore;
use proto::tree::Presence;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

struct Bench {
    temp: tempfile::TempDir,
    store: Arc<dyn Store>,
    cache: LayerCache,
}

fn bench() -> Bench {
    bench_with(u64::MAX)
}

fn bench_with(budget: u64) -> Bench {
    let temp = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cache = LayerCache::open(&temp.path().join("layers"), store.clone(), budget).unwrap();
    Bench { temp, store, cache }
}

impl Bench {
    fn layer(&self, entries: Vec<Spec>) -> RootId {
        root(&*self.store, entries)
    }

    fn stack(&self, diffs: &[RootId], merged: Vec<Spec>) -> Stack {
        Stack { diffs: diffs.to_vec(), merged: self.layer(merged) }
    }
}

/// The mounted root as a path.
fn path(overlay: &Overlay) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", overlay.root().as_raw_fd()))
}

fn f(name: &str, data: &str) -> Spec {
    file(name, data.as_bytes(), 0o644)
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn layers_lie_upon_each_other() {
    let bench = bench();
    let a = bench.layer(vec![dir("d", 0o755, vec![f("a", "1"), f("b", "1")]), f("gone", "1")]);
    let b = bench.layer(vec![dir("d", 0o711, vec![f("a", "2")]), whiteout("gone")]);
    let stack = bench.stack(&[a, b], vec![]);
    let before = mounts();
    for access in [Access::ReadOnly, Access::Private] {
        let overlay = bench.cache.mount(&stack, access).unwrap();
        let root = path(&overlay);
        assert_eq!(fs::read_to_string(root.join("d/a")).unwrap(), "2");
        assert_eq!(fs::read_to_string(root.join("d/b")).unwrap(), "1");
        assert!(!root.join("gone").exists());
        assert_eq!(root.join("d").metadata().unwrap().mode() & 0o7777, 0o711);
        assert_eq!(root.metadata().unwrap().mtime(), 1_000_000_000);
        let written = fs::write(root.join("new"), "n");
        assert_eq!(written.is_ok(), access == Access::Private);
    }
    assert_eq!(mounts(), before);
}

#[test]
fn nothing_can_be_mounted_too() {
    let bench = bench();
    let stack = Stack { diffs: vec![], merged: scratch(&*bench.store) };
    for access in [Access::ReadOnly, Access::Private] {
        let overlay = bench.cache.mount(&stack, access).unwrap();
        assert_eq!(fs::read_dir(path(&overlay)).unwrap().count(), 0);
    }
}

#[test]
fn the_way_for_old_kernels_works_too() {
    let bench = bench();
    let ids: Vec<RootId> = (0..119)
        .map(|i| bench.layer(vec![f(&format!("f{i}"), "x"), f("same", &i.to_string())]))
        .collect();
    let layers = bench.cache.lowers(&ids).unwrap();
    let lowers = layers.iter().map(|l| format!("l/{}", l.name())).collect();
    let scratch = bench.cache.disk().new_work().unwrap();
    let inside = |name: &str| {
        fs::create_dir(scratch.join(name)).unwrap();
        format!("work/{}/{name}", scratch.file_name().unwrap().to_str().unwrap())
    };
    let before = mounts();
    let folder = bench.cache.disk().root().as_fd();
    let options = Options { folder, lowers, writable: Some((inside("u"), inside("w"))) };
    let mount = options.mount_old("test", &scratch).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert_eq!(fs::read_to_string(root.join("same")).unwrap(), "118");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 120);
    fs::write(root.join("new"), "n").unwrap();
    assert!(scratch.join("u/new").exists());
    assert_eq!(mounts(), before);
}

#[test]
fn more_layers_than_the_kernel_takes() {
    let bench = bench();
    let ids: Vec<RootId> = (0..130)
        .map(|i| {
            let mut entries = vec![f(&format!("f{i}"), "x"), f("same", &i.to_string())];
            if i > 0 {
                entries.push(whiteout(&format!("f{}", i - 1)));
            }
            bench.layer(entries)
        })
        .collect();
    let overlay = bench.cache.mount(&bench.stack(&ids, vec![]), Access::Private).unwrap();
    let mut names: Vec<String> = fs::read_dir(path(&overlay))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["f129", "same"]);
    assert_eq!(fs::read_to_string(path(&overlay).join("same")).unwrap(), "129");
    drop(overlay);
    let again = bench.cache.lowers(&ids[..129]).unwrap();
    assert!(again.len() <= proto::limit::OVERLAY_LOWERS_MAX);
    assert!(bench.cache.verify().unwrap().is_empty());
}

/// Each kind of change, made through the overlay, comes back from a fresh cache as it was.
#[test]
fn changes_come_back_from_their_diff() {
    let bench = bench();
    let base = vec![
        dir("dir", 0o755, vec![f("a", "1"), f("b", "1"), dir("sub", 0o700, vec![f("c", "1")])]),
        dir("opaque", 0o755, vec![f("old", "1")]),
        dir("todir", 0o755, vec![f("x", "1")]),
        dir("moved", 0o755, vec![f("m", "1")]),
        dir("same", 0o755, vec![f("s", "1")]),
        f("tofile", "1"),
        f("mode", "1"),
        f("owner", "1"),
        f("attr", "1"),
        linked("l1", b"link", "g"),
        linked("l2", b"link", "g"),
        symlink("sym", "dir"),
    ];
    let stack = bench.stack(&[bench.layer(base.clone())], base);
    let overlay = bench.cache.mount(&stack, Access::Private).unwrap();
    let root = path(&overlay);
    change_everything(&root);
    let seen = look(&root);
    let upper = overlay.into_upper();
    let diff = upper.capture(&*bench.store, WrittenAs::StepRoot).unwrap();

    let mut diffs = stack.diffs.clone();
    diffs.push(diff.id);
    let stack2 = Stack { diffs, ..stack.clone() };
    let other = LayerCache::open(&bench.temp.path().join("2"), bench.store.clone(), 0).unwrap();
    let there = other.mount(&stack2, Access::ReadOnly).unwrap();
    assert_eq!(look(&path(&there)), seen);
    assert!(other.verify().unwrap().is_empty());

    bench.cache.adopt(upper, &diff.id).unwrap();
    assert!(bench.cache.has(&diff.id));
    let here = bench.cache.mount(&stack2, Access::Private).unwrap();
    assert_eq!(look(&path(&here)), seen);
    let damage = bench.cache.verify().unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    // What was captured once is the same when it is captured again, from either.
    let again = here.into_upper().capture(&*bench.store, WrittenAs::StepRoot).unwrap();
    assert_eq!(again.summary.entries, 0);
}

/// A step upon `stack`: what it changes, and what the next one is upon.
fn step(bench: &Bench, stack: &Stack, change: impl FnOnce(&Path)) -> (Diff, Stack) {
    let overlay = bench.cache.mount(stack, Access::Private).unwrap();
    change(&path(&overlay));
    let upper = overlay.into_upper();
    let diff = upper.capture(&*bench.store, WrittenAs::StepRoot).unwrap();
    let nodes = cache::store::StoreNodes(&*bench.store);
    let (merged, made) = cache::tree::apply::apply(&nodes, &stack.merged, &diff.id).unwrap();
    bench.store.put_nodes(&made.into_nodes()).unwrap();
    bench.cache.adopt(upper, &diff.id).unwrap();
    let diffs = [&stack.diffs[..], &[diff.id]].concat();
    (diff, Stack { diffs, merged })
}

/// The next step sees which names are one file, though the layer holds only the new ones.
#[test]
fn an_older_file_can_have_new_names() {
    let bench = bench();
    let old = vec![f("image", "1")];
    let stack = bench.stack(&[bench.layer(old.clone())], old);
    let names = ["plain", "twice", "written", "mode", "moved", "touched", "opened", "one", "other"];
    let (_, stack) = step(&bench, &stack, |root| {
        for name in names {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join("other"), "one").unwrap();
        let time = fs::metadata(root.join("one")).unwrap().modified().unwrap();
        fs::File::open(root.join("other")).unwrap().set_modified(time).unwrap();
        fs::write(root.join("pair1"), "pair").unwrap();
        fs::hard_link(root.join("pair1"), root.join("pair2")).unwrap();
        fs::write(root.join("apart1"), "apart").unwrap();
        fs::hard_link(root.join("apart1"), root.join("apart2")).unwrap();
    });
    let (diff, stack) = step(&bench, &stack, |root| {
        let p = |name: &str| root.join(name);
        let link = |old: &str, new: &str| fs::hard_link(p(old), p(new)).unwrap();
        link("image", "image-too");
        link("plain", "plain-too");
        link("twice", "a");
        link("twice", "z");
        link("pair1", "pair3");
        link("written", "written-too");
        fs::write(p("written-too"), "more").unwrap();
        link("mode", "mode-too");
        fs::set_permissions(p("mode-too"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(p("moved"), p("moved-away")).unwrap();
        link("touched", "touched-too");
        let time = fs::metadata(p("touched")).unwrap().modified().unwrap();
        fs::File::open(p("touched")).unwrap().set_modified(time).unwrap();
        fs::File::options().append(true).open(p("opened")).unwrap();
        fs::remove_file(p("other")).unwrap();
        link("one", "other");
        fs::File::options().append(true).open(p("apart1")).unwrap();
    });
    let new = ["a", "z", "image-too", "plain-too", "pair3", "touched-too", "moved-away"];
    let changed = ["moved", "mode", "mode-too", "written", "written-too"];
    let (held, made) =
        cache::tree::apply::archived(&cache::store::StoreNodes(&*bench.store), &diff.id).unwrap();
    bench.store.put_nodes(&made.into_nodes()).unwrap();
    let held = load_root(&*bench.store, &held).unwrap().dir.summary;
    assert_eq!(held.entries as usize, new.len() + changed.len());
    let want = [
        "a twice z",
        "image image-too",
        "mode mode-too",
        "one other",
        "pair1 pair3",
        "plain plain-too",
        "touched touched-too",
        "written written-too",
    ];
    let links = |root: &Path| -> Vec<String> {
        let lines = look(root).into_iter();
        let mut links: Vec<String> =
            lines.filter_map(|line| line.strip_prefix(LINKED).map(str::to_owned)).collect();
        links.sort();
        links
    };
    let (nothing, _) = step(&bench, &stack, |root| {
        assert_eq!(links(root), want);
        assert_eq!(fs::metadata(root.join("plain")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(root.join("plain-too")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(root.join("apart1")).unwrap().nlink(), 1);
        assert_eq!(fs::read_to_string(root.join("written")).unwrap(), "more");
    });
    assert_eq!(nothing.summary.entries, 0);
    let damage = bench.cache.verify().unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    let other = LayerCache::open(&bench.temp.path().join("2"), bench.store.clone(), 0).unwrap();
    assert_eq!(links(&path(&other.mount(&stack, Access::ReadOnly).unwrap())), want);
}

/// The next step sees it, whoever runs it, though the layer has nothing of it.
#[test]
fn a_change_that_neither_size_nor_time_tells_is_seen_by_the_next_step_alone() {
    let bench = bench();
    let stack = bench.stack(&[bench.layer(vec![])], vec![]);
    let (_, stack) = step(&bench, &stack, |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "old").unwrap();
        std::os::unix::fs::symlink("old", root.join("d/l")).unwrap();
    });
    let times = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        let time = |seconds, nanos| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
        let mtime = time(meta.mtime(), meta.mtime_nsec());
        assert_ne!(mtime.tv_nsec, 0, "a file system with parts of seconds");
        rustix::fs::Timestamps { last_access: mtime, last_modification: mtime }
    };
    let (diff, stack) = step(&bench, &stack, |root| {
        let (file, link) = (root.join("d/f"), root.join("d/l"));
        let before = [times(&file), times(&link)];
        fs::write(&file, "new").unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("new", &link).unwrap();
        for (path, times) in [file, link].iter().zip(&before) {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, path, times, flags).unwrap();
        }
    });
    let warning = diff.missed.clone().warning(<[u8]>::to_vec).unwrap();
    assert!(warning.contains(" of /d/f, /d/l: "), "{warning}");
    let (held, made) =
        cache::tree::apply::archived(&cache::store::StoreNodes(&*bench.store), &diff.id).unwrap();
    bench.store.put_nodes(&made.into_nodes()).unwrap();
    assert_eq!(load_root(&*bench.store, &held).unwrap().dir.summary.entries, 0);
    let look = |root: &Path| {
        assert_eq!(fs::read_to_string(root.join("d/f")).unwrap(), "new");
        assert_eq!(fs::read_link(root.join("d/l")).unwrap(), Path::new("new"));
    };
    let (nothing, _) = step(&bench, &stack, look);
    assert_eq!(nothing.summary.entries, 0);
    let damage = bench.cache.verify().unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    let other = LayerCache::open(&bench.temp.path().join("2"), bench.store.clone(), 0).unwrap();
    look(&path(&other.mount(&stack, Access::ReadOnly).unwrap()));
}

/// A layer can come to lie upon another tree than the one that it was made upon.
#[test]
fn names_whose_bytes_or_metadata_differ_are_not_one_file() {
    let bench = bench();
    let base = vec![f("old", "other")];
    let change = vec![
        Spec { mtime: 0, ..special("old", What::Relink("g")) },
        linked("new", b"1", "g"),
        linked("new-too", b"1", "g"),
        Spec { mode: 0o600, ..linked("closed", b"1", "g") },
    ];
    let stack = bench.stack(&[bench.layer(base.clone()), bench.layer(change)], base);
    let overlay = bench.cache.mount(&stack, Access::ReadOnly).unwrap();
    let lines = look(&path(&overlay));
    let linked: Vec<&String> = lines.iter().filter(|line| line.starts_with(LINKED)).collect();
    assert_eq!(linked, [&format!("{LINKED}new new-too")]);
    assert_eq!(fs::read(path(&overlay).join("old")).unwrap(), b"other");
    let damage = bench.cache.verify().unwrap();
    assert!(damage.is_empty(), "{damage:?}");
}

fn change_everything(root: &Path) {
    let p = |name: &str| root.join(name);
    fs::write(p("dir/new"), "new").unwrap();
    fs::remove_file(p("dir/a")).unwrap();
    fs::remove_dir_all(p("dir/sub")).unwrap();
    fs::remove_dir_all(p("opaque")).unwrap();
    fs::create_dir(p("opaque")).unwrap();
    fs::write(p("opaque/fresh"), "f").unwrap();
    fs::remove_dir_all(p("todir")).unwrap();
    fs::write(p("todir"), "file now").unwrap();
    fs::remove_file(p("tofile")).unwrap();
    fs::create_dir_all(p("tofile/deep/er")).unwrap();
    fs::create_dir(p("renamed")).unwrap();
    fs::rename(p("moved/m"), p("renamed/m")).unwrap();
    fs::remove_dir(p("moved")).unwrap();
    fs::set_permissions(p("mode"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(p("owner"), Some(1000), Some(2000)).unwrap();
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(p("attr"), "user.note", b"n", none).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(p("attr"), "security.capability", &capability, none).unwrap();
    fs::hard_link(p("dir/new"), p("renamed/new")).unwrap();
    fs::write(p("l1"), "changed").unwrap();
    fs::remove_file(p("sym")).unwrap();
    std::os::unix::fs::symlink("/nowhere", p("sym")).unwrap();
    for (name, kind, device) in [
        ("fifo", rustix::fs::FileType::Fifo, 0),
        ("socket", rustix::fs::FileType::Socket, 0),
        ("char", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(5, 1)),
        ("block", rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 300)),
    ] {
        let mode = rustix::fs::Mode::from_raw_mode(0o604);
        rustix::fs::mknodat(CWD, p(name), kind, mode, device).unwrap();
    }
    fs::write(p("big"), vec![b'x'; 600 << 10]).unwrap();
    fs::write(p("same/s"), "1").unwrap();
    let old = at::timestamps(proto::tree::Mtime { seconds: -5, nanos: 7 });
    rustix::fs::utimensat(CWD, p("renamed"), &old, rustix::fs::AtFlags::empty()).unwrap();
}

/// What a line about names that share an inode begins with.
const LINKED: &str = "linked: ";

/// Everything that can be seen of a tree: one line for each entry, and for names of one file.
fn look(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut links: std::collections::BTreeMap<u64, Vec<String>> = Default::default();
    let mut next = vec![PathBuf::new()];
    while let Some(path) = next.pop() {
        for entry in fs::read_dir(root.join(&path)).unwrap() {
            let name = path.join(entry.unwrap().file_name());
            let full = root.join(&name);
            let meta = full.symlink_metadata().unwrap();
            let dir = at::open_host_dir(full.parent().unwrap()).unwrap();
            let mut xattrs =
                at::all_xattrs(dir.as_fd(), name.file_name().unwrap().as_encoded_bytes()).unwrap();
            xattrs.sort();
            let content = match meta.file_type() {
                t if t.is_file() => blake3::hash(&fs::read(&full).unwrap()).to_string(),
                t if t.is_symlink() => fs::read_link(&full).unwrap().display().to_string(),
                _ => String::new(),
            };
            if meta.is_dir() {
                next.push(name.clone());
            } else {
                links.entry(meta.ino()).or_default().push(name.display().to_string());
            }
            lines.push(format!(
                "{} {:o} {}:{} {}.{} {:x} {xattrs:?} {content}",
                name.display(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.rdev()
            ));
        }
    }
    lines.sort();
    let mut groups: Vec<_> = links.into_values().filter(|group| group.len() > 1).collect();
    for group in &mut groups {
        group.sort();
    }
    groups.sort();
    lines.extend(groups.into_iter().map(|group| format!("{LINKED}{}", group.join(" "))));
    lines
}

#[test]
fn a_restart_finds_whole_layers_only() {
    let bench = bench();
    let id = bench.layer(vec![f("a", "1")]);
    let dir = bench.temp.path().join("layers");
    drop(bench.cache.mount(&bench.stack(&[id], vec![]), Access::ReadOnly).unwrap());
    let Bench { temp, store, cache } = bench;
    assert!(matches!(
        LayerCache::open(&dir, store.clone(), u64::MAX),
        Err(RootfsError::InUse { .. })
    ));
    drop(cache);
    fs::create_dir(dir.join("l/zzzz")).unwrap();
    fs::create_dir_all(dir.join("tmp/half/made")).unwrap();
    let cache = LayerCache::open(&dir, store.clone(), u64::MAX).unwrap();
    assert!(cache.has(&id));
    drop(cache);

    // After a start of the machine only what was synced is there.
    let link = dir.join("id").join(id.to_string());
    let reboot = || {
        let target = fs::read_link(&link).unwrap().display().to_string();
        let name = target.split(':').next().unwrap().to_owned();
        let synced = !target.contains(':');
        if !synced {
            fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(format!("{name}:before"), &link).unwrap();
        }
        let cache = LayerCache::open(&dir, store.clone(), u64::MAX).unwrap();
        (cache, synced)
    };
    let (cache, synced) = reboot();
    assert!(!synced && !cache.has(&id));
    let stack = Stack { diffs: vec![id], merged: scratch(&*store) };
    drop(cache.mount(&stack, Access::ReadOnly).unwrap());
    cache.sync().unwrap();
    drop(cache);
    let (cache, synced) = reboot();
    assert!(synced && cache.has(&id));
    drop((cache, temp));
}

#[test]
fn what_is_not_used_goes_first() {
    let bench = bench_with(30 << 10);
    let big = |name: &str| file(name, &[b'x'; 12 << 10], 0o644);
    let ids = ["a", "b", "c"].map(|name| bench.layer(vec![big(name)]));
    let stacks = ids.map(|id| bench.stack(&[id], vec![]));
    let held = bench.cache.mount(&stacks[0], Access::ReadOnly).unwrap();
    drop(bench.cache.mount(&stacks[1], Access::ReadOnly).unwrap());
    drop(bench.cache.mount(&stacks[2], Access::ReadOnly).unwrap());
    assert_eq!(ids.map(|id| bench.cache.has(&id)), [true, false, true]);
    assert!(bench.cache.bytes() <= 30 << 10);
    assert_eq!(fs::read_dir(path(&held)).unwrap().count(), 1);
    drop(held);
    drop(bench.cache.mount(&stacks[1], Access::ReadOnly).unwrap());
    assert_eq!(ids.map(|id| bench.cache.has(&id)), [false, true, true]);
}

#[test]
fn one_layer_can_be_there_twice() {
    let bench = bench();
    let a = bench.layer(vec![dir("d", 0o755, vec![f("a", "1")]), whiteout("w")]);
    let b = bench.layer(vec![dir("d", 0o711, vec![whiteout("a"), f("b", "1")]), f("w", "1")]);
    let empty = bench.layer(vec![]);
    let stack = bench.stack(&[empty, a, empty, b, a, empty, empty], vec![]);
    let overlay = bench.cache.mount(&stack, Access::Private).unwrap();
    let d = path(&overlay).join("d");
    assert_eq!(d.metadata().unwrap().mode() & 0o7777, 0o755);
    assert!(d.join("a").exists() && d.join("b").exists());
    assert_eq!(fs::read_dir(path(&overlay)).unwrap().count(), 1);
}

#[test]
fn one_layer_is_made_once() {
    let bench = bench();
    let files = (0..500).map(|i| f(&format!("f{i}"), &i.to_string())).collect();
    let stack = bench.stack(&[bench.layer(files)], vec![]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let overlay = bench.cache.mount(&stack, Access::ReadOnly).unwrap();
                assert_eq!(fs::read_dir(path(&overlay)).unwrap().count(), 500);
            });
        }
    });
    assert_eq!(fs::read_dir(bench.temp.path().join("layers/l")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let bench = bench();
    let id = bench.layer(vec![f("a", "1")]);
    let nothing = Arc::new(MemoryStore::new());
    let dir = bench.temp.path().join("other");
    let cache = LayerCache::open(&dir, nothing, u64::MAX).unwrap();
    for _ in 0..2 {
        assert!(cache.lowers(&[id]).is_err());
    }
    assert!(!cache.has(&id));
    assert_eq!(fs::read_dir(dir.join("l")).unwrap().count(), 0);
}

#[test]
fn damage_is_found_and_mended() {
    let spoil: [(&str, fn(&Path)); 9] = [
        ("content", |p| fs::write(p.join("d/a"), "2").unwrap()),
        ("mode", |p| fs::set_permissions(p.join("d/a"), PermissionsExt::from_mode(0o777)).unwrap()),
        ("owner", |p| std::os::unix::fs::chown(p.join("d"), Some(7), None).unwrap()),
        ("missing", |p| fs::remove_file(p.join("d/a")).unwrap()),
        ("more", |p| fs::write(p.join("d/more"), "").unwrap()),
        ("kind", |p| {
            fs::remove_file(p.join("d/a")).unwrap();
            fs::create_dir(p.join("d/a")).unwrap();
        }),
        ("target", |p| {
            fs::remove_file(p.join("s")).unwrap();
            std::os::unix::fs::symlink("y", p.join("s")).unwrap();
        }),
        ("links", |p| {
            fs::remove_file(p.join("l2")).unwrap();
            fs::copy(p.join("l1"), p.join("l2")).unwrap();
        }),
        ("all", |p| fs::remove_dir_all(p).unwrap()),
    ];
    for (what, spoil) in spoil {
        let bench = bench();
        let id = bench.layer(vec![
            dir("d", 0o755, vec![f("a", "1")]),
            symlink("s", "x"),
            linked("l1", b"1", "g"),
            linked("l2", b"1", "g"),
        ]);
        let stack = bench.stack(&[id], vec![]);
        drop(bench.cache.mount(&stack, Access::ReadOnly).unwrap());
        assert!(bench.cache.verify().unwrap().is_empty(), "{what}");
        let made = fs::read_dir(bench.temp.path().join("layers/l")).unwrap().next().unwrap();
        spoil(&made.unwrap().path());
        let damage = bench.cache.verify().unwrap();
        assert_eq!(damage.len(), 1, "{what}");
        assert_eq!(damage[0].layer, id);
        assert!(!bench.cache.has(&id));
        drop(bench.cache.mount(&stack, Access::ReadOnly).unwrap());
        assert!(bench.cache.verify().unwrap().is_empty(), "{what}");
    }
}

#[test]
fn a_directory_on_the_way_looks_as_below() {
    let bench = bench();
    let a = bench.layer(vec![dir("etc", 0o711, vec![f("a", "1")])]);
    let way = Spec { presence: Presence::Implicit, ..dir("etc", 0o755, vec![f("b", "1")]) };
    let b = bench.layer(vec![way]);
    let overlay = bench.cache.mount(&bench.stack(&[a, b], vec![]), Access::ReadOnly).unwrap();
    let etc = path(&overlay).join("etc");
    assert_eq!(etc.metadata().unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::read_dir(etc).unwrap().count(), 2);
}

/// An attribute of overlayfs's in an image must not lead its layer anywhere.
#[test]
fn the_kernels_own_attributes_are_not_taken_from_trees() {
    let bench = bench();
    let secret = bench.layer(vec![dir("secret", 0o700, vec![f("s", "1")])]);
    let redirect = ("trusted.overlay.redirect", b"/secret".to_vec());
    let evil = Spec { xattrs: vec![redirect], ..dir("evil", 0o755, vec![]) };
    let stack = bench.stack(&[secret, bench.layer(vec![evil])], vec![]);
    let overlay = bench.cache.mount(&stack, Access::ReadOnly).unwrap();
    assert_eq!(fs::read_dir(path(&overlay).join("evil")).unwrap().count(), 0);
}

#[test]
fn a_tree_as_deep_as_allowed() {
    let bench = bench();
    let mut spec = dir("d", 0o755, vec![]);
    for _ in 1..proto::limit::TREE_DEPTH_MAX {
        spec = dir("d", 0o755, vec![spec]);
    }
    let id = bench.layer(vec![spec]);
    drop(bench.cache.mount(&bench.stack(&[id], vec![]), Access::ReadOnly).unwrap());
    assert!(bench.cache.verify().unwrap().is_empty());
}

mod property {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Any entry, with few names, so that changes meet what is below.
    fn entry(depth: u32) -> BoxedStrategy<Spec> {
        let name = prop::sample::select(vec!["a", "b", "c", "d"]);
        let meta = (0u16..0o10000, 0u32..3, 0u32..3, 0i64..4, any::<bool>());
        let data = prop::collection::vec(0u8..3, 0..3);
        let node = prop_oneof![
            4 => data.clone().prop_map(What::File),
            2 => (prop::collection::vec(0u8..3, 0..2), prop::sample::select(vec!["g", "h"]))
                .prop_map(|(data, group)| What::Linked([group.as_bytes(), &data].concat(), group)),
            1 => prop::sample::select(vec!["x", "y"]).prop_map(What::Symlink),
            2 => prop::sample::select(vec![What::Symlink("x"), What::Fifo, What::Socket, What::Char(1, 3)])
                .prop_map(|what| What::Twin(Box::new(what), "n")),
            1 => (1u32..3, 0u32..3).prop_map(|(a, b)| What::Char(a, b)),
            1 => (0u32..3, 0u32..3).prop_map(|(a, b)| What::Block(a, b)),
            1 => Just(What::Fifo),
            1 => Just(What::Socket),
            2 => Just(What::Whiteout),
        ];
        let leaf = (name.clone(), meta.clone(), node).prop_map(|(name, meta, node)| {
            let whiteout = matches!(node, What::Whiteout);
            if whiteout { super::whiteout(name) } else { with(special(name, node), meta) }
        });
        if depth == 0 {
            return leaf.boxed();
        }
        let presence = prop::sample::select(vec![Presence::Merge, Presence::Opaque]);
        let below = prop::collection::vec(entry(depth - 1), 0..4);
        let dir = (name, meta, presence, below).prop_map(|(name, meta, presence, below)| Spec {
            presence,
            ..with(dir(name, 0, below), meta)
        });
        prop_oneof![2 => leaf, 3 => dir].boxed()
    }

    fn with(spec: Spec, (mode, uid, gid, mtime, xattr): (u16, u32, u32, i64, bool)) -> Spec {
        let kind = matches!(spec.what, What::Dir | What::File(_) | What::Linked(..));
        let xattrs = if xattr && kind { vec![("user.x", b"1".to_vec())] } else { Vec::new() };
        // The names of one file share its metadata.
        match spec.what {
            What::Linked(ref data, _) => Spec { mtime: data.len() as i64, ..spec },
            What::Symlink(_) => Spec { owner: (uid, gid), mtime, ..spec },
            What::Twin(..) => Spec { mode: 0o777, ..spec },
            _ => Spec { mode, owner: (uid, gid), mtime, xattrs, ..spec },
        }
    }

    /// Linked names must have one content: the first's.
    fn tidy(specs: &mut [Spec], first: &mut std::collections::BTreeMap<&'static str, Vec<u8>>) {
        for spec in specs {
            if let What::Linked(data, group) = &mut spec.what {
                *data = first.entry(group).or_insert_with(|| data.clone()).clone();
                spec.mtime = data.len() as i64;
            }
            if let What::Symlink(_) = spec.what {
                spec.mode = 0o777;
            }
            tidy(&mut spec.children, first);
        }
    }

    fn tree() -> impl Strategy<Value = Vec<Spec>> {
        prop::collection::vec(entry(2), 0..5).prop_map(|mut specs| {
            tidy(&mut specs, &mut Default::default());
            specs
        })
    }

    /// What is visible of a tree: without whiteouts.
    fn visible(specs: &[Spec]) -> Vec<Spec> {
        let seen = specs.iter().filter(|s| !matches!(s.what, What::Whiteout)).map(|s| Spec {
            children: visible(&s.children),
            presence: Presence::Merge,
            ..s.clone()
        });
        seen.collect()
    }

    /// Of several entries with one name, the last, as a directory has it.
    fn last(specs: &[Spec]) -> Vec<Spec> {
        let by_name = specs.iter().map(|s| (&s.name, s)).collect::<BTreeMap<_, _>>().into_values();
        by_name.map(|s| Spec { children: last(&s.children), ..s.clone() }).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Any upper directory, upon anything: its diff makes the same tree, and the directory as
        /// it is after the capture is the diff's own.
        #[test]
        fn a_diff_makes_what_the_step_left(base in tree(), change in tree()) {
            let bench = bench();
            let base = last(&visible(&base));
            let change = last(&change);
            let stack = bench.stack(&[bench.layer(base.clone())], base.clone());
            let raw = bench.layer(change.clone());
            let both = |top: RootId| Stack { diffs: vec![stack.diffs[0], top], ..stack.clone() };
            let seen = |cache: &LayerCache, stack: &Stack| {
                look(&path(&cache.mount(stack, Access::ReadOnly).unwrap()))
            };
            let want = seen(&bench.cache, &both(raw));

            let upper = bench.cache.mount(&stack, Access::Private).unwrap().into_upper();
            crate::rootfs::materialize::materialize(&*bench.store, &raw, &upper.path()).unwrap();
            let diff = upper.capture(&*bench.store, WrittenAs::StepRoot).unwrap();
            let again = upper.capture(&*bench.store, WrittenAs::StepRoot).unwrap();
            prop_assert_eq!(&again, &diff);
            bench.cache.adopt(upper, &diff.id).unwrap();
            prop_assert_eq!(seen(&bench.cache, &both(diff.id)), want.clone());
            let damage = bench.cache.verify().unwrap();
            prop_assert!(damage.is_empty(), "{:?}", damage);

            let fresh = bench.temp.path().join("fresh");
            let fresh = LayerCache::open(&fresh, bench.store.clone(), u64::MAX).unwrap();
            prop_assert_eq!(seen(&fresh, &both(diff.id)), want);
        }
    }
}
