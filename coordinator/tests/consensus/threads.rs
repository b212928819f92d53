//! Members in threads of their own, with real time and real disks.

use crate::disk::{Disk, Honesty};
use crate::tape::{Fact, Tape, encode};
use crate::world::node;
use coordinator::raft::node::Options;
use coordinator::raft::{
    Beginning, Change, ChangeError, ClusterId, EntryId, Identity, Incarnation, Limits, Log,
    Membership, MemoryLog, NodeId, OpenError, ProposeError, RaftLog, ReadError, RocksStore, Role,
    Shared, StepError, Stopped, Store, Transport,
};
use proto::id::Millis;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A network in memory: who is there.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<BTreeMap<NodeId, Arc<RaftLog>>>>);

impl Hub {
    fn get(&self, id: NodeId) -> Option<Arc<RaftLog>> {
        self.0.lock().unwrap().get(&id).cloned()
    }
}

struct Line {
    hub: Hub,
    from: NodeId,
}

impl Line {
    fn carry(&self, to: NodeId, message: &[u8]) -> bool {
        let step = |log: Arc<RaftLog>| log.step(self.from, message);
        match self.hub.get(to).map_or(Err(StepError::Stopped), step) {
            Ok(()) => true,
            Err(StepError::Busy | StepError::Stopped) => false,
            Err(StepError::Bad(error)) => panic!("{error}"),
        }
    }
}

impl Transport for Line {
    fn send(&self, to: NodeId, message: Vec<u8>) {
        let arrived = self.carry(to, &message);
        if let Some(me) = self.hub.get(self.from).filter(|_| !arrived) {
            me.report_unreachable(to);
        }
    }

    fn send_snapshot(&self, to: NodeId, message: Vec<u8>) {
        let arrived = self.carry(to, &message);
        if let Some(me) = self.hub.get(self.from) {
            me.report_snapshot(to, arrived);
        }
    }
}

fn identity(id: u64) -> Identity {
    Identity { cluster: ClusterId([3; 16]), node: node(id) }
}

fn options(id: u64) -> Options {
    // Apart from each other, so that elections do not tie.
    let limits =
        Limits { snapshot_entries: 50, keep_entries: 5, keep_entries_max: 20, ..Limits::default() };
    Options { node: node(id), seed: id, limits }
}

/// A process that runs a member.
struct Process {
    log: Arc<RaftLog>,
    tape: Shared<Tape>,
}

struct Cluster {
    dir: TempDir,
    hub: Hub,
    processes: BTreeMap<u64, Process>,
}

impl Cluster {
    fn new(voters: &[u64]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut cluster = Self { dir, hub: Hub::default(), processes: BTreeMap::new() };
        let beginning = Beginning::Voters(voters.iter().map(|id| node(*id)).collect());
        for id in voters {
            cluster.create(*id, &beginning);
            cluster.start(*id);
        }
        cluster
    }

    fn path(&self, id: u64) -> std::path::PathBuf {
        self.dir.path().join(id.to_string())
    }

    fn create(&self, id: u64, beginning: &Beginning) {
        RocksStore::create(&self.path(id), identity(id), Millis(5), beginning).unwrap();
    }

    fn start(&mut self, id: u64) {
        let store = RocksStore::open(&self.path(id), identity(id)).unwrap();
        let tape = Shared::new(Tape::default());
        let line = Box::new(Line { hub: self.hub.clone(), from: node(id) });
        let log = Arc::new(RaftLog::start(options(id), store, tape.clone(), line).unwrap());
        self.hub.0.lock().unwrap().insert(node(id), log.clone());
        self.processes.insert(id, Process { log, tape });
    }

    async fn stop(&mut self, id: u64) {
        let process = self.processes.remove(&id).unwrap();
        self.hub.0.lock().unwrap().remove(&node(id));
        process.log.shutdown().await;
        assert_eq!(*process.log.watch_stopped().borrow(), Some(Stopped::Asked));
        assert_eq!(process.log.propose(facts(&[0])).await, Err(ProposeError::Stopped));
    }

    fn log(&self, id: u64) -> &RaftLog {
        &self.processes[&id].log
    }

    /// Who leads, when all that run agree and the leader has a say.
    async fn leader(&self) -> u64 {
        loop {
            for (id, process) in &self.processes {
                if process.log.read_barrier().await.is_ok() {
                    return *id;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn applied(&self, id: u64, index: u64) -> Vec<Fact> {
        let process = &self.processes[&id];
        process.log.watch_applied().wait_for(|applied| *applied >= index).await.unwrap();
        process.tape.read(|tape| tape.facts.iter().map(|(_, fact)| *fact).collect())
    }
}

fn facts(facts: &[Fact]) -> Vec<Vec<u8>> {
    facts.iter().map(|fact| encode(*fact, 0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_outlive_their_leader() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    let first = cluster.leader().await;
    for fact in 0..120 {
        cluster.log(first).propose(facts(&[fact])).await.unwrap();
    }
    let other = if first == 1 { 2 } else { 1 };
    let elsewhere = Some(node(first));
    let not_leader = cluster.log(other).propose(facts(&[999])).await;
    assert_eq!(not_leader, Err(ProposeError::NotLeader { leader: elsewhere }));
    let not_leader = cluster.log(other).read_barrier().await;
    assert_eq!(not_leader, Err(ReadError::NotLeader { leader: elsewhere }));

    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let mut index = 0;
    for fact in 120..240 {
        index = cluster.log(second).propose(facts(&[fact])).await.unwrap();
    }
    // It was away for longer than the others keep their log, and gets a snapshot.
    cluster.start(first);
    let all: Vec<Fact> = (0..240).collect();
    for id in 1..=3 {
        assert_eq!(cluster.applied(id, index).await, all, "as node {id} knows");
    }
    let restored = cluster.processes[&first].tape.read(|tape| tape.restored);
    assert!(restored >= 2, "from its own snapshot, and from the leader's: {restored}");
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_becomes_two_and_one_again() {
    let mut cluster = Cluster::new(&[1]);
    cluster.leader().await;
    cluster.log(1).propose(facts(&[1])).await.unwrap();
    let alone = cluster.log(1).change_membership(vec![Change::Remove(node(1))]).await;
    assert_eq!(alone, Err(ChangeError::Leader));

    cluster.create(2, &Beginning::Join);
    cluster.start(2);
    let change = |change| cluster.log(1).change_membership(vec![change]);
    let learner = change(Change::AddLearner(node(2))).await.unwrap();
    let expected = Membership {
        voters: [node(1)].into(),
        learners: [node(2)].into(),
        outgoing: Default::default(),
    };
    assert_eq!(learner, expected);
    // It needs what there is first.
    let voters = loop {
        match change(Change::Promote(node(2))).await {
            Err(ChangeError::Behind { .. }) => tokio::task::yield_now().await,
            result => break result.unwrap().voters,
        }
    };
    assert_eq!(voters, [node(1), node(2)].into());
    let index = cluster.log(1).propose(facts(&[2])).await.unwrap();
    assert_eq!(cluster.applied(2, index).await, [1, 2]);
    let members = change(Change::Remove(node(2))).await.unwrap();
    assert_eq!(members.all(), [node(1)].into());
    cluster.log(1).propose(facts(&[3])).await.unwrap();
    assert_eq!(cluster.applied(1, 0).await, [1, 2, 3]);
}

/// What callers see of a log is the same, whichever it is.
async fn what_every_log_does(log: &dyn Log, tape: &Shared<Tape>) {
    log.watch_leader().wait_for(|now| now.role == Role::Leader).await.unwrap();
    let first = log.propose(facts(&[1, 2])).await.unwrap();
    let by = Incarnation { node: node(1), boot: 1 };
    let again = EntryId { by, number: 2 };
    let second = log.propose_again(again, facts(&[2])).await.unwrap();
    assert!(first < second);
    let unknown = log.propose_again(again, facts(&[2, 3])).await;
    assert_eq!(unknown, Err(ProposeError::Unknown { id: again }), "3 was never proposed");
    let second = log.propose(facts(&[3])).await.unwrap();
    assert_eq!(log.read_barrier().await, Ok(second));
    assert_eq!(*log.watch_applied().borrow(), second);
    let stranger = EntryId { by: Incarnation { node: node(9), boot: 1 }, number: 1 };
    let unknown = log.propose_again(stranger, facts(&[4])).await;
    assert_eq!(unknown, Err(ProposeError::Unknown { id: stranger }));
    let seen: Vec<Fact> = tape.read(|tape| tape.facts.iter().map(|(_, fact)| *fact).collect());
    assert_eq!(seen, [1, 2, 3]);
    assert_eq!(log.propose(Vec::new()).await, Err(ProposeError::Empty));
    let large = log.propose(vec![vec![0; (64 << 10) + 1]]).await;
    assert!(matches!(large, Err(ProposeError::TooLarge { .. })), "{large:?}");
    let many = log.propose(vec![Vec::new(); 1025]).await;
    assert!(matches!(many, Err(ProposeError::TooLarge { .. })), "{many:?}");
    log.shutdown().await;
    assert_eq!(log.propose(facts(&[4])).await, Err(ProposeError::Stopped));
    assert_eq!(log.read_barrier().await, Err(ReadError::Stopped));
    assert_eq!(*log.watch_stopped().borrow(), Some(Stopped::Asked));
    assert_eq!(log.watch_leader().borrow().role, Role::Follower);
}

#[tokio::test]
async fn a_log_is_a_log() {
    let tape = Shared::new(Tape::default());
    what_every_log_does(&MemoryLog::new(tape.clone()), &tape).await;
    let cluster = Cluster::new(&[1]);
    what_every_log_does(cluster.log(1), &cluster.processes[&1].tape).await;
}

#[tokio::test]
async fn callers_wait_when_too_much_is_under_way() {
    let cluster = Cluster::new(&[1]);
    cluster.leader().await;
    let log = cluster.processes[&1].log.clone();
    let calls = (0..3000).map(|fact| {
        let log = log.clone();
        tokio::spawn(async move { log.propose(vec![encode(fact, 5000)]).await })
    });
    for call in futures::future::join_all(calls).await {
        call.unwrap().unwrap();
    }
    let mut seen = cluster.applied(1, 0).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_log_whose_disk_fails_stops_for_good() {
    let disk = Disk::new(&[node(1)], Honesty::Honest);
    let tape = Shared::new(Tape::default());
    let line = Box::new(Line { hub: Hub::default(), from: node(1) });
    let log = RaftLog::start(options(1), disk.open(), tape.clone(), line).unwrap();
    log.read_barrier().await.unwrap();
    disk.fail_in(0);
    assert_eq!(log.propose(facts(&[1])).await, Err(ProposeError::Stopped));
    let mut stopped = log.watch_stopped();
    let why = stopped.wait_for(Option::is_some).await.unwrap().clone();
    let Some(Stopped::Failed(text)) = why else { panic!("{why:?}") };
    assert!(text.contains("The log at a disk failed") && text.contains("join a new one"), "{text}");
    assert_eq!(log.step(node(2), &[]).err().map(|error| error.to_string().is_empty()), Some(false));
    assert_eq!(log.read_barrier().await, Err(ReadError::Stopped));
    assert_eq!(tape.read(|tape| tape.facts.len()), 0, "nothing was applied that may be lost");
}

#[tokio::test]
async fn a_log_that_can_not_be_read_stops_for_good() {
    let disk = Disk::new(&[node(1)], Honesty::Honest);
    let start = || {
        let line = Box::new(Line { hub: Hub::default(), from: node(1) });
        RaftLog::start(options(1), disk.open(), Shared::new(Tape::default()), line).unwrap()
    };
    let log = start();
    log.propose(facts(&[1])).await.unwrap();
    log.shutdown().await;
    disk.fail_reads();
    let log = start();
    let mut stopped = log.watch_stopped();
    let why = stopped.wait_for(Option::is_some).await.unwrap().clone();
    let Some(Stopped::Failed(text)) = why else { panic!("{why:?}") };
    assert!(text.contains("The log at a disk failed") && text.contains("join a new one"), "{text}");
}

#[tokio::test]
async fn senseless_messages_do_no_harm() {
    let cluster = Cluster::new(&[1]);
    cluster.leader().await;
    for bytes in [&b""[..], b"\xff\xff", &[8, 3, 16, 1, 24, 2, 32, 9, 48, 200]] {
        let bad = cluster.log(1).step(node(2), bytes);
        assert!(matches!(bad, Err(StepError::Bad(_)) | Ok(())), "{bad:?}");
    }
    assert!(cluster.log(1).step(node(2), b"\xff\xff").is_err());
    cluster.log(1).propose(facts(&[1])).await.unwrap();
}

/// Opens a store as soon as nobody has it any more.
async fn reopen(path: &Path) -> RocksStore {
    loop {
        match RocksStore::open(path, identity(1)) {
            Ok(store) => return store,
            Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_log_that_nobody_holds_ends() {
    let mut cluster = Cluster::new(&[1]);
    cluster.leader().await;
    cluster.log(1).propose(facts(&[1, 2, 3])).await.unwrap();
    cluster.hub.0.lock().unwrap().clear();
    cluster.processes.clear();
    let store = reopen(&cluster.path(1)).await;
    assert_eq!((store.boot(), store.last()), (2, 5));
}
