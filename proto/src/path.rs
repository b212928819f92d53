//! Names and paths that were checked once and stay checked.

use crate::limit;
use rkyv::{Archive, Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;

/// Why some bytes are no file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("A file name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("`{0}` is not a file name")]
    Dots(&'static str),
    /// A slash or a NUL inside.
    #[error("The file name `{0}` contains a `/` or a NUL byte")]
    Separator(String),
    /// Longer than any file system takes.
    #[error("A file name of {0} bytes is longer than {max}", max = limit::NAME_BYTES_MAX)]
    TooLong(usize),
}

/// One component of a path: not empty, not `.` or `..`, without `/` and NUL. Bytes, not text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct FileName(Vec<u8>);

impl FileName {
    /// Checks bytes from outside.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            b"" => Err(NameError::Empty),
            b"." => Err(NameError::Dots(".")),
            b".." => Err(NameError::Dots("..")),
            _ if bytes.len() > limit::NAME_BYTES_MAX => Err(NameError::TooLong(bytes.len())),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => {
                Err(NameError::Separator(String::from_utf8_lossy(bytes).into_owned()))
            }
            _ => Ok(Self(bytes.to_vec())),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for FileName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// The components of a path inside a root, with `.` and empty ones dropped and `..` clamped to the
/// root, as `cd` does at `/`.
///
/// This is for names *inside trees*, where it is exact. A path on a host's disk is never resolved
/// by this: the kernel does that, with `openat2`.
pub fn clamp(path: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}

/// Joins as `path.Join("/", base, path)` does: an absolute `path` replaces `base`; the result is
/// absolute and clean.
pub fn join_absolute(base: &[u8], path: &[u8]) -> Vec<u8> {
    let whole = if path.starts_with(b"/") { path.to_vec() } else { [base, b"/", path].concat() };
    let mut out = Vec::with_capacity(whole.len() + 1);
    for part in clamp(&whole) {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 300]] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(FileName::new(b"a\xff").unwrap().as_bytes(), b"a\xff");
    }

    #[test]
    fn paths_stay_inside() {
        let join = |a: &str, b: &str| {
            String::from_utf8(join_absolute(a.as_bytes(), b.as_bytes())).unwrap()
        };
        assert_eq!(join("/a", "b/./c"), "/a/b/c");
        assert_eq!(join("/a", "../../.."), "/");
        assert_eq!(join("/a", "/b//c/"), "/b/c");
        assert_eq!(join("", "x"), "/x");
    }
}
