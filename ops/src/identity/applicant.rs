//! One who has a key pair, and no certificate yet.

use super::certificate::{Leaf, Root};
use super::own::Identity;
use super::subject::SubjectError;
use super::{pems, tls};
use crate::names::ClusterId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;

/// A key pair that waits for its certificate. It is nowhere but in memory.
#[derive(Debug)]
pub struct Applicant {
    key: KeyPair,
}

/// Why a certificate is not this applicant's.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is no key pair.
    #[error("Making a key pair failed: {0}")]
    Key(String),
    /// It says nothing that a member's would.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// It is for another key.
    #[error("The certificate is for another key")]
    OtherKey,
    /// The authority is another cluster's.
    #[error("The certificate is one of the cluster `{leaf}`, its authority's one of `{root}`")]
    Cluster {
        /// Whose member the certificate speaks of.
        leaf: ClusterId,
        /// Whose authority is shown.
        root: ClusterId,
    },
    /// The authority has not signed it.
    #[error("The certificate is not signed by its cluster's authority: {0}")]
    Signature(String),
}

impl Applicant {
    /// Makes a key pair.
    pub fn new() -> Result<Self, AcceptError> {
        let key = KeyPair::generate().map_err(|e| AcceptError::Key(e.to_string()))?;
        Ok(Self { key })
    }

    /// The signing request (PKCS #10, DER): the public key, and that one has the private one.
    pub fn csr(&self) -> Result<Vec<u8>, AcceptError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.key);
        Ok(request.map_err(|e| AcceptError::Key(e.to_string()))?.der().to_vec())
    }

    /// With its certificate and the authority's it becomes an identity. Whether the authority is
    /// the right one was checked before, by the connection that the certificates came by. That
    /// the certificate is good at this moment is not checked: clocks may differ.
    pub fn accept(
        self,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Identity, AcceptError> {
        let leaf = Leaf::read(&certificate)?;
        let root = Root::read(&authority)?;
        if !pems::fits(&self.key, &leaf.public_key) {
            return Err(AcceptError::OtherKey);
        }
        if *leaf.subject.cluster() != root.cluster {
            let leaf = leaf.subject.cluster().clone();
            return Err(AcceptError::Cluster { leaf, root: root.cluster });
        }
        let at = UnixTime::since_unix_epoch(Duration::from_millis(leaf.begins.0));
        tls::client_verifier(&authority)
            .map_err(|e| e.to_string())
            .and_then(|v| v.verify_client_cert(&certificate, &[], at).map_err(|e| e.to_string()))
            .map_err(AcceptError::Signature)?;
        Ok(Identity::new(self.key, certificate, authority, leaf))
    }

    pub(super) fn of(key: KeyPair) -> Self {
        Self { key }
    }
}
