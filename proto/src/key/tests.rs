//! Every field of every step is changed, one at a time, and the table of the documentation says what
//! must come of it.

use super::*;
use crate::error::SourceRange;
use crate::id::OciDigest;
use crate::id::TreeId;
use crate::mount::Policy;
use crate::platform::Platform;
use crate::step::*;
use std::cell::RefCell;
use std::collections::BTreeMap;

fn step(op: Op) -> Step {
    Step {
        op,
        inputs: vec![StepId(0)],
        name: "[1/1] X".to_owned(),
        platform: Platform::parse("linux/amd64").unwrap(),
        at: None,
        cache: CacheUse::Use,
        needs: Needs::default(),
    }
}

fn keys(step: &Step) -> (DefKey, ContentKey, ShapeKey) {
    let inputs = ContentInputs {
        root: RootId(TreeId::from_bytes([1; 32])),
        root_content: ContentDigest::from_bytes([2; 32]),
        selections: vec![ContentDigest::from_bytes([3; 32])],
    };
    let def = def_key(step, &[DefInput::Step(DefKey::from_bytes([4; 32]))], None);
    (def, content_key(step, &inputs), shape_key(step))
}

/// Which keys change: definition, content, shape.
type Changed = (bool, bool, bool);

/// Changes one field and looks which keys change.
fn flips(what: &str, before: &Step, change: impl FnOnce(&mut Step), expected: Changed) {
    let mut after = before.clone();
    change(&mut after);
    assert_ne!(before, &after, "{what}: nothing was changed");
    let (b, a) = (keys(before), keys(&after));
    assert_eq!((b.0 != a.0, b.1 != a.1, b.2 != a.2), expected, "{what}");
    SEEN.with_borrow_mut(|seen| seen.insert(what.to_owned(), expected));
}

thread_local! {
    /// What this thread has changed so far, and which keys followed.
    static SEEN: RefCell<BTreeMap<String, Changed>> = const { RefCell::new(BTreeMap::new()) };
}

/// The rows of `docs/cache-keys.md` that are about fields: name, then the three keys.
fn documented() -> BTreeMap<String, Changed> {
    let text = include_str!("../../../docs/cache-keys.md");
    let answer = |cell: &str| match cell.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [what, def, content, shape, _] = cells.as_slice() else { return None };
        let changed = (answer(def)?, answer(content)?, answer(shape)?);
        Some((what.trim().replace('`', ""), changed))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn the_documentation_says_what_is_so() {
    fields_of_a_step();
    fields_of_run();
    fields_of_mounts();
    fields_of_copy();
    fields_of_the_rest();
    SEEN.with_borrow(|seen| assert_eq!(*seen, documented()));
}

const ALL: Changed = (true, true, true);
const BOTH: Changed = (true, true, false);
const DEF: Changed = (true, false, false);
const DEF_AND_SHAPE: Changed = (true, false, true);
const SHAPE: Changed = (false, false, true);
const NONE: Changed = (false, false, false);

fn run() -> RunOp {
    RunOp {
        args: vec!["sh".into(), "-c".into(), "make".into()],
        env: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
        cwd: "/".into(),
        user: String::new(),
        network: NetworkMode::Default,
        security: SecurityMode::Sandbox,
        mounts: Vec::new(),
        hostname: String::new(),
        extra_hosts: vec![("db".into(), "10.0.0.1".into())],
        ulimits: Vec::new(),
        shm_bytes: 0,
        cgroup_parent: String::new(),
        devices: Vec::new(),
        proxy_env: Vec::new(),
    }
}

fn as_run(step: &mut Step) -> &mut RunOp {
    match &mut step.op {
        Op::Run(run) => run,
        _ => unreachable!("the test made a RUN"),
    }
}

#[test]
fn fields_of_a_step() {
    let s = step(Op::Run(run()));
    flips("step: platform", &s, |s| s.platform.arch = "arm64".into(), ALL);
    flips("step: name", &s, |s| s.name.push('x'), NONE);
    flips("step: inputs", &s, |s| s.inputs.push(StepId(7)), NONE);
    flips("step: cache", &s, |s| s.cache = CacheUse::Refresh, NONE);
    flips("step: needs", &s, |s| s.needs.cpu_millis = 1, NONE);
    let at = SourceRange { file: "Dockerfile".into(), first_line: 1, last_line: 2 };
    flips("step: place", &s, |s| s.at = Some(at), NONE);
    flips("step: kind", &s, |s| s.op = Op::Merge, ALL);
}

#[test]
fn fields_of_run() {
    let s = step(Op::Run(run()));
    let f = |what: &str, change: fn(&mut RunOp), expected| {
        flips(&format!("RUN: {what}"), &s, |s| change(as_run(s)), expected);
    };
    f("args", |r| r.args[2].push('x'), ALL);
    f("args split", |r| r.args = vec!["sh".into(), "-cmake".into()], ALL);
    f("env", |r| r.env[0].1.push('x'), BOTH);
    f("env name", |r| r.env[0].0.push('x'), ALL);
    f("env order", |r| r.env.swap(0, 1), ALL);
    f("cwd", |r| r.cwd.push('x'), ALL);
    f("user", |r| r.user.push('x'), ALL);
    f("network", |r| r.network = NetworkMode::None, ALL);
    f("security", |r| r.security = SecurityMode::Insecure, BOTH);
    f("hostname", |r| r.hostname.push('x'), BOTH);
    f("host name", |r| r.extra_hosts[0].0.push('x'), BOTH);
    f("host address", |r| r.extra_hosts[0].1.push('x'), NONE);
    f("ulimits", |r| r.ulimits.push(("nofile".into(), 1, 2)), BOTH);
    f("shm", |r| r.shm_bytes = 1, BOTH);
    f("cgroup", |r| r.cgroup_parent.push('x'), BOTH);
    f("devices", |r| r.devices.push(("d".into(), true)), BOTH);
    f("proxy", |r| r.proxy_env.push(("http_proxy".into(), "x".into())), NONE);
}

#[test]
fn fields_of_mounts() {
    let with = |kind: MountKind| {
        let mut run = run();
        run.mounts.push(Mount { target: "/m".into(), input: Some(1), kind });
        step(Op::Run(run))
    };
    let f = |what: &str, s: &Step, change: fn(&mut Mount), expected| {
        flips(&format!("mount: {what}"), s, |s| change(&mut as_run(s).mounts[0]), expected);
    };
    macro_rules! set {
        ($kind:ident . $field:ident = $value:expr) => {
            |m: &mut Mount| match &mut m.kind {
                MountKind::$kind(it) => it.$field = $value,
                _ => unreachable!("another kind of mount"),
            }
        };
    }
    let bind = with(MountKind::Bind(BindMount { source: "/".into(), writable: false }));
    f("target", &bind, |m| m.target.push('x'), ALL);
    f("input", &bind, |m| m.input = Some(2), BOTH);
    f("bind source", &bind, set!(Bind.source = "/x".into()), DEF_AND_SHAPE);
    f("bind writable", &bind, set!(Bind.writable = true), BOTH);

    let cache = with(MountKind::Cache(CacheMount {
        id: "c".into(),
        sharing: Sharing::Shared,
        merge: None,
        source: String::new(),
        read_only: false,
        mode: 0o755,
        uid: 0,
        gid: 0,
    }));
    f("cache id", &cache, set!(Cache.id = "x".into()), SHAPE);
    f("cache sharing", &cache, set!(Cache.sharing = Sharing::Locked), NONE);
    f("cache merge", &cache, set!(Cache.merge = Some(Policy::Union)), NONE);
    f("cache source", &cache, set!(Cache.source = "x".into()), NONE);
    f("cache read-only", &cache, set!(Cache.read_only = true), NONE);
    f("cache mode", &cache, set!(Cache.mode = 1), NONE);
    f("cache uid", &cache, set!(Cache.uid = 1), NONE);
    f("cache gid", &cache, set!(Cache.gid = 1), NONE);

    let tmpfs = with(MountKind::Tmpfs(TmpfsMount { size: 0, read_only: false }));
    f("tmpfs size", &tmpfs, set!(Tmpfs.size = 1), BOTH);
    f("tmpfs read-only", &tmpfs, set!(Tmpfs.read_only = true), BOTH);
    f("kind", &tmpfs, |m| m.kind = with_cache(), ALL);

    let secret = with(MountKind::Secret(SecretMount {
        id: "s".into(),
        file: true,
        env: None,
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    }));
    f("secret id", &secret, set!(Secret.id = "x".into()), BOTH);
    f("secret file", &secret, set!(Secret.file = false), BOTH);
    f("secret env", &secret, set!(Secret.env = Some("S".into())), BOTH);
    f("secret required", &secret, set!(Secret.required = true), BOTH);
    f("secret mode", &secret, set!(Secret.mode = 0o444), BOTH);
    f("secret uid", &secret, set!(Secret.uid = 1), BOTH);
    f("secret gid", &secret, set!(Secret.gid = 1), BOTH);

    let ssh = with(MountKind::Ssh(SshMount {
        id: "s".into(),
        required: false,
        mode: 0o600,
        uid: 0,
        gid: 0,
    }));
    f("ssh id", &ssh, set!(Ssh.id = "x".into()), BOTH);
    f("ssh required", &ssh, set!(Ssh.required = true), BOTH);
    f("ssh mode", &ssh, set!(Ssh.mode = 0o666), BOTH);
    f("ssh uid", &ssh, set!(Ssh.uid = 1), BOTH);
    f("ssh gid", &ssh, set!(Ssh.gid = 1), BOTH);
}

fn with_cache() -> MountKind {
    MountKind::Cache(CacheMount {
        id: String::new(),
        sharing: Sharing::Shared,
        merge: None,
        source: String::new(),
        read_only: false,
        mode: 0,
        uid: 0,
        gid: 0,
    })
}

#[test]
fn fields_of_copy() {
    let s = step(Op::Copy(CopyOp {
        sources: vec![CopySource {
            input: 1,
            path: "a".into(),
            pattern: false,
            unpack: Unpack::Never,
            checked: true,
        }],
        dest: "/b".into(),
        chown: None,
        chmod: None,
        parents: false,
        exclude: Vec::new(),
    }));
    let f = |what: &str, change: fn(&mut CopyOp), expected| {
        let change = |s: &mut Step| match &mut s.op {
            Op::Copy(copy) => change(copy),
            _ => unreachable!("the test made a COPY"),
        };
        flips(&format!("COPY: {what}"), &s, change, expected);
    };
    f("dest", |o| o.dest.push('x'), BOTH);
    f("chown", |o| o.chown = Some("1".into()), BOTH);
    f("chmod", |o| o.chmod = Some("1".into()), BOTH);
    f("parents", |o| o.parents = true, DEF);
    f("exclude", |o| o.exclude.push("x".into()), DEF);
    f("source path", |o| o.sources[0].path.push('x'), DEF);
    f("source pattern", |o| o.sources[0].pattern = true, DEF);
    f("source unpack", |o| o.sources[0].unpack = Unpack::IfArchive, DEF);
    f("source input", |o| o.sources[0].input = 2, BOTH);
    f("source checked", |o| o.sources[0].checked = false, DEF);
}

#[test]
fn fields_of_the_rest() {
    let mkdir = step(Op::Mkdir(MkdirOp { path: "/w".into(), owner: String::new(), epoch: None }));
    macro_rules! f {
        ($what:literal, $step:expr, $kind:ident . $field:ident = $value:expr, $keys:expr) => {
            flips(
                $what,
                $step,
                |s| match &mut s.op {
                    Op::$kind(op) => op.$field = $value,
                    _ => unreachable!("another operation"),
                },
                $keys,
            )
        };
    }
    f!("WORKDIR: path", &mkdir, Mkdir.path = "/x".into(), BOTH);
    f!("WORKDIR: owner", &mkdir, Mkdir.owner = "1".into(), BOTH);
    f!("WORKDIR: epoch", &mkdir, Mkdir.epoch = Some(1), BOTH);

    let image = step(Op::Image(ImageOp {
        reference: "r".into(),
        manifest: OciDigest::from_bytes([0; 32]),
        origin: ImageOrigin::Registry,
    }));
    f!("image: name", &image, Image.reference = "x".into(), SHAPE);
    f!("image: digest", &image, Image.manifest = OciDigest::from_bytes([1; 32]), BOTH);
    f!("image: origin", &image, Image.origin = ImageOrigin::Local, NONE);
    let layout = ImageOrigin::Layout(RootId(TreeId::from_bytes([1; 32])));
    f!("image: origin", &image, Image.origin = layout, NONE);

    let inline = step(Op::Inline(InlineOp { name: "n".into(), data: vec![1], mode: 0o644 }));
    f!("inline file: name", &inline, Inline.name = "x".into(), BOTH);
    f!("inline file: data", &inline, Inline.data = vec![2], BOTH);
    f!("inline file: mode", &inline, Inline.mode = 0o755, BOTH);

    let http = step(Op::Http(HttpOp {
        url: "http://h/f".into(),
        name: "f".into(),
        checksum: None,
        resolved: OciDigest::from_bytes([0; 32]),
        modified: None,
    }));
    f!("URL: url", &http, Http.url = "x".into(), SHAPE);
    f!("URL: name", &http, Http.name = "x".into(), BOTH);
    f!("URL: checksum", &http, Http.checksum = Some(OciDigest::from_bytes([0; 32])), NONE);
    f!("URL: digest", &http, Http.resolved = OciDigest::from_bytes([1; 32]), BOTH);
    f!("URL: time", &http, Http.modified = Some(1), NONE);

    let git = step(Op::Git(GitOp {
        remote: "r".into(),
        reference: "main".into(),
        commit: "c".into(),
        subdir: String::new(),
        keep_git_dir: false,
        submodules: true,
    }));
    f!("git: remote", &git, Git.remote = "x".into(), ALL);
    f!("git: reference", &git, Git.reference = "x".into(), NONE);
    f!("git: commit", &git, Git.commit = "x".into(), BOTH);
    f!("git: subdir", &git, Git.subdir = "x".into(), BOTH);
    f!("git: dir", &git, Git.keep_git_dir = true, ALL);
    f!("git: submodules", &git, Git.submodules = false, ALL);

    let local = step(Op::Local(LocalOp {
        name: "context".into(),
        root: RootId(TreeId::from_bytes([0; 32])),
    }));
    f!("local files: name", &local, Local.name = "x".into(), NONE);
    f!("local files: root", &local, Local.root = RootId(TreeId::from_bytes([1; 32])), NONE);
}

#[test]
fn inputs_count() {
    let run = step(Op::Run(run()));
    let copy = step(Op::Mkdir(MkdirOp { path: "/".into(), owner: String::new(), epoch: None }));
    let def =
        |key: u8, nonce| def_key(&run, &[DefInput::Step(DefKey::from_bytes([key; 32]))], nonce);
    assert_ne!(def(1, None), def(2, None), "an input's definition");
    assert_ne!(def(1, None), def(1, Some("n")), "a nonce");
    let selected = def_key(&run, &[DefInput::Selection(ContentDigest::from_bytes([1; 32]))], None);
    assert_ne!(def(1, None), selected, "the kind of an input");

    let content = |step: &Step, root: u8, content: u8, selection: u8| {
        let inputs = ContentInputs {
            root: RootId(TreeId::from_bytes([root; 32])),
            root_content: ContentDigest::from_bytes([content; 32]),
            selections: vec![ContentDigest::from_bytes([selection; 32])],
        };
        content_key(step, &inputs)
    };
    assert_ne!(content(&run, 1, 1, 1), content(&run, 2, 1, 1), "RUN: times of the root");
    assert_eq!(content(&copy, 1, 1, 1), content(&copy, 2, 1, 1), "others: no times of the root");
    assert_ne!(content(&copy, 1, 1, 1), content(&copy, 1, 2, 1), "others: content of the root");
    assert_ne!(content(&run, 1, 1, 1), content(&run, 1, 1, 2), "a selection");
}
