//! The requests that run for one blob: they do what [`Split`] says.

use super::split::{Fault, Next, Split};
use crate::net::NetError;
use crate::net::blobs::Blobs;
use bytes::Bytes;
use proto::chunk::{Chunk, ChunkList};
use proto::error::Class;
use proto::id::{BlobId, Millis};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// How long a source that was asked for chunks may send none. A chunk has at most 2 MiB: whoever
/// is slower than 70 kB/s is of no use.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Why a source is not asked any more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It could not be reached, refused, or sent something wrong.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It did not answer.
    #[error("It sent nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// The chunks that it named are not the blob's.
    #[error("It sent a list of chunks that is not the blob's: {0}")]
    WrongList(String),
}

impl SourceError {
    /// Whether it sent what can't be right.
    pub fn is_lie(&self) -> bool {
        match self {
            Self::WrongList(_) => true,
            Self::Net(error) => matches!(error, NetError::Frame(_) | NetError::Unexpected(_)),
            Self::Silent(_) => false,
        }
    }

    /// Whether it can help to ask again.
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Net(NetError::Refused(failure)) if failure.class != Class::Busy => Fault::Lasting,
            Self::Net(NetError::Refused(_)) | Self::Silent(_) => Fault::Passing,
            Self::Net(NetError::Unreachable { .. } | NetError::Broken(_) | NetError::Closed) => {
                Fault::Passing
            }
            Self::Net(_) | Self::WrongList(_) => Fault::Lasting,
        }
    }
}

/// What the lanes share with whoever puts the blob together.
pub(super) struct Lanes {
    list: Arc<ChunkList>,
    sources: Vec<Blobs>,
    split: Mutex<Split>,
    /// What became of each source last, where that is an error.
    errors: Mutex<Vec<Option<SourceError>>>,
    changed: Notify,
    began: Instant,
    moved: AtomicU64,
}

/// A chunk that came, by its place in the blob.
pub(super) type Came = (u32, Bytes);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Lanes {
    /// Of these sources, those that are not `left_out` are asked.
    pub fn new(list: Arc<ChunkList>, sources: &[Blobs], left_out: impl Fn(usize) -> bool) -> Self {
        let mut split = Split::new(sources.len());
        for source in (0..sources.len()).filter(|source| left_out(*source)) {
            split.failed(Millis(0), source, Fault::Lasting);
        }
        Self {
            list,
            sources: sources.to_vec(),
            split: Mutex::new(split),
            errors: Mutex::new(sources.iter().map(|_| None).collect()),
            changed: Notify::new(),
            began: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }

    fn now(&self) -> Millis {
        Millis(self.began.elapsed().as_millis() as u64)
    }

    /// Bytes of chunks that came, whatever became of them.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// How many sources there are.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Whether somebody else than who gave the list has chunks that it names.
    pub fn is_confirmed(&self, giver: usize) -> bool {
        let split = lock(&self.split);
        (0..self.sources.len()).any(|source| source != giver && split.has_given(source))
    }

    /// The error that each source ended with.
    pub fn take_errors(&self) -> Vec<Option<SourceError>> {
        std::mem::take(&mut *lock(&self.errors))
    }

    /// These chunks are to be fetched.
    pub fn want(&self, indices: &[u32]) {
        let mut split = lock(&self.split);
        indices.iter().for_each(|i| split.want(*i, self.list.chunks()[*i as usize].len));
        drop(split);
        self.changed.notify_waiters();
    }

    /// These chunks were taken up.
    pub fn written(&self, indices: &[u32]) {
        let mut split = lock(&self.split);
        indices.iter().for_each(|index| split.written(*index));
        drop(split);
        self.changed.notify_waiters();
    }

    /// One lane: asks its source until it is given up.
    pub async fn run(self: Arc<Self>, source: usize, out: mpsc::Sender<Came>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let next = lock(&self.split).next(self.now(), source);
            match next {
                Next::Never => return,
                Next::Ask(asked) => self.ask(source, &asked, &out).await,
                Next::Wait(None) => changed.await,
                Next::Wait(Some(until)) => {
                    let until = self.began + Duration::from_millis(until.0);
                    let _ = tokio::time::timeout_at(until, changed).await;
                }
            }
        }
    }

    async fn ask(&self, source: usize, asked: &[u32], out: &mpsc::Sender<Came>) {
        let began = self.now();
        let chunks: Vec<Chunk> = asked.iter().map(|i| self.list.chunks()[*i as usize]).collect();
        let heard = AtomicU64::new(began.0);
        let take = |place: usize, bytes: Bytes| {
            heard.store(self.now().0, Ordering::Relaxed);
            self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let index = asked[place];
            let first = lock(&self.split).arrived(source, index);
            async move {
                if first {
                    // Whoever does not listen any more has all that he wants.
                    let _ = out.send((index, bytes)).await;
                }
                Ok(())
            }
        };
        let coming = self.sources[source].get_chunks(self.list.blob(), &chunks, take);
        let got = tokio::select! {
            got = coming => got.map_err(SourceError::Net),
            () = self.silence(&heard) => Err(SourceError::Silent(SILENCE_MAX)),
        };
        let now = self.now();
        let mut split = lock(&self.split);
        match got {
            Ok(()) => {
                let bytes = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
                split.took(now, source, began, bytes);
            }
            Err(error) => {
                split.failed(now, source, error.fault());
                tell(self.list.blob(), source, &error);
                lock(&self.errors)[source] = Some(error);
            }
        }
        split.ended(source, began, asked);
        drop(split);
        self.changed.notify_waiters();
    }

    /// Ends when nothing was heard for too long.
    async fn silence(&self, heard: &AtomicU64) {
        loop {
            let since = Duration::from_millis(heard.load(Ordering::Relaxed));
            let until = self.began + since + SILENCE_MAX;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Tells of a source that failed: aloud, if it lied.
pub(super) fn tell(blob: BlobId, source: usize, error: &SourceError) {
    let source = source + 1;
    if error.is_lie() {
        let what = "A source of a blob sent wrong bytes; it is not asked again";
        tracing::warn!(%blob, source, %error, "{what}");
    } else {
        tracing::debug!(%blob, source, %error, "A source of a blob failed");
    }
}
