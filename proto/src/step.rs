//! Steps: what one instruction does to trees.
//!
//! A [`Graph`] is one build's immutable DAG. Its steps are in topological order: the inputs of a
//! step come before it.

use crate::error::SourceRange;
use crate::id::{OciDigest, RootId};
use crate::mount::Policy;
use crate::platform::Platform;
use rkyv::{Archive, Deserialize, Serialize};

/// A step's place in its graph.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct StepId(pub u32);

impl StepId {
    /// The step's index in [`Graph::steps`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One build's steps.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Graph {
    /// The steps; each one's inputs have smaller indices.
    pub steps: Vec<Step>,
    /// What the build is for: one for each platform, in the order asked for.
    pub targets: Vec<Target>,
}

/// The stage that is asked for, on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Target {
    /// The platform.
    pub platform: Platform,
    /// The step whose state is the result.
    pub step: StepId,
    /// The image config as JSON, with the base image's `rootfs` and `history` and without
    /// `created`.
    pub config: String,
    /// The image that the chain begins with, when it is one.
    pub base: Option<BaseImage>,
    /// The rows of the history that this build adds, in order.
    pub history: Vec<HistoryRow>,
    /// `SOURCE_DATE_EPOCH`: nothing that the build adds is newer; seconds since 1970.
    pub epoch: Option<i64>,
}

/// An image that is built upon: its layers stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BaseImage {
    /// The full reference.
    pub reference: String,
    /// The digest of the platform's manifest.
    pub manifest: OciDigest,
    /// Where its bytes come from.
    pub origin: ImageOrigin,
    /// Its packed layers, lowest first.
    pub layers: Vec<PackedRef>,
}

/// The reference with the digest of what it stands for, if it has none.
pub fn pinned(reference: &str, manifest: &OciDigest) -> String {
    match reference.contains('@') {
        true => reference.to_owned(),
        false => format!("{reference}@{manifest}"),
    }
}

/// Something that a manifest or an index of a registry names: a packed layer, a config.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PackedRef {
    /// What it says it is.
    pub media_type: String,
    /// SHA-256 of its bytes.
    pub digest: OciDigest,
    /// How many.
    pub size: u64,
}

/// One row of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HistoryRow {
    /// The text that `docker history` shows.
    pub created_by: String,
    /// A remark; BuildKit's is `buildkit.dockerfile.v0`.
    pub comment: String,
    /// The step that made the row's layer, when it has one.
    pub step: Option<StepId>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub op: Op,
    /// The steps that it needs. [`Op`] says which is which.
    pub inputs: Vec<StepId>,
    /// What people see: `[builder 2/5] RUN make`.
    pub name: String,
    /// The platform that it is for.
    pub platform: Platform,
    /// Where it stands in the Dockerfile.
    pub at: Option<SourceRange>,
    /// Whether earlier results are left aside.
    pub cache: CacheUse,
    /// What it asks of a machine.
    pub needs: Needs,
}

/// Whether a step may take an earlier result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CacheUse {
    /// It may.
    Use,
    /// It runs, and what comes out replaces the earlier result (`--no-cache`).
    Refresh,
}

/// What a step asks of the machine that runs it. Not part of any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Needs {
    /// Processors, in thousandths; 0: one slot's share.
    pub cpu_millis: u32,
    /// Bytes of memory; 0: not limited.
    pub memory_bytes: u64,
    /// After how many milliseconds it is stopped; 0: never.
    pub timeout_ms: u64,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Op {
    /// The empty root. No inputs.
    Scratch,
    /// An image's root. No inputs.
    Image(ImageOp),
    /// A selection of files from the client. No inputs.
    Local(LocalOp),
    /// Files whose text stands in the Dockerfile. No inputs.
    Inline(InlineOp),
    /// A file from a web server. No inputs.
    Http(HttpOp),
    /// A commit of a git repository. No inputs.
    Git(GitOp),
    /// A command in a container. Inputs: the root, then what the mounts show, in the order of
    /// [`Mount::input`].
    Run(RunOp),
    /// Files from other trees. Inputs: the root, then one for each source, in the order of
    /// [`CopySource::input`].
    Copy(CopyOp),
    /// A directory made if it is not there (WORKDIR). Input: the root.
    Mkdir(MkdirOp),
    /// The second input's layer put upon the first's root (`COPY --link`). Inputs: the root, and a
    /// step on [`Op::Scratch`].
    Merge,
}

/// An image, resolved to a digest.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImageOp {
    /// The full reference: `docker.io/library/alpine:3.20`. Of an OCI layout `oci-layout://` and
    /// the name of its context.
    pub reference: String,
    /// The digest of the platform's manifest.
    pub manifest: OciDigest,
    /// Where the manifest's bytes come from.
    pub origin: ImageOrigin,
}

/// Where an image's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum ImageOrigin {
    /// A registry, under the reference's name.
    Registry,
    /// The local image store.
    Local,
    /// An OCI layout of the client's: the files that the image needs, named by their digests.
    Layout(RootId),
}

/// Files of the client's.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LocalOp {
    /// `context`, or the name of a `--build-context`.
    pub name: String,
    /// The tree that the client sent.
    pub root: RootId,
}

/// A file whose text stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct InlineOp {
    /// The file's name.
    pub name: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u16,
}

/// A file from a web server.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HttpOp {
    /// Where it is.
    pub url: String,
    /// The name that it gets.
    pub name: String,
    /// What its bytes must be.
    pub checksum: Option<OciDigest>,
    /// What was found there when the build began.
    pub resolved: OciDigest,
    /// The time of last change that the server gave, in seconds since 1970.
    pub modified: Option<i64>,
}

/// The client's ssh agent that git repositories are reached with.
pub const GIT_SSH_AGENT: &str = "default";

/// Whether a git repository is reached by ssh: by its URL, or as `HOST:PATH`.
pub fn is_by_ssh(remote: &str) -> bool {
    remote.split_once("://").is_none_or(|(scheme, _)| scheme.eq_ignore_ascii_case("ssh"))
}

/// A commit of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct GitOp {
    /// The repository.
    pub remote: String,
    /// The branch, tag or commit asked for.
    pub reference: String,
    /// The commit's full name.
    pub commit: String,
    /// The folder inside that becomes the root; empty for all.
    pub subdir: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Whether submodules are taken along.
    pub submodules: bool,
}

/// The container's view of the network.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Archive,
    Serialize,
    Deserialize,
)]
pub enum NetworkMode {
    /// An own namespace with a way out.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// How far the container is confined.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum SecurityMode {
    /// Docker's default profile.
    Sandbox,
    /// All capabilities, no profile (entitled by `--allow security.insecure`).
    Insecure,
}

/// A command in a container.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RunOp {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment, in order: name and value.
    pub env: Vec<(String, String)>,
    /// The directory that it starts in.
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty for root.
    pub user: String,
    /// The network.
    pub network: NetworkMode,
    /// The confinement.
    pub security: SecurityMode,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// The host's name inside; empty for the default.
    pub hostname: String,
    /// Lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Limits of the process: name, soft, hard (-1: none).
    pub ulimits: Vec<(String, i64, i64)>,
    /// Bytes of `/dev/shm`; 0 for the default of 64 MiB.
    pub shm_bytes: u64,
    /// The parent of its cgroup; empty for the default.
    pub cgroup_parent: String,
    /// Devices asked for: name, and whether it must be there.
    pub devices: Vec<(String, bool)>,
    /// Proxy variables that no ARG declares. In no key.
    pub proxy_env: Vec<(String, String)>,
}

/// One mount of a RUN.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Mount {
    /// Where it appears: absolute.
    pub target: String,
    /// Which of the step's inputs it shows (0 is the root, so 1 and up).
    pub input: Option<u32>,
    /// What it is.
    pub kind: MountKind,
}

/// How a cache mount is shared between steps that run at the same time.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub enum Sharing {
    /// All work on it.
    Shared,
    /// Each has its own.
    Private,
    /// One after the other.
    Locked,
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum MountKind {
    /// Files of another tree.
    Bind(BindMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// Memory.
    Tmpfs(TmpfsMount),
    /// A secret as a file, as a variable, or both.
    Secret(SecretMount),
    /// The client's ssh agent, as a socket.
    Ssh(SshMount),
}

/// Files of another tree.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BindMount {
    /// The path in that tree.
    pub source: String,
    /// Whether it can be written to (what is written is thrown away).
    pub writable: bool,
}

/// A directory that outlives the build.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CacheMount {
    /// Its name.
    pub id: String,
    /// How steps that run at the same time share it.
    pub sharing: Sharing,
    /// What becomes of its changes when another step was faster, if the Dockerfile says so.
    pub merge: Option<Policy>,
    /// With an input, the path in that of what the cache begins with; without, the path in the cache of
    /// what is shown.
    pub source: String,
    /// Whether it can only be read.
    pub read_only: bool,
    /// The permission bits of its root when it is made.
    pub mode: u16,
    /// The owner of its root when it is made.
    pub uid: u32,
    /// The group of its root when it is made.
    pub gid: u32,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Bytes; 0 for no limit.
    pub size: u64,
    /// Whether it can only be read: then it stays empty.
    pub read_only: bool,
}

/// A secret as a file, as a variable, or both.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SecretMount {
    /// Its name.
    pub id: String,
    /// Whether it is mounted as a file at the mount's target.
    pub file: bool,
    /// The variable that holds it, if any.
    pub env: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// The file's permission bits.
    pub mode: u16,
    /// The file's owner.
    pub uid: u32,
    /// The file's group.
    pub gid: u32,
}

/// The client's ssh agent, as a socket.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SshMount {
    /// Its name.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The socket's permission bits.
    pub mode: u16,
    /// The socket's owner.
    pub uid: u32,
    /// The socket's group.
    pub gid: u32,
}

/// Files from other trees.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CopyOp {
    /// What to take.
    pub sources: Vec<CopySource>,
    /// Where to: absolute; with a slash at the end when it must be a directory.
    pub dest: String,
    /// `user[:group]` for everything copied; names are looked up in the root.
    pub chown: Option<String>,
    /// The mode of everything copied: octal or symbolic.
    pub chmod: Option<String>,
    /// Whether the sources' directories are kept (`--parents`).
    pub parents: bool,
    /// Patterns of what is left out, relative to each source.
    pub exclude: Vec<String>,
}

/// What a COPY or ADD takes from one input.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CopySource {
    /// Which of the step's inputs (0 is the root, so 1 and up).
    pub input: u32,
    /// The path or pattern in that tree.
    pub path: String,
    /// Whether `*`, `?` and `[` in it are a pattern.
    pub pattern: bool,
    /// Whether an archive is unpacked.
    pub unpack: Unpack,
    /// Whether the step fails when what `--parents` names is not there, or when a link at the top of
    /// a tree of which a part is taken leads nowhere. BuildKit finds that out while it computes keys,
    /// and for files that come from what they are put upon it computes none.
    pub checked: bool,
}

/// What ADD does with a tar archive.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum Unpack {
    /// It is copied as it is.
    Never,
    /// It is unpacked; what is no archive is copied.
    IfArchive,
}

/// A directory made if it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct MkdirOp {
    /// Where: absolute and clean.
    pub path: String,
    /// `user[:group]` that owns what is made; names are looked up in the root.
    pub owner: String,
    /// The time of what is made, when `SOURCE_DATE_EPOCH` is given: seconds since 1970.
    pub epoch: Option<i64>,
}

impl Op {
    /// Whether the step's result is known with its definition: there is nothing to run or to keep.
    pub fn is_source(&self) -> bool {
        matches!(
            self,
            Self::Scratch
                | Self::Image(_)
                | Self::Local(_)
                | Self::Inline(_)
                | Self::Http(_)
                | Self::Git(_)
        )
    }

    /// Whether a container is needed.
    pub fn is_run(&self) -> bool {
        matches!(self, Self::Run(_))
    }
}
