//! What certificates and signing requests say.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::subject::{SCHEME, Subject, SubjectError};
use crate::names::ClusterId;
use proto::id::Millis;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::request::CertReq;
use x509_cert::time::Time;

/// Bytes of a certificate or a signing request. Ours have fewer than 1500.
const DER_BYTES_MAX: usize = 16 << 10;

/// `id-ecPublicKey`, RFC 5480.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1`, RFC 5480.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `ecdsa-with-SHA256`, RFC 5758.
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// The URI name of an authority's certificate: its cluster, and nothing else.
pub fn authority_uri(cluster: &ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// A member's certificate.
pub struct Leaf {
    /// Whom it speaks of.
    pub subject: Subject,
    /// From when on it is good.
    pub begins: Millis,
    /// Until when.
    pub expires: Millis,
    /// The member's public key, as DER.
    pub public_key: Vec<u8>,
}

impl Leaf {
    /// Reads a certificate, whoever has signed it.
    pub fn read(der: &[u8]) -> Result<Self, SubjectError> {
        let (certificate, names) = read(der)?;
        let uris: Vec<&str> = names.uris.iter().map(String::as_str).collect();
        let dns: Vec<&str> = names.dns.iter().map(String::as_str).collect();
        let subject = Subject::from_names(&uris, &dns)?;
        let (begins, expires) = times(&certificate);
        Ok(Self { subject, begins, expires, public_key: public_key(&certificate)? })
    }
}

/// An authority's certificate.
pub struct Root {
    /// The cluster.
    pub cluster: ClusterId,
    /// Until when it is good.
    pub expires: Millis,
    /// The authority's public key, as DER.
    pub public_key: Vec<u8>,
}

impl Root {
    /// Reads a certificate.
    pub fn read(der: &[u8]) -> Result<Self, SubjectError> {
        let unreadable = |detail: &str| SubjectError::Unreadable(detail.to_owned());
        let (certificate, names) = read(der)?;
        let constraints = certificate.tbs_certificate().get_extension::<BasicConstraints>();
        if !matches!(constraints, Ok(Some((true, BasicConstraints { ca: true, .. })))) {
            return Err(unreadable("it is not an authority's"));
        }
        let cluster = match (&names.uris[..], &names.dns[..]) {
            ([uri], []) => uri.strip_prefix(SCHEME).and_then(|c| ClusterId::parse(c).ok()),
            _ => None,
        };
        let cluster =
            cluster.ok_or_else(|| unreadable("it is not that of a cluster's authority"))?;
        let (_, expires) = times(&certificate);
        Ok(Self { cluster, expires, public_key: public_key(&certificate)? })
    }
}

#[derive(Default)]
struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
}

fn read(der: &[u8]) -> Result<(Certificate, Names), SubjectError> {
    if der.len() > DER_BYTES_MAX {
        let detail = format!("it has more than {DER_BYTES_MAX} bytes");
        return Err(SubjectError::Unreadable(detail));
    }
    let unreadable = |e: x509_cert::der::Error| SubjectError::Unreadable(e.to_string());
    let certificate = Certificate::from_der(der).map_err(unreadable)?;
    let alternative = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let mut names = Names::default();
    for name in alternative.map_err(unreadable)?.map(|(_, names)| names.0).unwrap_or_default() {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => names.uris.push(uri.to_string()),
            GeneralName::DnsName(name) => names.dns.push(name.to_string()),
            _ => return Err(SubjectError::OtherName),
        }
    }
    Ok((certificate, names))
}

fn times(certificate: &Certificate) -> (Millis, Millis) {
    let validity = certificate.tbs_certificate().validity();
    let millis = |time: Time| Millis(time.to_unix_duration().as_secs().saturating_mul(1000));
    (millis(validity.not_before), millis(validity.not_after))
}

fn public_key(certificate: &Certificate) -> Result<Vec<u8>, SubjectError> {
    let key = certificate.tbs_certificate().subject_public_key_info().to_der();
    key.map_err(|e| SubjectError::Unreadable(e.to_string()))
}

/// The day and second of a certificate that `at` is in; none beyond the year 9999.
pub fn date(at: Millis) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.0 / 1000).ok()?).ok()
}

/// The public key of a signing request whose maker has the private one.
pub struct RequestedKey(Vec<u8>);

/// Why a signing request is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It cannot be read.
    #[error("The signing request cannot be read: {0}")]
    Unreadable(String),
    /// Another kind of key.
    #[error("The signing request is for another kind of key than ECDSA P-256 with SHA-256")]
    Key,
    /// Whoever made it has not the private key.
    #[error("The signing request is not signed with the key that it is for")]
    Signature,
}

impl RequestedKey {
    /// Reads a signing request (PKCS #10). Of what it says only the key is taken.
    pub fn read(der: &[u8]) -> Result<Self, RequestError> {
        let unreadable = |e: x509_cert::der::Error| RequestError::Unreadable(e.to_string());
        if der.len() > DER_BYTES_MAX {
            let detail = format!("it has more than {DER_BYTES_MAX} bytes");
            return Err(RequestError::Unreadable(detail));
        }
        let request = CertReq::from_der(der).map_err(unreadable)?;
        let key = &request.info.public_key;
        let curve = key.algorithm.parameters.as_ref();
        let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let kind = (key.algorithm.oid, curve, request.algorithm.oid);
        if kind != (EC_PUBLIC_KEY, Some(P256), ECDSA_SHA256) {
            return Err(RequestError::Key);
        }
        let point = key.subject_public_key.as_bytes().ok_or(RequestError::Key)?;
        let signature = request.signature.as_bytes().ok_or(RequestError::Signature)?;
        let said = request.info.to_der().map_err(unreadable)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(&said, signature)
            .map_err(|_| RequestError::Signature)?;
        Ok(Self(point.to_vec()))
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
