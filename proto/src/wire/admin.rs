//! Images, the cache and past builds: what the commands around `build` ask for.
//!
//! One [`Asked`] on a stream; then answers, the last of which is [`Reply::Done`] or
//! [`Reply::Failed`].

use crate::error::Failure;
use crate::id::{BlobId, BuildId, Millis, OciDigest, RootId, Scope, WorkerId};
use crate::platform::Platform;
use crate::wire::Binary;
use crate::wire::build::{ArchiveEntry, ArchiveFormat, Login, Stream, Summary};
use crate::wire::overview::Overview;
use crate::wire::worker::Moved;
use rkyv::{Archive, Deserialize, Serialize};

/// The first message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Asked {
    /// A scope below the client's own, without the project, whose images are meant; none for the
    /// client's own.
    pub scope: Option<String>,
    /// What is asked for.
    pub request: Request,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Request {
    /// How the farm is. [`Reply::Status`].
    Status,
    /// The farm is to end: at once, or when its builds have.
    Shutdown {
        /// Whether builds that are under way are waited for.
        after_builds: bool,
    },
    /// All images. [`Reply::Image`] for each name.
    Images,
    /// Everything about an image. [`Reply::Text`]: JSON.
    Inspect(String),
    /// How an image came about. [`Reply::History`].
    History(String),
    /// Another name for an image.
    Tag {
        /// An image: a name, or the beginning of an id.
        source: String,
        /// The new name.
        target: String,
    },
    /// Takes names, or whole images, away. [`Reply::Text`] for each.
    Remove {
        /// Names and ids.
        names: Vec<String>,
        /// Whether an id with several names goes, too.
        force: bool,
    },
    /// Brings an image from its registry. [`Reply::Text`]: its digest.
    Pull {
        /// Its name.
        reference: String,
        /// The platform; none for the machine's own.
        platform: Option<Platform>,
    },
    /// Sends an image to its registry. [`Reply::Text`]: its digest.
    Push {
        /// Its name.
        reference: String,
    },
    /// What stands in an archive of these images. [`Reply::Entries`].
    Save {
        /// Names and ids.
        names: Vec<String>,
        /// The archive's form.
        format: ArchiveFormat,
    },
    /// Takes the images of an archive, which is in the store. [`Reply::Text`] for each image.
    Load(BlobId),
    /// The builds that are under way and the last ones that have ended. [`Reply::Build`] for each.
    Builds {
        /// At most so many.
        count: u32,
    },
    /// The steps of a build, with their logs' names. [`Reply::Step`] for each.
    Logs(BuildId),
    /// Cancels a build.
    Cancel(BuildId),
    /// What the cache holds. [`Reply::Usage`].
    Usage,
    /// Takes away what was not used for long. [`Reply::Pruned`].
    Prune(Prune),
    /// Hashes everything. [`Reply::Moved`] on the way, [`Reply::Damage`] for each thing found.
    Verify {
        /// Whether damaged things are taken away, so that they are made again.
        repair: bool,
    },
    /// The cache mounts. [`Reply::Mount`] for each.
    Mounts,
    /// Changes a cache mount. [`Reply::Text`].
    Mount {
        /// Whose it is.
        scope: Scope,
        /// Its id.
        id: String,
        /// What becomes of it.
        order: MountOrder,
    },
    /// Runs a container of an image. [`Input`] follows; [`Reply::Output`] on the way,
    /// [`Reply::Exited`] at the end.
    Run(Box<Run>),
    /// Makes a token, by which machines and people become members. [`Reply::Text`].
    CreateToken {
        /// The role that its holder may have.
        role: String,
        /// How long it is good, in milliseconds.
        ttl_ms: u64,
        /// How often it may be used; none for as often as one likes.
        uses: Option<u32>,
        /// A client's project.
        project: String,
        /// A client's scope.
        scope: String,
        /// Whether a client may look after the farm.
        admin: bool,
    },
    /// The members of the farm. [`Reply::Node`] for each.
    Nodes,
    /// Changes what a member is given.
    Node {
        /// Its name.
        name: String,
        /// What becomes of it.
        order: NodeOrder,
    },
    /// How the farm is at the moment. [`Reply::Overview`].
    Overview,
    /// The tokens that are known. [`Reply::Token`] for each.
    Tokens,
    /// Takes a token back: nobody becomes a member by it any more. The token's id, or its beginning.
    /// [`Reply::Text`]: the id.
    RevokeToken(String),
    /// Why the steps of a build ran. [`Reply::Reason`] for each step.
    Explain(BuildId),
}

/// What becomes of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum MountOrder {
    /// An earlier generation's files are the newest again.
    Rollback(u64),
    /// The files of this tree, which is in the store, are the newest.
    Import(RootId),
    /// It is forgotten.
    Remove,
}

/// A cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct MountInfo {
    /// Whose it is.
    pub scope: Scope,
    /// Its id.
    pub id: String,
    /// How many steps use it.
    pub users: u64,
    /// Its generations, the newest last.
    pub generations: Vec<MountGeneration>,
}

/// A generation of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct MountGeneration {
    /// Its number.
    pub number: u64,
    /// Its files.
    pub tree: RootId,
    /// Their bytes.
    pub bytes: u64,
    /// How many there are, with directories.
    pub files: u64,
    /// When it was made.
    pub created: Millis,
    /// Who made it.
    pub writer: WorkerId,
    /// How it came to be, in words.
    pub how: String,
}

/// Whether a step ran, and why.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepReason {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub verdict: StepVerdict,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StepVerdict {
    /// An earlier result was taken.
    Hit,
    /// It ran.
    Miss {
        /// Why, in a word: `file`, `arg`, `base`.
        reason: String,
        /// Why: the end of a sentence.
        sentence: String,
    },
    /// What needs it was found.
    NotNeeded,
    /// The build has not come so far.
    NotReached,
}

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum NodeOrder {
    /// It gets no new work.
    Cordon,
    /// It gets new work again.
    Uncordon,
    /// It gets no new work; answered when it has ended what it does, or has given away what it has.
    Drain,
    /// It is forgotten; what it has and does is lost.
    Remove,
}

/// A member of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: String,
    /// How it is: `serving`, `cordoned`, `down`.
    pub state: String,
    /// Where others reach it; empty when they do not.
    pub address: String,
    /// What it does and has: `2 of 4 slots`, `12 GB of 40 GB`.
    pub detail: String,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its name: 16 hexadecimal digits.
    pub id: String,
    /// The role that its holder may have.
    pub role: String,
    /// A client's project; empty for others.
    pub project: String,
    /// A client's scope; empty for others.
    pub scope: String,
    /// Whether its holder may look after the farm.
    pub admin: bool,
    /// Until when it is good.
    pub expires: Millis,
    /// How often it may still be used; none for as often as one likes.
    pub uses_left: Option<u32>,
    /// How it is: `good`, `expired`, `used up`, `revoked`.
    pub state: String,
}

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Prune {
    /// Everything that no image and no running build needs.
    pub all: bool,
    /// What was not used for so many milliseconds.
    pub older_than_ms: Option<u64>,
    /// The least used, until no more than so many bytes are left.
    pub keep_bytes: Option<u64>,
}

/// A container to run.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Run {
    /// The image: a name, or the beginning of an id.
    pub image: String,
    /// In place of the image's command.
    pub args: Vec<String>,
    /// In place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Variables: name and value.
    pub env: Vec<(String, String)>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// In place of the image's directory.
    pub workdir: Option<String>,
    /// `none`, `host` or empty for the default.
    pub network: String,
    /// Bytes of memory that it may use; 0: not limited.
    pub memory_bytes: u64,
    /// Whether its standard input is connected.
    pub interactive: bool,
}

/// What follows a request.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Input {
    /// Bytes, in the payload.
    Data,
    /// No more bytes.
    End,
    /// A signal for the container.
    Signal(i32),
    /// The answer to [`Reply::Ask`].
    Login(Option<Login>),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Reply {
    /// How the farm is.
    Status {
        /// Its binary.
        binary: Binary,
        /// Its process.
        pid: u32,
        /// When it began.
        started: Millis,
        /// Builds that are under way.
        builds: u32,
    },
    /// One name of an image.
    Image(ImageRow),
    /// A text.
    Text(String),
    /// How an image came about, the newest row first.
    History(Vec<HistoryEntry>),
    /// What stands in an archive, in order.
    Entries(Vec<ArchiveEntry>),
    /// A build.
    Build(Box<BuildInfo>),
    /// A step of a build.
    Step(StepInfo),
    /// Whether a step ran, and why.
    Reason(StepReason),
    /// A member of the farm.
    Node(NodeRow),
    /// A cache mount.
    Mount(Box<MountInfo>),
    /// How the farm is.
    Overview(Box<Overview>),
    /// A token.
    Token(TokenRow),
    /// What the cache holds, by kind.
    Usage(Vec<UsageRow>),
    /// What went.
    Pruned {
        /// Bytes.
        bytes: u64,
        /// Things, by kind.
        things: Vec<(String, u64)>,
    },
    /// Something is damaged.
    Damage {
        /// Where.
        place: String,
        /// What is wrong.
        what: String,
        /// What to do about it.
        advice: String,
    },
    /// Bytes were moved, or read.
    Moved(Moved),
    /// A login for this registry is needed.
    Ask(String),
    /// The container wrote something: the payload.
    Output(Stream),
    /// The container has ended, with this exit code.
    Exited(i32),
    /// Everything was answered.
    Done,
    /// It was not done.
    Failed(Failure),
}

/// One name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImageRow {
    /// The name in full; none for an image without one.
    pub reference: Option<String>,
    /// The image id.
    pub id: OciDigest,
    /// The platform.
    pub platform: Platform,
    /// When it was made.
    pub created: Millis,
    /// Bytes of all its files.
    pub size: u64,
}

/// One row of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When it was made; none when the image does not say.
    pub created: Option<String>,
    /// By what.
    pub created_by: String,
    /// Bytes of its files.
    pub size: u64,
    /// A remark.
    pub comment: String,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BuildInfo {
    /// Its name.
    pub id: BuildId,
    /// What the person calls it.
    pub description: String,
    /// When it began.
    pub started: Millis,
    /// When it ended, if it has.
    pub ended: Option<Millis>,
    /// The images that came out.
    pub images: Vec<(OciDigest, Vec<String>)>,
    /// Why it failed, if it has.
    pub failure: Option<Failure>,
    /// What it did.
    pub summary: Summary,
}

/// A step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepInfo {
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

/// What the cache holds of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct UsageRow {
    /// The kind: `layers on disk`.
    pub kind: String,
    /// How many things.
    pub count: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that would go if everything went that nobody needs.
    pub reclaimable: u64,
}
