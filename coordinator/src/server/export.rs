//! What is made of a build's result.

use super::build::Build;
use super::workers::unexpected;
use super::{Server, gallery};
use crate::core::{Plan, TargetState};
use proto::error::{Class, Failure};
use proto::step::{Op, Step, Target};
use proto::wire::build::{ArchiveFormat, FilesResult, FilesRoot, Output, OutputResult, Times};
use proto::wire::worker::{Call, Export, ExportImage, ExportLayer, ExportRow, Reply};
use std::sync::Arc;

/// Makes all outputs, one after the other: they have most of their work in common.
pub async fn make(
    server: &Arc<Server>,
    build: &Arc<Build>,
    plan: &Plan,
    states: Vec<TargetState>,
) -> Result<Vec<OutputResult>, Failure> {
    let mut results = Vec::new();
    for output in &build.request.outputs {
        let made = match output {
            Output::CacheOnly => OutputResult::CacheOnly,
            Output::Files { epoch } => {
                let targets = plan.graph.targets.iter().zip(&states);
                let files = |(target, state)| files_of(target, state, *epoch);
                let roots = targets.map(files).collect::<Option<_>>();
                let lost = || Failure::new(Class::Bug, "A target has no merged root");
                OutputResult::Files(FilesResult { roots: roots.ok_or_else(lost)? })
            }
            Output::Image(_) | Output::Archive(_) => {
                image(server, build, plan, &states, output).await?
            }
        };
        results.push(made);
    }
    Ok(results)
}

/// The files of one target, with its own time unless the output says one.
fn files_of(target: &Target, state: &TargetState, epoch: Option<i64>) -> Option<FilesRoot> {
    let time = epoch.or(target.epoch);
    Some(FilesRoot { platform: target.platform.clone(), root: state.root?, time })
}

async fn image(
    server: &Arc<Server>,
    build: &Arc<Build>,
    plan: &Plan,
    states: &[TargetState],
    output: &Output,
) -> Result<OutputResult, Failure> {
    let name = match output {
        Output::Archive(archive) if archive.format == ArchiveFormat::Docker => {
            "exporting to docker image format"
        }
        Output::Archive(_) => "exporting to oci image format",
        _ => "exporting to image",
    };
    let vertex = build.reporter.begin(name).await;
    let times = match output {
        Output::Image(image) => image.times,
        Output::Archive(archive) => archive.times,
        Output::Files { .. } | Output::CacheOnly => Times::default(),
    };
    let has_epoch = |target: &Target| times.epoch.or(target.epoch).is_some();
    if times.rewrite && !plan.graph.targets.iter().all(has_epoch) {
        let message = "rewrite-timestamp: there is no SOURCE_DATE_EPOCH, so files keep their times";
        build.reporter.warn(message.to_owned()).await;
    }
    let targets = plan.graph.targets.iter().zip(states);
    let call = Call::Export(Export {
        build: build.id.clone(),
        images: targets.map(|(target, state)| export_image(plan, target, state, times)).collect(),
        output: output.clone(),
        annotations: build.request.annotations.clone(),
    });
    let result = build.call(server, vertex, call).await;
    build.reporter.end(vertex, &result).await;
    match result? {
        Reply::Exported(made, kept) => {
            if let (OutputResult::Image(image), Some(kept)) = (&*made, kept) {
                let kept = gallery::read_image(&kept)?;
                gallery::keep(server, &build.who.scope, &kept, &image.names).await?;
            }
            Ok(*made)
        }
        other => Err(unexpected(&other)),
    }
}

fn export_image(plan: &Plan, target: &Target, state: &TargetState, times: Times) -> ExportImage {
    let history = target.history.iter().map(|row| {
        let own = state.layers.iter().enumerate().filter(|(_, (step, ..))| row.step == Some(*step));
        ExportRow {
            created_by: row.created_by.clone(),
            comment: row.comment.clone(),
            layers: own.map(|(at, _)| at as u32).collect(),
        }
    });
    let layers = state.layers.iter().map(|(step, diff, made)| {
        let came_of = came_of(&plan.graph.steps[step.index()]);
        ExportLayer { diff: *diff, made: *made, came_of }
    });
    ExportImage {
        platform: target.platform.clone(),
        config: target.config.clone(),
        base: target.base.clone(),
        history: history.collect(),
        layers: layers.collect(),
        epoch: times.epoch.or(target.epoch),
        rewrite: times.rewrite,
    }
}

/// What a step's layer came of, in BuildKit's words.
fn came_of(step: &Step) -> String {
    match &step.op {
        Op::Run(run) => format!("mount / from exec {}", run.args.join(" ")),
        _ if step.name.is_empty() => "created by buildkit".to_owned(),
        _ => step.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::{RootId, TreeId};
    use proto::platform::Platform;
    use proto::step::StepId;

    #[test]
    fn files_have_the_time_of_their_platform() {
        let root = RootId(TreeId::from_bytes([1; 32]));
        let time_of = |platform: &str, epoch, of_output| {
            let target = Target {
                platform: Platform::parse(platform).expect("a platform"),
                step: StepId(0),
                config: String::new(),
                base: None,
                history: Vec::new(),
                epoch,
            };
            let state = TargetState { layers: Vec::new(), root: Some(root) };
            let files = files_of(&target, &state, of_output).expect("a root");
            assert_eq!((files.platform.to_string().as_str(), files.root), (platform, root));
            files.time
        };
        assert_eq!(time_of("linux/amd64", Some(5), None), Some(5));
        assert_eq!(time_of("linux/arm64", Some(-6), None), Some(-6));
        assert_eq!(time_of("linux/arm64", None, None), None);
        assert_eq!(time_of("linux/arm64", Some(6), Some(7)), Some(7), "what the output says");
    }
}
