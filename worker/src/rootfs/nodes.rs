//! New nodes on their way to the store.

use super::RootfsError;
use cache::store::Store;
use std::sync::{Mutex, PoisonError};

/// How many bytes of nodes are put at a time, and how many nodes.
const BYTES_AT_ONCE: usize = 1 << 20;
const NODES_AT_ONCE: usize = 256;

/// Puts nodes many at a time: in a farm each put is a message. Children must come before parents,
/// from whichever thread.
pub(super) struct NewNodes<'a> {
    store: &'a dyn Store,
    waiting: Mutex<Vec<Vec<u8>>>,
}

impl<'a> NewNodes<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, waiting: Mutex::default() }
    }

    pub fn put(&self, node: Vec<u8>) -> Result<(), RootfsError> {
        // The lock is held while they are put: parents must not overtake their children.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(node);
        let bytes: usize = waiting.iter().map(Vec::len).sum();
        if bytes >= BYTES_AT_ONCE || waiting.len() >= NODES_AT_ONCE {
            self.store.put_nodes(&std::mem::take(&mut *waiting))?;
        }
        Ok(())
    }

    /// Puts what is left, and this one last.
    pub fn finish(self, last: Vec<u8>) -> Result<(), RootfsError> {
        let mut rest = self.waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        rest.push(last);
        Ok(self.store.put_nodes(&rest)?)
    }
}
