//! Who is who in a cluster.
//!
//! A cluster has one [`Authority`], a key that signs certificates. Each member has an [`Identity`]:
//! a key pair that was made where it is used and never leaves there, and a certificate that says
//! who the member is ([`Subject`]), for a month at most. A [`Token`] is what a new member has
//! before it has an identity: short-lived, and good for a certificate of one role. [`tls`] makes
//! from these what connections are opened with.
//!
//! How one joins: an [`Applicant`] makes a key pair and a signing request; the coordinator, which
//! the applicant knows by the fingerprint in its token, checks the token's [`TokenRecord`] and
//! lets the authority sign; with the certificate the applicant becomes an identity. Renewing is
//! the same, with the certificate that is ending in the token's place.
//!
//! Certificates are not revoked: they end soon, and a member that was removed gets no new one.
//! What a member that was removed may do until then is the coordinator's to refuse.

mod applicant;
mod authority;
mod certificate;
mod own;
mod pems;
mod subject;
pub mod tls;
mod token;

#[cfg(test)]
mod tests;

pub use crate::names::{ClusterId, NodeName, Project};
pub use applicant::{AcceptError, Applicant};
pub use authority::{Authority, AuthorityError, SignError};
pub use certificate::RequestError;
pub use own::Identity;
pub use pems::KeepError;
pub use subject::{Grant, Role, RolesError, Subject, SubjectError};
pub use token::{
    Fingerprint, RANDOM_BYTES, Right, Token, TokenError, TokenId, TokenParseError, TokenRecord,
};

use std::time::Duration;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a member's certificate is good, when nothing else is asked for.
pub const CERTIFICATE_LIFE: Duration = DAY.saturating_mul(30);

/// How long an authority's certificate is good.
pub const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);

/// How far certificates begin before they are made: clocks of members may be so far apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
