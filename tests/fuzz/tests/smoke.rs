//! Every target with a few thousand inputs, the same ones each time.

use fuzz::{run, target};

const EXECUTIONS: u64 = 3000;

/// Layers are read by several threads each: that many are enough of them.
const LAYERS: u64 = 500;

#[track_caller]
fn smoke(name: &str, executions: u64) {
    let target = target::named(name).expect("a target");
    let seeds = target.seeds().len() as u64;
    let good = run(target, 0..seeds, |_| true).unwrap_or_else(|finding| panic!("{finding}"));
    assert!(good.accepted > 0, "no seed is accepted: the target reads nothing");
    let report = run(target, 0..executions, |_| true).unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(report.executions, executions);
    let refused = report.executions - report.accepted;
    assert!(refused > 0 && report.accepted > good.accepted, "{report:?}");
}

#[test]
fn dockerfile() {
    smoke("dockerfile", EXECUTIONS);
}

#[test]
fn expand() {
    smoke("expand", EXECUTIONS);
}

#[test]
fn ignore() {
    smoke("ignore", EXECUTIONS);
}

#[test]
fn tree() {
    smoke("tree", EXECUTIONS);
}

#[test]
fn frames() {
    smoke("frames", EXECUTIONS);
}

#[test]
fn layer() {
    smoke("layer", LAYERS);
}

#[test]
fn chunks() {
    smoke("chunks", EXECUTIONS);
}

#[test]
fn cache() {
    smoke("cache", LAYERS);
}

#[test]
fn every_target_is_smoked() {
    let names: Vec<&str> = target::ALL.iter().map(|target| target.name()).collect();
    let smoked = ["dockerfile", "expand", "ignore", "tree", "frames", "layer", "chunks", "cache"];
    assert_eq!(names, smoked);
}
