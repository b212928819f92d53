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

pub use config::{CheckError, Config, Violation};
pub use file::{check as file, reading};
pub use rule::Rule;
pub use stage::{Spot, StageChecks};

use proto::error::SourceRange;

/// Pieces of advice that one build is given; the rest is left out.
pub const WARNINGS_MAX: usize = 1000;

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

impl Warning {
    /// The advice as it travels to the person, with the lines of the Dockerfile's text.
    pub fn told(&self, text: &[u8]) -> proto::wire::build::Warning {
        proto::wire::build::Warning {
            rule: self.rule.name().to_owned(),
            message: self.message.clone(),
            detail: self.rule.description().to_owned(),
            url: self.rule.url().unwrap_or_default(),
            at: Some(self.at.clone()),
            excerpt: super::error::excerpt(text, &self.at),
        }
    }
}

#[cfg(test)]
mod tests;
