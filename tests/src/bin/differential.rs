//! `differential`: builds random Dockerfiles by Slipway and by another builder until they differ.

use std::process::ExitCode;
use tests::differential::{Case, Difference, Pair, Peer, Verdict, generate, minimise};

const USAGE: &str = "\
usage: differential [--cases N] [--from SEED] [--jobs N] [--keep DIR] [--as-found]
                    [--buildah | PEER…]

Builds the cases of N seeds (100) by Slipway and by a peer, and prints what differs, made smaller.
PEER is a command that takes the flags of `docker build` and makes OCI archives, such as
    buildx build --builder NAME --provenance=false --no-cache
Without it the peer is BuildKit in Debian's docker.io, which knows less of the language; with --buildah
it is Debian's buildah, and cases have only what that one does as BuildKit does.

  --from SEED   the first seed (0)
  --jobs N      builds at once (2)
  --keep DIR    writes what differs there, as cases of tests/conformance
  --as-found    does not make it smaller";

/// How many cases the builders get at a time.
const BATCH: usize = 40;

struct Asked {
    cases: u64,
    from: u64,
    jobs: usize,
    keep: Option<std::path::PathBuf>,
    as_found: bool,
    buildah: bool,
    peer: Vec<String>,
}

fn read(args: impl IntoIterator<Item = String>) -> Option<Asked> {
    let mut asked = Asked {
        cases: 100,
        from: 0,
        jobs: 2,
        keep: None,
        as_found: false,
        buildah: false,
        peer: Vec::new(),
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--cases" => asked.cases = args.next()?.parse().ok()?,
            "--from" => asked.from = args.next()?.parse().ok()?,
            "--jobs" => asked.jobs = args.next()?.parse().ok()?,
            "--keep" => asked.keep = Some(args.next()?.into()),
            "--as-found" => asked.as_found = true,
            "--buildah" => asked.buildah = true,
            other if other.starts_with('-') => return None,
            _ => asked.peer = std::iter::once(arg).chain(args.by_ref()).collect(),
        }
    }
    (!asked.buildah || asked.peer.is_empty()).then_some(asked)
}

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(asked) = read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let peer = match &asked.peer[..] {
        [] if asked.buildah => Peer::buildah(),
        [] => Peer::engine(),
        words => Peer::command(&words.join(" ")),
    };
    let pair = Pair::new(peer, asked.jobs);
    let seeds: Vec<u64> = (asked.from..asked.from + asked.cases).collect();
    let (mut found, mut built) = (0, 0);
    for batch in seeds.chunks(BATCH) {
        let cases: Vec<Case> = batch.iter().map(|seed| generate(*seed, pair.language())).collect();
        let verdicts = pair.compare(&cases);
        for ((seed, case), verdict) in batch.iter().zip(cases).zip(verdicts) {
            match verdict {
                Verdict::Built => built += 1,
                Verdict::Refused => {}
                Verdict::Different(difference) => {
                    found += 1;
                    report(&pair, *seed, case, &difference, &asked);
                }
            }
        }
        let done = batch[batch.len() - 1] + 1 - asked.from;
        println!("{done} of {} cases, {built} built by both, {found} differ", asked.cases);
    }
    pair.stop();
    ExitCode::from(u8::from(found > 0))
}

fn report(pair: &Pair, seed: u64, case: Case, difference: &Difference, asked: &Asked) {
    println!("Seed {seed}: {}", difference.0.join("; "));
    let smallest = if asked.as_found {
        case
    } else {
        let kind = difference.kind().to_owned();
        minimise(case, |cases| {
            let is_so = |verdict| match verdict {
                Verdict::Different(difference) => Difference::kind(&difference) == kind,
                Verdict::Built | Verdict::Refused => false,
            };
            pair.compare(cases).into_iter().map(is_so).collect()
        })
    };
    if let Some(directory) = &asked.keep {
        smallest.write(&directory.join(format!("seed-{seed}")), &format!("Seed {seed}."));
    }
    println!("{}", indented(&smallest));
}

/// All of a case, as a person reads it.
fn indented(case: &Case) -> String {
    let context = case.context.iter().map(|node| format!("{node:?}\n")).collect::<String>();
    let ignore =
        case.ignore.iter().map(|line| format!(".dockerignore: {line}\n")).collect::<String>();
    let all = format!("{}{context}{ignore}{}", case.text(), case.flags.join(" "));
    all.lines().map(|line| format!("    {line}\n")).collect()
}
