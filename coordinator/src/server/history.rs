//! What is kept of builds: for `slipway builds` and `slipway logs`.

use super::Server;
use cache::net::NetError;
use proto::error::Failure;
use proto::id::{BlobId, BuildId, Millis, OciDigest, Scope};
use proto::step::StepId;
use proto::wire::build::{BuildRequest, BuildResult, OutputResult, Summary};
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};

/// The version of rows of the history.
const ROW_VERSION: u8 = 3;

/// What is kept of a build.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BuildRow {
    /// Its name.
    pub id: BuildId,
    /// Whose results it takes and makes.
    pub scope: Scope,
    /// When it began.
    pub started: Millis,
    /// When it ended, if it has.
    pub ended: Option<Millis>,
    /// The Dockerfile.
    pub dockerfile: String,
    /// The stage asked for.
    pub target: Option<String>,
    /// What the person calls it.
    pub description: String,
    /// The images that came out.
    pub images: Vec<(OciDigest, Vec<String>)>,
    /// Why it failed, if it has.
    pub failure: Option<Failure>,
    /// What it did.
    pub summary: Summary,
    /// Its steps, in the order in which they began.
    pub steps: Vec<RowStep>,
}

/// What is kept of a step.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RowStep {
    /// Its place in the graph.
    pub step: StepId,
    /// Its name.
    pub name: String,
    /// When it began.
    pub started: Millis,
    /// When it ended, if it has.
    pub ended: Option<Millis>,
    /// Whether an earlier result was taken.
    pub cached: bool,
    /// Why it failed, if it has.
    pub error: Option<String>,
    /// What it wrote.
    pub log: Option<BlobId>,
}

impl BuildRow {
    /// A build that begins.
    pub fn new(id: BuildId, scope: Scope, started: Millis, request: &BuildRequest) -> Self {
        Self {
            id,
            scope,
            started,
            ended: None,
            dockerfile: request.dockerfile_name.clone(),
            target: request.target.clone(),
            description: request.description.clone(),
            images: Vec::new(),
            failure: None,
            summary: Summary::default(),
            steps: Vec::new(),
        }
    }

    /// The build has ended so.
    pub fn end(&mut self, ended: Millis, result: &Result<BuildResult, Failure>) {
        self.ended = Some(ended);
        match result {
            Ok(result) => {
                self.summary = result.summary;
                self.images = result.outputs.iter().filter_map(image).collect();
            }
            Err(failure) => self.failure = Some(failure.clone()),
        }
    }
}

/// Writes down what is kept of a build.
pub async fn keep(server: &Server, row: &BuildRow) {
    let mut value = vec![ROW_VERSION];
    match rkyv::to_bytes::<RkyvError>(row) {
        Ok(bytes) => value.extend_from_slice(&bytes),
        Err(e) => return tracing::warn!("a build's history cannot be kept: {e}"),
    }
    if let Err(e) = server.library.blobs.put_build(row_key(row), value).await {
        tracing::warn!("a build's history cannot be kept: {e}");
    }
}

fn image(output: &OutputResult) -> Option<(OciDigest, Vec<String>)> {
    match output {
        OutputResult::Image(image) | OutputResult::Archive(image, _) => {
            Some((image.config, image.names.clone()))
        }
        OutputResult::Files(_) | OutputResult::CacheOnly => None,
    }
}

/// A key that sorts by time.
fn row_key(row: &BuildRow) -> Vec<u8> {
    [&row.started.0.to_be_bytes()[..], row.id.as_str().as_bytes()].concat()
}

/// The builds that are under way, and the last ones that have ended, the newest first.
pub async fn history(server: &Server, count: u32) -> Result<Vec<BuildRow>, NetError> {
    let mut rows: Vec<BuildRow> =
        server.builds.running().iter().map(|build| build.row().clone()).collect();
    for (_, value) in server.library.blobs.builds(count).await? {
        let [ROW_VERSION, bytes @ ..] = value.as_slice() else { continue };
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes);
        rows.extend(rkyv::from_bytes::<BuildRow, RkyvError>(&aligned).ok());
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.started));
    rows.truncate(count as usize);
    Ok(rows)
}
