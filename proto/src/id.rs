//! The names of things: one newtype for each kind of identity.

use crate::canon::Canon;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// A text that should have been an id of some kind, and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: expected {expected}")]
pub struct IdError {
    /// The text as given (cut to 80 characters).
    pub text: String,
    /// What it was meant to be.
    pub what: &'static str,
    /// The form that would have been right.
    pub expected: &'static str,
}

impl IdError {
    fn new(text: &str, what: &'static str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), what, expected }
    }
}

fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

macro_rules! hash_id {
    ($($(#[$doc:meta])* $name:ident: $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads 64 lower-case hexadecimal digits.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                parse_hex32(text)
                    .map(Self)
                    .ok_or_else(|| IdError::new(text, $what, "64 hexadecimal digits"))
            }

            /// The first twelve digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    )*};
}

hash_id! {
    /// BLAKE3-256 of some bytes: the name of a blob.
    BlobId: "a blob id";
    /// The name of a directory's entries: the hash of its canonical encoding ([`crate::tree`]).
    TreeId: "a tree id";
    /// What a directory holds, without times and without what belongs to the host
    /// ([`crate::tree::content_digest`]).
    ContentDigest: "a content digest";
    /// A step's definition and the definitions of all that it needs. Known before anything runs.
    DefKey: "a definition key";
    /// A step's definition and the content of its inputs as they really are. Names its record.
    ContentKey: "a content key";
    /// What a step is like, apart from its inputs: by it is known how long it takes.
    ShapeKey: "a shape key";
}

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for BlobId {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// The name of a whole root: a node with the one entry `/`, so that the root directory's own
/// owner and mode have a name too ([`crate::tree::Root`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]
pub struct RootId(pub TreeId);

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootId({})", self.0.short())
    }
}

/// SHA-256 of some bytes, as OCI names manifests, configs and layers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord, Hash))]
pub struct OciDigest([u8; 32]);

impl OciDigest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        text.strip_prefix("sha256:")
            .and_then(parse_hex32)
            .map(Self)
            .ok_or_else(|| IdError::new(text, "a digest", "`sha256:` and 64 hexadecimal digits"))
    }

    /// The hexadecimal digits alone, as they name files in an OCI layout.
    pub fn hex(&self) -> String {
        self.to_string()["sha256:".len()..].to_owned()
    }

    /// The first twelve digits, as Docker shows image ids.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for OciDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for OciDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident: $what:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// One to 64 characters of `a-z A-Z 0-9 - _ .`.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
        pub struct $name(String);

        impl $name {
            /// Checks a text from outside.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
                    return Err(IdError::new(text, $what, "1 to 64 of a-z A-Z 0-9 - _ ."));
                }
                Ok(Self(text.to_owned()))
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

text_id! {
    /// One build, from its submission to its end.
    BuildId: "a build id";
    /// One worker, for as long as its identity on disk lives.
    WorkerId: "a worker id";
    /// One cache node, by the name in its certificate.
    CacheId: "the name of a cache node";
}

/// One right to run one step, counted by the coordinator. Never used twice.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Archive,
    Serialize,
    Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct LeaseEpoch(pub u64);

impl fmt::Display for LeaseEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Archive,
    Serialize,
    Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Millis(pub u64);

impl Millis {
    /// How long after `earlier` this is; zero when it is not later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Who may use and who may write a record: `trusted`, `branch/<name>` or `dev/<name>`, of one
/// project. Projects share nothing. The project `default` is not written; another one stands before
/// a colon: `web:dev/ann`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Scope(String);

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The project of those who say none.
pub const DEFAULT_PROJECT: &str = "default";

const TRUSTED: &str = "trusted";

impl Scope {
    /// The scope that every other one of the default project can read.
    pub fn trusted() -> Self {
        Self(TRUSTED.to_owned())
    }

    /// Checks a text from outside.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let wrong = || {
            let expected =
                "`trusted`, `branch/NAME` or `dev/NAME`, with `PROJECT:` before it or not";
            IdError::new(text, "a scope", expected)
        };
        let (project, own) = text.split_once(':').unwrap_or((DEFAULT_PROJECT, text));
        let in_project = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let is_project = !project.is_empty() && project.len() <= 64;
        if !is_project || !project.chars().all(in_project) {
            return Err(wrong());
        }
        let named = own.strip_prefix("branch/").or_else(|| own.strip_prefix("dev/"));
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        match named {
            Some(n) if !n.is_empty() && n.len() <= 128 && n.chars().all(fine) => {}
            None if own == TRUSTED => {}
            _ => return Err(wrong()),
        }
        Ok(Self::of(project, own))
    }

    fn of(project: &str, own: &str) -> Self {
        match project {
            DEFAULT_PROJECT => Self(own.to_owned()),
            project => Self(format!("{project}:{own}")),
        }
    }

    /// The project.
    pub fn project(&self) -> &str {
        self.0.split_once(':').map_or(DEFAULT_PROJECT, |(project, _)| project)
    }

    /// The scope without its project: `dev/ann`.
    pub fn own(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(_, own)| own)
    }

    /// The trusted scope of the same project: what this one reads where it has nothing itself.
    pub fn base(&self) -> Self {
        Self::of(self.project(), TRUSTED)
    }

    /// Whether whoever has this scope may work in `other`: the same one, one whose name goes on from
    /// its own (`dev/ann/fix` from `dev/ann`), or, for who is trusted, any of the project.
    pub fn admits(&self, other: &Self) -> bool {
        let goes_on = || {
            let rest = other.own().strip_prefix(self.own());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let is_trusted = self.own() == TRUSTED;
        self.project() == other.project() && (is_trusted || self == other || goes_on())
    }

    /// The same scope of another project, whose name was checked.
    pub fn in_project(&self, project: &str) -> Self {
        Self::of(project, self.own())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Canon<'_> {
    /// Adds an id or a digest.
    pub fn hash32(&mut self, bytes: &[u8; 32]) -> &mut Self {
        self.raw(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        let id = BlobId::of(b"abc");
        assert_eq!(BlobId::parse(&id.to_string()), Ok(id));
        assert!(BlobId::parse(&id.to_string().to_uppercase()).is_err());
        let digest = OciDigest::from_bytes([7; 32]);
        assert_eq!(OciDigest::parse(&digest.to_string()), Ok(digest));
        assert!(OciDigest::parse(&digest.hex()).is_err());
    }

    #[test]
    fn scopes_are_checked() {
        for good in ["trusted", "branch/main", "dev/ann", "branch/feature/x", "web:dev/ann"] {
            assert_eq!(Scope::parse(good).unwrap().as_str(), good);
        }
        let scope = Scope::parse("web:dev/ann").unwrap();
        assert_eq!((scope.project(), scope.own()), ("web", "dev/ann"));
        assert_eq!(scope.base().as_str(), "web:trusted");
        assert_eq!(Scope::parse("default:trusted"), Ok(Scope::trusted()));
        assert_eq!(scope.in_project("default").as_str(), "dev/ann");
        let admits =
            |from: &str, to: &str| Scope::parse(from).unwrap().admits(&Scope::parse(to).unwrap());
        for (from, to) in [
            ("trusted", "trusted"),
            ("trusted", "branch/pr-1"),
            ("web:trusted", "web:dev/ann"),
            ("branch/pr", "branch/pr/17"),
            ("dev/ann", "dev/ann"),
        ] {
            assert!(admits(from, to), "{from} {to}");
        }
        for (from, to) in [
            ("dev/ann", "trusted"),
            ("dev/ann", "dev/anna"),
            ("branch/pr/17", "branch/pr"),
            ("trusted", "web:trusted"),
            ("web:trusted", "dev/ann"),
        ] {
            assert!(!admits(from, to), "{from} {to}");
        }
        for bad in ["", "main", "branch/", "dev/a b", "trusted/x", ":trusted", "A:trusted", "a:b:c"]
        {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
    }
}
