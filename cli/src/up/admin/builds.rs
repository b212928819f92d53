//! Builds that are under way, and past ones.

use crate::error::user;
use crate::talk::Talk;
use coordinator::server::{BuildRow, Coordinator, RowStep};
use proto::error::{Class, Failure};
use proto::id::{BuildId, Scope};
use proto::wire::admin::{BuildInfo, Reply, StepInfo};

/// How far back a build is looked for.
const LOOK_BACK: u32 = 10_000;

/// The builds that are seen: those of the scope's project, or all without one.
async fn seen(
    coordinator: &Coordinator,
    by: Option<&Scope>,
    count: u32,
) -> Result<Vec<BuildRow>, Failure> {
    let Some(by) = by else { return Ok(coordinator.builds(count).await?) };
    let mut rows = coordinator.builds(LOOK_BACK).await?;
    rows.retain(|row| row.scope.project() == by.project());
    rows.truncate(count as usize);
    Ok(rows)
}

/// `Request::Builds`, of somebody who has a scope, or may see all.
pub async fn list(
    coordinator: &Coordinator,
    by: Option<&Scope>,
    talk: &Talk,
    count: u32,
) -> Result<(), Failure> {
    for row in seen(coordinator, by, count).await? {
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

/// The build of that name, if it is seen.
async fn one(
    coordinator: &Coordinator,
    by: Option<&Scope>,
    build: &BuildId,
) -> Result<BuildRow, Failure> {
    let rows = seen(coordinator, by, LOOK_BACK).await?;
    let unknown = || user(format!("There is no build `{build}`")).hint("See `slipway builds`.");
    rows.into_iter().find(|row| row.id == *build).ok_or_else(unknown)
}

/// `Request::Logs`.
pub async fn steps(
    coordinator: &Coordinator,
    by: Option<&Scope>,
    talk: &Talk,
    build: &BuildId,
) -> Result<(), Failure> {
    for step in one(coordinator, by, build).await?.steps {
        let RowStep { name, started, ended, cached, error, log, .. } = step;
        talk.say(Reply::Step(StepInfo { name, started, ended, cached, error, log })).await;
    }
    Ok(())
}

/// `Request::Explain`.
pub async fn reasons(
    coordinator: &Coordinator,
    by: Option<&Scope>,
    talk: &Talk,
    build: &BuildId,
) -> Result<(), Failure> {
    let row = one(coordinator, by, build).await?;
    for reason in coordinator.explain(&row).await? {
        talk.say(Reply::Reason(reason)).await;
    }
    Ok(())
}

/// `Request::Cancel`.
pub async fn cancel(
    coordinator: &Coordinator,
    by: Option<&Scope>,
    build: &BuildId,
) -> Result<(), Failure> {
    let row = one(coordinator, by, build).await?;
    if let Some(by) = by.filter(|by| !by.admits(&row.scope)) {
        let message = format!("The build `{build}` is of `{}`, and you are of `{by}`", row.scope);
        return Err(Failure::new(Class::Denied, message));
    }
    match coordinator.cancel(build).await {
        true => Ok(()),
        false => Err(user(format!("The build `{build}` has ended already"))),
    }
}
