//! A Dockerfile of 5,000 stages: parsed, lowered and keyed, and built as a whole.

use crate::side::{settle, slipway};
use crate::table::{Row, TIMES, Table, Target, median, show};
use std::time::Duration;
use tests::builder::Builder;
use tests::command::{command, run};
use tests::scratch::Scratch;
use tests::slipway::Slipway;

const STAGES: usize = 5_000;

pub fn measure(table: &mut Table) {
    table.add(Row {
        work: "5,000 stages: parse, lower and key, the slowest of five shapes".to_owned(),
        ours: (0..TIMES).map(|_| slowest_shape()).collect(),
        peer: None,
        target: Target::Within(Duration::from_secs(1)),
        differences: String::new(),
    });
    let (cold, unchanged) = whole_builds();
    table.note(format!(
        "5,000 stages, each of which copies from the one before, as a whole build: {} for the first \
         time, {} when nothing changed.",
        show(cold),
        show(median(&unchanged)),
    ));
}

/// What the coordinator's own example measures without a farm: the last column but one of its
/// lines, in milliseconds.
fn slowest_shape() -> Duration {
    let own = std::env::current_exe().expect("the path of this program");
    let outcome = run(command(own.with_file_name("examples").join("stages")).arg("5000")).ok();
    let total = |line: &str| -> Option<f64> {
        line.split_once(" = ")?.1.trim_start().split(' ').next()?.parse().ok()
    };
    let text = outcome.text();
    let slowest = text.lines().filter_map(total).fold(0.0, f64::max);
    assert!(slowest > 0.0, "the example prints times\n{outcome}");
    Duration::from_secs_f64(slowest / 1000.0)
}

/// How long whole commands take: the first, and those after it.
fn whole_builds() -> (Duration, Vec<Duration>) {
    let context = Scratch::new("bench-stages");
    context.write("file", "content\n");
    let stage = |n: usize| match n {
        0 => "FROM scratch AS s0\nCOPY file /f\n".to_owned(),
        n => format!("FROM scratch AS s{n}\nCOPY --from=s{} /f /f\n", n - 1),
    };
    context.write("Dockerfile", (0..STAGES).map(stage).collect::<String>());
    let builder = Builder::Slipway(Slipway::new());
    slipway(&builder).run(&["images"]).ok();
    let build = || {
        settle();
        builder.build(&["-o", "type=cacheonly"], context.path()).ok().took
    };
    (build(), (0..TIMES).map(|_| build()).collect())
}
