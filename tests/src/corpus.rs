//! The conformance corpus: its base images in a registry, and its runner.

use crate::command::{Outcome, command, run, run_with};
use crate::registry::Registry;
use crate::scratch::{Scratch, cache, lock, make};
use crate::slipway::Slipway;
use crate::tool::tool;
use crate::tree::sha256;
use serde::Deserialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long all cases may take together. Not a measure of speed: it turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As expected.
    Pass,
    /// Otherwise.
    Fail,
    /// It cannot run on this machine.
    Skip,
}

/// What the runner says of a case.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Its name: `group/name`.
    #[serde(rename = "case")]
    pub name: String,
    /// How it went.
    pub status: Status,
    /// What was not as expected, or why it cannot run.
    pub differences: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Case {
    /// The group that it belongs to.
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// Where the corpus lies.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// The names of all cases.
pub fn names() -> Vec<String> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let root = home().join("cases");
    let cases = below(&root).into_iter().flat_map(|group| below(&group));
    let cases = cases.filter(|case| case.join("case.toml").is_file());
    let mut names: Vec<String> = cases
        .map(|case| case.strip_prefix(&root).expect("below it").display().to_string())
        .collect();
    names.sort();
    names
}

/// A registry that has the corpus' base images (`conf/busybox:1` and more), and takes nothing.
pub fn registry() -> Registry {
    Registry::serving(&storage())
}

/// Copies the files of a registry with the base images.
pub(crate) fn copy_storage(to: &Path) {
    run(command(tool("cp")).arg("-a").arg(storage()).arg(to)).ok();
}

/// The files of a registry with the base images, made once.
fn storage() -> PathBuf {
    let script = home().join("images/make.py");
    let hash = |path: &Path| {
        sha256(File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    };
    let key = sha256(format!("{} {}", hash(&script), hash(&tool("busybox"))).as_bytes());
    let all = cache().join("corpus");
    let storage = all.join(&key[..16]);
    let _one_at_a_time = lock("corpus");
    if !storage.exists() {
        make(&all);
        let scratch = Scratch::new("corpus");
        let fresh = scratch.directory("storage");
        let registry = Registry::over(&fresh);
        let mut program = command(tool("python3"));
        run(program.arg(script).args(["--registry", registry.address()])).ok();
        drop(registry);
        fs::rename(&fresh, &storage).expect("moving within the cache");
    }
    storage
}

/// Runs all cases, so many at once, and returns what the runner found.
#[track_caller]
pub fn run_all(slipway: &Slipway, registry: &Registry, jobs: usize) -> (Vec<Case>, Outcome) {
    let builder = slipway.command(&["build"]);
    let cases = home().join("cases");
    Runner { builder: &builder, registry, jobs, cases: &cases, compare: None, record: false }.run()
}

/// The corpus' runner.
pub(crate) struct Runner<'a> {
    /// The command that builds, with `docker build`'s flags after it.
    pub builder: &'a Command,
    /// Where the base images are.
    pub registry: &'a Registry,
    /// How many cases run at once.
    pub jobs: usize,
    /// Where the cases are.
    pub cases: &'a Path,
    /// What is compared, if not all of it: `tree,config,history,steps`.
    pub compare: Option<&'a str>,
    /// Whether what comes out is written down as what is expected.
    pub record: bool,
}

impl Runner<'_> {
    /// Runs the cases, and returns what was found.
    #[track_caller]
    pub fn run(&self) -> (Vec<Case>, Outcome) {
        let scratch = Scratch::new("conformance");
        let results = scratch.join("results.json");
        let words = std::iter::once(self.builder.get_program()).chain(self.builder.get_args());
        let words = words.map(|word| word.to_str().expect("a command of the tests is UTF-8"));
        let line: Vec<String> = words.map(|word| format!("'{word}'")).collect();
        let mut runner = command(tool("python3"));
        for (name, value) in self.builder.get_envs() {
            runner.env(name, value.unwrap_or_default());
        }
        runner.env("TMPDIR", scratch.directory("tmp"));
        runner.arg(home().join("run.py")).args(["--builder", &line.join(" ")]);
        runner.args(["--registry", self.registry.address(), "--jobs", &self.jobs.to_string()]);
        runner.arg("--cases").arg(self.cases).arg("--json").arg(&results);
        if let Some(what) = self.compare {
            runner.args(["--compare", what]);
        }
        if self.record {
            runner.arg("--record");
        }
        let outcome = run_with(&mut runner, &[], DEADLINE);
        let text = fs::read(&results).unwrap_or_else(|e| panic!("no results: {e}\n{outcome}"));
        let cases = serde_json::from_slice(&text).expect("the results are a list of cases");
        (cases, outcome)
    }
}
