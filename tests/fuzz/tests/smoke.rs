//! Every target with a few thousand inputs, the same ones each time.

use fuzz::{run, target};

const EXECUTIONS: u64 = 3000;

#[track_caller]
fn smoke(name: &str) {
    let target = target::named(name).expect("a target");
    let seeds = target.seeds().len() as u64;
    let good = run(target, 0..seeds, |_| true).unwrap_or_else(|finding| panic!("{finding}"));
    assert!(good.accepted > 0, "no seed is accepted: the target reads nothing");
    let report = run(target, 0..EXECUTIONS, |_| true).unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(report.executions, EXECUTIONS);
    let refused = report.executions - report.accepted;
    assert!(refused > 0 && report.accepted > good.accepted, "{report:?}");
}

#[test]
fn dockerfile() {
    smoke("dockerfile");
}

#[test]
fn expand() {
    smoke("expand");
}

#[test]
fn ignore() {
    smoke("ignore");
}

#[test]
fn tree() {
    smoke("tree");
}

#[test]
fn frames() {
    smoke("frames");
}

#[test]
fn layer() {
    smoke("layer");
}

#[test]
fn every_target_is_smoked() {
    let names: Vec<&str> = target::ALL.iter().map(|target| target.name()).collect();
    assert_eq!(names, ["dockerfile", "expand", "ignore", "tree", "frames", "layer"]);
}
