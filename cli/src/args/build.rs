//! `slipway build`: the flags of `docker build` and `docker buildx build`.

use super::{list, size};
use crate::progress::Mode;
use clap::Args;
use ops::config::Fallback;
use proto::step::NetworkMode;
use proto::wire::build::Entitlement;
use std::path::PathBuf;

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway build .                                   build ./Dockerfile, print the image id
  slipway build -t app:1 --push .                   build and push
  slipway build -f docker/Dockerfile --target dev . another file, one of its stages
  slipway build --build-arg GO_VERSION=1.22 .       set an ARG
  slipway build --secret id=npm,src=$HOME/.npmrc .  for RUN --mount=type=secret,id=npm
  slipway build --ssh default .                     for RUN --mount=type=ssh
  slipway build -o type=oci,dest=app.tar .          an OCI archive
  slipway build -o bin --target export .            just the files
  slipway build - < Dockerfile                      without a context
  slipway build --check .                           advice about the Dockerfile, nothing is built
  slipway build --call=outline --target dev .       the ARGs and secrets that a stage takes

Exit codes: 0 done, 1 failed or advice was given with --check, 2 wrong usage, 130 cancelled.")]
pub struct Build {
    /// The context: a directory; the URL of a git repository, an archive or a Dockerfile; or `-` for a
    /// Dockerfile or a tar archive on standard input
    #[arg(value_name = "PATH | URL | -")]
    pub context: String,

    #[command(flatten)]
    pub source: Source,
    /// A name for the image: name:tag
    #[arg(short, long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// What to make: type=image|registry|oci|docker|local|tar|cacheonly,…; DIRECTORY; `-` for a tar
    #[arg(short, long, value_name = "OUTPUT")]
    pub output: Vec<String>,
    /// Push the image to its registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub push: Option<bool>,
    /// Load the image into the Docker engine that runs on this machine
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub load: Option<bool>,
    /// A secret: id=ID[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<String>,
    /// An ssh agent for RUN --mount=type=ssh and ADD of git: default, or ID=SOCKET, or ID=KEY,… (files)
    #[arg(long, value_name = "default | ID[=SOCKET | KEY,…]")]
    pub ssh: Vec<String>,
    /// Take no earlier results
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_cache: Option<bool>,
    /// Take no earlier results of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Take results of a cache that --cache-to wrote, too: type=registry,ref=NAME;
    /// type=local,src=DIRECTORY; NAME
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<String>,
    /// Write the results to a cache: type=registry,ref=NAME or type=local,dest=DIRECTORY; with
    /// mode=max of all steps, not only of those in the image
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<String>,
    /// Look up images at their registries, even when the local store has them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub pull: Option<bool>,
    /// Print only the image id
    #[arg(short, long)]
    pub quiet: bool,
    /// How to show progress: auto, tty, plain, rawjson, quiet
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub progress: Mode,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what came out to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// What to do: build; check for advice about the Dockerfile; outline for what the target takes;
    /// targets for the stages. With `,format=json` as JSON
    #[arg(long, value_name = "METHOD[,format=FORMAT]", value_parser = call, default_value = "build")]
    pub call: Call,
    /// Short for --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub check: Option<bool>,

    /// A label of the image: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// An annotation of the image's manifest: NAME=VALUE; of the index over the images for several
    /// platforms: index:NAME=VALUE
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    pub annotation: Vec<String>,
    /// What RUN may do: network.host, security.insecure, device
    #[arg(long, value_name = "WHAT", value_parser = entitlement, value_delimiter = ',')]
    pub allow: Vec<Entitlement>,
    /// The network of RUN: default, none, host
    #[arg(long, value_name = "MODE", value_parser = network, default_value = "default")]
    pub network: NetworkMode,
    /// A line for /etc/hosts: NAME:ADDRESS
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// A limit of RUN's processes: nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// The size of /dev/shm: 64m
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub shm_size: Option<u64>,
    /// The parent of RUN's control group
    #[arg(long, value_name = "GROUP")]
    pub cgroup_parent: Option<String>,
    /// Memory that each RUN may use: 2g
    #[arg(short, long, value_name = "BYTES", value_parser = size)]
    pub memory: Option<u64>,
    /// Memory and swap that each RUN may use; -1: not limited
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// The relative weight of each RUN's processor time
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// The period of the processor quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// The processor quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processors that RUN may use: 0-2,7
    #[arg(long, value_name = "LIST", value_parser = list)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that RUN may use: 0,1
    #[arg(long, value_name = "LIST", value_parser = list)]
    pub cpuset_mems: Option<String>,

    /// Whose results are made, within what the certificate allows: branch/NAME or dev/NAME. What is
    /// trusted is read, not written
    #[arg(long, value_name = "SCOPE", env = "SLIPWAY_SCOPE")]
    pub scope: Option<String>,
    /// How much the build matters among its user's, from 0 to 8; at most what the certificate
    /// allows, which is also what is taken without it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub priority: Option<u8>,
    /// What to do when the farm cannot be reached: none, or local for a build on this machine
    #[arg(long, value_name = "HOW", value_parser = fallback)]
    pub fallback: Option<Fallback>,

    /// Has no effect: no attestations are made
    #[arg(long, num_args = 0..=1, require_equals = true, hide_short_help = true)]
    pub provenance: Option<Option<String>>,
    /// Has no effect: no attestations are made
    #[arg(long, num_args = 0..=1, require_equals = true, hide_short_help = true)]
    pub sbom: Option<Option<String>>,
    #[command(flatten)]
    pub old: Old,
}

/// What is built: a Dockerfile, and what it is given.
#[derive(Debug, Args)]
pub struct Source {
    /// The Dockerfile (default: PATH/Dockerfile); `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Sets an ARG: NAME=VALUE, or NAME to take it from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// A further context: NAME=DIRECTORY, NAME=docker-image://IMAGE,
    /// NAME=oci-layout://DIRECTORY[:TAG][@DIGEST] or NAME=URL
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// A platform to build for: linux/amd64,linux/arm64; `local` is this machine's
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
}

/// Check a Dockerfile without building it
#[derive(Debug, Args)]
#[command(after_help = "\
It needs neither a farm nor a network: what depends on a base image is left out. The same as
`slipway build --check`.

Examples:
  slipway lint                             ./Dockerfile
  slipway lint -f docker/Dockerfile .      another file
  slipway lint - < Dockerfile              from standard input
  slipway lint --target dev --format json  what one stage needs, as JSON

Exit codes: 0 nothing was found, 1 something was, 2 wrong usage.")]
pub struct Lint {
    /// The context, a Dockerfile, or `-` for standard input
    #[arg(value_name = "PATH | URL | -", default_value = ".")]
    pub context: String,
    #[command(flatten)]
    pub source: Source,
    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub format: Format,
}

/// What is done with a Dockerfile (`--call`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It is built.
    Build,
    /// Something is said of it.
    Say(Say),
}

/// What is said of a Dockerfile, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Say {
    /// What.
    pub what: What,
    /// How.
    pub format: Format,
    /// Whether advice is a failure.
    pub status: Status,
}

/// What is said of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Advice.
    Check,
    /// What the target takes.
    Outline,
    /// The stages.
    Targets,
}

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// As buildx has it.
    Json,
}

/// What the exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Whether there was advice.
    Advice,
    /// Nothing (`ignorestatus=true`).
    Ignored,
}

impl Build {
    /// What is asked for instead of a build, if anything is.
    pub fn say(&self) -> Option<Say> {
        match (self.call, self.check) {
            (Call::Say(say), _) => Some(say),
            (Call::Build, Some(true)) => Some(Say::plainly(What::Check)),
            (Call::Build, None | Some(false)) => None,
        }
    }
}

impl Say {
    /// As text; the exit code tells whether there was advice.
    pub fn plainly(what: What) -> Self {
        Self { what, format: Format::Text, status: Status::Advice }
    }
}

/// `METHOD[,format=FORMAT][,ignorestatus=BOOL]`, as buildx has it.
fn call(text: &str) -> Result<Call, String> {
    let (mut method, mut say) = (None, Say::plainly(What::Check));
    for field in text.split(',').filter(|field| !field.is_empty()) {
        match field.split_once('=') {
            Some(("format", "json")) => say.format = Format::Json,
            Some(("format", "text" | "")) => say.format = Format::Text,
            Some(("ignorestatus", "true" | "1")) => say.status = Status::Ignored,
            Some(("ignorestatus", "false" | "0")) => say.status = Status::Advice,
            Some(_) => return Err(format!("`{field}` is no option; there is format=text|json")),
            None if method.is_some() => return Err("it names two methods".to_owned()),
            None => method = Some(field),
        }
    }
    say.what = match method {
        None | Some("build") => return Ok(Call::Build),
        Some("check" | "lint") => What::Check,
        Some("outline") => What::Outline,
        Some("targets") => What::Targets,
        Some(_) => return Err("expected build, check, outline or targets".to_owned()),
    };
    Ok(Call::Say(say))
}

/// Flags of the classic builder that mean nothing here, as in BuildKit.
#[derive(Debug, Args)]
pub struct Old {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    compress: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    rm: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    force_rm: Option<Option<String>>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
    #[arg(long, hide = true)]
    builder: Option<String>,
}

fn entitlement(text: &str) -> Result<Entitlement, String> {
    match text {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        "device" => Ok(Entitlement::Device(None)),
        _ => match text.strip_prefix("device=") {
            Some(name) => Ok(Entitlement::Device(Some(name.to_owned()))),
            None => Err("expected network.host, security.insecure or device".to_owned()),
        },
    }
}

fn fallback(text: &str) -> Result<Fallback, String> {
    match text {
        "none" => Ok(Fallback::None),
        "local" => Ok(Fallback::Local),
        _ => Err("expected none or local".to_owned()),
    }
}

fn network(text: &str) -> Result<NetworkMode, String> {
    match text {
        "" | "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err("expected default, none or host".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        assert_eq!(call("build"), Ok(Call::Build));
        assert_eq!(call("build,format=json"), Ok(Call::Build));
        assert_eq!(call("lint"), Ok(Call::Say(Say::plainly(What::Check))));
        let Ok(Call::Say(say)) = call("outline,format=json,ignorestatus=true") else {
            panic!("an outline")
        };
        let expected = (What::Outline, Format::Json, Status::Ignored);
        assert_eq!((say.what, say.format, say.status), expected);
        for bad in ["what", "check,outline", "check,format=xml", "check,colour=red"] {
            assert!(call(bad).is_err(), "{bad}");
        }
    }
}
