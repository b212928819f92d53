//! A worker and its coordinator.
//!
//! One message each way, `Synchronize` as Buildbarn has it: the worker says what it is doing, the
//! coordinator says what it should be doing. Both are whole states, so that a lost message or a
//! new leader changes nothing: whatever is not wanted any more is stopped, whatever is wanted is
//! started, and a report is repeated until the coordinator has it.

use crate::error::Failure;
use crate::id::{BlobId, BuildId, LeaseEpoch, Millis, OciDigest, RootId, Scope, WorkerId};
use crate::mount;
use crate::platform::Platform;
use crate::record::Cost;
use crate::step::{BaseImage, GitOp, HttpOp, ImageOp, Needs, PackedRef, RunOp};
use crate::wire::build::{
    Answer, ArchiveEntry, ArchiveFormat, Ask, Output, OutputResult, Packing, Resources, Stream,
    Traffic,
};
use crate::wire::outside::{CacheContent, CacheExport, CachePlace, CacheWritten, CachedLayer};
use rkyv::{Archive, Deserialize, Serialize};

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// What it is doing, and what it has done.
    State(WorkerState),
    /// A piece of a running step's log.
    Log {
        /// The lease.
        lease: LeaseEpoch,
        /// Bytes of the log before this piece.
        offset: u64,
        /// Where the step wrote to.
        stream: Stream,
        /// When.
        at: Millis,
        /// What.
        data: Vec<u8>,
    },
    /// Bytes moved for a lease.
    Progress {
        /// The lease.
        lease: LeaseEpoch,
        /// What.
        moved: Moved,
    },
    /// Something that only the build's client has is needed. Answered under the same number.
    Ask(u64, BuildId, Ask),
    /// Something about a cache mount of a step. Answered by [`ToWorker::Mount`] of the same number.
    Mount {
        /// The number.
        number: u64,
        /// The step's lease.
        lease: LeaseEpoch,
        /// The mount's id. At most [`crate::limit::CACHE_MOUNT_ID_BYTES_MAX`] bytes.
        id: String,
        /// What.
        ask: mount::Ask,
    },
    /// The answer to [`ToWorker::Call`] of that number, and what was moved for it.
    Reply(u64, Traffic, Box<Result<Reply, Failure>>),
    /// Bytes moved for a call.
    CallProgress(u64, Moved),
}

/// Bytes that were moved.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Moved {
    /// What is moved.
    pub what: String,
    /// Bytes so far.
    pub current: u64,
    /// Bytes in all; 0 when not known.
    pub total: u64,
    /// Whether it has ended.
    pub done: bool,
}

/// What a coordinator says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToWorker {
    /// What it should be doing. What is not among it is stopped; a report for what is not among it
    /// has been taken note of.
    Desired {
        /// All leases that it holds.
        leases: Vec<Lease>,
        /// Leases that it may hold, of a time that the coordinator does not remember yet: they go
        /// on, and reports for them are kept.
        keep: Vec<LeaseEpoch>,
    },
    /// Of which leases' logs the coordinator has how many bytes; of all others none. Said once for
    /// each connection.
    Heard(Vec<(LeaseEpoch, u64)>),
    /// The answer to [`ToCoordinator::Ask`] of that number.
    Answer(u64, Answer),
    /// The answer to [`ToCoordinator::Mount`] of that number.
    Mount(u64, mount::Answer),
    /// Something that any worker can do, and that can be done twice without harm. Answered under
    /// the same number.
    Call(u64, Box<Call>),
    /// The answer to the call of that number is not needed any more.
    CancelCall(u64),
}

/// Something that any worker can do.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Call {
    /// Finds out what a reference stands for. [`Reply::Image`].
    ResolveImage {
        /// Whose logins count.
        build: BuildId,
        /// The full reference.
        reference: String,
        /// The platform.
        platform: Platform,
        /// Whether the registry is asked even when the image store has an image of that name.
        pull: bool,
        /// Whose names of the image store count.
        scope: Scope,
    },
    /// Reads an image's manifest and config. [`Reply::Image`].
    ResolveLayout {
        /// What the image goes by.
        reference: String,
        /// The directory of its files, each named by its digest in hexadecimal.
        files: RootId,
        /// Which of them is its manifest.
        manifest: OciDigest,
    },
    /// Finds out what is at a URL. [`Reply::File`].
    ResolveFile {
        /// The build.
        build: BuildId,
        /// The URL.
        url: String,
    },
    /// Finds out what commit a reference is. [`Reply::Commit`].
    ResolveCommit {
        /// The build.
        build: BuildId,
        /// The repository.
        remote: String,
        /// The branch, tag or commit; empty for the default branch.
        reference: String,
    },
    /// Unpacks a blob that may be an archive. [`Reply::Archive`].
    Unpack(BlobId),
    /// Makes a layer of a diff tree, so that it is there when an output needs it. [`Reply::Done`].
    PrepareLayer(RootId, Option<Packing>),
    /// Makes an output. [`Reply::Exported`].
    Export(Export),
    /// Brings an image from its registry. [`Reply::Pulled`].
    Pull {
        /// Whose logins count.
        build: BuildId,
        /// The full reference.
        reference: String,
        /// The platform.
        platform: Platform,
    },
    /// Sends an image of the image store to its registry. [`Reply::Pushed`].
    Push {
        /// Whose logins count.
        build: BuildId,
        /// The full reference.
        reference: String,
        /// The image, as the image store has it.
        image: Vec<u8>,
    },
    /// Packs images of the image store for an archive. [`Reply::Saved`].
    Save {
        /// Whose logins count.
        build: BuildId,
        /// The images, as the image store has them, each with its names in the archive.
        images: Vec<(Vec<u8>, Vec<String>)>,
        /// The archive's form.
        format: ArchiveFormat,
    },
    /// Takes the images of an archive. [`Reply::Loaded`].
    Load {
        /// The archive.
        archive: BlobId,
        /// Of images for several platforms, the one that is taken.
        platform: Platform,
    },
    /// Reads what a cache outside of the farm has. [`Reply::Cache`].
    ReadCache {
        /// Whose logins and directories count.
        build: BuildId,
        /// Where it is.
        from: CachePlace,
    },
    /// Brings a layer of such a cache into the farm's store. [`Reply::Done`].
    FetchLayer {
        /// Whose logins and directories count.
        build: BuildId,
        /// Where the cache is.
        from: CachePlace,
        /// The layer.
        layer: CachedLayer,
    },
    /// Writes such a cache. [`Reply::CacheWritten`].
    WriteCache(CacheExport),
    /// Finds out when something was made. [`Reply::Time`].
    ResolveTime {
        /// The build.
        build: BuildId,
        /// What.
        of: Dated,
    },
}

/// Something that tells when it was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Dated {
    /// A file of a web server that does not say when it was changed: an archive is of the time of
    /// the newest file in it.
    Archive {
        /// Where it is.
        url: String,
        /// What was found there.
        digest: OciDigest,
    },
    /// A commit of a git repository.
    Commit {
        /// The repository.
        remote: String,
        /// The commit's full name.
        commit: String,
    },
}

/// An output to make.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Export {
    /// The build, whose client's logins count.
    pub build: BuildId,
    /// The images, one for each platform.
    pub images: Vec<ExportImage>,
    /// What to make.
    pub output: Output,
    /// Put on manifests: key and value.
    pub annotations: Vec<(String, String)>,
}

/// An image to make.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ExportImage {
    /// The platform.
    pub platform: Platform,
    /// The config as the graph has it.
    pub config: String,
    /// What it is built upon.
    pub base: Option<BaseImage>,
    /// The history that the build adds; for rows with a layer, which of `layers`.
    pub history: Vec<ExportRow>,
    /// The layers that the build adds, lowest first.
    pub layers: Vec<ExportLayer>,
    /// Nothing that the build adds is newer than this: seconds since 1970.
    pub epoch: Option<i64>,
    /// Whether files of the layers get no later time than that.
    pub rewrite: bool,
}

/// A layer that a build adds.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ExportLayer {
    /// Its diff tree.
    pub diff: RootId,
    /// When it was made.
    pub made: Millis,
    /// What it came of, for a history that lacks rows.
    pub came_of: String,
}

/// A row of the history that a build adds.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ExportRow {
    /// The text.
    pub created_by: String,
    /// A remark.
    pub comment: String,
    /// The layers of the row, by number: none, one, or several.
    pub layers: Vec<u32>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Reply {
    /// The image.
    Image(Box<ResolvedImage>),
    /// The file: its digest, the name that the server gives it, when it was changed last.
    File(OciDigest, Option<String>, Option<i64>),
    /// The commit's full name.
    Commit(String),
    /// What it unpacks to, if it is an archive.
    Archive(Option<RootId>),
    /// It was done.
    Done,
    /// The output; and the image that is to be kept under its names, if it is one, as the image
    /// store has it.
    Exported(Box<OutputResult>, Option<Vec<u8>>),
    /// The digest of what the reference stands for, and the image as the image store has it.
    Pulled(OciDigest, Vec<u8>),
    /// The digest of what was sent.
    Pushed(OciDigest),
    /// What stands in the archive.
    Saved(Vec<ArchiveEntry>),
    /// The images, as the image store has them, each with its names.
    Loaded(Vec<(Vec<u8>, Vec<String>)>),
    /// What the cache has.
    Cache(CacheContent),
    /// The cache was written.
    CacheWritten(CacheWritten),
    /// When it was made, in seconds since 1970, if it says so.
    Time(Option<i64>),
}

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WorkerState {
    /// Who it is.
    pub worker: WorkerId,
    /// Where other workers get blobs from it: host and port, or a colon and the port when it does
    /// not know its host; empty when it gives none.
    pub address: String,
    /// What it can do.
    pub capacity: Capacity,
    /// The leases that it works on.
    pub running: Vec<LeaseEpoch>,
    /// What came out of leases, until they are no longer desired.
    pub reports: Vec<Report>,
}

/// What a worker can do, whatever it is doing.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Capacity {
    /// What it runs: its own platform first, then all others. Those that its own one
    /// [`Platform::runs`] need no emulator. At most [`crate::limit::WORKER_PLATFORMS_MAX`] count.
    pub platforms: Vec<Platform>,
    /// How many RUNs it can do at once. At most [`crate::limit::WORKER_SLOTS_MAX`] count.
    pub slots: u32,
    /// Processors, in thousandths; 0: one for each slot.
    pub cpu_millis: u32,
    /// Bytes of memory that RUNs can use together; 0: not known, and not counted.
    pub memory_bytes: u64,
    /// Bytes that are free on the disk that it works on.
    pub disk_free_bytes: u64,
    /// What it is short of.
    pub pressure: Pressure,
    /// Whether it takes new work. One that is about to end does not.
    pub takes_work: bool,
    /// Whether it is the only worker that there will be: then it takes what asks for more than it
    /// has, and gives it all that it has.
    pub is_alone: bool,
    /// What it has moved here from other machines.
    pub fetched: Fetched,
}

/// What a worker is short of. It gets no more work as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Room on its disk.
    pub disk: bool,
}

/// Inputs of steps that were moved to a worker, since it was started: how fast it gets them is
/// told by two states that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Fetched {
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds in which at least one of them was moved.
    pub ms: u64,
}

/// The right, and the duty, to do something.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Lease {
    /// Its number: a report under another one changes nothing.
    pub epoch: LeaseEpoch,
    /// The build that secrets and logins are asked for from.
    pub build: BuildId,
    /// What is to be done.
    pub task: Task,
    /// What it may use.
    pub needs: Needs,
    /// The platform.
    pub platform: Platform,
    /// Other workers that have made some of its inputs, and give blobs. At most
    /// [`crate::limit::PEERS_MAX`].
    pub peers: Vec<Peer>,
}

/// Another worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub id: WorkerId,
    /// Host and port.
    pub address: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Task {
    /// A RUN.
    Run(Box<RunTask>),
    /// An image's layers, pulled and unpacked.
    Image(ImageOp),
    /// A file from a web server.
    Http(HttpOp),
    /// A commit of a git repository.
    Git(GitOp),
}

/// A RUN with its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RunTask {
    /// The command.
    pub op: RunOp,
    /// The layers of its root, lowest first, each with no implicit directories.
    pub layers: Vec<RootId>,
    /// The merged root that they make.
    pub root: RootId,
    /// What the mounts show, in the order of the command's mounts: none for those without input.
    pub binds: Vec<Option<Bind>>,
    /// Whether cache mounts begin empty (`--no-cache`).
    pub fresh_caches: bool,
    /// Limits that the build asks for.
    pub resources: Resources,
}

/// What a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Bind {
    /// This tree.
    Dir(RootId),
    /// The one file, named `file`, of this tree.
    File(RootId),
}

/// What came out of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Report {
    /// The lease.
    pub epoch: LeaseEpoch,
    /// What came out.
    pub outcome: Outcome,
    /// What it used.
    pub cost: Cost,
    /// What was moved for it.
    pub traffic: Traffic,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// Layers, lowest first, durable in the store.
    Done(Vec<RootId>),
    /// It failed, and would fail again.
    Failed(Failure),
    /// Something that an earlier step made is gone from the store; in words.
    Lost(String),
    /// It was stopped, because it was not wanted any more.
    Stopped,
}

/// A reference resolved: what [`ImageOp`] needs to name it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The image.
    pub op: ImageOp,
    /// The platform that it is for.
    pub platform: Platform,
    /// Its config, as JSON.
    pub config: String,
    /// The packed layers that its manifest names, lowest first.
    pub layers: Vec<PackedRef>,
}
