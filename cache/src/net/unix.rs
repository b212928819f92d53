//! Streams over a socket in the file system: one connection for each stream.

use super::{Dial, NetError, Stream};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::net::{UnixListener, UnixStream};

/// Dials the socket at a path.
#[derive(Debug, Clone)]
pub struct Dialer {
    path: PathBuf,
}

impl Dialer {
    /// Dials the socket at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Dial for Dialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(async {
            let unreachable = |source| NetError::Unreachable {
                to: format!("the farm at {}", self.path.display()),
                source,
            };
            let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
            Ok(split(stream))
        })
    }
}

fn split(stream: UnixStream) -> Stream {
    let (read, write) = stream.into_split();
    Stream::new(read, write)
}

/// Hears those who dial a socket that only its owner (and root) can open.
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    uid: u32,
}

impl Listener {
    /// Makes the socket. One that is there already is replaced: the caller holds the lock of the
    /// state directory, so nobody else listens on it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Made under another name, so that nobody can connect before the mode is right.
        let early = path.with_extension("new");
        let _ = std::fs::remove_file(&early);
        let listener = UnixListener::bind(&early)?;
        std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&early, path)?;
        let uid = rustix::process::getuid().as_raw();
        Ok(Self { listener, path: path.to_owned(), uid })
    }

    /// The next stream of somebody who may speak here.
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?;
            if peer.uid() == self.uid || peer.uid() == 0 {
                return Ok(split(stream));
            }
            tracing::warn!(uid = peer.uid(), "refused a connection of another user");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
