//! A store somewhere else, as whoever needs its blobs sees it.

use super::{Dial, NetError, Stream};
use crate::meter::{self, Kind};
use bytes::Bytes;
use proto::error::Failure;
use proto::id::{BlobId, ContentKey, DefKey, Scope, TreeId};
use proto::limit;
use proto::record::{Alias, Record};
use proto::tree::{AnyNode, node_id};
use proto::wire::blob::{Data, PutRecord, Reply, Request};
use proto::wire::{Binary, Service};
use std::sync::{Arc, Mutex};

/// Blobs and trees of a store somewhere else. Clones share their streams.
#[derive(Clone)]
pub struct Blobs {
    dial: Arc<dyn Dial>,
    binary: Binary,
    /// Streams that nobody uses at the moment.
    idle: Arc<Mutex<Vec<Stream>>>,
}

/// How many idle streams are kept.
const IDLE_MAX: usize = 8;

impl Blobs {
    /// The store that `dial` reaches.
    pub fn new(dial: Arc<dyn Dial>, binary: Binary) -> Self {
        Self { dial, binary, idle: Arc::default() }
    }

    pub(super) async fn stream(&self) -> Result<Stream, NetError> {
        match self.idle_stream() {
            Some(stream) => Ok(stream),
            None => self.new_stream().await,
        }
    }

    fn idle_stream(&self) -> Option<Stream> {
        self.idle.lock().unwrap_or_else(|p| p.into_inner()).pop()
    }

    pub(super) async fn new_stream(&self) -> Result<Stream, NetError> {
        let stream = self.dial.dial().await?;
        Ok(stream.open(self.binary.clone(), Service::Blobs).await?.stream)
    }

    /// Gives a stream back for later use. One on which something broke is not given back.
    pub(super) fn keep(&self, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(|p| p.into_inner());
        if idle.len() < IDLE_MAX {
            idle.push(stream);
        }
    }

    /// One stream broke: those that nobody uses are mostly broken too, as after a restart of the
    /// other end.
    pub(super) fn drop_idle_if_broken(&self, error: &NetError) {
        if matches!(error, NetError::Broken(_) | NetError::Closed) {
            self.idle.lock().unwrap_or_else(|p| p.into_inner()).clear();
        }
    }

    pub(super) async fn ask(
        &self,
        request: &Request,
        payload: &[Bytes],
    ) -> Result<Reply, NetError> {
        if let Some(stream) = self.idle_stream() {
            match self.ask_on(stream, request, payload).await {
                // The other end has begun anew since the stream was used last: that is no failure
                // of what is asked now. It can be asked twice.
                Err(error @ (NetError::Broken(_) | NetError::Closed)) => {
                    self.drop_idle_if_broken(&error);
                }
                other => return other,
            }
        }
        self.ask_on(self.new_stream().await?, request, payload).await
    }

    async fn ask_on(
        &self,
        mut stream: Stream,
        request: &Request,
        payload: &[Bytes],
    ) -> Result<Reply, NetError> {
        stream.to.send_with(request, payload).await?;
        let (reply, _) = stream.from.expect::<Reply>().await?;
        self.keep(stream);
        match reply {
            Reply::Failed(failure) => Err(NetError::Refused(failure)),
            reply => Ok(reply),
        }
    }

    pub(super) async fn order(&self, request: &Request, payload: &[Bytes]) -> Result<(), NetError> {
        match self.ask(request, payload).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Which of these are not there, exactly.
    pub async fn missing(
        &self,
        blobs: Vec<BlobId>,
        trees: Vec<TreeId>,
    ) -> Result<(Vec<BlobId>, Vec<TreeId>), NetError> {
        match self.ask(&Request::FindMissing { blobs, trees }, &[]).await? {
            Reply::Missing { blobs, trees } => Ok((blobs, trees)),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts small blobs: at most `limit::BATCH_BYTES` or so at a time.
    pub async fn put_blobs(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), NetError> {
        let names = blobs.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect();
        let payload: Vec<Bytes> = blobs.iter().map(|(_, bytes)| bytes.clone()).collect();
        self.send_all(&Request::PutBlobs(names), &payload).await
    }

    /// Puts tree nodes, children first.
    pub async fn put_nodes(&self, nodes: Vec<Vec<u8>>) -> Result<(), NetError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for node in nodes {
            if !batch.is_empty() && bytes + node.len() > limit::BATCH_BYTES {
                self.put_node_batch(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += node.len();
            batch.push(Bytes::from(node));
        }
        if batch.is_empty() { Ok(()) } else { self.put_node_batch(batch).await }
    }

    async fn put_node_batch(&self, batch: Vec<Bytes>) -> Result<(), NetError> {
        let lengths = batch.iter().map(|n| n.len() as u32).collect();
        self.send_all(&Request::PutNodes(lengths), &batch).await
    }

    async fn send_all(&self, request: &Request, payload: &[Bytes]) -> Result<(), NetError> {
        self.order(request, payload).await?;
        meter::add(Kind::Sent, payload.iter().map(|part| part.len() as u64).sum());
        Ok(())
    }

    /// Puts a large blob, whose bytes `next` gives piece by piece.
    pub async fn put_large<F>(
        &self,
        id: BlobId,
        size: u64,
        mut next: impl FnMut() -> F + Send,
    ) -> Result<(), NetError>
    where
        F: Future<Output = std::io::Result<Option<Bytes>>> + Send,
    {
        let mut stream = self.stream().await?;
        stream.to.send(&Request::PutLarge(id, size)).await?;
        let mut failed = None;
        loop {
            match next().await {
                Ok(Some(bytes)) => {
                    meter::add(Kind::Sent, bytes.len() as u64);
                    stream.to.send_with(&Data::More, &[bytes]).await?;
                }
                Ok(None) => break stream.to.send(&Data::Last).await?,
                Err(e) => {
                    let failure = Failure::new(proto::error::Class::User, e.to_string());
                    stream.to.send(&Data::Failed(failure)).await?;
                    failed = Some(e);
                    break;
                }
            }
        }
        let (reply, _) = stream.from.expect::<Reply>().await?;
        self.keep(stream);
        match (reply, failed) {
            (_, Some(e)) => Err(NetError::Broken(e)),
            (Reply::Done, None) => Ok(()),
            (Reply::Failed(failure), None) => Err(NetError::Refused(failure)),
            (other, None) => Err(unexpected(&other)),
        }
    }

    /// Makes durable all that was put.
    pub async fn barrier(&self) -> Result<(), NetError> {
        self.order(&Request::Barrier, &[]).await
    }

    /// The records under these keys.
    pub async fn records(
        &self,
        scope: &Scope,
        keys: Vec<ContentKey>,
    ) -> Result<Vec<Option<Record>>, NetError> {
        let count = keys.len();
        match self.ask(&Request::Records(scope.clone(), keys), &[]).await? {
            Reply::Records(records) if records.len() == count => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    /// What these definitions led to.
    pub async fn aliases(
        &self,
        scope: &Scope,
        keys: Vec<DefKey>,
    ) -> Result<Vec<Option<Alias>>, NetError> {
        let count = keys.len();
        match self.ask(&Request::Aliases(scope.clone(), keys), &[]).await? {
            Reply::Aliases(aliases) if aliases.len() == count => Ok(aliases),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps a record.
    pub async fn put_record(&self, record: PutRecord) -> Result<(), NetError> {
        self.order(&Request::PutRecord(Box::new(record)), &[]).await
    }

    /// Keeps what is known of a build.
    pub async fn put_build(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), NetError> {
        self.order(&Request::PutBuild(key, value), &[]).await
    }

    /// What is known of the last builds, the newest first.
    pub async fn builds(&self, count: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>, NetError> {
        match self.ask(&Request::Builds(count), &[]).await? {
            Reply::Builds(builds) => Ok(builds),
            other => Err(unexpected(&other)),
        }
    }

    /// Small blobs' bytes, in the order asked for, verified.
    pub async fn get_blobs(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, NetError> {
        let parts = self.get_many(&Request::GetBlobs(ids.to_vec()), ids.len()).await?;
        for (id, bytes) in ids.iter().zip(&parts) {
            if BlobId::of(bytes) != *id {
                return Err(NetError::Unexpected(format!("blob {id} came with other bytes")));
            }
        }
        Ok(parts)
    }

    /// Tree nodes, in the order asked for, verified.
    pub async fn get_nodes(&self, ids: &[TreeId]) -> Result<Vec<Arc<AnyNode>>, NetError> {
        let parts = self.get_many(&Request::GetNodes(ids.to_vec()), ids.len()).await?;
        let wrong = |id: &TreeId| NetError::Unexpected(format!("tree {id} came with other bytes"));
        let read = |(id, bytes): (&TreeId, &Bytes)| {
            if node_id(bytes) != *id {
                return Err(wrong(id));
            }
            AnyNode::decode(bytes).map(Arc::new).map_err(|_| wrong(id))
        };
        ids.iter().zip(&parts).map(read).collect()
    }

    /// Tree nodes' encodings, in the order asked for, verified.
    pub async fn get_encoded(&self, ids: &[TreeId]) -> Result<Vec<Bytes>, NetError> {
        let parts = self.get_many(&Request::GetNodes(ids.to_vec()), ids.len()).await?;
        for (id, bytes) in ids.iter().zip(&parts) {
            if node_id(bytes) != *id {
                return Err(NetError::Unexpected(format!("tree {id} came with other bytes")));
            }
        }
        Ok(parts)
    }

    async fn get_many(&self, request: &Request, count: usize) -> Result<Vec<Bytes>, NetError> {
        let mut stream = self.stream().await?;
        stream.to.send(request).await?;
        let mut parts = Vec::with_capacity(count);
        while parts.len() < count {
            let (reply, mut payload) = stream.from.expect::<Reply>().await?;
            let lengths = match reply {
                Reply::Blobs(lengths) | Reply::Nodes(lengths) => lengths,
                Reply::Failed(failure) => {
                    self.keep(stream);
                    return Err(NetError::Refused(failure));
                }
                other => return Err(unexpected(&other)),
            };
            meter::add(Kind::Fetched, payload.len() as u64);
            for length in lengths {
                if payload.len() < length as usize {
                    return Err(NetError::Unexpected("a batch is shorter than its parts".into()));
                }
                parts.push(payload.split_to(length as usize));
            }
        }
        self.keep(stream);
        Ok(parts)
    }

    /// A large blob's bytes, given to `take` piece by piece. The caller verifies the whole.
    pub async fn get_large<F>(
        &self,
        id: BlobId,
        offset: u64,
        mut take: impl FnMut(Bytes) -> F + Send,
    ) -> Result<u64, NetError>
    where
        F: Future<Output = std::io::Result<()>> + Send,
    {
        let mut stream = self.stream().await?;
        stream.to.send(&Request::GetLarge(id, offset)).await?;
        let size = match stream.from.expect::<Reply>().await?.0 {
            Reply::Large(size) => size,
            Reply::Failed(failure) => {
                self.keep(stream);
                return Err(NetError::Refused(failure));
            }
            other => return Err(unexpected(&other)),
        };
        loop {
            let (data, payload) = stream.from.expect::<Data>().await?;
            meter::add(Kind::Fetched, payload.len() as u64);
            match data {
                Data::More => take(payload).await.map_err(NetError::Taker)?,
                Data::Last => {
                    if !payload.is_empty() {
                        take(payload).await.map_err(NetError::Taker)?;
                    }
                    break;
                }
                Data::Failed(failure) => {
                    self.keep(stream);
                    return Err(NetError::Refused(failure));
                }
            }
        }
        self.keep(stream);
        Ok(size)
    }
}

pub(super) fn unexpected(reply: &Reply) -> NetError {
    let text = format!("{reply:?}");
    NetError::Unexpected(text.chars().take(80).collect())
}
