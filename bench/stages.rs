//! A Dockerfile of 5,000 stages. A build of which nothing changed parses, lowers, keys and looks up.

use crate::side::{settle, slipway};
use crate::table::{Row, TIMES, Table, Target};
use std::time::Duration;
use tests::builder::Builder;
use tests::scratch::Scratch;
use tests::slipway::Slipway;

const STAGES: usize = 5_000;

pub fn measure(table: &mut Table) {
    let context = Scratch::new("bench-stages");
    context.write("file", "content\n");
    let mut text = "FROM scratch AS s0\nCOPY file /f\n".to_owned();
    for stage in 1..STAGES {
        let before = stage - 1;
        text += &format!(
            "FROM scratch AS s{stage}\nCOPY --from=s{before} /f /f\nLABEL stage={stage}\n"
        );
    }
    context.write("Dockerfile", text);
    let builder = Builder::Slipway(Slipway::new());
    slipway(&builder).run(&["images"]).ok();
    let build = || {
        settle();
        builder.build(&["-o", "type=cacheonly"], context.path()).ok().took
    };
    let cold = build();
    let ours = (0..TIMES).map(|_| build()).collect();
    table.add(Row {
        work: "5,000 stages, nothing changed: the whole command".to_owned(),
        ours,
        peer: None,
        target: Target::Within(Duration::from_secs(1)),
        differences: String::new(),
    });
    table.note(format!("The same 5,000 stages for the first time: {}.", crate::table::show(cold)));
}
