//! Contexts that lie elsewhere: commits of git repositories, and files on web servers, which are
//! archives or Dockerfiles. The client fetches them.

use super::ended;
use super::packed::Packed;
use crate::error::user;
use crate::up::settings::registries;
use coordinator::dockerfile::source::{GitRef, Source, classify};
use futures::StreamExt;
use ops::config::Config;
use proto::error::{Class, Failure};
use proto::limit;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use worker::agent::git::{self, Login};
use worker::agent::modified;
use worker::image::registry::{Registry, causes};
use worker::image::unpack::{begins_archive, newest_file};

/// What was fetched.
pub struct Fetched {
    /// What it is.
    pub what: What,
    /// When it was made, in seconds since 1970: the commit's time, or what the web server says.
    pub time: Option<i64>,
}

/// A context, as it was found.
pub enum What {
    /// A file.
    File(File),
    /// Files, in a directory that lives as long as the other one.
    Files(PathBuf, TempDir),
}

/// What a file is as the main context.
pub enum Main {
    /// The Dockerfile, without other files.
    Dockerfile(Vec<u8>),
    /// Files, and the Dockerfile among them.
    Archive(Packed),
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

/// A directory for what was fetched.
pub fn directory() -> Result<TempDir, Failure> {
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
    file.rewind().map_err(|e| failed(url, e))?;
    Ok(Fetched { what: What::File(file), time })
}

/// What the file of that URL is as the main context: an archive is unpacked.
pub async fn open(url: &str, mut file: File) -> Result<Main, Failure> {
    let url = without_login(url, url);
    let mut head = Vec::new();
    (&file).take(512).read_to_end(&mut head).map_err(|e| failed(&url, e))?;
    file.rewind().map_err(|e| failed(&url, e))?;
    ended::blocking(file, move |mut input| {
        if begins_archive(&head) {
            return Packed::read(input, &format!("The archive {url}")).map(Main::Archive);
        }
        let text = super::context::read_bounded(&mut input, limit::DOCKERFILE_BYTES_MAX);
        text.map(Main::Dockerfile).map_err(|e| failed(&url, e))
    })
    .await
}

/// How a file is called that is a named context.
const ALONE: &str = "context";

/// The file of that URL as a named context: a directory with it alone, whatever it is. So BuildKit
/// has it; archives are unpacked as main contexts only. Answers its time, too: `time`, or that of
/// the newest file in an archive.
pub async fn alone(
    url: &str,
    file: File,
    time: Option<i64>,
) -> Result<(PathBuf, TempDir, Option<i64>), Failure> {
    let url = without_login(url, url);
    ended::blocking(file, move |mut input| {
        let dir = directory()?;
        let files = dir.path().join("files");
        let mut put = || {
            std::fs::create_dir(&files)?;
            let mut to = File::create(files.join(ALONE))?;
            std::io::copy(&mut input, &mut to)?;
            to.set_permissions(PermissionsExt::from_mode(0o600))?;
            let since = Duration::from_secs(time.unwrap_or(0).max(0).unsigned_abs());
            to.set_modified(SystemTime::UNIX_EPOCH + since)
        };
        put().map_err(|e| failed(&url, e))?;
        let time = match time {
            Some(time) => Some(time),
            None => {
                let file = File::open(files.join(ALONE)).map_err(|e| failed(&url, e))?;
                newest_file(file).map_err(|e| failed(&url, e))?
            }
        };
        Ok((files, dir, time))
    })
    .await
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

    #[tokio::test]
    async fn a_file_alone_is_a_directory_with_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"data").unwrap();
        file.rewind().unwrap();
        let (files, _dir, time) = alone("http://x/y", file, Some(5)).await.unwrap();
        assert_eq!(time, Some(5));
        let path = files.join("context");
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        let meta = path.metadata().unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
        assert_eq!(meta.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
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
