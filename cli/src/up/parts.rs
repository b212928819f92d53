//! The parts of an embedded farm, joined by the same frames as those of a cluster.

use super::door::handshake;
use super::settings::Plan;
use crate::farm::binary;
use cache::cluster::Cluster;
use cache::net::serve::{Rights, serve};
use cache::net::{Dial, NetError, Stream, local};
use cache::store::{DiskStore, Store};
use coordinator::server::Coordinator;
use proto::error::{Class, Failure};
use proto::platform::Platform;
use proto::wire::Service;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use worker::agent::Worker;

/// How long what is under way may take to end.
const END_WAIT: Duration = Duration::from_secs(10);

/// How long a worker that lost its coordinator waits before it comes back.
const REJOIN: Duration = Duration::from_millis(200);

/// The store, the coordinator and the worker of this machine.
pub struct Parts {
    /// The store.
    pub store: Arc<DiskStore>,
    /// The coordinator.
    pub coordinator: Coordinator,
    /// The worker.
    pub worker: Worker,
    tasks: Vec<JoinHandle<()>>,
}

impl Parts {
    /// Opens the store, cleans up after a crash, and starts the parts.
    pub async fn start(plan: Plan) -> Result<Self, Failure> {
        let (dir, options) = (plan.store_dir, plan.store);
        let open = move || DiskStore::open(&dir, options);
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
        let store = opened.map_err(|e| Failure::new(Class::Unavailable, e.to_string()))?;
        let store = Arc::new(store);
        let mut tasks = Vec::new();

        let (dialer, listener) = local::pair();
        let served: Arc<dyn Store> = store.clone();
        tasks.push(tokio::spawn(listen(listener, Service::Blobs, move |stream| {
            serve(served.clone(), stream, Rights::Coordinator)
        })));
        let blobs = Cluster::of_one(Arc::new(dialer), binary());
        let coordinator = Coordinator::start(coordinator::server::Settings {
            store: blobs,
            // Builds end with the process, and with their clients: a local socket breaks only when
            // one of the two has gone.
            ledger: None,
            grace: Duration::ZERO,
            lost_after: Duration::ZERO,
            platform: Platform::host(),
            durations: plan.durations,
            weights: BTreeMap::new(),
        });

        let (dialer, listener) = local::pair();
        let joined = coordinator.clone();
        tasks.push(tokio::spawn(listen(listener, Service::Worker, move |stream| {
            let coordinator = joined.clone();
            async move { coordinator.serve_worker(stream, None).await }
        })));
        let worker = Worker::open(plan.worker, store.clone()).await?;
        tasks.push(tokio::spawn(join(worker.clone(), dialer)));
        Ok(Self { store, coordinator, worker, tasks })
    }

    /// Cancels what is under way, makes durable what there is, and leaves nothing behind.
    pub async fn end(self) {
        self.cancel_builds().await;
        let Self { store, coordinator, worker, tasks } = self;
        if tokio::time::timeout(END_WAIT, worker.stop()).await.is_err() {
            tracing::warn!("containers do not end; the next start takes them away");
        }
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        drop(coordinator);
        // Dropping the worker takes away what its containers had in common.
        let closing = tokio::task::spawn_blocking(move || {
            drop(worker);
            if let Err(e) = store.barrier() {
                tracing::error!("the store could not be closed cleanly: {e}");
            }
            store
        });
        let Ok(store) = closing.await else { return };
        close(store).await;
    }

    /// Cancels the builds that are under way, and waits for their ends.
    pub async fn cancel_builds(&self) {
        self.coordinator.cancel_all();
        let ended = async {
            while self.coordinator.active() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(END_WAIT, ended).await.is_err() {
            tracing::warn!("builds do not end; they are given up");
        }
    }
}

/// How long one waits for those who still read from the store.
const LAST_READERS: Duration = Duration::from_secs(2);

/// Closes the store, so that the next start finds it so. The last who holds it does that.
async fn close(store: Arc<DiskStore>) {
    let alone = async {
        while Arc::strong_count(&store) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(LAST_READERS, alone).await.is_err() {
        let others = Arc::strong_count(&store) - 1;
        tracing::warn!(others, "the store is still in use; the next start looks after it");
    }
    let _ = tokio::task::spawn_blocking(move || drop(store)).await;
}

/// Serves all who dial for a service inside of this process.
async fn listen<F, R>(mut listener: local::Listener, service: Service, serve: F)
where
    F: Fn(Stream) -> R + Send + 'static,
    R: Future<Output = Result<(), NetError>> + Send + 'static,
{
    let mut streams = JoinSet::new();
    while let Some(mut stream) = listener.accept().await {
        // Ended ones are taken out, so that they do not pile up.
        while streams.try_join_next().is_some() {}
        let opened = async {
            let open = stream.accept().await?;
            match open.service == service {
                true => handshake(&mut stream, &open, Ok(())).await,
                false => Err(NetError::Unexpected(format!("{:?}", open.service))),
            }
        };
        match opened.await {
            Ok(true) => {
                let served = serve(stream);
                streams.spawn(async move {
                    if let Err(e) = served.await {
                        tracing::warn!("a stream inside of this process broke: {e}");
                    }
                });
            }
            Ok(false) => {}
            Err(e) => tracing::warn!("a stream inside of this process was not opened: {e}"),
        }
    }
}

/// Keeps the worker with its coordinator.
async fn join(worker: Worker, dialer: local::Dialer) {
    loop {
        let joined = async {
            let opening = dialer.dial().await?.open(binary(), Service::Worker).await?;
            worker.serve(opening.stream).await
        };
        match joined.await {
            Ok(()) => tracing::warn!("the worker lost its coordinator"),
            Err(e) => tracing::warn!("the worker lost its coordinator: {e}"),
        }
        tokio::time::sleep(REJOIN).await;
    }
}
