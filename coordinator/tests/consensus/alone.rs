//! A member that is the only voter: everything happens within one poll.

use crate::disk::{Disk, Honesty, SimStore};
use crate::tape::{Tape, encode};
use crate::world::node;
use coordinator::raft::{
    Change, ChangeError, Config, Driver, EntryId, Limits, Output, Proposal, ProposeError, Role,
    Shared, Token,
};

struct Alone {
    driver: Driver<SimStore, Tape>,
    tape: Shared<Tape>,
}

impl Alone {
    fn open(disk: &Disk) -> Self {
        let tape = Shared::new(Tape::default());
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let config = Config { node: node(1), seed: 1, limits: Limits::default(), logger };
        let driver = Driver::new(config, disk.open(), tape.clone()).unwrap();
        Self { driver, tape }
    }

    fn poll(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.driver.poll(&mut |output| outputs.push(output)).unwrap();
        outputs
    }

    fn propose(&mut self, again: Option<EntryId>, facts: &[u64]) -> Result<u64, ProposeError> {
        let entries = facts.iter().map(|fact| encode(*fact, 0)).collect();
        let proposal = Proposal::new(entries).unwrap();
        let proposal = again.into_iter().fold(proposal, Proposal::again);
        self.driver.propose(Token(1), proposal);
        let answers = self.poll().into_iter().filter_map(|output| match output {
            Output::Proposed { token: Token(1), result } => Some(result),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        let [answer] = &answers[..] else { panic!("one answer: {answers:?}") };
        answer.clone()
    }

    fn id(&self, number: u64) -> EntryId {
        EntryId { by: self.driver.me(), number }
    }
}

#[test]
fn the_only_voter_leads_at_once_and_after_a_kill() {
    let disk = Disk::new(&[node(1)], Honesty::Honest);
    for boot in 1..4 {
        let mut alone = Alone::open(&disk);
        alone.poll();
        assert_eq!(alone.driver.leadership().role, Role::Leader);
        assert_eq!(alone.driver.me().boot, boot);
        let before = alone.tape.read(|tape| tape.facts.len());
        assert_eq!(before as u64, boot - 1, "what was acknowledged is there");
        alone.propose(None, &[boot]).unwrap();
        disk.crash(0);
    }
}

#[test]
fn all_who_come_together_share_a_sync() {
    let disk = Disk::new(&[node(1)], Honesty::Honest);
    let mut alone = Alone::open(&disk);
    alone.poll();
    let before = disk.syncs();
    for caller in 0..1000 {
        alone.driver.propose(Token(caller), Proposal::new(vec![encode(caller, 100)]).unwrap());
    }
    let outputs = alone.poll();
    let answered = |output: &&Output| matches!(output, Output::Proposed { result: Ok(_), .. });
    assert_eq!(outputs.iter().filter(answered).count(), 1000);
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn an_answer_comes_after_what_it_answers_for() {
    let mut alone = Alone::open(&Disk::new(&[node(1)], Honesty::Honest));
    alone.poll();
    alone.driver.propose(Token(7), Proposal::new(vec![encode(1, 0)]).unwrap());
    alone.driver.read(Token(8));
    let outputs = alone.poll();
    let place = |wanted: fn(&Output) -> bool| outputs.iter().position(wanted).expect("an output");
    let applied = place(|output| matches!(output, Output::Applied(3)));
    let proposed = place(|output| matches!(output, Output::Proposed { result: Ok(3), .. }));
    let readable = place(|output| matches!(output, Output::Readable { result: Ok(_), .. }));
    assert!(applied < proposed, "{outputs:?}");
    assert!(readable < outputs.len() && alone.driver.applied() == 3);
}

#[test]
fn what_is_proposed_again_is_applied_once_or_not_answered_for() {
    let mut alone = Alone::open(&Disk::new(&[node(1)], Honesty::Honest));
    alone.poll();
    let facts: Vec<u64> = (1..=8193).collect();
    for facts in facts.chunks(1000) {
        alone.propose(None, facts).unwrap();
    }
    let (first, second) = (alone.id(1), alone.id(2));
    assert!(alone.propose(Some(second), &[2, 3]).is_ok());
    // Too long ago to be known: and so is a proposal of which that is a part.
    let unknown = Err(ProposeError::Unknown { id: first });
    assert_eq!(alone.propose(Some(first), &[1, 2]), unknown);
    let never = alone.id(8193);
    assert_eq!(alone.propose(Some(never), &[1, 2]), Err(ProposeError::Unknown { id: never }));
    assert!(alone.propose(None, &[8194]).is_ok());
    let seen: Vec<u64> = alone.tape.read(|tape| tape.facts.iter().map(|(_, fact)| *fact).collect());
    assert_eq!(seen, (1..=8194).collect::<Vec<_>>());
}

#[test]
fn members_change_one_change_at_a_time() {
    let mut alone = Alone::open(&Disk::new(&[node(1)], Honesty::Honest));
    let learners = |ids: &[u64]| ids.iter().map(|id| Change::AddLearner(node(*id))).collect();
    // Before it leads, and twice at once.
    alone.driver.change(Token(1), learners(&[2, 3]));
    alone.driver.tick();
    let outputs = alone.poll();
    let refused = Err(ChangeError::NotLeader { leader: None });
    assert!(outputs.contains(&Output::Changed { token: Token(1), result: refused }), "{outputs:?}");
    alone.driver.change(Token(2), learners(&[2, 3]));
    alone.driver.change(Token(3), learners(&[4]));
    let outputs = alone.poll();
    let busy = Output::Changed { token: Token(3), result: Err(ChangeError::Busy) };
    assert!(outputs.contains(&busy), "{outputs:?}");
    assert!(!alone.driver.members().is_joint());
    assert_eq!(alone.driver.members().learners, [node(2), node(3)].into());
    alone.driver.change(Token(4), vec![Change::Promote(node(2))]);
    let behind = Err(ChangeError::Behind { node: node(2) });
    assert!(alone.poll().contains(&Output::Changed { token: Token(4), result: behind }));
}
