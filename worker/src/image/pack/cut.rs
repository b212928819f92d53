//! Where a layer's tar is cut into the blocks that are compressed each for itself.
//!
//! Cuts lie between entries and are chosen by the entries themselves, so that a change of one file
//! moves the cuts near it only: all other blocks are the same as before, and are not compressed
//! again (content-defined chunking, as in LBFS, Muthitacharoen et al. 2001; here the entries' heads
//! take the place of its rolling hash). Where a cut lies depends on the bytes of the tar alone.

/// Bytes of a record of a tar.
const RECORD: usize = 512;

/// Cuts a tar. Bytes go in by [`Cutter::push`], blocks come out by [`Cutter::next`].
pub struct Cutter {
    /// Bytes of a block on average.
    target: usize,
    block: Vec<u8>,
    /// Where the next entry's head begins, counted from the block's begin.
    head: u64,
}

impl Cutter {
    /// Blocks have half to one and a half of `target` bytes. The last one may be smaller, and so may
    /// the one before an entry that is large itself, which begins a block: so its own cuts lie at
    /// the same places of it, whatever stands before it.
    pub fn new(target: usize) -> Self {
        let target = target.next_multiple_of(2 * RECORD);
        Self { target, block: Vec::with_capacity(target), head: 0 }
    }

    /// Takes the tar's next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    /// The next block that is whole.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let max = self.target + self.target / 2;
        loop {
            if self.head > max as u64 {
                return (self.block.len() >= max).then(|| self.cut(max));
            }
            let at = self.head as usize;
            let head: &[u8; RECORD] = self.block.get(at..)?.first_chunk()?;
            let entry = entry_bytes(head);
            if at > 0 && self.is_cut(at, head, entry) {
                return Some(self.cut(at));
            }
            self.head += entry;
        }
    }

    /// What is left at the end.
    pub fn rest(self) -> Vec<u8> {
        self.block
    }

    /// Whether a block of `at` bytes ends before this entry. The chance is the larger the longer the
    /// entry is, so that blocks have the same size on average for small files and for large ones.
    fn is_cut(&self, at: usize, head: &[u8; RECORD], entry: u64) -> bool {
        let (target, half) = (self.target as u64, self.target as u64 / 2);
        if entry >= target {
            return true;
        }
        let hash = blake3::hash(head);
        let (drawn, _) = hash.as_bytes().split_first_chunk().expect("it has 32 bytes");
        let drawn = u64::from(u32::from_le_bytes(*drawn));
        at as u64 >= half && (at as u64 + entry > target + half || drawn * half < entry << 32)
    }

    fn cut(&mut self, at: usize) -> Vec<u8> {
        let mut rest = Vec::with_capacity(self.target.max(self.block.len() - at));
        rest.extend_from_slice(&self.block[at..]);
        self.block.truncate(at);
        self.head -= at as u64;
        std::mem::replace(&mut self.block, rest)
    }
}

/// The bytes of an entry, head and padding included. What is no head is passed over: the zeros at
/// the end of a tar, and what only other dialects have.
fn entry_bytes(head: &[u8; RECORD]) -> u64 {
    let size = match head[257..].starts_with(b"ustar") {
        true => tar::Header::from_byte_slice(head).entry_size().unwrap_or(0),
        false => 0,
    };
    let size = size.checked_next_multiple_of(RECORD as u64).filter(|size| *size < 1 << 60);
    RECORD as u64 + size.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const TARGET: usize = 16 << 10;

    /// A tar of files of these sizes, each of which holds its number.
    fn tar_of(files: &[(u32, usize)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, size) in files {
            let bytes: Vec<u8> = name.to_le_bytes().into_iter().cycle().take(*size).collect();
            let mut head = tar::Header::new_ustar();
            head.set_size(*size as u64);
            tar.append_data(&mut head, format!("f{name}"), &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn blocks(tar: &[u8], pieces: usize) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::new(TARGET);
        let mut blocks = Vec::new();
        for piece in tar.chunks(pieces) {
            cutter.push(piece);
            blocks.extend(std::iter::from_fn(|| cutter.next()));
        }
        blocks.push(cutter.rest());
        blocks
    }

    fn files() -> impl Strategy<Value = Vec<(u32, usize)>> {
        let size = prop_oneof![20 => 0usize..3000, 1 => 0usize..200_000];
        prop::collection::vec((any::<u32>(), size), 0..200)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_too_large(files in files(), pieces in 1usize..100_000) {
            let tar = tar_of(&files);
            let whole = blocks(&tar, tar.len());
            prop_assert_eq!(whole.concat(), tar.clone());
            prop_assert!(whole.iter().all(|block| block.len() <= TARGET + TARGET / 2));
            // Not even with bytes that come otherwise.
            prop_assert!(blocks(&tar, pieces) == whole);
        }

        #[test]
        fn any_bytes_are_cut(mut bytes in prop::collection::vec(any::<u8>(), 0..100_000)) {
            prop_assert_eq!(blocks(&bytes, 999).concat(), bytes.clone());
            for record in bytes.chunks_exact_mut(RECORD) {
                record[257..262].copy_from_slice(b"ustar");
            }
            prop_assert_eq!(blocks(&bytes, 999).concat(), bytes);
        }
    }

    #[test]
    fn a_changed_file_changes_the_blocks_beside_it_only() {
        let mut files: Vec<_> = (0..2000).map(|n| (n, (n as usize * 7919) % 3000)).collect();
        files[500].1 = 100_000;
        let before = blocks(&tar_of(&files), 4096);
        assert!((100..400).contains(&before.len()), "{}", before.len());
        for changed in [0, 3, 499, 500, 501, 1234, 1999] {
            let mut files = files.clone();
            files[changed].1 += 777;
            let known: HashSet<_> = before.iter().collect();
            let after = blocks(&tar_of(&files), 4096);
            let new = after.iter().filter(|block| !known.contains(block)).count();
            assert!(new <= 8, "file {changed}: {new} of {} blocks", after.len());
        }
    }
}
