//! What a build takes: records at its beginning, layers when they are needed.

use super::super::build::Build;
use super::super::workers::unexpected;
use super::super::{Server, now};
use super::State;
use futures::future::join_all;
use proto::error::Failure;
use proto::id::RootId;
use proto::wire::blob::PutRecord;
use proto::wire::outside::{CacheContent, CacheFrom};
use proto::wire::worker::{Call, Reply};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How the client sees work on a cache end, whatever came of it: a build does without, and is warned.
const UNHARMED: &Result<(), Failure> = &Ok(());

/// Reads what the caches have that the build takes from. One that cannot be read is none.
pub async fn read(server: &Server, build: &Build) {
    let read = build.request.cache_from.iter().map(|from| read_one(server, build, from));
    for (content, from) in join_all(read).await.into_iter().zip(&build.request.cache_from) {
        if let Some(content) = content {
            build.imported.shelf().add(content, from);
        }
    }
}

async fn read_one(server: &Server, build: &Build, from: &CacheFrom) -> Option<CacheContent> {
    let name = format!("importing cache manifest from {}", from.name);
    let vertex = build.reporter.begin(&name).await;
    let call = Call::ReadCache { build: build.id.clone(), from: from.place.clone() };
    let answer = build.call(server, vertex, call).await;
    build.reporter.end(vertex, UNHARMED).await;
    let failure = match answer {
        Ok(Reply::Cache(content)) => return Some(bounded(content)),
        Ok(other) => unexpected(&other),
        Err(failure) => failure,
    };
    let hint = failure.hint.as_ref().map_or(String::new(), |hint| format!(" {hint}"));
    let message = format!("The cache {} is not used: {}.{hint}", from.name, failure.message);
    build.reporter.warn(message).await;
    None
}

/// Versions are moments, and none lies in the future: what is made from now on is newer.
fn bounded(mut content: CacheContent) -> CacheContent {
    let latest = now().0.saturating_mul(1000);
    for record in &mut content.records {
        record.version = record.version.min(latest);
        record.inputs.iter_mut().for_each(|(_, version)| *version = (*version).min(latest));
    }
    content
}

/// Layers that cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which.
    pub layers: Vec<RootId>,
    /// What happened to the first of them, in words.
    pub what: String,
}

/// Sees to it that the farm has these layers, as far as they lie in caches. All of them are tried:
/// the error says which ones cannot be had.
pub async fn bring(server: &Server, build: &Build, layers: &[RootId]) -> Result<(), Gone> {
    // A layer may be in an image several times.
    let layers: BTreeSet<RootId> = layers.iter().copied().collect();
    let brought = layers.into_iter().map(async |layer| {
        let brought = bring_one(server, build, &layer).await;
        brought.map_err(|what| (layer, what))
    });
    all(join_all(brought).await)
}

fn all(brought: Vec<Result<(), (RootId, String)>>) -> Result<(), Gone> {
    let (layers, what): (Vec<RootId>, Vec<String>) =
        brought.into_iter().filter_map(Result::err).unzip();
    what.into_iter().next().map_or(Ok(()), |what| Err(Gone { layers, what }))
}

/// The error says what happened, in words.
async fn bring_one(server: &Server, build: &Build, layer: &RootId) -> Result<(), String> {
    let imported = &build.imported;
    // Who waits for its turn keeps no layer from others.
    let _permit = imported.fetching.acquire().await.expect("it is never closed");
    // Another build that needs it finds it here then. Strangers do not wait for each other.
    let _one = server.fetching.enter((build.who.scope.clone(), *layer)).await;
    let Some(kept) = imported.shelf().layers.get(layer).cloned() else { return Ok(()) };
    let lost = || format!("A layer of the cache {} cannot be had", kept.from.name);
    if kept.state.is_here() {
        return Ok(());
    }
    let is_here = match server.library.blobs.missing(Vec::new(), vec![layer.0]).await {
        Ok((_, trees)) => trees.is_empty(),
        Err(e) => {
            tracing::debug!("whether a layer is here is not known: {e}");
            false
        }
    };
    // What was lost may have been made again meanwhile, and be the same.
    if !is_here && kept.state == State::Lost {
        return Err(lost());
    }
    if !is_here && let Err(failure) = fetch(server, build, &kept).await {
        set(build, layer, State::Lost);
        let message = format!("{}, and its step runs again: {}", lost(), failure.message);
        build.reporter.warn(message).await;
        return Err(lost());
    }
    let was_lost = kept.state == State::Lost;
    set(build, layer, if was_lost { State::Remade } else { State::Here });
    if !server.keeps_facts {
        keep(server, build, layer).await;
    }
    Ok(())
}

fn set(build: &Build, layer: &RootId, state: State) {
    if let Some(kept) = build.imported.shelf().layers.get_mut(layer) {
        kept.state = state;
    }
}

async fn fetch(server: &Server, build: &Build, kept: &super::Kept) -> Result<(), Failure> {
    let digest = kept.layer.files.digest.short();
    let name = format!("importing cache layer {digest} from {}", kept.from.name);
    let vertex = build.reporter.begin(&name).await;
    let call = Call::FetchLayer {
        build: build.id.clone(),
        from: kept.from.place.clone(),
        layer: kept.layer.clone(),
    };
    let answer = build.call(server, vertex, call).await;
    build.reporter.end(vertex, UNHARMED).await;
    answer.map(drop)
}

/// On the farm of one machine what was fetched is kept as if it had been made there: whoever names
/// the cache owns the farm.
async fn keep(server: &Server, build: &Build, layer: &RootId) {
    let records = build.imported.shelf().whole(layer);
    for record in records {
        let put = PutRecord {
            scope: build.who.scope.clone(),
            key: record.content,
            record: record.record(),
            alias: Some((record.definition, record.alias())),
        };
        if let Err(e) = server.library.blobs.put_record(put).await {
            tracing::debug!("an imported record is not kept: {e}");
        }
    }
}

/// The build whose records count for a step, if it has any.
pub fn of_plan(server: &Server, plan: &crate::core::Plan) -> Option<Arc<Build>> {
    server.builds.get(plan.imports.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::TreeId;

    #[test]
    fn all_layers_that_cannot_be_had_are_told() {
        let layer = |n| RootId(TreeId::from_bytes([n; 32]));
        let gone = |n, what: &str| Err((layer(n), what.to_owned()));
        assert_eq!(all(vec![Ok(()), Ok(())]), Ok(()));
        let told = all(vec![Ok(()), gone(1, "one"), Ok(()), gone(2, "two")]);
        let layers = vec![layer(1), layer(2)];
        assert_eq!(told, Err(Gone { layers, what: "one".to_owned() }));
    }
}
