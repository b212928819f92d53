//! Records, aliases and rows.

use super::Inner;
use super::batch::Sync;
use super::rocks::Cf;
use super::value::key;
use crate::store::{Persisted, Row, StoreError, Table};
use proto::id::{BlobId, ContentKey, DefKey, Millis, Scope, TreeId};
use proto::record::{Alias, Record};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

impl Inner {
    /// Notes that a record or row was used, for collections by last use and for pins.
    fn note_use(&self, key: &[u8]) {
        self.touches.key(key);
        if self.uses.note(key, (self.hooks().now)()) {
            let mut batch = self.index.batch();
            self.uses.flush(&mut batch);
            if let Err(error) = batch.commit(Sync::No) {
                tracing::warn!(%error, "Last uses could not be written");
            }
        }
    }

    /// What is in the asking scope, and in the trusted one.
    fn scoped<T: Persisted + Send>(
        &self,
        scope: &Scope,
        keys: impl Fn(&Scope) -> Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<(Vec<u8>, Option<T>)>>, StoreError> {
        let mut scopes = vec![scope.clone(), scope.base()];
        scopes.dedup();
        let one = |scope: &Scope| {
            let keys = keys(scope);
            let values = self.index.values(Cf::Table, &keys)?;
            Ok(keys.into_iter().zip(values).collect())
        };
        scopes.iter().map(one).collect()
    }

    /// See [`crate::store::Store::records`].
    pub fn records(
        &self,
        scope: &Scope,
        ids: &[ContentKey],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let _gate = self.gate();
        let scopes = self.scoped::<Record>(scope, |scope| {
            ids.iter().map(|id| key::record(scope, id)).collect()
        })?;
        let named = scopes.iter().flatten().filter_map(|(_, record)| record.as_ref());
        let trees: HashSet<TreeId> = named.flat_map(|r| r.layers.iter().map(|l| l.0)).collect();
        let trees: Vec<_> = trees.into_iter().collect();
        let heads = self.index.heads(&trees)?;
        let here: HashSet<_> =
            trees.into_iter().zip(heads).filter(|(_, h)| h.is_some()).map(|(id, _)| id).collect();
        let mut answers: Vec<Option<Record>> = vec![None; ids.len()];
        for records in scopes {
            for (answer, (key, record)) in answers.iter_mut().zip(records) {
                let whole = |r: &Record| r.layers.iter().all(|layer| here.contains(&layer.0));
                if answer.is_none()
                    && let Some(record) = record.filter(whole)
                {
                    self.note_use(&key);
                    self.touch_record(&record);
                    *answer = Some(record);
                }
            }
        }
        Ok(answers)
    }

    fn touch_record(&self, record: &Record) {
        self.touches.trees(record.layers.iter().map(|layer| &layer.0));
        self.touches.blobs(&record.log);
    }

    /// See [`crate::store::Store::aliases`].
    pub fn aliases(&self, scope: &Scope, ids: &[DefKey]) -> Result<Vec<Option<Alias>>, StoreError> {
        let _gate = self.gate();
        let scopes = self
            .scoped::<Alias>(scope, |scope| ids.iter().map(|id| key::alias(scope, id)).collect())?;
        let mut answers: Vec<Option<Alias>> = vec![None; ids.len()];
        for aliases in scopes {
            for (answer, (key, alias)) in answers.iter_mut().zip(aliases) {
                if answer.is_none()
                    && let Some(alias) = alias
                {
                    // An alias is kept as long as the record that it leads to.
                    if let Some(scope) = key::scope_of(&key) {
                        self.note_use(&key::record(&scope, &alias.key));
                    }
                    *answer = Some(alias);
                }
            }
        }
        Ok(answers)
    }

    /// See [`crate::store::Store::put_record`].
    pub fn put_record(
        &self,
        scope: &Scope,
        id: &ContentKey,
        record: &Record,
        alias: Option<(&DefKey, &Alias)>,
    ) -> Result<(), StoreError> {
        let value = record.to_bytes();
        let _room = self.reserve(1, value.len() as u64)?;
        // The lock of who compares versions: any will do that is the same for the same record.
        let _lock = self.files.lock(&BlobId::from_bytes(*id.as_bytes()));
        let _gate = self.gate();
        let key = key::record(scope, id);
        let old = self.index.get(Cf::Table, &key)?.and_then(|v| Record::from_bytes(&v));
        if old.is_some_and(|old| old.version > record.version) {
            return Ok(());
        }
        self.note_use(&key);
        self.touch_record(record);
        self.step("index record");
        let mut batch = self.index.batch();
        batch.put(Cf::Table, &key, &value);
        if let Some((def, alias)) = alias {
            batch.put(Cf::Table, &key::alias(scope, def), &alias.to_bytes());
        }
        batch.commit(Sync::No)
    }

    /// Sets an alias whose record is here.
    pub fn put_alias(&self, scope: &Scope, def: &DefKey, alias: &Alias) -> Result<(), StoreError> {
        let value = alias.to_bytes();
        let _room = self.reserve(1, value.len() as u64)?;
        let _gate = self.gate();
        let mut batch = self.index.batch();
        batch.put(Cf::Table, &key::alias(scope, def), &value);
        batch.commit(Sync::No)
    }

    /// When a record or row was used last, as far as that is known.
    pub fn last_use(&self, key: &[u8]) -> Result<Option<Millis>, StoreError> {
        if let Some(time) = self.uses.pending(key) {
            return Ok(Some(time));
        }
        let value = self.index.get(Cf::Table, &key::used(key))?;
        let time = value.and_then(|value| value.try_into().ok().map(u64::from_le_bytes));
        Ok(time.map(Millis))
    }

    /// See [`crate::store::Store::row`].
    pub fn row(&self, table: Table, own: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _gate = self.gate();
        let key = key::row(table, own);
        let value = self.index.get(Cf::Table, &key)?;
        if let Some(value) = &value {
            self.use_row(table, own, value);
        }
        Ok(value)
    }

    /// The row counts as used, for those tables that are collected by last use.
    fn use_row(&self, table: Table, own: &[u8], value: &[u8]) {
        if !matches!(table, Table::Build | Table::Image) {
            self.note_use(&key::row(table, own));
        }
        self.touch_row(table, own, value);
    }

    /// The row, and all that it names, is kept by pins.
    fn touch_row(&self, table: Table, own: &[u8], value: &[u8]) {
        self.touches.key(&key::row(table, own));
        if let Ok(names) = table.names(own, value) {
            self.touches.blobs(names.blobs.iter().map(|(blob, _)| blob));
            self.touches.trees(&names.trees);
            for layer in names.layers {
                self.touches.key(&key::row(Table::OciBlob, layer.as_bytes()));
            }
        }
    }

    /// See [`crate::store::Store::put_row`].
    pub fn put_row(&self, table: Table, own: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let _room = self.reserve(1, (own.len() + value.len()) as u64)?;
        if let Ok(names) = table.names(own, value) {
            self.learn(&names.blobs.iter().map(|(blob, _)| *blob).collect::<Vec<_>>())?;
        }
        let _gate = self.gate();
        if let Some(why) = self.row_refused(table, own, value)? {
            return Err(StoreError::Row { table, why });
        }
        self.use_row(table, own, value);
        self.step("index row");
        let mut batch = self.index.batch();
        batch.put(Cf::Table, &key::row(table, own), value);
        batch.commit(Sync::No)
    }

    /// Why a row can't be: it is none of its table, or what it names is not here.
    pub fn row_refused(
        &self,
        table: Table,
        own: &[u8],
        value: &[u8],
    ) -> Result<Option<String>, StoreError> {
        let names = match table.names(own, value) {
            Ok(names) => names,
            Err(why) => return Ok(Some(why.to_owned())),
        };
        let ids: Vec<_> = names.blobs.iter().map(|(blob, _)| *blob).collect();
        for ((blob, size), known) in names.blobs.iter().zip(self.known_sizes(&ids)?) {
            match known {
                None => return Ok(Some(format!("blob {blob} is not here"))),
                Some(is) if size.is_some_and(|size| size != is) => {
                    return Ok(Some(format!("blob {blob} has {is} bytes")));
                }
                Some(_) => {}
            }
        }
        let heads = self.index.heads(&names.trees)?;
        let missing = names.trees.iter().zip(heads).find(|(_, head)| head.is_none());
        Ok(missing.map(|(tree, _)| format!("tree {tree} is not here")))
    }

    /// See [`crate::store::Store::delete_row`].
    pub fn delete_row(&self, table: Table, own: &[u8]) -> Result<bool, StoreError> {
        self.check_poison()?;
        let _gate = self.gate();
        let key = key::row(table, own);
        if !self.index.has(Cf::Table, &key)? {
            return Ok(false);
        }
        self.uses.forget(&key);
        let mut batch = self.index.batch();
        batch.delete(Cf::Table, &key);
        batch.delete(Cf::Table, &key::used(&key));
        batch.commit(Sync::No)?;
        Ok(true)
    }

    /// See [`crate::store::Store::rows`].
    pub fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let _gate = self.gate();
        let mut rows = Vec::new();
        self.index.scan(Cf::Table, &key::row(table, prefix), |key, value| {
            if let Some((_, own)) = key::row_of(key) {
                rows.push((own.to_vec(), value.to_vec()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (own, value) in &rows {
            self.touch_row(table, own, value);
        }
        Ok(rows)
    }

    /// All rows of the index under some kind of key.
    pub fn table(&self, kind: u8) -> Result<HashMap<Vec<u8>, Vec<u8>>, StoreError> {
        let mut rows = HashMap::new();
        self.index.scan(Cf::Table, &[kind], |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }
}
