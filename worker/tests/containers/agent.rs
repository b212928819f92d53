//! A worker, and what it tells its coordinator of itself.

use super::house::{config, mounts};
use cache::net::{Dial, local};
use cache::store::memory::MemoryStore;
use proto::id::WorkerId;
use proto::wire::worker::{Capacity, ToCoordinator};
use std::sync::Arc;
use worker::agent::{Settings, Worker};
use worker::image::registry::RegistryConfig;
use worker::sandbox::{Runtime, platforms};

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_it_can_do_and_when_it_takes_no_more() {
    let before = mounts();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    let sandbox = config(&path, Runtime::Embedded);
    let settings = Settings {
        id: WorkerId::parse("w").unwrap(),
        dir: path.clone(),
        slots: 3,
        processors: 2,
        helper: sandbox.helper,
        runtime: sandbox.runtime,
        registry: RegistryConfig::default(),
        rootfs_budget: 1 << 30,
        open_files: 1024,
        host_network: false,
        platforms: platforms(),
        address: String::new(),
        cache_mount_cap: None,
        is_alone: false,
    };
    let worker = Worker::open(settings, Arc::new(MemoryStore::new())).await.unwrap();
    let (dialer, mut listener) = local::pair();
    let own = dialer.dial().await.unwrap();
    let mut coordinator = listener.accept().await.unwrap();
    let serving = tokio::spawn({
        let worker = worker.clone();
        async move { worker.serve(own).await }
    });
    let mut told = async || -> Capacity {
        match coordinator.from.expect::<ToCoordinator>().await.unwrap() {
            (ToCoordinator::State(state), _) => state.capacity,
            (other, _) => panic!("{other:?}"),
        }
    };
    let first = told().await;
    assert_eq!((first.slots, first.cpu_millis, first.takes_work), (3, 2000, true));
    assert_eq!(first.platforms, platforms());
    assert!(first.memory_bytes > 0 && first.disk_free_bytes > 0, "{first:?}");
    worker.drain();
    // It may have found out in the meantime that the machine is short of something.
    while told().await.takes_work {}
    drop((coordinator, listener, dialer));
    serving.await.unwrap().unwrap();
    worker.stop().await;
    drop(worker);
    assert_eq!(mounts(), before, "mounts are left");
}
