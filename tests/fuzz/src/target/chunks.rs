//! Lists of chunks.

use super::Target;
use proto::chunk::ChunkList;
use proto::id::BlobId;
use proto::limit;

pub struct Chunks;

const WORDS: &[&[u8]] = &[
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x01\0\0\0\0\0\0\0",
    b"\0\0\x02\0",
    b"\xff\xff\x01\0",
    b"\0\0\x20\0",
    b"\x01\0\x20\0",
    b"\0\0\0\0",
    b"\x01",
    b"\x02",
];

impl Target for Chunks {
    fn name(&self) -> &'static str {
        "chunks"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let (min, max) = (limit::CHUNK_BYTES_MIN as u32, limit::CHUNK_BYTES_MAX as u32);
        let list = |lens: &[u32]| {
            let size = lens.iter().map(|len| u64::from(*len)).sum();
            let chunks = lens.iter().map(|len| (BlobId::of(&len.to_le_bytes()), *len));
            ChunkList::new(BlobId::of(b"blob"), size, chunks).expect("a list").encode()
        };
        vec![list(&[]), list(&[1]), list(&[min, max, 7]), list(&[max; 3])]
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let Ok(list) = ChunkList::decode(input) else { return false };
        // There is one encoding of a list only.
        assert!(list.encode() == input, "it was read, and written otherwise");
        let mut end = 0;
        for chunk in list.chunks() {
            assert_eq!(chunk.offset, end, "a gap between chunks");
            assert!(chunk.len as usize <= limit::CHUNK_BYTES_MAX);
            end += u64::from(chunk.len);
        }
        assert_eq!(end, list.size());
        true
    }
}
