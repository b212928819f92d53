//! Damage on the disk is found, told of and mended, whatever file it is in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tests::scratch::Scratch;
use tests::site::Site;

/// A farm, stopped, whose store has files of every kind.
fn filled() -> Site {
    let site = Site::of(
        "FROM conf/busybox:1\nCOPY . /given\nRUN head -c 3000000 /given/large > /large && echo a > /small\n",
    );
    site.write(
        "large",
        (0..1_000_000u32).flat_map(|n| n.wrapping_mul(7919).to_le_bytes()).collect::<Vec<_>>(),
    );
    (0..300).for_each(|n| drop(site.write(&format!("small/{n}"), format!("file {n}\n"))));
    site.build(&["-t", "app"]).ok();
    site.slipway.run(&["save", "-o", "/dev/null", "app"]).ok();
    site.slipway.stop();
    site
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut next = vec![directory.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            let kind = entry.file_type().expect("an entry");
            if kind.is_dir() {
                next.push(entry.path());
            } else if kind.is_file() && entry.metadata().expect("a file").len() > 0 {
                all.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

/// What kind of file of the store it is: its directory and the shape of its name.
fn kind(store: &Path, file: &Path) -> String {
    let path = file.strip_prefix(store).expect("below the store").to_string_lossy().into_owned();
    let top = path.split('/').next().unwrap_or_default();
    let name = file.file_name().expect("a file").to_string_lossy();
    let shape = match top {
        "blobs" => "",
        _ => name.trim_matches(|c: char| c.is_ascii_digit() || c == '-'),
    };
    format!("{top}/{shape}")
}

fn flip(file: &Path) {
    let open = fs::OpenOptions::new().read(true).write(true).open(file).expect("a file");
    let at = open.metadata().expect("a file").len() / 2;
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).expect("a byte");
    open.write_all_at(&[byte[0] ^ 0x10], at).expect("writing");
}

fn copy(from: &Path, to: &Path) {
    let status = tests::command::run(
        tests::command::command(tests::tool::tool("cp")).arg("-a").arg(from).arg(to),
    );
    status.ok();
}

/// Files whose content nothing depends on: the lock's, RocksDB's own log, its copy of the options,
/// and a number that it gives each database.
const OF_NO_MATTER: [&str; 5] =
    ["index/LOG", "index/OPTIONS", "index/LOG.old.", "index/IDENTITY", "lock/lock"];

#[test]
fn damage_in_every_kind_of_file_is_found() {
    let site = filled();
    let store = site.slipway.home().join("store");
    let mut kinds: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files(&store) {
        kinds.insert(kind(&store, &file), file);
    }
    kinds.retain(|kind, _| !OF_NO_MATTER.contains(&kind.trim_end_matches('-')));
    for wanted in ["segments/.seg", "blobs/", "index/MANIFEST", "index/CURRENT"] {
        assert!(kinds.contains_key(wanted), "{wanted} among {:?}", kinds.keys());
    }
    let intact = Scratch::new("intact");
    copy(&store, &intact.join("store"));
    for (kind, file) in &kinds {
        // Each time from the same files: RocksDB has others each time that it is opened.
        tests::scratch::remove(&store);
        copy(&intact.join("store"), &store);
        println!("a flipped bit in {kind}: {}", file.display());
        flip(file);
        let verified = site.slipway.run(&["cache", "verify"]).fails(1);
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let named =
            [name.as_str(), "index", "store"].iter().any(|text| verified.all().contains(text));
        assert!(named, "{kind}: it says where\n{verified}");
        verified.never_says("panicked").never_says("nothing is damaged");
        if !kind.starts_with("index/") && !kind.starts_with("format") {
            site.slipway.run(&["cache", "verify", "--repair"]).ok();
            site.slipway.assert_store_intact();
            site.build(&["-t", "app"]).ok();
            site.run("app", &["cat", "/small"]).ok().says("a");
        }
        site.slipway.stop();
    }
}

#[test]
fn lost_and_stray_files_are_found() {
    let site = filled();
    let store = site.slipway.home().join("store");
    let large = files(&store.join("blobs")).into_iter().next().expect("a large blob");
    fs::remove_file(&large).expect("removing");
    let name = large.file_name().expect("a file").to_string_lossy().into_owned();
    site.slipway.run(&["cache", "verify"]).fails(1).says(&name);
    site.slipway.run(&["cache", "verify", "--repair"]).ok();
    site.slipway.assert_store_intact();
    fs::write(store.join("segments/notes.txt"), "mine").expect("writing");
    site.slipway.run(&["cache", "verify"]).fails(1).says("notes.txt");
    site.slipway.run(&["cache", "verify", "--repair"]).ok();
    site.slipway.assert_store_intact();
    site.build(&["-t", "app"]).ok();
}

#[test]
fn a_layer_on_disk_that_is_damaged_is_found_and_made_again() {
    let site = filled();
    let layers = site.slipway.home().join("worker");
    let name = |file: &PathBuf| file.ends_with("given/large") || file.ends_with("large");
    let damaged: Vec<_> = files(&layers).into_iter().filter(name).collect();
    assert!(!damaged.is_empty(), "the layer of COPY lies below {}", layers.display());
    damaged.iter().for_each(|file| flip(file));
    site.slipway.run(&["cache", "verify"]).fails(1).says("layer");
    site.slipway.run(&["cache", "verify", "--repair"]).ok();
    site.slipway.assert_store_intact();
    site.dockerfile("FROM conf/busybox:1\nCOPY . /given\nRUN sha256sum < /given/large\n");
    let expected = tests::tree::sha256(fs::File::open(site.context.join("large")).expect("a file"));
    site.build(&[]).ok().says(&expected);
}
