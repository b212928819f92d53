//! What raft has ready: kept, sent and applied, in this order.

use super::id::{EntryId, NodeId};
use super::membership::Membership;
use super::output::Output;
use super::replica::Applied;
use super::store::{Durability, Write};
use super::{Driver, DriverError, Machine, Out, Store};
use prost::Message as _;
use raft::Ready;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};

impl<S: Store, M: Machine> Driver<S, M> {
    /// One round. Raft must not be told anything between `ready` and `advance_append`, but for
    /// changes of members that are applied.
    pub(super) fn cycle(&mut self, out: Out<'_>) -> Result<(), DriverError> {
        let mut ready = self.raw.ready();
        // A leader's entries travel while its own disk writes them.
        self.send(ready.take_messages(), out);
        self.restore(&ready)?;
        self.keep(&ready)?;
        if !ready.snapshot().is_empty() {
            out(Output::Applied(self.replica.index()));
        }
        // These promise what has just been kept: votes, entries, a snapshot.
        self.send(ready.take_persisted_messages(), out);
        self.reads.confirm(ready.take_read_states());
        self.apply(ready.take_committed_entries(), out)?;
        let mut light = self.raw.advance_append(ready);
        self.send(light.take_messages(), out);
        self.apply(light.take_committed_entries(), out)?;
        self.raw.advance_apply();
        self.reads.applied(self.replica.index(), out);
        Ok(())
    }

    /// The machine takes over a snapshot from the leader. Before the store does: what can't be
    /// restored must not be what the next start finds.
    fn restore(&mut self, ready: &Ready) -> Result<(), DriverError> {
        let snapshot = ready.snapshot();
        if snapshot.is_empty() {
            return Ok(());
        }
        let index = snapshot.get_metadata().index;
        self.replica.restore(snapshot).map_err(|error| DriverError::Restore { index, error })
    }

    /// The store takes what is to survive, with one sync.
    fn keep(&mut self, ready: &Ready) -> Result<(), DriverError> {
        let snapshot = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty());
        if snapshot.is_none() && ready.entries().is_empty() && ready.hs().is_none() {
            return Ok(());
        }
        let durability = match ready.must_sync() {
            true => Durability::Synced,
            false => Durability::Lazy,
        };
        // How far the log is committed goes along even when only entries are new: a member must not
        // forget a change of members that it had seen committed when it took later entries.
        let hard = &self.raw.raft.hard_state();
        let write = Write { snapshot, entries: ready.entries(), hard, durability };
        self.raw.mut_store().store.write(&write)?;
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>, out: Out<'_>) {
        for message in messages {
            let Some(to) = NodeId::new(message.to) else { continue };
            let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let message = message.encode_to_vec();
            if snapshot {
                self.snapshots.insert(to, 0);
                out(Output::SendSnapshot { to, message });
            } else {
                out(Output::Send { to, message });
            }
        }
    }

    /// Applies committed entries, and answers those who waited for them.
    fn apply(&mut self, entries: Vec<Entry>, out: Out<'_>) -> Result<(), DriverError> {
        let about_members = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        for run in entries.chunk_by(|a, b| about_members(a) == about_members(b)) {
            if run.first().is_some_and(about_members) {
                run.iter().try_for_each(|entry| self.apply_change(entry, out))?;
            } else {
                self.apply_run(run, out)?;
            }
        }
        Ok(())
    }

    fn apply_run(&mut self, run: &[Entry], out: Out<'_>) -> Result<(), DriverError> {
        let applied = self.replica.apply(run).map_err(|_| {
            let index = self.replica.index() + 1;
            DriverError::Version { index }
        })?;
        out(Output::Applied(self.replica.index()));
        for (entry, applied) in run.iter().zip(applied) {
            match applied {
                Applied::Nothing => {}
                Applied::Entry(id) => self.proposals.applied(id, entry.index, out),
                Applied::Refused(id) => self.proposals.refused(id, out),
            }
        }
        Ok(())
    }

    /// Members change when the entry is applied, here and everywhere.
    fn apply_change(&mut self, entry: &Entry, out: Out<'_>) -> Result<(), DriverError> {
        self.replica.pass(entry);
        out(Output::Applied(entry.index));
        let unreadable = DriverError::Version { index: entry.index };
        let Ok(change) = ConfChangeV2::decode(entry.data.as_slice()) else {
            return Err(unreadable);
        };
        // Nobody here proposes a change of the older kind.
        if entry.get_entry_type() != EntryType::EntryConfChangeV2 {
            return Err(unreadable);
        }
        self.step_down_before(&change);
        let id = EntryId::from_bytes(&entry.context);
        match self.raw.apply_conf_change(&change) {
            Ok(state) => {
                let members = Membership::of(&state);
                self.replica.set_members(members.all());
                self.proposals.changed(id, Ok(&members), out);
            }
            // All members find the same: the change makes no sense and changes nothing.
            Err(_) => self.proposals.changed(id, Err(()), out),
        }
        Ok(())
    }
}
