//! Fetching a large blob from all who have it.
//!
//! One of them is asked for the list of its chunks. What of those is in other blobs here is copied,
//! the rest is asked of all sources at the same time, verified as it comes, and written in order.
//! When a source fails, the others go on from where it was.

use super::assemble::{Assembly, Until};
use super::lanes::{Came, Lanes, SourceError, tell};
use super::list::ask_for_list;
use super::split::{Fault, LANES, WINDOW_CHUNKS};
use crate::meter::Carried;
use crate::net::blobs::Blobs;
use crate::net::serve::blocking;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use proto::chunk::{ChunkList, ChunkListError};
use proto::error::Class;
use proto::id::BlobId;
use proto::limit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How a blob moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Bytes of chunks that went over the wire: also of those that came twice, or in vain.
    pub moved: u64,
    /// Bytes of the blob that were there already.
    pub reused: u64,
}

/// Why a blob could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store here can't take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It has too many chunks. It can only be fetched whole.
    #[error("Blob {blob} can't be fetched in chunks: {why}")]
    TooLarge {
        /// The blob.
        blob: BlobId,
        /// How large it is.
        why: ChunkListError,
    },
    /// No source is left.
    #[error("Blob {blob} could not be fetched: {}", Reasons(.reasons))]
    Lost {
        /// The blob.
        blob: BlobId,
        /// Why each source is not asked any more, by its place among those given.
        reasons: Vec<(usize, SourceError)>,
    },
}

impl FetchError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::TooLarge { .. } => Class::User,
            Self::Lost { .. } => Class::Unavailable,
        }
    }
}

struct Reasons<'a>(&'a [(usize, SourceError)]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody is known who has it");
        }
        for (n, (source, error)) in self.0.iter().enumerate() {
            let comma = if n > 0 { "; " } else { "" };
            write!(f, "{comma}source {}: {error}", source + 1)?;
        }
        Ok(())
    }
}

/// Fetches a blob of `size` bytes into the store, from all `sources` at the same time. Nothing is
/// left of one that can't be fetched, and nothing when the future is dropped.
///
/// The blob is visible when this returns, and kept from collection only by a pin of the caller's.
pub async fn fetch(
    store: &Arc<dyn Store>,
    sources: Vec<Blobs>,
    id: BlobId,
    size: u64,
) -> Result<Moved, FetchError> {
    if size > limit::CHUNKED_BLOB_BYTES_MAX {
        let why = ChunkListError::TooLarge { bytes: size };
        return Err(FetchError::TooLarge { blob: id, why });
    }
    let look = store.clone();
    if blocking(move || look.missing_blobs(&[id])).await?.is_empty() {
        return Ok(Moved { moved: 0, reused: size });
    }
    let errors = sources.iter().map(|_| None).collect();
    Fetch { store: store.clone(), sources, id, size, errors, moved: 0 }.run().await
}

/// A blob that is being fetched.
pub(super) struct Fetch {
    pub store: Arc<dyn Store>,
    pub sources: Vec<Blobs>,
    pub id: BlobId,
    pub size: u64,
    /// Why a source is not asked any more.
    pub errors: Vec<Option<SourceError>>,
    moved: u64,
}

/// How an attempt with one list ended, when not well.
enum Failed {
    Store(StoreError),
    /// All chunks came, and are not the blob.
    OtherBytes,
    /// No source was left.
    NoSource,
}

/// Who is asked again with another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spare {
    /// Nobody: the list is right, since others have its chunks too.
    Nobody,
    /// Whoever does not have its chunks, but not who gave it: it may be wrong.
    Others,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fetch {
    async fn run(mut self) -> Result<Moved, FetchError> {
        loop {
            let Some((giver, list)) = ask_for_list(&mut self).await else {
                return Err(self.lost());
            };
            let list = Arc::new(list);
            let left_out = |source: usize| self.errors[source].is_some();
            let lanes = Arc::new(Lanes::new(list.clone(), &self.sources, left_out));
            let attempt = attempt(self.store.clone(), &lanes, list).await;
            self.moved += lanes.moved();
            match attempt {
                Ok(reused) => return Ok(Moved { moved: self.moved, reused }),
                Err(Failed::Store(error)) => return Err(error.into()),
                Err(Failed::OtherBytes) => {
                    self.note_lies(lanes.take_errors());
                    let why = "its chunks together are not the blob".to_owned();
                    self.note(giver, SourceError::WrongList(why));
                }
                Err(Failed::NoSource) => {
                    let spare =
                        if lanes.is_confirmed(giver) { Spare::Nobody } else { Spare::Others };
                    if !self.note_lost(lanes.take_errors(), giver, spare) {
                        return Err(self.lost());
                    }
                }
            }
        }
    }

    /// A source is not asked any more.
    pub fn note(&mut self, source: usize, error: SourceError) {
        tell(self.id, source, &error);
        self.errors[source] = Some(error);
    }

    /// Whoever sent wrong bytes is not asked any more, whatever list comes next.
    fn note_lies(&mut self, errors: Vec<Option<SourceError>>) {
        for (noted, error) in self.errors.iter_mut().zip(errors) {
            if let Some(error) = error.filter(SourceError::is_lie) {
                *noted = Some(error);
            }
        }
    }

    /// No source was left. Answers whether some are spared.
    fn note_lost(&mut self, errors: Vec<Option<SourceError>>, giver: usize, spare: Spare) -> bool {
        let mut spared = false;
        for (source, error) in errors.into_iter().enumerate() {
            let Some(error) = error else { continue };
            let has_not = error.fault() == Fault::Lasting && !error.is_lie();
            if spare == Spare::Others && source != giver && has_not {
                spared = true;
            } else {
                self.errors[source] = Some(error);
            }
        }
        spared
    }

    fn lost(&mut self) -> FetchError {
        let errors = std::mem::take(&mut self.errors).into_iter().enumerate();
        let reasons = errors.filter_map(|(source, error)| Some((source, error?))).collect();
        FetchError::Lost { blob: self.id, reasons }
    }
}

/// Puts the blob together by this list. Answers how many bytes of it were here.
async fn attempt(
    store: Arc<dyn Store>,
    lanes: &Arc<Lanes>,
    list: Arc<ChunkList>,
) -> Result<u64, Failed> {
    let assembly = blocking(move || Assembly::begin(store, list)).await?;
    let (out, came) = mpsc::channel(WINDOW_CHUNKS);
    // Dropped, it ends them.
    let mut running = JoinSet::new();
    for source in 0..lanes.sources() {
        for _ in 0..LANES {
            running.spawn(Carried::here().with(lanes.clone().run(source, out.clone())));
        }
    }
    drop(out);
    lanes.want(&assembly.missing());
    let assembly = assemble(lanes, assembly, came).await?;
    drop(running);
    match blocking(move || assembly.finish()).await {
        Err(StoreError::WrongBytes { .. }) => Err(Failed::OtherBytes),
        other => Ok(other?),
    }
}

/// Copies what is here and takes up what comes, until all is written.
async fn assemble(
    lanes: &Lanes,
    mut assembly: Assembly,
    mut came: mpsc::Receiver<Came>,
) -> Result<Assembly, Failed> {
    // What came before its turn.
    let mut early: BTreeMap<u32, Bytes> = BTreeMap::new();
    loop {
        let (back, until) = on(assembly, Assembly::copy).await;
        assembly = back;
        let missing = match until? {
            Until::Pause => continue,
            Until::End => return Ok(assembly),
            Until::Missing(index) => index,
        };
        // No news, unless it was thought to be here.
        lanes.want(&[missing]);
        while !early.contains_key(&missing) {
            early.extend([came.recv().await.ok_or(Failed::NoSource)?]);
        }
        while let Ok(chunk) = came.try_recv() {
            early.extend([chunk]);
        }
        let turn: Vec<Came> = (missing..).map_while(|i| Some((i, early.remove(&i)?))).collect();
        let indices: Vec<u32> = turn.iter().map(|(index, _)| *index).collect();
        let push = |assembly: &mut Assembly| {
            turn.into_iter().try_for_each(|(_, bytes)| assembly.push(bytes))
        };
        let (back, pushed) = on(assembly, push).await;
        assembly = back;
        pushed?;
        lanes.written(&indices);
    }
}

/// Does something with an assembly on a thread for what blocks.
async fn on<T: Send + 'static>(
    mut assembly: Assembly,
    work: impl FnOnce(&mut Assembly) -> T + Send + 'static,
) -> (Assembly, T) {
    let work = move || {
        let done = work(&mut assembly);
        (assembly, done)
    };
    blocking(work).await
}
