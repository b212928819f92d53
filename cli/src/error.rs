//! Errors as people see them, and exit codes.

use crate::print::tell;
use proto::error::{Class, Failure};

/// The exit code of flags that cannot be; clap's own.
pub const WRONG_USAGE: u8 = 2;

/// The exit code of a failure.
pub fn exit_code(failure: &Failure) -> u8 {
    match failure.class {
        Class::Cancelled => 130,
        _ => 1,
    }
}

/// Says on standard error what failed, why, and what to do.
pub fn show(failure: &Failure) {
    tell!("ERROR: {failure}");
    if let Some(hint) = &failure.hint {
        tell!("Hint: {hint}");
    }
}

/// A failure of the person's own input.
pub fn user(message: impl Into<String>) -> Failure {
    Failure::new(Class::User, message)
}

/// A failure to read or write a file.
pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    user(format!("{action} {} failed: {error}", path.display()))
}
