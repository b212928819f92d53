//! What is always true of the core. Called after every event in simulation.

use super::work::{Phase, RootPhase};
use super::{Core, WorkId};
use std::collections::BTreeMap;

impl Core {
    /// Checks everything that must hold; answers what does not.
    pub fn broken_invariants(&self) -> Vec<String> {
        let mut broken = Vec::new();
        self.invariant_leases_have_live_workers(&mut broken);
        self.invariant_one_live_lease_per_content(&mut broken);
        self.invariant_placed_is_what_is_leased(&mut broken);
        self.invariant_rows_belong_to_builds(&mut broken);
        self.invariant_followers_have_leaders(&mut broken);
        broken
    }

    /// Each lease is held by a worker that is there, for a row that says so.
    fn invariant_leases_have_live_workers(&self, broken: &mut Vec<String>) {
        for (epoch, id) in &self.leases {
            match self.works.get(id).map(|w| &w.phase) {
                Some(Phase::Leased(_, e, worker)) if e == epoch => {
                    if !self.workers.contains(worker) {
                        broken.push(format!("lease {epoch} is held by the lost worker {worker}"));
                    }
                }
                other => broken.push(format!("lease {epoch} is for {id:?}, which is {other:?}")),
            }
        }
        for (id, work) in &self.works {
            if let Phase::Leased(_, epoch, _) = &work.phase
                && self.leases.get(epoch) != Some(id)
            {
                broken.push(format!("{id:?} has the lease {epoch}, which is not its own"));
            }
        }
    }

    /// No content is worked on twice, but for what is made anew on purpose.
    fn invariant_one_live_lease_per_content(&self, broken: &mut Vec<String>) {
        let mut seen: BTreeMap<_, WorkId> = BTreeMap::new();
        for (id, work) in &self.works {
            let Phase::Leased(job, ..) = &work.phase else { continue };
            if work.refresh() {
                continue;
            }
            if let Some(other) = seen.insert((work.plan.scope.clone(), job.key), *id) {
                broken.push(format!("{id:?} and {other:?} work on the same content"));
            }
        }
    }

    /// What the placer has assigned is leased to whom it says, and what waits in it is ready.
    fn invariant_placed_is_what_is_leased(&self, broken: &mut Vec<String>) {
        broken.extend(self.placer.broken_invariants());
        let mut known = 0;
        for (id, work) in &self.works {
            let placed = (self.placer.waits_since(*id).is_some(), self.placer.assigned(*id));
            let expected = match &work.phase {
                // A worker that has not come back makes it already.
                Phase::Ready(job) if self.orphans.find(&work.plan.scope, job.key).is_some() => {
                    (false, None)
                }
                // What nobody wants any more may still have been looked at.
                Phase::Ready(_) => (self.beneficiary(*id).is_some(), None),
                Phase::Leased(_, _, worker) => (false, Some(worker)),
                _ => (false, None),
            };
            known += usize::from(expected != (false, None));
            if placed != expected {
                broken.push(format!("{id:?} is placed as {placed:?}, not {expected:?}"));
            }
        }
        if known != self.placer.len() {
            broken.push(format!("{} rows are placed, of {known}", self.placer.len()));
        }
    }

    /// Each row is in a build's graph, and only builds that it is in want it.
    fn invariant_rows_belong_to_builds(&self, broken: &mut Vec<String>) {
        for (id, work) in &self.works {
            if work.members.is_empty() {
                broken.push(format!("{id:?} is in no build"));
            }
            for build in work.wanted.keys() {
                if !work.members.contains_key(build) {
                    broken.push(format!("{id:?} is wanted by {build}, which it is not in"));
                }
            }
            if matches!(work.phase, Phase::Done(_)) && work.want().is_none() {
                continue;
            }
            if work.root != RootPhase::Unknown && matches!(work.phase, Phase::Idle) {
                broken.push(format!("{id:?} has a root before it began"));
            }
        }
    }

    /// Whoever follows is known to its leader, which is under way.
    fn invariant_followers_have_leaders(&self, broken: &mut Vec<String>) {
        for (id, work) in &self.works {
            let Phase::Follows(leader) = &work.phase else { continue };
            match self.works.get(leader) {
                None => broken.push(format!("{id:?} follows {leader:?}, which is gone")),
                Some(leading) if !leading.followers.contains(id) => {
                    broken.push(format!("{leader:?} does not know its follower {id:?}"));
                }
                Some(_) => {}
            }
        }
    }
}
