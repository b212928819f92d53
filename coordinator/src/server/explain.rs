//! Why steps of builds ran: keeps what they were made from, and compares ([`crate::explain`]).

use super::build::Build;
use super::history::BuildRow;
use super::library::{AlgebraError, no_archives};
use super::locked;
use super::{Server, blocking};
use crate::core::Plan;
use crate::explain::{
    Around, At, Difference, Takes, Trace, Verdict, compare, counterpart, rank, trace,
};
use cache::net::NetError;
use cache::tree::change::{self, Change};
use proto::error::{Class, Failure};
use proto::id::{BuildId, DefKey, RootId, Scope};
use proto::limit;
use proto::step::{CopySource, StepId, Unpack};
use proto::wire::admin::{StepReason, StepVerdict};
use proto::wire::blob::Table;
use quick_cache::sync::Cache;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

/// Definitions whose inputs' roots are remembered. All are forgotten at once when there are more:
/// without them a file of an earlier stage cannot be named, and nothing else.
const ROOTS_MAX: usize = 50_000;

/// Scopes whose rows are remembered; those of others are listed again.
const SCOPES_MAX: usize = 1000;

/// The rows of one scope, by key.
type Rows = Arc<Mutex<BTreeSet<Vec<u8>>>>;

/// What is remembered of builds until it is written down, and what is written down.
pub struct Traces {
    roots: Mutex<HashMap<DefKey, Vec<RootId>>>,
    /// The rows of scopes that were written to lately.
    rows: Cache<[u8; 32], Rows>,
}

impl Default for Traces {
    fn default() -> Self {
        Self { roots: Mutex::default(), rows: Cache::new(SCOPES_MAX) }
    }
}

impl Traces {
    /// A step is looked at, with these inputs.
    pub fn note(&self, definition: DefKey, inputs: Vec<RootId>) {
        let mut roots = locked(&self.roots);
        if roots.len() >= ROOTS_MAX {
            roots.clear();
        }
        roots.insert(definition, inputs);
    }
}

/// Takes note of a new row; answers the rows that are too many now.
fn add(rows: &mut BTreeSet<Vec<u8>>, row: Vec<u8>) -> Vec<Vec<u8>> {
    rows.insert(row);
    let mut old = Vec::new();
    while rows.len() > limit::TRACES_MAX {
        old.extend(rows.pop_first());
    }
    old
}

/// What stands before all rows of a scope.
fn prefix(scope: &Scope) -> [u8; 32] {
    *blake3::hash(scope.as_str().as_bytes()).as_bytes()
}

/// Writes down what a build that has ended was made from. Without it builds go on as well.
pub async fn keep(server: &Arc<Server>, build: &Arc<Build>, row: &BuildRow) {
    let Some(trace) = of_build(server, build, row).await else { return };
    let bytes = match blocking(move || trace.to_bytes(limit::TRACE_BYTES_MAX)).await {
        Ok(bytes) => bytes,
        Err(e) => return tracing::warn!("{e}"),
    };
    if let Err(e) = write(server, row, &bytes).await {
        tracing::warn!("what a build was made from cannot be kept: {e}");
    }
}

async fn write(server: &Server, row: &BuildRow, bytes: &[u8]) -> Result<(), NetError> {
    let (blobs, scope) = (&server.library.blobs, prefix(&row.scope));
    let listed = async {
        let rows = blobs.rows(Table::Trace, &scope).await?;
        let keys: BTreeSet<Vec<u8>> = rows.into_iter().map(|(key, _)| key).collect();
        Ok::<_, NetError>(Arc::new(Mutex::new(keys)))
    };
    let rows = server.traces.rows.get_or_insert_async(&scope, listed).await?;
    let time = row.started.0.to_be_bytes();
    let key = [&scope[..], &time, row.id.as_str().as_bytes()].concat();
    blobs.put_row(Table::Trace, &key, bytes).await?;
    let old = add(&mut locked(&rows), key);
    for old in old {
        blobs.delete_row(Table::Trace, &old).await?;
    }
    Ok(())
}

/// What a build was made from; none before it has steps.
async fn of_build(server: &Arc<Server>, build: &Arc<Build>, row: &BuildRow) -> Option<Trace> {
    let plan = build.plan.get()?.clone();
    let (server, build, row) = (server.clone(), build.clone(), row.clone());
    Some(blocking(move || traced(&server, &build, &plan, &row)).await)
}

fn traced(server: &Server, build: &Build, plan: &Plan, row: &BuildRow) -> Trace {
    let text = &build.request.dockerfile;
    let dockerfile = crate::dockerfile::parse(text, &build.request.dockerfile_name).ok();
    let steps: BTreeMap<StepId, Verdict> = row
        .steps
        .iter()
        .map(|step| {
            let verdict = match (step.cached, &step.error, step.ended) {
                (true, ..) => Verdict::Hit,
                (false, None, Some(_)) => Verdict::Made,
                (false, _, _) => Verdict::Broken,
            };
            (step.step, verdict)
        })
        .collect();
    let around = Around {
        dockerfile: dockerfile.as_ref(),
        selections: build.selections.get(),
        verdict: &|step| steps.get(&step).copied().unwrap_or(Verdict::Untouched),
        roots: &|definition| locked(&server.traces.roots).get(definition).cloned(),
    };
    trace(row.id.clone(), row.started, plan, &around)
}

/// For each step of a build whether it ran, and why.
pub async fn explain(server: &Arc<Server>, row: &BuildRow) -> Result<Vec<StepReason>, Failure> {
    let mut traces = kept(server, &row.scope).await?;
    if row.scope != row.scope.base() {
        traces.extend(kept(server, &row.scope.base()).await?);
    }
    let own = traces.iter().position(|trace| trace.build == row.id);
    let own = match (own, server.builds.get(&row.id)) {
        (Some(place), _) => traces.swap_remove(place),
        (None, Some(build)) => match of_build(server, &build, row).await {
            Some(trace) => trace,
            None => return Ok(Vec::new()),
        },
        (None, None) => return Err(unknown(&row.id)),
    };
    let compared = blocking(move || Compared::new(own, traces)).await;
    let compared = Arc::new(compared);
    let mut reasons = Vec::new();
    let steps = compared.own.steps.iter().enumerate();
    for (step, sketch) in steps.filter(|(_, sketch)| !sketch.name.is_empty()) {
        let verdict = match sketch.verdict {
            Verdict::Hit => StepVerdict::Hit,
            Verdict::Untouched => match row.failure.is_some() || row.ended.is_none() {
                true => StepVerdict::NotReached,
                false => StepVerdict::NotNeeded,
            },
            Verdict::Made | Verdict::Broken => {
                let difference = why(server, &compared, step).await;
                let (reason, sentence) = (difference.reason().to_owned(), difference.to_string());
                StepVerdict::Miss { reason, sentence }
            }
        };
        reasons.push(StepReason { name: sketch.name.clone(), verdict });
    }
    Ok(reasons)
}

fn unknown(build: &BuildId) -> Failure {
    let message = format!("What the steps of the build `{build}` were made from is not kept");
    let hint = format!(
        "It is kept of the last {} builds of a scope, as far as they came to have steps.",
        limit::TRACES_MAX
    );
    Failure::new(Class::User, message).hint(hint)
}

async fn kept(server: &Server, scope: &Scope) -> Result<Vec<Trace>, Failure> {
    let rows = server.library.blobs.rows(Table::Trace, &prefix(scope)).await?;
    let read = move || {
        let read = rows.iter().map(|(_, bytes)| Trace::from_bytes(bytes));
        read.filter_map(|trace| trace.inspect_err(|e| tracing::debug!("{e}")).ok()).collect()
    };
    Ok(blocking(read).await)
}

/// A build, and those that it is compared with.
struct Compared {
    own: Trace,
    /// The nearest first.
    earlier: Vec<Trace>,
}

impl Compared {
    fn new(own: Trace, mut others: Vec<Trace>) -> Self {
        others.retain(|trace| trace.started < own.started);
        let earlier = rank(others, &own);
        Self { own, earlier }
    }

    /// What differs in a step, where its inputs up to the place `past` do not.
    fn difference(&self, step: usize, past: Option<u32>) -> Difference {
        let step = At { trace: &self.own, step };
        compare(counterpart(&self.earlier, step), step, past)
    }
}

/// Why a step ran.
async fn why(server: &Server, compared: &Arc<Compared>, step: usize) -> Difference {
    let takes = &compared.own.steps[step].takes;
    let mut past = None;
    loop {
        let all = compared.clone();
        let trees = match blocking(move || all.difference(step, past)).await {
            Difference::Files(trees) => trees,
            other => return other,
        };
        let Some(roots) = trees.roots else { return Difference::Files(trees) };
        match first_change(server, takes, trees.place, roots).await {
            Ok(Some(change)) => return Difference::File { of: trees.of, change },
            // It is not for these files that the step ran.
            Ok(None) => past = Some(trees.place),
            Err(AlgebraError::Lost(_)) => return Difference::Lost { of: trees.of },
            Err(AlgebraError::Tree(_)) => return Difference::Files(trees),
            Err(AlgebraError::Failed(failure)) => {
                tracing::warn!("files of builds cannot be compared: {failure}");
                return Difference::Files(trees);
            }
        }
    }
}

/// The first difference in what a step takes from an input.
async fn first_change(
    server: &Server,
    takes: &Takes,
    place: u32,
    (before, now): (RootId, RootId),
) -> Result<Option<Change>, AlgebraError> {
    let whole = |path: &str| CopySource {
        input: place,
        path: path.to_owned(),
        pattern: false,
        unpack: Unpack::Never,
        checked: true,
    };
    let (sources, parents, exclude) = match takes {
        Takes::Whole => (vec![whole("/")], false, Vec::new()),
        Takes::Sources(copy) => (copy.sources.clone(), copy.parents, copy.exclude.clone()),
        Takes::Binds(binds) => {
            let shown = binds.iter().filter(|(input, _)| *input == place);
            (shown.map(|(_, path)| whole(path)).collect(), false, Vec::new())
        }
    };
    let look = move |nodes: &dyn cache::tree::Nodes| {
        for source in sources.iter().filter(|source| source.input == place) {
            let change = change::first(nodes, &before, &now, source, parents, &exclude)?;
            if change.is_some() {
                return Ok(change);
            }
        }
        Ok(None)
    };
    server.library.algebra(no_archives, look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_rows_are_too_many() {
        let mut rows = BTreeSet::new();
        let row = |n: usize| n.to_be_bytes().to_vec();
        for n in 0..limit::TRACES_MAX {
            assert!(add(&mut rows, row(n)).is_empty());
        }
        assert_eq!(add(&mut rows, row(limit::TRACES_MAX)), [row(0)]);
        assert_eq!(rows.len(), limit::TRACES_MAX);
    }
}
