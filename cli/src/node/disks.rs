//! `slipway cache …` on a farm: each cache node is asked, and does it with its own store.

use super::party::Party;
use crate::farm::binary;
use crate::talk::Talk;
use bytes::Bytes;
use coordinator::server::{CacheRow, Membership};
use futures::future::join_all;
use ops::identity::Role;
use proto::error::{Class, Failure};
use proto::wire::Service;
use proto::wire::admin::{Asked, Prune, Reply, Request, UsageRow};
use proto::wire::cluster::CacheState;

/// What the nodes hold, kind by kind; which of them did not say is among it.
pub async fn usage(party: &Party, nodes: &Membership, talk: &Talk) -> Result<(), Failure> {
    let mut rows: Vec<UsageRow> = Vec::new();
    for (node, answer) in ask_all(party, nodes, &Request::Usage, talk).await? {
        let usage = match answer {
            Ok(replies) => replies,
            Err(failure) => {
                tracing::warn!(%node, "a cache node does not say what it holds: {failure}");
                let kind = format!("{node}: cannot be asked");
                rows.push(UsageRow { kind, count: 0, bytes: 0, reclaimable: 0 });
                continue;
            }
        };
        for row in usage.into_iter().flat_map(|reply| match reply {
            Reply::Usage(rows) => rows,
            _ => Vec::new(),
        }) {
            add(&mut rows, row);
        }
    }
    talk.say(Reply::Usage(rows)).await;
    Ok(())
}

fn add(rows: &mut Vec<UsageRow>, row: UsageRow) {
    match rows.iter_mut().find(|known| known.kind == row.kind) {
        Some(known) => {
            known.count += row.count;
            known.bytes += row.bytes;
            known.reclaimable += row.reclaimable;
        }
        None => rows.push(row),
    }
}

/// Takes away on each node what was not used for long. What may be left is divided among them.
pub async fn prune(
    party: &Party,
    nodes: &Membership,
    talk: &Talk,
    prune: Prune,
) -> Result<(), Failure> {
    let count = nodes.rows().iter().filter(|node| node.state != CacheState::Down).count() as u64;
    let keep_bytes = prune.keep_bytes.map(|keep| keep / count.max(1));
    let request = Request::Prune(Prune { keep_bytes, ..prune });
    let (mut sum, mut things, mut failed) = (0, Vec::<(String, u64)>::new(), Vec::new());
    for (node, answer) in ask_all(party, nodes, &request, talk).await? {
        match answer {
            Ok(replies) => {
                for reply in replies {
                    let Reply::Pruned { bytes, things: gone } = reply else { continue };
                    sum += bytes;
                    for (kind, count) in gone {
                        match things.iter_mut().find(|(known, _)| *known == kind) {
                            Some((_, known)) => *known += count,
                            None => things.push((kind, count)),
                        }
                    }
                }
            }
            Err(failure) => failed.push((node, failure)),
        }
    }
    talk.say(Reply::Pruned { bytes: sum, things }).await;
    all_done(failed)
}

/// Hashes everything on each node. Damage is told as it is found.
pub async fn verify(
    party: &Party,
    nodes: &Membership,
    talk: &Talk,
    repair: bool,
) -> Result<(), Failure> {
    let mut failed = Vec::new();
    for (node, answer) in ask_all(party, nodes, &Request::Verify { repair }, talk).await? {
        if let Err(failure) = answer {
            failed.push((node, failure));
        }
    }
    all_done(failed)
}

fn all_done(failed: Vec<(String, Failure)>) -> Result<(), Failure> {
    let Some((_, first)) = failed.first() else { return Ok(()) };
    let lines: Vec<String> = failed.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    let message = format!("Not all cache nodes have done it: {}", lines.join("; "));
    Err(Failure::new(first.class, message)
        .hint("`slipway node ls` shows how they are. Those that answered have done it."))
}

/// Asks all nodes at the same time; answers what each of them said.
async fn ask_all(
    party: &Party,
    nodes: &Membership,
    request: &Request,
    talk: &Talk,
) -> Result<Vec<(String, Result<Vec<Reply>, Failure>)>, Failure> {
    let nodes = nodes.rows();
    if nodes.is_empty() {
        let message = "The farm has no cache node";
        return Err(Failure::new(Class::Unavailable, message)
            .hint("Start one: slipway cache. `slipway node ls` shows which there are."));
    }
    let asked = nodes.into_iter().map(async |node| {
        let answer = ask(party, &node, request, talk).await;
        (node.id.to_string(), answer)
    });
    Ok(join_all(asked).await)
}

/// Asks one node. What it says on the way is passed on at once, with its name.
async fn ask(
    party: &Party,
    node: &CacheRow,
    request: &Request,
    talk: &Talk,
) -> Result<Vec<Reply>, Failure> {
    let dial = party.control(&node.address, Role::Cache);
    let mut stream = dial.dial().await?.open(binary(), Service::Admin).await?.stream;
    stream.to.send(&Asked { scope: None, request: request.clone() }).await?;
    let mut replies = Vec::new();
    loop {
        match stream.from.expect::<Reply>().await?.0 {
            Reply::Done => return Ok(replies),
            Reply::Failed(failure) => return Err(failure),
            Reply::Moved(mut moved) => {
                moved.what = format!("{}: {}", node.id, moved.what);
                // Only news: who is slow misses some.
                let _ = talk.out.try_send((Reply::Moved(moved), Bytes::new()));
            }
            Reply::Damage { place, what, advice } => {
                let place = format!("{}: {place}", node.id);
                talk.say(Reply::Damage { place, what, advice }).await;
            }
            reply if replies.len() < REPLIES_MAX => replies.push(reply),
            _ => return Err(Failure::new(Class::Corrupt, "It says more than was asked for")),
        }
    }
}

/// Replies of one node that are taken.
const REPLIES_MAX: usize = 16;
