//! Stores at the other ends of streams.

use crate::common::{content, open};
use cache::net::blobs::Blobs;
use cache::net::serve::{Rights, serve};
use cache::net::{Dial, NetError, Stream};
use cache::store::{DiskStore, Store};
use proto::id::BlobId;
use proto::wire::{Binary, Opened};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub const MIB: u64 = 1 << 20;

/// What becomes of the bytes that come from a source.
#[derive(Clone, Default)]
pub enum Trouble {
    #[default]
    None,
    /// After so many bytes every stream breaks, and no new one can be had.
    Dies(u64),
    /// Every stream breaks after so many bytes of its own; a new one is good again.
    Breaks(u64),
    /// After so many bytes nothing comes any more.
    Hangs(u64),
    /// The byte at this place, of all that come, is another one.
    Flips(u64),
    /// After so many bytes something happens at the other end.
    Then(u64, Arc<dyn Fn() + Send + Sync>),
}

/// Answers on a stream that was agreed on.
pub type Server =
    Arc<dyn Fn(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static>;

/// Dials a store, and counts what goes both ways.
pub struct Source {
    server: Server,
    trouble: Trouble,
    /// Bytes that came from it.
    pub received: AtomicU64,
    /// Bytes that went to it.
    pub sent: AtomicU64,
    /// Bytes after which what is sent to it breaks.
    sending_breaks: AtomicU64,
    pub dials: AtomicUsize,
    happened: Mutex<bool>,
    /// How often it was started again.
    restarts: AtomicUsize,
}

/// Serves a store.
pub fn server(store: Arc<dyn Store>, rights: Rights) -> Server {
    Arc::new(move |stream| {
        let store = store.clone();
        Box::pin(async move {
            // A stream that breaks is what is tested.
            let _ = serve(store, stream, rights).await;
        })
    })
}

impl Source {
    pub fn new(server: Server, trouble: Trouble) -> Arc<Self> {
        Arc::new(Self {
            server,
            trouble,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sending_breaks: AtomicU64::new(u64::MAX),
            dials: AtomicUsize::new(0),
            happened: Mutex::new(false),
            restarts: AtomicUsize::new(0),
        })
    }

    pub fn of(store: &Arc<dyn Store>) -> Arc<Self> {
        Self::troubled(store, Trouble::None)
    }

    /// Its streams pin nothing.
    pub fn troubled(store: &Arc<dyn Store>, trouble: Trouble) -> Arc<Self> {
        Self::new(server(store.clone(), Rights::Coordinator), trouble)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// What is sent to it breaks after so many bytes, counted from the first on.
    pub fn break_sending_at(&self, bytes: u64) {
        self.sending_breaks.store(bytes, Ordering::SeqCst);
    }

    /// All streams that there are break.
    pub fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
    }

    fn is_dead(&self) -> bool {
        matches!(self.trouble, Trouble::Dies(after) if self.received() >= after)
    }

    /// Bytes came; spoils them, if that is what is wrong with this one.
    fn came(&self, bytes: &mut [u8]) {
        let before = self.received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let end = before + bytes.len() as u64;
        match &self.trouble {
            Trouble::Flips(at) if (before..end).contains(at) => bytes[(at - before) as usize] ^= 1,
            Trouble::Then(at, what) if end >= *at => {
                let mut happened = self.happened.lock().unwrap();
                if !*happened {
                    *happened = true;
                    what();
                }
            }
            _ => {}
        }
    }
}

pub fn binary() -> Binary {
    Binary { version: "test".into(), modified_ms: 0 }
}

pub fn blobs(source: &Arc<Source>) -> Blobs {
    Blobs::new(Arc::new(Dialer(source.clone())), binary())
}

struct Dialer(Arc<Source>);

impl Dial for Dialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + '_>> {
        Box::pin(async {
            self.0.dials.fetch_add(1, Ordering::SeqCst);
            if self.0.is_dead() {
                let source = io::ErrorKind::ConnectionRefused.into();
                return Err(NetError::Unreachable { to: "a dead source".to_owned(), source });
            }
            let (here, there) = tokio::io::duplex(MIB as usize);
            let (read, write) = tokio::io::split(there);
            let mut served = Stream::new(read, write);
            let server = self.0.server.clone();
            tokio::spawn(async move {
                served.accept().await?;
                served.to.send(&Opened::Ready { binary: binary() }).await?;
                server(served).await;
                Ok::<_, NetError>(())
            });
            let (read, write) = tokio::io::split(here);
            let born = self.0.restarts.load(Ordering::SeqCst);
            let read = Tap { inner: read, source: self.0.clone(), own: 0, born };
            let write = Tap { inner: write, source: self.0.clone(), own: 0, born };
            Ok(Stream::new(read, write))
        })
    }
}

/// One direction of a stream.
struct Tap<T> {
    inner: T,
    source: Arc<Source>,
    /// Bytes of this stream.
    own: u64,
    /// After how many starts of the source it was made.
    born: usize,
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let source = self.source.clone();
        match source.trouble {
            Trouble::Hangs(after) if source.received() >= after => return Poll::Pending,
            Trouble::Breaks(after) if self.own >= after => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            _ if source.is_dead() || source.restarts.load(Ordering::SeqCst) > self.born => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            _ => {}
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let came = &mut buffer.filled_mut()[before..];
        self.own += came.len() as u64;
        source.came(came);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left =
            self.source.sending_breaks.load(Ordering::SeqCst).saturating_sub(self.source.sent());
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(left as usize)];
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.source.sent.fetch_add(*written as u64, Ordering::SeqCst);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A store on disk, and where it is.
pub struct Disk {
    pub store: Arc<dyn Store>,
    pub disk: Arc<DiskStore>,
    pub path: PathBuf,
    _temp: tempfile::TempDir,
}

impl Disk {
    pub fn new() -> Self {
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = temp.path().join("store");
        let disk = Arc::new(open(&path));
        Self { store: disk.clone(), disk, path, _temp: temp }
    }

    /// Puts a blob; answers its name.
    pub fn put(&self, bytes: &[u8]) -> BlobId {
        let mut writer = self.store.writer().unwrap();
        io::Write::write_all(&mut writer, bytes).unwrap();
        writer.finish(None).unwrap().0
    }

    /// As [`Disk::put`]; and its chunks are known, as of one that was moved.
    pub fn put_known(&self, bytes: &[u8]) -> BlobId {
        let id = self.put(bytes);
        self.store.chunks(&id).unwrap();
        id
    }

    pub fn file_of(&self, id: &BlobId) -> PathBuf {
        self.path.join(format!("blobs/{}/{id}", &id.to_string()[..2]))
    }

    /// Nothing is in the store, and nothing is on its way into it.
    #[track_caller]
    pub fn assert_empty(&self) {
        let usage = self.disk.usage().unwrap();
        assert_eq!((usage.large.number, usage.packed.number), (0, 0));
        let sessions = std::fs::read_dir(self.path.join("tmp")).unwrap();
        let unfinished = sessions.flat_map(|s| std::fs::read_dir(s.unwrap().path()).unwrap());
        assert_eq!(unfinished.count(), 0, "unfinished files");
    }

    /// The blob is here and is these bytes; all else is sound.
    #[track_caller]
    pub fn assert_has(&self, id: &BlobId, bytes: &[u8]) {
        assert!(self.store.read(id).unwrap() == bytes, "other bytes");
        crate::common::assert_sound(&self.disk);
    }
}

/// Bytes, and other bytes that differ by about a hundredth in one place.
pub struct Versions {
    pub old: Vec<u8>,
    pub new: Vec<u8>,
}

/// How the new version came from the old one.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    InPlace,
    Insertion,
    Deletion,
}

pub fn versions(seed: u64, len: usize, edit: Edit) -> Versions {
    let old = content(seed, len);
    let fresh = content(seed + 1_000_000, len / 100);
    let at = len / 3;
    let mut new = old.clone();
    match edit {
        Edit::InPlace => new[at..at + fresh.len()].copy_from_slice(&fresh),
        Edit::Insertion => drop(new.splice(at..at, fresh)),
        Edit::Deletion => drop(new.drain(at..at + fresh.len())),
    }
    Versions { old, new }
}

/// What was warned of in this process.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Listens to warnings from now on.
pub fn listen() {
    // A second time it is there already.
    let _ = tracing::subscriber::set_global_default(Listener);
}

/// What was warned of about this blob.
pub fn warnings_of(id: &BlobId) -> Vec<String> {
    let all = WARNINGS.lock().unwrap();
    all.iter().filter(|text| text.contains(&id.to_string())).cloned().collect()
}

struct Listener;

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}: {value:?} ");
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        WARNINGS.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
