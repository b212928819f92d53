//! A member of the log in a thread of its own, and the way to it.
//!
//! The thread owns the [`Driver`]: nothing else touches raft or the store, and whatever the disk
//! does holds up nobody else's tasks. It is reached by two bounded queues. One is for other members:
//! when it is full, messages are dropped, which raft bears. The other is for callers, who wait when
//! it is full.

mod thread;

use super::driver::inbound::{self, BadMessage, Checked};
use super::driver::{
    Change, ChangeError, Config, Driver, DriverError, EntryId, Leadership, Limits, Machine,
    Membership, NodeId, Proposal, ProposeError, ReadError, Shared, Store,
};
use super::log::{Log, Stopped};
use super::trace;
use super::transport::Transport;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use thread::{Answer, Request, Tell, Thread};
use tokio::sync::{mpsc, oneshot, watch};

/// Messages of other members that wait to be read. More are dropped.
const MESSAGES_MAX: usize = 1024;
/// Callers whose questions wait to be read. More wait outside.
const REQUESTS_MAX: usize = 1024;

/// Time between two ticks of raft.
const TICK: Duration = Duration::from_millis(100);

/// How a member is to work.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Who it is: whose store it has.
    pub node: NodeId,
    /// What its election timeouts are made of. Another one for each node and each start.
    pub seed: u64,
    /// When the log is cut off.
    pub limits: Limits,
}

/// What came in that is of no use. Drop it; after [`StepError::Bad`] the connection too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Too many messages wait.
    #[error("The log is busy, a message was dropped")]
    Busy,
    /// The log has stopped.
    #[error("The log has stopped")]
    Stopped,
    /// It makes no sense.
    #[error(transparent)]
    Bad(#[from] BadMessage),
}

/// A member of a replicated log. Dropping it stops it without handing over the lead.
#[derive(Debug)]
pub struct RaftLog {
    me: NodeId,
    messages: mpsc::Sender<Tell>,
    requests: mpsc::Sender<Request>,
    applied: watch::Receiver<u64>,
    leader: watch::Receiver<Leadership>,
    stopped: watch::Receiver<Option<Stopped>>,
}

impl RaftLog {
    /// Starts a member with what its store has. The machine, to which nothing was applied yet, comes
    /// to the state of the last snapshot before this returns, and to that of the log some time
    /// after.
    pub fn start<S, M>(
        options: Options,
        store: S,
        machine: Shared<M>,
        transport: Box<dyn Transport>,
    ) -> Result<Self, DriverError>
    where
        S: Store + 'static,
        M: Machine,
    {
        let Options { node, seed, limits } = options;
        let config = Config { node, seed, limits, logger: trace::logger() };
        let driver = guard(|| Driver::new(config, store, machine)).unwrap_or_else(Err)?;
        let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
        let (requests, questions) = mpsc::channel(REQUESTS_MAX);
        let (applied_at, applied) = watch::channel(driver.applied());
        let (leads, leader) = watch::channel(driver.leadership());
        let (stop, stopped) = watch::channel(None);
        let thread = Thread::new(driver, transport, applied_at, leads);
        std::thread::Builder::new()
            .name(format!("log of {node}"))
            .spawn(move || thread.run(inbox, questions, stop))
            .map_err(|error| DriverError::Raft { detail: format!("no thread for it: {error}") })?;
        Ok(Self { me: node, messages, requests, applied, leader, stopped })
    }

    /// A message has come from a node: from that one, of which the connection has made sure.
    pub fn step(&self, from: NodeId, message: &[u8]) -> Result<(), StepError> {
        self.tell(Tell::Message(inbound::check(self.me, from, message)?))
    }

    /// A message to that node could not be sent.
    pub fn report_unreachable(&self, node: NodeId) {
        // What is dropped here, raft finds out by itself, only later.
        let _ = self.tell(Tell::Unreachable(node));
    }

    /// What came of a snapshot for that node: whether the node has it.
    pub fn report_snapshot(&self, node: NodeId, arrived: bool) {
        let _ = self.tell(Tell::Snapshot { node, arrived });
    }

    fn tell(&self, what: Tell) -> Result<(), StepError> {
        self.messages.try_send(what).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StepError::Busy,
            mpsc::error::TrySendError::Closed(_) => StepError::Stopped,
        })
    }

    /// Asks the thread, and waits for the answer; none when the thread is gone.
    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    }

    async fn append(&self, proposal: Result<Proposal, ProposeError>) -> Result<u64, ProposeError> {
        let proposal = proposal?;
        let asked = self.ask(|answer| Request::Propose { proposal, answer }).await;
        asked.unwrap_or(Err(ProposeError::Stopped))
    }
}

impl Log for RaftLog {
    fn propose(&self, entries: Vec<Vec<u8>>) -> BoxFuture<'_, Result<u64, ProposeError>> {
        self.append(Proposal::new(entries)).boxed()
    }

    fn propose_again(
        &self,
        id: EntryId,
        entries: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<u64, ProposeError>> {
        self.append(Proposal::new(entries).map(|proposal| proposal.again(id))).boxed()
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        let asked = self.ask(|answer| Request::Read { answer });
        asked.map(|index| index.unwrap_or(Err(ReadError::Stopped))).boxed()
    }

    fn change_membership(
        &self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Membership, ChangeError>> {
        let asked = self.ask(|answer| Request::Change { changes, answer });
        asked.map(|members| members.unwrap_or(Err(ChangeError::Stopped))).boxed()
    }

    fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    fn watch_leader(&self) -> watch::Receiver<Leadership> {
        self.leader.clone()
    }

    fn watch_stopped(&self) -> watch::Receiver<Option<Stopped>> {
        self.stopped.clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async {
            // Told or not: it has stopped when it says so.
            let _ = self.requests.send(Request::Stop).await;
            let mut stopped = self.stopped.clone();
            let _ = stopped.wait_for(Option::is_some).await;
        }
        .boxed()
    }
}

/// Does something with raft, which panics when it finds what can't be.
fn guard<T>(work: impl FnOnce() -> T) -> Result<T, DriverError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        DriverError::Raft { detail: text.unwrap_or_else(|| "it panicked".to_owned()) }
    })
}
