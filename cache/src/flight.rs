//! One at a time for each key: who comes second waits, looks again, and finds the work done.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

/// Turns by key, for tasks. A key that nobody holds or waits for costs nothing.
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
}

/// Turns by key, for threads.
pub struct Turns<K: Eq + Hash> {
    held: Mutex<HashSet<K>>,
    given_back: Condvar,
}

impl<K: Eq + Hash> Default for Turns<K> {
    fn default() -> Self {
        Self { held: Mutex::default(), given_back: Condvar::new() }
    }
}

impl<K: Eq + Hash + Clone> Turns<K> {
    fn held(&self) -> MutexGuard<'_, HashSet<K>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Blocks until nobody else holds the key.
    pub fn enter(&self, key: K) -> Turn<'_, K> {
        let mut held = self.held();
        while held.contains(&key) {
            held = self.given_back.wait(held).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        held.insert(key.clone());
        Turn { turns: self, key }
    }
}

/// Holds a key until it is dropped.
pub struct Turn<'t, K: Eq + Hash + Clone> {
    turns: &'t Turns<K>,
    key: K,
}

impl<K: Eq + Hash + Clone> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turns.held().remove(&self.key);
        self.turns.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    #[test]
    fn work_under_one_key_is_done_once() {
        let turns = Turns::default();
        let (done, times) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _turn = turns.enter("key");
                    if !done.load(Ordering::SeqCst) {
                        times.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        done.store(true, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(times.into_inner(), 1);
        assert!(turns.held().is_empty());
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let flights = Flights::default();
        let a = flights.enter(1).await;
        let _b = flights.enter(2).await;
        let again = flights.lock_of(1);
        assert!(again.try_lock().is_err());
        drop(a);
        assert!(again.try_lock().is_ok());
        let turns = Turns::default();
        let _a = turns.enter(1);
        let _b = turns.enter(2);
    }
}
