//! From a request to a graph with keys: parse, look up, lower, scan.

use super::build::Build;
use super::library::AlgebraError;
use super::{Server, blocking, effects, workers};
use crate::core::facts::Who;
use crate::core::{Imports, Owner, Plan};
use crate::dockerfile::{self, Dockerfile};
use crate::graph::keys::{self, Joined};
use crate::graph::{self, Draft, Found, FoundFile, Inputs, Lowered, Need, Wanted};
use futures::future::try_join_all;
use proto::error::{Class, Failure};
use proto::id::RootId;
use proto::step::{Graph, StepId};
use proto::wire::build::{Answer, Ask, Event, Output, VertexId};
use proto::wire::worker::{Call, Dated, Reply};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often something new can be needed (by a trigger of an image that a trigger needs).
const ROUNDS_MAX: usize = 32;

/// What a build is made of.
pub async fn make(server: &Arc<Server>, build: &Arc<Build>) -> Result<Arc<Plan>, Failure> {
    server.library.prepare().await?;
    let name = format!("[internal] load build definition from {}", build.request.dockerfile_name);
    let vertex = build.reporter.begin(&name).await;
    let parsed = parse(build.clone()).await;
    build.reporter.end(vertex, &parsed).await;
    let draft = lower(server, build, Arc::new(parsed?)).await?;
    let roots = scan(build, &draft).await?;
    let graph = draft.finish(&roots);
    let selections = select(server, build, &graph).await?;
    let outputs = &build.request.outputs;
    let roots = outputs.iter().any(|o| matches!(o, Output::Files { .. }));
    let (nonce, request) = (build.id.as_str(), &build.request);
    let (imports, joined) = match (request.cache_from.is_empty(), server.keeps_facts) {
        (true, _) => (Imports::None, Joined::WithOthers),
        (false, false) => (Imports::Own(build.id.clone()), Joined::Alone),
        (false, true) => (Imports::Foreign(build.id.clone()), Joined::Alone),
    };
    let keys = keys::keys(&graph, &selections, nonce, joined);
    let _ = build.selections.set(selections);
    Ok(Arc::new(Plan {
        keys,
        graph,
        scope: build.who.scope.clone(),
        owner: owner(&build.who),
        roots,
        priority: build.who.priority,
        resources: request.resources.clone(),
        imports,
    }))
}

/// Whose share of the farm a build takes.
pub fn owner(who: &Who) -> Owner {
    Owner { project: who.scope.project().into(), user: who.name.as_str().into() }
}

async fn parse(build: Arc<Build>) -> Result<Dockerfile, Failure> {
    blocking(move || {
        let text = &build.request.dockerfile;
        dockerfile::parse(text, &build.request.dockerfile_name).map_err(|e| e.failure(text))
    })
    .await
}

async fn lower(
    server: &Arc<Server>,
    build: &Arc<Build>,
    dockerfile: Arc<Dockerfile>,
) -> Result<Draft, Failure> {
    let mut found = Found::default();
    for _ in 0..ROUNDS_MAX {
        let (server_, build_, dockerfile) = (server.clone(), build.clone(), dockerfile.clone());
        let (lowered, remarks, kept) = blocking(move || {
            let inputs = Inputs {
                dockerfile: &dockerfile,
                request: &build_.request,
                build_platform: &server_.platform,
                found: &found,
            };
            let text = &build_.request.dockerfile;
            let mut advice = Vec::new();
            let lowered = graph::lower(inputs, &mut advice).map_err(|e| e.failure(text));
            // What is still to be looked up may lead to more advice: it is given once, at the end.
            let is_last = !matches!(lowered, Ok(Lowered::Needs(_)));
            let advice = advice.iter().filter(|_| is_last).map(|warning| warning.told(text));
            let mut remarks: Vec<_> = advice.collect();
            if let Ok(Lowered::Draft(draft)) = &lowered {
                remarks.extend(draft.remarks.iter().map(|remark| remark.told(text)));
            }
            (lowered, remarks, found)
        })
        .await;
        found = kept;
        for remark in remarks {
            build.audience.say(Event::Warning(remark)).await;
        }
        match lowered? {
            Lowered::Draft(draft) => return Ok(draft),
            Lowered::Needs(needs) => {
                let looked_up = needs.into_iter().map(|need| look_up(server, build, need));
                for (what, result) in try_join_all(looked_up).await? {
                    match (what, result) {
                        (Wanted::Image { reference, platform }, Reply::Image(image)) => {
                            found.images.insert((reference, platform), *image);
                        }
                        (Wanted::Layout { context, platform }, Reply::Image(image)) => {
                            let reference = graph::layout_reference(&context);
                            found.images.insert((reference, platform), *image);
                        }
                        (Wanted::File { url }, Reply::File(digest, name, modified)) => {
                            found.files.insert(url, FoundFile { digest, name, modified });
                        }
                        (Wanted::Commit { remote, reference }, Reply::Commit(commit)) => {
                            found.commits.insert((remote, reference), commit);
                        }
                        (Wanted::Time(of), Reply::Time(time)) => {
                            found.times.insert(of, time);
                        }
                        (_, reply) => return Err(workers::unexpected(&reply)),
                    }
                }
            }
        }
    }
    let message = "Looking up one image leads to another one without an end";
    Err(Failure::new(Class::User, message))
}

/// Looks up one thing that the graph needs.
async fn look_up(server: &Server, build: &Build, need: Need) -> Result<(Wanted, Reply), Failure> {
    let name = match &need.what {
        Wanted::Image { reference, platform } => match build.request.platforms.len() {
            0 | 1 => format!("[internal] load metadata for {reference}"),
            _ => format!("[{platform} internal] load metadata for {reference}"),
        },
        Wanted::Layout { context, .. } => format!("[context {context}] OCI load from client"),
        Wanted::File { url } => format!("[internal] load {url}"),
        Wanted::Commit { remote, reference } => {
            format!("[internal] load git source {remote}#{reference}")
        }
        Wanted::Time(Dated::Archive { url: of, .. } | Dated::Commit { remote: of, .. }) => {
            format!("[internal] resolve SOURCE_DATE_EPOCH of {of}")
        }
    };
    let vertex = build.reporter.begin(&name).await;
    let result = match call(build, need.what.clone(), vertex).await {
        Ok(call) => build.call(server, vertex, call).await,
        Err(failure) => Err(failure),
    };
    build.reporter.end(vertex, &result).await;
    let placed = |mut failure: Failure| {
        if let Some(at) = need.at.clone() {
            failure.excerpt = dockerfile::error::excerpt(&build.request.dockerfile, &at);
            failure.at = Some(at);
        }
        failure
    };
    Ok((need.what, result.map_err(placed)?))
}

/// What a worker does to look it up. The files of a layout come from the client first.
async fn call(build: &Build, what: Wanted, vertex: VertexId) -> Result<Call, Failure> {
    let id = build.id.clone();
    Ok(match what {
        Wanted::Image { reference, platform } => {
            let (pull, scope) = (build.request.pull, build.who.scope.clone());
            Call::ResolveImage { build: id, reference, platform, pull, scope }
        }
        Wanted::Layout { context, platform } => {
            let reference = graph::layout_reference(&context);
            match build.ask(Ask::Layout { context, platform, vertex }).await {
                Answer::Layout(files, manifest) => {
                    Call::ResolveLayout { reference, files, manifest }
                }
                Answer::Failed(failure) => return Err(failure),
                other => return Err(unexpected(&other)),
            }
        }
        Wanted::File { url } => Call::ResolveFile { build: id, url },
        Wanted::Commit { remote, reference } => {
            Call::ResolveCommit { build: id, remote, reference }
        }
        Wanted::Time(of) => Call::ResolveTime { build: id, of },
    })
}

/// Lets the client scan what the graph looks at of its directories.
async fn scan(build: &Build, draft: &Draft) -> Result<BTreeMap<String, RootId>, Failure> {
    let scans = draft.locals.iter().map(async |(name, paths)| {
        let line = match name.as_str() {
            "context" => "[internal] load build context".to_owned(),
            name => format!("[context {name}] load from client"),
        };
        let vertex = build.reporter.begin(&line).await;
        let ask = Ask::Scan { context: name.clone(), paths: paths.patterns(), vertex };
        let result = match build.ask(ask).await {
            Answer::Scanned(root) => Ok((name.clone(), root)),
            Answer::Failed(failure) => Err(failure),
            other => Err(unexpected(&other)),
        };
        build.reporter.end(vertex, &result).await;
        result
    });
    Ok(try_join_all(scans).await?.into_iter().collect())
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::new(Class::Bug, format!("The client answered {answer:?}"))
}

/// What each step selects of local files: the part of its definition that they are.
async fn select(
    server: &Arc<Server>,
    build: &Build,
    graph: &Graph,
) -> Result<keys::Selections, Failure> {
    let selections = keys::local_inputs(graph).into_iter().map(async |(id, place)| {
        let step = graph.steps[id.index()].clone();
        let root = match &graph.steps[step.inputs[place].index()].op {
            proto::step::Op::Local(local) => local.root,
            other => unreachable!("a local input, not {other:?}"),
        };
        let count = |traffic| build.reporter.traffic(traffic);
        let unpack = |blob| effects::unpack(server, blob, count);
        let digest = server
            .library
            .algebra(unpack, move |nodes| effects::selection(nodes, &step.op, place as u32, &root));
        match digest.await {
            Ok(digest) => Ok(((id, place), digest)),
            Err(e) => Err(trouble(build, graph, id, e)),
        }
    });
    Ok(try_join_all(selections).await?.into_iter().collect())
}

fn trouble(build: &Build, graph: &Graph, step: StepId, error: AlgebraError) -> Failure {
    let mut failure = match error {
        AlgebraError::Tree(error) => effects::tree_failure(&error),
        other => other.failure(Class::User),
    };
    if let (None, Some(at)) = (&failure.at, graph.steps[step.index()].at.clone()) {
        failure.excerpt = dockerfile::error::excerpt(&build.request.dockerfile, &at);
        failure.at = Some(at);
    }
    failure
}
