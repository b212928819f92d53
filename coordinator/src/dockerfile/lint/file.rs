//! Checks of the file as it is written.

use super::super::Reading;
use super::super::instruction::Kind;
use super::super::stage::{Dockerfile, Stage};
use super::super::text::shown;
use super::{Config, Rule, Warning};
use proto::error::SourceRange;
use std::collections::BTreeSet;

/// All advice that needs nothing but the file.
pub fn check(file: &Dockerfile, config: &Config) -> Vec<Warning> {
    let mut out = Vec::new();
    read_so_far(file, config, &mut out);
    stage_names(config, &mut out, file);
    casing(config, &mut out, file);
    out
}

/// Advice about a file that could not be read to its end: about the instructions before the error,
/// and the one that is the error.
pub fn reading(reading: &Reading, config: &Config) -> Vec<Warning> {
    let mut out = Vec::new();
    // Lines are cut into words before any is understood.
    if reading.failed.is_none() && reading.error.is_some() {
        return out;
    }
    read_so_far(&reading.dockerfile, config, &mut out);
    let Some(failed) = &reading.failed else { return out };
    let config = config.with_comments(&failed.comments);
    if failed.keyword.eq_ignore_ascii_case("MAINTAINER") {
        maintainer(&config, &mut out, &failed.at);
    }
    if let ("FROM", [_, as_keyword, name, rest @ ..]) =
        (failed.keyword.to_ascii_uppercase().as_str(), failed.words.as_slice())
    {
        if rest.is_empty() {
            stage_name(&config, &mut out, name, &failed.at);
        }
        from_casing(&config, &mut out, (&failed.keyword, as_keyword), &failed.at);
    }
    out
}

/// What is found while instructions are understood, one after the other.
fn read_so_far(file: &Dockerfile, config: &Config, out: &mut Vec<Warning>) {
    for at in &file.empty_continuations {
        let message = || "An empty line stands inside of a continued instruction".to_owned();
        config.warn(out, Rule::NoEmptyContinuation, at, message);
    }
    for arg in &file.args {
        let names = arg.items.iter().map(|item| item.name.as_str());
        description(config, out, "ARG", names, &arg.comments, &arg.at);
    }
    for stage in &file.stages {
        from(config, out, stage);
        instructions(config, out, stage);
    }
}

fn from(config: &Config, out: &mut Vec<Warning>, stage: &Stage) {
    let config = &config.with_comments(&stage.comments);
    let Some(name) = &stage.name else { return };
    stage_name(config, out, &name.written, &stage.at);
    let (keyword, as_keyword) = &stage.keywords;
    from_casing(config, out, (keyword, as_keyword.as_deref().unwrap_or_default()), &stage.at);
    description(config, out, "FROM", [name.lower.as_str()], &stage.comments, &stage.at);
}

fn stage_name(config: &Config, out: &mut Vec<Warning>, written: &str, at: &SourceRange) {
    if written != written.to_lowercase() {
        config.warn(out, Rule::StageNameCasing, at, || {
            format!("The stage `{}` should be named in small letters", shown(written))
        });
    }
}

fn from_casing(
    config: &Config,
    out: &mut Vec<Warning>,
    (keyword, as_keyword): (&str, &str),
    at: &SourceRange,
) {
    let differs = match (is_lower(keyword), is_upper(keyword)) {
        (true, _) => !is_lower(as_keyword),
        (false, true) => !is_upper(as_keyword),
        (false, false) => false,
    };
    if differs {
        let as_keyword = shown(as_keyword);
        config.warn(out, Rule::FromAsCasing, at, || {
            format!("`{keyword}` and `{as_keyword}` are not written in the same case")
        });
    }
}

fn maintainer(config: &Config, out: &mut Vec<Warning>, at: &SourceRange) {
    let message = || "MAINTAINER is out of use; write a label instead".to_owned();
    config.warn(out, Rule::MaintainerDeprecated, at, message);
}

fn instructions(config: &Config, out: &mut Vec<Warning>, stage: &Stage) {
    for instruction in &stage.instructions {
        let config = || config.with_comments(&instruction.comments);
        match &instruction.kind {
            Kind::Maintainer(_) => maintainer(&config(), out, &instruction.at),
            Kind::Arg(items) => {
                let names = items.iter().map(|item| item.name.as_str());
                let (comments, at) = (&instruction.comments, &instruction.at);
                description(&config(), out, "ARG", names, comments, at);
            }
            _ => {}
        }
    }
}

/// A comment right above a definition should be about it.
fn description<'n>(
    config: &Config,
    out: &mut Vec<Warning>,
    instruction: &str,
    names: impl IntoIterator<Item = &'n str>,
    comments: &[String],
    at: &SourceRange,
) {
    let names: Vec<&str> = names.into_iter().collect();
    let (Some(comment), Some(first)) = (comments.last(), names.first()) else { return };
    let about = comment.split(' ').next().unwrap_or_default();
    if !names.contains(&about) {
        let example = if names.len() > 1 { "name" } else { first };
        config.warn(out, Rule::InvalidDefinitionDescription, at, || {
            format!("The comment above {instruction} should be `# {} description`", shown(example))
        });
    }
}

fn stage_names(config: &Config, out: &mut Vec<Warning>, file: &Dockerfile) {
    let mut seen = BTreeSet::new();
    for stage in &file.stages {
        let Some(name) = stage.lower_name() else { continue };
        if matches!(name, "context" | "scratch") {
            config.warn(out, Rule::ReservedStageName, &stage.at, || {
                format!("The name `{name}` is reserved, and should not be a stage's")
            });
        }
        if !seen.insert(name) {
            config.warn(out, Rule::DuplicateStageName, &stage.at, || {
                format!("More than one stage is named `{name}`")
            });
        }
    }
}

fn casing(config: &Config, out: &mut Vec<Warning>, file: &Dockerfile) {
    let of_stage = |stage: &'_ Stage| {
        let own = std::iter::once((stage.keywords.0.clone(), stage.at.clone()));
        let of_instructions = stage.instructions.iter().map(|i| (i.keyword.clone(), i.at.clone()));
        own.chain(of_instructions).collect::<Vec<_>>()
    };
    let keywords: Vec<(String, SourceRange)> = file.stages.iter().flat_map(of_stage).collect();
    let lower = keywords.iter().filter(|(keyword, _)| is_lower(keyword)).count();
    let upper = keywords.iter().filter(|(keyword, _)| is_upper(keyword)).count();
    for (keyword, at) in &keywords {
        let (fits, case) = if lower > upper {
            (is_lower(keyword), "small")
        } else {
            (is_upper(keyword), "capital")
        };
        if !fits {
            config.warn(out, Rule::ConsistentInstructionCasing, at, || {
                format!("`{keyword}` should be in {case} letters, as most instructions are")
            });
        }
    }
}

fn is_lower(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_uppercase())
}

fn is_upper(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_lowercase())
}
