//! A large context: never seen, unchanged, and with one file changed.

use crate::context::Context;
use crate::side::{BUILDKIT, Sides};
use crate::table::{Row, TIMES, Table, Target};
use std::time::Duration;

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
}
