//! The client's ssh agents in a RUN, and for git.
//!
//! Each mount has a socket of its own for as long as the step runs, and so has git for as long as it
//! fetches. What is asked there goes to the client, one message at a time, and so comes what its agent
//! says: nothing of it is kept here.

use super::link::Link;
use super::{Machine, now};
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch};
use proto::limit::{SSH_CONNECTIONS_MAX, SSH_MESSAGE_BYTES_MAX};
use proto::secret::SecretBytes;
use proto::step::{GIT_SSH_AGENT, MountKind, RunOp};
use proto::wire::build::{Answer, Ask, Stream};
use proto::wire::worker::Lease;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// What an agent says that does not do what it is asked (`SSH_AGENT_FAILURE`).
pub const REFUSED: &[u8] = &[5];

/// How long nobody is let in after somebody could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// The agents that a step was given. Nobody listens any more when it is dropped.
#[derive(Default)]
pub(super) struct Agents {
    sockets: BTreeMap<usize, PathBuf>,
    listening: JoinSet<()>,
    dir: Option<TempDir>,
}

/// The client's agent for git, as long as git needs it. Nobody listens any more when it is dropped.
pub struct Forwarded {
    agent: Arc<Agent>,
    /// Held by number, since its name may be longer than a socket's address can be.
    dir: OwnedFd,
    agents: Agents,
}

impl Forwarded {
    /// Where it is reached, by programs of this machine.
    pub fn socket(&self) -> PathBuf {
        format!("/proc/{}/fd/{}/{GIT_SOCKET}", std::process::id(), self.dir.as_raw_fd()).into()
    }

    /// Where keys of hosts are kept as long as it is there.
    pub fn known_hosts(&self) -> PathBuf {
        self.agents.dir.as_ref().expect("it has a socket").path().join("known_hosts")
    }

    /// Why it could not be asked, if it could not.
    pub fn trouble(&self) -> Option<String> {
        self.agent.trouble.get().cloned()
    }
}

/// The number of git's socket: the only one of its directory.
const GIT_SOCKET: usize = 0;

/// Opens a socket for git, if the client has an agent for it.
pub(super) async fn forward(
    machine: &Machine,
    link: &Link,
    build: &BuildId,
) -> Result<Option<Forwarded>, Failure> {
    if !has(link, build, GIT_SSH_AGENT).await? {
        return Ok(None);
    }
    let agent = Arc::new(Agent::new(link, build, None, GIT_SSH_AGENT));
    let mut agents = Agents::default();
    agents.add(machine, GIT_SOCKET, agent.clone())?;
    let place = agents.dir.as_ref().expect("it has a socket").path();
    let dir = open_dir(place).map_err(|e| agent.no_socket(&e.into()))?;
    Ok(Some(Forwarded { agent, dir, agents }))
}

/// Whether the client has an agent of that name.
async fn has(link: &Link, build: &BuildId, id: &str) -> Result<bool, Failure> {
    match link.ask(build, Ask::SshAgent(id.to_owned())).await? {
        Answer::SshAgent(is_there) => Ok(is_there),
        other => Err(unexpected(&other)),
    }
}

/// Opens a socket for each mount of an agent that the client has.
pub(super) async fn open(
    machine: &Machine,
    link: &Link,
    lease: &Lease,
    op: &RunOp,
) -> Result<Agents, Failure> {
    let mut agents = Agents::default();
    let mut known: BTreeMap<&str, bool> = BTreeMap::new();
    for (index, mount) in op.mounts.iter().enumerate() {
        let MountKind::Ssh(ssh) = &mount.kind else { continue };
        let is_there = match known.get(ssh.id.as_str()) {
            Some(is_there) => *is_there,
            None => has(link, &lease.build, &ssh.id).await?,
        };
        known.insert(&ssh.id, is_there);
        if is_there {
            let agent = Agent::new(link, &lease.build, Some(lease.epoch), &ssh.id);
            agents.add(machine, index, Arc::new(agent))?;
        }
    }
    Ok(agents)
}

fn unexpected(answer: &Answer) -> Failure {
    let message = format!("The client answered {answer:?} when asked for an ssh agent");
    Failure::new(Class::Bug, message)
}

impl Agents {
    /// Where the sockets are, by the place of their mounts.
    pub fn sockets(&self) -> BTreeMap<usize, PathBuf> {
        self.sockets.clone()
    }

    fn add(&mut self, machine: &Machine, index: usize, agent: Arc<Agent>) -> Result<(), Failure> {
        let failed = |e: io::Error| agent.no_socket(&e);
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => private_dir(&machine.scratch).map_err(failed)?,
        };
        let dir = self.dir.insert(dir).path();
        let name = index.to_string();
        let listener = listen(dir, &name).map_err(failed)?;
        self.sockets.insert(index, dir.join(name));
        self.listening.spawn(serve(listener, agent));
        Ok(())
    }
}

/// A directory that nobody else of the machine looks into, whatever the modes of the sockets are.
fn private_dir(scratch: &Path) -> io::Result<TempDir> {
    std::fs::create_dir_all(scratch)?;
    let own = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("ssh-").permissions(own).tempdir_in(scratch)
}

fn open_dir(dir: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = open_dir(dir)?;
    // A socket's address has room for 107 bytes, and the directory may lie deep.
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

async fn serve(listener: UnixListener, agent: Arc<Agent>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let agent = agent.clone();
                connections.spawn(async move {
                    if let Err(e) = agent.relay(stream).await {
                        tracing::debug!("a connection to an ssh agent broke: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("nobody can reach an ssh agent for now: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
        if connections.len() >= SSH_CONNECTIONS_MAX {
            connections.join_next().await;
        }
    }
}

/// An agent of the client's, as a step reaches it.
struct Agent {
    link: Link,
    build: BuildId,
    /// The step whose log hears of trouble.
    lease: Option<LeaseEpoch>,
    id: String,
    /// Why the client's agent could not be asked, the first time.
    trouble: OnceLock<String>,
}

impl Agent {
    fn new(link: &Link, build: &BuildId, lease: Option<LeaseEpoch>, id: &str) -> Self {
        let (link, build, id) = (link.clone(), build.clone(), id.to_owned());
        Self { link, build, lease, id, trouble: OnceLock::new() }
    }

    fn no_socket(&self, why: &io::Error) -> Failure {
        let message = format!("Making the socket of the ssh agent `{}`: {why}", self.id);
        Failure::new(Class::Unavailable, message)
    }

    async fn relay(&self, mut stream: UnixStream) -> io::Result<()> {
        while let Some(request) = read_message(&mut stream).await? {
            let said = match self.ask(request).await {
                Ok(said) => said,
                Err(failure) => {
                    self.tell(&failure).await;
                    REFUSED.to_owned().into()
                }
            };
            write_message(&mut stream, said.as_bytes()).await?;
        }
        Ok(())
    }

    async fn ask(&self, request: Vec<u8>) -> Result<SecretBytes, Failure> {
        let ask = Ask::Ssh { id: self.id.clone(), request: request.into() };
        match self.link.ask(&self.build, ask).await? {
            Answer::Ssh(said) => Ok(said),
            other => Err(unexpected(&other)),
        }
    }

    /// Says in the step's log why the agent refuses, which its programs do not hear: once.
    async fn tell(&self, failure: &Failure) {
        let text = format!("The ssh agent `{}` cannot be asked: {}", self.id, failure.message);
        if self.trouble.set(text.clone()).is_err() {
            return;
        }
        let Some(lease) = self.lease else { return };
        let link = self.link.clone();
        let told = move || link.log(lease, Stream::Stderr, now(), format!("{text}\n").into_bytes());
        let _ = tokio::task::spawn_blocking(told).await;
    }
}

/// Reads one message of the protocol of ssh agents; none at the end.
pub async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let mut message = vec![0; bounded(u32::from_be_bytes(length) as usize)?];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message of the protocol of ssh agents.
pub async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = bounded(message.len())? as u32;
    to.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    to.flush().await
}

fn bounded(length: usize) -> io::Result<usize> {
    match length {
        1..=SSH_MESSAGE_BYTES_MAX => Ok(length),
        _ => {
            let why = format!("a message of {length} bytes is none of an ssh agent");
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Vec<Result<Option<Vec<u8>>, io::ErrorKind>> {
        let mut from = bytes;
        let mut read = Vec::new();
        loop {
            let message = read_message(&mut from).await.map_err(|e| e.kind());
            let is_last = !matches!(message, Ok(Some(_)));
            read.push(message);
            if is_last {
                return read;
            }
        }
    }

    #[tokio::test]
    async fn messages_have_their_length_before_them() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, &[11]).await.unwrap();
        write_message(&mut bytes, &[13, 1]).await.unwrap();
        assert_eq!(bytes, [0, 0, 0, 1, 11, 0, 0, 0, 2, 13, 1]);
        assert_eq!(read(&bytes).await, [Ok(Some(vec![11])), Ok(Some(vec![13, 1])), Ok(None)]);
        let cut = Err(io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&bytes[..bytes.len() - 1]).await[1], cut);
        assert_eq!(read(&bytes[..2]).await, [cut]);
    }

    #[tokio::test]
    async fn messages_are_bounded() {
        let wrong = [Err(io::ErrorKind::InvalidData)];
        for length in [0, SSH_MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            assert_eq!(read(&length.to_be_bytes()).await, wrong, "{length}");
        }
        let large = vec![7; SSH_MESSAGE_BYTES_MAX];
        let mut bytes = Vec::new();
        write_message(&mut bytes, &large).await.unwrap();
        assert_eq!(read(&bytes).await[0], Ok(Some(large.clone())));
        assert!(write_message(&mut bytes, &[large, vec![7]].concat()).await.is_err());
    }

    #[tokio::test]
    async fn sockets_lie_as_deep_as_they_like() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = private_dir(&scratch.path().join("d".repeat(100)).join("e".repeat(100))).unwrap();
        let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let _listener = listen(dir.path(), "0").unwrap();
        assert!(dir.path().join("0").exists());
    }
}
