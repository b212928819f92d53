//! Checks that need what the build was given: its arguments, its context, its images.

use super::super::stage::Stage;
use super::super::suggest;
use super::super::text::shown;
use super::{Config, Rule, Warning};
use cache::tree::pattern::Patterns;
use proto::error::SourceRange;
use proto::platform::Platform;
use std::collections::BTreeSet;

/// Variables of an instruction that have no value (`Expander::missing`) and are not declared by an
/// ARG of the stage. `known` gives the names that have a value: one of them may be meant.
pub fn undefined_vars(
    config: &Config,
    missing: &BTreeSet<String>,
    declared: &dyn Fn(&str) -> bool,
    known: &dyn Fn() -> Vec<String>,
    at: &SourceRange,
    out: &mut Vec<Warning>,
) {
    // These are never in the environment.
    let of_builder = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
    for name in missing {
        if declared(name) || of_builder.contains(&name.as_str()) {
            continue;
        }
        config.warn(out, Rule::UndefinedVar, at, || {
            let known = known();
            let near = suggest::nearest(name, known.iter().map(String::as_str));
            format!("The variable `${}` is not defined{}", shown(name), meant(near, "$"))
        });
    }
}

/// Variables of a FROM that have no value and are no global ARG. `known` are the global ARGs.
pub fn undefined_args_in_from(
    config: &Config,
    missing: &BTreeSet<String>,
    known: &BTreeSet<String>,
    stage: &Stage,
    out: &mut Vec<Warning>,
) {
    let config = config.with_comments(&stage.comments);
    for name in missing.iter().filter(|name| !known.contains(*name)) {
        let near = suggest::nearest(name, known.iter().map(String::as_str));
        config.warn(out, Rule::UndefinedArgInFrom, &stage.at, || {
            format!("FROM uses the ARG `{}`, which is not declared{}", shown(name), meant(near, ""))
        });
    }
}

fn meant(near: Option<&str>, sign: &str) -> String {
    near.map(|near| format!(" (did you mean `{sign}{near}`?)")).unwrap_or_default()
}

/// A FROM whose image name is valid only because of arguments that were given to this build.
/// `is_valid`: whether its name with the defaults of ARGs is one.
pub fn default_arg_in_from(config: &Config, stage: &Stage, is_valid: bool, out: &mut Vec<Warning>) {
    if !is_valid {
        config.warn(out, Rule::InvalidDefaultArgInFrom, &stage.at, || {
            let base = shown(stage.base.raw());
            format!("With the defaults of its ARGs, `{base}` is no valid name of an image")
        });
    }
}

/// What came of the `--platform` of a FROM.
pub struct FromPlatform<'a> {
    /// What it expanded to.
    pub text: &'a str,
    /// The names in it that have a value.
    pub used: &'a BTreeSet<String>,
    /// The names in it that have none.
    pub missing: &'a BTreeSet<String>,
    /// The value of `TARGETPLATFORM`.
    pub target: Option<&'a str>,
}

/// A `--platform` that says what is so anyway, or that never changes.
pub fn platform_of_from(
    config: &Config,
    stage: &Stage,
    platform: &FromPlatform<'_>,
    out: &mut Vec<Warning>,
) {
    let config = config.with_comments(&stage.comments);
    let only_target = platform.missing.is_empty()
        && platform.used.len() == 1
        && platform.used.contains("TARGETPLATFORM");
    if only_target && platform.target == Some(platform.text) {
        config.warn(out, Rule::RedundantTargetPlatform, &stage.at, || {
            let written = stage.platform.as_ref().map_or("", |word| word.raw());
            format!("The platform `{}` is the default", shown(written))
        });
    }
    if !platform.used.is_empty() || !platform.missing.is_empty() {
        return;
    }
    let Ok(constant) = Platform::parse(platform.text) else { return };
    let name = stage.lower_name().unwrap_or_default();
    // A stage that is named after its platform is meant for it.
    if !name.contains(&constant.os) && !name.contains(&constant.arch) {
        config.warn(out, Rule::FromPlatformFlagConstDisallowed, &stage.at, || {
            format!("The platform of FROM is the constant `{}`", shown(platform.text))
        });
    }
}

/// A source of COPY or ADD in the main context that `.dockerignore` leaves out. `config` is the one
/// of the instruction.
pub fn copy_ignored_file(
    config: &Config,
    instruction: &str,
    source: &str,
    ignored: &Patterns,
    at: &SourceRange,
    out: &mut Vec<Warning>,
) {
    // With exceptions, what is left out and what is in it are two questions.
    if ignored.has_exceptions() {
        return;
    }
    let source = super::super::path::clean(source);
    let is_root = matches!(source.as_str(), "." | "/");
    let all = |text: &[u8]| matches!(text, b"*" | b"**" | b"**/*");
    if is_root && !ignored.texts().any(all) {
        return;
    }
    if ignored.matches_path_or_parent(source.as_bytes()) {
        config.warn(out, Rule::CopyIgnoredFile, at, || {
            format!("{instruction} of `{}`, which .dockerignore leaves out", shown(&source))
        });
    }
}

/// A base image that was found for another platform than the one asked for.
pub fn base_image_platform(
    config: &Config,
    image: &str,
    expected: &Platform,
    found: &Platform,
    at: &SourceRange,
    out: &mut Vec<Warning>,
) {
    if expected.os != found.os || expected.arch != found.arch {
        config.warn(out, Rule::InvalidBaseImagePlatform, at, || {
            format!("The image `{}` is for {found}, not for {expected}", shown(image))
        });
    }
}
