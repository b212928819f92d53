//! What one node of a farm asks another.

use super::NetError;
use super::blobs::{Blobs, unexpected};
use proto::wire::blob::{Entry, Forgotten, Item, Part, Range, Reply, Request};

impl Blobs {
    /// Which of these ranges hold the same there.
    pub async fn compare(&self, part: &Part, ranges: &[Range]) -> Result<Vec<bool>, NetError> {
        let request = Request::Compare(part.clone(), ranges.to_vec());
        match self.ask(&request, &[]).await? {
            Reply::Same(same) if same.len() == ranges.len() => Ok(same),
            other => Err(unexpected(&other)),
        }
    }

    /// What is there from one key up to another; and whether there is more behind the last of it.
    pub async fn list(
        &self,
        part: &Part,
        from: &[u8],
        to: &[u8],
    ) -> Result<(Vec<Item>, bool), NetError> {
        let request = Request::List(part.clone(), from.to_vec(), to.to_vec());
        match self.ask(&request, &[]).await? {
            Reply::Listed { items, more } if !(more && items.is_empty()) => Ok((items, more)),
            other => Err(unexpected(&other)),
        }
    }

    /// Those of these records, aliases and rows that are there: all of them, or the first ones, as
    /// many as fit into an answer.
    pub async fn entries(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Entry>, NetError> {
        match self.ask(&Request::Entries(keys), &[]).await? {
            Reply::Entries(entries) => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells that these were collected.
    pub async fn forget(&self, entries: Vec<Forgotten>) -> Result<(), NetError> {
        self.order(&Request::Forget(entries), &[]).await
    }
}
