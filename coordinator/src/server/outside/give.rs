//! What a build gives: its records and their layers.

use super::super::build::Build;
use super::super::workers::unexpected;
use super::super::{Server, effects};
use crate::core::{AliasHit, Plan};
use proto::error::{Class, Failure};
use proto::id::{DefKey, RootId};
use proto::limit;
use proto::step::{Op, StepId};
use proto::wire::outside::{CacheExport, CacheMode, CacheTo, CacheWritten, CachedRecord};
use proto::wire::worker::{Call, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The records that a build has come to, if it gives any.
pub async fn records(
    server: &Server,
    build: &Build,
) -> Result<BTreeMap<StepId, AliasHit>, Failure> {
    if build.request.cache_to.is_empty() {
        return Ok(BTreeMap::new());
    }
    let id = build.id.clone();
    Ok(server.look(move |core, _| core.records(&id)).await?.into_iter().collect())
}

/// Writes the caches that the build gives to.
pub async fn give(
    server: &Arc<Server>,
    build: &Arc<Build>,
    plan: &Plan,
    mut found: BTreeMap<StepId, AliasHit>,
) -> Result<Vec<CacheWritten>, Failure> {
    let targets = &build.request.cache_to;
    if targets.iter().any(|to| to.mode == CacheMode::Max) {
        look_up_the_rest(server, build, plan, &mut found).await;
    }
    let mut written = Vec::new();
    for to in targets {
        match give_one(server, build, plan, &found, to).await {
            Ok(one) => written.push(one),
            Err(failure) if to.may_fail => {
                let message = format!("The cache {} is not written: {}", to.name, failure.message);
                build.reporter.warn(message).await;
                written.push(CacheWritten::Failed);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(written)
}

/// Steps that nobody had to look at, because what needs them was found: their records are given,
/// too.
async fn look_up_the_rest(
    server: &Server,
    build: &Build,
    plan: &Plan,
    found: &mut BTreeMap<StepId, AliasHit>,
) {
    let steps = (0..plan.keys.len() as u32).map(StepId);
    let open = steps.filter(|step| plan.keys[step.index()].trusted && !found.contains_key(step));
    let keyed = open.filter_map(|step| Some((step, plan.keys[step.index()].alias?)));
    let (open, keys): (Vec<StepId>, Vec<DefKey>) = keyed.unzip();
    let hits = effects::find_aliases(server, &build.who.scope, Some(build), keys).await;
    found.extend(open.into_iter().zip(hits).filter_map(|(step, hit)| Some((step, hit?))));
}

async fn give_one(
    server: &Arc<Server>,
    build: &Arc<Build>,
    plan: &Plan,
    found: &BTreeMap<StepId, AliasHit>,
    to: &CacheTo,
) -> Result<CacheWritten, Failure> {
    let records = chosen(plan, found, to.mode);
    if records.len() > limit::CACHE_RECORDS_MAX {
        let (count, max) = (records.len(), limit::CACHE_RECORDS_MAX);
        let message =
            format!("The cache {} would have {count} records; it may have {max}", to.name);
        return Err(Failure::new(Class::User, message));
    }
    let name = match &to.reference {
        Some(_) => format!("exporting cache to registry {}", to.name),
        None => format!("exporting cache to {}", to.name),
    };
    let vertex = build.reporter.begin(&name).await;
    let layers: BTreeSet<RootId> = records.iter().flat_map(|r| r.layers.clone()).collect();
    let known = build.imported.places(&layers.into_iter().collect::<Vec<_>>());
    let call =
        Call::WriteCache(CacheExport { build: build.id.clone(), to: to.clone(), records, known });
    let answer = build.call(server, vertex, call).await;
    build.reporter.end(vertex, &answer).await;
    match answer? {
        Reply::CacheWritten(written) => Ok(written),
        other => Err(unexpected(&other)),
    }
}

/// The records that a cache gets, in the order of the steps. Base images come from their own
/// registries, as everywhere: their records are left out, and so is that others were made upon
/// them, since the digest in a definition says all.
fn chosen(plan: &Plan, found: &BTreeMap<StepId, AliasHit>, mode: CacheMode) -> Vec<CachedRecord> {
    let steps = &plan.graph.steps;
    let is_image = |op: &Op| matches!(op, Op::Image(_));
    let by_digest = |op: &Op| matches!(op, Op::Image(_) | Op::Http(_) | Op::Git(_));
    let sources = steps.iter().zip(&plan.keys).filter(|(step, _)| by_digest(&step.op));
    let sources: BTreeSet<DefKey> = sources.filter_map(|(_, keys)| keys.alias).collect();
    let wanted: BTreeSet<StepId> = match mode {
        CacheMode::Max => found.keys().copied().collect(),
        CacheMode::Min => {
            let chains = plan.graph.targets.iter().flat_map(|target| plan.chain(target.step));
            chains.map(|step| maker(plan, step)).collect()
        }
    };
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    for step in wanted {
        let (of, keys) = (&steps[step.index()], &plan.keys[step.index()]);
        let Some((hit, definition)) = found.get(&step).zip(keys.alias) else { continue };
        // Several steps of a build may be the same.
        if is_image(&of.op) || !seen.insert(definition) {
            continue;
        }
        let mut record = CachedRecord::new(definition, &hit.alias, &hit.record);
        record.inputs.retain(|(input, _)| !sources.contains(input));
        records.push(record);
    }
    records
}

/// The step that makes a layer of an image: what is merged was made by the second input.
fn maker(plan: &Plan, step: StepId) -> StepId {
    let of = &plan.graph.steps[step.index()];
    match (&of.op, of.inputs.get(1)) {
        (Op::Merge, Some(made)) => *made,
        _ => step,
    }
}
