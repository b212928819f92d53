//! Golden frames: messages of every service as bytes. A change of them is a change of the protocol:
//! raise `proto::wire::VERSION`, and write the file anew by
//! `SLIPWAY_GOLDEN=write cargo test -p proto --test golden`.
//!
//! `Open` and `Opened` must stay readable for all versions, or one could not be told why it is
//! refused: their bytes are those of version 1 for ever.

use proto::error::{Class, Failure};
use proto::id::{BlobId, BuildId, CacheId, LeaseEpoch, Millis, RootId, TreeId, WorkerId};
use proto::mount::{Answer, Ask, Decision, Measured, Policy, Start, Use};
use proto::platform::Platform;
use proto::record::Cost;
use proto::secret::SecretBytes;
use proto::step::Sharing;
use proto::wire::blob::{self, Table};
use proto::wire::cluster::{CacheHello, CacheNode, CacheState, FromMember, Map};
use proto::wire::worker::{
    Capacity, Fetched, Outcome, Peer, Pressure, Report, ToCoordinator, ToWorker, WorkerState,
};
use proto::wire::{Binary, Message, Open, Opened, Service, VERSION, admin, build, encode};
use std::fmt::Write;
use std::path::PathBuf;

fn hex<M: Message>(message: &M) -> String {
    let bytes = encode(message).expect("within the limits");
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes more");
        text
    })
}

fn handshake() -> Vec<(&'static str, String)> {
    let binary = Binary { version: "0.1.0".into(), modified_ms: 1_700_000_000_000 };
    let open = Open { version: 1, binary: binary.clone(), service: Service::Build };
    let refused = Failure::new(Class::User, "Another version").hint("Update one of the two.");
    vec![
        ("Open", hex(&open)),
        ("Opened::Ready", hex(&Opened::Ready { binary })),
        ("Opened::Refused", hex(&Opened::Refused(refused))),
    ]
}

fn messages() -> Vec<(&'static str, String)> {
    let worker = || WorkerId::parse("worker-1").expect("a name");
    let build = || BuildId::parse("0123456789ab").expect("a build's id");
    let cache = || CacheId::parse("cache-1").expect("a name");
    let platform = || Platform::parse("linux/amd64").expect("a platform");
    let blob = BlobId::from_bytes([7; 32]);
    let tree = RootId(TreeId::from_bytes([9; 32]));
    let mine = Measured { tree, bytes: 10, files: 2 };
    let capacity = Capacity {
        platforms: vec![platform()],
        slots: 4,
        cpu_millis: 4000,
        memory_bytes: 1 << 34,
        disk_free_bytes: 1 << 40,
        pressure: Pressure::default(),
        takes_work: true,
        is_alone: false,
        fetched: Fetched { bytes: 5, ms: 6 },
    };
    let report = Report {
        epoch: LeaseEpoch(3),
        outcome: Outcome::Done(vec![tree]),
        cost: Cost { wall_ms: 1, cpu_ms: 2, memory_peak_bytes: 3 },
        traffic: build::Traffic { inputs: 1, ..build::Traffic::default() },
    };
    let state = WorkerState {
        worker: worker(),
        address: ":7471".into(),
        capacity,
        running: vec![LeaseEpoch(4)],
        reports: vec![report],
    };
    let how = Use { sharing: Sharing::Locked, policy: Policy::Union, start: Start::Head };
    let ask = |ask| ToCoordinator::Mount { number: 1, lease: LeaseEpoch(4), id: "npm".into(), ask };
    let hello = CacheHello {
        id: cache(),
        address: ":7472".into(),
        started: Millis(1),
        synced: 2,
        held_bytes: 3,
        budget_bytes: 4,
    };
    let node =
        CacheNode { id: cache(), address: "10.0.0.1:7472".into(), state: CacheState::Serving };
    let desired = ToWorker::Desired { leases: Vec::new(), keep: vec![LeaseEpoch(4)] };
    let missing = blob::Request::FindMissing { blobs: vec![blob], trees: vec![tree.0] };
    let request = SecretBytes::from(vec![11]);
    let ssh = build::Ask::Ssh { id: "default".into(), request: request.clone() };
    let attach = build::ToCoordinator::Attach { build: build(), heard: Some((1, 2)) };
    vec![
        ("worker ToCoordinator::State", hex(&ToCoordinator::State(state))),
        ("worker ToCoordinator::Mount Begin", hex(&ask(Ask::Begin(how)))),
        ("worker ToCoordinator::Mount Commit", hex(&ask(Ask::Commit { base: Some(1), mine }))),
        ("worker ToWorker::Desired", hex(&desired)),
        ("worker ToWorker::Heard", hex(&ToWorker::Heard(vec![(LeaseEpoch(4), 100)]))),
        ("worker ToWorker::Mount", hex(&ToWorker::Mount(1, Answer::Decided(Decision::Fast(2))))),
        ("worker Peer", hex(&Peer { id: worker(), address: "10.0.0.2:7471".into() })),
        ("blob FindMissing", hex(&missing)),
        ("blob PutBlobs", hex(&blob::Request::PutBlobs(vec![(blob, 5)]))),
        ("blob GetNodes", hex(&blob::Request::GetNodes(vec![tree.0]))),
        ("blob Row", hex(&blob::Request::Row(Table::CacheMount, b"key".to_vec()))),
        ("blob Reply::Blobs", hex(&blob::Reply::Blobs(vec![5]))),
        ("blob Data::More", hex(&blob::Data::More)),
        ("build Attach", hex(&attach)),
        ("build Ask Ssh", hex(&build::ToClient::Ask(1, ssh))),
        ("build Answer Ssh", hex(&build::ToCoordinator::Answer(1, build::Answer::Ssh(request)))),
        ("build Accepted", hex(&build::ToClient::Accepted(build(), 1))),
        ("cluster Cache", hex(&FromMember::Cache(hello))),
        ("cluster Map", hex(&Map { epoch: 5, replicas: 2, nodes: vec![node] })),
        ("admin Cancel", hex(&admin::Request::Cancel(build()))),
        ("admin Done", hex(&admin::Reply::Done)),
    ]
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn compare(name: &str, messages: &[(&str, String)], is_fixed: bool) {
    let text: String = messages.iter().map(|(name, hex)| format!("{name}: {hex}\n")).collect();
    let file = file(name);
    if std::env::var_os("SLIPWAY_GOLDEN").is_some_and(|value| value == "write")
        && !(is_fixed && file.exists())
    {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("making the folder");
        std::fs::write(&file, &text).expect("writing the golden frames");
    }
    let golden = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}: see the head of this file", file.display()));
    for (is, was) in text.lines().zip(golden.lines()) {
        assert_eq!(is, was, "the protocol has changed: see the head of this file");
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn the_handshake_is_the_same_for_all_versions() {
    compare("handshake.txt", &handshake(), true);
}

#[test]
fn messages_are_those_of_their_version() {
    compare(&format!("v{VERSION}.txt"), &messages(), false);
}
