//! What a worker holds, as a table: leases under way and reports that wait to be taken note of.
//! Pure; the shell starts and stops what the table says.

use proto::id::LeaseEpoch;
use proto::wire::worker::{Lease, Report};
use std::collections::BTreeMap;

/// Leases under way, and reports.
#[derive(Debug)]
pub struct Table<H> {
    running: BTreeMap<LeaseEpoch, H>,
    reports: BTreeMap<LeaseEpoch, Report>,
}

impl<H> Default for Table<H> {
    fn default() -> Self {
        Self { running: BTreeMap::new(), reports: BTreeMap::new() }
    }
}

impl<H> Table<H> {
    /// Takes note of what is desired: forgets reports that the coordinator has, and answers what is
    /// to be started. `stop` is called for each lease under way that is not desired any more; it
    /// stays in the table until it has ended.
    /// What `keep` names goes on, and stays reported.
    pub fn desire(
        &mut self,
        leases: Vec<Lease>,
        keep: &[LeaseEpoch],
        mut stop: impl FnMut(&H),
    ) -> Vec<Lease> {
        let wanted = |epoch: &LeaseEpoch| {
            keep.contains(epoch) || leases.iter().any(|lease| lease.epoch == *epoch)
        };
        self.reports.retain(|epoch, _| wanted(epoch));
        for (epoch, handle) in &self.running {
            if !wanted(epoch) {
                stop(handle);
            }
        }
        let known = |lease: &Lease| {
            self.running.contains_key(&lease.epoch) || self.reports.contains_key(&lease.epoch)
        };
        leases.into_iter().filter(|lease| !known(lease)).collect()
    }

    /// A lease is under way.
    pub fn begin(&mut self, epoch: LeaseEpoch, handle: H) {
        self.running.insert(epoch, handle);
    }

    /// A lease has ended.
    pub fn end(&mut self, report: Report) {
        self.running.remove(&report.epoch);
        self.reports.insert(report.epoch, report);
    }

    /// The leases under way.
    pub fn running(&self) -> impl Iterator<Item = (&LeaseEpoch, &H)> {
        self.running.iter()
    }

    /// The reports that the coordinator may not have yet.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::{BuildId, OciDigest};
    use proto::platform::Platform;
    use proto::record::Cost;
    use proto::step::{HttpOp, Needs};
    use proto::wire::worker::{Outcome, Task};

    fn lease(epoch: u64) -> Lease {
        let digest = format!("sha256:{}", "a".repeat(64));
        let http = HttpOp {
            url: "http://x/".into(),
            name: "x".into(),
            checksum: None,
            resolved: OciDigest::parse(&digest).unwrap(),
            modified: None,
        };
        Lease {
            epoch: LeaseEpoch(epoch),
            build: BuildId::parse("0123456789abcdef").expect("a build's id"),
            task: Task::Http(http),
            needs: Needs::default(),
            platform: Platform::parse("linux/amd64").unwrap(),
            peers: Vec::new(),
        }
    }

    fn report(epoch: u64) -> Report {
        let cost = Cost::default();
        Report {
            epoch: LeaseEpoch(epoch),
            outcome: Outcome::Done(Vec::new()),
            cost,
            traffic: Default::default(),
        }
    }

    #[test]
    fn each_lease_is_started_once_and_reported_until_it_is_not_desired() {
        let mut table = Table::default();
        let started =
            table.desire(vec![lease(1), lease(2)], &[], |_: &u64| panic!("nothing to stop"));
        assert_eq!(started.len(), 2);
        table.begin(LeaseEpoch(1), 1);
        table.begin(LeaseEpoch(2), 2);
        let both = || vec![lease(1), lease(2)];
        assert!(table.desire(both(), &[], |_| panic!("nothing to stop")).is_empty());
        table.end(report(1));
        let both = || vec![lease(1), lease(2)];
        assert!(table.desire(both(), &[], |_| panic!("nothing to stop")).is_empty());
        assert_eq!(table.reports().count(), 1);
        let mut stopped = Vec::new();
        // A coordinator that remembers neither lease yet lets both be.
        let keep = [LeaseEpoch(1), LeaseEpoch(2)];
        assert!(table.desire(vec![], &keep, |_| panic!("nothing to stop")).is_empty());
        assert_eq!(table.reports().count(), 1);
        table.desire(vec![], &[], |handle| stopped.push(*handle));
        assert_eq!((stopped, table.reports().count(), table.running().count()), (vec![2], 0, 1));
    }
}
