//! `--chmod` of COPY and ADD.

use super::super::text::shown;

/// A mode for everything that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// All permission bits: at most `0o7777`.
    Octal(u16),
    /// Changes, in the syntax of chmod(1): `u=rwX,go-w`.
    Symbolic(String),
}

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChmodError {
    /// Digits, but not octal ones, or too many.
    #[error("--chmod: the mode `{0}` is not an octal number of 0 to 07777")]
    Octal(String),
    /// Neither digits nor changes.
    #[error("--chmod: the mode `{0}` is neither octal (0755) nor symbolic (u=rwX,go=rX)")]
    Symbolic(String),
}

impl Chmod {
    /// Reads a mode.
    pub fn parse(text: &str) -> Result<Self, ChmodError> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let octal = text.bytes().all(|b| b.is_ascii_digit());
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o7777);
            return bits
                .and_then(|bits| u16::try_from(bits).ok())
                .map(Self::Octal)
                .ok_or_else(|| ChmodError::Octal(shown(text)));
        }
        if text.split(',').all(is_clause) {
            Ok(Self::Symbolic(text.to_owned()))
        } else {
            Err(ChmodError::Symbolic(shown(text)))
        }
    }
}

/// `[augo]*` and one or more of `[+-=][rwxXstugo]*`.
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['a', 'u', 'g', 'o']);
    actions.starts_with(['+', '-', '='])
        && actions.chars().all(|c| "+-=rwxXstugo".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        for (text, bits) in [("0", 0), ("755", 0o755), ("0755", 0o755), ("7777", 0o7777)] {
            assert_eq!(Chmod::parse(text), Ok(Chmod::Octal(bits)), "{text}");
        }
        for bad in ["999", "17777", "0x1", "7_7", "99999999999999999999"] {
            assert!(matches!(Chmod::parse(bad), Err(ChmodError::Octal(_))), "{bad}");
        }
        for good in ["u=rwX,go=rX", "+x", "a-w+x", "=", "u=g", "go+s-t"] {
            assert_eq!(Chmod::parse(good), Ok(Chmod::Symbolic(good.to_owned())), "{good}");
        }
        for bad in ["", "u", "u+z", "x", "u+x,", ",u+x", "rw", "u +x", "-1"] {
            assert!(matches!(Chmod::parse(bad), Err(ChmodError::Symbolic(_))), "{bad}");
        }
    }
}
