//! A build's graph to what is kept of it.

use super::trace::{Field, Input, Kind, Origin, Sketch, Takes, Trace, Variable, Verdict};
use crate::core::Plan;
use crate::dockerfile::{Dockerfile, Kind as Instruction};
use crate::graph::keys::Selections;
use proto::canon::{self, Canon};
use proto::id::{BuildId, DefKey, Millis, RootId};
use proto::key::shape_key;
use proto::step::{
    BindMount, CacheMount, CacheUse, CopyOp, CopySource, GitOp, HttpOp, ImageOp, InlineOp, MkdirOp,
    Mount, MountKind, Op, RunOp, SecretMount, SshMount, Step, StepId, TmpfsMount,
};
use std::collections::{BTreeMap, BTreeSet};

const DOMAIN: &str = "slipway 2026-11 trace";

/// Steps of one build that are kept.
const STEPS_MAX: usize = 2000;

/// What is known of a build beside its graph.
pub struct Around<'a> {
    /// The Dockerfile, for where variables come from.
    pub dockerfile: Option<&'a Dockerfile>,
    /// What steps take of the client's files.
    pub selections: Option<&'a Selections>,
    /// What became of a step.
    pub verdict: &'a dyn Fn(StepId) -> Verdict,
    /// The roots of a definition's inputs, when they were looked at.
    pub roots: &'a dyn Fn(&DefKey) -> Option<Vec<RootId>>,
}

/// What is kept of a build.
pub fn trace(build: BuildId, started: Millis, plan: &Plan, around: &Around<'_>) -> Trace {
    let origins = origins(around.dockerfile);
    let mut variables = Variables { places: BTreeMap::new(), list: Vec::new(), origins };
    let mut steps = Vec::new();
    for (index, step) in plan.graph.steps.iter().enumerate().take(STEPS_MAX) {
        let (id, keys) = (StepId(index as u32), &plan.keys[index]);
        let input = |(place, input): (usize, &StepId)| Input {
            step: input.0,
            selection: around.selections.and_then(|all| all.get(&(id, place)).copied()),
            local: match &plan.graph.steps[input.index()].op {
                Op::Local(local) => Some(local.root),
                _ => None,
            },
        };
        let env = match &step.op {
            Op::Run(run) => run.env.as_slice(),
            _ => &[],
        };
        steps.push(Sketch {
            name: step.name.clone(),
            kind: kind(&step.op),
            key: keys.alias.unwrap_or(keys.work),
            shape: shape_key(step),
            fields: fields(step),
            variables: env.iter().map(|(name, value)| variables.place(name, value)).collect(),
            inputs: step.inputs.iter().enumerate().map(input).collect(),
            roots: (around.roots)(&keys.work).unwrap_or_default(),
            takes: takes(&step.op),
            verdict: (around.verdict)(id),
            is_fresh: step.cache == CacheUse::Refresh,
        });
    }
    Trace { build, started, variables: variables.list, steps }
}

/// The variables of all RUNs, each once.
struct Variables {
    places: BTreeMap<Variable, u32>,
    list: Vec<Variable>,
    origins: BTreeMap<String, Origin>,
}

impl Variables {
    fn place(&mut self, name: &str, value: &str) -> u32 {
        let origin = self.origins.get(name).copied().unwrap_or(Origin::Other);
        let value = *blake3::hash(value.as_bytes()).as_bytes();
        let variable = Variable { name: name.to_owned(), value, origin };
        *self.places.entry(variable).or_insert_with_key(|variable| {
            self.list.push(variable.clone());
            self.list.len() as u32 - 1
        })
    }
}

/// What sets the variables of a file, as far as the file says so.
fn origins(dockerfile: Option<&Dockerfile>) -> BTreeMap<String, Origin> {
    let (mut args, mut envs) = (BTreeSet::new(), BTreeSet::new());
    let stages = dockerfile.into_iter().flat_map(|file| &file.stages);
    for instruction in stages.flat_map(|stage| &stage.instructions) {
        match &instruction.kind {
            Instruction::Arg(items) => args.extend(items.iter().map(|item| item.name.clone())),
            Instruction::Env(pairs) => {
                envs.extend(pairs.0.iter().map(|pair| pair.key.raw().to_owned()));
            }
            _ => {}
        }
    }
    let of_args = args.difference(&envs).map(|name| (name.clone(), Origin::Arg));
    let of_envs = envs.difference(&args).map(|name| (name.clone(), Origin::Env));
    of_args.chain(of_envs).collect()
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Image(image) => {
            Kind::Image { reference: image.reference.clone(), digest: image.manifest.to_string() }
        }
        Op::Inline(file) => Kind::Inline(file.name.clone()),
        Op::Http(file) => Kind::Http(file.url.clone()),
        Op::Git(git) => Kind::Git { remote: git.remote.clone(), commit: git.commit.clone() },
        Op::Local(local) => Kind::Local(local.name.clone()),
        Op::Run(_) => Kind::Run,
        Op::Copy(_) => Kind::Copy,
        Op::Mkdir(_) => Kind::Mkdir,
        Op::Scratch | Op::Merge => Kind::Joint,
    }
}

fn takes(op: &Op) -> Takes {
    match op {
        Op::Copy(copy) => Takes::Sources(copy.clone()),
        Op::Run(run) => Takes::Binds(run.mounts.iter().filter_map(bind).collect()),
        _ => Takes::Whole,
    }
}

fn bind(mount: &Mount) -> Option<(u32, String)> {
    match (&mount.kind, mount.input) {
        (MountKind::Bind(bind), Some(input)) => Some((input, bind.source.clone())),
        _ => None,
    }
}

/// A part of what a step says.
type Part = (Field, [u8; 16]);

fn part(field: Field, write: impl FnOnce(&mut Canon<'_>)) -> Part {
    let whole = canon::hash(DOMAIN, write);
    (field, whole[..16].try_into().expect("half of 32 bytes"))
}

fn text(field: Field, text: &str) -> Part {
    part(field, |c| {
        c.text(text);
    })
}

fn texts<'t>(field: Field, texts: impl ExactSizeIterator<Item = &'t String>) -> Part {
    part(field, |c| {
        c.list(texts, |c, text| {
            c.text(text);
        });
    })
}

// Below nothing is left out by accident: what is in no key stands as `_`, as in `proto::key`.

fn fields(step: &Step) -> Vec<Part> {
    let mut fields = match &step.op {
        Op::Run(run) => run_fields(run),
        Op::Copy(copy) => copy_fields(copy),
        Op::Mkdir(MkdirOp { path, owner, epoch }) => vec![
            text(Field::Path, &format!("{path}\0{owner}")),
            text(Field::Epoch, &format!("{epoch:?}")),
        ],
        Op::Image(ImageOp { reference: _, manifest, origin: _ }) => {
            vec![text(Field::Bytes, &manifest.to_string())]
        }
        Op::Inline(InlineOp { name, data, mode }) => {
            let bytes = part(Field::Bytes, |c| {
                c.bytes(data).u16(*mode);
            });
            vec![bytes, text(Field::Form, name)]
        }
        Op::Http(HttpOp { url: _, name, checksum: _, resolved, modified: _ }) => {
            vec![text(Field::Bytes, &resolved.to_string()), text(Field::Form, name)]
        }
        Op::Git(GitOp { remote, reference: _, commit, subdir, keep_git_dir, submodules }) => {
            let form = format!("{subdir}\0{keep_git_dir}{submodules}");
            let commit = format!("{remote}\0{commit}");
            vec![text(Field::Bytes, &commit), text(Field::Form, &form)]
        }
        Op::Scratch | Op::Local(_) | Op::Merge => Vec::new(),
    };
    fields.push(text(Field::Platform, &step.platform.to_string()));
    fields
}

fn run_fields(run: &RunOp) -> Vec<Part> {
    let RunOp {
        args,
        // Compared by name: [`Variables`].
        env: _,
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
    let names: Vec<&String> = extra_hosts.iter().map(|(name, _)| name).collect();
    vec![
        texts(Field::Command, args.iter()),
        text(Field::Directory, cwd),
        text(Field::User, user),
        text(Field::Network, &format!("{network:?}")),
        text(Field::Security, &format!("{security:?}")),
        part(Field::Mounts, |c| {
            c.list(mounts.iter(), mount);
        }),
        text(Field::HostName, hostname),
        texts(Field::Hosts, names.into_iter()),
        text(Field::Limits, &format!("{ulimits:?}")),
        text(Field::SharedMemory, &shm_bytes.to_string()),
        text(Field::ControlGroup, cgroup_parent),
        text(Field::Devices, &format!("{devices:?}")),
    ]
}

/// What of a mount is in a key.
fn mount(c: &mut Canon<'_>, mount: &Mount) {
    let Mount { target, input, kind } = mount;
    c.text(target).option(*input, |c, input| {
        c.u32(input);
    });
    match kind {
        MountKind::Bind(BindMount { source, writable }) => c.tag(0).text(source).bool(*writable),
        MountKind::Cache(CacheMount {
            id: _,
            sharing: _,
            merge: _,
            source: _,
            read_only: _,
            mode: _,
            uid: _,
            gid: _,
        }) => c.tag(1),
        MountKind::Tmpfs(TmpfsMount { size, read_only }) => c.tag(2).u64(*size).bool(*read_only),
        MountKind::Secret(SecretMount { id, file, env, required, mode, uid, gid }) => {
            c.tag(3).text(&format!("{:?}", (id, file, env, required, mode, uid, gid)))
        }
        MountKind::Ssh(SshMount { id, required, mode, uid, gid }) => {
            c.tag(4).text(&format!("{:?}", (id, required, mode, uid, gid)))
        }
    };
}

fn copy_fields(copy: &CopyOp) -> Vec<Part> {
    let CopyOp { sources, dest, chown, chmod, parents, exclude } = copy;
    let source = |CopySource { input, path, pattern, unpack, checked: _ }: &CopySource| {
        format!("{:?}", (input, path, pattern, unpack))
    };
    let sources: Vec<String> = sources.iter().map(source).collect();
    vec![
        texts(Field::Sources, sources.iter()),
        text(Field::Destination, dest),
        text(Field::Chown, &format!("{chown:?}")),
        text(Field::Chmod, &format!("{chmod:?}")),
        text(Field::Selection, &format!("{parents} {exclude:?}")),
    ]
}
