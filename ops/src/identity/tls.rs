//! What connections are opened with: TLS 1.3, both sides known.
//!
//! Servers prove their role by the name that they are dialled by ([`Role::server_name`]), clients
//! show who they are ([`peer_subject`]); both are checked by rustls against the one authority of
//! the cluster. Sessions are not resumed, and nothing is sent before the handshake is over: each
//! connection checks the certificates anew.
//!
//! The one check of our own is [`joining_client_config`]'s, for who knows only the fingerprint of
//! the authority.
//!
//! [`Role::server_name`]: super::Role::server_name

use super::certificate::Leaf;
use super::own::Identity;
use super::subject::{Subject, SubjectError};
use super::token::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::sync::Arc;

/// Whether who dials must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must.
    Required,
    /// It may do without, as one does who is about to join. A certificate that is shown is
    /// checked all the same.
    Optional,
}

/// Why no connection can be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key or a certificate is of no use.
    #[error("Setting up TLS failed: {0}")]
    Config(#[from] Error),
    /// The authority's certificate is of no use.
    #[error("Setting up TLS failed: the authority's certificate cannot be used: {0}")]
    Authority(#[from] VerifierBuilderError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(Arc::new(roots))
}

/// Checks that a member's certificate is signed by the authority.
pub(super) fn client_verifier(
    authority: &CertificateDer<'_>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    Ok(WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider()).build()?)
}

/// What a node serves with: it shows its certificate and the authority's, so that who is about to
/// join can find the authority by its fingerprint. Who dials is checked against `authority`.
pub fn server_config(
    identity: &Identity,
    authority: &CertificateDer<'_>,
    alpn: &[&[u8]],
    clients: ClientAuth,
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider());
    let verifier = match clients {
        ClientAuth::Required => verifier,
        ClientAuth::Optional => verifier.allow_unauthenticated(),
    };
    let chain = vec![identity.certificate().clone(), identity.authority().clone()];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, identity.key())?;
    config.alpn_protocols = protocols(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// What one dials members with. Without an identity one is nobody: only servers with
/// [`ClientAuth::Optional`] let one in.
pub fn client_config(
    identity: Option<&Identity>,
    authority: &CertificateDer<'_>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(authority)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_auth_cert(vec![own.certificate().clone()], own.key())?,
    };
    Ok(without_memory(config, alpn))
}

/// What one dials the coordinator with of whose cluster one knows only a token: a server is
/// believed when it shows an authority of exactly this fingerprint, and a certificate for the name
/// that is dialled which that authority has signed.
pub fn joining_client_config(
    fingerprint: Fingerprint,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let verifier = PinnedAuthority { fingerprint, provider: provider() };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(without_memory(config, alpn))
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

fn without_memory(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Who is at the other end, by the certificates that it showed in a handshake that went well.
pub fn peer_subject(certificates: &[CertificateDer<'_>]) -> Result<Subject, SubjectError> {
    let leaf = certificates.first().ok_or(SubjectError::Missing)?;
    Ok(Leaf::read(leaf)?.subject)
}

/// The authority with this fingerprint among the certificates that a server showed.
pub fn authority_among<'a, 'b>(
    certificates: &'a [CertificateDer<'b>],
    fingerprint: Fingerprint,
) -> Option<&'a CertificateDer<'b>> {
    certificates.iter().find(|certificate| Fingerprint::of(certificate) == fingerprint)
}

/// Believes the authority with this fingerprint, and leaves everything else to rustls.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = authority_among(intermediates, self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        WebPkiServerVerifier::builder_with_provider(roots(authority)?, self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
