//! The two keys of a step, and what enters each.
//!
//! The *definition key* names what is to be done, by the text of the step and the definition keys
//! of its inputs; it is known before anything runs and joins identical work in flight. The *content
//! key* names the same step with its inputs as they really are; it names the record.
//!
//! | value | definition key | content key | why not |
//! |---|---|---|---|
//! | platform | yes | yes | |
//! | image: manifest digest | yes | yes | the name and where it comes from: the digest says all |
//! | local files | the selection's content | the selection's content | the context's place, its other files, times, owners |
//! | inline file: name, bytes, mode | yes | yes | |
//! | URL: digest and name of the file | yes | yes | the address: the digest says all |
//! | git: remote, commit, subdir, flags | yes | yes | branch or tag: the commit says all |
//! | RUN: root file system | its definition | its full tree, times too | |
//! | RUN: arguments, environment in order, directory, user | yes | yes | |
//! | RUN: network, security, host name, ulimits, shm size, cgroup parent, devices | yes | yes | |
//! | RUN: extra hosts | names | names | addresses differ between machines |
//! | RUN: proxy variables without ARG | no | no | they differ between machines |
//! | RUN: processors, memory, timeout | no | no | they do not change a result |
//! | mount: target, kind | yes | yes | |
//! | bind: source, writable | yes, and the input's definition | writable, and the selection's content | |
//! | cache: id, sharing, owner, mode, read-only, content | no | no | any content is legal |
//! | tmpfs: size | yes | yes | |
//! | secret, ssh: id, target, variable, required, mode, owner | yes | yes | values, never |
//! | COPY: destination, owner, mode | yes | yes | |
//! | COPY: source paths, patterns, `--parents`, `--exclude`, unpacking | yes, and the input's definition | what they select, by name and content | |
//! | COPY, WORKDIR: root | its definition | its content without times | a layer depends on names, kinds, modes and owners only |
//! | WORKDIR: path, owner, `SOURCE_DATE_EPOCH` | yes | yes | |
//! | name of the step, its place, labels of the build | no | no | they do not change a result |
//! | `--no-cache` | a nonce of the build | no | the new result replaces the old one |

use crate::canon::{self, Canon};
use crate::id::{ContentDigest, ContentKey, DefKey, RootId};
use crate::step::{
    BindMount, CacheMount, CopyOp, CopySource, GitOp, HttpOp, ImageOp, InlineOp, MkdirOp, Mount,
    MountKind, Op, RunOp, SecretMount, SshMount, Step, TmpfsMount,
};

const DEF_DOMAIN: &str = "slipway 2026-11 definition key";
const CONTENT_DOMAIN: &str = "slipway 2026-11 content key";

/// One input, as a definition key sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefInput {
    /// A step, by its definition.
    Step(DefKey),
    /// Files of the client's: what this step selects of them.
    Selection(ContentDigest),
}

/// What a step reads, as a content key sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentInputs {
    /// The root that it works on, in full; only RUN looks at it.
    pub root: RootId,
    /// The root that it works on, without times.
    pub root_content: ContentDigest,
    /// What it selects of each further input, in order.
    pub selections: Vec<ContentDigest>,
}

/// Whether definition or content is hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Def,
    Content,
}

/// The definition key of a step. `inputs` stand in the order of [`Step::inputs`]; `nonce` is the
/// build's, when the step may not take an earlier result.
pub fn def_key(step: &Step, inputs: &[DefInput], nonce: Option<&str>) -> DefKey {
    DefKey::from_bytes(canon::hash(DEF_DOMAIN, |c| {
        op(c, &step.op, Which::Def);
        step.platform.canon(c);
        c.list(inputs.iter(), |c, input| match input {
            DefInput::Step(key) => {
                c.tag(0).hash32(key.as_bytes());
            }
            DefInput::Selection(digest) => {
                c.tag(1).hash32(digest.as_bytes());
            }
        });
        c.option(nonce, |c, nonce| {
            c.text(nonce);
        });
    }))
}

/// The content key of a step.
pub fn content_key(step: &Step, inputs: &ContentInputs) -> ContentKey {
    ContentKey::from_bytes(canon::hash(CONTENT_DOMAIN, |c| {
        op(c, &step.op, Which::Content);
        step.platform.canon(c);
        match &step.op {
            Op::Run(_) => {
                c.tag(0).hash32(inputs.root.0.as_bytes());
            }
            Op::Copy(_) | Op::Mkdir(_) => {
                c.tag(1).hash32(inputs.root_content.as_bytes());
            }
            Op::Scratch
            | Op::Image(_)
            | Op::Local(_)
            | Op::Inline(_)
            | Op::Http(_)
            | Op::Git(_)
            | Op::Merge => {
                c.tag(2);
            }
        }
        c.list(inputs.selections.iter(), |c, digest| {
            c.hash32(digest.as_bytes());
        });
    }))
}

fn op(c: &mut Canon<'_>, op: &Op, which: Which) {
    match op {
        Op::Scratch => {
            c.tag(0);
        }
        Op::Image(ImageOp { reference: _, manifest, origin: _ }) => {
            c.tag(1).hash32(manifest.as_bytes());
        }
        // Who uses local files is keyed by what it selects of them.
        Op::Local(_) => {
            c.tag(2);
        }
        Op::Inline(InlineOp { name, data, mode }) => {
            c.tag(3).text(name).bytes(data).u16(*mode);
        }
        Op::Http(HttpOp { url: _, name, checksum: _, resolved, modified: _ }) => {
            c.tag(4).text(name).hash32(resolved.as_bytes());
        }
        Op::Git(GitOp { remote, reference: _, commit, subdir, keep_git_dir, submodules }) => {
            c.tag(5).text(remote).text(commit).text(subdir);
            c.bool(*keep_git_dir).bool(*submodules);
        }
        Op::Run(run) => run_op(c.tag(6), run, which),
        Op::Copy(copy) => copy_op(c.tag(7), copy, which),
        Op::Mkdir(MkdirOp { path, owner, epoch }) => {
            c.tag(8).text(path).text(owner).option(*epoch, |c, e| {
                c.i64(e);
            });
        }
        Op::Merge => {
            c.tag(9);
        }
    }
}

fn run_op(c: &mut Canon<'_>, run: &RunOp, which: Which) {
    let RunOp {
        args,
        env,
        cwd,
        user,
        network,
        security,
        mounts,
        hostname,
        extra_hosts,
        ulimits,
        shm_bytes,
        cgroup_parent,
        devices,
        proxy_env: _,
    } = run;
    c.list(args.iter(), |c, a| {
        c.text(a);
    });
    c.list(env.iter(), |c, (name, value)| {
        c.text(name).text(value);
    });
    c.text(cwd).text(user).tag(*network as u8).tag(*security as u8);
    c.list(mounts.iter(), |c, m| mount(c, m, which));
    c.text(hostname);
    c.list(extra_hosts.iter(), |c, (name, _)| {
        c.text(name);
    });
    c.list(ulimits.iter(), |c, (name, soft, hard)| {
        c.text(name).i64(*soft).i64(*hard);
    });
    c.u64(*shm_bytes).text(cgroup_parent);
    c.list(devices.iter(), |c, (name, required)| {
        c.text(name).bool(*required);
    });
}

fn mount(c: &mut Canon<'_>, mount: &Mount, which: Which) {
    let Mount { target, input: _, kind } = mount;
    c.text(target);
    match kind {
        MountKind::Bind(BindMount { source, writable }) => {
            c.tag(0).bool(*writable);
            if which == Which::Def {
                c.text(source);
            }
        }
        MountKind::Cache(CacheMount {
            id: _,
            sharing: _,
            source: _,
            read_only: _,
            mode: _,
            uid: _,
            gid: _,
        }) => {
            c.tag(1);
        }
        MountKind::Tmpfs(TmpfsMount { size }) => {
            c.tag(2).u64(*size);
        }
        MountKind::Secret(SecretMount { id, file, env, required, mode, uid, gid }) => {
            c.tag(3).text(id).bool(*file).option(env.as_deref(), |c, e| {
                c.text(e);
            });
            c.bool(*required).u16(*mode).u32(*uid).u32(*gid);
        }
        MountKind::Ssh(SshMount { id, required, mode, uid, gid }) => {
            c.tag(4).text(id).bool(*required).u16(*mode).u32(*uid).u32(*gid);
        }
    }
}

fn copy_op(c: &mut Canon<'_>, copy: &CopyOp, which: Which) {
    let CopyOp { sources, dest, chown, chmod, parents, exclude } = copy;
    c.text(dest);
    c.option(chown.as_deref(), |c, v| {
        c.text(v);
    });
    c.option(chmod.as_deref(), |c, v| {
        c.text(v);
    });
    if which == Which::Content {
        return;
    }
    c.bool(*parents);
    c.list(exclude.iter(), |c, pattern| {
        c.text(pattern);
    });
    c.list(sources.iter(), |c, CopySource { input: _, path, pattern, unpack }| {
        c.text(path).bool(*pattern).tag(*unpack as u8);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SourceRange;
    use crate::id::OciDigest;
    use crate::id::TreeId;
    use crate::platform::Platform;
    use crate::step::*;

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

    fn keys(step: &Step) -> (DefKey, ContentKey) {
        let inputs = ContentInputs {
            root: RootId(TreeId::from_bytes([1; 32])),
            root_content: ContentDigest::from_bytes([2; 32]),
            selections: vec![ContentDigest::from_bytes([3; 32])],
        };
        let def = def_key(step, &[DefInput::Step(DefKey::from_bytes([4; 32]))], None);
        (def, content_key(step, &inputs))
    }

    /// Changes one field and looks which keys change: definition, content.
    fn flips(what: &str, before: &Step, change: impl FnOnce(&mut Step), expected: (bool, bool)) {
        let mut after = before.clone();
        change(&mut after);
        assert_ne!(before, &after, "{what}: nothing was changed");
        let (b, a) = (keys(before), keys(&after));
        assert_eq!((b.0 != a.0, b.1 != a.1), expected, "{what}");
    }

    const BOTH: (bool, bool) = (true, true);
    const DEF: (bool, bool) = (true, false);
    const NEITHER: (bool, bool) = (false, false);

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
        flips("platform", &s, |s| s.platform.arch = "arm64".into(), BOTH);
        flips("name", &s, |s| s.name.push('x'), NEITHER);
        flips("inputs", &s, |s| s.inputs.push(StepId(7)), NEITHER);
        flips("cache", &s, |s| s.cache = CacheUse::Refresh, NEITHER);
        flips("needs", &s, |s| s.needs.cpu_millis = 1, NEITHER);
        let at = SourceRange { file: "Dockerfile".into(), first_line: 1, last_line: 2 };
        flips("place", &s, |s| s.at = Some(at), NEITHER);
        flips("kind", &s, |s| s.op = Op::Merge, BOTH);
    }

    #[test]
    fn fields_of_run() {
        let s = step(Op::Run(run()));
        let f = |what: &str, change: fn(&mut RunOp), expected| {
            flips(what, &s, |s| change(as_run(s)), expected);
        };
        f("args", |r| r.args[2].push('x'), BOTH);
        f("args split", |r| r.args = vec!["sh".into(), "-cmake".into()], BOTH);
        f("env", |r| r.env[0].1.push('x'), BOTH);
        f("env order", |r| r.env.swap(0, 1), BOTH);
        f("cwd", |r| r.cwd.push('x'), BOTH);
        f("user", |r| r.user.push('x'), BOTH);
        f("network", |r| r.network = NetworkMode::None, BOTH);
        f("security", |r| r.security = SecurityMode::Insecure, BOTH);
        f("hostname", |r| r.hostname.push('x'), BOTH);
        f("host name", |r| r.extra_hosts[0].0.push('x'), BOTH);
        f("host address", |r| r.extra_hosts[0].1.push('x'), NEITHER);
        f("ulimits", |r| r.ulimits.push(("nofile".into(), 1, 2)), BOTH);
        f("shm", |r| r.shm_bytes = 1, BOTH);
        f("cgroup", |r| r.cgroup_parent.push('x'), BOTH);
        f("devices", |r| r.devices.push(("d".into(), true)), BOTH);
        f("proxy", |r| r.proxy_env.push(("http_proxy".into(), "x".into())), NEITHER);
    }

    #[test]
    fn fields_of_mounts() {
        let with = |kind: MountKind| {
            let mut run = run();
            run.mounts.push(Mount { target: "/m".into(), input: Some(1), kind });
            step(Op::Run(run))
        };
        let f = |what: &str, s: &Step, change: fn(&mut Mount), expected| {
            flips(what, s, |s| change(&mut as_run(s).mounts[0]), expected);
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
        f("target", &bind, |m| m.target.push('x'), BOTH);
        f("input", &bind, |m| m.input = Some(2), NEITHER);
        f("bind source", &bind, set!(Bind.source = "/x".into()), DEF);
        f("bind writable", &bind, set!(Bind.writable = true), BOTH);

        let cache = with(MountKind::Cache(CacheMount {
            id: "c".into(),
            sharing: Sharing::Shared,
            source: String::new(),
            read_only: false,
            mode: 0o755,
            uid: 0,
            gid: 0,
        }));
        f("cache id", &cache, set!(Cache.id = "x".into()), NEITHER);
        f("cache sharing", &cache, set!(Cache.sharing = Sharing::Locked), NEITHER);
        f("cache source", &cache, set!(Cache.source = "x".into()), NEITHER);
        f("cache read-only", &cache, set!(Cache.read_only = true), NEITHER);
        f("cache mode", &cache, set!(Cache.mode = 1), NEITHER);
        f("cache uid", &cache, set!(Cache.uid = 1), NEITHER);
        f("cache gid", &cache, set!(Cache.gid = 1), NEITHER);

        let tmpfs = with(MountKind::Tmpfs(TmpfsMount { size: 0 }));
        f("tmpfs size", &tmpfs, set!(Tmpfs.size = 1), BOTH);
        f("kind", &tmpfs, |m| m.kind = with_cache(), BOTH);

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
            flips(what, &s, change, expected);
        };
        f("dest", |o| o.dest.push('x'), BOTH);
        f("chown", |o| o.chown = Some("1".into()), BOTH);
        f("chmod", |o| o.chmod = Some("1".into()), BOTH);
        f("parents", |o| o.parents = true, DEF);
        f("exclude", |o| o.exclude.push("x".into()), DEF);
        f("source path", |o| o.sources[0].path.push('x'), DEF);
        f("source pattern", |o| o.sources[0].pattern = true, DEF);
        f("source unpack", |o| o.sources[0].unpack = Unpack::IfArchive, DEF);
        f("source input", |o| o.sources[0].input = 2, NEITHER);
    }

    #[test]
    fn fields_of_the_rest() {
        let mkdir =
            step(Op::Mkdir(MkdirOp { path: "/w".into(), owner: String::new(), epoch: None }));
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
        f!("workdir path", &mkdir, Mkdir.path = "/x".into(), BOTH);
        f!("workdir owner", &mkdir, Mkdir.owner = "1".into(), BOTH);
        f!("workdir epoch", &mkdir, Mkdir.epoch = Some(1), BOTH);

        let image = step(Op::Image(ImageOp {
            reference: "r".into(),
            manifest: OciDigest::from_bytes([0; 32]),
            origin: ImageOrigin::Registry,
        }));
        f!("image name", &image, Image.reference = "x".into(), NEITHER);
        f!("image digest", &image, Image.manifest = OciDigest::from_bytes([1; 32]), BOTH);
        f!("image origin", &image, Image.origin = ImageOrigin::Local, NEITHER);

        let inline = step(Op::Inline(InlineOp { name: "n".into(), data: vec![1], mode: 0o644 }));
        f!("inline name", &inline, Inline.name = "x".into(), BOTH);
        f!("inline data", &inline, Inline.data = vec![2], BOTH);
        f!("inline mode", &inline, Inline.mode = 0o755, BOTH);

        let http = step(Op::Http(HttpOp {
            url: "http://h/f".into(),
            name: "f".into(),
            checksum: None,
            resolved: OciDigest::from_bytes([0; 32]),
            modified: None,
        }));
        f!("http url", &http, Http.url = "x".into(), NEITHER);
        f!("http name", &http, Http.name = "x".into(), BOTH);
        f!("http checksum", &http, Http.checksum = Some(OciDigest::from_bytes([0; 32])), NEITHER);
        f!("http digest", &http, Http.resolved = OciDigest::from_bytes([1; 32]), BOTH);
        f!("http time", &http, Http.modified = Some(1), NEITHER);

        let git = step(Op::Git(GitOp {
            remote: "r".into(),
            reference: "main".into(),
            commit: "c".into(),
            subdir: String::new(),
            keep_git_dir: false,
            submodules: true,
        }));
        f!("git remote", &git, Git.remote = "x".into(), BOTH);
        f!("git reference", &git, Git.reference = "x".into(), NEITHER);
        f!("git commit", &git, Git.commit = "x".into(), BOTH);
        f!("git subdir", &git, Git.subdir = "x".into(), BOTH);
        f!("git dir", &git, Git.keep_git_dir = true, BOTH);
        f!("git submodules", &git, Git.submodules = false, BOTH);

        let local = step(Op::Local(LocalOp {
            name: "context".into(),
            root: RootId(TreeId::from_bytes([0; 32])),
        }));
        f!("local name", &local, Local.name = "x".into(), NEITHER);
        f!("local root", &local, Local.root = RootId(TreeId::from_bytes([1; 32])), NEITHER);
    }

    #[test]
    fn inputs_count() {
        let run = step(Op::Run(run()));
        let copy = step(Op::Mkdir(MkdirOp { path: "/".into(), owner: String::new(), epoch: None }));
        let def =
            |key: u8, nonce| def_key(&run, &[DefInput::Step(DefKey::from_bytes([key; 32]))], nonce);
        assert_ne!(def(1, None), def(2, None), "an input's definition");
        assert_ne!(def(1, None), def(1, Some("n")), "a nonce");
        let selected =
            def_key(&run, &[DefInput::Selection(ContentDigest::from_bytes([1; 32]))], None);
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
        assert_eq!(
            content(&copy, 1, 1, 1),
            content(&copy, 2, 1, 1),
            "others: no times of the root"
        );
        assert_ne!(content(&copy, 1, 1, 1), content(&copy, 1, 2, 1), "others: content of the root");
        assert_ne!(content(&run, 1, 1, 1), content(&run, 1, 1, 2), "a selection");
    }
}
