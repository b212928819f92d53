//! `slipway node`, for workers, and `slipway top`: what a coordinator answers.

use super::coordinator::Desk;
use crate::error::user;
use crate::talk::Talk;
use coordinator::server::{Coordinator, Duties, Order};
use ops::identity::Role;
use proto::error::Failure;
use proto::id::WorkerId;
use proto::wire::admin::{NodeOrder, NodeRow, Reply};
use proto::wire::overview::WorkerNow;
use std::time::Duration;

/// How often it is looked whether a worker that is drained does anything yet.
const LOOK: Duration = Duration::from_millis(200);

/// `slipway top`.
pub async fn overview(coordinator: &Coordinator, talk: &Talk) -> Result<(), Failure> {
    let overview = coordinator.overview().await?;
    talk.say(Reply::Overview(Box::new(overview))).await;
    Ok(())
}

/// The workers, those among them of which an operator wants something and that are not there.
pub async fn rows(desk: &Desk) -> Result<Vec<NodeRow>, Failure> {
    let coordinator = desk.coordinator();
    let there = coordinator.workers().await?;
    let mut rows: Vec<NodeRow> = there.iter().map(row).collect();
    for (id, order) in coordinator.orders() {
        if order == Order::Cordoned && there.iter().all(|worker| worker.id != id) {
            rows.push(NodeRow {
                name: id.to_string(),
                role: Role::Worker.to_string(),
                state: "cordoned, not there".to_owned(),
                address: String::new(),
                detail: String::new(),
            });
        }
    }
    Ok(rows)
}

fn row(worker: &WorkerNow) -> NodeRow {
    let gb = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let mut detail = format!("{} of {} slots", worker.slots_used, worker.slots);
    if worker.memory_bytes > 0 {
        let (taken, all) = (gb(worker.memory_taken), gb(worker.memory_bytes));
        detail.push_str(&format!(", {taken:.1} of {all:.1} GB memory"));
    }
    if worker.disk_free_bytes > 0 {
        detail.push_str(&format!(", {:.1} GB disk free", gb(worker.disk_free_bytes)));
    }
    let platforms: Vec<String> = worker.platforms.iter().map(ToString::to_string).collect();
    detail.push_str(&format!(", {}", platforms.join(" ")));
    NodeRow {
        name: worker.id.to_string(),
        role: Role::Worker.to_string(),
        state: worker.state.as_str().to_owned(),
        address: String::new(),
        detail,
    }
}

/// A member as a person names it: `NAME`, or `ROLE/NAME` where two have the same.
pub fn named(text: &str) -> Result<(Option<Role>, &str), Failure> {
    let Some((role, name)) = text.split_once('/') else { return Ok((None, text)) };
    match Role::parse(role) {
        Some(role @ (Role::Worker | Role::Cache)) => Ok((Some(role), name)),
        _ => Err(user(format!("`{text}` names no member"))
            .hint("Name one as `slipway node ls` lists it, or as worker/NAME or cache/NAME.")),
    }
}

/// The worker of that name, if one is there or an operator wants something of it. `may_be_gone`: a
/// person removes a worker, and says that it is one: it may have gone long ago, and is not to come
/// back.
pub async fn find(desk: &Desk, name: &str, may_be_gone: bool) -> Result<Option<WorkerId>, Failure> {
    let Ok(id) = WorkerId::parse(name) else { return Ok(None) };
    if may_be_gone {
        return Ok(Some(id));
    }
    let coordinator = desk.coordinator();
    let known = coordinator.workers().await?.iter().any(|worker| worker.id == id)
        || coordinator.orders().iter().any(|(of, _)| *of == id);
    Ok(known.then_some(id))
}

/// Changes what a worker is given.
pub async fn change(
    desk: &Desk,
    worker: &WorkerId,
    order: NodeOrder,
    talk: &Talk,
) -> Result<(), Failure> {
    let coordinator = desk.coordinator();
    if coordinator.is_removed(worker) {
        return Err(user(format!("The worker `{worker}` was removed"))
            .hint("It comes back when it joins again: slipway token create --role worker"));
    }
    match order {
        NodeOrder::Cordon => coordinator.cordon(worker, true).await,
        NodeOrder::Uncordon => coordinator.cordon(worker, false).await,
        NodeOrder::Remove => coordinator.remove_worker(worker).await,
        NodeOrder::Drain => {
            coordinator.cordon(worker, true).await?;
            wait_for(coordinator, worker, talk).await
        }
    }
}

/// Waits until a worker does nothing, and tells how much is left each time that changes.
async fn wait_for(
    coordinator: &Coordinator,
    worker: &WorkerId,
    talk: &Talk,
) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let duties = coordinator.duties(worker).await?;
        if duties.is_empty() {
            return Ok(());
        }
        if last != Some(duties) {
            talk.say(Reply::Text(left(worker, duties))).await;
            last = Some(duties);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn left(worker: &WorkerId, Duties { steps, calls }: Duties) -> String {
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let steps = count(steps, "step", "steps");
    match calls {
        0 => format!("{worker} finishes {steps}"),
        n => {
            let other = count(n, "other piece of work", "other pieces of work");
            format!("{worker} finishes {steps} and {other}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_with_or_without_their_role() {
        assert_eq!(named("box-1").unwrap(), (None, "box-1"));
        assert_eq!(named("worker/box-1").unwrap(), (Some(Role::Worker), "box-1"));
        assert_eq!(named("cache/box-1").unwrap(), (Some(Role::Cache), "box-1"));
        assert!(named("client/ann").is_err() && named("/x").is_err());
    }

    #[test]
    fn what_is_left_is_said_in_words() {
        let worker = WorkerId::parse("box-1").unwrap();
        let text = |steps, calls| left(&worker, Duties { steps, calls });
        assert_eq!(text(1, 0), "box-1 finishes 1 step");
        assert_eq!(text(0, 2), "box-1 finishes 0 steps and 2 other pieces of work");
    }
}
