//! What is read as an archive for ADD.

use super::*;

fn archive(bytes: &[u8]) -> Result<Vec<String>, String> {
    let store = MemoryStore::new();
    let done = unpack(&store, "It", bytes, Reading::Archive).map_err(|e| e.to_string())?;
    Ok(list(&store, &done.root))
}

fn parts(tar: Tar) -> Vec<String> {
    archive(&tar.end()).unwrap()
}

fn fails(tar: Tar) -> String {
    archive(&tar.end()).unwrap_err()
}

/// An archive of one entry, with this type flag.
fn of_kind(flag: u8) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("a").unwrap();
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    [&header.as_bytes()[..], &END].concat()
}

#[test]
fn an_archive_of_one_part() {
    let tar =
        Tar::default().dir("./").dir("d/").file("d/a", "1").link("d/b", Kind::HardLink, "d/a");
    let tar = tar.file("n/x", "x").file("n/x", "y").link("n/l", Kind::Symlink, "/d").dir("d/");
    let lines = [
        "/d/ Merge",
        "/d/a = 1 (linked)",
        "/d/b = 1 (linked)",
        "/n/ Implicit",
        "/n/l -> /d",
        "/n/x = y",
    ];
    assert_eq!(parts(tar), lines);
    let store = MemoryStore::new();
    let bytes = Tar::default().dir("./").link("l", Kind::Symlink, "x").end();
    let done = unpack(&store, "It", &bytes[..], Reading::Archive).unwrap();
    assert_eq!(root(&store, &done.root).presence, Presence::Implicit, "`./` is not taken over");
    assert_eq!(meta_of(&store, &done.root, "l").mode, 0o777);
    let tar = Tar::default().file("a/b/x", "").dir("a/b").file("a/y", "").dir("a");
    assert_eq!(parts(tar), ["/a/ Opaque", "/a/b/ Opaque", "/a/b/x = ", "/a/y = "]);
}

#[test]
fn what_depends_on_an_earlier_entry_is_another_part() {
    let below_link = Tar::default().link("l", Kind::Symlink, "/etc").file("l/a", "");
    let lines = ["/0000000000/ Implicit", "/0000000000/l -> /etc", "/0000000001/ Implicit"];
    let found = parts(below_link.file("l/b", ""));
    assert_eq!(found[..3], lines);
    assert_eq!(found[3..], ["/0000000001/l/ Implicit", "/0000000001/l/a = ", "/0000000001/l/b = "]);
    let is_part = |line: &&String| line.starts_with("/000000000") && line.find("/ ") == Some(11);
    let count = |tar: Tar| parts(tar).iter().filter(is_part).count();
    let one = || Tar::default();
    assert_eq!(count(one().file("a", "").file("a/b", "")), 2, "below a file");
    assert_eq!(count(one().file("e", "").dir("e/").file("e/y", "")), 2, "for a file");
    assert_eq!(count(one().dir("d/").file("d/x", "").file("d", "")), 2, "for a directory");
    assert_eq!(count(one().file("d/x", "").dir("d/").file("d/y", "")), 2, "a late directory");
    assert_eq!(count(one().file("d/x", "").dir("d/").dir("d/")), 0, "one that is said twice");
    let h = Kind::HardLink;
    let link = one().file("z", "").link("d/c", h, "./old/../a").file("a", "");
    let lines = [
        "/0000000000/ Implicit",
        "/0000000000/z = ",
        "/0000000001/ Opaque",
        "/0000000001/d/ Implicit",
        "/0000000001/d/c -> ./old/../a",
        "/0000000002/ Implicit",
        "/0000000002/a = ",
    ];
    assert_eq!(parts(link), lines);
    assert_eq!(parts(one().link("c", h, "a")).len(), 2, "a link alone");
}

#[test]
fn the_last_hard_link_describes_the_file() {
    let head = |path: &str, kind, mode, uid, link: &str| Head {
        mode,
        uid,
        link: link.into(),
        ..Tar::head(path, kind)
    };
    let tar = Tar::default().put(head("f", Kind::Fifo, 0o644, 1, ""), b"");
    let tar = tar.put(head("g", Kind::HardLink, 0o600, 9, "f"), b"");
    let tar = tar.put(head("s", Kind::Symlink, 0o644, 1, "x"), b"");
    let bytes = tar.put(head("t", Kind::HardLink, 0o600, 9, "s"), b"").end();
    let store = MemoryStore::new();
    let done = unpack(&store, "It", &bytes[..], Reading::Archive).unwrap();
    let meta = |name| meta_of(&store, &done.root, name);
    assert_eq!((meta("f").mode, meta("f").uid), (0o600, 9));
    assert_eq!((meta("s").mode, meta("s").uid), (0o777, 9), "a symlink has no mode");
    assert!(meta("f") == meta("g") && meta("s") == meta("t"));
}

#[test]
fn names_lead_back_but_never_out() {
    let tar = Tar::default().file("a/../b", "b").file("../../c", "c").file("", "").file(".", "");
    assert_eq!(parts(tar.file("x/..", "")), ["/b = b", "/c = c"]);
    for base in ["/", "..", "a/../.."] {
        let store = MemoryStore::new();
        let bytes = Tar::default().dir(base).end();
        let done = unpack(&store, "It", &bytes[..], Reading::Archive).unwrap();
        assert_eq!(root(&store, &done.root).presence, Presence::Merge, "{base}");
        let file = fails(Tar::default().file(base, ""));
        assert!(file.contains("it stands for the destination"), "{file}");
    }
    let h = Kind::HardLink;
    let itself = fails(Tar::default().file("a", "").link("a", h, "./a"));
    assert!(itself.contains("`a` is a hard link to `./a`, which it takes the place of"));
    assert!(fails(Tar::default().link("a", h, "..")).contains("is a directory"));
    let long = "x/".repeat(3000);
    assert!(fails(Tar::default().link("a", h, &long)).contains("directories"));
    let long = "./".repeat(3000) + "x";
    assert!(fails(Tar::default().link("a", h, &long)).contains("longer than a path can be"));
}

#[test]
fn entries_of_unknown_kind_are_told() {
    for flag in *b"7VZ" {
        let bytes = of_kind(flag);
        assert!(is_archive(&bytes[..]).unwrap(), "BuildKit tries to unpack it");
        let error = archive(&bytes).unwrap_err();
        assert!(error.contains("the entry at byte 0 is of the unknown kind"), "{error}");
        layer(&MemoryStore::new(), &bytes).unwrap_err();
    }
}

#[test]
fn what_stands_behind_the_end_does_not_matter() {
    let tar = Tar::default().file("a", "b").end();
    let packed = gzip(&tar);
    let short = gzip(&tar[..1024]);
    for junk in [&[0; 600][..], b"text", &[0x1f, 0x8b, 8, 0]] {
        let bytes = [&packed, junk].concat();
        assert_eq!(archive(&bytes).unwrap(), ["/a = b"]);
        let error = layer(&MemoryStore::new(), &bytes).unwrap_err().to_string();
        assert!(error.contains("gzip data is broken"), "a layer is all of its bytes: {error}");
    }
    assert_eq!(archive(&packed[..packed.len() - 5]).unwrap(), ["/a = b"], "half a trailer");
    let mut wrong = packed.clone();
    let at = wrong.len() - 8;
    wrong[at] ^= 1;
    assert_eq!(archive(&wrong).unwrap(), ["/a = b"], "another checksum");
    let bytes = [&tar[..], b"text"].concat();
    assert_eq!(archive(&bytes).unwrap(), ["/a = b"]);
    // Without an end of its own the archive goes to the end of the stream, which must be whole.
    archive(&short[..short.len() - 5]).unwrap_err();
    assert_eq!(archive(&short).unwrap(), ["/a = b"]);
    let lone = [&tar[..1024], &[0; 512], &[b'x'; 512]].concat();
    assert!(archive(&lone).unwrap_err().contains("no tar header at byte 1536"));
}
