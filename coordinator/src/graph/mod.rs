//! Instructions to steps: which stages the target needs, what each starts from, and what each of
//! its instructions does.
//!
//! Pure, and restartable: [`lower`] answers [`Lowered::Needs`] when it meets something that has to
//! be looked up outside (an image, a URL, a git reference). Whoever called it looks it up, adds it
//! to [`Found`] and calls again. What is not needed for the target is never asked for.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/dockerfile2llb`, names of steps and texts
//! of the history included.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod advice;
mod args;
pub mod config;
mod copy;
mod dispatch;
mod env;
mod epoch;
mod error;
mod hints;
pub mod keys;
mod names;
mod remote;
mod run;
mod stages;
pub mod survey;
#[cfg(test)]
mod tests;

pub use error::{LowerError, LowerProblem};

use crate::dockerfile::lint::{self, StageChecks, Warning};
use crate::dockerfile::{Dockerfile, Instruction};
use advice::Advice;
use dispatch::Dispatcher;
use env::Env;
use proto::error::SourceRange;
use proto::id::{OciDigest, RootId, TreeId};
use proto::limit;
use proto::platform::Platform;
use proto::step::{
    BaseImage, CacheUse, Graph, HistoryRow, LocalOp, Needs, Op, Step, StepId, Target,
};
use proto::wire::build::BuildRequest;
use proto::wire::worker::{Dated, ResolvedImage};
use stages::Stages;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a build is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// What the person asks for.
    pub request: &'a BuildRequest,
    /// The platform of the farm: BUILDPLATFORM.
    pub build_platform: &'a Platform,
    /// What was looked up so far.
    pub found: &'a Found,
}

/// What was looked up outside.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Images, by the platform and the reference as [`Need`] has it; of layouts by
    /// [`layout_reference`].
    pub images: BTreeMap<(String, Platform), ResolvedImage>,
    /// Files of web servers, by URL.
    pub files: BTreeMap<String, FoundFile>,
    /// Commits, by repository and reference.
    pub commits: BTreeMap<(String, String), String>,
    /// When things were made, in seconds since 1970; none for what does not tell.
    pub times: BTreeMap<Dated, Option<i64>>,
}

/// A file of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// What its bytes hash to.
    pub digest: OciDigest,
    /// The name that the server gives it, if any.
    pub name: Option<String>,
    /// When the server says it was changed last: seconds since 1970.
    pub modified: Option<i64>,
}

/// Something that has to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What.
    pub what: Wanted,
    /// For which line.
    pub at: Option<SourceRange>,
}

/// What is known, or what has to be looked up before it is.
enum Answer<T, W> {
    Known(T),
    Wanted(W),
}

/// What has to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// An image's manifest and config.
    Image {
        /// The full reference.
        reference: String,
        /// The platform.
        platform: Platform,
    },
    /// The manifest and config of an image in an OCI layout of the client's.
    Layout {
        /// The name of the `--build-context`.
        context: String,
        /// The platform.
        platform: Platform,
    },
    /// A file's digest.
    File {
        /// Where it is.
        url: String,
    },
    /// A reference's commit.
    Commit {
        /// The repository.
        remote: String,
        /// The branch, tag or commit.
        reference: String,
    },
    /// When something was made.
    Time(Dated),
}

/// What an image in an OCI layout goes by: no image of a registry has such a name.
pub fn layout_reference(context: &str) -> String {
    format!("oci-layout://{context}")
}

/// What came of lowering.
#[derive(Debug)]
pub enum Lowered {
    /// These have to be looked up first.
    Needs(Vec<Need>),
    /// The steps.
    Draft(Draft),
}

/// A graph whose local files have not been scanned yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Draft {
    graph: Graph,
    /// For each local context, what of it is looked at.
    pub locals: BTreeMap<String, LocalPaths>,
    /// What the person is told.
    pub remarks: Vec<Remark>,
}

/// An instruction does what BuildKit makes of it, though hardly anyone means that. No check of
/// BuildKit's: it is no reason to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What it does.
    pub message: String,
    /// Where it stands.
    pub at: SourceRange,
}

impl Remark {
    /// The remark as it travels to the person, with the lines of the Dockerfile's text.
    pub fn told(&self, text: &[u8]) -> proto::wire::build::Warning {
        proto::wire::build::Warning {
            rule: String::new(),
            message: self.message.clone(),
            detail: String::new(),
            url: String::new(),
            at: Some(self.at.clone()),
            excerpt: crate::dockerfile::error::excerpt(text, &self.at),
        }
    }
}

/// What of a local context is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalPaths {
    /// Paths and patterns.
    pub paths: BTreeSet<String>,
    /// Whether all of it is, whatever the paths say.
    pub all: bool,
}

impl LocalPaths {
    /// The paths and patterns to scan; none for all.
    pub fn patterns(&self) -> Vec<String> {
        if self.all { Vec::new() } else { self.paths.iter().cloned().collect() }
    }
}

impl Draft {
    /// The graph, with the trees that local files were scanned to.
    pub fn finish(mut self, roots: &BTreeMap<String, RootId>) -> Graph {
        for step in &mut self.graph.steps {
            if let Op::Local(local) = &mut step.op {
                local.root = roots[&local.name];
            }
        }
        self.graph
    }
}

/// The steps that the target needs, on all platforms asked for. `advice` is what the Dockerfile's
/// author may want to know, as far as it was found: also when lowering fails, and as if it had been
/// empty before.
pub fn lower(inputs: Inputs<'_>, advice: &mut Vec<Warning>) -> Result<Lowered, LowerError> {
    let checks = advice::checks(inputs.request, inputs.dockerfile)?;
    *advice = lint::file(inputs.dockerfile, &checks);
    inputs.dockerfile.check_sources()?;
    let mut build = Builder::default();
    let mut needs: Vec<Need> = Vec::new();
    let platforms = match inputs.request.platforms.as_slice() {
        [] => vec![(inputs.build_platform.clone(), true)],
        asked => asked.iter().map(|p| (p.clone(), false)).collect(),
    };
    let several = platforms.len() > 1;
    for (place, (platform, implicit)) in platforms.into_iter().enumerate() {
        let args = args::Args::new(&inputs, &platform)?;
        if let Some(need) = args.wanted {
            needs.push(need);
            continue;
        }
        // The other platforms would say the same once more.
        let escape = inputs.dockerfile.escape;
        let mut advice = Advice::new(&checks, escape, (place == 0).then_some(&mut *advice));
        advice.base_images(&inputs, &platform);
        match Stages::plan(inputs, &args, &platform, &mut advice)? {
            stages::Planned::Needs(more) => needs.extend(more),
            stages::Planned::Stages(stages) => {
                let dispatcher =
                    Dispatcher::new(inputs, &args, &stages, &mut build, advice, several);
                match dispatcher.target(&platform, implicit)? {
                    Ok(target) => build.targets.push(target),
                    Err(more) => needs.extend(more),
                }
            }
        }
    }
    if !needs.is_empty() {
        needs.sort_by(|a, b| a.what.cmp(&b.what));
        needs.dedup_by(|a, b| a.what == b.what);
        return Ok(Lowered::Needs(needs));
    }
    if let Some(violation) = checks.violation(advice) {
        let at = violation.first.at.clone();
        return Err(LowerProblem::Advice(Box::new(violation)).at(&at));
    }
    let graph = Graph { steps: build.steps, targets: build.targets };
    Ok(Lowered::Draft(Draft { graph, locals: build.locals, remarks: build.remarks }))
}

/// What of a local context is looked at.
enum LookedAt<'a> {
    /// Nothing so far: whoever uses it will say.
    NotYet,
    /// All of it.
    All,
    /// One path or pattern.
    Path(&'a str),
}

/// Collects steps.
#[derive(Default)]
struct Builder {
    steps: Vec<Step>,
    targets: Vec<Target>,
    locals: BTreeMap<String, LocalPaths>,
    local_steps: BTreeMap<String, StepId>,
    scratch: Option<StepId>,
    images: BTreeMap<(String, Platform), StepId>,
    remarks: Vec<Remark>,
    /// About how many bytes of memory all this takes.
    bytes: usize,
}

impl Builder {
    /// Takes note of memory that is about to be taken.
    fn take(&mut self, bytes: usize) -> Result<(), LowerProblem> {
        self.bytes += bytes;
        match self.bytes > limit::GRAPH_BYTES_MAX {
            true => Err(LowerProblem::TooManyBytes(limit::GRAPH_BYTES_MAX)),
            false => Ok(()),
        }
    }

    fn push(&mut self, step: Step) -> StepId {
        self.steps.push(step);
        StepId(self.steps.len() as u32 - 1)
    }

    /// A step that people do not see.
    fn plain(&mut self, op: Op, inputs: Vec<StepId>, platform: &Platform) -> StepId {
        self.push(Step {
            op,
            inputs,
            name: String::new(),
            platform: platform.clone(),
            at: None,
            cache: CacheUse::Use,
            needs: Needs::default(),
        })
    }

    /// Tells the person something about an instruction, once for all platforms.
    fn remark(&mut self, message: String, about: &Instruction) {
        let remark = Remark { message, at: about.at.clone() };
        if self.remarks.len() < lint::WARNINGS_MAX && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    fn is_scratch(&self, step: StepId) -> bool {
        self.steps[step.index()].op == Op::Scratch
    }

    /// Whether two steps do the same with the same. That is soon clear; where it takes many steps to
    /// tell, they count as different.
    fn are_same(&self, one: StepId, other: StepId) -> bool {
        const PAIRS_MAX: usize = 4096;
        let (mut pairs, mut seen) = (vec![(one, other)], BTreeSet::new());
        while let Some((one, other)) = pairs.pop() {
            if one == other || !seen.insert((one, other)) {
                continue;
            }
            if seen.len() > PAIRS_MAX {
                return false;
            }
            let (one, other) = (&self.steps[one.index()], &self.steps[other.index()]);
            let same_shape =
                one.platform == other.platform && one.inputs.len() == other.inputs.len();
            if !same_shape || one.op != other.op {
                return false;
            }
            pairs.extend(one.inputs.iter().copied().zip(other.inputs.iter().copied()));
        }
        true
    }

    fn scratch(&mut self, platform: &Platform) -> StepId {
        if let Some(step) = self.scratch {
            return step;
        }
        let step = self.plain(Op::Scratch, Vec::new(), platform);
        self.scratch = Some(step);
        step
    }

    /// The files of a local context, of which `looked_at` is looked at.
    fn local(&mut self, name: &str, looked_at: LookedAt<'_>, platform: &Platform) -> StepId {
        let paths = self.locals.entry(name.to_owned()).or_default();
        match looked_at {
            LookedAt::NotYet => {}
            LookedAt::All => paths.all = true,
            LookedAt::Path(path) => match crate::dockerfile::path::clean(&format!("/{path}")) {
                path if path == "/" => paths.all = true,
                path => drop(paths.paths.insert(path[1..].to_owned())),
            },
        }
        if let Some(step) = self.local_steps.get(name) {
            return *step;
        }
        // The tree is filled in when it was scanned: `Draft::finish`.
        let root = RootId(TreeId::from_bytes([0; 32]));
        let step =
            self.plain(Op::Local(LocalOp { name: name.to_owned(), root }), Vec::new(), platform);
        self.local_steps.insert(name.to_owned(), step);
        step
    }
}

/// What a stage has come to.
#[derive(Debug, Clone)]
struct StageState {
    step: StepId,
    platform: Platform,
    /// Whether what it starts from is known: only who builds knows images.
    is_base_known: bool,
    image: config::ImageConfig,
    base: Option<BaseImage>,
    /// The environment of RUNs, ARGs included.
    env: Env,
    /// The environment of the image.
    image_env: Env,
    /// The ARGs declared so far, for the history.
    declared: Vec<(String, Option<String>)>,
    /// About how many bytes `declared` and the labels have.
    declared_bytes: usize,
    /// The directory that relative paths count from.
    cwd: String,
    /// Whether CMD stood in this stage itself: ENTRYPOINT then leaves it.
    has_cmd: bool,
    checks: StageChecks,
    history: Rows,
}

/// The rows of a history. Stages that start from one stage share its rows: a chain of thousands of
/// stages would copy millions of them otherwise.
#[derive(Debug, Clone, Default)]
struct Rows(Option<Arc<RowNode>>);

#[derive(Debug)]
struct RowNode {
    row: HistoryRow,
    before: Rows,
}

impl Rows {
    fn push(&mut self, row: HistoryRow) {
        let before = std::mem::take(self);
        self.0 = Some(Arc::new(RowNode { row, before }));
    }

    fn list(&self) -> Vec<HistoryRow> {
        let mut rows = Vec::new();
        let mut at = self;
        while let Some(node) = &at.0 {
            rows.push(node.row.clone());
            at = &node.before;
        }
        rows.reverse();
        rows
    }
}

impl Drop for Rows {
    /// One after the other: a long list must not be dropped by recursion.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut node) = next.and_then(|node| Arc::try_unwrap(node).ok()) {
            next = node.before.0.take();
        }
    }
}
