//! What is asked of a coordinator and is not a build.

use super::coordinator::Desk;
use super::{disks, members, office};
use crate::error::user;
use crate::talk::Talk;
use crate::up::admin::{builds, images, mounts};
use cache::net::quic::ALPN;
use coordinator::core::members::RemoveError;
use coordinator::core::place::PRIORITY_MAX;
use coordinator::server::{CacheOrder, Leaving};
use ops::identity::{Grant, Project, Right, Role};
use proto::error::{Class, Failure};
use proto::id::{CacheId, Scope};
use proto::wire::admin::{NodeOrder, NodeRow, Reply, Request};
use proto::wire::cluster::CacheState;
use std::time::Duration;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// Whether he may look after the farm.
    pub may_operate: bool,
    /// Whose images he sees, and whose builds.
    pub scope: Scope,
}

/// Answers one request.
pub async fn answer(
    desk: &Desk,
    asks: Asks,
    request: Request,
    talk: &mut Talk,
) -> Result<(), Failure> {
    let coordinator = desk.coordinator();
    if is_for_operators(&request) && !asks.may_operate {
        let message = "Only who looks after the farm may do this";
        return Err(Failure::new(Class::Denied, message).hint(
            "Do it on the coordinator's machine, or join with a token made by `slipway token create \
             --role client --admin`.",
        ));
    }
    let seen = coordinator.images(asks.scope.clone());
    let Some(request) = images::answer(seen, request, talk).await? else { return Ok(()) };
    let by = (!asks.may_operate).then_some(&asks.scope);
    match request {
        Request::Status => {
            talk.say(Reply::Status {
                binary: crate::farm::binary(),
                pid: std::process::id(),
                started: desk.started(),
                builds: u32::try_from(coordinator.active()).unwrap_or(u32::MAX),
            })
            .await;
            Ok(())
        }
        Request::Builds { count } => builds::list(coordinator, by, talk, count).await,
        Request::Logs(build) => builds::steps(coordinator, by, talk, &build).await,
        Request::Explain(build) => builds::reasons(coordinator, by, talk, &build).await,
        Request::Cancel(build) => builds::cancel(coordinator, by, &build).await,
        Request::CreateToken { role, ttl_ms, uses, project, scope, admin } => {
            let right = right(&role, &project, &scope, admin)?;
            let token = desk.office().create(right, Duration::from_millis(ttl_ms), uses).await?;
            talk.say(Reply::Text(token.expose())).await;
            Ok(())
        }
        Request::Nodes => {
            let workers = members::rows(desk).await?;
            for row in caches(desk).into_iter().chain(workers) {
                talk.say(Reply::Node(row)).await;
            }
            Ok(())
        }
        Request::Node { name, order } => change(desk, &name, order, talk).await,
        Request::Overview => members::overview(coordinator, talk).await,
        Request::Tokens => office::list(desk.office(), talk).await,
        Request::RevokeToken(id) => office::revoke(desk.office(), &id, talk).await,
        Request::Mounts => mounts::list(coordinator, talk).await,
        Request::Mount { scope, id, order } => {
            mounts::order(coordinator, talk, (&scope, &id), order).await
        }
        Request::Usage => disks::usage(desk.party(), desk.membership(), talk).await,
        Request::Prune(what) => disks::prune(desk.party(), desk.membership(), talk, what).await,
        Request::Verify { repair } => {
            disks::verify(desk.party(), desk.membership(), talk, repair).await
        }
        Request::Run(_) => {
            let message = "People's containers do not run on a farm's machines";
            Err(user(message).hint(
                "`slipway run` fetches the image and runs it on this machine. Elsewhere: slipway \
                 save IMAGE | docker load",
            ))
        }
        other => {
            let name = format!("{other:?}");
            let name = name.split(['(', ' ', '{']).next().unwrap_or_default().to_lowercase();
            let message = format!("A farm of several machines does not do `{name}`");
            Err(user(message).hint(format!(
                "Its protocol is {}; look for a newer version.",
                String::from_utf8_lossy(ALPN)
            )))
        }
    }
}

fn is_for_operators(request: &Request) -> bool {
    matches!(
        request,
        Request::CreateToken { .. }
            | Request::Tokens
            | Request::RevokeToken(_)
            | Request::Node { .. }
            | Request::Mounts
            | Request::Mount { .. }
            | Request::Prune(_)
            | Request::Verify { .. }
            | Request::Shutdown { .. }
    )
}

fn right(role: &str, project: &str, scope: &str, admin: bool) -> Result<Right, Failure> {
    let failed = |e: proto::id::IdError| user(e.to_string());
    match Role::parse(role) {
        Some(Role::Coordinator) => Ok(Right::Coordinator),
        Some(Role::Worker) => Ok(Right::Worker),
        Some(Role::Cache) => Ok(Right::Cache),
        Some(Role::Client) => Ok(Right::Client(Grant {
            project: Project::parse(project).map_err(failed)?,
            scope: Scope::parse(scope).map_err(failed)?,
            priority_max: PRIORITY_MAX,
            admin,
        })),
        None => Err(user(format!("There is no role `{role}`"))),
    }
}

fn caches(desk: &Desk) -> Vec<NodeRow> {
    let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / f64::from(1 << 30));
    let cache = |row: coordinator::server::CacheRow| NodeRow {
        name: row.id.to_string(),
        role: Role::Cache.to_string(),
        state: match row.state {
            CacheState::Serving => "serving",
            CacheState::Syncing => "catching up",
            CacheState::Leaving => "leaving",
            CacheState::Down => "down",
        }
        .to_owned(),
        address: row.address,
        detail: match (row.is_gone, row.state) {
            (true, CacheState::Serving | CacheState::Syncing | CacheState::Leaving) => {
                "cannot be reached".to_owned()
            }
            _ => format!("{} of {}", gb(row.bytes.0), gb(row.bytes.1)),
        },
    };
    desk.membership().rows().into_iter().map(cache).collect()
}

async fn change(desk: &Desk, name: &str, order: NodeOrder, talk: &Talk) -> Result<(), Failure> {
    let (role, name) = members::named(name)?;
    let id = CacheId::parse(name).map_err(|e| user(e.to_string()))?;
    let membership = desk.membership();
    let may_be_gone = role == Some(Role::Worker) && matches!(order, NodeOrder::Remove);
    let may_be = |wanted| role.is_none_or(|role| role == wanted);
    let is_cache = may_be(Role::Cache) && membership.rows().iter().any(|row| row.id == id);
    if may_be(Role::Worker)
        && let Some(worker) = members::find(desk, name, may_be_gone).await?
    {
        // Only workers are cordoned: that order says who is meant.
        let is_clear = matches!(order, NodeOrder::Cordon | NodeOrder::Uncordon);
        if is_cache && !is_clear {
            return Err(user(format!("`{name}` is a worker and a cache node"))
                .hint(format!("Say which is meant: worker/{name} or cache/{name}")));
        }
        return members::change(desk, &worker, order, talk).await;
    }
    let failed = |e: RemoveError| user(e.to_string());
    match order {
        NodeOrder::Remove if is_cache => membership.order(&id, CacheOrder::Remove).map_err(failed),
        NodeOrder::Uncordon if is_cache => membership.order(&id, CacheOrder::Stay).map_err(failed),
        NodeOrder::Drain if is_cache => {
            membership.order(&id, CacheOrder::Leave).map_err(failed)?;
            match membership.left(&id).await.map_err(failed)? {
                Leaving::Stuck(nodes) => Err(stuck(&id, &nodes)),
                _ => Ok(()),
            }
        }
        NodeOrder::Cordon if is_cache => Err(user(format!("`{name}` is a cache node"))
            .hint("`slipway node drain` has it give what it has to the others.")),
        _ => Err(user(format!("There is no member `{name}` of which that can be said"))
            .hint("See `slipway node ls`.")),
    }
}

fn stuck(id: &CacheId, nodes: &[CacheId]) -> Failure {
    let names: Vec<String> = nodes.iter().map(|node| format!("`{node}`")).collect();
    let message = format!(
        "`{id}` cannot give what it has to the others while {} cannot be reached",
        names.join(", ")
    );
    Failure::new(Class::Unavailable, message).hint(
        "It goes on when they are back. Ask again then; or remove those that will not come back: \
         slipway node rm NAME.",
    )
}
