//! Collection by itself: in a thread of the store's own, when the budget is exceeded or the disk is
//! nearly full.

use super::Budget;
use crate::store::StoreError;
use crate::store::disk::{Inner, lock};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the disk is looked at when nobody calls.
const LOOK: Duration = Duration::from_secs(30);

/// By how much the store must have grown before it is collected again while no pin was given back:
/// so many bytes, and a twentieth.
const GROWTH_BYTES: u64 = 1 << 20;

/// Whose turn it is to collect, and how the last collection ended.
#[derive(Debug, Default)]
pub(in crate::store::disk) struct Turn {
    last: Option<(u64, usize)>,
}

impl Turn {
    /// Notes what the store had after a collection, and how many pins were given back before it.
    pub fn note(&mut self, held: u64, released: usize) {
        self.last = Some((held, released));
    }

    /// Whether another collection could free more than the last one.
    fn is_worth_it(&self, held: u64, released: usize) -> bool {
        let grown = |then: u64| held > then + (then / 20).max(GROWTH_BYTES);
        self.last.is_none_or(|(then, pins)| released != pins || grown(then))
    }
}

/// Wakes the collector.
#[derive(Default)]
pub(in crate::store::disk) struct Wake(Arc<Signal>);

#[derive(Default)]
struct Signal {
    state: Mutex<Call>,
    called: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Call {
    #[default]
    None,
    Look,
    Stop,
}

impl Wake {
    pub fn wake(&self) {
        let mut state = lock(&self.0.state);
        if *state == Call::None {
            *state = Call::Look;
            self.0.called.notify_one();
        }
    }
}

/// The thread that collects. Dropped, it ends what it does and is gone.
pub(in crate::store::disk) struct Collector {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    pub fn start(inner: &Arc<Inner>) -> Self {
        let signal = inner.wake.0.clone();
        let (weak, calls) = (Arc::downgrade(inner), signal.clone());
        let thread = std::thread::Builder::new()
            .name("store-collector".to_owned())
            .spawn(move || run(&weak, &calls))
            .inspect_err(|error| tracing::warn!(%error, "Nothing is collected by itself"))
            .ok();
        Self { signal, thread }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        *lock(&self.signal.state) = Call::Stop;
        self.signal.called.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(inner: &Weak<Inner>, signal: &Signal) {
    loop {
        {
            let state = lock(&signal.state);
            let waited = signal.called.wait_timeout_while(state, LOOK, |call| *call == Call::None);
            let (mut call, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
            if *call == Call::Stop {
                return;
            }
            *call = Call::None;
        }
        let Some(inner) = inner.upgrade() else {
            return;
        };
        if let Err(error) = inner.collect_if_due() {
            tracing::warn!(%error, "The store could not be collected");
        }
    }
}

/// How many bytes to keep of `held`; None when there is no need to collect.
fn target(held: u64, budget: Option<u64>, shortage: u64) -> Option<u64> {
    let by_budget = budget.filter(|budget| held > *budget).map(|budget| budget / 10 * 9);
    let by_disk = (shortage > 0).then(|| held.saturating_sub(shortage));
    [by_budget, by_disk].into_iter().flatten().min()
}

impl Inner {
    fn collect_if_due(&self) -> Result<(), StoreError> {
        let held = self.held();
        let Some(target) = target(held, self.options.budget, self.space.shortage()) else {
            return Ok(());
        };
        if lock(&self.collecting).is_worth_it(held, self.touches.released()) {
            self.collect(Budget::bytes(target))?;
        }
        Ok(())
    }

    /// Collects on behalf of who needs room for `bytes` bytes; answers whether that freed any.
    pub(in crate::store::disk) fn make_room(&self, bytes: u64) -> Result<bool, StoreError> {
        let held = self.held();
        if !lock(&self.collecting).is_worth_it(held, self.touches.released()) {
            return Ok(false);
        }
        let over = self.options.limit.map_or(0, |limit| (held + bytes).saturating_sub(limit));
        let short = self.space.shortage() + bytes;
        let target = (held / 10 * 9).min(held.saturating_sub(over.max(short)));
        Ok(self.collect(Budget::bytes(target))?.freed_bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_what_budget_and_disk_ask_for() {
        assert_eq!(target(100, None, 0), None);
        assert_eq!(target(100, Some(100), 0), None);
        assert_eq!(target(101, Some(100), 0), Some(90));
        assert_eq!(target(100, Some(100), 30), Some(70));
        assert_eq!(target(101, Some(100), 5), Some(90));
        assert_eq!(target(10, None, 30), Some(0));
    }

    #[test]
    fn what_freed_nothing_is_not_tried_again_at_once() {
        let mut turn = Turn::default();
        assert!(turn.is_worth_it(100, 0));
        turn.note(100, 0);
        assert!(!turn.is_worth_it(100, 0));
        assert!(turn.is_worth_it(100, 1));
        assert!(turn.is_worth_it(101 + GROWTH_BYTES, 0));
        turn.note(1 << 30, 0);
        assert!(!turn.is_worth_it((1 << 30) + (50 << 20), 0));
        assert!(turn.is_worth_it((1 << 30) + (52 << 20), 0));
    }
}
