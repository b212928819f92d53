//! One request, with its token, as often as it needs.

use super::auth::{Challenge, TokenKey};
use super::config::Endpoint;
use super::{RegistryError, Session};
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderName, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Bytes of an answer that says what is wrong.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// What may be done with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
    /// Push, and pull from this other repository.
    Mount(String),
}

/// Whom a request is for, and what it is about.
#[derive(Debug, Clone)]
pub(super) struct Target<'t> {
    pub endpoint: &'t Endpoint,
    /// The repository there, with the mirror's prefix.
    pub repository: String,
    pub access: Access,
    /// What messages call it.
    pub what: String,
}

/// A request's body, that can be made again.
pub(super) enum Body<'b> {
    None,
    Bytes(Bytes),
    /// So many bytes.
    Stream(u64, &'b (dyn Fn() -> reqwest::Body + Send + Sync)),
}

/// A request.
pub(super) struct Call<'c> {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Body<'c>,
}

impl<'c> Call<'c> {
    /// A request without a body.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::None }
    }

    /// With a header.
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    pub fn body(mut self, body: Body<'c>) -> Self {
        self.body = body;
        self
    }
}

impl<'t> Target<'t> {
    /// The URL of something of the repository's: `manifests/latest`.
    pub fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        let Endpoint { scheme, authority, mirror_of, .. } = self.endpoint;
        let text = format!("{scheme}://{authority}/v2/{}/{rest}", self.repository);
        let mut url = Url::parse(&text).map_err(|e| RegistryError::Reference {
            text: self.what.clone(),
            why: format!("`{text}` is no URL: {e}"),
        })?;
        if let Some(registry) = mirror_of {
            // Not in the specification, but containerd asks mirrors so, and some need it.
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    pub fn token_key(&self) -> TokenKey {
        let own = |actions| format!("repository:{}:{actions}", self.repository);
        let scopes = match &self.access {
            Access::Pull => vec![own("pull")],
            Access::Push => vec![own("pull,push")],
            Access::Mount(from) => vec![own("pull,push"), format!("repository:{from}:pull")],
        };
        TokenKey { host: self.endpoint.host.clone(), scopes }
    }

    /// Whether the URL is the registry's own, so that it may see our token. An upload's location
    /// may be anywhere (CVE-2020-15157 was a client that took its token there).
    fn owns(&self, url: &Url) -> bool {
        let own = Url::parse(&format!("{}://{}/", self.endpoint.scheme, self.endpoint.authority));
        own.is_ok_and(|own| own.origin() == url.origin())
    }

    fn host(&self) -> String {
        self.endpoint.host.clone()
    }

    pub fn denied(&self, login: bool, detail: &str) -> RegistryError {
        let (what, host) = (self.what.clone(), self.host());
        RegistryError::Unauthorised { what, host, login, detail: detail.to_owned() }
    }

    pub fn unreachable(&self, detail: String) -> RegistryError {
        RegistryError::Unreachable { what: self.what.clone(), host: self.host(), detail }
    }

    pub fn wrong_bytes(&self, detail: String) -> RegistryError {
        RegistryError::WrongBytes { what: self.what.clone(), host: self.host(), detail }
    }

    pub fn too_large(&self, limit: u64) -> RegistryError {
        RegistryError::TooLarge { what: self.what.clone(), host: self.host(), limit }
    }

    pub fn bad_manifest(&self, why: String) -> RegistryError {
        RegistryError::BadManifest { what: self.what.clone(), host: self.host(), why }
    }
}

impl Session {
    /// Sends a request until it is answered: with another token when the one it had is refused,
    /// after a pause when the host does not answer. The answer has any status but 401, 429 and
    /// those of a server in trouble.
    pub(super) async fn send(
        &self,
        target: &Target<'_>,
        call: &Call<'_>,
    ) -> Result<Response, RegistryError> {
        let client =
            self.registry.0.clients.client(&self.registry.0.config, &target.endpoint.host)?;
        let key = target.token_key();
        let mut answered = false;
        loop {
            let token = self.known_token(&key).filter(|_| target.owns(&call.url));
            let send = || {
                let mut request = client.request(call.method.clone(), call.url.clone());
                for (name, value) in &call.headers {
                    request = request.header(name, value);
                }
                if let Some(token) = &token {
                    request = request.header(AUTHORIZATION, token.header.clone());
                }
                match &call.body {
                    Body::None => request.send(),
                    Body::Bytes(bytes) => request.body(bytes.clone()).send(),
                    Body::Stream(size, make) => {
                        request.header("content-length", *size).body(make()).send()
                    }
                }
            };
            let response = self.with_retries(target, send).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || answered || !target.owns(&call.url) {
                return Ok(response);
            }
            answered = true;
            let challenge = Challenge::of(response.headers());
            self.answer(target, challenge, token.as_ref()).await?;
        }
    }

    /// Sends until the host answers, but for the few times that are configured.
    pub(super) async fn with_retries<F>(
        &self,
        target: &Target<'_>,
        send: impl Fn() -> F,
    ) -> Result<Response, RegistryError>
    where
        F: Future<Output = Result<Response, reqwest::Error>>,
    {
        let retry = self.registry.0.config.retry;
        let mut failures = 0;
        loop {
            failures += 1;
            let last = failures >= retry.attempts.max(1);
            let asked = match send().await {
                Ok(response) if !is_trouble(response.status()) => return Ok(response),
                Ok(response) if last => return Err(refused(target, response, false).await),
                Ok(response) => retry_after(&response),
                Err(e) if last || is_final(&e) => return Err(target.unreachable(causes(&e))),
                Err(e) => {
                    tracing::debug!(host = target.endpoint.host, "Sent again: {}", causes(&e));
                    None
                }
            };
            tokio::time::sleep(retry.wait(failures, chance(), asked)).await;
        }
    }

    /// The error that a response is. `target` says whose.
    pub(super) async fn refused(&self, target: &Target<'_>, response: Response) -> RegistryError {
        let login = self.known_login(&target.endpoint.host).await;
        refused(target, response, login).await
    }

    async fn known_login(&self, host: &str) -> bool {
        self.logins.lock().await.get(host).is_some_and(Option::is_some)
    }
}

/// The server is in trouble, and may be better soon.
fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What no second attempt makes better: a certificate, a redirect, a request that is none.
fn is_final(error: &reqwest::Error) -> bool {
    error.is_builder() || error.is_redirect() || causes(error).contains("certificate")
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A number between 0 and 1, another one each time.
pub(super) fn chance() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}

async fn refused(target: &Target<'_>, response: Response, login: bool) -> RegistryError {
    let status = response.status();
    let body = read_body(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    let said = said(&body);
    let detail = if said.is_empty() { status.to_string() } else { said };
    let (what, host) = (target.what.clone(), target.endpoint.host.clone());
    match status.as_u16() {
        401 | 403 => RegistryError::Unauthorised { what, host, login, detail },
        404 => RegistryError::NotFound { what, host },
        429 => RegistryError::Busy { what, host, detail },
        500..=599 if detail == status.to_string() => {
            RegistryError::Unreachable { what, host, detail }
        }
        500..=599 => {
            RegistryError::Unreachable { what, host, detail: format!("{status}: {detail}") }
        }
        status => RegistryError::Refused { what, host, status, detail },
    }
}

/// The words of a registry's error, if it has any (OCI distribution specification, “Error Codes”).
pub(super) fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let one = |e: &One| match (e.code.as_str(), e.message.as_str()) {
                (code, "") => code.to_owned(),
                ("", message) => message.to_owned(),
                (code, message) => format!("{message} ({code})"),
            };
            errors.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        Err(_) if body.starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    text.chars().take(500).filter(|c| !c.is_control() || *c == '\n').collect()
}

/// An error with all its causes but the first, which only says that something was sent.
pub fn causes(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if parts.last().is_none_or(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

/// A body of at most `limit` bytes. What is longer is cut off.
pub(super) async fn read_body(mut response: Response, limit: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| causes(&e))? {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::registry::RegistryConfig;

    #[test]
    fn a_token_goes_to_its_registry_only() {
        let endpoint = RegistryConfig::default().itself("quay.io");
        let target = Target {
            endpoint: &endpoint,
            repository: "a/b".into(),
            access: Access::Mount("c/d".into()),
            what: "x".into(),
        };
        let own = |url: &str| target.owns(&Url::parse(url).unwrap());
        assert!(own("https://quay.io/v2/x") && own("https://quay.io:443/y"));
        assert!(
            !own("http://quay.io/v2/x") && !own("https://s3.io/x") && !own("https://quay.io:8/")
        );
        let scopes = target.token_key().scopes;
        assert_eq!(scopes, ["repository:a/b:pull,push", "repository:c/d:pull"]);
        assert_eq!(target.url("blobs/x").unwrap().as_str(), "https://quay.io/v2/a/b/blobs/x");
    }

    #[test]
    fn what_registries_say() {
        let text = br#"{"errors":[{"code":"DENIED","message":"no pull"},{"code":"X"}]}"#;
        assert_eq!(said(text), "no pull (DENIED); X");
        assert_eq!(said(b"<html>nginx</html>"), "");
        assert_eq!(said(b"plain\x1b[31m words\n"), "plain[31m words");
    }

    #[test]
    fn chances_differ() {
        let chances: Vec<f64> = (0..8).map(|_| chance()).collect();
        assert!(chances.iter().all(|c| (0.0..1.0).contains(c)));
        assert!(chances.windows(2).any(|w| w[0] != w[1]));
    }
}
