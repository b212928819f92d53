//! Which stages there are, what each needs, and which the target needs.

use super::advice::Advice;
use super::args::Args;
use super::config::ImageConfig;
use super::names::reference;
use super::{Inputs, LowerError, LowerProblem, Need, Wanted, layout_reference};
use crate::dockerfile::onbuild::parse_trigger;
use crate::dockerfile::{self, Expander, Instruction, Kind, suggest};
use proto::error::SourceRange;
use proto::id::OciDigest;
use proto::platform::Platform;
use proto::reference::Reference;
use proto::wire::build::NamedContext;
use proto::wire::worker::ResolvedImage;
use std::collections::{BTreeMap, BTreeSet};

/// A stage of the file, or an image that a COPY or a mount names.
pub(super) struct Stage<'a> {
    /// Its name; of stages without one `stage-N`. Empty for images that an instruction names, and
    /// when it is the only stage.
    pub name: String,
    /// Its name in small letters, when it was given one.
    pub own_name: Option<String>,
    /// What stands behind FROM, expanded.
    pub base_name: String,
    /// What it starts from.
    pub base: Base<'a>,
    /// `--platform`.
    pub platform: Option<Platform>,
    /// Its instructions, each with whether it is a trigger.
    pub instructions: Vec<(Instruction, bool)>,
    /// The stages that its instructions take files from, each with the first such instruction.
    pub deps: BTreeMap<usize, SourceRange>,
    /// Whether it stands in the file.
    pub is_written: bool,
    /// Where it is named first.
    pub at: Option<SourceRange>,
    /// Whether earlier results are left aside.
    pub no_cache: bool,
    /// Whether the triggers of what it starts from were put before its instructions.
    triggered: bool,
}

/// What a stage starts from.
#[derive(Debug, Clone)]
pub(super) enum Base<'a> {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(usize),
    /// An image, as it was looked up.
    Image(&'a ResolvedImage),
    /// An image that was not looked up, because nobody needs it.
    Unresolved,
    /// A local directory that is given in its place.
    Local(String),
}

/// The stages, in order; images that instructions name come last.
pub(super) struct Stages<'a> {
    pub all: Vec<Stage<'a>>,
    by_name: BTreeMap<String, usize>,
    pub target: usize,
    /// The stages that the target needs.
    pub reachable: BTreeSet<usize>,
    /// The configs of images, by manifest: many stages may start from one image.
    configs: BTreeMap<OciDigest, ImageConfig>,
}

/// Which stages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Those that the target needs.
    Target,
    /// All.
    All,
}

pub(super) enum Planned<'a> {
    Needs(Vec<Need>),
    Stages(Stages<'a>),
}

impl<'a> Stages<'a> {
    /// Finds out what the target needs; asks for the images among it that were not looked up.
    pub fn plan(
        inputs: Inputs<'a>,
        args: &Args,
        target: &Platform,
        advice: &mut Advice<'_>,
    ) -> Result<Planned<'a>, LowerError> {
        let mut stages = Self::linked(&inputs, args, advice)?;
        loop {
            stages.reachable = stages.reach();
            let needs = stages.resolve(&inputs, target)?;
            if !needs.is_empty() {
                return Ok(Planned::Needs(needs));
            }
            // Triggers may take files from stages and images that nobody else needs.
            if !stages.trigger()? {
                return Ok(Planned::Stages(stages));
            }
        }
    }

    /// As [`Self::plan`], for who only looks: images that were not looked up stay unknown, and with
    /// them their triggers.
    pub fn survey(
        inputs: Inputs<'a>,
        args: &Args,
        target: &Platform,
        view: View,
        advice: &mut Advice<'_>,
    ) -> Result<Self, LowerError> {
        let mut stages = Self::linked(&inputs, args, advice)?;
        loop {
            stages.reachable = stages.reach();
            stages.resolve(&inputs, target)?;
            // Triggers come into effect in what the target needs, whatever else is looked at.
            if !stages.trigger()? {
                break;
            }
        }
        if view == View::All {
            stages.reachable = (0..stages.all.len()).collect();
            stages.resolve(&inputs, target)?;
        }
        Ok(stages)
    }

    /// The stages of the file, each with those that it takes files from.
    fn linked(
        inputs: &Inputs<'a>,
        args: &Args,
        advice: &mut Advice<'_>,
    ) -> Result<Self, LowerError> {
        check_syntax(inputs, args)?;
        let mut stages = Self::read(inputs, args, advice)?;
        stages.target = stages.find_target(inputs)?;
        for index in 0..stages.all.len() {
            stages.link(index)?;
        }
        stages.check_cycles()?;
        stages.check_references(inputs)?;
        if stages.all.len() == 1 {
            stages.all[0].name = String::new();
        }
        Ok(stages)
    }

    fn read(inputs: &Inputs<'a>, args: &Args, advice: &mut Advice<'_>) -> Result<Self, LowerError> {
        let (all, by_name) = (Vec::new(), BTreeMap::new());
        let (reachable, configs) = (BTreeSet::new(), BTreeMap::new());
        let mut stages = Self { all, by_name, target: 0, reachable, configs };
        let names = args.names(inputs);
        for (index, written) in inputs.dockerfile.stages.iter().enumerate() {
            let at = &written.at;
            let (base_name, platform) =
                read_from(written, args, &names, advice).map_err(|p| p.at(at))?;
            let own_name = written.name.as_ref().map(|n| n.lower.clone());
            if let Some(name) = &own_name {
                check_name(name).map_err(|p| p.at(at))?;
            }
            // A named context of the stage's name takes the place of the whole stage.
            let replaced = own_name.as_ref().and_then(|name| context(inputs, name));
            let (base, base_name, instructions) = match replaced {
                Some((name, NamedContext::Local)) => {
                    (Base::Local(name.clone()), base_name, Vec::new())
                }
                Some((_, NamedContext::Image(image))) => {
                    (Base::Unresolved, image.clone(), Vec::new())
                }
                Some((name, NamedContext::Layout)) => (Base::Unresolved, name.clone(), Vec::new()),
                None => {
                    let base = stages.base(inputs, &base_name);
                    let instructions =
                        written.instructions.iter().map(|i| (i.clone(), false)).collect();
                    (base, base_name, instructions)
                }
            };
            stages.all.push(Stage {
                name: own_name.clone().unwrap_or_else(|| format!("stage-{index}")),
                base_name,
                base,
                platform,
                instructions,
                deps: BTreeMap::new(),
                is_written: true,
                at: Some(at.clone()),
                no_cache: inputs.no_cache(own_name.as_deref()),
                triggered: false,
                own_name: own_name.clone(),
            });
            if let Some(name) = own_name {
                stages.by_name.insert(name, index);
            }
        }
        Ok(stages)
    }

    /// What a FROM of that name starts from: an earlier stage (by its name in small letters), a
    /// named context, or an image.
    fn base(&self, inputs: &Inputs<'_>, name: &str) -> Base<'a> {
        if let Some(stage) = self.by_name.get(name) {
            return Base::Stage(*stage);
        }
        if name == "scratch" {
            return Base::Scratch;
        }
        match context(inputs, name) {
            Some((name, NamedContext::Local)) => Base::Local(name.clone()),
            _ => Base::Unresolved,
        }
    }

    fn find_target(&self, inputs: &Inputs<'_>) -> Result<usize, LowerError> {
        let asked = inputs.request.target.as_deref().filter(|t| !t.is_empty());
        let Some(name) = asked else { return Ok(self.all.len() - 1) };
        self.find(name).ok_or_else(|| {
            let names = self.all.iter().filter_map(|s| s.own_name.as_deref());
            let near = suggest::nearest(name, names).map(str::to_owned);
            LowerProblem::NoTarget { name: name.to_owned(), near }.nowhere()
        })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    /// Finds the stages that the instructions of a stage take files from.
    fn link(&mut self, index: usize) -> Result<(), LowerError> {
        let mut names = Vec::new();
        for (instruction, _) in &self.all[index].instructions {
            match &instruction.kind {
                Kind::Copy(copy) => {
                    names.extend(copy.from.iter().map(|n| (n.clone(), true, &instruction.at)));
                }
                Kind::Run(run) => {
                    let from = run.mounts.iter().filter_map(|m| m.from());
                    names.extend(from.map(|n| (n.to_owned(), false, &instruction.at)));
                }
                _ => {}
            }
        }
        let names: Vec<_> = names.into_iter().map(|(n, c, at)| (n, c, at.clone())).collect();
        for (name, is_copy, at) in names {
            let dep = self.source(&name, is_copy).map_err(|p| p.at(&at))?;
            let dep = match dep {
                Some(dep) => dep,
                None => self.add_image(&name, &at),
            };
            self.all[index].deps.entry(dep).or_insert(at);
        }
        Ok(())
    }

    /// The stage that `--from` names: by number (COPY only), or by name. `None`: no stage, so an
    /// image or a named context.
    pub fn source(&self, name: &str, is_copy: bool) -> Result<Option<usize>, LowerProblem> {
        if let (true, Ok(number)) = (is_copy, name.parse::<i64>()) {
            let stage = usize::try_from(number).ok();
            let written = stage.filter(|s| self.all.get(*s).is_some_and(|s| s.is_written));
            return written.map(Some).ok_or(LowerProblem::StageIndex(number));
        }
        Ok(self.find(name).or_else(|| self.by_name.get(&image_key(name)).copied()))
    }

    /// An image or a named context that an instruction names.
    fn add_image(&mut self, name: &str, at: &SourceRange) -> usize {
        let index = self.all.len();
        self.all.push(Stage {
            name: String::new(),
            own_name: None,
            base_name: name.to_owned(),
            base: if name == "scratch" { Base::Scratch } else { Base::Unresolved },
            platform: None,
            instructions: Vec::new(),
            deps: BTreeMap::new(),
            is_written: false,
            at: Some(at.clone()),
            no_cache: false,
            triggered: true,
        });
        self.by_name.insert(image_key(name), index);
        index
    }

    /// What no stage needs must be named rightly all the same.
    fn check_references(&self, inputs: &Inputs<'_>) -> Result<(), LowerError> {
        let unresolved = self.all.iter().filter(|stage| matches!(stage.base, Base::Unresolved));
        for stage in unresolved.filter(|stage| context(inputs, &stage.base_name).is_none()) {
            let wrong = |problem| LowerError { problem, at: stage.at.clone() };
            reference(&stage.base_name).map_err(wrong)?;
        }
        Ok(())
    }

    fn needs(&self, index: usize) -> impl Iterator<Item = usize> {
        let base = match self.all[index].base {
            Base::Stage(stage) => Some(stage),
            _ => None,
        };
        base.into_iter().chain(self.all[index].deps.keys().copied())
    }

    fn check_cycles(&self) -> Result<(), LowerError> {
        // 0: not seen, 1: on the way, 2: done.
        let mut state = vec![0u8; self.all.len()];
        for start in 0..self.all.len() {
            let mut way = vec![(start, self.needs(start).collect::<Vec<_>>())];
            if state[start] == 2 {
                continue;
            }
            state[start] = 1;
            while let Some((at, needed)) = way.last_mut() {
                let at = *at;
                match needed.pop() {
                    None => {
                        state[at] = 2;
                        way.pop();
                    }
                    Some(next) if state[next] == 1 => {
                        let from = way.iter().position(|(s, _)| *s == next).unwrap_or(0);
                        let circle: Vec<_> = way[from..].iter().map(|(s, _)| *s).collect();
                        return Err(self.cycle(at, &circle));
                    }
                    Some(next) if state[next] == 2 => {}
                    Some(next) => {
                        state[next] = 1;
                        way.push((next, self.needs(next).collect()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The error of stages that need each other; the last of them, `from`, needs the first.
    fn cycle(&self, from: usize, circle: &[usize]) -> LowerError {
        let at = self.all[from].deps.get(&circle[0]).or(self.all[from].at.as_ref()).cloned();
        let names: Vec<_> = circle.iter().map(|stage| self.shown(*stage)).collect();
        let problem = match names.as_slice() {
            [one] => LowerProblem::Itself(one.clone()),
            _ => LowerProblem::Cycle(names.join(", ")),
        };
        LowerError { problem, at }
    }

    /// A stage's name for people.
    pub fn shown(&self, index: usize) -> String {
        let stage = &self.all[index];
        match &stage.own_name {
            Some(name) => format!("`{name}`"),
            None if stage.is_written => format!("number {index}"),
            None => format!("`{}`", stage.base_name),
        }
    }

    /// The config of an image that a stage starts from.
    pub fn config(&self, image: &ResolvedImage) -> &ImageConfig {
        &self.configs[&image.op.manifest]
    }

    fn reach(&self) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut unseen = vec![self.target];
        while let Some(index) = unseen.pop() {
            if seen.insert(index) {
                unseen.extend(self.needs(index));
            }
        }
        seen
    }

    /// Puts in the images that were looked up; answers those that were not.
    fn resolve(&mut self, inputs: &Inputs<'a>, target: &Platform) -> Result<Vec<Need>, LowerError> {
        let mut needs = Vec::new();
        let mut full: BTreeMap<String, String> = BTreeMap::new();
        for index in self.reachable.clone() {
            let stage = &mut self.all[index];
            if !matches!(stage.base, Base::Unresolved) {
                continue;
            }
            let wrong = |p: LowerProblem| LowerError { problem: p, at: stage.at.clone() };
            let (name, layout) = match context(inputs, &stage.base_name) {
                Some((name, NamedContext::Local)) => {
                    stage.base = Base::Local(name.clone());
                    continue;
                }
                Some((name, NamedContext::Layout)) => (layout_reference(name), Some(name)),
                Some((_, NamedContext::Image(image))) => (image.clone(), None),
                None => (stage.base_name.clone(), None),
            };
            if !full.contains_key(&name) {
                let reference = match layout {
                    Some(_) => name.clone(),
                    None => reference(&name).map_err(wrong)?,
                };
                full.insert(name.clone(), reference);
            }
            let reference = full[&name].clone();
            let platform = stage.platform.clone().unwrap_or_else(|| target.clone());
            match inputs.found.images.get(&(reference.clone(), platform.clone())) {
                Some(image) => {
                    if let std::collections::btree_map::Entry::Vacant(e) =
                        self.configs.entry(image.op.manifest)
                    {
                        e.insert(read_config(image, stage)?);
                    }
                    stage.base = Base::Image(image);
                }
                None => {
                    let what = match layout {
                        Some(context) => Wanted::Layout { context: context.clone(), platform },
                        None => Wanted::Image { reference, platform },
                    };
                    needs.push(Need { what, at: stage.at.clone() });
                }
            }
        }
        Ok(needs)
    }

    /// Puts the triggers of base images and base stages before the instructions of the stages that
    /// start from them. Answers whether new stages are needed because of that.
    fn trigger(&mut self) -> Result<bool, LowerError> {
        let mut news = false;
        for index in self.reachable.clone() {
            let stage = &self.all[index];
            if stage.triggered {
                continue;
            }
            let texts: Vec<String> = match &stage.base {
                Base::Image(image) => {
                    self.config(image).config.on_build.clone().unwrap_or_default()
                }
                Base::Stage(base) => {
                    let triggers = self.all[*base].instructions.iter();
                    let text = |(i, _): &(Instruction, bool)| match &i.kind {
                        Kind::Onbuild(text) => Some(text.clone()),
                        _ => None,
                    };
                    triggers.filter_map(text).collect()
                }
                _ => Vec::new(),
            };
            let at = stage.at.clone();
            let range = at.clone().unwrap_or(SourceRange {
                file: String::new(),
                first_line: 0,
                last_line: 0,
            });
            let mut instructions = Vec::new();
            for text in texts {
                let trigger = parse_trigger(&text, &range).map_err(|e| LowerError {
                    problem: LowerProblem::Trigger(Box::new(e)),
                    at: at.clone(),
                })?;
                instructions.push((trigger, true));
            }
            let stage = &mut self.all[index];
            stage.triggered = true;
            if instructions.is_empty() {
                continue;
            }
            instructions.append(&mut stage.instructions);
            stage.instructions = instructions;
            let before = stage.deps.len();
            self.link(index)?;
            news |= self.all[index].deps.len() > before;
        }
        if news {
            self.check_cycles()?;
        }
        Ok(news)
    }
}

/// The base and the platform that a FROM names, with their variables replaced.
fn read_from(
    written: &dockerfile::Stage,
    args: &Args,
    names: &BTreeSet<String>,
    advice: &mut Advice<'_>,
) -> Result<(String, Option<Platform>), LowerProblem> {
    let lookup = |name: &str| args.get(name);
    let mut expander = Expander::new(args.escape, &lookup);
    let base = expander.word(&written.base);
    advice.from(written, expander.missing(), names);
    let base = base?;
    if base.is_empty() {
        return Err(LowerProblem::BlankBase(written.base.raw().to_owned()));
    }
    let Some(word) = &written.platform else { return Ok((base, None)) };
    let mut expander = Expander::new(args.escape, &lookup);
    let text = expander.word(word);
    advice.from(written, expander.missing(), names);
    let text = text?;
    advice.platform_of_from(written, &text, &expander, args.get("TARGETPLATFORM"));
    if text.is_empty() {
        return Err(LowerProblem::BlankPlatform(word.raw().to_owned()));
    }
    Ok((base, Some(Platform::parse(&text)?)))
}

/// A stage's name must be one that an image could have: a named context could take its place.
fn check_name(name: &str) -> Result<(), LowerProblem> {
    if name == "scratch" || name == "context" {
        return Ok(());
    }
    Reference::parse(name)
        .map(drop)
        .map_err(|why| LowerProblem::StageName { name: name.to_owned(), why: why.to_string() })
}

/// The key of an image that an instruction names: no stage can have it as its name.
fn image_key(name: &str) -> String {
    format!("/{name}")
}

/// A looked-up image's config.
fn read_config(image: &ResolvedImage, stage: &Stage<'_>) -> Result<ImageConfig, LowerError> {
    serde_json::from_str(&image.config).map_err(|e| LowerError {
        problem: LowerProblem::Config(stage.base_name.clone(), e.to_string()),
        at: stage.at.clone(),
    })
}

/// The named context of that name. An image is found by its short name and by its full one.
fn context<'r>(inputs: &Inputs<'r>, name: &str) -> Option<(&'r String, &'r NamedContext)> {
    if inputs.request.contexts.is_empty() {
        return None;
    }
    if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
        return None;
    }
    let full = reference(name).ok();
    let same = |(given, _): &&(String, NamedContext)| {
        given == name || (full.is_some() && reference(given).ok() == full)
    };
    inputs.request.contexts.iter().find(same).map(|(name, what)| (name, what))
}

/// `docker/dockerfile` in whatever version is what is built in.
fn check_syntax(inputs: &Inputs<'_>, args: &Args) -> Result<(), LowerError> {
    let given = args.given.get("BUILDKIT_SYNTAX").filter(|s| !s.is_empty());
    let Some(syntax) = given.or(inputs.dockerfile.syntax.as_ref()) else { return Ok(()) };
    match is_built_in(syntax) {
        true => Ok(()),
        false => Err(LowerProblem::Syntax(syntax.clone()).nowhere()),
    }
}

/// Where images of Docker Hub come from, and what the machine is called that has them.
const HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// The front ends that are built in; the last is BuildKit's name for its own.
const BUILT_IN: [&str; 3] =
    ["docker/dockerfile", "docker/dockerfile-upstream", "library/dockerfile.v0"];

/// Whether an image is what is built in. What follows its name are words for it.
fn is_built_in(syntax: &str) -> bool {
    let image = syntax.split(' ').next().unwrap_or_default();
    Reference::parse(image).is_ok_and(|image| {
        HUB.contains(&image.registry.as_str()) && BUILT_IN.contains(&image.repository.as_str())
    })
}

impl Inputs<'_> {
    /// Whether a stage of that name takes no earlier result.
    fn no_cache(&self, name: Option<&str>) -> bool {
        use proto::wire::build::NoCache;
        match &self.request.no_cache {
            NoCache::No => false,
            NoCache::All => true,
            NoCache::Stages(stages) => {
                name.is_some_and(|name| stages.iter().any(|s| s.eq_ignore_ascii_case(name)))
            }
        }
    }
}
