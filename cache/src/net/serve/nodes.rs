//! What one node of a farm answers another.

use super::failure;
use crate::cluster::placement::Placement;
use crate::store::disk::Part;
use crate::store::{Store, StoreError};
use proto::error::{Class, Failure};
use proto::id::BlobId;
use proto::limit;
use proto::wire::blob::{self, Reply, Request, Share};

/// Answers a request that nodes of a farm make to each other.
pub(super) fn answer(store: &dyn Store, request: Request) -> Reply {
    let Some(disk) = store.disk() else {
        let message = "This store is none of a cache node";
        return Reply::Failed(Failure::new(Class::User, message));
    };
    if let Some(what) = over_limit(&request) {
        return Reply::Failed(Failure::new(Class::User, what));
    }
    let answered = match request {
        Request::Compare(part, ranges) => with_part(&part, |part| {
            let same = ranges.iter().map(|range| disk.is_same(part, range));
            Ok(Reply::Same(same.collect::<Result<_, _>>()?))
        }),
        Request::List(part, from, to) => with_part(&part, |part| {
            let page = disk.page(part, &from, &to, limit::RANGE_ITEMS)?;
            Ok(Reply::Listed { items: page.items, more: page.more })
        }),
        Request::Entries(keys) => disk.entries(&keys).map(Reply::Entries),
        Request::Forget(entries) => disk.forget(&entries).map(|_| Reply::Done),
        other => unreachable!("answered elsewhere: {other:?}"),
    };
    answered.unwrap_or_else(|e| Reply::Failed(failure(&e)))
}

fn over_limit(request: &Request) -> Option<String> {
    let (is, most) = match request {
        Request::Compare(_, ranges) => (ranges.len(), limit::RANGES_MAX),
        Request::Entries(keys) => (keys.len(), limit::ENTRIES_MAX),
        Request::Forget(entries) => (entries.len(), limit::ENTRIES_MAX),
        _ => (0, 0),
    };
    let nodes = match request {
        Request::Compare(blob::Part::Blobs(share), _)
        | Request::List(blob::Part::Blobs(share), ..) => share.among.len(),
        _ => 0,
    };
    if nodes > limit::CACHE_NODES_MAX {
        return Some(format!(
            "At most {} nodes can own blobs, not {nodes}",
            limit::CACHE_NODES_MAX
        ));
    }
    (is > most).then(|| format!("At most {most} can be asked for at once, not {is}"))
}

/// Does something with a part as the store knows it.
pub(crate) fn with_part<T>(
    part: &blob::Part,
    work: impl FnOnce(Part<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match part {
        blob::Part::Trees => work(Part::Trees),
        blob::Part::Table => work(Part::Table),
        blob::Part::Blobs(share) => {
            let Share { node, among, replicas } = share;
            let placement = Placement::among(among, *replicas);
            work(Part::Blobs(&|blob: &BlobId| placement.owns(node, blob)))
        }
    }
}
