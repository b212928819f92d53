//! Kills: a process that works on a store is killed, at each named step and at random moments. After
//! each kill the store is sound, and everything that was acknowledged after a barrier is there.
//!
//! This program is both: it starts itself again as the one to be killed.

#[path = "store/common.rs"]
mod common;

use cache::store::disk::{Budget, Hooks, OpenError};
use cache::store::{DiskStore, Options, Store, Table};
use common::{
    Tree, assert_sound, content, has_record, open, put_record, put_tree, read_tree, tree,
};
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the victim works, which numbers it begins with, and where it is to die: `STEP:COUNT`.
const PATH: &str = "SLIPWAY_CRASH_PATH";
const FIRST: &str = "SLIPWAY_CRASH_FIRST";
const STEP: &str = "SLIPWAY_CRASH_STEP";

/// All steps that a crash could come before.
const STEPS: [&str; 21] = [
    "append",
    "index packed",
    "install",
    "index large",
    "index nodes",
    "index record",
    "index row",
    "index chunks",
    "sync segments",
    "sync large",
    "sync index",
    "mark",
    "sweep table",
    "sweep trees",
    "sweep blobs",
    "sync deletions",
    "delete file",
    "move blobs",
    "index moved",
    "sync moved",
    "delete segment",
];

/// Rounds of a victim's work.
const ROUNDS: u64 = 30;

const SIGKILL: i32 = 9;

fn main() {
    let listed = std::env::args().any(|arg| arg == "--list");
    match std::env::var_os(PATH) {
        Some(path) => victim(Path::new(&path)),
        // What test runners ask first; none of it is ignored.
        None if listed && std::env::args().any(|arg| arg == "--ignored") => {}
        None if listed => println!("crash: test"),
        None => {
            killed_at_each_step();
            killed_at_any_time();
            println!("test crash ... ok");
        }
    }
}

fn options() -> Options {
    common::options().segment_bytes(1 << 20)
}

/// Kills this process when the step has come often enough.
fn step(name: &'static str) {
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let wanted = std::env::var(STEP).ok()?;
        let (step, count) = wanted.split_once(':')?;
        Some((step.to_owned(), count.parse().ok()?))
    });
    if let Some((step, count)) = wanted
        && step == name
        && SEEN.fetch_add(1, Ordering::SeqCst) == *count
    {
        kill_process(getpid(), Signal::KILL).expect("it can be killed");
        loop {
            std::thread::park();
        }
    }
}

/// What round `n` puts to stay, and what it puts to be collected.
fn trees(n: u64) -> (Tree, Tree) {
    let large = 262_145 + (n as usize * 7919) % 90_000;
    (tree(2 * n, &[10, 3_000, 60_000, large]), tree(2 * n + 1, &[90_000, 120_000, 11, 5, large]))
}

/// Works until it is killed, and says what is safe.
fn victim(path: &Path) {
    let hooks = Hooks { step, ..Hooks::default() };
    let store = DiskStore::open(path, options().hooks(hooks)).expect("the store opens");
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "open").unwrap();
    let scratch = path.with_extension("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    for n in first..first + ROUNDS {
        let pin = store.pin();
        let (kept, dead) = trees(n);
        put_tree(&store, &dead);
        // Half of the large blobs come by a link.
        let file = scratch.join(n.to_string());
        if n % 2 == 0 {
            let len = kept.blobs[3].1.len();
            std::fs::write(&file, content(2 * n * 1000 + 3, len)).unwrap();
            assert_eq!(store.adopt(&file).unwrap().0, kept.blobs[3].0);
        }
        put_tree(&store, &kept);
        // What is known of chunks goes with the blobs that go.
        for tree in [&kept, &dead] {
            let large = tree.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
            assert!(!store.chunks(&large.0).unwrap().chunks().is_empty());
        }
        put_record(&store, n, &kept, None);
        put_record(&store, 1_000_000 + n, &dead, None);
        store.put_row(Table::CacheMount, b"mount", dead.root.0.as_bytes()).unwrap();
        store.put_row(Table::Unpacked, &[n as u8; 32], kept.root.0.as_bytes()).unwrap();
        if n % 3 != 0 {
            store.barrier().unwrap();
            writeln!(out, "safe {n}").unwrap();
        }
        drop(pin);
        let _ = std::fs::remove_file(file);
        if n % 3 == 0 {
            // Records are equally old, so the budget decides; images would be roots. What is to
            // stay is used again, what is not is not.
            keep(&store, first, n);
            writeln!(out, "safe {n}").unwrap();
        }
    }
    writeln!(out, "done").unwrap();
}

/// Collects all but what was put to stay.
fn keep(store: &DiskStore, first: u64, last: u64) {
    let _pin = store.pin();
    (first..=last).for_each(|n| assert!(has_record(store, n), "record {n} stays"));
    store.collect(Budget::bytes(0)).unwrap();
    store.barrier().unwrap();
}

fn start(path: &Path, first: u64, step: Option<String>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(PATH, path).env(FIRST, first.to_string()).stdout(Stdio::piped());
    if let Some(step) = step {
        command.env(STEP, step);
    }
    command.spawn().expect("a victim starts")
}

/// What a victim said before it died.
fn said(child: &mut Child) -> Vec<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    // The last line may be cut short by the kill.
    out.lines().map_while(Result::ok).collect()
}

/// After a kill: the store opens, is sound, and has what it said was safe.
fn check(path: &Path, said: &[String], first: u64, what: &str) {
    println!("  {what}: {} lines", said.len());
    let store = DiskStore::open(path, options()).expect("the store opens after a kill");
    assert_sound(&store);
    let safe = said.iter().filter_map(|line| line.strip_prefix("safe ")?.parse().ok());
    let safe: Vec<u64> = safe.collect();
    for n in &safe {
        assert!(has_record(&store, *n), "{what}: record {n} was acknowledged");
        read_tree(&store, &trees(*n).0);
    }
    // And it works on.
    let (kept, dead) = trees(first + ROUNDS + 1);
    put_tree(&store, &dead);
    put_tree(&store, &kept);
    store.barrier().unwrap();
    read_tree(&store, &kept);
    store.collect(Budget::bytes(u64::MAX)).unwrap();
    drop(store);
    let store = open(path);
    safe.iter().for_each(|n| read_tree(&store, &trees(*n).0));
    assert_sound(&store);
}

fn killed_at_each_step() {
    for name in STEPS {
        // In memory, where nothing waits for a disk: a kill is the same anywhere.
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = temp.path().join("store");
        // The same store is killed several times.
        for (i, count) in [0, 2, 3].into_iter().enumerate() {
            let first = 100 * i as u64;
            let what = format!("killed before `{name}`, time {count}");
            let mut child = start(&path, first, Some(format!("{name}:{count}")));
            let lines = said(&mut child);
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(SIGKILL), "{what}: the victim came there: {lines:?}");
            check(&path, &lines, first, &what);
        }
    }
}

/// Nobody else opens the store of a victim, which is halted for as long as somebody tries.
fn is_locked_by(path: &Path, victim: &Child) {
    let pid = Pid::from_child(victim);
    kill_process(pid, Signal::STOP).expect("it can be halted");
    match DiskStore::open(path, options()) {
        Err(OpenError::Locked { holder, .. }) => {
            assert_eq!(holder, format!("process {}", victim.id()));
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("two processes have the store"),
    }
    kill_process(pid, Signal::CONT).expect("it goes on");
}

fn killed_at_any_time() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    for round in 0..30u64 {
        let first = 100 * round;
        let mut child = start(&path, first, None);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        if round == 0 {
            is_locked_by(&path, &child);
        }
        std::thread::sleep(Duration::from_millis((round * 37) % 400));
        child.kill().unwrap();
        let lines: Vec<String> = out.lines().map_while(Result::ok).collect();
        child.wait().unwrap();
        check(&path, &lines, first, &format!("killed at random, time {round}"));
    }
}
