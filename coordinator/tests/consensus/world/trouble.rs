//! What goes wrong with machines and lines.

use super::{TICK, World};
use crate::disk::Honesty;
use coordinator::raft::NodeId;

/// What goes wrong, in parts of a thousand for each step or message, and who cheats.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub loss: u64,
    pub repeat: u64,
    /// Steps that a message takes at most.
    pub delay: u64,
    pub crash: u64,
    /// Crashes in the middle of a write.
    pub fail: u64,
    pub stall: u64,
    pub cut: u64,
    pub heal: u64,
    pub resign: u64,
    pub honesty: Honesty,
    /// Reads are answered by whoever believes to lead.
    pub reads_at_once: bool,
    /// What may have happened is proposed again as something new.
    pub forgets_ids: bool,
}

impl Faults {
    /// A network and machines that do what they should.
    pub const NONE: Self = Self {
        loss: 0,
        repeat: 0,
        delay: 3,
        crash: 0,
        fail: 0,
        stall: 0,
        cut: 0,
        heal: 1000,
        resign: 0,
        honesty: Honesty::Honest,
        reads_at_once: false,
        forgets_ids: false,
    };
}

impl World {
    pub(super) fn trouble(&mut self) {
        let faults = self.faults;
        for at in 0..self.nodes.len() {
            if self.nodes[at].up.is_none() || self.nodes[at].idle_until > self.now {
                continue;
            }
            if self.chance.happens(faults.crash) && self.chance.happens(100) {
                self.crash(at);
            } else if self.chance.happens(faults.fail) && self.chance.happens(100) {
                let writes = self.chance.below(4);
                self.nodes[at].disk.fail_in(writes);
            } else if self.chance.happens(faults.stall) && self.chance.happens(100) {
                let (id, until) = (self.nodes[at].id, self.now + self.chance.below(40 * TICK));
                self.nodes[at].idle_until = until;
                self.note(format_args!("{id} stalls until {until}"));
            } else if self.chance.happens(faults.resign)
                && self.chance.happens(100)
                && let Some(up) = &mut self.nodes[at].up
            {
                up.driver.resign();
            }
        }
        if self.chance.happens(faults.cut) && self.chance.happens(100) {
            self.cut();
        }
        if !self.cuts.is_empty() && self.chance.happens(faults.heal) && self.chance.happens(100) {
            self.note(format_args!("all is connected"));
            self.cuts.clear();
        }
    }

    /// One node hears nobody, is heard by nobody, or both.
    fn cut(&mut self) {
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let Some(lonely) = self.chance.one_of(&ids).copied() else { return };
        let way = self.chance.below(3);
        self.note(format_args!("{lonely} is cut off, way {way}"));
        for other in ids.into_iter().filter(|id| *id != lonely) {
            if way != 1 {
                self.cuts.insert((lonely, other));
            }
            if way != 0 {
                self.cuts.insert((other, lonely));
            }
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        let unsynced = self.nodes[at].disk.unsynced();
        let survive = self.chance.below(unsynced as u64 + 1) as usize;
        self.counts.crashes += 1;
        self.counts.unsynced_lost += unsynced - survive;
        let idle = if self.chance.happens(500) { 4 } else { 60 * TICK };
        let idle = self.chance.below(idle);
        let node = &mut self.nodes[at];
        let id = node.id;
        node.disk.crash(survive);
        node.up = None;
        node.idle_until = self.now + 1 + idle;
        // Its clients are gone with it.
        self.asked.retain(|(node, _), _| *node != id);
        self.note(format_args!("{id} crashes, {survive} of {unsynced} writes survive"));
    }
}
