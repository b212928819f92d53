use super::dial::{Dialer, Target};
use super::{ALPN, Endpoint, Keys};
use crate::net::{Dial, NetError};
use bytes::Bytes;
use proto::error::Failure;
use proto::wire::build::ToClient;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// A cluster's authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let chain = vec![certificate.der().clone()];
        (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server(ca: &Authority, alpn: &[u8]) -> rustls::ServerConfig {
    let (chain, key) = ca.identity("cache.test");
    let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider());
    let config = rustls::ServerConfig::builder_with_provider(provider());
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let config = config.with_client_cert_verifier(verifier.build().unwrap());
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

fn client(ca: &Authority, identity: Option<Identity>) -> Keys {
    let config = rustls::ClientConfig::builder_with_provider(provider());
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let config = config.with_root_certificates(ca.roots());
    let mut config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Keys::new(config).unwrap()
}

fn listening(tls: rustls::ServerConfig) -> Endpoint {
    Endpoint::server("127.0.0.1:0".parse().unwrap(), tls, &[7; 32]).unwrap()
}

fn dialer(to: &Endpoint, keys: &Keys, name: &str) -> Dialer {
    let target = Target {
        address: to.address().unwrap().to_string(),
        name: name.to_owned(),
        called: "the cache".to_owned(),
    };
    Dialer::new(&Endpoint::client().unwrap(), keys, target, 1)
}

/// Sends back all that comes.
async fn echo(endpoint: Endpoint) {
    while let Some(known) = endpoint.accept().await {
        let Some(caller) = known.await else { continue };
        assert_eq!(caller.certificates().unwrap().len(), 1);
        tokio::spawn(async move {
            while let Some(mut stream) = caller.accept().await {
                while let Ok(Some((message, payload))) = stream.from.next::<ToClient>().await {
                    stream.to.send_with(&message, &[payload]).await.unwrap();
                }
            }
        });
    }
}

async fn round_trip(dialer: &Dialer) -> Result<(), NetError> {
    let mut stream = dialer.dial().await?;
    let message = ToClient::Accepted(proto::id::BuildId::parse("b").unwrap(), 1);
    for bytes in [0, 7, 3 << 20] {
        let payload = Bytes::from(vec![7u8; bytes]);
        stream.to.send_with(&message, std::slice::from_ref(&payload)).await?;
        let (back, got) = stream.from.expect::<ToClient>().await?;
        assert!(back == message && got == payload);
    }
    stream.to.close().await
}

async fn refusal(dialer: Dialer) -> Failure {
    match round_trip(&dialer).await {
        Err(NetError::Refused(failure)) => failure,
        other => panic!("not refused: {:?}", other.err()),
    }
}

#[tokio::test]
async fn frames_come_back_as_they_went() {
    let ca = Authority::new();
    let endpoint = listening(server(&ca, ALPN));
    let echoing = tokio::spawn(echo(endpoint.clone()));
    let dialer = dialer(&endpoint, &client(&ca, Some(ca.identity("w"))), "cache.test");
    round_trip(&dialer).await.unwrap();
    round_trip(&dialer).await.unwrap();
    assert_eq!(endpoint.connections(), 1, "both streams went over one connection");
    endpoint.close().await;
    echoing.await.unwrap();
}

/// A dialler that has to prove where it is has a name that nobody looked up among those in use.
#[test]
fn names_of_connections_do_not_come_twice() {
    let mut ids = super::connection_ids();
    let names: HashSet<_> = (0..30_000).map(|_| ids.generate_cid()).collect();
    assert_eq!(names.len(), 30_000);
}

/// Beyond so many handshakes a dialler has to prove where it is; that it has proved it, and that those
/// before it have nothing to do with it, lets it in.
#[tokio::test]
async fn many_at_once_get_through() {
    const MANY: usize = super::listen::TRUSTING_MAX + 9;
    let ca = Authority::new();
    let endpoint = listening(server(&ca, ALPN));
    let (keys, from) = (client(&ca, Some(ca.identity("w"))), Endpoint::client().unwrap());
    let target = dialer(&endpoint, &keys, "cache.test").target().clone();
    let mut dialling = JoinSet::new();
    for _ in 0..MANY {
        let dialer = Dialer::new(&from, &keys, target.clone(), 1);
        dialling.spawn(async move { dialer.dial().await.map(|stream| (dialer, stream)) });
    }
    let mut waiting = Vec::new();
    while waiting.len() < MANY {
        waiting.push(endpoint.accept().await.unwrap());
        assert_eq!(endpoint.half_open(), waiting.len());
    }
    let callers: Vec<_> = futures::future::join_all(waiting).await.into_iter().flatten().collect();
    assert_eq!(callers.len(), MANY);
    let proved = callers.iter().filter(|caller| caller.has_proved_address).count();
    assert_eq!(proved, MANY - super::listen::TRUSTING_MAX - 1);
    let dialled = dialling.join_all().await;
    assert!(dialled.iter().all(Result::is_ok));
    assert_eq!((endpoint.connections(), endpoint.half_open()), (MANY, 0));
    // What is open already is no reason to ask the next one.
    let dialer = Dialer::new(&from, &keys, target, 1);
    let (stream, caller) =
        tokio::join!(dialer.dial(), async { endpoint.accept().await.unwrap().await });
    assert!(stream.is_ok() && !caller.unwrap().has_proved_address);
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let ca = Authority::new();
    let endpoint = listening(server(&ca, ALPN));
    let address = endpoint.address().unwrap();
    let first = tokio::spawn(echo(endpoint.clone()));
    let dialer = dialer(&endpoint, &client(&ca, Some(ca.identity("w"))), "cache.test");
    round_trip(&dialer).await.unwrap();
    endpoint.close().await;
    drop(endpoint);
    first.await.unwrap();
    let again = loop {
        // The socket is closed by a task of its own.
        match Endpoint::server(address, server(&ca, ALPN), &[7; 32]) {
            Ok(endpoint) => break endpoint,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let second = tokio::spawn(echo(again.clone()));
    round_trip(&dialer).await.unwrap();
    again.close().await;
    second.await.unwrap();
}

#[tokio::test]
async fn whoever_cannot_prove_who_it_is_is_told_what_to_do() {
    let (ca, other) = (Authority::new(), Authority::new());
    let endpoint = listening(server(&ca, ALPN));
    let _echoing = tokio::spawn(echo(endpoint.clone()));
    let said = async |keys: Keys, name: &str| refusal(dialer(&endpoint, &keys, name)).await;

    let none = said(client(&ca, None), "cache.test").await;
    assert!(none.message.contains("it wants a certificate"), "{none:?}");
    assert!(none.hint.unwrap().contains("slipway join"));

    let strange = said(client(&ca, Some(other.identity("w"))), "cache.test").await;
    assert!(strange.message.contains("does not accept this machine's certificate"), "{strange:?}");

    let elsewhere = said(client(&other, Some(other.identity("w"))), "cache.test").await;
    assert!(elsewhere.message.contains("its certificate is not valid here"), "{elsewhere:?}");

    let role = said(client(&ca, Some(ca.identity("w"))), "coordinator.test").await;
    assert!(role.message.contains("its certificate is not valid here"), "{role:?}");

    let old = listening(server(&ca, b"slipway/0"));
    let _echoing = tokio::spawn(echo(old.clone()));
    let version = dialer(&old, &client(&ca, Some(ca.identity("w"))), "cache.test");
    let version = refusal(version).await;
    assert!(version.message.contains("another version of the protocol"), "{version:?}");
    assert!(version.hint.unwrap().contains("same version of Slipway"));
}

#[tokio::test]
async fn renewed_keys_are_used_by_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let endpoint = listening(server(&old, ALPN));
    let echoing = tokio::spawn(echo(endpoint.clone()));
    let keys = client(&old, Some(old.identity("w")));
    round_trip(&dialer(&endpoint, &keys, "cache.test")).await.unwrap();
    endpoint.renew(server(&new, ALPN)).unwrap();
    refusal(dialer(&endpoint, &keys, "cache.test")).await;
    let config = rustls::ClientConfig::builder_with_provider(provider());
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let (chain, key) = new.identity("w");
    let config = config.with_root_certificates(new.roots());
    let mut config = config.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    keys.replace(config).unwrap();
    round_trip(&dialer(&endpoint, &keys, "cache.test")).await.unwrap();
    endpoint.close().await;
    echoing.await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let ca = Authority::new();
    let keys = client(&ca, Some(ca.identity("w")));
    let called = "the coordinator".to_owned();
    let target = Target { address: "no.such.host.invalid:1".into(), name: "x".into(), called };
    let dialer = Dialer::new(&Endpoint::client().unwrap(), &keys, target, 1);
    let said = dialer.dial().await.err().unwrap().to_string();
    assert!(said.contains("the coordinator at no.such.host.invalid:1"), "{said}");
}
