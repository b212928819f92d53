//! Clients and their builds: a build lives by itself, and its client may come and go.

use super::audience::Heard;
use super::build::{Build, Outcome};
use super::history;
use super::locked;
use super::narrate::narrate;
use super::outside::Gone;
use super::{Server, explain, export, narrow, now, outside, plan, tally};
use crate::core::facts::{Fact, Submitted, Unfinished, Who};
use crate::core::{Event, Notice, Plan};
use bytes::Bytes;
use cache::net::{NetError, Receiver, Stream};
use proto::error::{Class, Failure};
use proto::id::{BlobId, BuildId};
use proto::limit;
use proto::step::StepId;
use proto::wire::Message;
use proto::wire::build::{BuildRequest, BuildResult, Output, ToClient, ToCoordinator};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long whoever was told everything may take to say so.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a coordinator that was started again waits for what it knew of its builds, and how
/// often it looks.
const STORE_WAIT: Duration = Duration::from_secs(120);
const STORE_LOOK: Duration = Duration::from_millis(200);

/// Serves one client, until its build has ended or it is gone.
pub async fn serve(server: Arc<Server>, stream: Stream, who: Who) -> Result<(), NetError> {
    let Stream { mut to, mut from } = stream;
    let begun = match from.expect::<ToCoordinator>().await?.0 {
        ToCoordinator::Submit(request) => begin(&server, *request, who).await.map(|b| (b, None)),
        ToCoordinator::Attach { build, heard } => match known(&server, &build).await {
            // Whoever listens answers, too: with files and secrets that go into the result.
            Some(known) if who.scope.admits(&known.who.scope) => Ok((known, heard)),
            _ => Err(gone(&build)),
        },
        other => {
            let what = format!("{other:?}").chars().take(60).collect();
            return Err(NetError::Unexpected(what));
        }
    };
    let (build, heard) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            to.send(&ToClient::Finished(Box::new(Err(failure)))).await?;
            return to.close().await;
        }
    };
    let standing = || build.reporter.standing();
    let told = tokio::select! {
        told = build.audience.listen(&mut to, heard, standing) => told,
        () = hear(&build, &mut from) => Err(NetError::Closed),
    };
    if let Ok(Heard::Everything) = told {
        server.builds.remove(&build.id);
        // What was sent has arrived when the other end closes.
        let _ = tokio::time::timeout(GOODBYE, from.next::<ToCoordinator>()).await;
    }
    told.map(drop)
}

/// A build; one of an earlier life when it is known again.
pub async fn known(server: &Server, build: &BuildId) -> Option<Arc<Build>> {
    let mut resumed = server.resumed.subscribe();
    let resumed = resumed.wait_for(|resumed| *resumed);
    let _ = tokio::time::timeout(STORE_WAIT, resumed).await;
    server.builds.get(build)
}

/// Why a build cannot be attached to.
fn gone(build: &BuildId) -> Failure {
    let message = format!("There is no build `{build}` under way");
    Failure::new(Class::User, message).hint(
        "It has ended, or was cancelled while nobody waited for it. `slipway builds` lists what there \
         was; building again takes what was done.",
    )
}

/// Hears a client, until it is gone.
async fn hear(build: &Build, from: &mut Receiver) {
    while let Ok(Some((message, _))) = from.next::<ToCoordinator>().await {
        match message {
            ToCoordinator::Answer(number, answer) => build.answered(number, answer),
            ToCoordinator::Cancel => build.cancel(),
            ToCoordinator::Submit(_) | ToCoordinator::Attach { .. } => {
                tracing::info!(build = %build.id, "a client sent a second request on one stream");
                return;
            }
        }
    }
}

/// Takes a build on: from here on it is not forgotten.
async fn begin(
    server: &Arc<Server>,
    request: BuildRequest,
    who: Who,
) -> Result<Arc<Build>, Failure> {
    check(&request)?;
    let who = narrow::who(who, request.scope.as_deref(), request.priority)?;
    let (id, at) = (new_id(), now());
    if server.keeps_facts {
        let request = keep(server, rkyv::to_bytes(&request).map_err(bug)?).await?;
        let submitted = Submitted { at, request, who: who.clone() };
        server.ledger.note(&[Fact::Submitted { build: id.clone(), submitted }]).await?;
    }
    tracing::info!(build = %id, who = %who.name, scope = %who.scope.as_str(), "a build begins");
    let build = Build::new(id, at, who, request, server.patience());
    server.builds.add(&build);
    tokio::spawn(drive(server.clone(), build.clone(), None));
    Ok(build)
}

fn bug(error: RkyvError) -> Failure {
    Failure::new(Class::Bug, error.to_string())
}

/// Keeps bytes in the farm's store; durable then.
async fn keep(server: &Server, bytes: AlignedVec) -> Result<BlobId, Failure> {
    let bytes = Bytes::from(bytes.into_vec());
    let id = BlobId::of(&bytes);
    let blobs = &server.library.blobs;
    match bytes.len() <= limit::PACKED_BLOB_BYTES_MAX {
        true => drop(blobs.put_blobs(&[(id, bytes)]).await?),
        false => {
            let size = bytes.len() as u64;
            let mut pieces = Some(bytes);
            let next = || std::future::ready(Ok(pieces.take()));
            blobs.put_large(id, size, next).await?;
        }
    }
    blobs.barrier().await?;
    Ok(id)
}

/// Reads bytes that [`keep`] kept.
async fn kept(server: &Server, id: BlobId) -> Result<AlignedVec, Failure> {
    let bytes = std::sync::Mutex::new(AlignedVec::new());
    let take = |piece: Bytes| {
        locked(&bytes).extend_from_slice(&piece);
        std::future::ready(Ok(()))
    };
    server.library.blobs.get_large(id, 0, take).await?;
    let bytes = bytes.into_inner().unwrap_or_else(|p| p.into_inner());
    if BlobId::of(&bytes) != id {
        return Err(Failure::new(Class::Corrupt, format!("Blob {id} came with other bytes")));
    }
    Ok(bytes)
}

fn decoded<M: Message>(bytes: &AlignedVec) -> Result<M, Failure> {
    let read = rkyv::from_bytes::<M, RkyvError>(bytes);
    read.map_err(|e| Failure::new(Class::Corrupt, e.to_string()))
}

/// Takes up the builds again that were under way when the coordinator ended.
pub async fn resume(server: Arc<Server>) {
    let unfinished = server.ledger.read(|facts| facts.builds.clone());
    // The cache nodes come back at about the same time, for all builds at once.
    let began = Instant::now();
    for (id, unfinished) in unfinished {
        let mut taken = take_up(&server, &id, &unfinished).await;
        while let Err(failure) = &taken
            && failure.class == Class::Unavailable
            && began.elapsed() < STORE_WAIT
        {
            tokio::time::sleep(STORE_LOOK).await;
            taken = take_up(&server, &id, &unfinished).await;
        }
        match taken {
            Ok((build, plan)) => {
                tracing::info!(build = %id, planned = plan.is_some(), "a build goes on");
                server.builds.add(&build);
                tokio::spawn(drive(server.clone(), build, plan));
            }
            Err(failure) => {
                tracing::warn!(build = %id, "a build cannot go on: {failure}");
                let over = [Fact::Ended { build: id }];
                if let Err(e) = server.ledger.note(&over).await {
                    tracing::error!("{e}");
                }
            }
        }
    }
    server.tell(Event::Resumed).await;
    server.resumed.send_replace(true);
}

async fn take_up(
    server: &Arc<Server>,
    id: &BuildId,
    unfinished: &Unfinished,
) -> Result<(Arc<Build>, Option<Arc<Plan>>), Failure> {
    let Unfinished { submitted, plan } = unfinished;
    let Submitted { at, request, who } = submitted;
    let request = decoded::<BuildRequest>(&kept(server, *request).await?)?;
    let plan = match plan {
        Some(plan) => {
            let plan = decoded::<Plan>(&kept(server, *plan).await?)?;
            Some(Arc::new(Plan { owner: plan::owner(who), ..plan }))
        }
        None => None,
    };
    Ok((Build::new(id.clone(), *at, who.clone(), request, server.patience()), plan))
}

/// A name for a build: 60 bits of chance.
pub fn new_id() -> BuildId {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    let text: String = (u64::from_le_bytes(bytes) >> 4)
        .to_string()
        .bytes()
        .map(|b| char::from(b"bcdfghjkmn"[usize::from(b - b'0')]))
        .take(12)
        .collect();
    BuildId::parse(&text).expect("letters only")
}

/// Leads a build to its end, whether its client is there or not.
async fn drive(server: Arc<Server>, build: Arc<Build>, plan: Option<Arc<Plan>>) {
    // What this build finds, makes or is told of stays until its client has heard how it ended.
    let _pin = server.library.blobs.pin().await;
    let grace = server.grace;
    let stopped = |why: &str| Failure::new(Class::Cancelled, why);
    let result = tokio::select! {
        result = run(&server, &build, plan) => result,
        () = build.cancelled() => Err(stopped("The build was cancelled")),
        () = build.audience.deserted(grace) => Err(stopped("The client has gone")),
    };
    close(&server, &build, &result).await;
    build.audience.end(result);
    // Whoever lost its stream at the end comes back for the result.
    build.audience.deserted(grace).await;
    server.builds.remove(&build.id);
}

async fn run(
    server: &Arc<Server>,
    build: &Arc<Build>,
    plan: Option<Arc<Plan>>,
) -> Result<BuildResult, Failure> {
    let began = now();
    // Who cannot be built waits for no cache.
    let read = async {
        outside::read(server, build).await;
        Ok(())
    };
    let (plan, ()) = tokio::try_join!(planned(server, build, plan), read)?;
    let _ = build.plan.set(plan.clone());
    let notices = build.notices();
    let narrator = tokio::spawn(narrate(server.clone(), build.clone(), plan.clone(), notices));
    let outcome = settle(server, build, &plan).await;
    // What was noticed before must be told before what comes now.
    build.notice(StepId(0), Notice::Over);
    let _ = narrator.await;
    let targets = match outcome {
        Some(Outcome::Ready(targets)) => targets,
        Some(Outcome::Failed(step, failure)) => return Err(placed(build, &plan, step, failure)),
        None => return Err(Failure::new(Class::Bug, "The coordinator lost the build")),
    };
    // Before other builds that share its steps can lose one of them.
    let records = outside::records(server, build).await?;
    let outputs = export::make(server, build, &plan, targets).await?;
    let caches = outside::give(server, build, &plan, records).await?;
    // Nothing is called done that a loss of power could take away.
    server.library.blobs.barrier().await?;
    let mut summary = build.reporter.summary();
    summary.wall_ms = now().since(began);
    Ok(BuildResult { outputs, caches, summary })
}

/// The build's plan: one of an earlier life, or a new one.
async fn planned(
    server: &Arc<Server>,
    build: &Arc<Build>,
    plan: Option<Arc<Plan>>,
) -> Result<Arc<Plan>, Failure> {
    if let Some(plan) = plan {
        return Ok(plan);
    }
    let plan = plan::make(server, build).await?;
    note_plan(server, build, &plan).await?;
    Ok(plan)
}

/// Lets the core do its part, until the layers are there that the outputs need: those of imported
/// records are fetched now, and what cannot be had is made.
async fn settle(server: &Arc<Server>, build: &Arc<Build>, plan: &Arc<Plan>) -> Option<Outcome> {
    let id = || build.id.clone();
    let mut outcome = build.outcome();
    server.tell(Event::Submitted { build: id(), plan: plan.clone() }).await;
    let is_image = |output: &Output| matches!(output, Output::Image(_) | Output::Archive(_));
    let needs_layers = build.request.outputs.iter().any(is_image);
    loop {
        let ended = outcome.await.ok()?;
        let Outcome::Ready(targets) = &ended else { return Some(ended) };
        if !needs_layers || plan.imports.build().is_none() {
            return Some(ended);
        }
        let layers = targets.iter().flat_map(|target| &target.layers);
        let layers: Vec<_> = layers.map(|(_, layer, _)| *layer).collect();
        let Err(Gone { layers, what }) = outside::bring(server, build, &layers).await else {
            return Some(ended);
        };
        outcome = build.outcome();
        server.tell(Event::Lost { build: id(), layers, what }).await;
    }
}

/// With its graph a build goes on after the coordinator was started again, without its client.
async fn note_plan(server: &Server, build: &Build, plan: &Plan) -> Result<(), Failure> {
    if !server.keeps_facts {
        return Ok(());
    }
    let plan = keep(server, rkyv::to_bytes(plan).map_err(bug)?).await?;
    server.ledger.note(&[Fact::Planned { build: build.id.clone(), plan }]).await
}

/// The failure with the place of the step, and its lines.
fn placed(build: &Build, plan: &Plan, step: Option<StepId>, mut failure: Failure) -> Failure {
    let at = step.and_then(|s| plan.graph.steps[s.index()].at.clone());
    if let (None, Some(at)) = (&failure.at, at) {
        failure.excerpt = crate::dockerfile::error::excerpt(&build.request.dockerfile, &at);
        failure.at = Some(at);
    }
    failure
}

/// Takes the build out of everything, and writes down what is kept of it.
async fn close(server: &Arc<Server>, build: &Arc<Build>, result: &Result<BuildResult, Failure>) {
    server.tell(Event::Ended { build: build.id.clone() }).await;
    server.logs.forget(&build.id);
    let row = {
        let mut row = build.row();
        row.summary = build.reporter.summary();
        row.end(now(), result);
        row.clone()
    };
    let took_ms = row.ended.map_or(0, |ended| ended.since(row.started));
    let failure = result.as_ref().err();
    let outcome = tally::outcome(failure);
    server.tally.build(failure, Duration::from_millis(took_ms));
    tracing::info!(build = %build.id, outcome, took_ms, "a build has ended");
    tokio::join!(history::keep(server, &row), explain::keep(server, build, &row));
    if server.keeps_facts
        && let Err(e) = server.ledger.note(&[Fact::Ended { build: build.id.clone() }]).await
    {
        tracing::error!("{e}");
    }
}

/// Checks what must be so before anything is done.
fn check(request: &BuildRequest) -> Result<(), Failure> {
    let caches = request.cache_from.len().max(request.cache_to.len());
    if caches > limit::OUTSIDE_CACHES_MAX {
        let max = limit::OUTSIDE_CACHES_MAX;
        let message = format!("The build names {caches} caches; it may name {max}");
        return Err(Failure::new(Class::User, message));
    }
    if request.dockerfile.len() > limit::DOCKERFILE_BYTES_MAX {
        let message = format!(
            "The Dockerfile has {} bytes; at most {} are read",
            request.dockerfile.len(),
            limit::DOCKERFILE_BYTES_MAX
        );
        return Err(Failure::new(Class::User, message));
    }
    Ok(())
}
