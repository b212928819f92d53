//! The table: what was measured, what it is held against, and whether that was reached.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::command::{command, run};
use tests::tool::tool;

/// How often everything is measured.
pub const TIMES: usize = 5;

/// What is aimed at.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// So many times as fast as the peer.
    Ratio(f64),
    /// Less time than this, whatever others take.
    Within(Duration),
}

/// One line.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// How long we took, each time.
    pub ours: Vec<Duration>,
    /// Whom it is held against, and how long that took; none for a time that stands for itself.
    pub peer: Option<(String, Vec<Duration>)>,
    /// What is aimed at.
    pub target: Target,
    /// How the two results differ; empty when they do not.
    pub differences: String,
}

/// All lines, and what stands below them.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Adds a line.
    pub fn add(&mut self, row: Row) {
        eprintln!("{}", line(&row));
        if !row.differences.is_empty() {
            eprintln!("{}", row.differences);
        }
        self.rows.push(row);
    }

    /// Adds a remark.
    pub fn note(&mut self, text: String) {
        eprintln!("{text}");
        self.notes.push(text);
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = about();
        out += "| work | Slipway | peer | time of the peer | ratio | aimed at | |\n";
        out += "|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        for note in &self.notes {
            let _ = write!(out, "\n- {note}");
        }
        out
    }
}

/// The middle of some times.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn line(row: &Row) -> String {
    let ours = median(&row.ours);
    let peer = row.peer.as_ref().map(|(name, times)| (name.as_str(), median(times)));
    let ratio = peer.map(|(_, time)| time.as_secs_f64() / ours.as_secs_f64().max(1e-9));
    let (aim, reached) = match row.target {
        Target::Ratio(aim) => (format!("{aim}×"), ratio.is_some_and(|ratio| ratio >= aim)),
        Target::Within(time) => (format!("under {}", show(time)), ours < time),
    };
    let verdict = match (row.differences.is_empty(), reached) {
        (false, _) => "does not count: the trees differ",
        (true, true) => "reached",
        (true, false) => "**missed**",
    };
    format!(
        "| {} | {} | {} | {} | {} | {aim} | {verdict} |",
        row.work,
        show(ours),
        peer.map_or("–", |(name, _)| name),
        peer.map_or("–".to_owned(), |(_, time)| show(time)),
        ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.1}×")),
    )
}

/// A time, to three digits or so.
pub fn show(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// The machine, the build and the peers.
fn about() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = run(command(tool("uname")).arg("-r")).text();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name\t: "));
    let few = crate::farm::TIMES;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let version = |program: &str| run(command(tool(program)).arg("--version")).text();
    format!(
        "{cores} cores ({}), Linux {kernel}; Slipway in the {profile} profile.\nPeers: the BuildKit \
         of {}; {}.\nMedians of at least {TIMES} runs, side by side; of {few} for the \
         farm and the new machine; the crowd once.\n\n",
        model.unwrap_or("unknown"),
        version("dockerd"),
        version("buildah"),
    )
}

/// Where the result stands in the document.
const MARKS: [&str; 2] = ["<!-- bench/run --write begins -->\n", "<!-- bench/run --write ends -->"];

/// Puts a result between the marks of a document.
pub fn put_into(path: &Path, text: &str) {
    let document = fs::read_to_string(path).expect("the document of the figures");
    let (before, rest) = document.split_once(MARKS[0]).expect("a mark in the document");
    let (_, after) = rest.split_once(MARKS[1]).expect("the other mark in the document");
    let document = format!("{before}{}{}\n{}{after}", MARKS[0], text.trim_end(), MARKS[1]);
    fs::write(path, document).expect("writing the document");
}
