use super::*;
use crate::image::sha::sha256;
use crate::image::tape::{END, encode, padding};
use cache::store::memory::MemoryStore;
use proptest::prelude::*;
use proto::path::FileName;
use proto::tree::{AnyNode, DirRef, Entry, Mtime, Node, Presence, Root};

mod archive;

/// Writes archives by hand.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn head(path: &str, kind: Kind) -> Head {
        Head {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: Mtime { seconds: 7, nanos: 0 },
            link: Vec::new(),
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn put(mut self, head: Head, content: &[u8]) -> Self {
        self.0.extend(encode(&Head { size: content.len() as u64, ..head }));
        self.0.extend(content);
        self.0.extend(&END[..padding(content.len() as u64)]);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.put(Self::head(path, Kind::File), content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.put(Self::head(path, Kind::Dir), b"")
    }

    fn link(self, path: &str, kind: Kind, to: &str) -> Self {
        self.put(Head { link: to.into(), ..Self::head(path, kind) }, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend(END);
        self.0
    }
}

fn layer(store: &MemoryStore, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
    unpack(store, "The layer", bytes, Reading::Layer { diff_id: None, lower: None })
}

fn root(store: &MemoryStore, id: &RootId) -> Root {
    match &*store.node(&id.0).unwrap() {
        AnyNode::Root(root) => root.clone(),
        AnyNode::Dir(_) => panic!("no root"),
    }
}

/// One line for each entry, as `find` would print them.
fn list(store: &MemoryStore, id: &RootId) -> Vec<String> {
    fn walk(store: &MemoryStore, dir: &DirRef, path: &str, out: &mut Vec<String>) {
        let AnyNode::Dir(node) = &*store.node(&dir.tree).unwrap() else { panic!("no directory") };
        for entry in node.entries() {
            let path = format!("{path}/{}", entry.name);
            out.push(match &entry.node {
                Node::File { blob, link, .. } => {
                    let text = String::from_utf8_lossy(&store.read(blob).unwrap()).into_owned();
                    format!("{path} = {text}{}", if link.is_some() { " (linked)" } else { "" })
                }
                Node::Dir(dir, presence) => {
                    out.push(format!("{path}/ {presence:?}"));
                    walk(store, dir, &path, out);
                    continue;
                }
                node => {
                    let linked = if node.link().is_some() { " (linked)" } else { "" };
                    match node.symlink() {
                        Some(to) => format!("{path} -> {}{linked}", String::from_utf8_lossy(to)),
                        None => format!("{path} {:?}{linked}", node.clone().with_link(None)),
                    }
                }
            });
        }
    }
    let mut out = Vec::new();
    walk(store, &root(store, id).dir, "", &mut out);
    out
}

fn meta_of(store: &MemoryStore, id: &RootId, name: &str) -> Meta {
    let AnyNode::Dir(dir) = &*store.node(&root(store, id).dir.tree).unwrap() else {
        panic!("no directory")
    };
    dir.get(name.as_bytes()).unwrap().meta.clone()
}

fn unpacked(tar: Tar) -> Vec<String> {
    let store = MemoryStore::new();
    let done = layer(&store, &tar.end()).unwrap();
    list(&store, &done.root)
}

fn refused(tar: Tar) -> String {
    layer(&MemoryStore::new(), &tar.end()).unwrap_err().to_string()
}

#[test]
fn a_plain_layer() {
    let tar = Tar::default().dir("./").dir("etc/").file("./etc/hosts", "x").file("/bin/sh", "y");
    let (store, bytes) = (MemoryStore::new(), tar.end());
    let done = layer(&store, &bytes).unwrap();
    let lines = ["/bin/ Implicit", "/bin/sh = y", "/etc/ Merge", "/etc/hosts = x"];
    assert_eq!(list(&store, &done.root), lines);
    assert_eq!((done.diff_id, done.entries, done.depends), (sha256(&bytes), 4, false));
    assert_eq!(root(&store, &done.root).presence, Presence::Merge);
    let without = layer(&store, &Tar::default().file("a", "").end()).unwrap();
    assert_eq!(root(&store, &without.root).presence, Presence::Implicit);
}

#[test]
fn whiteouts() {
    let tar = Tar::default().file("a/.wh.gone", "").file("b/.wh..wh..opq", "").dir("b/");
    let tar = tar.file("b/new", "n").file(".wh..wh.plnk", "").dir("c/").file(".wh.c", "");
    let tar = tar.file("d", "d").file(".wh.d", "");
    let lines =
        ["/a/ Implicit", "/a/gone Whiteout", "/b/ Opaque", "/b/new = n", "/c/ Opaque", "/d = d"];
    assert_eq!(unpacked(tar), lines);
    let store = MemoryStore::new();
    let bytes = Tar::default().file(".wh.x", "w").end();
    let done = unpack(&store, "x", &bytes[..], Reading::Archive).unwrap();
    assert_eq!(list(&store, &done.root), ["/.wh.x = w"], "an archive has no whiteouts");
}

#[test]
fn of_two_entries_the_later_counts() {
    let tar = Tar::default().file("a", "1").file("a", "2").dir("d/").file("d/x", "").file("d", "f");
    let tar = tar.file("e", "f").dir("e/").file("e/y", "").dir("k/").file("k/z", "").dir("k/");
    let lines = ["/a = 2", "/d = f", "/e/ Merge", "/e/y = ", "/k/ Merge", "/k/z = "];
    assert_eq!(unpacked(tar), lines);
}

#[test]
fn hard_links() {
    let h = Kind::HardLink;
    let tar = Tar::default().file("a", "1").link("b", h, "/a").link("d/c", h, "./b");
    assert_eq!(
        unpacked(tar),
        ["/a = 1 (linked)", "/b = 1 (linked)", "/d/ Implicit", "/d/c = 1 (linked)"]
    );
    let tar = Tar::default().file("a", "1").link("b", h, "a").file("a", "2").link("x", h, "x2");
    assert!(refused(tar).contains("links to `x2` of the layers below"));
    let tar = Tar::default().file("a", "1").link("b", h, "a").file("a", "2");
    assert_eq!(unpacked(tar), ["/a = 2", "/b = 1"], "one name alone is no group");
    let tar = Tar::default().link("s", Kind::Symlink, "t").link("u", h, "s");
    let tar = tar.put(Tar::head("p", Kind::Fifo), b"").link("q", h, "p");
    let all = ["/p Fifo (linked)", "/q Fifo (linked)", "/s -> t (linked)", "/u -> t (linked)"];
    assert_eq!(unpacked(tar), all);
    let described = |path: &str, kind, mode, uid, link: &str| Head {
        mode,
        uid,
        link: link.into(),
        ..Tar::head(path, kind)
    };
    let tar = Tar::default().put(described("f", Kind::File, 0o4755, 7, ""), b"");
    let tar = tar.put(described("g", h, 0o640, 8, "f"), b"");
    let bytes = tar.put(described("h", h, 0o600, 9, "g"), b"").end();
    let store = MemoryStore::new();
    let done = layer(&store, &bytes).unwrap();
    let metas = ["f", "g", "h"].map(|name| meta_of(&store, &done.root, name));
    assert_eq!((metas[0].mode, metas[0].uid), (0o600, 9), "the last entry describes the file");
    assert!(metas[1] == metas[0] && metas[2] == metas[0]);
    let tar = Tar::default().dir("d/").link("x", h, "d");
    assert!(refused(tar).contains("`x` is a hard link to `d`, which is a directory"));
    let tar = Tar::default().link("x", h, "../../etc/shadow");
    assert!(refused(tar).contains("it holds `..`"));
}

#[test]
fn a_hard_link_to_a_layer_below() {
    struct Below(Entry);
    impl Lower for Below {
        fn find(&self, path: &[FileName]) -> Result<Option<Entry>, StoreError> {
            let names: Vec<_> = path.iter().map(ToString::to_string).collect();
            Ok((names == ["lib", "a"]).then(|| self.0.clone()))
        }
    }
    let store = MemoryStore::new();
    let blob = BlobId::of(b"low");
    store.put_blobs(&[(blob, "low".into())]).unwrap();
    let meta = Meta::root_owned(0o600, Mtime::default());
    let name = FileName::new(b"a").unwrap();
    let lower = Below(Entry { name, meta, node: Node::File { blob, size: 3, link: None } });
    let reading = Reading::Layer { diff_id: None, lower: Some(&lower) };
    let bytes = Tar::default().link("b", Kind::HardLink, "lib/a").end();
    let done = unpack(&store, "x", &bytes[..], reading).unwrap();
    assert!(done.depends);
    let lines = ["/b = low (linked)", "/lib/ Implicit", "/lib/a = low (linked)"];
    assert_eq!(list(&store, &done.root), lines);
    let bytes = Tar::default().link("b", Kind::HardLink, "lib/none").end();
    let error = unpack(&store, "x", &bytes[..], reading).unwrap_err();
    assert!(error.to_string().contains("neither in the layer nor in the ones below"));
}

#[test]
fn names_stay_inside() {
    let tar = Tar::default().link("link", Kind::Symlink, "/../../etc").file("link/in", "x");
    assert_eq!(unpacked(tar), ["/etc/ Implicit", "/etc/in = x", "/link -> /../../etc"]);
    let tar = Tar::default().dir("a/").link("a/up", Kind::Symlink, "../b").file("a/up/f", "x");
    assert_eq!(unpacked(tar), ["/a/ Merge", "/a/up -> ../b", "/b/ Implicit", "/b/f = x"]);
    assert!(refused(Tar::default().file("../x", "")).contains("`../x` is refused: it holds `..`"));
    assert!(refused(Tar::default().file("a", "").file("a/b", "")).contains("`a/b` lies below"));
    let tar = Tar::default().link("a", Kind::Symlink, "b").link("b", Kind::Symlink, "a");
    assert!(refused(tar.file("a/x", "")).contains("symbolic links"));
    assert!(refused(Tar::default().file(".", "")).contains("refused"));
    let deep = "d/".repeat(2100);
    assert!(refused(Tar::default().dir(&deep)).contains("more than 2048 directories"));
    let long = "n".repeat(256);
    assert!(refused(Tar::default().file(&long, "")).contains("longer than 255"));
    let empty = Tar::default().link("s", Kind::Symlink, "");
    assert!(refused(empty).contains("no symbolic link"));
}

#[test]
fn attributes_of_hosts_are_left_out() {
    let pair = |k: &str, v: &[u8]| (k.as_bytes().to_vec(), v.to_vec());
    let xattrs = vec![
        pair("trusted.overlay.opaque", b"y"),
        pair("user.x", b"a\n\0b"),
        pair("security.capability", &[1, 0, 0, 2]),
        pair("security.selinux", b"x"),
    ];
    let head = Head { xattrs, ..Tar::head("f", Kind::File) };
    let store = MemoryStore::new();
    let done = layer(&store, &Tar::default().put(head, b"").end()).unwrap();
    let AnyNode::Dir(dir) = &*store.node(&root(&store, &done.root).dir.tree).unwrap() else {
        panic!()
    };
    let found: Vec<_> = dir.get(b"f").unwrap().meta.xattrs.iter().collect();
    assert_eq!(found, [(&b"security.capability"[..], &[1u8, 0, 0, 2][..]), (b"user.x", b"a\n\0b")]);
    let xattrs = vec![pair("user.big", &vec![0; 70_000])];
    let head = Head { xattrs, ..Tar::head("f", Kind::File) };
    assert!(refused(Tar::default().put(head, b"")).contains("extended attributes"));
}

#[test]
fn large_files_are_streamed_and_the_diff_id_is_compared() {
    let store = MemoryStore::new();
    let content = "0123456789abcdef".repeat(100_000);
    let bytes = Tar::default().file("big", &content).end();
    let reading = |diff_id| Reading::Layer { diff_id: Some(diff_id), lower: None };
    let done = unpack(&store, "x", &bytes[..], reading(sha256(&bytes))).unwrap();
    assert_eq!(list(&store, &done.root), [format!("/big = {content}")]);
    let error = unpack(&store, "Layer 7", &bytes[..], reading(sha256(b"other"))).unwrap_err();
    assert!(matches!(error, UnpackError::DiffId { .. }));
    assert!(error.to_string().starts_with("Layer 7 unpacks to sha256:"));
}

#[test]
fn what_is_broken_is_said() {
    let store = MemoryStore::new();
    let say = |bytes: &[u8]| layer(&store, bytes).unwrap_err().to_string();
    let whole = Tar::default().file("f", &"x".repeat(5000)).end();
    assert!(say(&whole[..700]).contains("ends in the middle of a file"));
    assert!(say(&whole[..300]).contains("ends in the middle of a header"));
    assert!(say(&[b'x'; 600]).contains("no tar header at byte 0"));
    let gzip = gzip(&whole);
    assert!(say(&gzip[..gzip.len() - 5]).contains("gzip data is broken"), "{}", say(&gzip[..50]));
    let mut damaged = gzip.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    layer(&store, &damaged).unwrap_err();
    assert_eq!(layer(&store, &gzip).unwrap().diff_id, sha256(&whole));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the cable is out"))
        }
    }
    let error = unpack(&store, "It", Broken, Reading::Archive).unwrap_err().to_string();
    assert_eq!(error, "It cannot be unpacked: it cannot be read: the cable is out");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::Write::write_all(&mut out, bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn a_bomb_is_stopped() {
    // 3 GiB of zeros in something that is passed over, in zstd frames of 64 MiB.
    let mut frame = Vec::with_capacity(1 << 20);
    zstd_safe::compress(&mut frame, &vec![0u8; 64 << 20], 3).unwrap();
    let bomb = [passed_over(3 << 30), frame.repeat(48)].concat();
    let error = layer(&MemoryStore::new(), &bomb).unwrap_err();
    assert!(error.to_string().contains("looks like a bomb"), "{error}");
    let hole = sparse_hole(1 << 50);
    let error = layer(&MemoryStore::new(), &hole).unwrap_err();
    assert!(error.to_string().contains("looks like a bomb"), "{error}");
}

/// A zstd frame with the header of global records of this size.
fn passed_over(size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(size);
    header.set_cksum();
    let mut out = Vec::with_capacity(4096);
    zstd_safe::compress(&mut out, header.as_bytes(), 3).unwrap();
    out
}

fn sparse_hole(size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("hole").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize = [0; 12];
    gnu.realsize[0] = 0x80;
    gnu.realsize[4..].copy_from_slice(&size.to_be_bytes());
    header.set_cksum();
    [&header.as_bytes()[..], &END].concat()
}

#[test]
fn small_holes_are_zeros() {
    let store = MemoryStore::new();
    let done = layer(&store, &sparse_hole(10)).unwrap();
    assert_eq!(list(&store, &done.root), [format!("/hole = {}", "\0".repeat(10))]);
}

#[test]
fn the_newest_file_of_an_archive_counts() {
    let dated = |path: &str, kind, seconds| Head {
        mtime: Mtime { seconds, nanos: 5 },
        ..Tar::head(path, kind)
    };
    let files = || Tar::default().file("a", "x").put(dated("b", Kind::File, 9), b"content");
    let tar = files().file("c", "").put(dated("d", Kind::Dir, 11), b"").end();
    let newest = |archive: &[u8]| newest_file(archive).expect("bytes that can be read");
    assert_eq!(newest(&tar), Some(9));
    assert_eq!(newest(&gzip(&tar)), Some(9));
    assert_eq!(newest(&Tar::default().dir("d").end()), None, "no file");
    assert_eq!(newest(b"no archive"), None);
    assert_eq!(newest(&[&files().0[..], b"garbage"].concat()), None, "it breaks off");
    assert_eq!(newest(&gzip(&tar)[..20]), None, "it breaks off");
}

#[test]
fn an_archive_that_cannot_be_read_is_an_error_and_nothing_else() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is broken"))
        }
    }
    let tar = Tar::default().file("a", "x").end();
    let packed = gzip(&tar);
    for start in [&tar[..0], &tar[..100], &tar[..1024], &packed[..20]] {
        let error = newest_file(start.chain(Broken)).expect_err("what cannot be read");
        assert_eq!(error.to_string(), "the disk is broken", "after {} bytes", start.len());
    }
    for start in [&tar[..0], &tar[..100], &packed[..20]] {
        let error = is_archive(start.chain(Broken)).expect_err("what cannot be read");
        assert_eq!(error.to_string(), "the disk is broken", "after {} bytes", start.len());
    }
    assert!(is_archive(tar[..512].chain(Broken)).unwrap(), "the first entry says it");
}

#[test]
fn archives_are_known_by_content() {
    let tar = Tar::default().file("a", "b").end();
    assert!(is_archive(&tar[..]).unwrap() && is_archive(&gzip(&tar)[..]).unwrap());
    for other in [&b""[..], b"#!/bin/sh\n", &gzip(b"text"), &END, &tar[..100]] {
        assert!(!is_archive(other).unwrap());
    }
    let store = MemoryStore::new();
    let (archive, text) = (BlobId::of(&tar), BlobId::of(b"text"));
    store.put_blobs(&[(archive, tar.into()), (text, "text".into())]).unwrap();
    assert_eq!(unpack_blob(&store, &text).unwrap(), None);
    let root = unpack_blob(&store, &archive).unwrap().unwrap();
    assert_eq!(list(&store, &root), ["/a = b"]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = layer(&MemoryStore::new(), &bytes);
        for magic in [&[0x1f, 0x8b, 8][..], &[0x28, 0xb5, 0x2f, 0xfd], b"BZh9", b"\xfd7zXZ\0"] {
            let _ = layer(&MemoryStore::new(), &[magic, &bytes].concat());
        }
    }

    #[test]
    fn damaged_layers_never_panic(at in any::<usize>(), flip in 1u8.., cut in any::<usize>()) {
        let tar = Tar::default().dir("d/").file("d/f", "content").link("l", Kind::HardLink, "d/f");
        let mut bytes = tar.link("s", Kind::Symlink, "d").file("s/.wh.x", "").end();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        bytes.truncate(cut % (bytes.len() + 1));
        let store = MemoryStore::new();
        if let Ok(done) = layer(&store, &bytes) {
            list(&store, &done.root);
        }
    }

    #[test]
    fn names_never_lead_out(path in "[a./\\PC]{0,12}") {
        let store = MemoryStore::new();
        let tar = Tar::default().link("a", Kind::Symlink, "../../..").file(&path, "");
        if let Ok(done) = layer(&store, &tar.end()) {
            for line in list(&store, &done.root) {
                let name = line.split(" -> ").next().unwrap();
                prop_assert!(name.split('/').all(|part| part != ".."), "{line}");
            }
        }
    }
}
