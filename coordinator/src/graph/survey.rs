//! What can be said of a Dockerfile without building it, and without looking anything up: advice,
//! and what a target can be given.
//!
//! Images are not known here. What depends on them is left out of the advice, and a variable that
//! they may set is no mistake.

use super::advice::{self, Advice};
use super::args::Args;
use super::dispatch::{Declared, Dispatcher};
use super::stages::{Base, Stages, View};
use super::{Builder, Inputs, LowerError};
use crate::dockerfile::instruction::ArgItem;
use crate::dockerfile::lint::{self, Warning};
use crate::dockerfile::{Expander, Word};
use proto::error::SourceRange;
use proto::platform::Platform;
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
    let checks = advice::checks(inputs)?;
    *warnings = lint::file(inputs.dockerfile, &checks);
    let view = match inputs.request.target.as_deref() {
        None | Some("") => View::All,
        Some(_) => View::Target,
    };
    for (place, platform) in platforms(inputs).iter().enumerate() {
        // The other platforms would say the same once more.
        let mut advice = Advice::new(&checks, (place == 0).then_some(&mut *warnings));
        let args = Args::new(inputs, platform)?;
        advice.base_images(inputs, platform);
        let stages = Stages::survey(*inputs, &args, platform, view, &mut advice)?;
        let mut build = Builder::default();
        Dispatcher::new(*inputs, &args, &stages, &mut build, advice, false).survey(platform)?;
    }
    match checks.violation(warnings) {
        None => Ok(()),
        Some(violation) => {
            let at = violation.first.at.clone();
            Err(super::LowerProblem::Advice(Box::new(violation)).at(&at))
        }
    }
}

/// What the target can be given.
pub fn outline(inputs: Inputs<'_>) -> Result<Outline, LowerError> {
    let request = allowing_all(inputs.request);
    let inputs = Inputs { request: &request, ..inputs };
    let checks = lint::Config::default();
    let platform = &platforms(&inputs)[0];
    let args = Args::new(&inputs, platform)?;
    let mut advice = Advice::new(&checks, None);
    let stages = Stages::survey(inputs, &args, platform, View::Target, &mut advice)?;
    let mut build = Builder::default();
    let dispatcher = Dispatcher::new(inputs, &args, &stages, &mut build, advice, false);
    let declared = dispatcher.survey(platform)?;
    let target = inputs.dockerfile.stages.get(stages.target);
    Ok(Outline {
        name: target.and_then(|stage| stage.lower_name()).map(str::to_owned),
        description: target.and_then(|stage| stage.doc.clone()),
        args: needed_args(&inputs, &args, &stages, declared),
        secrets: wishes(&build.steps, |kind| match kind {
            MountKind::Secret(secret) => Some((&secret.id, secret.required)),
            _ => None,
        }),
        ssh: wishes(&build.steps, |kind| match kind {
            MountKind::Ssh(ssh) => Some((&ssh.id, ssh.required)),
            _ => None,
        }),
    })
}

/// The same request, with every right: whether it is given one is a question for the build.
fn allowing_all(request: &BuildRequest) -> BuildRequest {
    let (network, insecure) = (Entitlement::NetworkHost, Entitlement::SecurityInsecure);
    let allow = vec![network, insecure, Entitlement::Device(None)];
    BuildRequest { allow, ..request.clone() }
}

fn platforms(inputs: &Inputs<'_>) -> Vec<Platform> {
    match inputs.request.platforms.as_slice() {
        [] => vec![inputs.build_platform.clone()],
        asked => asked.to_vec(),
    }
}

/// The ARGs of the stages that are needed, and the global ones that those, their FROMs and each
/// other use. Of several with one name the last one counts.
fn needed_args(
    inputs: &Inputs<'_>,
    args: &Args,
    stages: &Stages<'_>,
    declared: Vec<Declared>,
) -> Vec<Arg> {
    let global = Globals::new(inputs, args);
    let mut used = BTreeSet::new();
    for index in &stages.reachable {
        // A directory that stands in the place of a stage does not look at its FROM.
        let is_local = matches!(stages.all[*index].base, Base::Local(_));
        if let Some(written) = inputs.dockerfile.stages.get(*index).filter(|_| !is_local) {
            used.extend(global.used_by([&written.base].into_iter().chain(&written.platform)));
        }
    }
    let mut out = BTreeMap::new();
    for Declared { item: ArgItem { name, default, doc }, value, at } in declared {
        match global.args.contains_key(&name) && default.is_none() {
            true => drop(used.insert(name)),
            // The builder's own ARGs need not be given.
            false if default.is_none() && args.get(&name).is_some() => {}
            false => drop(out.insert(name.clone(), Arg { name, description: doc, value, at })),
        }
    }
    for name in global.with_all_that_they_use(used) {
        if let Some((arg, _)) = global.args.get(&name) {
            out.entry(name).or_insert_with(|| arg.clone());
        }
    }
    let mut out: Vec<Arg> = out.into_values().collect();
    out.sort_by_key(|arg| arg.at.first_line);
    out
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
        for arg in &inputs.dockerfile.args {
            for ArgItem { name, default, doc } in &arg.items {
                let mut uses = globals.used_by(default.as_ref());
                if let Some((_, before)) = globals.args.get(name) {
                    uses.extend(before.iter().cloned());
                }
                let (description, at) = (doc.clone(), arg.at.clone());
                let value = args_of_build.get(name).map(str::to_owned);
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
        expander.used().union(expander.missing()).cloned().collect()
    }

    fn with_all_that_they_use(&self, mut names: BTreeSet<String>) -> BTreeSet<String> {
        let mut todo: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = todo.pop() {
            let uses = self.args.get(&name).into_iter().flat_map(|(_, uses)| uses);
            todo.extend(uses.filter(|name| names.insert((*name).clone())).cloned());
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
