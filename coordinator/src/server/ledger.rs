//! The facts and their log, as the server uses them.

use crate::core::facts::{Fact, Facts};
use crate::raft::{Log, Machine, MemoryLog, ProposeError, RestoreError, Shared};
use proto::error::{Class, Failure};
use proto::limit::{LOG_PROPOSAL_BYTES_MAX, LOG_PROPOSAL_ENTRIES_MAX};
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

    /// Writes facts down, in their order. When this returns they are never forgotten.
    pub async fn note(&self, facts: &[Fact]) -> Result<(), Failure> {
        let entries: Vec<Vec<u8>> = facts.iter().map(Fact::encode).collect();
        for some in batches(entries) {
            self.propose(some).await?;
        }
        Ok(())
    }

    async fn propose(&self, entries: Vec<Vec<u8>>) -> Result<(), Failure> {
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

/// What one proposal may hold at a time.
fn batches(entries: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let is_full = batches.last().is_none_or(|last| {
            last.len() >= LOG_PROPOSAL_ENTRIES_MAX || bytes + entry.len() > LOG_PROPOSAL_BYTES_MAX
        });
        if is_full {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += entry.len();
        batches.last_mut().expect("just made").push(entry);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_facts_are_several_proposals() {
        assert!(batches(Vec::new()).is_empty());
        let many = batches(vec![vec![0; 10]; 2 * LOG_PROPOSAL_ENTRIES_MAX + 1]);
        let counts: Vec<usize> = many.iter().map(Vec::len).collect();
        assert_eq!(counts, [LOG_PROPOSAL_ENTRIES_MAX, LOG_PROPOSAL_ENTRIES_MAX, 1]);
        let large = batches(vec![vec![0; LOG_PROPOSAL_BYTES_MAX / 2]; 5]);
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
