//! Runs targets with bad input for a long time.
//!
//! ```text
//! fuzz [TARGET…] [--seconds N | --executions N] [--from SEED] [--only SEED]
//! ```
//!
//! Without targets all run, one after the other, for N seconds (60 if not said) or N executions each.

use fuzz::{Finding, Report, Target, run, target};
use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Asked {
    targets: Vec<&'static dyn Target>,
    seconds: u64,
    executions: Option<u64>,
    from: u64,
    only: Option<u64>,
}

fn read(args: impl IntoIterator<Item = String>) -> Result<Asked, String> {
    let mut asked =
        Asked { targets: Vec::new(), seconds: 60, executions: None, from: 0, only: None };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse().ok());
            value.ok_or(format!("{arg} needs a number"))
        };
        match arg.as_str() {
            "--seconds" => asked.seconds = number()?,
            "--executions" => asked.executions = Some(number()?),
            "--from" => asked.from = number()?,
            "--only" => asked.only = Some(number()?),
            name => {
                let names: Vec<_> = target::ALL.iter().map(|target| target.name()).collect();
                let unknown = || format!("There is no `{name}`; there are {}", names.join(", "));
                asked.targets.push(target::named(name).ok_or_else(unknown)?);
            }
        }
    }
    if asked.targets.is_empty() {
        asked.targets = target::ALL.to_vec();
    }
    Ok(asked)
}

fn fuzz(target: &dyn Target, asked: &Asked) -> Result<Report, Finding> {
    if let Some(seed) = asked.only {
        return run(target, seed..seed + 1, |_| true);
    }
    if let Some(executions) = asked.executions {
        return run(target, asked.from..asked.from.saturating_add(executions), |_| true);
    }
    let end = Instant::now() + Duration::from_secs(asked.seconds);
    run(target, asked.from..u64::MAX, |_| Instant::now() < end)
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    for target in &asked.targets {
        match fuzz(*target, &asked) {
            Ok(report) => println!(
                "{:12} {:9} executions, {:9} accepted, slowest {:?} (seed {})",
                target.name(),
                report.executions,
                report.accepted,
                report.slowest,
                report.slowest_seed
            ),
            Err(finding) => {
                eprintln!("{finding}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
