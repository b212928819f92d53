//! Asking for the list of a blob's chunks.

use super::fetch::Fetch;
use super::lanes::{SILENCE_MAX, SourceError};
use super::split::{Fault, REST_MS, TRIES_MAX};
use crate::net::blobs::Blobs;
use proto::chunk::ChunkList;
use proto::id::BlobId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long one source is waited for before another is asked too. Cutting a blob for the first time
/// takes about as long for each gigabyte.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many bytes of a blob are cut in a second, at least: reading it from a slow disk.
const CUT_BYTES_PER_SECOND_MIN: u64 = 50_000_000;

/// How long a source may take to answer.
fn wait(size: u64) -> Duration {
    SILENCE_MAX + Duration::from_secs(size / CUT_BYTES_PER_SECOND_MIN)
}

/// Asks the sources one after the other, several times if need be. Answers who gave the list. If
/// nobody does, it is noted why.
pub(super) async fn ask_for_list(fetch: &mut Fetch) -> Option<(usize, ChunkList)> {
    let mut passing = BTreeMap::new();
    for round in 0..TRIES_MAX {
        if round > 0 {
            tokio::time::sleep(Duration::from_millis(REST_MS << (2 * (round - 1)))).await;
        }
        let open = (0..fetch.sources.len()).filter(|source| fetch.errors[*source].is_none());
        let open: Vec<usize> = open.collect();
        if open.is_empty() {
            return None;
        }
        let given = ask_each(fetch, open, &mut passing).await;
        if given.is_some() {
            return given;
        }
    }
    passing.into_iter().for_each(|(source, error)| fetch.note(source, error));
    None
}

/// Asks each of these once, the next when the one before fails or takes long.
async fn ask_each(
    fetch: &mut Fetch,
    open: Vec<usize>,
    passing: &mut BTreeMap<usize, SourceError>,
) -> Option<(usize, ChunkList)> {
    let mut open = open.into_iter();
    let mut asked: JoinSet<(usize, Result<ChunkList, SourceError>)> = JoinSet::new();
    let mut next = open.next();
    loop {
        if let Some(source) = next.take() {
            let (blobs, id, size) = (fetch.sources[source].clone(), fetch.id, fetch.size);
            asked.spawn(async move { (source, ask(&blobs, id, size).await) });
        }
        let answer = tokio::select! {
            answer = asked.join_next() => answer,
            () = tokio::time::sleep(PATIENCE), if open.len() > 0 => None,
        };
        let answer =
            answer.map(|a| a.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())));
        match answer {
            Some((source, Ok(list))) => return Some((source, list)),
            Some((source, Err(error))) if error.fault() == Fault::Lasting => {
                fetch.note(source, error);
            }
            Some((source, Err(error))) => drop(passing.insert(source, error)),
            None => {}
        }
        next = open.next();
        if next.is_none() && asked.is_empty() {
            return None;
        }
    }
}

async fn ask(blobs: &Blobs, id: BlobId, size: u64) -> Result<ChunkList, SourceError> {
    match tokio::time::timeout(wait(size), blobs.chunk_list(id)).await {
        Err(_) => Err(SourceError::Silent(wait(size))),
        Ok(list) => match list? {
            list if list.size() == size => Ok(list),
            list => {
                let what = format!("it is of {} bytes, the blob has {size}", list.size());
                Err(SourceError::WrongList(what))
            }
        },
    }
}
