//! A log of one member that keeps nothing: for the farm of one process, and for simulations.

use super::driver::session::{Admission, Sessions};
use super::driver::{
    Change, ChangeError, EntryId, Incarnation, Leadership, Machine, Membership, NodeId, Proposal,
    ProposeError, ReadError, Role, Shared,
};
use super::log::{Log, Stopped};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// The only member, in its only life.
const ME: Incarnation = Incarnation { node: NodeId::new(1).unwrap(), boot: 1 };

/// What was applied so far.
#[derive(Debug)]
struct Position {
    index: u64,
    /// The number of the last entry.
    number: u64,
    sessions: Sessions,
}

/// Applies what it is given, at once. It leads from the start, and always knows what happened.
#[derive(Debug)]
pub struct MemoryLog<M> {
    machine: Shared<M>,
    position: Mutex<Position>,
    applied: watch::Sender<u64>,
    leader: watch::Sender<Leadership>,
    stopped: watch::Sender<Option<Stopped>>,
}

impl<M: Machine> MemoryLog<M> {
    /// A log for a machine that nothing was applied to.
    pub fn new(machine: Shared<M>) -> Self {
        let leadership = Leadership { term: 1, role: Role::Leader, leader: Some(ME.node) };
        let mut sessions = Sessions::default();
        sessions.set_members([ME.node].into());
        Self {
            machine,
            position: Mutex::new(Position { index: 0, number: 0, sessions }),
            applied: watch::Sender::new(0),
            leader: watch::Sender::new(leadership),
            stopped: watch::Sender::new(None),
        }
    }

    fn has_stopped(&self) -> bool {
        self.stopped.borrow().is_some()
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn append(&self, proposal: Proposal) -> Result<u64, ProposeError> {
        let (id, entries) = proposal.into_parts();
        let mut position = self.position();
        if self.has_stopped() {
            return Err(ProposeError::Stopped);
        }
        let first = id.unwrap_or(EntryId { by: ME, number: position.number + 1 });
        if id.is_none() {
            position.number += entries.len() as u64;
        }
        // Nothing was ever proposed under that: it would be taken for what is proposed next.
        if first.number.saturating_add(entries.len() as u64 - 1) > position.number {
            return Err(ProposeError::Unknown { id: first });
        }
        let mut last = Admission::New;
        let mut machine = self.machine.write();
        for (n, entry) in (0..).zip(entries) {
            position.index += 1;
            let id = EntryId { number: first.number.saturating_add(n), ..first };
            last = position.sessions.admit(id);
            if last == Admission::New {
                machine.apply(position.index, &entry);
            }
        }
        drop(machine);
        self.applied.send_replace(position.index);
        match last {
            Admission::New | Admission::Duplicate => Ok(position.index),
            Admission::Expired => Err(ProposeError::Unknown { id: first }),
        }
    }
}

impl<M: Machine> Log for MemoryLog<M> {
    fn propose(&self, entries: Vec<Vec<u8>>) -> BoxFuture<'_, Result<u64, ProposeError>> {
        ready(Proposal::new(entries).and_then(|proposal| self.append(proposal))).boxed()
    }

    fn propose_again(
        &self,
        id: EntryId,
        entries: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<u64, ProposeError>> {
        let proposal = Proposal::new(entries).map(|proposal| proposal.again(id));
        ready(proposal.and_then(|proposal| self.append(proposal))).boxed()
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        let index = match self.has_stopped() {
            true => Err(ReadError::Stopped),
            false => Ok(self.position().index),
        };
        ready(index).boxed()
    }

    /// Always [`ChangeError::Embedded`].
    fn change_membership(&self, _: Vec<Change>) -> BoxFuture<'_, Result<Membership, ChangeError>> {
        ready(Err(ChangeError::Embedded)).boxed()
    }

    fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn watch_leader(&self) -> watch::Receiver<Leadership> {
        self.leader.subscribe()
    }

    fn watch_stopped(&self) -> watch::Receiver<Option<Stopped>> {
        self.stopped.subscribe()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        // Whoever appends at this moment comes before.
        let _position = self.position();
        self.leader.send_replace(Leadership { term: 1, role: Role::Follower, leader: None });
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert(Stopped::Asked);
            first
        });
        ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::RestoreError;
    use super::*;

    #[derive(Debug, Default)]
    struct Letters(String);

    impl Machine for Letters {
        fn apply(&mut self, _: u64, entry: &[u8]) {
            self.0.push_str(&String::from_utf8_lossy(entry));
        }

        fn snapshot(&self) -> Vec<u8> {
            self.0.clone().into_bytes()
        }

        fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
            Err(RestoreError("nothing is kept".to_owned()))
        }
    }

    fn entries(letters: &[&str]) -> Vec<Vec<u8>> {
        letters.iter().map(|letter| letter.as_bytes().to_vec()).collect()
    }

    #[tokio::test]
    async fn entries_are_applied_in_order_and_once() {
        let machine = Shared::new(Letters::default());
        let log: Box<dyn Log> = Box::new(MemoryLog::new(machine.clone()));
        assert!(log.watch_leader().borrow().role == Role::Leader);
        assert_eq!(log.propose(entries(&["a", "b"])).await, Ok(2));
        assert_eq!(log.propose(entries(&["c"])).await, Ok(3));
        let id = EntryId { by: ME, number: 2 };
        assert_eq!(log.propose_again(id, entries(&["b", "c"])).await, Ok(5));
        let unknown = log.propose_again(id, entries(&["b", "c", "d"])).await;
        assert_eq!(unknown, Err(ProposeError::Unknown { id }));
        assert_eq!(log.propose(entries(&["d"])).await, Ok(6));
        assert_eq!(machine.read(|letters| letters.0.clone()), "abcd");
        assert_eq!((log.read_barrier().await, *log.watch_applied().borrow()), (Ok(6), 6));
    }

    #[tokio::test]
    async fn what_can_not_be_is_refused() {
        let log = MemoryLog::new(Shared::new(Letters::default()));
        assert_eq!(log.propose(Vec::new()).await, Err(ProposeError::Empty));
        let large = log.propose(vec![vec![0; 65_537]]).await.unwrap_err();
        assert!(large.to_string().contains("65537 is too large for the log, which takes 65536"));
        let alone = log.change_membership(vec![]).await;
        assert_eq!(alone, Err(ChangeError::Embedded));
        log.shutdown().await;
        assert_eq!(log.propose(entries(&["a"])).await, Err(ProposeError::Stopped));
        assert_eq!(log.read_barrier().await, Err(ReadError::Stopped));
        assert_eq!(*log.watch_stopped().borrow(), Some(Stopped::Asked));
    }
}
