//! `--ssh`: the ssh agents that RUNs are given. What a RUN asks is answered here, on the person's
//! machine: no key leaves it.
//!
//! As with BuildKit, whoever asks may list keys and sign with them; he may not add or remove any, lock
//! the agent, or use an extension of it.

mod keys;

use crate::error::{io, user};
use keys::Key;
use proto::error::{Class, Failure};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use worker::agent::ssh::{REFUSED, read_message, write_message};

/// What the agent's protocol calls its messages (`SSH_AGENTC_REQUEST_IDENTITIES` and so on).
const LIST: u8 = 11;
const LISTED: u8 = 12;
const SIGN: u8 = 13;
const SIGNED: u8 = 14;

/// The name of the agent that a mount without an id means.
const DEFAULT: &str = "default";

/// Connections to agents at a time; more requests wait. OpenSSH's agent answers one at a time.
const CONNECTIONS: usize = 16;

/// What `--ssh` says: a name, and a socket or the files of keys; none for the person's own agent.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    id: String,
    paths: Vec<PathBuf>,
}

/// Reads `default|ID[=SOCKET|KEY[,KEY]]`.
pub fn parse(text: &str) -> Result<Given, Failure> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT } else { id }.to_owned();
    let paths = paths.split(',').map(PathBuf::from).collect::<Vec<_>>();
    match paths.iter().position(|path| path.as_os_str().is_empty()) {
        None => Ok(Given { id, paths }),
        Some(_) if paths.len() == 1 => Ok(Given { id, paths: Vec::new() }),
        Some(_) => Err(user(format!("--ssh `{text}`: expected ID=SOCKET or ID=KEY[,KEY]"))),
    }
}

/// The agents that a build gives to its RUNs.
pub struct Agents {
    all: Vec<(String, Agent)>,
    connections: Semaphore,
}

/// An agent.
enum Agent {
    /// One that listens there.
    Socket(PathBuf),
    /// We ourselves, with these keys.
    Keys(Vec<Key>),
}

impl Agents {
    /// Looks for the sockets, and reads the keys.
    pub fn find(given: Vec<Given>) -> Result<Self, Failure> {
        let mut all: Vec<(String, Agent)> = Vec::new();
        for Given { id, paths } in given {
            if all.iter().any(|(known, _)| *known == id) {
                return Err(user(format!("--ssh `{id}` is given twice")));
            }
            let agent = Agent::find(&id, paths)?;
            all.push((id, agent));
        }
        Ok(Self { all, connections: Semaphore::new(CONNECTIONS) })
    }

    /// Whether there is an agent of that name.
    pub fn has(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    fn get(&self, id: &str) -> Option<&Agent> {
        self.all.iter().find(|(known, _)| known == id).map(|(_, agent)| agent)
    }

    /// What the agent of that name says to a request.
    pub async fn answer(&self, id: &str, request: &[u8]) -> Result<Vec<u8>, Failure> {
        let agent = self.get(id).ok_or_else(|| user(format!("there is no --ssh {id}")))?;
        if !matches!(request.first(), Some(&(LIST | SIGN))) {
            return Ok(REFUSED.to_owned());
        }
        match agent {
            Agent::Keys(keys) => Ok(keys::answer(keys, request)),
            Agent::Socket(path) => {
                let _one = self.connections.acquire().await.expect("it is never closed");
                let said = ask(path, request).await;
                said.map_err(|e| user(format!("nothing comes from {}: {e}", path.display())))
            }
        }
    }
}

async fn ask(socket: &Path, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    write_message(&mut stream, request).await?;
    let said = read_message(&mut stream).await?;
    said.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

impl Agent {
    fn find(id: &str, paths: Vec<PathBuf>) -> Result<Self, Failure> {
        let wrong = |why: &str| user(format!("--ssh `{id}`: {why}"));
        if paths.is_empty() {
            let own = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
            let none = || {
                wrong("no agent is known: SSH_AUTH_SOCK is not set")
                    .hint("Start one (eval $(ssh-agent) && ssh-add), or name a key: --ssh ID=KEY")
            };
            return Ok(Self::Socket(own.ok_or_else(none)?.into()));
        }
        let (mut sockets, mut keys) = (Vec::new(), Vec::new());
        for path in paths {
            let meta = std::fs::metadata(&path).map_err(|e| {
                let message = format!("--ssh `{id}`: {}: {e}", path.display());
                Failure::new(Class::Unavailable, message)
            })?;
            match meta.file_type().is_socket() {
                true => sockets.push(path),
                false => keys.push(path),
            }
        }
        match (sockets.as_slice(), keys.as_slice()) {
            ([socket], []) => Ok(Self::Socket(socket.clone())),
            ([], keys) => {
                Ok(Self::Keys(keys.iter().map(|p| read_key(id, p)).collect::<Result<_, _>>()?))
            }
            (_, []) => Err(wrong("an agent has one socket")),
            _ => Err(wrong("it names both a socket and keys")),
        }
    }
}

fn read_key(id: &str, path: &Path) -> Result<Key, Failure> {
    let file = std::fs::File::open(path);
    let mut file = file.map_err(|e| io("Opening the key", path, &e))?;
    let text = super::context::read_bounded(&mut file, keys::FILE_BYTES_MAX);
    let text = text.map_err(|e| io("Reading the key", path, &e))?;
    Key::read(&text).map_err(|e| {
        let failure = user(format!("--ssh `{id}`: {} cannot be used: {e}", path.display()));
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn given(id: &str, paths: &[&str]) -> Given {
        Given { id: id.to_owned(), paths: paths.iter().map(PathBuf::from).collect() }
    }

    #[test]
    fn flags_are_those_of_buildx() {
        assert_eq!(parse("default").unwrap(), given("default", &[]));
        assert_eq!(parse("x=").unwrap(), given("x", &[]));
        assert_eq!(parse("=/a").unwrap(), given("default", &["/a"]));
        assert_eq!(parse("x=/a,b=c").unwrap(), given("x", &["/a", "b=c"]));
        assert!(parse("x=/a,").is_err());
    }

    fn error(flags: &[Given]) -> String {
        let flags = flags.iter().map(|g| Given { id: g.id.clone(), paths: g.paths.clone() });
        Agents::find(flags.collect()).err().expect("an error").to_string()
    }

    #[test]
    fn what_no_agent_can_be_made_of_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (key, socket) = (path("key"), path("socket"));
        std::fs::write(&key, include_bytes!("testdata/ed25519")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let both = [given("x", &[&key, &socket])];
        assert!(error(&both).contains("both"), "{}", error(&both));
        assert!(error(&[given("x", &[&socket, &socket])]).contains("one socket"));
        assert!(error(&[given("x", &[&key]), given("x", &[&key])]).contains("twice"));
        assert!(error(&[given("x", &[&path("none")])]).contains("none"));
        std::fs::write(&key, "text").unwrap();
        assert!(error(&[given("x", &[&key])]).contains("no private key"));
    }

    #[tokio::test]
    async fn an_agent_is_asked_to_list_and_to_sign_only() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let agents = Agents::find(vec![Given { id: "x".into(), paths: vec![socket] }]).unwrap();
        assert!(agents.has("x") && !agents.has("default"));
        let said = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = read_message(&mut stream).await.unwrap().unwrap();
            write_message(&mut stream, &[LISTED, 0, 0, 0, 0]).await.unwrap();
            asked
        });
        // To add a key, to remove all, to lock, and an extension.
        for other in [17, 19, 22, 27] {
            assert_eq!(agents.answer("x", &[other, 1]).await.unwrap(), REFUSED);
        }
        assert_eq!(agents.answer("x", &[]).await.unwrap(), REFUSED);
        assert_eq!(agents.answer("x", &[LIST]).await.unwrap(), [LISTED, 0, 0, 0, 0]);
        assert_eq!(said.await.unwrap(), [LIST]);
        // The agent has ended meanwhile.
        assert!(agents.answer("x", &[LIST]).await.is_err());
        assert!(agents.answer("default", &[LIST]).await.is_err());
    }
}
