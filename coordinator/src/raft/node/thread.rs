//! The thread of a member: waits for what comes first, takes all that is there, and has the driver
//! work it off at once.

use super::{Checked, Membership, Stopped, TICK, Transport, guard};
use crate::raft::driver::{
    Change, ChangeError, Driver, DriverError, Leadership, Machine, NodeId, Output, Proposal,
    ProposeError, ReadError, Role, Store, Token,
};
use futures::FutureExt;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

/// Ticks that a leader which is to stop waits for another one to take over.
const HAND_OVER_TICKS: u32 = 20;
/// Messages or questions that are taken before the driver works them off.
const BATCH: usize = 1024;

pub(super) type Answer<T> = oneshot::Sender<T>;

/// From the network.
pub(super) enum Tell {
    Message(Checked),
    Unreachable(NodeId),
    Snapshot { node: NodeId, arrived: bool },
}

/// From a caller.
pub(super) enum Request {
    Propose { proposal: Proposal, answer: Answer<Result<u64, ProposeError>> },
    Read { answer: Answer<Result<u64, ReadError>> },
    Change { changes: Vec<Change>, answer: Answer<Result<Membership, ChangeError>> },
    Stop,
}

/// Who waits for an answer.
#[derive(Default)]
struct Callers {
    last: u64,
    propose: BTreeMap<Token, Answer<Result<u64, ProposeError>>>,
    read: BTreeMap<Token, Answer<Result<u64, ReadError>>>,
    change: BTreeMap<Token, Answer<Result<Membership, ChangeError>>>,
}

/// Answers, if anybody still waits.
fn answer<T>(callers: &mut BTreeMap<Token, Answer<T>>, token: Token, result: T) {
    if let Some(caller) = callers.remove(&token) {
        let _ = caller.send(result);
    }
}

/// Where the outputs of a driver go.
struct Outside {
    transport: Box<dyn Transport>,
    callers: Callers,
    applied: watch::Sender<u64>,
    leader: watch::Sender<Leadership>,
    me: NodeId,
}

impl Outside {
    fn obey(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.transport.send(to, message),
            Output::SendSnapshot { to, message } => self.transport.send_snapshot(to, message),
            Output::Proposed { token, result } => answer(&mut self.callers.propose, token, result),
            Output::Readable { token, result } => answer(&mut self.callers.read, token, result),
            Output::Changed { token, result } => answer(&mut self.callers.change, token, result),
            Output::Applied(index) => {
                self.applied.send_replace(index);
            }
            Output::Leadership(now) => {
                let Leadership { term, leader, .. } = now;
                let (me, leader) = (self.me, leader.map_or(0, NodeId::get));
                tracing::info!(node = %me, term, leader, role = ?now.role, "The log's leader");
                self.leader.send_replace(now);
            }
        }
    }
}

/// How far a member is with stopping.
enum Stopping {
    No,
    /// It waits for another one to take over the lead, for so many ticks.
    HandsOver(u32),
}

/// What the thread has.
pub(super) struct Thread<S: Store, M: Machine> {
    driver: Driver<S, M>,
    outside: Outside,
    stopping: Stopping,
}

impl<S: Store, M: Machine> Thread<S, M> {
    pub fn new(
        driver: Driver<S, M>,
        transport: Box<dyn Transport>,
        applied: watch::Sender<u64>,
        leader: watch::Sender<Leadership>,
    ) -> Self {
        let (callers, me) = (Callers::default(), driver.me().node);
        let outside = Outside { transport, callers, applied, leader, me };
        Self { driver, outside, stopping: Stopping::No }
    }

    /// Works until it is asked to stop, or can't go on.
    pub fn run(
        mut self,
        messages: mpsc::Receiver<Tell>,
        requests: mpsc::Receiver<Request>,
        stopped: watch::Sender<Option<Stopped>>,
    ) {
        let me = self.outside.me;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let worked = match &runtime {
            Ok(runtime) => {
                let worked = guard(|| runtime.block_on(self.work(messages, requests)));
                let why = |error| self.driver.take_failed().map_or(error, DriverError::Store);
                worked.unwrap_or_else(|panic| Err(why(panic)))
            }
            Err(error) => Err(DriverError::Raft { detail: format!("no timer for it: {error}") }),
        };
        // Nobody leads from here any more. The store is closed before anybody is told.
        let term = self.outside.leader.borrow().term;
        self.outside.obey(Output::Leadership(Leadership {
            term,
            role: Role::Follower,
            leader: None,
        }));
        drop(self);
        let why = match worked {
            Ok(()) => Stopped::Asked,
            Err(error) => {
                tracing::error!(node = %me, %error, "The log has stopped");
                Stopped::Failed(error.to_string())
            }
        };
        stopped.send_replace(Some(why));
    }

    async fn work(
        &mut self,
        mut messages: mpsc::Receiver<Tell>,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<(), DriverError> {
        let mut ticks = tokio::time::interval(TICK);
        // A process that was stopped must not take its leader for lost before it has read what the
        // leader sent meanwhile.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            self.poll()?;
            if self.is_done() {
                return Ok(());
            }
            let room = self.driver.has_room();
            let mut ticked = false;
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => self.hear(message)?,
                    // The handle is gone.
                    None => return Ok(()),
                },
                _ = ticks.tick() => ticked = true,
                Some(request) = requests.recv(), if room => self.take(request),
            }
            self.take_what_is_there(&mut messages, &mut requests)?;
            if ticked || is_due(&mut ticks) {
                self.tick();
            }
        }
    }

    /// All that came meanwhile: first what members say, which may be what a tick would miss.
    fn take_what_is_there(
        &mut self,
        messages: &mut mpsc::Receiver<Tell>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), DriverError> {
        for _ in 0..BATCH {
            let Ok(message) = messages.try_recv() else { break };
            self.hear(message)?;
        }
        for _ in 0..BATCH {
            if !self.driver.has_room() {
                break;
            }
            let Ok(request) = requests.try_recv() else { break };
            self.take(request);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<(), DriverError> {
        let Self { driver, outside, .. } = self;
        driver.poll(&mut |output| outside.obey(output))
    }

    fn hear(&mut self, message: Tell) -> Result<(), DriverError> {
        match message {
            Tell::Message(message) => self.driver.receive(message)?,
            Tell::Unreachable(node) => self.driver.unreachable(node),
            Tell::Snapshot { node, arrived } => self.driver.snapshot_sent(node, arrived),
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.driver.tick();
        if let Stopping::HandsOver(left) = &mut self.stopping {
            *left = left.saturating_sub(1);
        }
    }

    fn take(&mut self, request: Request) {
        let callers = &mut self.outside.callers;
        callers.last += 1;
        let token = Token(callers.last);
        match request {
            Request::Propose { proposal, answer } => {
                callers.propose.insert(token, answer);
                self.driver.propose(token, proposal);
            }
            Request::Read { answer } => {
                callers.read.insert(token, answer);
                self.driver.read(token);
            }
            Request::Change { changes, answer } => {
                callers.change.insert(token, answer);
                self.driver.change(token, changes);
            }
            Request::Stop => {
                let patience = if self.driver.resign() { HAND_OVER_TICKS } else { 0 };
                self.stopping = Stopping::HandsOver(patience);
            }
        }
    }

    /// Whether it is to stop, and nothing is gained by waiting.
    fn is_done(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::HandsOver(left) => left == 0 || self.driver.leadership().role != Role::Leader,
        }
    }
}

/// Whether a tick is due.
fn is_due(ticks: &mut Interval) -> bool {
    ticks.tick().now_or_never().is_some()
}
