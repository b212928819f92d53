//! HTTP clients: certificates and proxies by host. Connections are kept and used again.

use super::config::{RegistryConfig, is_this_machine};
use super::error::RegistryError;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, NoProxy, Proxy};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// As many as reqwest and curl follow.
const REDIRECTS_MAX: usize = 10;

/// Makes clients, one for all hosts that need nothing of their own.
pub struct Clients {
    system: OnceLock<Arc<RootCertStore>>,
    made: Mutex<HashMap<Key, Client>>,
}

/// What clients differ in.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    /// The host, when it has certificates of its own.
    certificates: Option<String>,
    proxy: bool,
}

/// A host's own certificates.
#[derive(Default)]
struct Files {
    authorities: Vec<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl Clients {
    /// No client yet.
    pub fn new() -> Self {
        Self { system: OnceLock::new(), made: Mutex::default() }
    }

    /// The client for a host.
    pub fn client(&self, config: &RegistryConfig, host: &str) -> Result<Client, RegistryError> {
        let files = files(config, host).map_err(RegistryError::Config)?;
        let own = !files.authorities.is_empty() || files.client.is_some();
        let key = Key { certificates: own.then(|| host.to_owned()), proxy: !is_this_machine(host) };
        let mut made = self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.make(config, &files, key.proxy).map_err(RegistryError::Config)?;
        made.insert(key, client.clone());
        Ok(client)
    }

    fn make(&self, config: &RegistryConfig, files: &Files, proxy: bool) -> Result<Client, String> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(self.tls(files)?)
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(config.retry.silence_s.clamp(1, 20)))
            .read_timeout(Duration::from_secs(config.retry.silence_s.max(1)))
            .redirect(Policy::custom(redirect))
            .no_proxy();
        if proxy {
            let except = config.proxy.no.as_deref().and_then(NoProxy::from_string);
            let bad = |e: reqwest::Error| format!("a proxy: {e}");
            if let Some(url) = &config.proxy.http {
                builder = builder.proxy(Proxy::http(url).map_err(bad)?.no_proxy(except.clone()));
            }
            if let Some(url) = &config.proxy.https {
                builder = builder.proxy(Proxy::https(url).map_err(bad)?.no_proxy(except));
            }
        }
        builder.build().map_err(|e| e.to_string())
    }

    fn tls(&self, files: &Files) -> Result<rustls::ClientConfig, String> {
        let system = self.system.get_or_init(|| Arc::new(system_roots()));
        let mut roots = system.clone();
        for file in &files.authorities {
            for certificate in certificates(file)? {
                let roots = Arc::make_mut(&mut roots);
                roots.add(certificate).map_err(|e| format!("{}: {e}", file.display()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &files.client else {
            return Ok(builder.with_no_client_auth());
        };
        let bad = |e: &dyn std::fmt::Display| format!("{}: {e}", key.display());
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(&e))?;
        builder.with_client_auth_cert(certificates(certificate)?, secret).map_err(|e| bad(&e))
    }
}

/// Logins do not travel with a redirect to another host (reqwest takes them off); nothing travels
/// from https to http.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let previous = attempt.previous();
    let downgrade = previous.last().is_some_and(|url| url.scheme() == "https");
    if previous.len() > REDIRECTS_MAX {
        attempt.error("it redirects too often")
    } else if downgrade && attempt.url().scheme() != "https" {
        attempt.error("it redirects from https to http")
    } else {
        attempt.follow()
    }
}

fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!("A certificate of the system cannot be read: {error}");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    roots
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|e| bad(&e))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| bad(&e))?;
    if found.is_empty() {
        return Err(bad(&"it holds no certificate"));
    }
    Ok(found)
}

fn files(config: &RegistryConfig, host: &str) -> Result<Files, String> {
    let authorities = config.ca.get(host).cloned().unwrap_or_default();
    let mut files = Files { authorities, client: None };
    for dir in config.certs_dirs.iter().map(|dir| dir.join(host)) {
        let list = match std::fs::read_dir(&dir) {
            Ok(list) => list,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(format!("{}: {e}", dir.display())),
        };
        let entries = list.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
        let mut entries = entries.map_err(|e| format!("{}: {e}", dir.display()))?;
        entries.sort();
        for file in entries {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => files.authorities.push(file),
                Some("cert") => files.client = Some((file.clone(), file.with_extension("key"))),
                _ => {}
            }
        }
    }
    Ok(files)
}
