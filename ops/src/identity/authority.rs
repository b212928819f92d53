//! What vouches for the members of a cluster.

use super::certificate::{self, RequestError, RequestedKey, Root};
use super::pems::{self, Keep, KeepError};
use super::subject::{Role, Subject};
use super::token::Fingerprint;
use super::{AUTHORITY_LIFE, CLOCK_SKEW};
use crate::names::ClusterId;
use proto::id::Millis;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Bytes of a serial number. RFC 5280 takes 20.
const SERIAL_BYTES: usize = 16;

const KEEP: Keep = Keep {
    name: "authority.pem",
    certificates: 1,
    missing: "make a cluster first (`slipway farm init`)",
    damaged: "Restore it from a backup; without it no member can join or renew",
};

/// The key that signs the certificates of a cluster's members. Whoever has it is everybody.
pub struct Authority {
    root: Root,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({} {})", self.root.cluster, self.fingerprint())
    }
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
#[error("Making an authority failed: {0}")]
pub struct AuthorityError(String);

/// Why a certificate was not signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// For another cluster.
    #[error("The authority of the cluster `{own}` does not sign for `{asked}`")]
    Cluster {
        /// Whose authority this is.
        own: ClusterId,
        /// For which one a certificate was asked for.
        asked: ClusterId,
    },
    /// The request is not one.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The authority is too old.
    #[error("The cluster's authority has expired; make a new cluster (`slipway farm init`)")]
    Expired,
    /// The clock is wrong, or the signer failed.
    #[error("Signing failed: {0}")]
    Failed(String),
}

impl Authority {
    /// A new authority, with a key of its own.
    pub fn create(cluster: &ClusterId, now: Millis) -> Result<Self, AuthorityError> {
        let failed = |e: rcgen::Error| AuthorityError(e.to_string());
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = issuer_params(cluster);
        let uri = certificate::authority_uri(cluster);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(failed)?)];
        set_life(&mut params, now, now.0.saturating_add(AUTHORITY_LIFE.as_millis() as u64))
            .map_err(AuthorityError)?;
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Self::new(key, certificate).map_err(AuthorityError)
    }

    /// The one that was saved in a directory.
    pub fn load(dir: &Path) -> Result<Self, KeepError> {
        KEEP.load(dir, |key, certificates| {
            let certificate = certificates.into_iter().next();
            Self::new(key, certificate.ok_or("there is no certificate")?)
        })
    }

    /// Keeps it in a directory, readable by its owner alone.
    pub fn save(&self, dir: &Path) -> Result<(), KeepError> {
        KEEP.save(dir, self.issuer.key(), &[&self.certificate])
    }

    fn new(key: KeyPair, certificate: CertificateDer<'static>) -> Result<Self, String> {
        let root = Root::read(&certificate).map_err(|e| e.to_string())?;
        if !pems::fits(&key, &root.public_key) {
            return Err("the key is not the certificate's".to_owned());
        }
        let issuer = Issuer::new(issuer_params(&root.cluster), key);
        Ok(Self { root, certificate, issuer })
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.root.cluster
    }

    /// Its certificate, which all members trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate: what tokens carry.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Until when it can sign.
    pub fn expires(&self) -> Millis {
        self.root.expires
    }

    /// A certificate that says that whoever has the key of a signing request (PKCS #10, DER) is
    /// this subject, for so long. It ends with the authority at the latest.
    ///
    /// Nothing of the request but the key is taken; who asks, and whether this is its subject, was
    /// decided before.
    pub fn sign(
        &self,
        csr: &[u8],
        subject: &Subject,
        ttl: Duration,
        now: Millis,
    ) -> Result<CertificateDer<'static>, SignError> {
        if subject.cluster() != self.cluster() {
            let (own, asked) = (self.cluster().clone(), subject.cluster().clone());
            return Err(SignError::Cluster { own, asked });
        }
        let key = RequestedKey::read(csr)?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let end = now.0.saturating_add(ttl).min(self.expires().0);
        if end <= now.0 {
            return Err(SignError::Expired);
        }
        let failed = |e: rcgen::Error| SignError::Failed(e.to_string());
        let mut params = leaf_params(subject).map_err(failed)?;
        set_life(&mut params, now, end).map_err(SignError::Failed)?;
        params.serial_number = Some(serial(&key, &params, subject));
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(certificate.der().clone())
    }
}

/// What the certificates of an authority and of those that it signs must have in common.
fn issuer_params(cluster: &ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Slipway cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What a member's certificate says, but for how long.
fn leaf_params(subject: &Subject) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.name().as_str());
    params.subject_alt_names = vec![SanType::URI(subject.uri().try_into()?)];
    for name in subject.dns_names() {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    // A client does not serve, whatever its names are.
    if !subject.has(Role::Client) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn set_life(params: &mut CertificateParams, now: Millis, end: u64) -> Result<(), String> {
    let beyond = || format!("the time {} ms after 1970 is in no calendar", now.0);
    let begin = now.0.saturating_sub(CLOCK_SKEW.as_millis() as u64);
    params.not_before = certificate::date(Millis(begin)).ok_or_else(beyond)?;
    params.not_after = certificate::date(Millis(end)).ok_or_else(beyond)?;
    Ok(())
}

/// A number of its own for each certificate that differs in anything.
fn serial(key: &RequestedKey, params: &CertificateParams, subject: &Subject) -> SerialNumber {
    let mut hasher = Sha256::new();
    hasher.update(key.der_bytes());
    hasher.update(params.not_before.unix_timestamp().to_be_bytes());
    hasher.update(params.not_after.unix_timestamp().to_be_bytes());
    hasher.update(subject.uri());
    let mut bytes = hasher.finalize()[..SERIAL_BYTES].to_vec();
    // Positive, and as long as it is.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes)
}
