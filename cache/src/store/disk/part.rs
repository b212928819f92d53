//! A part of what the store has, as other nodes of a farm compare it, and taking what they have.

use super::rocks::Cf;
use super::value::{Head, Place, key};
use super::{Inner, batch::Sync};
use crate::store::{LayerBlob, Persisted, StoreError, Table};
use proto::id::{BlobId, ContentKey, DefKey, Scope, TreeId};
use proto::limit;
use proto::record::{Alias, Record};
use proto::wire::blob::{Entry, Forgotten, Item, Range};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Which part.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// All tree nodes.
    Trees,
    /// Records, aliases, and the rows that all nodes of a farm have.
    Table,
    /// Those blobs of which this says yes.
    Blobs(&'a (dyn Fn(&BlobId) -> bool + std::marker::Sync)),
}

/// Some things of a part, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The things.
    pub items: Vec<Item>,
    /// Whether there are more behind the last of them.
    pub more: bool,
}

/// The key of a thing, by which it is ordered.
pub fn item_key(item: &Item) -> &[u8] {
    match item {
        Item::Tree { id, .. } => id.as_bytes(),
        Item::Entry { key, .. } => key,
        Item::Blob { id, .. } => id.as_bytes(),
    }
}

/// The first key behind this one.
pub fn key_after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// What two nodes that have the same agree on.
pub fn digest(items: &[Item]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for item in items {
        let key = item_key(item);
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        if let Item::Entry { hash, .. } = item {
            hasher.update(hash);
        }
    }
    *hasher.finalize().as_bytes()
}

/// The hash of an entry's value.
pub fn value_hash(value: &[u8]) -> [u8; 32] {
    *blake3::hash(value).as_bytes()
}

/// Whether all nodes of a farm have this row.
pub(super) fn is_shared(row: &[u8], value: &[u8]) -> bool {
    match key::row_of(row) {
        Some((
            Table::Image | Table::Unpacked | Table::CacheMount | Table::Build | Table::Trace,
            _,
        )) => true,
        Some((Table::Layer, _)) => {
            LayerBlob::from_bytes(value).is_some_and(|layer| layer.packed.is_none())
        }
        Some((Table::OciBlob | Table::Block, _)) | None => false,
    }
}

/// What becomes of an entry that came from another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is kept.
    Kept,
    /// What is here is the same, or newer.
    Older,
    /// What it names is not here.
    Incomplete,
}

impl Inner {
    /// Things of a part from one key up to another, at most `most`.
    pub fn page(
        &self,
        part: Part<'_>,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut bytes = 0;
        let mut take = |item: Item| {
            // Keys of rows can be long: a page is an answer, which has a limit in bytes.
            if page.items.len() == most || bytes > limit::ENTRIES_BYTES {
                page.more = true;
                return ControlFlow::Break(());
            }
            if let Item::Entry { key, .. } = &item {
                bytes += key.len();
            }
            page.items.push(item);
            ControlFlow::Continue(())
        };
        match part {
            Part::Trees => self.index.range(Cf::Tree, from, to, |key, value| {
                let head = Head::from_bytes(value);
                Ok(match (key.try_into().map(TreeId::from_bytes), head) {
                    (Ok(id), Some(Head { height, len: bytes, .. })) => {
                        take(Item::Tree { id, height, bytes })
                    }
                    _ => ControlFlow::Continue(()),
                })
            })?,
            Part::Blobs(wanted) => self.index.range(Cf::Blob, from, to, |key, value| {
                let place = Place::from_bytes(value);
                Ok(match (key.try_into().map(BlobId::from_bytes), place) {
                    (Ok(id), Some(place)) if wanted(&id) => {
                        take(Item::Blob { id, size: place.size() })
                    }
                    _ => ControlFlow::Continue(()),
                })
            })?,
            Part::Table => {
                for kind in [key::ALIAS, key::RECORD, key::ROW] {
                    let from = from.max(&[kind]).to_vec();
                    let end = vec![kind + 1];
                    let to = if to.is_empty() { end } else { end.min(to.to_vec()) };
                    self.index.range(Cf::Table, &from, &to, |key, value| {
                        if kind == key::ROW && !is_shared(key, value) {
                            return Ok(ControlFlow::Continue(()));
                        }
                        Ok(take(Item::Entry { key: key.to_vec(), hash: value_hash(value) }))
                    })?;
                }
            }
        }
        Ok(page)
    }

    /// What this store has from a key up to another, cut into ranges, at most
    /// `limit::RANGES_MAX`; and where to go on, if that is not all.
    pub fn ranges(
        &self,
        part: Part<'_>,
        from: &[u8],
        to: &[u8],
    ) -> Result<(Vec<Range>, Option<Vec<u8>>), StoreError> {
        let (mut ranges, mut from) = (Vec::new(), from.to_vec());
        while ranges.len() < limit::RANGES_MAX {
            let page = self.page(part, &from, to, limit::RANGE_ITEMS)?;
            let end = match page.items.last().filter(|_| page.more) {
                Some(last) => key_after(item_key(last)),
                None => to.to_vec(),
            };
            ranges.push(Range { from, to: end.clone(), digest: digest(&page.items) });
            if !page.more {
                return Ok((ranges, None));
            }
            from = end;
        }
        Ok((ranges, Some(from)))
    }

    /// Whether this store has the same in a range.
    pub fn is_same(&self, part: Part<'_>, range: &Range) -> Result<bool, StoreError> {
        // One more than anybody puts into a range: then it is another one.
        let page = self.page(part, &range.from, &range.to, limit::RANGE_ITEMS + 1)?;
        Ok(page.items.len() <= limit::RANGE_ITEMS && digest(&page.items) == range.digest)
    }

    /// Those of these entries that are here, up to `limit::ENTRIES_BYTES` bytes.
    pub fn entries(&self, keys: &[Vec<u8>]) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let is_shared_kind =
                matches!(key.first(), Some(&(key::ALIAS | key::RECORD | key::ROW)));
            let Some(value) = (if is_shared_kind { self.index.get(Cf::Table, key)? } else { None })
            else {
                continue;
            };
            if key[0] == key::ROW && !is_shared(key, &value) {
                continue;
            }
            bytes += key.len() + value.len();
            if bytes > limit::ENTRIES_BYTES && !entries.is_empty() {
                break;
            }
            let used = self.last_use(key)?;
            entries.push(Entry { key: key.clone(), value, used });
        }
        Ok(entries)
    }

    /// Takes an entry from another node. A record or an alias only when it is newer than what is
    /// here; a row in any case.
    pub fn take_entry(&self, entry: &Entry) -> Result<Taken, StoreError> {
        let Entry { key, value, used } = entry;
        let wrong = || StoreError::Corrupt {
            what: "An entry of another cache node".to_owned(),
            detail: "it can't be read".to_owned(),
        };
        let scope_and_id = || {
            let scope: Scope = key::scope_of(key)?;
            let id: [u8; 32] = key.get(key.len().checked_sub(32)?..)?.try_into().ok()?;
            Some((scope, id))
        };
        let taken = match key.first() {
            Some(&key::RECORD) => {
                let (scope, id) = scope_and_id().ok_or_else(wrong)?;
                let record = Record::from_bytes(value).ok_or_else(wrong)?;
                let trees: Vec<TreeId> = record.layers.iter().map(|layer| layer.0).collect();
                if !self.lacking_trees(&trees)?.is_empty() {
                    return Ok(Taken::Incomplete);
                }
                match self.index.get(Cf::Table, key)?.and_then(|old| Record::from_bytes(&old)) {
                    Some(old) if old.version >= record.version => return Ok(Taken::Older),
                    _ => self.put_record(&scope, &ContentKey::from_bytes(id), &record, None)?,
                }
                Taken::Kept
            }
            Some(&key::ALIAS) => {
                let (scope, id) = scope_and_id().ok_or_else(wrong)?;
                let alias = Alias::from_bytes(value).ok_or_else(wrong)?;
                if !self.index.has(Cf::Table, &key::record(&scope, &alias.key))? {
                    return Ok(Taken::Incomplete);
                }
                match self.index.get(Cf::Table, key)?.and_then(|old| Alias::from_bytes(&old)) {
                    Some(old) if old.version >= alias.version => return Ok(Taken::Older),
                    _ => self.put_alias(&scope, &DefKey::from_bytes(id), &alias)?,
                }
                return Ok(Taken::Kept);
            }
            Some(&key::ROW) if is_shared(key, value) => {
                let (table, own) = key::row_of(key).ok_or_else(wrong)?;
                match self.put_row(table, own, value) {
                    Err(StoreError::Row { .. }) => return Ok(Taken::Incomplete),
                    other => other?,
                }
                Taken::Kept
            }
            _ => return Err(wrong()),
        };
        if let Some(used) = used {
            self.uses.note(key, *used);
        }
        Ok(taken)
    }

    /// Deletes entries that have these values, and the aliases of records among them, unless they
    /// were used since the oldest pin was taken. Answers how many.
    pub fn forget(&self, entries: &[Forgotten]) -> Result<u64, StoreError> {
        let _turn = super::lock(&self.collecting);
        self.check_poison()?;
        let collecting = {
            let _gate = self.gate_alone();
            self.touches.begin()
        };
        let named: HashSet<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
        let aliases = match named.iter().any(|key| key.first() == Some(&key::RECORD)) {
            true => self.aliases_of_records()?,
            false => Vec::new(),
        };
        let _gate = self.gate_alone();
        let mut batch = self.index.batch();
        let mut gone: HashSet<&[u8]> = HashSet::new();
        for Forgotten { key, hash } in entries {
            let is_shared = match (key.first(), self.index.get(Cf::Table, key)?) {
                (_, None) => false,
                (_, Some(value)) if value_hash(&value) != *hash => false,
                (Some(&(key::RECORD | key::ALIAS)), Some(_)) => true,
                (Some(&key::ROW), Some(value)) => is_shared(key, &value),
                _ => false,
            };
            if is_shared && !collecting.has_key(key) {
                self.uses.forget(key);
                batch.delete(Cf::Table, key);
                batch.delete(Cf::Table, &key::used(key));
                gone.insert(key);
            }
        }
        for (alias, record) in &aliases {
            if record.as_ref().is_some_and(|record| gone.contains(&record[..])) {
                batch.delete(Cf::Table, alias);
            }
        }
        batch.commit(Sync::No)?;
        Ok(gone.len() as u64)
    }
}
