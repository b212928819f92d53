//! Which hosts are asked for a registry's images, and how. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where Docker Hub's images really are.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// By registry (`docker.io`, or `*` for all but this machine's own): mirrors that are asked
    /// first, in this order. `http://127.0.0.1:5000/prefix` asks for `prefix/library/alpine` there;
    /// without a scheme, a mirror is reached as a registry of that name would be.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (host and port) that are reached by plain HTTP. Those of this machine are anyway,
    /// unless they have certificates below.
    pub plain_http: Vec<String>,
    /// By registry: files with certificates (PEM) of authorities that it is trusted by, besides the
    /// system's.
    pub ca: BTreeMap<String, Vec<PathBuf>>,
    /// Directories laid out as `/etc/docker/certs.d`: `HOST:PORT/NAME.crt` are authorities,
    /// `NAME.cert` and `NAME.key` a client's certificate and key.
    pub certs_dirs: Vec<PathBuf>,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// What is done when a host does not answer.
    pub retry: RetryConfig,
}

/// Proxies, as the variables of the same names have them. This machine's own registries are never
/// asked through one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts, domains and networks, with commas between them.
    pub no: Option<String>,
}

impl ProxyConfig {
    /// From variables: `variable("HTTPS_PROXY")` answers its value. Lower case counts before upper
    /// case, as in curl and Go.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            let value = variable(&name.to_lowercase()).or_else(|| variable(name));
            value.filter(|v| !v.is_empty())
        };
        Self { http: get("HTTP_PROXY"), https: get("HTTPS_PROXY"), no: get("NO_PROXY") }
    }
}

/// What is done when a host does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often a request is sent at most.
    pub attempts: u32,
    /// The longest wait before the second time, in milliseconds. It doubles from time to time.
    pub first_wait_ms: u64,
    /// How long a host may be silent, in seconds.
    pub silence_s: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 5, first_wait_ms: 500, silence_s: 60 }
    }
}

/// No wait is longer, whatever a host asks for.
const WAIT_MAX: Duration = Duration::from_secs(30);

impl RetryConfig {
    /// How long to wait after `failures` failures (1 or more). `chance` is between 0 and 1: those
    /// who failed at the same time must not come back at the same time. `asked` is what the host
    /// asked for by `Retry-After`.
    pub fn wait(&self, failures: u32, chance: f64, asked: Option<Duration>) -> Duration {
        let doubled = self.first_wait_ms.saturating_mul(1 << (failures - 1).min(20));
        let longest = Duration::from_millis(doubled).min(WAIT_MAX);
        let wait = longest.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        wait.max(asked.unwrap_or_default()).min(WAIT_MAX)
    }
}

/// One host that is asked for images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host, and port if it is not the usual one: what logins and certificates are found by.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The authority of URLs. Docker Hub's is not its host.
    pub authority: String,
    /// What repositories begin with there: empty, or with a slash at the end.
    pub prefix: String,
    /// The registry that it is a mirror of.
    pub mirror_of: Option<String>,
}

impl RegistryConfig {
    /// The hosts that are asked for this registry's images, in order. The last one is the registry
    /// itself.
    pub fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, String> {
        let any = if is_this_machine(registry) { None } else { self.mirrors.get("*") };
        let mirrors = self.mirrors.get(registry).or(any);
        let mirrors = mirrors.into_iter().flatten().map(|text| self.mirror(registry, text));
        mirrors.chain([Ok(self.itself(registry))]).collect()
    }

    /// The registry itself: where pushes go.
    pub fn itself(&self, registry: &str) -> Endpoint {
        let authority = if registry == "docker.io" { DOCKER_HUB } else { registry };
        Endpoint {
            host: registry.to_owned(),
            scheme: self.scheme(registry),
            authority: authority.to_owned(),
            prefix: String::new(),
            mirror_of: None,
        }
    }

    fn mirror(&self, registry: &str, text: &str) -> Result<Endpoint, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some("http"), rest),
            Some(("https", rest)) => (Some("https"), rest),
            Some(_) => return Err(format!("the mirror `{text}` is neither http nor https")),
            None => (None, text),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
        let path_fine = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if host.is_empty() || !host.chars().all(fine) || !path.chars().all(path_fine) {
            return Err(format!("the mirror `{text}` is not of the form http://HOST:PORT/PREFIX"));
        }
        Ok(Endpoint {
            host: host.to_owned(),
            scheme: scheme.unwrap_or_else(|| self.scheme(host)),
            authority: self.itself(host).authority,
            prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
            mirror_of: Some(registry.to_owned()),
        })
    }

    fn scheme(&self, host: &str) -> &'static str {
        let own = is_this_machine(host) && !self.has_certificates(host) && !host.ends_with(":443");
        if own || self.plain_http.iter().any(|h| h == host) { "http" } else { "https" }
    }

    fn has_certificates(&self, host: &str) -> bool {
        self.ca.get(host).is_some_and(|files| !files.is_empty())
            || self.certs_dirs.iter().any(|dir| dir.join(host).is_dir())
    }
}

/// Whether the host (with or without a port) is this machine.
pub fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(config: &RegistryConfig, registry: &str) -> Vec<String> {
        let show = |e: Endpoint| format!("{}://{}/v2/{}", e.scheme, e.authority, e.prefix);
        config.endpoints(registry).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn schemes() {
        let mut config = RegistryConfig::default();
        assert_eq!(urls(&config, "docker.io"), ["https://registry-1.docker.io/v2/"]);
        for own in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(urls(&config, own), [format!("http://{own}/v2/")]);
        }
        assert_eq!(urls(&config, "localhost:443"), ["https://localhost:443/v2/"]);
        assert_eq!(urls(&config, "10.0.0.1:5000"), ["https://10.0.0.1:5000/v2/"]);
        config.plain_http.push("10.0.0.1:5000".into());
        assert_eq!(urls(&config, "10.0.0.1:5000"), ["http://10.0.0.1:5000/v2/"]);
        config.ca.insert("localhost:5000".into(), vec!["ca.pem".into()]);
        assert_eq!(urls(&config, "localhost:5000"), ["https://localhost:5000/v2/"]);
    }

    #[test]
    fn mirrors_come_first() {
        let mut config = RegistryConfig::default();
        let list = |m: &[&str]| m.iter().map(ToString::to_string).collect();
        config.mirrors.insert("docker.io".into(), list(&["http://m:5000/hub/", "127.0.0.1:6000"]));
        config.mirrors.insert("*".into(), list(&["https://all"]));
        let hub = [
            "http://m:5000/v2/hub/",
            "http://127.0.0.1:6000/v2/",
            "https://registry-1.docker.io/v2/",
        ];
        assert_eq!(urls(&config, "docker.io"), hub);
        assert_eq!(urls(&config, "quay.io"), ["https://all/v2/", "https://quay.io/v2/"]);
        assert_eq!(urls(&config, "localhost:1"), ["http://localhost:1/v2/"]);
        for bad in ["ftp://x", "http://", "http://a b", "http://a/?x"] {
            config.mirrors.insert("bad".into(), list(&[bad]));
            assert!(config.endpoints("bad").unwrap_err().contains(bad));
        }
    }

    #[test]
    fn waits_double_and_are_bounded() {
        let retry = RetryConfig::default();
        let ms = |failures, chance| retry.wait(failures, chance, None).as_millis();
        assert_eq!([ms(1, 0.0), ms(1, 1.0), ms(3, 1.0), ms(60, 1.0)], [250, 500, 2000, 30_000]);
        let asked = |s| retry.wait(1, 0.0, Some(Duration::from_secs(s))).as_secs();
        assert_eq!([asked(7), asked(9999)], [7, 30]);
    }

    #[test]
    fn proxies_from_variables() {
        let get = |name: &str| match name {
            "https_proxy" => Some("http://a:1".to_owned()),
            "HTTPS_PROXY" => Some("http://b:1".to_owned()),
            "NO_PROXY" => Some(String::new()),
            _ => None,
        };
        let proxy = ProxyConfig::from_variables(get);
        assert_eq!(proxy, ProxyConfig { http: None, https: Some("http://a:1".into()), no: None });
    }
}
