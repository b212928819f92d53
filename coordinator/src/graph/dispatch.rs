//! Each instruction of the stages that are needed, in order.

use super::advice::Advice;
use super::args::Args;
use super::config::{DEFAULT_PATH, Empty, HealthConfig, ImageConfig, split_env};
use super::env::Env;
use super::hints::{self, Hints};
use super::names::Counter;
use super::stages::{Base, Stage, Stages};
use super::{Builder, Inputs, LookedAt, LowerError, LowerProblem, Need, Rows, StageState};
use crate::dockerfile::instruction::{ArgItem, CommandLine, Healthcheck, Pairs};
use crate::dockerfile::lint::StageChecks;
use crate::dockerfile::{self, Expander, Instruction, Kind, Word, history, path, value};
use proto::error::SourceRange;
use proto::limit;
use proto::platform::Platform;
use proto::step::{
    BaseImage, CacheUse, HistoryRow, ImageOp, MkdirOp, Needs, Op, Step, StepId, Target, pinned,
};
use proto::wire::worker::ResolvedImage;
use std::collections::BTreeMap;

/// ARGs that are for the builder, and no variables of RUNs.
const SILENT_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What a label or an ARG takes beside its text.
const PAIR_BYTES: usize = size_of::<(String, String)>();

/// The remark in the history of all that a Dockerfile makes: BuildKit's.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// Lowers the stages of one target platform.
pub(super) struct Dispatcher<'a, 'b> {
    pub inputs: Inputs<'a>,
    pub args: &'b Args,
    pub stages: &'b Stages<'a>,
    pub build: &'b mut Builder,
    /// The stages that are done, each with its last step.
    pub done: BTreeMap<usize, (StepId, Platform)>,
    /// What the stages that others start from have come to.
    states: BTreeMap<usize, StageState>,
    /// How many stages still start from each stage.
    heirs: BTreeMap<usize, usize>,
    /// What turned out to be needed on the way.
    pub wanted: Vec<Need>,
    pub advice: Advice<'b>,
    /// The ARGs of stages, as they were declared, for who asks for them.
    declared: Option<Vec<Declared>>,
    /// The instruction uses variables that an unknown base image may set: what seems wrong with it
    /// may be right.
    is_guess: bool,
    several: bool,
}

/// An ARG of a stage.
pub(super) struct Declared {
    pub stage: usize,
    pub item: ArgItem,
    pub value: Option<String>,
    pub at: SourceRange,
}

/// The instruction that is being lowered.
pub(super) struct At<'a> {
    pub instruction: &'a Instruction,
    pub is_trigger: bool,
    pub no_cache: bool,
    pub counter: &'a mut Counter,
    /// The stage's number.
    pub index: usize,
    /// The stage, as messages name it.
    pub stage: String,
}

impl<'a, 'b> Dispatcher<'a, 'b> {
    pub fn new(
        inputs: Inputs<'a>,
        args: &'b Args,
        stages: &'b Stages<'a>,
        build: &'b mut Builder,
        advice: Advice<'b>,
        several: bool,
    ) -> Self {
        let mut heirs = BTreeMap::new();
        for index in &stages.reachable {
            if let Base::Stage(base) = stages.all[*index].base {
                *heirs.entry(base).or_default() += 1;
            }
        }
        *heirs.entry(stages.target).or_default() += 1;
        Self {
            inputs,
            args,
            stages,
            build,
            done: BTreeMap::new(),
            states: BTreeMap::new(),
            heirs,
            wanted: Vec::new(),
            advice,
            declared: None,
            is_guess: false,
            several,
        }
    }

    /// Lowers what the target needs; answers what has to be looked up before that.
    pub fn target(
        mut self,
        platform: &Platform,
        implicit: bool,
    ) -> Result<Result<Target, Vec<Need>>, LowerError> {
        self.stages(platform)?;
        if !self.wanted.is_empty() {
            return Ok(Err(self.wanted));
        }
        Ok(Ok(self.finish(platform, implicit)))
    }

    /// Looks at what [`Self::target`] would lower, whatever would have to be looked up; answers the
    /// ARGs that were declared.
    pub fn survey(mut self, platform: &Platform) -> Result<Vec<Declared>, LowerError> {
        self.declared = Some(Vec::new());
        self.stages(platform)?;
        Ok(self.declared.unwrap_or_default())
    }

    /// Lowers the stages that are needed.
    fn stages(&mut self, platform: &Platform) -> Result<(), LowerError> {
        // Images and contexts that instructions name are there from the start; stages in their
        // order, so that a stage can only use earlier ones.
        let (written, named): (Vec<usize>, Vec<usize>) =
            self.stages.reachable.iter().partition(|i| self.stages.all[**i].is_written);
        for index in named.into_iter().chain(written) {
            let stage = &self.stages.all[index];
            let mut counter = Counter {
                stage: stage.name.clone(),
                platform: self.several.then(|| platform.clone()),
                total: total(stage),
                index: 0,
            };
            let mut state = self.begin(stage, platform, &mut counter)?;
            for (instruction, is_trigger) in &stage.instructions {
                let mut at = At {
                    instruction,
                    is_trigger: *is_trigger,
                    no_cache: stage.no_cache,
                    counter: &mut counter,
                    index,
                    stage: self.stages.shown(index).trim_matches('`').to_owned(),
                };
                self.is_guess = false;
                self.garbled(instruction);
                match self.instruction(&mut state, &mut at) {
                    Err(problem) if self.is_guess && problem.depends_on_values() => {}
                    result => result.map_err(|p| p.at(&instruction.at))?,
                }
            }
            self.done.insert(index, (state.step, state.platform.clone()));
            if self.heirs.contains_key(&index) {
                self.states.insert(index, state);
            }
            if self.build.steps.len() > limit::STEPS_MAX {
                return Err(LowerProblem::TooManySteps(limit::STEPS_MAX).nowhere());
            }
        }
        Ok(())
    }

    /// Tells of a flag that is not read as it is written.
    fn garbled(&mut self, instruction: &Instruction) {
        let escape = self.inputs.dockerfile.escape;
        if let Some(flag) = dockerfile::first_garbled(&instruction.text, escape) {
            let message = format!(
                "As in BuildKit, flags are read byte by byte, so that letters beyond ASCII become \
                 others: this one is `{flag}`"
            );
            self.build.remark(message, instruction);
        }
    }

    /// What a stage starts from.
    fn begin(
        &mut self,
        stage: &Stage<'a>,
        target: &Platform,
        counter: &mut Counter,
    ) -> Result<StageState, LowerError> {
        let platform = stage.platform.clone().unwrap_or_else(|| target.clone());
        match &stage.base {
            Base::Stage(base) => {
                let mut state = self.inherit(*base).map_err(LowerProblem::nowhere)?;
                // The image's variables are set anew, over ARGs that took their place.
                let StageState { env, image_env, .. } = &mut state;
                image_env.list().iter().for_each(|(name, value)| env.set(name, value));
                state.image.config.on_build = None;
                state.has_cmd = false;
                state.checks = StageChecks::on(&state.checks);
                Ok(state)
            }
            Base::Scratch | Base::Unresolved => {
                let step = self.build.scratch(target);
                let mut state = self.state(step, target.clone(), ImageConfig::empty(target), None);
                state.is_base_known = matches!(stage.base, Base::Scratch);
                Ok(state)
            }
            Base::Local(name) => {
                // Of a directory that instructions name, they say what they look at.
                let looked_at = match stage.is_written {
                    true => LookedAt::All,
                    false => LookedAt::NotYet,
                };
                let step = self.build.local(name, looked_at, &platform);
                let image = ImageConfig::empty(&platform);
                Ok(self.state(step, platform, image, None))
            }
            Base::Image(image) => {
                let mut config = self.stages.config(image).clone();
                config.config.on_build = None;
                self.advice.base_platform(stage, &platform, &config);
                let step = self.image(stage, image, &platform, counter);
                let base = BaseImage {
                    reference: image.op.reference.clone(),
                    manifest: image.op.manifest,
                    origin: image.op.origin,
                    layers: image.layers.clone(),
                };
                Ok(self.state(step, platform, config, Some(base)))
            }
        }
    }

    fn image(
        &mut self,
        stage: &Stage<'_>,
        image: &ResolvedImage,
        platform: &Platform,
        counter: &mut Counter,
    ) -> StepId {
        let ImageOp { reference, manifest, .. } = &image.op;
        let name = format!("FROM {}", pinned(reference, manifest));
        let name = counter.next(&name, false, None);
        let key = (manifest.to_string(), platform.clone());
        if let Some(step) = self.build.images.get(&key) {
            return *step;
        }
        let step = self.build.push(Step {
            op: Op::Image(image.op.clone()),
            inputs: Vec::new(),
            name,
            platform: platform.clone(),
            at: stage.at.clone(),
            cache: CacheUse::Use,
            needs: Needs::default(),
        });
        self.build.images.insert(key, step);
        step
    }

    fn state(
        &self,
        step: StepId,
        platform: Platform,
        mut image: ImageConfig,
        base: Option<BaseImage>,
    ) -> StageState {
        let mut env = Env::default();
        for entry in image.config.env.take().unwrap_or_default() {
            let (name, value) = split_env(&entry);
            env.set(name, value);
        }
        if env.get("PATH").is_none() {
            env.set("PATH", DEFAULT_PATH);
        }
        let cwd = path::workdir("", &image.config.working_dir);
        StageState {
            step,
            platform,
            is_base_known: true,
            image,
            base,
            image_env: env.clone(),
            env,
            declared: Vec::new(),
            declared_bytes: 0,
            cwd,
            has_cmd: false,
            checks: StageChecks::default(),
            history: Rows::default(),
        }
    }

    /// What a stage has come to, for one that starts from it; the last one needs no copy.
    fn inherit(&mut self, base: usize) -> Result<StageState, LowerProblem> {
        let left = self.heirs.get_mut(&base).expect("counted before");
        *left -= 1;
        if *left == 0 {
            return Ok(self.states.remove(&base).expect("kept for its heirs"));
        }
        let state = self.states[&base].clone();
        // While stages are lowered, as many copies may be alive as there are stages.
        let copied = state.env.bytes() + state.image_env.bytes() + state.declared_bytes;
        self.build.take(copied)?;
        Ok(state)
    }

    fn finish(mut self, platform: &Platform, implicit: bool) -> Target {
        let state = self.states.remove(&self.stages.target).expect("kept as the target");
        let StageState { step, mut image, image_env, base, history, platform: own, .. } = state;
        let env = image_env.list().iter().map(|(name, value)| format!("{name}={value}"));
        image.config.env = Some(env.collect());
        for (name, value) in &self.inputs.request.labels {
            let labels = image.config.labels.get_or_insert_default();
            labels.insert(name.clone(), value.clone());
        }
        // With `--platform` the image is for what was asked for, whatever its base is for.
        if !implicit {
            let Platform { os, arch, variant } = platform.clone();
            let same = image.os == os && image.architecture == arch;
            if !variant.is_empty() || !same {
                image.variant = variant;
            }
            (image.os, image.architecture) = (os, arch);
        }
        // As registries name it: arm64 has no variant `v8`.
        let Platform { os, arch, variant } = image.platform();
        (image.os, image.architecture, image.variant) = (os, arch, variant);
        let platform = if implicit { own } else { platform.clone() };
        let config = serde_json::to_string(&image).expect("a config of texts and numbers");
        let history = history.list();
        Target { platform, step, config, base, history, epoch: self.args.epoch }
    }

    fn instruction(&mut self, state: &mut StageState, at: &mut At<'_>) -> Result<(), LowerProblem> {
        match &at.instruction.kind {
            Kind::Run(run) => self.run(state, at, run),
            Kind::Copy(copy) => self.copy(state, at, copy),
            Kind::Add(add) => self.add(state, at, add),
            Kind::Workdir(word) => self.workdir(state, at, word),
            Kind::Arg(items) => self.arg(state, at, items),
            _ => self.config(state, at),
        }
    }

    /// Instructions that change the config only.
    fn config(&mut self, state: &mut StageState, at: &At<'_>) -> Result<(), LowerProblem> {
        let row = match &at.instruction.kind {
            Kind::Env(pairs) => self.env(state, at, pairs)?,
            Kind::Label(pairs) => {
                let pairs = self.expand(state, at, |e| pairs.expand(e))?;
                self.advice.on(at, |spot| spot.label(&pairs));
                let labels = state.image.config.labels.get_or_insert_default();
                let bytes = pairs.0.iter().map(|p| p.key.len() + p.value.len() + PAIR_BYTES);
                state.declared_bytes += bytes.sum::<usize>();
                labels.extend(pairs.0.iter().map(|p| (p.key.clone(), p.value.clone())));
                history::label(&pairs)
            }
            Kind::Cmd(command) => {
                let (has_shell, checks) = (has_shell(state), &mut state.checks);
                self.advice.on(at, |spot| checks.cmd(spot, command, has_shell));
                let args = command.args(&shell(state));
                state.image.config.cmd = Some(args.clone());
                state.image.config.args_escaped = true;
                state.has_cmd = true;
                history::cmd(&args)
            }
            Kind::Entrypoint(command) => {
                let (has_shell, checks) = (has_shell(state), &mut state.checks);
                self.advice.on(at, |spot| checks.entrypoint(spot, command, has_shell));
                let args = command.args(&shell(state));
                state.image.config.entrypoint = Some(args.clone());
                if !state.has_cmd {
                    state.image.config.cmd = None;
                }
                history::entrypoint(&args)
            }
            Kind::Expose(words) => self.expose(state, at, words)?,
            Kind::Healthcheck(check) => {
                self.advice.on(at, |spot| state.checks.healthcheck(spot));
                state.image.config.healthcheck = Some(health(check));
                history::healthcheck(check)
            }
            Kind::Maintainer(name) => {
                state.image.author = name.clone();
                history::maintainer(name)
            }
            Kind::Onbuild(text) => {
                state.image.config.on_build.get_or_insert_default().push(text.clone());
                return Ok(());
            }
            Kind::Shell(args) => {
                state.image.config.shell = Some(args.clone());
                history::shell(args)
            }
            Kind::StopSignal(word) => {
                let signal = self.expand(state, at, |e| e.word(word))?;
                value::stop_signal(&signal)?;
                state.image.config.stop_signal = signal.clone();
                history::stop_signal(&signal)
            }
            Kind::User(word) => {
                let user = self.expand(state, at, |e| e.word(word))?;
                state.image.config.user = user.clone();
                history::user(&user)
            }
            Kind::Volume(words) => {
                let paths: Vec<String> =
                    self.expand(state, at, |e| words.iter().map(|w| e.word(w)).collect())?;
                if paths.iter().any(String::is_empty) {
                    return Err(LowerProblem::BlankVolume);
                }
                let volumes = state.image.config.volumes.get_or_insert_default();
                volumes.extend(paths.iter().map(|p| (p.clone(), Empty {})));
                history::volume(&paths)
            }
            Kind::Add(_) | Kind::Arg(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_) => {
                unreachable!("done by `instruction`")
            }
        };
        state.row(row, None);
        Ok(())
    }

    fn env(
        &mut self,
        state: &mut StageState,
        at: &At<'_>,
        pairs: &Pairs,
    ) -> Result<String, LowerProblem> {
        let pairs = self.expand(state, at, |e| pairs.expand(e))?;
        self.advice.on(at, |spot| spot.env(&pairs));
        for pair in &pairs.0 {
            state.env.set(&pair.key, &pair.value);
            state.image_env.set(&pair.key, &pair.value);
        }
        Ok(history::env(&pairs))
    }

    fn expose(
        &mut self,
        state: &mut StageState,
        at: &At<'_>,
        words: &[Word],
    ) -> Result<String, LowerProblem> {
        let mut texts = Vec::new();
        for word in words {
            texts.extend(self.expand(state, at, |e| e.words(word))?);
        }
        let mut entries = Vec::new();
        for text in &texts {
            let port = value::PortParts::cut(text)?;
            self.advice.on(at, |spot| spot.expose(&port));
            entries.extend(port.port()?.entries());
        }
        let exposed = state.image.config.exposed_ports.get_or_insert_default();
        exposed.extend(entries.iter().map(|e| (e.clone(), Empty {})));
        Ok(history::expose(&entries))
    }

    fn arg(
        &mut self,
        state: &mut StageState,
        at: &At<'_>,
        items: &[ArgItem],
    ) -> Result<(), LowerProblem> {
        let mut shown = Vec::new();
        for item in items {
            let ArgItem { name, default, .. } = item;
            self.advice.on(at, |spot| spot.arg(name));
            let value = match (self.args.given.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => Some(self.expand(state, at, |e| e.word(word))?),
                (None, None) => self.args.get(name).map(str::to_owned),
            };
            if let Some(value) = value.as_ref().filter(|_| !SILENT_ARGS.contains(&name.as_str())) {
                state.env.set(name, value);
            }
            state.declared_bytes += name.len() + value.as_ref().map_or(0, String::len) + PAIR_BYTES;
            state.declared.push((name.clone(), value.clone()));
            if let Some(declared) = &mut self.declared {
                let (item, range) = (item.clone(), at.instruction.at.clone());
                let (stage, value) = (at.index, value.clone());
                declared.push(Declared { stage, item, value, at: range });
            }
            shown.push((name.clone(), value));
        }
        state.row(history::arg(&shown), None);
        Ok(())
    }

    fn workdir(
        &mut self,
        state: &mut StageState,
        at: &mut At<'_>,
        word: &Word,
    ) -> Result<(), LowerProblem> {
        let text = self.expand(state, at, |e| e.word(word))?;
        self.advice.on(at, |spot| state.checks.workdir(spot, &text));
        let dir = path::workdir(&state.image.config.working_dir, &text);
        state.image.config.working_dir = dir.clone();
        state.cwd = dir.clone();
        let name = self.title(state, at);
        let row = history::workdir(&dir);
        if dir == "/" {
            state.row(row, None);
            return Ok(());
        }
        let op = Op::Mkdir(MkdirOp {
            path: path::clean(&dir),
            owner: state.image.config.user.clone(),
            epoch: self.args.epoch,
        });
        let step = self.push(state, at, op, vec![state.step], name, CacheUse::Use);
        state.step = step;
        state.row(row, Some(step));
        Ok(())
    }

    /// Replaces variables by what was set before the instruction.
    pub fn expand<T, E: Into<LowerProblem>>(
        &mut self,
        state: &StageState,
        at: &At<'_>,
        with: impl FnOnce(&mut Expander<'_>) -> Result<T, E>,
    ) -> Result<T, LowerProblem> {
        let lookup = |name: &str| state.env.get(name);
        let mut expander = Expander::new(self.args.escape, &lookup);
        let result = with(&mut expander).map_err(Into::into);
        self.advice.variables(at, state, &expander);
        self.is_guess |= !state.is_base_known && !expander.missing().is_empty();
        result
    }

    /// The name of the step that people see.
    pub fn title(&self, state: &StageState, at: &mut At<'_>) -> String {
        self.title_without(state, at, &[])
    }

    /// As [`Self::title`], where the variables of these names hold secrets.
    pub fn title_without(&self, state: &StageState, at: &mut At<'_>, secret: &[String]) -> String {
        let lookup = |name: &str| match secret.iter().any(|secret| secret == name) {
            true => Some("****"),
            false => state.env.get(name),
        };
        let title = at.instruction.title(&Expander::new(self.args.escape, &lookup));
        let target = state.env.get("TARGETPLATFORM").and_then(|t| Platform::parse(t).ok());
        at.counter.next(&title, at.is_trigger, target.as_ref())
    }

    pub fn push(
        &mut self,
        state: &StageState,
        at: &At<'_>,
        op: Op,
        inputs: Vec<StepId>,
        name: String,
        cache: CacheUse,
    ) -> StepId {
        self.build.push(Step {
            op,
            inputs,
            name,
            platform: state.platform.clone(),
            at: Some(at.instruction.at.clone()),
            cache,
            needs: Needs::default(),
        })
    }

    /// What an instruction's comments say to Slipway.
    pub fn hints(&self, at: &At<'_>) -> Result<Hints, LowerProblem> {
        hints::read(&at.instruction.comments)
    }
}

impl StageState {
    /// Adds a row to the history.
    pub fn row(&mut self, created_by: String, step: Option<StepId>) {
        self.history.push(HistoryRow { created_by, comment: COMMENT.to_owned(), step });
    }
}

impl At<'_> {
    /// Whether earlier results count.
    pub fn cache(&self) -> CacheUse {
        if self.no_cache { CacheUse::Refresh } else { CacheUse::Use }
    }
}

fn has_shell(state: &StageState) -> bool {
    state.image.config.shell.as_ref().is_some_and(|shell| !shell.is_empty())
}

/// SHELL, or what stands for it.
pub(super) fn shell(state: &StageState) -> Vec<String> {
    match &state.image.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

/// How many steps of the stage people see.
fn total(stage: &Stage<'_>) -> usize {
    // As in BuildKit a directory counts, though no step is shown for it.
    let base = matches!(stage.base, Base::Image(_) | Base::Local(_)) && stage.is_written;
    let counts = |(i, _): &&(Instruction, bool)| {
        matches!(i.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
    };
    usize::from(base) + stage.instructions.iter().filter(counts).count()
}

fn health(check: &Healthcheck) -> HealthConfig {
    let nanos = |d: &std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match check {
        Healthcheck::None => HealthConfig { test: check.test(), ..HealthConfig::default() },
        Healthcheck::Cmd {
            command: CommandLine::Shell(_) | CommandLine::Exec(_),
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => HealthConfig {
            test: check.test(),
            interval: nanos(interval),
            timeout: nanos(timeout),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
            retries: i64::from(*retries),
        },
    }
}
