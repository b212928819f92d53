//! Past and running builds, and the cache.

use crate::args::{Builds, Cache, Explain, Logs};
use crate::clock;
use crate::error::user;
use crate::farm::Farm;
use crate::images::{confirm, familiar};
use crate::print::{say, tell};
use crate::table::Table;
use proto::error::{Class, Failure};
use proto::id::BuildId;
use proto::wire::admin::{
    BuildInfo, Prune, Reply, Request, StepInfo, StepReason, StepVerdict, UsageRow,
};
use std::io::{IsTerminal, Write};

/// How many builds are looked through for the beginning of a name.
const LOOK_BACK: u32 = 1000;

async fn all(farm: &Farm, count: u32) -> Result<Vec<BuildInfo>, Failure> {
    let mut builds = Vec::new();
    farm.ask(&Request::Builds { count }, |reply, _| {
        if let Reply::Build(build) = reply {
            builds.push(*build);
        }
    })
    .await?;
    Ok(builds)
}

/// `slipway builds`.
pub async fn list(farm: &Farm, args: &Builds) -> Result<(), Failure> {
    let builds = all(farm, args.last).await?;
    if args.quiet {
        builds.iter().for_each(|build| say!("{}", build.id));
        return Ok(());
    }
    let now = clock::now_ms();
    let headings = ["BUILD", "STATE", "STARTED", "TOOK", "STEPS", "CACHED", "WHAT", "IMAGE"];
    let mut table = Table::new(&headings);
    for build in &builds {
        let state = match (&build.failure, build.ended) {
            (_, None) => "running",
            (None, Some(_)) => "done",
            (Some(failure), _) if failure.class == Class::Cancelled => "cancelled",
            (Some(_), _) => "failed",
        };
        let took = build.ended.map_or(now, |e| e.0).saturating_sub(build.started.0);
        let image = build.images.first().map_or(String::new(), |(id, _)| id.short());
        table.row(&[
            build.id.as_str(),
            state,
            &clock::ago(build.started.0, now),
            &clock::span(took),
            &build.summary.steps.to_string(),
            &build.summary.cached.to_string(),
            &build.description.split(", ").map(familiar).collect::<Vec<_>>().join(", "),
            &image,
        ]);
    }
    table.print();
    Ok(())
}

/// The one build whose name begins so; the last one without a name.
pub async fn find(farm: &Farm, name: Option<&str>) -> Result<BuildId, Failure> {
    let builds = all(farm, LOOK_BACK).await?;
    let Some(name) = name else {
        let last = builds.into_iter().next().map(|b| b.id);
        return last.ok_or_else(|| user("There was no build yet"));
    };
    let fits: Vec<&BuildInfo> = builds.iter().filter(|b| b.id.as_str().starts_with(name)).collect();
    match fits[..] {
        [one] => Ok(one.id.clone()),
        [] => Err(user(format!("There is no build `{name}`")).hint("See `slipway builds`.")),
        _ => Err(user(format!("{} builds have names that begin with `{name}`", fits.len()))),
    }
}

/// `slipway logs`.
pub async fn logs(farm: &Farm, args: &Logs) -> Result<(), Failure> {
    let build = find(farm, args.build.as_deref()).await?;
    let mut steps: Vec<StepInfo> = Vec::new();
    farm.ask(&Request::Logs(build), |reply, _| {
        if let Reply::Step(step) = reply {
            steps.push(step);
        }
    })
    .await?;
    for step in steps {
        let took = step.ended.map(|e| clock::span(e.0.saturating_sub(step.started.0)));
        let state = match (&step.error, step.cached, took) {
            (Some(error), ..) => format!("ERROR: {error}"),
            (None, true, _) => "CACHED".to_owned(),
            (None, false, Some(took)) => took,
            (None, false, None) => "running".to_owned(),
        };
        say!("{}   {state}", step.name);
        let Some(log) = step.log else { continue };
        let take = |piece: bytes::Bytes| std::future::ready(std::io::stdout().write_all(&piece));
        if let Err(e) = farm.blobs.get_large(log, 0, take).await {
            tell!("(the log is not kept any more: {e})");
        }
    }
    Ok(())
}

/// `slipway explain`.
pub async fn explain(farm: &Farm, args: &Explain) -> Result<(), Failure> {
    let build = find(farm, args.build.as_deref()).await?;
    let mut steps: Vec<StepReason> = Vec::new();
    farm.ask(&Request::Explain(build.clone()), |reply, _| {
        if let Reply::Reason(step) = reply {
            steps.push(step);
        }
    })
    .await?;
    if args.format == "json" {
        let steps: Vec<_> = steps.iter().map(reason).collect();
        let all = serde_json::json!({ "build": build.as_str(), "steps": steps });
        say!("{}", serde_json::to_string_pretty(&all).expect("texts"));
        return Ok(());
    }
    let mut table = Table::new(&["STEP", "RESULT"]);
    for StepReason { name, verdict } in &steps {
        let word = word(verdict);
        match verdict {
            StepVerdict::Miss { sentence, .. } => {
                table.row(&[name, &format!("{word}: {sentence}")])
            }
            _ => table.row(&[name, word]),
        }
    }
    table.print();
    Ok(())
}

fn word(verdict: &StepVerdict) -> &'static str {
    match verdict {
        StepVerdict::Hit => "hit",
        StepVerdict::Miss { .. } => "miss",
        StepVerdict::NotNeeded => "not needed",
        StepVerdict::NotReached => "not reached",
    }
}

fn reason(step: &StepReason) -> serde_json::Value {
    let mut row = serde_json::json!({ "step": step.name, "result": word(&step.verdict) });
    if let StepVerdict::Miss { reason, sentence } = &step.verdict {
        row["reason"] = reason.as_str().into();
        row["detail"] = sentence.as_str().into();
    }
    row
}

/// `slipway cancel`.
pub async fn cancel(farm: &Farm, name: &str) -> Result<(), Failure> {
    let build = find(farm, Some(name)).await?;
    farm.ask(&Request::Cancel(build.clone()), |_, _| {}).await?;
    say!("{build}");
    Ok(())
}

/// `slipway cache …`; answers the exit code.
pub async fn cache(farm: &Farm, command: Cache) -> Result<u8, Failure> {
    match command {
        Cache::Du => usage(farm).await.map(|()| 0),
        Cache::Prune { all, older_than, keep, force } => {
            let what = match (all, older_than, keep) {
                (true, ..) => "everything that no image needs",
                (false, None, None) => "what no record and no image needs",
                _ => "what was used least",
            };
            if !force && !confirm(&format!("This takes {what} out of the cache. Go on?"))? {
                return Ok(0);
            }
            let older_than_ms = older_than.map(|t| t.as_millis() as u64);
            let request = Request::Prune(Prune { all, older_than_ms, keep_bytes: keep });
            farm.ask(&request, |reply, _| {
                if let Reply::Pruned { bytes, things } = reply {
                    for (kind, count) in things.iter().filter(|(_, count)| *count > 0) {
                        say!("{kind}: {count}");
                    }
                    say!("Reclaimed: {}", clock::size(bytes));
                }
            })
            .await?;
            Ok(0)
        }
        Cache::Verify { repair } => verify(farm, repair).await,
        Cache::Mounts(_) => unreachable!("not about the whole cache"),
    }
}

async fn usage(farm: &Farm) -> Result<(), Failure> {
    let mut rows: Vec<UsageRow> = Vec::new();
    farm.ask(&Request::Usage, |reply, _| {
        if let Reply::Usage(usage) = reply {
            rows = usage;
        }
    })
    .await?;
    let mut table = Table::new(&["TYPE", "COUNT", "SIZE", "RECLAIMABLE"]);
    for row in &rows {
        let (size, free) = (clock::size(row.bytes), clock::size(row.reclaimable));
        table.row(&[&row.kind, &row.count.to_string(), &size, &free]);
    }
    let sum = |of: fn(&UsageRow) -> u64| clock::size(rows.iter().map(of).sum());
    table.row(&["total", "", &sum(|r| r.bytes), &sum(|r| r.reclaimable)]);
    table.print();
    Ok(())
}

async fn verify(farm: &Farm, repair: bool) -> Result<u8, Failure> {
    let mut damaged = 0;
    let terminal = std::io::stderr().is_terminal();
    farm.ask(&Request::Verify { repair }, |reply, _| match reply {
        Reply::Moved(moved) if terminal => {
            crate::print::remark(&format!(
                "\r\x1b[K{}: {}",
                moved.what,
                clock::size(moved.current)
            ));
        }
        Reply::Damage { place, what, advice } => {
            damaged += 1;
            say!("{place}: {what}. {advice}");
        }
        _ => {}
    })
    .await?;
    if terminal {
        crate::print::remark("\r\x1b[K");
    }
    match damaged {
        0 => say!("Nothing is damaged."),
        n if repair => say!("{n} damaged thing(s) were taken away; builds make them again."),
        n => say!("{n} damaged thing(s); `slipway cache verify --repair` takes them away."),
    }
    Ok(u8::from(damaged > 0 && !repair))
}
