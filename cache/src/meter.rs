//! Bytes that are moved between machines, counted for whatever they are moved for.
//!
//! Who does something lets it run under [`count`]; who moves bytes on its behalf, on whatever thread
//! or task, says how many by [`add`]. What is not under a count is not counted. Another thread of
//! the same work takes the count along by [`Carried`].

use proto::wire::build::Traffic;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

tokio::task_local! {
    static METER: Meter;
    /// Whether what is moved belongs to a cache mount.
    static OF_MOUNT: ();
}

#[derive(Clone, Default)]
struct Meter(Arc<Mutex<Traffic>>);

impl Meter {
    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Came from the farm's store, or from another worker.
    Fetched,
    /// Went to the farm's store.
    Sent,
    /// Came from a registry or a web server. What `git` fetches is not counted: it does not tell.
    Pulled,
    /// Went to a registry.
    Pushed,
}

/// Does something; answers what was moved for it, too.
pub async fn count<T>(work: impl Future<Output = T>) -> (T, Traffic) {
    let meter = Meter::default();
    let done = METER.scope(meter.clone(), work).await;
    let traffic = *meter.traffic();
    (done, traffic)
}

/// Does something for a cache mount: what is fetched and sent meanwhile is counted as such.
pub fn of_mount<T>(work: impl FnOnce() -> T) -> T {
    OF_MOUNT.sync_scope((), work)
}

/// Counts bytes for whatever the calling thread or task works for.
pub fn add(kind: Kind, bytes: u64) {
    let is_of_mount = OF_MOUNT.try_with(|_| ()).is_ok();
    // Work that nobody counts for is the rule in tests, and in what runs in the background.
    let _ = METER.try_with(|meter| {
        let mut traffic = meter.traffic();
        let sum = match kind {
            Kind::Fetched | Kind::Sent if is_of_mount => &mut traffic.mounts,
            Kind::Fetched => &mut traffic.inputs,
            Kind::Sent => &mut traffic.results,
            Kind::Pulled => &mut traffic.pulled,
            Kind::Pushed => &mut traffic.pushed,
        };
        *sum += bytes;
    });
}

/// What the calling thread or task counts for, to be taken to another thread.
#[derive(Clone)]
pub struct Carried {
    meter: Option<Meter>,
    is_of_mount: bool,
}

impl Carried {
    /// Takes it.
    pub fn here() -> Self {
        let meter = METER.try_with(Meter::clone).ok();
        Self { meter, is_of_mount: OF_MOUNT.try_with(|_| ()).is_ok() }
    }

    /// Does something as a task of its own that is counted there.
    pub async fn with<T>(self, work: impl Future<Output = T>) -> T {
        let Self { meter, is_of_mount } = self;
        let work = async {
            match is_of_mount {
                true => OF_MOUNT.scope((), work).await,
                false => work.await,
            }
        };
        match meter {
            Some(meter) => METER.scope(meter, work).await,
            None => work.await,
        }
    }

    /// Does something on this thread that is counted there.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        let Self { meter, is_of_mount } = self;
        let work = || if is_of_mount { of_mount(work) } else { work() };
        match meter {
            Some(meter) => METER.sync_scope(meter, work),
            None => work(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_for_the_work_that_moves_them_on_all_its_threads() {
        let one = count(async {
            add(Kind::Fetched, 1);
            let carried = Carried::here();
            let blocking = tokio::task::spawn_blocking(|| {
                carried.within(|| {
                    add(Kind::Fetched, 10);
                    of_mount(|| {
                        add(Kind::Sent, 100);
                        let carried = Carried::here();
                        let added = tokio::spawn(carried.with(async { add(Kind::Fetched, 5) }));
                        tokio::runtime::Handle::current().block_on(added).unwrap();
                        let carried = Carried::here();
                        std::thread::scope(|scope| {
                            scope.spawn(|| carried.within(|| add(Kind::Fetched, 1000)));
                        });
                    });
                    add(Kind::Sent, 10_000);
                });
            });
            blocking.await.unwrap();
            add(Kind::Pulled, 2);
            add(Kind::Pushed, 3);
        });
        let other = count(async {
            tokio::task::yield_now().await;
            add(Kind::Pulled, 7);
        });
        let (((), one), ((), other)) = tokio::join!(one, other);
        add(Kind::Pulled, 1000);
        let expected = Traffic {
            inputs: 11,
            mounts: 1105,
            results: 10_000,
            pulled: 2,
            pushed: 3,
            ..Traffic::default()
        };
        assert_eq!((one, other), (expected, Traffic { pulled: 7, ..Traffic::default() }));
    }
}
