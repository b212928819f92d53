//! The pure modules are pure: no IO, no clock, no chance.
//!
//! clippy refuses what `clippy.toml` lists, where a module denies it. Here is shown that all pure
//! modules deny it, that none makes an exception, and that none reaches for another way out of its
//! arguments: a crate that does IO, or a part of the standard library that clippy was not told of.

use std::fs;
use std::path::{Path, PathBuf};

/// The file at the head of each pure module, and the folder with all of it.
const PURE: [(&str, &str); 8] = [
    ("proto/src/lib.rs", "proto/src"),
    ("cache/src/tree/mod.rs", "cache/src/tree"),
    ("coordinator/src/dockerfile/mod.rs", "coordinator/src/dockerfile"),
    ("coordinator/src/explain/mod.rs", "coordinator/src/explain"),
    ("coordinator/src/graph/mod.rs", "coordinator/src/graph"),
    ("coordinator/src/core/mod.rs", "coordinator/src/core"),
    ("coordinator/src/images/mod.rs", "coordinator/src/images"),
    ("coordinator/src/raft/driver/mod.rs", "coordinator/src/raft/driver"),
];

const DENIED: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// What leads out of a module's arguments.
const WAYS_OUT: [&str; 24] = [
    "std::fs",
    "std::io",
    "std::os::",
    "std::process",
    "std::thread",
    "std::env::v",
    "std::env::a",
    "std::env::cu",
    "std::net::T",
    "std::net::U",
    "Instant",
    "SystemTime",
    "tokio",
    "rustix",
    "rocksdb",
    "getrandom",
    "rand::",
    "libc::",
    "tracing::",
    "println!",
    "HashMap",
    "HashSet",
    "thread_local!",
    "static mut",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// All files of a folder but the tests.
fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        match name.as_str() {
            "tests" | "tests.rs" => {}
            name if name.ends_with("_tests.rs") => {}
            _ if path.is_dir() => sources(&path, out),
            name if name.ends_with(".rs") => out.push(path),
            _ => {}
        }
    }
}

/// The code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// The ways out that a text takes.
fn found(text: &str) -> Vec<&'static str> {
    let code = code(text);
    WAYS_OUT.into_iter().filter(|way| code.contains(way)).collect()
}

#[test]
fn pure_modules_let_clippy_look() {
    for (head, folder) in PURE {
        let text = fs::read_to_string(root().join(head)).expect("a file of the workspace");
        assert!(text.contains(DENIED), "{head} does not say {DENIED}");
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        assert!(files.len() > 3, "{folder} has {} files", files.len());
        for file in files {
            let text = fs::read_to_string(&file).expect("a file of the workspace");
            let excepts = text.contains("allow(clippy::disallowed");
            assert!(!excepts, "{} makes an exception", file.display());
        }
    }
}

#[test]
fn pure_modules_have_no_way_out() {
    for (_, folder) in PURE {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("a file of the workspace");
            assert_eq!(found(&text), [""; 0], "{}", file.display());
        }
    }
}

#[test]
fn a_way_out_is_seen() {
    let text = "// std::fs is not used\nuse std::fs;\nfn f() { println!() }\n#[cfg(test)]\nmod tests {\nuse tokio;}\n";
    assert_eq!(found(text), ["std::fs", "println!"]);
    // And modules that are not pure take some.
    let server = fs::read_to_string(root().join("coordinator/src/server/mod.rs")).expect("a file");
    assert!(!found(&server).is_empty());
}

#[test]
fn the_protocol_needs_no_crate_that_does_io() {
    let manifest = fs::read_to_string(root().join("proto/Cargo.toml")).expect("a file");
    let (_, rest) = manifest.split_once("[dependencies]").expect("dependencies");
    let own = rest.split("\n[").next().unwrap_or_default();
    let names = own.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["blake3", "rkyv", "thiserror", "zeroize"]);
}
