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
use coordinator::dockerfile::lint::Warning;
use coordinator::dockerfile::{self, Dockerfile};
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
    parsed: Result<Dockerfile, Failure>,
}

impl<'a> File<'a> {
    fn read(context: &'a Context, request: &'a BuildRequest) -> Self {
        let (text, name) = (context.dockerfile.as_slice(), context.dockerfile_name.as_str());
        let parsed = dockerfile::parse(text, &context.dockerfile_path).map_err(|e| e.failure(text));
        Self { text, name, request, parsed }
    }

    fn with<T>(&self, look: impl FnOnce(Inputs<'_>) -> T) -> Result<T, Failure> {
        let dockerfile = self.parsed.as_ref().map_err(Failure::clone)?;
        let (build_platform, found) = (&Platform::host(), &Found::default());
        Ok(look(Inputs { dockerfile, request: self.request, build_platform, found }))
    }

    fn check(&self) -> Said {
        let failed = |error: LowerError| error.failure(self.text);
        let (mut warnings, failure) = match self.with(survey::check) {
            Ok(checked) => (checked.warnings, checked.error.map(failed)),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        warnings.sort_by_key(|warning: &Warning| warning.at.first_line);
        Said {
            text: text::check(&warnings, failure.is_some(), self.text),
            json: json::check(&warnings, failure.as_ref(), self.name, self.text),
            has_advice: !warnings.is_empty(),
            failure,
        }
    }

    fn outline(&self) -> Said {
        Said::of(self.find_outline().map(|found| {
            let json = json::outline(&found, self.text);
            (text::outline(&found), json)
        }))
    }

    fn find_outline(&self) -> Result<survey::Outline, Failure> {
        self.with(survey::outline)?.map_err(|e| e.failure(self.text))
    }

    fn targets(&self) -> Said {
        let stages = self.parsed.as_ref().map(|dockerfile| &dockerfile.stages);
        let stages = stages.map_err(Failure::clone);
        Said::of(stages.map(|stages| (text::targets(stages), json::targets(stages, self.text))))
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
