//! A place to run containers in, that is gone after the test, and checks that nothing is left.

use bytes::Bytes;
use cache::store::memory::MemoryStore;
use cache::store::{Store, StoreNodes};
use proto::id::{BlobId, RootId};
use proto::path::FileName;
use proto::step::{NetworkMode, RunOp, SecurityMode};
use proto::tree::{AnyNode, Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use worker::rootfs::{LayerCache, Stack};
use worker::sandbox::{
    Config, DefaultNetwork, Exited, HelperProgram, Inputs, Io, Limits, Order, Outcome, Runtime,
    Sandbox, SandboxError, Stream,
};

pub const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    app:x:1000:1000:app:/home/app:/bin/sh\n\
    svc:x:1500:2000:svc:/home/svc:/bin/sh\n";
pub const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1000:\nstaff:x:2000:app\n";

const APPLETS: &str = "[ awk cat chmod chown cp cut dd df echo env false find grep head hostname id \
    ifconfig logger ip ln ls mkdir mkfifo mknod mount mv nc nslookup od printf ps pwd readlink rm rmdir \
    route sed seq sh sleep sort stat sync tail test timeout touch tr true truncate umount uname \
    wc wget";

pub struct House {
    pub sandbox: Sandbox,
    pub store: Arc<dyn Store>,
    pub base: Stack,
    pub path: PathBuf,
    // Dropped last.
    _traces: Traces,
    _temp: tempfile::TempDir,
}

/// What must be the same after the test as before.
struct Traces {
    mounts: String,
    tag_folder: PathBuf,
}

impl Drop for Traces {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(mounts(), self.mounts, "mounts are left");
        let left = processes_seeing(&self.tag_folder);
        assert!(left.is_empty(), "processes are left: {left:?}");
        let groups = groups_of(&self.tag_folder);
        assert!(groups.is_empty(), "control groups are left: {groups:?}");
    }
}

pub fn mounts() -> String {
    // Other tests' programs mount nothing here either, but the machine's own life goes on.
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = text.lines().filter(|line| line.contains("slipway") || line.contains("overlay"));
    ours.collect::<Vec<_>>().join("\n")
}

/// The name under which everything of a layer cache in that folder goes.
pub fn tag(layers: &Path) -> String {
    let hash = blake3::hash(layers.as_os_str().as_encoded_bytes());
    format!("slipway-{}", &hash.to_hex()[..16])
}

pub fn processes_seeing(layers: &Path) -> Vec<String> {
    let tag = tag(layers);
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let seeing = pids.filter(|pid| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        mounts.lines().any(|line| line.contains(&tag))
    });
    seeing
        .map(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid} {}", command.replace('\0', " "))
        })
        .collect()
}

pub fn groups_of(layers: &Path) -> Vec<PathBuf> {
    let tag = tag(layers);
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&tag) {
                    found.push(entry.path());
                }
                next.push(entry.path());
            }
        }
    }
    found
}

/// What a container said and how it ended.
pub struct Ran {
    pub out: String,
    pub err: String,
    pub outcome: Outcome,
    pub exited: Exited,
}

pub fn house() -> House {
    house_with(Runtime::Embedded)
}

pub fn house_with(runtime: Runtime) -> House {
    house_on(runtime, DefaultNetwork::Own)
}

pub fn house_on(runtime: Runtime, network: DefaultNetwork) -> House {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    let traces = Traces { mounts: mounts(), tag_folder: path.join("layers") };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let base = base(&*store);
    let sandbox = open(&path, store.clone(), runtime, network).unwrap();
    House { sandbox, store, base, path, _traces: traces, _temp: temp }
}

pub fn open(
    path: &Path,
    store: Arc<dyn Store>,
    runtime: Runtime,
    network: DefaultNetwork,
) -> Result<Sandbox, SandboxError> {
    let layers = LayerCache::open(&path.join("layers"), store, u64::MAX)?;
    Sandbox::open_with(config(path, runtime), layers, network)
}

pub fn config(path: &Path, runtime: Runtime) -> Config {
    let helper = HelperProgram {
        path: PathBuf::from(env!("CARGO_BIN_EXE_container-helper")),
        args: vec!["for-tests".to_owned()],
    };
    Config { dir: path.join("sandbox"), helper, runtime, slots: 2, open_files: 1024 }
}

/// `sh -c script` as root in the base.
pub fn op(script: &str) -> RunOp {
    RunOp {
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        network: NetworkMode::None,
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

pub fn order<'a>(op: &'a RunOp, root: &'a Stack) -> Order<'a> {
    Order { op, root, inputs: Inputs::default(), limits: Limits::default(), timeout: None }
}

impl House {
    /// Runs on the base.
    pub fn run(&self, op: &RunOp) -> Ran {
        self.try_order(order(op, &self.base)).unwrap()
    }

    /// Starts it on the base, and cancels it (twice, as impatient people do) when it has said
    /// something.
    pub fn cancel(&self, op: &RunOp) -> Outcome {
        let (told, heard) = std::sync::mpsc::channel();
        let io = Io::Log(Box::new(move |_, _: &[u8]| {
            let _ = told.send(());
        }));
        let running = self.sandbox.prepare(order(op, &self.base)).unwrap().start(io).unwrap();
        let canceller = running.canceller();
        let waiting = std::thread::spawn(move || running.wait().unwrap().outcome());
        heard.recv().unwrap();
        canceller.cancel();
        canceller.cancel();
        waiting.join().unwrap()
    }

    /// Runs a script on the base; it must succeed. Answers what it said, without the last newline.
    pub fn sh(&self, script: &str) -> String {
        let ran = self.run(&op(script));
        assert_eq!(ran.outcome, Outcome::Exited(0), "{script}: {}{}", ran.out, ran.err);
        ran.out.trim_end_matches('\n').to_owned()
    }

    pub fn try_order(&self, order: Order<'_>) -> Result<Ran, SandboxError> {
        let said = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let sink = said.clone();
        let io = Io::Log(Box::new(move |stream, bytes: &[u8]| {
            let mut said = sink.lock().unwrap();
            match stream {
                Stream::Stdout => said.0.extend_from_slice(bytes),
                Stream::Stderr => said.1.extend_from_slice(bytes),
            }
        }));
        let exited = self.sandbox.prepare(order)?.start(io)?.wait()?;
        let said = said.lock().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&said.0), text(&said.1));
        Ok(Ran { out, err, outcome: exited.outcome(), exited })
    }

    pub fn fails(&self, op: &RunOp) -> String {
        match self.try_order(order(op, &self.base)) {
            Err(e) => e.to_string(),
            Ok(ran) => panic!("it ran: {:?} {}{}", ran.outcome, ran.out, ran.err),
        }
    }

    /// The root that comes out when a layer is put upon another root.
    pub fn upon(&self, base: &Stack, diff: &RootId) -> Stack {
        let nodes = StoreNodes(&*self.store);
        let (merged, made) = cache::tree::apply::apply(&nodes, &base.merged, diff).unwrap();
        self.store.put_nodes(&made.into_nodes()).unwrap();
        let mut diffs = base.diffs.clone();
        diffs.push(*diff);
        Stack { diffs, merged }
    }

    /// The names of all entries of a diff, as `/a/b`, whiteouts as `-/a/b`.
    pub fn names(&self, diff: &RootId) -> Vec<String> {
        let AnyNode::Root(root) = &*self.store.node(&diff.0).unwrap() else { panic!() };
        let mut names = Vec::new();
        self.names_in(&root.dir, "", &mut names);
        names.sort();
        names
    }

    fn names_in(&self, dir: &DirRef, path: &str, names: &mut Vec<String>) {
        let AnyNode::Dir(dir) = &*self.store.node(&dir.tree).unwrap() else { panic!() };
        for entry in dir.entries() {
            let path = format!("{path}/{}", entry.name);
            match &entry.node {
                Node::Whiteout => names.push(format!("-{path}")),
                Node::Dir(below, _) => {
                    names.push(path.clone());
                    self.names_in(below, &path, names);
                }
                _ => names.push(path),
            }
        }
    }
}

const TIME: Mtime = Mtime { seconds: 1_700_000_000, nanos: 0 };

/// One entry of a tree that is made for a test.
pub fn file(store: &dyn Store, name: &str, data: &[u8], mode: u16) -> Entry {
    let blob = BlobId::of(data);
    if data.len() <= proto::limit::PACKED_BLOB_BYTES_MAX {
        store.put_blobs(&[(blob, Bytes::copy_from_slice(data))]).unwrap();
    } else {
        let mut writer = store.writer().unwrap();
        std::io::Write::write_all(&mut writer, data).unwrap();
        writer.finish(Some(blob)).unwrap();
    }
    let node = Node::File { blob, size: data.len() as u64, link: None };
    entry(name, mode, node)
}

pub fn entry(name: &str, mode: u16, node: Node) -> Entry {
    let name = FileName::new(name.as_bytes()).unwrap();
    Entry { name, meta: Meta::root_owned(mode, TIME), node }
}

pub fn symlink(name: &str, target: &str) -> Entry {
    entry(name, 0o777, Node::Symlink(target.as_bytes().to_vec()))
}

pub fn dir(store: &dyn Store, name: &str, mode: u16, entries: Vec<Entry>) -> Entry {
    let sealed = Dir::new(entries).seal();
    store.put_nodes(&[sealed.bytes]).unwrap();
    entry(name, mode, Node::Dir(sealed.dir, Presence::Merge))
}

pub fn root(store: &dyn Store, entries: Vec<Entry>) -> RootId {
    let Node::Dir(dir, _) = dir(store, "top", 0o755, entries).node else { panic!() };
    let root = Root { meta: Meta::root_owned(0o755, TIME), dir, presence: Presence::Merge };
    let (id, bytes) = root.seal();
    store.put_nodes(&[bytes]).unwrap();
    id
}

pub fn stack(id: RootId) -> Stack {
    Stack { diffs: vec![id], merged: id }
}

/// The entries of the base.
pub fn base_entries(store: &dyn Store) -> Vec<Entry> {
    let busybox = fs::read("/bin/busybox").expect("Debian's busybox-static is installed");
    let mut bin = vec![file(store, "busybox", &busybox, 0o755)];
    bin.extend(APPLETS.split_whitespace().map(|name| symlink(name, "busybox")));
    let etc = vec![
        file(store, "passwd", PASSWD.as_bytes(), 0o644),
        file(store, "group", GROUP.as_bytes(), 0o644),
    ];
    let empty = |name: &str, mode| dir(store, name, mode, Vec::new());
    vec![
        dir(store, "bin", 0o755, bin),
        dir(store, "etc", 0o755, etc),
        empty("dev", 0o755),
        empty("proc", 0o755),
        empty("sys", 0o755),
        empty("root", 0o700),
        empty("tmp", 0o1777),
        dir(store, "usr", 0o755, vec![empty("bin", 0o755)]),
    ]
}

pub fn base(store: &dyn Store) -> Stack {
    stack(root(store, base_entries(store)))
}

/// Upper directories of overlays that are still there, or wait to be deleted by name.
pub fn work_directories(layers: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(layers.join("work")).unwrap().flatten();
    entries.map(|entry| entry.path()).collect()
}
