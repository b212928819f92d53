//! Names of images, as Docker reads them.
//!
//! The grammar is that of the distribution project's `reference` package; `alpine` stands for
//! `docker.io/library/alpine:latest`. Read by hand: the grammar's regular expression takes fifty
//! milliseconds to compile, and a command that names an image takes less than that in all.

use crate::id::{IdError, OciDigest};
use std::fmt;

/// The registry of names that name none.
const HUB: &str = "docker.io";

/// As [`HUB`], in old names.
const HUB_OF_OLD: &str = "index.docker.io";

/// Bytes of a repository's name.
const REPOSITORY_BYTES_MAX: usize = 255;

/// Bytes of a tag.
const TAG_BYTES_MAX: usize = 128;

/// A full name as people know it: without what is understood.
pub fn familiar(reference: &str) -> &str {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    name.strip_prefix("library/").unwrap_or(name)
}

/// An image's name in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The registry: host and port.
    pub registry: String,
    /// The repository at the registry.
    pub repository: String,
    /// The tag. There is a tag, or a digest, or both.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<OciDigest>,
}

/// Why a text is no image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Upper-case letters where there can be none.
    #[error("a repository's name must be lower-case")]
    UpperCase,
    /// A repository that is none.
    #[error(
        "a repository's name has lower-case letters and digits, and between them `.`, `_`, `-` \
         and `/`"
    )]
    Repository,
    /// Longer than registries take.
    #[error("a repository's name has at most {REPOSITORY_BYTES_MAX} characters")]
    TooLong,
    /// A host that is none.
    #[error("`{0}` is no registry's host and port")]
    Registry(String),
    /// A tag that is none.
    #[error(
        "a tag has letters, digits, `_`, and behind the first of them `.` and `-`, at most \
         {TAG_BYTES_MAX} in all"
    )]
    Tag,
    /// A digest that is none.
    #[error(transparent)]
    Digest(#[from] IdError),
}

impl Reference {
    /// Reads a name, as short as people write it.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(OciDigest::parse(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag);
        }
        let (registry, repository) = split(name)?;
        if !repository.split('/').all(is_component) {
            let upper = repository.bytes().any(|b| b.is_ascii_uppercase());
            return Err(if upper { ReferenceError::UpperCase } else { ReferenceError::Repository });
        }
        let repository = match registry == HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        if repository.len() > REPOSITORY_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Registry and repository. What stands first is a registry when it looks like a host: by a dot, a
/// port, an upper-case letter, or as `localhost`.
fn split(name: &str) -> Result<(String, &str), ReferenceError> {
    let is_host = |first: &str| {
        let marked = |c: char| c == '.' || c == ':' || c.is_ascii_uppercase();
        first == "localhost" || first.contains(marked)
    };
    match name.split_once('/').filter(|(first, _)| is_host(first)) {
        None => Ok((HUB.to_owned(), name)),
        Some((HUB_OF_OLD, repository)) => Ok((HUB.to_owned(), repository)),
        Some((host, repository)) if is_registry(host) => Ok((host.to_owned(), repository)),
        Some((host, _)) => Err(ReferenceError::Registry(host.chars().take(100).collect())),
    }
}

fn is_registry(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    // An IPv6 address stands in brackets, as in URLs.
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_fine && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let hyphen_outside = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !hyphen_outside && label.bytes().all(inside)
    };
    port.is_none_or(is_port) && name.split('.').all(is_label)
}

/// Runs of lower-case letters and digits with separators between them: `.`, `_`, `__` or hyphens.
fn is_component(text: &str) -> bool {
    let is_run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    let ends_fine = ends.iter().all(|end| end.is_some_and(is_run));
    let is_separator = |separator: &str| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    };
    ends_fine && text.split(|c: char| c.is_ascii() && is_run(c as u8)).all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first_fine = text.bytes().next().is_some_and(is_word);
    let all_fine = text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-');
    first_fine && all_fine && text.len() <= TAG_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> Result<String, ReferenceError> {
        Reference::parse(text).map(|reference| reference.to_string())
    }

    #[test]
    fn short_names_are_made_full() {
        let zeros = "0".repeat(64);
        for (text, want) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("me/app", "docker.io/me/app:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("docker.io/app", "docker.io/library/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("quay.io/coreos/etcd:v3", "quay.io/coreos/etcd:v3"),
            ("Host/app", "Host/app:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("a__b/c--d/e.f_g:_T-1.x", "docker.io/a__b/c--d/e.f_g:_T-1.x"),
        ] {
            assert_eq!(full(text).as_deref(), Ok(want));
            assert_eq!(full(want).as_deref(), Ok(want), "a full name stays as it is");
        }
        let digest = format!("alpine@sha256:{zeros}");
        assert_eq!(full(&digest), Ok(format!("docker.io/library/{digest}")));
        let both = format!("a/b:1@sha256:{zeros}");
        assert_eq!(full(&both), Ok(format!("docker.io/{both}")));
    }

    #[test]
    fn what_is_no_name_says_why() {
        use ReferenceError as E;
        assert_eq!(full(""), Err(E::Empty));
        assert_eq!(full("Alpine"), Err(E::UpperCase));
        assert_eq!(full("x:"), Err(E::Tag));
        assert_eq!(full(&format!("x:{}", "t".repeat(129))), Err(E::Tag));
        assert_eq!(full(&"x".repeat(300)), Err(E::TooLong));
        assert_eq!(full("ho_st.com/x"), Err(E::Registry("ho_st.com".into())));
        assert_eq!(full("host:port/x"), Err(E::Registry("host:port".into())));
        for bad in ["a b", "-a", "a-", "a..b", "a___b", "a._b", "/a", "a/", "a//b", "x:é", "é"] {
            assert!(full(bad).is_err(), "{bad}");
        }
        for bad in ["a@sha256:0", &format!("a@sha512:{}", "0".repeat(128)), "a@"] {
            assert!(matches!(full(bad), Err(E::Digest(_))), "{bad}");
        }
    }
}
