//! A store at the other end of a stream.

mod chunks;
pub(crate) mod nodes;

use super::{NetError, Receiver, Sender, Stream};
use crate::store::{BlobWriter, Store, StoreError, Table};
use bytes::Bytes;
use proto::error::{Class, Failure};
use proto::id::{BlobId, TreeId};
use proto::limit;
use proto::wire::blob::{self, Data, PutRecord, Reply, Request};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes of one piece of a large blob.
const PIECE_BYTES: usize = 1 << 20;

/// What the other end of a stream may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Coordinator,
    /// Read and put bytes and trees; of rows, those that all of a farm share, but give images no
    /// names. Nothing that counts as a result.
    Worker,
    /// Read and put bytes and trees.
    Client,
    /// Read bytes and trees.
    Reader,
    /// Another node of the same farm: read everything, and tell what it has collected.
    Node,
}

impl Rights {
    /// Whether the request is one that the other end may make.
    fn allow(self, request: &Request) -> bool {
        match request {
            Request::FindMissing { .. }
            | Request::GetBlobs(_)
            | Request::GetLarge(..)
            | Request::GetNodes(_)
            | Request::GetChunkList(_)
            | Request::GetChunks(..)
            | Request::Sizes(_)
            | Request::Pin => true,
            Request::PutBlobs(_)
            | Request::PutLarge(..)
            | Request::PutChunks(_)
            | Request::PutNodes(_)
            | Request::Barrier => !matches!(self, Self::Reader | Self::Node),
            Request::Row(blob::Table::Trace, _)
            | Request::Rows(blob::Table::Trace, _)
            | Request::PutRow(blob::Table::Trace, ..)
            | Request::DeleteRow(blob::Table::Trace, _)
            | Request::PutRow(blob::Table::CacheMount | blob::Table::Image, ..)
            | Request::DeleteRow(blob::Table::CacheMount | blob::Table::Image, _) => {
                self == Self::Coordinator
            }
            Request::Row(..) | Request::Rows(..) | Request::PutRow(..) | Request::DeleteRow(..) => {
                matches!(self, Self::Worker | Self::Coordinator)
            }
            Request::Records(..)
            | Request::Aliases(..)
            | Request::PutRecord(_)
            | Request::PutBuild(..)
            | Request::Builds(_) => self == Self::Coordinator,
            Request::Compare(..) | Request::List(..) | Request::Entries(_) | Request::Forget(_) => {
                self == Self::Node
            }
        }
    }
}

/// Answers requests until the other end closes the stream. What a client asks for is pinned for as
/// long; all others keep their streams, and what they do for a build is pinned for the build.
pub async fn serve(store: Arc<dyn Store>, stream: Stream, rights: Rights) -> Result<(), NetError> {
    let Stream { mut to, mut from } = stream;
    let _pin = (rights == Rights::Client).then(|| store.pin());
    while let Some((request, payload)) = from.next::<Request>().await? {
        let store = store.clone();
        if !rights.allow(&request) {
            let message = "This is not for whoever asks: records and rows are the coordinator's";
            to.send(&Reply::Failed(Failure::new(Class::Denied, message))).await?;
            continue;
        }
        match request {
            Request::GetLarge(id, offset) => send_large(store, &mut to, id, offset).await?,
            Request::PutLarge(id, size) => {
                let taken = take_large(store, &mut from, id, size).await?;
                to.send(&answer(taken)).await?;
            }
            Request::GetBlobs(ids) => send_blobs(store, &mut to, ids).await?,
            Request::GetNodes(ids) => send_nodes(store, &mut to, ids).await?,
            Request::Pin => return hold(store, to, from).await,
            Request::GetChunkList(id) => chunks::send_chunk_list(store, &mut to, id).await?,
            Request::GetChunks(id, some) => chunks::send_chunks(store, &mut to, id, some).await?,
            Request::PutChunks(id) => chunks::take_chunks(store, &mut to, &mut from, id).await?,
            Request::Sizes(ids) => to.send(&sizes(&*store, &ids).await).await?,
            other => {
                let reply = blocking(move || small(&*store, other, &payload)).await;
                to.send(&reply).await?;
            }
        }
    }
    Ok(())
}

/// Keeps what is used from now on until the other end closes the stream; for a while longer when it
/// breaks.
async fn hold(store: Arc<dyn Store>, mut to: Sender, mut from: Receiver) -> Result<(), NetError> {
    let pin = store.pin();
    to.send(&Reply::Done).await?;
    // Nothing more is said on this stream.
    let ended = from.next::<Request>().await;
    if ended.is_err() {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(limit::PIN_GRACE_MS)).await;
            drop(pin);
        });
    }
    ended.map(drop)
}

/// How many sizes are looked up before other tasks have their turn: less than a millisecond's work.
const SIZES_AT_ONCE: usize = 256;

/// Answers sizes, without a thread of those for what blocks: all of these can be waiting for the
/// answers of other nodes, which wait for this one.
async fn sizes(store: &dyn Store, ids: &[BlobId]) -> Reply {
    if ids.len() > limit::FIND_MISSING_MAX {
        let what = format!("At most {} ids can be asked for", limit::FIND_MISSING_MAX);
        return Reply::Failed(Failure::new(Class::User, what));
    }
    let mut sizes = Vec::with_capacity(ids.len());
    for some in ids.chunks(SIZES_AT_ONCE) {
        match store.sizes(some) {
            Ok(more) => sizes.extend(more),
            Err(e) => return Reply::Failed(failure(&e)),
        }
        tokio::task::yield_now().await;
    }
    Reply::Sizes(sizes)
}

/// Does work that blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

pub(super) fn failure(error: &StoreError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

fn answer(result: Result<(), Failure>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(failure) => Reply::Failed(failure),
    }
}

/// Splits a payload by the lengths of its parts.
fn split(payload: &Bytes, lengths: impl Iterator<Item = u32>) -> Result<Vec<Bytes>, Failure> {
    let wrong = || Failure::new(Class::Corrupt, "A batch is shorter or longer than its parts");
    let mut rest = payload.clone();
    let mut parts = Vec::new();
    for length in lengths {
        if rest.len() < length as usize {
            return Err(wrong());
        }
        parts.push(rest.split_to(length as usize));
    }
    if rest.is_empty() { Ok(parts) } else { Err(wrong()) }
}

fn small(store: &dyn Store, request: Request, payload: &Bytes) -> Reply {
    let done = |result: Result<(), StoreError>| answer(result.map_err(|e| failure(&e)));
    match request {
        Request::FindMissing { blobs, trees } => {
            if blobs.len() + trees.len() > limit::FIND_MISSING_MAX {
                let what = format!("At most {} ids can be asked for", limit::FIND_MISSING_MAX);
                return Reply::Failed(Failure::new(Class::User, what));
            }
            let find = || Ok((store.missing_blobs(&blobs)?, store.missing_trees(&trees)?));
            match find() {
                Ok((blobs, trees)) => Reply::Missing { blobs, trees },
                Err(e) => Reply::Failed(failure(&e)),
            }
        }
        Request::PutBlobs(blobs) => match split(payload, blobs.iter().map(|(_, length)| *length)) {
            Err(e) => Reply::Failed(e),
            Ok(parts) => {
                let blobs: Vec<_> = blobs.iter().map(|(id, _)| *id).zip(parts).collect();
                done(store.put_blobs(&blobs))
            }
        },
        Request::PutNodes(lengths) => match split(payload, lengths.into_iter()) {
            Err(e) => Reply::Failed(e),
            Ok(parts) => {
                let nodes: Vec<Vec<u8>> = parts.iter().map(|p| p.to_vec()).collect();
                done(store.put_nodes(&nodes))
            }
        },
        Request::Barrier => done(store.barrier()),
        Request::Records(scope, keys) => match store.records(&scope, &keys) {
            Ok(records) => Reply::Records(records),
            Err(e) => Reply::Failed(failure(&e)),
        },
        Request::Aliases(scope, keys) => match store.aliases(&scope, &keys) {
            Ok(aliases) => Reply::Aliases(aliases),
            Err(e) => Reply::Failed(failure(&e)),
        },
        Request::PutRecord(put) => done(put_record(store, &put)),
        Request::PutBuild(key, value) => done(store.put_row(Table::Build, &key, &value)),
        Request::Builds(count) => match store.rows(Table::Build, &[]) {
            Ok(rows) => Reply::Builds(rows.into_iter().rev().take(count as usize).collect()),
            Err(e) => Reply::Failed(failure(&e)),
        },
        Request::Row(table, key) => match store.row(own(table), &key) {
            Ok(value) => Reply::Rows(value.map(|value| (key, value)).into_iter().collect()),
            Err(e) => Reply::Failed(failure(&e)),
        },
        Request::Rows(table, prefix) => match store.rows(own(table), &prefix) {
            Ok(rows) => Reply::Rows(rows),
            Err(e) => Reply::Failed(failure(&e)),
        },
        Request::PutRow(table, key, value) => done(store.put_row(own(table), &key, &value)),
        Request::DeleteRow(table, key) => done(store.delete_row(own(table), &key).map(drop)),
        request @ (Request::Compare(..)
        | Request::List(..)
        | Request::Entries(_)
        | Request::Forget(_)) => nodes::answer(store, request),
        Request::GetLarge(..)
        | Request::PutLarge(..)
        | Request::GetBlobs(_)
        | Request::GetNodes(_)
        | Request::GetChunkList(_)
        | Request::GetChunks(..)
        | Request::PutChunks(_)
        | Request::Sizes(_)
        | Request::Pin => unreachable!("answered by `serve`"),
    }
}

fn own(table: blob::Table) -> Table {
    match table {
        blob::Table::Image => Table::Image,
        blob::Table::Unpacked => Table::Unpacked,
        blob::Table::Layer => Table::Layer,
        blob::Table::CacheMount => Table::CacheMount,
        blob::Table::Trace => Table::Trace,
    }
}

/// Keeps a record whose trees are here: a node that missed them says so now, not when the record is
/// asked for.
fn put_record(store: &dyn Store, put: &PutRecord) -> Result<(), StoreError> {
    let trees: Vec<TreeId> = put.record.layers.iter().map(|layer| layer.0).collect();
    if let Some(tree) = store.missing_trees(&trees)?.first() {
        return Err(StoreError::NoTree(*tree));
    }
    let alias = put.alias.as_ref().map(|(def, alias)| (def, alias));
    store.put_record(&put.scope, &put.key, &put.record, alias)
}

/// Takes a large blob, writing on a thread of its own.
async fn take_large(
    store: Arc<dyn Store>,
    from: &mut Receiver,
    id: BlobId,
    size: u64,
) -> Result<Result<(), Failure>, NetError> {
    let (pieces, mut queue) = mpsc::channel::<Bytes>(8);
    let writer = tokio::task::spawn_blocking(move || -> Result<(), Failure> {
        let mut writer: Box<dyn BlobWriter> = store.writer().map_err(|e| failure(&e))?;
        let mut taken = 0;
        while let Some(piece) = queue.blocking_recv() {
            taken += piece.len() as u64;
            if taken > size {
                return Err(Failure::new(Class::Corrupt, format!("Blob {id} is longer than said")));
            }
            let write = |e: std::io::Error| {
                Failure::new(Class::Busy, format!("Writing blob {id} failed: {e}"))
            };
            writer.write_all(&piece).map_err(write)?;
        }
        if taken < size {
            return Err(Failure::new(Class::Unavailable, format!("Blob {id} came only in part")));
        }
        writer.finish(Some(id)).map(drop).map_err(|e| failure(&e))
    });
    loop {
        let (data, payload) = from.expect::<Data>().await?;
        // When the writer has given up, the rest is read and dropped: the stream stays usable.
        match data {
            Data::More => drop(pieces.send(payload).await),
            Data::Last => {
                let _ = pieces.send(payload).await;
                break;
            }
            Data::Failed(_) => break,
        }
    }
    drop(pieces);
    match writer.await {
        Ok(result) => Ok(result),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

async fn send_large(
    store: Arc<dyn Store>,
    to: &mut Sender,
    id: BlobId,
    offset: u64,
) -> Result<(), NetError> {
    let opened = blocking(move || Ok((store.blob_size(&id)?, store.open(&id, offset)?))).await;
    let (size, mut reader) = match opened {
        Ok(opened) => opened,
        Err(e) => return to.send(&Reply::Failed(failure(&e))).await,
    };
    to.send(&Reply::Large(size)).await?;
    let (pieces, mut queue) = mpsc::channel::<std::io::Result<Bytes>>(4);
    let reading = tokio::task::spawn_blocking(move || {
        loop {
            let piece = read_piece(&mut *reader);
            let end = !matches!(&piece, Ok(bytes) if !bytes.is_empty());
            if pieces.blocking_send(piece).is_err() || end {
                return;
            }
        }
    });
    while let Some(piece) = queue.recv().await {
        match piece {
            Ok(bytes) if bytes.is_empty() => to.send(&Data::Last).await?,
            Ok(bytes) => to.send_with(&Data::More, &[bytes]).await?,
            Err(e) => {
                let what = format!("Reading blob {id} failed: {e}");
                to.send(&Data::Failed(Failure::new(Class::Corrupt, what))).await?;
            }
        }
    }
    let _ = reading.await;
    Ok(())
}

fn read_piece(reader: &mut dyn Read) -> std::io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    reader.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// Sends many small things in frames of a good size.
async fn send_batches(
    to: &mut Sender,
    mut things: impl Iterator<Item = Bytes>,
    reply: impl Fn(Vec<u32>) -> Reply,
) -> Result<(), NetError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    loop {
        let thing = things.next();
        let over = |t: &Bytes| bytes + t.len() > limit::BATCH_BYTES;
        if !batch.is_empty() && thing.as_ref().is_none_or(over) {
            let lengths = batch.iter().map(|b: &Bytes| b.len() as u32).collect();
            to.send_with(&reply(lengths), &batch).await?;
            (batch, bytes) = (Vec::new(), 0);
        }
        let Some(thing) = thing else { return Ok(()) };
        bytes += thing.len();
        batch.push(thing);
    }
}

/// How many small blobs are read from the store at a time.
const READ_AT_ONCE: usize = 256;

async fn send_blobs(
    store: Arc<dyn Store>,
    to: &mut Sender,
    ids: Vec<BlobId>,
) -> Result<(), NetError> {
    for some in ids.chunks(READ_AT_ONCE) {
        let (store, some) = (store.clone(), some.to_vec());
        match blocking(move || store.read_many(&some)).await {
            Ok(blobs) => send_batches(to, blobs.into_iter(), Reply::Blobs).await?,
            Err(e) => return to.send(&Reply::Failed(failure(&e))).await,
        }
    }
    Ok(())
}

async fn send_nodes(
    store: Arc<dyn Store>,
    to: &mut Sender,
    ids: Vec<TreeId>,
) -> Result<(), NetError> {
    for some in ids.chunks(READ_AT_ONCE) {
        let (store, some) = (store.clone(), some.to_vec());
        let read =
            move || some.iter().map(|id| store.node_bytes(id)).collect::<Result<Vec<_>, _>>();
        match blocking(read).await {
            Ok(nodes) => send_batches(to, nodes.into_iter(), Reply::Nodes).await?,
            Err(e) => return to.send(&Reply::Failed(failure(&e))).await,
        }
    }
    Ok(())
}
