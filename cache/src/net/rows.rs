//! Sizes, pins and rows of a store somewhere else.

use super::blobs::{Blobs, unexpected};
use super::{NetError, Stream};
use proto::id::BlobId;
use proto::wire::blob::{Reply, Request, Table};

/// Keeps what a store somewhere else says or takes, as long as it lives.
#[must_use = "what was used is kept only as long as the pin lives"]
pub struct RemotePin {
    _stream: Stream,
}

impl Blobs {
    /// The sizes of blobs, of those that are there.
    pub async fn sizes(&self, ids: Vec<BlobId>) -> Result<Vec<Option<u64>>, NetError> {
        let count = ids.len();
        match self.ask(&Request::Sizes(ids), &[]).await? {
            Reply::Sizes(sizes) if sizes.len() == count => Ok(sizes),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps what is said or taken from now on.
    pub async fn pin(&self) -> Result<RemotePin, NetError> {
        let mut stream = self.new_stream().await?;
        stream.to.send(&Request::Pin).await?;
        match stream.from.expect::<Reply>().await?.0 {
            Reply::Done => Ok(RemotePin { _stream: stream }),
            Reply::Failed(failure) => Err(NetError::Refused(failure)),
            other => Err(unexpected(&other)),
        }
    }

    /// A row.
    pub async fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, NetError> {
        let rows = self.ask_rows(&Request::Row(table, key.to_vec())).await?;
        Ok(rows.into_iter().next().map(|(_, value)| value))
    }

    /// The rows whose keys begin so.
    pub async fn rows(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, NetError> {
        self.ask_rows(&Request::Rows(table, prefix.to_vec())).await
    }

    async fn ask_rows(&self, request: &Request) -> Result<Vec<(Vec<u8>, Vec<u8>)>, NetError> {
        match self.ask(request, &[]).await? {
            Reply::Rows(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps a row.
    pub async fn put_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), NetError> {
        self.order(&Request::PutRow(table, key.to_vec(), value.to_vec()), &[]).await
    }

    /// Takes a row away.
    pub async fn delete_row(&self, table: Table, key: &[u8]) -> Result<(), NetError> {
        self.order(&Request::DeleteRow(table, key.to_vec()), &[]).await
    }
}
