//! Why there was no container, or not the one that was asked for.

use super::spec::SpecError;
use super::user::UserError;
use crate::rootfs::{RootfsError, class_of};
use proto::error::{Class, Failure};
use std::io;
use std::path::{Path, PathBuf};

/// Why there was no container, or not the one that was asked for. A program that fails is none of
/// these: that is an [`super::Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its root, or another tree that it shows, could not be mounted or read back.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The spec cannot be made.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The user is not in the image.
    #[error(transparent)]
    User(#[from] UserError),
    /// The image's root has something in the place of a directory that every container needs.
    #[error("`{path}` in the image is {what}, and a container needs a directory there")]
    Root {
        /// Which place.
        path: String,
        /// What is there.
        what: String,
    },
    /// The working directory cannot be used.
    #[error("The working directory `{path}` cannot be used: {why}")]
    Cwd {
        /// The directory.
        path: String,
        /// Why not.
        why: String,
    },
    /// A mount cannot be made.
    #[error("The mount at `{target}` cannot be made: {why}")]
    Mount {
        /// Where it should appear.
        target: String,
        /// Why not.
        why: String,
    },
    /// A secret, an agent or a device that was asked for as required was not given.
    #[error("The {what} `{id}` is required, and was not given")]
    Missing {
        /// `secret`, `ssh agent` or `device`.
        what: &'static str,
        /// Its name.
        id: String,
    },
    /// The program cannot be run.
    #[error("`{program}` cannot be run in the container: {why}")]
    NoProgram {
        /// The program.
        program: String,
        /// Why not.
        why: String,
    },
    /// The container's limits cannot be set.
    #[error("The container's limits cannot be set: {0}")]
    Limits(io::Error),
    /// The network cannot be made.
    #[error("The container's network cannot be made: {why}")]
    Network {
        /// Why not.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The runtime failed.
    #[error("The container cannot be made: {0}")]
    Runtime(String),
    /// The helper process is gone, or says what it should not.
    #[error("The container's helper process failed: {0}")]
    Helper(String),
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This machine, or this process's rights on it, cannot run containers.
    #[error("{0}")]
    Machine(Failure),
}

impl SandboxError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Rootfs(e) => e.class(),
            Self::Spec(_)
            | Self::User(_)
            | Self::Root { .. }
            | Self::Cwd { .. }
            | Self::Mount { .. }
            | Self::Missing { .. }
            | Self::NoProgram { .. } => Class::User,
            Self::Limits(_) | Self::Network { .. } | Self::Runtime(_) => Class::Unavailable,
            Self::Helper(_) => Class::Bug,
            Self::Io { source, .. } => class_of(source),
            Self::Machine(failure) => failure.class,
        }
    }

    /// As it travels to the person.
    pub fn failure(&self) -> Failure {
        if let Self::Machine(failure) = self {
            return failure.clone();
        }
        let failure = Failure::new(self.class(), self.to_string());
        match self.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Network { hint, .. } => return hint.clone(),
            Self::User(_) => "Add the user in the image, or give numbers: `USER 1000:1000`",
            Self::NoProgram { .. } => {
                "Check the name, whether the image holds it, and whether it may be executed; \
                 an image FROM scratch has no shell"
            }
            Self::Missing { what: "secret", .. } => "Give it with --secret id=NAME,src=FILE",
            Self::Missing { what: "ssh agent", .. } => {
                "Give it with --ssh default or --ssh ID=PATH"
            }
            Self::Limits(_) => "Run without limits, or give the process the right to its cgroups",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Names what was done and where, for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |e| Self::Io { action, path: path.as_ref().to_owned(), source: e.into() }
    }
}
