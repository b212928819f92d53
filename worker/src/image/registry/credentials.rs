//! Logins: where they come from.

use proto::wire::build::Login;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

/// The answer to [`Credentials::login`].
pub type LoginFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<Login>, String>> + Send + 'a>>;

/// Who knows logins. In the farm, workers ask the client of the build.
pub trait Credentials: Send + Sync {
    /// The login for a registry, by its host as references name it (`docker.io`,
    /// `localhost:5000`); None when there is none. A user `<token>` means that the password is an
    /// identity token (a refresh token of OAuth 2).
    fn login<'a>(&'a self, host: &'a str) -> LoginFuture<'a>;
}

/// Nobody's logins.
pub struct Anonymous;

impl Credentials for Anonymous {
    fn login<'a>(&'a self, _: &'a str) -> LoginFuture<'a> {
        Box::pin(async { Ok(None) })
    }
}

/// Logins as Docker keeps them: `config.json` with `auths`, `credHelpers` and `credsStore`.
pub struct DockerConfig {
    file: PathBuf,
}

/// The name that Docker keeps Docker Hub's login under.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

impl DockerConfig {
    /// Reads from this file. When it is not there, there are no logins.
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Where Docker looks: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    /// `variable("HOME")` answers a variable's value.
    pub fn standard(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<Self> {
        let set = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
        Some(Self::new(dir.join("config.json")))
    }

    /// The login for a host. Runs credential helpers, and so blocks.
    pub fn login_blocking(&self, host: &str) -> Result<Option<Login>, String> {
        use docker_credential::{CredentialRetrievalError as Error, DockerCredential};
        let read = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{}: {e}", self.file.display())),
        };
        let server = if host == "docker.io" { DOCKER_HUB } else { host };
        match docker_credential::get_credential_from_reader(&read[..], server) {
            Ok(DockerCredential::IdentityToken(token)) => {
                Ok(Some(Login { user: TOKEN_USER.into(), password: token }))
            }
            // `docker logout` leaves an empty entry behind.
            Ok(DockerCredential::UsernamePassword(user, _)) if user.is_empty() => Ok(None),
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                Ok(Some(Login { user, password }))
            }
            Err(Error::NoCredentialConfigured) => Ok(None),
            // What helpers say when they have nothing (docker-credential-helpers, `credentials`).
            Err(Error::HelperFailure { stdout, .. }) if stdout.contains("not found") => Ok(None),
            Err(Error::HelperFailure { helper, stdout, stderr }) => {
                let said = [stdout.trim(), stderr.trim()].join(" ");
                Err(format!("`{helper}` failed: {}", said.trim()))
            }
            Err(e) => Err(format!("{}: {e}", self.file.display())),
        }
    }
}

/// The user of logins that are identity tokens.
pub const TOKEN_USER: &str = "<token>";

impl Credentials for DockerConfig {
    fn login<'a>(&'a self, host: &'a str) -> LoginFuture<'a> {
        let config = Self::new(self.file.clone());
        let host = host.to_owned();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || config.login_blocking(&host));
            read.await.map_err(|e| e.to_string())?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        (dir, DockerConfig::new(file))
    }

    fn login(config: &DockerConfig, host: &str) -> Option<(String, String)> {
        config.login_blocking(host).unwrap().map(|l| (l.user, l.password))
    }

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.into(), password.into()))
    }

    #[test]
    fn auths() {
        // ann:secret
        let text = r#"{"auths": {"quay.io": {"auth": "YW5uOnNlY3JldA=="}, "out:5000": {},
            "https://index.docker.io/v1/": {"auth": "YW5uOnNlY3JldA=="},
            "acr.io": {"auth": "MDow", "identitytoken": "abc"}}}"#;
        let (_dir, config) = config(text);
        assert_eq!(login(&config, "quay.io"), pair("ann", "secret"));
        assert_eq!(login(&config, "docker.io"), pair("ann", "secret"));
        assert_eq!(login(&config, "acr.io"), pair(TOKEN_USER, "abc"));
        assert_eq!(login(&config, "out:5000"), None);
        assert_eq!(login(&config, "elsewhere"), None);
    }

    #[test]
    fn no_file_means_no_logins_and_a_broken_one_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(login(&DockerConfig::new(dir.path().join("none")), "x"), None);
        let (_dir, broken) = config("{");
        assert!(broken.login_blocking("x").unwrap_err().contains("config.json"));
        let at = DockerConfig::standard(|name| (name == "HOME").then(|| "/h".into())).unwrap();
        assert_eq!(at.file, PathBuf::from("/h/.docker/config.json"));
    }

    /// Helpers are found by `PATH`, which a test cannot change for itself alone: the test runs
    /// itself anew with another one.
    #[test]
    fn helpers() {
        if std::env::var_os("SLIPWAY_TEST_HELPERS").is_some() {
            let text =
                r#"{"credHelpers": {"help.io": "one", "bad.io": "two"}, "credsStore": "two"}"#;
            let (_dir, config) = config(text);
            assert_eq!(login(&config, "help.io"), pair("bob", "for help.io"));
            assert_eq!(login(&config, "other.io"), None, "the store has nothing for it");
            assert!(config.login_blocking("bad.io").unwrap_err().contains("it is locked"));
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\nread host\n{text}")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        };
        let answer =
            r#"echo "{\"ServerURL\":\"$host\",\"Username\":\"bob\",\"Secret\":\"for $host\"}""#;
        script("docker-credential-one", answer);
        let refuse = "[ $host = bad.io ] && { echo it is locked; exit 1; }\n\
                      echo credentials not found in native keychain; exit 1";
        script("docker-credential-two", refuse);
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "image::registry::credentials::tests::helpers"])
            .env("SLIPWAY_TEST_HELPERS", "1")
            .env("PATH", path)
            .status();
        assert!(status.unwrap().success());
    }
}
