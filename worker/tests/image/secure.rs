//! Logins, tokens, certificates, proxies.

use crate::sample::{answer, image, layer, served, tar_of_all_kinds};
use crate::server::{Reply, Server};
use crate::setup::{DockerRegistry, amd64, config, quiet, reference, store};
use proto::wire::build::{Login, MediaTypes};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use worker::image::manifest::ImageSet;
use worker::image::push::push;
use worker::image::registry::{
    Anonymous, Credentials, Freshness, LoginFuture, Registry, RegistryConfig, RegistryError,
    Session, TOKEN_USER,
};

const ASK: Freshness = Freshness::Ask;

/// One login, and how often it was asked for.
struct One {
    login: Login,
    asked: AtomicU32,
}

impl Credentials for One {
    fn login<'a>(&'a self, _: &'a str) -> LoginFuture<'a> {
        self.asked.fetch_add(1, SeqCst);
        Box::pin(async { Ok(Some(self.login.clone())) })
    }
}

fn one(user: &str, password: &str) -> Arc<One> {
    let login = Login { user: user.into(), password: password.into() };
    Arc::new(One { login, asked: AtomicU32::new(0) })
}

fn with(config: RegistryConfig, credentials: Arc<dyn Credentials>) -> Session {
    Registry::new(config).session(credentials)
}

/// `ann` with the password `secret`, by bcrypt.
const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

#[tokio::test(flavor = "multi_thread")]
async fn basic() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    std::fs::write(&file, HTPASSWD).unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}", file.display());
    let registry = DockerRegistry::with("", &auth);
    let store = store();
    let set =
        ImageSet::single(image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci));
    let name = reference(&format!("{}/private:1", registry.host));
    let ann = one("ann", "secret");
    let session = with(config(), ann.clone());
    push(&store, &session, &name, &set, false, &quiet()).await.unwrap();
    session.resolve(&store, &name, &amd64(), ASK).await.unwrap();
    assert_eq!(ann.asked.load(SeqCst), 1, "asked once for all requests");
    // The image is in the store; who may not see it at the registry is turned away all the same.
    let cases: [(Arc<dyn Credentials>, bool); 3] =
        [(one("ann", "wrong"), true), (Arc::new(Anonymous), false), (one("bob", "secret"), true)];
    for (credentials, login) in cases {
        let session = with(config(), credentials);
        let error = session.resolve(&store, &name, &amd64(), ASK).await.unwrap_err();
        let RegistryError::Unauthorised { login: used, .. } = &error else { panic!("{error}") };
        assert_eq!(*used, login, "{error}");
        assert_eq!(error.class(), proto::error::Class::Denied);
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

/// A registry with a token server beside it. Tokens are good for one repository and some actions.
fn token_server(files: BTreeMap<String, (String, Vec<u8>)>) -> Server {
    let tokens = Arc::new(AtomicU32::new(0));
    Server::start(move |request| {
        if request.path.starts_with("/token") {
            let form = String::from_utf8_lossy(&request.body).into_owned();
            let identity = request.method == "POST" && form.contains("refresh_token=my+refresh");
            // ann:secret
            let basic = request.header("authorization") == "Basic YW5uOnNlY3JldA==";
            let asked = form + &request.path;
            assert!(asked.contains("service=the+service"), "{asked}");
            assert!(asked.contains("scope=repository%3Aapp%3Apull"), "{asked}");
            if !basic && !identity {
                return Reply::new(401).body(r#"{"errors":[{"message":"who are you"}]}"#);
            }
            let number = tokens.fetch_add(1, SeqCst);
            return Reply::new(200).body(format!(r#"{{"access_token":"t{number}"}}"#));
        }
        // The first token is taken back at once, as if it had run out.
        let good = ["Bearer t1", "Bearer t2"].contains(&request.header("authorization"));
        if !good {
            let host = request.header("host");
            let realm = format!(
                r#"Bearer realm="http://{host}/token",service="the service",scope="repository:app:pull""#
            );
            return Reply::new(401).header("WWW-Authenticate", realm);
        }
        answer(&files, request)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let origin = store();
    let image = image(&origin, &[layer(&*origin, &tar_of_all_kinds())], MediaTypes::Oci);
    let files = served(&*origin, &image);
    for credentials in [one("ann", "secret"), one(TOKEN_USER, "my refresh")] {
        let server = token_server(files.clone());
        let name = reference(&format!("{}/app:1", server.host));
        let session = with(config(), credentials);
        // The first token is refused: that is an answer, not a reason to go on for ever.
        let error = session.resolve(&store(), &name, &amd64(), ASK).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorised { login: true, .. }), "{error}");
        let resolved = session.resolve(&store(), &name, &amd64(), ASK).await.unwrap();
        assert_eq!(resolved.config, image.config.digest);
        let asked = server.lines().iter().filter(|l| l.contains("/token")).count();
        assert_eq!(asked, 2, "one token for all requests: {:?}", server.lines());
    }
    let server = token_server(files);
    let name = reference(&format!("{}/app:1", server.host));
    let session = with(config(), Arc::new(Anonymous));
    let error = session.resolve(&store(), &name, &amd64(), ASK).await.unwrap_err();
    assert!(error.to_string().contains("who are you"), "{error}");
    assert!(error.to_string().contains("without a login"), "{error}");
}

/// Where blobs lie elsewhere, the token stays at home.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_do_not_travel() {
    let origin = store();
    let image = image(&origin, &[layer(&*origin, &tar_of_all_kinds())], MediaTypes::Oci);
    let files = served(&*origin, &image);
    let blobs = files.clone();
    let elsewhere = Arc::new(Server::start(move |request| answer(&blobs, request)));
    let there = elsewhere.host.clone();
    let server = Server::start(move |request| {
        if request.header("authorization") != "Basic YW5uOnNlY3JldA==" {
            return Reply::new(401).header("WWW-Authenticate", "Basic realm=x");
        }
        match request.method.as_str() {
            "GET" if request.path.contains("/blobs/") => {
                let to = format!("http://{there}{}", request.path);
                Reply::new(307).header("Location", to)
            }
            "POST" => Reply::new(202).header("Location", format!("http://{there}/upload")),
            "HEAD" if request.path.contains("/blobs/") => Reply::new(404),
            _ => answer(&files, request),
        }
    });
    let name = reference(&format!("{}/app:1", server.host));
    let session = with(config(), one("ann", "secret"));
    let resolved = session.resolve(&store(), &name, &amd64(), ASK).await.unwrap();
    assert_eq!(resolved.config, image.config.digest);
    let set = ImageSet::single(image);
    let error = push(&origin, &session, &name, &set, false, &quiet()).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "it takes no uploads: {error}");
    let seen = elsewhere.requests();
    assert!(seen.iter().any(|r| r.method == "GET") && seen.iter().any(|r| r.method == "PUT"));
    assert!(seen.iter().all(|r| !r.headers.contains_key("authorization")));
}

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, cert: &Path, key: &Path) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        let pair = KeyPair::generate().unwrap();
        let signed = params.signed_by(&pair, &self.issuer).unwrap();
        std::fs::write(cert, signed.pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let authority = Authority::new();
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    authority.sign("127.0.0.1", server, &at("cert.pem"), &at("key.pem"));
    std::fs::write(at("ca.pem"), &authority.pem).unwrap();
    let show = |name: &str| at(name).display().to_string();
    let tls =
        format!("  tls:\n    certificate: {}\n    key: {}", show("cert.pem"), show("key.pem"));
    let clients = format!("{tls}\n    clientcas:\n      - {}", show("ca.pem"));
    let registry = DockerRegistry::with(&tls, "");
    let store = store();
    let set =
        ImageSet::single(image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci));
    let name = reference(&format!("{}/tls:1", registry.host));
    let mut known = config();
    known.ca.insert(registry.host.clone(), vec![at("ca.pem")]);
    let session = with(known.clone(), Arc::new(Anonymous));
    push(&store, &session, &name, &set, false, &quiet()).await.unwrap();
    // An authority that nobody told us of.
    let stranger = Authority::new();
    std::fs::write(at("other.pem"), &stranger.pem).unwrap();
    let mut unknown = config();
    unknown.ca.insert(registry.host.clone(), vec![at("other.pem")]);
    let session = with(unknown, Arc::new(Anonymous));
    let error = session.resolve(&store, &name, &amd64(), ASK).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(error.hint().unwrap().contains(&registry.host), "{:?}", error.hint());
    // Files that are no certificates are said before anything is sent.
    std::fs::write(at("empty.pem"), "nothing").unwrap();
    known.ca.insert(registry.host.clone(), vec![at("empty.pem")]);
    let session = with(known, Arc::new(Anonymous));
    let error = session.resolve(&store, &name, &amd64(), ASK).await.unwrap_err();
    assert!(error.to_string().contains("empty.pem: it holds no certificate"), "{error}");
    // As Docker lays them out, with a certificate of ours.
    let registry = DockerRegistry::with(&clients, "");
    let own = at("certs.d").join(&registry.host);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(at("ca.pem"), own.join("ca.crt")).unwrap();
    let name = reference(&format!("{}/mutual:1", registry.host));
    let config = RegistryConfig { certs_dirs: vec![at("certs.d")], ..config() };
    let session = with(config.clone(), Arc::new(Anonymous));
    let error = push(&store, &session, &name, &set, false, &quiet()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    authority.sign("us", client, &own.join("us.cert"), &own.join("us.key"));
    let session = with(config, Arc::new(Anonymous));
    push(&store, &session, &name, &set, false, &quiet()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies() {
    let origin = store();
    let image = image(&origin, &[layer(&*origin, &tar_of_all_kinds())], MediaTypes::Oci);
    let files = served(&*origin, &image);
    let proxy = Server::start(move |request| {
        let mut request = request.clone();
        match request.path.strip_prefix("http://registry.test:5000") {
            Some(path) => request.path = path.to_owned(),
            None => return Reply::new(502),
        }
        answer(&files, &request)
    });
    let mut config = config();
    config.plain_http.push("registry.test:5000".into());
    config.proxy.http = Some(format!("http://{}", proxy.host));
    let name = reference("registry.test:5000/app:1");
    let session = with(config.clone(), Arc::new(Anonymous));
    let resolved = session.resolve(&store(), &name, &amd64(), ASK).await.unwrap();
    assert_eq!(resolved.config, image.config.digest);
    let asked = proxy.requests().len();
    config.proxy.no = Some("registry.test".into());
    let session = with(config, Arc::new(Anonymous));
    let error = session.resolve(&store(), &name, &amd64(), ASK).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(proxy.requests().len(), asked);
}
