//! Messages on their way.

use super::{World, guarded};
use crate::oracle::Violation;
use coordinator::raft::NodeId;
use coordinator::raft::driver::inbound;

pub(super) enum Packet {
    Message(Vec<u8>),
    Snapshot(Vec<u8>),
    /// For the sender of a snapshot: whether it arrived.
    Report(bool),
    Unreachable,
}

impl World {
    pub(super) fn deliver(&mut self, at: usize) -> Result<(), Violation> {
        let id = self.nodes[at].id;
        let due = |(key, (_, to, _)): (&(u64, u64), &(NodeId, NodeId, Packet))| {
            (key.0 <= self.now && *to == id).then_some(*key)
        };
        let due: Vec<(u64, u64)> = self.wire.iter().filter_map(due).collect();
        for key in due {
            let Some((from, _, packet)) = self.wire.remove(&key) else { continue };
            let Some(up) = &mut self.nodes[at].up else { return Ok(()) };
            let (bytes, snapshot) = match packet {
                Packet::Message(bytes) => (bytes, false),
                Packet::Snapshot(bytes) => (bytes, true),
                Packet::Report(arrived) => {
                    up.driver.snapshot_sent(from, arrived);
                    continue;
                }
                Packet::Unreachable => {
                    up.driver.unreachable(from);
                    continue;
                }
            };
            let message = inbound::check(id, from, &bytes).expect("members send what makes sense");
            guarded(|| up.driver.receive(message))?.expect("and raft takes it");
            if snapshot {
                self.counts.snapshots += 1;
                self.post(id, from, Packet::Report(true));
            }
        }
        Ok(())
    }

    /// Puts a packet on the way, or not.
    pub(super) fn post(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let cut = self.cuts.contains(&(from, to)) || self.at(to).is_none();
        if cut || self.chance.happens(self.faults.loss) {
            let report = match packet {
                Packet::Snapshot(_) => Some(Packet::Report(false)),
                Packet::Message(_) if self.chance.happens(200) => Some(Packet::Unreachable),
                _ => None,
            };
            // As the sender's own network would tell it, most of the time.
            if let Some(report) = report
                && !self.chance.happens(100)
            {
                self.schedule(to, from, report);
            }
            return;
        }
        if let Packet::Message(bytes) = &packet
            && self.chance.happens(self.faults.repeat)
        {
            self.schedule(from, to, Packet::Message(bytes.clone()));
        }
        self.schedule(from, to, packet);
    }

    fn schedule(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        // A few take much longer than others.
        let slow = if self.chance.happens(50) { 20 } else { 1 };
        let due = self.now + 1 + self.chance.below(self.faults.delay * slow);
        let key = (due, self.number());
        self.wire.insert(key, (from, to, packet));
    }
}
