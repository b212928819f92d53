//! Slipway and another builder side by side.

use super::case::Case;
use super::peer::{Language, Peer};
use crate::corpus::{self, Runner, Status};
use crate::registry::Registry;
use crate::scratch::Scratch;
use crate::slipway::Slipway;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// How what Slipway made of a case differs from what the peer made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(pub Vec<String>);

impl Difference {
    /// What differs first: the outcome, the tree, the config or the history.
    pub fn kind(&self) -> &str {
        self.0.first().and_then(|line| line.split([' ', ':', '[']).next()).unwrap_or_default()
    }
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Both built the same image.
    Built,
    /// Neither could build it.
    Refused,
    /// Slipway does otherwise than the peer.
    Different(Difference),
}

/// Both builders, and the registry that they take base images from.
#[derive(Debug)]
pub struct Pair {
    slipway: Slipway,
    peer: Peer,
    registry: Registry,
    jobs: usize,
}

impl Pair {
    /// Slipway with a farm of its own beside this peer; so many builds at once.
    pub fn new(peer: Peer, jobs: usize) -> Self {
        Self { slipway: Slipway::new(), peer, registry: corpus::registry(), jobs }
    }

    /// What the peer understands.
    pub fn language(&self) -> Language {
        self.peer.language()
    }

    /// What comes of each case.
    ///
    /// # Panics
    ///
    /// When the runner could not make a case's context, or the peer did not come to an end.
    #[track_caller]
    pub fn compare(&self, cases: &[Case]) -> Vec<Verdict> {
        let scratch = Scratch::new("cases");
        for (number, case) in cases.iter().enumerate() {
            case.write(&scratch.join(format!("random/{number:06}")), "made from a seed");
        }
        let recorded = self.run(self.peer.builder(), scratch.path(), true);
        let wrong: Vec<_> =
            recorded.iter().filter(|(_, case)| case.status != Status::Pass).collect();
        assert!(wrong.is_empty(), "not recorded from the peer: {wrong:#?}");
        let build = self.slipway.command(&["build"]);
        let found = self.run(&build, scratch.path(), false);
        assert_eq!(found.len(), cases.len(), "each case runs once");
        let verdict = |case: corpus::Case| match case.status {
            Status::Fail | Status::Skip => Verdict::Different(Difference(case.differences)),
            Status::Pass if scratch.join(&case.name).join("expected/tree.json").exists() => {
                Verdict::Built
            }
            Status::Pass => Verdict::Refused,
        };
        found.into_values().map(verdict).collect()
    }

    fn run(&self, builder: &Command, cases: &Path, record: bool) -> BTreeMap<String, corpus::Case> {
        let (registry, jobs) = (&self.registry, self.jobs);
        let compare = match self.language() {
            Language::Full => None,
            // The history has other words.
            Language::Classic | Language::Common => Some("tree,config"),
        };
        let runner = Runner { builder, registry, jobs, cases, compare, record };
        let (cases, _) = runner.run();
        cases.into_iter().map(|case| (case.name.clone(), case)).collect()
    }

    /// Ends Slipway's farm; its store must be whole.
    pub fn stop(self) {
        self.slipway.assert_store_intact();
    }
}
