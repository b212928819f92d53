//! Images that stand in for those of the internet, made from Debian's packages by the scripts in
//! `tests/standins`. They are made once and kept in the cache, under a key of everything that they
//! are made of: the scripts and the versions of the packages.

use crate::command::{DEADLINE, command, run, run_with};
use crate::layout::{LayerFile, write_layout};
use crate::registry::Registry;
use crate::scratch::{Scratch, cache, lock, make, remove};
use crate::tool::tool;
use crate::tree::sha256;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which Debian they are made of.
pub(crate) const SUITE: &str = "bookworm";
/// Where Debian's packages come from, unless `SLIPWAY_TEST_DEBIAN_MIRROR` says something else.
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";

/// All that there are.
pub const ALL: [&str; 11] = [
    "alpine",
    "base",
    "debian",
    "node",
    "golang",
    "golang-alpine",
    "python",
    "nginx",
    "etcd",
    "ca-certs",
    "rust",
];

/// What `standin.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    /// The stand-in whose layers lie below.
    from: Option<String>,
    /// Packages whose versions the result depends on.
    #[serde(default)]
    packages: Vec<String>,
    config: Config,
    /// Names in the registry, each with what its environment has in addition.
    tags: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    workdir: Option<String>,
    stop_signal: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
}

impl Config {
    fn json(&self, more_env: &[String]) -> Value {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut env = self.env.clone();
        if !env.iter().any(|pair| pair.starts_with("PATH=")) {
            env.insert(0, path.to_owned());
        }
        env.extend_from_slice(more_env);
        let mut config = json!({"Env": env});
        if !self.cmd.is_empty() {
            config["Cmd"] = json!(self.cmd);
        }
        if let Some(directory) = &self.workdir {
            config["WorkingDir"] = json!(directory);
        }
        if let Some(signal) = &self.stop_signal {
            config["StopSignal"] = json!(signal);
        }
        if !self.ports.is_empty() {
            let ports = self.ports.iter().map(|port| (port.clone(), json!({})));
            config["ExposedPorts"] = Value::Object(ports.collect());
        }
        config
    }
}

/// The files of a registry that has these stand-ins; those that are not there yet are made.
pub fn storage(names: &[&str]) -> PathBuf {
    let storage = cache().join("standins/registry");
    make(&storage);
    names.iter().for_each(|name| publish(name, &storage));
    storage
}

/// The layers of a stand-in, lowest first; made if need be.
fn layers(name: &str) -> Vec<LayerFile> {
    let definition = definition(name);
    let mut below = definition.from.as_deref().map(layers).unwrap_or_default();
    if !home(name).join("make.sh").exists() {
        return below;
    }
    let directory = cache().join("standins").join(format!("{name}-{}", &key(name)[..16]));
    let _lock = lock(&format!("standin-{name}"));
    if !directory.exists() {
        forget(name);
        build(name, definition.from.as_deref(), &directory);
    }
    below.extend(read(&directory));
    below
}

/// Everything that a stand-in is made of, as a hash.
fn key(name: &str) -> String {
    let definition = definition(name);
    let below = definition.from.as_deref().map(key).unwrap_or_default();
    let mut text = format!("{below}\n{SUITE}\n");
    let mut files = files_below(&home(name));
    files.push(home(name).with_file_name("lib.sh"));
    files.sort();
    for file in files {
        let content = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // Not where the checkout lies: all checkouts share the cache.
        let below = file.strip_prefix(home("")).expect("a path below the definitions");
        text += &format!("{} {}\n", below.display(), sha256(&content[..]));
    }
    if !definition.packages.is_empty() {
        let mut policy = command(tool("apt-cache"));
        policy.arg("policy").args(&definition.packages);
        let policy = run(&mut policy).ok().text();
        policy.lines().filter(|l| l.contains("Candidate:")).for_each(|line| text += line);
    }
    sha256(text.as_bytes())
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Where a stand-in's definition lies.
fn home(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("standins").join(name)
}

fn definition(name: &str) -> Definition {
    let path = home(name).join("standin.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Takes away what was made of an earlier state.
fn forget(name: &str) {
    for entry in fs::read_dir(cache().join("standins")).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let key = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        if key.is_some_and(|key| key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit())) {
            remove(&entry.path());
        }
    }
}

/// Runs a stand-in's script and compresses what comes out; all of it appears, or nothing.
fn build(name: &str, from: Option<&str>, to: &Path) {
    eprintln!("making the stand-in `{name}` from Debian's packages; this is kept");
    let scratch = Scratch::new(&format!("standin-{name}"));
    let (out, work, below) =
        (scratch.directory("out"), scratch.directory("work"), scratch.directory("below"));
    for layer in from.map(layers).unwrap_or_default() {
        let file = layer.path.file_name().expect("the name of a layer");
        fs::hard_link(&layer.path, below.join(file)).expect("linking within the cache");
    }
    let mirror = std::env::var("SLIPWAY_TEST_DEBIAN_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    let mut script = command(tool("sh"));
    script.args(["-eu", "make.sh"]).current_dir(home(name));
    script.env("OUT", &out).env("WORK", &work).env("FROM", &below).env("HERE", home(name));
    script.env("SUITE", SUITE).env("MIRROR", mirror).env("HOME", &work);
    run_with(&mut script, &[], DEADLINE * 2).ok();
    let packed = scratch.directory("packed");
    for archive in sorted(&out) {
        let file = archive.file_name().expect("the name of an archive").to_string_lossy();
        let layer = LayerFile::pack(&archive, &packed.join(format!("{file}.gz")));
        fs::write(packed.join(format!("{file}.diff-id")), layer.diff_id).expect("writing");
    }
    fs::rename(&packed, to).expect("moving within the cache");
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let mut paths = files_below(directory);
    paths.sort();
    paths
}

fn read(directory: &Path) -> Vec<LayerFile> {
    let archives =
        sorted(directory).into_iter().filter(|path| path.extension() == Some("gz".as_ref()));
    let layer = |path: PathBuf| {
        let diff_id = fs::read_to_string(path.with_extension("diff-id")).expect("made beside it");
        LayerFile { path, diff_id }
    };
    archives.map(layer).collect()
}

/// Puts a stand-in into the registry under all of its names, once.
fn publish(name: &str, storage: &Path) {
    let mark = cache().join("standins").join(format!("{name}.published"));
    let key = key(name);
    if fs::read_to_string(&mark).is_ok_and(|there| there == key) {
        return;
    }
    let layers = layers(name);
    let _lock = lock(&format!("publish-{name}"));
    let definition = definition(name);
    let registry = Registry::over(storage);
    for (tag, env) in &definition.tags {
        let layout = Scratch::new("layout");
        write_layout(layout.path(), &layers, &definition.config.json(env));
        let mut skopeo = command(tool("skopeo"));
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        skopeo.env("HOME", layout.path());
        skopeo.arg(format!("oci:{}", layout.path().display()));
        run(skopeo.arg(format!("docker://{}", registry.image(tag)))).ok();
    }
    fs::write(mark, key).expect("writing to the cache");
}
