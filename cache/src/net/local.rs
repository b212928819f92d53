//! Streams inside one process: the same frames, through memory.

use super::{Dial, NetError, Stream};
use std::future::Future;
use std::io;
use std::pin::Pin;
use tokio::sync::mpsc;

/// Bytes that one direction of a stream holds before its writer waits.
const BUFFER_BYTES: usize = 1 << 20;

/// Streams that wait to be accepted before whoever dials waits.
const BACKLOG: usize = 64;

/// Dials the part that has the [`Listener`].
#[derive(Clone)]
pub struct Dialer(mpsc::Sender<Stream>);

/// Hears those who dial.
pub struct Listener(mpsc::Receiver<Stream>);

/// A pair of both.
pub fn pair() -> (Dialer, Listener) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Dialer(sender), Listener(receiver))
}

impl Dial for Dialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(async {
            let (here, there) = tokio::io::duplex(BUFFER_BYTES);
            let split = |end| {
                let (read, write) = tokio::io::split(end);
                Stream::new(read, write)
            };
            let gone = |_| NetError::Unreachable {
                to: "a part of this process".to_owned(),
                source: io::ErrorKind::ConnectionRefused.into(),
            };
            self.0.send(split(there)).await.map_err(gone)?;
            Ok(split(here))
        })
    }
}

impl Listener {
    /// The next stream; `None` when nobody can dial any more.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}
