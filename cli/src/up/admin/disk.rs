//! What is kept on a disk: how much, what goes, whether it is whole.

use super::{blocking, store_failure};
use crate::talk::Talk;
use cache::store::DiskStore;
use cache::store::disk::{self, Budget, Phase, Progress};
use proto::error::Failure;
use proto::wire::admin::{Prune, Reply, Request, UsageRow};
use proto::wire::worker::Moved;
use std::sync::Arc;
use std::time::Duration;
use worker::rootfs::LayerCache;

/// What is looked after.
pub struct Disk {
    /// The store.
    pub store: Arc<DiskStore>,
    /// Layers as directories, where there is a worker.
    pub layers: Option<LayerCache>,
}

impl Disk {
    /// Answers a request about the disk; gives back one that is about something else.
    pub async fn answer(&self, request: Request, talk: &Talk) -> Result<Option<Request>, Failure> {
        match request {
            Request::Usage => usage(self, talk).await?,
            Request::Prune(what) => prune(self, talk, what).await?,
            Request::Verify { repair } => verify(self, talk, repair).await?,
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// Works with the store on a thread that may block.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DiskStore) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = self.store.clone();
        blocking(move || work(&store)).await
    }
}

async fn usage(disk: &Disk, talk: &Talk) -> Result<(), Failure> {
    let usage = disk.with_store(|store| store.usage().map_err(store_failure)).await?;
    let row = |kind: &str, count: u64, bytes: u64, reclaimable: u64| UsageRow {
        kind: kind.to_owned(),
        count,
        bytes,
        reclaimable,
    };
    let small = usage.packed.bytes + usage.dead_disk_bytes;
    let content = small + usage.large.bytes;
    // What goes of content: the store counts it as one. Larger files go first in this table.
    let large = usage.reclaimable_bytes.min(usage.large.bytes);
    let rest = (usage.reclaimable_bytes - large).min(content.saturating_sub(usage.large.bytes));
    let mut rows = vec![
        row("files", usage.large.number, usage.large.bytes, large),
        row("small files", usage.packed.number, small, rest),
        row("trees and records", usage.trees.number + usage.records, usage.index_disk_bytes, 0),
        row("put aside as damaged", usage.quarantine.number, usage.quarantine.bytes, 0),
    ];
    if let Some(layers) = &disk.layers {
        let (count, bytes, unused) = layers.usage();
        rows.push(row("layers on disk", count, bytes, unused));
    }
    talk.say(Reply::Usage(rows)).await;
    Ok(())
}

async fn prune(disk: &Disk, talk: &Talk, prune: Prune) -> Result<(), Failure> {
    let layers = disk.layers.clone();
    let pruned = disk.with_store(move |store| {
        let (mut count, mut bytes) = (0, 0);
        if let Some(layers) = &layers
            && (prune.all || prune.keep_bytes.is_some())
        {
            // Layers as directories are the cheapest to make again.
            (count, bytes) =
                layers.shrink(prune.keep_bytes.filter(|_| !prune.all).unwrap_or(0) / 3);
        }
        let mut reports = Vec::new();
        let mut collect = |prune| {
            reports.push(store.prune(prune).map_err(store_failure)?);
            Ok::<_, Failure>(())
        };
        match (prune.all, prune.older_than_ms, prune.keep_bytes) {
            (true, ..) => collect(disk::Prune::All)?,
            (false, None, None) => {
                reports.push(store.collect(Budget::bytes(u64::MAX)).map_err(store_failure)?);
            }
            (false, older, keep) => {
                if let Some(ms) = older {
                    collect(disk::Prune::OlderThan(Duration::from_millis(ms)))?;
                }
                if let Some(keep) = keep {
                    let used = layers.as_ref().map_or(0, LayerCache::bytes);
                    let left = keep.saturating_sub(used);
                    collect(disk::Prune::KeepBytes(left))?;
                }
            }
        }
        let sum = |of: fn(&disk::Report) -> u64| reports.iter().map(of).sum::<u64>();
        let things = vec![
            ("layers on disk".to_owned(), count),
            ("records".to_owned(), sum(|r| r.records)),
            ("rows".to_owned(), sum(|r| r.rows)),
            ("trees".to_owned(), sum(|r| r.trees.number)),
            ("small files".to_owned(), sum(|r| r.packed.number)),
            ("files".to_owned(), sum(|r| r.large.number)),
        ];
        Ok((bytes + sum(|r| r.freed_bytes), things))
    });
    let (reclaimed, things) = pruned.await?;
    talk.say(Reply::Pruned { bytes: reclaimed, things }).await;
    Ok(())
}

async fn verify(disk: &Disk, talk: &Talk, repair: bool) -> Result<(), Failure> {
    let out = talk.out.clone();
    let tell = move |progress: Progress| {
        let what = match progress.phase {
            Phase::Blobs => "reading files",
            Phase::Trees => "reading trees",
            _ => "reading records",
        };
        let moved = Moved {
            what: what.to_owned(),
            current: progress.done,
            total: progress.total,
            done: progress.done >= progress.total,
        };
        // Only news: who is slow misses some.
        let _ = out.try_send((Reply::Moved(moved), bytes::Bytes::new()));
    };
    let damages = disk.with_store(move |store| {
        let damages = store.verify(&mut { tell }).map_err(store_failure)?;
        if repair && !damages.is_empty() {
            store.repair(&damages).map_err(store_failure)?;
        }
        Ok(damages)
    });
    for damage in damages.await? {
        let (place, what) = (damage.path.display().to_string(), damage.detail.clone());
        let advice = damage.advice().to_owned();
        talk.say(Reply::Damage { place, what, advice }).await;
    }
    let Some(layers) = disk.layers.clone() else { return Ok(()) };
    let dir = layers.path().display().to_string();
    let found =
        blocking(move || layers.verify().map_err(|e| Failure::new(e.class(), e.to_string())));
    for damage in found.await? {
        talk.say(Reply::Damage {
            place: format!("layer {} in {dir}", damage.layer),
            what: damage.found.join("; "),
            advice: "It was dropped; the next step that needs it makes it again".to_owned(),
        })
        .await;
    }
    Ok(())
}
