//! Advice about a Dockerfile: the checks of BuildKit, by their names.
//!
//! - [`file`] needs the parsed file only.
//! - [`StageChecks`] goes along while a stage's instructions take effect, in order, and sees what they
//!   expand to.
//! - The functions of [`build`] need the build's arguments, its context or its images.
//!
//! Each takes a [`Config`], which says what is not wanted; [`Config::with_comments`] adds what the
//! comments above an instruction say.

pub mod build;
mod config;
mod file;
mod rule;
mod stage;

pub use config::{CheckError, Config};
pub use file::check as file;
pub use rule::Rule;
pub use stage::{Spot, StageChecks};

use proto::error::SourceRange;

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The check that found it.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// Where.
    pub at: SourceRange,
}

#[cfg(test)]
mod tests;
