//! The names of farms.

use crate::names::is_name;
use proto::id::IdError;
use std::fmt;

/// What stands for this machine's own farm.
pub const LOCAL: &str = "local";

/// The file that says which farm is in use.
pub const CURRENT: &str = "current";

/// What a person calls a farm that was joined.
///
/// 1 to 64 of `a-z A-Z 0-9 - _ .`, the first one a letter or a digit; not `local`, which is this
/// machine's own, and not `current`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FarmName(String);

impl FarmName {
    /// Checks a text from outside.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let is_taken = text == LOCAL || text == CURRENT;
        if is_name(text, char::is_ascii_alphabetic, "-_.") && !is_taken {
            return Ok(Self(text.to_owned()));
        }
        let expected = "1 to 64 of a-z A-Z 0-9 - _ . ; `local` and `current` are taken";
        Err(IdError { text: text.chars().take(80).collect(), what: "a farm's name", expected })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FarmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["ci", "Lab_2.b-c", "currently"] {
            assert_eq!(FarmName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "local", "current", ".new-x", "..", "-x", "a/b", "a b"] {
            assert!(FarmName::parse(bad).is_err(), "{bad}");
        }
    }
}
