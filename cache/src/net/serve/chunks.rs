//! Large blobs by their chunks: what a store answers.

use super::{blocking, failure};
use crate::chunk::ChunkPlace;
use crate::chunk::assemble::{Assembly, Until};
use crate::net::chunks::{ROUNDS_MAX, ReadAhead, send_list, take_list, verified};
use crate::net::{NetError, Receiver, Sender};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use proto::chunk::{Chunk, ChunkList};
use proto::error::{Class, Failure};
use proto::id::BlobId;
use proto::limit;
use proto::wire::blob::{Data, Reply};
use std::sync::Arc;

/// Answers of which chunks a blob is made.
pub(super) async fn send_chunk_list(
    store: Arc<dyn Store>,
    to: &mut Sender,
    id: BlobId,
) -> Result<(), NetError> {
    match blocking(move || store.chunks(&id)).await {
        Ok(list) => {
            to.send(&Reply::Chunks).await?;
            send_list(to, &list).await
        }
        Err(error) => to.send(&Reply::Failed(failure(&error))).await,
    }
}

/// Answers with some chunks of a blob.
pub(super) async fn send_chunks(
    store: Arc<dyn Store>,
    to: &mut Sender,
    id: BlobId,
    chunks: Vec<Chunk>,
) -> Result<(), NetError> {
    if chunks.is_empty() || chunks.len() > limit::CHUNKS_ASKED_MAX {
        let most = limit::CHUNKS_ASKED_MAX;
        let what = format!("From 1 to {most} chunks can be asked for, not {}", chunks.len());
        return to.send(&Data::Failed(Failure::new(Class::User, what))).await;
    }
    let mut ahead = ReadAhead::new(|chunk: &Chunk| {
        let (store, chunk) = (store.clone(), *chunk);
        let at = ChunkPlace { blob: id, offset: chunk.offset, len: chunk.len };
        move || store.read_chunk(&chunk.id, &at)
    });
    for n in 0..chunks.len() {
        match ahead.next(&chunks[n..]).await {
            Ok(bytes) => {
                let data = if n + 1 == chunks.len() { Data::Last } else { Data::More };
                to.send_with(&data, &[bytes]).await?;
            }
            Err(error) => return to.send(&Data::Failed(failure(&error))).await,
        }
    }
    Ok(())
}

/// Takes a blob of which the other end offers the chunks.
pub(super) async fn take_chunks(
    store: Arc<dyn Store>,
    to: &mut Sender,
    from: &mut Receiver,
    id: BlobId,
) -> Result<(), NetError> {
    let list = match take_list(from).await?.and_then(|bytes| read_list(id, &bytes)) {
        Ok(list) => Arc::new(list),
        Err(failure) => return to.send(&Reply::Failed(failure)).await,
    };
    let offered = list.clone();
    let begin = move || {
        let here = store.missing_blobs(&[id])?.is_empty();
        if here { Ok(None) } else { Assembly::begin(store, offered).map(Some) }
    };
    let reply = match blocking(begin).await {
        Ok(None) => Reply::Done,
        Ok(Some(assembly)) => {
            let taking = Taking { to: &mut *to, from, list };
            match taking.run(assembly).await? {
                Ok(()) => Reply::Done,
                Err(failure) => Reply::Failed(failure),
            }
        }
        Err(error) => Reply::Failed(failure(&error)),
    };
    to.send(&reply).await
}

fn read_list(id: BlobId, bytes: &[u8]) -> Result<ChunkList, Failure> {
    let wrong = |what: String| Failure::new(Class::Corrupt, what);
    let list = ChunkList::decode(bytes).map_err(|error| wrong(error.to_string()))?;
    if list.blob() == id { Ok(list) } else { Err(wrong(format!("No chunks of blob {id}"))) }
}

/// A blob that comes.
struct Taking<'a> {
    to: &'a mut Sender,
    from: &'a mut Receiver,
    list: Arc<ChunkList>,
}

/// How a round ended.
enum Round {
    /// All chunks are there.
    Whole(Assembly),
    /// One that was thought to be here is not, so that the other end is asked again.
    Again(Assembly),
    /// It can't be taken.
    Failed(Failure),
}

impl Taking<'_> {
    async fn run(mut self, mut assembly: Assembly) -> Result<Result<(), Failure>, NetError> {
        for _ in 0..ROUNDS_MAX {
            let wanted = assembly.missing();
            if !wanted.is_empty() {
                self.to.send(&Reply::Wanted(wanted.clone())).await?;
            }
            assembly = match self.round(assembly, &wanted).await? {
                Round::Whole(assembly) => {
                    let finished = blocking(move || assembly.finish()).await;
                    return Ok(finished.map(drop).map_err(|e| failure(&e)));
                }
                Round::Again(assembly) => assembly,
                Round::Failed(failure) => return Ok(Err(failure)),
            };
        }
        let what = format!("Too many chunks of blob {} are damaged here", self.list.blob());
        Ok(Err(Failure::new(Class::Corrupt, what)))
    }

    /// Takes the chunks that were wanted, and copies those between them.
    async fn round(&mut self, mut assembly: Assembly, wanted: &[u32]) -> Result<Round, NetError> {
        for (n, index) in wanted.iter().enumerate() {
            let rest = wanted.len() - n;
            let (back, copied) = copy(assembly).await;
            assembly = back;
            match copied {
                Ok(Until::Missing(missing)) if missing == *index => {}
                Ok(_) => return self.drop_rest(rest, Round::Again(assembly)).await,
                Err(error) => return self.drop_rest(rest, Round::Failed(failure(&error))).await,
            }
            let bytes = match self.from.expect::<Data>().await {
                Ok((Data::Failed(failure), _)) => return Ok(Round::Failed(failure)),
                Ok((Data::More | Data::Last, bytes)) => bytes,
                Err(error) => {
                    keep_part(assembly).await;
                    return Err(error);
                }
            };
            let chunk = self.list.chunks()[*index as usize];
            let bytes = match verified(chunk.id, chunk.len, bytes).await {
                Ok(bytes) => bytes,
                Err(error) => return self.drop_rest(rest - 1, Round::Failed(error.into())).await,
            };
            let (back, pushed) = push(assembly, bytes).await;
            assembly = back;
            if let Err(error) = pushed {
                return self.drop_rest(rest - 1, Round::Failed(failure(&error))).await;
            }
        }
        let (assembly, copied) = copy(assembly).await;
        Ok(match copied {
            Ok(Until::End) => Round::Whole(assembly),
            Ok(_) => Round::Again(assembly),
            Err(error) => Round::Failed(failure(&error)),
        })
    }

    /// Reads and drops the chunks that are on their way, so that the stream stays usable; unless
    /// the other end gives up, the round ends so.
    async fn drop_rest(&mut self, chunks: usize, round: Round) -> Result<Round, NetError> {
        for _ in 0..chunks {
            if let (Data::Failed(failure), _) = self.from.expect::<Data>().await? {
                return Ok(Round::Failed(failure));
            }
        }
        Ok(round)
    }
}

async fn push(mut assembly: Assembly, bytes: Bytes) -> (Assembly, Result<(), StoreError>) {
    let pushing = move || {
        let pushed = assembly.push(bytes);
        (assembly, pushed)
    };
    blocking(pushing).await
}

/// Copies all that is here, up to the next chunk that is not.
async fn copy(mut assembly: Assembly) -> (Assembly, Result<Until, StoreError>) {
    let copying = move || loop {
        match assembly.copy() {
            Ok(Until::Pause) => {}
            other => return (assembly, other),
        }
    };
    blocking(copying).await
}

/// The connection broke: what came is kept for the next time.
async fn keep_part(assembly: Assembly) {
    if let Err(error) = blocking(move || assembly.keep_part()).await {
        tracing::debug!(%error, "What came of a blob is not kept");
    }
}
