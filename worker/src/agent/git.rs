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
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// What git says is shown up to this many bytes.
const SHOWN: usize = 2000;

/// git says no more than this many bytes: a line for each branch and tag of a large repository.
const SAID_MAX: u64 = 256 << 20;

/// A folder that is deleted when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), error = %e, "a checkout stays behind");
        }
    }
}

/// git with all that it starts, as long as it runs: when it is dropped, its group of processes ends.
/// One that runs as the person is in theirs, where Ctrl-C reaches it, and leads none.
struct Group(Option<Pid>);

impl Group {
    fn of(git: &Child) -> Self {
        Self(git.id().and_then(|id| Pid::from_raw(id as i32)))
    }

    /// It has ended, and its number may soon be another one's.
    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// As whom git reaches a repository.
pub enum Login {
    /// As the person who runs this program: with their settings, logins, keys and known hosts.
    Person,
    /// With the keys and known hosts of the account that this program runs under, but nobody's
    /// settings.
    Machine,
    /// With the client's agent, and nobody's settings.
    Agent(Forwarded),
}

/// Which hosts ssh reaches with the client's agent.
#[derive(Clone, Copy)]
enum Hosts {
    /// One that the client names, even if nobody knows its key.
    Any,
    /// Those whose key is known: a repository may name any other.
    Known,
}

/// What of this program's environment git sees when settings are nobody's.
const PASSED: &[&str] = &[
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];

/// Which repository git works on, where it runs this program: a hook, an alias.
const ELSEWHERE: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];

/// How repositories and their submodules are reached: neither files of this machine nor programs are
/// repositories.
const TRANSPORTS: &str = "http:https:ssh:git";

/// Nobody is asked, and nobody waits for a host that is gone.
const PATIENCE: &str = "-o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15";

/// With the client's agent: no key of this machine is offered, and nobody at the other end reaches the
/// agent. Of a host that this machine knows no other key is taken, of whatever kind; the key of one
/// that it does not know is kept for as long as git runs, so that it does not change on the way.
fn by_agent(hosts: Hosts) -> String {
    let unknown = match hosts {
        Hosts::Any => "accept-new",
        Hosts::Known => "yes",
    };
    format!(
        "ssh -F none {PATIENCE} -o IdentityAgent=SSH_AUTH_SOCK -o IdentityFile=none \
         -o ForwardAgent=no -o StrictHostKeyChecking={unknown} \
         -o 'UserKnownHostsFile=\"${{SLIPWAY_KNOWN_HOSTS}}\" ~/.ssh/known_hosts ~/.ssh/known_hosts2'"
    )
}

impl Login {
    /// The client's agent where there is one.
    async fn of(
        machine: &Machine,
        link: &Link,
        build: &BuildId,
        remote: &str,
    ) -> Result<Self, Failure> {
        if !is_by_ssh(remote) {
            return Ok(Self::Machine);
        }
        Ok(match ssh::forward(machine, link, build).await? {
            Some(forwarded) => Self::Agent(forwarded),
            None => Self::Machine,
        })
    }

    /// git, that reaches such hosts.
    fn git(&self, hosts: Hosts) -> Command {
        let mut command = match self {
            Self::Person => of_person(),
            Self::Machine | Self::Agent(_) => of_nobody(),
        };
        match self {
            Self::Person if std::env::var_os("GIT_SSH_COMMAND").is_some() => &mut command,
            Self::Person | Self::Machine => {
                command.env("GIT_SSH_COMMAND", format!("ssh {PATIENCE}"))
            }
            Self::Agent(forwarded) => command
                .env("GIT_SSH_COMMAND", by_agent(hosts))
                .env("SSH_AUTH_SOCK", forwarded.socket())
                .env("SLIPWAY_KNOWN_HOSTS", forwarded.known_hosts()),
        };
        // A question would be one to nobody.
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", TRANSPORTS);
        command
    }

    /// What to do when a repository is not reached.
    fn explain(&self, remote: &str, failure: Failure) -> Failure {
        if failure.hint.is_some() || !is_by_ssh(remote) {
            return failure;
        }
        match self {
            Self::Person => failure,
            Self::Machine => failure.hint(
                "Give the build an agent that has a key for it: `--ssh default`. Without one, ADD \
                 reaches repositories by the keys and known hosts of the machine that fetches them.",
            ),
            Self::Agent(forwarded) => {
                let mut failure = failure.hint(
                    "It was reached with the agent of `--ssh default`: `ssh-add -l` lists its keys. \
                     Keys of the host that differ from those in `known_hosts` of the machine that \
                     fetches are refused, and so are other hosts of submodules that it does not know.",
                );
                if let Some(trouble) = forwarded.trouble() {
                    failure.message = format!("{trouble}. {}", failure.message);
                }
                failure
            }
        }
    }
}

fn of_person() -> Command {
    let mut command = Command::new("git");
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    command
}

/// git, by nobody's settings. A repository's own files are least of all what it may take for them:
/// settings name programs.
fn of_nobody() -> Command {
    let mut command = Command::new("git");
    command.env_clear().env("LC_ALL", "C");
    for name in PASSED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("HOME", "/dev/null").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_NOSYSTEM", "1").process_group(0);
    command
}

/// Lets git reach a repository.
async fn reach(
    login: &Login,
    hosts: Hosts,
    dir: &Path,
    remote: &str,
    args: &[&str],
) -> Result<String, Failure> {
    let said = run(login.git(hosts), dir, args).await;
    said.map_err(|failure| login.explain(remote, failure))
}

/// Lets git do what it needs nobody else for.
async fn here(dir: &Path, args: &[&str]) -> Result<String, Failure> {
    run(of_nobody(), dir, args).await
}

async fn run(mut command: Command, dir: &Path, args: &[&str]) -> Result<String, Failure> {
    command.args(args).current_dir(dir).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut git = command.spawn().map_err(|e| not_started(&e))?;
    let mut group = Group::of(&git);
    let (said, complaint) = (git.stdout.take(), git.stderr.take());
    let ended = tokio::try_join!(read(said, SAID_MAX), read(complaint, SAID_MAX), git.wait());
    let what = args.iter().find(|arg| !arg.starts_with('-')).unwrap_or(&"git");
    let failed =
        |why: String| Failure::new(Class::Unavailable, format!("`git {what}` failed: {why}"));
    let (said, complaint, status) = ended.map_err(|e| failed(e.to_string()))?;
    group.ended();
    if status.success() {
        return Ok(String::from_utf8_lossy(&said).into_owned());
    }
    let complaint = String::from_utf8_lossy(&complaint);
    Err(failed(complaint.trim().chars().take(SHOWN).collect()))
}

fn not_started(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Class::Unavailable, "The program `git` is not installed").hint(
                "Install it on the machine that runs the build (Debian: apt-get install git).",
            )
        }
        _ => Failure::new(Class::Unavailable, format!("Starting git failed: {error}")),
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(from) = from {
        from.take(most + 1).read_to_end(&mut said).await?;
    }
    if said.len() as u64 > most {
        return Err(io::Error::other(format!("it says more than {most} bytes")));
    }
    Ok(said)
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
    if is_commit(reference) {
        return Ok(reference.to_owned());
    }
    let (scratch, login) = prepare(machine, link, build, remote).await?;
    find(&login, &scratch.0, remote, reference).await
}

/// The commit that a branch, a tag or a commit's own name stands for; the default branch's for an
/// empty name. `dir` is any directory: nothing is written to it.
pub async fn find(
    login: &Login,
    dir: &Path,
    remote: &str,
    reference: &str,
) -> Result<String, Failure> {
    if is_commit(reference) {
        return Ok(reference.to_owned());
    }
    let listed = reach(login, Hosts::Any, dir, remote, &["ls-remote", "--", remote]).await?;
    pick(&listed, reference).ok_or_else(|| {
        let message = format!("The repository {remote} has no branch or tag `{reference}`");
        Failure::new(Class::User, message)
    })
}

/// Fetches a commit's files into an empty directory, with `.git`. Answers the commit's time, in
/// seconds since 1970.
pub async fn fetch(
    login: &Login,
    dir: &Path,
    remote: &str,
    commit: &str,
    submodules: bool,
) -> Result<i64, Failure> {
    bring(login, dir, remote, commit).await?;
    lay_out(login, dir, remote, commit, submodules).await?;
    time_here(dir, commit).await
}

/// Fetches a commit into an empty directory, as git keeps it.
async fn bring(login: &Login, dir: &Path, remote: &str, commit: &str) -> Result<(), Failure> {
    here(dir, &["init", "--quiet"]).await?;
    here(dir, &["remote", "add", "--", "origin", remote]).await?;
    let one = ["fetch", "--quiet", "--depth=1", "origin", commit];
    if reach(login, Hosts::Any, dir, remote, &one).await.is_err() {
        // Servers need not give single commits.
        let all = ["fetch", "--quiet", "--tags", "origin"];
        reach(login, Hosts::Any, dir, remote, &all).await?;
    }
    Ok(())
}

/// Writes the files of a commit that was fetched, and fetches its submodules.
async fn lay_out(
    login: &Login,
    dir: &Path,
    remote: &str,
    commit: &str,
    submodules: bool,
) -> Result<(), Failure> {
    here(dir, &["checkout", "--quiet", "--detach", commit]).await?;
    if submodules {
        let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"];
        reach(login, Hosts::Known, dir, remote, &update).await?;
    }
    Ok(())
}

/// The time of a commit that was fetched, in seconds since 1970.
async fn time_here(dir: &Path, commit: &str) -> Result<i64, Failure> {
    let said = here(dir, &["log", "--max-count=1", "--format=%ct", commit]).await?;
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
    let (scratch, login) = prepare(machine, link, build, remote).await?;
    bring(&login, &scratch.0, remote, commit).await?;
    time_here(&scratch.0, commit).await
}

/// A folder for git, and as whom it reaches a repository.
async fn prepare(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
    remote: &str,
) -> Result<(Scratch, Login), Failure> {
    let failed = |e: io::Error| {
        Failure::new(Class::Unavailable, format!("Making a folder for a checkout failed: {e}"))
    };
    std::fs::create_dir_all(&machine.scratch).map_err(failed)?;
    let dir = tempfile::Builder::new().prefix("git-").tempdir_in(&machine.scratch);
    let scratch = Scratch(dir.map_err(failed)?.keep());
    Ok((scratch, Login::of(machine, link, build, remote).await?))
}

/// The commit's files as a tree. Their times are the commit's, so that the same commit is the same
/// tree.
pub(super) async fn checkout(
    machine: &Arc<Machine>,
    link: &Link,
    build: &BuildId,
    op: &GitOp,
) -> Result<RootId, Failure> {
    let (scratch, login) = prepare(machine, link, build, &op.remote).await?;
    let dir = scratch.0.join("files");
    std::fs::create_dir(&dir)
        .map_err(|e| Failure::new(Class::Unavailable, format!("Making a folder failed: {e}")))?;
    let time = fetch(&login, &dir, &op.remote, &op.commit, op.submodules).await?;
    drop(login);
    let (machine, op) = (machine.clone(), op.clone());
    crate::image::blocking(move || {
        let root = tree(&*machine.store, &dir, &op, time);
        drop(scratch);
        root
    })
    .await
}

fn tree(store: &dyn Store, dir: &Path, op: &GitOp, time: i64) -> Result<RootId, Failure> {
    let io = |e: io::Error| {
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
pub fn inside(dir: &Path, subdir: &str) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let root = at::open_host_dir(dir)?;
    let there = at::resolve(&root, format!("/{subdir}").as_bytes())?;
    std::fs::read_link(format!("/proc/self/fd/{}", there.as_raw_fd()))
}

/// Gives everything below, links too, this time.
pub fn set_times(dir: &Path, time: i64) -> io::Result<()> {
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
            Login::Machine.explain(remote, failure).hint
        };
        for by_ssh in ["git@h.org:a/b.git", "ssh://git@h.org/a.git"] {
            assert!(hint(by_ssh).is_some_and(|hint| hint.contains("--ssh default")), "{by_ssh}");
        }
        assert_eq!(hint("https://h.org/a.git"), None);
        let other = Failure::new(Class::Unavailable, "no git").hint("Install it");
        assert_eq!(Login::Machine.explain("git@h:a", other.clone()), other);
    }

    /// A repository of one commit, with these files and a submodule.
    async fn repository(dir: &Path, files: &[(&str, &str)]) -> String {
        here(dir, &["init", "--quiet"]).await.unwrap();
        for (setting, value) in [("user.name", "ann"), ("user.email", "ann@example.org")] {
            here(dir, &["config", setting, value]).await.unwrap();
        }
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        here(dir, &["add", "."]).await.unwrap();
        let submodule = format!("160000,{},sub", "1".repeat(40));
        here(dir, &["update-index", "--add", "--cacheinfo", &submodule]).await.unwrap();
        here(dir, &["commit", "--quiet", "--message=one"]).await.unwrap();
        here(dir, &["rev-parse", "HEAD"]).await.unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn what_a_repository_says_of_programs_does_not_count() {
        let (dir, marks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, ran) = (dir.path(), marks.path().display());
        let settings = format!(
            "[core]\n\tfsmonitor = touch {ran}/fsmonitor\n[trace2]\n\tnormalTarget = {ran}/trace\n\
             [protocol]\n\tallow = always\n"
        );
        for url in [format!("ext::touch {ran}/submodule"), format!("file://{ran}")] {
            let modules = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n");
            let files = [(".gitconfig", settings.as_str()), (".gitmodules", &modules)];
            let _ = std::fs::remove_dir_all(dir.join(".git"));
            let commit = repository(dir, &files).await;
            for login in [Login::Machine, Login::Person] {
                lay_out(&login, dir, "https://h/r.git", &commit, false).await.unwrap();
                let failure = lay_out(&login, dir, "https://h/r.git", &commit, true).await;
                let said = failure.unwrap_err().message;
                assert!(said.contains("not allowed"), "{said}");
            }
            assert!(time_here(dir, &commit).await.unwrap() > 0);
        }
        let left: Vec<_> = std::fs::read_dir(marks.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn what_git_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.process_group(0);
        let script = ["-c", "sleep 1000 & echo $! > started; mv started child; wait"];
        let child = dir.path().join("child");
        let started = async {
            while !child.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = run(shell, dir.path(), &script) => panic!("{ended:?}"),
            () = started => {}
        }
        let child = std::fs::read_to_string(child).unwrap();
        let command_line = format!("/proc/{}/cmdline", child.trim());
        let begin = std::time::Instant::now();
        // One that has ended has none, even if nobody has asked how it ended.
        while std::fs::read(&command_line).is_ok_and(|line| !line.is_empty()) {
            assert!(begin.elapsed().as_secs() < 30, "{command_line} is still there");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_git_says_is_bounded() {
        assert_eq!(read(Some(&b"abc"[..]), 3).await.unwrap(), b"abc");
        let refused = read(Some(&b"abcd"[..]), 3).await.unwrap_err();
        assert_eq!(refused.to_string(), "it says more than 3 bytes");
    }

    #[test]
    fn settings_are_those_of_the_person_or_nobodys() {
        let home = |login: &Login| {
            let command = login.git(Hosts::Any);
            let mut set = command.as_std().get_envs().filter(|(name, _)| *name == "HOME");
            set.next().map(|(_, value)| value.map(ToOwned::to_owned))
        };
        assert_eq!(home(&Login::Person), None);
        assert_eq!(home(&Login::Machine), Some(Some("/dev/null".into())));
    }

    #[test]
    fn the_agent_goes_to_no_host_that_only_a_repository_names() {
        for (hosts, unknown) in [(Hosts::Any, "accept-new"), (Hosts::Known, "yes")] {
            let command = by_agent(hosts);
            assert!(command.contains(&format!("StrictHostKeyChecking={unknown} ")), "{command}");
            assert!(command.starts_with("ssh -F none "), "{command}");
        }
    }
}
