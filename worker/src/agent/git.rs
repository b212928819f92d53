//! Commits of git repositories: `ADD https://….git#ref:dir`, and contexts. By the `git` program, which
//! knows all transports.

use super::images::store_failure;
use super::link::Link;
use super::ssh::Forwarded;
use super::{Machine, ssh};
use crate::rootfs::{WrittenAs, at, capture};
use cache::store::Store;
use proto::error::{Class, Failure};
use proto::id::{BuildId, RootId};
use proto::step::{GitOp, is_by_ssh};
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

/// As whom ssh reaches a repository, and whom it trusts there.
#[derive(Default)]
pub enum Ssh {
    /// With the keys and known hosts of the account that git runs under.
    #[default]
    Own,
    /// With the client's agent.
    Agent(Forwarded),
}

/// No key of this machine is offered, and nobody at the other end reaches the agent. Of a host that
/// this machine knows no other key is taken, of whatever kind; the key of one that it does not know
/// is kept for as long as git runs, so that it does not change on the way.
const BY_AGENT: &str = "ssh -o BatchMode=yes -o IdentityAgent=SSH_AUTH_SOCK -o IdentityFile=none \
     -o ForwardAgent=no -o StrictHostKeyChecking=accept-new \
     -o 'UserKnownHostsFile=\"${SLIPWAY_KNOWN_HOSTS}\" ~/.ssh/known_hosts ~/.ssh/known_hosts2'";

impl Ssh {
    /// The client's agent where there is one.
    async fn of(
        machine: &Machine,
        link: &Link,
        build: &BuildId,
        remote: &str,
    ) -> Result<Self, Failure> {
        if !is_by_ssh(remote) {
            return Ok(Self::Own);
        }
        Ok(match ssh::forward(machine, link, build).await? {
            Some(forwarded) => Self::Agent(forwarded),
            None => Self::Own,
        })
    }

    fn apply(&self, command: &mut Command) {
        match self {
            Self::Own => command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
            Self::Agent(forwarded) => command
                .env("GIT_SSH_COMMAND", BY_AGENT)
                .env("SSH_AUTH_SOCK", forwarded.socket())
                .env("SLIPWAY_KNOWN_HOSTS", forwarded.known_hosts()),
        };
    }

    /// What to do when a repository is not reached.
    fn explain(&self, remote: &str, failure: Failure) -> Failure {
        if failure.hint.is_some() || !is_by_ssh(remote) {
            return failure;
        }
        match self {
            Self::Own => failure.hint(
                "Give the build an agent that has a key for it: `--ssh default`. Without one, ADD \
                 reaches repositories by the keys and known hosts of the machine that fetches them.",
            ),
            Self::Agent(forwarded) => {
                let mut failure = failure.hint(
                    "It was reached with the agent of `--ssh default`: `ssh-add -l` lists its keys. \
                     Keys of the host that differ from those in `known_hosts` of the machine that \
                     fetches are refused.",
                );
                if let Some(trouble) = forwarded.trouble() {
                    failure.message = format!("{trouble}. {}", failure.message);
                }
                failure
            }
        }
    }
}

async fn git(ssh: &Ssh, dir: &Path, args: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    // Neither the machine's settings nor a question to nobody.
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir).env("GIT_TERMINAL_PROMPT", "0");
    ssh.apply(&mut command);
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
    link: &Link,
    build: &BuildId,
    remote: &str,
    reference: &str,
) -> Result<String, Failure> {
    let scratch = scratch(machine)?;
    let ssh = Ssh::of(machine, link, build, remote).await?;
    let found = find(&ssh, &scratch.0, remote, reference).await;
    found.map_err(|failure| ssh.explain(remote, failure))
}

/// The commit that a branch, a tag or a commit's own name stands for; the default branch's for an
/// empty name. `dir` is any directory: nothing is written to it.
pub async fn find(ssh: &Ssh, dir: &Path, remote: &str, reference: &str) -> Result<String, Failure> {
    if is_commit(reference) {
        return Ok(reference.to_owned());
    }
    let listed = git(ssh, dir, &["ls-remote", "--", remote]).await?;
    pick(&listed, reference).ok_or_else(|| {
        let message = format!("The repository {remote} has no branch or tag `{reference}`");
        Failure::new(Class::User, message)
    })
}

/// Fetches a commit's files into an empty directory, with `.git`. Answers the commit's time, in
/// seconds since 1970.
pub async fn fetch(
    ssh: &Ssh,
    dir: &Path,
    remote: &str,
    commit: &str,
    submodules: bool,
) -> Result<i64, Failure> {
    bring(ssh, dir, remote, commit).await?;
    git(ssh, dir, &["checkout", "--quiet", "--detach", commit]).await?;
    if submodules {
        let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"];
        git(ssh, dir, &update).await?;
    }
    time_here(dir, commit).await
}

/// Fetches a commit into an empty directory, as git keeps it.
async fn bring(ssh: &Ssh, dir: &Path, remote: &str, commit: &str) -> Result<(), Failure> {
    git(ssh, dir, &["init", "--quiet"]).await?;
    git(ssh, dir, &["remote", "add", "--", "origin", remote]).await?;
    if git(ssh, dir, &["fetch", "--quiet", "--depth=1", "origin", commit]).await.is_err() {
        // Servers need not give single commits.
        git(ssh, dir, &["fetch", "--quiet", "--tags", "origin"]).await?;
    }
    Ok(())
}

/// The time of a commit that was fetched, in seconds since 1970.
async fn time_here(dir: &Path, commit: &str) -> Result<i64, Failure> {
    let said = git(&Ssh::Own, dir, &["log", "--max-count=1", "--format=%ct", commit]).await?;
    said.trim().parse().map_err(|_| {
        let message = format!("git says of the time of {commit}: `{}`", said.trim());
        Failure::new(Class::Unavailable, message)
    })
}

/// The time of a commit, in seconds since 1970.
pub(super) async fn time(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
    remote: &str,
    commit: &str,
) -> Result<i64, Failure> {
    let scratch = scratch(machine)?;
    let ssh = Ssh::of(machine, link, build, remote).await?;
    let brought = bring(&ssh, &scratch.0, remote, commit).await;
    brought.map_err(|failure| ssh.explain(remote, failure))?;
    time_here(&scratch.0, commit).await
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
pub(super) async fn checkout(
    machine: &Arc<Machine>,
    link: &Link,
    build: &BuildId,
    op: &GitOp,
) -> Result<RootId, Failure> {
    let scratch = scratch(machine)?;
    let dir = scratch.0.join("files");
    std::fs::create_dir(&dir)
        .map_err(|e| Failure::new(Class::Unavailable, format!("Making a folder failed: {e}")))?;
    let ssh = Ssh::of(machine, link, build, &op.remote).await?;
    let time = fetch(&ssh, &dir, &op.remote, &op.commit, op.submodules).await;
    let time = time.map_err(|failure| ssh.explain(&op.remote, failure))?;
    drop(ssh);
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
    let captured = capture(store, &from, &below, WrittenAs::Directory);
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
            Ssh::Own.explain(remote, failure).hint
        };
        for by_ssh in ["git@h.org:a/b.git", "ssh://git@h.org/a.git"] {
            assert!(hint(by_ssh).is_some_and(|hint| hint.contains("--ssh default")), "{by_ssh}");
        }
        assert_eq!(hint("https://h.org/a.git"), None);
        let other = Failure::new(Class::Unavailable, "no git").hint("Install it");
        assert_eq!(Ssh::Own.explain("git@h:a", other.clone()), other);
    }
}
