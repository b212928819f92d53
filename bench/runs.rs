//! Steps that do nothing: what a step costs by itself.

use crate::side::{BUILDKIT, Sides};
use crate::table::{Row, TIMES, Table, Target};
use tests::scratch::Scratch;

const STEPS: usize = 20;

pub fn measure(table: &mut Table) {
    let sides = Sides::fresh();
    let context = Scratch::new("bench-runs");
    let write = |nonce: usize| {
        let steps: String = (0..STEPS).map(|step| format!("RUN : {nonce}.{step}\n")).collect();
        context.write("Dockerfile", format!("FROM alpine\n{steps}"));
    };
    let build = || sides.time(&["-t", "bench"], context.path());
    // Both have the base image, and have run something.
    write(0);
    build();
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for nonce in 1..=TIMES {
        write(nonce);
        cold.push(build());
        warm.extend([build(), build()]);
    }
    let differences = sides.differences("bench");
    let mut add = |work: &str, times: Vec<_>, target| {
        let (ours, peer) = times.into_iter().unzip();
        let peer = Some((BUILDKIT.to_owned(), peer));
        let differences = differences.clone();
        table.add(Row { work: work.to_owned(), ours, peer, target, differences });
    };
    add("nothing changed, 20 RUN steps", warm, Target::Ratio(2.0));
    add("20 RUN steps that do nothing, cold", cold, Target::Ratio(3.0));
}
