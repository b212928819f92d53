//! RUN.

use super::dispatch::{At, Dispatcher, shell};
use super::{LookedAt, LowerProblem, StageState};
use crate::dockerfile::instruction::Run;
use crate::dockerfile::mount::{self, Owner};
use crate::dockerfile::run::SCRIPT_DIR;
use crate::dockerfile::{history, path};
use proto::step::{
    BindMount, CacheMount, InlineOp, Mount, MountKind, NetworkMode, Op, RunOp, SecretMount,
    SecurityMode, SshMount, StepId, TmpfsMount,
};
use proto::wire::build::Entitlement;

/// Where secrets appear that name no target.
const SECRETS_DIR: &str = "/run/secrets";

/// Where ssh agents appear that name no target.
const SSH_PREFIX: &str = "/run/buildkit/ssh_agent";

/// The variable that says where the agent is: the first one of the RUN, unless the variable is set.
const SSH_VARIABLE: &str = "SSH_AUTH_SOCK";

/// The permission bits of a cache mount's root.
const CACHE_MODE: u16 = 0o755;

/// What counts of the mode of a mount: no special bits, as in BuildKit.
const MODE_MASK: u32 = 0o777;

impl Dispatcher<'_, '_> {
    pub(super) fn run(
        &mut self,
        state: &mut StageState,
        at: &mut At<'_>,
        run: &Run,
    ) -> Result<(), LowerProblem> {
        let mut inputs = vec![state.step];
        let mut mounts = Vec::new();
        let command = run.resolve(&shell(state));
        if let Some(script) = command.script {
            let op = Op::Inline(InlineOp { name: script.name, data: script.data, mode: 0o755 });
            let input = self.build.plain(op, Vec::new(), &state.platform);
            let kind = MountKind::Bind(BindMount { source: "/".to_owned(), writable: false });
            let input = Some(add(&mut inputs, input));
            mounts.push(Mount { target: SCRIPT_DIR.to_owned(), input, kind });
        }
        let mut ssh = 0;
        let hints = self.hints(at)?;
        let mut ids = Vec::new();
        for spec in &run.mounts {
            let given = self.expand(state, at, |e| spec.expand(e))?;
            let mut mount = self.mount(state, at, &given, &mut inputs, &mut ssh)?;
            if let (mount::MountKind::Cache { id, .. }, MountKind::Cache(cache)) =
                (&given.kind, &mut mount.kind)
            {
                cache.merge = hints.merge(id);
                ids.push(id.clone());
            }
            mounts.push(mount);
        }
        if let Some(hint) = hints.merges.iter().find(|hint| !ids.contains(&hint.id)) {
            return Err(LowerProblem::Hint {
                text: format!("cache-mount id={} merge={}", hint.id, hint.policy),
                why: match ids.as_slice() {
                    [] => "the RUN below it has no cache mount".to_owned(),
                    _ => format!("the cache mounts of the RUN below it are {}", ids.join(", ")),
                },
            });
        }
        let mut env = state.env.list().to_vec();
        let agent = mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh(_)));
        if let Some(agent) = agent.filter(|_| state.env.get(SSH_VARIABLE).is_none()) {
            env.push((SSH_VARIABLE.to_owned(), agent.target.clone()));
        }
        let request = self.inputs.request;
        let network = match run.network {
            NetworkMode::Default => request.network,
            mode => mode,
        };
        self.check_allowed(run, network)?;
        // The environment, and the ARGs once more in the history.
        self.build.take(state.env.bytes() + state.declared_bytes)?;
        let op = RunOp {
            args: command.args.clone(),
            env,
            cwd: state.cwd.clone(),
            user: state.image.config.user.clone(),
            network,
            security: run.security,
            mounts,
            hostname: self.args.setting("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or("").to_owned(),
            extra_hosts: request.add_hosts.clone(),
            ulimits: request.ulimits.clone(),
            shm_bytes: request.shm_bytes,
            cgroup_parent: request.cgroup_parent.clone(),
            devices: run.devices.iter().map(|d| (d.name.clone(), d.required)).collect(),
            proxy_env: self.args.proxies.clone(),
        };
        let secret = |mount: &Mount| match &mount.kind {
            MountKind::Secret(secret) => secret.env.clone(),
            _ => None,
        };
        let secrets: Vec<String> = op.mounts.iter().filter_map(secret).collect();
        let name = self.title_without(state, at, &secrets);
        let step = self.push(state, at, Op::Run(op), inputs, name, at.cache());
        self.build.steps[step.index()].needs = hints.needs;
        state.step = step;
        let env = |name: &str| state.env.get(name);
        let row = history::run(&command.args, &state.declared, &env);
        state.row(row, Some(step));
        Ok(())
    }

    fn check_allowed(&self, run: &Run, network: NetworkMode) -> Result<(), LowerProblem> {
        let request = self.inputs.request;
        let has = |wanted: &Entitlement| request.allow.contains(wanted);
        let refuse = |what: String, name: &str| {
            Err(LowerProblem::NotAllowed { what, name: name.to_owned() })
        };
        // `--network=host` of the command line is the person's own word.
        let own = request.network == NetworkMode::Host;
        if network == NetworkMode::Host && !own && !has(&Entitlement::NetworkHost) {
            return refuse("RUN --network=host".to_owned(), "network.host");
        }
        if run.security == SecurityMode::Insecure && !has(&Entitlement::SecurityInsecure) {
            return refuse("RUN --security=insecure".to_owned(), "security.insecure");
        }
        for device in &run.devices {
            let named = Entitlement::Device(Some(device.name.clone()));
            if !has(&Entitlement::Device(None)) && !has(&named) {
                let what = format!("RUN --device={}", device.name);
                return refuse(what, &format!("device={}", device.name));
            }
        }
        Ok(())
    }

    fn mount(
        &mut self,
        state: &StageState,
        at: &At<'_>,
        given: &mount::Mount,
        inputs: &mut Vec<StepId>,
        ssh: &mut usize,
    ) -> Result<Mount, LowerProblem> {
        let target = |own: &mount::Mount| own.target_in(&state.cwd);
        let (target, input, kind) = match &given.kind {
            mount::MountKind::Bind { from, source, writable } => {
                let input = self.mount_source(state, at, from.as_deref(), source)?;
                let source = path::clean(&format!("/{source}"));
                let kind = MountKind::Bind(BindMount { source, writable: *writable });
                (target(given)?, Some(add(inputs, input)), kind)
            }
            mount::MountKind::Cache { id, from, source, sharing, read_only, owner } => {
                let input = match from.as_deref() {
                    None => None,
                    Some(from) => Some(self.mount_source(state, at, Some(from), source)?),
                };
                let own = Owner { mode: u32::from(CACHE_MODE), uid: 0, gid: 0 };
                let Owner { mode, uid, gid } = owner.unwrap_or(own);
                let kind = MountKind::Cache(CacheMount {
                    id: self.cache_id(id, from.as_deref()),
                    sharing: *sharing,
                    merge: None,
                    source: path::clean(&format!("/{source}")),
                    read_only: *read_only,
                    mode: (mode & MODE_MASK) as u16,
                    uid,
                    gid,
                });
                (target(given)?, input.map(|i| add(inputs, i)), kind)
            }
            mount::MountKind::Tmpfs { size, read_only } => {
                let tmpfs = TmpfsMount { size: *size, read_only: *read_only };
                (target(given)?, None, MountKind::Tmpfs(tmpfs))
            }
            mount::MountKind::Secret { id, file, env, required, owner } => {
                let place = file.clone().unwrap_or_default();
                let place = match place.starts_with('/') {
                    true => place,
                    false if place.is_empty() => format!("{SECRETS_DIR}/{}", path::base(id)),
                    false => path::clean(&format!("/{}/{place}", state.cwd)),
                };
                let kind = MountKind::Secret(SecretMount {
                    id: id.clone(),
                    file: file.is_some(),
                    env: env.clone(),
                    required: *required,
                    mode: (owner.mode & MODE_MASK) as u16,
                    uid: owner.uid,
                    gid: owner.gid,
                });
                (place, None, kind)
            }
            mount::MountKind::Ssh { id, socket, required, owner } => {
                let place = socket.clone().unwrap_or_else(|| format!("{SSH_PREFIX}.{ssh}"));
                *ssh += 1;
                let kind = MountKind::Ssh(SshMount {
                    id: id.clone(),
                    required: *required,
                    mode: (owner.mode & MODE_MASK) as u16,
                    uid: owner.uid,
                    gid: owner.gid,
                });
                (place, None, kind)
            }
        };
        Ok(Mount { target, input, kind })
    }

    /// The name of a cache mount: with the namespace, and with what it begins with.
    fn cache_id(&self, id: &str, from: Option<&str>) -> String {
        let mut name = match self.args.setting("BUILDKIT_CACHE_MOUNT_NS") {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id.to_owned(),
        };
        if let Some(from) = from {
            name.push_str(&format!(" from {from}"));
        }
        name
    }

    fn mount_source(
        &mut self,
        state: &StageState,
        at: &At<'_>,
        from: Option<&str>,
        source: &str,
    ) -> Result<StepId, LowerProblem> {
        match from {
            Some(from) => {
                let input = self.from(from, false, "Cannot mount", at)?;
                self.narrow(from, false, source);
                Ok(input)
            }
            None if self.inputs.request.has_context => {
                Ok(self.build.local("context", LookedAt::Path(source), &state.platform))
            }
            None => Ok(self.build.scratch(&state.platform)),
        }
    }
}

/// The number of an input; one that is there already is used again.
fn add(inputs: &mut Vec<StepId>, input: StepId) -> u32 {
    // The first one is the root, and never a source.
    let place = inputs.iter().skip(1).position(|i| *i == input).map(|at| at + 1);
    place.unwrap_or_else(|| {
        inputs.push(input);
        inputs.len() - 1
    }) as u32
}
