//! Which entries were applied already: so that one that is proposed again is applied once.
//!
//! Each node has one session, that of its last life. It remembers the last [`WINDOW`] numbers; a
//! number below is neither known to be applied nor to be new, and is refused. So is what comes from
//! an earlier life of a node or from a node that is no member: the table has as many rows as the log
//! has members, and an entry is never applied twice.

use super::id::{EntryId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How many numbers back a session remembers. More than a leader has under way at once
/// (`proto::limit::LOG_ENTRIES_IN_FLIGHT_MAX`), so that what is proposed again at once is known.
pub(in crate::raft) const WINDOW: u64 = 8192;

const WORDS: usize = (WINDOW / 64) as usize;
const ROW_BYTES: usize = 3 * 8 + WORDS * 8;

/// What is to be done with a committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::raft) enum Admission {
    /// It is new, and now counts as applied.
    New,
    /// It was applied before.
    Duplicate,
    /// Whether it was applied can't be told any more; it must not be applied.
    Expired,
}

/// What a node proposed in its last life.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    boot: u64,
    /// The highest number that was applied.
    highest: u64,
    /// A bit for each of the last [`WINDOW`] numbers, at the number modulo [`WINDOW`].
    seen: [u64; WORDS],
}

impl Session {
    fn new(boot: u64) -> Self {
        Self { boot, highest: 0, seen: [0; WORDS] }
    }

    fn bit(number: u64) -> (usize, u64) {
        let at = number % WINDOW;
        ((at / 64) as usize, 1 << (at % 64))
    }

    fn admit(&mut self, number: u64) -> Admission {
        let (word, bit) = Self::bit(number);
        if number > self.highest {
            if number - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            }
            // The places of the numbers between were those of numbers that leave the window.
            for skipped in (self.highest + 1..number).rev().take(WINDOW as usize) {
                let (word, bit) = Self::bit(skipped);
                self.seen[word] &= !bit;
            }
            self.highest = number;
        } else if number == 0 || self.highest - number >= WINDOW {
            return Admission::Expired;
        } else if self.seen[word] & bit != 0 {
            return Admission::Duplicate;
        }
        self.seen[word] |= bit;
        Admission::New
    }
}

/// The sessions of all members. A part of the state that all nodes have alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::raft) struct Sessions {
    members: BTreeSet<NodeId>,
    rows: BTreeMap<NodeId, Session>,
}

impl Sessions {
    /// Notes who is a member now, and forgets the others.
    pub fn set_members(&mut self, members: BTreeSet<NodeId>) {
        self.rows.retain(|node, _| members.contains(node));
        self.members = members;
    }

    /// Whether a committed entry is to be applied.
    pub fn admit(&mut self, id: EntryId) -> Admission {
        let node = id.by.node;
        if !self.members.contains(&node) {
            return Admission::Expired;
        }
        let session = self.rows.entry(node).or_insert_with(|| Session::new(id.by.boot));
        if id.by.boot < session.boot {
            return Admission::Expired;
        }
        if id.by.boot > session.boot {
            *session = Session::new(id.by.boot);
        }
        session.admit(id.number)
    }

    /// The rows, for a snapshot: their number in four bytes, then each one's node, boot, highest
    /// number and bits, all of them big endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.rows.len() as u32).to_be_bytes());
        for (node, session) in &self.rows {
            let head = [node.get(), session.boot, session.highest];
            let numbers = head.into_iter().chain(session.seen);
            out.extend(numbers.flat_map(u64::to_be_bytes));
        }
    }

    /// What [`Sessions::encode`] wrote, and what lies behind it. The members are not in it.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let count = u32::from_be_bytes(*count) as usize;
        let (rows, rest) = rest.split_at_checked(count.checked_mul(ROW_BYTES)?)?;
        let rows = rows.chunks_exact(ROW_BYTES).map(|row| {
            let mut numbers = row.as_chunks::<8>().0.iter().map(|n| u64::from_be_bytes(*n));
            let node = NodeId::new(numbers.next()?)?;
            let (boot, highest) = (numbers.next()?, numbers.next()?);
            let mut seen = [0; WORDS];
            seen.iter_mut().zip(numbers).for_each(|(word, n)| *word = n);
            Some((node, Session { boot, highest, seen }))
        });
        let rows: BTreeMap<_, _> = rows.collect::<Option<_>>()?;
        Some((Self { members: BTreeSet::new(), rows }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::Incarnation;
    use super::*;
    use proptest::prelude::*;

    fn id(node: u64, boot: u64, number: u64) -> EntryId {
        EntryId { by: Incarnation { node: NodeId::new(node).unwrap(), boot }, number }
    }

    fn sessions(members: &[u64]) -> Sessions {
        let mut sessions = Sessions::default();
        sessions.set_members(members.iter().map(|n| NodeId::new(*n).unwrap()).collect());
        sessions
    }

    #[test]
    fn an_entry_is_admitted_once() {
        let mut sessions = sessions(&[1, 2]);
        assert_eq!(sessions.admit(id(1, 1, 5)), Admission::New);
        assert_eq!(sessions.admit(id(1, 1, 5)), Admission::Duplicate);
        assert_eq!(sessions.admit(id(1, 1, 4)), Admission::New, "it was overtaken");
        assert_eq!(sessions.admit(id(2, 1, 4)), Admission::New, "another node's");
        assert_eq!(sessions.admit(id(1, 1, 0)), Admission::Expired, "numbers begin with 1");
    }

    #[test]
    fn what_can_not_be_known_is_refused() {
        let mut sessions = sessions(&[1]);
        assert_eq!(sessions.admit(id(2, 1, 1)), Admission::Expired, "no member");
        assert_eq!(sessions.admit(id(1, 3, 1)), Admission::New);
        assert_eq!(sessions.admit(id(1, 2, 9)), Admission::Expired, "an earlier life");
        assert_eq!(sessions.admit(id(1, 3, WINDOW + 1)), Admission::New);
        assert_eq!(sessions.admit(id(1, 3, 1)), Admission::Expired, "too long ago");
        assert_eq!(sessions.admit(id(1, 3, 2)), Admission::New);
        assert_eq!(sessions.admit(id(1, 4, 1)), Admission::New, "a new life counts anew");
        sessions.set_members(BTreeSet::new());
        assert_eq!(sessions.rows.len(), 0);
    }

    proptest! {
        /// Against a set of all that was applied.
        #[test]
        fn a_window_knows_what_a_set_knows(
            steps in prop::collection::vec((0u64..3, 1u64..3 * WINDOW), 1..300),
        ) {
            let mut sessions = sessions(&[1]);
            let mut applied = BTreeSet::new();
            let mut highest = 0;
            for (way, number) in steps {
                // Near the highest one, near the end of the window, and anywhere.
                let number = match way {
                    0 => highest + number % 4,
                    1 => (highest + 2).saturating_sub(WINDOW) + number % 4,
                    _ => number,
                };
                let expected = match number {
                    0 => Admission::Expired,
                    n if n + WINDOW <= highest => Admission::Expired,
                    n if applied.contains(&n) => Admission::Duplicate,
                    _ => Admission::New,
                };
                prop_assert_eq!(sessions.admit(id(1, 1, number)), expected, "{}", number);
                if expected == Admission::New {
                    applied.insert(number);
                    highest = highest.max(number);
                }
            }
            let mut bytes = Vec::new();
            sessions.encode(&mut bytes);
            bytes.extend(b"rest");
            let (mut read, rest) = Sessions::decode(&bytes).unwrap();
            read.set_members([NodeId::new(1).unwrap()].into());
            prop_assert_eq!((read, rest), (sessions, b"rest".as_slice()));
            prop_assert_eq!(Sessions::decode(&bytes[..3]), None);
            prop_assert_eq!(Sessions::decode(&bytes[..bytes.len() - 5]), None);
        }
    }
}
