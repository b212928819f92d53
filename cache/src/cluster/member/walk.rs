//! How two nodes find out in what they differ, without telling each other all that they have.
//!
//! One of them cuts what it has into ranges of some thousand things, and asks for each whether the
//! other one has the same, by a hash. Of ranges that differ it asks for the list. So what is equal
//! costs a hash for each range, and what differs about a range for each difference.

use super::SyncError;
use crate::net::blobs::Blobs;
use crate::net::serve::{blocking, nodes::with_part};
use crate::store::DiskStore;
use crate::store::disk::{item_key, key_after};
use proto::limit;
use proto::wire::blob::{Item, Part, Range};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Something in which two nodes differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The other one has it.
    Lacking(Item),
    /// Only the own store has it.
    Extra(Item),
    /// Both have it with different values.
    Other {
        /// The own one.
        own: Item,
        /// The other one's.
        theirs: Item,
    },
}

/// A walk over all differences of a part.
pub struct Walk {
    store: Arc<DiskStore>,
    peer: Blobs,
    part: Arc<Part>,
    /// From where on ranges are still to be cut; nothing when all are.
    from: Option<Vec<u8>>,
    to: Vec<u8>,
    /// Ranges that differ.
    differing: VecDeque<Range>,
    listing: Option<Listing>,
}

/// A range of which the other one's list is being read.
struct Listing {
    own: BTreeMap<Vec<u8>, Item>,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Walk {
    /// Over the differences from one key up to another; an empty one stands for the end.
    pub fn new(store: &Arc<DiskStore>, peer: Blobs, part: Part, from: &[u8], to: &[u8]) -> Self {
        Self {
            store: store.clone(),
            peer,
            part: Arc::new(part),
            from: Some(from.to_vec()),
            to: to.to_vec(),
            differing: VecDeque::new(),
            listing: None,
        }
    }

    /// Some more differences, perhaps none; nothing when the walk is over.
    pub async fn next(&mut self) -> Result<Option<Vec<Difference>>, SyncError> {
        if let Some(listing) = self.listing.take() {
            return self.list(listing).await.map(Some);
        }
        if let Some(range) = self.differing.pop_front() {
            let (store, part) = (self.store.clone(), self.part.clone());
            let (from, to) = (range.from.clone(), range.to.clone());
            // One more than a range has when it is cut: what came since is met again later.
            let page = blocking(move || {
                with_part(&part, |part| store.page(part, &from, &to, limit::RANGE_ITEMS))
            })
            .await?;
            let to = match page.items.last().filter(|_| page.more) {
                Some(last) => {
                    let to = key_after(item_key(last));
                    self.differing.push_front(Range { from: to.clone(), ..range.clone() });
                    to
                }
                None => range.to,
            };
            let own = page.items.into_iter().map(|item| (item_key(&item).to_vec(), item)).collect();
            return self.list(Listing { own, from: range.from, to }).await.map(Some);
        }
        let Some(from) = self.from.take() else { return Ok(None) };
        let (store, part, to) = (self.store.clone(), self.part.clone(), self.to.clone());
        let (ranges, next) =
            blocking(move || with_part(&part, |part| store.ranges(part, &from, &to))).await?;
        let same = self.peer.compare(&self.part, &ranges).await?;
        self.differing
            .extend(ranges.into_iter().zip(same).filter(|(_, same)| !same).map(|(r, _)| r));
        self.from = next;
        Ok(Some(Vec::new()))
    }

    async fn list(&mut self, mut listing: Listing) -> Result<Vec<Difference>, SyncError> {
        let (items, more) = self.peer.list(&self.part, &listing.from, &listing.to).await?;
        let mut differences = Vec::new();
        let behind = items.last().map(|item| key_after(item_key(item)));
        for theirs in items {
            match listing.own.remove(item_key(&theirs)) {
                None => differences.push(Difference::Lacking(theirs)),
                Some(own) if is_other(&own, &theirs) => {
                    differences.push(Difference::Other { own, theirs });
                }
                Some(_) => {}
            }
        }
        match behind.filter(|_| more) {
            Some(behind) if behind > listing.from => {
                // What is left of the own ones before there is missing at the other end.
                let rest = listing.own.split_off(&behind);
                differences.extend(listing.own.into_values().map(Difference::Extra));
                self.listing = Some(Listing { own: rest, from: behind, to: listing.to });
            }
            _ => differences.extend(listing.own.into_values().map(Difference::Extra)),
        }
        Ok(differences)
    }
}

fn is_other(own: &Item, theirs: &Item) -> bool {
    match (own, theirs) {
        (Item::Entry { hash: own, .. }, Item::Entry { hash: theirs, .. }) => own != theirs,
        _ => false,
    }
}
