//! The cases of the corpus, as far as the front end needs them.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A commit that the corpus' git repositories have, under this name in Dockerfiles.
pub const COMMIT: (&str, &str) = ("COMMIT_V1", "cb6d5e5a87bd71bc65c1df148d50a1d0e1677251");

/// What placeholders stand for here.
const VALUES: [(&str, &str); 5] = [
    ("{{REGISTRY}}", "127.0.0.1:5000"),
    ("{{HTTP}}", "http://127.0.0.1:5001"),
    ("{{GIT}}", "http://127.0.0.1:5002"),
    ("{{SALT}}", "0123456789ab"),
    (
        "{{DIGEST:conf/busybox:1}}",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ),
];

pub struct Case {
    pub name: String,
    pub succeeds: bool,
    pub error_about: Vec<String>,
    pub flags: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Whether the context lies elsewhere.
    pub fetched: bool,
    pub text: Vec<u8>,
    /// The recorded results: one, or one for each platform.
    pub expected: Vec<Expected>,
    pub ignore_files: Vec<Vec<u8>>,
}

/// What was recorded for one image.
pub struct Expected {
    /// Of which platform, when there are several.
    pub platform: Option<String>,
    pub config: Option<Value>,
    pub history: Option<Value>,
}

/// All cases that have a Dockerfile.
pub fn all() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/cases");
    let mut cases = Vec::new();
    for group in folders(&root) {
        for folder in folders(&group) {
            let name = folder.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            cases.extend(load(name, &folder));
        }
    }
    cases
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn files(path: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && entry.file_name() != "expected" => files(&path, out),
            kind if kind.is_file() => out.push(path),
            _ => {}
        }
    }
}

fn load(name: String, folder: &Path) -> Option<Case> {
    let settings = fs::read_to_string(folder.join("case.toml")).unwrap();
    let (settings, steps) = settings.split_once("[[step]]").unwrap_or((&settings, ""));
    let mut flags = strings(settings, "flags");
    let mut paths = Vec::new();
    files(folder, &mut paths);
    paths.sort();
    let text = dockerfile(&flags, folder, &paths)?;
    // Of several builds, the last one is recorded.
    flags.extend(strings(steps.rsplit("[[step]]").next().unwrap(), "flags"));
    let is = |path: &PathBuf, end: &str| path.to_str().unwrap().ends_with(end);
    let ignore_files = paths.iter().filter(|path| is(path, ".dockerignore"));
    let environment = settings.lines().find_map(|line| line.strip_prefix("env = {"));
    Some(Case {
        succeeds: strings(settings, "expect") == ["success"],
        error_about: strings(settings, "error_about"),
        flags: flags.iter().map(|flag| fill(flag)).collect(),
        environment: environment.into_iter().map(one_variable).collect(),
        fetched: settings.lines().any(|line| line.starts_with("context = \"{{")),
        text,
        expected: expected(&name, &folder.join("expected")),
        ignore_files: ignore_files.map(|path| fs::read(path).unwrap()).collect(),
        name,
    })
}

fn one_variable(text: &str) -> (String, String) {
    let (name, value) = text.split_once(" = ").unwrap();
    (name.to_owned(), value.trim_matches(['"', '}']).to_owned())
}

/// The Dockerfile's text, from a file or from the script that writes it.
fn dockerfile(flags: &[String], folder: &Path, paths: &[PathBuf]) -> Option<Vec<u8>> {
    let wanted = match flags.iter().position(|flag| flag == "-f") {
        Some(at) => flags[at + 1].rsplit('/').next().unwrap(),
        None => "Dockerfile",
    };
    let named = |name: &str| {
        let is = |path: &&PathBuf| path.file_name().unwrap().eq_ignore_ascii_case(name);
        paths.iter().filter(is).min_by_key(|path| path.components().count())
    };
    // One Dockerfile is a link, which some copies of the corpus hold as a file with the link's target.
    if let Some(path) = named("real.df").or_else(|| named(wanted)) {
        return Some(fill_bytes(&fs::read(path).unwrap()));
    }
    let script = fs::read_to_string(folder.join("setup.sh")).ok()?;
    if let Some((_, rest)) = script.split_once("> Dockerfile <<'D'\n") {
        return Some(fill(rest.split_once("\nD\n")?.0).into_bytes());
    }
    let (_, rest) = script.split_once("printf '")?;
    let (text, rest) = rest.split_once('\'')?;
    assert!(rest.starts_with(" > t/Dockerfile"));
    Some(text.replace("\\n", "\n").into_bytes())
}

fn fill(text: &str) -> String {
    let text = text.replace(COMMIT.0, COMMIT.1);
    VALUES.iter().fold(text, |text, (name, value)| text.replace(name, value))
}

fn fill_bytes(bytes: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => fill(text).into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}

fn expected(name: &str, folder: &Path) -> Vec<Expected> {
    let read = |folder: &Path| {
        let json = |file: &str| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            Some(serde_json::from_str::<Value>(&fill(&text)).unwrap())
        };
        let platform = folder.file_name().and_then(|n| n.to_str()).filter(|n| *n != "expected");
        let platform = platform.map(|name| name.replace('-', "/"));
        // The corpus leaves out as many rows as the image has that the files are compared with;
        // here it is not the image that was built on.
        let history = json("history.json").filter(|_| name != "copy/from-whole-root");
        Expected { platform, config: json("config.json"), history }
    };
    if !folder.is_dir() {
        return Vec::new();
    }
    let own = read(folder);
    match own.config.is_some() || own.history.is_some() {
        true => vec![own],
        false => folders(folder).iter().map(|folder| read(folder)).collect(),
    }
}

/// The strings behind `key =` in a file of plain TOML: one, or a list in one line.
fn strings(settings: &str, key: &str) -> Vec<String> {
    let line =
        settings.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    let mut rest = line.unwrap_or_default();
    let mut out = Vec::new();
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = rest[at..].chars().next().unwrap();
        let mut text = String::new();
        let mut chars = rest[at + 1..].char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (end, c) if c == quote => break end,
                (_, '\\') if quote == '"' => text.push(chars.next().unwrap().1),
                (_, c) => text.push(c),
            }
        };
        out.push(text);
        rest = &rest[at + 1 + end + 1..];
    }
    out
}
