//! Histories under every interleaving, with trees that are only names, and with real ones.

use super::model::{Item, Tree, build, file, keep, read, rules};
use crate::mounts::{
    Decision, Deletes, Dropped, Ended, Generation, History, How, KEPT_MAX, Locked, Measured, Merge,
    NoGeneration, Policy, Start, Use, measure, union,
};
use crate::store::StoreNodes;
use crate::store::memory::MemoryStore;
use proptest::prelude::*;
use proptest::sample::Index;
use proto::id::{LeaseEpoch, Millis, RootId, TreeId, WorkerId};
use proto::step::Sharing;
use rkyv::rancor::Error;
use std::collections::{BTreeMap, BTreeSet};

fn tree(name: u8) -> RootId {
    RootId(TreeId::from_bytes([name; 32]))
}

fn measured(name: u8) -> Measured {
    Measured { tree: tree(name), bytes: name.into(), files: 1 }
}

fn writer() -> WorkerId {
    WorkerId::parse("w").expect("a name")
}

/// Ends a step that was made of what it was given.
fn commit(history: &mut History, lease: LeaseEpoch, name: u8) -> Decision {
    commit_tree(history, lease, measured(name))
}

fn commit_tree(history: &mut History, lease: LeaseEpoch, mine: Measured) -> Decision {
    let base = history.base(lease);
    history.commit(lease, Ended { base, mine, writer: writer(), at: Millis(7) })
}

const SHARED: Use = Use { sharing: Sharing::Shared, policy: Policy::Union, start: Start::Head };

fn lease(n: u64) -> LeaseEpoch {
    LeaseEpoch(n)
}

/// A history whose head is generation 1 of tree 1.
fn started() -> History {
    let mut history = History::default();
    assert_eq!(history.begin(lease(0), SHARED), Ok(None));
    assert_eq!(commit(&mut history, lease(0), 1), Decision::Fast(1));
    history
}

fn trees(history: &History) -> Vec<RootId> {
    history.generations().iter().map(|g| g.tree).collect()
}

#[test]
fn whoever_is_first_is_the_new_head() {
    let mut history = started();
    let head = history.begin(lease(1), SHARED).expect("no lock").cloned();
    assert_eq!(head.as_ref(), history.head());
    assert_eq!(commit(&mut history, lease(1), 2), Decision::Fast(2));
    let expected = Generation {
        number: 2,
        tree: tree(2),
        parent: Some(1),
        bytes: 2,
        files: 1,
        created: Millis(7),
        writer: writer(),
        how: How::Committed,
    };
    assert_eq!(history.head(), Some(&expected));
    assert_eq!(history.get(1).map(|g| g.tree), Some(tree(1)));
    assert_eq!(history.users().count(), 0);
}

#[test]
fn who_changed_nothing_makes_nothing() {
    let mut history = started();
    for (n, policy) in (10..).zip(Policy::ALL) {
        history.begin(lease(n), Use { policy, ..SHARED }).expect("no lock");
        history.begin(lease(100 + n), Use { policy, ..SHARED }).expect("no lock");
        let base = history.head().expect("a head").tree;
        // Even if the head has moved: the state that it began with is not the newest.
        let name = 20 + n as u8;
        assert!(matches!(commit(&mut history, lease(n), name), Decision::Fast(_)));
        let same = Measured { tree: base, ..measured(0) };
        assert_eq!(commit_tree(&mut history, lease(100 + n), same), Decision::Unchanged);
        assert_eq!(history.head().map(|g| g.tree), Some(tree(name)));
    }
}

#[test]
fn whoever_is_second_is_merged_until_nobody_is_faster() {
    let mut history = started();
    for n in 1..=3 {
        history.begin(lease(n), SHARED).expect("no lock");
    }
    assert_eq!(commit(&mut history, lease(1), 2), Decision::Fast(2));
    let merge = Merge { base: Some(tree(1)), onto: 2, theirs: tree(2), mine: tree(3) };
    assert_eq!(commit(&mut history, lease(2), 3), Decision::Merge(merge));
    // Whoever repeats a report is told the same, whatever it says now.
    assert_eq!(commit(&mut history, lease(2), 99), Decision::Merge(merge));
    assert!(history.trees().any(|t| t == tree(3)), "what is to be merged is kept");
    // Meanwhile a third one is merged, and the union is outdated.
    let other = Merge { mine: tree(4), ..merge };
    assert_eq!(commit(&mut history, lease(3), 4), Decision::Merge(other));
    assert_eq!(history.merged(lease(3), 2, measured(24)), Decision::Fast(3));
    let again = Merge { onto: 3, theirs: tree(24), ..merge };
    assert_eq!(history.merged(lease(2), 2, measured(23)), Decision::Merge(again));
    assert_eq!(history.merged(lease(2), 3, measured(234)), Decision::Fast(4));
    let head = history.head().expect("a head");
    assert_eq!((head.parent, head.how), (Some(1), How::Merged { theirs: 3 }));
    assert_eq!(trees(&history), [1, 2, 24, 234].map(tree));
    // A union that is the head is none.
    for n in 4..=5 {
        history.begin(lease(n), SHARED).expect("no lock");
    }
    commit(&mut history, lease(4), 5);
    assert!(matches!(commit(&mut history, lease(5), 6), Decision::Merge(_)));
    assert_eq!(history.merged(lease(5), 5, measured(5)), Decision::Unchanged);
}

#[test]
fn other_policies_replace_or_drop() {
    let two = |policy, sharing| {
        let mut history = started();
        let how = Use { policy, sharing, ..SHARED };
        history.begin(lease(1), how).expect("no lock");
        history.begin(lease(2), Use { sharing: Sharing::Shared, ..how }).expect("no lock");
        assert_eq!(commit(&mut history, lease(2), 2), Decision::Fast(2));
        (commit(&mut history, lease(1), 3), trees(&history).last().copied())
    };
    let moved = Decision::Dropped(Dropped::Moved);
    assert_eq!(two(Policy::LastWriter, Sharing::Shared), (Decision::Fast(3), Some(tree(3))));
    assert_eq!(two(Policy::Discard, Sharing::Shared), (moved, Some(tree(2))));
    assert_eq!(two(Policy::LastWriter, Sharing::Private), (moved, Some(tree(2))));
    assert_eq!(two(Policy::Union, Sharing::Private), (moved, Some(tree(2))));
}

#[test]
fn who_begins_empty_replaces_all() {
    let mut history = started();
    let empty = Use { start: Start::Empty, ..SHARED };
    assert_eq!(history.begin(lease(1), empty), Ok(None));
    history.begin(lease(2), SHARED).expect("no lock");
    assert_eq!(commit(&mut history, lease(2), 2), Decision::Fast(2));
    assert_eq!(commit(&mut history, lease(1), 3), Decision::Fast(3));
    assert_eq!(history.head().map(|g| (g.tree, g.parent)), Some((tree(3), None)));
}

#[test]
fn the_first_writers_of_a_mount_are_merged() {
    let mut history = History::default();
    for n in 1..=2 {
        assert_eq!(history.begin(lease(n), SHARED), Ok(None));
    }
    assert_eq!(commit(&mut history, lease(1), 1), Decision::Fast(1));
    let merge = Merge { base: None, onto: 1, theirs: tree(1), mine: tree(2) };
    assert_eq!(commit(&mut history, lease(2), 2), Decision::Merge(merge));
}

#[test]
fn one_after_the_other_has_a_lock() {
    let mut history = started();
    let locked = Use { sharing: Sharing::Locked, ..SHARED };
    assert!(history.begin(lease(1), locked).is_ok());
    assert_eq!(history.holder(), Some(lease(1)));
    assert_eq!(history.begin(lease(2), locked), Err(Locked { holder: lease(1) }));
    assert_eq!(history.users().collect::<Vec<_>>(), [lease(1)]);
    // Again, and by somebody who does not ask for the lock.
    assert!(history.begin(lease(1), locked).is_ok());
    assert!(history.begin(lease(3), SHARED).is_ok());
    assert_eq!(commit(&mut history, lease(1), 2), Decision::Fast(2));
    let next = history.begin(lease(2), locked).expect("no lock").map(|g| g.number);
    assert_eq!((next, history.holder()), (Some(2), Some(lease(2))));
    // Whoever lost the lock changes nothing any more.
    assert!(history.release(lease(2)));
    let before = history.clone();
    assert_eq!(commit(&mut history, lease(2), 3), Decision::Stale);
    assert_eq!(history.merged(lease(2), 2, measured(3)), Decision::Stale);
    assert!(!history.release(lease(2)));
    assert_eq!(history, before);
}

#[test]
fn what_was_made_of_another_generation_is_stale() {
    let mut history = started();
    history.begin(lease(1), SHARED).expect("no lock");
    let before = history.clone();
    for base in [None, Some(2)] {
        let ended = Ended { base, mine: measured(2), writer: writer(), at: Millis(7) };
        assert_eq!(history.commit(lease(1), ended), Decision::Stale);
    }
    assert_eq!(history, before);
}

#[test]
fn a_union_that_nobody_asked_for_is_stale() {
    let mut history = started();
    history.begin(lease(1), SHARED).expect("no lock");
    let before = history.clone();
    assert_eq!(history.merged(lease(1), 1, measured(2)), Decision::Stale);
    assert_eq!(history, before);
}

#[test]
fn what_steps_began_with_is_kept() {
    let mut history = started();
    history.begin(lease(1), SHARED).expect("no lock");
    for n in 0..2 * KEPT_MAX as u64 {
        history.begin(lease(10 + n), SHARED).expect("no lock");
        assert!(matches!(commit(&mut history, lease(10 + n), 10 + n as u8), Decision::Fast(_)));
    }
    assert_eq!(history.generations().len(), KEPT_MAX + 1);
    assert_eq!(history.generations()[0].number, 1);
    assert!(history.release(lease(1)));
    assert_eq!(history.generations().len(), KEPT_MAX);
    assert_eq!(history.get(1), None);
    let gone = history.rollback(1, Millis(9)).unwrap_err();
    assert_eq!(gone, NoGeneration(1));
    assert!(gone.to_string().contains("newest 8 are kept"), "{gone}");
}

#[test]
fn a_rollback_takes_back_what_was_made_since() {
    let mut history = started();
    history.begin(lease(1), SHARED).expect("no lock");
    history.begin(lease(2), SHARED).expect("no lock");
    assert_eq!(commit(&mut history, lease(2), 2), Decision::Fast(2));
    // Of these, two began with what is taken back; one waits for a union.
    for n in [3, 4, 5] {
        history.begin(lease(n), SHARED).expect("no lock");
    }
    history.begin(lease(6), Use { start: Start::Empty, ..SHARED }).expect("no lock");
    assert_eq!(commit(&mut history, lease(3), 3), Decision::Fast(3));
    assert!(matches!(commit(&mut history, lease(4), 4), Decision::Merge(_)));
    let earlier = history.get(1).expect("a generation").clone();
    assert_eq!(history.rollback(1, Millis(9)), Ok(4));
    let head = history.head().expect("a head").clone();
    assert_eq!((head.tree, head.bytes, head.files), (earlier.tree, earlier.bytes, earlier.files));
    assert_eq!((head.how, head.created), (How::RolledBack { to: 1 }, Millis(9)));
    let dropped = Decision::Dropped(Dropped::RolledBack);
    assert_eq!(history.merged(lease(4), 3, measured(34)), dropped);
    assert_eq!(commit(&mut history, lease(5), 5), dropped);
    assert_eq!(history.head(), Some(&head));
    // The one that began with nothing has nothing of it.
    assert_eq!(commit(&mut history, lease(6), 7), Decision::Fast(5));
    // The one that began before is put upon what there is now.
    let merge = Merge { base: Some(tree(1)), onto: 5, theirs: tree(7), mine: tree(6) };
    assert_eq!(commit(&mut history, lease(1), 6), Decision::Merge(merge));
}

#[test]
fn files_from_elsewhere_are_another_writers() {
    let mut history = History::default();
    history.begin(lease(1), SHARED).expect("no lock");
    assert_eq!(history.import(measured(5), writer(), Millis(7)), 1);
    assert_eq!(history.head().map(|g| (g.how, g.parent)), Some((How::Imported, None)));
    let merge = Merge { base: None, onto: 1, theirs: tree(5), mine: tree(6) };
    assert_eq!(commit(&mut history, lease(1), 6), Decision::Merge(merge));
}

#[derive(Debug, Clone)]
enum Op {
    Begin(Use),
    Commit(Index, u8),
    Merged(Index, u8),
    Release(Index),
    Rollback(Index),
    Import(u8),
}

fn uses() -> impl Strategy<Value = Use> {
    let sharing = prop_oneof![
        4 => Just(Sharing::Shared), 1 => Just(Sharing::Private), 1 => Just(Sharing::Locked)
    ];
    let start = prop_oneof![5 => Just(Start::Head), 1 => Just(Start::Empty)];
    (sharing, prop::sample::select(Policy::ALL.to_vec()), start)
        .prop_map(|(sharing, policy, start)| Use { sharing, policy, start })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => uses().prop_map(Op::Begin),
        6 => (any::<Index>(), 1u8..30).prop_map(|(who, tree)| Op::Commit(who, tree)),
        4 => (any::<Index>(), 1u8..30).prop_map(|(who, tree)| Op::Merged(who, tree)),
        1 => any::<Index>().prop_map(Op::Release),
        1 => any::<Index>().prop_map(Op::Rollback),
        1 => (1u8..30).prop_map(Op::Import),
    ];
    prop::collection::vec(op, 0..60)
}

/// What is known of a history from outside.
#[derive(Default)]
struct Observer {
    history: History,
    next: u64,
    /// The steps in progress, what they began with, and the union that is asked of them.
    steps: BTreeMap<LeaseEpoch, (Option<Generation>, Option<Merge>)>,
    locked: BTreeSet<LeaseEpoch>,
    /// All trees that anybody ever left.
    written: BTreeSet<RootId>,
}

impl Observer {
    /// One of the leases ever given, in use or not.
    fn who(&self, index: &Index) -> LeaseEpoch {
        lease(if self.next == 0 { 0 } else { index.index(self.next as usize) as u64 })
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Begin(how) => {
                let lease = lease(self.next);
                self.next += 1;
                match self.history.begin(lease, *how) {
                    Ok(base) => {
                        let base = base.cloned();
                        self.steps.insert(lease, (base.clone(), None));
                        if how.sharing == Sharing::Locked {
                            assert!(self.locked.is_empty(), "two have the lock");
                            self.locked.insert(lease);
                        }
                        assert!(how.start == Start::Empty || base.as_ref() == self.history.head());
                    }
                    Err(Locked { holder }) => {
                        assert!(how.sharing == Sharing::Locked && self.locked.contains(&holder));
                    }
                }
            }
            Op::Commit(who, name) => {
                let who = self.who(who);
                self.written.insert(tree(*name));
                let (before, decision) =
                    (self.history.clone(), commit(&mut self.history, who, *name));
                self.decided(who, &before, decision, tree(*name));
            }
            Op::Merged(who, name) => {
                let who = self.who(who);
                self.written.insert(tree(*name));
                let asked = self.steps.get(&who).and_then(|(_, merge)| *merge);
                let onto = asked.map_or(0, |merge| merge.onto);
                let before = self.history.clone();
                let decision = self.history.merged(who, onto, measured(*name));
                assert_eq!(asked.is_none(), decision == Decision::Stale);
                self.decided(who, &before, decision, tree(*name));
            }
            Op::Release(who) => {
                let who = self.who(who);
                assert_eq!(self.history.release(who), self.steps.remove(&who).is_some());
                self.locked.remove(&who);
            }
            Op::Rollback(to) => {
                let kept = self.history.generations();
                if !kept.is_empty() {
                    let old = kept[to.index(kept.len())].clone();
                    let number =
                        self.history.rollback(old.number, Millis(1)).expect("one that is kept");
                    let new = self.history.get(number).expect("the new head");
                    assert_eq!((new.tree, Some(new)), (old.tree, self.history.head()));
                }
            }
            Op::Import(name) => {
                self.written.insert(tree(*name));
                let number = self.history.import(measured(*name), writer(), Millis(7));
                assert_eq!(self.history.head().map(|g| g.number), Some(number));
            }
        }
    }

    fn decided(&mut self, who: LeaseEpoch, before: &History, decision: Decision, new: RootId) {
        let head = self.history.head().map(|g| (g.number, g.tree));
        let head_before = before.head().map(|g| (g.number, g.tree));
        match decision {
            Decision::Stale => {
                assert_eq!(&self.history, before);
                return;
            }
            Decision::Merge(merge) => {
                let (base, asked) = self.steps.get_mut(&who).expect("a step in progress");
                assert_eq!(merge.base, base.as_ref().map(|g| g.tree));
                assert_eq!(Some((merge.onto, merge.theirs)), head);
                assert_eq!(head, head_before);
                *asked = Some(merge);
                return;
            }
            Decision::Fast(number) => {
                assert_eq!(head, Some((number, new)));
                assert!(head_before.is_none_or(|(before, _)| number == before + 1));
            }
            Decision::Unchanged | Decision::Dropped(_) => assert_eq!(head, head_before),
        }
        assert!(self.steps.remove(&who).is_some(), "only steps in progress end");
        self.locked.remove(&who);
    }

    fn check(&self) {
        let history = &self.history;
        let numbers: Vec<u64> = history.generations().iter().map(|g| g.number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert!(numbers.len() <= KEPT_MAX + self.steps.len());
        assert!(history.users().eq(self.steps.keys().copied()));
        assert_eq!(history.holder(), self.locked.first().copied());
        let kept: BTreeSet<RootId> = history.trees().collect();
        for (base, merge) in self.steps.values() {
            assert!(base.as_ref().is_none_or(|g| history.get(g.number) == Some(g)));
            assert!(merge.is_none_or(|merge| kept.contains(&merge.mine)));
        }
        for generation in history.generations() {
            assert!(self.written.contains(&generation.tree), "a tree that nobody left");
        }
        let bytes = rkyv::to_bytes::<Error>(history).expect("a small value");
        let back = rkyv::from_bytes::<History, Error>(&bytes).expect("what was written");
        assert_eq!(&back, history);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_must_hold_holds_after_every_call(ops in ops()) {
        let mut observer = Observer::default();
        for op in &ops {
            observer.run(op);
            observer.check();
        }
    }
}

/// A farm in which steps fill one mount: each adds a file of its own and changes one of a few that
/// all share.
struct Farm {
    store: MemoryStore,
    history: History,
    policy: Policy,
    next: u64,
    running: Vec<(LeaseEpoch, Tree)>,
    merging: Vec<(LeaseEpoch, Merge)>,
    /// The whole trees of those that ended.
    left: Vec<RootId>,
    /// All that anybody wrote, by path.
    written: BTreeMap<String, Vec<Item>>,
}

#[derive(Debug, Clone)]
enum Act {
    Begin,
    End { who: Index, shared: u8, time: i64 },
    Unite(Index),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let end = (any::<Index>(), 0u8..3, 0i64..5).prop_map(|(who, shared, time)| Act::End {
        who,
        shared,
        time,
    });
    let act =
        prop_oneof![3 => Just(Act::Begin), 3 => end, 2 => any::<Index>().prop_map(Act::Unite)];
    prop::collection::vec(act, 0..40)
}

impl Farm {
    fn new(policy: Policy) -> Self {
        Self {
            store: MemoryStore::new(),
            history: History::default(),
            policy,
            next: 0,
            running: Vec::new(),
            merging: Vec::new(),
            left: Vec::new(),
            written: BTreeMap::new(),
        }
    }

    fn head(&self) -> Tree {
        self.history.head().map_or(Tree::of(&[]), |head| read(&self.store, &head.tree))
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Begin => {
                let lease = lease(self.next);
                self.next += 1;
                let how = Use { policy: self.policy, ..SHARED };
                let base = self.history.begin(lease, how).expect("no lock").map(|g| g.tree);
                let tree = base.map_or(Tree::of(&[]), |base| read(&self.store, &base));
                self.running.push((lease, tree));
            }
            Act::End { who, shared, time } if !self.running.is_empty() => {
                let (lease, mut tree) = self.running.remove(who.index(self.running.len()));
                for path in [format!("d{}/own-{lease}", lease.0 % 3), format!("shared/{shared}")] {
                    let item = file(*time, &format!("{lease}"));
                    tree.put(&path, item.clone());
                    self.written.entry(path).or_default().push(item);
                }
                let id = build(&self.store, &tree);
                self.left.push(id);
                let size = measure(&StoreNodes(&self.store), &id).expect("a tree");
                let decision = commit_tree(&mut self.history, lease, size);
                self.decided(lease, decision);
            }
            Act::Unite(who) if !self.merging.is_empty() => {
                let (lease, merge) = self.merging.remove(who.index(self.merging.len()));
                let nodes = StoreNodes(&self.store);
                let rules = rules(Deletes::Keep, &[]);
                let Merge { base, onto, theirs, mine } = merge;
                let united = union(&nodes, &rules, base.as_ref(), &theirs, &mine).expect("a union");
                keep(&self.store, &united.blobs, united.made);
                let size = measure(&nodes, &united.tree).expect("a tree");
                let decision = self.history.merged(lease, onto, size);
                self.decided(lease, decision);
            }
            Act::End { .. } | Act::Unite(_) => {}
        }
    }

    fn decided(&mut self, lease: LeaseEpoch, decision: Decision) {
        match decision {
            Decision::Merge(merge) => self.merging.push((lease, merge)),
            Decision::Fast(_) | Decision::Unchanged => {}
            other => panic!("nobody drops: {other:?}"),
        }
    }

    /// Whoever is still at it ends.
    fn finish(&mut self) {
        while !self.running.is_empty() {
            let who = self.running.len() as i64;
            self.act(&Act::End { who: first(), shared: 0, time: who });
        }
        while !self.merging.is_empty() {
            self.act(&Act::Unite(first()));
        }
    }
}

/// The index of the first of however many.
fn first() -> Index {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut tree = any::<Index>().new_tree(&mut runner).expect("an index");
    while tree.simplify() {}
    tree.current()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Under a union no update is lost, whoever began with what and whoever ended when.
    #[test]
    fn a_union_has_the_files_of_all_writers(acts in acts()) {
        let mut farm = Farm::new(Policy::Union);
        acts.iter().for_each(|act| farm.act(act));
        farm.finish();
        let head = farm.head();
        prop_assert_eq!(head.paths().len(), farm.written.len());
        for (path, written) in &farm.written {
            let found = head.get(path).expect("a file that somebody wrote");
            prop_assert!(written.contains(found), "{} is of nobody", path);
        }
    }

    /// The last writer's files are there, and no others.
    #[test]
    fn the_last_writer_has_all(acts in acts()) {
        let mut farm = Farm::new(Policy::LastWriter);
        for act in &acts {
            farm.act(act);
            let head = farm.history.head().map(|g| g.tree);
            prop_assert_eq!(head, farm.left.last().copied());
        }
    }

    /// A rollback gives the same tree, bit for bit, whatever has happened since.
    #[test]
    fn a_rollback_gives_the_earlier_tree(acts in acts(), to in any::<Index>()) {
        let mut farm = Farm::new(Policy::Union);
        let mut seen = BTreeMap::new();
        for act in &acts {
            farm.act(act);
            if let Some(head) = farm.history.head() {
                seen.insert(head.number, (head.tree, farm.head()));
            }
        }
        let kept = farm.history.generations();
        prop_assume!(!kept.is_empty());
        let to = kept[to.index(kept.len())].number;
        farm.history.rollback(to, Millis(0)).expect("a generation that is kept");
        let head = farm.history.head().expect("a head").tree;
        prop_assert_eq!((head, farm.head()), seen[&to].clone());
    }
}
