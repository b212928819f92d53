//! Calls: what any worker can do, and that can be done twice without harm.

use super::link::Link;
use super::{Machine, export, git, images, kept, outside, web};
use crate::image::{blocking, unpack};
use cache::meter;
use cache::store::Persisted;
use proto::error::Failure;
use proto::wire::worker::{Call, Dated, Reply, ToCoordinator};
use std::sync::Arc;

/// Does it in the background, and answers under its number.
pub fn start(machine: &Arc<Machine>, number: u64, call: Call) {
    let mut calls = machine.calls();
    let (machine, link) = (machine.clone(), machine.link.clone());
    let task = tokio::spawn(async move {
        let (result, traffic) = meter::count(answer(&machine, &link, number, call)).await;
        link.say(ToCoordinator::Reply(number, traffic, Box::new(result))).await;
        machine.calls().remove(&number);
        machine.ended.notify_waiters();
    });
    calls.insert(number, task.abort_handle());
}

async fn answer(
    machine: &Arc<Machine>,
    link: &Link,
    number: u64,
    call: Call,
) -> Result<Reply, Failure> {
    let heard = link.clone();
    let told = move |moved| heard.hint(ToCoordinator::CallProgress(number, moved));
    match call {
        Call::ResolveImage { build, reference, platform, pull, scope } => {
            let scope = (!pull).then_some(scope);
            let image = images::resolve(machine, link, &build, &reference, &platform, scope);
            Ok(Reply::Image(Box::new(image.await?)))
        }
        Call::ResolveLayout { reference, files, manifest } => {
            let image = images::resolve_layout(machine, reference, files, manifest);
            Ok(Reply::Image(Box::new(image.await?)))
        }
        Call::ResolveFile { build: _, url } => {
            let found = web::find(machine, &url, told).await?;
            Ok(Reply::File(found.digest, found.name, found.modified))
        }
        Call::ResolveCommit { build, remote, reference } => {
            Ok(Reply::Commit(git::resolve(machine, link, &build, &remote, &reference).await?))
        }
        Call::ResolveTime { build, of } => {
            let time = match of {
                Dated::Archive { url, digest } => web::newest(machine, &url, &digest, told).await?,
                Dated::Commit { remote, commit } => {
                    Some(git::time(machine, link, &build, &remote, &commit).await?)
                }
            };
            Ok(Reply::Time(time))
        }
        Call::Unpack(blob) => {
            let store = machine.store.clone();
            let _one = machine.puller.processor().await;
            let unpacked = blocking(move || unpack::unpack_blob(&*store, &blob)).await;
            let unpacked = unpacked.map_err(|e| Failure::new(e.class(), e.to_string()))?;
            Ok(Reply::Archive(unpacked))
        }
        Call::PrepareLayer(diff, packing) => {
            let machine = machine.clone();
            blocking(move || export::prepare(&machine, &diff, packing.as_ref())).await?;
            Ok(Reply::Done)
        }
        Call::Export(order) => {
            let (made, kept) = export::export(machine, link, order, told).await?;
            Ok(Reply::Exported(Box::new(made), kept.map(|image| image.to_bytes())))
        }
        Call::Pull { build, reference, platform } => {
            kept::pull(machine, &link.session(&build), &reference, &platform, told).await
        }
        Call::Push { build, reference, image } => {
            kept::push(machine, &link.session(&build), &reference, &image, told).await
        }
        Call::Save { build, images, format } => {
            kept::save(machine, &link.session(&build), images, format, told).await
        }
        Call::Load { archive, platform } => kept::load(machine, archive, platform).await,
        Call::ReadCache { build, from } => {
            Ok(Reply::Cache(outside::read(machine, link, &build, &from).await?))
        }
        Call::FetchLayer { build, from, layer } => {
            outside::fetch(machine, link, &build, &from, &layer, told).await?;
            Ok(Reply::Done)
        }
        Call::WriteCache(order) => {
            let written = outside::write(machine, link, &order, told).await?;
            Ok(Reply::CacheWritten(written))
        }
    }
}
