//! A member's own identity.

use super::applicant::Applicant;
use super::certificate::Leaf;
use super::pems::{Keep, KeepError};
use super::subject::Subject;
use proto::id::Millis;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::path::Path;

const KEEP: Keep = Keep {
    name: "identity.pem",
    certificates: 2,
    missing: "join a cluster first (`slipway join TOKEN@HOST`)",
    damaged: "Remove it and join the cluster again (`slipway join TOKEN@HOST`)",
};

/// A key pair with its certificate, and the authority that has signed it.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    leaf: Leaf,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.leaf.subject.uri())
    }
}

impl Identity {
    pub(super) fn new(
        key: KeyPair,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        leaf: Leaf,
    ) -> Self {
        Self { key, certificate, authority, leaf }
    }

    /// The one that was saved in a directory. Whether its certificate is still good is not
    /// checked: [`Identity::expires`] tells.
    pub fn load(dir: &Path) -> Result<Self, KeepError> {
        KEEP.load(dir, |key, certificates| {
            let [certificate, authority] =
                certificates.try_into().map_err(|_| "there are not two certificates")?;
            Applicant::of(key).accept(certificate, authority).map_err(|e| e.to_string())
        })
    }

    /// Keeps it in a directory, readable by its owner alone. The identity that was there before is
    /// replaced in one step.
    pub fn save(&self, dir: &Path) -> Result<(), KeepError> {
        KEEP.save(dir, &self.key, &[&self.certificate, &self.authority])
    }

    /// Who it is.
    pub fn subject(&self) -> &Subject {
        &self.leaf.subject
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate of its cluster's authority.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// Until when it is good.
    pub fn expires(&self) -> Millis {
        self.leaf.expires
    }

    /// Whether two thirds of its life are over: then a new [`Applicant`] asks for the next one.
    pub fn needs_renewal(&self, now: Millis) -> bool {
        let life = self.leaf.expires.since(self.leaf.begins);
        now.since(self.leaf.begins) >= life / 3 * 2
    }

    /// The private key, for connections.
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}
