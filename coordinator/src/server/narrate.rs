//! Tells a build's client, and its history, what becomes of its steps.

use super::build::Build;
use super::history::RowStep;
use super::logs::Piece;
use super::{Server, effects, now};
use crate::core::{Notice, Plan};
use proto::error::Failure;
use proto::id::{LeaseEpoch, RootId};
use proto::step::StepId;
use proto::wire::build::{
    ArchiveOutput, ImageOutput, LogPlace, Output, Packing, Stream, Vertex, VertexId,
};
use proto::wire::worker::Call;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Takes notices in order, until the build is over.
pub async fn narrate(
    server: Arc<Server>,
    build: Arc<Build>,
    plan: Arc<Plan>,
    mut notices: mpsc::UnboundedReceiver<(StepId, Notice)>,
) {
    let ahead = Ahead::new(&build, &plan);
    while let Some((step, notice)) = notices.recv().await {
        if notice == Notice::Over {
            return;
        }
        if plan.graph.steps[step.index()].name.is_empty() {
            match &notice {
                Notice::Done { layers } => ahead.prepare(&server, &build, step, layers),
                Notice::Moved(traffic) => build.reporter.traffic(*traffic),
                _ => {}
            }
            continue;
        }
        match notice {
            Notice::Started { lease } => started(&server, &build, &plan, step, lease).await,
            Notice::Cached { cost, log } => {
                let saved = cost.wall_ms;
                change(&build, &plan, step, |vertex| {
                    reopen(vertex);
                    let at = now();
                    vertex.started.get_or_insert(at);
                    vertex.completed = Some(at);
                    vertex.cached = true;
                    vertex.saved_ms = saved;
                })
                .await;
                build.note(step, |noted| {
                    noted.cached = true;
                    noted.ended = Some(now());
                    noted.log = log;
                });
            }
            Notice::Done { layers } => {
                ahead.prepare(&server, &build, step, &layers);
                change(&build, &plan, step, |vertex| {
                    reopen(vertex);
                    vertex.started.get_or_insert(now());
                    vertex.completed = Some(now());
                })
                .await;
                build.note(step, |noted| noted.ended = Some(now()));
            }
            Notice::Remark(text) => build.remark(VertexId(step.0), text).await,
            Notice::Moved(traffic) => build.reporter.traffic(traffic),
            Notice::Failed(failure) => failed(&server, &build, &plan, step, &failure).await,
            Notice::Over => return,
            Notice::Again(why) => {
                build.remark(VertexId(step.0), format!("{why}: it runs again\n")).await;
            }
        }
    }
}

async fn change(build: &Build, plan: &Plan, step: StepId, change: impl FnOnce(&mut Vertex)) {
    let of = &plan.graph.steps[step.index()];
    let inputs = of.inputs.iter().map(|i| VertexId(i.0)).collect();
    let with_inputs = |vertex: &mut Vertex| {
        vertex.inputs = inputs;
        change(vertex);
    };
    build.reporter.change(VertexId(step.0), &of.name, with_inputs).await;
}

/// A step that had ended begins again, because a result was lost.
fn reopen(vertex: &mut Vertex) {
    if vertex.completed.take().is_some() {
        (vertex.started, vertex.error) = (None, None);
        (vertex.cached, vertex.saved_ms) = (false, 0);
    }
}

/// The same in what is kept of the step.
fn renote(noted: &mut RowStep) {
    if noted.ended.take().is_some() {
        (noted.started, noted.error) = (now(), None);
    }
    noted.cached = false;
}

async fn started(
    server: &Server,
    build: &Build,
    plan: &Plan,
    step: StepId,
    lease: Option<LeaseEpoch>,
) {
    change(build, plan, step, |vertex| {
        reopen(vertex);
        vertex.started.get_or_insert(now());
    })
    .await;
    build.note(step, renote);
    if let Some(lease) = lease {
        build.leased(step, lease);
        let vertex = VertexId(step.0);
        let (offset, data) = server.logs.listen(lease, &build.id, vertex);
        if !data.is_empty() {
            let piece = Piece { stream: Stream::Stdout, at: now(), data };
            build.log(vertex, LogPlace { run: lease, offset }, piece).await;
        }
    }
}

async fn failed(server: &Server, build: &Build, plan: &Plan, step: StepId, failure: &Failure) {
    change(build, plan, step, |vertex| {
        vertex.started.get_or_insert(now());
        vertex.completed = Some(now());
        vertex.error = Some(failure.message.clone());
    })
    .await;
    let log = match build.lease(step).and_then(|lease| server.logs.copy(lease)) {
        Some(text) => effects::keep_log(server, text).await,
        None => None,
    };
    build.note(step, |noted| {
        noted.ended = Some(now());
        noted.error = Some(failure.message.clone());
        noted.log = log;
    });
}

/// Layers are made as soon as their steps are done, so that the outputs find them.
struct Ahead {
    /// The steps whose layers are in an image that comes out.
    steps: BTreeSet<StepId>,
    packings: Vec<Option<Packing>>,
}

impl Ahead {
    fn new(build: &Build, plan: &Plan) -> Self {
        let packing = |output: &Output| match output {
            // Layers whose times change are other layers.
            Output::Image(ImageOutput { times, .. })
            | Output::Archive(ArchiveOutput { times, .. })
                if times.rewrite =>
            {
                None
            }
            Output::Image(image) if image.push => Some(Some(image.packing)),
            Output::Image(_) => Some(None),
            Output::Archive(archive) => Some(Some(archive.packing)),
            Output::Files { .. } | Output::CacheOnly => None,
        };
        let packings: Vec<_> = build.request.outputs.iter().filter_map(packing).collect();
        let chains = plan.graph.targets.iter().flat_map(|t| plan.chain(t.step));
        let steps = chains.filter(|s| plan.adds_layer(*s)).collect();
        Self { steps, packings }
    }

    fn prepare(&self, server: &Arc<Server>, build: &Arc<Build>, step: StepId, layers: &[RootId]) {
        if !self.steps.contains(&step) {
            return;
        }
        for (layer, packing) in
            layers.iter().flat_map(|l| self.packings.iter().map(move |p| (l, p)))
        {
            let (server, build) = (server.clone(), build.clone());
            let call = Call::PrepareLayer(*layer, *packing);
            tokio::spawn(async move {
                let (made, traffic) = server.workers.call(call, None).await;
                build.reporter.traffic(traffic);
                if let Err(e) = made {
                    // The output makes the layer if this comes to nothing, and says why not.
                    tracing::debug!("making a layer ahead failed: {e}");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::Millis;

    #[test]
    fn what_runs_again_has_neither_ended_nor_failed() {
        let mut noted = RowStep {
            step: StepId(1),
            name: "RUN make".to_owned(),
            started: Millis(1),
            ended: Some(Millis(2)),
            cached: true,
            error: Some("It broke".to_owned()),
            log: None,
        };
        renote(&mut noted);
        assert!(noted.started > Millis(1) && !noted.cached);
        assert_eq!((noted.ended, noted.error), (None, None));
    }
}
