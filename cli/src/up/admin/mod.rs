//! All that is asked of a farm and is not a build. One file for each group of requests.

mod builds;
mod disk;
pub mod images;
mod names;
mod run;
mod transfer;

use super::door::{House, ending};
use cache::net::{NetError, Stream};
use cache::store::{DiskStore, StoreError};
use proto::error::{Class, Failure};
use proto::wire::admin::{Input, Reply, Request};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Answers that wait before whoever sends one waits.
const OUTBOX: usize = 64;

/// Where a request's answers go, and what follows it comes from.
pub struct Talk {
    /// The answers, each with its payload.
    pub out: mpsc::Sender<(Reply, bytes::Bytes)>,
    /// What the person sends after the request. Its end: the person has gone.
    pub inputs: mpsc::Receiver<(Input, bytes::Bytes)>,
}

impl Talk {
    /// Sends an answer. Whoever does not listen any more is not waited for.
    pub async fn say(&self, reply: Reply) {
        let _ = self.out.send((reply, bytes::Bytes::new())).await;
    }
}

/// Serves one request.
pub async fn serve(house: &Arc<House>, mut stream: Stream) -> Result<(), NetError> {
    let Some((request, _)) = stream.from.next::<Request>().await? else { return Ok(()) };
    let Stream { mut to, mut from } = stream;
    let (out, mut replies) = mpsc::channel(OUTBOX);
    let (put, inputs) = mpsc::channel(OUTBOX);
    let hear = async move {
        while let Ok(Some(input)) = from.next::<Input>().await {
            if put.send(input).await.is_err() {
                break;
            }
        }
        // Whoever asked has gone: what is being done for nobody is dropped.
    };
    let tell = async move {
        while let Some((reply, payload)) = replies.recv().await {
            to.send_with(&reply, &[payload]).await?;
        }
        Ok::<_, NetError>(())
    };
    let answered = async move {
        let mut talk = Talk { out, inputs };
        let last = match answer(house, request, &mut talk).await {
            Ok(()) => Reply::Done,
            Err(failure) => Reply::Failed(failure),
        };
        talk.say(last).await;
    };
    tokio::select! {
        (told, ()) = async { tokio::join!(tell, answered) } => told,
        () = hear => Ok(()),
    }
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
        Request::Cancel(build) => return builds::cancel(house, &build).await,
        _ => {}
    }
    let _work = house.life.work().ok_or_else(ending)?;
    match request {
        Request::Images => images::list(house, talk).await,
        Request::Inspect(name) => images::inspect(house, talk, name).await,
        Request::History(name) => images::history(house, talk, name).await,
        Request::Tag { source, target } => images::tag(house, source, target).await,
        Request::Remove { names, force } => images::remove(house, talk, names, force).await,
        Request::Pull { reference, platform } => {
            transfer::pull(house, talk, &reference, platform).await
        }
        Request::Push { reference } => transfer::push(house, talk, reference).await,
        Request::Save { names, format } => transfer::save(house, talk, names, format).await,
        Request::Load => transfer::load(house, talk).await,
        Request::Builds { count } => builds::list(house, talk, count).await,
        Request::Logs(build) => builds::steps(house, talk, &build).await,
        Request::Usage => disk::usage(house, talk).await,
        Request::Prune(prune) => disk::prune(house, talk, prune).await,
        Request::Verify { repair } => disk::verify(house, talk, repair).await,
        Request::Run(run) => run::run(house, talk, *run).await,
        Request::Status | Request::Shutdown { .. } | Request::Cancel(_) => {
            unreachable!("answered above")
        }
    }
}

/// What the store did not do, as the person is told.
fn store_failure(error: StoreError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

/// Works with the store on a thread that may block.
async fn with_store<T: Send + 'static>(
    house: &House,
    work: impl FnOnce(&DiskStore) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let store = house.parts.store.clone();
    blocking(move || work(&store)).await
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
