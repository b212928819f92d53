//! A client for registries: the OCI distribution specification 1.1, and Docker's token
//! authentication.
//!
//! A [`Registry`] is one for the process: it keeps connections. A [`Session`] is one for each
//! build: it keeps that build's logins and tokens, so that nobody's login opens anything for
//! somebody else.
//!
//! Everything that a registry sends is bounded, and compared with its SHA-256 before it is kept.
//! Why this is not built on `oci-client` is told in `docs/decisions/0010-registry-client.md`.

mod artifact;
mod auth;
mod blob;
mod call;
mod config;
mod credentials;
mod document;
mod error;
mod http;
mod manifest;
mod resolve;
mod upload;

pub use blob::Download;
pub use call::causes;
pub use config::{Endpoint, ProxyConfig, RegistryConfig, RetryConfig, is_this_machine};
pub use credentials::{Anonymous, Credentials, DockerConfig, LoginFuture, TOKEN_USER};
pub use document::{Config, DOCUMENTS, Document, Listed, Manifest, choose, manifest_for};
pub use error::RegistryError;
pub use oci_spec::distribution::Reference;
pub use resolve::{Freshness, LayerRef, Resolved};
pub use upload::{Content, Uploaded};

use auth::{Token, TokenKey};
use cache::flight::Flights;
use call::{Access, Target};
use http::Clients;
use proto::wire::build::Login;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Reads a reference as Docker does: `alpine` is `docker.io/library/alpine:latest`.
pub fn parse_reference(text: &str) -> Result<Reference, RegistryError> {
    let named = proto::reference::Reference::parse(text).map_err(|e| RegistryError::Reference {
        text: text.chars().take(200).collect(),
        why: e.to_string(),
    })?;
    let proto::reference::Reference { registry, repository, tag, digest } = named;
    Ok(match (tag, digest.map(|digest| digest.to_string())) {
        (Some(tag), None) => Reference::with_tag(registry, repository, tag),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (tag, digest) => {
            let (tag, digest) = (tag.unwrap_or_default(), digest.unwrap_or_default());
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
    })
}

/// A client for registries.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    config: RegistryConfig,
    clients: Clients,
}

/// One build's use of registries.
pub struct Session {
    registry: Registry,
    credentials: Arc<dyn Credentials>,
    logins: tokio::sync::Mutex<HashMap<String, Option<Login>>>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
    asking: Flights<TokenKey>,
}

impl Registry {
    /// A client that reaches registries as `config` says.
    pub fn new(config: RegistryConfig) -> Self {
        Self(Arc::new(Inner { config, clients: Clients::new() }))
    }

    /// The client for a host that is no registry: with the certificates and proxies that are set.
    pub fn client(&self, host: &str) -> Result<reqwest::Client, RegistryError> {
        self.0.clients.client(&self.0.config, host)
    }

    /// For one build, with the logins that its person has.
    pub fn session(&self, credentials: Arc<dyn Credentials>) -> Session {
        Session {
            registry: self.clone(),
            credentials,
            logins: Default::default(),
            tokens: Mutex::default(),
            asking: Flights::default(),
        }
    }
}

impl Session {
    /// The hosts that have this image, in the order in which they are asked.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
        let config = &self.registry.0.config;
        config.endpoints(reference.registry()).map_err(RegistryError::Config)
    }

    /// The registry itself.
    fn itself(&self, reference: &Reference) -> Endpoint {
        self.registry.0.config.itself(reference.registry())
    }
}

impl<'t> Target<'t> {
    fn new(endpoint: &'t Endpoint, reference: &Reference, access: Access, what: String) -> Self {
        let repository = format!("{}{}", endpoint.prefix, reference.repository());
        Self { endpoint, repository, access, what }
    }
}

/// A name as Docker shows it: `docker.io/library/alpine:3` is `alpine:3`.
pub fn familiar(name: &Reference) -> String {
    let full = format!("{}/{}", name.registry(), name.repository());
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    let short = short.strip_prefix("library/").unwrap_or(short);
    match (name.tag(), name.digest()) {
        (None, Some(digest)) => format!("{short}@{digest}"),
        (tag, _) => format!("{short}:{}", tag.unwrap_or("latest")),
    }
}

/// Registry and repository, as the table `OciBlob` has them.
pub fn repository_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as the regular expression of the distribution project says.
    #[test]
    fn references_are_read_as_everywhere() {
        let zeros = "0".repeat(64);
        let hosts = ["", "a/", "a.b/", "a.b:5/", "localhost/", "a-/", "a:x/", "-a.b/"];
        let paths = ["x", "X", "x/y", "x_y", "x___y", "x--y", "x..y", "x.-y", "x/", "", "x_", "1"];
        let tags = ["", ":t", ":T.1-_", ":-t", ":", ":t:u", &format!("@sha256:{zeros}"), "@x"];
        for host in hosts {
            for path in paths {
                for tag in tags {
                    let text = format!("{host}{path}{tag}");
                    let own = parse_reference(&text).ok().map(|r| r.to_string());
                    let theirs: Result<Reference, _> = text.parse();
                    assert_eq!(own, theirs.ok().map(|r| r.to_string()), "{text}");
                }
            }
        }
    }

    #[test]
    fn references() {
        let full = |text: &str| parse_reference(text).map(|r| r.to_string());
        assert_eq!(full("alpine").unwrap(), "docker.io/library/alpine:latest");
        assert_eq!(full("index.docker.io/a/b:c").unwrap(), "docker.io/a/b:c");
        assert_eq!(full("localhost:5000/x").unwrap(), "localhost:5000/x:latest");
        // A repository has no capitals, so that this is a host. `oci-spec` does not know that yet.
        assert_eq!(full("A/x").unwrap(), "A/x:latest");
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(full(&digest).unwrap(), format!("docker.io/library/{digest}"));
        for bad in ["", "a b", "x:", "a@sha256:0", &format!("a@sha512:{}", "0".repeat(128))] {
            assert!(full(bad).is_err(), "{bad}");
        }
        let short = |text: &str| familiar(&parse_reference(text).unwrap());
        assert_eq!(short("docker.io/library/alpine:3"), "alpine:3");
        assert_eq!([short("a/b"), short("quay.io/c:1")], ["a/b:latest", "quay.io/c:1"]);
        assert!(full("Alpine").unwrap_err().to_string().contains("lower-case"));
    }
}
