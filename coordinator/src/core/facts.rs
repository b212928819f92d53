//! What must outlive the leader: few and small facts, in the order in which the log has them.
//!
//! The core itself lives in the leader's memory and is made anew by the next one: from these facts,
//! from the graphs in the store, and from what the workers say that they run
//! (`docs/decisions/0014-the-log-holds-facts.md`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
// rkyv's derive makes types for variants with named fields, and gives their fields no docs.
#![allow(missing_docs)]

use cache::mounts::{Generation, History};
use proto::id::{BlobId, BuildId, ContentKey, LeaseEpoch, Millis, Scope, WorkerId};
use proto::limit;
use proto::mount::{Decision, Ended, Measured, Use};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Something that happened and is not to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Fact {
    /// A build was taken.
    Submitted {
        /// The build.
        build: BuildId,
        /// What is known of it.
        submitted: Submitted,
    },
    /// A build's graph is known.
    Planned {
        /// The build.
        build: BuildId,
        /// The graph with its keys.
        plan: BlobId,
    },
    /// A build is over, and all that it is kept for.
    Ended {
        /// The build.
        build: BuildId,
    },
    /// A worker has got the right to run a step.
    Leased {
        /// The lease.
        epoch: LeaseEpoch,
        /// What it is for.
        leased: Leased,
    },
    /// A lease is over, whatever came of it.
    Released {
        /// The lease.
        epoch: LeaseEpoch,
    },
    /// Something that the coordinator's shell keeps by a name: a token, an order for a node.
    Kept {
        /// The name.
        key: Vec<u8>,
        /// What is kept; none when it is not kept any more.
        value: Option<Vec<u8>>,
    },
    /// Something happened to a cache mount.
    Mount {
        /// Which.
        mount: MountKey,
        /// What.
        change: MountChange,
    },
}

/// A cache mount of a farm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct MountKey {
    /// Whose it is.
    pub scope: Scope,
    /// Its id.
    pub id: String,
}

/// What can happen to a cache mount: see [`History`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum MountChange {
    /// A step begins to use it. Counts only while the lease does.
    Begin(LeaseEpoch, Use),
    /// A step ended, and left a tree.
    Commit(LeaseEpoch, Ended),
    /// The union of a step's tree with this generation is made.
    Merged(LeaseEpoch, u64, Measured),
    /// A step uses it no more.
    Release(LeaseEpoch),
    /// An earlier generation's files are the newest again.
    Rollback(u64, Millis),
    /// Files from elsewhere are the newest: who says so, and when.
    Import(Measured, WorkerId, Millis),
    /// A generation of an earlier life.
    Known(Generation),
    /// All of it is gone, and what steps in progress leave is not kept.
    Remove,
}

/// What is known of a build before its graph is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Submitted {
    /// When.
    pub at: Millis,
    /// What was asked for.
    pub request: BlobId,
    /// By whom.
    pub who: Who,
}

/// Who a build is for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Who {
    /// The person or machine, by the certificate.
    pub name: String,
    /// Whose results it takes and makes: project and scope.
    pub scope: Scope,
    /// How much it matters: builds with a higher number go first.
    pub priority: u8,
}

impl Who {
    /// The user of a farm of one machine.
    pub fn alone() -> Self {
        let priority = super::place::PRIORITY_MAX;
        Self { name: "local".to_owned(), scope: Scope::trusted(), priority }
    }
}

/// What a lease is for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Leased {
    /// Who has it.
    pub worker: WorkerId,
    /// Whose result it will be.
    pub scope: Scope,
    /// What is made.
    pub key: ContentKey,
    /// When it was given.
    pub at: Millis,
}

/// A build of which the end is not known.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Unfinished {
    /// What was asked for.
    pub submitted: Submitted,
    /// The graph with its keys, once it was known.
    pub plan: Option<BlobId>,
}

/// All that is so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Facts {
    /// The latest time that any fact says. Time never goes back behind it.
    pub clock: Millis,
    /// The highest lease that was given.
    pub last_epoch: LeaseEpoch,
    /// Builds that are not over.
    pub builds: BTreeMap<BuildId, Unfinished>,
    /// Leases that are not over.
    pub leases: BTreeMap<LeaseEpoch, Leased>,
    /// What the shell keeps.
    pub kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Cache mounts: at most [`limit::CACHE_MOUNTS_MAX`].
    pub mounts: BTreeMap<MountKey, History>,
    /// Which mounts the step of a lease uses.
    using: BTreeMap<LeaseEpoch, BTreeSet<MountKey>>,
}

/// Bytes that are no facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("These are no facts of this version: {0}")]
pub struct BadFacts(String);

fn aligned(bytes: &[u8]) -> AlignedVec {
    let mut out = AlignedVec::with_capacity(bytes.len());
    out.extend_from_slice(bytes);
    out
}

fn bad(error: &RkyvError) -> BadFacts {
    BadFacts(error.to_string().lines().next().unwrap_or_default().to_owned())
}

impl MountChange {
    /// Does it.
    pub fn apply(self, mount: &mut History) -> Option<Decision> {
        match self {
            Self::Begin(lease, how) => drop(mount.begin(lease, how)),
            Self::Commit(lease, ended) => return Some(mount.commit(lease, ended)),
            Self::Merged(lease, onto, union) => return Some(mount.merged(lease, onto, union)),
            Self::Release(lease) => drop(mount.release(lease)),
            Self::Rollback(to, at) => drop(mount.rollback(to, at)),
            Self::Import(files, writer, at) => drop(mount.import(files, writer, at)),
            Self::Known(generation) => mount.known(generation),
            Self::Remove => *mount = History::default(),
        }
        None
    }
}

impl Fact {
    /// The fact as an entry of the log.
    pub fn encode(&self) -> Vec<u8> {
        rkyv::to_bytes::<RkyvError>(self).expect("facts have a form").to_vec()
    }

    /// Reads an entry of the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadFacts> {
        rkyv::from_bytes::<Self, RkyvError>(&aligned(bytes)).map_err(|e| bad(&e))
    }
}

impl Facts {
    /// Takes note of a fact. One that says what is so already, or ends what is not there, changes
    /// nothing.
    pub fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Submitted { build, submitted } => {
                self.clock = self.clock.max(submitted.at);
                self.builds.entry(build).or_insert(Unfinished { submitted, plan: None });
            }
            Fact::Planned { build, plan } => {
                if let Some(unfinished) = self.builds.get_mut(&build) {
                    unfinished.plan = Some(plan);
                }
            }
            Fact::Ended { build } => drop(self.builds.remove(&build)),
            Fact::Leased { epoch, leased } => {
                self.clock = self.clock.max(leased.at);
                self.last_epoch = self.last_epoch.max(epoch);
                self.leases.insert(epoch, leased);
            }
            Fact::Released { epoch } => {
                self.leases.remove(&epoch);
                for mount in self.using.remove(&epoch).unwrap_or_default() {
                    self.change_mount(mount, MountChange::Release(epoch));
                }
            }
            Fact::Kept { key, value: Some(value) } => drop(self.kept.insert(key, value)),
            Fact::Kept { key, value: None } => drop(self.kept.remove(&key)),
            Fact::Mount { mount, change } => self.change_mount(mount, change),
        }
    }

    fn change_mount(&mut self, key: MountKey, change: MountChange) {
        if let MountChange::Begin(lease, _) = change {
            if !self.leases.contains_key(&lease) {
                return;
            }
            self.using.entry(lease).or_default().insert(key.clone());
        }
        if matches!(change, MountChange::Remove) {
            self.mounts.remove(&key);
            return;
        }
        if !self.mounts.contains_key(&key) {
            let makes = matches!(
                change,
                MountChange::Begin(..) | MountChange::Import(..) | MountChange::Known(_)
            );
            if !makes {
                return;
            }
            self.make_room();
        }
        let mount = self.mounts.entry(key.clone()).or_default();
        change.apply(mount);
        if mount.is_empty() {
            self.mounts.remove(&key);
        }
    }

    /// Forgets a mount that nobody uses, the one that was changed the longest ago, when there are as
    /// many as there may be.
    fn make_room(&mut self) {
        if self.mounts.len() < limit::CACHE_MOUNTS_MAX {
            return;
        }
        let unused = self.mounts.iter().filter(|(_, mount)| mount.users().next().is_none());
        let oldest = unused.min_by_key(|(_, mount)| mount.head().map(|head| head.created));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.mounts.remove(&key);
        }
    }

    /// All of it.
    pub fn snapshot(&self) -> Vec<u8> {
        rkyv::to_bytes::<RkyvError>(self).expect("facts have a form").to_vec()
    }

    /// What [`Facts::snapshot`] gave.
    pub fn restore(bytes: &[u8]) -> Result<Self, BadFacts> {
        rkyv::from_bytes::<Self, RkyvError>(&aligned(bytes)).map_err(|e| bad(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::id::{RootId, TreeId};
    use proto::mount::{Policy, Start};
    use proto::step::Sharing;

    fn fact(kind: u8, id: u8) -> Fact {
        let build = BuildId::parse(&format!("b{id}")).unwrap();
        let epoch = LeaseEpoch(u64::from(id));
        let at = Millis(u64::from(id) * 10);
        match kind {
            0 => {
                let request = BlobId::of(&[id]);
                Fact::Submitted { build, submitted: Submitted { at, request, who: Who::alone() } }
            }
            1 => Fact::Planned { build, plan: BlobId::of(b"plan") },
            2 => Fact::Ended { build },
            3 => {
                let worker = WorkerId::parse("w").unwrap();
                let key = ContentKey::from_bytes([id; 32]);
                Fact::Leased { epoch, leased: Leased { worker, scope: Scope::trusted(), key, at } }
            }
            4 => Fact::Released { epoch },
            5 | 6 => Fact::Kept { key: vec![id], value: (kind == 5).then(|| vec![id]) },
            _ => {
                let mount = MountKey { scope: Scope::trusted(), id: format!("m{}", id % 2) };
                Fact::Mount { mount, change: change(kind, id, epoch, at) }
            }
        }
    }

    fn change(kind: u8, id: u8, epoch: LeaseEpoch, at: Millis) -> MountChange {
        let mine = Measured { tree: RootId(TreeId::from_bytes([id; 32])), bytes: 1, files: 1 };
        let (base, writer) = (None, WorkerId::parse("w").unwrap());
        let (sharing, start) = (Sharing::Locked, Start::Empty);
        match kind {
            7 => MountChange::Begin(epoch, Use { sharing, policy: Policy::Union, start }),
            8 => MountChange::Commit(epoch, Ended { base, mine, writer, at }),
            9 => MountChange::Release(epoch),
            _ => MountChange::Remove,
        }
    }

    #[test]
    fn a_lease_that_is_over_uses_no_cache_mount() {
        let mount = MountKey { scope: Scope::trusted(), id: "m0".into() };
        let begin = |id: u8| Fact::Mount {
            mount: mount.clone(),
            change: change(7, id, LeaseEpoch(u64::from(id)), Millis(0)),
        };
        let holder = |facts: &Facts| facts.mounts.get(&mount).and_then(History::holder);
        let mut facts = Facts::default();
        facts.apply(begin(1));
        assert_eq!(facts, Facts::default(), "it never was");
        facts.apply(fact(3, 1));
        facts.apply(fact(3, 2));
        facts.apply(begin(1));
        facts.apply(begin(2));
        assert_eq!(holder(&facts), Some(LeaseEpoch(1)), "the first one has locked it");
        facts.apply(fact(4, 1));
        assert_eq!(holder(&facts), None);
        facts.apply(begin(2));
        assert_eq!(holder(&facts), Some(LeaseEpoch(2)));
        facts.apply(fact(4, 2));
        assert!(facts.mounts.is_empty() && facts.using.is_empty());
    }

    #[test]
    fn the_mounts_that_were_changed_the_longest_ago_make_room() {
        let mut facts = Facts::default();
        let id = |n: usize| MountKey { scope: Scope::trusted(), id: n.to_string() };
        for n in 0..=limit::CACHE_MOUNTS_MAX {
            let mine = Measured { tree: RootId(TreeId::from_bytes([1; 32])), bytes: 1, files: 1 };
            let import = MountChange::Import(mine, WorkerId::parse("w").unwrap(), Millis(n as u64));
            facts.apply(Fact::Mount { mount: id(n), change: import });
        }
        assert_eq!(facts.mounts.len(), limit::CACHE_MOUNTS_MAX);
        assert!(!facts.mounts.contains_key(&id(0)) && facts.mounts.contains_key(&id(1)));
    }

    proptest! {
        #[test]
        fn facts_are_read_as_they_were_written_and_repeating_them_changes_nothing(
            all in prop::collection::vec((0u8..11, 0u8..6), 0..60)
        ) {
            let mut facts = Facts::default();
            for (kind, id) in all {
                let fact = fact(kind, id);
                prop_assert_eq!(Fact::decode(&fact.encode()), Ok(fact.clone()));
                facts.apply(fact.clone());
                let once = facts.clone();
                facts.apply(fact);
                prop_assert_eq!(&facts, &once);
                prop_assert_eq!(Facts::restore(&facts.snapshot()), Ok(once));
            }
        }
    }

    #[test]
    fn time_and_leases_never_go_back() {
        let mut facts = Facts::default();
        facts.apply(fact(3, 5));
        facts.apply(fact(4, 5));
        facts.apply(fact(3, 2));
        assert_eq!((facts.last_epoch, facts.clock), (LeaseEpoch(5), Millis(50)));
        assert!(Fact::decode(b"no fact").is_err() && Facts::restore(b"x").is_err());
    }
}
