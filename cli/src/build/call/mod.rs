//! `--call` and `slipway lint`: what is said of a Dockerfile without building it.
//!
//! Everything is done here, with neither farm nor network. The texts and the JSON are buildx's.

mod json;
mod text;

use super::context::{self, Context, Origin};
use super::{request, write_file};
use crate::args::build::{Build, Format, Lint, Say, Status, What};
use crate::error::{WRONG_USAGE, exit_code, show};
use crate::print;
use coordinator::dockerfile::ParseError;
use coordinator::dockerfile::lint::Warning;
use coordinator::dockerfile::{self, Reading};
use coordinator::graph::{Found, Inputs, LowerError, survey};
use ops::config::Config;
use proto::error::Failure;
use proto::platform::Platform;
use proto::wire::build::BuildRequest;
use std::path::{Path, PathBuf};

/// `slipway build --call=…`; answers the exit code.
pub async fn instead(args: &Build, say: Say, config: &Config) -> Result<u8, Failure> {
    run(Origin::of(args), say, args.metadata_file.as_deref(), config).await
}

/// `slipway lint`; answers the exit code.
pub async fn lint(mut args: Lint, config: &Config) -> Result<u8, Failure> {
    let path = PathBuf::from(&args.context);
    // Whoever names a file means the Dockerfile.
    if args.source.file.is_none() && path.is_file() {
        let directory = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
        args.source.file = Some(args.context);
        args.context = directory.to_string_lossy().into_owned();
    }
    let say = Say { format: args.format, ..Say::plainly(What::Check) };
    let origin = Origin { context: &args.context, source: &args.source, is_quiet: false };
    run(origin, say, None, config).await
}

async fn run(
    origin: Origin<'_>,
    say: Say,
    metadata: Option<&Path>,
    config: &Config,
) -> Result<u8, Failure> {
    let context = context::read_main(origin, config).await?;
    let asked = context::names(origin.source)
        .and_then(|contexts| request::of_source(origin.source, &context, contexts));
    let asked = match asked {
        Ok(asked) => asked,
        Err(failure) => {
            show(&failure);
            return Ok(WRONG_USAGE);
        }
    };
    if let Err(error) = survey::check_settings(&asked) {
        print::remark(&text::failure(&error.failure(&[]), &[]));
        return Ok(1);
    }
    let file = File::read(&context, &asked);
    let said = match say.what {
        What::Check => file.check(),
        What::Outline => file.outline(),
        What::Targets => file.targets(),
    };
    if let Some(path) = metadata.filter(|_| !said.json.is_empty()) {
        write_file(path, format!("{{\n\"result.json\": {}\n}}\n", said.json).as_bytes())?;
    }
    match say.format {
        Format::Text => print::text(&said.text),
        Format::Json if said.json.is_empty() => {}
        Format::Json => print::text(&(said.json + "\n")),
    }
    if let Some(failure) = &said.failure {
        print::remark(&text::failure(failure, &context.dockerfile));
        return Ok(exit_code(failure));
    }
    Ok(u8::from(said.has_advice && say.status == Status::Advice))
}

/// What is said of a Dockerfile.
struct Said {
    /// Empty when nothing can be said, as is the other one.
    text: String,
    json: String,
    has_advice: bool,
    failure: Option<Failure>,
}

/// A Dockerfile that something is said of.
struct File<'a> {
    text: &'a [u8],
    /// Its name alone.
    name: &'a str,
    request: &'a BuildRequest,
    reading: Reading,
}

/// Why a Dockerfile cannot be built, and the lines that are named for it in JSON.
type Wrong = (Failure, Option<(u32, u32)>);

impl<'a> File<'a> {
    fn read(context: &'a Context, request: &'a BuildRequest) -> Self {
        let (text, name) = (context.dockerfile.as_slice(), context.dockerfile_name.as_str());
        let reading = dockerfile::read(text, &context.dockerfile_path);
        Self { text, name, request, reading }
    }

    fn with<T>(&self, look: impl FnOnce(Inputs<'_>) -> T) -> Result<T, ParseError> {
        let dockerfile = self.reading.whole()?;
        let (build_platform, found) = (&Platform::host(), &Found::default());
        Ok(look(Inputs { dockerfile, request: self.request, build_platform, found }))
    }

    fn check(&self) -> Said {
        let (mut warnings, wrong) = self.find_advice();
        let told = wrong.as_ref().map(|(failure, lines)| (failure, *lines));
        let json = json::check(&warnings, told, self.name, self.text);
        warnings.sort_by_key(|warning: &Warning| warning.at.first_line);
        Said {
            text: text::check(&warnings, wrong.is_some(), self.text),
            json,
            has_advice: !warnings.is_empty(),
            failure: wrong.map(|(failure, _)| failure),
        }
    }

    fn find_advice(&self) -> (Vec<Warning>, Option<Wrong>) {
        let failed = |error: LowerError| (error.failure(self.text), error.lines_as_told());
        match self.with(survey::check) {
            Ok(checked) => (checked.warnings, checked.error.map(failed)),
            Err(error) => match survey::check_reading(&self.reading, self.request) {
                Ok(warnings) => (warnings, Some((error.failure(self.text), error.lines_as_told()))),
                Err(error) => (Vec::new(), Some(failed(error))),
            },
        }
    }

    fn outline(&self) -> Said {
        Said::of(self.find_outline().map(|found| {
            let json = json::outline(&found, self.text);
            (text::outline(&found), json)
        }))
    }

    fn find_outline(&self) -> Result<survey::Outline, Failure> {
        let found = self.with(survey::outline).map_err(|e| e.failure(self.text))?;
        found.map_err(|e| e.failure(self.text))
    }

    fn targets(&self) -> Said {
        // As in BuildKit, a file without stages has none to list, and that is no failure.
        Said::of(match &self.reading {
            Reading { error: Some(error), .. } => Err(error.failure(self.text)),
            Reading { dockerfile, .. } => {
                let stages = &dockerfile.stages;
                Ok((text::targets(stages), json::targets(stages, self.text)))
            }
        })
    }
}

impl Said {
    fn of(found: Result<(String, String), Failure>) -> Self {
        let (found, failure) = match found {
            Ok(found) => (found, None),
            Err(failure) => (Default::default(), Some(failure)),
        };
        let (text, json) = found;
        Self { text, json, has_advice: false, failure }
    }
}
