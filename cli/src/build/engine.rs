//! `--load`: into the Docker engine that runs on this machine.

use super::archive::Piece;
use crate::error::user;
use proto::error::{Class, Failure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where engines listen.
const SOCKET: &str = "/var/run/docker.sock";

fn socket() -> Result<PathBuf, Failure> {
    match std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty()) {
        None => Ok(PathBuf::from(SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(user(format!(
                "--load: DOCKER_HOST is `{host}`; only engines on this machine (unix://) are loaded"
            ))),
        },
    }
}

/// A client for one socket. Nothing is encrypted there: it trusts no certificate at all.
fn client(socket: &Path) -> Result<reqwest::Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.unix_socket(socket).no_proxy().build().map_err(|e| causes(&e))
}

/// An error with all that led to it: the outermost only says that something failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Sends an archive to the engine.
pub async fn load(queue: mpsc::Receiver<Piece>) -> Result<(), Failure> {
    let path = socket()?;
    let unreachable = |e: &dyn std::fmt::Display| {
        Failure::new(
            Class::Unavailable,
            format!("--load: the Docker engine at {} cannot be reached: {e}", path.display()),
        )
        .hint("Start it, set DOCKER_HOST, or write an archive: -o type=docker,dest=FILE.")
    };
    if let Err(e) = std::os::unix::net::UnixStream::connect(&path) {
        return Err(unreachable(&e));
    }
    let client = client(&path).map_err(|e| unreachable(&e))?;
    let stream = futures::stream::unfold(Some(queue), async |queue| {
        let mut queue = queue?;
        match queue.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(queue))),
            Some(Piece::End) => None,
            // Not whole: the request breaks off, and the engine takes nothing.
            None => Some((Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)), None)),
        }
    });
    let response = client
        .post("http://docker/images/load?quiet=1")
        .header("Content-Type", "application/x-tar")
        .body(reqwest::Body::wrap_stream(stream))
        .send()
        .await
        .map_err(|e| unreachable(&causes(&e)))?;
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    // The engine reports errors of the archive in the middle of a good answer.
    if !status.is_success() || text.contains("\"errorDetail\"") || text.contains("\"error\"") {
        let text: String = text.trim().chars().take(400).collect();
        return Err(Failure::new(Class::User, format!("--load: the engine says: {text}")));
    }
    Ok(())
}
