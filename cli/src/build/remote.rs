//! Contexts that lie elsewhere: commits of git repositories, and archives or Dockerfiles on web
//! servers. The client fetches them into a directory, which is the context from then on.

use crate::error::user;
use crate::up::settings::registries;
use coordinator::dockerfile::source::{GitRef, Source, classify};
use futures::StreamExt;
use ops::config::Config;
use proto::error::{Class, Failure};
use proto::limit;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use tempfile::TempDir;
use worker::agent::git::{self, Login};
use worker::agent::modified;
use worker::image::registry::{Registry, causes};
use worker::image::unpack::{begins_archive, to_directory};

/// What was fetched.
pub struct Fetched {
    /// What it is.
    pub what: What,
    /// When it was made, in seconds since 1970: the commit's time, what the web server says, or that
    /// of the newest file in an archive.
    pub time: Option<i64>,
}

/// A context, as it was found.
pub enum What {
    /// A Dockerfile alone.
    Dockerfile(Vec<u8>),
    /// Files, in a directory that lives as long as the other one.
    Files(PathBuf, TempDir),
}

/// Whether a context lies elsewhere.
pub fn is_remote(text: &str) -> bool {
    !matches!(classify(text), Ok(Source::Path))
}

/// Fetches a context. `keep_git_dir` says whether the context of a git repository has its `.git`
/// (`BUILDKIT_CONTEXT_KEEP_GIT_DIR`) when its URL does not say so.
pub async fn fetch(text: &str, keep_git_dir: bool, config: &Config) -> Result<Fetched, Failure> {
    let fetched = match classify(text) {
        Err(e) => Err(user(e.to_string())),
        Ok(Source::Git(wanted)) => commit(&wanted, keep_git_dir).await,
        Ok(Source::Http { .. }) => download(text, config).await,
        Ok(Source::Path) => Err(user(format!("The context `{text}` is no URL"))),
    };
    fetched.map_err(|mut failure| {
        failure.message = without_login(text, &failure.message);
        failure
    })
}

fn failed(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Unavailable, format!("Fetching the context {what} failed: {why}"))
}

fn directory() -> Result<TempDir, Failure> {
    let made = tempfile::Builder::new().prefix("slipway-context-").tempdir();
    made.map_err(|e| user(format!("Making a directory for the context failed: {e}")))
}

async fn commit(wanted: &GitRef, keep_git_dir: bool) -> Result<Fetched, Failure> {
    let remote = wanted.remote.as_str();
    let dir = directory()?;
    let commit = git::find(&Login::Person, dir.path(), remote, &wanted.reference).await?;
    if let Some(checksum) = wanted.checksum.as_ref().filter(|sum| !commit.starts_with(*sum)) {
        let message = format!("The commit of {remote} is {commit}, not {checksum}");
        return Err(Failure::new(Class::User, message));
    }
    let files = dir.path().join("files");
    std::fs::create_dir(&files).map_err(|e| failed(remote, e))?;
    let time =
        git::fetch(&Login::Person, &files, remote, &commit, wanted.submodules.unwrap_or(true))
            .await?;
    if !wanted.keep_git_dir.unwrap_or(keep_git_dir) {
        std::fs::remove_dir_all(files.join(".git")).map_err(|e| failed(remote, e))?;
    }
    let subdir = wanted.subdir.trim_matches('/');
    let from = git::inside(&files, subdir)
        .map_err(|e| user(format!("The commit of {remote} has no folder `{subdir}`: {e}")))?;
    git::set_times(&from, time).map_err(|e| failed(remote, e))?;
    Ok(Fetched { what: What::Files(from, dir), time: Some(time) })
}

async fn download(url: &str, config: &Config) -> Result<Fetched, Failure> {
    let host = reqwest::Url::parse(url).map_err(|e| user(format!("`{url}` is not a URL: {e}")))?;
    let host = host.host_str().unwrap_or_default();
    let client = Registry::new(registries(config)).client(host);
    let client = client.map_err(|e| failed(url, e))?;
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let answer = answer.map_err(|e| failed(url, causes(&e.without_url())))?;
    let time = modified(answer.headers());
    let mut body = answer.bytes_stream();
    let mut file = tempfile::tempfile().map_err(|e| failed(url, e))?;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| failed(url, causes(&e.without_url())))?;
        file.write_all(&piece).map_err(|e| failed(url, e))?;
    }
    let url = url.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        file.rewind().map_err(|e| failed(&url, e))?;
        let fetched = open(&url, file)?;
        Ok(Fetched { time: time.or(fetched.time), ..fetched })
    });
    opened.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// An archive's files, or the Dockerfile that it is.
fn open(url: &str, mut file: File) -> Result<Fetched, Failure> {
    let mut head = Vec::new();
    (&file).take(512).read_to_end(&mut head).map_err(|e| failed(url, e))?;
    file.rewind().map_err(|e| failed(url, e))?;
    if begins_archive(&head) {
        let dir = directory()?;
        let files = dir.path().join("files");
        std::fs::create_dir(&files).map_err(|e| failed(url, e))?;
        let time = to_directory(file, &files);
        let time = time.map_err(|e| user(format!("The archive {url}: {e}")))?;
        return Ok(Fetched { what: What::Files(files, dir), time });
    }
    let text = super::context::read_bounded(&mut file, limit::DOCKERFILE_BYTES_MAX);
    let what = What::Dockerfile(text.map_err(|e| failed(url, e))?);
    Ok(Fetched { what, time: None })
}

/// What is said of a context, without the login that its URL may hold.
pub fn without_login(url: &str, said: &str) -> String {
    let host = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    match host.and_then(|host| host.rsplit_once('@')) {
        Some((login, _)) => said.replace(&format!("{login}@"), ""),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_elsewhere() {
        for remote in ["https://x/y.git#v1:dir", "http://x/context.tar", "git@x.org:a/b.git"] {
            assert!(is_remote(remote), "{remote}");
        }
        for here in [".", "/tmp", "a/b", "a@b", "dir.git"] {
            assert!(!is_remote(here), "{here}");
        }
    }

    #[test]
    fn logins_are_not_said() {
        let url = "https://me:secret@x/y.git#v1";
        assert_eq!(
            without_login(url, &format!("{url} is not there")),
            "https://x/y.git#v1 is not there"
        );
        assert_eq!(without_login("https://x/y@z", "https://x/y@z"), "https://x/y@z");
    }
}
