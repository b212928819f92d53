//! Records, aliases, rows and past builds: what all nodes know.

use super::{Cluster, nobody};
use crate::net::NetError;
use crate::net::blobs::Blobs;
use proto::id::{ContentKey, DefKey, Scope};
use proto::record::{Alias, Record};
use proto::wire::blob::{PutRecord, Table};
use proto::wire::cluster::CacheState;
use std::future::Future;

impl Cluster {
    /// See [`Blobs::records`]. A record that a serving node lacks does not count.
    pub async fn records(
        &self,
        scope: &Scope,
        keys: Vec<ContentKey>,
    ) -> Result<Vec<Option<Record>>, NetError> {
        let ask = |client: Blobs| {
            let keys = keys.clone();
            async move { client.records(scope, keys).await }
        };
        self.agreed(ask, |a, b| if b.version > a.version { b } else { a }).await
    }

    /// See [`Blobs::aliases`].
    pub async fn aliases(
        &self,
        scope: &Scope,
        keys: Vec<DefKey>,
    ) -> Result<Vec<Option<Alias>>, NetError> {
        let ask = |client: Blobs| {
            let keys = keys.clone();
            async move { client.aliases(scope, keys).await }
        };
        self.agreed(ask, |a, b| if b.version > a.version { b } else { a }).await
    }

    /// What all nodes know that serve and answer. One that failed lately is not asked where others
    /// are.
    async fn agreed<T, F, R>(
        &self,
        ask: F,
        newer: impl Fn(T, T) -> T,
    ) -> Result<Vec<Option<T>>, NetError>
    where
        F: Fn(Blobs) -> R,
        R: Future<Output = Result<Vec<Option<T>>, NetError>>,
    {
        let view = self.view();
        let nodes = view.placement.all(|state| state == CacheState::Serving);
        let (nodes, _) = self.without_suspects(&view, nodes);
        let mut agreed: Option<Vec<Option<T>>> = None;
        let mut failed = nobody("say what was built");
        for (_, answer) in self.on_all(&view, &nodes, |_, client| ask(client)).await {
            match (answer, agreed.take()) {
                (Ok(answer), None) => agreed = Some(answer),
                (Ok(answer), Some(so_far)) => {
                    let both = so_far.into_iter().zip(answer);
                    agreed = Some(both.map(|(a, b)| Some(newer(a?, b?))).collect());
                }
                (Err(error), so_far) => {
                    failed = error;
                    agreed = so_far;
                }
            }
        }
        agreed.ok_or(failed)
    }

    /// See [`Blobs::put_record`]. Nodes that could not take it are [`Cluster::stale`].
    pub async fn put_record(&self, record: PutRecord) -> Result<(), NetError> {
        let put = |_, client: Blobs| {
            let record = record.clone();
            async move { client.put_record(record).await }
        };
        self.write("take results", put).await
    }

    /// See [`Blobs::put_build`].
    pub async fn put_build(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), NetError> {
        let put = |_, client: Blobs| {
            let (key, value) = (key.clone(), value.clone());
            async move { client.put_build(key, value).await }
        };
        self.write("take the history of builds", put).await
    }

    /// See [`Blobs::builds`].
    pub async fn builds(&self, count: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>, NetError> {
        let view = self.view();
        let ask = |client: Blobs| async move { client.builds(count).await };
        self.on_one(&view, self.row_readers(&view), "give the history of builds", ask).await
    }

    /// See [`Blobs::row`].
    pub async fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, NetError> {
        let view = self.view();
        let ask = |client: Blobs| async move { client.row(table, key).await };
        self.on_one(&view, self.row_readers(&view), "give rows", ask).await
    }

    /// See [`Blobs::rows`].
    pub async fn rows(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, NetError> {
        let view = self.view();
        let ask = |client: Blobs| async move { client.rows(table, prefix).await };
        self.on_one(&view, self.row_readers(&view), "give rows", ask).await
    }

    /// See [`Blobs::put_row`].
    pub async fn put_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), NetError> {
        let put = |_, client: Blobs| async move { client.put_row(table, key, value).await };
        self.write("take rows", put).await
    }

    /// See [`Blobs::delete_row`].
    pub async fn delete_row(&self, table: Table, key: &[u8]) -> Result<(), NetError> {
        let delete = |_, client: Blobs| async move { client.delete_row(table, key).await };
        self.write("take rows away", delete).await
    }
}
