//! Who we are, as registries want to hear it: Basic (RFC 7617), or a token that a token server
//! gives (Docker Registry v2 authentication: “Token Authentication Specification” and “OAuth2
//! Token Authentication”).

use super::config::{Endpoint, is_this_machine};
use super::credentials::TOKEN_USER;
use super::{RegistryError, Session, Target};
use http_auth::parser::ChallengeParser;
use proto::wire::build::Login;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Bytes of a token server's answer.
const TOKEN_BYTES_MAX: usize = 1 << 20;

/// How long a login may take to come. A helper may ask a person.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(120);

/// What a registry answers to who says nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// What requests are sent with.
#[derive(Clone)]
pub(super) struct Token {
    pub header: HeaderValue,
    /// When it has to be asked for anew.
    until: Instant,
}

/// What a token is for: a host, and what may be done there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub host: String,
    pub scopes: Vec<String>,
}

impl Challenge {
    /// The challenge of a response, Bearer before Basic. None when there is none that we know.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let mut basic = None;
        for challenge in values.flat_map(ChallengeParser::new).filter_map(Result::ok) {
            let get = |name: &str| {
                let mut params = challenge.params.iter();
                let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let realm = get("realm")?;
                return Some(Self::Bearer { realm, service: get("service"), scope: get("scope") });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

impl Session {
    /// The token that was given before, if it is still good.
    pub(super) fn known_token(&self, key: &TokenKey) -> Option<Token> {
        let tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        tokens.get(key).filter(|token| token.until > Instant::now()).cloned()
    }

    /// Answers a challenge. `refused` is the token that was sent and not taken.
    pub(super) async fn answer(
        &self,
        target: &Target<'_>,
        challenge: Option<Challenge>,
        refused: Option<&Token>,
    ) -> Result<(), RegistryError> {
        let key = target.token_key();
        let _one = self.asking.enter(key.clone()).await;
        // Somebody else may have got a new one in the meantime.
        let known = self.known_token(&key);
        if known.is_some_and(|k| refused.is_none_or(|r| r.header != k.header)) {
            return Ok(());
        }
        let login = self.login(target.endpoint).await?;
        let denied = |detail: &str| target.denied(login.is_some(), detail);
        let token = match challenge {
            None => return Err(denied("it does not say which login it wants")),
            Some(Challenge::Basic) => match &login {
                Some(Login { user, password }) if user != TOKEN_USER && refused.is_none() => {
                    let header = basic(user, password);
                    Token { header, until: Instant::now() + Duration::from_secs(1 << 30) }
                }
                Some(_) => return Err(denied("it does not take the login")),
                None => return Err(denied("it wants a login")),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let asked = Asked { realm: &realm, service, scope };
                self.fetch_token(target, asked, login.as_ref()).await?
            }
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        tokens.insert(key, token);
        Ok(())
    }

    /// The login for a host, asked for once.
    async fn login(&self, endpoint: &Endpoint) -> Result<Option<Login>, RegistryError> {
        let mut logins = self.logins.lock().await;
        if let Some(login) = logins.get(&endpoint.host) {
            return Ok(login.clone());
        }
        let host = endpoint.host.clone();
        let login = tokio::time::timeout(LOGIN_TIME_MAX, self.credentials.login(&host)).await;
        let login = login.unwrap_or_else(|_| Err("nobody answers".into()));
        let login = login.map_err(|why| RegistryError::Credentials { host: host.clone(), why })?;
        logins.insert(host, login.clone());
        Ok(login)
    }

    async fn fetch_token(
        &self,
        target: &Target<'_>,
        asked: Asked<'_>,
        login: Option<&Login>,
    ) -> Result<Token, RegistryError> {
        let denied = |detail: String| target.denied(login.is_some(), &detail);
        let realm = Url::parse(asked.realm)
            .map_err(|e| denied(format!("its token server `{}` is no URL: {e}", asked.realm)))?;
        let host = realm.host_str().unwrap_or_default().to_owned();
        if target.endpoint.scheme == "https" && realm.scheme() != "https" && !is_this_machine(&host)
        {
            let what = format!("its token server `{realm}` would hear the login in plain text");
            return Err(denied(what));
        }
        let authority = realm.port().map_or(host.clone(), |port| format!("{host}:{port}"));
        let client = self.registry.0.clients.client(&self.registry.0.config, &authority)?;
        let send = || token_request(&client, realm.clone(), &asked, target, login).send();
        let sent = self.with_retries(target, send).await?;
        let status = sent.status();
        let body = super::call::read_body(sent, TOKEN_BYTES_MAX).await;
        let body = body.map_err(|e| target.unreachable(format!("its token server: {e}")))?;
        if !status.is_success() {
            let said = super::call::said(&body);
            return Err(denied(format!("{authority} gives no token ({status}): {said}")));
        }
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|e| denied(format!("{authority} gives a broken token: {e}")))?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| denied(format!("{authority} gives a broken token")))?;
        header.set_sensitive(true);
        // The specification's default is 60 seconds. A little less, for those that are on their way.
        let seconds = answer.expires_in.unwrap_or(60).clamp(60, 24 * 3600) * 9 / 10;
        Ok(Token { header, until: Instant::now() + Duration::from_secs(seconds) })
    }
}

/// What a challenge asks for.
struct Asked<'a> {
    realm: &'a str,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn basic(user: &str, password: &str) -> HeaderValue {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let header = HeaderValue::from_str(&format!("Basic {pair}"));
    let mut header = header.expect("Base64 is always a header value");
    header.set_sensitive(true);
    header
}

/// Our scopes, and the registry's own if it names another.
fn scopes(target: &Target<'_>, asked: &Asked<'_>) -> Vec<String> {
    let mut scopes = target.token_key().scopes;
    let more = asked.scope.iter().flat_map(|s| s.split(' ')).filter(|s| !s.is_empty());
    for scope in more {
        if !scopes.iter().any(|s| s == scope) {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

fn token_request(
    client: &reqwest::Client,
    realm: Url,
    asked: &Asked<'_>,
    target: &Target<'_>,
    login: Option<&Login>,
) -> reqwest::RequestBuilder {
    let scopes = scopes(target, asked);
    if let Some(Login { password, .. }) = login.filter(|l| l.user == TOKEN_USER) {
        let form = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", password),
            ("service", asked.service.as_deref().unwrap_or_default()),
            ("client_id", "slipway"),
            ("scope", &scopes.join(" ")),
        ]);
        let kind = "application/x-www-form-urlencoded";
        return client.post(realm).header("content-type", kind).body(form);
    }
    let mut url = realm;
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &asked.service {
            query.append_pair("service", service);
        }
        scopes.iter().for_each(|scope| {
            query.append_pair("scope", scope);
        });
        if let Some(login) = login {
            query.append_pair("account", &login.user);
        }
    }
    let request = client.get(url);
    match login {
        Some(login) => request.basic_auth(&login.user, Some(&login.password)),
        None => request,
    }
}

/// The form in the encoding of HTML forms, which a URL's query has too.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://localhost/").expect("it is a URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges() {
        let bearer = |scope: Option<&str>| Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: scope.map(Into::into),
        };
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        assert_eq!(challenge(&[text]), Some(bearer(None)));
        let scoped = format!(r#"{text},scope="repository:a/b:pull,push",error="invalid_token""#);
        assert_eq!(
            challenge(&["Basic realm=x", &scoped]),
            Some(bearer(Some("repository:a/b:pull,push")))
        );
        assert_eq!(challenge(&[r#"BASIC realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["broken ==,"]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn basic_is_base64() {
        assert_eq!(basic("ann", "secret"), "Basic YW5uOnNlY3JldA==");
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "b c&d"), ("e", "ü")]), "a=b+c%26d&e=%C3%BC");
    }
}
