//! Certificates, and real handshakes in memory.

use super::tls::{ClientAuth, authority_among, peer_subject};
use super::*;
use proto::id::{Millis, Scope};
use rcgen::{
    CertificateParams, DnType, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ALPN: &[&[u8]] = &[b"slipway/1"];
const HOUR: Duration = Duration::from_secs(3600);

/// rustls looks at the clock, so certificates that it is to take begin now.
fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis(since.as_millis() as u64)
}

fn before(at: Millis, earlier: Duration) -> Millis {
    Millis(at.0 - earlier.as_millis() as u64)
}

fn cluster() -> ClusterId {
    ClusterId::parse("acme").unwrap()
}

fn authority() -> Authority {
    Authority::create(&cluster(), before(now(), HOUR * 24 * 90)).unwrap()
}

fn node(role: Role) -> Subject {
    Subject::node(cluster(), NodeName::parse("box-1").unwrap(), [role]).unwrap()
}

fn client() -> Subject {
    let project = Project::parse("shop").unwrap();
    let scope = Scope::parse("dev/ann").unwrap();
    let grant = Grant { project, scope, priority_max: 2, admin: false };
    Subject::client(cluster(), NodeName::parse("ann").unwrap(), grant)
}

fn identity_at(authority: &Authority, subject: &Subject, at: Millis) -> Identity {
    let applicant = Applicant::new().unwrap();
    let csr = applicant.csr().unwrap();
    let certificate = authority.sign(&csr, subject, CERTIFICATE_LIFE, at).unwrap();
    applicant.accept(certificate, authority.certificate().clone()).unwrap()
}

fn identity(authority: &Authority, subject: &Subject) -> Identity {
    identity_at(authority, subject, now())
}

fn server(identity: &Identity, authority: &Authority, clients: ClientAuth) -> ServerConfig {
    tls::server_config(identity, authority.certificate(), ALPN, clients).unwrap()
}

/// Which side refused the other, and why.
#[derive(Debug)]
enum Refused {
    ByClient(Error),
    ByServer(Error),
}

/// A handshake; both connections when both sides are content.
fn shake(
    client: ClientConfig,
    server: ServerConfig,
    name: ServerName<'static>,
) -> Result<(ClientConnection, ServerConnection), Refused> {
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().map_err(Refused::ByServer)?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refused::ByClient)?;
        }
    }
    Ok((client, server))
}

/// What a client says of a server; `None` when it takes it.
fn client_says(client: ClientConfig, server: ServerConfig, role: Role) -> Option<String> {
    match shake(client, server, role.server_name()) {
        Ok(_) => None,
        Err(Refused::ByClient(error)) => Some(format!("{error:?}")),
        Err(Refused::ByServer(error)) => panic!("the server refused: {error:?}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn members_know_each_other() {
    let authority = authority();
    let (box1, ann) = (identity(&authority, &node(Role::Worker)), identity(&authority, &client()));
    let config = tls::client_config(Some(&ann), authority.certificate(), ALPN).unwrap();
    let server = server(&box1, &authority, ClientAuth::Required);
    let (client, server) = shake(config, server, Role::Worker.server_name()).unwrap();
    assert_eq!(peer_subject(client.peer_certificates().unwrap()), Ok(node(Role::Worker)));
    assert_eq!(peer_subject(server.peer_certificates().unwrap()), Ok(self::client()));
    assert_eq!(client.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // Nothing is remembered: the next handshake is a full one.
    assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    assert_eq!(client.tls13_tickets_received(), 0);
}

#[test]
fn the_dialled_name_proves_the_role() {
    let authority = authority();
    let name = NodeName::parse("box-1").unwrap();
    let both = Subject::node(cluster(), name, [Role::Worker, Role::Cache]).unwrap();
    let own = identity(&authority, &both);
    let config = || tls::client_config(Some(&own), authority.certificate(), ALPN).unwrap();
    let server = || server(&own, &authority, ClientAuth::Required);
    assert_eq!(client_says(config(), server(), Role::Worker), None);
    assert_eq!(client_says(config(), server(), Role::Cache), None);
    let said = client_says(config(), server(), Role::Coordinator).unwrap();
    assert!(said.contains("NotValidForName"), "{said}");
}

#[test]
fn a_client_certificate_serves_nobody() {
    let authority = authority();
    let ann = identity(&authority, &client());
    let config = tls::client_config(Some(&ann), authority.certificate(), ALPN).unwrap();
    let server = server(&ann, &authority, ClientAuth::Required);
    let said = client_says(config, server, Role::Client).unwrap();
    assert!(said.contains("InvalidPurpose"), "{said}");
}

#[test]
fn another_cluster_of_the_same_name_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let foreign = identity(&theirs, &node(Role::Coordinator));
    let own = identity(&ours, &node(Role::Coordinator));
    let config = tls::client_config(Some(&own), ours.certificate(), ALPN).unwrap();
    let said =
        client_says(config, server(&foreign, &theirs, ClientAuth::Required), Role::Coordinator);
    assert!(said.is_some_and(|s| s.contains("InvalidCertificate")));
    // And a server of ours refuses their members, also where a certificate is not required.
    for clients in [ClientAuth::Required, ClientAuth::Optional] {
        let config = tls::client_config(Some(&foreign), ours.certificate(), ALPN).unwrap();
        let server = server(&own, &ours, clients);
        let refused = shake(config, server, Role::Coordinator.server_name()).unwrap_err();
        assert!(matches!(refused, Refused::ByServer(Error::InvalidCertificate(_))));
    }
}

#[test]
fn expired_certificates_are_refused_on_both_sides() {
    let authority = authority();
    let old = before(now(), CERTIFICATE_LIFE + HOUR);
    let expired = identity_at(&authority, &node(Role::Worker), old);
    let own = identity(&authority, &node(Role::Worker));
    let config = |of| tls::client_config(Some(of), authority.certificate(), ALPN).unwrap();
    let server = |of| server(of, &authority, ClientAuth::Required);
    let said = client_says(config(&own), server(&expired), Role::Worker).unwrap();
    assert!(said.contains("Expired"), "{said}");
    let refused = shake(config(&expired), server(&own), Role::Worker.server_name()).unwrap_err();
    assert!(format!("{refused:?}").contains("Expired") && matches!(refused, Refused::ByServer(_)));
}

#[test]
fn nobody_is_let_in_only_where_that_is_said() {
    let authority = authority();
    let own = identity(&authority, &node(Role::Coordinator));
    let nobody = || tls::client_config(None, authority.certificate(), ALPN).unwrap();
    let name = || Role::Coordinator.server_name();
    let required = server(&own, &authority, ClientAuth::Required);
    let refused = shake(nobody(), required, name()).unwrap_err();
    assert!(matches!(refused, Refused::ByServer(Error::NoCertificatesPresented)));
    let optional = server(&own, &authority, ClientAuth::Optional);
    let (_, server) = shake(nobody(), optional, name()).unwrap();
    assert!(server.peer_certificates().is_none());
    assert_eq!(peer_subject(&[]), Err(SubjectError::Missing));
}

#[test]
fn another_protocol_is_refused() {
    let authority = authority();
    let own = identity(&authority, &node(Role::Worker));
    let config = tls::client_config(Some(&own), authority.certificate(), &[b"slipway/0"]).unwrap();
    let server = server(&own, &authority, ClientAuth::Required);
    let refused = shake(config, server, Role::Worker.server_name()).unwrap_err();
    assert!(matches!(refused, Refused::ByServer(Error::NoApplicationProtocol)));
}

#[test]
fn who_joins_believes_the_authority_of_its_token_alone() {
    let (ours, theirs) = (authority(), authority());
    let joining = || tls::joining_client_config(ours.fingerprint(), ALPN).unwrap();
    let own = identity(&ours, &node(Role::Coordinator));
    let optional = |of: &Identity, by: &Authority| server(of, by, ClientAuth::Optional);

    let (client, _) =
        shake(joining(), optional(&own, &ours), Role::Coordinator.server_name()).unwrap();
    let shown = client.peer_certificates().unwrap();
    assert_eq!(authority_among(shown, ours.fingerprint()), Some(ours.certificate()));
    assert_eq!(authority_among(shown, theirs.fingerprint()), None);

    // Another authority.
    let foreign = identity(&theirs, &node(Role::Coordinator));
    let said = client_says(joining(), optional(&foreign, &theirs), Role::Coordinator).unwrap();
    assert!(said.contains("UnknownIssuer"), "{said}");

    // Our authority is shown, but it is not the one that has signed.
    let mut config = optional(&own, &ours);
    let chain = vec![foreign.certificate().clone(), ours.certificate().clone()];
    config.cert_resolver = resolver(chain, &foreign);
    let said = client_says(joining(), config, Role::Coordinator).unwrap();
    assert!(said.contains("BadSignature") || said.contains("UnknownIssuer"), "{said}");

    // Our authority is not shown.
    let mut config = optional(&own, &ours);
    config.cert_resolver = resolver(vec![own.certificate().clone()], &own);
    let said = client_says(joining(), config, Role::Coordinator).unwrap();
    assert!(said.contains("UnknownIssuer"), "{said}");

    // A right certificate, shown by one who has not its key.
    let mut config = optional(&own, &ours);
    let chain = vec![own.certificate().clone(), ours.certificate().clone()];
    config.cert_resolver = resolver(chain, &foreign);
    let said = client_says(joining(), config, Role::Coordinator).unwrap();
    assert!(said.contains("BadSignature"), "{said}");

    let old = before(now(), CERTIFICATE_LIFE + HOUR);
    let expired = identity_at(&ours, &node(Role::Coordinator), old);
    let said = client_says(joining(), optional(&expired, &ours), Role::Coordinator).unwrap();
    assert!(said.contains("Expired"), "{said}");

    let worker = identity(&ours, &node(Role::Worker));
    let said = client_says(joining(), optional(&worker, &ours), Role::Coordinator).unwrap();
    assert!(said.contains("NotValidForName"), "{said}");
}

/// Shows these certificates, and signs with the key of `of`, whether it fits or not.
fn resolver(
    chain: Vec<CertificateDer<'static>>,
    of: &Identity,
) -> Arc<dyn rustls::server::ResolvesServerCert> {
    let key = rustls::crypto::ring::sign::any_supported_type(&of.key()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(chain, key);
    Arc::new(rustls::sign::SingleCertAndKey::from(certified))
}

#[test]
fn a_certificate_lives_as_long_as_asked_but_not_longer_than_its_authority() {
    let at = Millis(1_900_000_000_000);
    let authority = Authority::create(&cluster(), at).unwrap();
    assert_eq!(authority.expires().since(at), AUTHORITY_LIFE.as_millis() as u64);
    let own = identity_at(&authority, &node(Role::Worker), at);
    let leaf = certificate::Leaf::read(own.certificate()).unwrap();
    assert_eq!(leaf.begins, before(at, CLOCK_SKEW));
    assert_eq!(own.expires().since(at), CERTIFICATE_LIFE.as_millis() as u64);
    let late = before(authority.expires(), HOUR);
    assert_eq!(identity_at(&authority, &node(Role::Worker), late).expires(), authority.expires());
    let csr = Applicant::new().unwrap().csr().unwrap();
    let sign = |ttl, at| authority.sign(&csr, &node(Role::Worker), ttl, at);
    assert_eq!(sign(HOUR, authority.expires()), Err(SignError::Expired));
    assert!(sign(Duration::MAX, at).is_ok());
}

#[test]
fn it_is_renewed_when_two_thirds_are_over() {
    let at = Millis(1_900_000_000_000);
    let own = identity_at(&Authority::create(&cluster(), at).unwrap(), &node(Role::Worker), at);
    let begins = before(at, CLOCK_SKEW);
    let due = Millis(begins.0 + own.expires().since(begins) / 3 * 2);
    assert!(!own.needs_renewal(Millis(0)) && !own.needs_renewal(at));
    assert!(!own.needs_renewal(Millis(due.0 - 1)));
    assert!(own.needs_renewal(due) && own.needs_renewal(own.expires()));
}

#[test]
fn the_authority_signs_for_its_cluster_and_for_keys_that_one_has() {
    let authority = authority();
    let sign = |csr: &[u8], subject| authority.sign(csr, subject, HOUR, now());
    let csr = Applicant::new().unwrap().csr().unwrap();
    let other = ClusterId::parse("other").unwrap();
    let name = NodeName::parse("x").unwrap();
    let stranger = Subject::node(other.clone(), name, [Role::Worker]).unwrap();
    let refused = sign(&csr, &stranger).unwrap_err();
    assert_eq!(refused, SignError::Cluster { own: cluster(), asked: other });

    let worker = node(Role::Worker);
    let mut reasons = std::collections::BTreeMap::new();
    for at in 0..csr.len() {
        let mut changed = csr.clone();
        changed[at] ^= 1;
        let refused = sign(&changed, &worker);
        let refused = refused.expect_err(&format!("byte {at} of {csr:02x?}"));
        *reasons.entry(format!("{refused:.30}")).or_insert(0) += 1;
    }
    assert!(reasons.len() >= 3, "{reasons:?}");
    assert!(sign(&csr[..csr.len() - 1], &worker).is_err());
    assert!(sign(&[csr.clone(), vec![0]].concat(), &worker).is_err());
    assert!(sign(&vec![0; 1 << 20], &worker).unwrap_err().to_string().contains("more than"));

    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let refused = sign(csr.der(), &worker).unwrap_err();
    assert!(refused.to_string().contains("P-256"), "{refused}");
}

#[test]
fn only_the_key_is_taken_from_a_request() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["coordinator.slipway.internal".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let uri = "slipway://acme/x?role=coordinator".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    let csr = params.serialize_request(&key).unwrap();
    let certificate = authority.sign(csr.der(), &client(), HOUR, now()).unwrap();
    let leaf = certificate::Leaf::read(&certificate).unwrap();
    assert_eq!(leaf.subject, client());
    assert_eq!(leaf.public_key, key.subject_public_key_info());
    assert!(certificate::Root::read(&certificate).is_err());
}

#[test]
fn serial_numbers_differ() {
    let authority = authority();
    let csr = Applicant::new().unwrap().csr().unwrap();
    let number = |at, role| {
        let der = authority.sign(&csr, &node(role), HOUR, at).unwrap();
        use x509_cert::der::Decode;
        let certificate = x509_cert::Certificate::from_der(&der).unwrap();
        certificate.tbs_certificate().serial_number().as_bytes().to_vec()
    };
    let at = now();
    assert_eq!(number(at, Role::Worker), number(at, Role::Worker));
    assert_ne!(number(at, Role::Worker), number(at, Role::Cache));
    assert_ne!(number(at, Role::Worker), number(Millis(at.0 + 1000), Role::Worker));
}

#[test]
fn an_applicant_accepts_its_own_certificate_alone() {
    let (ours, theirs) = (authority(), authority());
    let worker = node(Role::Worker);
    let accept = |applicant: Applicant, by: &Authority, root: &Authority, csr: &[u8]| {
        let certificate = by.sign(csr, &worker, HOUR, now()).unwrap();
        applicant.accept(certificate, root.certificate().clone()).map(|_| ())
    };
    let new = || Applicant::new().unwrap();
    let (a, b) = (new(), new());
    let csr = b.csr().unwrap();
    assert!(matches!(accept(a, &ours, &ours, &csr), Err(AcceptError::OtherKey)));
    assert!(matches!(accept(b, &theirs, &ours, &csr), Err(AcceptError::Signature(_))));
    let other = Authority::create(&ClusterId::parse("other").unwrap(), now()).unwrap();
    let c = new();
    let csr = c.csr().unwrap();
    assert!(matches!(accept(c, &ours, &other, &csr), Err(AcceptError::Cluster { .. })));
    let (d, e) = (new(), new());
    let csr = d.csr().unwrap();
    assert!(accept(d, &ours, &ours, &csr).is_ok());
    // A member cannot stand for the authority.
    let own = identity(&ours, &worker);
    let refused = e.accept(own.certificate().clone(), own.certificate().clone()).unwrap_err();
    assert!(refused.to_string().contains("not an authority's"), "{refused}");
}

#[test]
fn certificates_that_we_do_not_make_are_nobodys() {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
    let read = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        peer_subject(&[params.signed_by(&key, &issuer).unwrap().der().clone()])
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let worker = || vec![uri("slipway://acme/a?role=worker"), dns("worker.slipway.internal")];
    assert_eq!(read(worker()).unwrap().name().as_str(), "a");
    assert_eq!(read(vec![]), Err(SubjectError::Uris(0)));
    let mut more = worker();
    more.push(SanType::IpAddress([127, 0, 0, 1].into()));
    assert_eq!(read(more), Err(SubjectError::OtherName));
    let mut more = worker();
    more.push(dns("cache.slipway.internal"));
    assert!(matches!(read(more), Err(SubjectError::DnsNames { .. })));
    let garbage = peer_subject(&[CertificateDer::from(vec![1, 2, 3])]);
    assert!(matches!(garbage, Err(SubjectError::Unreadable(_))));
    // An authority is no member.
    assert!(peer_subject(&[authority().certificate().clone()]).is_err());
}

#[test]
fn identities_are_kept_whole_and_private() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("identity");
    let missing = Identity::load(&dir).unwrap_err();
    assert!(missing.to_string().contains("slipway join"), "{missing}");
    let authority = authority();
    let first = identity(&authority, &node(Role::Worker));
    first.save(&dir).unwrap();
    let second = identity(&authority, &client());
    second.save(&dir).unwrap();
    let again = Identity::load(&dir).unwrap();
    assert_eq!(again.subject(), &client());
    assert_eq!(again.certificate(), second.certificate());
    assert_eq!(again.authority(), authority.certificate());
    assert_eq!(again.expires(), second.expires());
    let file = dir.join("identity.pem");
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let config = tls::client_config(Some(&again), authority.certificate(), ALPN).unwrap();
    let server = server(&first, &authority, ClientAuth::Required);
    assert_eq!(client_says(config, server, Role::Worker), None);
}

#[test]
fn a_damaged_identity_is_named_and_not_used() {
    let root = tempfile::tempdir().unwrap();
    let authority = authority();
    identity(&authority, &node(Role::Worker)).save(root.path()).unwrap();
    let file = root.path().join("identity.pem");
    let whole = fs::read_to_string(&file).unwrap();
    let other = root.path().join("other");
    identity(&authority, &node(Role::Worker)).save(&other).unwrap();
    let foreign = fs::read_to_string(other.join("identity.pem")).unwrap();
    let begin = "-----BEGIN CERTIFICATE-----";
    let (key, certificates) = whole.split_once(begin).unwrap();
    let (_, foreign_certificates) = foreign.split_once(begin).unwrap();
    let damages = [
        String::new(),
        key.to_owned(),
        format!("{begin}{certificates}"),
        format!("{key}{begin}{foreign_certificates}"),
        whole.replace("PRIVATE KEY", "RSA PRIVATE KEY"),
        format!("{whole}{begin}{certificates}"),
        whole.replacen("MII", "MIJ", 1),
    ];
    for damage in damages {
        assert_ne!(damage, whole);
        fs::write(&file, &damage).unwrap();
        let error = Identity::load(root.path()).unwrap_err();
        assert!(matches!(error, KeepError::Damaged { .. }), "{damage}: {error}");
        assert!(error.to_string().contains("identity.pem"), "{error}");
    }
}

#[test]
fn authorities_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("authority");
    let error = Authority::load(&dir).unwrap_err().to_string();
    assert!(error.contains("slipway farm init"), "{error}");
    let authority = authority();
    authority.save(&dir).unwrap();
    let file = dir.join("authority.pem");
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
    let again = Authority::load(&dir).unwrap();
    assert_eq!(again.fingerprint(), authority.fingerprint());
    assert_eq!((again.cluster(), again.expires()), (&cluster(), authority.expires()));
    // What it signs is believed by those who know the one that was saved.
    let own = identity(&again, &node(Role::Cache));
    let config = tls::client_config(Some(&own), authority.certificate(), ALPN).unwrap();
    let server = server(&own, &authority, ClientAuth::Required);
    assert_eq!(client_says(config, server, Role::Cache), None);
    // A key that is not the certificate's.
    let foreign = KeyPair::generate().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let (_, certificate) = text.split_once("-----BEGIN CERTIFICATE").unwrap();
    let pem = foreign.serialize_pem();
    fs::write(&file, format!("{pem}-----BEGIN CERTIFICATE{certificate}")).unwrap();
    let error = Authority::load(&dir).unwrap_err().to_string();
    assert!(error.contains("key is not the certificate's"), "{error}");
}

#[test]
fn keys_are_in_no_debug_text() {
    let authority = authority();
    let own = identity(&authority, &client());
    let shown = format!("{own:?} {authority:?} {:?}", Applicant::new().unwrap());
    let serialized = data_encoding::BASE64.encode(own.key().secret_der());
    assert!(!shown.contains(&serialized[60..80]));
    assert!(shown.contains("slipway://acme/ann") && shown.contains("elided"));
    assert!(!shown.contains(&format!("{:?}", &own.key().secret_der()[30..50])));
}
