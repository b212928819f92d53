//! What a step costs that does nothing:
//! `cargo run --release -p worker --example step_cost [STEPS [none|default|host [RUNTIME]]]`.
//!
//! Each step runs `sh -c true` on what the step before left, as a build does it: root mounted,
//! container run, change captured and kept. Prints the median of each part, in milliseconds. Needs
//! root, Debian's `busybox-static`, and the program `container-helper` beside this one's folder.

use bytes::Bytes;
use cache::store::Store;
use cache::store::memory::MemoryStore;
use proto::id::BlobId;
use proto::path::FileName;
use proto::step::{NetworkMode, RunOp, SecurityMode};
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use std::sync::Arc;
use std::time::{Duration, Instant};
use worker::rootfs::{LayerCache, Stack};
use worker::sandbox::{Config, HelperProgram, Inputs, Io, Limits, Order, Runtime, Sandbox};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps: usize = std::env::args().nth(1).map_or(Ok(100), |n| n.parse())?;
    let network = match std::env::args().nth(2).as_deref() {
        None | Some("none") => NetworkMode::None,
        Some("default") => NetworkMode::Default,
        Some("host") => NetworkMode::Host,
        Some(other) => return Err(format!("`{other}` is no network").into()),
    };
    let runtime = match std::env::args().nth(3) {
        Some(program) => Runtime::Program(program.into()),
        None => Runtime::Embedded,
    };
    let temp = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut stack = base(&*store)?;
    let layers = LayerCache::open(&temp.path().join("layers"), store, u64::MAX)?;
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(|p| p.parent()).ok_or("no folder")?;
    let helper = HelperProgram { path: folder.join("container-helper"), args: Vec::new() };
    let dir = temp.path().join("sandbox");
    let config = Config { dir, helper, runtime, slots: 2, open_files: 1024 };
    let sandbox = Sandbox::open(config, layers)?;
    sandbox.warm_up();
    let op = operation(network);
    let mut parts: [Vec<Duration>; 6] = Default::default();
    for _ in 0..steps {
        let mut at = Instant::now();
        let start = at;
        let mut lap = |part: &mut Vec<Duration>| {
            let now = Instant::now();
            part.push(now - at);
            at = now;
        };
        let order = Order {
            op: &op,
            root: &stack,
            inputs: Inputs::default(),
            limits: Limits::default(),
            timeout: None,
        };
        let prepared = sandbox.prepare(order)?;
        lap(&mut parts[0]);
        let running = prepared.start(Io::Log(Box::new(|_, _| {})))?;
        lap(&mut parts[1]);
        let exited = running.wait()?;
        lap(&mut parts[2]);
        assert!(exited.outcome().is_success(), "{:?}", exited.outcome());
        let captured = exited.capture()?;
        lap(&mut parts[3]);
        let (diff, _) = captured.keep()?;
        lap(&mut parts[4]);
        stack.diffs.push(diff.id);
        parts[5].push(start.elapsed());
    }
    let names = ["prepare", "start", "wait", "capture", "keep", "whole step"];
    for (name, part) in names.iter().zip(&mut parts) {
        part.sort();
        let at = |share: usize| part[(part.len() - 1) * share / 100].as_secs_f64() * 1e3;
        println!("{name:10} {:7.2} ms   90 %: {:7.2} ms", at(50), at(90));
    }
    Ok(())
}

fn operation(network: NetworkMode) -> RunOp {
    RunOp {
        args: ["/bin/sh", "-c", "true"].map(String::from).into(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        network,
        security: SecurityMode::Sandbox,
        mounts: Vec::new(),
        hostname: String::new(),
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_bytes: 0,
        cgroup_parent: String::new(),
        devices: Vec::new(),
        proxy_env: Vec::new(),
    }
}

fn base(store: &dyn Store) -> Result<Stack, Box<dyn std::error::Error>> {
    let busybox = Bytes::from(std::fs::read("/bin/busybox")?);
    let mut writer = store.writer()?;
    std::io::Write::write_all(&mut writer, &busybox)?;
    let (blob, size) = writer.finish(Some(BlobId::of(&busybox)))?;
    let meta = || Meta::root_owned(0o755, Mtime::default());
    let entry = |name: &str, node| -> Result<Entry, proto::path::NameError> {
        Ok(Entry { name: FileName::new(name.as_bytes())?, meta: meta(), node })
    };
    let bin = Dir::new(vec![
        entry("busybox", Node::File { blob, size, link: None })?,
        entry("sh", Node::Symlink(b"busybox".to_vec()))?,
    ])
    .seal();
    let empty = Dir::default().seal();
    let mut entries = vec![entry("bin", Node::Dir(bin.dir, Presence::Merge))?];
    for name in ["dev", "etc", "proc", "root", "sys", "tmp"] {
        entries.push(entry(name, Node::Dir(empty.dir, Presence::Merge))?);
    }
    let top = Dir::new(entries).seal();
    let (id, root) = Root { meta: meta(), dir: top.dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[bin.bytes, empty.bytes, top.bytes, root])?;
    Ok(Stack { diffs: vec![id], merged: id })
}
