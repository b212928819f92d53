//! The names that people give: of clusters, of their members, of projects, of farms.

use proto::id::IdError;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// The longest name, in characters.
const NAME_MAX: usize = 64;

/// Whether a text is 1 to 64 characters that are letters, digits or of `others`, and begins with a
/// letter or a digit: so no name is `.`, `..` or looks like a flag.
pub(crate) fn is_name(text: &str, is_letter: fn(&char) -> bool, others: &str) -> bool {
    let fine = |c: char| is_letter(&c) || c.is_ascii_digit() || others.contains(c);
    let begins = text.chars().next().is_some_and(|c| fine(c) && c.is_ascii_alphanumeric());
    begins && text.len() <= NAME_MAX && text.chars().all(fine)
}

macro_rules! names {
    ($(
        $(#[$doc:meta])*
        $name:ident: $what:literal, $letters:expr, $others:literal, $expected:literal;
    )*) => {$(
        $(#[$doc])*
        #[doc = concat!("\n\n", $expected, ", the first one a letter or a digit.")]
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
        )]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
        pub struct $name(String);

        impl $name {
            /// Checks a text from outside.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if is_name(text, $letters, $others) {
                    return Ok(Self(text.to_owned()));
                }
                let text = text.chars().take(80).collect();
                Err(IdError { text, what: $what, expected: $expected })
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A cluster: all machines and people that one authority vouches for.
    ClusterId: "a cluster's name", char::is_ascii_lowercase, "-", "1 to 64 of a-z 0-9 -";
    /// One member of a cluster: a machine's, or a person's.
    NodeName: "a node's name", char::is_ascii_alphabetic, "-_.", "1 to 64 of a-z A-Z 0-9 - _ .";
    /// What a client builds for: the unit of sharing, of quotas and of fairness.
    Project: "a project", char::is_ascii_lowercase, "-_", "1 to 64 of a-z 0-9 - _";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(NAME_MAX);
        for good in ["a", "7", "build-1", long.as_str()] {
            assert_eq!(ClusterId::parse(good).unwrap().as_str(), good);
            assert_eq!(NodeName::parse(good).unwrap().to_string(), good);
            assert!(Project::parse(good).is_ok());
        }
        let longer = "a".repeat(NAME_MAX + 1);
        for bad in ["", ".", "..", "-a", "_a", "a b", "a/b", "ä", "a\n", longer.as_str()] {
            assert!(ClusterId::parse(bad).is_err(), "{bad}");
            assert!(NodeName::parse(bad).is_err(), "{bad}");
            assert!(Project::parse(bad).is_err(), "{bad}");
        }
        assert!(NodeName::parse("Build_1.rack-2").is_ok());
        assert!(ClusterId::parse("Build").is_err());
        assert!(ClusterId::parse("a_b").is_err());
        assert!(Project::parse("a.b").is_err());
    }

    #[test]
    fn the_error_says_what_would_be_right() {
        let error = Project::parse("My Shop").unwrap_err().to_string();
        assert_eq!(error, "`My Shop` is not a project: expected 1 to 64 of a-z 0-9 - _");
    }
}
