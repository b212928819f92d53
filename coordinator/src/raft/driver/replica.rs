//! The state that the log has led to on one node: the machine, and what was applied already.

use super::id::{EntryId, NodeId};
use super::machine::{Machine, RestoreError, Shared};
use super::session::{Admission, Sessions};
use raft::eraftpb::{Entry, Snapshot, SnapshotMetadata};
use std::collections::BTreeSet;

/// The version of a snapshot's bytes.
const VERSION: u8 = 1;

/// What came of a committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// A leader began its term with it.
    Nothing,
    /// It is in the machine, now or since an earlier time.
    Entry(EntryId),
    /// It is not in the machine because of it; it may be from an earlier time.
    Refused(EntryId),
}

/// An entry that this version of the program can't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The applied state.
pub(super) struct Replica<M> {
    machine: Shared<M>,
    sessions: Sessions,
    /// The index of the last entry that was applied, and its term.
    index: u64,
    term: u64,
    /// How many entries and bytes were applied since the last snapshot.
    pub since_snapshot: (u64, u64),
}

impl<M: Machine> Replica<M> {
    /// The state of a machine that nothing was applied to.
    pub fn new(machine: Shared<M>) -> Self {
        let sessions = Sessions::default();
        Self { machine, sessions, index: 0, term: 0, since_snapshot: (0, 0) }
    }

    pub fn index(&self) -> u64 {
        self.index
    }

    /// Notes who is a member now.
    pub fn set_members(&mut self, members: BTreeSet<NodeId>) {
        self.sessions.set_members(members);
    }

    /// Notes that an entry was applied which is not for the machine.
    pub fn pass(&mut self, entry: &Entry) {
        (self.index, self.term) = (entry.index, entry.term);
        self.since_snapshot.0 += 1;
        self.since_snapshot.1 += entry.data.len() as u64;
    }

    /// Applies entries that are not about members, in order.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Vec<Applied>, Unreadable> {
        let machine = self.machine.clone();
        let mut machine = machine.write();
        let apply = |entry: &Entry| {
            let applied = self.admit(entry)?;
            if let Some(Admission::New) = applied.1 {
                machine.apply(entry.index, &entry.data);
            }
            self.pass(entry);
            Ok(applied.0)
        };
        entries.iter().map(apply).collect()
    }

    fn admit(&mut self, entry: &Entry) -> Result<(Applied, Option<Admission>), Unreadable> {
        if entry.context.is_empty() && entry.data.is_empty() {
            return Ok((Applied::Nothing, None));
        }
        let id = EntryId::from_bytes(&entry.context).ok_or(Unreadable)?;
        let admission = self.sessions.admit(id);
        let applied = match admission {
            Admission::New | Admission::Duplicate => Applied::Entry(id),
            Admission::Expired => Applied::Refused(id),
        };
        Ok((applied, Some(admission)))
    }

    /// The state as a snapshot: a byte of version, the sessions, the machine.
    pub fn snapshot(&mut self, members: raft::eraftpb::ConfState) -> Snapshot {
        let mut data = vec![VERSION];
        self.sessions.encode(&mut data);
        data.extend(self.machine.read(M::snapshot));
        let metadata =
            SnapshotMetadata { conf_state: Some(members), index: self.index, term: self.term };
        Snapshot { data, metadata: Some(metadata) }
    }

    /// Becomes what a snapshot was taken of. Without data it is that of a log which begins.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), RestoreError> {
        let metadata = snapshot.get_metadata();
        if !snapshot.data.is_empty() {
            let rest = snapshot.data.strip_prefix(&[VERSION]).ok_or_else(|| {
                RestoreError("another version of Slipway made it. Use that one".to_owned())
            })?;
            let cut_short = || RestoreError("it is cut short".to_owned());
            let (sessions, machine) = Sessions::decode(rest).ok_or_else(cut_short)?;
            self.machine.write().restore(machine)?;
            self.sessions = sessions;
        }
        self.set_members(super::Membership::of(metadata.get_conf_state()).all());
        (self.index, self.term) = (metadata.index, metadata.term);
        self.since_snapshot = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::Incarnation;
    use super::*;
    use raft::eraftpb::ConfState;

    /// Remembers all that it is given.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Tape(Vec<u8>);

    impl Machine for Tape {
        fn apply(&mut self, index: u64, entry: &[u8]) {
            self.0.push(index as u8);
            self.0.extend(entry);
        }

        fn snapshot(&self) -> Vec<u8> {
            self.0.clone()
        }

        fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
            self.0 = snapshot.to_vec();
            Ok(())
        }
    }

    fn id(number: u64) -> EntryId {
        EntryId { by: Incarnation { node: NodeId::new(1).unwrap(), boot: 1 }, number }
    }

    fn entry(index: u64, number: u64, data: &[u8]) -> Entry {
        let context = id(number).to_bytes();
        Entry { index, term: 3, data: data.to_vec(), context, ..Entry::default() }
    }

    fn replica() -> (Shared<Tape>, Replica<Tape>) {
        let machine = Shared::new(Tape::default());
        let mut replica = Replica::new(machine.clone());
        replica.set_members([NodeId::new(1).unwrap()].into());
        (machine, replica)
    }

    #[test]
    fn the_machine_sees_each_entry_once() {
        let (machine, mut replica) = replica();
        let entries = [
            Entry { index: 2, ..Entry::default() },
            entry(3, 1, b"a"),
            entry(4, 2, b""),
            entry(5, 1, b"a"),
            entry(6, 0, b"x"),
        ];
        let applied = replica.apply(&entries).unwrap();
        use Applied::{Entry as Done, Nothing, Refused};
        assert_eq!(applied, [Nothing, Done(id(1)), Done(id(2)), Done(id(1)), Refused(id(0))]);
        assert_eq!(machine.read(|tape| tape.0.clone()), [3, b'a', 4]);
        assert_eq!((replica.index(), replica.since_snapshot), (6, (5, 3)));
    }

    #[test]
    fn an_entry_of_another_version_is_not_passed_over() {
        let (machine, mut replica) = replica();
        let mut other = entry(2, 1, b"a");
        other.context[0] += 1;
        assert_eq!(replica.apply(&[other]), Err(Unreadable));
        let other = Entry { index: 2, data: b"a".to_vec(), ..Entry::default() };
        assert_eq!(replica.apply(&[other]), Err(Unreadable));
        assert_eq!(machine.read(|tape| tape.0.len()), 0);
    }

    #[test]
    fn a_snapshot_knows_what_was_applied() {
        let (machine, mut replica) = replica();
        replica.apply(&[entry(2, 1, b"a")]).unwrap();
        let snapshot = replica.snapshot(ConfState { voters: vec![1], ..ConfState::default() });
        let (second, mut other) = self::replica();
        other.restore(&snapshot).unwrap();
        other.apply(&[entry(3, 1, b"a"), entry(4, 2, b"b")]).unwrap();
        assert_eq!(second.read(|tape| tape.0.clone()), [2, b'a', 4, b'b']);
        assert_eq!(machine.read(|tape| tape.0.clone()), [2, b'a']);

        let mut bad = snapshot.clone();
        bad.data[0] += 1;
        assert!(other.restore(&bad).unwrap_err().to_string().contains("version"));
        bad.data = snapshot.data[..20].to_vec();
        assert!(other.restore(&bad).unwrap_err().to_string().contains("cut short"));
        assert_eq!(other.index(), 4);
    }
}
