//! One at a time for each key: who comes second waits, looks again, and finds the work done.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

/// Locks by key. A key that nobody holds or waits for costs nothing.
#[derive(Debug)]
pub struct Flights<K> {
    locks: Mutex<HashMap<K, Weak<Lock<()>>>>,
}

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash> Flights<K> {
    fn lock_of(&self, key: K) -> Arc<Lock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if locks.len() > 1024 {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let slot = locks.entry(key).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let lock = Arc::new(Lock::new(()));
            *slot = Arc::downgrade(&lock);
            lock
        })
    }

    /// Waits until nobody else holds the key.
    pub async fn enter(&self, key: K) -> OwnedMutexGuard<()> {
        self.lock_of(key).lock_owned().await
    }

    /// As [`Flights::enter`], for threads that may block. Panics on a thread that runs a runtime.
    pub fn enter_blocking(&self, key: K) -> OwnedMutexGuard<()> {
        self.lock_of(key).blocking_lock_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    #[test]
    fn work_under_one_key_is_done_once() {
        let flights = Flights::default();
        let (done, times) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _guard = flights.enter_blocking("key");
                    if !done.swap(true, Ordering::SeqCst) {
                        times.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(times.into_inner(), 1);
    }

    #[test]
    fn keys_do_not_wait_for_each_other() {
        let flights = Flights::default();
        let _a = flights.enter_blocking(1);
        let _b = flights.enter_blocking(2);
    }
}
