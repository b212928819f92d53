//! The sources of real programs, from Debian and from the registry of crates: fetched once by the
//! scripts in `tests/programs`, and kept in the cache.

use crate::command::{DEADLINE, command, run_with};
use crate::scratch::{Scratch, cache, lock, make};
use crate::standin::{MIRROR, SUITE};
use crate::tool::tool;
use crate::tree::sha256;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a program's Dockerfile and script lie.
pub fn home(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name)
}

/// The source of a program as a build context, without a Dockerfile.
pub fn source(name: &str) -> PathBuf {
    let home = home(name);
    let read =
        |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    let text = [read(&home.join("source.sh")), read(&home.with_file_name("lib.sh"))].concat();
    let sources = cache().join("sources");
    make(&sources);
    let directory = sources.join(format!("{name}-{}", &sha256(&text[..])[..16]));
    let _lock = lock(&format!("source-{name}"));
    if !directory.exists() {
        fetch(name, &home, &directory);
    }
    directory
}

/// Runs a program's script; all of the source appears, or nothing.
fn fetch(name: &str, home: &Path, to: &Path) {
    eprintln!("fetching the source of {name}; this is kept");
    let scratch = Scratch::new(&format!("source-{name}"));
    let (out, work) = (scratch.directory("out"), scratch.directory("work"));
    let mirror = std::env::var("SLIPWAY_TEST_DEBIAN_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    let mut script = command(tool("sh"));
    script.args(["-eu", "source.sh"]).current_dir(home);
    script.env("OUT", &out).env("WORK", &work).env("HERE", home);
    script.env("SUITE", SUITE).env("MIRROR", mirror).env("CARGO", cargo());
    // Cargo is what it is outside: with the person's home, settings and proxies.
    let names = ["HOME", "CARGO_HOME", "RUSTUP_HOME", "PATH", "http_proxy", "https_proxy"];
    for (name, value) in names.iter().filter_map(|name| Some((name, std::env::var_os(name)?))) {
        script.env(name, value);
    }
    run_with(&mut script, &[], DEADLINE).ok();
    fs::rename(&out, to).expect("moving within the cache");
}

/// The cargo that runs the tests, or the one of the search path.
fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}
