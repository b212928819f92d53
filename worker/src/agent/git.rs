//! Commits of git repositories: `ADD https://….git#ref:dir`, and contexts. By the `git` program, which
//! knows all transports.

use super::Machine;
use super::images::store_failure;
use crate::rootfs::{RootMeta, at, capture};
use cache::store::Store;
use proto::error::{Class, Failure};
use proto::id::RootId;
use proto::step::GitOp;
use proto::tree::{Meta, Mtime, Presence, Root, empty_dir};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;

/// What git says is shown up to this many bytes.
const SHOWN: usize = 2000;

/// A folder that is deleted when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), error = %e, "a checkout stays behind");
        }
    }
}

async fn git(dir: &Path, args: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    // Neither the machine's settings nor a question to nobody.
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir).env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    let output = command.output().await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Class::Unavailable, "The program `git` is not installed").hint(
                "Install it on the machine that runs the build (Debian: apt-get install git).",
            )
        }
        _ => Failure::new(Class::Unavailable, format!("Starting git failed: {e}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(SHOWN).collect();
    let what = args.iter().find(|arg| !arg.starts_with('-')).unwrap_or(&"git");
    Err(Failure::new(Class::Unavailable, format!("`git {what}` failed: {said}")))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Which commit a reference is: in the order in which git looks names up, tags before branches.
/// Pure. `listed` is what `git ls-remote` says.
fn pick(listed: &str, reference: &str) -> Option<String> {
    let rows: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let name = if reference.is_empty() { "HEAD" } else { reference };
    let candidates = [
        format!("{name}^{{}}"),
        name.to_owned(),
        format!("refs/tags/{name}^{{}}"),
        format!("refs/tags/{name}"),
        format!("refs/heads/{name}"),
    ];
    let find = |wanted: &String| rows.iter().find(|(_, name)| name == wanted);
    candidates.iter().find_map(find).map(|(commit, _)| (*commit).to_owned())
}

/// Finds out what commit a branch or tag is.
pub(super) async fn resolve(
    machine: &Machine,
    remote: &str,
    reference: &str,
) -> Result<String, Failure> {
    let found = find(&scratch(machine)?.0, remote, reference).await;
    found.map_err(|failure| with_own_keys(remote, failure))
}

/// Whether a repository is reached by ssh: by its URL, or as `HOST:PATH`.
fn is_by_ssh(remote: &str) -> bool {
    remote.starts_with("ssh://") || !remote.contains("://")
}

/// What to do when this machine's keys do not do: the client's are for RUNs alone.
fn with_own_keys(remote: &str, failure: Failure) -> Failure {
    match failure.hint.is_none() && is_by_ssh(remote) {
        true => failure.hint(
            "ADD reaches repositories by the keys and known hosts of the machine that fetches them, \
             not by --ssh. With the keys of --ssh: `RUN --mount=type=ssh git clone …`. With those of \
             the client: as a context (`--build-context NAME=git@HOST:PATH`).",
        ),
        false => failure,
    }
}

/// The commit that a branch, a tag or a commit's own name stands for; the default branch's for an
/// empty name. `dir` is any directory: nothing is written to it.
pub async fn find(dir: &Path, remote: &str, reference: &str) -> Result<String, Failure> {
    if is_commit(reference) {
        return Ok(reference.to_owned());
    }
    let listed = git(dir, &["ls-remote", "--", remote]).await?;
    pick(&listed, reference).ok_or_else(|| {
        let message = format!("The repository {remote} has no branch or tag `{reference}`");
        Failure::new(Class::User, message)
    })
}

/// Fetches a commit's files into an empty directory, with `.git`. Answers the commit's time, in
/// seconds since 1970.
pub async fn fetch(
    dir: &Path,
    remote: &str,
    commit: &str,
    submodules: bool,
) -> Result<i64, Failure> {
    bring(dir, remote, commit).await?;
    git(dir, &["checkout", "--quiet", "--detach", commit]).await?;
    if submodules {
        let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"];
        git(dir, &update).await?;
    }
    time_here(dir, commit).await
}

/// Fetches a commit into an empty directory, as git keeps it.
async fn bring(dir: &Path, remote: &str, commit: &str) -> Result<(), Failure> {
    git(dir, &["init", "--quiet"]).await?;
    git(dir, &["remote", "add", "--", "origin", remote]).await?;
    if git(dir, &["fetch", "--quiet", "--depth=1", "origin", commit]).await.is_err() {
        // Servers need not give single commits.
        git(dir, &["fetch", "--quiet", "--tags", "origin"]).await?;
    }
    Ok(())
}

/// The time of a commit that was fetched, in seconds since 1970.
async fn time_here(dir: &Path, commit: &str) -> Result<i64, Failure> {
    let said = git(dir, &["log", "--max-count=1", "--format=%ct", commit]).await?;
    said.trim().parse().map_err(|_| {
        let message = format!("git says of the time of {commit}: `{}`", said.trim());
        Failure::new(Class::Unavailable, message)
    })
}

/// The time of a commit, in seconds since 1970.
pub(super) async fn time(machine: &Machine, remote: &str, commit: &str) -> Result<i64, Failure> {
    let scratch = scratch(machine)?;
    let dir = scratch.0.as_path();
    let found = async {
        bring(dir, remote, commit).await?;
        time_here(dir, commit).await
    };
    found.await.map_err(|failure| with_own_keys(remote, failure))
}

fn scratch(machine: &Machine) -> Result<Scratch, Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Class::Unavailable, format!("Making a folder for a checkout failed: {e}"))
    };
    std::fs::create_dir_all(&machine.scratch).map_err(failed)?;
    let dir = tempfile::Builder::new().prefix("git-").tempdir_in(&machine.scratch);
    Ok(Scratch(dir.map_err(failed)?.keep()))
}

/// The commit's files as a tree. Their times are the commit's, so that the same commit is the same
/// tree.
pub(super) async fn checkout(machine: &Arc<Machine>, op: &GitOp) -> Result<RootId, Failure> {
    let scratch = scratch(machine)?;
    let dir = scratch.0.join("files");
    std::fs::create_dir(&dir)
        .map_err(|e| Failure::new(Class::Unavailable, format!("Making a folder failed: {e}")))?;
    let time = fetch(&dir, &op.remote, &op.commit, op.submodules).await;
    let time = time.map_err(|failure| with_own_keys(&op.remote, failure))?;
    let (machine, op) = (machine.clone(), op.clone());
    crate::image::blocking(move || {
        let root = tree(&*machine.store, &dir, &op, time);
        drop(scratch);
        root
    })
    .await
}

fn tree(store: &dyn Store, dir: &Path, op: &GitOp, time: i64) -> Result<RootId, Failure> {
    let io = |e: std::io::Error| {
        Failure::new(Class::Unavailable, format!("Reading a checkout of {} failed: {e}", op.remote))
    };
    if !op.keep_git_dir {
        std::fs::remove_dir_all(dir.join(".git")).map_err(io)?;
    }
    let subdir = op.subdir.trim_matches('/');
    let from = inside(dir, subdir).map_err(|e| {
        let message = format!("The commit of {} has no folder `{subdir}`: {e}", op.remote);
        Failure::new(Class::User, message)
    })?;
    set_times(&from, time).map_err(io)?;
    let empty = empty_dir();
    let meta = Meta::root_owned(0o755, Mtime { seconds: time, nanos: 0 });
    let root = Root { meta: meta.clone(), dir: empty.dir, presence: Presence::Merge };
    let (below, bytes) = root.seal();
    store.put_nodes(&[empty.bytes, bytes]).map_err(|e| store_failure(&e))?;
    let captured = capture(store, &from, &below, RootMeta::Kept);
    let diff = captured.map_err(|e| Failure::new(e.class(), e.to_string()))?;
    Ok(diff.id)
}

/// A folder of the checkout: no link in it leads out.
pub fn inside(dir: &Path, subdir: &str) -> std::io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let root = at::open_host_dir(dir)?;
    let there = at::resolve(&root, format!("/{subdir}").as_bytes())?;
    std::fs::read_link(format!("/proc/self/fd/{}", there.as_raw_fd()))
}

/// Gives everything below, links too, this time.
pub fn set_times(dir: &Path, time: i64) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let at = Timespec { tv_sec: time, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_times(&entry.path(), time)?;
        } else {
            utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(utimensat(CWD, dir, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_looked_up_as_git_does() {
        let listed = "aa\tHEAD\nbb\trefs/heads/main\ncc\trefs/tags/v1\ndd\trefs/tags/v1^{}\n";
        for (name, commit) in [
            ("", Some("aa")),
            ("main", Some("bb")),
            ("v1", Some("dd")),
            ("refs/tags/v1", Some("dd")),
            ("nope", None),
        ] {
            assert_eq!(pick(listed, name).as_deref(), commit, "{name}");
        }
        assert!(is_commit(&"a".repeat(40)) && !is_commit("v1"));
    }

    #[test]
    fn whose_keys_are_used_is_said_where_keys_are() {
        let hint = |remote: &str| {
            let failure = Failure::new(Class::Unavailable, "Permission denied (publickey)");
            with_own_keys(remote, failure).hint
        };
        for by_ssh in ["git@h.org:a/b.git", "ssh://git@h.org/a.git"] {
            assert!(hint(by_ssh).is_some_and(|hint| hint.contains("--mount=type=ssh")), "{by_ssh}");
        }
        assert_eq!(hint("https://h.org/a.git"), None);
        let other = Failure::new(Class::Unavailable, "no git").hint("Install it");
        assert_eq!(with_own_keys("git@h:a", other.clone()), other);
    }
}
