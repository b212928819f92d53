//! What a blob can be sent from, chunk by chunk.

use super::cut::{CutError, cut};
use super::plan::ChunkPlace;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use proto::chunk::ChunkList;
use proto::id::BlobId;
use proto::limit;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Has a blob, and knows its chunks. The methods block, and verify what they answer.
pub trait ChunkSource: Send + Sync {
    /// Of which chunks the blob is made.
    fn chunk_list(&self, id: &BlobId) -> Result<ChunkList, StoreError>;

    /// A chunk's bytes, which are at that place.
    fn chunk_bytes(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError>;
}

impl<S: Store + ?Sized> ChunkSource for S {
    fn chunk_list(&self, id: &BlobId) -> Result<ChunkList, StoreError> {
        self.chunks(id)
    }

    fn chunk_bytes(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError> {
        self.read_chunk(id, at)
    }
}

/// A file that is in no store: of a build context, on the machine of whoever builds.
#[derive(Debug)]
pub struct ChunkedFile {
    path: PathBuf,
    file: File,
    list: ChunkList,
}

impl ChunkedFile {
    /// Reads and cuts the file. What is written to it afterwards makes it a source of nothing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("Opening", path))?;
        let list = cut(&file).map_err(|error| match error {
            CutError::Io(error) => StoreError::io("Reading", path)(error),
            CutError::List(why) => StoreError::io("Cutting", path)(std::io::Error::other(why)),
        })?;
        Ok(Self { path: path.to_owned(), file, list })
    }

    /// The blob that it is, and its size.
    pub fn blob(&self) -> (BlobId, u64) {
        (self.list.blob(), self.list.size())
    }
}

impl ChunkSource for ChunkedFile {
    fn chunk_list(&self, id: &BlobId) -> Result<ChunkList, StoreError> {
        if self.list.blob() == *id { Ok(self.list.clone()) } else { Err(StoreError::NoBlob(*id)) }
    }

    fn chunk_bytes(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; (at.len as usize).min(limit::CHUNK_BYTES_MAX)];
        let read = self.file.read_exact_at(&mut bytes, at.offset);
        read.map_err(StoreError::io("Reading", &self.path))?;
        if at.blob == self.list.blob() && BlobId::of(&bytes) == *id {
            Ok(bytes.into())
        } else {
            Err(StoreError::NoChunk { chunk: *id, at: *at })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_source_until_it_changes() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        let mut bytes = vec![7; 300_000];
        std::fs::write(&path, &bytes).unwrap();
        let file = ChunkedFile::open(&path).unwrap();
        let (blob, size) = file.blob();
        assert_eq!((blob, size), (BlobId::of(&bytes), 300_000));
        let list = file.chunk_list(&blob).unwrap();
        let chunk = list.chunks()[0];
        let at = ChunkPlace { blob, offset: chunk.offset, len: chunk.len };
        assert_eq!(file.chunk_bytes(&chunk.id, &at).unwrap(), bytes[..chunk.len as usize]);
        let other = file.chunk_list(&BlobId::of(b"other"));
        assert!(matches!(other, Err(StoreError::NoBlob(_))), "{other:?}");
        bytes[0] = 8;
        std::fs::write(&path, &bytes).unwrap();
        let changed = file.chunk_bytes(&chunk.id, &at);
        assert!(matches!(changed, Err(StoreError::NoChunk { .. })), "{changed:?}");
        std::fs::write(&path, b"").unwrap();
        assert!(matches!(file.chunk_bytes(&chunk.id, &at), Err(StoreError::Io { .. })));
        let error = ChunkedFile::open(&temp.path().join("none")).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
}
