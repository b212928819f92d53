//! One build, between the client and the coordinator.
//!
//! The client sends [`ToCoordinator::Submit`]; the coordinator answers with events, asks for what
//! only the client has (files, secrets, logins, ssh agents), and ends with [`ToClient::Finished`].
//! Secrets, logins and what agents say are never part of the request and never stored. A client that lost its stream comes back
//! with [`ToCoordinator::Attach`].

use crate::error::{Failure, SourceRange};
use crate::id::{BlobId, BuildId, LeaseEpoch, Millis, OciDigest, RootId};
use crate::platform::Platform;
use crate::secret::SecretBytes;
use crate::step::NetworkMode;
use crate::wire::outside::{CacheFrom, CacheTo, CacheWritten};
use rkyv::{Archive, Deserialize, Serialize};

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// Build this.
    Submit(Box<BuildRequest>),
    /// Here I am again: tell me what I have missed of this build.
    Attach {
        /// The build.
        build: BuildId,
        /// The life of the build and the number of the last event that were heard; none for
        /// whoever has heard nothing.
        heard: Option<(u64, u64)>,
    },
    /// The answer to [`ToClient::Ask`] of that number.
    Answer(u64, Answer),
    /// Stop the build.
    Cancel,
}

/// What a coordinator says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToClient {
    /// The build has a name, and lives: another life begins when the coordinator is started again.
    Accepted(BuildId, u64),
    /// Something happened. Events of one life are numbered from 1; number 0 says how something
    /// stands for whoever has missed how it came about. Pieces of a running step's log say where
    /// they stand in it: after a new beginning they may come once more.
    Event(u64, Option<LogPlace>, Event),
    /// Something that only the client has is needed.
    Ask(u64, Ask),
    /// The build has ended.
    Finished(Box<Result<BuildResult, Failure>>),
}

/// Where a piece of a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LogPlace {
    /// The lease under which the step runs: each has a log of its own.
    pub run: LeaseEpoch,
    /// Bytes of the log before it.
    pub offset: u64,
}

/// What a build is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The Dockerfile's text.
    pub dockerfile: Vec<u8>,
    /// The Dockerfile's name, as messages show it.
    pub dockerfile_name: String,
    /// The stage to build; none for the last.
    pub target: Option<String>,
    /// The platforms to build for; none for the farm's own.
    pub platforms: Vec<Platform>,
    /// `--build-arg`, in order.
    pub build_args: Vec<(String, String)>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// Which stages take no earlier result.
    pub no_cache: NoCache,
    /// Whether images are resolved at their registries even when the local store has them.
    pub pull: bool,
    /// The network of RUNs that name none.
    pub network: NetworkMode,
    /// What `--allow` entitles to.
    pub allow: Vec<Entitlement>,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// `--shm-size` in bytes; 0 for the default.
    pub shm_bytes: u64,
    /// `--cgroup-parent`; empty for the default.
    pub cgroup_parent: String,
    /// `--memory` and such.
    pub resources: Resources,
    /// `--build-context`: name and what it is.
    pub contexts: Vec<(String, NamedContext)>,
    /// Names and patterns of the main context's ignore file.
    pub ignore: Vec<String>,
    /// Whether there is a main context at all (`build - < Dockerfile` has none).
    pub has_context: bool,
    /// When contexts were made, in seconds since 1970, by their names (`context` for the main one).
    /// Directories have no such time.
    pub context_times: Vec<(String, i64)>,
    /// What to make of the result.
    pub outputs: Vec<Output>,
    /// `--annotation`: key and value, put on manifests.
    pub annotations: Vec<(String, String)>,
    /// Caches outside of the farm whose records count, beside the farm's own.
    pub cache_from: Vec<CacheFrom>,
    /// Caches outside of the farm that get the build's records.
    pub cache_to: Vec<CacheTo>,
    /// The person's own words for the build, for `slipway builds`.
    pub description: String,
    /// A scope below the client's own, without the project; none for the client's own.
    pub scope: Option<String>,
    /// A priority of at most the client's own; none for that one.
    pub priority: Option<u8>,
}

/// `--no-cache` and `--no-cache-filter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub enum NoCache {
    /// Earlier results are taken.
    #[default]
    No,
    /// By no stage.
    All,
    /// By all but these stages.
    Stages(Vec<String>),
}

/// Limits that `docker build` has flags for. 0 and empty: none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes of memory of each RUN.
    pub memory_bytes: u64,
    /// Bytes of memory and swap of each RUN.
    pub memory_swap_bytes: i64,
    /// Relative weight of each RUN's processor time.
    pub cpu_shares: u64,
    /// The period of the processor quota in microseconds.
    pub cpu_period: u64,
    /// The processor quota in microseconds.
    pub cpu_quota: i64,
    /// Processors that RUNs may use: `0-2,7`.
    pub cpuset_cpus: String,
    /// Memory nodes that RUNs may use.
    pub cpuset_mems: String,
}

/// What a RUN can be entitled to.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Entitlement {
    /// `network.host`.
    NetworkHost,
    /// `security.insecure`.
    SecurityInsecure,
    /// `device`, all or one by name.
    Device(Option<String>),
}

/// What a `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum NamedContext {
    /// A directory of the client's.
    Local,
    /// An image at a registry.
    Image(String),
    /// An image in an OCI layout of the client's.
    Layout,
}

/// What to make of the result.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Output {
    /// An image in the local store, and at a registry too.
    Image(ImageOutput),
    /// An archive that the client writes.
    Archive(ArchiveOutput),
    /// The files of the result, which the client writes (as a directory or a tar).
    Files {
        /// The time of all files, in seconds since 1970, in place of the build's
        /// `SOURCE_DATE_EPOCH`.
        epoch: Option<i64>,
    },
    /// Nothing but what the cache keeps.
    CacheOnly,
}

/// An image as an output.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImageOutput {
    /// Its names, in full (`docker.io/library/app:latest`).
    pub names: Vec<String>,
    /// Whether the local store keeps it.
    pub store: bool,
    /// Whether it is pushed to the registries that its names say.
    pub push: bool,
    /// Whether it is pushed by digest, without a tag.
    pub by_digest: bool,
    /// How its manifests and layers are made.
    pub packing: Packing,
    /// Which times are in it.
    pub times: Times,
}

/// An archive as an output.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ArchiveOutput {
    /// Its form.
    pub format: ArchiveFormat,
    /// The names in it, in full.
    pub names: Vec<String>,
    /// How its manifests and layers are made.
    pub packing: Packing,
    /// Which times are in it.
    pub times: Times,
}

/// Which times are in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Times {
    /// The latest time in its config, in seconds since 1970, in place of the build's
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
    /// Whether that time is the latest one of the files in its layers, too.
    pub rewrite: bool,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ArchiveFormat {
    /// OCI image layout.
    Oci,
    /// What `docker save` writes.
    Docker,
}

/// How manifests and layers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Packing {
    /// The compression of layers that are made.
    pub compression: LayerCompression,
    /// The level; 0 for the default.
    pub level: u8,
    /// Whether layers of base images are packed anew, too.
    pub force: bool,
    /// OCI's media types, or Docker's.
    pub media: MediaTypes,
}

/// The compression of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LayerCompression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// The names of media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.…`
    Oci,
    /// `application/vnd.docker.…`
    Docker,
}

/// What the coordinator needs of the client.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Ask {
    /// Files of a context: scanned, and put into the store.
    Scan {
        /// `context`, or the name of a `--build-context`.
        context: String,
        /// The paths and patterns that are looked at; empty for all.
        paths: Vec<String>,
        /// The line of the progress display that it belongs to.
        vertex: VertexId,
    },
    /// The files of an image in an OCI layout: found, and put into the store.
    Layout {
        /// The name of the `--build-context`.
        context: String,
        /// The platform that the image is for.
        platform: Platform,
        /// The line of the progress display that it belongs to.
        vertex: VertexId,
    },
    /// A secret.
    Secret(String),
    /// A login for a registry.
    Login(String),
    /// Whether there is an ssh agent of that name.
    SshAgent(String),
    /// A request to an ssh agent.
    Ssh {
        /// The agent's name.
        id: String,
        /// The request: one message without the length before it, of at most
        /// [`crate::limit::SSH_MESSAGE_BYTES_MAX`] bytes.
        request: SecretBytes,
    },
    /// Manifest and config of the cache in one of the client's directories, put into the store. Its
    /// number among those that the client reads from.
    Cache(u32),
    /// Blobs of that cache, put into the store.
    CacheBlobs(u32, Vec<OciDigest>),
}

/// The client's answer.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// The tree of the files.
    Scanned(RootId),
    /// The directory of the files, each named by its digest in hexadecimal; and which of them is the
    /// image's manifest.
    Layout(RootId, OciDigest),
    /// The secret, if the client has it.
    Secret(Option<SecretBytes>),
    /// The login, if the client has one.
    Login(Option<Login>),
    /// Whether there is one.
    SshAgent(bool),
    /// What the agent says: a message as the request is one.
    Ssh(SecretBytes),
    /// What was put into the store, in the order in which it was asked for.
    Blobs(Vec<BlobId>),
    /// The client could not.
    Failed(Failure),
}

/// A login for a registry. Its text never shows the password.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Login {
    /// The user; `<token>` when `password` is an identity token.
    pub user: String,
    /// The password or identity token.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

/// One line of the progress display: a step, or work of our own such as `load metadata`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct VertexId(pub u32);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Event {
    /// A vertex is known, or has changed.
    Vertex(Vertex),
    /// Bytes were moved for a vertex.
    Progress(Progress),
    /// A step wrote something.
    Log {
        /// The step.
        vertex: VertexId,
        /// Where it wrote to.
        stream: Stream,
        /// When.
        at: Millis,
        /// What.
        data: Vec<u8>,
    },
    /// Something is worth a remark.
    Warning(Warning),
}

/// A line of the progress display.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Vertex {
    /// Its number.
    pub id: VertexId,
    /// Its name: `[builder 2/5] RUN make`.
    pub name: String,
    /// The vertices that it needs.
    pub inputs: Vec<VertexId>,
    /// When it began.
    pub started: Option<Millis>,
    /// When it ended.
    pub completed: Option<Millis>,
    /// Whether an earlier result was taken.
    pub cached: bool,
    /// How many milliseconds the earlier result had taken.
    pub saved_ms: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// Bytes moved for a vertex.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Progress {
    /// The vertex.
    pub vertex: VertexId,
    /// What is moved: `sha256:…`, `transferring context`.
    pub what: String,
    /// Bytes so far.
    pub current: u64,
    /// Bytes in all; 0 when not known.
    pub total: u64,
    /// When it began.
    pub started: Millis,
    /// When it ended.
    pub completed: Option<Millis>,
}

/// Where a step wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A remark.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Warning {
    /// The rule, by BuildKit's name (`StageNameCasing`); empty for remarks of our own.
    pub rule: String,
    /// What is remarked.
    pub message: String,
    /// What the rule asks for, in one sentence; empty when there is no more to say.
    pub detail: String,
    /// Where the rule is explained; empty when nowhere.
    pub url: String,
    /// Where.
    pub at: Option<SourceRange>,
    /// The lines there.
    pub excerpt: Vec<(u32, String)>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BuildResult {
    /// For each output of the request, in order.
    pub outputs: Vec<OutputResult>,
    /// For each cache that it gives to, in order.
    pub caches: Vec<CacheWritten>,
    /// What the build did.
    pub summary: Summary,
}

/// What came out for one output.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum OutputResult {
    /// An image.
    Image(ImageResult),
    /// An archive: what stands in it, in order.
    Archive(ImageResult, Vec<ArchiveEntry>),
    /// Files.
    Files(FilesResult),
    /// Nothing.
    CacheOnly,
}

/// Files that the client writes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FilesResult {
    /// Those of each platform.
    pub roots: Vec<FilesRoot>,
}

/// The files of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FilesRoot {
    /// The platform.
    pub platform: Platform,
    /// The merged root.
    pub root: RootId,
    /// The time that all of them get, in seconds since 1970, if they do not keep their own.
    pub time: Option<i64>,
}

/// An image that was made.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImageResult {
    /// The image id: the digest of the config. With several platforms, of the first one's.
    pub config: OciDigest,
    /// The digest of the manifest, or of the index; none when the image was not packed (the local
    /// store needs no packed layers).
    pub digest: Option<OciDigest>,
    /// Media type and size of what `digest` names.
    pub descriptor: Option<(String, u64)>,
    /// Its names.
    pub names: Vec<String>,
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ArchiveEntry {
    /// Its path in the archive.
    pub path: String,
    /// Its bytes.
    pub data: ArchiveData,
}

/// The bytes of a file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ArchiveData {
    /// Here.
    Inline(Vec<u8>),
    /// In the store: blob, size, and the SHA-256 that they must have.
    Blob(BlobId, u64, OciDigest),
    /// Nothing: it is a directory.
    Directory,
}

/// What a build did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Summary {
    /// Steps that the result needed.
    pub steps: u32,
    /// Steps whose earlier results were taken.
    pub cached: u32,
    /// Milliseconds that the earlier results had taken.
    pub saved_ms: u64,
    /// Milliseconds that the build took.
    pub wall_ms: u64,
    /// Bytes that were moved for it.
    pub traffic: Traffic,
}

/// Bytes that were moved between machines, by kind: those of files, layers and trees, without the
/// frames around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Traffic {
    /// Of contexts, from the client. Counted by the client alone.
    pub context: u64,
    /// Of what steps and outputs need, to their workers: from the store and from other workers.
    pub inputs: u64,
    /// Of what steps and outputs made, from their workers to the store: all copies.
    pub results: u64,
    /// Of cache mounts, to and from workers.
    pub mounts: u64,
    /// From registries and web servers. What `git` fetches is not counted: it does not tell.
    pub pulled: u64,
    /// To registries.
    pub pushed: u64,
    /// Of outputs, to the client. Counted by the client alone.
    pub outputs: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        let Self { context, inputs, results, mounts, pulled, pushed, outputs } = more;
        self.context += context;
        self.inputs += inputs;
        self.results += results;
        self.mounts += mounts;
        self.pulled += pulled;
        self.pushed += pushed;
        self.outputs += outputs;
    }
}
