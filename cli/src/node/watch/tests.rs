//! The page about metrics and what is served say the same.

use super::*;
use coordinator::server::Tally;
use std::collections::{BTreeMap, BTreeSet};
use worker::agent::Tally as WorkerTally;

/// A metric: its type, and for each label the values.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// What a process with all roles serves, as names that one asks Prometheus for.
fn served() -> BTreeMap<String, Metric> {
    let mut metrics = Metrics::new(&[Role::Coordinator, Role::Cache, Role::Worker]);
    Tally::default().register(&mut metrics.registry);
    WorkerTally::default().register(&mut metrics.registry);
    let mut text = String::new();
    encode(&mut text, &metrics.registry).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            name = format!("{family}{suffix}");
            let new = Metric { kind: kind.to_owned(), ..Metric::default() };
            assert!(all.insert(name.clone(), new).is_none(), "{name} is there twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&name), "{line} is not of {name}");
            let metric = all.get_mut(&name).unwrap();
            for (label, value) in labels(line).into_iter().filter(|(label, _)| label != "le") {
                metric.labels.entry(label).or_default().insert(value);
            }
        }
    }
    all
}

/// The labels of a sample; no value of ours has a comma or a quotation mark.
fn labels(line: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    let inner = rest.split_once('}').unwrap().0;
    let parts = inner.split(',').filter_map(|part| part.split_once('='));
    parts.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// What the page says: rows of tables as `| name | type | labels | meaning |`, and labels as
/// `label: value value; label: …`.
fn documented() -> BTreeMap<String, Metric> {
    let page = include_str!("../../../../docs/metrics.md");
    let mut all = BTreeMap::new();
    let is_row = |line: &&str| line.starts_with("| `") && !line.starts_with("| `/");
    for line in page.lines().filter(is_row) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("{line}: four cells") };
        assert!(!meaning.is_empty(), "{line}");
        let name = name.trim_matches('`').to_owned();
        let mut metric = Metric { kind: kind.to_owned(), ..Metric::default() };
        for part in labels.split(';').filter(|part| !part.trim().is_empty()) {
            let (label, values) = part.split_once(':').expect(line);
            let values = values.split_whitespace().map(|v| v.trim_matches('`').to_owned());
            metric.labels.insert(label.trim().trim_matches('`').to_owned(), values.collect());
        }
        assert!(all.insert(name.clone(), metric).is_none(), "{name} is there twice");
    }
    all
}

#[test]
fn the_page_and_what_is_served_name_the_same_metrics() {
    let (served, mut documented) = (served(), documented());
    // The version is no fixed word.
    let info = documented.get_mut("slipway_info").expect("it is on the page");
    info.labels = BTreeMap::from([(
        "version".to_owned(),
        BTreeSet::from([env!("CARGO_PKG_VERSION").to_owned()]),
    )]);
    for (name, metric) in &served {
        assert_eq!(documented.get(name), Some(metric), "{name} in docs/metrics.md");
    }
    let gone: Vec<&String> = documented.keys().filter(|n| !served.contains_key(*n)).collect();
    assert!(gone.is_empty(), "docs/metrics.md names what is not served: {gone:?}");
}

#[test]
fn a_process_tells_only_of_the_roles_that_it_has() {
    let mut text = String::new();
    encode(&mut text, &Metrics::new(&[Role::Coordinator]).registry).unwrap();
    assert!(text.contains("slipway_cache_nodes") && !text.contains("slipway_store"), "{text}");
    let mut text = String::new();
    encode(&mut text, &Metrics::new(&[Role::Worker]).registry).unwrap();
    assert!(!text.contains("slipway_cache_nodes"), "{text}");
    assert!(text.contains("slipway_store_held_bytes{store=\"worker\"} 0"), "{text}");
    assert!(!text.contains("store=\"cache\""), "{text}");
}
