//! Why a Dockerfile cannot be built as it is asked for.

use crate::dockerfile::expand::ExpandError;
use crate::dockerfile::lint::{CheckError, Violation};
use crate::dockerfile::mount::MountError;
use crate::dockerfile::source::GitUrlError;
use crate::dockerfile::value::{ChmodError, PortError, SignalError};
use crate::dockerfile::{ParseError, error};
use proto::error::{Class, Failure, SourceRange};
use proto::platform::PlatformError;

/// Why a Dockerfile cannot be lowered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct LowerError {
    /// What is wrong.
    pub problem: LowerProblem,
    /// Where, when it is wrong at one place.
    pub at: Option<SourceRange>,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LowerProblem {
    /// A variable or its modifiers.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// FROM of nothing.
    #[error("The base name of FROM is blank: `{0}` expands to nothing")]
    BlankBase(String),
    /// A stage's name that no image can have.
    #[error(
        "The stage cannot be named `{name}`: it must be a name that an image could have, and {why}"
    )]
    StageName {
        /// The name, in small letters.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name that no image can have.
    #[error("`{0}` is not a valid image reference: {1}")]
    Reference(String, String),
    /// `--platform`.
    #[error("FROM: {0}")]
    Platform(#[from] PlatformError),
    /// `--platform` of nothing.
    #[error("FROM: the platform `{0}` expands to nothing")]
    BlankPlatform(String),
    /// `--target`.
    #[error("The target stage `{name}` was not found")]
    NoTarget {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// Stages that need each other.
    #[error("The stages {0} depend on each other in a circle")]
    Cycle(String),
    /// A stage that needs itself.
    #[error("The stage {0} takes files from itself: it can only use stages defined before it")]
    Itself(String),
    /// `COPY --from=7`.
    #[error("There is no stage of the index {0}: `--from` counts stages from 0")]
    StageIndex(i64),
    /// A stage that comes later.
    #[error(
        "{what} from the stage `{name}`, which must be defined before the current stage `{current}`"
    )]
    LaterStage {
        /// What is attempted.
        what: &'static str,
        /// The stage.
        name: String,
        /// The stage that needs it.
        current: String,
    },
    /// A trigger of a base image.
    #[error("The base image's ONBUILD trigger is not valid: {0}")]
    Trigger(Box<ParseError>),
    /// A config that cannot be read.
    #[error("The config of the image `{0}` cannot be read: {1}")]
    Config(String, String),
    /// `RUN --mount`.
    #[error("RUN: {0}")]
    Mount(#[from] MountError),
    /// EXPOSE.
    #[error(transparent)]
    Port(#[from] PortError),
    /// STOPSIGNAL.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// `--chmod`.
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    /// ADD of git.
    #[error(transparent)]
    GitUrl(#[from] GitUrlError),
    /// COPY of a URL or a repository.
    #[error("COPY cannot take the source `{0}` from a URL or a git repository; ADD can")]
    CopyUrl(String),
    /// A checksum where there can be none.
    #[error("ADD: --checksum {0}")]
    Checksum(String),
    /// Two answers to one question.
    #[error("ADD: `{0}` is given twice, with different values")]
    Inconsistent(&'static str),
    /// VOLUME of nothing.
    #[error("VOLUME: a volume's path cannot be empty")]
    BlankVolume,
    /// What needs a right that was not given.
    #[error("{what} needs the entitlement `{name}`, which the build was not given")]
    NotAllowed {
        /// What needs it.
        what: String,
        /// The entitlement.
        name: String,
    },
    /// More than any build has.
    #[error("The build needs more than {0} steps")]
    TooManySteps(usize),
    /// More than a farm keeps of one build.
    #[error(
        "The build's steps take more than {0} bytes: so many variables for so many steps cannot \
         be kept"
    )]
    TooManyBytes(usize),
    /// `# slipway: …`.
    #[error("The comment `# slipway: {text}` is not valid: {why}")]
    Hint {
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A time that is none.
    #[error("SOURCE_DATE_EPOCH: `{0}` is no number of seconds since 1970, no context and no stage")]
    Epoch(String),
    /// A stage that has no time.
    #[error("SOURCE_DATE_EPOCH: the stage `{stage}` has no time: {why}")]
    EpochStage {
        /// The stage.
        stage: String,
        /// What is wrong with it.
        why: String,
    },
    /// `--build-arg BUILDKIT_DOCKERFILE_CHECK=…`.
    #[error("BUILDKIT_DOCKERFILE_CHECK: {0}")]
    Check(#[from] CheckError),
    /// What can be read, but neither built nor checked.
    #[error(transparent)]
    Unfit(Box<ParseError>),
    /// Advice where none is allowed.
    #[error(transparent)]
    Advice(Box<Violation>),
    /// Something that no front end but another one does.
    #[error("The front end `{0}` of `# syntax=` is not supported")]
    Syntax(String),
}

impl LowerProblem {
    /// With a place.
    pub fn at(self, at: &SourceRange) -> LowerError {
        LowerError { problem: self, at: Some(at.clone()) }
    }

    /// Whether it may be right with other values of variables.
    pub(super) fn depends_on_values(&self) -> bool {
        match self {
            Self::Expand(error) | Self::Mount(MountError::Expand(error)) => {
                !error.why.is_of_grammar()
            }
            _ => true,
        }
    }

    /// Without one.
    pub fn nowhere(self) -> LowerError {
        LowerError { problem: self, at: None }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoTarget { near: Some(near), .. } => Some(format!("Did you mean `{near}`?")),
            Self::Mount(e) => e.hint(),
            Self::Unfit(e) => e.problem.hint(),
            Self::NotAllowed { name, .. } => {
                Some(format!("If you trust the Dockerfile, build with `--allow {name}`."))
            }
            Self::LaterStage { .. } => {
                Some("Move that stage up: stages can only use earlier ones.".to_owned())
            }
            Self::Syntax(_) => Some(
                "Slipway has the front end `docker/dockerfile` built in. Take the line away, or \
                 set `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`."
                    .to_owned(),
            ),
            Self::Advice(violation) => Some(violation.hint()),
            Self::EpochStage { .. } => Some(
                "A stage whose time is taken begins with `FROM scratch`, and has one ADD of one URL \
                 or git repository and nothing else but ARGs. Or give a number of seconds."
                    .to_owned(),
            ),
            Self::StageIndex(_) => Some("Better name stages: `FROM … AS name`.".to_owned()),
            _ => None,
        }
    }
}

impl From<ParseError> for LowerError {
    fn from(error: ParseError) -> Self {
        Self { at: error.at.clone(), problem: LowerProblem::Unfit(Box::new(error)) }
    }
}

impl LowerError {
    /// The lines that BuildKit names to programs; it has none for some errors.
    pub fn lines_as_told(&self) -> Option<(u32, u32)> {
        match &self.problem {
            LowerProblem::Unfit(error) => error.lines_as_told(),
            LowerProblem::Advice(_) | LowerProblem::StageIndex(_) => None,
            _ => self.at.as_ref().map(|at| (at.first_line, at.last_line)),
        }
    }

    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self.problem {
            LowerProblem::NotAllowed { .. } => Class::Denied,
            _ => Class::User,
        }
    }

    /// The error as it travels to the person, with the lines of the Dockerfile's text.
    pub fn failure(&self, text: &[u8]) -> Failure {
        let mut failure = Failure::new(self.class(), self.to_string());
        failure.hint = self.problem.hint();
        if let Some(at) = &self.at {
            failure.excerpt = error::excerpt(text, at);
            failure = failure.at(at.clone());
        }
        failure
    }
}
