//! Many cache nodes as one store.

mod look;
mod results;

use super::placement::{At, Placement};
use crate::chunk::{ChunkSource, Moved};
use crate::net::blobs::Blobs;
use crate::net::chunks::PutError;
use crate::net::rows::RemotePin;
use crate::net::{Dial, NetError};
use bytes::Bytes;
use futures::future::{join, join_all};
use proto::error::{Class, Failure};
use proto::id::{BlobId, CacheId, TreeId};
use proto::tree::AnyNode;
use proto::wire::Binary;
use proto::wire::cluster::{CacheNode, CacheState, Map};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// How long a node that failed is passed over, where others can do what is asked.
const SUSPECT: Duration = Duration::from_secs(3);

/// Pieces of a large blob on their way to one node.
const PIECES: usize = 4;

/// How one reaches a cache node.
pub type Connect = dyn Fn(&CacheNode) -> Arc<dyn Dial> + Send + Sync;

/// The cache nodes of a farm, as one store.
pub struct Cluster {
    connect: Box<Connect>,
    binary: Binary,
    map: watch::Receiver<Arc<Map>>,
    known: Mutex<Known>,
    turn: AtomicUsize,
    stale: Mutex<BTreeSet<CacheId>>,
    stale_told: Notify,
}

/// Keeps what the farm's store says or takes, as long as it lives.
#[must_use = "what was used is kept only as long as the pin lives"]
pub struct ClusterPin {
    _pins: Vec<RemotePin>,
}

/// What is made of a map.
struct Known {
    epoch: u64,
    view: Arc<View>,
    suspects: HashMap<CacheId, Instant>,
}

/// A map with its placement, and a client for each node.
struct View {
    map: Arc<Map>,
    placement: Placement,
    clients: Vec<Blobs>,
}

impl View {
    /// The one node of a farm that has one only.
    fn only(&self) -> Option<&Blobs> {
        match self.clients.as_slice() {
            [one] if self.map.nodes[0].state.reads() => Some(one),
            _ => None,
        }
    }

    fn id(&self, at: At) -> &CacheId {
        &self.map.nodes[at].id
    }

    /// Those of whom one is asked first whether they have a blob.
    fn first_readers(&self, blob: &BlobId, suspects: &HashSet<At>) -> Vec<At> {
        let mut readers = self.placement.readers(blob);
        readers.retain(|at| self.map.nodes[*at].state.reads() && !suspects.contains(at));
        readers.truncate(self.placement.replicas());
        readers
    }

    fn serves(&self, at: At) -> bool {
        self.map.nodes[at].state == CacheState::Serving
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody is there who could do it.
fn nobody(what: &str) -> NetError {
    let message = format!("No cache node of the farm can {what}");
    NetError::Refused(Failure::new(Class::Unavailable, message).hint(
        "Look which there are by `slipway node ls`, and into their logs if some should be there.",
    ))
}

impl Cluster {
    /// The nodes that the latest map says, each reached by `connect`.
    pub fn new(connect: Box<Connect>, binary: Binary, map: watch::Receiver<Arc<Map>>) -> Self {
        let first = map.borrow().clone();
        let view = make_view(&*connect, &binary, first.clone(), None);
        let known = Known { epoch: first.epoch, view, suspects: HashMap::new() };
        Self {
            connect,
            binary,
            map,
            known: Mutex::new(known),
            turn: AtomicUsize::new(0),
            stale: Mutex::default(),
            stale_told: Notify::new(),
        }
    }

    /// One store, at the other end of what `dial` reaches.
    pub fn of_one(dial: Arc<dyn Dial>, binary: Binary) -> Arc<Self> {
        let id = CacheId::parse("store").expect("a name");
        let node = CacheNode { id, address: String::new(), state: CacheState::Serving };
        let map = Map { epoch: 1, replicas: 1, nodes: vec![node] };
        // Without a sender the map stays as it is.
        let (_, map) = watch::channel(Arc::new(map));
        Arc::new(Self::new(Box::new(move |_| dial.clone()), binary, map))
    }

    /// The maps as they come.
    pub fn maps(&self) -> watch::Receiver<Arc<Map>> {
        self.map.clone()
    }

    /// A node that the latest map has.
    pub fn node(&self, id: &CacheId) -> Option<Blobs> {
        let view = self.view();
        let at = view.map.nodes.iter().position(|node| node.id == *id)?;
        Some(view.clients[at].clone())
    }

    /// Those other than `but` who have the blob, or may have it.
    pub fn others(&self, id: &BlobId, but: &CacheId) -> Vec<Blobs> {
        let view = self.view();
        let readers = self.trusted_first(&view, view.placement.readers(id));
        let others = readers.into_iter().filter(|at| view.id(*at) != but);
        others.map(|at| view.clients[at].clone()).collect()
    }

    /// The latest map.
    pub fn map(&self) -> Arc<Map> {
        self.map.borrow().clone()
    }

    fn view(&self) -> Arc<View> {
        let map = self.map.borrow().clone();
        let mut known = locked(&self.known);
        if known.epoch != map.epoch {
            known.view = make_view(&*self.connect, &self.binary, map.clone(), Some(&known.view));
            known.epoch = map.epoch;
        }
        known.view.clone()
    }

    /// A node failed: others are asked first for a while.
    fn suspect(&self, view: &View, at: At, error: &NetError) {
        // Whoever answers, whatever it says, is there.
        if matches!(error, NetError::Refused(_) | NetError::Taker(_)) {
            return;
        }
        let id = view.id(at);
        tracing::debug!(node = %id, %error, "a cache node failed");
        locked(&self.known).suspects.insert(id.clone(), Instant::now() + SUSPECT);
    }

    /// Those that did not fail lately first, in their order otherwise.
    fn trusted_first(&self, view: &View, mut nodes: Vec<At>) -> Vec<At> {
        let mut known = locked(&self.known);
        if known.suspects.is_empty() {
            return nodes;
        }
        let now = Instant::now();
        known.suspects.retain(|_, until| *until > now);
        nodes.sort_by_key(|at| known.suspects.contains_key(view.id(*at)));
        nodes
    }

    /// Those that did not fail lately, if one of them serves; and the others. Who failed lately is not
    /// waited for where others do.
    fn without_suspects(&self, view: &View, nodes: Vec<At>) -> (Vec<At>, Vec<At>) {
        let mut known = locked(&self.known);
        let now = Instant::now();
        known.suspects.retain(|_, until| *until > now);
        let fine = |at: &At| !known.suspects.contains_key(view.id(*at));
        if !nodes.iter().any(|at| fine(at) && view.serves(*at)) {
            return (nodes, Vec::new());
        }
        nodes.into_iter().partition(fine)
    }

    /// Nodes that know all trees, another one first each time.
    fn readers(&self, view: &View) -> Vec<At> {
        self.taking_turns(view, CacheState::reads)
    }

    /// Nodes that know all rows: one that leaves hears of no changes.
    fn row_readers(&self, view: &View) -> Vec<At> {
        self.taking_turns(view, |state| state == CacheState::Serving)
    }

    fn taking_turns(&self, view: &View, wanted: impl Fn(CacheState) -> bool) -> Vec<At> {
        let mut nodes = view.placement.all(wanted);
        if !nodes.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
            nodes.rotate_left(turn);
        }
        self.trusted_first(view, nodes)
    }

    /// The same on all these nodes, at the same time.
    async fn on_all<T, F, R>(
        &self,
        view: &View,
        nodes: &[At],
        ask: F,
    ) -> Vec<(At, Result<T, NetError>)>
    where
        F: Fn(At, Blobs) -> R,
        R: Future<Output = Result<T, NetError>>,
    {
        let asked = nodes.iter().map(|at| {
            let answer = ask(*at, view.clients[*at].clone());
            async move { (*at, answer.await) }
        });
        let answers = join_all(asked).await;
        for (at, answer) in &answers {
            if let Err(error) = answer {
                self.suspect(view, *at, error);
            }
        }
        answers
    }

    /// The first answer of these nodes, one after the other.
    async fn on_one<T, F, R>(
        &self,
        view: &View,
        nodes: Vec<At>,
        what: &str,
        ask: F,
    ) -> Result<T, NetError>
    where
        F: Fn(Blobs) -> R,
        R: Future<Output = Result<T, NetError>>,
    {
        let mut failed = nobody(what);
        for at in nodes {
            match ask(view.clients[at].clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.suspect(view, at, &error);
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// Done on all nodes that take writes; counts when one that serves did it. Those that did not
    /// are [`Cluster::stale`].
    async fn write<F, R>(&self, what: &str, ask: F) -> Result<(), NetError>
    where
        F: Fn(At, Blobs) -> R,
        R: Future<Output = Result<(), NetError>>,
    {
        let view = self.view();
        let nodes = view.placement.all(CacheState::writes);
        let (nodes, suspects) = self.without_suspects(&view, nodes);
        let mut missed: Vec<CacheId> = suspects.iter().map(|at| view.id(*at).clone()).collect();
        let (mut done, mut failed) = (false, nobody(what));
        for (at, answer) in self.on_all(&view, &nodes, ask).await {
            match answer {
                Ok(()) => done |= view.serves(at),
                Err(error) => {
                    missed.push(view.id(at).clone());
                    failed = error;
                }
            }
        }
        if !done {
            return Err(failed);
        }
        if !missed.is_empty() {
            locked(&self.stale).extend(missed);
            self.stale_told.notify_one();
        }
        Ok(())
    }

    /// See [`Blobs::missing`]. A tree is missing when a node that serves lacks it; a blob, when
    /// nobody has it.
    pub async fn missing(
        &self,
        blobs: Vec<BlobId>,
        trees: Vec<TreeId>,
    ) -> Result<(Vec<BlobId>, Vec<TreeId>), NetError> {
        let view = self.view();
        if let Some(one) = view.only() {
            return one.missing(blobs, trees).await;
        }
        let (readers, _) = self.without_suspects(&view, self.readers(&view));
        let suspects = self.suspects(&view);
        let mut asked: BTreeMap<At, Vec<BlobId>> = BTreeMap::new();
        let mut holders: HashMap<BlobId, bool> = HashMap::with_capacity(blobs.len());
        for blob in &blobs {
            holders.insert(*blob, false);
            for at in view.first_readers(blob, &suspects) {
                asked.entry(at).or_default().push(*blob);
            }
        }
        let ask = |at: At, client: Blobs| {
            let (blobs, trees) = (asked.get(&at).cloned().unwrap_or_default(), trees.clone());
            async move { Ok((client.missing(blobs.clone(), trees).await?, blobs)) }
        };
        let (mut answered, mut failed) = (false, nobody("say what it has"));
        let mut lacking: BTreeSet<TreeId> = BTreeSet::new();
        for (_, answer) in self.on_all(&view, &readers, ask).await {
            match answer {
                Ok(((gone, trees), asked)) => {
                    answered = true;
                    lacking.extend(trees);
                    let gone: BTreeSet<BlobId> = gone.into_iter().collect();
                    for blob in asked.iter().filter(|blob| !gone.contains(blob)) {
                        holders.insert(*blob, true);
                    }
                }
                Err(error) => failed = error,
            }
        }
        if !answered {
            return Err(failed);
        }
        let away = blobs.iter().filter(|blob| !holders[blob]).copied().collect::<Vec<_>>();
        let found = self.look_further(&view, &away, None, &suspects).await;
        for (blob, size) in away.iter().zip(found.sizes) {
            holders.insert(*blob, size.is_some());
        }
        let blobs = blobs.into_iter().filter(|blob| !holders[blob]).collect();
        Ok((blobs, trees.into_iter().filter(|tree| lacking.contains(tree)).collect()))
    }

    /// See [`Blobs::put_blobs`]: as many copies as there are to be, where so many nodes can take
    /// one. Answers how many bytes went.
    pub async fn put_blobs(&self, blobs: &[(BlobId, Bytes)]) -> Result<u64, NetError> {
        let view = self.view();
        if let Some(one) = view.only() {
            one.put_blobs(blobs).await?;
            return Ok(blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum());
        }
        let replicas = view.placement.replicas();
        let mut copies = vec![0; blobs.len()];
        let mut failed = nobody("take blobs");
        let orders: Vec<Vec<At>> = blobs
            .iter()
            .map(|(id, _)| self.trusted_first(&view, view.placement.writers(id)))
            .collect();
        let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
        // First the owners; then, for what they could not take, those that stand in for them.
        let mut from = 0;
        while from < longest {
            let to = if from == 0 { replicas } else { from + 1 };
            let mut asked: BTreeMap<At, Vec<usize>> = BTreeMap::new();
            for (place, order) in orders.iter().enumerate() {
                let lacks = copies[place] < replicas;
                for at in order.iter().take(to).skip(from).filter(|_| lacks) {
                    asked.entry(*at).or_default().push(place);
                }
            }
            let nodes: Vec<At> = asked.keys().copied().collect();
            let ask = |at: At, client: Blobs| {
                let some: Vec<_> = asked[&at].iter().map(|place| blobs[*place].clone()).collect();
                async move { client.put_blobs(&some).await }
            };
            for (at, answer) in self.on_all(&view, &nodes, ask).await {
                match answer {
                    Ok(()) => asked[&at].iter().for_each(|place| copies[*place] += 1),
                    Err(error) => failed = error,
                }
            }
            from = to;
        }
        if copies.contains(&0) {
            return Err(failed);
        }
        let sent = blobs.iter().zip(copies).map(|((_, bytes), n)| (bytes.len() * n) as u64);
        Ok(sent.sum())
    }

    /// See [`Blobs::put_nodes`].
    pub async fn put_nodes(&self, nodes: Vec<Vec<u8>>) -> Result<(), NetError> {
        let nodes = Arc::new(nodes);
        let put = |_, client: Blobs| {
            let nodes = nodes.clone();
            async move { client.put_nodes(nodes.to_vec()).await }
        };
        self.write("take trees", put).await
    }

    /// See [`Blobs::put_large`]. The bytes go to all owners at the same time.
    pub async fn put_large<F>(
        &self,
        id: BlobId,
        size: u64,
        mut next: impl FnMut() -> F + Send,
    ) -> Result<(), NetError>
    where
        F: Future<Output = std::io::Result<Option<Bytes>>> + Send,
    {
        let view = self.view();
        if let Some(one) = view.only() {
            return one.put_large(id, size, next).await;
        }
        let owners = self.trusted_first(&view, view.placement.writers(&id));
        let owners: Vec<At> = owners.into_iter().take(view.placement.replicas()).collect();
        let (mut senders, mut puts) = (Vec::new(), Vec::new());
        for at in &owners {
            let (sender, receiver) = mpsc::channel::<Bytes>(PIECES);
            senders.push(sender);
            let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
            let client = view.clients[*at].clone();
            puts.push(async move {
                let next = || {
                    let receiver = receiver.clone();
                    async move { Ok(receiver.lock().await.recv().await) }
                };
                (*at, client.put_large(id, size, next).await)
            });
        }
        let give = async move {
            loop {
                match next().await {
                    Ok(Some(piece)) => {
                        for sender in &senders {
                            // One that failed takes no more; the others go on.
                            let _ = sender.send(piece.clone()).await;
                        }
                        if senders.iter().all(mpsc::Sender::is_closed) {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(NetError::Broken(error)),
                }
            }
        };
        let (given, puts) = join(give, join_all(puts)).await;
        given?;
        let (mut done, mut failed) = (false, nobody("take blobs"));
        for (at, put) in puts {
            match put {
                Ok(()) => done = true,
                Err(error) => {
                    self.suspect(&view, at, &error);
                    failed = error;
                }
            }
        }
        if done { Ok(()) } else { Err(failed) }
    }

    /// Puts a large blob by its chunks: only those go to a node that it has in no other blob.
    pub async fn put_chunked<S>(&self, source: &Arc<S>, id: BlobId) -> Result<Moved, PutError>
    where
        S: ChunkSource + ?Sized + 'static,
    {
        let view = self.view();
        let owners = self.trusted_first(&view, view.placement.writers(&id));
        let owners = owners.into_iter().take(view.placement.replicas());
        let puts = owners.map(|at| {
            let client = view.clients[at].clone();
            async move { (at, client.put_chunked(source, id).await) }
        });
        let (mut done, mut failed) = (None, PutError::Net(nobody("take blobs")));
        for (at, put) in join_all(puts).await {
            match put {
                Ok(moved) => {
                    let sum: &mut Moved = done.get_or_insert_default();
                    sum.moved += moved.moved;
                    sum.reused += moved.reused;
                }
                Err(error) => {
                    if let PutError::Net(error) = &error {
                        self.suspect(&view, at, error);
                    }
                    failed = error;
                }
            }
        }
        done.ok_or(failed)
    }

    /// Those who have the blob, or may have it, for who fetches it from several at the same time.
    pub fn sources(&self, id: &BlobId) -> Vec<Blobs> {
        let view = self.view();
        let readers = self.trusted_first(&view, view.placement.readers(id));
        readers.into_iter().map(|at| view.clients[at].clone()).collect()
    }

    /// See [`Blobs::barrier`].
    pub async fn barrier(&self) -> Result<(), NetError> {
        let barrier = |_, client: Blobs| async move { client.barrier().await };
        self.write("make durable what was put", barrier).await
    }

    /// See [`Blobs::get_blobs`].
    pub async fn get_blobs(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, NetError> {
        let view = self.view();
        if let Some(one) = view.only() {
            return one.get_blobs(ids).await;
        }
        let orders: Vec<Vec<At>> =
            ids.iter().map(|id| self.trusted_first(&view, view.placement.readers(id))).collect();
        let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
        let mut found: Vec<Option<Bytes>> = vec![None; ids.len()];
        let mut failed = nobody("give blobs");
        for rank in 0..longest {
            let mut asked: BTreeMap<At, Vec<usize>> = BTreeMap::new();
            for (place, order) in orders.iter().enumerate().filter(|(p, _)| found[*p].is_none()) {
                if let Some(at) = order.get(rank) {
                    asked.entry(*at).or_default().push(place);
                }
            }
            if asked.is_empty() {
                break;
            }
            let nodes: Vec<At> = asked.keys().copied().collect();
            let ask = |at: At, client: Blobs| {
                let some: Vec<BlobId> = asked[&at].iter().map(|place| ids[*place]).collect();
                async move { client.get_blobs(&some).await }
            };
            for (at, answer) in self.on_all(&view, &nodes, ask).await {
                match answer {
                    Ok(bytes) => {
                        for (place, bytes) in asked[&at].iter().zip(bytes) {
                            found[*place] = Some(bytes);
                        }
                    }
                    Err(error) => failed = error,
                }
            }
        }
        match found.into_iter().collect::<Option<Vec<_>>>() {
            Some(found) => Ok(found),
            None => Err(failed),
        }
    }

    /// See [`Blobs::get_nodes`].
    pub async fn get_nodes(&self, ids: &[TreeId]) -> Result<Vec<Arc<AnyNode>>, NetError> {
        let view = self.view();
        let ask = |client: Blobs| async move { client.get_nodes(ids).await };
        self.on_one(&view, self.readers(&view), "give trees", ask).await
    }

    /// See [`Blobs::get_large`]. When a node fails in the middle, another one goes on.
    pub async fn get_large<F>(
        &self,
        id: BlobId,
        offset: u64,
        mut take: impl FnMut(Bytes) -> F + Send,
    ) -> Result<u64, NetError>
    where
        F: Future<Output = std::io::Result<()>> + Send,
    {
        let view = self.view();
        let mut failed = nobody("give blobs");
        let reached = AtomicU64::new(offset);
        for at in self.trusted_first(&view, view.placement.readers(&id)) {
            let from = reached.load(Ordering::Relaxed);
            let counted = |piece: Bytes| {
                reached.fetch_add(piece.len() as u64, Ordering::Relaxed);
                take(piece)
            };
            match view.clients[at].get_large(id, from, counted).await {
                Ok(size) => return Ok(size),
                Err(error @ NetError::Taker(_)) => return Err(error),
                Err(error) => {
                    self.suspect(&view, at, &error);
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// Waits for nodes that lack something that the others have, and so must not be asked before
    /// they have got it.
    pub async fn stale(&self) -> Vec<CacheId> {
        loop {
            let told = self.stale_told.notified();
            let stale = std::mem::take(&mut *locked(&self.stale));
            if !stale.is_empty() {
                return stale.into_iter().collect();
            }
            told.await;
        }
    }

    /// Keeps on all nodes that answer what they say or take from now on.
    pub async fn pin(&self) -> ClusterPin {
        let view = self.view();
        let nodes = view.placement.all(|state| state != CacheState::Down);
        let pins = self.on_all(&view, &nodes, |_, client| async move { client.pin().await }).await;
        ClusterPin { _pins: pins.into_iter().filter_map(|(_, pin)| pin.ok()).collect() }
    }
}

/// Clients of nodes that are where they were are kept, with their streams.
fn make_view(
    connect: &Connect,
    binary: &Binary,
    map: Arc<Map>,
    before: Option<&Arc<View>>,
) -> Arc<View> {
    let client = |node: &CacheNode| {
        let same = |old: &&View| {
            old.map.nodes.iter().position(|n| n.id == node.id && n.address == node.address)
        };
        let kept = before.map(|view| &**view);
        let kept = kept.and_then(|old| same(&old).map(|at| old.clients[at].clone()));
        kept.unwrap_or_else(|| Blobs::new(connect(node), binary.clone()))
    };
    let clients = map.nodes.iter().map(client).collect();
    Arc::new(View { placement: Placement::new(&map), clients, map })
}
