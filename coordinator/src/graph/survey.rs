//! What can be said of a Dockerfile without building it, and without looking anything up: advice,
//! and what a target can be given.
//!
//! Images are not known here. What depends on them is left out of the advice, and a variable that
//! they may set is no mistake.

use super::advice::{self, Advice};
use super::args::{Args, Written};
use super::dispatch::{Declared, Dispatcher};
use super::names::reference;
use super::stages::{Base, Stage, Stages, View};
use super::{Builder, Inputs, LowerError, LowerProblem};
use crate::dockerfile::instruction::ArgItem;
use crate::dockerfile::lint::{self, Warning};
use crate::dockerfile::{Expander, Reading, Word};
use proto::error::SourceRange;
use proto::step::{MountKind, Op, Step};
use proto::wire::build::{BuildRequest, Entitlement};
use std::collections::{BTreeMap, BTreeSet};

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// Advice, in the order in which it was found.
    pub warnings: Vec<Warning>,
    /// Why the Dockerfile cannot be built, whatever the images are.
    pub error: Option<LowerError>,
}

/// What a target can be given. Each list is in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Outline {
    /// The stage's name, when it has one.
    pub name: Option<String>,
    /// What the comment above the stage says about it.
    pub description: Option<String>,
    /// The ARGs that the target depends on.
    pub args: Vec<Arg>,
    /// The secrets that its RUNs ask for.
    pub secrets: Vec<Wish>,
    /// The ssh agents that its RUNs ask for.
    pub ssh: Vec<Wish>,
}

/// An ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// What the comment above it says about it.
    pub description: Option<String>,
    /// Its value: the one given, or the default.
    pub value: Option<String>,
    /// Where it is declared.
    pub at: SourceRange,
}

/// Something that a RUN asks its client for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its id.
    pub id: String,
    /// Whether the RUN fails without it.
    pub is_required: bool,
    /// Where it is asked for first.
    pub at: SourceRange,
}

/// Advice about the target, or about all stages where no target is asked for.
pub fn check(inputs: Inputs<'_>) -> Checked {
    let request = allowing_all(inputs.request);
    let inputs = Inputs { request: &request, ..inputs };
    let mut warnings = Vec::new();
    let error = check_into(&mut warnings, &inputs).err();
    Checked { warnings, error }
}

fn check_into(warnings: &mut Vec<Warning>, inputs: &Inputs<'_>) -> Result<(), LowerError> {
    let view = match inputs.request.target.as_deref() {
        None | Some("") => View::All,
        Some(_) => View::Target,
    };
    look(warnings, inputs, view, |_, _, _, _| ())
}

/// Looks at the stages; `see` is told of them, of the ARGs that they declare, and of their steps.
fn look<T>(
    warnings: &mut Vec<Warning>,
    inputs: &Inputs<'_>,
    view: View,
    see: impl FnOnce(&Args, &Stages<'_>, Vec<Declared>, &[Step]) -> T,
) -> Result<T, LowerError> {
    let checks = advice::checks(inputs.request, inputs.dockerfile)?;
    *warnings = lint::file(inputs.dockerfile, &checks);
    inputs.dockerfile.check_sources()?;
    // As in BuildKit: which platforms are asked for is a question for builds.
    let platform = inputs.build_platform;
    let mut advice = Advice::new(&checks, inputs.dockerfile.escape, Some(&mut *warnings));
    let args = Args::new(inputs, platform)?;
    advice.base_images(inputs, platform);
    let stages = Stages::survey(*inputs, &args, platform, view, &mut advice)?;
    check_references(&stages, inputs)?;
    let mut build = Builder::default();
    let dispatcher = Dispatcher::new(*inputs, &args, &stages, &mut build, advice, false);
    let declared = dispatcher.survey(platform)?;
    if let Some(violation) = checks.violation(warnings) {
        return Err(LowerProblem::Advice(Box::new(violation)).nowhere());
    }
    Ok(see(&args, &stages, declared, &build.steps))
}

/// Whether what stages begin with can be images' names, also of stages that the target does not need.
fn check_references(stages: &Stages<'_>, inputs: &Inputs<'_>) -> Result<(), LowerError> {
    let is_image = |stage: &&Stage<'_>| match stage.base {
        Base::Local(_) => true,
        // What is given in a stage's place matters when the stage is needed.
        Base::Unresolved => !is_replaced(stage, inputs),
        _ => false,
    };
    for stage in stages.all.iter().filter(is_image) {
        reference(&stage.base_name)
            .map_err(|problem| LowerError { problem, at: stage.at.clone() })?;
    }
    Ok(())
}

/// Advice about a file that could not be read to its end.
pub fn check_reading(
    reading: &Reading,
    request: &BuildRequest,
) -> Result<Vec<Warning>, LowerError> {
    Ok(lint::reading(reading, &advice::checks(request, &reading.dockerfile)?))
}

/// Whether the checks that the build argument `BUILDKIT_DOCKERFILE_CHECK` asks for are such at all.
pub fn check_settings(request: &BuildRequest) -> Result<(), LowerError> {
    advice::given_checks(request).map(drop)
}

/// What the target can be given.
pub fn outline(inputs: Inputs<'_>) -> Result<Outline, LowerError> {
    let request = allowing_all(inputs.request);
    let inputs = Inputs { request: &request, ..inputs };
    look(&mut Vec::new(), &inputs, View::Target, |args, stages, declared, steps| {
        let target = inputs.dockerfile.stages.get(stages.target);
        Outline {
            name: target.and_then(|stage| stage.lower_name()).map(str::to_owned),
            description: target.and_then(|stage| stage.doc.clone()),
            args: needed_args(&inputs, args, stages, declared),
            secrets: wishes(steps, |kind| match kind {
                MountKind::Secret(secret) => Some((&secret.id, secret.required)),
                _ => None,
            }),
            ssh: wishes(steps, |kind| match kind {
                MountKind::Ssh(ssh) => Some((&ssh.id, ssh.required)),
                _ => None,
            }),
        }
    })
}

/// The same request, with every right: whether it is given one is a question for the build.
fn allowing_all(request: &BuildRequest) -> BuildRequest {
    let (network, insecure) = (Entitlement::NetworkHost, Entitlement::SecurityInsecure);
    let allow = vec![network, insecure, Entitlement::Device(None)];
    BuildRequest { allow, ..request.clone() }
}

/// The ARGs of the stages that are needed, and the global ones that those, their FROMs and each
/// other use. Of several with one name the one of the stage nearest to the target counts.
fn needed_args(
    inputs: &Inputs<'_>,
    args: &Args,
    stages: &Stages<'_>,
    declared: Vec<Declared>,
) -> Vec<Arg> {
    let global = Globals::new(inputs, args);
    let mut own = own_args(args, declared);
    let mut out: BTreeMap<String, Arg> = BTreeMap::new();
    for index in from_target(stages) {
        let OwnArgs { names: mut used, args: own } = own.remove(&index).unwrap_or_default();
        if let Some(written) = inputs.dockerfile.stages.get(index)
            && !is_replaced(&stages.all[index], inputs)
        {
            used.extend(global.used_by([&written.base].into_iter().chain(&written.platform)));
        }
        for name in global.with_all_that_they_use(used, &own) {
            let arg = own.get(&name).or_else(|| global.args.get(&name).map(|(arg, _)| arg));
            if let Some(arg) = arg {
                out.entry(name).or_insert_with(|| arg.clone());
            }
        }
    }
    let mut out: Vec<Arg> = out.into_values().collect();
    out.sort_by_key(|arg| arg.at.first_line);
    out
}

/// What a stage declares.
#[derive(Default)]
struct OwnArgs {
    names: BTreeSet<String>,
    /// Those that have their value in the stage.
    args: BTreeMap<String, Arg>,
}

/// The ARGs that stages declare. What has its value from a global ARG is told there, and what has it
/// from the builder is not given by anybody.
fn own_args(args: &Args, declared: Vec<Declared>) -> BTreeMap<usize, OwnArgs> {
    let mut own: BTreeMap<usize, OwnArgs> = BTreeMap::new();
    for Declared { stage, item: ArgItem { name, default, doc }, value, at } in declared {
        let own = own.entry(stage).or_default();
        own.names.insert(name.clone());
        if default.is_some() || args.given.contains_key(&name) || args.get(&name).is_none() {
            let arg = Arg { name: name.clone(), description: doc, value, at };
            own.args.insert(name, arg);
        }
    }
    own
}

/// The stages that are needed, each before the one it starts from and those it takes files from.
fn from_target(stages: &Stages<'_>) -> Vec<usize> {
    let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
    let mut unseen = vec![stages.target];
    while let Some(index) = unseen.pop() {
        if !seen.insert(index) {
            continue;
        }
        out.push(index);
        let stage = &stages.all[index];
        unseen.extend(stage.deps.keys().rev());
        if let Base::Stage(base) = stage.base {
            unseen.push(base);
        }
    }
    out
}

/// Whether something is given in the place of the whole stage, which then does not look at its FROM.
fn is_replaced(stage: &Stage<'_>, inputs: &Inputs<'_>) -> bool {
    let Some(name) = &stage.own_name else { return false };
    let is_reserved = matches!(name.as_str(), "scratch" | "context");
    let full = reference(name).ok();
    let mut given = inputs.request.contexts.iter().map(|(given, _)| given);
    !is_reserved
        && given.any(|given| given == name || (full.is_some() && reference(given).ok() == full))
}

/// The ARGs before the first FROM.
struct Globals<'a> {
    args_of_build: &'a Args,
    /// By name: each with the names that its default uses.
    args: BTreeMap<String, (Arg, BTreeSet<String>)>,
}

impl<'a> Globals<'a> {
    fn new(inputs: &Inputs<'_>, args_of_build: &'a Args) -> Self {
        let mut globals = Self { args_of_build, args: BTreeMap::new() };
        let mut values = args_of_build.written.iter();
        for arg in &inputs.dockerfile.args {
            for (ArgItem { name, doc, .. }, written) in arg.items.iter().zip(&mut values) {
                let Written { value, mut uses } = written.clone();
                if uses.remove(name)
                    && let Some((_, before)) = globals.args.get(name)
                {
                    uses.extend(before.iter().cloned());
                }
                let (description, at) = (doc.clone(), arg.at.clone());
                let arg = Arg { name: name.clone(), description, value, at };
                globals.args.insert(name.clone(), (arg, uses));
            }
        }
        globals
    }

    fn used_by<'w>(&self, words: impl IntoIterator<Item = &'w Word>) -> BTreeSet<String> {
        let lookup = |name: &str| self.args_of_build.get(name);
        let mut expander = Expander::new(self.args_of_build.escape, &lookup);
        for word in words {
            // A word that cannot be expanded was refused before, or stands in for what was given.
            let _ = expander.word(word);
        }
        expander.used().clone()
    }

    /// `own` are the ARGs of a stage, which use no global ones.
    fn with_all_that_they_use(
        &self,
        mut names: BTreeSet<String>,
        own: &BTreeMap<String, Arg>,
    ) -> BTreeSet<String> {
        let mut new_names: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = new_names.pop() {
            if own.contains_key(&name) {
                continue;
            }
            let uses = self.args.get(&name).into_iter().flat_map(|(_, uses)| uses);
            new_names.extend(uses.filter(|name| names.insert((*name).clone())).cloned());
        }
        names
    }
}

/// What the RUNs ask for of one kind; required, when one of them cannot do without it.
fn wishes(steps: &[Step], of: impl Fn(&MountKind) -> Option<(&String, bool)>) -> Vec<Wish> {
    let mut out: Vec<Wish> = Vec::new();
    for step in steps {
        let (Op::Run(run), Some(at)) = (&step.op, &step.at) else { continue };
        for (id, is_required) in run.mounts.iter().filter_map(|mount| of(&mount.kind)) {
            match out.iter_mut().find(|wish| wish.id == *id) {
                Some(known) => known.is_required |= is_required,
                None => out.push(Wish { id: id.clone(), is_required, at: at.clone() }),
            }
        }
    }
    out.sort_by_key(|wish| wish.at.first_line);
    out
}
