//! `SOURCE_DATE_EPOCH=NAME`: the time of a context, or of what a stage fetches.
//!
//! Such a stage is only looked at here: it has a time whether the target needs it or not, and its
//! ADD is asked for as it would be for a build.

use super::args::{Args, EPOCH};
use super::env::Env;
use super::remote::{self, AddOnly};
use super::{Answer, Found, Inputs, LowerError, LowerProblem, Need, Wanted};
use crate::dockerfile::instruction::{AddFiles, ArgItem};
use crate::dockerfile::source::{Source, classify};
use crate::dockerfile::{ExpandError, Expander, Instruction, Kind, Stage};
use proto::wire::worker::Dated;

/// The time of what goes by that name, in seconds since 1970. A directory has none.
pub(super) fn time_of(
    name: &str,
    args: &Args,
    inputs: &Inputs<'_>,
) -> Result<Answer<Option<i64>, Need>, LowerError> {
    let request = inputs.request;
    if name == "context" || request.contexts.iter().any(|(known, _)| known == name) {
        let time = request.context_times.iter().find(|(known, _)| known == name);
        return Ok(Answer::Known(time.map(|(_, time)| *time)));
    }
    let has_name = |stage: &&Stage| stage.lower_name() == Some(name.to_lowercase().as_str());
    match inputs.dockerfile.stages.iter().find(has_name) {
        Some(stage) => of_stage(stage, name, args, inputs.found),
        None => Err(LowerProblem::Epoch(name.to_owned()).nowhere()),
    }
}

fn of_stage(
    stage: &Stage,
    name: &str,
    args: &Args,
    found: &Found,
) -> Result<Answer<Option<i64>, Need>, LowerError> {
    let has_none = |why: String| LowerProblem::EpochStage { stage: name.to_owned(), why };
    // As BuildKit does it: the stage sees the global ARGs without declaring them, but not the one
    // that asks for its time.
    let mut env = args.global.clone();
    env.remove(EPOCH);
    let base = expand(args, &env, |e| e.word(&stage.base)).map_err(|p| p.at(&stage.at))?;
    if base != "scratch" {
        return Err(has_none(format!("it begins with `FROM {base}`")).at(&stage.at));
    }
    let mut source = None;
    for instruction in &stage.instructions {
        let wrong = |problem: LowerProblem| problem.at(&instruction.at);
        match &instruction.kind {
            Kind::Arg(items) => declare(&mut env, items, args).map_err(wrong)?,
            Kind::Add(_) if source.is_some() => {
                return Err(wrong(has_none("it has a second ADD".to_owned())));
            }
            Kind::Add(add) => {
                let add = expand(args, &env, |e| add.expand(e)).map_err(wrong)?;
                source = Some((instruction, add));
            }
            other => {
                let why = format!("it has the instruction {}", other.name());
                return Err(wrong(has_none(why)));
            }
        }
    }
    match source {
        Some((instruction, add)) => of_add(instruction, &add, found, has_none),
        None => Err(has_none("it has no ADD".to_owned()).at(&stage.at)),
    }
}

/// The time of what an ADD fetches.
fn of_add(
    instruction: &Instruction,
    add: &AddFiles<String>,
    found: &Found,
    has_none: impl Fn(String) -> LowerProblem,
) -> Result<Answer<Option<i64>, Need>, LowerError> {
    let time = match (add.files.sources.as_slice(), add.files.inline.as_slice()) {
        ([source], []) => of_source(source, &AddOnly::of(add), found, has_none),
        _ => Err(has_none("its ADD does not have one source".to_owned())),
    };
    let at = &instruction.at;
    Ok(match time.map_err(|problem| problem.at(at))? {
        Answer::Known(time) => Answer::Known(time),
        Answer::Wanted(what) => Answer::Wanted(Need { what, at: Some(at.clone()) }),
    })
}

fn of_source(
    source: &str,
    only: &AddOnly<'_>,
    found: &Found,
    has_none: impl Fn(String) -> LowerProblem,
) -> Result<Answer<Option<i64>, Wanted>, LowerProblem> {
    let dated = match classify(source)? {
        Source::Path => {
            let why = format!("its ADD takes `{source}`, which is no URL and no git repository");
            return Err(has_none(why));
        }
        Source::Http { .. } => match remote::file(found, source, only)? {
            Answer::Wanted(wanted) => return Ok(Answer::Wanted(wanted)),
            Answer::Known((file, _)) if file.modified.is_some() => {
                return Ok(Answer::Known(file.modified));
            }
            Answer::Known((file, _)) => {
                Dated::Archive { url: source.to_owned(), digest: file.digest }
            }
        },
        Source::Git(git) => match remote::commit(found, &git, only)? {
            Answer::Wanted(wanted) => return Ok(Answer::Wanted(wanted)),
            Answer::Known(commit) => {
                Dated::Commit { remote: git.remote, commit: commit.to_owned() }
            }
        },
    };
    Ok(match found.times.get(&dated) {
        Some(time) => Answer::Known(*time),
        None => Answer::Wanted(Wanted::Time(dated)),
    })
}

fn declare(env: &mut Env, items: &[ArgItem], args: &Args) -> Result<(), LowerProblem> {
    for ArgItem { name, default, .. } in items {
        let value = match (args.given.get(name), default) {
            (Some(given), _) => given.clone(),
            (None, Some(word)) => expand(args, env, |e| e.word(word))?,
            (None, None) => continue,
        };
        env.set(name, &value);
    }
    Ok(())
}

fn expand<T>(
    args: &Args,
    env: &Env,
    with: impl FnOnce(&mut Expander<'_>) -> Result<T, ExpandError>,
) -> Result<T, LowerProblem> {
    let lookup = |name: &str| env.get(name);
    Ok(with(&mut Expander::new(args.escape, &lookup))?)
}
