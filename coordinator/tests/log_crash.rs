//! Kills: a process that appends to a log as fast as it can is killed at random moments. After each
//! kill everything that was acknowledged is there, in order, once.
//!
//! This program is both: it starts itself again as the one to be killed.

use coordinator::raft::node::Options;
use coordinator::raft::{
    Beginning, ClusterId, Identity, Limits, Log, Machine, NodeId, RaftLog, RestoreError,
    RocksStore, Shared, Store, Transport,
};
use proto::id::Millis;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Where the victim's log is.
const PATH: &str = "SLIPWAY_CRASH_PATH";

const ROUNDS: u64 = 20;
/// Callers that append at the same time, each its own numbers.
const STREAMS: u8 = 4;

const NODE: NodeId = NodeId::new(1).unwrap();
const ME: Identity = Identity { cluster: ClusterId([1; 16]), node: NODE };

fn main() {
    let listed = std::env::args().any(|arg| arg == "--list");
    match std::env::var_os(PATH) {
        Some(path) => victim(Path::new(&path)),
        // What test runners ask first; none of it is ignored.
        None if listed && std::env::args().any(|arg| arg == "--ignored") => {}
        None if listed => println!("log_crash: test"),
        None => {
            killed_at_any_time();
            println!("test log_crash ... ok");
        }
    }
}

/// The last number of each stream, and what was not the next one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Streams {
    last: BTreeMap<u8, u64>,
    disorder: Vec<(u8, u64)>,
}

impl Machine for Streams {
    fn apply(&mut self, _: u64, entry: &[u8]) {
        let (stream, number) = decode(entry);
        let last = self.last.entry(stream).or_default();
        match number == *last + 1 {
            true => *last = number,
            false => self.disorder.push((stream, number)),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        assert_eq!(self.disorder, []);
        self.last.iter().flat_map(|(stream, last)| encode(*stream, *last)).collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        self.last = snapshot.chunks_exact(9).map(decode).collect();
        Ok(())
    }
}

fn encode(stream: u8, number: u64) -> Vec<u8> {
    [stream].into_iter().chain(number.to_be_bytes()).collect()
}

fn decode(entry: &[u8]) -> (u8, u64) {
    let (stream, number) = entry.split_first().expect("an entry of this test");
    (*stream, u64::from_be_bytes(number.try_into().expect("eight bytes")))
}

/// Nobody is there.
struct Alone;

impl Transport for Alone {
    fn send(&self, to: NodeId, _: Vec<u8>) {
        panic!("a message to {to}");
    }

    fn send_snapshot(&self, to: NodeId, _: Vec<u8>) {
        panic!("a snapshot to {to}");
    }
}

/// Opens the log; with everything that was acknowledged applied.
async fn open(path: &Path, seed: u64) -> (Arc<RaftLog>, Shared<Streams>) {
    let limits = Limits { snapshot_entries: 300, keep_entries: 20, ..Limits::default() };
    let store = RocksStore::open(path, ME).unwrap_or_else(|error| panic!("{error}"));
    let machine = Shared::new(Streams::default());
    let options = Options { node: NODE, seed, limits };
    let log = RaftLog::start(options, store, machine.clone(), Box::new(Alone));
    let log = log.unwrap_or_else(|error| panic!("{error}"));
    log.read_barrier().await.unwrap_or_else(|error| panic!("{error}"));
    (Arc::new(log), machine)
}

/// Appends until it is killed, and says what was acknowledged.
#[tokio::main]
async fn victim(path: &Path) {
    let (log, machine) = open(path, u64::from(std::process::id())).await;
    println!("open");
    let streams = (0..STREAMS).map(|stream| {
        let first = machine.read(|streams| streams.last.get(&stream).copied().unwrap_or(0)) + 1;
        let log = log.clone();
        tokio::spawn(async move {
            let mut next = first;
            loop {
                // Alone, and several together.
                let count = 1 + next % 3;
                let entries = (next..next + count).map(|number| encode(stream, number)).collect();
                log.propose(entries).await.unwrap_or_else(|error| panic!("{error}"));
                next += count;
                let mut out = std::io::stdout().lock();
                writeln!(out, "{stream} {}", next - 1).and_then(|()| out.flush()).expect("a pipe");
            }
        })
    });
    futures::future::join_all(streams).await;
}

/// Has a victim work for a while. What it said was acknowledged, by stream.
fn kill(path: &Path, round: u64) -> BTreeMap<u8, u64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child =
        command.env(PATH, path).stdout(Stdio::piped()).spawn().expect("a victim starts");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    // Some are killed while they open the log.
    if !round.is_multiple_of(5) {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
    }
    std::thread::sleep(Duration::from_millis((round * 83) % 500));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = BTreeMap::new();
    // The last line may be cut short by the kill.
    for line in out.lines().map_while(Result::ok) {
        if let Some((stream, last)) = line.split_once(' ')
            && let (Ok(stream), Ok(last)) = (stream.parse::<u8>(), last.parse::<u64>())
        {
            said.insert(stream, last);
        }
    }
    said
}

#[tokio::main]
async fn killed_at_any_time() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("log");
    let voters = Beginning::Voters(vec![NODE]);
    RocksStore::create(&path, ME, Millis(1), &voters).unwrap();
    let mut before = Streams::default();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let said = kill(&path, round);
        let (log, machine) = open(&path, round).await;
        let now = machine.read(Streams::clone);
        println!("  killed, time {round}: said {said:?}, is {:?}", now.last);
        assert_eq!(now.disorder, [], "in order, and once");
        for (stream, last) in said.iter().chain(&before.last) {
            assert!(now.last.get(stream) >= Some(last), "stream {stream} had {last}");
        }
        acknowledged += said.len();
        before = now;
        log.shutdown().await;
    }
    assert!(acknowledged > ROUNDS as usize, "{acknowledged} streams were under way");
    let store = RocksStore::open(&path, ME).unwrap();
    assert!(store.snapshot_metadata().index > 1, "snapshots were taken");
    assert!(store.boot() > ROUNDS, "each start counts");
}
