//! What is said of a Dockerfile, for programs: with the names that buildx and BuildKit use.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coordinator::dockerfile::Stage;
use coordinator::dockerfile::lint::Warning;
use coordinator::graph::survey::{self, Wish};
use proto::error::{Failure, SourceRange};
use serde::Serialize;

#[derive(Serialize)]
struct Checked {
    /// None at all is `null`.
    warnings: Option<Vec<Advice>>,
    sources: [Source; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Advice {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct Source {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// Where something stands; nowhere in particular without a range.
#[derive(Serialize)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Outline<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Asked<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct Asked<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct Targets<'a> {
    /// None at all is `null`.
    targets: Option<Vec<Target<'a>>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

impl Location {
    fn at(at: &SourceRange) -> Self {
        Self::lines(Some((at.first_line, at.last_line)))
    }

    /// As BuildKit has it: each line is a range of its own.
    fn lines(lines: Option<(u32, u32)>) -> Self {
        let range = |line| Range { start: Position { line }, end: Position { line } };
        let lines = lines.map(|(first, last)| first..=last.max(first));
        Self { ranges: lines.into_iter().flatten().map(range).collect() }
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("texts and numbers")
}

/// Why the build would fail, and the lines that are named for it.
pub type Wrong<'a> = (&'a Failure, Option<(u32, u32)>);

/// What a check found.
pub fn check(warnings: &[Warning], wrong: Option<Wrong<'_>>, name: &str, file: &[u8]) -> String {
    let advice = |warning: &Warning| Advice {
        rule_name: warning.rule.name(),
        description: warning.rule.description(),
        url: warning.rule.url(),
        detail: warning.message.clone(),
        location: Location::at(&warning.at),
    };
    let error = |(failure, lines): Wrong<'_>| BuildError {
        message: failure.message.clone(),
        location: Location::lines(lines),
    };
    let (filename, data) = (name.to_owned(), STANDARD.encode(file));
    text(&Checked {
        warnings: (!warnings.is_empty()).then(|| warnings.iter().map(advice).collect()),
        sources: [Source { filename, data, language: "Dockerfile" }],
        error: wrong.map(error),
    })
}

/// What a target takes.
pub fn outline(outline: &survey::Outline, file: &[u8]) -> String {
    text(&Outline {
        name: outline.name.as_deref(),
        description: outline.description.as_deref(),
        args: outline.args.iter().map(arg).collect(),
        secrets: outline.secrets.iter().map(asked).collect(),
        ssh: outline.ssh.iter().map(asked).collect(),
        sources: [STANDARD.encode(file)],
    })
}

fn arg(arg: &survey::Arg) -> Arg<'_> {
    Arg {
        name: &arg.name,
        description: arg.description.as_deref(),
        value: arg.value.as_deref().filter(|value| !value.is_empty()),
        location: Location::at(&arg.at),
    }
}

fn asked(wish: &Wish) -> Asked<'_> {
    let location = Location::at(&wish.at);
    Asked { name: &wish.id, required: wish.is_required, location }
}

/// The stages.
pub fn targets(stages: &[Stage], file: &[u8]) -> String {
    let last = stages.len().saturating_sub(1);
    let target = |(index, stage)| target(stage, index == last);
    let targets: Vec<_> = stages.iter().enumerate().map(target).collect();
    let targets = Some(targets).filter(|targets| !targets.is_empty());
    text(&Targets { targets, sources: [STANDARD.encode(file)] })
}

fn target(stage: &Stage, default: bool) -> Target<'_> {
    Target {
        name: stage.lower_name(),
        default,
        description: stage.doc.as_deref(),
        base: stage.base.raw(),
        platform: stage.platform.as_ref().map(|word| word.raw()),
        location: Location::at(&stage.at),
    }
}
