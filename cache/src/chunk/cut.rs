//! Where a blob is cut: FastCDC 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for
//! Data Deduplication Based Storage Systems"), with the sizes of [`limit`].
//!
//! A cut depends on the bytes since the cut before it. So after a change the cuts are soon the old
//! ones again: within about two chunks.

use fastcdc::v2020::FastCDC;
use proto::chunk::{ChunkList, ChunkListError};
use proto::id::BlobId;
use proto::limit;
use rayon::prelude::*;
use std::io::{self, Read};

/// Bytes that are looked at at once: some chunks, for all processors to hash.
const BUFFER_BYTES: usize = 4 * limit::CHUNK_BYTES_MAX;

/// Why something could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is too large.
    #[error(transparent)]
    List(#[from] ChunkListError),
}

/// Reads all of `reader`, hashes it as a whole and cuts it. Holds a few chunks in memory.
pub fn cut(mut reader: impl Read) -> Result<ChunkList, CutError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut filled, mut size) = (0, 0u64);
    let mut chunks: Vec<(BlobId, u32)> = Vec::new();
    let mut whole = blake3::Hasher::new();
    loop {
        let rest = fill(&mut reader, &mut buffer, &mut filled)?;
        let lens = lengths(&buffer[..filled], rest, &SIZES);
        let mut at = 0;
        let pieces: Vec<&[u8]> = lens
            .iter()
            .map(|len| {
                at += len;
                &buffer[at - len..at]
            })
            .collect();
        let ids: Vec<BlobId> = pieces.par_iter().map(|piece| BlobId::of(piece)).collect();
        whole.update_rayon(&buffer[..at]);
        chunks.extend(ids.into_iter().zip(lens.iter().map(|len| *len as u32)));
        size += at as u64;
        if size > limit::CHUNKED_BLOB_BYTES_MAX {
            return Err(ChunkListError::TooLarge { bytes: size }.into());
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if rest == Rest::Ended {
            return Ok(ChunkList::new(whole.finalize().into(), size, chunks.into_iter())?);
        }
    }
}

/// Whether more bytes come after those in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Follows,
    Ended,
}

/// Fills the buffer up.
fn fill(reader: &mut impl Read, buffer: &mut [u8], filled: &mut usize) -> io::Result<Rest> {
    while *filled < buffer.len() {
        match reader.read(&mut buffer[*filled..]) {
            Ok(0) => return Ok(Rest::Ended),
            Ok(n) => *filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Rest::Follows)
}

/// Sizes of chunks in bytes.
struct Sizes {
    min: usize,
    average: usize,
    max: usize,
}

const SIZES: Sizes = Sizes {
    min: limit::CHUNK_BYTES_MIN,
    average: limit::CHUNK_BYTES_AVERAGE,
    max: limit::CHUNK_BYTES_MAX,
};

/// The lengths of the chunks at the beginning of `bytes`: those that what follows can't change.
fn lengths(bytes: &[u8], rest: Rest, sizes: &Sizes) -> Vec<usize> {
    let cutter = FastCDC::new(bytes, sizes.min, sizes.average, sizes.max);
    let (mut lengths, mut at) = (Vec::new(), 0);
    while at < bytes.len() && (rest == Rest::Ended || bytes.len() - at >= sizes.max) {
        let (_, end) = cutter.cut(at, bytes.len() - at);
        lengths.push(end - at);
        at = end;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Small ones, so that a little data has many chunks.
    const SMALL: Sizes = Sizes { min: 1 << 10, average: 4 << 10, max: 16 << 10 };

    fn content(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Gives a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(self.1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn the_list_is_of_the_bytes() {
        for len in [0, 1, SIZES.min, SIZES.max, BUFFER_BYTES, 3 * BUFFER_BYTES + 12_345] {
            let bytes = content(len as u64, len);
            let list = cut(&bytes[..]).unwrap();
            assert_eq!((list.blob(), list.size()), (BlobId::of(&bytes), len as u64));
            for chunk in list.chunks() {
                let at = chunk.offset as usize;
                assert_eq!(BlobId::of(&bytes[at..at + chunk.len as usize]), chunk.id);
            }
            assert_eq!(cut(Trickle(&bytes, 77_777)).unwrap(), list, "{len}");
        }
    }

    /// Machines that cut otherwise share nothing: the cuts are a part of what they agree on.
    #[test]
    fn the_cuts_are_where_they_always_were() {
        let bytes = content(1, 8 << 20);
        assert_eq!(lengths(&bytes, Rest::Ended, &SIZES), CUTS);
        let zeros = vec![0; 5 << 20];
        let list = cut(&zeros[..]).unwrap();
        let lengths: Vec<u32> = list.chunks().iter().map(|chunk| chunk.len).collect();
        assert_eq!(lengths, [2 << 20, 2 << 20, 1 << 20]);
    }

    const CUTS: [usize; 12] = [
        491_952, 1_049_634, 651_579, 532_654, 538_320, 914_574, 606_811, 684_887, 395_759, 578_495,
        807_544, 1_136_399,
    ];

    #[test]
    fn what_can_not_be_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        assert!(matches!(cut(Broken), Err(CutError::Io(_))));
    }

    /// A change of some bytes: at a place, so many go, so many come.
    type Edit = (usize, usize, usize);

    /// Applies the edits from the last to the first; answers the ranges that are new.
    fn apply(bytes: &mut Vec<u8>, edits: &BTreeSet<Edit>) -> Vec<std::ops::Range<usize>> {
        let mut new: Vec<std::ops::Range<usize>> = Vec::new();
        let mut before = usize::MAX;
        for (n, (at, gone, come)) in edits.iter().enumerate().rev() {
            let at = (*at).min(bytes.len()).min(before);
            let end = (at + gone).min(before).min(bytes.len());
            bytes.splice(at..end, content(1000 + n as u64, *come));
            for range in &mut new {
                *range = range.start + come - (end - at)..range.end + come - (end - at);
            }
            new.push(at..at + come);
            before = at;
        }
        new
    }

    fn ids(bytes: &[u8]) -> Vec<(usize, usize, BlobId)> {
        let mut at = 0;
        let lengths = lengths(bytes, Rest::Ended, &SMALL).into_iter();
        lengths
            .map(|len| {
                at += len;
                (at - len, at, BlobId::of(&bytes[at - len..at]))
            })
            .collect()
    }

    /// In random data the cuts meet again at the next place where the strict half of the rule finds
    /// one, unless that is too near to a cut: 1 in `2 * average` bytes is such a place, and most of
    /// them count. That none of 40 counts does not happen.
    const MEET_BYTES: usize = 40 * 2 * SMALL.average;

    proptest! {
        #[test]
        fn all_chunks_have_their_sizes(seed in any::<u64>(), len in 0usize..300_000) {
            let lengths = lengths(&content(seed, len), Rest::Ended, &SMALL);
            prop_assert_eq!(lengths.iter().sum::<usize>(), len);
            for (i, one) in lengths.iter().enumerate() {
                prop_assert!(*one <= SMALL.max && (*one >= SMALL.min || i + 1 == lengths.len()));
            }
        }

        #[test]
        fn what_follows_does_not_move_the_cuts(seed in any::<u64>(), cut in 0usize..200_000) {
            let bytes = content(seed, 200_000);
            let all = lengths(&bytes, Rest::Ended, &SMALL);
            let some = lengths(&bytes[..cut], Rest::Follows, &SMALL);
            prop_assert_eq!(&all[..some.len()], &some[..]);
            let looked_at: usize = some.iter().sum();
            prop_assert!(cut - looked_at < SMALL.max);
        }

        #[test]
        fn what_is_new_is_near_what_changed(
            seed in any::<u64>(),
            edits in prop::collection::btree_set((0usize..2 << 20, 0usize..50_000, 0usize..50_000), 0..5),
        ) {
            let old = content(seed, 2 << 20);
            let known: BTreeSet<BlobId> = ids(&old).into_iter().map(|(_, _, id)| id).collect();
            let mut bytes = old;
            let new = apply(&mut bytes, &edits);
            for (start, end, id) in ids(&bytes) {
                let near = new.iter().any(|range| {
                    end >= range.start && start <= range.end + MEET_BYTES
                });
                prop_assert!(known.contains(&id) || near, "{start}..{end} of {new:?}");
            }
        }
    }
}
