//! The corpus of `tests/conformance`, by the command line, against a real registry.

use std::collections::BTreeMap;
use tests::corpus::{self, Case, Status};
use tests::registry::Registry;
use tests::roles::Roles;
use tests::site::Site;
use tests::slipway::Slipway;

#[test]
fn the_corpus_passes() {
    let site = Site::new();
    assert_passes(&site.slipway, &site.registry);
    site.slipway.assert_store_intact();
}

#[test]
fn the_corpus_passes_on_two_workers() {
    let registry = corpus::registry();
    let mut farm = Roles::new(&registry, 2);
    assert_passes(&farm.client, &registry);
    farm.operate(&["cache", "verify"]).ok();
    farm.stop();
}

fn assert_passes(slipway: &Slipway, registry: &Registry) {
    let (cases, outcome) = corpus::run_all(slipway, registry, 4);
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, corpus::names(), "each case runs once\n{outcome}");
    let failed: Vec<&Case> = cases.iter().filter(|case| case.status != Status::Pass).collect();
    for case in &failed {
        println!("{:?} {}: {}", case.status, case.name, case.differences.join("; "));
    }
    println!("{}", by_group(&cases));
    let skipped = failed.iter().filter(|case| case.status == Status::Skip).count();
    assert_eq!(skipped, 0, "this machine lacks what some cases need");
    assert!(failed.is_empty(), "{} of {} fail", failed.len(), cases.len());
}

/// A line for each group: how many of its cases pass, and how long they took.
fn by_group(cases: &[Case]) -> String {
    let mut groups: BTreeMap<&str, (usize, usize, f64)> = BTreeMap::new();
    for case in cases {
        for name in [case.group(), "~ all"] {
            let group = groups.entry(name).or_default();
            group.0 += usize::from(case.status == Status::Pass);
            group.1 += 1;
            group.2 += case.seconds;
        }
    }
    let line = |(name, (passed, all, seconds)): (&&str, &(usize, usize, f64))| {
        format!("{:<14} {passed:>4} of {all:>4}  {seconds:>7.1} s", name.trim_start_matches("~ "))
    };
    groups.iter().map(line).collect::<Vec<_>>().join("\n")
}
