//! What the store and the placement of steps do by themselves: the figures of other crates' own
//! examples, which know their peers from inside.

use crate::table::{Row, TIMES, Table, Target};
use std::collections::BTreeMap;
use std::time::Duration;
use tests::command::{command, run};
use tests::scratch::Scratch;

/// Blobs of 1 KB that are put and got, and how many of them a second are aimed at.
const SMALL: f64 = 100_000.0;
const SMALL_PER_SECOND: f64 = 50_000.0;

/// Steps that are placed, and how many decisions a second are aimed at.
const STEPS: f64 = 1_000_000.0;
const DECISIONS_PER_SECOND: f64 = 100_000.0;

/// The times of one line: ours, and those of the peer if it has one.
struct Line {
    name: String,
    ours: Vec<Duration>,
    peer: Vec<Duration>,
}

pub fn measure(table: &mut Table) {
    let scratch = Scratch::new("bench-wire");
    let text = example("wire_bench", &[scratch.path().to_str().expect("UTF-8")]);
    for line in text.lines().map(read) {
        let (work, peer, target) = match line.name.as_str() {
            "bulk" => (
                "a blob of 1 GiB from another node, verified, memory to memory",
                Some("a bare quinn stream"),
                Target::Ratio(0.8),
            ),
            "missing" => (
                "FindMissing of 10,000 digests over the wire, 1,000,000 blobs in the store",
                Some("RocksDB `multi_get`, in process"),
                // Within 1.5 times.
                Target::Ratio(0.667),
            ),
            "put" => {
                ("100,000 blobs of 1 KB put over the wire, each batch durable", None, per_second())
            }
            "get" => ("the same got over the wire, verified", None, per_second()),
            other => panic!("what is `{other}`?"),
        };
        let peer = peer.map(|name| (name.to_owned(), line.peer));
        let (work, differences) = (work.to_owned(), String::new());
        table.add(Row { work, ours: line.ours, peer, target, differences });
    }
    placement(table);
}

fn per_second() -> Target {
    Target::Within(Duration::from_secs_f64(SMALL / SMALL_PER_SECOND))
}

/// Steps on 10,000 workers, with few builds and with many, one after the other in each round.
fn placement(table: &mut Table) {
    let mut rows: BTreeMap<u64, (Vec<Duration>, String)> = BTreeMap::new();
    for _ in 0..TIMES {
        let text = example("place_bench", &[]);
        // `     1 builds:   123456 decisions/s,   234567 steps/s become ready,  300 bytes/step`
        for line in text.lines().filter(|line| line.contains(" decisions/s")) {
            let (builds, rest) = line.trim().split_once(" builds:").expect("a number of builds");
            let (decisions, rest) = rest.split_once(" decisions/s,").expect("decisions");
            let (_, bytes) = rest.rsplit_once(',').expect("bytes");
            let decisions: f64 = decisions.trim().parse().expect("a number");
            let row = rows.entry(builds.parse().expect("a number")).or_default();
            row.0.push(Duration::from_secs_f64(STEPS / decisions));
            row.1 = bytes.trim().to_owned();
        }
    }
    let [few, many] = [1, 10_000].map(|builds| rows[&builds].0.clone());
    let mut growth: Vec<f64> =
        many.iter().zip(&few).map(|(many, few)| many.as_secs_f64() / few.as_secs_f64()).collect();
    growth.sort_by(f64::total_cmp);
    table.note(format!(
        "A decision with 10,000 builds takes {:.2} times as long as with one (median of {TIMES} \
         rounds; {:.2} to {:.2}).",
        growth[TIMES / 2],
        growth[0],
        growth[TIMES - 1]
    ));
    for (builds, (ours, bytes)) in rows {
        table.add(Row {
            work: format!("1,000,000 steps of {builds} build(s) placed on 10,000 workers, {bytes}"),
            ours,
            peer: None,
            target: Target::Within(Duration::from_secs_f64(STEPS / DECISIONS_PER_SECOND)),
            differences: String::new(),
        });
    }
}

/// What an example prints that lies beside this program.
fn example(name: &str, args: &[&str]) -> String {
    let own = std::env::current_exe().expect("the path of this program");
    run(command(own.with_file_name("examples").join(name)).args(args)).ok().text()
}

fn read(line: &str) -> Line {
    let mut parts = line.split('\t');
    let name = parts.next().expect("a name").to_owned();
    let mut times = || -> Vec<Duration> {
        let list = parts.next().unwrap_or_default().split_whitespace();
        let seconds = list.map(|ms| ms.parse::<f64>().expect("milliseconds") / 1000.0);
        seconds.map(Duration::from_secs_f64).collect()
    };
    Line { name, ours: times(), peer: times() }
}
