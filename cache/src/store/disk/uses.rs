//! When records and rows were used last, to the second. Noted in memory, written along with other
//! things: a use that a crash forgets makes something look older, no more.

use super::batch::Batch;
use super::lock;
use super::rocks::{Cf, Index};
use super::value::key;
use crate::store::StoreError;
use proto::id::Millis;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Mutex;

/// Uses above which they are written at the next opportunity.
const PENDING_MAX: usize = 4096;

/// Uses that are not written yet, by the keys of what was used.
#[derive(Default)]
pub(super) struct Uses {
    pending: Mutex<HashMap<Vec<u8>, Millis>>,
}

impl Uses {
    /// Notes a use; answers whether it is time to write.
    pub fn note(&self, key: &[u8], now: Millis) -> bool {
        let mut pending = lock(&self.pending);
        let second = Millis(now.0 / 1000 * 1000);
        match pending.get_mut(key) {
            Some(time) => *time = second,
            None => {
                pending.insert(key.to_vec(), second);
            }
        }
        pending.len() > PENDING_MAX
    }

    /// The time of a use that is not written yet.
    pub fn pending(&self, key: &[u8]) -> Option<Millis> {
        lock(&self.pending).get(key).copied()
    }

    /// Forgets what was deleted.
    pub fn forget(&self, key: &[u8]) {
        lock(&self.pending).remove(key);
    }

    /// Adds all uses to a batch.
    pub fn flush(&self, batch: &mut Batch<'_>) {
        for (key, time) in std::mem::take(&mut *lock(&self.pending)) {
            batch.put(Cf::Table, &key::used(&key), &time.0.to_le_bytes());
        }
    }

    /// All uses that were written.
    pub fn load(index: &Index) -> Result<HashMap<Vec<u8>, Millis>, StoreError> {
        let mut uses = HashMap::new();
        index.scan(Cf::Table, &[key::USED], |key, value| {
            if let Ok(time) = value.try_into().map(u64::from_le_bytes) {
                uses.insert(key[1..].to_vec(), Millis(time));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(uses)
    }
}
