//! Builds that are under way, and past ones.

use crate::error::user;
use crate::talk::Talk;
use coordinator::server::{BuildRow, Coordinator, RowStep};
use proto::error::Failure;
use proto::id::BuildId;
use proto::wire::admin::{BuildInfo, Reply, StepInfo};

/// How far back a build is looked for.
const LOOK_BACK: u32 = 10_000;

/// `Request::Builds`.
pub async fn list(coordinator: &Coordinator, talk: &Talk, count: u32) -> Result<(), Failure> {
    for row in coordinator.builds(count).await? {
        talk.say(Reply::Build(Box::new(info(row)))).await;
    }
    Ok(())
}

fn info(row: BuildRow) -> BuildInfo {
    BuildInfo {
        id: row.id,
        description: row.description,
        started: row.started,
        ended: row.ended,
        images: row.images,
        failure: row.failure,
        summary: row.summary,
    }
}

fn unknown(build: &BuildId) -> Failure {
    user(format!("There is no build `{build}`")).hint("See `slipway builds`.")
}

/// `Request::Logs`.
pub async fn steps(coordinator: &Coordinator, talk: &Talk, build: &BuildId) -> Result<(), Failure> {
    let rows = coordinator.builds(LOOK_BACK).await?;
    let row = rows.into_iter().find(|row| row.id == *build).ok_or_else(|| unknown(build))?;
    for step in row.steps {
        let RowStep { name, started, ended, cached, error, log, .. } = step;
        talk.say(Reply::Step(StepInfo { name, started, ended, cached, error, log })).await;
    }
    Ok(())
}

/// `Request::Cancel`.
pub async fn cancel(coordinator: &Coordinator, build: &BuildId) -> Result<(), Failure> {
    if coordinator.cancel(build).await {
        return Ok(());
    }
    let rows = coordinator.builds(LOOK_BACK).await?;
    match rows.iter().any(|row| row.id == *build) {
        true => Err(user(format!("The build `{build}` has ended already"))),
        false => Err(unknown(build)),
    }
}
