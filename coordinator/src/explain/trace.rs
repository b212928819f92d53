//! What is kept of a build's steps.

use proto::id::{BuildId, ContentDigest, DefKey, Millis, RootId, ShapeKey};
use proto::step::CopyOp;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// What stands before the bytes of a trace.
const VERSION: u8 = 1;

/// What the steps of a build were made from. Values of variables are not in it, only their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Trace {
    /// The build.
    pub build: BuildId,
    /// When it began.
    pub started: Millis,
    /// The variables of its RUNs, each once.
    pub variables: Vec<Variable>,
    /// Its steps, in the order of its graph: all of them, or the first ones.
    pub steps: Vec<Sketch>,
}

/// A variable of a RUN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The BLAKE3 hash of its value.
    pub value: [u8; 32],
    /// What sets it.
    pub origin: Origin,
}

/// What sets a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Origin {
    /// ARG.
    Arg,
    /// ENV.
    Env,
    /// The base image, or both.
    Other,
}

/// What a step was made from.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Sketch {
    /// Its name; empty for what people do not see.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its definition.
    pub key: DefKey,
    /// What it is like apart from its inputs.
    pub shape: ShapeKey,
    /// What it says: hashes of parts of its text, in the order in which they are compared.
    pub fields: Vec<(Field, [u8; 16])>,
    /// The variables of a RUN, in order: places in [`Trace::variables`].
    pub variables: Vec<u32>,
    /// What it is made from.
    pub inputs: Vec<Input>,
    /// The merged roots of its inputs, when they were looked at.
    pub roots: Vec<RootId>,
    /// What it takes of its inputs.
    pub takes: Takes,
    /// What became of it.
    pub verdict: Verdict,
    /// Whether it was to take no earlier result.
    pub is_fresh: bool,
}

/// What a step is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Kind {
    /// An image.
    Image {
        /// Its name.
        reference: String,
        /// The digest of its manifest.
        digest: String,
    },
    /// A file whose text stands in the Dockerfile.
    Inline(String),
    /// A file of a web server, by its URL.
    Http(String),
    /// A commit of a repository.
    Git {
        /// The repository.
        remote: String,
        /// The commit.
        commit: String,
    },
    /// Files of the client: a context, by its name.
    Local(String),
    /// RUN.
    Run,
    /// COPY or ADD.
    Copy,
    /// WORKDIR.
    Mkdir,
    /// What only joins others.
    Joint,
}

/// A part of what a step says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Field {
    /// The command of a RUN.
    Command,
    /// Its directory.
    Directory,
    /// Its user.
    User,
    /// Its network.
    Network,
    /// How far it is confined.
    Security,
    /// The host's name.
    HostName,
    /// Names of other hosts.
    Hosts,
    /// Limits of its processes.
    Limits,
    /// The size of its shared memory.
    SharedMemory,
    /// The parent of its control group.
    ControlGroup,
    /// Its devices.
    Devices,
    /// Its mounts.
    Mounts,
    /// The sources of a COPY or an ADD.
    Sources,
    /// Its destination.
    Destination,
    /// `--chown`.
    Chown,
    /// `--chmod`.
    Chmod,
    /// `--exclude` and `--parents`.
    Selection,
    /// The path of a WORKDIR, and whose it is.
    Path,
    /// The time of what it makes.
    Epoch,
    /// The bytes of a file.
    Bytes,
    /// The name of a file, or how a repository is taken.
    Form,
    /// The platform.
    Platform,
}

/// What a step is made from.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Input {
    /// The step that gives it.
    pub step: u32,
    /// What is taken of it, when it is known before the build: files of the client.
    pub selection: Option<ContentDigest>,
    /// The files of the client that it is taken from.
    pub local: Option<RootId>,
}

/// Which parts of its inputs a step takes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Takes {
    /// All, or nothing.
    Whole,
    /// What its sources name.
    Sources(CopyOp),
    /// What its bind mounts show: the input's place, and the path.
    Binds(Vec<(u32, String)>),
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Verdict {
    /// An earlier result was taken.
    Hit,
    /// It was made.
    Made,
    /// It began, and came to no good end.
    Broken,
    /// Nobody needed it, or the build did not come so far.
    Untouched,
}

/// Why a trace has no bytes, or bytes are no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Another version wrote them.
    #[error("What steps were made from was written by another version")]
    Version,
    /// They are damaged.
    #[error("What steps were made from is damaged: {0}")]
    Damaged(String),
    /// It cannot be encoded.
    #[error("What steps were made from cannot be encoded: {0}")]
    Unwritten(String),
}

impl Input {
    /// Whether it is the same files of the client, as far as that is known.
    pub(super) fn takes_the_same(&self, other: &Self) -> bool {
        match (self.selection, other.selection) {
            (Some(own), Some(other)) => own == other,
            _ => self.local == other.local,
        }
    }
}

impl Trace {
    /// Its bytes, with as many of its steps as take no more than so many.
    pub fn to_bytes(&self, max: usize) -> Result<Vec<u8>, TraceError> {
        let mut trace = self.clone();
        loop {
            let unwritten = |e: RkyvError| TraceError::Unwritten(e.to_string());
            let encoded = rkyv::to_bytes::<RkyvError>(&trace).map_err(unwritten)?;
            if encoded.len() < max || trace.steps.is_empty() {
                return Ok([&[VERSION][..], encoded.as_slice()].concat());
            }
            trace.truncate(trace.steps.len() / 2);
        }
    }

    /// Leaves the first steps, and what they name.
    fn truncate(&mut self, steps: usize) {
        self.steps.truncate(steps);
        // Variables stand in the order in which steps name them.
        let last = self.steps.iter().flat_map(|step| &step.variables).max();
        self.variables.truncate(last.map_or(0, |last| *last as usize + 1));
    }

    /// What [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TraceError> {
        let [VERSION, rest @ ..] = bytes else { return Err(TraceError::Version) };
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(rest);
        let damaged = |e: RkyvError| TraceError::Damaged(e.to_string());
        let trace = rkyv::from_bytes::<Self, RkyvError>(&aligned).map_err(damaged)?;
        let is_right = trace.steps.iter().enumerate().all(|(index, step)| {
            step.inputs.iter().all(|input| (input.step as usize) < index)
                && step.variables.iter().all(|v| (*v as usize) < trace.variables.len())
        });
        match is_right {
            true => Ok(trace),
            false => Err(TraceError::Damaged("a step names what is not there".to_owned())),
        }
    }
}
