//! Why settings cannot be used.

use super::rows::Origin;
use std::io;
use std::path::PathBuf;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("Reading the settings in {} failed: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("The settings in {} are not valid: {detail}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// A key that is none.
    #[error("The setting `{key}` ({origin}) is not known{}", hint(nearest))]
    Unknown {
        /// The key.
        key: String,
        /// Where it is.
        origin: Origin,
        /// The known key that is nearest to it, when one is near.
        nearest: Option<String>,
    },
    /// A value that is none.
    #[error("The setting `{key}` ({origin}) cannot be `{value}`: expected {expected}")]
    Value {
        /// Which setting.
        key: String,
        /// Where it is.
        origin: Origin,
        /// What it is.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Nowhere to keep anything.
    #[error("There is no home directory; set SLIPWAY_HOME to a directory")]
    NoHome,
    /// No name for this node.
    #[error(
        "The name of this host, `{host}`, cannot be the name of a node: expected 1 to 64 of \
         a-z A-Z 0-9 - _ . ; set `node.name`"
    )]
    NoName {
        /// The host's name.
        host: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}
