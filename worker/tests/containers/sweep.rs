//! What a worker leaves that is killed: the next one takes it away.

use crate::house::*;
use cache::store::Store;
use cache::store::memory::MemoryStore;
use proto::step::{NetworkMode, RunOp};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use worker::sandbox::{DefaultNetwork, Io, Runtime};

/// Where the process works that will be killed.
const FOLDER: &str = "SLIPWAY_TEST_FOLDER";

#[test]
fn what_a_killed_worker_left_is_taken_away() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        be_killed(&PathBuf::from(folder));
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    let layers = path.join("layers");
    for round in 0..2 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sweep::what_a_killed_worker_left_is_taken_away", "--nocapture"]);
        command.env(FOLDER, &path).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut worker = command.spawn().unwrap();
        let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        lines
            .map_while(Result::ok)
            .find(|line| line.contains("it runs"))
            .expect("a container runs");
        assert!(!processes_seeing(&layers).is_empty() && !groups_of(&layers).is_empty());
        worker.kill().unwrap();
        worker.wait().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let sandbox = open(&path, store, Runtime::Embedded, DefaultNetwork::Own).unwrap();
        assert_eq!(processes_seeing(&layers), [""; 0], "round {round}");
        assert_eq!(members_of(&groups_of(&layers)), [0; 0], "round {round}");
        assert_eq!(work_directories(&layers), [""; 0].map(PathBuf::from), "round {round}");
        let run = path.join("sandbox/run");
        assert_eq!(std::fs::read_dir(run).unwrap().count(), 0, "round {round}");
        drop(sandbox);
        assert_eq!(groups_of(&layers), [""; 0].map(PathBuf::from), "round {round}");
    }
}

/// The processes in groups, and in the groups in those.
fn members_of(groups: &[PathBuf]) -> Vec<u32> {
    let mut all = Vec::new();
    for group in groups {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = std::fs::read_dir(group).into_iter().flatten().flatten();
        let below = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
        all.extend(members_of(&below.collect::<Vec<_>>()));
    }
    all
}

/// Runs a container that does not end, and says so.
fn be_killed(path: &Path) -> ! {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let base = base(&*store);
    let sandbox = open(path, store, Runtime::Embedded, DefaultNetwork::Own).unwrap();
    sandbox.warm_up();
    let script = "echo x > /changed; trap '' TERM HUP; (sleep 1000 &) ; echo it runs; sleep 1000";
    let op = RunOp { network: NetworkMode::Default, ..op(script) };
    let io = Io::Log(Box::new(|_, said: &[u8]| {
        std::io::stdout().write_all(said).unwrap();
        std::io::stdout().flush().unwrap();
    }));
    let running = sandbox.prepare(order(&op, &base)).unwrap().start(io).unwrap();
    let ended = running.wait().map(|exited| exited.outcome());
    panic!("it was not killed: {ended:?}");
}
