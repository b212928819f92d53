//! Large blobs by their chunks: what [`Blobs`] asks for and offers.

use super::blobs::{Blobs, unexpected};
use super::serve::{blocking, failure};
use super::{NetError, Receiver, Sender, Stream};
use crate::chunk::{ChunkPlace, ChunkSource, Moved};
use crate::meter::{self, Kind};
use crate::store::StoreError;
use bytes::Bytes;
use proto::chunk::{Chunk, ChunkList, LIST_BYTES_MAX};
use proto::error::{Class, Failure};
use proto::id::BlobId;
use proto::limit;
use proto::wire::blob::{Data, Reply, Request};
use std::io;
use std::sync::Arc;

/// How often the other end may want more of one blob, after it got what it had wanted: each time
/// because something that it had is damaged.
pub(super) const ROUNDS_MAX: usize = 64;

/// Why a blob could not be put.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It could not be read here.
    #[error(transparent)]
    Source(#[from] StoreError),
    /// The other end did not take it.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl PutError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Source(error) => error.class(),
            Self::Net(error) => error.class(),
        }
    }
}

impl Blobs {
    /// Of which chunks a blob is made. That the list is the blob's is known when the blob was put
    /// together and hashed.
    pub async fn chunk_list(&self, id: BlobId) -> Result<ChunkList, NetError> {
        self.ask_for_list(id).await.inspect_err(|error| self.drop_idle_if_broken(error))
    }

    async fn ask_for_list(&self, id: BlobId) -> Result<ChunkList, NetError> {
        let mut stream = self.stream().await?;
        stream.to.send(&Request::GetChunkList(id)).await?;
        match stream.from.expect::<Reply>().await?.0 {
            Reply::Chunks => {}
            Reply::Failed(failure) => {
                self.keep(stream);
                return Err(NetError::Refused(failure));
            }
            other => return Err(unexpected(&other)),
        }
        let bytes = take_list(&mut stream.from).await?;
        self.keep(stream);
        let list = ChunkList::decode(&bytes.map_err(NetError::Refused)?);
        let list = list.map_err(|error| NetError::Unexpected(error.to_string()))?;
        if list.blob() != id {
            return Err(NetError::Unexpected(format!("the chunks of another blob than {id}")));
        }
        Ok(list)
    }

    /// Some chunks of a blob, in the order asked for, each of them verified, given to `take` one by
    /// one with its place among those asked for.
    pub async fn get_chunks<F>(
        &self,
        id: BlobId,
        chunks: &[Chunk],
        take: impl FnMut(usize, Bytes) -> F + Send,
    ) -> Result<(), NetError>
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        let got = self.ask_for_chunks(id, chunks, take).await;
        got.inspect_err(|error| self.drop_idle_if_broken(error))
    }

    async fn ask_for_chunks<F>(
        &self,
        id: BlobId,
        chunks: &[Chunk],
        mut take: impl FnMut(usize, Bytes) -> F + Send,
    ) -> Result<(), NetError>
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        let mut stream = self.stream().await?;
        for (some, first) in chunks.chunks(limit::CHUNKS_ASKED_MAX).zip(0..) {
            stream.to.send(&Request::GetChunks(id, some.to_vec())).await?;
            for (n, chunk) in some.iter().enumerate() {
                let (data, bytes) = stream.from.expect::<Data>().await?;
                match (data, n + 1 == some.len()) {
                    (Data::More, false) | (Data::Last, true) => {}
                    (Data::Failed(failure), _) => {
                        self.keep(stream);
                        return Err(NetError::Refused(failure));
                    }
                    (Data::More | Data::Last, _) => {
                        let what = format!("more or fewer chunks of blob {id} than asked for");
                        return Err(NetError::Unexpected(what));
                    }
                }
                let bytes = verified(chunk.id, chunk.len, bytes).await?;
                meter::add(Kind::Fetched, bytes.len() as u64);
                let place = first * limit::CHUNKS_ASKED_MAX + n;
                take(place, bytes).await.map_err(NetError::Taker)?;
            }
        }
        self.keep(stream);
        Ok(())
    }

    /// Puts a blob that `source` has: offers its chunks, and sends those that are not there. The
    /// caller sees to it that the blob stays in the source meanwhile. What the other end got before
    /// a connection broke it mostly has when the blob is put again.
    pub async fn put_chunked<S: ChunkSource + ?Sized + 'static>(
        &self,
        source: &Arc<S>,
        id: BlobId,
    ) -> Result<Moved, PutError> {
        let from = source.clone();
        let list = blocking(move || from.chunk_list(&id)).await?;
        let mut stream = self.stream().await?;
        stream.to.send(&Request::PutChunks(id)).await?;
        send_list(&mut stream.to, &list).await?;
        let mut moved = 0;
        for _ in 0..ROUNDS_MAX {
            let (reply, _) = stream.from.expect::<Reply>().await?;
            match reply {
                Reply::Done => {
                    self.keep(stream);
                    return Ok(Moved { moved, reused: list.size().saturating_sub(moved) });
                }
                Reply::Wanted(wanted) => {
                    let wanted = wanted_chunks(&list, &wanted)?;
                    moved += wanted.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
                    if let Err(error) = send_wanted(&mut stream, source, id, &wanted).await? {
                        // What it answers to that is clear.
                        stream.from.expect::<Reply>().await?;
                        self.keep(stream);
                        return Err(error.into());
                    }
                }
                Reply::Failed(failure) => {
                    self.keep(stream);
                    return Err(NetError::Refused(failure).into());
                }
                other => return Err(unexpected(&other).into()),
            }
        }
        let what = format!("wanted chunks of blob {id} more than {ROUNDS_MAX} times");
        Err(NetError::Unexpected(what).into())
    }
}

/// The chunks that the other end wants, if they are in order and of the list.
fn wanted_chunks(list: &ChunkList, wanted: &[u32]) -> Result<Vec<Chunk>, NetError> {
    let chunk = |index: &u32| list.chunks().get(*index as usize).copied();
    let chunks: Option<Vec<Chunk>> = wanted.iter().map(chunk).collect();
    let in_order = wanted.is_sorted_by(|a, b| a < b);
    chunks.filter(|_| in_order).ok_or_else(|| {
        NetError::Unexpected(format!("wants chunks that blob {} does not have", list.blob()))
    })
}

/// Sends chunks, reading the next one meanwhile. If one can't be read, says so, and answers why.
async fn send_wanted<S: ChunkSource + ?Sized + 'static>(
    stream: &mut Stream,
    source: &Arc<S>,
    blob: BlobId,
    wanted: &[Chunk],
) -> Result<Result<(), StoreError>, NetError> {
    let mut ahead = ReadAhead::new(|chunk: &Chunk| {
        let (source, chunk) = (source.clone(), *chunk);
        let at = ChunkPlace { blob, offset: chunk.offset, len: chunk.len };
        move || source.chunk_bytes(&chunk.id, &at)
    });
    for n in 0..wanted.len() {
        match ahead.next(&wanted[n..]).await {
            Ok(bytes) => {
                meter::add(Kind::Sent, bytes.len() as u64);
                stream.to.send_with(&Data::More, &[bytes]).await?;
            }
            Err(error) => {
                stream.to.send(&Data::Failed(failure(&error))).await?;
                return Ok(Err(error));
            }
        }
    }
    Ok(Ok(()))
}

/// Reads chunks one ahead of who sends them.
pub(super) struct ReadAhead<R> {
    read: R,
    next: Option<tokio::task::JoinHandle<Result<Bytes, StoreError>>>,
}

impl<R, W> ReadAhead<R>
where
    R: Fn(&Chunk) -> W,
    W: FnOnce() -> Result<Bytes, StoreError> + Send + 'static,
{
    /// `read` makes the work of reading a chunk.
    pub fn new(read: R) -> Self {
        Self { read, next: None }
    }

    /// The bytes of the first of the chunks that are still to be read, all of which `rest` has.
    pub async fn next(&mut self, rest: &[Chunk]) -> Result<Bytes, StoreError> {
        let begin = |chunk: &Chunk| tokio::task::spawn_blocking((self.read)(chunk));
        let first = self.next.take().unwrap_or_else(|| begin(&rest[0]));
        let bytes = first.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        self.next = rest.get(1).map(begin);
        Ok(bytes)
    }
}

/// Hashes a chunk that came: half a megabyte takes too long for a thread of the runtime.
pub(super) async fn verified(id: BlobId, len: u32, bytes: Bytes) -> Result<Bytes, NetError> {
    let wrong = || NetError::Unexpected(format!("chunk {id} came with other bytes"));
    if bytes.len() != len as usize {
        return Err(wrong());
    }
    let hashing = move || if BlobId::of(&bytes) == id { Some(bytes) } else { None };
    blocking(hashing).await.ok_or_else(wrong)
}

/// Sends a list's encoding in [`Data`] frames.
pub(super) async fn send_list(to: &mut Sender, list: &ChunkList) -> Result<(), NetError> {
    let mut bytes = Bytes::from(list.encode());
    while bytes.len() > limit::BATCH_BYTES {
        to.send_with(&Data::More, &[bytes.split_to(limit::BATCH_BYTES)]).await?;
    }
    to.send_with(&Data::Last, &[bytes]).await
}

/// Takes a list's encoding in [`Data`] frames; or, why the other end does not send it.
pub(super) async fn take_list(from: &mut Receiver) -> Result<Result<Vec<u8>, Failure>, NetError> {
    let mut bytes = Vec::new();
    loop {
        let (data, payload) = from.expect::<Data>().await?;
        if let Data::Failed(failure) = data {
            return Ok(Err(failure));
        }
        if bytes.len() + payload.len() > LIST_BYTES_MAX {
            return Err(NetError::Unexpected("a list of too many chunks".to_owned()));
        }
        bytes.extend_from_slice(&payload);
        if data == Data::Last {
            return Ok(Ok(bytes));
        }
    }
}
