//! Advice about the Dockerfile, found on the way: which check is made when.

use super::args::Args;
use super::config::ImageConfig;
use super::dispatch::At;
use super::names::reference;
use super::stages::Stage;
use super::{Inputs, LowerError, LowerProblem, StageState};
use crate::dockerfile::lint::build::{self as checks, FromPlatform};
use crate::dockerfile::lint::{Config, Spot, Warning};
use crate::dockerfile::{self, Dockerfile, Escape, Expander, suggest};
use cache::tree::pattern::Patterns;
use proto::platform::Platform;
use proto::wire::build::BuildRequest;
use std::collections::BTreeSet;

/// Which checks are made: those of the build argument `BUILDKIT_DOCKERFILE_CHECK`, else those of the
/// file.
pub(super) fn checks(
    request: &BuildRequest,
    dockerfile: &Dockerfile,
) -> Result<Config, LowerError> {
    match given_checks(request)? {
        Some(checks) => Ok(checks),
        None => Ok(dockerfile.checks.clone()?),
    }
}

/// Those of the build argument, if it is given.
pub(super) fn given_checks(request: &BuildRequest) -> Result<Option<Config>, LowerError> {
    let given = request.build_args.iter().rfind(|(name, _)| name == "BUILDKIT_DOCKERFILE_CHECK");
    let parse = |(_, value): &(_, String)| Config::parse(value);
    given.map(parse).transpose().map_err(|e| LowerProblem::from(e).nowhere())
}

/// Collects advice, where it is wanted.
pub(super) struct Advice<'a> {
    config: &'a Config,
    escape: Escape,
    out: Option<&'a mut Vec<Warning>>,
    /// What the ignore file leaves out, once somebody asks.
    ignored: Option<Option<Patterns>>,
}

impl<'a> Advice<'a> {
    /// Puts what is found into `out`.
    pub fn new(config: &'a Config, escape: Escape, out: Option<&'a mut Vec<Warning>>) -> Self {
        Self { config, escape, out, ignored: None }
    }

    /// Looks whether all FROMs name images also when nothing but the defaults of ARGs is known.
    pub fn base_images(&mut self, inputs: &Inputs<'_>, target: &Platform) {
        let Some(out) = &mut self.out else { return };
        // Defaults that cannot be expanded are an error that comes later anyway.
        let Ok(args) = Args::defaults(inputs, target) else { return };
        let lookup = |name: &str| args.get(name);
        for stage in &inputs.dockerfile.stages {
            let base = Expander::new(args.escape, &lookup).word(&stage.base);
            let Ok(base) = base else { return };
            let is_valid = is_plain(&base) || reference(&base).is_ok();
            checks::default_arg_in_from(self.config, stage, is_valid, out);
        }
    }

    /// Variables of a FROM that are no ARG.
    pub fn from(
        &mut self,
        stage: &dockerfile::Stage,
        missing: &BTreeSet<String>,
        names: &BTreeSet<String>,
    ) {
        if let Some(out) = &mut self.out {
            checks::undefined_args_in_from(self.config, missing, names, stage, out);
        }
    }

    /// The `--platform` of a FROM.
    pub fn platform_of_from(
        &mut self,
        stage: &dockerfile::Stage,
        text: &str,
        expander: &Expander<'_>,
        target: Option<&str>,
    ) {
        let (used, missing) = (expander.used(), expander.missing());
        if let Some(out) = &mut self.out {
            let platform = FromPlatform { text, used, missing, target };
            checks::from_platform(self.config, stage, &platform, out);
        }
    }

    /// The platform of the image that a stage starts from.
    pub fn base_platform(&mut self, stage: &Stage<'_>, expected: &Platform, found: &ImageConfig) {
        let is_empty = found.rootfs.diff_ids.as_ref().is_none_or(Vec::is_empty);
        if let (Some(out), Some(at), false) = (&mut self.out, &stage.at, is_empty) {
            let (image, found) = (&stage.base_name, found.platform());
            checks::base_image_platform(self.config, image, expected, &found, at, out);
        }
    }

    /// Looks at an instruction, under what the comments above it say.
    pub fn on(&mut self, at: &At<'_>, check: impl FnOnce(&mut Spot<'_>)) {
        // What comes later in the stage is compared with this instruction, wanted or not.
        let mut unwanted = Vec::new();
        let out = self.out.as_deref_mut().unwrap_or(&mut unwanted);
        check(&mut Spot::new(self.config, at.instruction, out));
    }

    /// Variables that an instruction uses and nobody has set; `expander` has replaced them. Each of
    /// its words is looked at on its own, so that a name may be told more than once.
    pub fn variables(&mut self, at: &At<'_>, state: &StageState, expander: &Expander<'_>) {
        let missing = expander.missing();
        let (Some(out), false) = (&mut self.out, missing.is_empty()) else { return };
        let config = self.config.with_comments(&at.instruction.comments);
        let declared = |name: &str| state.declared.iter().any(|(known, _)| known == name);
        let known = || state.env.list().iter().map(|(name, _)| name.clone()).collect();
        let lookup = |name: &str| state.env.get(name);
        let by_word = at.instruction.kind.missing(|| Expander::new(self.escape, &lookup));
        for missing in by_word.as_ref().map_or(std::slice::from_ref(missing), Vec::as_slice) {
            let misspelt = misspelt(state, missing);
            let missing = misspelt.as_ref().unwrap_or(missing);
            checks::undefined_vars(&config, missing, &declared, &known, &at.instruction.at, out);
        }
    }

    /// A file of the context that an instruction takes.
    pub fn copied(&mut self, inputs: &Inputs<'_>, at: &At<'_>, name: &str, source: &str) {
        let Some(out) = &mut self.out else { return };
        let patterns = || Patterns::new(&inputs.request.ignore).ok().filter(|p| !p.is_empty());
        if let Some(ignored) = self.ignored.get_or_insert_with(patterns) {
            let config = self.config.with_comments(&at.instruction.comments);
            checks::copy_ignored_file(&config, name, source, ignored, &at.instruction.at, out);
        }
    }
}

/// On a base image that is not known: those of the names that are probably meant for one that the
/// file sets. The image may set the others.
fn misspelt(state: &StageState, missing: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    if state.is_base_known {
        return None;
    }
    // Every image has a PATH, and `GOPATH` is none.
    let own = state.env.list().iter().map(|(name, _)| name.as_str()).filter(|n| *n != "PATH");
    let own: Vec<&str> = own.collect();
    let is_near = |name: &&String| suggest::nearest(name, own.iter().copied()).is_some();
    Some(missing.iter().filter(is_near).cloned().collect())
}

/// Whether a name is surely one that images can have. Most stages' names are.
fn is_plain(name: &str) -> bool {
    let all = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..64).contains(&name.len()) && name.bytes().all(all)
}
