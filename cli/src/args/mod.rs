//! The command line.

pub mod build;
pub mod farm;
pub mod image;

use clap::{Parser, Subcommand};
use proto::id::Scope;
use std::path::PathBuf;

/// Builds multi-stage Dockerfiles, on this machine or on a farm of them that share one cache.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, propagate_version = true, disable_help_subcommand = true)]
// As with docker, of a flag that is given twice the last one counts: wrappers add their own.
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  slipway build -t app .                 build ./Dockerfile, keep the image as app:latest
  slipway run --rm app                   run it
  slipway build -o out --target bin .    leave the files of the stage `bin` in ./out
  slipway lint                           advice about ./Dockerfile, nothing is built
  slipway images                         list images

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled; `run` ends as its container does.
State is kept under $SLIPWAY_HOME (for root: /var/lib/slipway). Settings: $SLIPWAY_HOME/config.toml")]
pub struct Cli {
    /// Take the settings from this file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The farm to work with: one that was joined, HOST or HOST:PORT, or `local`
    #[arg(long, global = true, value_name = "FARM")]
    pub farm: Option<String>,
    /// How the log is written: for people, or one JSON object a line
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub log_format: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::Build>),
    /// Check a Dockerfile without building it
    Lint(build::Lint),
    /// Run a command in a new container
    Run(image::Run),
    /// List images
    #[command(visible_alias = "image-ls")]
    Images(image::Images),
    /// Remove images
    Rmi(image::Remove),
    /// Give an image another name
    Tag(image::Tag),
    /// Show everything about images, as JSON
    Inspect(image::Inspect),
    /// Show how an image came about
    History(image::History),
    /// Bring an image from its registry
    Pull(image::Pull),
    /// Send an image to its registry
    Push(image::Push),
    /// Write images to an archive
    Save(image::Save),
    /// Take images from an archive
    Load(image::Load),
    /// List builds
    Builds(Builds),
    /// Show what a build's steps wrote
    Logs(Logs),
    /// Show which steps of a build ran, and why
    Explain(Explain),
    /// Cancel a build
    Cancel(Cancel),
    /// Show a build that is under way, until it has ended
    Attach(Attach),
    /// Look after the cache; without a subcommand, run a cache node of a farm
    Cache(CacheArgs),
    /// Run the coordinator of a farm
    Coordinator(farm::Run),
    /// Run a worker of a farm
    Worker(farm::Run),
    /// Make a farm of several machines
    #[command(subcommand)]
    Farm(farm::Farm),
    /// Look after tokens, by which machines and people join a farm
    #[command(subcommand)]
    Token(farm::Token),
    /// Join a farm, as a machine or as a person
    Join(farm::Join),
    /// Look after the members of a farm
    #[command(subcommand)]
    Node(farm::Node),
    /// Show how the farm is: workers, builds, running steps, and why others wait
    Top(farm::Top),
    /// The farms that were joined
    #[command(subcommand)]
    Context(farm::Context),
    /// Run the farm of this machine in the foreground
    Up(Up),
    /// End the farm of this machine
    Down(Down),
    /// Look at the settings
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell: source <(slipway completion bash)
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// List builds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slipway builds
  slipway builds -n 100")]
pub struct Builds {
    /// Show at most so many
    #[arg(short = 'n', long, default_value_t = 20)]
    pub last: u32,
    /// Print only names
    #[arg(short, long)]
    pub quiet: bool,
}

/// Show what a build's steps wrote
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slipway logs               the last build's
  slipway logs kjcb          of the build whose name begins so")]
pub struct Logs {
    /// The build's name, or its beginning; the last build without one
    pub build: Option<String>,
}

/// Show which steps of a build ran, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A step that ran is compared with the nearest one of earlier builds, and the first thing is named in
which they differ.

Examples:
  slipway explain            the last build
  slipway explain kjcb       the build whose name begins so
  slipway explain --format json")]
pub struct Explain {
    /// The build's name, or its beginning; the last build without one
    pub build: Option<String>,
    /// How to print it
    #[arg(long, value_parser = ["json", "table"], default_value = "table")]
    pub format: String,
}

/// Show a build that is under way
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A build outlives its client for a while (the coordinator's setting `grace`).

Examples:
  slipway attach kjcb")]
pub struct Attach {
    /// The build's name, or its beginning
    pub build: String,
}

/// Cancel a build
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slipway cancel kjcb")]
pub struct Cancel {
    /// The build's name, or its beginning
    pub build: String,
}

/// Look after the cache, or run a cache node
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Cache>,
    /// Without one, how to run the cache node.
    #[command(flatten)]
    pub run: farm::Run,
}

/// Look after the cache
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Show what the cache holds
    Du,
    /// Take away what was not used for long
    #[command(after_help = "\
Without a flag nothing goes but what no image and no record needs.

Examples:
  slipway cache prune --older-than 7d
  slipway cache prune --keep 10GB
  slipway cache prune --all --force")]
    Prune {
        /// Everything that no image and no running build needs
        #[arg(short, long)]
        all: bool,
        /// What was not used for so long: 12h, 7d
        #[arg(long, value_parser = time)]
        older_than: Option<std::time::Duration>,
        /// The least used, until no more than this is left: 10GB
        #[arg(long, visible_alias = "max-used-space", value_parser = size)]
        keep: Option<u64>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Look after cache mounts: the directories of RUN --mount=type=cache
    #[command(subcommand)]
    Mounts(Mounts),
    /// Hash everything, and say what is damaged
    #[command(after_help = "Exit codes: 0 nothing is damaged, or it was repaired; 1 something is.")]
    Verify {
        /// Take away what is damaged, so that it is made again
        #[arg(long)]
        repair: bool,
    },
}

/// Whose cache mounts are meant.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// Whose mount it is: trusted, branch/NAME, dev/NAME, PROJECT:SCOPE
    #[arg(long, default_value = "trusted", value_parser = Scope::parse)]
    pub scope: Scope,
}

/// Look after cache mounts
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A mount is known by its id, which is its target unless the Dockerfile says id=.

Examples:
  slipway cache mounts ls
  slipway cache mounts history /root/.cache/go-build
  slipway cache mounts rollback /root/.cache/go-build 12
  slipway cache mounts export /root/.npm -o npm.tar")]
pub enum Mounts {
    /// List the cache mounts
    #[command(visible_alias = "list")]
    Ls,
    /// Show the generations of a cache mount that are kept, the newest first
    History {
        /// The mount's id
        id: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Make the files of an earlier generation the newest again
    Rollback {
        /// The mount's id
        id: String,
        /// The generation's number
        generation: u64,
        #[command(flatten)]
        whose: Whose,
    },
    /// Write the files of a cache mount into a directory, or as a tar
    Export {
        /// The mount's id
        id: String,
        /// A directory, a file that ends with .tar, or - for a tar on standard output
        #[arg(short, long)]
        output: std::path::PathBuf,
        /// Which generation; without it the newest
        #[arg(long)]
        generation: Option<u64>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Make the files of a directory the newest generation of a cache mount
    Import {
        /// The mount's id
        id: String,
        /// The directory
        directory: std::path::PathBuf,
        #[command(flatten)]
        whose: Whose,
    },
    /// Forget cache mounts; the next step begins with nothing
    Rm {
        /// The mounts' ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        whose: Whose,
    },
}

/// Look at the settings
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show every setting, its value, and where the value comes from
    #[command(after_help = "\
A value in parentheses is what is taken where nobody gave one.

Examples:
  slipway config show
  slipway config show --format json")]
    Show {
        /// How to print it
        #[arg(long, value_parser = ["json", "table"], default_value = "table")]
        format: String,
    },
}

/// Run the farm of this machine in the foreground
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slipway up
  slipway up --slots 8 --idle 1h
  slipway up --oci-runtime crun")]
pub struct Up {
    /// End after so long without a build: 10m
    #[arg(long, value_parser = time)]
    pub idle: Option<std::time::Duration>,
    /// RUNs at once; by default as many as there are processors
    #[arg(long)]
    pub slots: Option<u32>,
    /// An OCI runtime (crun, runc, runsc) in place of the embedded one
    #[arg(long)]
    pub oci_runtime: Option<PathBuf>,
    /// Started by `slipway build`, not by a person
    #[arg(long, hide = true)]
    pub on_demand: bool,
}

/// End the farm of this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slipway down               when its builds have ended
  slipway down --now")]
pub struct Down {
    /// Do not wait for builds that are under way
    #[arg(long)]
    pub now: bool,
}

/// A time such as `90s` or `15m`.
pub fn time(text: &str) -> Result<std::time::Duration, String> {
    ops::config::time(text).ok_or_else(|| "expected a time such as 90s, 15m or 7d".to_owned())
}

/// Numbers of processors or memory nodes, as the kernel writes them: `0-2,7`.
pub fn list(text: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u16>().ok();
    let is_right = text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| a <= b),
        None => number(part).is_some(),
    });
    if is_right { Ok(text.to_owned()) } else { Err("expected a list such as 0-2,7".to_owned()) }
}

/// A size such as `512m` or `40GB`.
pub fn size(text: &str) -> Result<u64, String> {
    ops::config::bytes(text).ok_or_else(|| "expected a size such as 512m or 40GB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_counts() {
        let line = "slipway build --target a --target b -f x --file y -q -q --pull=false --pull \
                    --iidfile i --iidfile j --network none --network host -t a -t b .";
        let Ok(Command::Build(build)) = parse(line) else { panic!("a build") };
        assert_eq!(build.source.target.as_deref(), Some("b"));
        assert_eq!(build.source.file.as_deref(), Some("y"));
        assert_eq!((build.quiet, build.pull), (true, Some(true)));
        assert_eq!(build.iidfile, Some(PathBuf::from("j")));
        assert_eq!(build.network, proto::step::NetworkMode::Host);
        assert_eq!(build.tag, ["a", "b"]);
        let line = "slipway run --rm --rm -u a -u b -e A=1 -e B=2 image";
        assert!(matches!(parse(line), Ok(Command::Run(_))));
        assert!(parse("slipway lint --format text --format json .").is_ok());
        assert!(parse("slipway build a b").is_err());
        assert!(parse("slipway tag a b c").is_err());
    }
}
