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
    warnings: Vec<Advice>,
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
    line: u32,
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
    targets: Vec<Target<'a>>,
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
    fn at(at: Option<&SourceRange>) -> Self {
        let range = |at: &SourceRange| Range {
            start: Position { line: at.first_line },
            end: Position { line: at.last_line },
        };
        Self { ranges: at.map(range).into_iter().collect() }
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("texts and numbers")
}

/// What a check found.
pub fn check(warnings: &[Warning], failure: Option<&Failure>, name: &str, file: &[u8]) -> String {
    let advice = |warning: &Warning| Advice {
        rule_name: warning.rule.name(),
        description: warning.rule.description(),
        url: warning.rule.url(),
        detail: warning.message.clone(),
        location: Location::at(Some(&warning.at)),
    };
    let error = |failure: &Failure| BuildError {
        message: failure.message.clone(),
        location: Location::at(failure.at.as_ref()),
    };
    let (filename, data) = (name.to_owned(), STANDARD.encode(file));
    text(&Checked {
        warnings: warnings.iter().map(advice).collect(),
        sources: [Source { filename, data, language: "Dockerfile" }],
        error: failure.map(error),
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
        location: Location::at(Some(&arg.at)),
    }
}

fn asked(wish: &Wish) -> Asked<'_> {
    let location = Location::at(Some(&wish.at));
    Asked { name: &wish.id, required: wish.is_required, location }
}

/// The stages.
pub fn targets(stages: &[Stage], file: &[u8]) -> String {
    let last = stages.len().saturating_sub(1);
    let target = |(index, stage)| target(stage, index == last);
    let targets = stages.iter().enumerate().map(target).collect();
    text(&Targets { targets, sources: [STANDARD.encode(file)] })
}

fn target(stage: &Stage, default: bool) -> Target<'_> {
    Target {
        name: stage.lower_name(),
        default,
        description: stage.doc.as_deref(),
        base: stage.base.raw(),
        platform: stage.platform.as_ref().map(|word| word.raw()),
        location: Location::at(Some(&stage.at)),
    }
}
