//! Why a registry did not give, or take, what it was asked.

use cache::store::StoreError;
use proto::error::Class;

/// Why a registry did not give, or take, what it was asked. `what` is the reference, or a part of
/// what it names; `host` is the registry or mirror that was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A text that names no image.
    #[error("`{text}` is not an image reference: {why}")]
    Reference {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration of registries cannot be used.
    #[error("The configuration of registries is wrong: {0}")]
    Config(String),
    /// The login for a host could not be read.
    #[error("The login for {host} cannot be read: {why}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why not.
        why: String,
    },
    /// The registry has no such thing.
    #[error("{what} was not found at {host}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
    },
    /// The registry wants a login, or does not take the one that it got.
    #[error("{host} does not allow access to {what}{}: {detail}", if *.login { "" } else { " without a login" })]
    Unauthorised {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// Whether a login was used.
        login: bool,
        /// The registry's words.
        detail: String,
    },
    /// The registry has had too many requests.
    #[error("{host} takes no more requests for {what} at present: {detail}")]
    Busy {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry could not be reached, or broke off, however often it was tried.
    #[error("{host} cannot be reached for {what}: {detail}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// What happened.
        detail: String,
    },
    /// The registry refused for a reason of its own.
    #[error("{host} refused {what} with status {status}: {detail}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        detail: String,
    },
    /// What came is not what was asked for.
    #[error("{host} sent wrong bytes for {what}: {detail}")]
    WrongBytes {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// Expected and actual digest or size.
        detail: String,
    },
    /// What came is larger than it may be.
    #[error("{host} sent more than {limit} bytes for {what}")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// How many bytes are read at most.
        limit: u64,
    },
    /// A manifest, index or config that is none, or not of a container image.
    #[error("{what} at {host} is not an image that can be used: {why}")]
    BadManifest {
        /// What was asked for.
        what: String,
        /// Who was asked.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image is not there for this platform.
    #[error("{what} is not there for {wanted}; it is for {}", .have.join(", "))]
    NoPlatform {
        /// The reference.
        what: String,
        /// The platform.
        wanted: String,
        /// The platforms that there are.
        have: Vec<String>,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegistryError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Reference { .. }
            | Self::Config(_)
            | Self::NotFound { .. }
            | Self::BadManifest { .. }
            | Self::TooLarge { .. }
            | Self::NoPlatform { .. } => Class::User,
            Self::Credentials { .. } | Self::Unauthorised { .. } => Class::Denied,
            Self::Busy { .. } | Self::Unreachable { .. } | Self::Refused { .. } => {
                Class::Unavailable
            }
            Self::WrongBytes { .. } => Class::Corrupt,
            Self::Store(e) => e.class(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("Check the name and the tag".into()),
            Self::Unauthorised { login: false, host, .. } => {
                Some(format!("If the image is there at all, log in: docker login {host}"))
            }
            Self::Unauthorised { host, .. } => {
                Some(format!("Check the name, or log in as somebody else: docker login {host}"))
            }
            Self::Busy { .. } => Some("Wait, log in, or set a mirror".into()),
            Self::Unreachable { detail, host, .. } if detail.contains("certificate") => {
                Some(format!("Put the registry's CA into /etc/docker/certs.d/{host}/ca.crt"))
            }
            _ => None,
        }
    }
}
