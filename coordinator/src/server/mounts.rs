//! Cache mounts: decides for the steps that use them, and writes down what it decided.
//!
//! What is decided follows from the facts alone ([`History`]). Of each mount one thing at a time is
//! decided, so that what is answered is what the fact comes to when it is applied; the end of a
//! lease, which is not waited for, only makes it come to nothing.

use super::library::{AlgebraError, no_archives};
use super::locked;
use super::{Server, now};
use crate::core::Event;
use crate::core::facts::{Fact, MountChange, MountKey};
use cache::flight::Flights;
use cache::mounts::{self, Generation, History, NoGeneration, Rules};
use cache::net::NetError;
use cache::store::{mount_of, mount_prefix, mount_row};
use cache::tree::Nodes;
use proto::error::{Class, Failure};
use proto::id::{LeaseEpoch, RootId, Scope, WorkerId};
use proto::limit::CACHE_MOUNT_ID_BYTES_MAX;
use proto::mount::{Answer, Ask, Decision, Ended, Measured, Use};
use proto::step::Sharing;
use proto::wire::blob::Table;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::{OnceCell, watch};

/// Decides one thing at a time for each mount.
pub struct Mounts {
    turns: Flights<MountKey>,
    /// Counts what may let a step that waits go on.
    changed: watch::Sender<u64>,
    /// Who waits for a locked mount, in the order in which they came.
    queues: Mutex<Queues>,
    /// Whether the generations of an earlier life are known, where nothing else keeps them.
    known: OnceCell<()>,
}

#[derive(Default)]
struct Queues {
    last: u64,
    waiting: HashMap<MountKey, VecDeque<u64>>,
}

impl Mounts {
    /// Nothing is decided yet.
    pub fn new() -> Self {
        Self {
            turns: Flights::default(),
            changed: watch::Sender::new(0),
            queues: Mutex::default(),
            known: OnceCell::new(),
        }
    }

    /// Something has changed: who waits looks again.
    pub fn changed(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        locked(&self.queues)
    }
}

/// A place in the queue for a locked mount.
struct Ticket<'m> {
    mounts: &'m Mounts,
    key: MountKey,
    number: u64,
}

impl<'m> Ticket<'m> {
    fn draw(mounts: &'m Mounts, key: &MountKey) -> Self {
        let mut queues = mounts.queues();
        queues.last += 1;
        let number = queues.last;
        queues.waiting.entry(key.clone()).or_default().push_back(number);
        Self { mounts, key: key.clone(), number }
    }

    fn is_first(&self) -> bool {
        let queues = self.mounts.queues();
        queues.waiting.get(&self.key).and_then(VecDeque::front) == Some(&self.number)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut queues = self.mounts.queues();
        if let Some(waiting) = queues.waiting.get_mut(&self.key) {
            waiting.retain(|number| *number != self.number);
            if waiting.is_empty() {
                queues.waiting.remove(&self.key);
            }
        }
        drop(queues);
        self.mounts.changed();
    }
}

/// Answers what a worker asks for a step. Waits while the mount is locked by another one.
pub async fn answer(
    server: &Server,
    who: &WorkerId,
    lease: LeaseEpoch,
    id: String,
    ask: Ask,
) -> Answer {
    let refused = |failure: Failure| {
        tracing::warn!(%lease, "a cache mount cannot be used: {}", failure.message);
        Answer::Refused(failure.message)
    };
    if id.len() > CACHE_MOUNT_ID_BYTES_MAX {
        let message = format!("Its id is longer than {CACHE_MOUNT_ID_BYTES_MAX} bytes");
        return refused(Failure::new(Class::User, message));
    }
    let known = server.mounts.known.get_or_try_init(|| remember(server)).await;
    if let Err(e) = known {
        return refused(Failure::new(e.class(), e.to_string()));
    }
    let scope = server.ledger.read(|facts| {
        let leased = facts.leases.get(&lease).filter(|leased| leased.worker == *who);
        leased.map(|leased| leased.scope.clone())
    });
    let Some(scope) = scope else { return Answer::Refused(over(lease)) };
    let key = MountKey { scope, id };
    let answered = match ask {
        Ask::Begin(how) => begin(server, who, lease, &key, how).await,
        Ask::Commit { base, mine } => {
            let ended = Ended { base, mine, writer: who.clone(), at: now() };
            decide(server, &key, MountChange::Commit(lease, ended)).await
        }
        Ask::Merged { onto, union } => {
            decide(server, &key, MountChange::Merged(lease, onto, union)).await
        }
        Ask::Release => {
            let _turn = server.mounts.turns.enter(key.clone()).await;
            let released = change(server, &key, MountChange::Release(lease)).await;
            released.map(|_| Answer::Released)
        }
    };
    answered.unwrap_or_else(refused)
}

fn over(lease: LeaseEpoch) -> String {
    format!("Lease {lease} is over")
}

async fn begin(
    server: &Server,
    who: &WorkerId,
    lease: LeaseEpoch,
    key: &MountKey,
    how: Use,
) -> Result<Answer, Failure> {
    let mut changed = server.mounts.changed.subscribe();
    let mut ticket: Option<Ticket<'_>> = None;
    loop {
        changed.borrow_and_update();
        let turn = server.mounts.turns.enter(key.clone()).await;
        let (is_live, mount) = server
            .ledger
            .read(|facts| (facts.leases.contains_key(&lease), facts.mounts.get(key).cloned()));
        if !is_live {
            return Ok(Answer::Refused(over(lease)));
        }
        let mut mount = mount.unwrap_or_default();
        if mount.head().is_none() {
            inherit(server, who, key, &mut mount).await?;
        }
        let is_turn = match (how.sharing, &ticket) {
            (Sharing::Locked, None) => {
                ticket = Some(Ticket::draw(&server.mounts, key));
                ticket.as_ref().is_some_and(Ticket::is_first)
            }
            (Sharing::Locked, Some(ticket)) => ticket.is_first(),
            (Sharing::Shared | Sharing::Private, _) => true,
        };
        // Who has begun already is answered again, wherever it stands in the queue.
        let is_again = mount.users().any(|user| user == lease);
        if (is_turn || is_again)
            && let Ok(generation) = mount.begin(lease, how)
        {
            let begun = generation.map(|generation| (generation.number, generation.tree));
            note(server, key, MountChange::Begin(lease, how)).await?;
            drop(turn);
            if let Some((number, _)) = begun {
                use_row(server, key, number).await;
            }
            return Ok(Answer::Begun(begun));
        }
        drop(turn);
        if changed.changed().await.is_err() {
            return Ok(Answer::Refused("The coordinator ends".to_owned()));
        }
    }
}

/// A scope that has nothing of a mount yet begins with what the trusted one has.
async fn inherit(
    server: &Server,
    who: &WorkerId,
    key: &MountKey,
    mount: &mut History,
) -> Result<(), Failure> {
    let base = MountKey { scope: key.scope.base(), id: key.id.clone() };
    if base.scope == key.scope {
        return Ok(());
    }
    let head = server.ledger.read(|facts| facts.mounts.get(&base).and_then(|m| m.head().cloned()));
    let Some(Generation { tree, bytes, files, .. }) = head else { return Ok(()) };
    let import = MountChange::Import(Measured { tree, bytes, files }, who.clone(), now());
    *mount = change(server, key, import).await?.0;
    Ok(())
}

async fn decide(server: &Server, key: &MountKey, what: MountChange) -> Result<Answer, Failure> {
    let _turn = server.mounts.turns.enter(key.clone()).await;
    let (_, decision) = change(server, key, what).await?;
    Ok(Answer::Decided(decision.unwrap_or(Decision::Stale)))
}

/// Changes a mount; answers what it is then, and what was decided. For who has the mount's turn.
async fn change(
    server: &Server,
    key: &MountKey,
    what: MountChange,
) -> Result<(History, Option<Decision>), Failure> {
    let before = server.ledger.read(|facts| facts.mounts.get(key).cloned()).unwrap_or_default();
    let mut after = before.clone();
    let decision = what.clone().apply(&mut after);
    if after != before {
        // What a generation consists of is kept before anybody is told of it.
        keep_rows(server, key, &before, &after).await;
        note(server, key, what).await?;
        tell_size(server, key, &after).await;
    }
    Ok((after, decision))
}

/// Tells the core what a step moves that uses the mount elsewhere.
async fn tell_size(server: &Server, key: &MountKey, mount: &History) {
    let bytes = mount.head().map_or(0, |head| head.bytes);
    let MountKey { scope, id } = key.clone();
    server.tell(Event::Mount { scope, id, bytes }).await;
}

async fn note(server: &Server, key: &MountKey, change: MountChange) -> Result<(), Failure> {
    server.ledger.note(&[Fact::Mount { mount: key.clone(), change }]).await?;
    server.mounts.changed();
    Ok(())
}

/// Lets the store keep the generations that there are now, and no others. Without its row a
/// generation may be collected, and then the mount is empty: that costs time only.
async fn keep_rows(server: &Server, key: &MountKey, before: &History, after: &History) {
    let store = &server.library.blobs;
    let failed = |e: NetError| tracing::warn!(id = key.id, "a cache mount is not kept: {e}");
    for new in after.generations().iter().filter(|g| before.get(g.number).is_none()) {
        let (row, value) = mount_row(&key.scope, &key.id, new);
        store.put_row(Table::CacheMount, &row, &value).await.unwrap_or_else(failed);
    }
    for old in before.generations().iter().filter(|g| after.get(g.number).is_none()) {
        let (row, _) = mount_row(&key.scope, &key.id, old);
        store.delete_row(Table::CacheMount, &row).await.unwrap_or_else(failed);
    }
}

/// The generation counts as used now.
async fn use_row(server: &Server, key: &MountKey, number: u64) {
    let mut row = mount_prefix(&key.scope, &key.id);
    row.extend_from_slice(&number.to_be_bytes());
    if let Err(e) = server.library.blobs.row(Table::CacheMount, &row).await {
        tracing::debug!(id = key.id, "a cache mount's last use is not known: {e}");
    }
}

/// Takes note of the generations that an earlier life has left in the store, where the log does not
/// outlive the process.
async fn remember(server: &Server) -> Result<(), NetError> {
    if server.keeps_facts {
        return Ok(());
    }
    let rows = server.library.blobs.rows(Table::CacheMount, &[]).await?;
    let known = rows.iter().filter_map(|(row, value)| {
        let (scope, id, generation) = mount_of(row, value)?;
        let change = MountChange::Known(generation);
        Some(Fact::Mount { mount: MountKey { scope, id }, change })
    });
    let facts: Vec<Fact> = known.collect();
    server.ledger.note(&facts).await.map_err(NetError::Refused)
}

/// A cache mount, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// Whose it is.
    pub scope: Scope,
    /// Its id.
    pub id: String,
    /// Its generations, the head last.
    pub generations: Vec<Generation>,
    /// The leases of the steps that use it.
    pub users: Vec<LeaseEpoch>,
}

impl super::Coordinator {
    /// The cache mounts, by scope and id.
    pub async fn mounts(&self) -> Result<Vec<MountRow>, NetError> {
        let server = &self.0;
        server.mounts.known.get_or_try_init(|| remember(server)).await?;
        Ok(server.ledger.read(|facts| {
            let row = |(key, mount): (&MountKey, &History)| MountRow {
                scope: key.scope.clone(),
                id: key.id.clone(),
                generations: mount.generations().to_vec(),
                users: mount.users().collect(),
            };
            facts.mounts.iter().map(row).collect()
        }))
    }

    /// Makes an earlier generation of a cache mount the newest again; answers its new number.
    pub async fn roll_back_mount(&self, scope: &Scope, id: &str, to: u64) -> Result<u64, Failure> {
        let key = MountKey { scope: scope.clone(), id: id.to_owned() };
        let _turn = self.0.mounts.turns.enter(key.clone()).await;
        let there = self.0.ledger.read(|facts| facts.mounts.get(&key).map(|m| m.get(to).is_some()));
        match there {
            None => return Err(no_mount(&key)),
            Some(false) => {
                let message = NoGeneration(to).to_string();
                return Err(Failure::new(Class::User, message)
                    .hint(format!("See `slipway cache mounts history {id}`.")));
            }
            Some(true) => {}
        }
        let (after, _) = change(&self.0, &key, MountChange::Rollback(to, now())).await?;
        Ok(after.head().map_or(to, |head| head.number))
    }

    /// Takes the files of a tree that is in the store as the newest generation of a cache mount,
    /// as far as they may be in one; answers its number.
    pub async fn import_mount(
        &self,
        scope: &Scope,
        id: &str,
        tree: RootId,
    ) -> Result<u64, Failure> {
        let key = MountKey { scope: scope.clone(), id: id.to_owned() };
        let rules = Rules::of(id, id);
        let admit = move |nodes: &dyn Nodes| {
            let admitted = mounts::admit(nodes, &rules, None, &tree)?;
            Ok((admitted.tree, admitted.made))
        };
        let library = &self.0.library;
        let (tree, made) = library.algebra(no_archives, admit).await.map_err(not_taken)?;
        library.keep(made).await.map_err(not_taken)?;
        let measured = library.algebra(no_archives, move |nodes| mounts::measure(nodes, &tree));
        let files = measured.await.map_err(not_taken)?;
        let from = WorkerId::parse("import").expect("a name");
        let _turn = self.0.mounts.turns.enter(key.clone()).await;
        let (after, _) = change(&self.0, &key, MountChange::Import(files, from, now())).await?;
        Ok(after.head().map_or(0, |head| head.number))
    }

    /// Forgets a cache mount.
    pub async fn remove_mount(&self, scope: &Scope, id: &str) -> Result<(), Failure> {
        let key = MountKey { scope: scope.clone(), id: id.to_owned() };
        let _turn = self.0.mounts.turns.enter(key.clone()).await;
        if !self.0.ledger.read(|facts| facts.mounts.contains_key(&key)) {
            return Err(no_mount(&key));
        }
        change(&self.0, &key, MountChange::Remove).await.map(drop)
    }
}

fn not_taken(error: AlgebraError) -> Failure {
    error.failure(Class::User)
}

fn no_mount(key: &MountKey) -> Failure {
    let message = format!("There is no cache mount `{}` in scope {}", key.id, key.scope.as_str());
    Failure::new(Class::User, message).hint("See `slipway cache mounts ls`.")
}
