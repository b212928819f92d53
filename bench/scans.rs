//! A large context: never seen, unchanged, and with one file changed.

use crate::context::Context;
use crate::side::{BUILDKIT, Sides, settle};
use crate::table::{Row, TIMES, Table, Target};
use std::time::Duration;
use tests::builder::Builder;
use tests::scratch::Scratch;
use tests::slipway::Slipway;

pub fn measure(table: &mut Table) {
    let mut context = Context::new();
    let dockerfile = context.dockerfile();
    let flags = ["-f", &dockerfile, "-t", "bench"];
    let mut cold = Vec::new();
    let mut last = None;
    for _ in 0..TIMES {
        drop(last.take());
        let sides = Sides::fresh();
        cold.push(sides.time(&flags, &context.path()));
        last = Some(sides);
    }
    let sides = last.expect("measured more than once");
    let unchanged = (0..TIMES).map(|_| sides.time(&flags, &context.path())).collect();
    let mut changed = Vec::new();
    for _ in 0..TIMES {
        context.change();
        changed.push(sides.time(&flags, &context.path()));
    }
    let differences = sides.differences("bench");
    let mut add = |work: &str, times: Vec<(Duration, Duration)>, target| {
        let (ours, peer) = times.into_iter().unzip();
        let peer = Some((BUILDKIT.to_owned(), peer));
        let differences = differences.clone();
        table.add(Row { work: work.to_owned(), ours, peer, target, differences });
    };
    add("context of 20,000 files, 235 MB, cold", cold, Target::Ratio(3.0));
    add("the same, nothing changed", unchanged, Target::Ratio(3.0));
    add("the same, one file changed", changed, Target::Ratio(10.0));
    table.add(Row {
        work: "context of 100,000 files, nothing changed: the whole build".to_owned(),
        ours: many_files(),
        peer: None,
        target: Target::Within(Duration::from_secs(1)),
        differences: String::new(),
    });
}

/// How long builds take whose many small files are those of the build before.
fn many_files() -> Vec<Duration> {
    let context = Scratch::new("bench-many-files");
    for directory in 0..1000 {
        let path = context.directory(&format!("files/d{directory}"));
        for file in 0..100 {
            let text = format!("file {file} of directory {directory}\n");
            std::fs::write(path.join(file.to_string()), text).expect("writing");
        }
    }
    context.write("files/Dockerfile", "FROM scratch\nCOPY . /\n");
    let builder = Builder::Slipway(Slipway::new());
    let build = || {
        settle();
        builder.build(&["-o", "type=cacheonly"], &context.join("files")).ok().took
    };
    build();
    (0..TIMES).map(|_| build()).collect()
}
