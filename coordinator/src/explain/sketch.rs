//! A build's graph to what is kept of it.

use super::trace::{Field, Input, Kind, Origin, Sketch, Takes, Trace, Variable, Verdict};
use crate::core::Plan;
use crate::dockerfile::{Dockerfile, Kind as Instruction};
use crate::graph::keys::Selections;
use proto::canon::{self, Canon};
use proto::id::{BuildId, DefKey, Millis, RootId};
use proto::key::shape_key;
use proto::step::{CacheUse, CopyOp, Mount, MountKind, Op, RunOp, Step, StepId};
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

fn fields(step: &Step) -> Vec<Part> {
    let mut fields = match &step.op {
        Op::Run(run) => run_fields(run),
        Op::Copy(copy) => copy_fields(copy),
        Op::Mkdir(dir) => vec![
            text(Field::Path, &format!("{}\0{}", dir.path, dir.owner)),
            text(Field::Epoch, &format!("{:?}", dir.epoch)),
        ],
        Op::Image(image) => vec![text(Field::Bytes, &image.manifest.to_string())],
        Op::Inline(file) => {
            let bytes = part(Field::Bytes, |c| {
                c.bytes(&file.data).u16(file.mode);
            });
            vec![bytes, text(Field::Form, &file.name)]
        }
        Op::Http(file) => {
            vec![text(Field::Bytes, &file.resolved.to_string()), text(Field::Form, &file.name)]
        }
        Op::Git(git) => {
            let form = format!("{}\0{}{}", git.subdir, git.keep_git_dir, git.submodules);
            let commit = format!("{}\0{}", git.remote, git.commit);
            vec![text(Field::Bytes, &commit), text(Field::Form, &form)]
        }
        Op::Scratch | Op::Local(_) | Op::Merge => Vec::new(),
    };
    fields.push(text(Field::Platform, &step.platform.to_string()));
    fields
}

fn run_fields(run: &RunOp) -> Vec<Part> {
    let names: Vec<&String> = run.extra_hosts.iter().map(|(name, _)| name).collect();
    vec![
        texts(Field::Command, run.args.iter()),
        text(Field::Directory, &run.cwd),
        text(Field::User, &run.user),
        text(Field::Network, &format!("{:?}", run.network)),
        text(Field::Security, &format!("{:?}", run.security)),
        part(Field::Mounts, |c| {
            c.list(run.mounts.iter(), mount);
        }),
        text(Field::HostName, &run.hostname),
        texts(Field::Hosts, names.into_iter()),
        text(Field::Limits, &format!("{:?}", run.ulimits)),
        text(Field::SharedMemory, &run.shm_bytes.to_string()),
        text(Field::ControlGroup, &run.cgroup_parent),
        text(Field::Devices, &format!("{:?}", run.devices)),
    ]
}

/// What of a mount is in a key.
fn mount(c: &mut Canon<'_>, mount: &Mount) {
    c.text(&mount.target).option(mount.input, |c, input| {
        c.u32(input);
    });
    match &mount.kind {
        MountKind::Bind(bind) => c.tag(0).text(&bind.source).bool(bind.writable),
        MountKind::Cache(_) => c.tag(1),
        MountKind::Tmpfs(tmpfs) => c.tag(2).u64(tmpfs.size),
        MountKind::Secret(secret) => c.tag(3).text(&format!("{secret:?}")),
        MountKind::Ssh(ssh) => c.tag(4).text(&format!("{ssh:?}")),
    };
}

fn copy_fields(copy: &CopyOp) -> Vec<Part> {
    vec![
        text(Field::Sources, &format!("{:?}", copy.sources)),
        text(Field::Destination, &copy.dest),
        text(Field::Chown, &format!("{:?}", copy.chown)),
        text(Field::Chmod, &format!("{:?}", copy.chmod)),
        text(Field::Selection, &format!("{} {:?}", copy.parents, copy.exclude)),
    ]
}
