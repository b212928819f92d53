//! Archives that lead out, that are broken, and that are bombs: as contexts, as sources of ADD, as
//! layers, as images to load.

use super::Refusal;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use tests::command::{DEADLINE, command, run_with};
use tests::faulty::{Fault, FaultyRegistry};
use tests::layout::{LayerFile, write_layout};
use tests::scratch::Scratch;
use tests::tool::tool;
use tests::tree::sha256;

/// An archive of one entry whose name and link are as given, however wrong (the format: POSIX.1,
/// pax, "ustar Interchange Format").
fn archive(name: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

/// Archives that must not be unpacked, and what is said of each.
fn leading_out() -> Vec<(Vec<u8>, &'static str)> {
    use tar::EntryType::{Link, Regular};
    vec![
        (archive("../out", Regular, "", b"x"), "../out"),
        (archive("a/../../out", Regular, "", b"x"), "a/../../out"),
        (archive("hard", Link, "/etc/passwd", b""), "hard"),
        (archive("hard", Link, "../../etc/passwd", b""), "../../etc/passwd"),
    ]
}

/// The same archives for ADD and as contexts: links that lead out, which are refused, and names that
/// do, which are cut off.
fn links_and_names() -> [Vec<(Vec<u8>, &'static str)>; 2] {
    let (links, names) = leading_out().into_iter().partition(|(_, name)| !name.ends_with("out"));
    [links, names]
}

/// The names of the files that a build comes to.
fn files(refusal: &Refusal, context: &Path, input: &[u8]) -> Vec<String> {
    let scratch = Scratch::new("files");
    let out = format!("type=local,dest={}", scratch.path().display());
    let mut command = refusal.site.slipway.command(&["build", "-o", &out]);
    run_with(command.arg(context), input, DEADLINE).ok();
    let found = std::fs::read_dir(scratch.path()).expect("a directory").flatten();
    let mut names: Vec<_> = found.map(|f| f.file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn archives_do_not_lead_out_of_an_add() {
    let refusal = Refusal::new();
    refusal.site.dockerfile("FROM scratch\nADD bad.tar /\n");
    let [links, names] = links_and_names();
    for (bytes, name) in links {
        refusal.site.write("bad.tar", bytes);
        refusal.refuses(&[], &["Dockerfile:2", name]);
    }
    for (bytes, name) in names {
        refusal.site.write("bad.tar", bytes);
        assert_eq!(files(&refusal, refusal.site.context.path(), &[]), ["out"], "{name}");
    }
    // Broken in the middle.
    let mut broken = archive("fine", tar::EntryType::Regular, "", &[7; 100_000]);
    broken.truncate(50_000);
    refusal.site.write("bad.tar", broken);
    refusal.refuses(&[], &["Dockerfile:2", "bad.tar"]);
    refusal.assert_unharmed();
}

#[test]
fn archives_do_not_lead_out_of_a_context() {
    let refusal = Refusal::new();
    let dockerfile =
        archive("Dockerfile", tar::EntryType::Regular, "", b"FROM scratch\nCOPY . /\n");
    let with = |bytes: &[u8]| [&dockerfile[..dockerfile.len() - 1024], bytes].concat();
    let [links, names] = links_and_names();
    for (bytes, _) in links {
        refusal.refuses_context(&[], Path::new("-"), &with(&bytes), &["hard"]);
    }
    for (bytes, name) in names {
        let found = files(&refusal, Path::new("-"), &with(&bytes));
        assert_eq!(found, ["Dockerfile", "out"], "{name}");
    }
    refusal.assert_unharmed();
}

/// Each link of this archive leads to the deepest directory so far, and what lies behind it makes the
/// next one deeper.
#[test]
fn links_do_not_make_an_archive_deeper_than_paths_can_be() {
    let deep = |first: &str| format!("{first}{}", "/a".repeat(2040));
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |kind: tar::EntryType, path: &str, link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        match link {
            Some(link) => tar.append_link(&mut header, path, link),
            None => tar.append_data(&mut header, path, &[][..]),
        }
        .expect("memory");
    };
    put(tar::EntryType::Directory, &deep("a"), None);
    let mut last = deep("a");
    for link in ["b", "c", "d", "e", "f", "g", "h"] {
        put(tar::EntryType::Symlink, link, Some(&last));
        last = deep(link);
        put(tar::EntryType::Directory, &last, None);
    }
    let refusal = Refusal::new();
    refusal.site.write("deep.tar", tar.into_inner().expect("memory"));
    refusal.site.dockerfile("FROM scratch\nADD deep.tar /\n");
    refusal.refuses(&[], &["Dockerfile:2", "too deep"]);
    refusal.assert_unharmed();
}

/// An image of one layer in a layout.
fn layout(scratch: &Scratch, layer: &LayerFile) -> std::path::PathBuf {
    let directory = scratch.directory("layout");
    write_layout(&directory, std::slice::from_ref(layer), &serde_json::json!({}));
    directory
}

#[test]
fn layers_that_lead_out_are_refused() {
    let refusal = Refusal::new();
    for (bytes, name) in leading_out() {
        let scratch = Scratch::new("layer");
        let tar = scratch.write("layer.tar", bytes);
        let layer = LayerFile::pack(&tar, &scratch.join("layer.tar.gz"));
        let registry = FaultyRegistry::serve(&layout(&scratch, &layer), Fault::None);
        let image = registry.image("app:1");
        refusal.site.dockerfile(&format!("FROM {image}\nRUN true\n"));
        refusal.refuses(&[], &["Dockerfile:1", name]);
        refusal.site.slipway.run(&["pull", &image]).fails(1).says(name);
    }
    refusal.assert_unharmed();
}

#[test]
fn a_layer_bomb_is_refused() {
    const SIZE: u64 = 4 << 30;
    let (refusal, scratch) = (Refusal::new(), Scratch::new("bomb"));
    let zeros = File::create(scratch.join("zeros")).expect("a file");
    zeros.set_len(SIZE).expect("a file with a hole");
    let path = scratch.join("layer.tar.zst");
    let mut tar = command(tool("tar"));
    tar.args(["-C"]).arg(scratch.path()).args(["-c", "zeros"]).stdout(Stdio::piped());
    let mut tar = tar.spawn().expect("starting tar");
    let mut zstd = command(tool("zstd"));
    zstd.args(["-1", "-c"]).stdin(tar.stdout.take().expect("piped"));
    let packed = zstd.stdout(File::create(&path).expect("a file")).status().expect("starting zstd");
    assert!(tar.wait().expect("tar").success() && packed.success());
    // What the bytes amount to does not matter: nobody gets so far.
    let layer = LayerFile { path, diff_id: format!("sha256:{}", sha256(&b"bomb"[..])) };
    let registry = FaultyRegistry::serve(&layout(&scratch, &layer), Fault::None);
    refusal.site.dockerfile(&format!("FROM {}\nRUN true\n", registry.image("app:1")));
    refusal.refuses(&[], &["Dockerfile:1", "bomb"]);
    refusal.assert_unharmed();
}
