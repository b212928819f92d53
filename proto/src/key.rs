//! The keys of a step, and what enters each.
//!
//! The *definition key* names what is to be done, by the text of the step and the definition keys
//! of its inputs; it is known before anything runs and joins identical work in flight. The *content
//! key* names the same step with its inputs as they really are; it names the record. The *shape
//! key* names what steps of many builds have in common that take about as long: nothing depends on
//! it but guesses.
//!
//! What enters which is in `docs/cache-keys.md`, row by row; the tests flip each field and compare
//! what they see with that table.

use crate::canon::{self, Canon};
use crate::id::{ContentDigest, ContentKey, DefKey, RootId, ShapeKey};
use crate::step::{
    BindMount, CacheMount, CopyOp, CopySource, GitOp, HttpOp, ImageOp, InlineOp, MkdirOp, Mount,
    MountKind, Op, RunOp, SecretMount, SshMount, Step, TmpfsMount,
};

const DEF_DOMAIN: &str = "slipway 2026-11 definition key";
const CONTENT_DOMAIN: &str = "slipway 2026-11 content key";
const SHAPE_DOMAIN: &str = "slipway 2026-11 shape key";

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

/// The shape key of a step: what it is like apart from its inputs, and from what changes with every
/// commit. What no worker does has the shape of its kind.
pub fn shape_key(step: &Step) -> ShapeKey {
    ShapeKey::from_bytes(canon::hash(SHAPE_DOMAIN, |c| {
        match &step.op {
            Op::Scratch => c.tag(0),
            Op::Image(image) => c.tag(1).text(&image.reference),
            Op::Local(_) => c.tag(2),
            Op::Inline(_) => c.tag(3),
            Op::Http(http) => c.tag(4).text(&http.url),
            Op::Git(git) => c.tag(5).text(&git.remote).bool(git.keep_git_dir).bool(git.submodules),
            Op::Run(run) => run_shape(c.tag(6), run),
            Op::Copy(_) => c.tag(7),
            Op::Mkdir(_) => c.tag(8),
            Op::Merge => c.tag(9),
        };
        step.platform.canon(c);
    }))
}

fn run_shape<'c, 's>(c: &'c mut Canon<'s>, run: &RunOp) -> &'c mut Canon<'s> {
    c.list(run.args.iter(), |c, a| {
        c.text(a);
    });
    // Values of ARGs are often the commit, or the time.
    c.list(run.env.iter(), |c, (name, _)| {
        c.text(name);
    });
    c.text(&run.cwd).text(&run.user).tag(run.network as u8);
    c.list(run.mounts.iter(), |c, mount| {
        c.text(&mount.target);
        match &mount.kind {
            MountKind::Bind(bind) => c.tag(0).text(&bind.source),
            MountKind::Cache(cache) => c.tag(1).text(&cache.id),
            MountKind::Tmpfs(_) => c.tag(2),
            MountKind::Secret(_) => c.tag(3),
            MountKind::Ssh(_) => c.tag(4),
        };
    })
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
    let Mount { target, input, kind } = mount;
    // Of several mounts, which shows which input is seen here only.
    c.text(target).option(*input, |c, input| {
        c.u32(input);
    });
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
            merge: _,
            source: _,
            read_only: _,
            mode: _,
            uid: _,
            gid: _,
        }) => {
            c.tag(1);
        }
        MountKind::Tmpfs(TmpfsMount { size, read_only }) => {
            c.tag(2).u64(*size).bool(*read_only);
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
    // Of several sources, which comes from which input is seen here only.
    c.list(sources.iter(), |c, source| {
        c.u32(source.input);
    });
    if which == Which::Content {
        return;
    }
    c.bool(*parents);
    c.list(exclude.iter(), |c, pattern| {
        c.text(pattern);
    });
    c.list(sources.iter(), |c, CopySource { input: _, path, pattern, unpack, checked }| {
        let is_unchecked = u8::from(!checked) << 1;
        c.text(path).bool(*pattern).tag(*unpack as u8 | is_unchecked);
    });
}

#[cfg(test)]
mod tests;
