//! The generations of one cache mount, and the steps that use it: the part of a mount that its
//! coordinator decides, and writes into its log.
//!
//! A pure state machine. Time, ids and leases come in; the order of the calls is the order of the
//! log, and two copies that were called alike are alike. A step goes through
//!
//! ```text
//! begin ─► (the step runs) ─► commit ─┬─► the new head, or nothing to keep: it is done
//!    │                                └─► Merge ─► (the union is made) ─► merged ─► the new head
//!    └─► release: it ended without a commit                          └─► Merge again
//! ```
//!
//! **Fencing.** Every step works under a lease, whose epoch is never used twice. What comes under
//! an epoch that does not use the mount (any more) is [`Decision::Stale`] and changes nothing: a
//! lost worker that comes back, a report that is repeated. So is what was made of another
//! generation than the one that the step was given.
//!
//! **What is kept**: the head and the generations before it, [`KEPT_MAX`] in all, and those that
//! steps in progress began with.

use super::generation::{Generation, How};
use proto::id::{LeaseEpoch, Millis, RootId, WorkerId};
use proto::mount::{Decision, Dropped, Ended, Measured, Merge, Policy, Start, Use};
use proto::step::Sharing;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Generations of one mount that are kept when nobody uses them.
pub const KEPT_MAX: usize = 8;

/// The generations of one cache mount, and who uses it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct History {
    /// By number, the head last.
    generations: Vec<Generation>,
    /// How many there have been.
    count: u64,
    users: BTreeMap<LeaseEpoch, User>,
}

/// A step that uses the mount.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct User {
    how: Use,
    /// The head when it began.
    head: Option<u64>,
    /// Whether the generation that it began with was rolled back since.
    is_void: bool,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
enum Phase {
    Running,
    /// It ended with this tree, which is being united with the head.
    Merging(Ended),
}

/// The mount is `locked`, and in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The cache mount is locked by the step of lease {holder}, and waits for its end")]
pub struct Locked {
    /// Whose turn it is.
    pub holder: LeaseEpoch,
}

/// A generation that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "The cache mount has no generation {0} any more: the newest {KEPT_MAX} are kept, and \
     those that steps use"
)]
pub struct NoGeneration(pub u64);

impl History {
    /// The newest generation.
    pub fn head(&self) -> Option<&Generation> {
        self.generations.last()
    }

    /// The generations that are kept, the head last.
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The generation of that number, if it is kept.
    pub fn get(&self, number: u64) -> Option<&Generation> {
        let at = self.generations.binary_search_by_key(&number, |g| g.number).ok()?;
        Some(&self.generations[at])
    }

    /// All trees that must not be collected: generations, and what steps ended with that is not
    /// merged yet.
    pub fn trees(&self) -> impl Iterator<Item = RootId> {
        let ended = self.users.values().filter_map(|user| match &user.phase {
            Phase::Merging(ended) => Some(ended.mine.tree),
            Phase::Running => None,
        });
        self.generations.iter().map(|g| g.tree).chain(ended)
    }

    /// The leases under which the mount is used.
    pub fn users(&self) -> impl Iterator<Item = LeaseEpoch> {
        self.users.keys().copied()
    }

    /// The number of the generation that the step under this lease began with; `None` when it began
    /// with nothing, or there is no such step.
    pub fn base(&self, lease: LeaseEpoch) -> Option<u64> {
        self.users.get(&lease).and_then(User::base)
    }

    /// The step whose turn it is, when a step has locked the mount.
    pub fn holder(&self) -> Option<LeaseEpoch> {
        let locks = |user: &User| user.how.sharing == Sharing::Locked;
        self.users.iter().find(|(_, user)| locks(user)).map(|(lease, _)| *lease)
    }

    /// A step begins. Answers the generation that it begins with, if there is one, which is kept
    /// until it ends. Beginning again under the same lease changes nothing. Only `locked` steps
    /// wait, and only for each other.
    pub fn begin(&mut self, lease: LeaseEpoch, how: Use) -> Result<Option<&Generation>, Locked> {
        if !self.users.contains_key(&lease) {
            if let (Sharing::Locked, Some(holder)) = (how.sharing, self.holder()) {
                return Err(Locked { holder });
            }
            let head = self.head().map(|head| head.number);
            let user = User { how, head, is_void: false, phase: Phase::Running };
            self.users.insert(lease, user);
        }
        Ok(self.base(lease).and_then(|base| self.get(base)))
    }

    /// A step ends, and leaves this tree. Asked again while its union is made, it is answered the
    /// same.
    pub fn commit(&mut self, lease: LeaseEpoch, ended: Ended) -> Decision {
        let Some(user) = self.users.get(&lease) else { return Decision::Stale };
        match user.phase.clone() {
            _ if user.base() != ended.base => Decision::Stale,
            Phase::Running => self.decide(lease, ended),
            Phase::Merging(before) => self.decide(lease, before),
        }
    }

    /// The union that [`Decision::Merge`] asked for has been made. When yet another step was
    /// faster, a new one is asked for.
    pub fn merged(&mut self, lease: LeaseEpoch, onto: u64, union: Measured) -> Decision {
        let Some(user) = self.users.get(&lease) else { return Decision::Stale };
        let Phase::Merging(ended) = user.phase.clone() else { return Decision::Stale };
        let head = self.head().map(|head| (head.number, head.tree));
        match head {
            Some((number, tree)) if number == onto && !user.is_void => {
                if tree == union.tree {
                    return self.done(lease, Decision::Unchanged);
                }
                let ended = Ended { mine: union, ..ended };
                let number = self.push(ended, How::Merged { theirs: onto });
                self.done(lease, Decision::Fast(number))
            }
            _ => self.decide(lease, ended),
        }
    }

    /// A step ended without leaving anything: it was read-only, it was stopped, or its worker is
    /// lost. Answers whether it used the mount.
    pub fn release(&mut self, lease: LeaseEpoch) -> bool {
        let was = self.users.remove(&lease).is_some();
        self.prune();
        was
    }

    /// Makes an earlier generation's files the newest again; answers their number. Steps that
    /// began with a later generation lose their changes: among them may be what was wrong.
    pub fn rollback(&mut self, to: u64, at: Millis) -> Result<u64, NoGeneration> {
        let old = self.get(to).ok_or(NoGeneration(to))?;
        let Generation { tree, bytes, files, .. } = *old;
        let mine = Measured { tree, bytes, files };
        let again = Ended { base: Some(to), mine, writer: old.writer.clone(), at };
        for user in self.users.values_mut() {
            user.is_void |= user.base().is_some_and(|base| base > to);
        }
        Ok(self.push(again, How::RolledBack { to }))
    }

    /// Takes files from elsewhere as the newest; answers their number. Steps in progress are put
    /// upon them as upon any other step's.
    pub fn import(&mut self, files: Measured, writer: WorkerId, at: Millis) -> u64 {
        self.push(Ended { base: None, mine: files, writer, at }, How::Imported)
    }

    /// Takes note of a generation of an earlier life, in the order of their numbers.
    pub fn known(&mut self, generation: Generation) {
        if generation.number > self.count {
            self.count = generation.number;
            self.generations.push(generation);
            self.prune();
        }
    }

    /// Whether there is nothing, and nobody who uses it.
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty() && self.users.is_empty()
    }

    fn decide(&mut self, lease: LeaseEpoch, ended: Ended) -> Decision {
        let Some(user) = self.users.get(&lease) else { return Decision::Stale };
        let how = user.how;
        if user.is_void {
            return self.done(lease, Decision::Dropped(Dropped::RolledBack));
        }
        let base = ended.base.and_then(|base| self.get(base)).map(|base| base.tree);
        let head = self.head().map(|head| (head.number, head.tree));
        let moved = head.filter(|(number, _)| Some(*number) != user.head);
        let mine = ended.mine.tree;
        if base == Some(mine) || head.is_some_and(|(_, tree)| tree == mine) {
            return self.done(lease, Decision::Unchanged);
        }
        match (moved, how) {
            (
                Some(_),
                Use { sharing: Sharing::Private, .. } | Use { policy: Policy::Discard, .. },
            ) => self.done(lease, Decision::Dropped(Dropped::Moved)),
            (Some((onto, theirs)), Use { policy: Policy::Union, start: Start::Head, .. }) => {
                if let Some(user) = self.users.get_mut(&lease) {
                    user.phase = Phase::Merging(ended);
                }
                Decision::Merge(Merge { base, onto, theirs, mine })
            }
            _ => {
                let number = self.push(ended, How::Committed);
                self.done(lease, Decision::Fast(number))
            }
        }
    }

    fn push(&mut self, ended: Ended, how: How) -> u64 {
        self.count += 1;
        let Ended { base: parent, mine, writer, at: created } = ended;
        let Measured { tree, bytes, files } = mine;
        let number = self.count;
        let new = Generation { number, tree, parent, bytes, files, created, writer, how };
        self.generations.push(new);
        self.prune();
        number
    }

    fn done(&mut self, lease: LeaseEpoch, decision: Decision) -> Decision {
        self.release(lease);
        decision
    }

    /// Forgets old generations that no step began with.
    fn prune(&mut self) {
        let Some(oldest) = self.generations.iter().rev().nth(KEPT_MAX - 1) else { return };
        let oldest = oldest.number;
        let pinned: BTreeSet<u64> = self.users.values().filter_map(User::base).collect();
        self.generations.retain(|g| g.number >= oldest || pinned.contains(&g.number));
    }
}

impl User {
    /// The generation that its files are of.
    fn base(&self) -> Option<u64> {
        match self.how.start {
            Start::Head => self.head,
            Start::Empty => None,
        }
    }
}
