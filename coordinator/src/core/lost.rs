//! Results that are gone: they are made again, and what was found above them is looked at once more.

use super::work::{Made, Phase, RootPhase};
use super::{Core, Notice, Trouble, Turn, WorkId};
use proto::error::{Class, Failure};
use proto::id::{BuildId, RootId};
use proto::limit;
use proto::step::Op;
use std::collections::BTreeSet;

/// How far back it goes when something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewound {
    /// To all that the row came from: any of it may be what is lost.
    WithInputs,
    /// To the row's own result.
    Alone,
}

impl Core {
    /// Work could not go on: it failed, or something that it needs is gone.
    pub(super) fn trouble(&mut self, turn: &mut Turn<'_>, id: WorkId, trouble: Trouble) {
        let (what, of) = match trouble {
            Trouble::Failed(failure) => return self.fail(turn, id, failure),
            Trouble::Lost(what) => (what, Rewound::WithInputs),
            Trouble::Gone(what) => (what, Rewound::Alone),
        };
        let Some(work) = self.works.get_mut(&id) else { return };
        work.lost += 1;
        if work.lost > limit::REWINDS_MAX {
            let message = format!("{what}, again after {} new attempts", limit::REWINDS_MAX);
            let failure = Failure::new(Class::Corrupt, message)
                .hint("Run `slipway cache verify` to find out what is damaged.");
            return self.fail(turn, id, failure);
        }
        let steps = self.rewind(id, of);
        let doubted = self.doubt(&steps);
        turn.agenda.extend(steps.iter().chain(&doubted).copied());
        for step in steps {
            self.notify(turn, step, &Notice::Again(what.clone()));
        }
    }

    /// Forgets a row's result, and those that it came from where one of them is at fault, so that
    /// they are made again.
    fn rewind(&mut self, id: WorkId, of: Rewound) -> Vec<WorkId> {
        let (mut next, mut seen) = (vec![id], BTreeSet::new());
        while let Some(at) = next.pop() {
            let Some(work) = self.works.get_mut(&at).filter(|_| seen.insert(at)) else { continue };
            match &work.phase {
                Phase::Done(_) | Phase::Evaluating | Phase::Recording(_) | Phase::Blocked => {
                    work.alias = None;
                    work.root = RootPhase::Unknown;
                    work.lost = work.lost.max(1);
                    work.phase = Phase::Idle;
                    match of {
                        Rewound::WithInputs => next.extend(&work.inputs),
                        // Its layers are another row's.
                        Rewound::Alone if matches!(work.op(), Op::Merge) => {
                            next.extend(work.inputs.get(1));
                        }
                        Rewound::Alone => {}
                    }
                }
                _ => {}
            }
        }
        seen.iter().for_each(|id| self.drop_content(*id));
        seen.into_iter().collect()
    }

    /// Looks again at the rows above some that are made again: what comes out of those may be
    /// something else. Where it is the same, the records are found by content.
    fn doubt(&mut self, again: &[WorkId]) -> Vec<WorkId> {
        let mut changed: BTreeSet<WorkId> = again.iter().copied().collect();
        let mut doubted = Vec::new();
        // Inputs have lower numbers than those that use them.
        for (id, work) in &self.works {
            let is_above = work.inputs.iter().any(|input| changed.contains(input));
            let is_done = matches!(work.phase, Phase::Done(_)) && !changed.contains(id);
            if is_above && is_done && work.wanted.keys().any(|build| self.lives(build)) {
                changed.insert(*id);
                doubted.push(*id);
            }
        }
        for id in &doubted {
            let work = self.works.get_mut(id).expect("just seen");
            (work.alias, work.root, work.phase) = (None, RootPhase::Unknown, Phase::Idle);
            self.drop_content(*id);
        }
        doubted
    }

    /// A build that was ready is not: some of its layers are gone.
    pub(super) fn lost(
        &mut self,
        turn: &mut Turn<'_>,
        build: &BuildId,
        layers: &[RootId],
        what: &str,
    ) {
        let Some(b) = self.builds.get_mut(build) else { return };
        b.over = false;
        turn.builds.insert(build.clone());
        let is_lost = |made: &Made| made.layers.iter().any(|layer| layers.contains(layer));
        let rows = b.works.iter().filter(|id| self.works[id].made().is_some_and(is_lost));
        for id in rows.copied().collect::<BTreeSet<WorkId>>() {
            self.trouble(turn, id, Trouble::Gone(what.to_owned()));
        }
    }
}
