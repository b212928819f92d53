//! The `slipway` command.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod build;
mod builds;
mod clock;
mod contexts;
mod error;
mod farm;
mod images;
mod login;
mod members;
mod mounts;
mod node;
mod print;
mod progress;
mod run;
mod table;
mod talk;
mod top;
mod up;
mod upload;

use args::farm::Roles;
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use farm::Farm;
use ops::config::{Config, Flag, Settings};
use ops::identity::Role;
use ops::telemetry::Process;
use print::tell;
use proto::error::{Class, Failure};
use proto::wire::admin::Request;
use std::process::ExitCode;

/// The coordinator's decisions and the trees of a build are many small values, and this one is the
/// faster for them (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The sandbox's helper has one thread and no runtime: it is looked for before all else.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == up::HELPER) {
        return worker::sandbox::helper_main();
    }
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            tell!("ERROR: Starting threads failed: {e}");
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(command(cli));
    // Reads of standard input cannot be interrupted: nobody waits for them.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            error::show(&failure);
            ExitCode::from(error::exit_code(&failure))
        }
    }
}

async fn command(cli: Cli) -> Result<u8, Failure> {
    let Cli { config: file, farm: wish, log_format, command } = cli;
    if let Command::Completion { shell } = command {
        let mut out = std::io::stdout();
        clap_complete::generate(shell, &mut Cli::command(), "slipway", &mut out);
        return Ok(0);
    }
    let flag = |value| Flag { key: "log.format", flag: "--log-format", value };
    let flags: Vec<Flag> = log_format.into_iter().map(flag).collect();
    let settings = Settings::load(file.as_deref(), &flags);
    let settings = settings.map_err(|e| error::user(e.to_string()))?;
    if let Some(roles) = roles(&command) {
        return node::run(roles, settings.config).await;
    }
    ops::telemetry::init(&settings.config.log, Process::Own);
    if let Command::Config(args::Config::Show { format }) = &command {
        let rows = settings.rows();
        let text = match format.as_str() {
            "json" => ops::config::as_json(&rows),
            _ => ops::config::as_table(&rows),
        };
        print::text(&text);
        return Ok(0);
    }
    let config = settings.config;
    match command {
        Command::Up(up) => return up::run(up, config).await,
        Command::Down(down) => return end(&config, down.now).await,
        Command::Farm(args::farm::Farm::Init(init)) => return node::join::init(&init, &config),
        Command::Join(join) => return node::join::join(&join, &config).await,
        Command::Context(command) => return contexts::run(command, &config),
        Command::Build(build) => return build::run(*build, wish.as_deref(), &config).await,
        Command::Lint(lint) => return build::call::lint(lint, &config).await,
        _ => {}
    }
    let farm = match command {
        // The coordinator of this machine, where one runs, is whom its user means.
        Command::Token(_) | Command::Node(_) | Command::Top(_) if wish.is_none() => {
            Farm::here(&config).await?
        }
        _ => Farm::find(wish.as_deref(), &config).await?,
    };
    let done = with_farm(&farm, command, &config).await;
    farm.leave().await;
    done
}

/// Commands that work with a farm.
async fn with_farm(farm: &Farm, command: Command, config: &Config) -> Result<u8, Failure> {
    let within = |within: &args::image::Within| farm.clone().in_scope(&within.scope);
    match command {
        Command::Run(args) => {
            return run::run(within(&args.within), args, config).await;
        }
        Command::Cache(args::CacheArgs { command: Some(args::Cache::Mounts(command)), .. }) => {
            mounts::run(farm, command).await?;
        }
        Command::Cache(args::CacheArgs { command: Some(command), .. }) => {
            return builds::cache(farm, command).await;
        }
        Command::Token(command) => members::token(farm, command).await?,
        Command::Top(args) => top::run(farm, &args).await?,
        Command::Node(command) => members::node(farm, command).await?,
        Command::Images(args) => images::list(&within(&args.within), &args).await?,
        Command::Rmi(args) => images::remove(&within(&args.within), args).await?,
        Command::Tag(args) => images::tag(&within(&args.within), args).await?,
        Command::Inspect(args) => images::inspect(&within(&args.within), args).await?,
        Command::History(args) => images::history(&within(&args.within), args).await?,
        Command::Pull(args) => images::pull(&within(&args.within), args).await?,
        Command::Push(args) => images::push(&within(&args.within), args).await?,
        Command::Save(args) => images::save(&within(&args.within), args).await?,
        Command::Load(args) => images::load(&within(&args.within), args).await?,
        Command::Builds(args) => builds::list(farm, &args).await?,
        Command::Logs(args) => builds::logs(farm, &args).await?,
        Command::Explain(args) => builds::explain(farm, &args).await?,
        Command::Cancel(args) => builds::cancel(farm, &args.build).await?,
        Command::Attach(args) => return build::attach::run(farm, &args).await,
        Command::Up(_)
        | Command::Down(_)
        | Command::Build(_)
        | Command::Lint(_)
        | Command::Config(_)
        | Command::Coordinator(_)
        | Command::Worker(_)
        | Command::Cache(_)
        | Command::Farm(_)
        | Command::Join(_)
        | Command::Context(_)
        | Command::Completion { .. } => {
            unreachable!("done above")
        }
    }
    Ok(0)
}

/// The roles that a command is to run; none for all other commands.
fn roles(command: &Command) -> Option<Roles> {
    let (first, run) = match command {
        Command::Coordinator(run) => (Role::Coordinator, run),
        Command::Worker(run) => (Role::Worker, run),
        Command::Cache(args::CacheArgs { command: None, run }) => (Role::Cache, run),
        _ => return None,
    };
    Some(Roles::new(first, &run.with))
}

/// `slipway down`.
async fn end(config: &Config, now: bool) -> Result<u8, Failure> {
    let Some(farm) = Farm::running(config).await else {
        tell!("No farm runs at {}.", config.home.display());
        return Ok(0);
    };
    match farm.ask(&Request::Shutdown { after_builds: !now }, |_, _| {}).await {
        // It closes the stream when it ends.
        Err(e) if e.class != Class::Unavailable => return Err(e),
        _ => {}
    }
    // It has closed the stream, and cleans up.
    while up::lock::holder(&config.home).is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(0)
}
