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
        self.invariant_slots_are_not_overdrawn(&mut broken);
        self.invariant_rows_belong_to_builds(&mut broken);
        self.invariant_followers_have_leaders(&mut broken);
        broken
    }

    /// Each lease is held by a worker that is there, for a row that says so.
    fn invariant_leases_have_live_workers(&self, broken: &mut Vec<String>) {
        for (epoch, id) in &self.leases {
            match self.works.get(id).map(|w| &w.phase) {
                Some(Phase::Leased(_, e, worker)) if e == epoch => {
                    if !self.workers.contains_key(worker) {
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
            let Phase::Leased(todo, ..) = &work.phase else { continue };
            if work.refresh() {
                continue;
            }
            if let Some(other) = seen.insert((work.plan.scope.clone(), todo.key), *id) {
                broken.push(format!("{id:?} and {other:?} work on the same content"));
            }
        }
    }

    /// No worker has more RUNs than slots.
    fn invariant_slots_are_not_overdrawn(&self, broken: &mut Vec<String>) {
        let mut runs: BTreeMap<_, u32> = BTreeMap::new();
        for work in self.works.values().filter(|w| w.op().is_run()) {
            if let Phase::Leased(_, _, worker) = &work.phase {
                *runs.entry(worker).or_default() += 1;
            }
        }
        for (worker, runs) in runs {
            let slots = self.workers.get(worker).map_or(0, |w| w.slots);
            if runs > slots {
                broken.push(format!("{worker} has {runs} RUNs in {slots} slots"));
            }
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
