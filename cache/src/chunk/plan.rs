//! What a blob is put together from, without IO.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use proto::chunk::ChunkList;
use proto::id::BlobId;

/// Where the bytes of a chunk are: in a blob that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The blob.
    pub blob: BlobId,
    /// Where in it they begin.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
}

/// From where one chunk comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// From a blob that is here.
    Here(ChunkPlace),
    /// It is the chunk before it once more, as in a file that is mostly zeros.
    Repeat,
    /// From somewhere else.
    Fetch,
}

/// Says for each chunk where it comes from; `have` knows what is here.
pub fn plan(list: &ChunkList, have: impl Fn(&BlobId) -> Option<ChunkPlace>) -> Vec<Step> {
    let mut before: Option<BlobId> = None;
    let mut step = |id: BlobId| {
        let repeats = before.replace(id) == Some(id);
        match have(&id) {
            _ if repeats => Step::Repeat,
            Some(place) => Step::Here(place),
            None => Step::Fetch,
        }
    };
    list.chunks().iter().map(|chunk| step(chunk.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::limit::CHUNK_BYTES_MIN;
    use std::collections::BTreeMap;

    const LEN: u32 = CHUNK_BYTES_MIN as u32;

    fn list(names: &[u8]) -> ChunkList {
        let chunks = names.iter().map(|name| (BlobId::of(&[*name]), LEN));
        ChunkList::new(BlobId::of(names), u64::from(LEN) * names.len() as u64, chunks).unwrap()
    }

    /// Where the chunks of a list are.
    fn places(list: &ChunkList) -> BTreeMap<BlobId, ChunkPlace> {
        let place = |offset| ChunkPlace { blob: list.blob(), offset, len: LEN };
        list.chunks().iter().map(|chunk| (chunk.id, place(chunk.offset))).collect()
    }

    #[test]
    fn what_is_here_is_not_fetched() {
        let have = places(&list(b"abcd"));
        let place = |n: u64| {
            Step::Here(ChunkPlace {
                blob: BlobId::of(b"abcd"),
                offset: n * u64::from(LEN),
                len: LEN,
            })
        };
        let steps = plan(&list(b"abxxxd"), |id| have.get(id).copied());
        let expected = [place(0), place(1), Step::Fetch, Step::Repeat, Step::Repeat, place(3)];
        assert_eq!(steps, expected);
        assert_eq!(plan(&list(b""), |_| None), []);
    }

    proptest! {
        #[test]
        fn the_steps_make_the_blob(
            old in prop::collection::vec(0u8..6, 0..20),
            new in prop::collection::vec(0u8..9, 0..20),
        ) {
            let (from, to) = (list(&old), list(&new));
            let have = places(&from);
            let mut made: Vec<u8> = Vec::new();
            for (step, name) in plan(&to, |id| have.get(id).copied()).into_iter().zip(&new) {
                match step {
                    Step::Here(place) => made.push(old[(place.offset / u64::from(LEN)) as usize]),
                    Step::Repeat => made.push(made[made.len() - 1]),
                    Step::Fetch => {
                        prop_assert!(!old.contains(name));
                        made.push(*name);
                    }
                }
            }
            prop_assert_eq!(made, new);
        }
    }
}
