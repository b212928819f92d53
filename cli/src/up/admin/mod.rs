//! All that is asked of a farm and is not a build. One file for each group of requests.

pub mod builds;
pub mod disk;
pub mod images;
pub mod mounts;
mod run;
mod transfer;

use super::door::{House, ending};
use crate::talk::{Talk, converse};
use cache::net::{NetError, Stream};
use cache::store::StoreError;
use disk::Disk;
use proto::error::{Class, Failure};
use proto::id::Scope;
use proto::wire::admin::{Reply, Request};
use std::sync::Arc;

/// Serves one request.
pub async fn serve(house: &Arc<House>, stream: Stream) -> Result<(), NetError> {
    converse(stream, async |request, talk| answer(house, request, talk).await).await
}

async fn answer(house: &Arc<House>, request: Request, talk: &mut Talk) -> Result<(), Failure> {
    match request {
        Request::Status => {
            talk.say(Reply::Status {
                binary: crate::farm::binary(),
                pid: std::process::id(),
                started: house.started,
                builds: u32::try_from(house.parts.coordinator.active()).unwrap_or(u32::MAX),
            })
            .await;
            return Ok(());
        }
        Request::Shutdown { after_builds } => {
            house.life.end(after_builds);
            // The stream's end tells that the farm has ended.
            return std::future::pending().await;
        }
        Request::Cancel(build) => {
            return builds::cancel(&house.parts.coordinator, None, &build).await;
        }
        Request::Overview => {
            return crate::node::members::overview(&house.parts.coordinator, talk).await;
        }
        _ => {}
    }
    let _work = house.life.work().ok_or_else(ending)?;
    let images = house.parts.coordinator.images(Scope::trusted());
    let Some(request) = images::answer(images, request, talk).await? else { return Ok(()) };
    let layers = Some(house.parts.worker.layers().clone());
    let disk = Disk { store: house.parts.store.clone(), layers };
    let Some(request) = disk.answer(request, talk).await? else { return Ok(()) };
    match request {
        Request::Builds { count } => {
            builds::list(&house.parts.coordinator, None, talk, count).await
        }
        Request::Logs(build) => builds::steps(&house.parts.coordinator, None, talk, &build).await,
        Request::Explain(build) => {
            builds::reasons(&house.parts.coordinator, None, talk, &build).await
        }
        Request::Run(run) => run::run(house, talk, *run).await,
        Request::Mounts => mounts::list(&house.parts.coordinator, talk).await,
        Request::Mount { scope, id, order } => {
            mounts::order(&house.parts.coordinator, talk, (&scope, &id), order).await
        }
        Request::CreateToken { .. }
        | Request::Tokens
        | Request::RevokeToken(_)
        | Request::Nodes
        | Request::Node { .. } => Err(alone()),
        Request::Status
        | Request::Shutdown { .. }
        | Request::Cancel(_)
        | Request::Overview
        | Request::Images
        | Request::Inspect(_)
        | Request::History(_)
        | Request::Tag { .. }
        | Request::Remove { .. }
        | Request::Pull { .. }
        | Request::Push { .. }
        | Request::Save { .. }
        | Request::Load(_)
        | Request::Usage
        | Request::Prune(_)
        | Request::Verify { .. } => unreachable!("answered above"),
    }
}

/// Why nothing that concerns several machines is done here.
fn alone() -> Failure {
    let message = "The farm that runs here is this machine's own: it has no members";
    Failure::new(Class::User, message)
        .hint("`slipway farm init` makes a cluster; on another machine name it by --farm.")
}

/// What the store did not do, as the person is told.
fn store_failure(error: StoreError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

/// Works on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Failure::new(Class::Bug, e.to_string())),
    }
}
