//! The facts and their log, as the server uses them.

use crate::core::facts::{Fact, Facts};
use crate::raft::{Log, Machine, MemoryLog, ProposeError, RestoreError, Shared};
use proto::error::{Class, Failure};
use std::sync::Arc;

impl Machine for Facts {
    fn apply(&mut self, index: u64, entry: &[u8]) {
        match Fact::decode(entry) {
            Ok(fact) => Facts::apply(self, fact),
            Err(e) => tracing::error!(index, "an entry of the log is passed over: {e}"),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        Facts::snapshot(self)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        *self = Facts::restore(snapshot).map_err(|e| RestoreError(e.to_string()))?;
        Ok(())
    }
}

/// The facts and their log. Clones are the same.
#[derive(Clone)]
pub struct Ledger {
    log: Arc<dyn Log>,
    facts: Shared<Facts>,
}

impl Ledger {
    /// What `log` applies to `facts`.
    pub fn new(log: Arc<dyn Log>, facts: Shared<Facts>) -> Self {
        Self { log, facts }
    }

    /// One that keeps nothing, for a farm of one process.
    pub fn in_memory() -> Self {
        let facts = Shared::new(Facts::default());
        Self { log: Arc::new(MemoryLog::new(facts.clone())), facts }
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Looks at the facts. Must be quick.
    pub fn read<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        self.facts.read(look)
    }

    /// Writes facts down. When this returns they are never forgotten.
    pub async fn note(&self, facts: &[Fact]) -> Result<(), Failure> {
        if facts.is_empty() {
            return Ok(());
        }
        let entries: Vec<Vec<u8>> = facts.iter().map(Fact::encode).collect();
        let mut proposed = self.log.propose(entries.clone()).await;
        // What may or may not have happened is asked for again: each entry counts once.
        while let Err(ProposeError::Unknown { id }) = proposed {
            proposed = self.log.propose_again(id, entries.clone()).await;
        }
        match proposed {
            Ok(_) => Ok(()),
            Err(e) => {
                let message = format!("The coordinator's log does not take what was decided: {e}");
                Err(Failure::new(Class::Unavailable, message))
            }
        }
    }
}
