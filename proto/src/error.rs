//! What kind of trouble an error is: decided once, where it is made, and read at the border.

use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// Whose trouble it is, and so what the exit code and the advice are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Class {
    /// The input is wrong: a Dockerfile, a flag, a missing file, a step that failed.
    User,
    /// Not allowed: credentials, entitlements, certificates.
    Denied,
    /// Full: of work, of memory, of disk.
    Busy,
    /// Something outside cannot be reached.
    Unavailable,
    /// Bytes are not what their name says.
    Corrupt,
    /// Stopped by whoever asked for it.
    Cancelled,
    /// A fault of Slipway's own.
    Bug,
}

/// A place in a file that a person wrote.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SourceRange {
    /// The file, as the person named it.
    pub file: String,
    /// The first line, counted from 1.
    pub first_line: u32,
    /// The last line, counted from 1.
    pub last_line: u32,
}

impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.first_line)
    }
}

/// An error as it travels to the person: what failed, where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Failure {
    /// Whose trouble it is.
    pub class: Class,
    /// What failed and why, in one sentence or a few.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the Dockerfile.
    pub at: Option<SourceRange>,
    /// The lines at that place, each with its number.
    pub excerpt: Vec<(u32, String)>,
    /// The exit code of the step that failed, when a step failed.
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure without a place.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
            at: None,
            excerpt: Vec::new(),
            exit_code: None,
        }
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a place.
    pub fn at(mut self, at: SourceRange) -> Self {
        self.at = Some(at);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
