//! Many builds at once: what a step costs beside its own time, when nobody else is there and in a
//! crowd.

use crate::side::slipway as ours;
use crate::table::{Row, Table, Target};
use serde_json::Value;
use std::time::Duration;
use tests::builder::Builder;
use tests::command::{DEADLINE, Running};
use tests::registry::Registry;
use tests::scratch::Scratch;
use tests::slipway::Slipway;

/// How many builds there are at once, and how many targets each of them has.
const BUILDS: usize = 100;
const TARGETS: usize = 20;

/// How often one build is measured alone.
const ALONE: usize = 5;

/// What each step does: nothing, for so long. It takes no processor, of which there are two.
const SLEEP: Duration = Duration::from_millis(100);

pub fn measure(table: &mut Table) {
    let registry = Registry::of(&["alpine"]);
    let builder = Builder::Slipway(Slipway::with_mirror(&registry));
    let context = Scratch::new("bench-crowd");
    // The base is there before anything is measured, and a container has run.
    start(&builder, &context, 0).finish(DEADLINE).ok();
    let mut number = 0;
    let mut next = || {
        number += 1;
        start(&builder, &context, number)
    };
    let idle = (0..ALONE).flat_map(|_| overheads(next())).collect();
    let crowd: Vec<Running> = (0..BUILDS).map(|_| next()).collect();
    let crowded = crowd.into_iter().flat_map(overheads).collect();
    let (idle, crowded) = (p99(idle), p99(crowded));
    table.add(Row {
        work: format!("{BUILDS} builds of {TARGETS} targets at once: what a step costs, p99"),
        ours: vec![crowded],
        peer: Some(("one such build alone".to_owned(), vec![idle])),
        // Less than three times as much.
        target: Target::Ratio(0.334),
        differences: String::new(),
    });
}

/// A build whose steps nobody has run before.
fn start(builder: &Builder, context: &Scratch, number: usize) -> Running {
    let seconds = SLEEP.as_secs_f64();
    let stage = |n: usize| format!("FROM alpine AS s{n}\nRUN : {number}.{n}; sleep {seconds}\n");
    let copy = |n: usize| format!("COPY --from=s{n} /etc/passwd /{n}\n");
    let all: String = (0..TARGETS).map(stage).collect::<String>()
        + "FROM scratch\n"
        + &(0..TARGETS).map(copy).collect::<String>();
    let file = context.write(&format!("{number}/Dockerfile"), all);
    let context = file.parent().expect("a directory of its own").to_str().expect("UTF-8");
    let args = ["build", "--progress=rawjson", "-o", "type=cacheonly", context];
    Running::start(&mut ours(builder).command(&args), &[])
}

/// What each RUN of a build took more than its own time.
fn overheads(build: Running) -> Vec<Duration> {
    let outcome = build.finish(DEADLINE).ok();
    let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let vertexes =
        events.flat_map(|event| event["vertexes"].as_array().cloned().unwrap_or_default());
    let took = |vertex: Value| {
        let is_run = vertex["name"].as_str()?.contains("] RUN : ");
        let span =
            time_of_day(&vertex["completed"])?.checked_sub(time_of_day(&vertex["started"])?)?;
        is_run.then(|| span.saturating_sub(SLEEP))
    };
    let all: Vec<Duration> = vertexes.filter_map(took).collect();
    assert_eq!(all.len(), TARGETS, "{text}");
    all
}

/// `2026-01-02T03:04:05.678Z`, as the time since midnight.
fn time_of_day(text: &Value) -> Option<Duration> {
    let time = text.as_str()?.split_once('T')?.1.trim_end_matches('Z');
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let mut next = || parts.next().flatten();
    Some(Duration::from_secs_f64(next()? * 3600.0 + next()? * 60.0 + next()?))
}

/// Of a hundred steps the slowest but one.
fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[(all.len() * 99).div_ceil(100) - 1]
}
