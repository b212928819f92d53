//! A large blob as a list of chunks.
//!
//! A blob stays whole wherever it is kept. Its [`ChunkList`] says which pieces it is made of, so
//! that whoever has some of them need not be sent those. Where the cuts are is for the content to
//! decide (FastCDC), so that a change moves the cuts beside it and no others; the sizes are those
//! of [`limit`].
//!
//! Two machines may cut one blob differently, and each list is right: what a list promises is that
//! its chunks, one behind the other, are the blob.
//!
//! # Encoding
//!
//! ```text
//! list  = version:u8 = 1, blob:32, size:u64, count:u64, chunk*
//! chunk = id:32, length:u32
//! ```

use crate::canon::{Canon, Reader};
use crate::id::BlobId;
use crate::limit;
use rkyv::{Archive, Deserialize, Serialize};

const VERSION: u8 = 1;

/// Bytes of a list's encoding before its chunks.
const HEAD_BYTES: usize = 1 + 32 + 8 + 8;

/// Bytes of one chunk in a list's encoding.
const ENTRY_BYTES: usize = 32 + 4;

/// Bytes of a list's encoding, at most.
pub const LIST_BYTES_MAX: usize = HEAD_BYTES + ENTRY_BYTES * limit::CHUNKS_MAX;

/// Some bytes of a blob.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct Chunk {
    /// BLAKE3 of the bytes.
    pub id: BlobId,
    /// Where in the blob they begin.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
}

/// What a blob is made of, in order. Checked: the chunks are as large as chunks may be, and add up
/// to the blob's size. That their bytes are the blob's is known only when they were put together
/// and hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    blob: BlobId,
    size: u64,
    chunks: Vec<Chunk>,
}

/// Why something is no list of chunks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkListError {
    /// The blob is too large.
    #[error(
        "{bytes} bytes are too many to be cut into chunks: at most {} are allowed",
        limit::CHUNKED_BLOB_BYTES_MAX
    )]
    TooLarge {
        /// Bytes of the blob.
        bytes: u64,
    },
    /// There are too many chunks.
    #[error("{count} chunks are too many for one blob: at most {} are allowed", limit::CHUNKS_MAX)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A chunk is too small or too large.
    #[error("Chunk {index} has {bytes} bytes, which no chunk in its place may have")]
    Length {
        /// Which chunk, counted from 0.
        index: usize,
        /// Bytes of it.
        bytes: u32,
    },
    /// The chunks do not add up to the blob.
    #[error("The chunks have {sum} bytes in all, the blob has {size}")]
    Sum {
        /// Bytes of all chunks.
        sum: u64,
        /// Bytes of the blob.
        size: u64,
    },
    /// The bytes are no encoding of a list.
    #[error("The list of chunks can't be read: {0}")]
    Encoding(&'static str),
}

impl ChunkList {
    /// The list of these chunks (id and length), if they are as large as chunks may be and have
    /// `size` bytes in all.
    pub fn new(
        blob: BlobId,
        size: u64,
        chunks: impl ExactSizeIterator<Item = (BlobId, u32)>,
    ) -> Result<Self, ChunkListError> {
        let count = chunks.len();
        if size > limit::CHUNKED_BLOB_BYTES_MAX {
            return Err(ChunkListError::TooLarge { bytes: size });
        }
        if count > limit::CHUNKS_MAX {
            return Err(ChunkListError::TooMany { count });
        }
        let mut offset = 0;
        let mut list = Vec::with_capacity(count);
        for (index, (id, len)) in chunks.enumerate() {
            let min = if index + 1 == count { 1 } else { limit::CHUNK_BYTES_MIN };
            if !(min..=limit::CHUNK_BYTES_MAX).contains(&(len as usize)) {
                return Err(ChunkListError::Length { index, bytes: len });
            }
            list.push(Chunk { id, offset, len });
            offset += u64::from(len);
        }
        if offset != size {
            return Err(ChunkListError::Sum { sum: offset, size });
        }
        Ok(Self { blob, size, chunks: list })
    }

    /// The blob.
    pub fn blob(&self) -> BlobId {
        self.blob
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its chunks, in order. An empty blob has none.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The first `count` chunks, as the list of what they are together: `blob`.
    pub fn prefix(&self, count: usize, blob: BlobId) -> Self {
        let chunks = self.chunks[..count].to_vec();
        let size = chunks.last().map_or(0, |chunk| chunk.offset + u64::from(chunk.len));
        Self { blob, size, chunks }
    }

    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + ENTRY_BYTES * self.chunks.len());
        let mut sink = |some: &[u8]| bytes.extend_from_slice(some);
        let mut canon = Canon::new(&mut sink);
        canon.tag(VERSION).raw(self.blob.as_bytes()).u64(self.size);
        canon.list(self.chunks.iter(), |canon, chunk| {
            canon.raw(chunk.id.as_bytes()).u32(chunk.len);
        });
        bytes
    }

    /// Reads an encoding, and checks all that [`ChunkList::new`] checks.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkListError> {
        let short = ChunkListError::Encoding("it ends too early");
        let mut reader = Reader::new(bytes);
        if reader.tag() != Some(VERSION) {
            return Err(ChunkListError::Encoding("it is of another version"));
        }
        let blob = BlobId::from_bytes(reader.hash32().ok_or(short.clone())?);
        let size = reader.u64().ok_or(short.clone())?;
        let count = reader.u64().ok_or(short.clone())?;
        let count = usize::try_from(count).ok().filter(|count| *count <= limit::CHUNKS_MAX);
        let count = count.ok_or(ChunkListError::Encoding("it has too many chunks"))?;
        if reader.remaining() != count * ENTRY_BYTES {
            return Err(ChunkListError::Encoding("it is shorter or longer than its chunks"));
        }
        let mut entry = || Some((BlobId::from_bytes(reader.hash32()?), reader.u32()?));
        Self::new(blob, size, (0..count).map(|_| entry().expect("its length was looked at")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN: u32 = limit::CHUNK_BYTES_MIN as u32;
    const MAX: u32 = limit::CHUNK_BYTES_MAX as u32;

    fn id(n: usize) -> BlobId {
        BlobId::of(&n.to_le_bytes())
    }

    fn list(lens: &[u32]) -> Result<ChunkList, ChunkListError> {
        let size = lens.iter().map(|len| u64::from(*len)).sum();
        let chunks: Vec<_> = lens.iter().enumerate().map(|(n, len)| (id(n), *len)).collect();
        ChunkList::new(id(usize::MAX), size, chunks.into_iter())
    }

    #[test]
    fn the_chunks_lie_one_behind_the_other() {
        let list = list(&[MIN, MAX, 1]).unwrap();
        let offsets: Vec<u64> = list.chunks().iter().map(|chunk| chunk.offset).collect();
        assert_eq!(offsets, [0, u64::from(MIN), u64::from(MIN + MAX)]);
        assert_eq!(list.size(), u64::from(MIN + MAX) + 1);
        let prefix = list.prefix(2, id(7));
        assert_eq!((prefix.blob(), prefix.size()), (id(7), u64::from(MIN + MAX)));
        assert_eq!(prefix.chunks(), &list.chunks()[..2]);
    }

    #[test]
    fn only_chunks_of_the_right_sizes_are_a_list() {
        assert!(list(&[]).is_ok());
        assert!(list(&[MAX, MAX, MIN - 1]).is_ok(), "the last one may be small");
        let wrong = |index, bytes| Err(ChunkListError::Length { index, bytes });
        assert_eq!(list(&[MIN - 1, MAX]), wrong(0, MIN - 1));
        assert_eq!(list(&[MAX, MAX + 1]), wrong(1, MAX + 1));
        assert_eq!(list(&[MAX, 0]), wrong(1, 0));
        let one = || [(id(0), MIN)].into_iter();
        let sum = ChunkList::new(id(1), 5, one());
        assert_eq!(sum, Err(ChunkListError::Sum { sum: MIN.into(), size: 5 }));
        let bytes = limit::CHUNKED_BLOB_BYTES_MAX + 1;
        assert_eq!(ChunkList::new(id(1), bytes, one()), Err(ChunkListError::TooLarge { bytes }));
        let count = limit::CHUNKS_MAX + 1;
        let many = std::iter::repeat_n((id(0), MIN), count);
        assert_eq!(ChunkList::new(id(1), 5, many), Err(ChunkListError::TooMany { count }));
    }

    #[test]
    fn the_largest_blob_fits_into_the_longest_list() {
        let many = std::iter::repeat_n((id(0), MIN), limit::CHUNKS_MAX);
        let list = ChunkList::new(id(1), limit::CHUNKED_BLOB_BYTES_MAX, many).unwrap();
        assert_eq!(list.encode().len(), LIST_BYTES_MAX);
    }

    #[test]
    fn another_count_or_version_is_refused() {
        let bytes = list(&[MIN, 5]).unwrap().encode();
        for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[], &bytes[..40]] {
            assert!(matches!(ChunkList::decode(wrong), Err(ChunkListError::Encoding(_))));
        }
        let mut other = bytes.clone();
        other[0] += 1;
        assert!(matches!(ChunkList::decode(&other), Err(ChunkListError::Encoding(_))));
        let mut huge = bytes;
        huge[41..49].fill(0xff);
        assert!(matches!(ChunkList::decode(&huge), Err(ChunkListError::Encoding(_))));
    }

    proptest! {
        #[test]
        fn a_list_reads_what_it_wrote(
            mut lens in prop::collection::vec(MIN..=MAX, 0..20),
            last in 1..=MAX,
        ) {
            lens.push(last);
            let list = list(&lens).unwrap();
            prop_assert_eq!(ChunkList::decode(&list.encode()), Ok(list));
        }

        #[test]
        fn what_can_be_read_has_one_encoding(at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = list(&[MIN, MAX, 3]).unwrap().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(list) = ChunkList::decode(&bytes) {
                prop_assert_eq!(list.encode(), bytes);
            }
        }
    }
}
